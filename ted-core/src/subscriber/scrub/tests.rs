//! When a scrub begins, how fast it reads, and what it remembers. Time is paused: weeks pass in moments.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;
use crate::id::{DistributionId, KeyHash, Revision};
use crate::node::{Clock, RecordBatch};
use crate::package::tests::Tree;
use crate::package::{BuildOptions, PackageKind, ROOT_CONTEXT, RootSigner, Source as _, build_baseline};
use crate::security::{Authority, AwsLc, Identity, Signature, Usage, sign};
use crate::store::{FinishedFile, PackagePlace};
use crate::subscriber::held::{HeldPackage, held_key};
use crate::subscriber::{Settings, SubscriberBuilder};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const START: u64 = 1_800_000_000_000;
const CONTENT_BYTES: usize = 8 << 20;

/// A clock that goes with tokio's time.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::from_millis(START).plus(self.0.elapsed())
    }
}

struct Signer(Identity);

impl RootSigner for Signer {
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(sign(&AwsLc, &self.0, ROOT_CONTEXT, root_bytes)?)
    }
}

/// A Subscriber that never ran, with one package in its depot.
struct Kept {
    folder: tempfile::TempDir,
    state: Arc<State>,
    key: Key,
    file: PathBuf,
    bytes: u64,
}

fn builder(folder: &tempfile::TempDir, clock: Arc<PausedClock>) -> SubscriberBuilder {
    crate::Subscriber::builder(folder.path().join("data")).name("s.example".parse().unwrap()).clock(clock)
}

fn settings_of(builder: SubscriberBuilder) -> (Settings, Arc<dyn Clock>) {
    (builder.settings, builder.clock)
}

fn open(
    folder: &tempfile::TempDir,
    clock: Arc<PausedClock>,
    change: impl FnOnce(SubscriberBuilder) -> SubscriberBuilder,
) -> Arc<State> {
    let (settings, clock) = settings_of(change(builder(folder, clock)));
    Arc::new(State::open(settings, clock, Arc::new(AwsLc)).unwrap())
}

async fn kept(clock: Arc<PausedClock>, change: impl FnOnce(SubscriberBuilder) -> SubscriberBuilder) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let mut noise = vec![0; CONTENT_BYTES];
    blake3::Hasher::new_derive_key("ted tests 2026 scrub").finalize_xof().fill(&mut noise);
    let mut source = Tree::new();
    source.file("noise", noise);

    let now = UnixMillis::from_millis(START);
    let authority = Authority::create(&AwsLc, &"dist.example".parse().unwrap(), now).unwrap();
    let signer = Signer(authority.issue_identity(&AwsLc, Usage::Sign, authority.root().name(), now).unwrap());
    let (fleet, distribution) = (authority.root().key_hash(), DistributionId::from_bytes([7; 16]));
    let place = PackagePlace::at_subscriber(
        authority.root().name(),
        &"site".parse().unwrap(),
        Revision::from_number(5),
        PackageKind::Baseline,
    );
    let state = open(&folder, clock, change);
    state.trust(&authority.root().certificate().pem()).unwrap();
    let mut staged = state.depot.stage(&place).unwrap();
    let (package, bytes) = build(&source, (fleet, distribution), now, &signer, &mut staged);
    let path = staged.finish().unwrap();
    let info = state.depot.put(FinishedFile { path: path.clone(), place: place.clone() }).await.unwrap();
    assert_eq!((info.id, info.bytes), (package, bytes));
    let held = Held {
        name: "site".parse().unwrap(),
        revision: Revision::from_number(5),
        content: info.root.disclosure.as_ref().unwrap().content,
        packages: vec![HeldPackage::of(&info)],
        proposed_mode: crate::model::ExtractMode::default(),
        proposed_target: None,
    };
    let key = (fleet, distribution);
    let batch = RecordBatch::default().put(&held_key(&fleet, &distribution), &held).unwrap();
    let batch = batch.put(&checked_key(&key, &package), &Checked::whole(now)).unwrap();
    state.records.apply(batch).unwrap();
    Kept { folder, state, key, file: path, bytes }
}

