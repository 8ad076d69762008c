//! Nobody goes back unless an operator says so: statements, floors, time, and rollbacks.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ted_core::distributor::Renew;
use ted_core::{BuildOutcome, Distributor, DistributorEvent, Subscriber, SubscriberEvent};

use crate::support::{DISTRIBUTION, TestClock, World, connected, event, label, listen, within};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A world whose Distributor and Subscriber each have a clock of their own.
async fn with_clocks() -> (World, Subscriber, Arc<TestClock>, Arc<TestClock>) {
    let (ours, theirs) = (TestClock::at_present(), TestClock::at_present());
    let world = World::with(|builder| builder.clock(ours.clone())).await;
    let invite = world.invite("one.example").await;
    let joining = world.builder("one.example").clock(theirs.clone()).join(&invite);
    let subscriber = within("the enrolment", joining).await.expect("it joins");
    world.start(&subscriber).await;
    (world, subscriber, ours, theirs)
}

async fn refusal(world: &World) -> (String, String) {
    let report = world.distributor.wait(world.send().await, ted_core::Until::Extracted, Some(crate::support::PATIENCE));
    let report = report.await.expect("known");
    let row = &report.rows[0];
    (row.code.clone().unwrap_or_default(), row.detail.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_statement_raises_an_alarm_and_a_fresh_one_ends_it() {
    let (world, subscriber, ours, theirs) = with_clocks().await;
    world.deliver().await;
    let mut events = subscriber.events();
    // To the Subscriber's clock the statement's thirty days are over.
    theirs.forward(DAY * 31);
    let (code, _) = refusal(&world).await;
    assert_eq!(code, "TED-1350");
    event("the alarm", &mut events, |event| match event {
        SubscriberEvent::Alarm { code, .. } if code == "TED-1350" => Some(()),
        _ => None,
    })
    .await;
    let alarms = subscriber.status().await.expect("readable").alarms;
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    world.assert_equal("one.example");

    // The Distributor states again by itself while it runs, and the next offer carries that.
    ours.forward(DAY * 31);
    world.distributor.renew(Renew::Due).await.expect("renewed");
    world.deliver().await;
    assert!(subscriber.status().await.expect("readable").alarms.is_empty());
    within("the shutdown", subscriber.shutdown()).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("readable") {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            kind if kind.is_file() => drop(fs::copy(entry.path(), &target).expect("copied")),
            _ => {}
        }
        let modes = entry.metadata().expect("readable").permissions();
        if target.exists() {
            fs::set_permissions(&target, modes).expect("permitted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_distributor_cannot_take_anyone_back_and_is_not_locked_out() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let World { folder, source, distributor, address } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    let (data, backup) = (folder.path().join("distributor"), folder.path().join("backup"));
    copy(&data, &backup);

    let open = async || {
        let distributor = Distributor::builder(&data).listen(address).open().await.expect("opened");
        let mut events = distributor.events();
        listen(&distributor).await;
        connected(&mut events, "one.example").await;
        distributor
    };
    let world = World { distributor: open().await, folder, source, address };
    fs::write(world.source.join("file-05"), "after the backup\n").expect("written");
    world.deliver().await;

    let World { folder, source, distributor, .. } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    fs::remove_dir_all(&data).expect("removed");
    copy(&backup, &data);
    // A firing that was open when the backup was made is offered with the connection.
    let mut events = subscriber.events();
    let world = World { distributor: open().await, folder, source, address };
    let firing = world.distributor.send(&label(crate::support::CHANNEL), ted_core::SendOptions { build: false }).await;
    firing.expect("a firing");
    event("the old revision to be refused", &mut events, |event| match event {
        SubscriberEvent::OfferRefused { code, .. } if code == "TED-1351" => Some(()),
        _ => None,
    })
    .await;
    world.assert_equal("one.example");
    // Revisions and sequence numbers are at least the time in milliseconds, so that what it builds now counts.
    fs::write(world.source.join("file-05"), "after the restore\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumped_ahead_locks_nobody_out_once_the_ca_key_corrects_it() {
    let (world, subscriber, ours, _) = with_clocks().await;
    ours.forward(DAY * 300);
    world.distributor.renew(Renew::Due).await.expect("renewed");
    world.deliver().await;
    ours.back(DAY * 300);
    let told = world.distributor.status().await.expect("readable").alarms;
    assert!(told.iter().any(|alarm| alarm.code == "TED-1147"), "{told:?}");
    fs::write(world.source.join("file-05"), "at the right time\n").expect("written");

    let mut events = world.distributor.events();
    world.distributor.correct_clock().await.expect("corrected");
    event("the word to be taken", &mut events, |event| match event {
        DistributorEvent::Acknowledged { kind, .. } if kind == "time" => Some(()),
        _ => None,
    })
    .await;
    world.deliver().await;
    world.assert_equal("one.example");
    assert!(world.distributor.status().await.expect("readable").alarms.is_empty());
    within("the shutdown", subscriber.shutdown()).await;
    world.start(&subscriber).await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ca_keys_word_a_time_that_was_signed_stays() {
    let (world, subscriber, ours, _) = with_clocks().await;
    ours.forward(DAY * 300);
    world.distributor.renew(Renew::Due).await.expect("renewed");
    world.deliver().await;
    ours.back(DAY * 300);
    world.distributor.renew(Renew::Due).await.expect("what does not hold yet is issued anew");
    fs::write(world.source.join("file-05"), "at the right time\n").expect("written");
    // It does not state anything older than it did; what it states is of the wrong time still, and is taken as such.
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_at_the_distributor_is_a_new_revision_that_stays_until_the_source_changes() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let good = world.distributor.build(&label(DISTRIBUTION)).await.expect("built").revision().clone();
    let kept = fs::read(world.source.join("file-05")).expect("read");
    fs::write(world.source.join("file-05"), "a mistake\n").expect("written");
    world.deliver().await;
    let bad = world.distributor.build(&label(DISTRIBUTION)).await.expect("built").revision().clone();

    let unknown = world.distributor.rollback(&label(DISTRIBUTION), Some(ted_core::Revision::from_number(5))).await;
    assert_eq!(unknown.expect_err("not kept").code(), "TED-1886");
    let back = world.distributor.rollback(&label(DISTRIBUTION), Some(good.revision)).await.expect("rolled back");
    assert!(back.revision > bad.revision && back.entries == good.entries);
    let mut sent = 0;
    for _ in 0..2 {
        let report = world.deliver().await;
        assert_eq!(report.rows[0].revision, back.revision, "the mistake in the source is not built again");
        sent = report.rows[0].sent_bytes.max(sent);
    }
    assert!(sent <= 64 * 1024, "{sent} bytes: the Subscriber had the frames still");
    let target = world.target_of("one.example").join("file-05");
    assert_eq!(fs::read(&target).expect("read"), kept);
    // New keys change nothing about it.
    world.distributor.rekey(None).await.expect("rekeyed");
    let unchanged = world.distributor.build(&label(DISTRIBUTION)).await.expect("looked");
    assert!(matches!(unchanged, BuildOutcome::Unchanged(_)), "{unchanged:?}");

    let mut events = world.distributor.events();
    subscriber.trust(&world.distributor.certificate_pem()).await.expect("resolved");
    connected(&mut events, "one.example").await;
    fs::write(world.source.join("file-05"), "mended\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_at_the_subscriber_lowers_the_floor_and_stays_until_resumed_or_overtaken() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    let site = DISTRIBUTION.parse().expect("a Distribution");
    world.deliver().await;
    let nothing = subscriber.rollback(&site).await;
    assert_eq!(nothing.expect_err("nothing before").code(), "TED-1882");
    let target = world.target_of("one.example").join("file-05");
    let first = fs::read(&target).expect("read");
    fs::write(world.source.join("file-05"), "a mistake\n").expect("written");
    world.deliver().await;

    let back = subscriber.rollback(&site).await.expect("rolled back");
    assert_eq!(fs::read(&target).expect("read"), first);
    let row = &subscriber.status().await.expect("readable").distributions[0];
    assert_eq!((row.verified, row.extracted, row.rolled_back_to), (Some(back.revision), row.verified, row.verified));
    let (code, _) = refusal(&world).await;
    assert_eq!(code, "TED-1883");
    // It survives a restart.
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let subscriber = world.reopen("one.example").await;
    let (code, _) = refusal(&world).await;
    assert_eq!(code, "TED-1883");
    assert_eq!(fs::read(&target).expect("read"), first);

    // What is newer than the mistake ends it.
    fs::write(world.source.join("file-05"), "mended\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    assert_eq!(subscriber.resume(&site).await.expect_err("none stands").code(), "TED-1887");

    // Or its operator does.
    subscriber.rollback(&site).await.expect("rolled back");
    assert_eq!(fs::read(&target).expect("read"), first);
    let (code, _) = refusal(&world).await;
    assert_eq!(code, "TED-1883");
    subscriber.resume(&site).await.expect("resumed");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}
