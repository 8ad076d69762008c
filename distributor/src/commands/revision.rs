//! `distribution history`, `diff`, `ls` and `rollback`.

use std::path::PathBuf;

use ted_cli::error::ApiError;
use ted_cli::package;
use ted_core::distributor::{RevisionChoice, own_key};
use ted_core::id::PackageId;
use ted_core::name::Label;
use ted_core::package::Root;

use super::Context;
use crate::api::DistributionRevision;

/// The list may be long, so it is read from the packages themselves and not carried through the daemon.
pub(super) async fn list(context: &Context, name: Label, revision: RevisionChoice) -> Result<(), ApiError> {
    let files = packages(context, name, revision).await?;
    let keys = |_: &PackageId, root: &Root| Ok(own_key(&context.settings.data_dir, root));
    package::print_listing(&files, context.format, &keys)
}

/// As the list.
pub(super) async fn compare(
    context: &Context,
    name: Label,
    (from, to): (RevisionChoice, RevisionChoice),
) -> Result<(), ApiError> {
    let from = packages(context, name.clone(), from).await?;
    let to = packages(context, name, to).await?;
    let keys = |_: &PackageId, root: &Root| Ok(own_key(&context.settings.data_dir, root));
    package::print_changes((&from, &to), context.format, &keys)
}

async fn packages(context: &Context, name: Label, revision: RevisionChoice) -> Result<Vec<PathBuf>, ApiError> {
    Ok(context.session().await?.call(&DistributionRevision { name, revision }).await?.files)
}
