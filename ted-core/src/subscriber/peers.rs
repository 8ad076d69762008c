//! The network side: listening where told to, and living with the peers above this node: the Distributor or a parent.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{Generation, MOVED, endpoint_secret, serve};
use crate::protocol::{Hello, PROTOCOL_VERSION};
use crate::security::{HeldCertificate, HeldIn, Peer, PeerRole, Side, Usage, judge_standing};
use crate::store::TrustedIn;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::serving::{Policy, Serving};
use crate::subscriber::state::{Run, State, lock};
use crate::subscriber::ways::way_key;
use crate::transport::{Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection};

/// How long the other side may take to greet.
pub(super) const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// How long connections may take to say goodbye, and the disk to take what was given to it.
const GOODBYE: Duration = Duration::from_secs(10);

/// How long a node that waits for approval pauses before it asks, and looks for carried certificates, again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How long receipts wait that a connected Distributor did not take.
const RECEIPTS_AGAIN: Duration = Duration::from_secs(10);

/// What runs while a Subscriber does.
pub(super) struct Network {
    endpoint: Arc<Endpoint>,
    running: Option<Running>,
}

struct Running {
    address: Option<SocketAddr>,
    tasks: TaskTracker,
    /// The Distributors that are dialled.
    following: HashMap<KeyHash, Following>,
}

struct Following {
    stop: CancellationToken,
    /// Ends a pause: something about the Distributor has changed.
    hasten: Arc<Notify>,
}

impl State {
    /// The endpoint that this node dials from; made when it is needed first.
    pub(super) fn endpoint(self: &Arc<Self>) -> Result<Arc<Endpoint>, Error> {
        let mut network = lock(&self.network);
        if let Some(network) = &*network {
            return Ok(network.endpoint.clone());
        }
        let endpoint = Arc::new(Endpoint::dial_only(self.endpoint_options()?)?);
        *network = Some(Network { endpoint: endpoint.clone(), running: None });
        Ok(endpoint)
    }

    fn endpoint_options(self: &Arc<Self>) -> Result<EndpointOptions, Error> {
        let clock = self.clock.clone();
        let options = EndpointOptions::new(Arc::new(Policy(Arc::downgrade(self))), self.fleet_identities()?);
        let options = options.clock(move || clock.now());
        let trust = self.security.trust()?;
        Ok(match trust.keystore.held().first() {
            Some(held) => options.secret(endpoint_secret(&held.key)),
            None => options,
        })
    }

    /// What this node shows in each fleet that it has certificates of. A Distributor that is not trusted any more is
    /// shown them all the same, so that it can be told why it is refused.
    fn fleet_identities(&self) -> Result<Vec<FleetIdentity>, Error> {
        let trust = self.security.trust()?;
        let fleets: BTreeSet<KeyHash> = trust.keystore.held().iter().map(|held| held.distributor).collect();
        let identity = |fleet| trust.keystore.identity(&fleet, Usage::SubscriberIdentity);
        Ok(fleets.into_iter().map(|fleet| FleetIdentity { fleet, identity: identity(fleet) }).collect())
    }

    /// Shows what the keystore holds now, from the next handshake on.
    pub(super) fn show_identities(&self) -> Result<(), Error> {
        let endpoint = lock(&self.network).as_ref().map(|network| network.endpoint.clone());
        if let Some(endpoint) = endpoint {
            endpoint.set_identities(&self.fleet_identities()?)?;
        }
        Ok(())
    }

    pub(super) async fn start(self: &Arc<Self>) -> Result<Option<SocketAddr>, Error> {
        let (run, tasks) = (Run::default(), TaskTracker::new());
        let stop = run.stop.clone();
        let (endpoint, address) = {
            let mut network = lock(&self.network);
            if network.as_ref().is_some_and(|network| network.running.is_some()) {
                return Err(SubscriberError::Started.into());
            }
            // One that was made for a single question only dials.
            let endpoint = match self.settings.listen {
                Some(listen) => Endpoint::bind_with(listen, self.endpoint_options()?)?,
                None => Endpoint::dial_only(self.endpoint_options()?)?,
            };
            let endpoint = Arc::new(endpoint);
            let address = self.settings.listen.map(|_| endpoint.local_addr()).transpose()?;
            let following = HashMap::new();
            let running = Some(Running { address, tasks: tasks.clone(), following });
            *network = Some(Network { endpoint: endpoint.clone(), running });
            self.receives_until(&run.stop);
            *lock(&self.run) = run;
            (endpoint, address)
        };
        let state = self.clone();
        tokio::task::spawn_blocking(move || state.finish_interrupted())
            .await
            .map_err(|_| SubscriberError::Worker)??;
        if address.is_some() {
            tasks.spawn(self.clone().accept_all(endpoint.clone(), stop.clone(), tasks.clone()));
        }
        for (fleet, _) in self.known_distributors()? {
            self.follow(&fleet);
        }
        tasks.spawn(self.clone().dial_children(endpoint, stop.clone(), tasks.clone()));
        for row in self.distributors()?.into_iter().filter(|row| row.endpoints.is_empty() && address.is_none()) {
            tracing::warn!(distributor = %row.name, "trusted, but nothing comes from it before this node has enrolled");
        }
        tasks.spawn(self.clone().watch_issued(stop.clone()));
        tasks.spawn(self.clone().scrub_all(stop.clone()));
        tasks.spawn(self.clone().send_all_receipts(stop.clone()));
        let (state, running) = (self.clone(), tasks.clone());
        let stopping = stop.clone();
        tasks.spawn(async move { state.schedules.drive(state.clone(), stopping, running).await });
        tasks.spawn(self.clone().relay_all(stop.clone()));
        tasks.spawn(self.clone().tell_progress(stop.clone()));
        tasks.spawn(self.clone().keep_current(stop));
        Ok(address)
    }

