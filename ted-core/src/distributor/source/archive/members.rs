//! What a tar file holds, put together as a tree: parents made up where they are missing, hard links resolved.

use std::collections::{BTreeMap, HashMap};

use super::super::Unreadable;
use super::super::selection::{Selection, Taken, drop_empty_ways};
use super::error::{ArchiveError, EntryFault};
use super::reader::checked;
use crate::limits::Limits;
use crate::package::{Entry, EntryKind, EntryPath, Mtime};

/// The permissions of a folder that the archive does not speak of.
const FOLDER_MODE: u32 = 0o755;

/// One entry of a tar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) kind: StoredKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoredKind {
    Directory,
    /// Where its content begins.
    File {
        at: u64,
    },
    Symlink(Vec<u8>),
    /// The path as it stands there.
    HardLink(Vec<u8>),
}

/// All entries, by path.
#[derive(Debug)]
pub(super) struct Members<'a> {
    stored: BTreeMap<EntryPath, Stored>,
    /// Folders that something lies in and that the archive has not spoken of yet.
    made_up: HashMap<EntryPath, ()>,
    /// The file or symlink that each hard link means.
    links: BTreeMap<EntryPath, EntryPath>,
    skipped: Vec<(String, &'static str)>,
    names_bytes: u64,
    limits: &'a Limits,
    selection: &'a Selection,
    unreadable: Unreadable,
}

/// An entry, and where its content begins.
pub(super) type Placed = (Entry, u64);

impl<'a> Members<'a> {
    pub(super) fn new(limits: &'a Limits, selection: &'a Selection, unreadable: Unreadable) -> Self {
        let (stored, made_up, links) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        Self { stored, made_up, links, skipped: vec![], names_bytes: 0, limits, selection, unreadable }
    }

    /// A device or FIFO: left out where that was asked for, else refused.
    pub(super) fn special(&mut self, path: &EntryPath, what: &'static str) -> Result<(), EntryFault> {
        if self.selection.takes(path) != Taken::Yes {
            return Ok(());
        }
        match self.unreadable {
            Unreadable::Refuse => Err(EntryFault::Special(what)),
            Unreadable::Skip => {
                self.skipped.push((path.to_string(), what));
                Ok(())
            }
        }
    }

