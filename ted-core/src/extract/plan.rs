//! What has to be done: the revision's list compared with what stands in the target. Nothing is written here.
//!
//! Whatever stands in the way of it is collected, so that an operator sees all of it at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Attributes, Facts, Found};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::job::{ExtractJob, ExtractOptions, OnLocalChange};
use crate::extract::judge::{find_row, hard_link_target};
use crate::extract::keep::Keep;
use crate::extract::local::copy_name;
use crate::extract::made::{Made, PreviousList};
use crate::model::ExtractMode;
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath};

/// Positions in the list of entries, each kind in path order; and paths.
#[derive(Debug, Default)]
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
    /// What stands in the way and has to go first.
    pub(super) displaced: Vec<Displacing>,
    /// What goes because the revision does not have it.
    pub(super) deletions: Vec<Deletion>,
    /// Files that somebody changed and that are kept.
    pub(super) keepings: Vec<Keeping>,
    /// Entries in whose place something else stands.
    pub(super) replacing: Vec<usize>,
    /// Entries that are in place.
    pub(super) unchanged: u64,
    /// Files and links that somebody else made or changed, and that do not stay.
    pub(super) local_changes: Vec<EntryPath>,
    /// All that is deleted, also what is inside of folders that are.
    pub(super) deleted: Vec<EntryPath>,
    /// What the revision does not have and that stays, and why.
    pub(super) left: Vec<(EntryPath, &'static str)>,
    /// Why it cannot be done.
    pub(super) blocked: Vec<ExtractError>,
}

/// Something that makes way for an entry of another kind.
#[derive(Debug)]
pub(super) struct Displacing {
    pub(super) index: usize,
    pub(super) found: Found,
    /// What it is kept as.
    pub(super) copy: Option<EntryPath>,
}

/// Something that the revision does not have.
#[derive(Debug)]
pub(super) struct Deletion {
    pub(super) path: EntryPath,
    /// What is deleted is what was seen, and nothing that took its place.
    pub(super) inode: u64,
}

/// A file that is kept beside.
#[derive(Debug)]
pub(super) struct Keeping {
    pub(super) path: EntryPath,
    pub(super) inode: u64,
    pub(super) copy: EntryPath,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.contents.is_empty()
            && self.symlinks.is_empty()
            && self.hard_links.is_empty()
            && self.new_folders.is_empty()
            && self.folders.is_empty()
            && self.deletions.is_empty()
            && self.keepings.is_empty()
    }

    /// What is kept, as what.
    pub(super) fn copies(&self) -> impl Iterator<Item = &EntryPath> {
        let displaced = self.displaced.iter().filter_map(|displaced| displaced.copy.as_ref());
        self.keepings.iter().map(|keeping| &keeping.copy).chain(displaced)
    }
}

/// What is known of what stands in the target.
#[derive(Clone, Copy)]
pub(super) enum Knowledge<'a> {
    /// What this list left there, if there is one, and what was changed since.
    Left(Option<PreviousList<'a>>),
    /// Another revision has been extracted since this one: everything is written anew, and nothing is told from what
    /// somebody changed.
    Overtaken(Option<PreviousList<'a>>),
}

impl<'a> Knowledge<'a> {
    pub(super) fn list(self) -> Option<PreviousList<'a>> {
        match self {
            Self::Left(list) | Self::Overtaken(list) => list,
        }
    }

    /// Whether the file at `path` is as the list left it; `None` if nothing can be said, or it left none there.
    pub(super) fn left_like_this(self, path: &EntryPath, facts: &Facts) -> Option<bool> {
        match self {
            Self::Left(list) => list?.left_file_like_this(path, facts),
            Self::Overtaken(_) => None,
        }
    }
}

