//! The network side: listening, dialling, greeting, and answering what Subscribers ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::release::StoredEnvelope;
use crate::distributor::send::{Due, due_of};
use crate::distributor::state::{Sent, State, lock};
use crate::error::Error;
use crate::id::{DistributionId, KeyHash};
use crate::limits::Limits;
use crate::model::Subscriber;
use crate::name::NodeName;
use crate::node::{
    Answering, Backoff, Content, ExchangeError, Reply, ask, dial, endpoint_secret, is_spare, serve, wait,
};
use crate::protocol::{Answer, FetchTarget, Hello, PROTOCOL_VERSION, Request, code};
use crate::security::{Alpn, Envelope, EnvelopeKind, PeerRole, Receipt, Side, Stage};
use crate::store::Depot;
use crate::transport::{CLOSE_DONE, Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection};

/// How long the other side may take to greet.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stranger may stay connected to be enrolled: two messages, of which one waits for the disk.
const ENROLMENT_PATIENCE: Duration = Duration::from_secs(60);

/// How often firings are looked through for silences and offers that are due, and Subscribers for ones to dial.
const ROUND: Duration = Duration::from_secs(1);

/// How often connections under a former certificate are judged again: a revocation closes them within a second.
const UNFIT_ROUND: Duration = Duration::from_millis(500);

/// The code of a node that was dialled in a fleet that it takes no part in.
const ELSEWHERE: &str = "TED-1314";