fn build(
    source: &Tree,
    (fleet, distribution): (KeyHash, DistributionId),
    now: UnixMillis,
    signer: &Signer,
    out: &mut dyn std::io::Write,
) -> (PackageId, u64) {
    let entries = source.entries(&mut |_| {}).unwrap();
    let options = BuildOptions {
        revision: Revision::from_number(5),
        created: now,
        ..BuildOptions::new(distribution, "site".parse().unwrap(), fleet, 1)
    };
    let built = build_baseline(source, entries, &options, signer, out, &|_| {}).unwrap();
    (built.id, built.bytes)
}

fn clock() -> Arc<PausedClock> {
    Arc::new(PausedClock(Instant::now()))
}

/// Lets a Subscriber go, once what it had begun on other threads is over.
async fn close(state: Arc<State>) {
    while Arc::strong_count(&state) > 1 {
        tokio::task::yield_now().await;
    }
}

/// Runs the scrub until its next event, and says when that came.
async fn next(kept: &Kept) -> (SubscriberEvent, Duration) {
    let (mut events, begun) = (kept.state.events.subscribe(), Instant::now());
    let (stop, state) = (CancellationToken::new(), kept.state.clone());
    let scrubbing = tokio::spawn(state.scrub_all(stop.clone()));
    let event = events.next().await.unwrap();
    let took = begun.elapsed();
    stop.cancel();
    scrubbing.await.unwrap();
    (event, took)
}

#[tokio::test(start_paused = true)]
async fn a_package_is_read_again_every_week_at_the_rate_that_is_set() {
    let rate = NonZeroU64::new(1 << 20).unwrap();
    let kept = kept(clock(), |builder| builder.scrub_rate(rate)).await;
    // Eight mebibytes of noise at one in a second.
    let reading = Duration::from_secs(8);
    for _ in 0..3 {
        let (event, took) = next(&kept).await;
        assert!(matches!(event, SubscriberEvent::Scrubbed { bytes, .. } if bytes == kept.bytes), "{event:?}");
        assert!(took >= WEEK + reading - Duration::from_millis(1), "{took:?}");
        assert!(took < WEEK + reading + Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_rots_in_the_second_week_is_found_at_its_end() {
    let kept = kept(clock(), |builder| builder).await;
    assert!(matches!(next(&kept).await.0, SubscriberEvent::Scrubbed { .. }));
    let file = std::fs::File::options().read(true).write(true).open(&kept.file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, kept.bytes / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], kept.bytes / 2).unwrap();
    let (event, took) = next(&kept).await;
    assert!(matches!(&event, SubscriberEvent::Corrupt { detail, .. } if detail.contains("is damaged")), "{event:?}");
    assert!(took >= WEEK - Duration::from_secs(1) && took < WEEK + Duration::from_secs(2), "{took:?}");
    assert!(kept.file.with_file_name("distfile.corrupt").exists() && !kept.file.exists());
    assert!(kept.state.aside(&kept.key).unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_from_when_it_was_last_whole_and_never_means_never() {
    let clock = clock();
    let kept = kept(clock.clone(), |builder| builder).await;
    tokio::time::advance(WEEK - Duration::from_secs(3600)).await;
    let Kept { folder, state, key, file, bytes } = kept;
    close(state).await;
    let state = open(&folder, clock.clone(), |builder| builder);
    let again = Kept { folder, state, key, file, bytes };
    let (_, took) = next(&again).await;
    assert!(took >= Duration::from_secs(3600) && took < Duration::from_secs(3602), "{took:?}");
    let held = again.state.noted_held(&key).unwrap().unwrap();
    let checked = again.state.checked(&key, &held).unwrap();
    assert_eq!(checked, Some(clock.now()));

    let Kept { folder, state, .. } = again;
    close(state).await;
    let state = open(&folder, clock, |builder| builder.scrub(ScrubInterval::Never));
    let (stop, mut events) = (CancellationToken::new(), state.events.subscribe());
    let scrubbing = tokio::spawn(state.clone().scrub_all(stop.clone()));
    let nothing = tokio::time::timeout(WEEK * 3, events.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    stop.cancel();
    scrubbing.await.unwrap();
}
