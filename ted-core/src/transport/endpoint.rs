//! The place where a node meets others: one UDP socket that dials and listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};
use quinn::{ConnectError, TokioRuntime, TransportConfig, VarInt};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::Coded;
use crate::id::{KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::security::{Alpn, Facts, Identity, Peer, Refusal, Side, TrustPolicy, fleet_sni, judge_connection};
use crate::transport::budget::SendBudget;
use crate::transport::quic::{canonical, over};
use crate::transport::tls::{Identities, certified_key, client_config, dialler, provider, server_config};
use crate::transport::{CLOSE_DONE, FleetIdentity, QuicConnection, Timing, TransportError, config, socket};

/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Where an endpoint takes the time from when it judges certificates.
type Now = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// What an endpoint is made of.
#[derive(Clone)]
pub struct EndpointOptions {
    policy: Arc<dyn TrustPolicy>,
    fleets: Vec<FleetIdentity>,
    now: Now,
    timing: Timing,
    limits: Limits,
    secret: Option<Zeroizing<[u8; 32]>>,
}

impl EndpointOptions {
    /// An endpoint that trusts whom `policy` trusts and appears as `fleets` say; certificates are judged at the
    /// system's time.
    #[must_use]
    pub fn new(policy: Arc<dyn TrustPolicy>, fleets: Vec<FleetIdentity>) -> Self {
        Self {
            policy,
            fleets,
            now: Arc::new(system_time),
            timing: Timing::default(),
            limits: Limits::DEFAULT,
            secret: None,
        }
    }

    /// Derives from this what lets a node that was killed tell its peers at once that their connections are gone. It has
    /// to be the same in every process of the node, and secret.
    #[must_use]
    pub fn secret(mut self, secret: [u8; 32]) -> Self {
        self.secret = Some(Zeroizing::new(secret));
        self
    }

    /// Takes the time from here.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        self.now = Arc::new(now);
        self
    }

    /// Waits this long for what it waits for.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Other bounds than [`Limits::DEFAULT`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// One UDP socket on which a node dials and, if it listens, is dialled. Cheap to clone.
///
/// Every connection that it hands out was judged. It lives on the Tokio runtime in which it was made.
#[derive(Clone)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    shared: Arc<Shared>,
}

struct Shared {
    policy: Arc<dyn TrustPolicy>,
    identities: Arc<Identities>,
    provider: Arc<CryptoProvider>,
    transport: Arc<TransportConfig>,
    handshakes: Arc<Semaphore>,
    now: Now,
    timing: Timing,
    limits: Limits,
    secret: Option<Zeroizing<[u8; 32]>>,
    budget: Arc<SendBudget<quinn::Connection>>,
}

impl Endpoint {
    /// Listens and dials on `listen`; `[::]` takes IPv4 as well, and port 0 any free port.
    ///
    /// # Errors
    /// [`TransportError::Bind`], [`TransportError::Tls`].
    pub fn bind(
        listen: SocketAddr,
        policy: Arc<dyn TrustPolicy>,
        fleets: Vec<FleetIdentity>,
    ) -> Result<Self, TransportError> {
        Self::bind_with(listen, EndpointOptions::new(policy, fleets))
    }