/// How often a fetch says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

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
        *lock(&self.network) = Some(Network { endpoint, address, stop, tasks });
        Ok(address)
    }

    pub(super) async fn stop(&self) {
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
            let state = self.clone();
            tasks.spawn(async move {
                match incoming.judge().await {
                    Ok(connection) => state.meet(connection, Side::Listener).await,
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
    async fn meet(self: Arc<Self>, connection: QuicConnection, side: Side) {
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
        if side == Side::Dialler {
            let hello = Request::Hello(self.hello());
            match ask(&connection, &hello, &Limits::DEFAULT, GREETING_PATIENCE).await {
                Ok(Answer::Hello(greeting)) => self.note_greeting_aside(key, greeting),
                Ok(_) => {}
                Err(ExchangeError::Connection(error)) if is_spare(&error) => {
                    tracing::debug!(%subscriber, %error, "dialled in vain");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%subscriber, %error, "a Subscriber was dialled and does not greet");
                    return;
                }
            }
        }
        if peer.fleet != self.own().authority.root().key_hash() {
            // It knows the certificate before this one: it hears which took over, and asks for its own under that.
            self.announce_to(key, connection.clone());
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
            return;
        }
        let own = self.own().tls.certificate.key_hash();
        let Some(generation) = self.links.insert(key, connection.clone(), side, &own) else {
            tracing::debug!(%subscriber, "both nodes dialled at once, and the other connection stays");
            return;
        };
        // Whoever takes a standing away closes the connections that are there, of which this is one only now.
        self.judge_again(&connection);
        tracing::info!(%subscriber, address = %connection.remote_address(), "connected");
        self.events.emit(DistributorEvent::Connected { subscriber: subscriber.clone() });
        self.announce_to(key, connection.clone());
        self.offer_to(key, connection.clone(), Due::AllOpen);
        let serving = Arc::new(Serving { state: self.clone(), key });
        let reason = serve(connection.clone(), serving, Limits::DEFAULT).await;
        if self.links.remove(&key, generation) {
            tracing::info!(%subscriber, reason, "disconnected");
            self.events.emit(DistributorEvent::Disconnected { subscriber, reason });
            self.change_firings(move |firing, now| firing.disconnected(&key, now)).await;
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
    fn note_greeting_aside(self: &Arc<Self>, key: KeyHash, greeting: Hello) {
        let state = self.clone();
        tokio::task::spawn_blocking(move || state.note_greeting(&key, &greeting));
    }

    fn hello(&self) -> Hello {
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
        let mut dialling = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = round.tick() => {}
            }
            self.judge_all_again();
            self.keep_current().await;
            let silence = self.settings.silence;
            self.change_firings(move |firing, now| firing.tick(silence, now)).await;
            for (key, connection) in self.links.all() {
                if self.waited_long_enough(&key) {
                    self.offer_to(key, connection, Due::Waited);
                }
            }
            self.dial_due(&endpoint, &mut dialling, &tasks);
        }
    }

    /// Whether a Subscriber asked for a later offer and is to have it now. Whatever else is open it was offered when it
    /// connected.
    fn waited_long_enough(&self, key: &KeyHash) -> bool {
        let now = self.now();
        lock(&self.firings).values().any(|firing| !due_of(firing, key, Due::Waited, now).is_empty())
    }

    fn dial_due(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        dialling: &mut HashMap<NodeName, Dialling>,
        tasks: &TaskTracker,
    ) {
        let to_dial: Vec<Subscriber> = {
            let fleet = lock(&self.fleet);
            fleet.subscribers().filter(|subscriber| !subscriber.endpoints.is_empty()).cloned().collect()
        };
        dialling.retain(|name, _| to_dial.iter().any(|subscriber| subscriber.name == *name));
        for subscriber in to_dial {
            let dialled = dialling.entry(subscriber.name.clone()).or_default();
            if self.is_connected(&subscriber.name) {
                // Whoever dialled: when it is gone, it is dialled as if for the first time.
                dialled.due = None;
                dialled.backoff.reset();
                continue;
            }
            if !dialled.is_due(Instant::now()) {
                continue;
            }
            dialled.due = Some(Instant::now() + dialled.backoff.next());
            let (state, endpoint) = (self.clone(), endpoint.clone());
            let attempt = tasks.spawn(async move {
                let own = state.own();
                let former = own.former.iter().map(|former| former.authority.root().key_hash());
                for fleet in std::iter::once(own.authority.root().key_hash()).chain(former) {
                    match dial(&endpoint, &subscriber.endpoints, &fleet, Alpn::Ted1).await {
                        Ok(connection) => return state.meet(connection, Side::Dialler).await,
                        Err(error) => {
                            tracing::debug!(subscriber = %subscriber.name, reason = error.reason, "not reached");
                            // It may not have heard yet that this certificate took over.
                            if error.code != ELSEWHERE {
                                return;
                            }
                        }
                    }
                }
            });
            dialled.attempt = Some(attempt);
        }
    }

    pub(super) fn entitled(&self, key: &KeyHash, distribution: &DistributionId) -> bool {
        let registration = self.registrations.get(key).filter(|_| !self.is_key_revoked(key));
        registration.is_some_and(|known| lock(&self.fleet).entitled(&known.name).contains(distribution))
    }
}

/// How it stands with dialling one Subscriber.
#[derive(Default)]
struct Dialling {
    backoff: Backoff,
    /// Not before this.
    due: Option<Instant>,
    /// The last attempt, and what came of it.
    attempt: Option<JoinHandle<()>>,
}

impl Dialling {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now) && self.attempt.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Answers a node that wants to be enrolled, and nothing else.
struct Enrolling {
    state: Arc<State>,
}

impl Answering for Enrolling {
    async fn answer(&self, request: Request) -> Reply {
        let Request::Enrol(bytes) = request else {
            return Reply::refuse(code::NOT_ENTITLED, "only an enrolment is answered on this connection");
        };
        let state = self.state.clone();
        answer_enrolment(move || state.enrol(&bytes)).await
    }
}

/// The answer to an enrolment request, which is judged on a thread where blocking is allowed.
async fn answer_enrolment(enrolling: impl FnOnce() -> Result<Vec<u8>, Error> + Send + 'static) -> Reply {
    match tokio::task::spawn_blocking(enrolling).await {
        Ok(Ok(answer)) => Reply::Answer(Answer::Enrol(answer)),
        Ok(Err(error)) => {
            tracing::warn!(code = error.code(), %error, "an enrolment was refused");
            Reply::refuse(error.code(), error.to_string())
        }
        Err(_) => Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"),
    }
}

/// Answers an enrolled Subscriber.
struct Serving {
    state: Arc<State>,
    key: KeyHash,
}

impl Answering for Serving {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Hello(greeting) => {
                self.state.note_greeting_aside(self.key, greeting);
                Reply::Answer(Answer::Hello(self.state.hello()))
            }
            Request::Fetch(fetch) => {
                let (state, key) = (self.state.clone(), self.key);
                let finding = move || match fetch.target {
                    FetchTarget::Package(id) => state.package_content(&key, &id),
                    FetchTarget::Envelope(id) => state.envelope_content(&key, &id),
                    FetchTarget::Grant { grants, recipient } => state.grant_content(&key, &grants, &recipient),
                };
                let found = tokio::task::spawn_blocking(finding).await;
                found.unwrap_or_else(|_| Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"))
            }
            Request::Enrol(bytes) => {
                let (state, key) = (self.state.clone(), self.key);
                answer_enrolment(move || state.renew_subscriber(&key, &bytes)).await
            }
            Request::Receipt(bytes) => {
                let (state, key) = (self.state.clone(), self.key);
                let taking = move || match state.judge_receipt(&key, &bytes) {
                    Ok(receipt) => state.take_receipt(&key, receipt),
                    Err(error) => {
                        tracing::warn!(code = error.code(), %error, "a receipt was refused");
                        Ok(Reply::refuse(error.code(), error.to_string()))
                    }
                };
                match tokio::task::spawn_blocking(taking).await {
                    Ok(Ok(reply)) => reply,
                    Ok(Err(error)) => {
                        tracing::error!(code = error.code(), %error, "a receipt cannot be stored");
                        Reply::refuse(code::INTERNAL, "the Distributor cannot store the receipt now")
                    }
                    Err(_) => Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"),
                }
            }
            _ => Reply::refuse(code::BAD_REQUEST, "a Distributor does not answer this"),
        }
    }
}

impl State {
    fn package_content(self: &Arc<Self>, key: &KeyHash, id: &crate::id::PackageId) -> Reply {
        let Ok(Some(info)) = wait(self.depot.info(*id)) else {
            return Reply::refuse(code::NOT_FOUND, "this package is not here");
        };
        if !self.entitled(key, &info.root.distribution) {
            return Reply::refuse(code::NOT_ENTITLED, "no Channel of yours has this Distribution");
        }
        match self.depot.open_file(*id) {
            Ok(file) => {
                let revision = info.root.revision;
                let about = Sent { package: *id, revision, bytes: 0, bytes_total: info.bytes };
                let sent = self.sending_progress(key, &info.root.distribution, about);
                Reply::Content(Content::File { file, bytes: info.bytes, sent })
            }
            Err(error) => {
                tracing::error!(package = %id, %error, "a package cannot be opened");
                Reply::refuse(code::INTERNAL, "the package cannot be read here")
            }
        }
    }

    /// Counts what is sent, so that a Subscriber that takes bytes does not count as silent, and people see it.
    fn sending_progress(
        self: &Arc<Self>,
        key: &KeyHash,
        distribution: &DistributionId,
        about: Sent,
    ) -> Box<dyn FnMut(u64) + Send> {
        let (state, key, distribution) = (self.clone(), *key, *distribution);
        let (subscriber, label) = (self.name_of_key(&key), self.name_of_distribution(&distribution));
        let mut said = None::<Instant>;
        Box::new(move |bytes| {
            let served = {
                let mut sent = lock(&state.sent);
                let entry = sent.entry((key, distribution)).or_insert(about);
                if entry.package != about.package {
                    *entry = about;
                }
                entry.bytes = entry.bytes.saturating_add(bytes);
                *entry
            };
            let now = state.now();
            for firing in lock(&state.firings).values_mut() {
                firing.heard(&key, &distribution, now);
            }
            // Every block would be thousands of events a second.
            let done = served.bytes >= served.bytes_total;
            if !done && said.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) {
                return;
            }
            said = Some(Instant::now());
            state.events.emit(DistributorEvent::Sending {
                subscriber: subscriber.clone(),
                distribution: label.clone(),
                bytes: served.bytes,
                bytes_total: served.bytes_total,
            });
        })
    }

    fn envelope_content(&self, key: &KeyHash, id: &crate::id::EnvelopeId) -> Reply {
        if let Some(reply) = self.standing_content(key, id) {
            return reply;
        }
        let stored: Option<StoredEnvelope> = self.records.get(&format!("envelope/{id}")).ok().flatten();
        let Some(stored) = stored else { return Reply::refuse(code::NOT_FOUND, "this envelope is not here") };
        let about = stored.distribution.parse();
        if !about.is_ok_and(|distribution| self.entitled(key, &distribution)) {
            return Reply::refuse(code::NOT_ENTITLED, "no Channel of yours has this Distribution");
        }
        match hex::decode(&stored.bytes) {
            Ok(bytes) => Reply::Content(Content::Bytes(Bytes::from(bytes))),
            Err(_) => Reply::refuse(code::INTERNAL, "the envelope cannot be read here"),
        }
    }

    /// Verifies that a receipt is one, and of the node that sent it.
    fn judge_receipt(&self, key: &KeyHash, bytes: &[u8]) -> Result<Receipt, Error> {
        let envelope = Envelope::from_bytes(bytes)?;
        envelope.expect_kind(EnvelopeKind::RECEIPT)?;
        // A Subscriber's clock may be ahead of ours; a receipt is about the past and is judged when it was issued.
        let at = self.now().max(envelope.body().issued);
        envelope.verify(self.own().authority.root(), at)?;
        if envelope.body().issuer != *key {
            return Err(DistributorError::ForeignReceipt.into());
        }
        Ok(Receipt::from_payload(&envelope.body().payload)?)
    }

    /// Enters a receipt into the firings it is about, and only then has it acknowledged.
    fn take_receipt(&self, key: &KeyHash, receipt: Receipt) -> Result<Reply, Error> {
        self.change_firings_now(|firing, now| firing.receipt(key, &receipt, now))?;
        let (subscriber, distribution) = (self.name_of_key(key), self.name_of_distribution(&receipt.distribution));
        self.doubt_after(&subscriber, &receipt)?;
        let (revision, stage) = (receipt.revision, receipt.stage);
        if stage == Stage::Verified {
            self.note_verified(key);
        }
        match &receipt.code {
            None => tracing::info!(%subscriber, %distribution, %revision, ?stage, "receipt"),
            Some(code) => {
                tracing::warn!(%subscriber, %distribution, %revision, ?stage, code, detail = receipt.detail, "receipt");
            }
        }
        self.events.emit(DistributorEvent::Receipt {
            firing: receipt.firing,
            subscriber,
            distribution,
            revision: receipt.revision,
            stage: receipt.stage,
            code: receipt.code,
            detail: receipt.detail,
        });
        Ok(Reply::Answer(Answer::Receipt))
    }
}
