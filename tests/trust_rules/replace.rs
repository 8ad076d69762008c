//! A Distributor's certificate is replaced without breaking anyone, and rekeyed without sending anything again.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use ted_core::distributor::GRACE;
use ted_core::security::RevocationReason;
use ted_core::store::{NodeRole, SecurityDir, TrustedIn};
use ted_core::transport::Connection as _;
use ted_core::{DistributionSpec, Distributor, DistributorEvent, Events, Subscriber, SubscriberEvent};

use crate::support::{
    ANY_PORT, CHANNEL, DISTRIBUTION, TestClock, World, connected, event, find, label, listen, node, raw, within,
};

/// What one delivery may fetch where only root and tail are new: the end of the package is read at once.
const INDEX_BYTES: u64 = 64 * 1024;

async fn holds(world: &World, events: &mut Events<DistributorEvent>, name: &str) {
    if world.distributor.replacement().await.expect("readable").have.contains(&node(name)) {
        return;
    }
    let name = node(name);
    event("a Subscriber to have the new certificate", events, move |event| match event {
        DistributorEvent::Acknowledged { subscriber, kind, .. } if subscriber == name && kind == "replacement" => {
            Some(())
        }
        _ => None,
    })
    .await;
}

async fn taken_over(subscriber: &Subscriber, events: &mut Events<SubscriberEvent>, root: &str) {
    let trusted = subscriber.distributors().await.expect("readable");
    if trusted.len() == 1 && trusted[0].fingerprint == root {
        return;
    }
    event("the new certificate to take over", events, |event| {
        matches!(event, SubscriberEvent::Replaced { .. }).then_some(())
    })
    .await;
}

