//! Rates, pauses and cancelling between real nodes: what goes keeps to its rate, and what is held is kept and goes on.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::{CHANNEL, World, event, extracted, label, node, noise, within};
use ted_core::protocol::{PartState, SendRates};
use ted_core::{Distributor, Events, FiringReport, Subscriber, SubscriberEvent};

const MB: usize = 1_000_000;

fn medium(plan: &str) -> SendRates {
    SendRates { medium: Some(plan.parse().expect("a rate")), ..SendRates::default() }
}

/// A world in which a package of some megabytes goes slowly.
async fn slow(megabytes: usize, plan: &str) -> World {
    let world = World::with(|builder| builder.sends(medium(plan))).await;
    fs::write(world.source.join("large"), noise(9, megabytes * MB)).expect("a file");
    world
}

/// Waits until so many bytes were received.
async fn receiving(events: &mut Events<SubscriberEvent>, least: u64) -> u64 {
    event("bytes to arrive", events, |event| match event {
        SubscriberEvent::Receiving { bytes, .. } if bytes >= least => Some(bytes),
        _ => None,
    })
    .await
}

/// Waits until the one row of the newest firing is as `is` says.
async fn row(distributor: &Distributor, what: &str, is: impl Fn(&FiringReport) -> bool) -> FiringReport {
    let mut events = distributor.events();
    within(what, async {
        loop {
            let reports = distributor.status().await.expect("a status").firings;
            if let Some(report) = reports.into_iter().find(&is) {
                return report;
            }
            // Anything may be what changes it; the firing's own changes are events too.
            let _ = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
        }
    })
    .await
}

/// Waits until a Subscriber says why it waits.
async fn waits(subscriber: &Subscriber, code: &str) {
    within("the Subscriber to wait", async {
        loop {
            let status = subscriber.status().await.expect("a status");
            let trouble = status.distributions.iter().filter_map(|row| row.trouble.as_deref());
            if trouble.into_iter().any(|trouble| trouble.contains(code)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_keeps_to_the_rate_of_its_priority_and_a_change_acts_at_once() {
    let world = slow(4, "2MB/s").await;
    let subscriber = world.subscriber("leaf1").await;
    let started = Instant::now();
    world.deliver().await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1900), "4 MB at 2 MB/s in {took:?}");
    world.assert_equal("leaf1");
    fs::write(world.source.join("large"), noise(10, 40 * MB)).expect("a file");
    let mut events = subscriber.events();
    let firing = world.send().await;
    receiving(&mut events, 1).await;
    world.distributor.set_sends(&SendRates::default());
    let started = Instant::now();
    assert!(world.wait(firing).await.is_complete());
    assert!(started.elapsed() < Duration::from_secs(15), "40 MB at 2 MB/s would take 20 s");
    world.assert_equal("leaf1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_firing_sends_no_more_and_the_next_one_goes_on_from_what_is_there() {
    let world = slow(12, "2MB/s").await;
    let subscriber = world.subscriber("leaf1").await;
    let mut events = subscriber.events();
    let firing = world.send().await;
    receiving(&mut events, 2 * MB as u64).await;
    world.distributor.cancel(firing).await.expect("cancelled");
    waits(&subscriber, "TED-1752").await;
    let here = subscriber.status().await.expect("a status").distributions[0].bytes;
    assert!(here < 12 * MB as u64, "it stopped before the end");
    world.distributor.set_sends(&SendRates::default());
    let firing = world.send().await;
    let first = receiving(&mut events, 0).await;
    assert!(first + 1 >= here, "it goes on from {here}, not from {first}");
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal("leaf1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscriber_takes_nothing_says_so_also_after_a_restart_and_goes_on_when_resumed() {
    let world = slow(12, "2MB/s").await;
    let subscriber = world.subscriber("leaf1").await;
    let mut events = subscriber.events();
    let firing = world.send().await;
    receiving(&mut events, 2 * MB as u64).await;
    subscriber.pause_receiving().await.expect("paused");
    let is_held = |report: &FiringReport| {
        let row = report.rows.first();
        row.is_some_and(|row| row.state == PartState::Pending && row.waiting.is_some())
    };
    row(&world.distributor, "the Distributor to hear of the pause", is_held).await;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let subscriber = world.reopen("leaf1").await;
    assert!(subscriber.is_paused());
    row(&world.distributor, "the Distributor to hear of it again", is_held).await;
    world.distributor.set_sends(&SendRates::default());
    let mut events = subscriber.events();
    subscriber.resume_receiving().await.expect("resumed");
    extracted(&mut events).await;
    assert!(world.wait(firing).await.is_complete(), "the same firing goes on");
    world.assert_equal("leaf1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_rate_of_a_subscriber_slows_its_sender_down() {
    let world = World::new().await;
    fs::write(world.source.join("large"), noise(9, 6 * MB)).expect("a file");
    let mut own = ted_core::model::Settings::default();
    own.set("rate.input".parse().expect("known"), "2MB/s").expect("a rate");
    let invite = world.invite("leaf1").await;
    let joining = world.builder("leaf1").settings(own).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("it joins");
    world.start(&subscriber).await;
    let started = Instant::now();
    world.deliver().await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(2700), "6 MB at 2 MB/s in {took:?}");
    world.assert_equal("leaf1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_each_link_takes_and_only_what_lacks() {
    let world = slow(4, "2MB/s").await;
    let _subscriber = world.subscriber("leaf1").await;
    world.deliver().await;
    let plan = world.distributor.plan(&label(CHANNEL)).await.expect("a plan");
    assert_eq!((plan.rows[0].bytes, plan.links[0].bytes), (Some(0), 0), "it has what there is");
    fs::write(world.source.join("large"), noise(10, 4 * MB)).expect("a file");
    world.distributor.build(&label("site")).await.expect("built");
    let plan = world.distributor.plan(&label(CHANNEL)).await.expect("a plan");
    let (row, link) = (&plan.rows[0], &plan.links[0]);
    assert_eq!((&row.subscriber, &link.subscriber, &link.through), (&node("leaf1"), &node("leaf1"), &None));
    assert_eq!(row.bytes, Some(link.bytes));
    assert!(link.bytes > 4 * MB as u64, "noise does not become a small delta");
    assert!(link.takes_seconds.is_some_and(|seconds| (2..=4).contains(&seconds)), "{link:?}");
}
