//! A crash between any two steps of a takeover loses nothing: whatever was done, doing it again completes it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::protocol::Floor;
use crate::security::{
    Authority, AwsLc, Crypto as _, DistributorRoot, Envelope, EnvelopeBody, EnvelopeKind, HeldKey, Replacement,
    ReplacementState, Usage,
};
use crate::store::{NodeRole, Pin, SecurityDir, StandingSlot, StopAfter};
use crate::subscriber::Subscriber;
use crate::subscriber::state::{KnownDistributor, known_key};

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
const ID: DistributionId = DistributionId::from_bytes([3; 16]);

/// Records that nothing here looks into: a firing, why a baseline is taken, and a hook that is due.
const KINDS: [&str; 3] = ["fired", "fallback", "hook"];

fn floor() -> Floor {
    Floor { revision: Revision::from_number(7), issued: UnixMillis::from_millis(50) }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
        if target.exists() {
            std::fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
        }
    }
}

/// A node that trusts `old`, with keys, a floor, a rollback and records in its fleet.
async fn template(data: &Path, old: &DistributorRoot) -> KeyHash {
    let subscriber = Subscriber::builder(data).name("one.example".parse().unwrap()).open().await.unwrap();
    let (state, fleet) = (subscriber.state.clone(), old.key_hash());
    let identity = AwsLc.generate_key().unwrap();
    let own = identity.key_hash();
    state
        .security
        .change_keystore(|keystore| -> Result<(), crate::Error> {
            keystore.trust(old.clone());
            for (usage, key) in [
                (Usage::SubscriberIdentity, identity.clone()),
                (Usage::SubscriberEncryption, AwsLc.generate_key().unwrap()),
            ] {
                let name = "one.example".parse().unwrap();
                keystore.hold(HeldKey { usage, distributor: fleet, name, key, certificate: None });
            }
            Ok(())
        })
        .unwrap();
    state.floors.raise(&fleet, &ID, floor()).unwrap();
    let pin = Pin { from: Revision::from_number(9), to: Revision::from_number(7), at: NOW };
    state.pins.set(&fleet, &ID, pin).unwrap();
    let known = KnownDistributor { name: old.name().clone(), endpoints: vec![], parents: vec![] };
    state.records.put(&known_key(&fleet), &known).unwrap();
    for kind in KINDS {
        state.records.put(&format!("{kind}/{fleet}/{ID}"), &"something").unwrap();
    }
    own
}

/// What holds once the takeover is complete.
fn check(subscriber: &Subscriber, old: &KeyHash, new: &DistributorRoot, own: &KeyHash, stopped: usize) {
    let (state, fleet) = (&subscriber.state, new.key_hash());
    let keystore = state.security.load_keystore().unwrap();
    assert_eq!(keystore.trusted(), std::slice::from_ref(new), "{stopped}");
    let held: Vec<_> = keystore.held().iter().map(|held| (held.distributor, held.usage)).collect();
    assert_eq!(
        held,
        [(fleet, Usage::SubscriberIdentity), (fleet, Usage::SubscriberEncryption)],
        "{stopped}: the keys that are registered there"
    );
    assert_eq!(keystore.held()[0].key.key_hash(), *own);
    assert_eq!(state.floors.get(&fleet, &ID), floor(), "{stopped}");
    assert_eq!(state.pins.get(&fleet, &ID).map(|pin| pin.from.number()), Some(9), "{stopped}");
    assert!(state.lineage.descends(&fleet, old), "{stopped}");
    for kind in KINDS {
        let moved: Option<String> = state.records.get(&format!("{kind}/{fleet}/{ID}")).unwrap();
        assert_eq!(moved.as_deref(), Some("something"), "{stopped}: {kind}");
    }
    assert!(state.records.get::<KnownDistributor>(&known_key(old)).unwrap().is_none(), "{stopped}");
    assert!(state.records.get::<KnownDistributor>(&known_key(&fleet)).unwrap().is_some(), "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_of_a_takeover_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let name = "dist.example".parse().unwrap();
    let [old, new] = [(); 2].map(|()| Authority::create(&AwsLc, &name, NOW).unwrap().root().clone());
    let own = template(&folder.path().join("template"), &old).await;
    for allowed in 0.. {
        let data = folder.path().join(allowed.to_string());
        copy(&folder.path().join("template"), &data);
        let mut builder = Subscriber::builder(&data);
        builder.settings.steps = Some(Arc::new(StopAfter::new(allowed, io::ErrorKind::Other)));
        let opened = builder.open().await;
        let take_over = |subscriber: Subscriber| {
            let (old, new) = (old.clone(), new.clone());
            tokio::task::spawn_blocking(move || {
                subscriber.state.adopt(&old.key_hash(), &new)?;
                subscriber.state.take_over(&old, &new)
            })
        };
        let done = match opened {
            Ok(subscriber) => take_over(subscriber).await.unwrap().is_ok(),
            Err(_) => false,
        };
        // Whatever was done, one of the two is trusted, and the floor stands for it.
        let subscriber = Subscriber::builder(&data).open().await.unwrap();
        let trusted = subscriber.state.trusted_roots().unwrap();
        assert_eq!(trusted.len(), 1, "{allowed}");
        assert_eq!(subscriber.state.floors.get(&trusted[0].key_hash(), &ID), floor(), "{allowed}");
        if trusted[0] == old {
            assert!(!done);
            take_over(subscriber.clone()).await.unwrap().unwrap();
        }
        check(&subscriber, &old.key_hash(), &new, &own, allowed);
        drop(subscriber);
        let security = SecurityDir::open(&data.join("security"), NodeRole::Subscriber);
        assert!(security.is_ok(), "{allowed}");
        std::fs::remove_dir_all(&data).unwrap();
        if done {
            assert!(allowed > 12, "{allowed} steps");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_about_a_successor_counts_for_as_long_as_it_was_said_for() {
    let folder = tempfile::tempdir().unwrap();
    let name = "dist.example".parse().unwrap();
    let [old, new] = [(); 2].map(|()| Authority::create(&AwsLc, &name, NOW).unwrap());
    template(folder.path(), old.root()).await;
    let clock = Arc::new(At(NOW));
    let subscriber = Subscriber::builder(folder.path()).clock(clock).open().await.unwrap();
    let (state, fleet) = (&subscriber.state, old.root().key_hash());
    let slot = StandingSlot { fleet, kind: EnvelopeKind::REPLACEMENT, recipient: None, page: 0 };
    let certificate = new.root().certificate().der().to_vec();
    let said = Replacement { certificate, state: ReplacementState::Prepared, extensions: vec![] };
    for (expires, holds) in [(NOW.millis() + 1, true), (NOW.millis() - 1, false)] {
        let body = EnvelopeBody {
            kind: EnvelopeKind::REPLACEMENT,
            distributor: fleet,
            issuer: fleet,
            sequence: 1,
            issued: UnixMillis::from_millis(NOW.millis() - 9),
            expires: UnixMillis::from_millis(expires),
            payload: said.to_payload().unwrap(),
        };
        let word = Envelope::seal(&AwsLc, &old.identity(), body).unwrap();
        state.envelopes.put(vec![(slot, (&word).into())]).unwrap();
        assert_eq!(state.announced_successor(&fleet).is_some(), holds, "{expires}");
    }
}

struct At(UnixMillis);

impl crate::node::Clock for At {
    fn now(&self) -> UnixMillis {
        self.0
    }
}
