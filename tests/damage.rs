//! Packages that are damaged where they lie: found, set aside, told, and mended with the next firing at the cost of what
//! is damaged. A Distributor's own copy: checked, and made again from the source.

mod support;

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::fake::Package;
use support::proxy::Proxy;
use support::{CHANNEL, DISTRIBUTION, TestClock, World, event, find, label, noise, within};
use ted_core::protocol::{Outcome, PartState};
use ted_core::security::Stage;
use ted_core::subscriber::{ScrubInterval, VerifyRow};
use ted_core::{DistributionSpec, DistributorEvent, Events, FiringReport, SendOptions, Subscriber, SubscriberEvent};

const ONE: &str = "one.example";

/// Bytes of content; noise, so that the package is as long.
const CONTENT_BYTES: usize = 32 << 20;

/// What crosses besides frames: handshake, greetings, statement, receipts and acknowledgements.
const TALK_BYTES: u64 = 48 * 1024;

/// A delivered package, and both nodes stopped.
struct Delivered {
    world: World,
    proxy: Proxy,
    package: Package,
}

async fn delivered() -> Delivered {
    let world = World::new().await;
    for number in 0..4 {
        fs::write(world.source.join(format!("large-{number}")), noise(number + 10, CONTENT_BYTES / 4))
            .expect("written");
    }
    let proxy = Proxy::to(world.address).await;
    let invite = world.invite(ONE).await.replace(&world.address.to_string(), &proxy.address.to_string());
    let subscriber = within("the enrolment", world.builder(ONE).join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
    within("the shutdown", world.distributor.shutdown()).await;
    let package = Package::of(&world.folder.path().join("distributor"));
    Delivered { world, proxy, package }
}

impl Delivered {
    fn own_copy(&self) -> PathBuf {
        only(&self.world.folder.path().join("distributor"), "distfile.ted")
    }

    fn copy_at_subscriber(&self) -> PathBuf {
        only(&self.world.data_of(ONE), "distfile.ted")
    }

    /// The number of the `nth` long frame of the body.
    fn long(&self, nth: usize) -> u64 {
        let index = &self.package.index;
        let mut long = (0..index.body_frames()).filter(|frame| index.rows()[*frame as usize].stored_bytes > 1 << 20);
        long.nth(nth).expect("there are several")
    }

    /// Where the `nth` long frame lies.
    fn frame(&self, nth: usize) -> Range<u64> {
        self.package.index.frame_range(self.long(nth))
    }

    async fn restarted(self) -> Self {
        Self { world: self.world.restarted().await, ..self }
    }
}

fn only(below: &Path, name: &str) -> PathBuf {
    let found = find(below, name);
    assert_eq!(found.len(), 1, "{name} below {}", below.display());
    found[0].clone()
}

/// Flips one bit where the file lies.
fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
}

async fn verify(subscriber: &Subscriber) -> VerifyRow {
    within("the verification", subscriber.verify(None)).await.expect("readable").remove(0)
}

/// The next receipt that tells of damage: its code and detail.
#[track_caller]
fn corrupt(events: &mut Events<DistributorEvent>) -> impl Future<Output = (String, String)> {
    event("a receipt about damage", events, |event| match event {
        DistributorEvent::Receipt { stage: Stage::Corrupt, code, detail, .. } => Some((code.expect("one"), detail)),
        _ => None,
    })
}

