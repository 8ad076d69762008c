//! Package files of a node: opened with their signature verified, and pruned.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::error::Error;
use crate::id::{DistributionId, PackageId};
use crate::limits::Limits;
use crate::package::delta::DeltaIndex;
use crate::package::{
    Opening, PackageError, PackageIndex, ROOT_CONTEXT, Root, is_damage, read_delta_index, read_index,
};
use crate::security::{DistributorRoot, Signature, Usage};
use crate::store::{DepotError, LocalDepot, PackageInfo, prune};

/// Opens a baseline and verifies everything about it but the body. `opening` brings the key of a sealed one, once its
/// root was found good. Blocks on the disk.
pub(crate) fn open_package(
    depot: &LocalDepot,
    id: PackageId,
    root: &DistributorRoot,
    opening: impl Fn(&Root) -> Result<Opening, Error>,
) -> Result<(PackageIndex, Arc<File>), Error> {
    let file = depot.open_file(id)?;
    let index = read_index(&*file, &Limits::DEFAULT, &mut |found: &Root, bytes: &[u8], signature: &Signature| {
        judge_signature(root, found, bytes, signature)?;
        opening(found)
    })?;
    if index.id() != id {
        return Err(DepotError::NotFound { id }.into());
    }
    Ok((index, file))
}

/// As [`open_package`], a delta. What its catalog says is judged when it is resolved against the revision it goes from.
pub(crate) fn open_delta(
    depot: &LocalDepot,
    id: PackageId,
    root: &DistributorRoot,
    opening: impl Fn(&Root) -> Result<Opening, Error>,
) -> Result<(DeltaIndex, Arc<File>), Error> {
    let file = depot.open_file(id)?;
    let index = read_delta_index(&*file, &Limits::DEFAULT, |found: &Root, bytes: &[u8], signature: &Signature| {
        judge_signature(root, found, bytes, signature)?;
        opening(found)
    })?;
    if index.id() != id {
        return Err(DepotError::NotFound { id }.into());
    }
    Ok((index, file))
}

/// Verifies a package's root: signed for this Distributor, by a signer that it issued, at the time it was built.
pub(crate) fn judge_signature(
    root: &DistributorRoot,
    found: &Root,
    root_bytes: &[u8],
    signature: &Signature,
) -> Result<(), Error> {
    root.verify(ROOT_CONTEXT, root_bytes, signature, Usage::Sign, found.created)?;
    Ok(())
}

/// Whether a package was opened when an error came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It was being opened.
    No,
    /// It was open, and something was done with it.
    Yes,
}

/// Whether an error about a kept package says that its file is damaged or, where it was being opened, gone.
pub(crate) fn is_damaged(error: &Error, opened: Opened) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<PackageError>() {
            return is_damage(error);
        }
        if let Some(DepotError::NotFound { .. }) = inner.downcast_ref::<DepotError>() {
            return true;
        }
        if let Some(error) = inner.downcast_ref::<io::Error>().filter(|_| opened == Opened::No) {
            return matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof);
        }
        cause = inner.source();
    }
    false
}

/// Removes the packages of a Distribution that `keep` does not want. Must run on a thread where blocking is allowed.
pub(crate) fn keep_packages(
    depot: &LocalDepot,
    distribution: &DistributionId,
    keep: impl Fn(&PackageInfo) -> bool + Sync,
) -> Result<(), Error> {
    wait(prune(depot, |info| info.root.distribution != *distribution || keep(info)))?;
    Ok(())
}

/// Waits for a depot's answer on a thread where blocking is allowed.
pub(crate) fn wait<T>(answer: impl Future<Output = T>) -> T {
    Handle::current().block_on(answer)
}
