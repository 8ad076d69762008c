//! Package files of a node: opened with their signature verified, and pruned.

use std::fs::File;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::error::Error;
use crate::id::{DistributionId, PackageId, Revision};
use crate::limits::Limits;
use crate::package::{Opening, PackageIndex, ROOT_CONTEXT, Root, read_index};
use crate::security::{DistributorRoot, Signature, Usage};
use crate::store::{Depot, DepotError, LocalDepot, prune};

/// Opens a package and verifies everything about it but the body. `opening` brings the key of a sealed one, once its
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

/// Removes the packages of a Distribution but those of its newest `revisions` revisions. Must run on a thread where
/// blocking is allowed.
pub(crate) fn keep_newest(depot: &LocalDepot, distribution: &DistributionId, revisions: usize) -> Result<(), Error> {
    let listed = wait(depot.list())?;
    let mut known: Vec<Revision> =
        listed.iter().filter(|info| info.root.distribution == *distribution).map(|info| info.root.revision).collect();
    known.sort_unstable();
    known.dedup();
    let kept = known.split_off(known.len().saturating_sub(revisions));
    wait(prune(depot, |info| info.root.distribution != *distribution || kept.contains(&info.root.revision)))?;
    Ok(())
}

/// Waits for a depot's answer on a thread where blocking is allowed.
pub(crate) fn wait<T>(answer: impl Future<Output = T>) -> T {
    Handle::current().block_on(answer)
}
