//! Distributions, Channels and Subscribers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ted_cli::api::Done;
use ted_cli::error::{ApiError, code, from_library};
use ted_core::distributor::{DeliveryQuery, DistributionStatus, Reading, SubscriberStatus, Trial};
use ted_core::model::{Belonging, Channel, Item, Selection};
use ted_core::name::{Label, NodeName};
use ted_core::schedule::Schedule;
use ted_core::{BuildOutcome, BuiltRevision, DistributionSpec};

use super::Service;
use crate::api::{
    BuildView, ChangeView, ChannelCreate, ChannelDelete, ChannelUpdate, ChannelView, Channels, DeliveryView, DeltaView,
    DistributionBuild, DistributionCreate, DistributionDelete, DistributionUpdate, DistributionView, Distributions,
    EnrolledView, Pending, PendingView, RevisionView, SubscriberApprove, SubscriberCreate, SubscriberDelete,
    SubscriberList, SubscriberRename, SubscriberShow, SubscriberUpdate, SubscriberView, Subscribers, WarningView,
};

impl Service {
    pub(super) async fn create_distribution(&self, request: DistributionCreate) -> Result<DistributionView, ApiError> {
        let spec = DistributionSpec {
            source: request.source,
            exclude: request.exclude,
            include: request.include,
            gitignore: request.gitignore,
            digest: request.digest,
            target: request.target,
            skip_unreadable: request.skip_unreadable,
            encrypt: request.encrypt,
            keep: request.keep,
            mode: request.mode,
            max_revisions: request.max_revisions,
            level: request.level,
            delta_level: request.delta_level,
            priority: request.priority,
            build: request.build,
            active: !request.inactive,
            ..DistributionSpec::new(request.name.clone(), "")
        };
        self.distributor().create_distribution(spec).await?;
        self.show_distribution(request.name).await
    }

    pub(super) async fn update_distribution(&self, request: DistributionUpdate) -> Result<DistributionView, ApiError> {
        let mut spec = self.distributor().distribution(&request.name).await?.spec;
        if let Some(target) = request.target {
            spec.target = (!target.is_empty()).then_some(target);
        }
        spec.source = request.source.unwrap_or(spec.source);
        spec.exclude = request.exclude.unwrap_or(spec.exclude);
        spec.include = request.include.unwrap_or(spec.include);
        spec.gitignore = request.gitignore.unwrap_or(spec.gitignore);
        spec.digest = request.digest.unwrap_or(spec.digest);
        spec.skip_unreadable = request.skip_unreadable.unwrap_or(spec.skip_unreadable);
        spec.encrypt = request.encrypt.unwrap_or(spec.encrypt);
        spec.keep.xattrs = request.xattrs.unwrap_or(spec.keep.xattrs);
        spec.keep.ownership = request.ownership.unwrap_or(spec.keep.ownership);
        spec.keep.privileged = request.privileged.unwrap_or(spec.keep.privileged);
        spec.mode = request.mode.unwrap_or(spec.mode);
        spec.max_revisions = request.max_revisions.unwrap_or(spec.max_revisions);
        spec.level = request.level.unwrap_or(spec.level);
        spec.delta_level = request.delta_level.unwrap_or(spec.delta_level);
        spec.priority = request.priority.unwrap_or(spec.priority);
        spec.build = request.build.unwrap_or(spec.build);
        spec.active = request.active.unwrap_or(spec.active);
        self.distributor().update_distribution(&request.name, spec).await?;
        self.show_distribution(request.name).await
    }

    pub(super) async fn list_distributions(&self) -> Result<Distributions, ApiError> {
        let all = self.distributor().distributions().await?;
        Ok(Distributions { distributions: all.into_iter().map(DistributionView::from).collect() })
    }

    pub(super) async fn show_distribution(&self, name: Label) -> Result<DistributionView, ApiError> {
        Ok(self.distributor().distribution(&name).await?.into())
    }

    pub(super) async fn delete_distribution(&self, request: DistributionDelete) -> Result<Done, ApiError> {
        self.distributor().delete_distribution(&request.name).await?;
        Ok(Done {})
    }

    pub(super) async fn build(&self, request: DistributionBuild) -> Result<BuildView, ApiError> {
        let DistributionBuild { name, checksum, input } = request;
        let reading = if checksum { Reading::Everything } else { Reading::Changed };
        let started = Instant::now();
        let outcome = match input {
            Some(input) => self.distributor().build_input(&name, &input).await?,
            None => self.distributor().build_reading(&name, reading).await?,
        };
        self.build_view(name, &outcome, started.elapsed()).await
    }

