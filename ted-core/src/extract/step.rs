//! The steps of an extraction that change the disk, and the place where faults are injected before them.

use std::io;

/// A step that changes the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    CreateTarget,
    RemoveTarget,
    CreateStaging,
    CreateFile,
    WriteFile,
    SetFile,
    MakeLink,
    Sync,
    WriteJournal,
    CommitJournal,
    KeepCopy,
    Displace,
    CreateFolder,
    Move,
    Delete,
    SetFolder,
    NameRelease,
    Switch,
    RemoveRelease,
    RemoveStaged,
    RemoveStaging,
}

/// Told of every step before it is taken. An error stands for the step's failure, and the step is not taken.
pub(super) trait Hook: Sync {
    fn before(&self, step: Step) -> io::Result<()>;
}

/// What is used outside of tests: every step is taken.
pub(super) struct NoHook;

impl Hook for NoHook {
    fn before(&self, _step: Step) -> io::Result<()> {
        Ok(())
    }
}
