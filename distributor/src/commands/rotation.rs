//! `certificate renew`.

use ted_cli::error::ApiError;

use super::Context;
use crate::api::CertificateRenew;
use crate::cli::RotationCommand;

pub(super) async fn rotation(context: &Context, command: RotationCommand) -> Result<(), ApiError> {
    match command {
        RotationCommand::Renew => context.answer(&CertificateRenew {}).await,
    }
}
