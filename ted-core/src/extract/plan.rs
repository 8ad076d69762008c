//! What has to be done: the revision's list compared with what stands in the target. Nothing is written here.

use std::collections::HashMap;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Attributes, Facts, Found};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::job::ExtractJob;
use crate::extract::judge::{find_row, hard_link_target};
use crate::extract::keep::Keep;
use crate::extract::made::PreviousList;
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath};

/// Positions in the list of entries, each kind in path order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Files to write.
    pub(super) contents: Vec<usize>,
    /// Symbolic links to make.
    pub(super) symlinks: Vec<usize>,
    /// Hard links to make.
    pub(super) hard_links: Vec<usize>,
    /// Folders to make.
    pub(super) new_folders: Vec<usize>,
    /// Folders whose mode and time have to be set in the end, the root among them.
    pub(super) folders: Vec<usize>,
    /// What stands in the way and was made by the previous revision.
    pub(super) displaced: Vec<(usize, Found)>,
    /// Entries that are in place.
    pub(super) unchanged: u64,
    /// Files changed by somebody since the previous revision.
    pub(super) local_changes: Vec<EntryPath>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.contents.is_empty()
            && self.symlinks.is_empty()
            && self.hard_links.is_empty()
            && self.new_folders.is_empty()
            && self.folders.is_empty()
    }
}

/// Whether files that the previous revision left may be taken for unchanged when size, time and mode agree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// They may.
    FactsSuffice,
    /// Another revision has been extracted in between: everything is written anew.
    Nothing,
}

/// Compares the list, which has been judged, with the target (`None`: it does not exist yet).
pub(super) fn plan(
    root: Option<Arc<Dir>>,
    job: &ExtractJob<'_>,
    trust: Trust,
    keep: &Keep,
) -> Result<Plan, ExtractError> {
    let mut planner = Planner {
        rows: job.rows,
        keep,
        previous: job.previous.map(PreviousList::new),
        trust,
        folders: root.map(|root| Folders::new(root, Access::Look, job.options.limits.open_folders_max)),
        known: HashMap::new(),
        in_place: vec![false; job.rows.len()],
        plan: Plan::default(),
    };
    planner.root()?;
    for index in 1..job.rows.len() {
        planner.row(index)?;
    }
    Ok(planner.finish())
}

struct Planner<'a> {
    rows: &'a [CatalogRow],
    keep: &'a Keep,
    previous: Option<PreviousList<'a>>,
    trust: Trust,
    folders: Option<Folders<'a>>,
    known: HashMap<&'a [u8], KnownFolder>,
    /// Files and symbolic links that stay as they are.
    in_place: Vec<bool>,
    plan: Plan,
}

/// A folder of the list.
struct KnownFolder {
    row: usize,
    /// Whether it is there and stays.
    exists: bool,
    /// Whether its mode and time have to be set: it is new, differs, or something in it changes.
    touched: bool,
}

impl<'a> Planner<'a> {
    /// The first entry is the root.
    fn root(&mut self) -> Result<(), ExtractError> {
        let entry = &self.rows[0].entry;
        let mut root = KnownFolder { row: 0, exists: self.folders.is_some(), touched: true };
        if let Some(folders) = &mut self.folders {
            let facts = folders.get(b"").and_then(|folder| disk::facts_of(&*folder));
            let facts = facts.map_err(|error| ExtractError::io("looking at", &entry.path, error))?;
            root.touched = !agrees(&facts, self.keep.attributes(entry)) || !self.has_all(entry, &facts);
            self.plan.unchanged += u64::from(!root.touched);
        }
        self.known.insert(b"", root);
        Ok(())
    }

    fn row(&mut self, index: usize) -> Result<(), ExtractError> {
        let rows = self.rows;
        let entry = &rows[index].entry;
        let (parent, name) = split(entry.path.as_bytes());
        let standing =
            self.standing(parent, name).map_err(|error| ExtractError::io("looking at", &entry.path, error))?;
        if let Some((_, facts)) = &standing
            && facts.mount_point
        {
            return Err(ExtractError::MountPoint { path: entry.path.clone() });
        }
        let in_place = match &standing {
            None => false,
            Some((folder, facts)) => self.judge_standing(index, folder, *facts)?,
        };
        if in_place {
            self.plan.unchanged += 1;
            self.in_place[index] = true;
        } else if let Some(folder) = self.known.get_mut(parent) {
            // A folder that only gets another mode changes nothing in the folder above it.
            folder.touched |= entry.kind != EntryKind::Directory || !is_folder(&standing);
        }
        match entry.kind {
            EntryKind::Directory => {
                let exists = is_folder(&standing);
                self.known.insert(entry.path.as_bytes(), KnownFolder { row: index, exists, touched: !in_place });
                if !exists {
                    self.plan.new_folders.push(index);
                }
            }
            EntryKind::File if !in_place => self.plan.contents.push(index),
            EntryKind::Symlink if !in_place => self.plan.symlinks.push(index),
            EntryKind::HardLink if !in_place => self.plan.hard_links.push(index),
            _ => {}
        }
        Ok(())
    }

    /// What stands at `name` in a folder of the list, and the folder.
    fn standing(&mut self, parent: &[u8], name: &[u8]) -> std::io::Result<Option<(Arc<Dir>, Facts)>> {
        let exists = self.known.get(parent).is_some_and(|folder| folder.exists);
        let Some(folders) = self.folders.as_mut().filter(|_| exists) else { return Ok(None) };
        let folder = folders.get(parent)?;
        Ok(disk::facts_at(&*folder, name)?.map(|facts| (folder, facts)))
    }

