//! The Distributor behind its API: each operation is one call of the library, or a few.

mod doctor;
#[cfg(test)]
mod events;
mod firing;
mod fleet;
mod groups;
mod node;
mod policy;
mod report;
mod resolve;
mod revision;
mod rotation;
mod security;
mod sign;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use ted_cli::api::{Api, Operation, handle};
use ted_cli::backup::NodeBackup;
use ted_cli::error::{ApiError, code};
use ted_cli::events::EventsList;
use ted_cli::keystore::{KeystoreImport, KeystoreList, KeystoreRemove, KeystoreShow};
use ted_core::id::UnixMillis;
use ted_core::limits::Limits;
use ted_core::node::{Clock as _, SystemClock};
use ted_core::protocol::{SendRates, Silence};
use ted_core::{Distributor, Error};
use tokio::sync::broadcast;

use crate::api::{
    CertificateExport, CertificateList, CertificateNeeded, CertificateResolve, CertificateShow, CertificateSign,
    ChannelCreate, ChannelDelete, ChannelList, ChannelSend, ChannelShow, ChannelUpdate, DistributionBuild,
    DistributionCreate, DistributionDelete, DistributionList, DistributionShow, DistributionUpdate, FiringCancel,
    FiringList, FiringShow, FiringWait, InviteCreate, NodeDoctor, NodeStatus, NodeView, ReportDeliveries,
    ReportSummary, SubscriberApprove, SubscriberCreate, SubscriberDelete, SubscriberList, SubscriberPending,
    SubscriberRename, SubscriberShow, SubscriberUpdate, TokenCreate,
};
use crate::cli::InitArgs;
use crate::config::Config;

/// What the command line and the configuration say.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Config,
}

/// A Distributor that this process holds: the daemon, or one command while no daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    distributor: Distributor,
    settings: Settings,
    opened: UnixMillis,
    events: broadcast::Sender<Value>,
}

impl Service {
    /// Opens the Distributor of the data directory; a second process is refused.
    ///
    /// # Errors
    /// What the library says of the data directory.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, ApiError> {
        let distributor = builder(settings)?.open().await?;
        Ok(Self::of(distributor, settings.clone()))
    }

    /// Makes the Distributor: its keys, its certificate, its configuration file. One that is there already stays as it
    /// is; one whose making was interrupted is completed.
    ///
    /// # Errors
    /// [`code::STATE`] where there is one already; what the library says of the data directory.
    pub(crate) async fn init(settings: &Settings, args: InitArgs) -> Result<NodeView, ApiError> {
        let mut settings = settings.clone();
        settings.config.listen = args.listen.unwrap_or(settings.config.listen);
        if !args.advertise.is_empty() {
            settings.config.advertise = args.advertise;
        }
        let file = settings.data_dir.join("distributor.toml");
        let there = settings.data_dir.join("security").exists();
        if there && file.exists() {
            let message = format!("{} holds a Distributor already", settings.data_dir.display());
            let remedy = format!("Change {} and restart the daemon, or name another `--data-dir`.", file.display());
            return Err(ApiError::new(code::STATE, message).with_remedy(remedy));
        }
        let name = args.name.map_or_else(ted_cli::host::default_name, Ok)?;
        let distributor = builder(&settings)?.name(name).open().await?;
        if !file.exists() {
            ted_cli::config::write_new(&file, &settings.config)?;
        }
        Self::of(distributor, settings).keep_certificate()
    }

    fn of(distributor: Distributor, settings: Settings) -> Self {
        let events = ted_cli::events::forward(distributor.events());
        Self { held: Arc::new(Held { distributor, settings, opened: SystemClock.now(), events }) }
    }

    /// The Distributor.
    pub(crate) fn distributor(&self) -> &Distributor {
        &self.held.distributor
    }

    /// What it was opened with.
    pub(crate) fn settings(&self) -> &Settings {
        &self.held.settings
    }

    /// The data directory.
    fn data_dir(&self) -> &Path {
        &self.held.settings.data_dir
    }

    async fn fleet_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            DistributionCreate::NAME => handle(body, |it| self.create_distribution(it)).await,
            DistributionUpdate::NAME => handle(body, |it| self.update_distribution(it)).await,
            DistributionList::NAME => handle(body, |_: DistributionList| self.list_distributions()).await,
            DistributionShow::NAME => handle(body, |it: DistributionShow| self.show_distribution(it.name)).await,
            DistributionDelete::NAME => handle(body, |it| self.delete_distribution(it)).await,
            DistributionBuild::NAME => handle(body, |it| self.build(it)).await,
            ChannelCreate::NAME => handle(body, |it| self.create_channel(it)).await,
            ChannelUpdate::NAME => handle(body, |it| self.update_channel(it)).await,
            ChannelList::NAME => handle(body, |_: ChannelList| self.list_channels()).await,
            ChannelShow::NAME => handle(body, |it: ChannelShow| self.show_channel(it.name)).await,
            ChannelDelete::NAME => handle(body, |it| self.delete_channel(it)).await,
            SubscriberCreate::NAME => handle(body, |it| self.create_subscriber(it)).await,
            SubscriberUpdate::NAME => handle(body, |it| self.update_subscriber(it)).await,
            SubscriberRename::NAME => handle(body, |it| self.rename_subscriber(it)).await,
            SubscriberList::NAME => handle(body, |it| self.list_selected(it)).await,
            SubscriberShow::NAME => handle(body, |it| self.show_selected(it)).await,
            SubscriberDelete::NAME => handle(body, |it| self.delete_subscriber(it)).await,
            SubscriberPending::NAME => handle(body, |_: SubscriberPending| self.list_pending()).await,
            SubscriberApprove::NAME => handle(body, |it| self.approve(it)).await,
            _ => self.group_operation(operation, body).await,
        }
    }

    async fn keystore_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            KeystoreList::NAME => handle(body, |_: KeystoreList| self.list_keystore()).await,
            KeystoreShow::NAME => handle(body, async |it: KeystoreShow| self.show_keystore(&it.what).await).await,
            KeystoreImport::NAME => handle(body, |it| self.import(it)).await,
            KeystoreRemove::NAME => handle(body, |_: KeystoreRemove| self.remove_import()).await,
            _ => self.policy_operation(operation, body).await,
        }
    }
}

