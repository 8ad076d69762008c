//! Applying the journal: staged entries go to their places. Every step can be taken again after a crash.

use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Disk, Found};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::job::{ExtractPhase, ExtractProgress};
use crate::extract::journal::{Journal, Standing, staged_name};
use crate::extract::keep::Losses;
use crate::extract::staging::{JournalGoes, Staging};
use crate::extract::step::Step;
use crate::limits::Limits;
use crate::package::EntryPath;

/// What applying works with.
pub(super) struct Apply<'a> {
    pub(super) disk: Disk<'a>,
    pub(super) root: &'a Arc<Dir>,
    pub(super) limits: &'a Limits,
    pub(super) losses: &'a Losses,
    pub(super) report: &'a (dyn Fn(ExtractProgress) + Sync),
}

impl Apply<'_> {
    /// Does what the journal says, and removes the staging folder.
    pub(super) fn run(&self, staging: Staging, journal: &Journal) -> Result<(), ExtractError> {
        let access = Access::Change(self.disk);
        let mut folders = Folders::new(Arc::clone(self.root), access, self.limits.open_folders_max);
        self.displace(&staging, journal, &mut folders)?;
        for path in &journal.new_folders {
            self.new_folder(path, &mut folders)?;
        }
        self.moves(&staging, journal, &mut folders)?;
        for (path, extra) in &journal.extras {
            let folder = folders.get(path.as_bytes()).map_err(|error| ExtractError::io("opening", path, error))?;
            extra.write(self.disk, Step::SetFolder, path, &*folder, self.losses);
        }
        // Inner folders first: their own modes and times do not change those of the folder above.
        for (path, attributes) in journal.folders.iter().rev() {
            folders
                .get(path.as_bytes())
                .and_then(|folder| self.disk.set_attributes(Step::SetFolder, &*folder, *attributes))
                .map_err(|error| ExtractError::io("setting mode and time of", path, error))?;
        }
        let failed = |error| ExtractError::io("finishing", "the target", error);
        self.disk.sync_file_system(self.root).map_err(failed)?;
        staging.remove(self.disk, JournalGoes::Last).map_err(failed)?;
        self.disk.set_attributes(Step::SetFolder, &**self.root, journal.root).map_err(failed)?;
        self.disk.sync(&**self.root).map_err(failed)
    }

    fn displace(&self, staging: &Staging, journal: &Journal, folders: &mut Folders<'_>) -> Result<(), ExtractError> {
        for (number, displaced) in journal.displaced.iter().enumerate() {
            let (parent, name) = split(displaced.path.as_bytes());
            let mut make_way = || -> io::Result<()> {
                let folder = folders.get(parent)?;
                let standing = disk::facts_at(&*folder, name)?.map(|facts| Standing::of(facts.found));
                if standing != Some(displaced.standing) {
                    return Ok(());
                }
                if displaced.standing == Standing::Folder {
                    // A folder can be moved to another one only by those who may write into it.
                    self.disk.make_writable(Step::Displace, &disk::open_folder(&*folder, name)?)?;
                }
                let old = format!("old-{number}");
                self.disk.rename(Step::Displace, (&folder, name), (&staging.folder, old.as_bytes()))
            };
            make_way().map_err(|error| ExtractError::io("moving away", &displaced.path, error))?;
        }
        Ok(())
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

    fn moves(&self, staging: &Staging, journal: &Journal, folders: &mut Folders<'_>) -> Result<(), ExtractError> {
        let total = journal.moves.len() as u64;
        for (number, entry) in journal.moves.iter().enumerate() {
            let failed = |error| ExtractError::io("moving into place", &entry.path, error);
            let (parent, name) = split(entry.path.as_bytes());
            let folder = folders.get(parent).map_err(failed)?;
            let staged = staged_name(entry.staged);
            let moved = self.disk.rename(Step::Move, (&staging.folder, staged.as_bytes()), (&folder, name));
            match moved {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Moved already, before a crash: then it stands in its place.
                    let standing = disk::facts_at(&*folder, name).map_err(failed)?;
                    if standing.is_none_or(|facts| facts.found == Found::Folder) {
                        return Err(ExtractError::Lost { path: entry.path.clone() });
                    }
                }
                other => other.map_err(failed)?,
            }
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
}
