//! The folder that a Distribution is extracted to.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::Dir;

use crate::extract::disk::{self, Disk, Found};
use crate::extract::error::ExtractError;
use crate::extract::step::Step;

/// What to do about a target that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// It is made, with the folders above it, when the first extraction is about to write.
    Missing,
    /// That is an error.
    Never,
}

/// An open target. What happens to its path later does not matter: the folder that was opened stays the target.
pub struct Target {
    path: PathBuf,
    state: Mutex<State>,
}

enum State {
    Open(Arc<Dir>),
    /// The innermost folder that exists, and the names below it that do not.
    Missing(Arc<Dir>, Vec<OsString>),
}

/// The folders that were made for a target, outermost first, so that they can be taken away again.
pub(super) struct Made(Vec<(Arc<Dir>, OsString)>);

impl Target {
    /// Opens the target at `path`, from the top and through no symbolic link. Nothing is written.
    ///
    /// # Errors
    /// [`ExtractError::TargetIsFile`] or [`ExtractError::TargetIsLink`] when it, or something above it, is one;
    /// [`ExtractError::TargetMissing`] when it does not exist and is never created; [`ExtractError::Denied`] or
    /// [`ExtractError::Io`] when it cannot be opened.
    pub fn open(path: &Path, create: Create) -> Result<Self, ExtractError> {
        let failed = |error| ExtractError::io("opening the target", path.display(), error);
        let start = if path.has_root() { "/" } else { "." };
        let mut folder = disk::pass_folder(rustix::fs::CWD, start.as_bytes()).map_err(failed)?;
        let mut done = PathBuf::from(start);
        let mut components = path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        while let Some(part) = components.next() {
            let name = part.as_os_str();
            done.push(name);
            match disk::pass_folder(&folder, name.as_bytes()) {
                Ok(next) => folder = next,
                Err(error) if error.kind() == io::ErrorKind::NotFound && create == Create::Missing => {
                    let mut names = vec![name.to_owned()];
                    names.extend(components.map(|part| part.as_os_str().to_owned()));
                    // Going up from a folder that does not exist yet makes no sense, and `..` cannot be made.
                    if names.iter().any(|name| name == "..") {
                        return Err(failed(error));
                    }
                    let above = Arc::new(reopen(&folder).map_err(failed)?);
                    return Ok(Self { path: path.to_owned(), state: Mutex::new(State::Missing(above, names)) });
                }
                Err(error) => return Err(explain(path, &done, &folder, name.as_bytes(), error)),
            }
        }
        let root = Arc::new(reopen(&folder).map_err(failed)?);
        Ok(Self { path: path.to_owned(), state: Mutex::new(State::Open(root)) })
    }

    /// The path that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The target's handle, if the target exists. One that did not exist when it was opened is looked for again.
    pub(super) fn existing(&self) -> Result<Option<Arc<Dir>>, ExtractError> {
        let mut state = self.state();
        if let State::Missing(above, names) = &*state {
            let mut folder = Arc::clone(above);
            for name in names {
                match disk::open_folder(&*folder, name.as_bytes()) {
                    Ok(next) => folder = Arc::new(next),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(explain(&self.path, Path::new(name), &*folder, name.as_bytes(), error)),
                }
            }
            *state = State::Open(folder);
        }
        Ok(match &*state {
            State::Open(root) => Some(Arc::clone(root)),
            State::Missing(..) => None,
        })
    }

    /// The target, or the innermost folder above it that exists: where its file system can be asked.
    pub(super) fn nearest(&self) -> Arc<Dir> {
        match &*self.state() {
            State::Open(folder) | State::Missing(folder, _) => Arc::clone(folder),
        }
    }

    /// The target's handle; the target is made if it does not exist.
    pub(super) fn create(&self, disk: Disk<'_>) -> Result<(Arc<Dir>, Made), ExtractError> {
        if let Some(root) = self.existing()? {
            return Ok((root, Made(Vec::new())));
        }
        let mut state = self.state();
        let State::Missing(above, names) = &*state else {
            return Err(ExtractError::TargetMissing { target: self.path.clone() });
        };
        let mut made = Made(Vec::new());
        let mut folder = Arc::clone(above);
        for name in names {
            let next = disk
                .create_folder(Step::CreateTarget, &*folder, name.as_bytes(), 0o755)
                .map(|()| made.0.push((Arc::clone(&folder), name.clone())))
                .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
                .and_then(|()| disk::open_folder(&*folder, name.as_bytes()));
            match next {
                Ok(next) => folder = Arc::new(next),
                Err(error) => {
                    made.remove(disk);
                    return Err(ExtractError::io("creating the target", self.path.display(), error));
                }
            }
        }
        *state = State::Open(Arc::clone(&folder));
        Ok((folder, made))
    }

    /// Takes away what [`Target::create`] made, where nobody has put anything in it since.
    pub(super) fn uncreate(&self, disk: Disk<'_>, made: Made) {
        if let Some((above, _)) = made.0.first() {
            let names = made.0.iter().map(|(_, name)| name.clone()).collect();
            *self.state() = State::Missing(Arc::clone(above), names);
            made.remove(disk);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Made {
    fn remove(self, disk: Disk<'_>) {
        for (folder, name) in self.0.into_iter().rev() {
            if disk.remove_folder(Step::RemoveTarget, &*folder, name.as_bytes()).is_err() {
                break;
            }
        }
    }
}

/// A handle that can list and change the folder, from one that can only pass through it.
fn reopen(folder: &OwnedFd) -> io::Result<Dir> {
    disk::open_folder(folder, b".")
}

/// Says what `name` is, if the trouble with it is that it is no folder.
fn explain(target: &Path, component: &Path, folder: impl AsFd, name: &[u8], error: io::Error) -> ExtractError {
    let found = disk::facts_at(folder, name).ok().flatten().map(|facts| facts.found);
    let (target, component) = (target.to_owned(), component.to_owned());
    match found {
        Some(Found::Symlink) => ExtractError::TargetIsLink { target, component },
        Some(Found::File | Found::Other) => ExtractError::TargetIsFile { target, component },
        None if error.kind() == io::ErrorKind::NotFound => ExtractError::TargetMissing { target },
        _ => ExtractError::io("opening the target", component.display(), error),
    }
}
