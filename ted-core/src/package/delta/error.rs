//! What can be wrong with applying a delta.

use std::io;

use crate::error::Coded;

use super::super::entry::EntryPath;
use super::super::error::PackageError;

/// Why a delta was not applied. Whatever it is, a baseline of the same revision does without the old one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// The delta is damaged, hostile, or cannot be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The entries are not those of the revision that the delta goes from.
    #[error("the delta goes from another revision than the one that is there")]
    OtherBase,
    /// An old file cannot be read.
    #[error("the old content of `{path}` cannot be read")]
    OldFile {
        /// Which.
        path: EntryPath,
        /// What keeps it from being read.
        #[source]
        source: io::Error,
    },
    /// The result is not what it should be: old content was not what the old revision says.
    #[error("`{path}` does not come out as it should: what it was made from is damaged")]
    Content {
        /// Which file was to be made.
        path: EntryPath,
    },
    /// The result cannot be written.
    #[error("`{path}` cannot be written")]
    Write {
        /// Which file was to be made.
        path: EntryPath,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Coded for DeltaError {
    fn code(&self) -> &'static str {
        match self {
            Self::Package(inner) => inner.code(),
            Self::OtherBase => "TED-1023",
            Self::OldFile { .. } => "TED-1024",
            Self::Content { .. } => "TED-1025",
            Self::Write { .. } => "TED-1026",
        }
    }
}
