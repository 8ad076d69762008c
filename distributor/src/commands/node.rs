//! `init`, `run`, `status`, `doctor`, `events`.

use ted_cli::control::ControlSocket;
use ted_cli::error::{ApiError, code};
use ted_cli::session::open_for_daemon;
use ted_cli::{output, shutdown, watch};
use ted_core::node::EventFilter;

use super::Context;
use crate::api::{NodeDoctor, NodeStatus};
use crate::cli::{EventsArgs, InitArgs};
use crate::service::Service;

pub(super) async fn init(context: &Context, args: InitArgs) -> Result<(), ApiError> {
    let node = Service::init(&context.settings, args).await?;
    output::print(context.format, &node)
}

pub(super) async fn run(context: &Context) -> Result<(), ApiError> {
    let ending = shutdown::requested()
        .map_err(|error| ApiError::new(code::STATE, format!("signals cannot be listened to: {error}")))?;
    let data = &context.settings.data_dir;
    let service = open_for_daemon(data, async || Service::open(&context.settings).await).await?;
    let socket = ControlSocket::bind(data).await?;
    let distributor = service.distributor().clone();
    let listen = distributor.start().await?;
    tracing::info!(name = %distributor.name(), %listen, data = %data.display(), "the Distributor runs");
    let served = socket.serve(service, ending).await;
    distributor.shutdown().await;
    served
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

pub(super) async fn events(context: &Context, args: EventsArgs) -> Result<(), ApiError> {
    let EventsArgs { events, channel, subscriber } = args;
    let filter = EventFilter { channel, subscriber, ..events.filter() };
    if events.follow {
        return watch::follow::<Service>(&context.settings.data_dir, filter, context.format).await;
    }
    watch::events(&context.session().await?, filter, context.format).await
}