/// Compares the list, which has been judged, with what stands below `root` (`None`: it does not exist yet).
pub(super) fn plan(
    root: Option<Arc<Dir>>,
    job: &ExtractJob<'_>,
    knowledge: Knowledge<'_>,
    keep: &Keep,
) -> Result<Plan, ExtractError> {
    let options = job.options;
    let mut planner = Planner {
        rows: job.rows,
        options,
        keep,
        knowledge,
        folders: root.map(|root| Folders::new(root, Access::Look, options.limits.open_folders_max)),
        known: HashMap::new(),
        in_place: vec![false; job.rows.len()],
        taken: HashSet::new(),
        plan: Plan::default(),
    };
    planner.root()?;
    for index in 1..job.rows.len() {
        planner.row(index)?;
    }
    // A release holds nothing but its revision, whatever somebody put into it.
    if options.mode != ExtractMode::Merge {
        planner.sweep()?;
    }
    planner.judge_folders()?;
    Ok(planner.finish())
}

pub(super) struct Planner<'a> {
    pub(super) rows: &'a [CatalogRow],
    pub(super) options: &'a ExtractOptions,
    keep: &'a Keep,
    pub(super) knowledge: Knowledge<'a>,
    pub(super) folders: Option<Folders<'a>>,
    pub(super) known: HashMap<&'a [u8], KnownFolder>,
    /// Files and symbolic links that stay as they are.
    in_place: Vec<bool>,
    /// Names that what is kept gets.
    taken: HashSet<EntryPath>,
    pub(super) plan: Plan,
}