async fn send_and_wait(world: &World) -> FiringReport {
    world.wait(world.send().await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bit_at_rest_costs_one_frame() {
    let stage = delivered().await;
    let frame = stage.frame(3);
    flip(&stage.copy_at_subscriber(), frame.start + 1000);
    let stage = stage.restarted().await;
    let mut receipts = stage.world.distributor.events();
    let subscriber = stage.world.reopen(ONE).await;
    let row = verify(&subscriber).await;
    let told = format!("frame {} is damaged", stage.long(3));
    assert!(row.set_aside && row.fault.as_ref().is_some_and(|fault| fault.contains(&told)), "{row:?}");
    assert_eq!(corrupt(&mut receipts).await, ("TED-1871".to_owned(), told));
    assert!(find(&stage.world.data_of(ONE), "distfile.ted").is_empty());
    only(&stage.world.data_of(ONE), "distfile.corrupt");
    // It counts as not held, and nobody extracts from it.
    let status = subscriber.status().await.expect("readable").distributions.remove(0);
    assert_eq!((status.verified, status.stage), (None, Some(Stage::Corrupt)), "{status:?}");
    assert_eq!(subscriber.extract(None).await.expect_err("nothing whole").code(), "TED-1874");

    let before = stage.proxy.bytes_down();
    let report = send_and_wait(&stage.world).await;
    assert!(report.is_complete(), "{report}");
    let crossed = stage.proxy.bytes_down() - before;
    let frame_bytes = frame.end - frame.start;
    assert_eq!(report.rows[0].sent_bytes, frame_bytes, "the frame, and nothing else of the package");
    assert_eq!(report.rows[0].note, None, "the Distributor's own copy is whole");
    assert!(crossed <= frame_bytes + frame_bytes / 16 + TALK_BYTES, "{crossed} for a frame of {frame_bytes}");
    assert_eq!(fs::read(stage.copy_at_subscriber()).expect("there"), stage.package.bytes);
    assert!(verify(&subscriber).await.fault.is_none());
    stage.world.assert_equal(ONE);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_distributors_copy_damaged_as_well_it_costs_the_same_after_its_repair() {
    let stage = delivered().await;
    let frame = stage.frame(3);
    flip(&stage.copy_at_subscriber(), frame.start + 1000);
    flip(&stage.own_copy(), frame.start + 5);
    flip(&stage.own_copy(), stage.frame(0).start + 5);
    let stage = stage.restarted().await;
    let mut events = stage.world.distributor.events();
    let subscriber = stage.world.reopen(ONE).await;
    assert!(verify(&subscriber).await.set_aside);
    corrupt(&mut events).await;
    let report = send_and_wait(&stage.world).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.rows[0].sent_bytes, frame.end - frame.start);
    let note = report.rows[0].note.as_deref().unwrap_or_default();
    assert!(note.contains("TED-1846") && note.contains("2 frames"), "{note}");
    let repaired = event("the repair", &mut events, |event| match event {
        DistributorEvent::OwnCopyRepaired { frames, .. } => Some(frames),
        _ => None,
    });
    assert_eq!(repaired.await, 2);
    for copy in [stage.own_copy(), stage.copy_at_subscriber()] {
        assert_eq!(fs::read(copy).expect("there"), stage.package.bytes);
    }
    // The firing's rows say it after a restart too.
    let firing = report.firing;
    let stage = stage.restarted().await;
    assert!(stage.world.distributor.report(firing).expect("known").rows[0].note.is_some());
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_whose_source_has_changed_is_replaced_by_a_new_revision() {
    let stage = delivered().await;
    flip(&stage.copy_at_subscriber(), stage.frame(3).start + 1000);
    let range = stage.frame(3);
    flip(&stage.own_copy(), range.start + 5);
    // Other content of the same length under the same time. A build would notice, so none comes before the firing.
    let holds = stage.package.index.raw_range(stage.long(3)).start;
    let rows = stage.package.index.catalog().iter().filter(|row| row.entry.size > 0 && row.offset <= holds);
    let row = rows.max_by_key(|row| row.offset).expect("a file lies there");
    let path = stage.world.source.join(row.entry.path.to_string());
    let time = fs::metadata(&path).expect("there").modified().expect("known");
    let at = holds - row.offset;
    flip(&path, at + 7);
    fs::File::options().write(true).open(&path).expect("opened").set_modified(time).expect("set");

    let stage = stage.restarted().await;
    let mut events = stage.world.distributor.events();
    let subscriber = stage.world.reopen(ONE).await;
    assert!(verify(&subscriber).await.set_aside);
    corrupt(&mut events).await;
    let firing = stage.world.distributor.send(&label(CHANNEL), SendOptions { build: false }).await.expect("a firing");
    let report = stage.world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    assert!(report.rows[0].revision > stage.package.index.root().revision);
    let note = report.rows[0].note.as_deref().unwrap_or_default();
    assert!(note.contains("TED-1847"), "{note}");
    stage.world.assert_equal(ONE);
    assert!(find(&stage.world.data_of(ONE), "distfile.corrupt").is_empty(), "what is overtaken is removed");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_that_cannot_be_made_good_is_not_offered() {
    let stage = delivered().await;
    flip(&stage.own_copy(), stage.frame(3).start + 5);
    let stage = stage.restarted().await;
    let subscriber = stage.world.reopen(ONE).await;
    // A firing stays open for somebody who is not there yet.
    let late = stage.world.joined("two.example").await;
    let open = stage.world.send().await;
    flip(&stage.copy_at_subscriber(), stage.frame(3).start + 1000);
    let mut events = stage.world.distributor.events();
    assert!(verify(&subscriber).await.set_aside);
    corrupt(&mut events).await;

    let away = stage.world.folder.path().join("away");
    fs::rename(&stage.world.source, &away).expect("moved");
    let send = async || stage.world.distributor.send(&label(CHANNEL), SendOptions { build: false }).await;
    let error = send().await.expect_err("nothing whole to send");
    assert_eq!(error.code(), "TED-1845", "{error}");
    assert!(error.to_string().contains("TED-1701"), "{error}");
    stage.world.start(&late).await;
    fs::rename(&away, &stage.world.source).expect("moved back");
    let report = stage.world.wait(send().await.expect("a firing")).await;
    assert!(report.is_complete(), "{report}");
    let rows = stage.world.distributor.report(open).expect("known").rows;
    let row = rows.iter().find(|row| row.subscriber.to_string() == "two.example").expect("it was to get it");
    assert_eq!(row.state, PartState::Pending, "the open firing did not offer it to whoever connected");
    for subscriber in [subscriber, late] {
        within("the shutdown", subscriber.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_an_extraction_finds_ends_the_part_until_the_next_firing() {
    let world = World::new().await;
    let blocked = world.target_of(ONE);
    fs::write(&blocked, "a file where the target should be").expect("written");
    let subscriber = world.subscriber(ONE).await;
    let failed = send_and_wait(&world).await;
    assert_eq!(failed.rows[0].state, PartState::Failed, "{failed}");
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    flip(&only(&world.data_of(ONE), "distfile.ted"), 100);
    fs::remove_file(&blocked).expect("removed");

    let mut events = world.distributor.events();
    let subscriber = world.reopen(ONE).await;
    assert_eq!(corrupt(&mut events).await.0, "TED-1871");
    only(&world.data_of(ONE), "distfile.corrupt");
    assert!(!blocked.exists(), "nothing of it was extracted");
    let report = world.wait(failed.firing).await;
    assert_eq!((report.outcome, report.rows[0].state), (Outcome::Partial, PartState::Corrupt), "{report}");
    // The same firing is over for this node, after a restart too.
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let subscriber = world.reopen(ONE).await;
    assert_eq!(world.distributor.report(failed.firing).expect("known").rows[0].state, PartState::Corrupt);
    let report = send_and_wait(&world).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal(ONE);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_finds_damage_a_week_after_the_package_was_whole_and_not_before() {
    let stage = delivered().await;
    flip(&stage.copy_at_subscriber(), stage.frame(5).start + 1000);
    let stage = stage.restarted().await;
    let clock = TestClock::at_present();
    let open = || stage.world.builder(ONE).clock(clock.clone()).open();
    let day = Duration::from_secs(24 * 3600);

    clock.forward(6 * day);
    let subscriber = open().await.expect("opened");
    stage.world.start(&subscriber).await;
    within("the shutdown", subscriber.shutdown()).await;
    assert!(stage.copy_at_subscriber().exists(), "it is not due");
    drop(subscriber);

    clock.forward(2 * day);
    let mut receipts = stage.world.distributor.events();
    let subscriber = open().await.expect("opened");
    let mut events = subscriber.events();
    stage.world.start(&subscriber).await;
    let found = event("the scrub's finding", &mut events, |event| match event {
        SubscriberEvent::Corrupt { detail, .. } => Some(detail),
        SubscriberEvent::Scrubbed { .. } => panic!("it was found whole"),
        _ => None,
    });
    assert_eq!(found.await, format!("frame {} is damaged", stage.long(5)));
    corrupt(&mut receipts).await;
    let report = send_and_wait(&stage.world).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.rows[0].sent_bytes, stage.frame(5).end - stage.frame(5).start);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_package_is_scrubbed_once_and_the_note_survives_a_restart() {
    let stage = delivered().await.restarted().await;
    let clock = TestClock::at_present();
    let open = |interval| stage.world.builder(ONE).clock(clock.clone()).scrub(interval).open();
    clock.forward(Duration::from_secs(8 * 24 * 3600));
    let subscriber = open(ScrubInterval::default()).await.expect("opened");
    let mut events = subscriber.events();
    subscriber.start().await.expect("it starts");
    let scrubbed = event("the scrub", &mut events, |event| match event {
        SubscriberEvent::Scrubbed { bytes, .. } => Some(bytes),
        _ => None,
    });
    assert_eq!(scrubbed.await, stage.package.bytes.len() as u64);
    let checked = subscriber.status().await.expect("readable").distributions[0].checked;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    assert_eq!(checked.map(|at| at.millis()), Some(ted_core::Clock::now(&*clock).millis()));
    let subscriber = open(ScrubInterval::Never).await.expect("opened");
    assert_eq!(subscriber.status().await.expect("readable").distributions[0].checked, checked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_corrupt_package_was_taken_up_costs_no_more_than_the_damaged_frames() {
    let stage = delivered().await;
    flip(&stage.copy_at_subscriber(), stage.frame(1).start + 1000);
    let subscriber = stage.world.builder(ONE).open().await.expect("opened");
    assert!(verify(&subscriber).await.set_aside);
    drop(subscriber);
    // The renaming was the last thing that happened: no map vouches for anything, and the second frame is wrong.
    let corrupt = only(&stage.world.data_of(ONE), "distfile.corrupt");
    fs::rename(&corrupt, corrupt.with_file_name("distfile.part")).expect("renamed");
    let stage = stage.restarted().await;
    let subscriber = stage.world.reopen(ONE).await;
    let report = send_and_wait(&stage.world).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(fs::read(stage.copy_at_subscriber()).expect("there"), stage.package.bytes);
    assert_eq!(report.rows[0].sent_bytes, stage.frame(1).end - stage.frame(1).start, "{report:?}");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_whose_root_table_or_end_is_damaged_keeps_its_body() {
    for place in ["catalog", "table", "end"] {
        let stage = delivered().await;
        let index = &stage.package.index;
        let whole = stage.package.bytes.len() as u64;
        let at = match place {
            "catalog" => index.frame_range(index.body_frames()).start + 3,
            "table" => index.frame_range(index.body_frames()).end + 20,
            _ => whole - 1,
        };
        flip(&stage.copy_at_subscriber(), at);
        let stage = stage.restarted().await;
        let mut receipts = stage.world.distributor.events();
        let subscriber = stage.world.reopen(ONE).await;
        assert!(verify(&subscriber).await.set_aside, "{place}");
        corrupt(&mut receipts).await;
        let report = send_and_wait(&stage.world).await;
        assert!(report.is_complete(), "{place}: {report}");
        let body = stage.package.index.root().body_bytes;
        // The end is fetched in one piece, which may hold a little of the body.
        assert!(report.rows[0].sent_bytes <= whole - body + 64 * 1024, "{place}: {} bytes", report.rows[0].sent_bytes);
        assert_eq!(fs::read(stage.copy_at_subscriber()).expect("there"), stage.package.bytes, "{place}");
        within("the shutdown", subscriber.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_gone_comes_again_with_the_next_firing() {
    let stage = delivered().await;
    fs::remove_file(stage.copy_at_subscriber()).expect("removed");
    let stage = stage.restarted().await;
    let mut receipts = stage.world.distributor.events();
    let subscriber = stage.world.reopen(ONE).await;
    assert_eq!(corrupt(&mut receipts).await.0, "TED-1872", "told at the start");
    let report = send_and_wait(&stage.world).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(fs::read(stage.copy_at_subscriber()).expect("there"), stage.package.bytes);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_puts_the_target_in_order() {
    let world = World::new().await;
    let subscriber = world.subscriber(ONE).await;
    world.deliver().await;
    fs::write(world.target_of(ONE).join("file-03"), "scribbled").expect("written");
    let row = verify(&subscriber).await;
    assert!(!row.different.is_empty() && !row.mended && row.fault.is_none(), "{row:?}");
    let name = DISTRIBUTION.parse().expect("valid");
    let row = subscriber.repair(Some(&name)).await.expect("repaired").remove(0);
    assert!(row.mended, "{row:?}");
    assert!(verify(&subscriber).await.different.is_empty());
    world.assert_equal(ONE);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_package_is_mended_in_the_same_way_on_both_sides() {
    let world = World::new().await;
    fs::write(world.source.join("large"), noise(9, 20 << 20)).expect("written");
    let spec = DistributionSpec { encrypt: true, ..DistributionSpec::new(label(DISTRIBUTION), &world.source) };
    world.distributor.update_distribution(&label(DISTRIBUTION), spec).await.expect("changed");
    let subscriber = world.subscriber(ONE).await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let (own, theirs) = (world.folder.path().join("distributor"), world.data_of(ONE));
    let whole = fs::read(only(&own, "distfile.ted")).expect("there");
    for copy in [&own, &theirs] {
        flip(&only(copy, "distfile.ted"), whole.len() as u64 / 2);
    }
    let world = world.restarted().await;
    let mut events = world.distributor.events();
    let subscriber = world.reopen(ONE).await;
    assert!(verify(&subscriber).await.set_aside);
    corrupt(&mut events).await;
    let report = send_and_wait(&world).await;
    assert!(report.is_complete(), "{report}");
    let row = &report.rows[0];
    assert!(row.note.as_ref().is_some_and(|note| note.contains("TED-1846")), "{row:?}");
    assert!((1 << 20..5 << 20).contains(&row.sent_bytes), "one frame: {}", row.sent_bytes);
    for copy in [&own, &theirs] {
        assert_eq!(fs::read(only(copy, "distfile.ted")).expect("there"), whole, "{}", copy.display());
    }
    assert!(verify(&subscriber).await.fault.is_none());
    within("the shutdown", subscriber.shutdown()).await;
}
