//! Real QUIC on the loopback: who gets in, who is told why not, and that nothing is served before.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::*;
use crate::security::fixtures::{FleetFixture, NOW, PolicyFixture};
use crate::security::{FleetRole, Usage};
use crate::transport::{RecvHalf as _, SendHalf as _};

const A: &str = "a.example.com";
const B: &str = "b.example.com";
const AFTER_A_YEAR: UnixMillis = UnixMillis::from_millis(NOW.millis() + 366 * 86_400_000);

fn endpoint_at(policy: PolicyFixture, now: UnixMillis) -> (Endpoint, Arc<PolicyFixture>) {
    let policy = Arc::new(policy);
    let config = EndpointConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        policy: Arc::<PolicyFixture>::clone(&policy) as _,
        clock: Arc::new(move || now),
        limits: Limits::DEFAULT,
    };
    (Endpoint::bind(config).unwrap(), policy)
}

fn endpoint(policy: PolicyFixture) -> (Endpoint, Arc<PolicyFixture>) {
    endpoint_at(policy, NOW)
}

fn distributor(fleet: &FleetFixture) -> (Endpoint, Arc<PolicyFixture>) {
    let (endpoint, policy) = endpoint(fleet.distributor_policy());
    endpoint.set_identity(fleet.key(), &fleet.tls).unwrap();
    (endpoint, policy)
}

fn subscriber(fleet: &FleetFixture) -> Endpoint {
    let (endpoint, _) = endpoint(fleet.subscriber_policy());
    endpoint.set_identity(fleet.key(), &fleet.subscriber).unwrap();
    endpoint
}

/// Whom the dialling Subscriber and the listening Distributor see.
pub(in crate::transport) fn peers() -> (Peer, Peer) {
    let fleet = KeyHash::from_bytes([1; 32]);
    let peer =
        |role, key| Peer { fleet, role, name: None, key: Some(KeyHash::from_bytes([key; 32])), alpn: Alpn::Ted1 };
    (peer(PeerRole::Distributor, 2), peer(PeerRole::Subscriber, 3))
}

/// A Subscriber's and its Distributor's end of one connection, and what they live on.
pub(in crate::transport) async fn quic_pair() -> (QuicConnection, QuicConnection, (Endpoint, Endpoint)) {
    let fleet = FleetFixture::new(A);
    let ((listener, _), dialler) = (distributor(&fleet), subscriber(&fleet));
    let (to, key) = (listener.local_address().unwrap(), fleet.key());
    let (dialled, accepted) = tokio::join!(dialler.dial(to, &key, Alpn::Ted1), listener.accept());
    (dialled.unwrap(), accepted.unwrap(), (listener, dialler))
}

/// Opens a stream, asks, and waits for an answer: what a refused peer tries.
async fn try_to_be_served(connection: &QuicConnection) -> Result<(), ConnectionError> {
    let (mut send, mut recv) = connection.open().await?;
    let _ = send.write(Bytes::from_static(b"Fetch")).await;
    let _ = recv.read_chunks(&mut [Bytes::new()]).await;
    Err(connection.closed().await)
}

fn assert_told(error: &ConnectionError, code: &str) {
    let ConnectionError::Closed { code: number, reason } = error else { panic!("{error}") };
    assert_eq!(format!("TED-{number}"), code, "{reason}");
    assert!(reason.starts_with(code), "{reason}");
}

#[tokio::test]
async fn whoever_a_listener_refuses_is_told_why_and_served_nothing() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new(B));
    let stranger = a.issue(Usage::SubscriberIdentity, "new.example.com");
    let revoked = a.issue(Usage::SubscriberIdentity, "bad.example.com");
    let (listener, policy) = distributor(&a);
    policy.register(&revoked);
    policy.revoke(&revoked);
    let (late, _) = endpoint_at(a.distributor_policy(), AFTER_A_YEAR);
    late.set_identity(a.key(), &a.tls).unwrap();
    for (what, shown, listener, code) in [
        ("no certificate on ted/1", None, &listener, "TED-1303"),
        ("fleet B's certificate under A's name", Some(&b.subscriber), &listener, "TED-1105"),
        ("a Distributor's own certificate", Some(&a.tls), &listener, "TED-1104"),
        ("an encryption certificate", Some(&a.issue(Usage::SubscriberEncryption, "s")), &listener, "TED-1104"),
        ("a key that is not registered", Some(&stranger), &listener, "TED-1304"),
        ("a revoked key", Some(&revoked), &listener, "TED-1305"),
        ("an expired certificate", Some(&a.subscriber), &late, "TED-1107"),
    ] {
        let (dialler, _) = endpoint(a.subscriber_policy());
        let certified = shown.map(|identity| {
            dialler.set_identity(a.key(), identity).unwrap();
            dialler.shared.identities.get(&a.key()).unwrap()
        });
        let to = listener.local_address().unwrap();
        let connection = dialler.shared.dial(to, &a.key(), Alpn::Ted1, certified).await.expect(what);
        assert_told(&try_to_be_served(&connection).await.unwrap_err(), code);
    }
    let good = subscriber(&a);
    let connection = good.dial(listener.local_address().unwrap(), &a.key(), Alpn::Ted1).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(accepted.peer().key, Some(a.subscriber.certificate.key_hash()), "the first that came out of it");
    drop(connection);
}

