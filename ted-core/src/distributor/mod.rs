//! The Distributor: it builds revisions, states what is current, offers, serves, enrols, and collects receipts.

mod announce;
mod backup;
mod build;
mod certificates;
mod chain;
mod changes;
mod configure;
mod deliveries;
mod deltas;
mod dialling;
mod enrol;
mod error;
mod events;
mod firings;
mod fleet;
mod fleet_records;
mod forecasting;
mod grants;
mod hints;
mod history;
mod issued;
mod names;
mod offering;
mod peers;
mod refresh;
mod rekey;
mod release;
mod repair;
mod repair_deltas;
mod replace;
mod report;
mod resolve;
mod revisions;
mod revoke;
mod rollback;
mod rotation;
mod scheduled;
mod seen;
mod send;
mod sends;
mod serving;
mod sign;
mod source;
mod sources;
mod standing;
mod state;
mod succession;
mod tiers;
mod time;
mod trust;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::id::FiringId;
use crate::model::{Endpoint, Fleet};
use crate::name::{Label, NodeName};
use crate::node::{Clock, EventFilter, EventHistory, Events, SystemClock};
use crate::protocol::{FiringHead, QueueCounts, SendRates, Silence, Until};
use crate::security::{AwsLc, Certificate, Crypto, DistributorRoot};

pub use changes::{CertificateBringing, ChannelChanges, FleetChange, GroupChanges, SubscriberChanges, Trial};
pub use configure::{SettingChanges, SubscriberSettings};
pub use deliveries::{Delivery, DeliveryQuery};
pub use error::DistributorError;
pub use events::{BuildPhase, DistributorEvent};
pub use grants::own_key;
pub use history::{RevisionChoice, RevisionKept, RevisionOrigin, RevisionPackages, RevisionReport};
pub use refresh::{Refresh, RefreshError};
pub use rekey::RekeyReport;
pub use replace::{GRACE, ReplacementReport};
pub use report::{
    BuildOutcome, BuiltRevision, CertificatePair, DeliveryRow, DeltaPackage, DistributionSpec, DistributionStatus,
    DistributorStatus, FiringReport, IssuedInvite, IssuedToken, NextFiring, PendingNode, PlannedDelivery, PlannedLink,
    Reading, RequestingNode, Resolving, ResolvingOutcome, ResolvingRow, ResolvingWay, SendOptions, SendPlan, SentBuild,
    SentFiring, SignedNode, SubscriberStatus,
};
pub use revoke::RevokedRow;
pub use rotation::Renew;
pub use source::{FolderSource, Selection, SpooledInput, Unreadable, spool_input};

use state::State;

/// Where a Distributor listens unless told otherwise: every address, UDP port 1229 (IANA's `zented`).
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 1229);

/// How long the token of an invite holds unless told otherwise.
const INVITE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a Distributor is told when it is opened.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) name: Option<NodeName>,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Vec<Endpoint>,
    pub(crate) silence: Silence,
    pub(crate) sends: SendRates,
    pub(crate) keys: Keys,
    pub(crate) refresh: Option<Refresh>,
    /// Asked before each step of a change, so that tests can stop it there.
    #[cfg(test)]
    pub(crate) steps: Option<Arc<dyn crate::store::Steps>>,
}

/// What is expected of the keystore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Keys {
    /// It is there, or there never was one.
    #[default]
    Kept,
    /// It is gone for good, and new keys take over.
    Lost,
}

/// Opens a [`Distributor`].
pub struct DistributorBuilder {
    settings: Settings,
    clock: Arc<dyn Clock>,
    crypto: Arc<dyn Crypto>,
}

impl DistributorBuilder {
    /// The node name. With it, an empty data directory becomes a Distributor of that name; one of another name is an
    /// error.
    #[must_use]
    pub fn name(mut self, name: NodeName) -> Self {
        self.settings.name = Some(name);
        self
    }