    /// [`Endpoint::bind`] with options.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn bind_with(listen: SocketAddr, options: EndpointOptions) -> Result<Self, TransportError> {
        let bind_error = |source| TransportError::Bind { address: listen, source };
        let shared = Shared::new(options)?;
        let tls = server_config(&shared.provider, &shared.identities)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(shared.transport.clone());
        let udp = socket::bind(listen).map_err(bind_error)?;
        let quinn = quinn::Endpoint::new(
            config::endpoint(shared.secret.as_deref())?,
            Some(server),
            udp,
            Arc::new(TokioRuntime),
        );
        Ok(Self { quinn: quinn.map_err(bind_error)?, shared: Arc::new(shared) })
    }

    /// Dials only, from any free port: whoever sends to it is not answered.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn dial_only(options: EndpointOptions) -> Result<Self, TransportError> {
        let bind_error = |source| TransportError::Bind { address: socket::any_address(), source };
        let shared = Shared::new(options)?;
        let udp = socket::bind_any().map_err(bind_error)?;
        let quinn =
            quinn::Endpoint::new(config::endpoint(shared.secret.as_deref())?, None, udp, Arc::new(TokioRuntime));
        Ok(Self { quinn: quinn.map_err(bind_error)?, shared: Arc::new(shared) })
    }

    /// Appears as `fleets` say from the next handshake on: after a renewal, an enrolment, new trust.
    ///
    /// # Errors
    /// [`TransportError::Tls`] when a key cannot be used; then everything stays as it was.
    pub fn set_identities(&self, fleets: &[FleetIdentity]) -> Result<(), TransportError> {
        self.shared.identities.set(fleets)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> Result<SocketAddr, TransportError> {
        let address = socket::any_address();
        self.quinn.local_addr().map_err(|source| TransportError::Bind { address, source })
    }

    /// The next peer that dials; `None` once the endpoint is closed. Judge each in a task of its own, because one that
    /// stalls takes as long as it likes, up to the handshake timeout.
    ///
    /// While very many handshakes are under way it waits for one to end; peers wait meanwhile. Under such load a peer
    /// must show first that it receives at the address it sends from.
    pub async fn accept(&self) -> Option<Incoming> {
        let permits = &self.shared.handshakes;
        loop {
            // Never closed, so this always gets its permit.
            let permit = permits.clone().acquire_owned().await.ok()?;
            let inner = self.quinn.accept().await?;
            let crowded = permits.available_permits() < self.shared.limits.handshakes_max / 2;
            if crowded && inner.may_retry() && !inner.remote_address_validated() {
                if let Err(error) = inner.retry() {
                    error.into_incoming().ignore();
                }
                continue;
            }
            return Some(Incoming { inner, shared: self.shared.clone(), _permit: permit });
        }
    }

    /// Dials the node at `address` and judges whoever answers: it must be the peer that this node expects in the
    /// fleet of the Distributor with the key `fleet`. On [`Alpn::Enrol1`] no certificate is shown.
    ///
    /// The other side judges in its turn, and may close the connection a round trip later; then the first
    /// [`open`](crate::transport::Connection::open) says why.
    ///
    /// # Errors
    /// [`TransportError`]; a peer that is refused hears the reason, too.
    pub async fn dial(
        &self,
        address: SocketAddr,
        fleet: &KeyHash,
        alpn: Alpn,
    ) -> Result<QuicConnection, TransportError> {
        let tls = client_config(&self.shared.provider, &self.shared.identities, fleet, alpn)?;
        self.dial_with(address, fleet, tls).await
    }

    /// As [`Endpoint::dial`] on [`Alpn::Ted1`], showing `identity` instead of what this endpoint appears as in that
    /// fleet: for programs that are many nodes at once.
    ///
    /// # Errors
    /// As [`Endpoint::dial`].
    pub async fn dial_as(
        &self,
        address: SocketAddr,
        fleet: &KeyHash,
        identity: &Identity,
    ) -> Result<QuicConnection, TransportError> {
        let shown = certified_key(identity)?;
        let tls = dialler(&self.shared.provider, Alpn::Ted1.as_bytes(), Some(shown))?;
        self.dial_with(address, fleet, tls).await
    }

    async fn dial_with(
        &self,
        address: SocketAddr,
        fleet: &KeyHash,
        tls: QuicClientConfig,
    ) -> Result<QuicConnection, TransportError> {
        let mut client = quinn::ClientConfig::new(Arc::new(tls));
        client.transport_config(self.shared.transport.clone());
        let sni = fleet_sni(fleet);
        let connecting = self.quinn.connect_with(client, address, &sni).map_err(|error| match error {
            ConnectError::EndpointStopping => {
                TransportError::Handshake { address, source: crate::transport::ConnectionError::ClosedHere }
            }
            error => TransportError::Address { address, reason: error.to_string() },
        })?;
        let waited = self.shared.timing.handshake;
        let connection = timeout(waited, connecting)
            .await
            .map_err(|_| TransportError::Silent { address, waited })?
            .map_err(|error| TransportError::Handshake { address, source: over(error) })?;
        match self.shared.judge(&connection, Side::Dialler, Some(&sni)) {
            Ok(peer) => Ok(self.shared.accepted(connection, peer)),
            Err(refusal) => {
                turn_away(&connection, address, &refusal);
                Err(TransportError::Refused { address, source: Box::new(refusal) })
            }
        }
    }

    /// Closes every connection with `reason`, takes no more, and waits a little until the other sides know.
    pub async fn close(&self, reason: &str) {
        self.quinn.close(VarInt::from_u32(CLOSE_DONE), reason.as_bytes());
        if timeout(GOODBYE, self.quinn.wait_idle()).await.is_err() {
            tracing::debug!("some peers did not hear the goodbye");
        }
    }
}