#[tokio::test]
async fn whom_a_dialler_refuses_is_told_why_and_served_nothing() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new(B));
    let twin = FleetFixture::new(A);
    let (revoked, policy) = (&a.tls, a.subscriber_policy());
    policy.revoke(revoked);
    for (what, shown, policy, now, code) in [
        ("a Subscriber in the Distributor's role", &a.subscriber, a.subscriber_policy(), NOW, "TED-1104"),
        ("another Distributor", &b.tls, a.subscriber_policy(), NOW, "TED-1105"),
        ("another Distributor of the same name", &twin.tls, a.subscriber_policy(), NOW, "TED-1105"),
        ("a revoked Distributor", revoked, policy, NOW, "TED-1305"),
        ("an expired Distributor", &a.tls, a.subscriber_policy(), AFTER_A_YEAR, "TED-1107"),
    ] {
        let (listener, _) = endpoint(a.distributor_policy());
        listener.set_identity(a.key(), shown).unwrap();
        let (dialler, _) = endpoint_at(policy, now);
        dialler.set_identity(a.key(), &a.subscriber).unwrap();
        let to = listener.local_address().unwrap();
        let key = a.key();
        let (dialled, accepted) = tokio::join!(dialler.dial(to, &key, Alpn::Ted1), listener.accept());
        let error = dialled.expect_err(what);
        assert!(matches!(&error, DialError::Refused { .. }), "{error:?}");
        assert_eq!(crate::error::Coded::code(&error), code, "{what}");
        let accepted = accepted.unwrap();
        assert_told(&accepted.closed().await, code);
        assert!(accepted.accept().await.is_err(), "no stream came");
    }
}

#[tokio::test]
async fn a_node_of_another_fleet_gets_a_reason_and_not_a_bare_tls_failure() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new(A));
    let (listener, _) = distributor(&a);
    let dialler = subscriber(&b);
    let to = listener.local_address().unwrap();
    let error = dialler.dial(to, &b.key(), Alpn::Ted1).await.unwrap_err();
    assert_eq!(crate::error::Coded::code(&error), "TED-1105");
}

#[tokio::test]
async fn dialling_without_a_certificate_is_refused_here_already() {
    let a = FleetFixture::new(A);
    let (listener, _) = distributor(&a);
    let (dialler, _) = endpoint(a.subscriber_policy());
    let to = listener.local_address().unwrap();
    let error = dialler.dial(to, &a.key(), Alpn::Ted1).await.unwrap_err();
    assert!(matches!(error, DialError::NoIdentity(_)), "{error}");
}

