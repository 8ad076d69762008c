//! `certificate resolve`, and the note after commands that make somebody need the certificate.

use std::io::Write as _;

use ted_cli::common::absolute;
use ted_cli::error::{ApiError, code};
use ted_cli::output::{self, Format, list};
use ted_core::distributor::ResolvingWay;
use ted_core::name::{Label, NodeName};

use super::Context;
use crate::api::{CertificateNeeded, CertificateResolve, ResolvingView};

pub(super) async fn resolve(
    context: &Context,
    copy: bool,
    save: Option<std::path::PathBuf>,
    subscribers: Vec<NodeName>,
) -> Result<(), ApiError> {
    let way = match save {
        Some(folder) => ResolvingWay::Save(absolute(&folder)?),
        None if copy => ResolvingWay::Copy,
        None => ResolvingWay::Look,
    };
    let done = context.session().await?.call(&CertificateResolve { way, subscribers }).await?;
    output::print(context.format, &done)?;
    verdict(&done)
}

/// After a change of the fleet: says to which of its Subscribers the certificate has to be brought before anything
/// arrives there, or brings it.
pub(super) async fn after_change(
    context: &Context,
    channels: Vec<Label>,
    subscribers: Vec<NodeName>,
    resolve: bool,
) -> Result<(), ApiError> {
    let session = context.session().await?;
    let needed = session.call(&CertificateNeeded { channels, subscribers }).await?.subscribers;
    if needed.is_empty() {
        return Ok(());
    }
    if resolve {
        let done = session.call(&CertificateResolve { way: ResolvingWay::Copy, subscribers: needed }).await?;
        output::print(context.format, &done)?;
        return verdict(&done);
    }
    note(context, &needed);
    Ok(())
}

/// On standard error: what a program reads on standard output stays one answer.
fn note(context: &Context, needed: &[NodeName]) {
    let said = format!(
        "certificates need resolving: {} can receive nothing before this Distributor's certificate is there; \
         `certificate resolve --copy` or `--save DIR` brings it, and so does an invite",
        list(needed)
    );
    let line = match context.format {
        Format::Json => serde_json::json!({ "note": said, "subscribers": needed }).to_string(),
        Format::Text => format!("note: {said}"),
    };
    // The change itself is done and printed; there is no one left to tell when standard error fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn verdict(done: &ResolvingView) -> Result<(), ApiError> {
    let (failed, all) = (done.0.failures(), done.0.rows.len());
    match failed {
        0 => Ok(()),
        failed if failed == all => {
            Err(ApiError::new(code::NOT_RESOLVED, "the certificate was copied to none of the Subscribers listed"))
        }
        failed => {
            let message = format!("the certificate could not be copied to {failed} of {all} Subscribers");
            Err(ApiError::new(code::PARTLY_RESOLVED, message))
        }
    }
}
