//! Encrypted Distributions with whole nodes: who gets them, what a Subscriber without a grant does, and that adding and
//! removing Subscribers rebuilds nothing.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::fake::{Fake, Package};
use support::raw::{self, Reply};
use support::{CHANNEL, DISTRIBUTION, World, extracted, find, label, node, noise, within};
use ted_core::id::{EnvelopeId, KeyHash, PackageId, UnixMillis};
use ted_core::node::{Clock as _, SystemClock};
use ted_core::protocol::{Answer, Fetch, FetchTarget, OfferAnswer, PartState, Request, code};
use ted_core::security::{
    AwsLc, ContentKey, Crypto as _, EnvelopeKind, Grant, GrantTree, Grants, KeptGrant, ProvenGrant, Recipient,
    ReleaseStatement, Usage,
};
use ted_core::store::{Batch, Catalog as _, NodeRole, SecurityDir, SledCatalog};
use ted_core::{BuildOutcome, DistributionSpec, FiringReport};

const HOUR: Duration = Duration::from_secs(3600);

/// A Distributor whose one Distribution is encrypted.
async fn sealed_world() -> World {
    let world = World::new().await;
    encrypt(&world, true).await;
    world
}

async fn encrypt(world: &World, encrypt: bool) {
    let spec = DistributionSpec::new(label(DISTRIBUTION), &world.source).encrypt(encrypt);
    world.distributor.update_distribution(&label(DISTRIBUTION), spec).await.expect("changed");
}

fn grant_of(world: &World, name: &str) -> Vec<PathBuf> {
    find(&world.data_of(name), "distfile.grant")
}