    /// How a build is shown.
    pub(super) async fn build_view(
        &self,
        name: Label,
        outcome: &BuildOutcome,
        took: Duration,
    ) -> Result<BuildView, ApiError> {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let shown = self.show_distribution(name.clone()).await?;
        let built = matches!(outcome, BuildOutcome::Built(_));
        let revision =
            shown.newest.ok_or_else(|| ApiError::new(code::STATE, format!("{name} was deleted meanwhile")))?;
        let BuiltRevision { frames, frames_copied, skipped, .. } = outcome.revision().clone();
        Ok(BuildView { distribution: name, revision, built, milliseconds, frames, frames_copied, skipped })
    }

    pub(super) async fn create_channel(&self, request: ChannelCreate) -> Result<ChannelView, ApiError> {
        let ChannelCreate { name, distributions, subscribers, groups, schedule, inactive } = request;
        let channel = Channel {
            subscribers: subscribers.into_iter().collect(),
            groups: groups.into_iter().collect(),
            schedule: schedule.unwrap_or_else(Schedule::never),
            active: !inactive,
            ..Channel::new(name.clone(), distributions)
        };
        self.distributor().declare_channel(channel).await?;
        self.show_channel(name).await
    }

    pub(super) async fn update_channel(&self, request: ChannelUpdate) -> Result<ChannelView, ApiError> {
        self.distributor().change_channel(&request.name, request.changes).await?;
        self.show_channel(request.name).await
    }

    pub(super) async fn list_channels(&self) -> Result<Channels, ApiError> {
        Ok(Channels { channels: self.distributor().with_fleet(|fleet| fleet.channels().cloned().collect()) })
    }

    pub(super) async fn show_channel(&self, name: Label) -> Result<ChannelView, ApiError> {
        self.distributor().with_fleet(|fleet| {
            let channel = fleet.channel(&name).cloned().map_err(from_library)?;
            let receivers = fleet.subscribers_of(&name).map_err(from_library)?.len() as u64;
            let item = Item::Channel(name.to_string());
            let warnings = fleet.warnings();
            let warnings = warnings.iter().filter(|warning| *warning.item() == item).map(WarningView::from).collect();
            Ok(ChannelView { channel, receivers, warnings })
        })
    }

    pub(super) async fn delete_channel(&self, request: ChannelDelete) -> Result<Done, ApiError> {
        self.distributor().delete_channel(&request.name).await?;
        Ok(Done {})
    }

    pub(super) async fn create_subscriber(&self, request: SubscriberCreate) -> Result<SubscriberView, ApiError> {
        let SubscriberCreate { name, changes } = request;
        self.distributor().declare_subscriber(&name, changes).await?;
        self.show_subscriber(name).await
    }

    pub(super) async fn update_subscriber(&self, request: SubscriberUpdate) -> Result<ChangeView, ApiError> {
        let SubscriberUpdate { selection, belonging, changes, dry_run } = request;
        let trial = if dry_run { Trial::Only } else { Trial::Make };
        let by_labels = matches!(selection, Selection::Labels(_));
        let change = self.distributor().change_subscribers(selection, belonging, changes, trial).await?;
        let nobody = by_labels && change.subscribers.is_empty();
        Ok(ChangeView { nobody, ..ChangeView::new(change, dry_run, false) })
    }

    pub(super) async fn rename_subscriber(&self, request: SubscriberRename) -> Result<SubscriberView, ApiError> {
        self.distributor().rename_subscriber(&request.name, &request.to).await?;
        self.show_subscriber(request.to).await
    }

    pub(super) async fn list_selected(&self, request: SubscriberList) -> Result<Subscribers, ApiError> {
        let mut all = self.list_subscribers().await?;
        let selection = Selection::Labels(request.labels);
        let meant: BTreeSet<NodeName> = self.distributor().with_fleet(|fleet| {
            let meant = fleet.select(&selection, request.belonging).map_err(from_library)?;
            Ok::<_, ApiError>(meant.into_iter().map(|subscriber| subscriber.name.clone()).collect())
        })?;
        all.subscribers.retain(|subscriber| meant.contains(&subscriber.name));
        Ok(all)
    }

    pub(super) async fn show_selected(&self, request: SubscriberShow) -> Result<SubscriberView, ApiError> {
        self.require(&request.name, request.belonging)?;
        self.show_subscriber(request.name).await
    }

    /// Refuses a Subscriber that is not there, or is no External one where one is meant.
    fn require(&self, name: &NodeName, belonging: Belonging) -> Result<(), ApiError> {
        let selection = Selection::Names(vec![name.clone()]);
        self.distributor().with_fleet(|fleet| fleet.select(&selection, belonging).map(drop)).map_err(from_library)
    }

