//! Envelopes that stand, and keys that were revoked: beside the keystore, because nothing else could bring them back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EnvelopeId, KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::{Envelope, EnvelopeKind, RevocationReason, RevokedKey};
use crate::store::durable::{StateError, StateFile};
use crate::store::logged_map::LoggedMap;
use crate::store::security_dir::SecurityDir;

const STANDING: (&str, u16) = ("standing", 21);
const REVOKED: (&str, u16) = ("revoked", 22);

/// A place in which one envelope stands until a newer one takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StandingSlot {
    /// The CA key of the Distributor in whose fleet it counts.
    pub fleet: KeyHash,
    /// The one node that it is for; `None` if it is for everybody.
    pub recipient: Option<KeyHash>,
    /// What it holds.
    pub kind: EnvelopeKind,
    /// Which page, for kinds that have several.
    pub page: u16,
}

/// An envelope that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingEnvelope {
    /// Its id.
    pub id: EnvelopeId,
    /// Its sequence number.
    pub sequence: u64,
    /// When it was signed.
    pub issued: UnixMillis,
    /// Until when it holds.
    pub expires: UnixMillis,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl From<&Envelope> for StandingEnvelope {
    fn from(envelope: &Envelope) -> Self {
        let body = envelope.body();
        Self {
            id: envelope.id(),
            sequence: body.sequence,
            issued: body.issued,
            expires: body.expires,
            bytes: envelope.to_bytes().to_vec(),
        }
    }
}

impl StandingEnvelope {
    /// Whether it has lived for two thirds of its life, so that it is to be signed anew.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        now >= self.issued.plus(self.expires.since(self.issued) / 3 * 2)
    }
}

/// The envelopes that stand: at a Distributor those that it announces, at a Subscriber those that are in force.
/// Every change is durable when it returns.
pub struct StandingEnvelopes(LoggedMap<StandingSlot, StandingEnvelope>);

impl StandingEnvelopes {
    /// Opens `private/standing`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = STANDING;
        Ok(Self(LoggedMap::open(security.private_file(name), "a file of standing envelopes", kind)?))
    }

    /// What stands in a slot.
    #[must_use]
    pub fn get(&self, slot: &StandingSlot) -> Option<StandingEnvelope> {
        self.0.read().get(slot).cloned()
    }

    /// What stands for one node in a fleet: what is for everybody, and what is for it alone.
    #[must_use]
    pub fn of_recipient(&self, fleet: &KeyHash, recipient: &KeyHash) -> Vec<(StandingSlot, StandingEnvelope)> {
        let standing = self.0.read();
        let of = |recipient: Option<KeyHash>| {
            let slot = |kind, page| StandingSlot { fleet: *fleet, recipient, kind: EnvelopeKind(kind), page };
            standing.range(slot(u16::MIN, u16::MIN)..=slot(u16::MAX, u16::MAX))
        };
        of(None).chain(of(Some(*recipient))).map(|(slot, envelope)| (*slot, envelope.clone())).collect()
    }

    /// The envelope with this id, and where it stands.
    #[must_use]
    pub fn find(&self, id: &EnvelopeId) -> Option<(StandingSlot, StandingEnvelope)> {
        let state = self.0.read();
        state.iter().find(|(_, envelope)| envelope.id == *id).map(|(slot, envelope)| (*slot, envelope.clone()))
    }

    /// The slots that `wanted` chooses, with what stands there.
    #[must_use]
    pub fn choose(&self, wanted: impl Fn(&StandingSlot) -> bool) -> Vec<(StandingSlot, StandingEnvelope)> {
        let state = self.0.read();
        state.iter().filter(|(slot, _)| wanted(slot)).map(|(slot, envelope)| (*slot, envelope.clone())).collect()
    }

    /// The slots whose envelope has lived for two thirds of its life.
    #[must_use]
    pub fn due(&self, now: UnixMillis) -> Vec<StandingSlot> {
        let state = self.0.read();
        state.iter().filter(|(_, envelope)| envelope.is_due(now)).map(|(slot, _)| *slot).collect()
    }

    /// Puts envelopes in their slots, all or none. Answers what stood there before.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(
        &self,
        envelopes: Vec<(StandingSlot, StandingEnvelope)>,
    ) -> Result<Vec<(StandingSlot, StandingEnvelope)>, StateError> {
        self.0.change(|standing| {
            let before = envelopes.iter().filter_map(|(slot, _)| Some((*slot, standing.get(slot)?.clone()))).collect();
            (envelopes.into_iter().map(|(slot, envelope)| (slot, Some(envelope))).collect(), before)
        })
    }

    /// Lets what stands in the fleet of one CA key stand in that of another that takes over from it, until newer ones
    /// come. What the old one said about its replacement stays its own.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn carry_over(&self, from: &KeyHash, to: &KeyHash) -> Result<(), StateError> {
        let moves = |slot: &StandingSlot| slot.fleet == *from && slot.kind != EnvelopeKind::REPLACEMENT;
        self.0.change(|standing| {
            let mut changes = vec![];
            for (slot, envelope) in standing.iter().filter(|(slot, _)| moves(slot)) {
                let there = StandingSlot { fleet: *to, ..*slot };
                if !standing.contains_key(&there) {
                    changes.push((there, Some(envelope.clone())));
                }
                changes.push((*slot, None));
            }
            (changes, ())
        })
    }

    /// Has the newer of what stands here and in `other` stand in every slot.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn raise_to(&self, other: &Self) -> Result<(), StateError> {
        let known = other.0.read().clone();
        self.0.change(|standing| {
            let is_newer = |slot: &StandingSlot, envelope: &StandingEnvelope| {
                standing.get(slot).is_none_or(|here| here.sequence < envelope.sequence)
            };
            let newer = known.into_iter().filter(|(slot, envelope)| is_newer(slot, envelope));
            (newer.map(|(slot, envelope)| (slot, Some(envelope))).collect(), ())
        })
    }

    /// Clears the slots that `unwanted` chooses. Answers what stood there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove(
        &self,
        unwanted: impl Fn(&StandingSlot) -> bool,
    ) -> Result<Vec<(StandingSlot, StandingEnvelope)>, StateError> {
        self.0.change(|standing| {
            let gone: Vec<_> = standing.iter().filter(|(slot, _)| unwanted(slot)).collect();
            let changes = gone.iter().map(|(slot, _)| (**slot, None)).collect();
            (changes, gone.into_iter().map(|(slot, envelope)| (*slot, envelope.clone())).collect())
        })
    }
}

