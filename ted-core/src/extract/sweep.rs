//! What lies in the target and is not the revision's: in sync mode it goes.

use std::collections::HashSet;
use std::io;

use crate::extract::disk::{self, Facts, Found};
use crate::extract::error::ExtractError;
use crate::extract::fold::fold_key;
use crate::extract::folders::split;
use crate::extract::job::OnLocalChange;
use crate::extract::judge::find_row;
use crate::extract::local::is_copy_name;
use crate::extract::plan::{Deletion, IMMUTABLE, Planner, folder_lock};
use crate::extract::staging::{STAGING_PREFIX, is_held_open};
use crate::package::{EntryKind, EntryPath};

impl Planner<'_> {
    /// Notes what lies in the folders of the list and is not in it.
    pub(super) fn sweep(&mut self) -> Result<(), ExtractError> {
        for row in 0..self.rows.len() {
            let rows = self.rows;
            let folder = &rows[row].entry.path;
            let exists = |planner: &Self| planner.known.get(folder.as_bytes()).is_some_and(|known| known.exists);
            if rows[row].entry.kind != EntryKind::Directory || !exists(self) {
                continue;
            }
            let extras = self.extras(folder).map_err(|error| ExtractError::io("looking at", folder, error))?;
            let before = self.plan.deletions.len();
            for (path, facts) in extras {
                let mut deletions = vec![];
                self.extra(&path, facts, &mut deletions)?;
                self.plan.deletions.extend(deletions);
            }
            let changes = self.plan.deletions.len() > before;
            if let Some(known) = self.known.get_mut(folder.as_bytes()) {
                known.touched |= changes;
            }
        }
        Ok(())
    }

    /// What lies in a folder of the list and is not in the list, in path order.
    fn extras(&mut self, folder: &EntryPath) -> io::Result<Vec<(EntryPath, Facts)>> {
        let rows = self.rows;
        let mut extras = vec![];
        for (name, facts) in self.lying_in(folder)? {
            if folder.is_root() && fold_key(&name).starts_with(STAGING_PREFIX.as_bytes()) {
                continue;
            }
            match folder.join(&name) {
                Ok(path) if find_row(rows, &path).is_some() => {}
                Ok(path) => extras.push((path, facts)),
                Err(_) => self.plan.left.push((folder.clone(), "holds a path that is too long")),
            }
        }
        if !extras.is_empty() {
            let listed = self.listed_by_another_name(folder, &extras)?;
            extras.retain(|(_, facts)| !listed.contains(&facts.identity));
        }
        extras.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(extras)
    }

    fn lying_in(&mut self, folder: &EntryPath) -> io::Result<Vec<(Vec<u8>, Facts)>> {
        let Some(folders) = &mut self.folders else { return Ok(vec![]) };
        let folder = folders.get(folder.as_bytes())?;
        let mut lying = vec![];
        for name in disk::names_in(&folder)? {
            if let Some(facts) = disk::facts_at(&*folder, &name)? {
                lying.push((name, facts));
            }
        }
        Ok(lying)
    }

    /// Where a file system folds names, an entry of the list may stand under a name that is spelled in another way.
    fn listed_by_another_name(
        &mut self,
        folder: &EntryPath,
        extras: &[(EntryPath, Facts)],
    ) -> io::Result<HashSet<(u32, u32, u64)>> {
        let rows = self.rows;
        let mut listed = HashSet::new();
        let Some(folders) = &mut self.folders else { return Ok(listed) };
        let open = folders.get(folder.as_bytes())?;
        let key = |path: &EntryPath| fold_key(path.file_name().unwrap_or_default());
        let keys: HashSet<Vec<u8>> = extras.iter().map(|(path, _)| key(path)).collect();
        let below = if folder.is_root() { vec![] } else { [folder.as_bytes(), b"/"].concat() };
        let first = rows.partition_point(|row| row.entry.path.as_bytes() < below.as_slice());
        let inside = rows[first..].iter().map(|row| &row.entry.path);
        for path in inside.take_while(|path| path.as_bytes().starts_with(&below)) {
            let (parent, name) = split(path.as_bytes());
            if parent == folder.as_bytes()
                && keys.contains(&key(path))
                && let Some(facts) = disk::facts_at(&*open, name)?
            {
                listed.insert(facts.identity);
            }
        }
        Ok(listed)
    }

    /// Notes what is to be deleted of something that is not in the list. Says whether all of it goes.
    fn extra(&mut self, path: &EntryPath, facts: Facts, out: &mut Vec<Deletion>) -> Result<bool, ExtractError> {
        let name = path.file_name().unwrap_or_default();
        let keeps = matches!(self.options.on_local_change, OnLocalChange::Keep { .. });
        let stays = if facts.mount_point {
            Some("a file system is mounted there")
        } else if keeps && is_copy_name(name) {
            Some("it was kept when a revision took its place")
        } else if facts.found == Found::File && is_held_open(name) {
            Some("it is a file that somebody holds open")
        } else {
            None
        };
        if let Some(why) = stays {
            self.plan.left.push((path.clone(), why));
            return Ok(false);
        }
        if facts.immutable {
            self.plan.blocked.push(ExtractError::locked(path, IMMUTABLE));
            return Ok(false);
        }
        let deletion = Deletion { path: path.clone(), inode: facts.identity.2 };
        if facts.found != Found::Folder {
            let changed = self.knowledge.left_like_this(path, &facts) == Some(false) && facts.found == Found::File;
            if changed {
                self.note_change_of_extra(path, facts)?;
            }
            out.push(deletion);
            self.plan.deleted.push(path.clone());
            // What is kept of it stays in its folder.
            return Ok(!(changed && keeps));
        }
        if let Some(why) = folder_lock(&facts) {
            self.plan.blocked.push(ExtractError::locked(path, why));
            return Ok(false);
        }
        let reported = self.plan.deleted.len();
        self.plan.deleted.push(path.clone());
        let (mut inside, mut whole) = (vec![], true);
        let failed = |error| ExtractError::io("looking at", path, error);
        for (name, facts) in self.lying_in(path).map_err(failed)? {
            match path.join(&name) {
                Ok(below) => whole &= self.extra(&below, facts, &mut inside)?,
                Err(_) => {
                    self.plan.left.push((path.clone(), "holds a path that is too long"));
                    whole = false;
                }
            }
        }
        if whole {
            out.push(deletion);
        } else {
            out.append(&mut inside);
            self.plan.deleted.remove(reported);
        }
        Ok(whole)
    }

    fn note_change_of_extra(&mut self, path: &EntryPath, facts: Facts) -> Result<(), ExtractError> {
        let (parent, _) = split(path.as_bytes());
        let Some(folders) = &mut self.folders else { return Ok(()) };
        let folder = folders.get(parent).map_err(|error| ExtractError::io("looking at", path, error))?;
        self.note_local_change(path, &folder, facts)
    }

    /// Notes what keeps a folder from being moved away with everything in it, and what is in it.
    pub(super) fn judge_folder_that_goes(&mut self, path: &EntryPath) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("looking at", path, error);
        let mut waiting = vec![path.clone()];
        while let Some(folder) = waiting.pop() {
            for (name, facts) in self.lying_in(&folder).map_err(failed)? {
                let Ok(below) = folder.join(&name) else { continue };
                if facts.mount_point {
                    self.plan.blocked.push(ExtractError::MountPoint { path: below.clone() });
                } else if facts.immutable {
                    self.plan.blocked.push(ExtractError::locked(&below, IMMUTABLE));
                } else if facts.found == Found::Folder {
                    match folder_lock(&facts) {
                        Some(why) => self.plan.blocked.push(ExtractError::locked(&below, why)),
                        None => waiting.push(below.clone()),
                    }
                }
                self.plan.deleted.push(below);
            }
        }
        Ok(())
    }
}