impl Shared {
    fn new(options: EndpointOptions) -> Result<Self, TransportError> {
        let EndpointOptions { policy, fleets, now, timing, limits, secret } = options;
        Ok(Self {
            policy,
            identities: Arc::new(Identities::new(&fleets)?),
            provider: provider(),
            transport: config::transport(&timing)?,
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            now,
            timing,
            budget: SendBudget::new(limits.send_budget_bytes),
            limits,
            secret,
        })
    }

    fn accepted(&self, connection: quinn::Connection, peer: Peer) -> QuicConnection {
        QuicConnection::accepted(connection, peer, self.limits.streams_max, self.budget.clone())
    }

    /// Gathers what the handshake left behind and has it judged. `asked` is the server name that a dialler asked for.
    fn judge(&self, connection: &quinn::Connection, side: Side, asked: Option<&str>) -> Result<Peer, Refusal> {
        let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let (alpn, shown) = data.map(|data| (data.protocol, data.server_name)).unwrap_or_default();
        let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let chain: Vec<Vec<u8>> =
            chain.into_iter().flat_map(|chain| *chain).map(|certificate| certificate.to_vec()).collect();
        let facts =
            Facts { alpn: alpn.as_deref().unwrap_or_default(), sni: asked.or(shown.as_deref()), side, chain: &chain };
        judge_connection(&facts, &*self.policy, (self.now)())
    }
}

/// A peer that dials and was not judged yet. Dropped, it is refused without a word.
pub struct Incoming {
    inner: quinn::Incoming,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Incoming {
    /// Where it dials from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }

    /// Completes the handshake and judges the peer. One that is refused is told code and reason, has been served
    /// nothing, and stands in the log.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn judge(self) -> Result<QuicConnection, Refused> {
        let address = self.address();
        let shared = self.shared.clone();
        let connection = self.shake_hands().await.inspect_err(|refused| {
            tracing::warn!(%address, code = refused.code, reason = refused.reason, "a handshake failed");
        })?;
        match shared.judge(&connection, Side::Listener, None) {
            Ok(peer) => Ok(shared.accepted(connection, peer)),
            Err(refusal) => {
                turn_away(&connection, address, &refusal);
                Err(Refused { address, code: refusal.code(), reason: refusal.to_string() })
            }
        }
    }

    async fn shake_hands(self) -> Result<quinn::Connection, Refused> {
        let address = self.address();
        let failed = |error: quinn::ConnectionError| {
            let error = over(error);
            Refused { address, code: error.code(), reason: error.to_string() }
        };
        let waited = self.shared.timing.handshake;
        match timeout(waited, self.inner.accept().map_err(failed)?).await {
            Ok(connection) => connection.map_err(failed),
            Err(_) => {
                let error = TransportError::Silent { address, waited };
                Err(Refused { address, code: error.code(), reason: error.to_string() })
            }
        }
    }
}

/// A peer that dialled and was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it dialled from.
    pub address: SocketAddr,
    /// The code, `TED-…`.
    pub code: &'static str,
    /// Why, in words.
    pub reason: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was refused: {}: {}", self.address, self.code, self.reason)
    }
}

impl std::error::Error for Refused {}

impl Coded for Refused {
    fn code(&self) -> &'static str {
        self.code
    }
}

fn turn_away(connection: &quinn::Connection, address: SocketAddr, refusal: &Refusal) {
    tracing::warn!(%address, code = refusal.code(), reason = %refusal, "a peer was refused");
    connection.close(VarInt::from_u32(refusal.close_code()), refusal.close_reason().as_bytes());
}

fn system_time() -> UnixMillis {
    // A clock before 1970 is as wrong as one that stands at 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
