//! What an extraction is asked to do, how far it is, and what it did.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::extract::contents::Contents;
use crate::extract::keep::NotKept;
use crate::id::{DistributionId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::ExtractMode;
use crate::package::{CatalogRow, Entry, EntryPath};

/// The folder of a target that holds its releases, each in a folder named by its revision.
pub(super) const RELEASES: &str = "releases";
/// The link in a target that leads to the release in use.
pub(super) const CURRENT: &str = "current";

/// Where the files of an extracted revision stand.
#[must_use]
pub fn installed(target: &Path, mode: ExtractMode, revision: Revision) -> PathBuf {
    match mode {
        ExtractMode::Merge | ExtractMode::Sync => target.to_owned(),
        ExtractMode::Release => target.join(RELEASES).join(revision.to_string()),
    }
}

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

/// What becomes of a file that somebody changed in the target, when the revision has another in its place or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLocalChange {
    /// It is overwritten or deleted, and reported.
    #[default]
    Overwrite,
    /// It is reported, and kept beside as `NAME.local-<time>`.
    Keep {
        /// The time that goes into the names of what is kept.
        at: UnixMillis,
    },
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
    /// What becomes of what else lies in the target.
    pub mode: ExtractMode,
    /// What becomes of files that somebody changed.
    pub on_local_change: OnLocalChange,
    /// Threads that decode, hash and write; 0 means one for each processor.
    pub threads: usize,
    /// Which symbolic links are written.
    pub links: Links,
    /// What becomes of setuid, setgid and file capabilities, where the Distribution asks to keep them.
    pub privilege: Privilege,
    /// Who owns what is written.
    pub ownership: Ownership,
    /// Entries that are written again whatever they look like: somebody has found that they are not what they seem.
    pub again: HashSet<EntryPath>,
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
    /// What [`recover`](super::recover) found just before, where it was called.
    pub recovered: Recovery,
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
    /// Files and links that somebody else had made or changed, and that the revision took the place of.
    pub local_changes: PathList,
    /// What such files are kept as.
    pub kept: PathList,
    /// What was deleted because the revision does not have it; what was in a folder, and the folder itself, each count.
    pub deleted: PathList,
    /// What the revision does not have either and stays all the same.
    pub left: PathList,
    /// Owners and extended attributes that could not be kept.
    pub not_kept: NotKept,
}

/// Paths, of which only the first are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathList {
    /// How many there are.
    pub count: u64,
    /// The first of them, at most [`Limits::reported_paths_max`].
    pub first: Vec<EntryPath>,
}

impl PathList {
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a EntryPath>, limits: &Limits) -> Self {
        let mut list = Self::default();
        for path in paths {
            list.count += 1;
            if list.first.len() < limits.reported_paths_max {
                list.first.push(path.clone());
            }
        }
        list
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
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
