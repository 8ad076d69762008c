//! The network side: listening, dialling, greeting, and answering what Subscribers ask.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::firings::Which;
use crate::distributor::offering::Due;
use crate::distributor::rotation::Looked;
use crate::distributor::serving::{Enrolling, Serving};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{ExchangeError, ask, endpoint_secret, is_spare, serve};
use crate::protocol::{Answer, Hello, PROTOCOL_VERSION, Request};
use crate::security::{PeerRole, Side};
use crate::transport::{CLOSE_DONE, Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection};

/// How long the other side may take to greet.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stranger may stay connected to be enrolled: two messages, of which one waits for the disk.
const ENROLMENT_PATIENCE: Duration = Duration::from_secs(60);

/// How often firings are looked through for silences and offers that are due, and Subscribers for ones to dial.
const ROUND: Duration = Duration::from_secs(1);

/// How often connections under a former certificate are judged again: a revocation closes them within a second.
const UNFIT_ROUND: Duration = Duration::from_millis(500);

/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// What runs while a Distributor serves.
pub(super) struct Network {
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl State {
    pub(super) async fn start(self: &Arc<Self>) -> Result<SocketAddr, Error> {
        if lock(&self.network).is_some() {
            return Err(DistributorError::Started.into());
        }
        let endpoint = Arc::new(Endpoint::bind_with(self.settings.listen, self.endpoint_options())?);
        let address = endpoint.local_addr()?;
        let state = self.clone();
        let issuing = move || state.issue_missing_revocations().and_then(|()| state.announce_configuration());
        tokio::task::spawn_blocking(issuing).await.map_err(|_| DistributorError::Worker)??;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(self.clone().accept_all(endpoint.clone(), stop.clone(), tasks.clone()));
        tasks.spawn(self.clone().rounds(endpoint.clone(), stop.clone(), tasks.clone()));
        tasks.spawn(self.clone().announce_changes(stop.clone()));
        self.resume_schedules()?;
        let (state, running, stopping) = (self.clone(), tasks.clone(), stop.clone());
        tasks.spawn(async move { state.schedules.drive(state.clone(), stopping, running).await });
        tasks.spawn(self.clone().entitle_parents(stop.clone()));
        tasks.spawn(self.clone().write_fleet_changes(stop.clone()));
        *lock(&self.network) = Some(Network { endpoint, address, stop, tasks });
        Ok(address)
    }

    pub(super) async fn stop(self: &Arc<Self>) {
        let Some(network) = lock(&self.network).take() else { return };
        network.stop.cancel();
        network.endpoint.close("the Distributor is stopping").await;
        network.tasks.close();
        let ending = async {
            network.tasks.wait().await;
            self.links.wait().await;
        };
        if tokio::time::timeout(GOODBYE, ending).await.is_err() {
            tracing::debug!("tasks were still running when the Distributor stopped");
        }
        self.keep_changes().await;
        let state = self.clone();
        let written = tokio::task::spawn_blocking(move || state.write_fleet_file()).await;
        if let Err(error) = written.map_err(|_| Error::from(DistributorError::Worker)).flatten() {
            tracing::warn!(%error, "fleet.toml cannot be written; the next start does it");
        }
    }

    pub(super) fn listening(&self) -> Option<SocketAddr> {
        lock(&self.network).as_ref().map(|network| network.address)
    }

    fn endpoint_options(self: &Arc<Self>) -> EndpointOptions {
        let secret = endpoint_secret(self.own().authority.key());
        let clock = self.clock.clone();
        EndpointOptions::new(self.clone(), self.shown()).clock(move || clock.now()).secret(secret)
    }

    /// As whom this node appears.
    fn shown(&self) -> Vec<FleetIdentity> {
        let own = self.own();
        let former = own.former.iter().map(|former| (&former.authority, &former.tls));
        let all = std::iter::once((&own.authority, &own.tls)).chain(former);
        all.map(|(authority, tls)| FleetIdentity { fleet: authority.root().key_hash(), identity: Some(tls.clone()) })
            .collect()
    }

    /// Shows what this node is now, from the next handshake on.
    pub(super) fn show_identities(&self) -> Result<(), Error> {
        let endpoint = lock(&self.network).as_ref().map(|network| network.endpoint.clone());
        Ok(endpoint.map_or(Ok(()), |endpoint| endpoint.set_identities(&self.shown()))?)
    }

    async fn accept_all(self: Arc<Self>, endpoint: Arc<Endpoint>, stop: CancellationToken, tasks: TaskTracker) {
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            let (state, meeting) = (self.clone(), tasks.clone());
            tasks.spawn(async move {
                match incoming.judge().await {
                    // A task of its own: this one has room for a handshake, and would keep it as long as it lives.
                    Ok(connection) => {
                        meeting.spawn(state.meet(connection, Side::Listener));
                    }
                    Err(refused) => state.events.emit(DistributorEvent::Refused {
                        address: refused.address.to_string(),
                        code: refused.code.to_owned(),
                        reason: refused.reason,
                    }),
                }
            });
        }
    }

