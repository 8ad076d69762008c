//! `distribution`, `channel` and `subscriber`.

use std::collections::BTreeSet;

use ted_cli::error::{ApiError, code};
use ted_cli::output;
use ted_core::distributor::{CertificateBringing, ChannelChanges, SubscriberChanges};
use ted_core::model::{Belonging, Distribution, Selection, Sources};
use ted_core::name::{Label, NodeName};
use ted_core::schedule::Schedule;

use super::{Context, input, resolve, revision};
use crate::api::{
    ChannelCreate, ChannelDelete, ChannelList, ChannelShow, ChannelUpdate, DistributionBuild, DistributionCreate,
    DistributionDelete, DistributionHistory, DistributionList, DistributionRollback, DistributionShow,
    DistributionUpdate, SubscriberApprove, SubscriberCreate, SubscriberDelete, SubscriberList, SubscriberPending,
    SubscriberRename, SubscriberShow, SubscriberUpdate,
};
use crate::cli::{
    ChannelCommand, ChannelUpdateArgs, DistributionCommand, ExternalCommand, SelectionArgs, SourceExpectations,
    SubscriberChangeArgs, SubscriberCommand, SubscriberCreateArgs, SubscriberUpdateArgs, sources,
};

pub(super) async fn distribution(context: &Context, command: DistributionCommand) -> Result<(), ApiError> {
    match command {
        DistributionCommand::Create { name, source, expected, options } => {
            let (keep, activity) = (options.keep(), options.activity());
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
                build: options.build.unwrap_or_else(Schedule::with_send),
                inactive: activity == Some(false),
            };
            context.answer(&request).await
        }
        DistributionCommand::Update { name, source, expected, options } => {
            let (source, active) = (new_sources(context, &name, &source, &expected).await?, options.activity());
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
                build: options.build,
                active,
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
        ChannelCommand::Create { name, distribution, subscriber, group, schedule, inactive, resolve } => {
            let request = ChannelCreate {
                name: name.clone(),
                distributions: distribution,
                subscribers: subscriber,
                groups: group,
                schedule,
                inactive,
            };
            context.answer(&request).await?;
            resolve::after_change(context, vec![name], vec![], resolve.resolve).await
        }
        ChannelCommand::Update { name, changes, resolve } => {
            let changes = channel_changes(changes);
            context.answer(&ChannelUpdate { name: name.clone(), changes }).await?;
            resolve::after_change(context, vec![name], vec![], resolve.resolve).await
        }
        ChannelCommand::Pause { name } => activate_channel(context, name, false).await,
        ChannelCommand::Resume { name } => activate_channel(context, name, true).await,
        ChannelCommand::List => context.answer(&ChannelList {}).await,
        ChannelCommand::Show { name } => context.answer(&ChannelShow { name }).await,
        ChannelCommand::Delete { name } => {
            let sentence = format!("deleted the Channel {name}");
            context.done(&ChannelDelete { name }, &sentence).await
        }
    }
}

fn channel_changes(args: ChannelUpdateArgs) -> ChannelChanges {
    fn replaced<T: Ord>(given: Vec<T>, none: bool) -> Option<BTreeSet<T>> {
        (none || !given.is_empty()).then(|| given.into_iter().collect())
    }
    ChannelChanges {
        distributions: replaced(args.distribution, false),
        subscribers: replaced(args.subscriber, args.no_subscribers),
        groups: replaced(args.group, args.no_groups),
        schedule: args.schedule,
        active: (args.active || args.inactive).then_some(args.active),
    }
}

async fn activate_channel(context: &Context, name: Label, active: bool) -> Result<(), ApiError> {
    let changes = ChannelChanges { active: Some(active), ..ChannelChanges::default() };
    context.answer(&ChannelUpdate { name, changes }).await
}

pub(super) async fn subscriber(context: &Context, command: SubscriberCommand) -> Result<(), ApiError> {
    let belonging = Belonging::Either;
    match command {
        SubscriberCommand::Create { args, resolve } => create(context, args, false, resolve.resolve).await,
        SubscriberCommand::Update { args, resolve } => update(context, *args, belonging, resolve.resolve).await,
        SubscriberCommand::List { label } => context.answer(&SubscriberList { labels: label, belonging }).await,
        SubscriberCommand::Show { name } => context.answer(&SubscriberShow { name, belonging }).await,
        SubscriberCommand::Pause { which } => activate(context, which, false).await,
        SubscriberCommand::Resume { which } => activate(context, which, true).await,
        SubscriberCommand::Configure(args) => super::policy::configure(context, args).await,
        SubscriberCommand::Delete { name } => delete(context, name, belonging).await,
        SubscriberCommand::Pending => context.answer(&SubscriberPending {}).await,
        SubscriberCommand::Approve { name, fingerprint, channel } => {
            context.answer(&SubscriberApprove { name, fingerprint, channels: channel }).await
        }
    }
}

