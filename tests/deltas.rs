//! Updates as deltas, with whole nodes: what crosses the wire, what a Subscriber keeps, and that it finds its way without
//! anybody's help whatever becomes of its target and its packages.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use support::proxy::Proxy;
use support::{CHANNEL, DISTRIBUTION, World, event, find, label, node, noise, within};
use ted_core::security::Stage;
use ted_core::store::{Batch, Catalog as _, Committed, SledCatalog};
use ted_core::subscriber::KeepPackage;
use ted_core::{DistributionRef, DistributionSpec, DistributorEvent, Events, Subscriber, SubscriberEvent};

/// Bytes of the files that never change, so that a baseline costs at least that.
const STABLE_BYTES: u64 = 40 * 50_000;

fn distribution() -> DistributionRef {
    DISTRIBUTION.parse().expect("valid")
}

/// A Distributor of a tree that is expensive to send whole.
async fn world(encrypt: bool) -> World {
    let world = World::new().await;
    for number in 0..40 {
        fs::write(world.source.join(format!("stable-{number}")), noise(number, 50_000)).expect("written");
    }
    let spec = DistributionSpec::new(label(DISTRIBUTION), &world.source).encrypt(encrypt);
    world.distributor.update_distribution(&label(DISTRIBUTION), spec).await.expect("changed");
    world
}

