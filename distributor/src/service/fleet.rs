//! Distributions, Channels and Subscribers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ted_cli::api::Done;
use ted_cli::error::{ApiError, code, from_library};
use ted_core::distributor::{DeliveryQuery, DistributionStatus, Reading, SubscriberStatus};
use ted_core::name::{Label, NodeName};
use ted_core::{BuildOutcome, BuiltRevision, DistributionSpec};

use super::Service;
use crate::api::{
    BuildView, ChannelCreate, ChannelDelete, ChannelUpdate, ChannelView, Channels, DeliveryView, DeltaView,
    DistributionBuild, DistributionCreate, DistributionDelete, DistributionUpdate, DistributionView, Distributions,
    EnrolledView, Pending, PendingView, RevisionView, SubscriberApprove, SubscriberCreate, SubscriberDelete,
    SubscriberUpdate, SubscriberView, Subscribers, WayUpdate,
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
        let ChannelCreate { name, distributions, subscribers } = request;
        self.distributor().create_channel(name.clone(), &distributions, &subscribers).await?;
        self.show_channel(name).await
    }

    pub(super) async fn update_channel(&self, request: ChannelUpdate) -> Result<ChannelView, ApiError> {
        let ChannelView(now) = self.show_channel(request.name.clone()).await?;
        let distributions = request.distributions.unwrap_or_else(|| now.distributions.into_iter().collect());
        let subscribers = request.subscribers.unwrap_or_else(|| now.subscribers.into_iter().collect());
        self.distributor().update_channel(&request.name, &distributions, &subscribers).await?;
        self.show_channel(request.name).await
    }

    pub(super) async fn list_channels(&self) -> Result<Channels, ApiError> {
        Ok(Channels { channels: self.distributor().fleet().channels().cloned().collect() })
    }

    pub(super) async fn show_channel(&self, name: Label) -> Result<ChannelView, ApiError> {
        let fleet = self.distributor().fleet();
        fleet.channel(&name).cloned().map(ChannelView).map_err(from_library)
    }

    pub(super) async fn delete_channel(&self, request: ChannelDelete) -> Result<Done, ApiError> {
        self.distributor().delete_channel(&request.name).await?;
        Ok(Done {})
    }

    pub(super) async fn create_subscriber(&self, request: SubscriberCreate) -> Result<SubscriberView, ApiError> {
        let SubscriberCreate { name, endpoints, channels, certificate } = request;
        self.distributor().create_subscriber(name.clone(), &endpoints, &channels).await?;
        if certificate.is_some() {
            self.distributor().set_certificate_way(&name, certificate).await?;
        }
        self.show_subscriber(name).await
    }

    pub(super) async fn update_subscriber(&self, request: SubscriberUpdate) -> Result<SubscriberView, ApiError> {
        if let Some(endpoints) = &request.endpoints {
            self.distributor().update_subscriber(&request.name, endpoints).await?;
        }
        if let Some(update) = request.certificate {
            let way = match update {
                WayUpdate::Hand => None,
                WayUpdate::Way(way) => Some(way),
            };
            self.distributor().set_certificate_way(&request.name, way).await?;
        }
        let Some(to) = request.rename else { return self.show_subscriber(request.name).await };
        self.distributor().rename_subscriber(&request.name, &to).await?;
        self.show_subscriber(to).await
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
        self.distributor().fleet().subscriber(&name).map_err(from_library)?;
        let all = self.list_subscribers().await?.subscribers;
        let found = all.into_iter().find(|subscriber| subscriber.name == name);
        found.ok_or_else(|| ApiError::new(code::STATE, format!("{name} was deleted meanwhile")))
    }

    pub(super) async fn delete_subscriber(&self, request: SubscriberDelete) -> Result<Done, ApiError> {
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
            channels: status.channels,
            enrolled: enrolled.map(|(fingerprint, since)| EnrolledView { fingerprint, since: since.into() }),
            connected: status.address,
            certificate: status.certificate.into(),
            deliveries,
        }
    }
}
