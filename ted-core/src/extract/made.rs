//! What an earlier revision made: only that may be replaced by an entry of another kind.

use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Facts, Found};
use crate::extract::judge::hard_link_target;
use crate::package::{Entry, EntryKind, EntryPath};

/// The entries of the revision that was extracted last, in path order.
#[derive(Clone, Copy)]
pub(super) struct PreviousList<'a>(&'a [Entry]);

impl<'a> PreviousList<'a> {
    pub(super) fn new(entries: &'a [Entry]) -> Self {
        Self(entries)
    }

    pub(super) fn get(self, path: &EntryPath) -> Option<&'a Entry> {
        self.0.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|at| &self.0[at])
    }

    /// The entry whose content stands at `path`: that of the target where the path is a hard link.
    fn resolve(self, path: &EntryPath) -> Option<&'a Entry> {
        let entry = self.get(path)?;
        if entry.kind == EntryKind::HardLink { self.get(&hard_link_target(entry)?) } else { Some(entry) }
    }

    /// Whether the file at `path` is as the previous revision left it; `None` if that had no file there.
    pub(super) fn left_file_like_this(self, path: &EntryPath, facts: &Facts) -> Option<bool> {
        let entry = self.resolve(path).filter(|entry| entry.kind == EntryKind::File)?;
        Some(entry.size == facts.size && entry.mtime == facts.mtime)
    }

    /// What at or below `path` the previous revision did not make; `None` if it made all of it.
    ///
    /// A link counts as made only with the text that it was made with. A folder counts with everything in it, and
    /// not if something is mounted there.
    pub(super) fn not_made(
        self,
        folder: &Arc<Dir>,
        path: &EntryPath,
        facts: Facts,
    ) -> io::Result<Option<(EntryPath, Found)>> {
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
                return Ok(Some((path, facts.found)));
            }
            if facts.found == Found::Folder {
                let inside = Arc::new(disk::open_folder(&*folder, name)?);
                for name in disk::names_in(&inside)? {
                    let Some(facts) = disk::facts_at(&*inside, &name)? else { continue };
                    // A path beyond the limits is none that any revision made.
                    let Ok(below) = path.join(&name) else { return Ok(Some((path, facts.found))) };
                    waiting.push((Arc::clone(&inside), below, facts));
                }
            }
        }
        Ok(None)
    }
}