    /// The address to listen on; `0.0.0.0:1229` by default. Port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.settings.listen = address;
        self
    }

    /// The endpoints that invites name; by default the node name (or, for a loopback listener, its address) and port.
    #[must_use]
    pub fn advertise(mut self, endpoints: Vec<Endpoint>) -> Self {
        self.settings.advertise = endpoints;
        self
    }

    /// How long a Subscriber may be silent before its part of a firing ends; 300 s by default.
    #[must_use]
    pub fn connection_timeout(mut self, silence: Silence) -> Self {
        self.settings.silence = silence;
        self
    }

    /// How many sends there are at once, and how fast those of each priority go together; no limits by default.
    #[must_use]
    pub fn sends(mut self, rates: SendRates) -> Self {
        self.settings.sends = rates;
        self
    }

    /// Where the fleet is declared, and when it is read again; nowhere by default.
    #[must_use]
    pub fn refresh(mut self, refresh: Refresh) -> Self {
        self.settings.refresh = Some(refresh);
        self
    }

    /// Where the time comes from; the system's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the state, and makes it where there is none and a name was given. Nothing listens yet.
    ///
    /// # Errors
    /// When the data directory is another's, in use, damaged or open to others, or holds no Distributor and no name
    /// was given.
    pub async fn open(self) -> Result<Distributor, Error> {
        let Self { settings, clock, crypto } = self;
        let opening = move || State::open(settings, clock, crypto);
        let state = tokio::task::spawn_blocking(opening).await.map_err(|_| DistributorError::Worker)??;
        Ok(Distributor { state: Arc::new(state) })
    }
}

/// A Distributor. Clones are handles to the same one.
///
/// Opened, it answers questions and takes changes; [`Distributor::start`] makes it listen, dial and serve.
#[derive(Clone)]
pub struct Distributor {
    state: Arc<State>,
}

impl Distributor {
    /// A Distributor that keeps everything in the folder `data`.
    pub fn builder(data: impl Into<PathBuf>) -> DistributorBuilder {
        let settings = Settings {
            data: data.into(),
            name: None,
            listen: LISTEN,
            advertise: vec![],
            silence: Silence::default(),
            sends: SendRates::default(),
            keys: Keys::Kept,
            refresh: None,
            #[cfg(test)]
            steps: None,
        };
        DistributorBuilder { settings, clock: Arc::new(SystemClock), crypto: Arc::new(AwsLc) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> NodeName {
        self.state.name()
    }

    /// Its CA certificate: what makes it this Distributor and no other.
    #[must_use]
    pub fn root(&self) -> DistributorRoot {
        self.state.own().authority.root().clone()
    }

    /// Its own certificates: that of its CA key first, then the one it signs with and the one it is known by on
    /// connections.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        let own = self.state.own();
        let root = own.authority.root().certificate().clone();
        vec![root, own.signing.certificate.clone(), own.tls.certificate.clone()]
    }

    /// Issues anew what it uses itself: its signing certificate and the one it is known by on connections. Nobody has
    /// to resolve anything for that. While it serves it does what is due by itself. Answers the new certificates.
    ///
    /// # Errors
    /// When the CA certificate does not hold, or the keystore cannot be written.
    pub async fn renew(&self, which: Renew) -> Result<Vec<Certificate>, Error> {
        self.blocking(move |state| state.renew(which)).await
    }

    /// The address it listens on, while it serves.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.state.listening()
    }