#[tokio::test]
async fn a_node_without_certificates_may_enrol_on_one_stream_at_a_time() {
    let a = FleetFixture::new(A);
    let (listener, _) = distributor(&a);
    let (dialler, _) = endpoint(a.subscriber_policy());
    let to = listener.local_address().unwrap();
    let key = a.key();
    let (dialled, accepted) = tokio::join!(dialler.dial(to, &key, Alpn::Enrol1), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((accepted.peer().role, accepted.peer().alpn), (PeerRole::Unenrolled, Alpn::Enrol1));
    assert_eq!(dialled.peer().role, PeerRole::Distributor);
    let (mut send, _recv) = dialled.open().await.unwrap();
    send.write(Bytes::from_static(b"Enrol")).await.unwrap();
    let second = tokio::time::timeout(Duration::ZERO, dialled.open()).await;
    assert!(second.is_err(), "a second stream has to wait");
}

#[tokio::test]
async fn one_endpoint_serves_several_fleets_each_with_its_own_certificate() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new(B));
    let policy = a.distributor_policy().with(b.root(), FleetRole::Distributor);
    policy.register(&b.subscriber);
    let (listener, _) = endpoint(policy);
    listener.set_identity(a.key(), &a.tls).unwrap();
    listener.set_identity(b.key(), &b.tls).unwrap();
    let to = listener.local_address().unwrap();
    for fleet in [&a, &b] {
        let dialler = subscriber(fleet);
        let dialled = dialler.dial(to, &fleet.key(), Alpn::Ted1).await.unwrap();
        assert_eq!(dialled.peer().key, Some(fleet.tls.certificate.key_hash()));
        assert_eq!(listener.accept().await.unwrap().peer().fleet, fleet.key());
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let a = FleetFixture::new(A);
    let (listener, _) = distributor(&a);
    let dialler = subscriber(&a);
    let to = listener.local_address().unwrap();
    let renewed = a.issue(Usage::DistributorTls, A);
    let before = dialler.dial(to, &a.key(), Alpn::Ted1).await.unwrap();
    let before_accepted = listener.accept().await.unwrap();
    listener.set_identity(a.key(), &renewed).unwrap();
    let after = dialler.dial(to, &a.key(), Alpn::Ted1).await.unwrap();
    assert_eq!(before.peer().key, Some(a.tls.certificate.key_hash()));
    assert_eq!(after.peer().key, Some(renewed.certificate.key_hash()));
    drop(before_accepted);
}

#[tokio::test]
async fn revoking_closes_live_connections_at_once_and_only_those() {
    let a = FleetFixture::new(A);
    let (listener, policy) = distributor(&a);
    let other = a.issue(Usage::SubscriberIdentity, "other.example.com");
    policy.register(&other);
    let to = listener.local_address().unwrap();
    let (first, second) = (subscriber(&a), subscriber(&a));
    second.set_identity(a.key(), &other).unwrap();
    let stays = first.dial(to, &a.key(), Alpn::Ted1).await.unwrap();
    let _stays = listener.accept().await.unwrap();
    let goes = second.dial(to, &a.key(), Alpn::Ted1).await.unwrap();
    let _goes = listener.accept().await.unwrap();
    assert_eq!(listener.enforce_policy(), 0);
    policy.revoke(&other);
    assert_eq!(listener.enforce_policy(), 1);
    let told = tokio::time::timeout(Duration::from_secs(1), goes.closed()).await.unwrap();
    assert_told(&told, "TED-1305");
    let matched = listener.close_matching(0, "done", |peer| peer.role == PeerRole::Subscriber);
    assert!(matched >= 1);
    assert_eq!(stays.closed().await, ConnectionError::Closed { code: 0, reason: "done".to_owned() });
}

#[tokio::test]
async fn forgotten_connections_leave_nothing_behind() {
    let (dialled, accepted, (listener, dialler)) = quic_pair().await;
    assert_eq!((listener.shared.live.all().len(), dialler.shared.live.all().len()), (1, 1));
    drop((dialled, accepted));
    assert_eq!((listener.shared.live.all().len(), dialler.shared.live.all().len()), (0, 0));
}

#[tokio::test]
async fn dialling_where_nobody_listens_fails_and_may_be_tried_again() {
    let a = FleetFixture::new(A);
    let dialler = subscriber(&a);
    let mute = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    tokio::time::pause();
    let error = dialler.dial(mute.local_addr().unwrap(), &a.key(), Alpn::Ted1).await.unwrap_err();
    assert_eq!(crate::error::Coded::code(&error), "TED-1313");
    assert!(crate::error::Coded::is_retryable(&error));
    let elsewhere = (Ipv6Addr::LOCALHOST, 9).into();
    let error = dialler.dial(elsewhere, &a.key(), Alpn::Ted1).await.unwrap_err();
    assert_eq!(crate::error::Coded::code(&error), "TED-1321");
}

#[tokio::test]
async fn garbage_and_another_protocol_do_not_disturb_the_listener() {
    let a = FleetFixture::new(A);
    let (listener, _) = distributor(&a);
    let to = listener.local_address().unwrap();
    let noise = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for length in [0, 1, 20, 1200, 1400] {
        noise.send_to(&vec![0xc3; length], to).unwrap();
    }
    let dialler = subscriber(&a);
    let dialled = dialler.dial(to, &a.key(), Alpn::Ted1).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(accepted.peer().role, PeerRole::Subscriber);
    drop(dialled);
}
