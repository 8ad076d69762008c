//! The Subscriber: it trusts, enrols, takes offers, receives, verifies, extracts, and says so in receipts.

mod deliveries;
mod error;
mod events;
mod offers;
mod outbox;
mod peers;
mod receive;
mod report;
mod state;
mod status;
mod targets;
mod trust;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::extract::Links;
use crate::model::Endpoint;
use crate::name::{Label, NodeName};
use crate::node::{Clock, Events, SystemClock};
use crate::protocol::Silence;
use crate::security::{AwsLc, Crypto, Invite, Token};

pub use error::SubscriberError;
pub use events::SubscriberEvent;
pub use report::{DistributionRow, DistributorRow, Enrolment, SubscriberStatus, VerifyRow};
pub use targets::Targets;

use state::State;

/// What a Subscriber is told when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) name: Option<NodeName>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) targets: Targets,
    pub(crate) links: Links,
    pub(crate) silence: Silence,
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
    pub fn target(mut self, distribution: Label, directory: impl Into<PathBuf>) -> Self {
        self.settings.targets.map.insert(distribution, directory.into());
        self
    }

    /// Accepts proposed targets below this directory.
    #[must_use]
    pub fn allow_targets_below(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.targets.allow.push(directory.into());
        self
    }

    /// Which symlinks are extracted; any by default, because they are never followed.
    #[must_use]
    pub fn links(mut self, links: Links) -> Self {
        self.settings.links = links;
        self
    }

    /// How long a Distributor may be silent in the middle of a package; 300 s by default.
    #[must_use]
    pub fn connection_timeout(mut self, silence: Silence) -> Self {
        self.settings.silence = silence;
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
        Ok(Subscriber { state: Arc::new(state) })
    }

    /// Does all that an invite is for: opens the state under the invited name, trusts the Distributor, and enrols.
    /// `invite` is the text of the invite's file.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::open`], and when the invite is none, or the Distributor cannot be reached or refuses.
    /// What was done before the error stays, so that the same call may be tried again.
    pub async fn join(self, invite: &str) -> Result<Subscriber, Error> {
        let invite = Invite::from_text(invite)?;
        let subscriber = self.name(invite.node.clone()).open().await?;
        let state = subscriber.state.clone();
        let token = invite.token.clone();
        let accepting = move || state.accept_invite(&invite);
        let fleet = tokio::task::spawn_blocking(accepting).await.map_err(|_| SubscriberError::Worker)??;
        if !subscriber.state.is_enrolled(&fleet) {
            subscriber.state.enrol(&fleet, Some(&token)).await?;
        }
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
            silence: Silence::default(),
        };
        SubscriberBuilder { settings, clock: Arc::new(SystemClock), crypto: Arc::new(AwsLc) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        self.state.name()
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> Events<SubscriberEvent> {
        self.state.events.subscribe()
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

    /// Asks a trusted Distributor for certificates, at these endpoints. With a token they come at once; without one its
    /// operator has to approve, and a running Subscriber goes on asking.
    ///
    /// # Errors
    /// When no such Distributor is trusted, or it cannot be reached or refuses.
    pub async fn enrol(
        &self,
        distributor: &NodeName,
        endpoints: &[Endpoint],
        token: Option<&str>,
    ) -> Result<Enrolment, Error> {
        let token: Option<Token> = token.map(str::parse).transpose()?;
        let (name, endpoints) = (distributor.clone(), endpoints.to_vec());
        let fleet = self
            .blocking(move |state| {
                let root = state.root_named(&name)?;
                state.know(&root.key_hash(), root.name(), &endpoints)?;
                Ok(root.key_hash())
            })
            .await?;
        self.state.enrol(&fleet, token.as_ref()).await
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

    /// How everything stands.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn status(&self) -> Result<SubscriberStatus, Error> {
        self.blocking(State::status).await
    }

    /// Extracts the newest verified revision of a Distribution once more, or of all.
    ///
    /// # Errors
    /// When there is none, or the extraction fails.
    pub async fn extract(&self, distribution: Option<&Label>) -> Result<Vec<DistributionRow>, Error> {
        let distribution = distribution.cloned();
        self.blocking(move |state| state.extract_named(distribution.as_ref())).await
    }

    /// Verifies every package that is kept, whole.
    ///
    /// # Errors
    /// When the catalog cannot be read. What is wrong with a package stands in its row.
    pub async fn verify(&self) -> Result<Vec<VerifyRow>, Error> {
        self.blocking(State::verify).await
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
        f.debug_struct("Subscriber").field("name", self.name()).finish_non_exhaustive()
    }
}
