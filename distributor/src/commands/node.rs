//! `init`, `run`, `status`, `doctor`, `events`.

use ted_cli::control::ControlSocket;
use ted_cli::error::{ApiError, code};
use ted_cli::session::Session;
use ted_cli::{output, shutdown, watch};

use super::Context;
use crate::api::{NodeDoctor, NodeInit, NodeStatus};
use crate::cli::InitArgs;
use crate::service::{Presence, Service};

pub(super) async fn init(context: &Context, args: InitArgs) -> Result<(), ApiError> {
    let open = async || Service::open(&context.settings, Presence::MadeIfMissing);
    let session = Session::open(&context.settings.data_dir, open).await?;
    let request = NodeInit { name: args.name, listen: args.listen, advertise: args.advertise };
    let node = session.call(&request).await?;
    output::print(context.format, &node)
}

pub(super) async fn run(context: &Context) -> Result<(), ApiError> {
    let ending = shutdown::requested()
        .map_err(|error| ApiError::new(code::STATE, format!("signals cannot be listened to: {error}")))?;
    let service = Service::open(&context.settings, Presence::Existing)?;
    let socket = ControlSocket::bind(service.data().path()).await?;
    let settings = service.settings();
    tracing::info!(data = %settings.data_dir.display(), listen = %settings.config.listen, "the Distributor runs");
    socket.serve(service, ending).await
}

pub(super) async fn status(context: &Context, watch: bool) -> Result<(), ApiError> {
    if watch {
        watch::status(&context.daemon().await?, &NodeStatus {}, context.format).await
    } else {
        context.answer(&NodeStatus {}).await
    }
}

pub(super) async fn doctor(context: &Context) -> Result<(), ApiError> {
    let diagnosis = context.session().await?.call(&NodeDoctor {}).await?;
    output::print(context.format, &diagnosis)?;
    diagnosis.verdict()
}

pub(super) async fn events(context: &Context, follow: bool) -> Result<(), ApiError> {
    watch::events(&context.daemon().await?, follow, context.format).await
}
