//! What lies beside the keystore and cannot be rebuilt: floors, registered Subscribers, sequences.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis, next_number};
use crate::name::NodeName;
use crate::protocol::Floor;
use crate::store::durable::{StateError, StateFile};
use crate::store::logged_map::LoggedMap;
use crate::store::security_dir::SecurityDir;

const FLOORS: (&str, u16) = ("floors", 1);
const REGISTERED: (&str, u16) = ("registered", 2);
const SEQUENCES: (&str, u16) = ("sequences", 3);

/// A Subscriber's floors, by the Distributor's CA key and the Distribution. Every change is durable when it returns.
pub struct Floors(StateFile<BTreeMap<(KeyHash, DistributionId), Floor>>);

impl Floors {
    /// Opens `private/floors`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = FLOORS;
        Ok(Self(StateFile::open(security.private_file(name), "a floor file", kind)?))
    }

    /// The floor of a Distribution, all zero before anything came of it.
    #[must_use]
    pub fn get(&self, distributor: &KeyHash, distribution: &DistributionId) -> Floor {
        self.0.state().get(&(*distributor, *distribution)).copied().unwrap_or(Floor::NONE)
    }

    /// Every floor.
    #[must_use]
    pub fn all(&self) -> Vec<((KeyHash, DistributionId), Floor)> {
        self.0.state().iter().map(|(key, floor)| (*key, *floor)).collect()
    }

    /// Raises both parts of a floor to at least these; neither ever sinks. Nothing is written if nothing rises.
    ///
    /// # Errors
    /// [`StateError`]; then the floor is as it was.
    pub fn raise(&self, distributor: &KeyHash, distribution: &DistributionId, to: Floor) -> Result<Floor, StateError> {
        let now = self.get(distributor, distribution);
        if now.raised_to(to) == now {
            return Ok(now);
        }
        // What somebody else raised meanwhile stays raised.
        self.0.change(|floors| {
            let floor = floors.entry((*distributor, *distribution)).or_insert(Floor::NONE);
            *floor = floor.raised_to(to);
            *floor
        })
    }

    /// Sets a floor, lower if need be: the operator's own rollback.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set(&self, distributor: &KeyHash, distribution: &DistributionId, to: Floor) -> Result<(), StateError> {
        self.0.change(|floors| {
            floors.insert((*distributor, *distribution), to);
        })
    }

    /// Lowers what a Distributor said about the time to `time`, by the word of its CA key. Revisions stay.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn lower_time(&self, distributor: &KeyHash, time: UnixMillis) -> Result<(), StateError> {
        let late = |((key, _), floor): &((KeyHash, DistributionId), Floor)| key == distributor && floor.issued > time;
        if !self.all().iter().any(late) {
            return Ok(());
        }
        self.0.change(|floors| {
            for (_, floor) in floors.iter_mut().filter(|((key, _), _)| key == distributor) {
                floor.issued = floor.issued.min(time);
            }
        })
    }

    /// Copies the floors of one CA key to another that takes over from it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn carry_over(&self, from: &KeyHash, to: &KeyHash) -> Result<(), StateError> {
        self.0.change(|floors| {
            let carried: Vec<_> =
                floors.iter().filter(|((key, _), _)| key == from).map(|((_, id), floor)| (*id, *floor)).collect();
            for (distribution, floor) in carried {
                let there = floors.entry((*to, distribution)).or_insert(floor);
                *there = there.raised_to(floor);
            }
        })
    }
}

/// A Subscriber that the Distributor approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name, a label.
    pub name: NodeName,
    /// Its identity key, a SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// Its encryption certificate in DER, to which grants are sealed.
    pub encryption: Option<Vec<u8>>,
    /// When it was approved.
    pub registered: UnixMillis,
}

/// The Subscribers that a Distributor knows by their keys. Changes are durable when they return, and cost what they
/// change.
pub struct Registrations {
    log: LoggedMap<KeyHash, Registration>,
    names: RwLock<Names>,
}

/// Keys by names, and how often a key was taken out.
#[derive(Default)]
struct Names {
    keys: HashMap<NodeName, BTreeSet<KeyHash>>,
    removals: u64,
}

impl Names {
    fn insert(&mut self, name: &NodeName, key: KeyHash) {
        self.keys.entry(name.clone()).or_default().insert(key);
    }

    fn remove(&mut self, name: &NodeName, key: &KeyHash) {
        if let Some(keys) = self.keys.get_mut(name) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(name);
            }
        }
    }
}

