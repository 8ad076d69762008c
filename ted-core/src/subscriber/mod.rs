//! The Subscriber: it trusts, enrols, takes offers, receives, verifies, extracts, and says so in receipts.

mod announced;
mod arriving;
mod backup;
mod carried;
mod chain;
mod child_serving;
mod children;
mod configuration;
mod damage;
mod deliveries;
mod dialling;
mod entitled;
mod error;
mod events;
mod extract_times;
mod extraction;
mod fall_back;
mod grants;
mod held;
mod hooks;
mod keys;
mod modes;
mod offers;
mod opening;
mod outbox;
mod passing;
mod peers;
mod permits;
mod rates;
mod receive;
mod reference;
mod relay;
mod renewal;
mod report;
mod rollback;
mod scrub;
mod serving;
mod state;
mod status;
mod succession;
mod targets;
mod trust;
mod verify;
mod ways;

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::extract::{Links, Ownership};
use crate::limits::Limits;
use crate::model::{Endpoint, ExtractMode};
use crate::name::NodeName;
use crate::node::{Clock, EventFilter, EventHistory, Events, SystemClock};
use crate::protocol::{Fallback, Silence};
use crate::security::{AwsLc, Crypto, Invite, Token};

pub use announced::AnnouncedError;
pub use configuration::{ConfigurationRow, NodeSettings, SettingRow, SettingSource};
pub use error::SubscriberError;
pub use events::SubscriberEvent;
pub use extract_times::ExtractTime;
pub use grants::granted_key;
pub use held::KeepPackage;
pub use hooks::{AfterFailure, HookCommand, HookError, HookKind, HookReport, HookRule, HookScope, HookTimeout, Hooks};
pub use modes::LocalChanges;
pub use reference::DistributionRef;
pub use relay::{PassedRow, TrafficRow};
pub use report::{
    CarriedRequest, ChildRow, DistributionRow, DistributorRow, Enrolment, ExtractionEnd, ExtractionRow, ParentRow,
    PreviewRow, SubscriberStatus, TargetRow, VerifyRow,
};
pub use scrub::ScrubInterval;
pub use targets::{TargetRule, Targets};

use hooks::HookTable;
use permits::Permits;
use scrub::ScrubSettings;
use state::State;
use verify::Mend;

/// What a Subscriber is told when it is opened.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) name: Option<NodeName>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) targets: Targets,
    pub(crate) links: Links,
    pub(crate) permits: Permits,
    pub(crate) local_changes: LocalChanges,
    pub(crate) threads: Option<NonZeroUsize>,
    pub(crate) silence: Silence,
    pub(crate) own: crate::model::Settings,
    pub(crate) sends_max: usize,
    pub(crate) scrub: ScrubSettings,
    pub(crate) hooks: HookTable,
    pub(crate) keep_package: KeepPackage,
    pub(crate) fallback: Fallback,
    /// Asked before each step of a change, so that tests can stop it there.
    #[cfg(test)]
    pub(crate) steps: Option<Arc<dyn crate::store::Steps>>,
}

/// Opens a [`Subscriber`].
pub struct SubscriberBuilder {
    settings: Settings,
    clock: Arc<dyn Clock>,
    crypto: Arc<dyn Crypto>,
}

impl SubscriberBuilder {
    /// The node name. With it, an empty data directory becomes a Subscriber of that name; one of another name is an
    /// error.
    #[must_use]
    pub fn name(mut self, name: NodeName) -> Self {
        self.settings.name = Some(name);
        self
    }

