use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::distributor::{DistributionSpec, Distributor, SendOptions};
use crate::name::NodeName;
use crate::node::Clock;
use crate::protocol::{Outcome, PartState};
use crate::security::{AwsLc, Certificate, RevocationReason, Usage};
use crate::store::Registration;

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A Distributor that does not serve, with one encrypted Distribution in one Channel.
struct World {
    _folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    distributor: Distributor,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "content").unwrap();
        let clock = Arc::new(TestClock(AtomicU64::new(NOW.millis())));
        let builder = Distributor::builder(folder.path().join("data"))
            .name("dist.example".parse().unwrap())
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .clock(clock.clone());
        let distributor = builder.open().await.unwrap();
        let spec = DistributionSpec::new("site".parse().unwrap(), &source).encrypt(true);
        distributor.create_distribution(spec).await.unwrap();
        distributor.create_channel("all".parse().unwrap(), &["site".parse().unwrap()], &[]).await.unwrap();
        Self { _folder: folder, clock, distributor }
    }

    fn forward(&self, by: Duration) {
        self.clock.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn state(&self) -> Arc<State> {
        self.distributor.state.clone()
    }

    /// Registers a Subscriber in the Channel, with the encryption certificate that `certify` gives it.
    async fn enrol(&self, name: &str, certify: impl FnOnce(&State, &NodeName) -> Option<Vec<u8>>) -> KeyHash {
        let name: NodeName = name.parse().unwrap();
        self.distributor.create_subscriber(name.clone(), &[], &["all".parse().unwrap()]).await.unwrap();
        let state = self.state();
        let spki = crate::security::Crypto::generate_key(&AwsLc).unwrap().spki().to_vec();
        let encryption = certify(&state, &name);
        let registration = Registration { name, spki, encryption, registered: state.now() };
        state.registrations.register(registration).unwrap()
    }

    async fn granted(&self, to: &[KeyHash]) -> Granted {
        self.distributor.build(&"site".parse().unwrap()).await.unwrap();
        let (state, to) = (self.state(), to.to_vec());
        let granting = move || {
            let distribution = lock(&state.fleet).distribution(&"site".parse().unwrap()).unwrap().clone();
            let newest = state.newest(&distribution).unwrap().unwrap();
            state.grant(&distribution, &newest, &to).unwrap()
        };
        tokio::task::spawn_blocking(granting).await.unwrap()
    }

    fn grants(&self) -> Vec<Grant> {
        let rows = self.state().records.list_bytes("grant/").unwrap();
        rows.iter().map(|row| Grant::from_bytes(row).unwrap()).collect()
    }

    fn envelope(&self, id: &EnvelopeId) -> Envelope {
        let stored: StoredEnvelope = self.state().records.get(&envelope_key(&id.to_string())).unwrap().unwrap();
        Envelope::from_bytes(&hex::decode(stored.bytes).unwrap()).unwrap()
    }
}

impl Granted {
    /// That of the baseline.
    fn envelope(&self) -> Option<EnvelopeId> {
        self.envelopes.first().map(|(_, envelope)| *envelope)
    }
}

