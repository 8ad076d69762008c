//! Why a source could not be fetched.

use std::io;

use super::super::spool::SpoolError;
use crate::error::Coded;
use crate::package::SourceError;

/// Why a source could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(in crate::distributor) enum DownloadError {
    #[error("`{url}` cannot be fetched")]
    Unreachable { url: String, source: io::Error },
    #[error("`{url}` broke off after {bytes} bytes")]
    BrokeOff { url: String, bytes: u64, source: io::Error },
    #[error("`{url}` answers {status}")]
    Status { url: String, status: u16, retry_after_s: Option<u64> },
    #[error("`{url}` leads elsewhere: {reason}")]
    Redirect { url: String, reason: String },
    #[error("the server of `{url}` is not trusted")]
    Untrusted { url: String, source: io::Error },
    #[error("`{url}` has {found} bytes, and {expected} were expected")]
    Size { url: String, expected: u64, found: u64 },
    #[error("`{url}` has the SHA-256 {found}, and {expected} was expected")]
    Hash { url: String, expected: String, found: String },
    #[error("the certificates to judge `{url}` by cannot be read from `{place}`: {reason}")]
    Roots { url: String, place: String, reason: String },
    #[error("`{url}` is sent in a way that cannot be built from: {reason}")]
    Answer { url: String, reason: &'static str },
    #[error("`{url}` cannot be kept")]
    Spool { url: String, source: SpoolError },
}

impl Coded for DownloadError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "TED-1740",
            Self::BrokeOff { .. } => "TED-1741",
            Self::Status { .. } => "TED-1742",
            Self::Redirect { .. } => "TED-1743",
            Self::Untrusted { .. } => "TED-1744",
            Self::Size { .. } => "TED-1745",
            Self::Hash { .. } => "TED-1746",
            Self::Roots { .. } => "TED-1747",
            Self::Answer { .. } => "TED-1748",
            Self::Spool { source, .. } => source.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BrokeOff { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 416 | 425 | 429 | 500 | 502..=504),
            Self::Spool { source, .. } => source.is_retryable(),
            _ => false,
        }
    }
}

impl From<DownloadError> for SourceError {
    fn from(error: DownloadError) -> Self {
        Self::Kind(error.into())
    }
}