    /// Listens on this address too, so that Distributors can dial. By default it only dials.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.settings.listen = Some(address);
        self
    }

    /// Extracts a Distribution into this directory, whatever target it proposes.
    #[must_use]
    pub fn target(mut self, distribution: DistributionRef, directory: impl Into<PathBuf>) -> Self {
        self.settings.targets.map.insert(distribution, directory.into());
        self
    }

    /// Accepts proposed targets below this directory.
    #[must_use]
    pub fn allow_targets_below(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.targets.allow.push(directory.into());
        self
    }

    /// Extracts a Distribution in this mode, whatever it says itself.
    #[must_use]
    pub fn mode(mut self, distribution: DistributionRef, mode: ExtractMode) -> Self {
        self.settings.targets.modes.insert(distribution, mode);
        self
    }

    /// What becomes of files that somebody changed in a target; overwritten and reported by default.
    #[must_use]
    pub fn on_local_change(mut self, change: LocalChanges) -> Self {
        self.settings.local_changes = change;
        self
    }

    /// Which symlinks are extracted; any by default, because they are never followed.
    #[must_use]
    pub fn links(mut self, links: Links) -> Self {
        self.settings.links = links;
        self
    }

    /// Who owns what is extracted, where a Distribution asks for its own owners; whoever extracts by default.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.settings.permits.ownership = ownership;
        self
    }

    /// Keeps setuid, setgid and file capabilities of this Distribution, where it asks for that: whoever builds it can
    /// become root here. By default none of any is kept.
    #[must_use]
    pub fn permit_privileged(mut self, distribution: DistributionRef) -> Self {
        self.settings.permits.privileged.insert(distribution);
        self
    }

    /// How many threads extract and verify; one for each processor by default.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// How long a Distributor may be silent in the middle of a package; 300 s by default.
    #[must_use]
    pub fn connection_timeout(mut self, silence: Silence) -> Self {
        self.settings.silence = silence;
        self
    }

    /// Which packages are kept once they are extracted; by default those that carry the newest revision and the one
    /// before.
    #[must_use]
    pub fn keep_package(mut self, keep: KeepPackage) -> Self {
        self.settings.keep_package = keep;
        self
    }

    /// How long a parent is missed before the next one of the route is turned to, and how often a better one is tried
    /// meanwhile; 30 s and 60 s by default.
    #[must_use]
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.settings.fallback = fallback;
        self
    }

    /// What this node sets itself. It wins over what its Distributors set.
    #[must_use]
    pub fn settings(mut self, settings: crate::model::Settings) -> Self {
        self.settings.own = settings;
        self
    }

    /// How many packages are passed on at once, where others are behind this node.
    #[must_use]
    pub fn sends_max(mut self, sends: NonZeroUsize) -> Self {
        self.settings.sends_max = sends.get().min(Limits::DEFAULT.sends_max);
        self
    }

    /// How often kept packages are read again to find what rots; weekly by default. An interval below
    /// [`Limits::scrub_interval_seconds_min`](crate::Limits) is taken as that.
    #[must_use]
    pub fn scrub(mut self, interval: ScrubInterval) -> Self {
        self.settings.scrub.interval = Some(match interval {
            ScrubInterval::Never => ScrubInterval::Never,
            ScrubInterval::Every(every) => {
                ScrubInterval::Every(every.max(Duration::from_secs(Limits::DEFAULT.scrub_interval_seconds_min)))
            }
        });
        self
    }

    /// How many bytes a second that reading takes at most; 16 MiB by default.
    #[must_use]
    pub fn scrub_rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.settings.scrub.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Runs programs around the extractions of a Distribution, or of every one that has no hooks of its own.
    #[must_use]
    pub fn hooks(mut self, scope: HookScope, hooks: Hooks) -> Self {
        self.settings.hooks.0.insert(scope, hooks);
        self
    }

    /// Where the time comes from; the system's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the state, and makes it where there is none and a name was given. Nothing is dialled yet.
    ///
    /// # Errors
    /// When the data directory is another's, in use, damaged or open to others, or holds no Subscriber and no name was
    /// given.
    pub async fn open(self) -> Result<Subscriber, Error> {
        let Self { settings, clock, crypto } = self;
        let opening = move || State::open(settings, clock, crypto);
        let state = tokio::task::spawn_blocking(opening).await.map_err(|_| SubscriberError::Worker)??;
        let state = Arc::new(state);
        let subscriber = Subscriber { state };
        subscriber.blocking(|state| state.finish_successions()).await?;
        subscriber.state.follow_rates();
        Ok(subscriber)
    }

    /// Does all that an invite is for: opens the state under the invited name, trusts the Distributor, and enrols.
    /// `invite` is the text of the invite's file.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::open`], and when the invite is none, or the Distributor cannot be reached or refuses.
    /// What was done before the error stays, so that the same call may be tried again.
    pub async fn join(self, invite: &str) -> Result<Subscriber, Error> {
        let name = Invite::from_text(invite)?.node;
        let subscriber = self.name(name).open().await?;
        subscriber.join(invite).await?;
        Ok(subscriber)
    }
}

/// A Subscriber. Clones are handles to the same one.
///
/// Opened, it answers questions; [`Subscriber::start`] makes it dial, listen where told to, and receive.
#[derive(Clone)]
pub struct Subscriber {
    state: Arc<State>,
}

