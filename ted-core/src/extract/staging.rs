//! The staging folder inside the target: where everything is written first, and what a crash leaves behind.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Attributes, Disk, Found};
use crate::extract::error::ExtractError;
use crate::extract::step::Step;
use crate::id::DistributionId;

/// What the names of staging folders begin with. No entry of any revision may have such a name in the root.
pub(super) const STAGING_PREFIX: &str = ".ted-staging-";
/// The journal's name in the staging folder: with it the extraction is committed.
pub(super) const JOURNAL: &[u8] = b"journal";
/// The journal's name while it is written.
pub(super) const JOURNAL_NEW: &[u8] = b"journal.new";

/// An open, locked staging folder.
pub(super) struct Staging {
    pub(super) folder: Arc<Dir>,
    root: Arc<Dir>,
    name: String,
    /// Mode and time of the root before the staging folder was made, if this process made it.
    root_before: Option<Attributes>,
}

/// When the journal goes, among the things in a staging folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum JournalGoes {
    /// Undoing: first, so that nobody applies a journal whose files are gone.
    First,
    /// Done: last, so that a crash in between is followed by applying it again.
    Last,
}

impl Staging {
    /// Makes the staging folder of this Distribution.
    pub(super) fn create(
        disk: Disk<'_>,
        root: &Arc<Dir>,
        target: &Path,
        distribution: &DistributionId,
    ) -> Result<Self, ExtractError> {
        let name = staging_name(distribution);
        let failed = |error| ExtractError::io("making the staging folder in", target.display(), error);
        let facts = disk::facts_of(&**root).map_err(failed)?;
        disk.make_writable(Step::CreateStaging, root).map_err(failed)?;
        disk.create_folder(Step::CreateStaging, &**root, name.as_bytes(), 0o700).map_err(|error| {
            // An earlier one was dealt with just now, so this one is somebody else's.
            let busy = error.kind() == io::ErrorKind::AlreadyExists;
            if busy { ExtractError::Busy { target: target.to_owned() } } else { failed(error) }
        })?;
        let folder = Arc::new(disk::open_folder(&**root, name.as_bytes()).map_err(failed)?);
        let root_before = Some(Attributes { mode: facts.mode, mtime: facts.mtime });
        let staging = Self { folder, root: Arc::clone(root), name, root_before };
        staging.lock(target)?;
        Ok(staging)
    }

    /// Opens the staging folder that an earlier extraction of this Distribution left, if there is one.
    pub(super) fn find(
        root: &Arc<Dir>,
        target: &Path,
        distribution: &DistributionId,
    ) -> Result<Option<Self>, ExtractError> {
        let name = staging_name(distribution);
        let failed = |error| ExtractError::io("opening the staging folder in", target.display(), error);
        let Some(facts) = disk::facts_at(&**root, name.as_bytes()).map_err(failed)? else { return Ok(None) };
        // What others could write to cannot be trusted to say what goes where.
        let ours = rustix::process::geteuid().as_raw() == facts.uid && facts.mode & 0o077 == 0;
        if facts.found != Found::Folder || !ours || facts.mount_point {
            return Err(ExtractError::NotOurs { target: target.to_owned(), name });
        }
        let folder = Arc::new(disk::open_folder(&**root, name.as_bytes()).map_err(failed)?);
        let opened = disk::facts_of(&*folder).map_err(failed)?;
        if opened.identity != facts.identity {
            return Err(ExtractError::NotOurs { target: target.to_owned(), name });
        }
        let staging = Self { folder, root: Arc::clone(root), name, root_before: None };
        staging.lock(target)?;
        Ok(Some(staging))
    }

    /// Removes it and what is in it.
    pub(super) fn remove(self, disk: Disk<'_>, journal: JournalGoes) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("removing the staging folder", &self.name, error);
        if journal == JournalGoes::First {
            remove_if_there(disk, &self.folder, JOURNAL).map_err(failed)?;
        }
        for name in disk::names_in(&self.folder).map_err(failed)? {
            if name != JOURNAL {
                remove_tree(disk, &self.folder, &name).map_err(failed)?;
            }
        }
        remove_if_there(disk, &self.folder, JOURNAL).map_err(failed)?;
        match disk.remove_folder(Step::RemoveStaging, &*self.root, self.name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && self.only_holds_open_files() => {
                return Err(ExtractError::HeldOpen { staging: PathBuf::from(self.name) });
            }
            other => other.map_err(failed)?,
        }
        match self.root_before {
            // The root is as it was before, and so is its time.
            Some(attributes) if journal == JournalGoes::First => {
                disk.set_attributes(Step::SetFolder, &*self.root, attributes).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// Whether all that is left is what NFS keeps for processes of this machine.
    fn only_holds_open_files(&self) -> bool {
        let names = disk::names_in(&self.folder).unwrap_or_default();
        !names.is_empty() && names.iter().all(|name| is_held_open(name))
    }

    /// Where it is, for people to look at.
    pub(super) fn path(&self, target: &Path) -> PathBuf {
        target.join(&self.name)
    }

    fn lock(&self, target: &Path) -> Result<(), ExtractError> {
        let failed = |error| ExtractError::io("locking the staging folder in", target.display(), error);
        let locked = disk::lock(&self.folder).map_err(failed)?;
        // Another process may have finished, and removed the folder, before the lock was ours.
        let there = disk::facts_at(&*self.root, self.name.as_bytes()).map_err(failed)?;
        let opened = disk::facts_of(&*self.folder).map_err(failed)?;
        if locked && there.is_some_and(|facts| facts.identity == opened.identity) {
            return Ok(());
        }
        Err(ExtractError::Busy { target: target.to_owned() })
    }
}

fn staging_name(distribution: &DistributionId) -> String {
    format!("{STAGING_PREFIX}{distribution}")
}

/// What NFS calls a file that was removed while a process of this machine had it open. It goes when that one closes it.
pub(super) fn is_held_open(name: &[u8]) -> bool {
    name.strip_prefix(b".nfs").is_some_and(|rest| rest.len() >= 16 && rest.iter().all(u8::is_ascii_hexdigit))
}

fn remove_if_there(disk: Disk<'_>, folder: &Dir, name: &[u8]) -> io::Result<()> {
    match disk.remove_file(Step::RemoveStaged, folder, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes `name` in `folder`, with everything below it, whatever the modes of the folders are.
fn remove_tree(disk: Disk<'_>, folder: &Arc<Dir>, name: &[u8]) -> io::Result<()> {
    let mut waiting = vec![(Arc::clone(folder), name.to_vec(), false)];
    while let Some((folder, name, emptied)) = waiting.pop() {
        if emptied {
            disk.remove_folder(Step::RemoveStaged, &*folder, &name)?;
            continue;
        }
        let facts = disk::facts_at(&*folder, &name)?;
        if facts.is_none_or(|facts| facts.found != Found::Folder) {
            disk.remove_file(Step::RemoveStaged, &folder, &name)?;
            continue;
        }
        if facts.is_some_and(|facts| facts.mount_point) {
            // It came after the plan was made, and what is in it is nobody's to delete.
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "a file system is mounted in it"));
        }
        let inside = Arc::new(disk::open_folder(&*folder, &name)?);
        disk.make_writable(Step::RemoveStaged, &inside)?;
        waiting.push((folder, name, true));
        let names = disk::names_in(&inside)?;
        waiting.extend(names.into_iter().map(|name| (Arc::clone(&inside), name, false)));
    }
    Ok(())
}
