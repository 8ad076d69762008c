//! Endpoints, links and faults for the tests of the transport.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::id::UnixMillis;
use crate::security::fixtures::{FleetFixture, NOW, PolicyFixture};
use crate::security::{Alpn, DistributorRoot, Identity, Peer, PeerRole, TrustPolicy};
use crate::transport::{
    Endpoint, EndpointOptions, FleetIdentity, MemoryConnection, MemoryLink, QuicConnection, Timing,
};

pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Waits that a loopback needs; the idle timeout ends the test of a cut.
pub(super) const QUICK: Timing = Timing {
    handshake: Duration::from_secs(10),
    idle: Duration::from_millis(1500),
    keep_alive: Duration::from_millis(200),
};

/// Two ends of one connection, and a way to cut it.
pub(super) struct Pair<C> {
    pub(super) dialler: C,
    pub(super) listener: C,
    pub(super) cut: Box<dyn FnOnce() + Send>,
    _keep: Box<dyn Any + Send>,
}

/// A connection over QUIC on loopback, through a relay that can be cut.
pub(super) async fn quic_pair() -> Pair<QuicConnection> {
    let fleet = FleetFixture::new("a.example.com");
    let server = listening(Arc::new(fleet.distributor_policy()), fleet.root(), &fleet.tls);
    let relay = Relay::to(server.local_addr().unwrap(), Answers::Pass).await;
    let client = dialling(Arc::new(fleet.subscriber_policy()), fleet.root(), Some(&fleet.subscriber));
    let key = fleet.key();
    let (dialled, accepted) = tokio::join!(client.dial(relay.address, &key, Alpn::Ted1), async {
        server.accept().await.unwrap().judge().await
    });
    Pair {
        dialler: dialled.unwrap(),
        listener: accepted.unwrap(),
        cut: Box::new(move || relay.cut()),
        _keep: Box::new((server, client)),
    }
}

/// The same within this process.
pub(super) async fn memory_pair() -> Pair<MemoryConnection> {
    let peer = |role| Peer {
        fleet: crate::id::KeyHash::from_bytes([7; 32]),
        role,
        name: Some("node.example.com".parse().unwrap()),
        key: Some(crate::id::KeyHash::from_bytes([8; 32])),
        alpn: Alpn::Ted1,
    };
    let (link, dialler, listener) =
        MemoryLink::pair(256 * 1024, peer(PeerRole::Distributor), peer(PeerRole::Subscriber));
    Pair { dialler, listener, cut: Box::new(move || link.cut()), _keep: Box::new(()) }
}

/// A listener on loopback that shows `identity` in the fleet of `root`, at the fixtures' time.
pub(super) fn listening(policy: Arc<dyn TrustPolicy>, root: &DistributorRoot, identity: &Identity) -> Endpoint {
    Endpoint::bind_with(LOOPBACK, options(policy, root, Some(identity), NOW)).unwrap()
}

pub(super) fn dialling(policy: Arc<dyn TrustPolicy>, root: &DistributorRoot, identity: Option<&Identity>) -> Endpoint {
    Endpoint::dial_only(options(policy, root, identity, NOW)).unwrap()
}

pub(super) fn options(
    policy: Arc<dyn TrustPolicy>,
    root: &DistributorRoot,
    identity: Option<&Identity>,
    now: UnixMillis,
) -> EndpointOptions {
    let fleets = vec![FleetIdentity { fleet: root.key_hash(), identity: identity.cloned() }];
    EndpointOptions::new(policy, fleets).clock(move || now).timing(QUICK)
}

/// The policy of a Distributor that has registered `more` beside its one Subscriber.
pub(super) fn policy_with(fleet: &FleetFixture, more: &[&Identity]) -> PolicyFixture {
    let policy = fleet.distributor_policy();
    for identity in more {
        policy.register(identity);
    }
    policy
}

/// What a relay does with what the server answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    Pass,
    Drop,
}

/// Carries the packets of one client to a server and back, until it is cut.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) async fn to(server: SocketAddr, answers: Answers) -> Self {
        let near = UdpSocket::bind(LOOPBACK).await.unwrap();
        let far = UdpSocket::bind(LOOPBACK).await.unwrap();
        let address = near.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut there) => {
                        client = Some(from);
                        let _ = far.send_to(&there[..length], server).await;
                    }
                    Ok((length, _)) = far.recv_from(&mut back) => {
                        if let (Some(client), Answers::Pass) = (client, answers) {
                            let _ = near.send_to(&back[..length], client).await;
                        }
                    }
                }
            }
        });
        Self { address, task }
    }

    /// From now on nothing passes.
    pub(super) fn cut(&self) {
        self.task.abort();
    }
}