    /// Whether `stored` may be at `path`, after all that came before it.
    pub(super) fn judge(&self, path: &EntryPath, stored: &Stored) -> Result<(), EntryFault> {
        let is_folder = stored.kind == StoredKind::Directory;
        if self.stored.contains_key(path) && !(is_folder && self.made_up.contains_key(path)) {
            let made_up = self.made_up.contains_key(path);
            return Err(if made_up { EntryFault::Through(path.to_string()) } else { EntryFault::Twice });
        }
        if path.is_root() && !is_folder {
            return Err(EntryFault::Through(path.to_string()));
        }
        for above in std::iter::successors(path.parent(), EntryPath::parent) {
            match self.stored.get(&above) {
                Some(Stored { kind: StoredKind::Directory, .. }) => break,
                Some(_) => return Err(EntryFault::Through(above.to_string())),
                None => {}
            }
        }
        match &stored.kind {
            StoredKind::Symlink(link) if link.is_empty() => Err(EntryFault::Link("is empty")),
            StoredKind::Symlink(link) if link.contains(&0) => Err(EntryFault::Link("holds a NUL byte")),
            StoredKind::Symlink(link) if link.len() > self.limits.link_bytes_max => {
                Err(EntryFault::Link("is too long"))
            }
            StoredKind::HardLink(link) => self.meant(link).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// The file or symlink that a hard link to `link` means.
    fn meant(&self, link: &[u8]) -> Result<EntryPath, EntryFault> {
        let wrong = || EntryFault::HardLink(link.escape_ascii().to_string());
        let path = checked(link).map_err(|_| wrong())?;
        let path = self.links.get(&path).cloned().unwrap_or(path);
        match self.stored.get(&path).map(|found| &found.kind) {
            Some(StoredKind::File { .. } | StoredKind::Symlink(_)) => Ok(path),
            _ => Err(wrong()),
        }
    }

    /// Takes what was [judged](Self::judge).
    pub(super) fn add(&mut self, path: EntryPath, stored: Stored, place: &str) -> Result<(), ArchiveError> {
        let too_much = |limit, what| ArchiveError::TooMuch { place: place.to_owned(), limit, what };
        if let StoredKind::HardLink(link) = &stored.kind {
            let refuse = |fault| ArchiveError::Entry { place: place.to_owned(), entry: path.to_string(), fault };
            let meant = self.meant(link).map_err(refuse)?;
            self.links.insert(path.clone(), meant);
        }
        let missing = std::iter::successors(path.parent(), EntryPath::parent);
        let missing: Vec<_> = missing.take_while(|above| !self.stored.contains_key(above)).collect();
        for above in missing {
            let folder = Stored { kind: StoredKind::Directory, mode: FOLDER_MODE, size: 0, ..stored.clone() };
            self.names_bytes += above.as_bytes().len() as u64;
            self.made_up.insert(above.clone(), ());
            self.stored.insert(above, folder);
        }
        let link = match &stored.kind {
            StoredKind::Symlink(link) | StoredKind::HardLink(link) => link.len(),
            _ => 0,
        };
        self.names_bytes += (path.as_bytes().len() + link) as u64;
        self.made_up.remove(&path);
        self.stored.insert(path, stored);
        if self.stored.len() as u64 > self.limits.entries_max {
            return Err(too_much(self.limits.entries_max, "entries"));
        }
        if self.names_bytes > self.limits.archive_names_bytes_max {
            return Err(too_much(self.limits.archive_names_bytes_max, "bytes of names"));
        }
        Ok(())
    }

    /// What is taken of it, in path order, and what was left out.
    pub(super) fn finish(self) -> (Vec<Placed>, Vec<(String, &'static str)>) {
        let Self { mut stored, links, selection, skipped, .. } = self;
        let root = Stored {
            kind: StoredKind::Directory,
            mode: FOLDER_MODE,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds: 0, nanoseconds: 0 },
            size: 0,
        };
        stored.entry(EntryPath::root()).or_insert(root);
        // The first of several names in path order, of those that are taken, is the file; the others link to it.
        let mut firsts: HashMap<EntryPath, EntryPath> = HashMap::new();
        let mut taken: Vec<(Placed, bool)> = Vec::with_capacity(stored.len());
        let is_linked: std::collections::HashSet<&EntryPath> = links.values().collect();
        for (path, own) in &stored {
            let how = if path.is_root() { Taken::Yes } else { selection.takes(path) };
            if how == Taken::No || (how == Taken::OnTheWay && own.kind != StoredKind::Directory) {
                continue;
            }
            let meant = links.get(path).or_else(|| is_linked.contains(path).then_some(path));
            let first = meant.map(|meant| &*firsts.entry(meant.clone()).or_insert_with(|| path.clone()));
            let (content, link_to) = match (meant, first) {
                (Some(_), Some(first)) if first != path => (meant, Some(first.clone())),
                (meant, _) => (meant, None),
            };
            let stored = content.and_then(|meant| stored.get(meant)).unwrap_or(own);
            taken.push((entry(path, stored, link_to), how == Taken::OnTheWay));
        }
        drop_empty_ways(&mut taken, |((entry, _), _)| &entry.path, |(_, on_the_way)| *on_the_way);
        (taken.into_iter().map(|(placed, _)| placed).collect(), skipped)
    }
}

/// The entry at `path` of what is stored, or the hard link there to another path.
fn entry(path: &EntryPath, stored: &Stored, link_to: Option<EntryPath>) -> Placed {
    let Stored { mode, uid, gid, mtime, size, .. } = *stored;
    let (kind, size, link, at) = match (&stored.kind, link_to) {
        (_, Some(first)) => (EntryKind::HardLink, 0, first.as_bytes().to_vec(), 0),
        (StoredKind::File { at }, None) => (EntryKind::File, size, Vec::new(), *at),
        (StoredKind::Symlink(link), None) => (EntryKind::Symlink, 0, link.clone(), 0),
        (StoredKind::Directory | StoredKind::HardLink(_), None) => (EntryKind::Directory, 0, Vec::new(), 0),
    };
    let (content, extensions) = (Entry::NO_CONTENT, Vec::new());
    (Entry { path: path.clone(), kind, mode, uid, gid, mtime, size, link, content, extensions }, at)
}
