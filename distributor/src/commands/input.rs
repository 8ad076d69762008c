//! `distribution build --stdin`: what is fed is spooled in the data directory, and built from there.

use std::io::Read as _;

use ted_cli::error::ApiError;
use ted_cli::progress::Progress;
use ted_cli::{error, output};
use ted_core::distributor::spool_input;
use ted_core::name::Label;

use super::Context;
use crate::api::DistributionBuild;

/// The command needs the node's data directory at hand, as its control socket is there too.
pub(super) async fn build(context: &Context, name: Label) -> Result<(), ApiError> {
    // The session comes first: whoever opens the state removes what older commands left in the spool.
    let session = context.session().await?;
    let data = context.settings.data_dir.clone();
    let spool = move || spool_input(&data, &mut std::io::stdin().lock().by_ref());
    let spooled = tokio::task::spawn_blocking(spool)
        .await
        .map_err(|_| ApiError::new(error::code::STATE, "standard input could not be read to its end".to_owned()))??;
    let request = DistributionBuild { name, checksum: true, input: Some(spooled.name().to_owned()) };
    let progress = Progress::new(context.format);
    let answer = session.call_with_progress(&request, &progress).await;
    progress.clear();
    output::print(context.format, &answer?)
}
