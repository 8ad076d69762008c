//! `send` and `cancel`.

use std::time::{Duration, Instant};

use ted_cli::error::{ApiError, code, from_library};
use ted_cli::output::{self, Format};
use ted_cli::progress::Progress;
use ted_cli::session::Session;
use ted_core::id::FiringId;

use super::Context;
use crate::api::{ChannelSend, DeliveryView, FiringCancel, FiringList, FiringShow, FiringView, FiringWait};
use crate::cli::{FiringCommand, SendArgs, Until};
use crate::service::Service;

/// How often the bars move while waiting; the end is told at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn send(context: &Context, args: SendArgs) -> Result<(), ApiError> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    // A dry run only looks; sending takes the daemon.
    let session = if args.dry_run { context.session().await? } else { context.daemon().await? };
    let request = ChannelSend { channel: args.channel, build: !args.no_build, dry_run: args.dry_run };
    let progress = Progress::new(context.format);
    let started = session.call_with_progress(&request, &progress).await;
    progress.clear();
    let started = started?;
    let Some(firing) = started.firing.clone().filter(|_| args.wait) else {
        return output::print(context.format, &started);
    };
    if context.format == Format::Text {
        output::print(context.format, &started)?;
    }
    let firing = firing.parse().map_err(from_library)?;
    let (view, settled) = wait(&session, firing, args.until, deadline, &Progress::new(context.format)).await?;
    output::print(context.format, &view)?;
    if !settled {
        let waited = args.timeout.map(ted_cli::units::duration).unwrap_or_default();
        return Err(ApiError::new(code::TIMEOUT, format!("after {waited} the firing {firing} is not done")));
    }
    view.verdict(args.until)
}

/// Waits until the firing is settled or the deadline has passed, and moves the bars meanwhile.
async fn wait(
    session: &Session<Service>,
    firing: FiringId,
    until: Until,
    deadline: Option<Instant>,
    progress: &Progress,
) -> Result<(FiringView, bool), ApiError> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let slice = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
        let timeout_ms = u64::try_from(slice.as_millis()).unwrap_or(u64::MAX);
        let view = session.call(&FiringWait { firing, until, timeout_ms }).await?;
        let settled = view.is_settled(until);
        for delivery in &view.deliveries {
            show(delivery, until, progress);
        }
        if settled || left.is_some_and(|left| left.is_zero()) {
            progress.clear();
            return Ok((view, settled));
        }
    }
}

fn show(delivery: &DeliveryView, until: Until, progress: &Progress) {
    let label = format!("{} {}", delivery.subscriber, delivery.distribution);
    if delivery.stage.has_failed() || delivery.stage.has_reached(until) {
        progress.end(&label, &delivery.stage.to_string());
    } else {
        progress.set(&label, delivery.done_bytes, delivery.total_bytes);
    }
}

pub(super) async fn firing(context: &Context, command: FiringCommand) -> Result<(), ApiError> {
    match command {
        FiringCommand::List { channel } => context.answer(&FiringList { channel }).await,
        FiringCommand::Show { firing } => context.answer(&FiringShow { firing }).await,
    }
}

pub(super) async fn cancel(context: &Context, firing: FiringId) -> Result<(), ApiError> {
    context.answer(&FiringCancel { firing }).await
}
