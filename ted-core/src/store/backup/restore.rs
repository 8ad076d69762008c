//! Putting a security state back: all of it is written beside and verified, then it takes its place in one step.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Backup, BackupError};
use crate::store::data_dir::{DataDir, NodeRole};
use crate::store::durable::DurableFile;
use crate::store::file::{FileError, create_folders, sync_folder};
use crate::store::security_dir::SecurityDir;
use crate::store::security_state::{Floors, Registrations, Sequences};
use crate::store::standing::{Revocations, StandingEnvelopes};
use crate::store::steps::{AllSteps, Step, Steps};

/// Where a security state is put together.
const BESIDE: &str = "security.restoring";

/// What happens to keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing is restored where there are keys.
    Refuse,
    /// They are moved aside: this node forgets them.
    MoveAside,
}

/// A security state that was verified and waits beside the place it is to take.
pub struct Restoring {
    data: DataDir,
    steps: Arc<dyn Steps>,
}

impl Restoring {
    /// Writes a backup's files beside the security state of the data directory `path` and verifies every one of them.
    /// The directory is this process's until the value is dropped. Where a state is there that can be read, floors,
    /// sequence numbers, revisions, revocations and a Subscriber's standing envelopes of the restored one are raised to
    /// it: no restoring takes them back.
    ///
    /// # Errors
    /// [`BackupError`]; then the data directory is as it was.
    pub fn prepare(backup: &Backup, path: &Path, role: NodeRole, overwrite: Overwrite) -> Result<Self, BackupError> {
        Self::prepare_with(backup, path, role, overwrite, Arc::new(AllSteps))
    }

    pub(super) fn prepare_with(
        backup: &Backup,
        path: &Path,
        role: NodeRole,
        overwrite: Overwrite,
        steps: Arc<dyn Steps>,
    ) -> Result<Self, BackupError> {
        if backup.role != role.to_string() {
            let (node, found) = (backup.node.clone(), backup.role.clone());
            return Err(BackupError::OtherRole { node, found, wanted: role });
        }
        let data = DataDir::create(path, role)?;
        let security = data.security();
        if overwrite == Overwrite::Refuse && holds_keys(&security) {
            return Err(BackupError::Exists(security));
        }
        let beside = data.path().join(BESIDE);
        if beside.symlink_metadata().is_ok() {
            // Of a restoring that was cut short: half a state, or the one whose place was taken already.
            let left = free_name(data.path(), "security.interrupted-restore");
            std::fs::rename(&beside, &left).map_err(FileError::at("rename", &beside))?;
        }
        for folder in ["private", "csr", "issued"] {
            create_folders(&beside.join(folder))?;
        }
        for file in &backup.files {
            let path = beside.join(&file.path);
            create_folders(path.parent().unwrap_or(&beside))?;
            DurableFile::new_with(path, Arc::clone(&steps)).replace(&file.bytes)?;
        }
        let restored = SecurityDir::open(&beside, role)?;
        restored.entries()?;
        let (floors, sequences) = (Floors::open(&restored)?, Sequences::open(&restored)?);
        let revocations = Revocations::open(&restored)?;
        Registrations::open(&restored)?;
        // What is there may be the very thing that is broken; then there is nothing to raise to.
        if let Ok(there) = SecurityDir::open(&security, role) {
            raise(&there, &floors, &sequences, &revocations)?;
            // At a Subscriber, what a Distributor took back since is not to be said to it once more. A Distributor's own
            // words belong to the keys that are restored with them.
            if role == NodeRole::Subscriber
                && let Ok(known) = StandingEnvelopes::open(&there)
            {
                StandingEnvelopes::open(&restored)?.raise_to(&known)?;
            }
        }
        Ok(Self { data, steps })
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// Puts the restored state in its place, durably and in one step; answers where the one that was there went.
    ///
    /// # Errors
    /// [`BackupError::File`]; then either the old state is in its place or the new one.
    pub fn finish(self) -> Result<Option<PathBuf>, BackupError> {
        let (security, beside) = (self.data.security(), self.data.path().join(BESIDE));
        let before = |step| self.steps.before(step).map_err(FileError::at("restore", &security));
        let rename = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(FileError::at("rename", from));
        let there = security.symlink_metadata().is_ok();
        let aside = free_name(self.data.path(), "security.before-restore");
        before(Step::RenameState)?;
        if !there {
            rename(&beside, &security)?;
        } else {
            match renameat_with(CWD, &beside, CWD, &security, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    before(Step::SyncFolder)?;
                    sync_folder(self.data.path())?;
                    before(Step::RenameState)?;
                    rename(&beside, &aside)?;
                }
                // A file system that cannot exchange: between these two there is none, and restoring again is safe.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    rename(&security, &aside)?;
                    rename(&beside, &security)?;
                }
                Err(errno) => return Err(FileError::new("exchange", &security, errno.into()).into()),
            }
        }
        before(Step::SyncFolder)?;
        sync_folder(self.data.path())?;
        Ok(there.then_some(aside))
    }
}

fn holds_keys(security: &Path) -> bool {
    ["private/.keystore", ".keystore-made"].iter().any(|name| security.join(name).symlink_metadata().is_ok())
}

/// A name that nothing has yet: keys are moved out of the way, and never over others.
fn free_name(folder: &Path, stem: &str) -> PathBuf {
    let mut names = (1..).map(|number: u32| folder.join(format!("{stem}-{number}")));
    names.find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| folder.join(stem))
}

fn raise(
    there: &SecurityDir,
    floors: &Floors,
    sequences: &Sequences,
    revocations: &Revocations,
) -> Result<(), BackupError> {
    if let Ok(known) = Floors::open(there) {
        for ((distributor, distribution), floor) in known.all() {
            floors.raise(&distributor, &distribution, floor)?;
        }
    }
    if let Ok(known) = Sequences::open(there) {
        sequences.raise_to(&known)?;
    }
    if let Ok(known) = Revocations::open(there) {
        revocations.take_over(&known)?;
    }
    Ok(())
}
