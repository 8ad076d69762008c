//! Where tests stop file work: before every step whose order matters, the file work asks.

use std::io;

/// A step of file work whose order decides what a crash leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Reserving a part file's whole length on the disk.
    Allocate,
    /// Writing received or built bytes.
    WriteData,
    /// Making written bytes durable.
    SyncData,
    /// Writing the new map beside the old one.
    WriteMap,
    /// Making the new map's bytes durable.
    SyncMap,
    /// Putting the new map in the place of the old one.
    RenameMap,
    /// Renaming a package file: to its final name, or to that of a corrupt one.
    RenamePackage,
    /// Making renames and new names in a folder durable.
    SyncFolder,
    /// Removing the map, which nothing needs any more.
    RemoveMap,
    /// Writing a state file's new content beside the old one.
    WriteState,
    /// Making that content durable.
    SyncState,
    /// Putting it in the place of the old one.
    RenameState,
    /// Removing a `.cer` that is in the keystore now.
    RemoveCertificate,
    /// Putting a keystore, or what belongs to it, aside.
    Retire,
    /// Giving a kept package a new root.
    SignAgain,
    /// Having a word about a certificate stand.
    Announce,
    /// Letting what is kept of a Distributor follow its new key.
    Follow,
}

/// Asked before every [`Step`]. An error stops the work there and leaves the disk as a crash at that point would.
pub trait Steps: Send + Sync {
    /// Whether the step may happen.
    ///
    /// # Errors
    /// Whatever the disk should seem to say.
    fn before(&self, step: Step) -> io::Result<()>;
}

/// Every step happens. What everything but tests uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllSteps;

impl Steps for AllSteps {
    fn before(&self, _: Step) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use super::{Step, Steps};

    /// Lets `allowed` steps happen, then fails each further one with `error`; keeps what was asked.
    pub(crate) struct StopAfter {
        pub(in crate::store) allowed: usize,
        pub(in crate::store) error: io::ErrorKind,
        pub(in crate::store) asked: Mutex<Vec<Step>>,
    }

    impl StopAfter {
        pub(crate) fn new(allowed: usize, error: io::ErrorKind) -> Self {
            Self { allowed, error, asked: Mutex::new(Vec::new()) }
        }

        pub(crate) fn asked(&self) -> Vec<Step> {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl Steps for StopAfter {
        fn before(&self, step: Step) -> io::Result<()> {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(step);
            if asked.len() > self.allowed { Err(self.error.into()) } else { Ok(()) }
        }
    }
}