pub(super) async fn external(context: &Context, command: ExternalCommand) -> Result<(), ApiError> {
    let belonging = Belonging::External;
    match command {
        ExternalCommand::Create { args, resolve } => create(context, *args, true, resolve.resolve).await,
        ExternalCommand::Update { args, resolve } => update(context, *args, belonging, resolve.resolve).await,
        ExternalCommand::List { label } => context.answer(&SubscriberList { labels: label, belonging }).await,
        ExternalCommand::Show { name } => context.answer(&SubscriberShow { name, belonging }).await,
        ExternalCommand::Delete { name } => delete(context, name, belonging).await,
    }
}

async fn create(context: &Context, args: SubscriberCreateArgs, external: bool, resolve: bool) -> Result<(), ApiError> {
    let way = args.certificate_directory.or(args.certificate_command);
    let changes = SubscriberChanges {
        endpoints: given(args.endpoint),
        parents: given(args.parent),
        external: external.then_some(true),
        active: args.inactive.then_some(false),
        rate: args.rate,
        certificate: way.map(CertificateBringing::Way),
        labels: args.label,
        into_channels: args.channel,
        into_groups: args.group,
        ..SubscriberChanges::default()
    };
    context.answer(&SubscriberCreate { name: args.name.clone(), changes }).await?;
    resolve::after_change(context, vec![], vec![args.name], resolve).await
}

async fn update(
    context: &Context,
    args: SubscriberUpdateArgs,
    belonging: Belonging,
    resolve: bool,
) -> Result<(), ApiError> {
    let SubscriberUpdateArgs { which, mut changes, dry_run } = args;
    let (selection, rename) = (selected(which), changes.rename.take());
    let one = match &selection {
        Selection::Names(names) => <[_; 1]>::try_from(names.clone()).ok().map(|[name]| name),
        Selection::Labels(_) => None,
    };
    let changes = subscriber_changes(changes);
    let is_other = changes != SubscriberChanges::default();
    let mut known_as = one.clone();
    if let Some(to) = rename {
        let Some(name) = one.filter(|_| !dry_run) else {
            let message = "`--name` gives one Subscriber another name: name that one, without `--dry-run`";
            return Err(ApiError::new(code::BAD_REQUEST, message));
        };
        if is_other {
            let update = SubscriberUpdate { selection, belonging, changes, dry_run };
            context.session().await?.call(&update).await?;
        }
        known_as = Some(to.clone());
        context.answer(&SubscriberRename { name, to }).await?;
        return resolve::after_change(context, vec![], Vec::from_iter(known_as), resolve).await;
    }
    let changed = context.session().await?.call(&SubscriberUpdate { selection, belonging, changes, dry_run }).await?;
    match known_as.filter(|_| !dry_run) {
        Some(name) => context.answer(&SubscriberShow { name, belonging }).await?,
        None => output::print(context.format, &changed)?,
    }
    if dry_run || changed.subscribers.is_empty() {
        return Ok(());
    }
    resolve::after_change(context, vec![], changed.subscribers, resolve).await
}

async fn activate(context: &Context, which: SelectionArgs, active: bool) -> Result<(), ApiError> {
    let changes = SubscriberChanges { active: Some(active), ..SubscriberChanges::default() };
    let (selection, belonging) = (selected(which), Belonging::Either);
    context.answer(&SubscriberUpdate { selection, belonging, changes, dry_run: false }).await
}

async fn delete(context: &Context, name: NodeName, belonging: Belonging) -> Result<(), ApiError> {
    let sentence = format!("deleted the Subscriber {name}; it is refused from now on");
    context.done(&SubscriberDelete { name, belonging }, &sentence).await
}

fn selected(which: SelectionArgs) -> Selection {
    // Without names and conditions, all are meant, and said to be.
    if which.names.is_empty() { Selection::Labels(which.conditions) } else { Selection::Names(which.names) }
}

fn subscriber_changes(args: SubscriberChangeArgs) -> SubscriberChanges {
    let hand = args.certificate_by_hand.then_some(CertificateBringing::Hand);
    let way = args.certificate_directory.or(args.certificate_command);
    SubscriberChanges {
        endpoints: if args.dials_itself { Some(vec![]) } else { given(args.endpoint) },
        parents: if args.direct { Some(vec![]) } else { given(args.parent) },
        external: args.external,
        active: None,
        rate: args.rate,
        certificate: way.map(CertificateBringing::Way).or(hand),
        labels: args.set_label,
        without_labels: args.unset_label,
        into_channels: args.channel,
        from_channels: args.leave_channel,
        into_groups: args.group,
        from_groups: args.leave_group,
    }
}

/// A list that replaces another only if something was given for it.
fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