/// What is known of a key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Since when it counts for nothing.
    pub since: UnixMillis,
    /// Why.
    pub reason: RevocationReason,
    /// Serial numbers of its certificates, as far as they are known.
    pub serials: Vec<Vec<u8>>,
    /// Whose key it was, where this node knows.
    pub name: Option<NodeName>,
    /// On which page of the list it stands.
    pub page: u16,
}

/// The keys that were revoked in each fleet. They only ever become more; every change is durable when it returns.
pub struct Revocations(StateFile<BTreeMap<(KeyHash, KeyHash), Revocation>>);

impl Revocations {
    /// Opens `private/revoked`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = REVOKED;
        Ok(Self(StateFile::open(security.private_file(name), "a file of revoked keys", kind)?))
    }

    /// Whether a key was revoked in a fleet.
    #[must_use]
    pub fn is_revoked(&self, fleet: &KeyHash, key: &KeyHash) -> bool {
        self.0.state().contains_key(&(*fleet, *key))
    }

    /// What is known of a key that was revoked.
    #[must_use]
    pub fn get(&self, fleet: &KeyHash, key: &KeyHash) -> Option<Revocation> {
        self.0.state().get(&(*fleet, *key)).cloned()
    }

    /// All keys that were revoked in a fleet.
    #[must_use]
    pub fn all(&self, fleet: &KeyHash) -> Vec<(KeyHash, Revocation)> {
        let state = self.0.state();
        let of_fleet = state.iter().filter(|((of, _), _)| of == fleet);
        of_fleet.map(|((_, key), revocation)| (*key, revocation.clone())).collect()
    }

    /// How many keys were revoked in all fleets together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.state().len()
    }

    /// How many keys were revoked in a fleet.
    #[must_use]
    pub fn count(&self, fleet: &KeyHash) -> usize {
        self.0.state().keys().filter(|(of, _)| of == fleet).count()
    }

    /// Revokes keys, each on the page after the last full one. One that was revoked before stays as it is. Answers the
    /// pages that have changed; `None` if not all of them fit on the pages that [`Limits`] allow, and then nothing is.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn revoke(
        &self,
        fleet: &KeyHash,
        keys: Vec<(RevokedKey, Option<NodeName>)>,
    ) -> Result<Option<Vec<u16>>, StateError> {
        let limits = Limits::DEFAULT;
        let mut new = vec![];
        let unknown = keys.into_iter().filter(|(revoked, _)| !self.is_revoked(fleet, &revoked.key));
        for (count, (revoked, name)) in (self.count(fleet)..).zip(unknown) {
            let page = u16::try_from(count / limits.revocation_page_keys_max).unwrap_or(u16::MAX);
            if page >= limits.revocation_pages_max {
                return Ok(None);
            }
            new.push((revoked, name, page));
        }
        let mut pages: Vec<u16> = new.iter().map(|(_, _, page)| *page).collect();
        pages.dedup();
        self.insert(fleet, new)?;
        Ok(Some(pages))
    }

    /// Takes over what a page of the Distributor's list says. What was known before stays as it is. Answers the keys
    /// that are new; `None` if there are more of them than all pages hold that [`Limits`] allow, and then nothing is
    /// taken over.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn merge(&self, fleet: &KeyHash, page: u16, keys: &[RevokedKey]) -> Result<Option<Vec<KeyHash>>, StateError> {
        let unknown = keys.iter().filter(|revoked| !self.is_revoked(fleet, &revoked.key));
        let new: Vec<_> = unknown.map(|revoked| (revoked.clone(), None, page)).collect();
        let limits = Limits::DEFAULT;
        if self.count(fleet) + new.len() > limits.revocation_page_keys_max * usize::from(limits.revocation_pages_max) {
            return Ok(None);
        }
        let keys = new.iter().map(|(revoked, _, _)| revoked.key).collect();
        self.insert(fleet, new)?;
        Ok(Some(keys))
    }

    /// Copies what was revoked under one CA key to another that takes over from it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn carry_over(&self, from: &KeyHash, to: &KeyHash) -> Result<(), StateError> {
        let all = self.all(from);
        self.0.change(|revoked| {
            for (key, revocation) in all {
                revoked.entry((*to, key)).or_insert(revocation);
            }
        })
    }

    /// Takes over everything that `other` knows and this does not.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn take_over(&self, other: &Self) -> Result<(), StateError> {
        let known = other.0.state().clone();
        self.0.change(|revoked| {
            for (key, revocation) in known {
                revoked.entry(key).or_insert(revocation);
            }
        })
    }

    fn insert(&self, fleet: &KeyHash, new: Vec<(RevokedKey, Option<NodeName>, u16)>) -> Result<(), StateError> {
        if new.is_empty() {
            return Ok(());
        }
        self.0.change(|all| {
            for (RevokedKey { key, serials, since, reason }, name, page) in new {
                all.entry((*fleet, key)).or_insert(Revocation { since, reason, serials, name, page });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NodeRole;

    const FLEET: KeyHash = KeyHash::from_bytes([1; 32]);

    fn folder() -> (tempfile::TempDir, SecurityDir) {
        let temp = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&temp.path().join("security"), NodeRole::Subscriber).unwrap();
        (temp, security)
    }

    fn revoked(number: u16) -> RevokedKey {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_le_bytes());
        let since = UnixMillis::from_millis(u64::from(number));
        RevokedKey { key: KeyHash::from_bytes(key), serials: vec![], since, reason: RevocationReason::LOST }
    }

    fn envelope(sequence: u64) -> StandingEnvelope {
        let (issued, expires) = (UnixMillis::from_millis(3000), UnixMillis::from_millis(6000));
        StandingEnvelope { id: EnvelopeId::from_bytes([sequence as u8; 32]), sequence, issued, expires, bytes: vec![9] }
    }

    #[test]
    fn envelopes_stand_until_newer_ones_take_their_place_and_survive() {
        let (_temp, security) = folder();
        let standing = StandingEnvelopes::open(&security).unwrap();
        let (one, other) = (KeyHash::from_bytes([2; 32]), KeyHash::from_bytes([3; 32]));
        let all = StandingSlot { fleet: FLEET, kind: EnvelopeKind::CONFIGURATION, recipient: None, page: 0 };
        let own = StandingSlot { recipient: Some(one), ..all };
        assert!(standing.put(vec![(all, envelope(1)), (own, envelope(2))]).unwrap().is_empty());
        assert_eq!(standing.put(vec![(all, envelope(3))]).unwrap(), [(all, envelope(1))]);
        let again = StandingEnvelopes::open(&security).unwrap();
        assert_eq!(again.of_recipient(&FLEET, &one), [(all, envelope(3)), (own, envelope(2))]);
        assert_eq!(again.of_recipient(&FLEET, &other), [(all, envelope(3))]);
        assert_eq!(again.of_recipient(&other, &one), []);
        for (now, due) in [(4999, 0), (5000, 2)] {
            assert_eq!(again.due(UnixMillis::from_millis(now)).len(), due);
        }
        assert_eq!(again.remove(|slot| slot.recipient == Some(one)).unwrap(), [(own, envelope(2))]);
        assert_eq!(StandingEnvelopes::open(&security).unwrap().get(&own), None);
        let word = StandingSlot { kind: EnvelopeKind::REPLACEMENT, ..all };
        again.put(vec![(word, envelope(9))]).unwrap();
        again.carry_over(&FLEET, &other).unwrap();
        let moved = StandingEnvelopes::open(&security).unwrap();
        assert_eq!(moved.get(&StandingSlot { fleet: other, ..all }), Some(envelope(3)));
        assert_eq!((moved.get(&all), moved.get(&word)), (None, Some(envelope(9))));
    }

    #[test]
    fn revoked_keys_only_become_more_fill_page_after_page_and_survive() {
        let (_temp, security) = folder();
        let limits = Limits::DEFAULT;
        let page = limits.revocation_page_keys_max as u16;
        let revocations = Revocations::open(&security).unwrap();
        let first = (0..page - 1).map(|number| (revoked(number), None)).collect();
        assert_eq!(revocations.revoke(&FLEET, first).unwrap(), Some(vec![0]));
        let over_the_edge = (page - 2..=page).map(|number| (revoked(number), None)).collect();
        assert_eq!(revocations.revoke(&FLEET, over_the_edge).unwrap(), Some(vec![0, 1]), "one was there already");
        assert_eq!(revocations.revoke(&FLEET, vec![(revoked(3), None)]).unwrap(), Some(vec![]), "nothing new");

        let later = RevokedKey { since: UnixMillis::from_millis(99), ..revoked(3) };
        assert_eq!(revocations.merge(&FLEET, 0, &[later, revoked(9999)]).unwrap(), Some(vec![revoked(9999).key]));
        let again = Revocations::open(&security).unwrap();
        assert_eq!(again.get(&FLEET, &revoked(3).key).unwrap().since, revoked(3).since, "it stays as it was");
        assert!(again.is_revoked(&FLEET, &revoked(page).key));
        let other = KeyHash::from_bytes([8; 32]);
        assert!(!again.is_revoked(&other, &revoked(page).key), "another fleet is another matter");
        again.carry_over(&FLEET, &other).unwrap();
        assert!(again.is_revoked(&other, &revoked(page).key));
    }

    #[test]
    fn more_keys_than_all_pages_hold_are_refused_as_a_whole() {
        let (_temp, security) = folder();
        let revocations = Revocations::open(&security).unwrap();
        let room = Limits::DEFAULT.revocation_page_keys_max as u16 * Limits::DEFAULT.revocation_pages_max;
        let all = (0..=room).map(|number| (revoked(number), None)).collect();
        assert_eq!(revocations.revoke(&FLEET, all).unwrap(), None);
        assert_eq!(revocations.count(&FLEET), 0);
        // Nor does a Distributor have its Subscribers keep more than that, whatever its pages say.
        let all: Vec<_> = (0..=room).map(revoked).collect();
        assert_eq!(revocations.merge(&FLEET, 0, &all).unwrap(), None);
        assert_eq!(revocations.merge(&FLEET, 0, &all[..9]).unwrap().map(|new| new.len()), Some(9));
        assert_eq!(revocations.merge(&FLEET, 0, &all).unwrap(), None);
        assert_eq!(revocations.count(&FLEET), 9);
    }
}
