//! Applying the journal: staged entries go to their places. Every step can be taken again after a crash.

use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Disk, Found};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::job::{ExtractPhase, ExtractProgress};
use crate::extract::journal::{Deleted, Displaced, Journal, Kept, Move, Standing, staged_name};
use crate::extract::staging::{JournalGoes, Staging};
use crate::extract::step::Step;
use crate::limits::Limits;
use crate::package::EntryPath;

/// What applying works with.
pub(super) struct Apply<'a> {
    pub(super) disk: Disk<'a>,
    pub(super) root: &'a Arc<Dir>,
    pub(super) limits: &'a Limits,
    pub(super) report: &'a (dyn Fn(ExtractProgress) + Sync),
}

impl Apply<'_> {
    /// Does what the journal says, and removes the staging folder.
    pub(super) fn run(&self, staging: Staging, journal: &Journal) -> Result<(), ExtractError> {
        match &journal.release {
            None => self.tree(&staging, journal, self.root)?,
            Some(release) => self.release(&staging, journal, release)?,
        }
        let failed = |error| ExtractError::io("finishing", "the target", error);
        self.disk.sync_file_system(self.root).map_err(failed)?;
        match staging.remove(self.disk, JournalGoes::Last) {
            // It is done; what somebody holds open goes when they close it.
            Err(ExtractError::HeldOpen { .. }) => return Ok(()),
            other => other?,
        }
        if journal.release.is_none() {
            self.disk.set_attributes(Step::SetFolder, &**self.root, journal.root).map_err(failed)?;
        }
        self.disk.sync(&**self.root).map_err(failed)
    }

    /// Brings the tree below `root` into order, but for the mode and time of `root` itself. What one entry suffers
    /// keeps no other from its place.
    pub(super) fn tree(&self, staging: &Staging, journal: &Journal, root: &Arc<Dir>) -> Result<(), ExtractError> {
        let access = Access::Change(self.disk);
        let mut folders = Folders::new(Arc::clone(root), access, self.limits.open_folders_max);
        let mut failed = vec![];
        for kept in &journal.kept {
            one(&mut failed, self.keep(kept, &mut folders))?;
        }
        for (number, displaced) in journal.displaced.iter().enumerate() {
            one(&mut failed, self.displace(staging, number, displaced, &mut folders))?;
        }
        // Where something was not kept, or did not make way, nothing takes its place.
        if let Some(error) = ExtractError::all_of(failed) {
            return Err(error);
        }
        for path in &journal.new_folders {
            self.new_folder(path, &mut folders)?;
        }
        let mut failed = vec![];
        self.moves(staging, journal, &mut folders, &mut failed)?;
        for (number, deleted) in journal.deleted.iter().enumerate() {
            one(&mut failed, self.delete(staging, number, deleted, &mut folders))?;
        }
        // Inner folders first: their own modes and times do not change those of the folder above.
        for (path, attributes) in journal.folders.iter().rev() {
            let set = folders
                .get(path.as_bytes())
                .and_then(|folder| self.disk.set_attributes(Step::SetFolder, &*folder, *attributes))
                .map_err(|error| ExtractError::io("setting mode and time of", path, error));
            one(&mut failed, set)?;
        }
        ExtractError::all_of(failed).map_or(Ok(()), Err)
    }

    /// Gives a file that somebody changed another name, before its own goes to the revision's.
    fn keep(&self, kept: &Kept, folders: &mut Folders<'_>) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("keeping", &kept.path, error);
        let (parent, name) = split(kept.path.as_bytes());
        let copy = kept.copy.file_name().unwrap_or_default();
        let folder = folders.get(parent).map_err(failed)?;
        let stands = disk::facts_at(&*folder, name).map_err(failed)?;
        let is_kept = disk::facts_at(&*folder, copy).map_err(failed)?.is_some();
        if is_kept || stands.is_none_or(|facts| facts.identity.2 != kept.inode) {
            return Ok(());
        }
        self.disk.keep_as(&folder, name, copy).map_err(failed)
    }

    fn displace(
        &self,
        staging: &Staging,
        number: usize,
        displaced: &Displaced,
        folders: &mut Folders<'_>,
    ) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("moving away", &displaced.path, error);
        let (parent, name) = split(displaced.path.as_bytes());
        let folder = folders.get(parent).map_err(failed)?;
        let standing = disk::facts_at(&*folder, name).map_err(failed)?.map(|facts| Standing::of(facts.found));
        if standing != Some(displaced.standing) {
            return Ok(());
        }
        let old = format!("old-{number}");
        let place = match &displaced.copy {
            Some(copy) => (&*folder, copy.file_name().unwrap_or_default()),
            None => {
                self.let_go(&folder, name, displaced.standing).map_err(failed)?;
                (&*staging.folder, old.as_bytes())
            }
        };
        self.disk.rename(Step::Displace, (&folder, name), place).map_err(failed)
    }

    fn delete(
        &self,
        staging: &Staging,
        number: usize,
        deleted: &Deleted,
        folders: &mut Folders<'_>,
    ) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("deleting", &deleted.path, error);
        let (parent, name) = split(deleted.path.as_bytes());
        let folder = match folders.get(parent) {
            Err(error) if is_gone(&error) => return Ok(()),
            other => other.map_err(failed)?,
        };
        let Some(facts) = disk::facts_at(&*folder, name).map_err(failed)? else { return Ok(()) };
        if facts.identity.2 != deleted.inode {
            return Ok(());
        }
        self.let_go(&folder, name, Standing::of(facts.found)).map_err(failed)?;
        let gone = format!("gone-{number}");
        self.disk.rename(Step::Delete, (&folder, name), (&staging.folder, gone.as_bytes())).map_err(failed)
    }

    /// A folder can be moved to another one only by those who may write into it.
    pub(super) fn let_go(&self, folder: &Dir, name: &[u8], standing: Standing) -> io::Result<()> {
        match standing {
            Standing::Folder => self.disk.make_writable(Step::Displace, &disk::open_folder(folder, name)?),
            Standing::NoFolder => Ok(()),
        }
    }

    fn new_folder(&self, path: &EntryPath, folders: &mut Folders<'_>) -> Result<(), ExtractError> {
        let (parent, name) = split(path.as_bytes());
        let failed = |error| ExtractError::io("making the folder", path, error);
        let folder = folders.get(parent).map_err(failed)?;
        match self.disk.create_folder(Step::CreateFolder, &*folder, name, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match disk::facts_at(&*folder, name).map_err(failed)? {
                    Some(facts) if facts.found != Found::Folder => Err(ExtractError::Obstacle {
                        path: path.clone(),
                        wanted: Found::Folder.name(),
                        found: facts.found.name(),
                    }),
                    _ => Ok(()),
                }
            }
            other => other.map_err(failed),
        }
    }

    fn moves(
        &self,
        staging: &Staging,
        journal: &Journal,
        folders: &mut Folders<'_>,
        failures: &mut Vec<ExtractError>,
    ) -> Result<(), ExtractError> {
        let total = journal.moves.len() as u64;
        for (number, entry) in journal.moves.iter().enumerate() {
            one(failures, self.move_one(staging, entry, folders))?;
            let entries = number as u64 + 1;
            if entries.is_multiple_of(64) || entries == total {
                (self.report)(ExtractProgress {
                    phase: ExtractPhase::Applying,
                    bytes: 0,
                    bytes_total: 0,
                    entries,
                    entries_total: total,
                });
            }
        }
        Ok(())
    }

    fn move_one(&self, staging: &Staging, entry: &Move, folders: &mut Folders<'_>) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("moving into place", &entry.path, error);
        let (parent, name) = split(entry.path.as_bytes());
        let folder = folders.get(parent).map_err(failed)?;
        let staged = staged_name(entry.staged);
        match self.disk.rename(Step::Move, (&staging.folder, staged.as_bytes()), (&folder, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Moved already, before a crash: then it stands in its place.
                let standing = disk::facts_at(&*folder, name).map_err(failed)?;
                if standing.is_none_or(|facts| facts.found == Found::Folder) {
                    return Err(ExtractError::Lost { path: entry.path.clone() });
                }
                Ok(())
            }
            other => other.map_err(failed),
        }
    }
}

/// Collects what went wrong with one entry; everything else ends it all.
fn one(failures: &mut Vec<ExtractError>, done: Result<(), ExtractError>) -> Result<(), ExtractError> {
    match done {
        Err(error) if error.is_about_one() => {
            failures.push(error);
            Ok(())
        }
        other => other,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
