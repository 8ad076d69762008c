//! A transfer that breaks in the middle goes on where it was: what crosses twice is bounded.

mod support;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::proxy::Proxy;
use support::{DISTRIBUTION, World, connected, event, extracted, label, listen, noise, within};
use ted_core::distributor::DistributorBuilder;
use ted_core::limits::Limits;
use ted_core::{BuildOutcome, Distributor, DistributorEvent, Subscriber, SubscriberEvent};

const MIB: u64 = 1024 * 1024;

/// Bytes of content; noise, so that the package is as long.
const CONTENT_BYTES: usize = 64 << 20;

/// Where the transfer is broken: well after the first sync, well before the end.
const BREAK_AT: u64 = 24 * MIB;

/// What may cross twice: a sync interval, a frame, and what one stream's window holds when it breaks.
fn twice_max() -> u64 {
    let limits = Limits::DEFAULT;
    limits.sync_interval_bytes + u64::from(limits.frame_stored_bytes_max) + 16 * MIB
}

/// The same as UDP payload: headers, acknowledgements, and packets that a busy machine drops and QUIC sends again.
fn with_headers(bytes: u64) -> u64 {
    bytes + bytes / 16
}

/// What a Distributor has handed to its connections since it was opened, up to the package's length.
fn count_sent(distributor: &Distributor) -> Arc<AtomicU64> {
    let total = Arc::new(AtomicU64::new(0));
    let (counted, mut events) = (total.clone(), distributor.events());
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let DistributorEvent::Sending { bytes, .. } = event {
                counted.fetch_max(bytes, Ordering::SeqCst);
            }
        }
    });
    total
}

/// A World whose one Subscriber dials through a proxy, and a package that takes a while.
async fn world() -> (World, Proxy, u64) {
    let world = World::new().await;
    for number in 0..4 {
        let bytes = noise(number + 10, CONTENT_BYTES / 4);
        fs::write(world.source.join(format!("large-{number}")), bytes).expect("written");
    }
    let proxy = Proxy::to(world.address).await;
    let BuildOutcome::Built(built) = world.distributor.build(&label(DISTRIBUTION)).await.expect("built") else {
        panic!("the first revision is a new one")
    };
    assert!(built.bytes >= CONTENT_BYTES as u64);
    (world, proxy, built.bytes)
}

async fn join(world: &World, proxy: &Proxy) -> Subscriber {
    let invite = world.invite("one.example").await;
    let invite = invite.replace(&world.address.to_string(), &proxy.address.to_string());
    let subscriber = within("the enrolment", world.builder("one.example").join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    subscriber
}

/// Waits until more than `bytes` are on disk, and holds the link up then.
async fn break_at(subscriber: &Subscriber, proxy: &Proxy, bytes: u64) -> u64 {
    let mut events = subscriber.events();
    let there = event("half the package", &mut events, |event| match event {
        SubscriberEvent::Receiving { bytes: there, .. } if there > bytes => {
            proxy.break_link();
            Some(there)
        }
        SubscriberEvent::Received { .. } => panic!("all of it arrived before the link was broken"),
        _ => None,
    });
    there.await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_stopped_in_the_middle_goes_on_from_there() {
    let (world, proxy, package) = world().await;
    let subscriber = join(&world, &proxy).await;
    let firing = world.send().await;
    break_at(&subscriber, &proxy, BREAK_AT).await;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let before = proxy.bytes_down();
    proxy.mend_link();
    let subscriber = world.reopen("one.example").await;
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("one.example");
    let total = proxy.bytes_down();
    assert!(
        before >= BREAK_AT && total <= with_headers(package + twice_max()),
        "{before} + {} of {package}",
        total - before
    );
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_crashed_in_the_middle_goes_on_from_what_was_synced() {
    let (world, proxy, package) = world().await;
    let subscriber = join(&world, &proxy).await;
    let firing = world.send().await;
    break_at(&subscriber, &proxy, BREAK_AT).await;
    // The process that crashed is the copy's; this one still runs and is only stopped so that there are not two.
    let copy = world.data_of("crashed");
    copy_tree(&world.data_of("one.example"), &copy).expect("copied");
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    proxy.mend_link();
    let before = proxy.bytes_down();
    let builder =
        Subscriber::builder(copy).target(DISTRIBUTION.parse().expect("valid"), world.target_of("one.example"));
    let subscriber = builder.open().await.expect("what a crash left can be opened");
    world.start(&subscriber).await;
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("one.example");
    let total = proxy.bytes_down();
    assert!(total <= with_headers(package + twice_max()), "{before} + {} of {package}", total - before);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distributor_that_starts_again_in_the_middle_goes_on_from_there() {
    let (world, _, package) = world().await;
    let sent_before = count_sent(&world.distributor);
    let subscriber = world.subscriber("one.example").await;
    let mut events = subscriber.events();
    let firing = world.send().await;
    event("half the package", &mut events, |event| match event {
        SubscriberEvent::Receiving { bytes, .. } if bytes > BREAK_AT => Some(()),
        _ => None,
    })
    .await;
    // It says goodbye; a Distributor that dies without a word is the idle timeout's business.
    let World { folder, source, distributor, address } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    let builder: DistributorBuilder = Distributor::builder(folder.path().join("distributor")).listen(address);
    let distributor = builder.open().await.expect("its data directory is free");
    let sent_after = count_sent(&distributor);
    let mut meetings = distributor.events();
    listen(&distributor).await;
    connected(&mut meetings, "one.example").await;
    let world = World { folder, source, distributor, address };
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    extracted(&mut events).await;
    world.assert_equal("one.example");
    let (before, after) = (sent_before.load(Ordering::SeqCst), sent_after.load(Ordering::SeqCst));
    assert!(after < package && after > 0, "nothing was kept: {before} + {after} of {package}");
    assert!(before + after <= package + twice_max(), "{before} + {after} of {package}");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_fails_for_a_moment_costs_nothing_but_the_moment() {
    let (world, proxy, package) = world().await;
    let subscriber = join(&world, &proxy).await;
    let before = proxy.bytes_down();
    let firing = world.send().await;
    break_at(&subscriber, &proxy, BREAK_AT).await;
    proxy.mend_link();
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("one.example");
    // Headers, acknowledgements and what was lost on the way; a window may be sent again.
    let crossed = proxy.bytes_down() - before;
    assert!(crossed <= package + package / 8 + 16 * MIB, "{crossed} of {package}");
    within("the shutdown", subscriber.shutdown()).await;
}

/// Copies a data directory as a crash would leave it. Maps go first: a map must not be newer than the data it vouches
/// for, which on a real disk the order of syncs sees to.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let (mut folders, mut files) = (vec![from.to_owned()], vec![]);
    while let Some(folder) = folders.pop() {
        let place = to.join(folder.strip_prefix(from).expect("below"));
        fs::create_dir_all(&place)?;
        fs::set_permissions(&place, fs::metadata(&folder)?.permissions())?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort_by_key(|file| !file.to_string_lossy().contains(".map"));
    for file in files {
        match fs::copy(&file, to.join(file.strip_prefix(from).expect("below"))) {
            // Renamed meanwhile: the crash came a moment earlier or later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied?),
        }
    }
    Ok(())
}
