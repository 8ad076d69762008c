//! What an extraction is asked to do, how far it is, and what it did.

use crate::extract::keep::NotKept;
use crate::id::{DistributionId, Revision};
use crate::limits::Limits;
use crate::package::{CatalogRow, Entry, EntryPath, RawFrames};

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

/// Who owns what is written, where the Distribution asks for its own owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// Whoever extracts.
    #[default]
    Extractor,
    /// Who owned it at the source, by name where that is known here, else by number. Only root can do that.
    Keep,
}

/// The operator's choices.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Threads that decode, hash and write; 0 means one for each processor.
    pub threads: usize,
    /// Which symbolic links are written.
    pub links: Links,
    /// What becomes of setuid, setgid and file capabilities.
    pub privilege: Privilege,
    /// Who owns what is written.
    pub ownership: Ownership,
    /// Every bound.
    pub limits: Limits,
}

/// One revision to extract.
#[derive(Clone, Copy)]
pub struct ExtractJob<'a> {
    /// The revision's entries, in path order, and where their content lies in the body.
    pub rows: &'a [CatalogRow],
    /// The body.
    pub frames: &'a dyn RawFrames,
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
    /// Owners and extended attributes that could not be kept.
    pub not_kept: NotKept,
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