async fn join(world: &World, name: &str, keep: KeepPackage) -> Subscriber {
    let invite = world.invite(name).await;
    let subscriber =
        within("the enrolment", world.builder(name).keep_package(keep).join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    subscriber
}

/// Opens a Subscriber again that was shut down, and starts it.
async fn reopen(world: &World, name: &str, keep: KeepPackage) -> Subscriber {
    let subscriber = world.builder(name).keep_package(keep).open().await.expect("its data directory is free");
    world.start(&subscriber).await;
    subscriber
}

async fn stop(subscriber: Subscriber) {
    within("the shutdown", subscriber.shutdown()).await;
}

/// What a Subscriber did up to the next extraction: the bytes of the packages that came, and the codes of why it fell
/// back to a baseline.
async fn update(events: &mut Events<SubscriberEvent>) -> (Vec<u64>, Vec<String>) {
    let (mut received, mut fell_back) = (vec![], vec![]);
    event("an extraction", events, |event| match event {
        SubscriberEvent::Received { bytes, .. } => {
            received.push(bytes);
            None
        }
        SubscriberEvent::FellBack { code, .. } => {
            fell_back.push(code);
            None
        }
        SubscriberEvent::Failed { code, reason, .. } => panic!("{code}: {reason}"),
        SubscriberEvent::Extracted { .. } => Some(()),
        _ => None,
    })
    .await;
    (received, fell_back)
}

fn assert_deltas(received: &[u64], count: usize) {
    assert_eq!(received.len(), count, "{received:?}");
    assert!(received.iter().all(|bytes| *bytes < STABLE_BYTES / 10), "{received:?}");
}

fn assert_baseline(received: &[u64]) {
    assert!(matches!(received, [bytes] if *bytes > STABLE_BYTES), "{received:?}");
}

fn packages(world: &World, name: &str) -> Vec<PathBuf> {
    find(&world.data_of(name).join("sub"), "distfile.ted")
}

/// Changes something of each kind. Nothing is removed, because extraction removes nothing.
fn change(world: &World, step: u8) {
    let source = &world.source;
    let mut grown = fs::read(source.join("deep/er/noise")).expect("there");
    grown.splice(1000..1000, noise(100 + step, 700));
    fs::write(source.join("deep/er/noise"), grown).expect("written");
    fs::write(source.join("file-05"), format!("step {step}\n").repeat(usize::from(step) + 1)).expect("written");
    fs::create_dir_all(source.join(format!("new-{step}"))).expect("made");
    fs::write(source.join(format!("new-{step}/same")), noise(step, 50_000)).expect("written");
    if step.is_multiple_of(3) {
        fs::write(source.join("stable-7"), noise(200 + step, 50_000)).expect("written");
    }
    let mode = if step.is_multiple_of(2) { 0o600 } else { 0o644 };
    fs::set_permissions(source.join("file-01"), fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_crosses_the_wire_as_a_delta() {
    let world = world(false).await;
    let proxy = Proxy::to(world.address).await;
    let invite = world
        .distributor
        .invite(&node("one.example"), &[label(CHANNEL)], &[proxy.address.to_string().parse().expect("an endpoint")])
        .await
        .expect("an invite");
    let subscriber = within("the enrolment", world.builder("one.example").join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    world.assert_equal("one.example");
    let baseline = proxy.bytes_down();
    assert!(baseline > STABLE_BYTES);

    let mut events = subscriber.events();
    fs::write(world.source.join("file-05"), "another line\n").expect("written");
    let idle = proxy.bytes_down();
    world.deliver().await;
    let (received, fell_back) = update(&mut events).await;
    assert_deltas(&received, 1);
    assert_eq!(fell_back, Vec::<String>::new());
    let crossed = proxy.bytes_down() - idle;
    assert!(crossed < 30_000, "{crossed} bytes for one line");
    world.assert_equal("one.example");
    assert!(subscriber.verify(None).await.expect("readable").iter().all(|row| row.fault.is_none()));
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_new_content_crosses_as_a_delta_without_a_body() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::Chain).await;
    world.deliver().await;
    let mut events = subscriber.events();
    fs::set_permissions(world.source.join("stable-3"), fs::Permissions::from_mode(0o600)).expect("set");
    world.deliver().await;
    assert_deltas(&update(&mut events).await.0, 1);
    fs::rename(world.source.join("stable-4"), world.source.join("moved")).expect("moved");
    world.deliver().await;
    assert_deltas(&update(&mut events).await.0, 1);
    assert_eq!(fs::read(world.target_of("one.example").join("moved")).expect("there"), noise(4, 50_000));
    stop(subscriber).await;
}

async fn twelve_revisions(encrypt: bool, keep: KeepPackage) {
    let world = world(encrypt).await;
    let subscriber = join(&world, "one.example", keep).await;
    world.deliver().await;
    let mut events = subscriber.events();
    for step in 1..=12 {
        change(&world, step);
        world.deliver().await;
        let (received, fell_back) = update(&mut events).await;
        assert_deltas(&received, 1);
        assert_eq!(fell_back, Vec::<String>::new());
        world.assert_equal("one.example");
    }
    let kept = packages(&world, "one.example").len();
    assert_eq!(kept, if keep == KeepPackage::None { 0 } else { 13 }, "a baseline and what goes on from it");
    let rows = subscriber.verify(None).await.expect("readable");
    assert!(rows.iter().all(|row| row.fault.is_none() && row.different.is_empty()), "{rows:?}");

    // Going back, and on again.
    let rolled_back = subscriber.rollback(&distribution()).await;
    if keep == KeepPackage::Chain {
        rolled_back.expect("the revision before is kept");
        let line = fs::read_to_string(world.target_of("one.example").join("file-05")).expect("there");
        assert!(line.starts_with("step 11"), "{line}");
        subscriber.resume(&distribution()).await.expect("it was gone back");
        let _ = update(&mut events).await;
        world.deliver().await;
        assert_deltas(&update(&mut events).await.0, 1);
        world.assert_equal("one.example");
    } else {
        assert_eq!(rolled_back.expect_err("nothing is kept").code(), "TED-1882");
    }
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_revisions_in_a_row_arrive_as_deltas() {
    twelve_revisions(false, KeepPackage::Chain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_encrypted_revisions_in_a_row_arrive_as_deltas() {
    twelve_revisions(true, KeepPackage::Chain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_revisions_in_a_row_arrive_as_deltas_where_no_package_is_kept() {
    twelve_revisions(false, KeepPackage::None).await;
    twelve_revisions(true, KeepPackage::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_missed_revisions_takes_one_delta_after_the_other() {
    for (encrypt, keep) in [(false, KeepPackage::Chain), (true, KeepPackage::None)] {
        let world = world(encrypt).await;
        let subscriber = join(&world, "one.example", keep).await;
        world.deliver().await;
        stop(subscriber).await;
        for step in 1..=4 {
            change(&world, step);
            world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
        }
        let subscriber = reopen(&world, "one.example", keep).await;
        let mut events = subscriber.events();
        world.deliver().await;
        let (received, fell_back) = update(&mut events).await;
        assert_deltas(&received, 4);
        assert_eq!(fell_back, Vec::<String>::new());
        world.assert_equal("one.example");
        stop(subscriber).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_somebody_changed_in_the_target_is_taken_from_the_own_packages() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::Chain).await;
    world.deliver().await;
    let mut events = subscriber.events();
    for step in 1..=3 {
        fs::write(world.target_of("one.example").join("deep/er/noise"), "scribbled").expect("written");
        change(&world, step);
        world.deliver().await;
        let (received, fell_back) = update(&mut events).await;
        assert_deltas(&received, 1);
        assert_eq!(fell_back, Vec::<String>::new());
        world.assert_equal("one.example");
    }
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_somebody_changed_and_no_package_has_makes_way_for_the_baseline() {
    for encrypt in [false, true] {
        let world = world(encrypt).await;
        let subscriber = join(&world, "one.example", KeepPackage::None).await;
        world.deliver().await;
        let mut events = subscriber.events();
        fs::write(world.target_of("one.example").join("deep/er/noise"), "scribbled").expect("written");
        change(&world, 1);
        let mut told = world.distributor.events();
        world.deliver().await;
        let (received, fell_back) = update(&mut events).await;
        assert_baseline(&received);
        assert_eq!(fell_back, ["TED-1024"], "found before the delta's body was fetched");
        let detail = event("the receipt", &mut told, |event| match event {
            DistributorEvent::Receipt { stage: Stage::Extracted, detail, .. } => Some(detail),
            _ => None,
        });
        let detail = detail.await;
        assert!(detail.contains("TED-1024") && detail.contains("deep/er/noise"), "{detail}");
        world.assert_equal("one.example");
        // The next one is a delta again.
        change(&world, 2);
        world.deliver().await;
        assert_deltas(&update(&mut events).await.0, 1);
        world.assert_equal("one.example");
        stop(subscriber).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_was_changed_unseen_is_found_when_it_is_applied_and_makes_way_for_the_baseline() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::None).await;
    world.deliver().await;
    let mut events = subscriber.events();
    rot(&world.target_of("one.example").join("deep/er/noise"));
    change(&world, 1);
    world.deliver().await;
    let (received, fell_back) = update(&mut events).await;
    assert_deltas(&received[..1], 1);
    assert_baseline(&received[1..]);
    assert_eq!(fell_back, ["TED-1024"]);
    world.assert_equal("one.example");
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_comes_back_from_the_own_packages_or_with_the_baseline() {
    for keep in [KeepPackage::Chain, KeepPackage::Latest, KeepPackage::None] {
        let world = world(false).await;
        let subscriber = join(&world, "one.example", keep).await;
        world.deliver().await;
        let mut events = subscriber.events();
        change(&world, 1);
        world.deliver().await;
        let _ = update(&mut events).await;
        fs::remove_dir_all(world.target_of("one.example")).expect("removed");
        let extracted = subscriber.extract(None).await;
        if keep == KeepPackage::None {
            assert_eq!(extracted.expect_err("nothing is here").code(), "TED-1895");
        } else {
            extracted.expect("from the baseline and the delta that are kept");
        }
        let _ = update(&mut events).await;
        world.assert_equal("one.example");

        fs::remove_dir_all(world.target_of("one.example")).expect("removed");
        change(&world, 2);
        world.deliver().await;
        let (received, fell_back) = update(&mut events).await;
        if keep == KeepPackage::None {
            assert_baseline(&received);
            assert_eq!(fell_back, ["TED-1896"], "and it says why");
        } else {
            assert_deltas(&received, 1);
            assert_eq!(fell_back, Vec::<String>::new());
        }
        world.assert_equal("one.example");
        stop(subscriber).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_delta_that_rots_is_fetched_again_with_the_next_firing_and_nothing_else_is() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::Chain).await;
    world.deliver().await;
    let mut events = subscriber.events();
    change(&world, 1);
    world.deliver().await;
    let _ = update(&mut events).await;
    let delta =
        packages(&world, "one.example").into_iter().find(|path| path.parent().is_some_and(|at| at.ends_with("delta")));
    let delta = delta.expect("it is kept");
    let mut bytes = fs::read(&delta).expect("readable");
    bytes[200] ^= 1;
    fs::write(&delta, bytes).expect("written");
    let rows = subscriber.verify(None).await.expect("readable");
    assert!(rows[0].set_aside, "{rows:?}");
    assert!(!delta.exists());
    world.deliver().await;
    assert_deltas(&update(&mut events).await.0, 1);
    assert!(delta.exists());
    assert!(subscriber.verify(None).await.expect("readable").iter().all(|row| row.fault.is_none()));
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_was_received_and_not_extracted_is_extracted_at_the_next_start() {
    for keep in [KeepPackage::Chain, KeepPackage::None] {
        let world = world(false).await;
        let subscriber = join(&world, "one.example", keep).await;
        world.deliver().await;
        let mut events = subscriber.events();
        // Something that no revision made stands in the way.
        let obstacle = world.target_of("one.example").join("new-1");
        fs::write(&obstacle, "in the way").expect("written");
        change(&world, 1);
        world.send().await;
        event("a failure", &mut events, |event| matches!(event, SubscriberEvent::Failed { .. }).then_some(())).await;
        stop(subscriber).await;
        fs::remove_file(&obstacle).expect("removed");
        let subscriber = world.builder("one.example").keep_package(keep).open().await.expect("free");
        let mut events = subscriber.events();
        world.start(&subscriber).await;
        let (received, _) = update(&mut events).await;
        assert_eq!(received, Vec::<u64>::new(), "nothing is fetched again");
        world.assert_equal("one.example");
        stop(subscriber).await;
    }
}

/// The catalog's records of a stopped Subscriber whose keys begin with `prefix`.
fn records(world: &World, name: &str, prefix: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let catalog = SledCatalog::open(&world.data_of(name).join("catalog")).expect("it is stopped");
    catalog.scan(prefix.as_bytes()).expect("readable").into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_target_and_the_note_of_it_is_made_good_at_the_next_start() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::Chain).await;
    world.deliver().await;
    stop(subscriber).await;
    let noted = records(&world, "one.example", "extracted/");
    let entries = find(&world.data_of("one.example").join("sub"), "entries").pop().expect("an entry list");
    let list = fs::read(&entries).expect("readable");
    let subscriber = reopen(&world, "one.example", KeepPackage::Chain).await;
    change(&world, 1);
    world.deliver().await;
    stop(subscriber).await;

    // The target is new, and what says so is old.
    fs::write(&entries, list).expect("written");
    {
        let catalog = SledCatalog::open(&world.data_of("one.example").join("catalog")).expect("it is stopped");
        let batch = noted.iter().fold(Batch::new(), |batch, (key, value)| batch.put(key.clone(), value.clone()));
        assert!(matches!(catalog.commit(&batch), Ok(Committed::Done)));
    }
    let subscriber = world.builder("one.example").open().await.expect("free");
    let mut events = subscriber.events();
    world.start(&subscriber).await;
    let (received, fell_back) = update(&mut events).await;
    assert_eq!((received, fell_back), (vec![], vec![]));
    world.assert_equal("one.example");
    let mut events = subscriber.events();
    change(&world, 2);
    world.deliver().await;
    assert_deltas(&update(&mut events).await.0, 1);
    world.assert_equal("one.example");
    stop(subscriber).await;
}

/// A Subscriber that was stopped after an update; the entry list and the record of what was extracted before it.
async fn updated(world: &World, keep: KeepPackage) -> (PathBuf, Vec<u8>, Batch) {
    let subscriber = join(world, "one.example", keep).await;
    world.deliver().await;
    stop(subscriber).await;
    let noted = records(world, "one.example", "extracted/");
    let entries = find(&world.data_of("one.example").join("sub"), "entries").pop().expect("an entry list");
    let list = fs::read(&entries).expect("readable");
    let subscriber = reopen(world, "one.example", keep).await;
    change(world, 1);
    world.deliver().await;
    stop(subscriber).await;
    (entries, list, noted.into_iter().fold(Batch::new(), |batch, (key, value)| batch.put(key, value)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_entry_list_and_the_record_costs_nothing() {
    let (world, keep) = (world(false).await, KeepPackage::None);
    let subscriber = join(&world, "one.example", keep).await;
    world.deliver().await;
    let mut events = subscriber.events();
    let obstacle = world.target_of("one.example").join("new-1");
    fs::write(&obstacle, "in the way").expect("written");
    change(&world, 1);
    world.send().await;
    event("a failure", &mut events, |event| matches!(event, SubscriberEvent::Failed { .. }).then_some(())).await;
    stop(subscriber).await;
    fs::remove_file(&obstacle).expect("removed");
    let data = world.data_of("one.example");
    let before = data.with_extension("before");
    let copied = std::process::Command::new("cp").arg("-a").args([&data, &before]).status();
    assert!(copied.expect("it runs").success());
    let subscriber = reopen(&world, "one.example", keep).await;
    subscriber.extract(None).await.expect("nothing is in the way");
    stop(subscriber).await;

    // Target and list are new, and everything else is as it was.
    let entries = find(&data.join("sub"), "entries").pop().expect("an entry list");
    let old = before.join(entries.strip_prefix(&data).expect("below"));
    assert_ne!(fs::read(&entries).expect("readable"), fs::read(&old).expect("readable"));
    fs::copy(&entries, old).expect("copied");
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&before, &data).expect("renamed");
    let subscriber = world.builder("one.example").keep_package(keep).open().await.expect("free");
    let mut events = subscriber.events();
    world.start(&subscriber).await;
    assert_eq!(update(&mut events).await, (vec![], vec![]));
    world.assert_equal("one.example");
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_list_of_another_revision_is_never_extracted_as_the_one_on_record() {
    let world = world(false).await;
    let (entries, list, _) = updated(&world, KeepPackage::Chain).await;
    fs::write(&entries, list).expect("written");
    let subscriber = reopen(&world, "one.example", KeepPackage::Chain).await;
    subscriber.extract(None).await.expect("from what is kept");
    world.assert_equal("one.example");
    assert!(subscriber.verify(None).await.expect("readable").iter().all(|row| row.different.is_empty()));
    stop(subscriber).await;
}

/// Changes a byte of a file, and nothing that it looks like.
fn rot(at: &Path) {
    let mut content = fs::read(at).expect("there");
    let mtime = at.metadata().expect("there").modified().expect("known");
    content[20_000] ^= 1;
    fs::write(at, content).expect("written");
    fs::File::options().write(true).open(at).expect("there").set_modified(mtime).expect("set");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rotted_in_a_target_unseen_is_mended_from_the_own_packages_or_with_the_baseline() {
    for keep in [KeepPackage::Chain, KeepPackage::None] {
        let world = world(false).await;
        let subscriber = join(&world, "one.example", keep).await;
        world.deliver().await;
        change(&world, 1);
        world.deliver().await;
        let mut events = subscriber.events();
        rot(&world.target_of("one.example").join("stable-3"));
        let row = subscriber.repair(None).await.expect("readable").remove(0);
        assert_eq!(row.different.len(), 1, "{row:?}");
        if keep == KeepPackage::None {
            assert!(!row.mended && row.fault.is_some_and(|fault| fault.contains("TED-1895")));
        } else {
            assert!(row.mended);
        }
        let _ = update(&mut events).await;
        world.assert_equal("one.example");
        stop(subscriber).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_baseline_can_be_gone_back_from() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::Chain).await;
    world.deliver().await;
    let first = fs::read(world.source.join("deep/er/noise")).expect("there");
    change(&world, 1);
    world.deliver().await;
    stop(subscriber).await;
    fs::remove_dir_all(world.target_of("one.example")).expect("removed");
    let kept = packages(&world, "one.example");
    let delta = kept.into_iter().find(|path| path.parent().is_some_and(|at| at.ends_with("delta")));
    let delta = delta.expect("it is kept");
    let mut bytes = fs::read(&delta).expect("readable");
    bytes[200] ^= 1;
    fs::write(&delta, bytes).expect("written");

    // Nobody is connected, so that no baseline comes.
    let subscriber = world.builder("one.example").open().await.expect("free");
    assert_eq!(subscriber.extract(None).await.expect_err("a delta is damaged").code(), "TED-1895");
    subscriber.rollback(&distribution()).await.expect("the revision before is whole");
    assert_eq!(fs::read(world.target_of("one.example").join("deep/er/noise")).expect("there"), first);
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_does_not_grow_without_end() {
    let world = world(false).await;
    let subscriber = join(&world, "one.example", KeepPackage::Chain).await;
    world.deliver().await;
    let mut events = subscriber.events();
    let (mut baselines, mut deltas) = (0, 0);
    for step in 1..=8_u8 {
        for number in 0..17 {
            let content = noise(number * 8 + step, 50_000);
            fs::write(world.source.join(format!("stable-{number}")), content).expect("written");
        }
        world.deliver().await;
        let (received, fell_back) = update(&mut events).await;
        assert_eq!((received.len(), fell_back), (1, vec![]));
        if received[0] > STABLE_BYTES {
            baselines += 1
        } else {
            deltas += 1
        }
        world.assert_equal("one.example");
        let kept: u64 = packages(&world, "one.example").iter().map(|at| at.metadata().expect("there").len()).sum();
        assert!(kept < 6 * STABLE_BYTES, "{kept} bytes are kept in step {step}");
    }
    assert!(baselines >= 1 && deltas >= 5, "{baselines} baselines, {deltas} deltas");
    stop(subscriber).await;
}
