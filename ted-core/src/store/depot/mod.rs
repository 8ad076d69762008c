//! The depot: complete package files, by package id.

mod identify;
mod local;
mod memory;
mod place;

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Coded;
use crate::id::PackageId;
use crate::package::{PackageError, Root};
use crate::store::file::FileError;

pub use local::{Leftover, LocalDepot, Unreadable};
pub use memory::MemoryDepot;
pub use place::PackagePlace;

/// Why a depot could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DepotError {
    /// It does not have that package.
    #[error("there is no package {id} here")]
    NotFound {
        /// Which one.
        id: PackageId,
    },
    /// Bytes beyond a package's end were asked for.
    #[error("package {id} has {bytes} bytes, and {}..{} were asked for", range.start, range.end)]
    OutOfRange {
        /// Which package.
        id: PackageId,
        /// Its length.
        bytes: u64,
        /// What was asked for.
        range: Range<u64>,
    },
    /// A file is not a package.
    #[error("{} is not a package", path.display())]
    NotAPackage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PackageError,
    },
    /// A file does not let itself be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The process is shutting down.
    #[error("the depot's work was cut short by a shutdown")]
    Stopped,
}

impl Coded for DepotError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "TED-1530",
            Self::OutOfRange { .. } => "TED-1531",
            Self::NotAPackage { .. } => "TED-1532",
            Self::Stopped => "TED-1533",
            Self::File(error) => error.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::File(error) if error.is_retryable())
    }
}

/// What a depot knows of a package. Its signature was judged by whoever put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageInfo {
    /// Its id.
    pub id: PackageId,
    /// What it is.
    pub root: Arc<Root>,
    /// Its length.
    pub bytes: u64,
    /// Where it lies.
    pub place: PackagePlace,
}

/// A complete package file that a depot is to adopt.
#[derive(Debug, Clone)]
pub struct FinishedFile {
    /// The file, which is the depot's from then on.
    pub path: PathBuf,
    /// Where it belongs.
    pub place: PackagePlace,
}

/// Complete package files, by id. Files on a local disk are one way; object storage may become another.
pub trait Depot: Send + Sync + 'static {
    /// What the depot knows of a package, if it has it.
    fn info(&self, id: PackageId) -> impl Future<Output = Result<Option<PackageInfo>, DepotError>> + Send;

    /// Bytes of a package. The caller bounds how many it asks for at once.
    fn get_range(&self, id: PackageId, range: Range<u64>) -> impl Future<Output = Result<Bytes, DepotError>> + Send;

    /// Adopts a finished file, durably, in the place of whatever package lay there. Adopting what is there already
    /// changes nothing.
    fn put(&self, finished: FinishedFile) -> impl Future<Output = Result<PackageInfo, DepotError>> + Send;

    /// All packages, ordered by Distribution, revision and kind.
    fn list(&self) -> impl Future<Output = Result<Vec<PackageInfo>, DepotError>> + Send;

    /// Removes a package. Those who read it meanwhile may finish; one that is not there is removed already.
    fn delete(&self, id: PackageId) -> impl Future<Output = Result<(), DepotError>> + Send;
}

/// Removes every package that `keep` does not want, and returns those.
///
/// # Errors
/// [`DepotError`]; some may be removed then.
pub async fn prune<D: Depot>(
    depot: &D,
    keep: impl Fn(&PackageInfo) -> bool + Send,
) -> Result<Vec<PackageInfo>, DepotError> {
    let mut removed = depot.list().await?;
    removed.retain(|package| !keep(package));
    for package in &removed {
        depot.delete(package.id).await?;
    }
    Ok(removed)
}

fn check_range(package: &PackageInfo, range: &Range<u64>) -> Result<(), DepotError> {
    if range.start > range.end || range.end > package.bytes {
        return Err(DepotError::OutOfRange { id: package.id, bytes: package.bytes, range: range.clone() });
    }
    Ok(())
}

fn in_order(mut packages: Vec<PackageInfo>) -> Vec<PackageInfo> {
    packages.sort_by_key(|package| (package.root.distribution, package.root.revision, package.place.clone()));
    packages
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fixtures;
