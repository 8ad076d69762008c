//! `certificate renew`, `replace`, `rekey` and `correct-clock`.

use ted_cli::error::ApiError;
use ted_cli::output;

use super::Context;
use crate::api::{
    CertificateCancel, CertificateCorrectClock, CertificateFinalize, CertificateRekey, CertificateRenew,
    CertificateReplace,
};
use crate::cli::RotationCommand;
use crate::service::Service;

/// The library's code for a keystore that is gone.
const KEYSTORE_GONE: &str = "TED-1143";

pub(super) async fn rotation(context: &Context, command: RotationCommand) -> Result<(), ApiError> {
    match command {
        RotationCommand::Renew => context.answer(&CertificateRenew {}).await,
        RotationCommand::Replace { finalize: true, grace, .. } => {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            context.answer(&CertificateFinalize { grace_ms }).await
        }
        RotationCommand::Replace { cancel: true, .. } => context.answer(&CertificateCancel {}).await,
        RotationCommand::Replace { .. } => context.answer(&CertificateReplace {}).await,
        RotationCommand::Rekey { name } => match context.session().await {
            Err(error) if error.code == KEYSTORE_GONE => {
                let rekeyed = Service::rekey_lost(&context.settings, name).await?;
                output::print(context.format, &rekeyed)
            }
            session => {
                let rekeyed = session?.call(&CertificateRekey { name }).await?;
                output::print(context.format, &rekeyed)
            }
        },
        RotationCommand::CorrectClock => context.answer(&CertificateCorrectClock {}).await,
    }
}