    /// Lives with one judged connection until it ends. Who dialled greets.
    pub(super) async fn meet(self: Arc<Self>, connection: QuicConnection, side: Side) {
        let peer = connection.peer().clone();
        let (PeerRole::Subscriber, Some(key)) = (peer.role, peer.key) else {
            let enrolling = Arc::new(Enrolling { state: self });
            let serving = serve(connection.clone(), enrolling, Limits::DEFAULT);
            if tokio::time::timeout(ENROLMENT_PATIENCE, serving).await.is_err() {
                connection.close(CLOSE_DONE, "an enrolment takes less time than this");
            }
            return;
        };
        let subscriber = self.name_of_key(&key);
        // What is done once lies in boxes, so that the task of an idle connection is small.
        if side == Side::Dialler && !Box::pin(self.greet(&connection, key)).await {
            return;
        }
        if peer.fleet != self.own().authority.root().key_hash() {
            // It knows the certificate before this one: it hears which took over, and asks for its own under that.
            self.announce_to(key, connection.clone());
            return Box::pin(self.serve_formerly(connection, key)).await;
        }
        let own = self.own().tls.certificate.key_hash();
        let Some(generation) = self.links.insert(key, connection.clone(), side, &own) else {
            tracing::debug!(%subscriber, "both nodes dialled at once, and the other connection stays");
            return;
        };
        // Whoever takes a standing away closes the connections that are there, of which this is one only now.
        self.judge_again(&connection);
        self.peer_is(&key, true);
        tracing::info!(%subscriber, address = %connection.remote_address(), "connected");
        self.events.emit(DistributorEvent::Connected { subscriber: subscriber.clone() });
        self.announce_to(key, connection.clone());
        self.offer_to(key, connection.clone(), Due::AllOpen);
        let serving = Arc::new(Serving { state: self.clone(), key });
        let reason = serve(connection.clone(), serving, Limits::DEFAULT).await;
        if self.links.remove(&key, generation) {
            self.peer_is(&key, false);
            tracing::info!(%subscriber, reason, "disconnected");
            self.events.emit(DistributorEvent::Disconnected { subscriber, reason });
            self.note_unreached(&[key]);
        }
    }

    /// Greets a Subscriber that was dialled. Answers whether there is anything more to say to it.
    async fn greet(self: &Arc<Self>, connection: &QuicConnection, key: KeyHash) -> bool {
        let subscriber = self.name_of_key(&key);
        match ask(connection, &Request::Hello(self.hello()), &Limits::DEFAULT, GREETING_PATIENCE).await {
            Ok(Answer::Hello(greeting)) => self.note_greeting_aside(key, greeting),
            Ok(_) => {}
            Err(ExchangeError::Connection(error)) if is_spare(&error) => {
                tracing::debug!(%subscriber, %error, "dialled in vain");
                return false;
            }
            Err(error) => {
                tracing::warn!(%subscriber, %error, "a Subscriber was dialled and does not greet");
                return false;
            }
        }
        true
    }

    /// Serves a Subscriber that came in the fleet of a certificate before this one, for as long as it may speak.
    async fn serve_formerly(self: Arc<Self>, connection: QuicConnection, key: KeyHash) {
        let serving = Arc::new(Serving { state: self.clone(), key });
        let losing_standing = self.close_once_unfit(&connection);
        let serving = serve(connection.clone(), serving, Limits::DEFAULT);
        tokio::pin!(serving);
        tokio::select! {
            _ = &mut serving => {}
            () = losing_standing => {
                serving.await;
            }
        }
    }

    /// Closes a connection that is not among the links as soon as its peer may not speak any more.
    async fn close_once_unfit(&self, connection: &QuicConnection) {
        let mut round = interval(UNFIT_ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            if self.judge_again(connection) {
                return;
            }
        }
    }

    /// Notes what a greeting says, off the async threads; nobody waits for it.
    pub(super) fn note_greeting_aside(self: &Arc<Self>, key: KeyHash, greeting: Hello) {
        // Most say nothing that would have to be noted.
        let Some(held) = greeting.held_certificate(&Limits::DEFAULT) else { return };
        let state = self.clone();
        self.links.spawn(async move {
            let Ok(_turn) = state.upkeep.acquire().await else { return };
            let noting = state.clone();
            // A note that cannot be made only leaves `status` without it.
            let _ = tokio::task::spawn_blocking(move || noting.note_greeting(&key, held)).await;
        });
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            node: self.name().clone(),
            instance: self.instance,
            clock: self.now(),
            capabilities: vec![],
            extensions: vec![],
        }
    }

    /// Once a second: who is silent, who may not speak any more, who is to be offered something now, who is to be
    /// dialled.
    async fn rounds(self: Arc<Self>, endpoint: Arc<Endpoint>, stop: CancellationToken, tasks: TaskTracker) {
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut dialling, mut looked) = (HashMap::new(), Looked::default());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = round.tick() => {}
            }
            if self.judge_changed() || looked.is_due(self.now()) {
                self.keep_current().await;
            }
            let silence = self.settings.silence;
            self.change_open(Which::All, |firing, now| firing.tick(silence, now));
            self.offer_all(self.waited_long_enough(), Due::Waited);
            self.keep_changes().await;
            self.offer_resumed();
            let state = self.clone();
            let kept = tokio::task::spawn_blocking(move || state.keep_speeds()).await;
            if let Err(error) = kept.map_err(|_| Error::from(DistributorError::Worker)).flatten() {
                tracing::warn!(code = error.code(), %error, "the speeds of links cannot be kept");
            }
            self.dial_due(&endpoint, &mut dialling, &tasks);
        }
    }

    /// Who asked for a later offer and is to have it now. Whatever else is open they were offered when they connected.
    fn waited_long_enough(&self) -> BTreeSet<KeyHash> {
        let now = self.now();
        let firings = lock(&self.firings);
        firings.open().flat_map(|firing| firing.waited(now)).map(|target| target.subscriber).collect()
    }
}
