//! The network side: dialling Distributors, listening where told to, greeting, taking offers, sending receipts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{Answering, Backoff, Reply, ask, dial, serve};
use crate::protocol::{Answer, Hello, PROTOCOL_VERSION, Request, code};
use crate::security::{Alpn, FleetRole, FleetTrust, TrustPolicy, Usage};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::state::{KnownDistributor, State, lock};
use crate::transport::{Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection};

/// How long the other side may take to greet.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// What runs while a Subscriber does.
pub(super) struct Network {
    endpoint: Arc<Endpoint>,
    running: Option<Running>,
}

struct Running {
    address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl State {
    /// The endpoint that this node dials from; made when it is needed first.
    pub(super) fn endpoint(self: &Arc<Self>) -> Result<Arc<Endpoint>, Error> {
        let mut network = lock(&self.network);
        if let Some(network) = &*network {
            return Ok(network.endpoint.clone());
        }
        let options = self.endpoint_options()?;
        let endpoint = Arc::new(match self.settings.listen {
            Some(listen) => Endpoint::bind_with(listen, options)?,
            None => Endpoint::dial_only(options)?,
        });
        *network = Some(Network { endpoint: endpoint.clone(), running: None });
        Ok(endpoint)
    }

    fn endpoint_options(self: &Arc<Self>) -> Result<EndpointOptions, Error> {
        let clock = self.clock.clone();
        Ok(EndpointOptions::new(self.clone(), self.fleet_identities()?).clock(move || clock.now()))
    }

    /// What this node shows in each fleet it takes part in.
    pub(super) fn fleet_identities(&self) -> Result<Vec<FleetIdentity>, Error> {
        let keystore = lock(&self.keystore);
        let roots = self.trusted_roots()?.into_iter();
        Ok(roots
            .map(|root| FleetIdentity {
                identity: keystore.identity(&root.key_hash(), Usage::SubscriberIdentity),
                root,
            })
            .collect())
    }

    pub(super) async fn start(self: &Arc<Self>) -> Result<Option<SocketAddr>, Error> {
        let endpoint = self.endpoint()?;
        let address = self.settings.listen.map(|_| endpoint.local_addr()).transpose()?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        {
            let mut network = lock(&self.network);
            let Some(network) = network.as_mut().filter(|network| network.running.is_none()) else {
                return Err(SubscriberError::Started.into());
            };
            network.running = Some(Running { address, stop: stop.clone(), tasks: tasks.clone() });
        }
        let state = self.clone();
        tokio::task::spawn_blocking(move || state.finish_interrupted())
            .await
            .map_err(|_| SubscriberError::Worker)??;
        if address.is_some() {
            tasks.spawn(self.clone().accept_all(endpoint.clone(), stop.clone(), tasks.clone()));
        }
        for (fleet, known) in self.known_distributors()? {
            if !known.endpoints.is_empty() {
                tasks.spawn(self.clone().keep_connected(endpoint.clone(), fleet, known, stop.clone()));
            }
        }
        tasks.spawn(self.clone().send_all_receipts(stop));
        Ok(address)
    }

    pub(super) async fn stop(&self) {
        let Some(network) = lock(&self.network).take() else { return };
        if let Some(running) = &network.running {
            running.stop.cancel();
        }
        network.endpoint.close("the Subscriber is stopping").await;
        lock(&self.queues).clear();
        let ending = async {
            if let Some(running) = network.running {
                running.tasks.close();
                running.tasks.wait().await;
            }
            self.links.wait().await;
        };
        if tokio::time::timeout(GOODBYE, ending).await.is_err() {
            tracing::debug!("tasks were still running when the Subscriber stopped");
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
                    Ok(connection) => {
                        state.meet(connection).await;
                    }
                    Err(refused) => state.events.emit(SubscriberEvent::Refused {
                        peer: refused.address.to_string(),
                        code: refused.code.to_owned(),
                        reason: refused.reason,
                    }),
                }
            });
        }
    }

    /// Dials a Distributor again and again, and lives with the connection while there is one.
    async fn keep_connected(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        fleet: KeyHash,
        known: KnownDistributor,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::default();
        if !self.is_enrolled(&fleet) && !self.enrol_until_done(&fleet, &stop).await {
            return;
        }
        let mut said = String::new();
        loop {
            let dialled = tokio::select! {
                () = stop.cancelled() => return,
                dialled = dial(&endpoint, &known.endpoints, &fleet, Alpn::Ted1) => dialled,
            };
            match dialled {
                Ok(connection) => {
                    said.clear();
                    match ask(&connection, &Request::Hello(self.hello()), &Limits::DEFAULT, GREETING_PATIENCE).await {
                        Ok(_) => {
                            backoff.reset();
                            self.meet(connection).await;
                        }
                        Err(error) => {
                            self.refused_by(&known, &Error::from(error).to_string());
                        }
                    }
                }
                Err(error) => {
                    if said != error.reason {
                        tracing::warn!(distributor = %known.name, code = error.code, reason = error.reason, "not reached");
                        said.clone_from(&error.reason);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    fn refused_by(&self, known: &KnownDistributor, reason: &str) {
        tracing::warn!(distributor = %known.name, reason, "the connection was refused");
        let code = reason.split([':', ' ']).find(|word| word.starts_with("TED-")).unwrap_or("TED-1310");
        self.events.emit(SubscriberEvent::Refused {
            peer: known.name.to_string(),
            code: code.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Lives with one judged connection until it ends.
    async fn meet(self: &Arc<Self>, connection: QuicConnection) {
        let fleet = connection.peer().fleet;
        let distributor = self.distributor_name(&fleet);
        let generation = self.links.insert(fleet, connection.clone());
        tracing::info!(%distributor, address = %connection.remote_address(), "connected");
        self.events.emit(SubscriberEvent::Connected { distributor: distributor.clone() });
        self.receipts.notify_one();
        let serving = Arc::new(Serving { state: self.clone(), connection: connection.clone() });
        let reason = serve(connection.clone(), serving, Limits::DEFAULT).await;
        if self.links.remove(&fleet, generation) {
            tracing::info!(%distributor, reason, "disconnected");
            self.events.emit(SubscriberEvent::Disconnected { distributor, reason });
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            node: self.name().clone(),
            instance: self.instance,
            clock: self.clock.now(),
            capabilities: vec![],
            extensions: vec![],
        }
    }

    /// Sends receipts whenever there are new ones, or a connection over which old ones can go.
    async fn send_all_receipts(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.receipts.notified() => {}
            }
            for (fleet, connection) in self.links.all() {
                if let Err(error) = self.send_receipts(fleet, &connection).await {
                    tracing::debug!(%error, "receipts wait for a better connection");
                }
            }
        }
    }
}

/// Answers what a Distributor asks.
struct Serving {
    state: Arc<State>,
    connection: QuicConnection,
}

impl Answering for Serving {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Hello(_) => Reply::Answer(Answer::Hello(self.state.hello())),
            Request::Offer(offer) => Reply::Answer(Answer::Offer(self.state.take_offer(&self.connection, offer).await)),
            _ => Reply::refuse(code::NOT_ENTITLED, "this node serves nothing to this peer"),
        }
    }
}

impl TrustPolicy for State {
    fn fleets(&self) -> Vec<FleetTrust> {
        let roots = self.trusted_roots().unwrap_or_else(|error| {
            tracing::error!(code = error.code(), %error, "the trusted certificates cannot be read");
            vec![]
        });
        roots.into_iter().map(|root| FleetTrust { root, role: FleetRole::Subscriber }).collect()
    }

    fn is_registered(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }

    fn is_revoked(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }
}
