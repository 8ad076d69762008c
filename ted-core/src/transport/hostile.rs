//! Peers that may not speak, and peers that only disturb.

use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

use crate::error::Coded;
use crate::security::fixtures::{FleetFixture, NOW};
use crate::security::{Alpn, Identity, PeerRole, TrustPolicy, Usage, fleet_sni};
use crate::transport::fixtures::{Answers, LOOPBACK, QUICK, Relay, dialling, listening, options, policy_with};
use crate::transport::quic::over;
use crate::transport::tls::{certified_key, dialler, provider};
use crate::transport::{
    Connection, ConnectionError, Endpoint, FleetIdentity, QuicConnection, Refused, Timing, TransportError, config,
};

const YEARS: Duration = Duration::from_secs(2 * 366 * 86_400);
const A: &str = "a.example.com";

/// A dialler that follows none of our rules: any server name, protocol and certificate.
async fn dial_raw(
    to: &Endpoint,
    sni: &str,
    alpn: &[u8],
    shown: Option<&Identity>,
) -> Result<quinn::Connection, ConnectionError> {
    let tls = dialler(&provider(), alpn, shown.map(|identity| certified_key(identity).unwrap())).unwrap();
    let mut client = quinn::ClientConfig::new(Arc::new(tls));
    client.transport_config(config::transport(&QUICK).unwrap());
    let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
    endpoint.connect_with(client, to.local_addr().unwrap(), sni).unwrap().await.map_err(over)
}

async fn judge_next(endpoint: &Endpoint) -> Result<QuicConnection, Refused> {
    endpoint.accept().await.unwrap().judge().await
}

#[tokio::test]
async fn a_listener_closes_on_whoever_may_not_speak_before_a_stream_exists_and_both_ends_know_why() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
    let stranger = a.issue(Usage::SubscriberIdentity, "new.example.com");
    let revoked = a.issue(Usage::SubscriberIdentity, "bad.example.com");
    let policy = policy_with(&a, &[&revoked, &b.subscriber]);
    policy.revoke(&revoked);
    let policy: Arc<dyn TrustPolicy> = Arc::new(policy);
    let now = listening(policy.clone(), a.root(), &a.tls);
    let later = Endpoint::bind_with(LOOPBACK, options(policy, a.root(), Some(&a.tls), NOW.plus(YEARS))).unwrap();
    for (what, listener, shown, code) in [
        ("no certificate", &now, None, "TED-1303"),
        ("fleet B's certificate under A's name", &now, Some(&b.subscriber), "TED-1105"),
        ("a Distributor's certificate in a Subscriber's role", &now, Some(&a.tls), "TED-1104"),
        ("a key that is not registered", &now, Some(&stranger), "TED-1304"),
        ("a revoked key", &now, Some(&revoked), "TED-1305"),
        ("an expired certificate", &later, Some(&a.subscriber), "TED-1107"),
    ] {
        let sni = fleet_sni(&a.key());
        let (there, here) = tokio::join!(
            async {
                let connection = dial_raw(listener, &sni, b"ted/1", shown).await.expect(what);
                let opened = connection.open_bi().await.map(drop).map_err(over);
                (opened, over(connection.closed().await))
            },
            judge_next(listener),
        );
        let here = here.expect_err(what);
        assert_eq!(here.code, code, "{what}: {here}");
        let (opened, closed) = there;
        let ConnectionError::ClosedByPeer { code: number, reason } = &closed else { panic!("{what}: {closed}") };
        assert_eq!((format!("TED-{number}").as_str(), reason), (code, &format!("{code}: {}", here.reason)), "{what}");
        assert_eq!(opened, Err(closed.clone()), "{what}: no stream was granted");
        assert!(!closed.is_retryable(), "{what}");
    }
}

#[tokio::test]
async fn a_dialler_refuses_whoever_is_not_the_distributor_and_both_ends_know_why() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
    let twin = FleetFixture::new(A);
    let revoked = a.issue(Usage::DistributorTls, A);
    let policy = Arc::new(a.subscriber_policy());
    policy.revoke(&revoked);
    let client = dialling(policy, a.root(), Some(&a.subscriber));
    for (what, shown, code) in [
        ("a Subscriber that is no parent", &a.subscriber, "TED-1307"),
        ("the root itself", &a.authority.identity(), "TED-1104"),
        ("fleet B's certificate under A's name", &b.tls, "TED-1105"),
        ("another Distributor of the same name", &twin.tls, "TED-1105"),
        ("a revoked key", &revoked, "TED-1305"),
    ] {
        for alpn in Alpn::ALL {
            let listener = listening(Arc::new(a.distributor_policy()), a.root(), shown);
            let address = listener.local_addr().unwrap();
            let fleet = a.key();
            let (here, there) = tokio::join!(client.dial(address, &fleet, alpn), async {
                match judge_next(&listener).await {
                    Ok(connection) => connection.closed().await.to_string(),
                    Err(refused) => refused.reason,
                }
            });
            let here = here.map(drop).expect_err(what);
            assert_eq!(here.code(), code, "{what}: {here}");
            assert!(there.contains(code), "{what}: {there}");
        }
    }
}