    /// Where Subscribers reach it, as invites say.
    ///
    /// # Errors
    /// When its name and port make no endpoint.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        self.state.reached_at()
    }

    /// Its Distributions, Channels and Subscribers as they are declared now.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        state::lock(&self.state.fleet).clone()
    }

    /// Its certificate as PEM, with the word of the one before it where there was one: what Subscribers have to be
    /// brought, as `<name>.cer`.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.state.root_file().pem()
    }

    /// The short form of its key, as Subscribers print it too.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.state.own().authority.root().key_hash().fingerprint()
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> Events<DistributorEvent> {
        self.state.events.subscribe()
    }

    /// The events on record that `filter` chooses, the oldest first: at most 50,000 of the
    /// newest. Progress is not on record.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn event_history(&self, filter: EventFilter) -> Result<EventHistory, Error> {
        self.blocking(move |state| state.event_history(&filter)).await
    }

    /// Listens, dials the Subscribers that have endpoints, serves, and goes on with open firings. Returns the address.
    ///
    /// # Errors
    /// When it is serving already, or the address cannot be bound.
    pub async fn start(&self) -> Result<SocketAddr, Error> {
        self.state.start().await
    }

    /// Puts other rates of sends in force, at once, until it is opened anew.
    pub fn set_sends(&self, rates: &SendRates) {
        self.state.sends.set_rates(rates);
    }

    /// How many packages are on their way, and how many wait for their turn.
    #[must_use]
    pub fn sends(&self) -> QueueCounts {
        self.state.sends.counts()
    }

    /// Stops serving: connections close, and what was running ends. The state stays usable.
    pub async fn shutdown(&self) {
        self.state.stop().await;
    }

    /// Makes a Distribution.
    ///
    /// # Errors
    /// When the name is taken or a field cannot work.
    pub async fn create_distribution(&self, spec: DistributionSpec) -> Result<(), Error> {
        self.blocking(move |state| state.create_distribution(spec)).await
    }

    /// Changes a Distribution; its id stays, also under another name.
    ///
    /// # Errors
    /// When there is none of that name, or a field cannot work.
    pub async fn update_distribution(&self, name: &Label, spec: DistributionSpec) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.update_distribution(&name, spec)).await
    }

    /// Removes a Distribution and its packages.
    ///
    /// # Errors
    /// When there is none of that name, or a Channel has it.
    pub async fn delete_distribution(&self, name: &Label) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.delete_distribution(&name)).await
    }

    /// All Distributions, each with its newest revision.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn distributions(&self) -> Result<Vec<DistributionStatus>, Error> {
        self.blocking(State::distributions).await
    }

    /// One Distribution with its newest revision.
    ///
    /// # Errors
    /// When there is none of that name, or the catalog cannot be read.
    pub async fn distribution(&self, name: &Label) -> Result<DistributionStatus, Error> {
        let name = name.clone();
        self.blocking(move |state| state.distribution(&name)).await
    }

    /// Whether a build would find something to read, judged by names, kinds, sizes, modes, times and inodes as a build does.
    ///
    /// # Errors
    /// As [`Distributor::build`], but for what only reading files shows.
    pub async fn has_changed(&self, name: &Label) -> Result<bool, Error> {
        let name = name.clone();
        self.blocking(move |state| state.has_changed(&name)).await
    }

    /// The entries of a Distribution's newest revision.
    ///
    /// # Errors
    /// When there is none, or its package cannot be read.
    pub async fn entries(&self, name: &Label) -> Result<Vec<crate::package::Entry>, Error> {
        let name = name.clone();
        self.blocking(move |state| state.entries(&name)).await
    }

    /// Builds a Distribution's present state, if it is not built yet.
    ///
    /// # Errors
    /// When something cannot be read, or changes while it is read, twice.
    pub async fn build(&self, name: &Label) -> Result<BuildOutcome, Error> {
        self.build_reading(name, Reading::Changed).await
    }

    /// Builds a Distribution's present state, if it is not built yet, and says which files to read for that.
    ///
    /// # Errors
    /// As [`Distributor::build`].
    pub async fn build_reading(&self, name: &Label, reading: Reading) -> Result<BuildOutcome, Error> {
        self.state.build(name, reading).await
    }

    /// Makes a Channel.
    ///
    /// # Errors
    /// When the name is taken, or something it names does not exist.
    pub async fn create_channel(
        &self,
        name: Label,
        distributions: &[Label],
        subscribers: &[NodeName],
    ) -> Result<(), Error> {
        let (distributions, subscribers) = (distributions.to_vec(), subscribers.to_vec());
        self.blocking(move |state| state.create_channel(name, distributions, subscribers)).await
    }

    /// Replaces what a Channel holds.
    ///
    /// # Errors
    /// When there is none of that name, or something it names does not exist.
    pub async fn update_channel(
        &self,
        name: &Label,
        distributions: &[Label],
        subscribers: &[NodeName],
    ) -> Result<(), Error> {
        let (name, distributions, subscribers) = (name.clone(), distributions.to_vec(), subscribers.to_vec());
        self.blocking(move |state| state.update_channel(name, distributions, subscribers)).await
    }

    /// Removes a Channel.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn delete_channel(&self, name: &Label) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.delete_channel(&name)).await
    }

    /// Declares a Subscriber and puts it into Channels.
    ///
    /// # Errors
    /// When the name is taken, or a Channel does not exist.
    pub async fn create_subscriber(
        &self,
        name: NodeName,
        endpoints: &[Endpoint],
        channels: &[Label],
    ) -> Result<(), Error> {
        let (endpoints, channels) = (endpoints.to_vec(), channels.to_vec());
        self.blocking(move |state| state.create_subscriber(name, endpoints, channels)).await
    }

    /// Replaces a Subscriber's endpoints.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn update_subscriber(&self, name: &NodeName, endpoints: &[Endpoint]) -> Result<(), Error> {
        let (name, endpoints) = (name.clone(), endpoints.to_vec());
        self.blocking(move |state| state.update_subscriber(name, endpoints)).await
    }

    /// Gives a Subscriber another name, a label: its key, endpoints and Channels stay. Sealed Distributions wait until
    /// the node has a certificate under that name.
    ///
    /// # Errors
    /// When there is none of that name, or the new one is taken.
    pub async fn rename_subscriber(&self, name: &NodeName, to: &NodeName) -> Result<(), Error> {
        let (name, to) = (name.clone(), to.clone());
        self.blocking(move |state| state.rename_subscriber(&name, &to)).await
    }

    /// Removes a Subscriber from the fleet: its key is registered no more, and its connection closes.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn delete_subscriber(&self, name: &NodeName) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.delete_subscriber(&name)).await
    }

    /// Makes an invite for a node: the text of the file that `join` reads. The Subscriber is declared if it is new.
    ///
    /// # Errors
    /// When a Channel does not exist, or no endpoint is known at which this Distributor is reached.
    pub async fn invite(&self, name: &NodeName, channels: &[Label], endpoints: &[Endpoint]) -> Result<String, Error> {
        let (name, channels, endpoints) = (name.clone(), channels.to_vec(), endpoints.to_vec());
        self.blocking(move |state| Ok(state.invite(&name, &channels, &endpoints, INVITE_LIFE)?.text)).await
    }

    /// The same for an invite that holds for `life`.
    ///
    /// # Errors
    /// As [`Distributor::invite`].
    pub async fn invite_for(
        &self,
        life: Duration,
        name: &NodeName,
        channels: &[Label],
        endpoints: &[Endpoint],
    ) -> Result<IssuedInvite, Error> {
        let (name, channels, endpoints) = (name.clone(), channels.to_vec(), endpoints.to_vec());
        self.blocking(move |state| state.invite(&name, &channels, &endpoints, life)).await
    }

    /// Makes a token with which `uses` nodes may enrol within `life`, without being approved.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub async fn create_token(&self, uses: u32, life: Duration) -> Result<IssuedToken, Error> {
        self.blocking(move |state| state.create_token(uses, life, None)).await
    }

    /// The nodes that wait for approval.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn pending(&self) -> Result<Vec<PendingNode>, Error> {
        self.blocking(|state| state.pending()).await
    }

    /// Approves a node that waits: its certificates are issued when it asks the next time. `fingerprint` chooses among
    /// several of that name.
    ///
    /// # Errors
    /// When nobody of that name waits, or several do and no fingerprint was given.
    pub async fn approve(&self, name: &NodeName, fingerprint: Option<&str>, channels: &[Label]) -> Result<(), Error> {
        let (name, fingerprint, channels) = (name.clone(), fingerprint.map(ToOwned::to_owned), channels.to_vec());
        self.blocking(move |state| state.approve(&name, fingerprint.as_deref(), &channels)).await
    }

    /// Starts a firing of a Channel now. Each Distribution is built first if its source has changed.
    ///
    /// # Errors
    /// When the Channel is unknown or has no enrolled Subscriber, or a build fails.
    pub async fn send(&self, channel: &Label, options: SendOptions) -> Result<FiringId, Error> {
        Ok(self.state.send(channel, options).await?.firing)
    }

    /// As [`Distributor::send`], and tells what was built for it.
    ///
    /// # Errors
    /// As there.
    pub async fn send_telling(&self, channel: &Label, options: SendOptions) -> Result<SentFiring, Error> {
        self.state.send(channel, options).await
    }

    /// What [`Distributor::send`] would do now, without a build.
    ///
    /// # Errors
    /// When the Channel is unknown.
    pub async fn plan(&self, channel: &Label) -> Result<SendPlan, Error> {
        let channel = channel.clone();
        self.blocking(move |state| state.plan(&channel)).await
    }

    /// Waits until every Subscriber of a firing is as far as `until` says, or the firing ends otherwise, or `patience`
    /// is over; the report says which.
    ///
    /// # Errors
    /// When there is no such firing.
    pub async fn wait(
        &self,
        firing: FiringId,
        until: Until,
        patience: Option<Duration>,
    ) -> Result<FiringReport, Error> {
        self.state.wait(&firing, until, patience).await
    }

    /// How far a firing is.
    ///
    /// # Errors
    /// When there is no such firing.
    pub fn report(&self, firing: FiringId) -> Result<FiringReport, Error> {
        self.state.report(&firing)
    }

    /// Deliveries as they stand: of each Channel those of its last firing, and of all that are open; with `since` or
    /// `firing`, those on record.
    ///
    /// # Errors
    /// When there is no such firing, or the catalog cannot be read.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<Vec<Delivery>, Error> {
        self.blocking(move |state| state.deliveries(&query)).await
    }

    /// Firings on record at a glance, newest first; of one Channel or of all.
    ///
    /// # Errors
    /// When there is no such Channel.
    pub fn firing_heads(&self, channel: Option<&Label>) -> Result<Vec<FiringHead>, Error> {
        if let Some(channel) = channel {
            state::lock(&self.state.fleet).channel(channel)?;
        }
        let firings = state::lock(&self.state.firings);
        Ok(firings.heads().filter(|head| channel.is_none_or(|channel| head.channel == *channel)).cloned().collect())
    }

    /// All firings on record, newest first: those that are open, and the last hundred that are over.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn firings(&self) -> Result<Vec<FiringReport>, Error> {
        self.blocking(|state| state.reports(true)).await
    }

    /// Ends a firing: what is not delivered yet is not offered any more.
    ///
    /// # Errors
    /// When there is no such firing.
    pub async fn cancel(&self, firing: FiringId) -> Result<(), Error> {
        self.blocking(move |state| state.cancel(&firing)).await
    }

    /// How one Subscriber stands.
    ///
    /// # Errors
    /// When there is none of that name, or the catalog cannot be read.
    pub async fn subscriber_status(&self, name: &NodeName) -> Result<SubscriberStatus, Error> {
        let name = name.clone();
        self.blocking(move |state| state.subscriber_status(&name)).await
    }

    /// How everything stands.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn status(&self) -> Result<DistributorStatus, Error> {
        self.blocking(State::status).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || work(&state)).await.map_err(|_| DistributorError::Worker)?
    }
}

impl std::fmt::Debug for Distributor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Distributor").field("name", &self.name()).finish_non_exhaustive()
    }
}