/// Bytes that a Subscriber was served in the newest firing.
async fn sent_bytes(world: &World) -> u64 {
    world.distributor.firings().await.expect("readable")[0].rows[0].sent_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_takes_over_by_the_old_ones_word_and_nothing_is_sent_again() {
    let world = World::new().await;
    let (near, away) = (world.subscriber("near.example").await, world.subscriber("away.example").await);
    world.deliver().await;
    let old = world.distributor.root();
    within("the shutdown", away.shutdown()).await;
    drop(away);

    let mut events = world.distributor.events();
    let report = world.distributor.replace().await.expect("prepared");
    let successor = report.successor.clone().expect("prepared");
    assert_eq!(report.fingerprint, old.key_hash().fingerprint());
    holds(&world, &mut events, "near.example").await;
    let report = world.distributor.replace().await.expect("the same once more");
    assert_eq!(report.successor.as_ref(), Some(&successor), "it is prepared once");
    assert_eq!((report.have, report.lack), (vec![node("near.example")], vec![node("away.example")]));
    assert_eq!(world.distributor.root(), old, "the old one speaks until it is finalized");
    fs::write(world.source.join("file-05"), "under the old certificate still\n").expect("written");
    let firing = world.send().await;
    assert_eq!(near.distributors().await.expect("readable").len(), 1);

    let mut at_near = near.events();
    let report = world.distributor.finalize_replacement(GRACE).await.expect("switched");
    assert_eq!((&report.fingerprint, report.successor), (&successor, None));
    assert_eq!(report.grace.len(), 1);
    taken_over(&near, &mut at_near, &successor).await;
    // Who was away knows only the old certificate, and finds its way.
    let away = world.builder("away.example").open().await.expect("opened");
    let mut at_away = away.events();
    away.start().await.expect("started");
    taken_over(&away, &mut at_away, &successor).await;
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    for name in ["near.example", "away.example"] {
        world.assert_equal(name);
    }
    for subscriber in [&near, &away] {
        let trusted = subscriber.distributors().await.expect("readable");
        assert_eq!(trusted.len(), 1, "{trusted:?}");
        assert_eq!(trusted[0].fingerprint, successor);
    }
    let again = world.deliver().await;
    assert_eq!(again.rows.len(), 2);
    within("the shutdown", near.shutdown()).await;
    within("the shutdown", away.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_get_new_roots_and_a_receiver_fetches_only_these() {
    let world = World::new().await;
    fs::write(world.source.join("large"), crate::support::noise(7, 3_000_000)).expect("written");
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let mut events = subscriber.events();
    world.distributor.replace().await.expect("prepared");
    let report = world.distributor.finalize_replacement(GRACE).await.expect("switched");
    taken_over(&subscriber, &mut events, &report.fingerprint).await;
    let again = world.deliver().await;
    let row = &again.rows[0];
    assert!(row.package_bytes > 3_000_000 && row.sent_bytes <= INDEX_BYTES, "{} bytes were sent", row.sent_bytes);
    assert_eq!(find(&world.data_of("one.example"), "distfile.ted").len(), 1);
    let verified = subscriber.verify(None).await.expect("verified");
    assert_eq!((verified[0].fault.clone(), verified[0].different.len()), (None, 0));
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_replacement_leaves_the_old_certificate_in_force() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    let old = world.distributor.root();
    let mut events = world.distributor.events();
    world.distributor.replace().await.expect("prepared");
    holds(&world, &mut events, "one.example").await;
    let report = world.distributor.cancel_replacement().await.expect("cancelled");
    assert_eq!(report.successor, None);
    let nothing = world.distributor.finalize_replacement(GRACE).await;
    assert_eq!(nothing.expect_err("cancelled").code(), "TED-1828");
    let world = world.restarted().await;
    assert_eq!(world.distributor.root(), old);
    world.deliver().await;
    // Another one may be prepared afterwards, and takes over.
    let mut at_subscriber = subscriber.events();
    world.distributor.replace().await.expect("prepared");
    let report = world.distributor.finalize_replacement(GRACE).await.expect("switched");
    taken_over(&subscriber, &mut at_subscriber, &report.fingerprint).await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_grace_only_those_who_heard_of_it_before_find_their_way() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let heard = world.subscriber("heard.example").await;
    let invite = world.invite("deaf.example").await;
    let joining = world.builder("deaf.example").clock(clock.clone()).join(&invite);
    let deaf = within("the enrolment", joining).await.expect("it joins");
    let mut events = world.distributor.events();
    world.distributor.replace().await.expect("prepared");
    holds(&world, &mut events, "heard.example").await;
    within("the shutdown", heard.shutdown()).await;
    drop(heard);
    let old = world.distributor.fingerprint();
    let report = world.distributor.finalize_replacement(GRACE).await.expect("switched");
    clock.forward(GRACE + Duration::from_secs(3600));
    // The rounds forget the old key by themselves.
    let world = world_restarted_with(world, &clock).await;
    let mut ours = world.distributor.events();
    while !world.distributor.replacement().await.expect("readable").grace.is_empty() {
        tokio::task::yield_now().await;
    }
    let security = SecurityDir::open(&world.data_of("distributor").join("security"), NodeRole::Distributor);
    assert_eq!(security.expect("safe").load_keystore().expect("whole").authorities().len(), 1, "the old key is gone");

    let heard = world.builder("heard.example").clock(clock.clone()).open().await.expect("opened");
    let mut at_heard = heard.events();
    heard.start().await.expect("started");
    connected(&mut ours, "heard.example").await;
    taken_over(&heard, &mut at_heard, &report.fingerprint).await;
    let mut at_deaf = deaf.events();
    deaf.start().await.expect("started");
    event("the refusal", &mut at_deaf, |event| matches!(event, SubscriberEvent::Refused { .. }).then_some(())).await;
    assert_eq!(deaf.distributors().await.expect("readable")[0].fingerprint, old);
    within("the shutdown", heard.shutdown()).await;
    within("the shutdown", deaf.shutdown()).await;
}

async fn world_restarted_with(world: World, clock: &std::sync::Arc<TestClock>) -> World {
    let World { folder, source, distributor, address } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    let builder = Distributor::builder(folder.path().join("distributor")).listen(address).clock(clock.clone());
    let distributor = builder.open().await.expect("opened");
    let address = listen(&distributor).await;
    World { folder, source, distributor, address }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_only_listens_follows_a_replacement_too() {
    let world = World::new().await;
    let invite = world.invite("one.example").await;
    let subscriber =
        within("the enrolment", world.builder("one.example").listen(ANY_PORT).join(&invite)).await.expect("it joins");
    let refused = subscriber.enrol(None, &[], None).await;
    assert!(refused.is_err(), "it knows no endpoint any more: {refused:?}");
    let mut events = world.distributor.events();
    let address = subscriber.start().await.expect("it starts").expect("it listens");
    let endpoint = address.to_string().parse().expect("an endpoint");
    world.distributor.update_subscriber(&node("one.example"), &[endpoint]).await.expect("changed");
    connected(&mut events, "one.example").await;
    world.deliver().await;
    let mut at_subscriber = subscriber.events();
    world.distributor.replace().await.expect("prepared");
    let report = world.distributor.finalize_replacement(GRACE).await.expect("switched");
    taken_over(&subscriber, &mut at_subscriber, &report.fingerprint).await;
    fs::write(world.source.join("file-05"), "under the new certificate\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_distributor_is_refused_until_it_is_resolved_and_then_sends_nothing_again() {
    let world = World::new().await;
    fs::write(world.source.join("large"), crate::support::noise(7, 3_000_000)).expect("written");
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let mut events = subscriber.events();
    let old = world.distributor.fingerprint();
    let report = world.distributor.rekey(Some(&node("new.example"))).await.expect("rekeyed");
    assert_eq!((report.name, report.resolve), (node("new.example"), vec![node("one.example")]));
    assert_eq!(report.former, Some(old.clone()));
    assert!(report.retired.join(".keystore").is_file());
    event("the refusal", &mut events, |event| match event {
        SubscriberEvent::Refused { .. } => Some(()),
        _ => None,
    })
    .await;
    let before = crate::support::compare::trees(&world.source, &world.target_of("one.example"), &[]);
    assert!(before.is_ok(), "what is there stays");
    assert_eq!(subscriber.distributors().await.expect("readable")[0].fingerprint, old, "nothing changed here");

    let mut ours = world.distributor.events();
    subscriber.trust(&world.distributor.certificate_pem()).await.expect("resolved");
    connected(&mut ours, "one.example").await;
    let trusted = subscriber.distributors().await.expect("readable");
    assert_eq!(trusted.len(), 2, "the new one takes over at its first verified package");
    let again = world.deliver().await;
    let row = &again.rows[0];
    assert!(row.package_bytes > 3_000_000 && row.sent_bytes <= INDEX_BYTES, "{} bytes were sent", row.sent_bytes);
    let trusted = subscriber.distributors().await.expect("readable");
    assert_eq!(trusted.len(), 1, "{trusted:?}");
    assert_eq!((trusted[0].name.clone(), trusted[0].in_keystore), (node("new.example"), true));
    let files = find(&world.data_of("one.example"), "distfile.ted");
    assert_eq!(files.len(), 1, "{files:?}");
    world.assert_equal("one.example");
    let security = SecurityDir::open(&world.data_of("one.example").join("security"), NodeRole::Subscriber);
    let trust = security.expect("safe").trust().expect("readable");
    assert!(trust.roots.iter().all(|trusted| trusted.lies_in == TrustedIn::Keystore));
    assert!(trust.keystore.held().iter().all(|held| held.distributor == trust.roots[0].root.key_hash()));

    // Floors went along: what is older stays refused, what is newer arrives.
    fs::write(world.source.join("file-05"), "from the renamed Distributor\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let subscriber = world.reopen("one.example").await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_packages_stay_readable_under_a_new_key_because_epoch_secrets_go_along() {
    let world = World::new().await;
    let spec = DistributionSpec::new(label(DISTRIBUTION), &world.source).encrypt(true);
    world.distributor.update_distribution(&label(DISTRIBUTION), spec).await.expect("sealed from now on");
    fs::write(world.source.join("large"), crate::support::noise(7, 3_000_000)).expect("written");
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    world.distributor.rekey(None).await.expect("rekeyed");
    let mut ours = world.distributor.events();
    subscriber.trust(&world.distributor.certificate_pem()).await.expect("resolved");
    connected(&mut ours, "one.example").await;
    let again = world.deliver().await;
    let row = &again.rows[0];
    assert!(row.package_bytes > 3_000_000 && row.sent_bytes <= INDEX_BYTES, "{} bytes were sent", row.sent_bytes);
    let verified = subscriber.verify(None).await.expect("verified");
    assert_eq!((verified[0].fault.clone(), verified[0].different.len()), (None, 0));
    fs::remove_file(world.target_of("one.example").join("large")).expect("removed");
    subscriber.extract(None).await.expect("it opens");
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_revoked_after_a_replacement_is_refused_under_the_old_certificate_too() {
    let world = World::new().await;
    let away = world.joined("away.example").await;
    world.distributor.replace().await.expect("prepared");
    world.distributor.finalize_replacement(GRACE).await.expect("switched");
    world.distributor.revoke("away.example", RevocationReason::LOST).await.expect("revoked");
    let mut events = away.events();
    away.start().await.expect("started");
    event("the refusal", &mut events, |event| match event {
        SubscriberEvent::Refused { reason, .. } => reason.contains("TED-1305").then_some(()),
        SubscriberEvent::Replaced { .. } => panic!("it was told the way"),
        _ => None,
    })
    .await;
    within("the shutdown", away.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_go_along_with_a_replaced_certificate() {
    let world = World::new().await;
    let (near, _lost) = (world.subscriber("near.example").await, world.subscriber("lost.example").await);
    world.deliver().await;
    let lost = world.distributor.revoke("lost.example", RevocationReason::LOST).await.expect("revoked");
    let mut events = near.events();
    world.distributor.replace().await.expect("prepared");
    let report = world.distributor.finalize_replacement(GRACE).await.expect("switched");
    taken_over(&near, &mut events, &report.fingerprint).await;
    world.distributor.delete_subscriber(&node("lost.example")).await.expect("removed");
    world.deliver().await;
    assert_eq!(world.distributor.revoked().len(), lost.len(), "they are revoked under the new certificate, too");
    within("the shutdown", near.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_counts_on_connections_under_the_replaced_certificate_too() {
    let world = World::new().await;
    drop(world.joined("lost.example").await);
    let data = world.data_of("lost.example");
    world.distributor.replace().await.expect("prepared");
    world.distributor.finalize_replacement(GRACE).await.expect("switched");
    let (_endpoint, connection) = raw::dial(&data, world.address).await;
    world.distributor.revoke("lost.example", RevocationReason::LOST).await.expect("revoked");
    let closed = within("the end of the connection", connection.closed()).await;
    assert!(closed.to_string().contains("TED-1305"), "{closed}");
    let (_endpoint, again) = raw::dial(&data, world.address).await;
    let closed = within("the refusal", again.closed()).await;
    assert!(closed.to_string().contains("TED-1305"), "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_under_the_same_name_takes_over_at_its_first_verified_package() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let world = world.restarted().await;
    world.distributor.rekey(None).await.expect("rekeyed");
    // Brought as a file, as `scp` would.
    let security = SecurityDir::open(&world.data_of("one.example").join("security"), NodeRole::Subscriber);
    security.expect("safe").drop_certificate(&world.distributor.root()).expect("dropped");
    let mut ours = world.distributor.events();
    connected(&mut ours, "one.example").await;
    world.deliver().await;
    assert!(sent_bytes(&world).await <= INDEX_BYTES);
    assert_eq!(subscriber.distributors().await.expect("readable").len(), 1);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_keystore_is_named_and_rekeying_takes_over_what_is_left() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let World { folder, source, distributor, address } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    let data = folder.path().join("distributor");
    fs::remove_file(data.join("security/private/.keystore")).expect("lost");
    let builder = |at: SocketAddr| Distributor::builder(&data).listen(at);
    assert_eq!(builder(address).open().await.expect_err("gone").code(), "TED-1143");
    let (distributor, report) = builder(address).open_with_new_keys().await.expect("rekeyed");
    assert_eq!((report.name, report.resolve), (node("dist.example"), vec![node("one.example")]));
    drop(distributor);
    let there = builder(address).open_with_new_keys().await;
    assert_eq!(there.expect_err("there is one again").code(), "TED-1885");
    let distributor = builder(address).open().await.expect("opened");
    let address = listen(&distributor).await;
    let world = World { folder, source, distributor, address };
    let mut ours = world.distributor.events();
    subscriber.trust(&world.distributor.certificate_pem()).await.expect("resolved");
    connected(&mut ours, "one.example").await;
    world.deliver().await;
    assert!(sent_bytes(&world).await <= INDEX_BYTES);
    assert_eq!(world.distributor.fleet().channel(&label(CHANNEL)).expect("kept").distributions.len(), 1);
    assert_eq!(DISTRIBUTION, "site");
    within("the shutdown", subscriber.shutdown()).await;
}
