//! Where a build's files come from.

use std::io::{self, Read};

use crate::error::Coded;

use super::entry::{Entry, EntryPath};

/// A tree of files to build from.
pub trait Source: Sync {
    /// Every entry in path order, the root folder first, hard links resolved, with [`Entry::NO_CONTENT`] as content.
    /// What is left out because the source was told to leave it out is handed to `skip`.
    ///
    /// # Errors
    /// [`SourceError`] when something cannot be read or distributed.
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError>;

    /// Opens a file's content from `offset` on. Many threads do this at once.
    ///
    /// # Errors
    /// [`SourceError`] when it cannot be opened, or is no longer what `entry` says.
    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError>;
}

/// One file while it is read.
pub trait SourceFile: Read + Send {
    /// To be called after the last byte was read.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when the file is no longer what its entry said, so that what was read may be torn.
    fn finish(self: Box<Self>) -> Result<(), SourceError>;
}

/// Something that is not distributed, and why.
#[derive(Debug)]
pub struct Skipped {
    /// Where it lies.
    pub path: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why something in a source cannot be distributed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is a device node, FIFO or socket: every Subscriber would refuse it.
    #[error("it is a {0}, which is not distributed")]
    Special(&'static str),
    /// Its path is longer or deeper than any Subscriber accepts.
    #[error("its path or link target cannot be distributed: {0}")]
    Path(super::entry::PathError),
}

/// Why a source cannot be built from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source itself is missing, no folder, or not readable.
    #[error("the source `{place}` cannot be opened")]
    Root {
        /// Where it should be.
        place: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Some of it cannot be distributed.
    #[error("{} of the source cannot be distributed, the first is `{}`: {}", entries(.0.len()), .0[0].path, .0[0].reason)]
    Refused(Vec<Skipped>),
    /// A file is no longer what it was when the build began.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// Which file.
        path: EntryPath,
    },
    /// A file could not be read.
    #[error("`{path}` cannot be read")]
    Read {
        /// Which file.
        path: EntryPath,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Two sources of one Distribution have something at the same place.
    #[error("`{path}` is in two sources: `{first}` and `{second}`")]
    Overlap {
        /// Where.
        path: EntryPath,
        /// The one source.
        first: String,
        /// The other.
        second: String,
    },
    /// What only some kinds of sources fail with.
    #[error(transparent)]
    Kind(KindError),
    /// A pattern that is none.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What one kind of source fails with, and no other.
#[derive(Debug)]
pub struct KindError {
    code: &'static str,
    retryable: bool,
    inner: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for KindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl std::error::Error for KindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

impl<E: Coded + Send + Sync + 'static> From<E> for KindError {
    fn from(error: E) -> Self {
        Self { code: error.code(), retryable: error.is_retryable(), inner: Box::new(error) }
    }
}

fn entries(count: usize) -> String {
    if count == 1 { "one entry".to_owned() } else { format!("{count} entries") }
}

impl Coded for SourceError {
    fn code(&self) -> &'static str {
        match self {
            Self::Root { .. } => "TED-1701",
            Self::Refused(_) => "TED-1702",
            Self::Changed { .. } => "TED-1703",
            Self::Read { .. } => "TED-1704",
            Self::Pattern { .. } => "TED-1705",
            Self::Overlap { .. } => "TED-1706",
            Self::Kind(error) => error.code,
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Changed { .. }) || matches!(self, Self::Kind(error) if error.retryable)
    }
}