    pub(super) async fn list_subscribers(&self) -> Result<Subscribers, ApiError> {
        let status = self.distributor().status().await?;
        let mut deliveries = self.latest_deliveries().await?;
        let views = status.subscribers.into_iter().map(|subscriber| {
            let deliveries = deliveries.remove(&subscriber.name).unwrap_or_default();
            SubscriberView::new(subscriber, deliveries)
        });
        Ok(Subscribers { subscribers: views.collect() })
    }

    pub(super) async fn show_subscriber(&self, name: NodeName) -> Result<SubscriberView, ApiError> {
        let status = self.distributor().subscriber_status(&name).await?;
        let deliveries = self.latest_deliveries().await?.remove(&name).unwrap_or_default();
        Ok(SubscriberView::new(status, deliveries))
    }

    pub(super) async fn delete_subscriber(&self, request: SubscriberDelete) -> Result<Done, ApiError> {
        self.require(&request.name, request.belonging)?;
        self.distributor().delete_subscriber(&request.name).await?;
        Ok(Done {})
    }

    pub(super) async fn list_pending(&self) -> Result<Pending, ApiError> {
        let waiting = self.distributor().pending().await?.into_iter();
        let views = waiting.map(|node| PendingView {
            name: node.name,
            fingerprint: node.fingerprint,
            asked: node.asked.into(),
        });
        Ok(Pending { pending: views.collect() })
    }

    pub(super) async fn approve(&self, request: SubscriberApprove) -> Result<SubscriberView, ApiError> {
        let SubscriberApprove { name, fingerprint, channels } = request;
        self.distributor().approve(&name, fingerprint.as_deref(), &channels).await?;
        self.show_subscriber(name).await
    }

    /// What is known last of each Distribution at each Subscriber.
    async fn latest_deliveries(&self) -> Result<BTreeMap<NodeName, Vec<DeliveryView>>, ApiError> {
        let mut latest: BTreeMap<NodeName, Vec<DeliveryView>> = BTreeMap::new();
        // The newest firing comes first, so that the first row of its kind stays.
        let mut deliveries = self.distributor().deliveries(DeliveryQuery::default()).await?;
        deliveries.sort_by_key(|delivery| Reverse(delivery.started));
        for delivery in deliveries.into_iter().map(|delivery| DeliveryView::from(delivery.row)) {
            let known = latest.entry(delivery.subscriber.clone()).or_default();
            if known.iter().all(|known| known.distribution != delivery.distribution) {
                known.push(delivery);
            }
        }
        Ok(latest)
    }
}

impl From<DistributionStatus> for DistributionView {
    fn from(status: DistributionStatus) -> Self {
        let DistributionStatus { id, spec, newest, file } = status;
        Self {
            id: id.to_string(),
            name: spec.name,
            source: spec.source,
            exclude: spec.exclude,
            include: spec.include,
            gitignore: spec.gitignore,
            digest: spec.digest,
            target: spec.target,
            skip_unreadable: spec.skip_unreadable,
            encrypt: spec.encrypt,
            keep: spec.keep,
            mode: spec.mode,
            max_revisions: spec.max_revisions,
            level: spec.level,
            delta_level: spec.delta_level,
            priority: spec.priority,
            build: spec.build,
            active: spec.active,
            newest: newest.map(|newest| RevisionView::new(&newest, file)),
        }
    }
}

impl RevisionView {
    fn new(built: &BuiltRevision, file: Option<std::path::PathBuf>) -> Self {
        Self {
            revision: built.revision.number(),
            created: built.created.into(),
            entries: built.entries,
            content_bytes: built.content_bytes,
            package_bytes: built.bytes,
            package: built.package.to_string(),
            file,
            delta: built.delta.map(DeltaView::from),
            no_delta: built.no_delta.clone(),
        }
    }
}

impl SubscriberView {
    fn new(status: SubscriberStatus, deliveries: Vec<DeliveryView>) -> Self {
        let enrolled = status.fingerprint.zip(status.enrolled);
        Self {
            name: status.name,
            endpoints: status.endpoints,
            parents: status.parents,
            external: status.external,
            active: status.active,
            labels: status.labels,
            rate: status.rate,
            groups: status.groups,
            channels: status.channels,
            enrolled: enrolled.map(|(fingerprint, since)| EnrolledView { fingerprint, since: since.into() }),
            connected: status.address,
            through: status.through,
            certificate: status.certificate.into(),
            deliveries,
        }
    }
}