impl Subscriber {
    /// A Subscriber that keeps everything in the folder `data`.
    pub fn builder(data: impl Into<PathBuf>) -> SubscriberBuilder {
        let settings = Settings {
            data: data.into(),
            name: None,
            listen: None,
            targets: Targets::default(),
            links: Links::default(),
            permits: Permits::default(),
            local_changes: LocalChanges::default(),
            threads: None,
            silence: Silence::default(),
            own: crate::model::Settings::default(),
            sends_max: Limits::DEFAULT.sends,
            scrub: ScrubSettings::default(),
            hooks: HookTable::default(),
            keep_package: KeepPackage::default(),
            fallback: Fallback::default(),
            #[cfg(test)]
            steps: None,
        };
        SubscriberBuilder { settings, clock: Arc::new(SystemClock), crypto: Arc::new(AwsLc) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> NodeName {
        self.state.name()
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> Events<SubscriberEvent> {
        self.state.events.subscribe()
    }

    /// The events on record that `filter` chooses, the oldest first: at most 50,000 of the newest. Progress is not on
    /// record.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn event_history(&self, filter: EventFilter) -> Result<EventHistory, Error> {
        self.blocking(move |state| Ok(state.events.history(&filter, |_, _| false)?)).await
    }

    /// Trusts the Distributor whose certificate `pem` is: the certificate waits in `security/` for the first verified
    /// package. Returns the Distributor's name.
    ///
    /// # Errors
    /// When it is not a Distributor's certificate.
    pub async fn trust(&self, pem: &str) -> Result<NodeName, Error> {
        let pem = pem.to_owned();
        self.blocking(move |state| state.trust(&pem)).await
    }

    /// Does all that an invite is for: trusts the Distributor and enrols with it. `invite` is the text of the invite's
    /// file. Returns the Distributor's name.
    ///
    /// # Errors
    /// When the invite is none or for another node, or the Distributor cannot be reached or refuses. What was done
    /// before the error stays, so that the same call may be tried again.
    pub async fn join(&self, invite: &str) -> Result<(NodeName, Enrolment), Error> {
        self.state.accept_invite(invite).await
    }

    /// Asks a trusted Distributor for certificates, at these endpoints. With a token they come at once; without one its
    /// operator has to approve, and a running Subscriber goes on asking. No name means the only one that is trusted.
    ///
    /// # Errors
    /// When no such Distributor is trusted, or it cannot be reached or refuses.
    pub async fn enrol(
        &self,
        distributor: Option<&NodeName>,
        endpoints: &[Endpoint],
        token: Option<&str>,
    ) -> Result<(NodeName, Enrolment), Error> {
        let token: Option<Token> = token.map(str::parse).transpose()?;
        let name = distributor.cloned();
        let root = self.blocking(move |state| state.root_meant(name.as_ref())).await?;
        let enrolment = self.state.enrol_at(&root, endpoints, token.as_ref()).await?;
        Ok((root.name().clone(), enrolment))
    }

    /// Dials the Distributors it knows, listens where it was told to, and goes on with what was interrupted. Returns
    /// the address it listens on.
    ///
    /// # Errors
    /// When it is running already, or the address cannot be bound.
    pub async fn start(&self) -> Result<Option<SocketAddr>, Error> {
        self.state.start().await
    }

    /// Stops: connections close, and what was running ends; it goes on from there when it is started again.
    pub async fn shutdown(&self) {
        self.state.stop().await;
    }

    /// Gives this node another name. What it is known by, its keys, stays; its certificates are issued anew under that
    /// name once each Distributor's operator has approved it. Unsealed Distributions arrive all the same.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub async fn rename(&self, name: &NodeName) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.rename(&name)).await
    }

    /// Has this node's certificates renewed that have lived two thirds of their life, at the Distributors that are
    /// connected. A running Subscriber does so by itself. Answers in how many fleets certificates came.
    ///
    /// # Errors
    /// When a Distributor refuses, or has to approve a new name first.
    pub async fn renew(&self) -> Result<usize, Error> {
        self.state.renew_due().await
    }

    /// How everything stands.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn status(&self) -> Result<SubscriberStatus, Error> {
        self.blocking(State::status).await
    }

    /// The Distributors that are trusted.
    ///
    /// # Errors
    /// When `security/` or the catalog cannot be read.
    pub async fn distributors(&self) -> Result<Vec<DistributorRow>, Error> {
        self.blocking(|state| state.distributors()).await
    }

    /// Extracts the newest verified revision of a Distribution once more, or of all.
    ///
    /// # Errors
    /// When there is none, or the extraction fails.
    pub async fn extract(&self, distribution: Option<&DistributionRef>) -> Result<Vec<ExtractionRow>, Error> {
        self.extract_with(distribution, HookRule::Run).await
    }

