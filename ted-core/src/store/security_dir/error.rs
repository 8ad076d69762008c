//! Why the security folder cannot be used.

use std::path::PathBuf;

use crate::error::Coded;
use crate::security::{KeystoreError, TrustError};
use crate::store::file::FileError;

/// Why the security folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityDirError {
    /// Others could read keys or plant certificates.
    #[error("{} is not safe: {reason}; mend it with `{remedy}`", path.display())]
    Unsafe {
        /// What is not safe.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The command that mends it.
        remedy: String,
    },
    /// There is no security folder.
    #[error("{} does not exist: run `init` or `join` first", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There was a keystore once, and it is gone.
    #[error("{} is gone: {remedy}", path.display())]
    KeystoreGone {
        /// Where it should be.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The keystore cannot be read.
    #[error("{}", path.display())]
    Keystore {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KeystoreError>,
    },
    /// No certificate of this Distributor lies there.
    #[error("no certificate of the Distributor with key {0} is in the security folder or the keystore")]
    NotTrusted(String),
    /// A certificate or request in a file is not what it should be.
    #[error("{}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<TrustError>,
    },
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Coded for SecurityDirError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unsafe { .. } => "TED-1141",
            Self::Missing { .. } => "TED-1142",
            Self::KeystoreGone { .. } => "TED-1143",
            Self::Keystore { source, .. } => source.code(),
            Self::NotTrusted(_) => "TED-1144",
            Self::Trust { source, .. } => source.code(),
            Self::File(error) => error.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::File(error) if error.is_retryable())
    }
}
