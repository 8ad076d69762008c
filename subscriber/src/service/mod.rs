//! The Subscriber behind its API: each operation is one call of the library, or a few.

mod distribution;
mod distributor;
mod doctor;
#[cfg(test)]
mod events;
mod keystore;
mod node;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use ted_cli::api::{self, Api, Operation, handle};
use ted_cli::backup::NodeBackup;
use ted_cli::error::ApiError;
use ted_cli::events::{EventsList, EventsView};
use ted_cli::keystore::{KeystoreImport, KeystoreList, KeystoreRemove, KeystoreShow};
use ted_core::extract::{Links, Ownership};
use ted_core::id::UnixMillis;
use ted_core::limits::Limits;
use ted_core::model::ExtractMode;
use ted_core::name::NodeName;
use ted_core::node::{Clock as _, SystemClock};
use ted_core::protocol::Silence;
use ted_core::subscriber::{DistributionRow, SubscriberBuilder};
use ted_core::{DistributionRef, Error, Subscriber};
use tokio::sync::broadcast;

use crate::api::{
    ConfigurationShow, ConfigurationView, DistributionExtract, DistributionPreview, DistributionResume,
    DistributionRollback, DistributionVerify, DistributorEnrol, DistributorIssued, DistributorLeave,
    DistributorRequest, DistributorTrust, ExtractionSetting, ExtractionSource, NodeDoctor, NodeJoin, NodePause,
    NodeRename, NodeResume, NodeStatus, TargetList, TargetSet, TargetUnset, word,
};
use crate::config::{Config, LinkRule, OwnershipRule};

const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not zero");

/// What the command line and the configuration say.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Config,
}

/// A Subscriber that this process holds: the daemon, or one command while no daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    subscriber: Subscriber,
    settings: Settings,
    opened: UnixMillis,
    daemon: bool,
    events: broadcast::Sender<Value>,
}

impl Service {
    /// Opens the Subscriber of the data directory for one command; a second process is refused.
    ///
    /// # Errors
    /// What the library says of the data directory.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, ApiError> {
        Ok(Self::of(existing(settings)?.open().await?, settings, false))
    }

    /// The same for the daemon.
    ///
    /// # Errors
    /// As [`Service::open`].
    pub(crate) async fn open_daemon(settings: &Settings) -> Result<Self, ApiError> {
        Ok(Self::of(existing(settings)?.open().await?, settings, true))
    }

    /// Opens the Subscriber `name`, and makes it where there is none: its data directory, but no keys yet, which are
    /// made for each Distributor that it enrols with.
    ///
    /// # Errors
    /// What the library says of the data directory.
    pub(crate) async fn open_or_make(settings: &Settings, name: NodeName) -> Result<Self, ApiError> {
        Ok(Self::of(builder(settings)?.name(name).open().await?, settings, false))
    }

    fn of(subscriber: Subscriber, settings: &Settings, daemon: bool) -> Self {
        let events = ted_cli::events::forward(subscriber.events());
        let (settings, opened) = (settings.clone(), SystemClock.now());
        Self { held: Arc::new(Held { subscriber, settings, opened, daemon, events }) }
    }

    /// The Subscriber.
    pub(crate) fn subscriber(&self) -> &Subscriber {
        &self.held.subscriber
    }

    fn settings(&self) -> &Settings {
        &self.held.settings
    }

    async fn show_configuration(&self) -> Result<ConfigurationView, ApiError> {
        let told = self.subscriber().configuration().await?;
        let status = self.subscriber().status().await?;
        Ok(ConfigurationView { told, extraction: extraction_settings(&self.settings().config, &status.distributions) })
    }

    async fn list_events(&self, request: EventsList) -> Result<EventsView, ApiError> {
        Ok(self.subscriber().event_history(request.0).await?.into())
    }

    fn data_dir(&self) -> &Path {
        &self.held.settings.data_dir
    }

    /// Waits until the other side knows that a connection of one command is over.
    async fn hang_up(&self) {
        if !self.held.daemon {
            self.held.subscriber.shutdown().await;
        }
    }
}