/// A folder of the list.
pub(super) struct KnownFolder {
    pub(super) row: usize,
    /// Whether it is there and stays.
    pub(super) exists: bool,
    /// Whether its mode and time have to be set: it is new, differs, or something in it changes.
    pub(super) touched: bool,
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
        let in_place = match &standing {
            None => false,
            Some((_, facts)) if facts.mount_point => {
                self.plan.blocked.push(ExtractError::MountPoint { path: entry.path.clone() });
                false
            }
            Some((folder, facts)) => self.judge_standing(index, folder, *facts)?,
        };
        if in_place {
            self.plan.unchanged += 1;
            self.in_place[index] = true;
        } else {
            self.note_change(index, parent, standing.as_ref().map(|(_, facts)| *facts));
        }
        match entry.kind {
            EntryKind::Directory => {
                let exists = standing.is_some_and(|(_, facts)| facts.found == Found::Folder);
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

    /// Something is written at this entry's place, where something may stand.
    fn note_change(&mut self, index: usize, parent: &[u8], standing: Option<Facts>) {
        let entry = &self.rows[index].entry;
        let folder_stays =
            entry.kind == EntryKind::Directory && standing.is_some_and(|facts| facts.found == Found::Folder);
        if let Some(folder) = self.known.get_mut(parent) {
            // A folder that only gets another mode changes nothing in the folder above it.
            folder.touched |= !folder_stays;
        }
        if standing.is_some() {
            self.plan.replacing.push(index);
        }
        if !folder_stays && standing.is_some_and(|facts| facts.immutable) {
            self.plan.blocked.push(ExtractError::locked(&entry.path, IMMUTABLE));
        }
    }

    /// What stands at `name` in a folder of the list, and the folder.
    fn standing(&mut self, parent: &[u8], name: &[u8]) -> std::io::Result<Option<(Arc<Dir>, Facts)>> {
        let exists = self.known.get(parent).is_some_and(|folder| folder.exists);
        let Some(folders) = self.folders.as_mut().filter(|_| exists) else { return Ok(None) };
        let folder = folders.get(parent)?;
        Ok(disk::facts_at(&*folder, name)?.map(|facts| (folder, facts)))
    }

    /// Whether what stands there is the entry already. If it may not be replaced, that is noted.
    fn judge_standing(&mut self, index: usize, folder: &Arc<Dir>, facts: Facts) -> Result<bool, ExtractError> {
        let entry = &self.rows[index].entry;
        let resolved = self.resolved(entry);
        let wanted = found_as(resolved.kind);
        if facts.found != wanted {
            self.judge_obstacle(index, folder, facts, wanted)?;
            return Ok(false);
        }
        let failed = |error| ExtractError::io("looking at", &entry.path, error);
        let again = self.options.again.contains(&entry.path);
        let in_place = match entry.kind {
            EntryKind::Directory => {
                return Ok(!again && agrees(&facts, self.keep.attributes(entry)) && self.has_all(entry, &facts));
            }
            EntryKind::HardLink => self.is_linked(entry, facts).map_err(failed)?,
            EntryKind::Symlink => {
                let name = entry.path.file_name().unwrap_or_default();
                facts.mtime == entry.mtime
                    && self.has_all(entry, &facts)
                    && disk::link_text(folder, name).map_err(failed)? == entry.link
            }
            EntryKind::File => !again && self.is_unchanged_file(entry, facts),
        };
        if !in_place && self.is_changed(&entry.path, resolved, folder, facts).map_err(failed)? {
            self.note_local_change(&entry.path, folder, facts)?;
        }
        Ok(in_place)
    }

    /// The entry whose kind and content one has in the end: that of the target of a hard link.
    fn resolved(&self, entry: &'a Entry) -> &'a Entry {
        let target = Some(entry).filter(|entry| entry.kind == EntryKind::HardLink).and_then(hard_link_target);
        let at = target.and_then(|path| find_row(self.rows, &path));
        at.map_or(entry, |at| &self.rows[at].entry)
    }

    fn is_unchanged_file(&self, entry: &Entry, facts: Facts) -> bool {
        let Knowledge::Left(Some(previous)) = self.knowledge else { return false };
        let same_entry = previous.get(&entry.path).is_some_and(|before| {
            before.kind == EntryKind::File
                && (before.content, before.size, before.mtime) == (entry.content, entry.size, entry.mtime)
        });
        same_entry
            && facts.size == entry.size
            && agrees(&facts, self.keep.attributes(entry))
            && self.has_all(entry, &facts)
    }

    /// Whether what stands there has owner and extended attributes already, as far as it had been given them.
    fn has_all(&self, entry: &Entry, facts: &Facts) -> bool {
        let before = match self.knowledge {
            Knowledge::Left(list) => list.and_then(|list| list.get(&entry.path)),
            Knowledge::Overtaken(_) => None,
        };
        self.keep.agrees(entry, before, facts)
    }

    /// Whether the file or link that stands at `path` is somebody else's: neither what was left there, nor what comes.
    fn is_changed(&self, path: &EntryPath, comes: &Entry, folder: &Dir, facts: Facts) -> std::io::Result<bool> {
        let Knowledge::Left(previous) = self.knowledge else { return Ok(false) };
        match facts.found {
            Found::File if (facts.size, facts.mtime) == (comes.size, comes.mtime) => Ok(false),
            Found::File => Ok(previous.and_then(|list| list.left_file_like_this(path, &facts)) != Some(true)),
            Found::Symlink => {
                let text = disk::link_text(folder, path.file_name().unwrap_or_default())?;
                let left = previous.and_then(|list| list.resolve(path)).filter(|left| left.kind == EntryKind::Symlink);
                Ok(text != comes.link && left.is_none_or(|left| left.link != text))
            }
            Found::Folder | Found::Other => Ok(false),
        }
    }

    /// Notes that somebody else's file or link does not stay, and what it is kept as.
    pub(super) fn note_local_change(
        &mut self,
        path: &EntryPath,
        folder: &Dir,
        facts: Facts,
    ) -> Result<(), ExtractError> {
        self.plan.local_changes.push(path.clone());
        if let Some(copy) = self.copy_of(path, folder)? {
            self.plan.keepings.push(Keeping { path: path.clone(), inode: facts.identity.2, copy });
        }
        Ok(())
    }

    /// What `path` is kept as, where the operator wants that.
    fn copy_of(&mut self, path: &EntryPath, folder: &Dir) -> Result<Option<EntryPath>, ExtractError> {
        let OnLocalChange::Keep { at } = self.options.on_local_change else { return Ok(None) };
        let above = path.parent().unwrap_or_else(EntryPath::root);
        for number in 0.. {
            let name = copy_name(path.file_name().unwrap_or_default(), at, number);
            let Ok(copy) = above.join(&name) else { break };
            let stands = disk::facts_at(folder, &name).map_err(|error| ExtractError::io("looking at", &copy, error))?;
            if stands.is_none() && find_row(self.rows, &copy).is_none() && self.taken.insert(copy.clone()) {
                return Ok(Some(copy));
            }
        }
        self.plan.blocked.push(ExtractError::locked(path, "its path leaves no room for the name of its copy"));
        Ok(None)
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

    /// Something of another kind stands there. A merge lets it go only if the previous revision made it.
    fn judge_obstacle(
        &mut self,
        index: usize,
        folder: &Arc<Dir>,
        facts: Facts,
        wanted: Found,
    ) -> Result<(), ExtractError> {
        let path = &self.rows[index].entry.path;
        let failed = |error| ExtractError::io("looking at", path, error);
        let refused =
            |path: EntryPath, found: Found| ExtractError::Obstacle { path, wanted: wanted.name(), found: found.name() };
        let Made { not, changed } = match self.knowledge.list() {
            Some(list) => list.made(folder, path, facts).map_err(failed)?,
            None => Made { not: Some((path.clone(), facts.found)), changed: vec![] },
        };
        if self.options.mode == ExtractMode::Merge
            && let Some((inside, found)) = not
        {
            self.plan.blocked.push(refused(inside, found));
            return Ok(());
        }
        if self.options.mode != ExtractMode::Merge && facts.found == Found::Folder {
            self.judge_folder_that_goes(path)?;
        }
        let makes_way = facts.found == Found::Folder || wanted == Found::Folder;
        let somebody_elses = match self.knowledge {
            Knowledge::Left(_) => !changed.is_empty() || (not.is_some() && facts.found != Found::Folder),
            Knowledge::Overtaken(_) => false,
        };
        if !makes_way {
            // A rename replaces files and links with one another by itself; only folders have to make way.
            return if somebody_elses { self.note_local_change(path, folder, facts) } else { Ok(()) };
        }
        let copy = if somebody_elses { self.copy_of(path, folder)? } else { None };
        self.plan.displaced.push(Displacing { index, found: facts.found, copy });
        match facts.found {
            _ if !somebody_elses => {}
            Found::Folder => self.plan.local_changes.extend(changed),
            _ => self.plan.local_changes.push(path.clone()),
        }
        Ok(())
    }

    /// Notes the folders in which something changes although this user may not: their modes and times are set in the end.
    fn judge_folders(&mut self) -> Result<(), ExtractError> {
        let Some(folders) = &mut self.folders else { return Ok(()) };
        let mut touched: Vec<usize> =
            self.known.values().filter(|folder| folder.exists && folder.touched).map(|folder| folder.row).collect();
        touched.sort_unstable();
        for row in touched {
            let path = &self.rows[row].entry.path;
            let facts = folders.get(path.as_bytes()).and_then(|folder| disk::facts_of(&*folder));
            let facts = facts.map_err(|error| ExtractError::io("looking at", path, error))?;
            if let Some(why) = folder_lock(&facts) {
                self.plan.blocked.push(ExtractError::locked(path, why));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Plan {
        let mut folders: Vec<_> =
            self.known.values().filter(|folder| folder.touched).map(|folder| folder.row).collect();
        folders.sort_unstable();
        self.plan.folders = folders;
        for reported in [&mut self.plan.local_changes, &mut self.plan.deleted] {
            reported.sort_unstable();
        }
        self.plan
    }
}

/// Why nothing can be replaced that is immutable.
pub(super) const IMMUTABLE: &str = "it is immutable or append-only";

/// Why this user can change nothing in a folder.
pub(super) fn folder_lock(facts: &Facts) -> Option<&'static str> {
    let user = rustix::process::geteuid();
    if facts.immutable {
        Some("the folder is immutable or append-only")
    } else if !user.is_root() && facts.uid != user.as_raw() {
        Some("the folder belongs to another user")
    } else {
        None
    }
}

fn found_as(kind: EntryKind) -> Found {
    match kind {
        EntryKind::Directory => Found::Folder,
        EntryKind::Symlink => Found::Symlink,
        EntryKind::File | EntryKind::HardLink => Found::File,
    }
}

fn agrees(facts: &Facts, attributes: Attributes) -> bool {
    facts.mode == attributes.mode && facts.mtime == attributes.mtime
}
