//! What an earlier revision made: only that may be replaced by an entry of another kind.

use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Facts, Found};
use crate::extract::judge::{find_row, hard_link_target};
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath};

/// The entries of the revision that was extracted last, in path order.
#[derive(Clone, Copy)]
pub(super) enum PreviousList<'a> {
    /// An earlier one.
    Entries(&'a [Entry]),
    /// The one that is extracted now.
    Rows(&'a [CatalogRow]),
}

/// What of something that stands in the target is an earlier revision's.
pub(super) struct Made {
    /// The first thing that it did not make; `None` if it made all of it.
    pub(super) not: Option<(EntryPath, Found)>,
    /// Files that it made and that were changed since.
    pub(super) changed: Vec<EntryPath>,
}

impl<'a> PreviousList<'a> {
    pub(super) fn get(self, path: &EntryPath) -> Option<&'a Entry> {
        match self {
            Self::Entries(entries) => {
                entries.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|at| &entries[at])
            }
            Self::Rows(rows) => find_row(rows, path).map(|at| &rows[at].entry),
        }
    }

    /// The entry whose content stands at `path`: that of the target where the path is a hard link.
    pub(super) fn resolve(self, path: &EntryPath) -> Option<&'a Entry> {
        let entry = self.get(path)?;
        if entry.kind == EntryKind::HardLink { self.get(&hard_link_target(entry)?) } else { Some(entry) }
    }

    /// Whether the file at `path` is as the previous revision left it; `None` if that had no file there.
    pub(super) fn left_file_like_this(self, path: &EntryPath, facts: &Facts) -> Option<bool> {
        let entry = self.resolve(path).filter(|entry| entry.kind == EntryKind::File)?;
        Some(entry.size == facts.size && entry.mtime == facts.mtime)
    }

    /// What at or below `path` the previous revision made.
    ///
    /// A link counts as made only with the text that it was made with. A folder counts with everything in it, and
    /// not if something is mounted there.
    pub(super) fn made(self, folder: &Arc<Dir>, path: &EntryPath, facts: Facts) -> io::Result<Made> {
        let mut found = Made { not: None, changed: vec![] };
        let mut waiting = vec![(Arc::clone(folder), path.clone(), facts)];
        while let Some((folder, path, facts)) = waiting.pop() {
            let name = path.file_name().unwrap_or_default();
            let made = match (facts.found, self.resolve(&path)) {
                _ if facts.mount_point => false,
                (Found::File, Some(entry)) => entry.kind == EntryKind::File,
                (Found::Folder, Some(entry)) => entry.kind == EntryKind::Directory,
                (Found::Symlink, Some(entry)) => {
                    entry.kind == EntryKind::Symlink && disk::link_text(&folder, name)? == entry.link
                }
                (Found::Other, _) | (_, None) => false,
            };
            if !made {
                found.not.get_or_insert_with(|| (path.clone(), facts.found));
            } else if self.left_file_like_this(&path, &facts) == Some(false) {
                found.changed.push(path.clone());
            }
            if facts.found == Found::Folder && !facts.mount_point {
                let inside = Arc::new(disk::open_folder(&*folder, name)?);
                for name in disk::names_in(&inside)? {
                    let Some(facts) = disk::facts_at(&*inside, &name)? else { continue };
                    match path.join(&name) {
                        Ok(below) => waiting.push((Arc::clone(&inside), below, facts)),
                        // A path beyond the limits is none that any revision made.
                        Err(_) => found.not = found.not.or_else(|| Some((path.clone(), Found::Folder))),
                    }
                }
            }
        }
        Ok(found)
    }
}