#[tokio::test]
async fn a_fleet_or_protocol_that_nobody_knows_ends_in_the_handshake() {
    let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
    let listener = listening(Arc::new(a.distributor_policy()), a.root(), &a.tls);
    for (sni, alpn, code) in [
        (fleet_sni(&b.key()), &b"ted/1"[..], "TED-1314"),
        ("dist.example.com".to_owned(), b"ted/1", "TED-1314"),
        (fleet_sni(&a.key()), b"h3", "TED-1313"),
    ] {
        let (there, here) = tokio::join!(dial_raw(&listener, &sni, alpn, Some(&a.subscriber)), judge_next(&listener));
        assert_eq!(there.map(drop).expect_err(&sni).code(), code, "{sni}");
        assert_eq!(here.map(drop).expect_err(&sni).code, code, "{sni}");
    }
}

#[tokio::test]
async fn enrolling_needs_no_certificate_and_goes_to_a_distributor_only() {
    let a = FleetFixture::new(A);
    let listener = listening(Arc::new(a.distributor_policy()), a.root(), &a.tls);
    let client = dialling(Arc::new(a.subscriber_policy()), a.root(), None);
    let (address, fleet) = (listener.local_addr().unwrap(), a.key());
    let unready = client.dial(address, &fleet, Alpn::Ted1).await.map(drop);
    assert!(matches!(unready, Err(TransportError::NoIdentity { .. })));
    let (dialled, accepted) = tokio::join!(client.dial(address, &fleet, Alpn::Enrol1), judge_next(&listener));
    assert_eq!(dialled.unwrap().peer().role, PeerRole::Distributor);
    let accepted = accepted.unwrap();
    assert_eq!((accepted.peer().role, accepted.peer().key), (PeerRole::Unenrolled, None));

    let subscriber = listening(Arc::new(a.subscriber_policy()), a.root(), &a.subscriber);
    let sni = fleet_sni(&fleet);
    let (_, here) = tokio::join!(dial_raw(&subscriber, &sni, b"ted-enrol/1", None), judge_next(&subscriber));
    assert_eq!(here.map(drop).unwrap_err().code, "TED-1306");
}

#[tokio::test]
async fn a_distributor_dials_its_subscriber_under_the_same_rules() {
    let a = FleetFixture::new(A);
    let subscriber = listening(Arc::new(a.subscriber_policy()), a.root(), &a.subscriber);
    let distributor = dialling(Arc::new(a.distributor_policy()), a.root(), Some(&a.tls));
    let (address, fleet) = (subscriber.local_addr().unwrap(), a.key());
    let (dialled, accepted) = tokio::join!(distributor.dial(address, &fleet, Alpn::Ted1), judge_next(&subscriber));
    let dialled = dialled.unwrap();
    assert_eq!((dialled.peer().role, dialled.remote_address()), (PeerRole::Subscriber, address));
    assert_eq!(accepted.unwrap().peer().role, PeerRole::Distributor);
}

#[tokio::test]
async fn trust_and_certificates_that_change_count_from_the_next_handshake_on() {
    let a = FleetFixture::new(A);
    let policy = Arc::new(a.distributor_policy());
    let listener = Endpoint::bind_with(LOOPBACK, options(policy.clone(), a.root(), None, NOW)).unwrap();
    let client = dialling(Arc::new(a.subscriber_policy()), a.root(), None);
    let (address, fleet) = (listener.local_addr().unwrap(), a.key());
    let connect = || async { tokio::join!(client.dial(address, &fleet, Alpn::Ted1), judge_next(&listener)) };

    let shown = |identity: &Identity| [FleetIdentity { fleet: a.key(), identity: Some(identity.clone()) }];
    client.set_identities(&shown(&a.subscriber)).unwrap();
    let (dialled, _) = connect().await;
    assert_eq!(dialled.map(drop).unwrap_err().code(), "TED-1314", "the listener has no certificate yet");
    listener.set_identities(&shown(&a.tls)).unwrap();
    let (dialled, accepted) = connect().await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    policy.revoke(&a.subscriber);
    let (_, refused) = connect().await;
    assert_eq!(refused.map(drop).unwrap_err().code, "TED-1305");
    // Those that live are the drivers' business.
    accepted.close(1305, "TED-1305: revoked");
    assert_eq!(dialled.closed().await.to_string(), "the other side closed the connection: TED-1305: revoked");
}

