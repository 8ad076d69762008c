//! A folder as the source of a build.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::OFlags;

use crate::package::{Entry, EntryKind, EntryPath, Skipped, Source, SourceError, SourceFile};

use super::walk::walk;

/// What to do with what cannot be read or distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreadable {
    /// It is an error that names everything of the kind.
    #[default]
    Refuse,
    /// It is left out and named.
    Skip,
}

/// Patterns of paths to leave out, relative to the source: `*` and `?` match within a component, `**` any number of
/// components; a pattern without a slash matches at every depth. What lies in a folder that is left out is left out.
#[derive(Debug, Clone)]
pub struct Exclude(GlobSet);

impl Exclude {
    /// The patterns given.
    ///
    /// # Errors
    /// [`SourceError::Pattern`] names the first that is none.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Self, SourceError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(glob(pattern.as_ref())?);
        }
        let refuse = |error: globset::Error| SourceError::Pattern {
            pattern: error.glob().unwrap_or_default().to_owned(),
            reason: error.kind().to_string(),
        };
        Ok(Self(set.build().map_err(refuse)?))
    }

    pub(super) fn matches(&self, path: &EntryPath) -> bool {
        self.0.is_match(path_of(path))
    }
}

/// The path in terms of the file system.
pub(super) fn path_of(path: &EntryPath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

fn glob(pattern: &str) -> Result<Glob, SourceError> {
    let bare = pattern.strip_suffix('/').unwrap_or(pattern);
    let anchored = match bare.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if bare.contains('/') => bare.to_owned(),
        None => format!("**/{bare}"),
    };
    GlobBuilder::new(&anchored)
        .literal_separator(true)
        .build()
        .map_err(|error| SourceError::Pattern { pattern: pattern.to_owned(), reason: error.kind().to_string() })
}

/// A folder. Symlinks in it are data and never followed; file systems mounted below it are part of it.
#[derive(Debug)]
pub struct FolderSource {
    root: PathBuf,
    exclude: Exclude,
    unreadable: Unreadable,
    /// What each file was when it was listed, by path.
    stamps: RwLock<HashMap<EntryPath, Stamp>>,
}

impl FolderSource {
    /// The folder at `root`.
    #[must_use]
    pub fn new(root: PathBuf, exclude: Exclude, unreadable: Unreadable) -> Self {
        Self { root, exclude, unreadable, stamps: RwLock::default() }
    }
}

impl Source for FolderSource {
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let failed = |source| SourceError::Root { place: self.root.display().to_string(), source };
        // The source itself may be named by a symlink; nothing below it is.
        let root = std::fs::canonicalize(&self.root).map_err(failed)?;
        let metadata = std::fs::symlink_metadata(&root).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        std::fs::read_dir(&root).map_err(failed)?;
        let found = walk(&root, &metadata, &self.exclude);
        if !found.skipped.is_empty() && self.unreadable == Unreadable::Refuse {
            return Err(SourceError::Refused(found.skipped));
        }
        found.skipped.into_iter().for_each(skip);
        let files = found.seen.iter().filter(|seen| seen.entry.kind == EntryKind::File);
        *self.stamps.write().unwrap_or_else(PoisonError::into_inner) =
            files.map(|seen| (seen.entry.path.clone(), seen.stamp)).collect();
        Ok(found.seen.into_iter().map(|seen| seen.entry).collect())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile>, SourceError> {
        let failed = |source| SourceError::Read { path: entry.path.clone(), source };
        // Without O_NONBLOCK a FIFO that took the file's place would hold the build for ever.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.root.join(path_of(&entry.path)));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::Changed { path: entry.path.clone() });
            }
            Err(error) => return Err(failed(error)),
        };
        let listed = self.stamps.read().unwrap_or_else(PoisonError::into_inner).get(&entry.path).copied();
        let opened = OpenFile { file, offset, path: entry.path.clone(), listed };
        opened.judge()?;
        Ok(Box::new(opened))
    }
}

/// What must not change while a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

struct OpenFile {
    file: File,
    offset: u64,
    path: EntryPath,
    listed: Option<Stamp>,
}

impl OpenFile {
    fn judge(&self) -> Result<(), SourceError> {
        let failed = |source| SourceError::Read { path: self.path.clone(), source };
        let now = Stamp::of(&self.file.metadata().map_err(failed)?);
        if self.listed == Some(now) { Ok(()) } else { Err(SourceError::Changed { path: self.path.clone() }) }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buf, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl SourceFile for OpenFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        self.judge()
    }
}
