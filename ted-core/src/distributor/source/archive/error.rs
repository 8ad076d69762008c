//! Why a tar file cannot be built from.

use std::io;

use crate::error::Coded;
use crate::package::{PathError, SourceError};

use super::super::spool::SpoolError;

/// Why a tar file cannot be built from.
#[derive(Debug, thiserror::Error)]
pub(in crate::distributor) enum ArchiveError {
    #[error("the tar file `{place}` cannot be read")]
    Read { place: String, source: io::Error },
    #[error("`{place}` is no whole tar file: {reason} at byte {at}")]
    Damaged { place: String, at: u64, reason: &'static str },
    #[error("the entry `{entry}` of `{place}` is refused: {fault}")]
    Entry { place: String, entry: String, fault: EntryFault },
    #[error("`{place}` has more than {limit} {what}")]
    TooMuch { place: String, limit: u64, what: &'static str },
    #[error("`{place}` cannot be unpacked")]
    Unpack { place: String, source: io::Error },
    #[error("`{place}` cannot be unpacked here")]
    Spool { place: String, source: SpoolError },
}

/// What is wrong with one entry of a tar file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::distributor) enum EntryFault {
    #[error("its path cannot be distributed: {0}")]
    Path(PathError),
    #[error("it lies in `{0}`, which is no folder")]
    Through(String),
    #[error("it is there twice")]
    Twice,
    #[error("its link target {0}")]
    Link(&'static str),
    #[error("its hard link target `{0}` is no file before it in the archive")]
    HardLink(String),
    #[error("it is a {0}, which is not distributed")]
    Special(&'static str),
    #[error("its kind `{0}` is not known")]
    Kind(String),
    #[error("it is stored as a sparse file; make the archive without `--sparse`")]
    Sparse,
    #[error("its extended header and its own disagree about its {0}")]
    Disagrees(&'static str),
    #[error("its {0} is no number that can be")]
    Number(&'static str),
    #[error("its extended header is wrong: {0}")]
    Header(&'static str),
    #[error("it has content, and its kind has none")]
    Content,
}

impl Coded for ArchiveError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TED-1730",
            Self::Damaged { .. } => "TED-1731",
            Self::Entry { .. } => "TED-1732",
            Self::TooMuch { .. } => "TED-1733",
            Self::Unpack { .. } => "TED-1734",
            Self::Spool { source, .. } => source.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Spool { source, .. } if source.is_retryable())
    }
}

impl From<ArchiveError> for SourceError {
    fn from(error: ArchiveError) -> Self {
        Self::Kind(error.into())
    }
}
