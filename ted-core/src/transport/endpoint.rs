//! The UDP endpoint of a node: dials, is dialled, and lets nobody in unjudged.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quinn::VarInt;
use quinn::crypto::rustls::HandshakeData;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::sync::{Semaphore, mpsc};

use crate::id::{KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::security::{
    Alpn, Facts, Identity, Peer, PeerRole, Refusal, Side, TrustPolicy, fleet_sni, judge_connection, judge_standing,
};
use crate::transport::budget::SendBudget;
use crate::transport::config::transport_config;
use crate::transport::connection::Connection;
use crate::transport::error::{BindError, ConnectionError, DialError};
use crate::transport::quic::{Inner, QuicConnection, translate};
use crate::transport::socket;
use crate::transport::tls::{self, Identities};

/// Longer than three round trips around the world with a lost packet in each.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dialler that refuses its peer waits for the peer to be ready to hear why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);
/// Judged connections that wait until the node takes them.
const ACCEPT_QUEUE: usize = 64;
/// Requests of a node without certificates.
const UNENROLLED_STREAMS: u32 = 1;

/// What is taken for now when certificates are judged: the later of the system's clock and the latest time that the
/// Distributor signed.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// What an endpoint needs.
#[derive(Clone)]
pub struct EndpointConfig {
    /// The UDP address to bind; port 0 takes any.
    pub listen: SocketAddr,
    /// Whom this node trusts. It is asked at every connection, so what it answers may change at any time.
    pub policy: Arc<dyn TrustPolicy>,
    /// The time.
    pub clock: Clock,
    /// Windows, streams and the send budget.
    pub limits: Limits,
}

/// A node's UDP endpoint, for all fleets it takes part in. Connections come out of it judged, or not at all.
pub struct Endpoint {
    shared: Arc<Shared>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<QuicConnection>>,
}

struct Shared {
    quinn: quinn::Endpoint,
    config: EndpointConfig,
    transport: Arc<quinn::TransportConfig>,
    provider: Arc<CryptoProvider>,
    identities: Arc<Identities>,
    budget: Arc<SendBudget<quinn::Connection>>,
    live: Arc<Live>,
    next_id: AtomicU64,
}

/// The judged connections that are still in use.
#[derive(Default)]
pub(super) struct Live(Mutex<HashMap<u64, Weak<Inner>>>);

impl Live {
    pub(super) fn forget(&self, id: u64) {
        self.connections().remove(&id);
    }

    fn all(&self) -> Vec<QuicConnection> {
        self.connections().values().filter_map(Weak::upgrade).map(QuicConnection).collect()
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Weak<Inner>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    /// Opens the socket and begins to take handshakes. Needs a tokio runtime. Until it has an identity, no
    /// handshake succeeds.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(config: EndpointConfig) -> Result<Self, BindError> {
        let refused = |source| BindError::Socket { address: config.listen, source };
        let tls = |error: rustls::Error| BindError::Tls(error.to_string());
        let provider = tls::provider();
        let identities = Arc::new(Identities::new(Arc::clone(&provider)));
        let transport = transport_config(&config.limits);
        let crypto = tls::server_config(Arc::clone(&provider), Arc::clone(&identities)).map_err(tls)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::clone(&transport));
        // What strangers can make us buffer before their handshakes begin.
        server.max_incoming(config.limits.handshakes_max);
        server.incoming_buffer_size(u64::from(config.limits.unenrolled_window_bytes));
        let socket = socket::bind(config.listen)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let quinn =
            quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), socket, runtime).map_err(refused)?;
        let budget = SendBudget::new(config.limits.send_budget_bytes, config.limits.connection_window_bytes.into());
        let shared = Arc::new(Shared {
            quinn,
            transport,
            provider,
            identities,
            budget: Arc::new(budget),
            live: Arc::default(),
            next_id: AtomicU64::new(0),
            config,
        });
        let (sender, accepted) = mpsc::channel(ACCEPT_QUEUE);
        tokio::spawn(take_handshakes(Arc::clone(&shared), sender));
        Ok(Self { shared, accepted: tokio::sync::Mutex::new(accepted) })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// [`BindError::Socket`] when the system does not say.
    pub fn local_address(&self) -> Result<SocketAddr, BindError> {
        let address = self.shared.config.listen;
        self.shared.quinn.local_addr().map_err(|source| BindError::Socket { address, source })
    }

    /// Shows `identity` in the fleet from the next handshake on, whoever dials.
    ///
    /// # Errors
    /// [`BindError::Tls`] when TLS cannot use the key.
    pub fn set_identity(&self, fleet: KeyHash, identity: &Identity) -> Result<(), BindError> {
        self.shared.identities.set(fleet, identity).map_err(|error| BindError::Tls(error.to_string()))
    }

    /// Shows nothing in the fleet any more.
    pub fn remove_identity(&self, fleet: &KeyHash) {
        self.shared.identities.remove(fleet);
    }

    /// Dials a node of a fleet and judges it. That the peer accepts this side shows when a first stream opens.
    ///
    /// # Errors
    /// [`DialError`]. A peer that is refused was told why, and the reason logged here.
    pub async fn dial(&self, to: SocketAddr, fleet: &KeyHash, alpn: Alpn) -> Result<QuicConnection, DialError> {
        let identity = match (alpn, self.shared.identities.get(fleet)) {
            (Alpn::Enrol1, _) => None,
            (Alpn::Ted1, Some(identity)) => Some(identity),
            (Alpn::Ted1, None) => return Err(DialError::NoIdentity(fleet.fingerprint())),
        };
        self.shared.dial(to, fleet, alpn, identity).await
    }

    /// The next connection that a peer made and that was judged; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<QuicConnection> {
        self.accepted.lock().await.recv().await
    }

    /// Closes every live connection whose peer `matches`, with code and reason. Answers how many.
    pub fn close_matching(&self, code: u32, reason: &str, matches: impl Fn(&Peer) -> bool) -> usize {
        let matching: Vec<_> =
            self.shared.live.all().into_iter().filter(|connection| matches(connection.peer())).collect();
        for connection in &matching {
            connection.close(code, reason);
        }
        matching.len()
    }

    /// Closes every live connection whose peer has lost its standing: revoked, no longer registered, or of a fleet
    /// that is no longer trusted. To be called whenever the policy changes. Answers how many.
    pub fn enforce_policy(&self) -> usize {
        let policy = &*self.shared.config.policy;
        let mut closed = 0;
        for connection in self.shared.live.all() {
            if let Err(refusal) = judge_standing(connection.peer(), policy) {
                refuse(&connection.0.quinn, &refusal);
                closed += 1;
            }
        }
        closed
    }

    /// Closes all connections and takes no more.
    pub fn close(&self, code: u32, reason: &str) {
        self.shared.quinn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until every peer knows that its connection is closed, or cannot be told.
    pub async fn wait_idle(&self) {
        self.shared.quinn.wait_idle().await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close(0, "");
    }
}