impl Api for Service {
    async fn call(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            NodeJoin::NAME => handle(body, |it| self.join(it)).await,
            NodeRename::NAME => handle(body, |it| self.rename(it)).await,
            NodeStatus::NAME => handle(body, |_: NodeStatus| self.status()).await,
            NodeBackup::NAME => handle(body, |it| self.back_up(it)).await,
            EventsList::NAME => handle(body, |it| self.list_events(it)).await,
            NodeDoctor::NAME => handle(body, |_: NodeDoctor| self.diagnose()).await,
            DistributorTrust::NAME => handle(body, |it| self.trust(it)).await,
            DistributorEnrol::NAME => handle(body, |it| self.enrol(it)).await,
            DistributorLeave::NAME => handle(body, |it| self.leave(it)).await,
            KeystoreList::NAME => handle(body, |_: KeystoreList| self.list_keystore()).await,
            KeystoreShow::NAME => handle(body, async |it: KeystoreShow| self.show_keystore(&it.what).await).await,
            KeystoreImport::NAME => handle(body, |it| self.import(it)).await,
            KeystoreRemove::NAME => handle(body, |_: KeystoreRemove| self.remove_import()).await,
            DistributorRequest::NAME => handle(body, |it| self.request(it)).await,
            DistributorIssued::NAME => handle(body, |it| self.take_issued(it)).await,
            DistributionExtract::NAME => handle(body, |it| self.extract(it)).await,
            DistributionPreview::NAME => handle(body, |it| self.preview(it)).await,
            DistributionRollback::NAME => handle(body, |it| self.rollback(it)).await,
            DistributionResume::NAME => handle(body, |it| self.resume(it)).await,
            NodePause::NAME => handle(body, |_: NodePause| self.pause_node(true)).await,
            NodeResume::NAME => handle(body, |_: NodeResume| self.pause_node(false)).await,
            DistributionVerify::NAME => handle(body, |it| self.verify(it)).await,
            TargetSet::NAME => handle(body, |it| self.set_target(it)).await,
            TargetUnset::NAME => handle(body, |it| self.unset_target(it)).await,
            ConfigurationShow::NAME => handle(body, |_: ConfigurationShow| self.show_configuration()).await,
            TargetList::NAME => handle(body, |_: TargetList| self.list_targets()).await,
            _ => Err(api::unknown_operation(operation)),
        }
    }

    fn events(&self) -> broadcast::Receiver<Value> {
        self.held.events.subscribe()
    }
}

/// A Subscriber that is there already. A name in the configuration is compared with its own, and makes no new one.
fn existing(settings: &Settings) -> Result<SubscriberBuilder, Error> {
    let builder = builder(settings)?;
    match &settings.config.name {
        Some(name) if settings.data_dir.join("security").exists() => Ok(builder.name(name.clone())),
        _ => Ok(builder),
    }
}

/// How this node extracts, and what it keeps: every choice in force, and who makes it.
fn extraction_settings(config: &Config, distributions: &[DistributionRow]) -> Vec<ExtractionSetting> {
    let default = Config::default();
    let of_all = |setting: &str, value: String, default: String| {
        let source = if value == default { ExtractionSource::Default } else { ExtractionSource::Own };
        ExtractionSetting { setting: setting.to_owned(), distribution: None, value, source }
    };
    let mut rows = vec![
        of_all("keep_package", word(config.keep_package), word(default.keep_package)),
        of_all("on_local_change", word(config.on_local_change), word(default.on_local_change)),
        of_all("links", word(config.links), word(default.links)),
        of_all("ownership", word(config.ownership), word(default.ownership)),
    ];
    let mode = |distribution, mode: ExtractMode, source| ExtractionSetting {
        setting: "mode".to_owned(),
        distribution: Some(distribution),
        value: mode.to_string(),
        source,
    };
    for row in distributions {
        let Some(in_force) = row.mode else { continue };
        let own = config.modes.keys().any(|told| told.means(&row.distributor, &row.distribution));
        let source = if own { ExtractionSource::Own } else { ExtractionSource::Distribution };
        let named = DistributionRef::new(Some(row.distributor.clone()), row.distribution.clone());
        rows.push(mode(named, in_force, source));
    }
    for (told, of_it) in &config.modes {
        if !distributions.iter().any(|row| told.means(&row.distributor, &row.distribution)) {
            rows.push(mode(told.clone(), *of_it, ExtractionSource::Own));
        }
    }
    rows
}

fn builder(settings: &Settings) -> Result<SubscriberBuilder, Error> {
    let config = &settings.config;
    let silence = Silence::from_seconds(config.connection_timeout_s.into(), &Limits::DEFAULT)?;
    let links = match config.links {
        LinkRule::Any => Links::Any,
        LinkRule::Inside => Links::Inside,
    };
    let builder = Subscriber::builder(&settings.data_dir).connection_timeout(silence).links(links);
    let mut builder = builder.settings(config.settings.clone()).keep_package(config.keep_package);
    builder = builder.fallback(config.fallback());
    if config.ownership == OwnershipRule::Keep {
        builder = builder.ownership(Ownership::Keep);
    }
    for distribution in &config.privileged {
        builder = builder.permit_privileged(distribution.clone());
    }
    builder = builder.on_local_change(config.on_local_change);
    for (distribution, mode) in &config.modes {
        builder = builder.mode(distribution.clone(), *mode);
    }
    if let Some(listen) = config.listen {
        builder = builder.listen(listen);
    }
    if let Some(threads) = config.parallelism {
        builder = builder.threads(threads.into());
    }
    if let Some(sends) = config.max_sends {
        builder = builder.sends_max(sends.into());
    }
    if let Some(every) = config.scrub_interval {
        builder = builder.scrub(every.0);
    }
    if let Some(rate) = config.scrub_rate_mib_s {
        builder = builder.scrub_rate(NonZeroU64::from(rate).saturating_mul(MIB));
    }
    for (distribution, target) in &config.targets {
        builder = builder.target(distribution.clone(), PathBuf::from(target.clone()));
    }
    for (scope, hooks) in &config.hooks {
        builder = builder.hooks(scope.clone(), hooks.clone());
    }
    for folder in &config.targets_allow {
        builder = builder.allow_targets_below(PathBuf::from(folder.clone()));
    }
    Ok(builder)
}