    pub(super) async fn stop(&self) {
        let Some(network) = lock(&self.network).take() else { return };
        self.run().end();
        lock(&self.queues).clear();
        network.endpoint.close("the Subscriber is stopping").await;
        let ending = async {
            if let Some(running) = network.running {
                running.tasks.close();
                running.tasks.wait().await;
            }
            self.links.wait().await;
            self.children.wait().await;
        };
        if tokio::time::timeout(GOODBYE, ending).await.is_err() {
            tracing::warn!("tasks were still running when the Subscriber stopped");
        }
        // What was in flight is offered again, and goes on from what is on disk.
        lock(&self.deliveries).clear();
        lock(&self.statements).clear();
    }

    /// Dials a Distributor from now on, if this node runs; what was waiting to dial it does so at once.
    pub(super) fn follow(self: &Arc<Self>, fleet: &KeyHash) {
        if !self.start_following(fleet) {
            self.hasten(fleet);
        }
    }

    /// Dials a Distributor from now on, if this node runs and does not dial it yet. Answers whether that is new.
    pub(super) fn start_following(self: &Arc<Self>, fleet: &KeyHash) -> bool {
        let mut network = lock(&self.network);
        let Some(Network { endpoint, running: Some(running) }) = network.as_mut() else { return false };
        if running.following.contains_key(fleet) {
            return false;
        }
        let (stop, hasten) = (lock(&self.run).stop.child_token(), Arc::new(Notify::new()));
        let following = self.clone().keep_connected(endpoint.clone(), *fleet, stop.clone(), hasten.clone());
        running.tasks.spawn(following);
        running.following.insert(*fleet, Following { stop, hasten });
        self.schedules.declared();
        true
    }

    /// Ends a pause before a Distributor is dialled again, because something has changed.
    pub(super) fn hasten(&self, fleet: &KeyHash) {
        let network = lock(&self.network);
        let running = network.as_ref().and_then(|network| network.running.as_ref());
        if let Some(following) = running.and_then(|running| running.following.get(fleet)) {
            following.hasten.notify_one();
        }
    }

    /// Dials a Distributor no more.
    pub(super) fn unfollow(&self, fleet: &KeyHash) {
        let mut network = lock(&self.network);
        let running = network.as_mut().and_then(|network| network.running.as_mut());
        if let Some(following) = running.and_then(|running| running.following.remove(fleet)) {
            following.stop.cancel();
        }
    }

    pub(super) fn listening(&self) -> Option<SocketAddr> {
        lock(&self.network).as_ref()?.running.as_ref()?.address
    }