    /// Whether what stands there is the entry already; an error if it may not be replaced.
    fn judge_standing(&mut self, index: usize, folder: &Arc<Dir>, facts: Facts) -> Result<bool, ExtractError> {
        let entry = &self.rows[index].entry;
        let (kind, wanted) = self.wanted(entry);
        if facts.found != wanted {
            self.judge_obstacle(index, folder, facts, wanted)?;
            return Ok(false);
        }
        let failed = |error| ExtractError::io("looking at", &entry.path, error);
        match (entry.kind, kind) {
            (EntryKind::Directory, _) => Ok(agrees(&facts, self.keep.attributes(entry)) && self.has_all(entry, &facts)),
            (EntryKind::HardLink, _) => self.is_linked(entry, facts).map_err(failed),
            (EntryKind::Symlink, _) => {
                let name = entry.path.file_name().unwrap_or_default();
                Ok(facts.mtime == entry.mtime
                    && self.has_all(entry, &facts)
                    && disk::link_text(folder, name).map_err(failed)? == entry.link)
            }
            (EntryKind::File, _) => Ok(self.is_unchanged_file(entry, facts)),
        }
    }

    /// The kind that an entry is in the end, and what the file system calls it.
    fn wanted(&self, entry: &Entry) -> (EntryKind, Found) {
        let mut kind = entry.kind;
        if kind == EntryKind::HardLink {
            let target = hard_link_target(entry).and_then(|path| find_row(self.rows, &path));
            kind = target.map_or(kind, |at| self.rows[at].entry.kind);
        }
        let found = match kind {
            EntryKind::Directory => Found::Folder,
            EntryKind::Symlink => Found::Symlink,
            EntryKind::File | EntryKind::HardLink => Found::File,
        };
        (kind, found)
    }

    fn is_unchanged_file(&mut self, entry: &Entry, facts: Facts) -> bool {
        let Some(previous) = self.previous else { return false };
        let as_left = previous.left_file_like_this(&entry.path, &facts);
        if as_left == Some(false) && self.trust == Trust::FactsSuffice {
            self.plan.local_changes.push(entry.path.clone());
        }
        let same_entry = previous.get(&entry.path).is_some_and(|before| {
            before.kind == EntryKind::File
                && (before.content, before.size, before.mtime) == (entry.content, entry.size, entry.mtime)
        });
        self.trust == Trust::FactsSuffice
            && same_entry
            && facts.size == entry.size
            && agrees(&facts, self.keep.attributes(entry))
            && self.has_all(entry, &facts)
    }

    /// Whether what stands there has owner and extended attributes already, as far as it had been given them.
    fn has_all(&self, entry: &Entry, facts: &Facts) -> bool {
        self.keep.agrees(entry, self.previous.and_then(|previous| previous.get(&entry.path)), facts)
    }

    /// Whether what stands there is the same file as the one that the hard link names, and that one stays.
    fn is_linked(&mut self, entry: &Entry, facts: Facts) -> std::io::Result<bool> {
        let Some(target) = hard_link_target(entry) else { return Ok(false) };
        let stays = find_row(self.rows, &target).is_some_and(|at| self.in_place[at]);
        if !stays {
            return Ok(false);
        }
        let (parent, name) = split(target.as_bytes());
        let standing = self.standing(parent, name)?;
        Ok(standing.is_some_and(|(_, first)| first.identity == facts.identity))
    }

    /// Something of another kind stands there: it may go only if the previous revision made it.
    fn judge_obstacle(
        &mut self,
        index: usize,
        folder: &Arc<Dir>,
        facts: Facts,
        wanted: Found,
    ) -> Result<(), ExtractError> {
        let path = &self.rows[index].entry.path;
        let refused = |path: &EntryPath, wanted: Found, found: Found| ExtractError::Obstacle {
            path: path.clone(),
            wanted: wanted.name(),
            found: found.name(),
        };
        let Some(previous) = self.previous else { return Err(refused(path, wanted, facts.found)) };
        let not_made = previous.not_made(folder, path, facts);
        if let Some((inside, found)) = not_made.map_err(|error| ExtractError::io("looking at", path, error))? {
            return Err(refused(&inside, wanted, found));
        }
        if previous.left_file_like_this(path, &facts) == Some(false) && facts.found == Found::File {
            self.plan.local_changes.push(path.clone());
        }
        // A rename replaces files and links with one another by itself; only folders have to make way.
        if facts.found == Found::Folder || wanted == Found::Folder {
            self.plan.displaced.push((index, facts.found));
        }
        Ok(())
    }

    fn finish(mut self) -> Plan {
        let mut folders: Vec<_> =
            self.known.values().filter(|folder| folder.touched).map(|folder| folder.row).collect();
        folders.sort_unstable();
        self.plan.folders = folders;
        self.plan
    }
}

fn is_folder(standing: &Option<(Arc<Dir>, Facts)>) -> bool {
    standing.as_ref().is_some_and(|(_, facts)| facts.found == Found::Folder)
}

fn agrees(facts: &Facts, attributes: Attributes) -> bool {
    facts.mode == attributes.mode && facts.mtime == attributes.mtime
}