impl Registrations {
    /// Opens `private/registered`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = REGISTERED;
        let log: LoggedMap<KeyHash, Registration> =
            LoggedMap::open(security.private_file(name), "a registration file", kind)?;
        let mut names = Names::default();
        for (key, registration) in log.read().iter() {
            names.insert(&registration.name, *key);
        }
        Ok(Self { log, names: RwLock::new(names) })
    }

    /// Registers a Subscriber by its key, or renews what is known of it. Answers the key.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn register(&self, registration: Registration) -> Result<KeyHash, StateError> {
        let key = KeyHash::of_spki(&registration.spki);
        let name = registration.name.clone();
        let before = self.log.change(|all| {
            let before = all.get(&key).map(|before| before.name.clone());
            (vec![(key, Some(registration))], before)
        })?;
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before {
            names.remove(&before, &key);
        }
        names.insert(&name, key);
        Ok(key)
    }

    /// Notes the encryption certificate that was issued to a registered Subscriber last. Nothing is written for another
    /// key, or if it is the one that is known.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_encryption(&self, key: &KeyHash, certificate: &[u8]) -> Result<(), StateError> {
        self.log.change(|all| {
            let known = all.get(key).filter(|known| known.encryption.as_deref() != Some(certificate));
            let noted = known.map(|known| Registration { encryption: Some(certificate.to_vec()), ..known.clone() });
            (noted.map(|noted| (*key, Some(noted))).into_iter().collect(), ())
        })
    }

    /// Forgets a Subscriber. Answers whether it was registered.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove(&self, key: &KeyHash) -> Result<bool, StateError> {
        let name = self.log.change(|all| match all.get(key) {
            Some(known) => (vec![(*key, None)], Some(known.name.clone())),
            None => (vec![], None),
        })?;
        let Some(name) = name else { return Ok(false) };
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.remove(&name, key);
        names.removals += 1;
        Ok(true)
    }

    /// Whether this key is registered.
    #[must_use]
    pub fn is_registered(&self, key: &KeyHash) -> bool {
        self.log.read().contains_key(key)
    }

    /// The registration of a key.
    #[must_use]
    pub fn get(&self, key: &KeyHash) -> Option<Registration> {
        self.log.read().get(key).cloned()
    }

    /// The name of a registered key.
    #[must_use]
    pub fn name_of(&self, key: &KeyHash) -> Option<NodeName> {
        self.log.read().get(key).map(|known| known.name.clone())
    }

    /// The key that is registered under a name; the first of several.
    #[must_use]
    pub fn key_of(&self, name: &NodeName) -> Option<KeyHash> {
        self.names().keys.get(name)?.first().copied()
    }

    /// How often a key was taken out since this was opened: tells that nobody has lost a registration since.
    #[must_use]
    pub fn removals(&self) -> u64 {
        self.names().removals
    }

    /// All registrations, by key.
    #[must_use]
    pub fn all(&self) -> Vec<(KeyHash, Registration)> {
        self.log.read().iter().map(|(key, registration)| (*key, registration.clone())).collect()
    }

    fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Numbers {
    sequence: Option<u64>,
    revisions: BTreeMap<DistributionId, Revision>,
}

/// The numbers that only grow: envelope sequences, and the revision of each Distribution. A number is durable before
/// it is handed out, so that none is given twice.
pub struct Sequences(StateFile<Numbers>);