impl Shared {
    async fn dial(
        &self,
        to: SocketAddr,
        fleet: &KeyHash,
        alpn: Alpn,
        identity: Option<Arc<CertifiedKey>>,
    ) -> Result<QuicConnection, DialError> {
        let sni = fleet_sni(fleet);
        let crypto = tls::client_config(Arc::clone(&self.provider), identity, alpn)
            .map_err(|error| DialError::Tls(error.to_string()))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::clone(&self.transport));
        let connecting = self
            .quinn
            .connect_with(client, to, &sni)
            .map_err(|error| DialError::Address { to, reason: error.to_string() })?;
        let lost = |source| DialError::Connection { to, source };
        let connection = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| lost(ConnectionError::TimedOut))?
            .map_err(|error| lost(translate(error)))?;
        match self.admit(&connection, Side::Dialler, Some(&sni)) {
            Ok(admitted) => Ok(admitted),
            Err(refusal) => {
                let _unused = hear_out(&connection).await;
                refuse(&connection, &refusal);
                Err(DialError::Refused { to, source: Box::new(refusal) })
            }
        }
    }

    /// Judges a connection whose handshake is done, and only then lets streams exist on it.
    fn admit(&self, quinn: &quinn::Connection, side: Side, dialled: Option<&str>) -> Result<QuicConnection, Refusal> {
        let handshake = quinn.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let (alpn, asked) =
            handshake.map(|data| (data.protocol.unwrap_or_default(), data.server_name)).unwrap_or_default();
        let chain: Vec<Vec<u8>> = quinn
            .peer_identity()
            .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| chain.iter().map(|certificate| certificate.to_vec()).collect())
            .unwrap_or_default();
        let facts = Facts { alpn: &alpn, sni: dialled.or(asked.as_deref()), side, chain: &chain };
        let policy = &*self.config.policy;
        let peer = judge_connection(&facts, policy, (self.config.clock)())?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let admitted = QuicConnection(Arc::new(Inner {
            quinn: quinn.clone(),
            peer,
            side,
            id,
            budget: Arc::clone(&self.budget),
            live: Arc::clone(&self.live),
            end_logged: AtomicBool::new(false),
        }));
        self.live.connections().insert(id, Arc::downgrade(&admitted.0));
        // A key revoked between judging and the line above would have been missed by `enforce_policy`.
        judge_standing(admitted.peer(), policy)?;
        let limits = &self.config.limits;
        let streams = if admitted.peer().role == PeerRole::Unenrolled {
            quinn.set_receive_window(VarInt::from_u32(limits.unenrolled_window_bytes));
            UNENROLLED_STREAMS
        } else {
            limits.streams_max
        };
        quinn.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        Ok(admitted)
    }
}

