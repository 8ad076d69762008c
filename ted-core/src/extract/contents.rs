//! Where the contents of a revision's files come from.

use std::io::{self, Write};

use crate::package::delta::DeltaError;
use crate::package::{PackageError, RawFrames};

/// Where the contents of a revision's files come from.
#[derive(Clone, Copy)]
pub enum Contents<'a> {
    /// From a baseline's body, where each row says at which place.
    Frames(&'a dyn RawFrames),
    /// They are made one by one; rows have offset 0.
    Made(&'a dyn MakeContent),
    /// From nowhere: it is only asked what would be done.
    None,
}

/// Makes contents of files, by several threads at once.
pub trait MakeContent: Sync {
    /// How many threads may make contents at the same time; each has a maker, with the memory that it takes.
    fn threads_max(&self) -> usize;

    /// A maker for one thread.
    fn maker(&self) -> Box<dyn ContentMaker + '_>;
}

/// Makes contents of files, one after the other.
pub trait ContentMaker {
    /// Writes the content of entry number `entry` to `out`, in order. It is checked against its BLAKE3 by who asked.
    ///
    /// # Errors
    /// [`MakeError`]; what was written then counts for nothing.
    fn make(&mut self, entry: usize, out: &mut dyn Write) -> Result<(), MakeError>;
}

/// Why a content was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// What it is made from is damaged, not what it was, or cannot be read: a baseline does without it.
    #[error(transparent)]
    From(DeltaError),
    /// It cannot be written.
    #[error("what is made cannot be written")]
    Sink(#[source] io::Error),
}

impl From<DeltaError> for MakeError {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Write { source, .. } => Self::Sink(source),
            error => Self::From(error),
        }
    }
}

impl From<PackageError> for MakeError {
    fn from(error: PackageError) -> Self {
        Self::From(error.into())
    }
}
