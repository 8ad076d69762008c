//! One Distribution as it is passed on: the newest statement, and who is to get it in the course of which firing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::id::{DistributionId, EnvelopeId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::Priority;
use crate::security::PackageRef;

/// An offer to nodes behind a relay, whose statement was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOffer {
    /// The firing that it belongs to.
    pub firing: FiringId,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// How urgent it is.
    pub priority: Priority,
    /// When nothing new is started any more.
    pub closes: Option<UnixMillis>,
    /// Whom it is for.
    pub recipients: BTreeSet<KeyHash>,
    /// The envelope with the release statement.
    pub statement: EnvelopeId,
    /// When the statement was issued.
    pub issued: UnixMillis,
    /// The first moment at which it does not hold any more.
    pub expires: UnixMillis,
    /// The packages that it names.
    pub packages: Vec<PackageRef>,
    /// For each sealed package the envelope with its grants.
    pub grants: Vec<(PackageId, EnvelopeId)>,
}

/// What is kept of a Distribution that is passed on. It outlives the process, so that children are offered it while the
/// parent is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    distribution: DistributionId,
    statement: EnvelopeId,
    issued: UnixMillis,
    expires: UnixMillis,
    packages: Vec<PackageRef>,
    grants: Vec<(PackageId, EnvelopeId)>,
    /// What the statement before named: somebody may be in the middle of it.
    former: Vec<PackageRef>,
    firings: BTreeMap<FiringId, Firing>,
    /// Numbers firings in the order in which they came.
    counter: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Firing {
    number: u64,
    priority: Priority,
    closes: Option<UnixMillis>,
    recipients: BTreeSet<KeyHash>,
}

impl Passed {
    /// The form of the bytes that are persisted.
    const FORM: u16 = 1;

    pub(super) fn new(offer: &PassedOffer, own: KeyHash) -> Self {
        let mut passed = Self {
            distribution: offer.distribution,
            statement: offer.statement,
            issued: offer.issued,
            expires: offer.expires,
            packages: offer.packages.clone(),
            grants: offer.grants.clone(),
            former: Vec::new(),
            firings: BTreeMap::new(),
            counter: 0,
        };
        passed.add(offer, own);
        passed
    }