/// Takes handshakes until the endpoint closes. Many run at once; under a flood, peers first prove their addresses, and
/// beyond the limit they are turned away.
async fn take_handshakes(shared: Arc<Shared>, accepted: mpsc::Sender<QuicConnection>) {
    let most = shared.config.limits.handshakes_max;
    let under_way = Arc::new(Semaphore::new(most));
    while let Some(incoming) = shared.quinn.accept().await {
        let Ok(permit) = Arc::clone(&under_way).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        if under_way.available_permits() < most / 2 && incoming.may_retry() {
            // Fails only where `may_retry` says no.
            let _ = incoming.retry();
            continue;
        }
        let (shared, accepted) = (Arc::clone(&shared), accepted.clone());
        tokio::spawn(async move {
            if let Some(connection) = take_one(&shared, incoming).await {
                // Nobody waits any more when the endpoint was dropped.
                let _ = accepted.send(connection).await;
            }
            drop(permit);
        });
    }
}

async fn take_one(shared: &Shared, incoming: quinn::Incoming) -> Option<QuicConnection> {
    let address = incoming.remote_address();
    let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "a handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!(%address, "a handshake took too long");
            return None;
        }
    };
    match shared.admit(&connection, Side::Listener, None) {
        Ok(admitted) => Some(admitted),
        Err(refusal) => {
            refuse(&connection, &refusal);
            None
        }
    }
}

/// Closes with the refusal's code and reason, so that it stands in both logs.
fn refuse(connection: &quinn::Connection, refusal: &Refusal) {
    let (address, reason) = (connection.remote_address(), refusal.close_reason());
    tracing::warn!(%address, %reason, "a connection was refused");
    connection.close(VarInt::from_u32(refusal.close_code()), reason.as_bytes());
}

/// Waits until the listener has finished the handshake, which shows in a stream being allowed or in its own refusal.
/// A close before that would reach it as a bare TLS failure, without the reason.
/// The stream must live until the close, so that nothing of it is ever sent.
async fn hear_out(connection: &quinn::Connection) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let ready = async {
        tokio::select! {
            allowed = connection.open_bi() => allowed.ok(),
            ended = connection.closed() => {
                if let ConnectionError::Closed { reason, .. } = translate(ended) {
                    tracing::warn!(address = %connection.remote_address(), %reason, "the peer closed the connection");
                }
                None
            }
        }
    };
    // Whoever stays silent for longer is refused without hearing it.
    tokio::time::timeout(FAREWELL_TIMEOUT, ready).await.ok().flatten()
}

#[cfg(test)]
pub(in crate::transport) mod tests;
