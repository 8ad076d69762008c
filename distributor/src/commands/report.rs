//! `report`.

use ted_cli::error::ApiError;
use ted_cli::output;

use super::Context;
use crate::api::{ReportDeliveries, ReportSummary};
use crate::cli::ReportCommand;

pub(super) async fn report(context: &Context, command: ReportCommand) -> Result<(), ApiError> {
    match command {
        ReportCommand::Deliveries(args) => {
            let deliveries = context.session().await?.call(&ReportDeliveries(args.into())).await?;
            output::print(context.format, &deliveries)?;
            deliveries.verdict()
        }
        ReportCommand::Summary(args) => context.answer(&ReportSummary(args.into())).await,
    }
}
