//! Revisions that a Subscriber's operator went back to: nothing else could bring that decision back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::store::durable::{StateError, StateFile};
use crate::store::security_dir::SecurityDir;

const PINS: (&str, u16) = ("pinned", 32);

/// A rollback that stands until something newer than what was gone back from comes, or its operator resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The revision that was gone back from.
    pub from: Revision,
    /// The revision that was gone back to.
    pub to: Revision,
    /// When.
    pub at: UnixMillis,
}

/// The rollbacks that stand, by the Distributor's CA key and the Distribution. Changes are durable when they return.
pub struct Pins(StateFile<BTreeMap<(KeyHash, DistributionId), Pin>>);

impl Pins {
    /// Opens `private/pinned`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = PINS;
        Ok(Self(StateFile::open(security.private_file(name), "a file of rollbacks", kind)?))
    }

    /// The rollback of a Distribution that stands.
    #[must_use]
    pub fn get(&self, distributor: &KeyHash, distribution: &DistributionId) -> Option<Pin> {
        self.0.state().get(&(*distributor, *distribution)).copied()
    }

    /// Has a rollback stand.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set(&self, distributor: &KeyHash, distribution: &DistributionId, pin: Pin) -> Result<(), StateError> {
        self.0.change(|pins| {
            pins.insert((*distributor, *distribution), pin);
        })
    }

    /// Lets a Distribution go on. Answers whether a rollback stood.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove(&self, distributor: &KeyHash, distribution: &DistributionId) -> Result<bool, StateError> {
        if self.get(distributor, distribution).is_none() {
            return Ok(false);
        }
        self.0.change(|pins| pins.remove(&(*distributor, *distribution)).is_some())
    }

    /// Copies the rollbacks of one CA key to another that takes over from it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn carry_over(&self, from: &KeyHash, to: &KeyHash) -> Result<(), StateError> {
        let of_from: Vec<_> =
            self.0.state().iter().filter(|((key, _), _)| key == from).map(|((_, id), pin)| (*id, *pin)).collect();
        if of_from.is_empty() {
            return Ok(());
        }
        self.0.change(|pins| {
            for (id, pin) in of_from {
                pins.entry((*to, id)).or_insert(pin);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NodeRole;

    #[test]
    fn rollbacks_stand_until_they_are_removed_and_go_along_with_a_new_key() {
        let temp = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&temp.path().join("security"), NodeRole::Subscriber).unwrap();
        let (old, new) = (KeyHash::from_bytes([1; 32]), KeyHash::from_bytes([2; 32]));
        let id = DistributionId::from_bytes([3; 16]);
        let [from, to] = [7, 5].map(Revision::from_number);
        let pin = Pin { from, to, at: UnixMillis::from_millis(9) };
        let pins = Pins::open(&security).unwrap();
        pins.set(&old, &id, pin).unwrap();
        pins.carry_over(&old, &new).unwrap();
        assert!(pins.remove(&old, &id).unwrap() && !pins.remove(&old, &id).unwrap());
        let again = Pins::open(&security).unwrap();
        assert_eq!((again.get(&old, &id), again.get(&new, &id)), (None, Some(pin)));
    }
}
