//! What is issued is renewed at two thirds of its life, and nobody resolves anything.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use ted_core::distributor::Renew;
use ted_core::security::Usage;
use ted_core::store::{NodeRole, SecurityDir};
use ted_core::{DistributorEvent, SubscriberEvent};

use crate::support::{TestClock, World, event, within};

const DAY: Duration = Duration::from_secs(24 * 3600);
const STEP: Duration = DAY.saturating_mul(25);
const TEN_YEARS: Duration = DAY.saturating_mul(3653);

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_pass_with_deliveries_and_without_resolving() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let invite = world.invite("one.example").await;
    let joining = world.builder("one.example").clock(clock.clone()).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;

    let key = world.distributor.status().await.expect("readable").subscribers[0].fingerprint.clone();
    let root = world.distributor.root();
    let (mut signing, mut tls, mut own) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for step in 0..TEN_YEARS.as_secs() / STEP.as_secs() {
        clock.forward(STEP);
        world.distributor.renew(Renew::Due).await.expect("renewed");
        subscriber.renew().await.expect("renewed");
        for certificate in world.distributor.certificates() {
            match certificate.usage() {
                Usage::Sign => signing.insert(certificate.serial_hex()),
                Usage::DistributorTls => tls.insert(certificate.serial_hex()),
                _ => continue,
            };
        }
        own.insert(subscriber.distributors().await.expect("readable")[0].enrolled_until);
        if step % 4 == 0 {
            // New handshakes are judged by what was renewed.
            within("the shutdown", subscriber.shutdown()).await;
            world.start(&subscriber).await;
            fs::write(world.source.join("file-05"), format!("written in step {step}\n")).expect("written");
            world.deliver().await;
            world.assert_equal("one.example");
        }
    }
    // 365 days of which two thirds pass: fifteen times in ten years; 90 days: sixty times. A step of 25 days is coarse.
    assert!((12..=16).contains(&signing.len()), "{} signing certificates", signing.len());
    assert!((46..=62).contains(&tls.len()), "{} TLS certificates", tls.len());
    assert!((12..=16).contains(&own.len()), "{} of the Subscriber's", own.len());
    assert_eq!(world.distributor.root(), root, "the certificate that was carried is the same");
    let status = world.distributor.status().await.expect("readable");
    assert_eq!(status.subscribers[0].fingerprint, key, "the registered key is the same");
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);
    for (data, role, keys) in [("distributor", NodeRole::Distributor, 3), ("one.example", NodeRole::Subscriber, 2)] {
        let security = SecurityDir::open(&world.data_of(data).join("security"), role).expect("safe");
        assert_eq!(security.load_keystore().expect("whole").held().len(), keys, "{data} keeps what it uses");
    }
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_the_nodes_run_and_nobody_asks_for_it() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let invite = world.invite("one.example").await;
    let joining = world.builder("one.example").clock(clock.clone()).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    let (mut ours, mut theirs) = (world.distributor.events(), subscriber.events());
    clock.forward(DAY * 250);
    let mut renewed = BTreeSet::new();
    while renewed.len() < 2 {
        renewed.insert(
            event("the Distributor's renewal", &mut ours, |event| match event {
                DistributorEvent::Renewed { usage, .. } => Some(usage),
                _ => None,
            })
            .await,
        );
    }
    event("the Subscriber's renewal", &mut theirs, |event| {
        matches!(event, SubscriberEvent::Renewed { .. }).then_some(())
    })
    .await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_was_away_for_years_is_certified_anew_for_its_registered_key() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let invite = world.invite("one.example").await;
    let joining = world.builder("one.example").clock(clock.clone()).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("it joins");
    clock.forward(DAY * 1000);
    world.distributor.renew(Renew::Due).await.expect("renewed");
    let ended = subscriber.status().await.expect("readable").alarms;
    assert_eq!(ended[0].code, "TED-1149", "{ended:?}");
    world.start(&subscriber).await;
    world.deliver().await;
    world.assert_equal("one.example");
    assert!(subscriber.status().await.expect("readable").alarms.is_empty());
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_told_a_year_before_the_distributors_own_certificate_ends() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let invite = world.invite("one.example").await;
    let joining = world.builder("one.example").clock(clock.clone()).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("it joins");
    clock.forward(DAY * 365 * 18);
    let told = |alarms: Vec<ted_core::node::Alarm>, code: &str| alarms.iter().any(|alarm| alarm.code == code);
    assert!(!told(world.distributor.status().await.expect("readable").alarms, "TED-1145"));
    assert!(!told(subscriber.status().await.expect("readable").alarms, "TED-1148"));
    let mut events = world.distributor.events();
    clock.forward(DAY * 366);
    assert!(told(world.distributor.status().await.expect("readable").alarms, "TED-1145"));
    assert!(told(subscriber.status().await.expect("readable").alarms, "TED-1148"));
    event("the alarm", &mut events, |event| match event {
        DistributorEvent::Alarm { code, .. } if code == "TED-1145" => Some(()),
        _ => None,
    })
    .await;
}