impl Api for Service {
    async fn call(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            NodeStatus::NAME => handle(body, |_: NodeStatus| self.status()).await,
            NodeBackup::NAME => handle(body, |it| self.back_up(it)).await,
            EventsList::NAME => handle(body, |it| self.list_events(it)).await,
            ReportDeliveries::NAME => handle(body, |it| self.report_deliveries(it)).await,
            ReportSummary::NAME => handle(body, |it| self.report_summary(it)).await,
            NodeDoctor::NAME => handle(body, |_: NodeDoctor| self.diagnose()).await,
            ChannelSend::NAME => handle(body, |it| self.send(it)).await,
            FiringWait::NAME => handle(body, |it| self.wait(it)).await,
            FiringList::NAME => handle(body, |it| self.list_firings(it)).await,
            FiringShow::NAME => handle(body, |it| self.show_firing(it)).await,
            FiringCancel::NAME => handle(body, |it| self.cancel(it)).await,
            InviteCreate::NAME => handle(body, |it| self.invite(it)).await,
            TokenCreate::NAME => handle(body, |it| self.create_token(it)).await,
            CertificateExport::NAME => handle(body, |_: CertificateExport| self.export_certificate()).await,
            CertificateList::NAME => handle(body, |_: CertificateList| self.list_certificates()).await,
            CertificateResolve::NAME => handle(body, |it| self.resolve(it)).await,
            CertificateNeeded::NAME => handle(body, |it| self.unresolved(it)).await,
            CertificateSign::NAME => handle(body, |it| self.sign(it)).await,
            CertificateShow::NAME => handle(body, |it| self.show_certificate(it)).await,
            _ => self.fleet_operation(operation, body).await,
        }
    }

    fn events(&self) -> broadcast::Receiver<Value> {
        self.held.events.subscribe()
    }
}

fn builder(settings: &Settings) -> Result<ted_core::distributor::DistributorBuilder, Error> {
    let config = &settings.config;
    let seconds = config.connection_timeout_s.into();
    let sends = SendRates {
        sends_max: std::num::NonZeroUsize::from(config.max_sends).get(),
        high: config.rate_high.clone(),
        medium: config.rate_medium.clone(),
        low: config.rate_low.clone(),
    };
    let builder = Distributor::builder(&settings.data_dir);
    let builder = config.refresh().into_iter().fold(builder, |builder, refresh| builder.refresh(refresh));
    Ok(builder
        .listen(settings.config.listen)
        .advertise(settings.config.advertise.clone())
        .sends(sends)
        .connection_timeout(Silence::from_seconds(seconds, &Limits::DEFAULT)?))
}
