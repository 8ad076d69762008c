//! What is passed on: deliveries over parents, to nodes that reach nothing but their parent.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{
    ANY_PORT, CHANNEL, DISTRIBUTION, TestClock, World, compare, event, extracted, find, label, node, noise, within,
};
use ted_core::distributor::{ChannelChanges, DeliveryRow, FiringReport, SubscriberChanges};
use ted_core::protocol::{Cause, PartState};
use ted_core::security::Stage;
use ted_core::{DistributionRef, DistributionSpec, DistributorEvent, Subscriber, SubscriberEvent};

/// A node behind `parents` (none: a child of the Distributor itself) that may be a parent itself.
async fn behind(world: &World, name: &str, parents: &[&str], channels: &[&str]) -> Subscriber {
    let changes = SubscriberChanges {
        parents: Some(parents.iter().map(|parent| node(parent)).collect()),
        into_channels: channels.iter().map(|channel| label(channel)).collect(),
        ..SubscriberChanges::default()
    };
    world.distributor.declare_subscriber(&node(name), changes).await.expect("declared");
    let invite = world.distributor.invite(&node(name), &[], &[]).await.expect("an invite");
    // Its parent may hear only now that it is one: the node asks until it has.
    let joining = world.builder(name).listen(ANY_PORT).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("enrolled");
    let mut events = subscriber.events();
    let address = subscriber.start().await.expect("it starts").expect("it listens");
    event("its parent to be reached", &mut events, |event| match event {
        SubscriberEvent::Connected { .. } => Some(()),
        _ => None,
    })
    .await;
    let endpoint = address.to_string().parse().expect("an endpoint");
    world.distributor.update_subscriber(&node(name), &[endpoint]).await.expect("its endpoint is known");
    subscriber
}

/// One relay that is told nothing but what it passes on, and children behind it.
async fn relay_with(world: &World, children: &[&str]) -> (Subscriber, Vec<Subscriber>) {
    let relay = behind(world, "relay.example", &[], &[]).await;
    let mut leaves = vec![];
    for name in children {
        leaves.push(behind(world, name, &["relay.example"], &[CHANNEL]).await);
    }
    (relay, leaves)
}

fn package_of(world: &World, name: &str) -> PathBuf {
    let mut found = find(&world.data_of(name), "distfile.ted");
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.pop().expect("there")
}

fn big_tree(source: &Path) {
    fs::write(source.join("big"), noise(9, 3_000_000)).expect("written");
}

