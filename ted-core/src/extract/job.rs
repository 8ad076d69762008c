//! What an extraction is asked to do, how far it is, and what it did.

use std::fmt;
use std::sync::Arc;

use crate::extract::contents::Contents;
use crate::id::{DistributionId, Revision};
use crate::limits::Limits;
use crate::package::{CatalogRow, Entry, EntryPath};

/// Which symbolic links are written. None is ever followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// Any target text.
    #[default]
    Any,
    /// Only those that, read as text, stay below the target; others are refused.
    Inside,
}

/// What becomes of permission bits that give a program its owner's rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privilege {
    /// setuid and setgid are dropped.
    #[default]
    Drop,
    /// They are kept: whoever builds the Distribution can become whoever extracts it.
    KeepSetuid,
}

impl Privilege {
    /// The permission bits that a mode becomes.
    pub(super) const fn mask(self, mode: u32) -> u32 {
        match self {
            Self::Drop => mode & 0o1777,
            Self::KeepSetuid => mode & 0o7777,
        }
    }
}

/// Asked when everything is staged and checked, right before the first change of what stands in the target: whether to
/// go on. It is not asked where nothing changes. Whoever says no knows why, so the error is only
/// [`ExtractError::Cancelled`](super::ExtractError::Cancelled).
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Gate {
    /// A gate that asks `may_go_on`.
    pub fn new(may_go_on: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(may_go_on)))
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.as_ref().is_none_or(|may_go_on| may_go_on())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Gate(asked)" } else { "Gate(open)" })
    }
}

/// The operator's choices.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Threads that decode, hash and write; 0 means one for each processor.
    pub threads: usize,
    /// Which symbolic links are written.
    pub links: Links,
    /// What becomes of setuid and setgid.
    pub privilege: Privilege,
    /// Asked before the target changes; open by default.
    pub gate: Gate,
    /// Every bound.
    pub limits: Limits,
}

/// One revision to extract.
#[derive(Clone, Copy)]
pub struct ExtractJob<'a> {
    /// The revision's entries, in path order, and where their content lies where a body has it.
    pub rows: &'a [CatalogRow],
    /// Where their contents come from.
    pub contents: Contents<'a>,
    /// The entries, in path order, of the revision that was extracted to this target last.
    pub previous: Option<&'a [Entry]>,
    /// Whose revision it is.
    pub distribution: DistributionId,
    /// Which.
    pub revision: Revision,
    /// The operator's choices.
    pub options: &'a ExtractOptions,
}

/// What an extraction is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtractPhase {
    /// Content is written into the staging folder.
    Staging,
    /// Staged entries are moved to their places.
    Applying,
}

/// How far an extraction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractProgress {
    /// What it is busy with.
    pub phase: ExtractPhase,
    /// Bytes of content written so far.
    pub bytes: u64,
    /// Bytes of content to write.
    pub bytes_total: u64,
    /// Entries staged, or moved, so far.
    pub entries: u64,
    /// Entries to stage, or to move.
    pub entries_total: u64,
}

/// What an extraction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractSummary {
    /// What an earlier, interrupted extraction had left, and what became of it.
    pub recovered: Recovery,
    /// Files written.
    pub files_written: u64,
    /// Bytes of content in them, holes included.
    pub bytes_written: u64,
    /// Hard and symbolic links made.
    pub links_made: u64,
    /// Folders made.
    pub folders_made: u64,
    /// Entries that were in place already.
    pub unchanged: u64,
    /// Files that somebody had changed since the previous revision, and that now are the revision's again.
    pub local_changes: Vec<EntryPath>,
}

/// What was found of an interrupted extraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing.
    Nothing,
    /// It had not been committed; its staging folder is deleted, and the target is as it was before.
    RolledBack,
    /// It had been committed, and is finished now: the target holds this revision.
    RolledForward(Revision),
}
