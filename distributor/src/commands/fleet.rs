//! `distribution`, `channel` and `subscriber`.

use ted_cli::error::ApiError;

use super::{Context, input, resolve, revision};
use crate::api::{
    ChannelCreate, ChannelDelete, ChannelList, ChannelShow, ChannelUpdate, DistributionBuild, DistributionCreate,
    DistributionDelete, DistributionHistory, DistributionList, DistributionRollback, DistributionShow,
    DistributionUpdate, SubscriberApprove, SubscriberCreate, SubscriberDelete, SubscriberList, SubscriberPending,
    SubscriberShow, SubscriberUpdate, WayUpdate,
};
use crate::cli::{ChannelCommand, DistributionCommand, SourceExpectations, SubscriberCommand, sources};
use ted_core::model::{Distribution, Sources};
use ted_core::name::Label;

pub(super) async fn distribution(context: &Context, command: DistributionCommand) -> Result<(), ApiError> {
    match command {
        DistributionCommand::Create { name, source, expected, options } => {
            let keep = options.keep();
            let request = DistributionCreate {
                name,
                source: sources(&source, &expected)?,
                exclude: options.exclude,
                include: options.include,
                gitignore: options.gitignore.unwrap_or_default(),
                digest: options.digest.unwrap_or_default(),
                target: options.target.filter(|target| !target.is_empty()),
                skip_unreadable: options.skip_unreadable.unwrap_or_default(),
                priority: options.priority.unwrap_or_default(),
                encrypt: options.encrypt.unwrap_or_default(),
                keep,
                mode: options.mode.unwrap_or_default(),
                max_revisions: options.max_revisions.unwrap_or(Distribution::MAX_REVISIONS),
                level: options.level.unwrap_or_default(),
                delta_level: options.delta_level.unwrap_or_default(),
            };
            context.answer(&request).await
        }
        DistributionCommand::Update { name, source, expected, options } => {
            let source = new_sources(context, &name, &source, &expected).await?;
            let request = DistributionUpdate {
                name,
                source,
                exclude: given(options.exclude),
                include: given(options.include),
                gitignore: options.gitignore,
                digest: options.digest,
                target: options.target,
                skip_unreadable: options.skip_unreadable,
                priority: options.priority,
                encrypt: options.encrypt,
                xattrs: options.xattrs,
                ownership: options.ownership,
                privileged: options.privileged,
                mode: options.mode,
                max_revisions: options.max_revisions,
                level: options.level,
                delta_level: options.delta_level,
            };
            context.answer(&request).await
        }
        DistributionCommand::Rollback { name, to } => {
            context.answer_with_progress(&DistributionRollback { name, to }).await
        }
        DistributionCommand::List => context.answer(&DistributionList {}).await,
        DistributionCommand::Show { name } => context.answer(&DistributionShow { name }).await,
        DistributionCommand::Delete { name } => {
            let sentence = format!("deleted the Distribution {name}");
            context.done(&DistributionDelete { name }, &sentence).await
        }
        DistributionCommand::Build { name, checksum, stdin: false } => {
            context.answer_with_progress(&DistributionBuild { name, checksum, input: None }).await
        }
        DistributionCommand::Build { name, stdin: true, .. } => input::build(context, name).await,
        DistributionCommand::History { name } => context.answer(&DistributionHistory { name }).await,
        DistributionCommand::Diff { name, from, to } => revision::compare(context, name, (from, to)).await,
        DistributionCommand::Ls { name, revision } => revision::list(context, name, revision).await,
    }
}

/// The sources that an update asks for: those that are given, or those that are there with other expectations.
async fn new_sources(
    context: &Context,
    name: &Label,
    given: &[String],
    expected: &SourceExpectations,
) -> Result<Option<Sources>, ApiError> {
    match (given.is_empty(), expected.is_empty()) {
        (false, _) => sources(given, expected).map(Some),
        (true, true) => Ok(None),
        (true, false) => {
            let shown = context.session().await?.call(&DistributionShow { name: name.clone() }).await?;
            expected.apply(&shown.source).map(Some)
        }
    }
}

pub(super) async fn channel(context: &Context, command: ChannelCommand) -> Result<(), ApiError> {
    match command {
        ChannelCommand::Create { name, distribution, subscriber, resolve } => {
            let request = ChannelCreate { name: name.clone(), distributions: distribution, subscribers: subscriber };
            context.answer(&request).await?;
            resolve::after_change(context, vec![name], vec![], resolve.resolve).await
        }
        ChannelCommand::Update { name, distribution, subscriber, resolve } => {
            let (distributions, subscribers) = (given(distribution), given(subscriber));
            context.answer(&ChannelUpdate { name: name.clone(), distributions, subscribers }).await?;
            resolve::after_change(context, vec![name], vec![], resolve.resolve).await
        }
        ChannelCommand::List => context.answer(&ChannelList {}).await,
        ChannelCommand::Show { name } => context.answer(&ChannelShow { name }).await,
        ChannelCommand::Delete { name } => {
            let sentence = format!("deleted the Channel {name}");
            context.done(&ChannelDelete { name }, &sentence).await
        }
    }
}

pub(super) async fn subscriber(context: &Context, command: SubscriberCommand) -> Result<(), ApiError> {
    match command {
        SubscriberCommand::Create { name, endpoint, channel, way, resolve } => {
            let request = SubscriberCreate {
                name: name.clone(),
                endpoints: endpoint,
                channels: channel,
                certificate: way.given(),
            };
            context.answer(&request).await?;
            resolve::after_change(context, vec![], vec![name], resolve.resolve).await
        }
        SubscriberCommand::Update { name, endpoint, dials_itself, rename, way, certificate_by_hand, resolve } => {
            let endpoints = if dials_itself { Some(vec![]) } else { given(endpoint) };
            let hand = certificate_by_hand.then_some(WayUpdate::Hand);
            let known_as = rename.clone().unwrap_or_else(|| name.clone());
            let certificate = way.given().map(WayUpdate::Way).or(hand);
            context.answer(&SubscriberUpdate { name, endpoints, rename, certificate }).await?;
            resolve::after_change(context, vec![], vec![known_as], resolve.resolve).await
        }
        SubscriberCommand::List => context.answer(&SubscriberList {}).await,
        SubscriberCommand::Show { name } => context.answer(&SubscriberShow { name }).await,
        SubscriberCommand::Configure(args) => super::policy::configure(context, args).await,
        SubscriberCommand::Delete { name } => {
            let sentence = format!("deleted the Subscriber {name}; it is refused from now on");
            context.done(&SubscriberDelete { name }, &sentence).await
        }
        SubscriberCommand::Pending => context.answer(&SubscriberPending {}).await,
        SubscriberCommand::Approve { name, fingerprint, channel } => {
            context.answer(&SubscriberApprove { name, fingerprint, channels: channel }).await
        }
    }
}

/// A list that replaces another only if something was given for it.
fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