fn certificate(state: &State, name: &NodeName) -> Option<Vec<u8>> {
    let issued = state.own().authority.issue_identity(&AwsLc, Usage::SubscriberEncryption, name, state.now());
    Some(issued.unwrap().certificate.der().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_granted_is_skipped_with_a_reason_in_the_firing_and_the_others_are_granted() {
    let world = World::new().await;
    let missing = world.enrol("missing.example", |_, _| None).await;
    let expired = world.enrol("expired.example", certificate).await;
    world.forward(DAY * 366);
    let other = |state: &State, _: &NodeName| certificate(state, &"other.example".parse().unwrap());
    let renamed = world.enrol("renamed.example", other).await;
    let good = world.enrol("good.example", certificate).await;
    let revoked = world.enrol("revoked.example", certificate).await;
    // The key of its encryption certificate: a node whose identity key was revoked is sent nothing at all.
    let encryption = world.state().registrations.get(&revoked).unwrap().encryption.unwrap();
    let encryption = Certificate::from_der(&encryption).unwrap();
    world.state().revoke(&encryption.serial_hex(), RevocationReason::LOST).unwrap();

    let firing = world.distributor.send(&"all".parse().unwrap(), SendOptions::default()).await.unwrap();
    let report = world.distributor.report(firing).unwrap();
    let row = |name: &str| {
        let row = report.rows.iter().find(|row| row.subscriber.to_string() == name).unwrap();
        (row.state, row.code.as_deref(), !row.detail.is_empty())
    };
    assert_eq!(row("missing.example"), (PartState::Failed, Some("TED-1842"), true));
    assert_eq!(row("expired.example"), (PartState::Failed, Some("TED-1843"), true));
    assert_eq!(row("renamed.example"), (PartState::Failed, Some("TED-1844"), true));
    assert_eq!(row("revoked.example"), (PartState::Failed, Some("TED-1305"), true));
    assert_eq!(row("good.example"), (PartState::Pending, None, true), "it waits until it is connected");
    assert_eq!(report.outcome, Outcome::Open);
    let recipients: Vec<_> = world.grants().iter().map(|grant| grant.recipient).collect();
    assert_eq!(recipients, [good]);
    let granted = world.granted(&[missing, expired, renamed, revoked, good]).await;
    assert_eq!(granted.withheld.len(), 4);
    assert!(granted.envelope().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_added_at_the_end_and_those_that_are_there_stay() {
    let world = World::new().await;
    let first = world.enrol("one.example", certificate).await;
    let before = world.granted(&[first]).await.envelope().unwrap();
    assert_eq!(world.granted(&[first]).await.envelope(), Some(before), "nothing is signed anew for nothing");
    let one = world.grants();
    let second = world.enrol("two.example", certificate).await;
    let after = world.granted(&[first, second]).await.envelope().unwrap();
    assert_ne!(after, before);
    let both = world.grants();
    assert_eq!((both.len(), &both[..1]), (2, &one[..]));
    assert!(world.envelope(&after).body().sequence > world.envelope(&before).body().sequence);
    // Who was offered with the envelope before may still fetch by it.
    let set = world.state().grant_set(&before).unwrap().unwrap();
    let stated = Grants::from_payload(&world.envelope(&before).body().payload).unwrap();
    set.prove(&first).unwrap().check(&stated).unwrap();
    assert!(set.prove(&second).is_none());

    // A new encryption key is granted anew, and its grant is the one that counts.
    let der = certificate(&world.state(), &"one.example".parse().unwrap()).unwrap();
    world.state().registrations.set_encryption(&first, &der).unwrap();
    let renewed = world.granted(&[first]).await.envelope().unwrap();
    let set = world.state().grant_set(&renewed).unwrap().unwrap();
    assert_eq!((set.grants.len(), set.prove(&first).unwrap().index), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signature_over_grants_is_renewed_after_two_thirds_of_its_life_without_wrapping_anew() {
    let world = World::new().await;
    let key = world.enrol("one.example", certificate).await;
    let before = world.granted(&[key]).await.envelope().unwrap();
    world.forward(DAY * 19);
    assert_eq!(world.granted(&[key]).await.envelope(), Some(before));
    let grants = world.grants();
    world.forward(DAY * 2);
    let after = world.granted(&[key]).await.envelope().unwrap();
    assert_ne!(after, before);
    assert!(world.envelope(&after).body().expires > world.envelope(&before).body().expires);
    assert_eq!(world.grants(), grants);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_whose_signer_was_revoked_are_signed_anew_without_wrapping_anew() {
    let world = World::new().await;
    let key = world.enrol("one.example", certificate).await;
    let before = world.granted(&[key]).await.envelope().unwrap();
    let (grants, signer) = (world.grants(), world.envelope(&before).body().issuer);
    let serial = world.state().own().signing.certificate.serial_hex();
    let state = world.state();
    let revoking = move || state.revoke(&serial, RevocationReason::KEY_COMPROMISE).unwrap();
    tokio::task::spawn_blocking(revoking).await.unwrap();
    let after = world.granted(&[key]).await.envelope().unwrap();
    assert_ne!(world.envelope(&after).body().issuer, signer);
    assert_eq!(world.grants(), grants);
    assert_eq!(world.granted(&[key]).await.envelope(), Some(after), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_go_with_their_package_and_a_catalog_that_lost_them_has_them_made_anew() {
    let world = World::new().await;
    let key = world.enrol("one.example", certificate).await;
    world.granted(&[key]).await;
    let state = world.state();
    for row in state.records.keys("grant/").unwrap() {
        state.records.delete(&row).unwrap();
    }
    lock(&state.grant_sets).clear();
    assert!(world.granted(&[key]).await.envelope().is_some());
    assert_eq!(world.grants().len(), 1);

    world.distributor.delete_channel(&"all".parse().unwrap()).await.unwrap();
    world.distributor.delete_distribution(&"site".parse().unwrap()).await.unwrap();
    for prefix in ["grant/", SIGNED] {
        assert!(state.records.keys(prefix).unwrap().is_empty(), "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_secret_is_made_once_and_lies_in_the_keystore_alone() {
    let world = World::new().await;
    let key = world.enrol("one.example", certificate).await;
    world.granted(&[key]).await;
    let keystore = world.state().security.load_keystore().unwrap();
    let [secret] = keystore.epoch_secrets() else { panic!("one epoch") };
    world.forward(DAY);
    std::fs::write(world._folder.path().join("source/file"), "other content").unwrap();
    world.granted(&[key]).await;
    assert_eq!(world.state().security.load_keystore().unwrap().epoch_secrets().len(), 1);

    let newest = world.distributor.distribution(&"site".parse().unwrap()).await.unwrap().newest.unwrap();
    let state = world.state();
    let content = tokio::task::spawn_blocking(move || {
        let root = state.sealed_root(newest.package).unwrap().unwrap();
        state.content_key(&root).unwrap().unwrap()
    });
    let content = content.await.unwrap();
    let mut folders = vec![world._folder.path().join("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
            let text = hex::encode(secret.as_bytes());
            let is_keystore = entry.file_name() == ".keystore";
            assert_eq!(holds(secret.as_bytes()), is_keystore, "{}", entry.path().display());
            assert!(!holds(text.as_bytes()) && !holds(content.as_bytes()), "{}", entry.path().display());
        }
    }
}

fn plain_root() -> Root {
    Root {
        context: crate::package::ROOT_CONTEXT.to_owned(),
        distribution: crate::id::DistributionId::from_bytes([2; 16]),
        distributor: KeyHash::from_bytes([1; 32]),
        revision: crate::id::Revision::from_number(11),
        created: NOW,
        kind: crate::package::PackageKind::Baseline,
        suite: Suite::None,
        frame_bytes: 4,
        level: 3,
        body_frames: 1,
        catalog_frames: 1,
        body_bytes: 1,
        body_raw_bytes: 1,
        catalog_bytes: 1,
        table: crate::id::Hash::of(b""),
        digest: crate::package::BodyDigest::None,
        disclosure: None,
    }
}

#[test]
fn the_content_key_is_found_under_whichever_epoch_it_was_sealed() {
    let mut keystore = Keystore::default();
    let secrets: Vec<_> = (0..3).map(|_| EpochSecret::generate(&AwsLc).unwrap()).collect();
    let root = |secret: &EpochSecret| {
        let salt = [7; 32];
        let suite = Suite::Aes256Gcm { salt, commitment: secret.content_key(&salt).commitment() };
        Root { suite, ..plain_root() }
    };
    assert!(content_key_of(&keystore, &root(&secrets[0])).is_err());
    keystore.add_epoch_secret(secrets[0].clone());
    keystore.add_epoch_secret(secrets[1].clone());
    for secret in &secrets[..2] {
        let found = content_key_of(&keystore, &root(secret)).unwrap().unwrap();
        assert_eq!(found.as_bytes(), secret.content_key(&[7; 32]).as_bytes());
    }
    assert!(content_key_of(&keystore, &root(&secrets[2])).is_err());
    assert!(content_key_of(&keystore, &plain_root()).unwrap().is_none());
}
