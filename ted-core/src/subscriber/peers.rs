//! The network side: dialling Distributors, listening where told to, greeting, taking offers, sending receipts.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{Answering, Backoff, ExchangeError, Reply, ask, dial, endpoint_secret, is_spare, serve};
use crate::protocol::{Answer, Hello, PROTOCOL_VERSION, Request, code};
use crate::security::{
    Alpn, FleetRole, FleetTrust, HeldCertificate, HeldIn, Side, TrustPolicy, Usage, clock_text, judge_standing,
};
use crate::store::TrustedIn;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{KnownDistributor, Run, State, known_key, lock};
use crate::transport::{Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection};

/// How long the other side may take to greet.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// How long connections may take to say goodbye, and the disk to take what was given to it.
const GOODBYE: Duration = Duration::from_secs(10);

/// How long a node that waits for approval pauses before it asks, and looks for carried certificates, again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The code of a node that was dialled in a fleet that it takes no part in.
const ELSEWHERE: &str = "TED-1314";

/// The codes of certificates whose time has not come or is over.
const OVER_TIME: [&str; 2] = ["TED-1106", "TED-1107"];

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
            *lock(&self.run) = run;
            (endpoint, address)
        };
        let state = self.clone();
        tokio::task::spawn_blocking(move || state.finish_interrupted())
            .await
            .map_err(|_| SubscriberError::Worker)??;
        if address.is_some() {
            tasks.spawn(self.clone().accept_all(endpoint, stop.clone(), tasks.clone()));
        }
        for (fleet, _) in self.known_distributors()? {
            self.follow(&fleet);
        }
        for row in self.distributors()?.into_iter().filter(|row| row.endpoints.is_empty() && address.is_none()) {
            tracing::warn!(distributor = %row.name, "trusted, but nothing comes from it before this node has enrolled");
        }
        tasks.spawn(self.clone().watch_issued(stop.clone()));
        tasks.spawn(self.clone().scrub_all(stop.clone()));
        tasks.spawn(self.clone().send_all_receipts(stop.clone()));
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

    /// Dials a Distributor again and again, and lives with the connection while there is one. A node without
    /// certificates asks for them instead.
    async fn keep_connected(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        fleet: KeyHash,
        stop: CancellationToken,
        hasten: Arc<Notify>,
    ) {
        let mut backoff = Backoff::default();
        loop {
            // One connection is enough, whoever dialled it.
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.links.gone(&fleet) => {}
            }
            let attempt = tokio::select! {
                () = stop.cancelled() => return,
                attempt = self.attempt(&endpoint, fleet) => attempt,
            };
            let pause = match attempt {
                Attempt::Met(connection) => {
                    // It ends with the connection, which whoever stops this closes.
                    self.meet(connection, Side::Dialler).await;
                    backoff.reset();
                    backoff.next()
                }
                Attempt::Spare => {
                    backoff.reset();
                    backoff.next()
                }
                Attempt::Pending => ASK_AGAIN,
                Attempt::Enrolled => Duration::ZERO,
                Attempt::Failed => backoff.next(),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = hasten.notified() => backoff.reset(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Dials a Distributor once, and greets it.
    async fn attempt(self: &Arc<Self>, endpoint: &Arc<Endpoint>, fleet: KeyHash) -> Attempt {
        let state = self.clone();
        let finding = move || -> Result<_, Error> {
            let known: Option<KnownDistributor> = state.records.get(&known_key(&fleet))?;
            state.show_identities()?;
            if !state.is_enrolled(&fleet) {
                state.take_issued_quietly(&fleet);
            }
            Ok((known, state.is_enrolled(&fleet)))
        };
        let found = tokio::task::spawn_blocking(finding).await.unwrap_or_else(|_| Err(SubscriberError::Worker.into()));
        let (known, enrolled) = match found {
            Ok((Some(known), enrolled)) => (known, enrolled),
            Ok((None, _)) => return Attempt::Failed,
            Err(error) => return self.trouble(&fleet, error.code(), &error.to_string()),
        };
        if !enrolled {
            return match self.enrol_once(&fleet, &known.endpoints, None).await {
                Ok(Enrolment::Enrolled) => Attempt::Enrolled,
                Ok(Enrolment::Pending { fingerprint }) => {
                    let waits = format!("waits for approval; fingerprint {fingerprint}");
                    if lock(&self.troubles).insert(fleet, waits.clone()).as_ref() != Some(&waits) {
                        tracing::info!(distributor = %known.name, fingerprint, "waiting for the Distributor's approval");
                    }
                    Attempt::Pending
                }
                Err(error) => self.trouble(&fleet, error.code(), &error.to_string()),
            };
        }
        let connection = match dial(endpoint, &known.endpoints, &fleet, Alpn::Ted1).await {
            Ok(connection) => connection,
            Err(error) => {
                if error.code == ELSEWHERE && self.try_successor(&fleet).await.is_some() {
                    return Attempt::Enrolled;
                }
                return self.trouble(&fleet, error.code, &error.reason);
            }
        };
        match ask(&connection, &Request::Hello(self.hello(&fleet)), &Limits::DEFAULT, GREETING_PATIENCE).await {
            Ok(_) => Attempt::Met(connection),
            Err(ExchangeError::Connection(error)) if is_spare(&error) => {
                tracing::debug!(distributor = %known.name, %error, "dialled in vain");
                Attempt::Spare
            }
            Err(error) => {
                let error = Error::from(error);
                // The other side judges after this one; its word is the reason for which the connection ended.
                let reason = error.to_string();
                let code = reason.split([':', ' ']).find(|word| word.starts_with("TED-")).unwrap_or(error.code());
                self.trouble(&fleet, code, &reason)
            }
        }
    }

    /// Tells what is wrong between this node and a Distributor, once for as long as it is the same.
    fn trouble(&self, fleet: &KeyHash, code: &str, reason: &str) -> Attempt {
        let mut text = if reason.contains(code) { reason.to_owned() } else { format!("{code}: {reason}") };
        let over_time = OVER_TIME.contains(&code);
        if over_time {
            // The reason names the clock of the node that refuses; with this one's it can be told which is wrong.
            text = format!("{text}; the clock of this node says {}", clock_text(self.clock.now()));
        }
        let reason = text.clone();
        let before = lock(&self.troubles).insert(*fleet, text.clone());
        if before.is_none_or(|before| before != text && !(over_time && before.contains(code))) {
            let distributor = self.distributor_name(fleet);
            tracing::warn!(%distributor, code, reason, "no connection");
            self.events.emit(SubscriberEvent::Refused { peer: distributor.to_string(), code: code.to_owned(), reason });
        }
        Attempt::Failed
    }

    /// Lives with one judged connection until it ends.
    async fn meet(self: &Arc<Self>, connection: QuicConnection, side: Side) {
        let fleet = connection.peer().fleet;
        let state = self.clone();
        let finding = move || (state.distributor_name(&fleet), state.identity(&fleet));
        let Ok((distributor, Ok(identity))) = tokio::task::spawn_blocking(finding).await else { return };
        let own = identity.certificate.key_hash();
        let Some(generation) = self.links.insert(fleet, connection.clone(), side, &own) else {
            tracing::debug!(%distributor, "both nodes dialled at once, and the other connection stays");
            return;
        };
        self.judge_again(&connection).await;
        tracing::info!(%distributor, address = %connection.remote_address(), "connected");
        lock(&self.troubles).remove(&fleet);
        self.events.emit(SubscriberEvent::Connected { distributor: distributor.clone() });
        self.receipts.notify_one();
        let serving = Arc::new(Serving { state: self.clone(), connection: connection.clone() });
        let reason = serve(connection.clone(), serving, Limits::DEFAULT).await;
        if self.links.remove(&fleet, generation) {
            tracing::info!(%distributor, reason, "disconnected");
            self.events.emit(SubscriberEvent::Disconnected { distributor, reason });
        }
    }

    /// Closes a connection whose peer lost its standing between the handshake and now: whoever took it away may not
    /// have found the connection to close.
    async fn judge_again(self: &Arc<Self>, connection: &QuicConnection) {
        let (peer, policy) = (connection.peer().clone(), Policy(Arc::downgrade(self)));
        let judged = tokio::task::spawn_blocking(move || judge_standing(&peer, &policy)).await;
        if let Ok(Err(refusal)) = judged {
            connection.close(refusal.close_code(), &refusal.close_reason());
        }
    }

    /// The greeting for a Distributor: it also says how this node holds that Distributor's certificate.
    fn hello(&self, fleet: &KeyHash) -> Hello {
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

/// How one attempt to meet a Distributor ended.
enum Attempt {
    /// There is a connection.
    Met(QuicConnection),
    /// Another connection stays.
    Spare,
    /// Its operator has to approve first.
    Pending,
    /// The certificates have come.
    Enrolled,
    /// It failed; why is told.
    Failed,
}

/// Answers what a Distributor asks.
struct Serving {
    state: Arc<State>,
    connection: QuicConnection,
}

impl Answering for Serving {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Hello(_) => Reply::Answer(Answer::Hello(self.state.hello(&self.connection.peer().fleet))),
            Request::Offer(offer) => Reply::Answer(Answer::Offer(self.state.take_offer(&self.connection, offer).await)),
            Request::Announce(announce) => {
                Reply::Answer(Answer::Announce(self.state.take_announcement(&self.connection, announce).await))
            }
            _ => Reply::refuse(code::NOT_ENTITLED, "this node serves nothing to this peer"),
        }
    }
}

/// Judges peers for as long as the state is there. Holding it weakly, an endpoint does not keep alive (and locked) the
/// data directory of a Subscriber that everybody else has let go.
pub(super) struct Policy(pub(super) Weak<State>);

impl TrustPolicy for Policy {
    fn fleets(&self) -> Vec<FleetTrust> {
        let Some(state) = self.0.upgrade() else { return vec![] };
        let roots = state.trusted_roots().unwrap_or_else(|error| {
            tracing::error!(code = error.code(), %error, "the trusted certificates cannot be read");
            vec![]
        });
        // One that is announced to take over is accepted, too: see `State::try_successor`.
        let successors: Vec<_> = roots.iter().filter_map(|root| state.announced_successor(&root.key_hash())).collect();
        roots.into_iter().chain(successors).map(|root| FleetTrust { root, role: FleetRole::Subscriber }).collect()
    }

    fn is_registered(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }

    fn is_revoked(&self, fleet: &KeyHash, key: &KeyHash) -> bool {
        self.0.upgrade().is_some_and(|state| state.revocations.is_revoked(fleet, key))
    }
}