    async fn accept_all(self: Arc<Self>, endpoint: Arc<Endpoint>, stop: CancellationToken, tasks: TaskTracker) {
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            let state = self.clone();
            tasks.spawn(async move {
                match incoming.judge().await {
                    Ok(connection) => state.meet(connection, Side::Listener).await,
                    Err(refused) => state.events.emit(SubscriberEvent::Refused {
                        peer: refused.address.to_string(),
                        code: refused.code.to_owned(),
                        reason: refused.reason,
                    }),
                }
            });
        }
    }

    /// Lives with one judged connection until it ends.
    pub(super) async fn meet(self: &Arc<Self>, connection: QuicConnection, side: Side) {
        match connection.peer().role {
            PeerRole::Child => self.meet_child(connection, side).await,
            PeerRole::Unenrolled => self.meet_unenrolled(connection).await,
            PeerRole::Distributor | PeerRole::Parent | PeerRole::Subscriber => {
                if let Some(generation) = self.admit(&connection, side).await {
                    self.live(connection, generation).await;
                }
            }
        }
    }

    /// Takes in a connection to a peer above this node, unless a better one serves.
    pub(super) async fn admit(self: &Arc<Self>, connection: &QuicConnection, side: Side) -> Option<Generation> {
        let fleet = connection.peer().fleet;
        let state = self.clone();
        let finding = move || (state.identity(&fleet), state.ways(&fleet));
        let Ok((Ok(identity), Ok(ways))) = tokio::task::spawn_blocking(finding).await else { return None };
        let own = identity.certificate.key_hash();
        let rank = |peer: &Peer| ways.iter().position(|way| way.key == way_key(peer)).unwrap_or(ways.len());
        if let Some(serves) = self.links.living(&fleet)
            && serves.peer().key != connection.peer().key
            && rank(serves.peer()) <= rank(connection.peer())
        {
            connection.close(MOVED, "a parent that is preferred serves this node");
            return None;
        }
        let generation = self.links.insert(fleet, connection.clone(), side, &own);
        if generation.is_none() {
            tracing::debug!(peer = %connection.peer(), "both nodes dialled at once, and the other connection stays");
        }
        generation
    }

    /// Lives with a connection that was taken in until it ends.
    pub(super) async fn live(self: &Arc<Self>, connection: QuicConnection, generation: Generation) {
        let peer = connection.peer().clone();
        let fleet = peer.fleet;
        let state = self.clone();
        let finding = move || state.distributor_name(&fleet);
        let Ok(distributor) = tokio::task::spawn_blocking(finding).await else { return };
        let through = peer.name.filter(|_| peer.role == PeerRole::Parent);
        self.judge_again(&connection).await;
        let by = through.as_ref().map_or_else(|| "itself".to_owned(), ToString::to_string);
        tracing::info!(%distributor, through = by, address = %connection.remote_address(), "connected");
        lock(&self.troubles).remove(&fleet);
        lock(&self.told_troubles).retain(|(of, _), _| *of != fleet);
        self.events.emit(SubscriberEvent::Connected { distributor: distributor.clone(), through: through.clone() });
        self.receipts.notify_one();
        self.links.spawn(self.clone().tell_presence(fleet, connection.clone()));
        let serving = Arc::new(Serving { state: self.clone(), connection: connection.clone() });
        let reason = serve(connection.clone(), serving, Limits::DEFAULT).await;
        if self.links.remove(&fleet, generation) {
            tracing::info!(%distributor, through = by, reason, "disconnected");
            self.events.emit(SubscriberEvent::Disconnected { distributor, reason });
        }
    }

    /// Closes a connection whose peer lost its standing between the handshake and now: whoever took it away may not
    /// have found the connection to close.
    pub(super) async fn judge_again(self: &Arc<Self>, connection: &QuicConnection) {
        let (peer, policy) = (connection.peer().clone(), Policy(Arc::downgrade(self)));
        let judged = tokio::task::spawn_blocking(move || judge_standing(&peer, &policy)).await;
        if let Ok(Err(refusal)) = judged {
            connection.close(refusal.close_code(), &refusal.close_reason());
        }
    }

    /// The greeting for a Distributor: it also says how this node holds that Distributor's certificate.
    pub(super) fn hello(&self, fleet: &KeyHash) -> Hello {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            node: self.name(),
            instance: self.instance,
            clock: self.clock.now(),
            capabilities: vec![],
            extensions: vec![],
        };
        match self.held_certificate(fleet) {
            Some(held) => hello.clone().holding(&held, &Limits::DEFAULT).unwrap_or(hello),
            None => hello,
        }
    }

    fn held_certificate(&self, fleet: &KeyHash) -> Option<HeldCertificate> {
        let trust = self.security.trust().ok()?;
        let trusted = trust.roots.iter().find(|trusted| trusted.root.key_hash() == *fleet)?;
        let held_in = match trusted.lies_in {
            TrustedIn::Keystore => HeldIn::Keystore,
            TrustedIn::File(_) => HeldIn::File,
        };
        let thumbprint = trusted.root.certificate().thumbprint_bytes();
        Some(HeldCertificate { held_in, thumbprint, name: trusted.root.name().clone() })
    }

    /// Sends receipts whenever there are new ones, or a connection over which old ones can go; and again after a pause
    /// while a Distributor that is connected does not take them.
    async fn send_all_receipts(self: Arc<Self>, stop: CancellationToken) {
        let mut waiting = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.receipts.notified() => {}
                () = tokio::time::sleep(RECEIPTS_AGAIN), if waiting => {}
            }
            waiting = false;
            for (fleet, connection) in self.links.all() {
                if let Err(error) = self.send_receipts(fleet, &connection).await {
                    tracing::debug!(%error, "receipts wait for a better moment");
                    waiting = true;
                }
            }
        }
    }
}