async fn shut(subscribers: Vec<Subscriber>) {
    for subscriber in subscribers {
        within("the shutdown", subscriber.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_behind_two_relays_gets_every_byte_and_each_link_carries_the_package_once() {
    let world = World::new().await;
    big_tree(&world.source);
    let one = behind(&world, "one.example", &[], &[]).await;
    let two = behind(&world, "two.example", &["one.example"], &[]).await;
    let mut leaves = vec![];
    for name in ["a.example", "b.example"] {
        leaves.push(behind(&world, name, &["two.example"], &[CHANNEL]).await);
    }
    let report = world.deliver().await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("a.example");
    world.assert_equal("b.example");
    let package = find(&world.data_of("two.example"), "distfile.ted");
    assert_eq!(package.len(), 1, "a relay keeps what it passes on");
    let bytes = package[0].metadata().expect("there").len();
    for (relay, children) in [(&one, 1), (&two, 2)] {
        let traffic = relay.status().await.expect("readable").traffic;
        let came: u64 = traffic.iter().filter(|row| row.child.is_none()).map(|row| row.bytes).sum();
        let went: u64 = traffic.iter().filter(|row| row.child.is_some()).map(|row| row.bytes).sum();
        assert!(came >= bytes && came < bytes + bytes / 50, "{came} of {bytes} came");
        assert!(went >= children * bytes && went < children * (bytes + bytes / 50), "{went} went to {children}");
    }
    leaves.extend([two, one]);
    shut(leaves).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_passes_deltas_and_sealed_packages_on_and_cannot_read_them() {
    let world = World::new().await;
    big_tree(&world.source);
    let sealed = DistributionSpec { encrypt: true, ..DistributionSpec::new(label(DISTRIBUTION), &world.source) };
    world.distributor.update_distribution(&label(DISTRIBUTION), sealed).await.expect("changed");
    let (relay, mut nodes) = relay_with(&world, &["a.example"]).await;
    world.deliver().await;
    world.assert_equal("a.example");
    assert!(find(&world.data_of("relay.example"), "distfile.grant").is_empty(), "nothing was granted to the relay");
    let whole = package_of(&world, "relay.example").metadata().expect("there").len();

    fs::write(world.source.join("file-05"), "another line\n").expect("written");
    world.deliver().await;
    world.assert_equal("a.example");
    let traffic = relay.status().await.expect("readable").traffic;
    let newest = traffic.iter().map(|row| row.revision).max().expect("something came");
    let delta: u64 =
        traffic.iter().filter(|row| row.revision == newest && row.child.is_none()).map(|row| row.bytes).sum();
    assert!(delta > 0 && delta < whole / 20, "{delta} of {whole}");
    nodes.push(relay);
    shut(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_at_a_relay_is_not_passed_on_but_mended_and_the_report_names_where() {
    let world = World::new().await;
    big_tree(&world.source);
    let (relay, mut nodes) = relay_with(&world, &["a.example"]).await;
    world.deliver().await;
    let package = package_of(&world, "relay.example");
    let good = fs::read(&package).expect("readable");
    let mut rotten = good.clone();
    rotten[good.len() / 2] ^= 1;
    fs::write(&package, &rotten).expect("written");

    nodes.push(behind(&world, "b.example", &["relay.example"], &[CHANNEL]).await);
    let mut events = world.distributor.events();
    let report = world.deliver().await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("b.example");
    let said = event("the relay to say so", &mut events, |event| match event {
        DistributorEvent::Receipt { subscriber, stage: Stage::Corrupt, detail, .. } => Some((subscriber, detail)),
        _ => None,
    });
    let (who, detail) = said.await;
    assert_eq!(who, node("relay.example"));
    assert!(detail.contains("frame") && detail.contains("relay.example"), "{detail}");
    assert!(fs::read(&package).expect("there again") == good, "only the bad frame was fetched");
    nodes.push(relay);
    shut(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_started_again_offers_what_it_has_although_its_parent_is_away() {
    let world = World::new().await;
    let (relay, mut nodes) = relay_with(&world, &["a.example", "b.example"]).await;
    let late = nodes.pop().expect("two");
    within("the shutdown", late.shutdown()).await;
    let firing = world.send().await;
    within("the one that is there", async {
        while compare::trees(&world.source, &world.target_of("a.example"), &[]).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let address = relay.status().await.expect("readable").listening.expect("it listens");
    within("the shutdown", world.distributor.shutdown()).await;
    within("the shutdown", relay.shutdown()).await;
    drop(relay);
    let relay = world.builder("relay.example").listen(address.parse().expect("an address")).open().await.expect("free");
    within("the address to be free", async { while relay.start().await.is_err() {} }).await;
    let mut events = late.events();
    late.start().await.expect("it starts");
    extracted(&mut events).await;
    world.assert_equal("b.example");
    let _ = firing;
    nodes.extend([late, relay]);
    shut(nodes).await;
}

/// The first row of a report about this Subscriber.
fn row<'a>(report: &'a FiringReport, name: &str) -> &'a DeliveryRow {
    report.rows.iter().find(|row| row.subscriber == node(name)).expect("it has a part")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leaf_behind_two_relays_refuses_for_good_ends_its_part_with_the_code_and_the_hop() {
    let world = World::new().await;
    let one = behind(&world, "one.example", &[], &[]).await;
    let two = behind(&world, "two.example", &["one.example"], &[CHANNEL]).await;
    let leaf = behind(&world, "a.example", &["two.example"], &[CHANNEL]).await;
    assert!(world.deliver().await.is_complete());
    fs::write(world.source.join("file-05"), "another line\n").expect("written");
    assert!(world.deliver().await.is_complete());
    // What it has rolled back from is not taken again.
    let of = DistributionRef::new(None, label(DISTRIBUTION));
    leaf.rollback(&of).await.expect("it keeps the revision before");
    two.rollback(&of).await.expect("it keeps the revision before");
    let report = world.wait(world.send().await).await;
    let found = row(&report, "a.example");
    assert_eq!((found.state, found.code.as_deref()), (PartState::Failed, Some("TED-1883")));
    assert_eq!(found.hop, Some(node("one.example")));
    assert!(found.detail.contains("two.example"), "{}", found.detail);
    // Another relay's refusal of its own part comes the same way.
    assert_eq!(row(&report, "two.example").code.as_deref(), Some("TED-1883"));
    shut(vec![leaf, two, one]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_quarter_of_an_hour_a_channel_that_is_now_fires_again_for_who_lacks_it_behind_a_parent() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let (relay, mut nodes) = relay_with(&world, &["a.example"]).await;
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    let mut events = world.distributor.events();
    let schedule = Some("now".parse().expect("a schedule"));
    let changes = ChannelChanges { schedule, ..ChannelChanges::default() };
    world.distributor.change_channel(&label(CHANNEL), changes).await.expect("changed");
    let begun = |event| match event {
        DistributorEvent::FiringStarted { firing, cause, .. } => Some((firing, cause)),
        _ => None,
    };
    let (firing, _) = event("the first firing", &mut events, begun).await;
    assert!(world.wait(firing).await.is_complete());
    nodes.push(behind(&world, "b.example", &["relay.example"], &[CHANNEL]).await);
    clock.forward(std::time::Duration::from_secs(15 * 60 + 1));
    // It looks at the clock with every change of the fleet.
    world.distributor.create_subscriber(node("nobody.example"), &[], &[]).await.expect("declared");
    let (firing, cause) = event("the firing that follows", &mut events, begun).await;
    assert_eq!(cause, Cause::Retry);
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal("b.example");
    nodes.push(relay);
    shut(nodes).await;
}