impl Sequences {
    /// Opens `private/sequences`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = SEQUENCES;
        Ok(Self(StateFile::open(security.private_file(name), "a sequence file", kind)?))
    }

    /// The next envelope's sequence number.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn next_sequence(&self, now: UnixMillis) -> Result<u64, StateError> {
        self.0.change(|numbers| *numbers.sequence.insert(next_number(numbers.sequence, now)))
    }

    /// The next revision of a Distribution.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn next_revision(&self, distribution: &DistributionId, now: UnixMillis) -> Result<Revision, StateError> {
        self.0.change(|numbers| {
            let next = Revision::after(numbers.revisions.get(distribution).copied(), now);
            numbers.revisions.insert(*distribution, next);
            next
        })
    }

    /// Raises every number to what another one has handed out; none ever sinks.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn raise_to(&self, other: &Self) -> Result<(), StateError> {
        let known = other.0.state().clone();
        self.0.change(|numbers| {
            numbers.sequence = numbers.sequence.max(known.sequence);
            for (distribution, revision) in known.revisions {
                let kept = numbers.revisions.entry(distribution).or_insert(revision);
                *kept = (*kept).max(revision);
            }
        })
    }

    /// The last revision that was handed out for a Distribution.
    #[must_use]
    pub fn last_revision(&self, distribution: &DistributionId) -> Option<Revision> {
        self.0.state().revisions.get(distribution).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NodeRole;

    const NOW: UnixMillis = UnixMillis::from_millis(1000);

    fn folder() -> (tempfile::TempDir, SecurityDir) {
        let temp = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&temp.path().join("security"), NodeRole::Distributor).unwrap();
        (temp, security)
    }

    fn floor(revision: u64, issued: u64) -> Floor {
        Floor { revision: Revision::from_number(revision), issued: UnixMillis::from_millis(issued) }
    }

    #[test]
    fn floors_rise_survive_and_sink_only_by_the_operators_hand() {
        let (_temp, security) = folder();
        let (old, new) = (KeyHash::from_bytes([1; 32]), KeyHash::from_bytes([2; 32]));
        let id = DistributionId::from_bytes([3; 16]);
        let floors = Floors::open(&security).unwrap();
        assert_eq!(floors.get(&old, &id), floor(0, 0));
        assert_eq!(floors.raise(&old, &id, floor(0, 50)).unwrap(), floor(0, 50));
        assert_eq!(floors.raise(&old, &id, floor(7, 40)).unwrap(), floor(7, 50));
        assert_eq!(floors.raise(&old, &id, floor(6, 1)).unwrap(), floor(7, 50));
        floors.carry_over(&old, &new).unwrap();
        let again = Floors::open(&security).unwrap();
        assert_eq!(again.get(&new, &id), floor(7, 50));
        again.set(&new, &id, floor(5, 50)).unwrap();
        assert_eq!(Floors::open(&security).unwrap().all(), [((old, id), floor(7, 50)), ((new, id), floor(5, 50))]);
    }

    #[test]
    fn no_part_of_a_floor_is_lost_when_both_rise_at_once() {
        let (_temp, security) = folder();
        let (key, id) = (KeyHash::from_bytes([1; 32]), DistributionId::from_bytes([3; 16]));
        let floors = Floors::open(&security).unwrap();
        for number in 1..100 {
            let both = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for part in [floor(number, 0), floor(0, number)] {
                    let (floors, both) = (&floors, &both);
                    scope.spawn(move || {
                        both.wait();
                        floors.raise(&key, &id, part).unwrap()
                    });
                }
            });
            assert_eq!(floors.get(&key, &id), floor(number, number));
        }
    }

    #[test]
    fn registrations_survive() {
        let (_temp, security) = folder();
        let registrations = Registrations::open(&security).unwrap();
        let registration = Registration {
            name: "sub.example.com".parse().unwrap(),
            spki: vec![1, 2, 3],
            encryption: None,
            registered: NOW,
        };
        let key = registrations.register(registration.clone()).unwrap();
        registrations.set_encryption(&key, b"certificate").unwrap();
        registrations.set_encryption(&KeyHash::from_bytes([9; 32]), b"of nobody").unwrap();
        let registration = Registration { encryption: Some(b"certificate".to_vec()), ..registration };
        let again = Registrations::open(&security).unwrap();
        let (old, new) = (registration.name.clone(), "new.example.com".parse().unwrap());
        assert_eq!(again.get(&key), Some(registration.clone()));
        assert!(again.is_registered(&key));
        assert_eq!((again.key_of(&old), again.key_of(&new)), (Some(key), None));
        again.register(Registration { name: new.clone(), ..registration }).unwrap();
        assert_eq!((again.key_of(&old), again.key_of(&new), again.removals()), (None, Some(key), 0));
        assert!(again.remove(&key).unwrap() && !again.remove(&key).unwrap());
        assert_eq!((again.key_of(&new), again.removals()), (None, 1));
        assert!(Registrations::open(&security).unwrap().all().is_empty());
    }

    #[test]
    fn numbers_grow_even_when_the_clock_goes_back_and_the_process_restarts() {
        let (_temp, security) = folder();
        let id = DistributionId::from_bytes([3; 16]);
        let sequences = Sequences::open(&security).unwrap();
        assert_eq!(sequences.next_sequence(NOW).unwrap(), 1000);
        assert_eq!(sequences.next_revision(&id, NOW).unwrap().number(), 1000);
        let again = Sequences::open(&security).unwrap();
        assert_eq!(again.next_sequence(UnixMillis::from_millis(5)).unwrap(), 1001);
        assert_eq!(again.next_revision(&id, UnixMillis::from_millis(5)).unwrap().number(), 1001);
        assert_eq!(again.last_revision(&id), Some(Revision::from_number(1001)));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_an_empty_one() {
        let (_temp, security) = folder();
        Sequences::open(&security).unwrap().next_sequence(NOW).unwrap();
        std::fs::write(security.path().join("private/sequences"), b"").unwrap();
        assert!(Sequences::open(&security).is_err());
    }
}