    /// The bytes that are persisted: a `u16` with the form's number, then the record.
    ///
    /// # Errors
    /// [`CodecError`] if they are more than [`Limits::state_file_bytes_max`].
    pub fn encode(&self, limits: &Limits) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Self::FORM.to_le_bytes().to_vec();
        bytes.extend(codec::encode("what is passed on", self, limits.state_file_bytes_max)?);
        Ok(bytes)
    }

    /// What `bytes` hold; `None` for another form, which is offered anew.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Option<Self>, CodecError> {
        match bytes.split_first_chunk::<2>() {
            Some((form, rest)) if u16::from_le_bytes(*form) == Self::FORM => {
                codec::decode("what is passed on", rest, limits.state_file_bytes_max).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Which Distribution.
    #[must_use]
    pub fn distribution(&self) -> DistributionId {
        self.distribution
    }

    /// The envelope with the newest statement.
    #[must_use]
    pub fn statement(&self) -> EnvelopeId {
        self.statement
    }

    /// When that was issued.
    #[must_use]
    pub fn issued(&self) -> UnixMillis {
        self.issued
    }

    /// The envelopes with the grants of sealed packages.
    #[must_use]
    pub fn grants(&self) -> &[(PackageId, EnvelopeId)] {
        &self.grants
    }

    /// Everything that a child may still ask for.
    pub fn packages(&self) -> impl Iterator<Item = &PackageRef> {
        self.packages.iter().chain(&self.former)
    }

    /// The package of that id, if a child may still ask for it.
    #[must_use]
    pub fn named(&self, id: &PackageId) -> Option<&PackageRef> {
        self.packages().find(|package| package.id == *id)
    }

    /// Who is still to get it, in the course of which firing.
    pub fn firings(&self) -> impl Iterator<Item = (&FiringId, &BTreeSet<KeyHash>)> {
        self.firings.iter().map(|(id, firing)| (id, &firing.recipients))
    }

    /// The firing that was heard of last.
    #[must_use]
    pub fn newest_firing(&self) -> Option<FiringId> {
        self.firings.iter().max_by_key(|(_, firing)| firing.number).map(|(id, _)| *id)
    }

    /// How urgent it is, as the firing that was heard of last has it.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.firings
            .values()
            .max_by_key(|firing| firing.number)
            .map_or_else(Priority::default, |firing| firing.priority)
    }

    /// When the last window of those that it is passed on in ends; none where one has no end, or nobody waits for it.
    #[must_use]
    pub fn closes(&self) -> Option<UnixMillis> {
        let ends: Option<Vec<UnixMillis>> = self.firings.values().map(|firing| firing.closes).collect();
        ends?.into_iter().max()
    }

    /// Whether something may be started now in the course of a firing.
    pub(super) fn may_start(&self, firing: &FiringId, now: UnixMillis) -> bool {
        let open = self.firings.get(firing).is_some_and(|firing| firing.closes.is_none_or(|closes| now < closes));
        open && now < self.expires
    }

    /// What a child is offered that reaches these.
    pub(super) fn offer(&self, id: &FiringId, recipients: BTreeSet<KeyHash>) -> Option<PassedOffer> {
        let firing = self.firings.get(id)?;
        Some(PassedOffer {
            firing: *id,
            distribution: self.distribution,
            priority: firing.priority,
            closes: firing.closes,
            recipients,
            statement: self.statement,
            issued: self.issued,
            expires: self.expires,
            packages: self.packages.clone(),
            grants: self.grants.clone(),
        })
    }

    /// Takes an offer whose statement is not older than the newest one. Gives the packages that may not be asked for any
    /// more, unless they are named again.
    pub(super) fn take(&mut self, offer: &PassedOffer, own: KeyHash, limits: &Limits) -> Vec<PackageId> {
        let mut dropped = Vec::new();
        if offer.statement != self.statement {
            // A renewed statement about the same packages takes nothing away.
            if offer.packages != self.packages {
                dropped.extend(self.former.iter().map(|package| package.id));
                self.former = std::mem::replace(&mut self.packages, offer.packages.clone());
            }
            (self.statement, self.issued, self.expires) = (offer.statement, offer.issued, offer.expires);
            self.grants.clear();
        }
        // Those of one firing come with the grants for their recipients.
        for (package, envelope) in &offer.grants {
            match self.grants.iter_mut().find(|(of, _)| of == package) {
                Some(known) => known.1 = *envelope,
                None => self.grants.push((*package, *envelope)),
            }
        }
        self.add(offer, own);
        while self.firings.len() > limits.relayed_firings_max {
            let Some(oldest) = self.firings.iter().min_by_key(|(_, firing)| firing.number).map(|(id, _)| *id) else {
                break;
            };
            self.firings.remove(&oldest);
        }
        dropped
    }

    /// A recipient is done. Says whether anything changed.
    pub(super) fn done(&mut self, recipient: &KeyHash, firing: &FiringId) -> bool {
        self.firings.get_mut(firing).is_some_and(|firing| firing.recipients.remove(recipient))
    }

    fn add(&mut self, offer: &PassedOffer, own: KeyHash) {
        let recipients = offer.recipients.iter().filter(|recipient| **recipient != own);
        // The firing that was heard of last is the one that a recipient speaks of; an earlier one may be over.
        for firing in self.firings.iter_mut().filter(|(id, _)| **id != offer.firing).map(|(_, firing)| firing) {
            firing.recipients.retain(|recipient| !offer.recipients.contains(recipient));
        }
        self.firings.retain(|id, firing| *id == offer.firing || !firing.recipients.is_empty());
        match self.firings.get_mut(&offer.firing) {
            Some(firing) => {
                (firing.priority, firing.closes) = (offer.priority, offer.closes);
                firing.recipients.extend(recipients);
            }
            None => {
                self.counter += 1;
                let firing = Firing {
                    number: self.counter,
                    priority: offer.priority,
                    closes: offer.closes,
                    recipients: recipients.copied().collect(),
                };
                self.firings.insert(offer.firing, firing);
            }
        }
    }
}