    /// As [`Subscriber::extract`], and with `hooks` saying whether hooks are run. All are tried; the error is the first
    /// one.
    ///
    /// # Errors
    /// As [`Subscriber::extract`].
    pub async fn extract_with(
        &self,
        distribution: Option<&DistributionRef>,
        hooks: HookRule,
    ) -> Result<Vec<ExtractionRow>, Error> {
        self.extract_each(distribution, hooks).await?.into_iter().map(|(_, done)| done).collect()
    }

    /// As [`Subscriber::extract_with`], and says of each Distribution what became of it.
    ///
    /// # Errors
    /// When there is none, or the catalog cannot be read.
    pub async fn extract_each(
        &self,
        distribution: Option<&DistributionRef>,
        hooks: HookRule,
    ) -> Result<Vec<ExtractionEnd>, Error> {
        let distribution = distribution.cloned();
        self.blocking(move |state| state.extract_each(distribution.as_ref(), hooks)).await
    }

    /// Says what [`Subscriber::extract`] would do, and writes nothing.
    ///
    /// # Errors
    /// When there is nothing to extract, or a package or a target cannot be read. What would be refused stands in its
    /// row.
    pub async fn preview(&self, distribution: Option<&DistributionRef>) -> Result<Vec<PreviewRow>, Error> {
        let distribution = distribution.cloned();
        self.blocking(move |state| state.preview_named(distribution.as_ref())).await
    }

    /// Goes back to the revision before the newest one: extracts it again, lowers the floor to it, and takes nothing
    /// until something newer than what was gone back from is offered, or [`Subscriber::resume`].
    ///
    /// # Errors
    /// When no earlier revision is kept, something is just being received, or the extraction fails.
    pub async fn rollback(&self, distribution: &DistributionRef) -> Result<ExtractionRow, Error> {
        let distribution = distribution.clone();
        self.blocking(move |state| state.rollback(&distribution)).await
    }

    /// Ends a rollback: what is offered next is taken again.
    ///
    /// # Errors
    /// When there was none.
    pub async fn resume(&self, distribution: &DistributionRef) -> Result<(), Error> {
        let distribution = distribution.clone();
        self.blocking(move |state| state.resume(&distribution)).await
    }

    /// Verifies the packages that are kept and what was extracted from them, of one Distribution or of all. A damaged
    /// package is set aside, which the Distributor is told, and the Channel's next firing brings what lacks; targets stay
    /// as they are.
    ///
    /// # Errors
    /// When there is no such Distribution, or a target or the catalog cannot be read. What is wrong with a package or a
    /// target stands in its row.
    pub async fn verify(&self, distribution: Option<&DistributionRef>) -> Result<Vec<VerifyRow>, Error> {
        let distribution = distribution.cloned();
        self.blocking(move |state| state.verify(distribution.as_ref(), Mend::Nothing)).await
    }

    /// As [`Subscriber::verify`], and extracts again what differs in a target whose package is whole.
    ///
    /// # Errors
    /// As [`Subscriber::verify`] and [`Subscriber::extract`].
    pub async fn repair(&self, distribution: Option<&DistributionRef>) -> Result<Vec<VerifyRow>, Error> {
        let distribution = distribution.cloned();
        self.blocking(move |state| state.verify(distribution.as_ref(), Mend::Targets)).await
    }

    /// Has a Distribution extracted to this directory from now on, or to its usual place again; files at another place
    /// stay there. What the builder was told wins over it.
    ///
    /// # Errors
    /// When the directory is not absolute or holds `..`, or the catalog cannot be written.
    pub async fn set_target(&self, distribution: &DistributionRef, target: Option<&Path>) -> Result<(), Error> {
        let (distribution, target) = (distribution.clone(), target.map(Path::to_owned));
        self.blocking(move |state| state.set_target(&distribution, target.as_deref())).await
    }

    /// Where everything goes that is here or was told a directory.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn targets(&self) -> Result<Vec<TargetRow>, Error> {
        self.blocking(|state| state.targets()).await
    }

    /// Leaves a Distributor: its certificate, this node's keys in its fleet and its packages go. Targets stay.
    ///
    /// # Errors
    /// When no such Distributor is trusted.
    pub async fn leave(&self, distributor: &NodeName) -> Result<(), Error> {
        let name = distributor.clone();
        self.blocking(move |state| state.leave(&name)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<State>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || work(&state)).await.map_err(|_| SubscriberError::Worker)?
    }
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").field("name", &self.name()).finish_non_exhaustive()
    }
}
