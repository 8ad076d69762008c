//! Walking a folder: several threads, no symlink followed, everything that cannot be distributed named.

use std::collections::HashMap;
use std::fs::{FileType, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::limits::Limits;
use crate::package::{Entry, EntryKind, EntryPath, Mtime, PathError, SkipReason, Skipped};

use super::folder::Stamp;
use super::gitignore::{Ignored, is_repository};
use super::path_of;
use super::selection::{Selection, drop_empty_ways};

/// Threads that walk: a few requests at once hide the waiting for disks and servers.
const WALKERS: usize = 4;

/// What a walk found, in path order.
#[derive(Default)]
pub(super) struct Found {
    pub(super) seen: Vec<Seen>,
    pub(super) skipped: Vec<Skipped>,
}

/// One entry that was found.
pub(super) struct Seen {
    pub(super) entry: Entry,
    pub(super) stamp: Stamp,
    links: u64,
    /// Whether it is a folder that is taken only for what lies in it.
    on_the_way: bool,
}

/// Everything below the folder `root`, which has this metadata, but what is excluded. Hard links are resolved.
pub(super) fn walk(root: &Path, metadata: &Metadata, selection: &Selection) -> Found {
    let walk = Walk { root, selection, state: Mutex::default(), changed: Condvar::new() };
    walk.state().found.seen.push(seen(EntryPath::root(), EntryKind::Directory, metadata));
    let included = selection.includes(&EntryPath::root());
    walk.state().folders.push(Folder { path: EntryPath::root(), included, ignored: None });
    std::thread::scope(|scope| {
        for _ in 1..WALKERS {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let mut found = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner).found;
    found.seen.sort_unstable_by(|left, right| left.entry.path.cmp(&right.entry.path));
    found.skipped.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    drop_empty_ways(&mut found.seen, |seen| &seen.entry.path, |seen| seen.on_the_way);
    resolve_hard_links(&mut found.seen);
    found
}

/// A folder that is to be listed.
struct Folder {
    path: EntryPath,
    /// Whether all that lies in it is included.
    included: bool,
    /// What the `.gitignore` files above it leave out.
    ignored: Option<Arc<Ignored>>,
}

struct Walk<'a> {
    root: &'a Path,
    selection: &'a Selection,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    folders: Vec<Folder>,
    /// Threads that are in a folder, and may yet find others.
    busy: usize,
    found: Found,
}

impl Walk<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(folder) = self.claim() {
            let mut here = Found::default();
            let mut folders = Vec::new();
            self.list(&folder, &mut here, &mut folders);
            let mut state = self.state();
            state.folders.append(&mut folders);
            state.found.seen.append(&mut here.seen);
            state.found.skipped.append(&mut here.skipped);
            state.busy -= 1;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// A folder to list; waits while others may still find one. `None` at the end.
    fn claim(&self) -> Option<Folder> {
        let mut state = self.state();
        loop {
            if let Some(folder) = state.folders.pop() {
                state.busy += 1;
                return Some(folder);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn list(&self, folder: &Folder, found: &mut Found, folders: &mut Vec<Folder>) {
        let unreadable = |error| Skipped { path: folder.path.to_string(), reason: SkipReason::Unreadable(error) };
        let place = self.root.join(path_of(&folder.path));
        let ignored = match self.selection.honours_gitignore() {
            true => Ignored::at(&folder.path, &place, folder.ignored.clone()),
            false => Ok(None),
        };
        let (ignored, listing) = match ignored.and_then(|ignored| Ok((ignored, std::fs::read_dir(&place)?))) {
            Ok(read) => read,
            Err(error) => return found.skipped.push(unreadable(error)),
        };
        for item in listing {
            let item = match item {
                Ok(item) => item,
                Err(error) => return found.skipped.push(unreadable(error)),
            };
            let name = item.file_name();
            let path = match folder.path.join(name.as_bytes()) {
                Ok(path) => path,
                Err(error) => {
                    let path = format!("{}/{}", folder.path, name.to_string_lossy());
                    found.skipped.push(Skipped { path, reason: SkipReason::Path(error) });
                    continue;
                }
            };
            if self.selection.excludes(&path) || (self.selection.honours_gitignore() && is_repository(&path)) {
                continue;
            }
            let included = folder.included || self.selection.includes(&path);
            match self.look(path, &item.path(), included, ignored.as_deref()) {
                Ok(Some(seen)) => {
                    if seen.entry.kind == EntryKind::Directory {
                        let path = seen.entry.path.clone();
                        folders.push(Folder { path, included, ignored: ignored.clone() });
                    }
                    found.seen.push(seen);
                }
                Ok(None) => {}
                Err(skipped) => found.skipped.push(skipped),
            }
        }
    }

    /// What lies at `place`; `None` for what is not taken.
    fn look(
        &self,
        path: EntryPath,
        place: &Path,
        included: bool,
        ignored: Option<&Ignored>,
    ) -> Result<Option<Seen>, Skipped> {
        let skip = |reason| Skipped { path: path.to_string(), reason };
        let metadata = std::fs::symlink_metadata(place).map_err(|error| skip(SkipReason::Unreadable(error)))?;
        let left_out = ignored.is_some_and(|ignored| ignored.leaves_out(&path, metadata.is_dir()));
        if left_out || !(included || metadata.is_dir()) {
            return Ok(None);
        }
        let kind = kind_of(metadata.file_type()).map_err(|what| skip(SkipReason::Special(what)))?;
        if kind == EntryKind::Symlink {
            let link = std::fs::read_link(place).map_err(|error| skip(SkipReason::Unreadable(error)))?;
            let link = link.into_os_string().into_vec();
            if link.len() > Limits::DEFAULT.link_bytes_max {
                return Err(skip(SkipReason::Path(PathError::TooLong)));
            }
            let mut seen = seen(path, kind, &metadata);
            seen.entry.link = link;
            return Ok(Some(seen));
        }
        let access = if kind == EntryKind::File { Access::READ_OK } else { Access::READ_OK | Access::EXEC_OK };
        accessat(CWD, place, access, AtFlags::EACCESS).map_err(|error| skip(SkipReason::Unreadable(error.into())))?;
        Ok(Some(Seen { on_the_way: !included, ..seen(path, kind, &metadata) }))
    }
}

fn kind_of(kind: FileType) -> Result<EntryKind, &'static str> {
    match kind {
        kind if kind.is_dir() => Ok(EntryKind::Directory),
        kind if kind.is_file() => Ok(EntryKind::File),
        kind if kind.is_symlink() => Ok(EntryKind::Symlink),
        kind if kind.is_fifo() => Err("FIFO"),
        kind if kind.is_socket() => Err("socket"),
        _ => Err("device node"),
    }
}

fn seen(path: EntryPath, kind: EntryKind, metadata: &Metadata) -> Seen {
    let entry = Entry {
        path,
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        // The kernel's nanoseconds lie below 10⁹ and count upwards from the second, before 1970 too.
        mtime: Mtime { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 },
        size: if kind == EntryKind::File { metadata.size() } else { 0 },
        link: Vec::new(),
        content: Entry::NO_CONTENT,
        extensions: Vec::new(),
    };
    Seen { entry, stamp: Stamp::of(metadata), links: metadata.nlink(), on_the_way: false }
}

/// The first of several names in path order is the file or symlink; the others link to it.
fn resolve_hard_links(seen: &mut [Seen]) {
    let mut first_names: HashMap<(u64, u64), EntryPath> = HashMap::new();
    for Seen { entry, stamp, links, .. } in seen {
        if entry.kind == EntryKind::Directory || *links < 2 {
            continue;
        }
        let first = first_names.entry((stamp.device, stamp.inode)).or_insert_with(|| entry.path.clone());
        if *first != entry.path {
            entry.kind = EntryKind::HardLink;
            entry.link = first.as_bytes().to_vec();
            entry.size = 0;
        }
    }
}
