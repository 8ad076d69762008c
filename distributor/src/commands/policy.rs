//! `certificate revoke` and `subscriber configure`.

use ted_cli::error::ApiError;

use super::Context;
use crate::api::{CertificateRevoke, SubscriberConfigure};
use crate::cli::{ConfigureArgs, RevocationCommand};

pub(super) async fn revocation(context: &Context, command: RevocationCommand) -> Result<(), ApiError> {
    let RevocationCommand::Revoke { what, reason } = command;
    // A thumbprint that was pasted with its spaces comes as several words.
    context.answer(&CertificateRevoke { what: what.join(" "), reason: reason.to_string() }).await
}

pub(super) async fn configure(context: &Context, args: ConfigureArgs) -> Result<(), ApiError> {
    let ConfigureArgs { name, all: _, set, unset } = args;
    context.answer(&SubscriberConfigure { name, set, unset }).await
}