#[tokio::test]
async fn garbage_and_stalled_handshakes_do_not_disturb_others() {
    let a = FleetFixture::new(A);
    let timing = Timing { handshake: Duration::from_secs(1), ..QUICK };
    let policy = Arc::new(a.distributor_policy());
    let listener = Endpoint::bind_with(LOOPBACK, options(policy, a.root(), Some(&a.tls), NOW).timing(timing)).unwrap();
    let (address, fleet) = (listener.local_addr().unwrap(), a.key());

    // Hellos arrive and what is answered does not. The dialler is the more patient one.
    let relay = Relay::to(address, Answers::Drop).await;
    let stalling = dialling(Arc::new(a.subscriber_policy()), a.root(), Some(&a.subscriber));
    let dialling_in_vain =
        tokio::spawn(async move { stalling.dial(relay.address, &fleet, Alpn::Ted1).await.map(drop) });
    let stalled = tokio::spawn(listener.accept().await.unwrap().judge());

    let noise = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let mut state = 1u64;
    for number in 0..2000_usize {
        let mut datagram = vec![0u8; 1 + number % 1400];
        for byte in &mut datagram {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        if number % 2 == 0 {
            // The long header of QUIC version 1.
            let header = [0xc3, 0, 0, 0, 1];
            let length = datagram.len().min(header.len());
            datagram[..length].copy_from_slice(&header[..length]);
        }
        noise.send_to(&datagram, address).unwrap();
    }

    let client = dialling(Arc::new(a.subscriber_policy()), a.root(), Some(&a.subscriber));
    let accepting = listener.clone();
    let accepted = tokio::spawn(async move {
        // What looked like a handshake among the noise is refused in a task of its own.
        let mut judging = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                Some(incoming) = accepting.accept() => { judging.spawn(incoming.judge()); }
                Some(Ok(Ok(connection))) = judging.join_next() => return connection,
            }
        }
    });
    client.dial(address, &fleet, Alpn::Ted1).await.unwrap();
    accepted.await.unwrap();
    assert_eq!(stalled.await.unwrap().map(drop).unwrap_err().code, "TED-1324");
    dialling_in_vain.abort();
}

#[tokio::test]
async fn a_dialler_gives_up_on_an_address_that_stays_silent() {
    let a = FleetFixture::new(A);
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let timing = Timing { handshake: Duration::from_millis(300), ..QUICK };
    let policy = Arc::new(a.subscriber_policy());
    let client = Endpoint::dial_only(options(policy, a.root(), Some(&a.subscriber), NOW).timing(timing)).unwrap();
    let error = client.dial(silent.local_addr().unwrap(), &a.key(), Alpn::Ted1).await.map(drop).unwrap_err();
    assert!(matches!(error, TransportError::Silent { .. }) && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn handshakes_beyond_the_bound_wait_and_diallers_prove_their_address() {
    let a = FleetFixture::new(A);
    let limits = crate::limits::Limits { handshakes_max: 2, ..crate::limits::Limits::DEFAULT };
    let policy = Arc::new(a.distributor_policy());
    let listener = Endpoint::bind_with(LOOPBACK, options(policy, a.root(), Some(&a.tls), NOW).limits(limits)).unwrap();
    let client = dialling(Arc::new(a.subscriber_policy()), a.root(), Some(&a.subscriber));
    let (address, fleet) = (listener.local_addr().unwrap(), a.key());
    let dial = || {
        let (client, fleet) = (client.clone(), fleet);
        tokio::spawn(async move { client.dial(address, &fleet, Alpn::Ted1).await })
    };
    let dialled = [dial(), dial(), dial()];
    let first = listener.accept().await.unwrap();
    let second = listener.accept().await.unwrap();
    let waiting = listener.clone();
    let third = tokio::spawn(async move { judge_next(&waiting).await });
    let first = first.judge().await.unwrap();
    let second = second.judge().await.unwrap();
    let third = third.await.unwrap().unwrap();
    for dialled in dialled {
        dialled.await.unwrap().unwrap();
    }
    drop((first, second, third));
}

#[tokio::test]
async fn closing_an_endpoint_tells_every_peer_why_and_ends_accept_and_dial() {
    let a = FleetFixture::new(A);
    let listener = listening(Arc::new(a.distributor_policy()), a.root(), &a.tls);
    let client = dialling(Arc::new(a.subscriber_policy()), a.root(), Some(&a.subscriber));
    let (address, fleet) = (listener.local_addr().unwrap(), a.key());
    let (dialled, accepted) = tokio::join!(client.dial(address, &fleet, Alpn::Ted1), judge_next(&listener));
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    listener.close("the Distributor is stopping").await;
    let there = dialled.closed().await;
    assert_eq!(
        there,
        ConnectionError::closed_by_peer(VarInt::from_u32(0).into_inner() as u32, b"the Distributor is stopping")
    );
    assert!(there.is_retryable());
    assert_eq!(accepted.closed().await, ConnectionError::ClosedHere);
    assert!(listener.accept().await.is_none());
    let dialling_on = listener.dial(address, &fleet, Alpn::Ted1).await.map(drop).unwrap_err();
    assert_eq!(dialling_on.code(), "TED-1311");
}