fn packages_of(data: &Path) -> Vec<PathBuf> {
    let mut found = find(data, "distfile.ted");
    found.extend(find(data, "distfile.part"));
    found
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn row<'a>(report: &'a FiringReport, name: &str) -> &'a ted_core::distributor::DeliveryRow {
    report.rows.iter().find(|row| row.subscriber == node(name)).expect("it is in the firing")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_revision_reaches_whoever_is_granted_it_byte_for_byte() {
    let world = sealed_world().await;
    let canary = noise(77, 5000);
    fs::write(world.source.join("canary"), &canary).expect("written");
    let subscriber = world.subscriber("one.example").await;
    let other = world.subscriber("two.example").await;
    world.deliver().await;
    for name in ["one.example", "two.example"] {
        world.assert_equal(name);
        let packages = packages_of(&world.data_of(name));
        let stored = fs::read(&packages[0]).expect("kept");
        assert!(!contains(&stored, &canary[..64]), "the package on the disk is sealed");
        assert_eq!(grant_of(&world, name).len(), 1);
    }
    assert!(subscriber.verify(None).await.expect("readable").iter().all(|row| row.fault.is_none()));

    // The next revision writes only what changed, so the one before could be opened too.
    let mut events = subscriber.events();
    fs::write(world.source.join("file-05"), "another line\n").expect("written");
    world.deliver().await;
    assert_eq!(extracted(&mut events).await, 1);
    world.assert_equal("one.example");
    assert_eq!(grant_of(&world, "one.example").len(), 2, "each package that is kept has its grant");

    // Restarted, it opens what it keeps, without being granted anything anew.
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    fs::remove_dir_all(world.target_of("one.example")).expect("removed");
    let subscriber = world.builder("one.example").open().await.expect("opened");
    subscriber.extract(None).await.expect("extracted");
    world.assert_equal("one.example");
    within("the shutdown", other.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_subscriber_rebuilds_nothing_and_wraps_for_nobody_else_again() {
    let world = sealed_world().await;
    let first = world.subscriber("one.example").await;
    world.deliver().await;
    let before = world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    let grant = fs::read(&grant_of(&world, "one.example")[0]).expect("kept");

    let world = world.restarted().await;
    let second = world.subscriber("two.example").await;
    let after = world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    assert!(matches!(&after, BuildOutcome::Unchanged(_)), "{after:?}");
    assert_eq!(after.revision().package, before.revision().package);
    world.deliver().await;
    world.assert_equal("two.example");
    assert_eq!(fs::read(&grant_of(&world, "one.example")[0]).expect("kept"), grant, "the first one keeps its grant");
    let kept = |name| KeptGrant::from_bytes(&fs::read(&grant_of(&world, name)[0]).expect("kept")).expect("a grant");
    let (first_grant, second_grant) = (kept("one.example"), kept("two.example"));
    assert_eq!((first_grant.proven.index, second_grant.proven.index), (0, 1));
    assert!(!second_grant.proven.path.is_empty(), "the tree has both now");
    within("the shutdown", first.shutdown()).await;
    within("the shutdown", second.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_was_removed_stays_without_the_next_revision() {
    let world = sealed_world().await;
    let (stays, goes) = (world.subscriber("one.example").await, world.subscriber("two.example").await);
    world.deliver().await;
    let members = [node("one.example")];
    world.distributor.update_channel(&label(CHANNEL), &[label(DISTRIBUTION)], &members).await.expect("changed");
    fs::write(world.source.join("file-05"), "not for everyone\n").expect("written");
    let report = world.deliver().await;
    assert_eq!(report.rows.len(), 1);
    world.assert_equal("one.example");

    // Not even when it asks itself, with all ids known: neither package, nor envelope, nor its own grant, nor another's.
    let built = world.distributor.build(&label(DISTRIBUTION)).await.expect("built").revision().clone();
    let kept = KeptGrant::from_bytes(&fs::read(&grant_of(&world, "one.example")[0]).expect("kept")).expect("a grant");
    let grants = EnvelopeId::from_bytes(*blake3::hash(&kept.envelope).as_bytes());
    let (_, identity) = raw::identity(&world.data_of("two.example"));
    within("the shutdown", goes.shutdown()).await;
    let (_endpoint, connection) = raw::dial(&world.data_of("two.example"), world.address).await;
    for target in [
        FetchTarget::Package(built.package),
        FetchTarget::Envelope(grants),
        FetchTarget::Grant { grants, recipient: identity.certificate.key_hash() },
        FetchTarget::Grant { grants, recipient: kept.proven.grant.recipient },
    ] {
        let reply = raw::ask(&connection, &Request::Fetch(Fetch { target, from: 0, to: u64::MAX })).await;
        let Reply::Answer(Answer::Refused(refused)) = &reply else { panic!("{target:?} was answered with {reply:?}") };
        assert_eq!(refused.code(), code::NOT_ENTITLED, "{target:?}");
    }
    within("the shutdown", stays.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_fetches_anothers_grant() {
    let world = sealed_world().await;
    let subscriber = world.subscriber("one.example").await;
    drop(world.joined("two.example").await);
    let mut events = subscriber.events();
    world.send().await;
    extracted(&mut events).await;
    let kept = KeptGrant::from_bytes(&fs::read(&grant_of(&world, "one.example")[0]).expect("kept")).expect("a grant");
    let grants = EnvelopeId::from_bytes(*blake3::hash(&kept.envelope).as_bytes());
    let (_, identity) = raw::identity(&world.data_of("two.example"));
    let (_endpoint, connection) = raw::dial(&world.data_of("two.example"), world.address).await;
    let ask = async |recipient: KeyHash| {
        let target = FetchTarget::Grant { grants, recipient };
        raw::ask(&connection, &Request::Fetch(Fetch { target, from: 0, to: u64::MAX })).await
    };
    let foreign = ask(kept.proven.grant.recipient).await;
    assert!(
        matches!(&foreign, Reply::Answer(Answer::Refused(refused)) if refused.code() == code::NOT_ENTITLED),
        "{foreign:?}"
    );
    let own = ask(identity.certificate.key_hash()).await;
    assert!(matches!(&own, Reply::Content { bytes, .. } if ProvenGrant::from_bytes(bytes).is_ok()), "{own:?}");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_subscriber_gets_what_is_not_encrypted_and_refuses_what_is() {
    let world = sealed_world().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    {
        let catalog = SledCatalog::open(&world.data_of("one.example").join("catalog")).expect("free");
        let renamed = Batch::new().put(b"node", br#""renamed.example""#);
        assert!(matches!(catalog.commit(&renamed), Ok(ted_core::store::Committed::Done)));
    }
    let before = fs::read_dir(world.data_of("one.example").join("sub/dist.example")).expect("there").count();

    let subscriber = world.builder("one.example").open().await.expect("opened");
    let mut events = world.distributor.events();
    subscriber.start().await.expect("it starts");
    support::connected(&mut events, "one.example").await;
    fs::write(world.source.join("file-05"), "after the renaming\n").expect("written");
    let report = world.wait(world.send().await).await;
    let refused = row(&report, "one.example");
    assert_eq!((refused.state, refused.code.as_deref()), (PartState::Failed, Some("TED-1869")), "{report}");
    assert!(refused.detail.contains("renamed.example") && refused.detail.contains("one.example"), "{report}");
    assert_eq!(fs::read_dir(world.data_of("one.example").join("sub/dist.example")).expect("there").count(), before);
    assert_eq!(packages_of(&world.data_of("one.example")).len(), 1, "nothing of the new revision was fetched");
    let status = subscriber.status().await.expect("readable");
    let trouble = status.distributions[0].trouble.as_deref().unwrap_or_default();
    assert!(trouble.starts_with("TED-1869"), "{trouble}");

    encrypt(&world, false).await;
    let report = world.deliver().await;
    assert_eq!(report.rows.len(), 1);
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turning_encryption_on_and_off_makes_a_new_revision_of_the_same_content() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    for sealed in [true, false] {
        encrypt(&world, sealed).await;
        assert!(world.distributor.has_changed(&label(DISTRIBUTION)).await.expect("known"));
        let mut events = subscriber.events();
        world.deliver().await;
        assert_eq!(extracted(&mut events).await, 0, "the content is the same");
        world.assert_equal("one.example");
        // Of the revisions that are kept one is sealed; `<revision>/delta/distfile.ted` tells the newest.
        let revision = |path: &PathBuf| path.iter().rev().nth(2).map(ToOwned::to_owned);
        let newest = packages_of(&world.data_of("one.example")).into_iter().max_by_key(revision).expect("kept");
        assert_eq!(newest.with_file_name("distfile.grant").exists(), sealed);
        assert_eq!(grant_of(&world, "one.example").len(), 1, "the sealed one has a grant");
    }
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_grant_is_fetched_again_and_a_lost_epoch_secret_has_the_revision_built_anew() {
    let world = sealed_world().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    fs::remove_file(&grant_of(&world, "one.example")[0]).expect("removed");
    let error = subscriber.extract(None).await.expect_err("it cannot be opened");
    assert_eq!(error.code(), "TED-1870");
    let report = world.deliver().await;
    assert_eq!(report.rows[0].state, PartState::Extracted);
    subscriber.extract(None).await.expect("it has its grant again");
    let before = world.distributor.build(&label(DISTRIBUTION)).await.expect("built").revision().revision;
    within("the shutdown", subscriber.shutdown()).await;

    let security = SecurityDir::open(&world.data_of("distributor").join("security"), NodeRole::Distributor).unwrap();
    let keystore = security.load_keystore().expect("a keystore");
    let mut emptied = ted_core::security::Keystore::default();
    for held in keystore.held() {
        emptied.hold(held.clone());
    }
    assert!(!keystore.epoch_secrets().is_empty() && emptied.epoch_secrets().is_empty());
    security.save_keystore(&emptied).expect("written");
    let world = world.restarted().await;
    let error = world.distributor.entries(&label(DISTRIBUTION)).await.expect_err("it cannot be opened");
    assert_eq!(error.code(), "TED-1168");
    within("a start", subscriber.start()).await.expect("it starts");
    world.deliver().await;
    world.assert_equal("one.example");
    let after = world.distributor.build(&label(DISTRIBUTION)).await.expect("built").revision().revision;
    assert!(after > before);
    within("the shutdown", subscriber.shutdown()).await;
}

/// What a lying Distributor may show instead of a grant that fits.
struct Shown {
    what: &'static str,
    code: &'static str,
    /// The package that the envelope is about.
    package: fn(PackageId) -> PackageId,
    /// Whose grant it is.
    recipient: fn(KeyHash) -> KeyHash,
    /// Whether the tree that is signed has it.
    signed: bool,
    issued: fn(UnixMillis) -> UnixMillis,
    kind: EnvelopeKind,
    /// Whether the content key is sealed to the Subscriber's encryption key.
    to_us: bool,
}

const HONEST: Shown = Shown {
    what: "all as it should be",
    code: "",
    package: |package| package,
    recipient: |recipient| recipient,
    signed: true,
    issued: |now| now,
    kind: EnvelopeKind::GRANTS,
    to_us: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_foreign_replayed_or_altered_grant_has_the_offer_refused_and_nothing_fetched() {
    let world = World::new().await;
    let subscriber = world.joined("one.example").await;
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    within("the shutdown", world.distributor.shutdown()).await;
    let package = Package::of(&world.data_of("distributor"));
    let data = world.data_of("one.example");
    let (root, identity) = raw::identity(&data);
    let security = SecurityDir::open(&data.join("security"), NodeRole::Subscriber).expect("a security folder");
    let keystore = security.load_keystore().expect("a keystore");
    let encryption = keystore.identity(&root.key_hash(), Usage::SubscriberEncryption).expect("enrolled");
    let stranger = AwsLc.generate_key().expect("a key");
    let keys = world.data_of("distributor");
    let meeting = Fake::meet(&keys, world.address, &package, Box::new(|_, bytes| bytes));
    let (fake, started) = tokio::join!(meeting, subscriber.start());
    started.expect("it starts");
    let release = package.release().with_sealed(true);
    let us = identity.certificate.key_hash();

    let show = |shown: &Shown| {
        let id = (shown.package)(package.index.id());
        let spki = if shown.to_us { encryption.key.spki() } else { stranger.spki() };
        let recipient = Recipient { identity: (shown.recipient)(us), encryption: spki.to_vec() };
        let key = ContentKey::from_bytes([1; 32]);
        let grant = Grant::issue(&AwsLc, &key, &id, &recipient).expect("wrapped");
        let tree = GrantTree::over(vec![grant.leaf().expect("short")]).expect("one");
        let signed_root = if shown.signed { tree.root() } else { ted_core::id::Hash::of(b"another tree") };
        let grants = Grants { package: id, count: 1, merkle_root: signed_root };
        let issued = (shown.issued)(SystemClock.now());
        let envelope = fake.state(&release, issued, HOUR, |body| {
            body.kind = shown.kind;
            body.payload = grants.to_payload().expect("short");
        });
        fake.hand_out_grant(envelope, ProvenGrant { grant, index: 0, path: vec![] }.to_bytes().expect("short"));
        envelope
    };
    let state = |release: &ReleaseStatement| fake.state(release, SystemClock.now(), HOUR, |_| {});
    let offer = async |grants: Option<EnvelopeId>| {
        let grants = grants.map(|envelope| (package.index.id(), envelope)).into_iter().collect();
        let statement = state(&release);
        match fake.offer_with(1, release.distribution, statement, grants).await {
            OfferAnswer::Refused(refused) => refused.code().to_owned(),
            other => format!("{other:?}"),
        }
    };

    assert_eq!(offer(None).await, "TED-1868", "no grants are named");
    assert_eq!(offer(Some(EnvelopeId::from_bytes([7; 32]))).await, "TED-1868", "the envelope is not to be had");
    let without = fake.state(&release, SystemClock.now(), HOUR, |body| {
        body.kind = EnvelopeKind::GRANTS;
        let merkle_root = ted_core::id::Hash::of(b"");
        body.payload = Grants { package: package.index.id(), count: 1, merkle_root }.to_payload().expect("short");
    });
    assert_eq!(offer(Some(without)).await, "TED-1868", "the grant is not to be had");
    let other_package: fn(PackageId) -> PackageId = |_| PackageId::from_bytes([9; 32]);
    let long_ago: fn(UnixMillis) -> UnixMillis = |now| UnixMillis::from_millis(now.millis() - 10_000_000);
    for shown in [
        Shown { what: "replayed: another package's", code: "TED-1162", package: other_package, ..HONEST },
        Shown { what: "foreign", code: "TED-1163", recipient: |_| KeyHash::from_bytes([9; 32]), ..HONEST },
        Shown { what: "not among those signed", code: "TED-1164", signed: false, ..HONEST },
        Shown { what: "sealed to a stranger", code: "TED-1165", to_us: false, ..HONEST },
        Shown { what: "out of time", code: "TED-1123", issued: long_ago, ..HONEST },
        Shown { what: "another kind of envelope", code: "TED-1124", kind: EnvelopeKind::CONFIGURATION, ..HONEST },
    ] {
        assert_eq!(offer(Some(show(&shown))).await, shown.code, "{}", shown.what);
    }
    assert_eq!(fake.served(), 0, "nothing of the package was fetched");
    assert!(packages_of(&data).is_empty() && find(&data, "distfile.grant").is_empty(), "nothing was written");

    let taken = offer(Some(show(&HONEST))).await;
    assert!(taken.starts_with("Want"), "{}: {taken}", HONEST.what);
    within("the shutdown", subscriber.shutdown()).await;
}
