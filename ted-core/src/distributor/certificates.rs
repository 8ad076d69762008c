//! How this Distributor's certificate stands with each Subscriber: the facts that are on record, and what they make.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::report::CertificatePair;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{KeyHash, UnixMillis};
use crate::model::Subscriber;
use crate::name::{Label, NodeName};
use crate::node::RecordBatch;
use crate::security::{Certificate, CertificateFacts, CertificateState, HeldCertificate, HeldIn, PairFacts};

/// What a Subscriber said last of this Distributor's certificate.
#[derive(Serialize, Deserialize)]
struct StoredHolding {
    held: HeldCertificate,
    at: UnixMillis,
}

/// The last attempt to bring the certificate to a Subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCarrying {
    /// Of which certificate.
    pub(super) thumbprint: [u8; 32],
    pub(super) at: UnixMillis,
    /// How, in words.
    pub(super) way: String,
    /// Why it did not get there.
    pub(super) failure: Option<String>,
}

/// After which time it is noted that a Subscriber said the same again: a fleet that comes back at once would have the
/// disk write a note for each.
const SAID_AGAIN: Duration = Duration::from_secs(24 * 3600);

impl State {
    /// All pairs, in the order of the Subscribers' names.
    pub(super) fn certificate_pairs(&self) -> Result<Vec<CertificatePair>, Error> {
        let subscribers: Vec<Subscriber> = lock(&self.fleet).subscribers().cloned().collect();
        subscribers.iter().map(|subscriber| self.certificate_pair(subscriber)).collect()
    }

    /// How the certificate stands with one Subscriber.
    pub(super) fn certificate_pair(&self, subscriber: &Subscriber) -> Result<CertificatePair, Error> {
        let (facts, said, carrying) = self.facts_of(subscriber)?;
        let carried = carrying.as_ref().map(|carrying| carrying.at);
        Ok(CertificatePair {
            subscriber: subscriber.name.clone(),
            state: CertificateState::decide(&facts, self.now()),
            since: said.max(carried),
            way: subscriber.certificate.as_ref().map(ToString::to_string),
            detail: carrying.map(|carrying| carrying.failure.unwrap_or(carrying.way)),
        })
    }

    /// What is known of one Subscriber and the certificate, when it spoke of it last, and the last attempt to bring it.
    fn facts_of(
        &self,
        subscriber: &Subscriber,
    ) -> Result<(PairFacts, Option<UnixMillis>, Option<StoredCarrying>), Error> {
        let key = self.key_of_name(&subscriber.name);
        let root = CertificateFacts::of(self.own().authority.root().certificate());
        let carrying: Option<StoredCarrying> = self.records.get(&carrying_key(&subscriber.name))?;
        let carrying = carrying.filter(|carrying| carrying.thumbprint == root.thumbprint);
        let (own, holding) = match key {
            Some(key) => (self.records.get(&issued_key(&key))?, self.records.get(&holding_key(&key))?),
            None => (None, None),
        };
        let holding: Option<StoredHolding> = holding;
        let facts = PairFacts {
            root,
            subscriber: subscriber.name.clone(),
            own,
            held: holding.as_ref().map(|holding| holding.held.clone()),
            is_copied: carrying.as_ref().is_some_and(|carrying| carrying.failure.is_none()),
            is_revoked: key.is_some_and(|key| self.is_key_revoked(&key)),
        };
        Ok((facts, holding.map(|holding| holding.at), carrying))
    }

    /// The Subscribers to which the certificate has to be brought: all, or those of these Channels or names.
    pub(super) fn unresolved(&self, channels: &[Label], names: &[NodeName]) -> Result<Vec<NodeName>, Error> {
        let fleet = lock(&self.fleet).clone();
        let meant = |name: &NodeName| {
            let all = channels.is_empty() && names.is_empty();
            all || names.contains(name) || fleet.channels_of(name).any(|channel| channels.contains(&channel.name))
        };
        let mut found = vec![];
        for subscriber in fleet.subscribers().filter(|subscriber| meant(&subscriber.name)) {
            if self.facts_of(subscriber)?.0.needs_resolving(self.now()) {
                found.push(subscriber.name.clone());
            }
        }
        Ok(found)
    }

    /// Notes what a Subscriber says of the certificate when it greets.
    pub(super) fn note_greeting(&self, key: &KeyHash, held: HeldCertificate) {
        let (at, row) = (self.now(), holding_key(key));
        let noted: Option<StoredHolding> = self.records.get(&row).ok().flatten();
        let is_news = |noted: &StoredHolding| noted.held != held || at.since(noted.at) >= SAID_AGAIN;
        if noted.as_ref().is_none_or(is_news) {
            self.note(&row, &StoredHolding { held, at });
        }
    }

    /// A Subscriber verified a package, so the certificate has gone into its keystore.
    pub(super) fn note_verified(&self, key: &KeyHash) {
        let stored: Result<Option<StoredHolding>, _> = self.records.get(&holding_key(key));
        if let Ok(Some(stored)) = stored
            && stored.held.held_in == HeldIn::File
        {
            let held = HeldCertificate { held_in: HeldIn::Keystore, ..stored.held };
            self.note(&holding_key(key), &StoredHolding { held, at: self.now() });
        }
    }

    /// Notes which certificate a Subscriber was given last.
    pub(super) fn note_issued(&self, key: &KeyHash, certificate: &Certificate) {
        self.note(&issued_key(key), &CertificateFacts::of(certificate));
    }

    /// Notes that the certificate was brought to a Subscriber, or why not.
    pub(super) fn note_carried(&self, name: &NodeName, way: String, failure: Option<String>) {
        let thumbprint = self.own().authority.root().certificate().thumbprint_bytes();
        self.note(&carrying_key(name), &StoredCarrying { thumbprint, at: self.now(), way, failure });
    }

    /// Forgets what is on record of a Subscriber that left the fleet.
    pub(super) fn forget_certificates(&self, name: &NodeName, key: Option<&KeyHash>) -> Result<(), Error> {
        self.records.delete(&carrying_key(name))?;
        if let Some(key) = key {
            self.records.delete(&holding_key(key))?;
            self.records.delete(&issued_key(key))?;
        }
        Ok(())
    }

    /// What is noted here only tells people how things stand: nothing fails for want of it.
    fn note<T: Serialize>(&self, key: &str, value: &T) {
        if let Err(error) = self.records.put(key, value) {
            tracing::warn!(code = crate::error::Coded::code(&error), %error, "a certificate's state cannot be noted");
        }
    }
}

/// As [`State::note_issued`], together with what else is written.
pub(super) fn note_issued_in(
    batch: RecordBatch,
    key: &KeyHash,
    certificate: &Certificate,
) -> Result<RecordBatch, Error> {
    Ok(batch.put(&issued_key(key), &CertificateFacts::of(certificate))?)
}

fn holding_key(key: &KeyHash) -> String {
    format!("holding/{key}")
}

fn issued_key(key: &KeyHash) -> String {
    format!("issued/{key}")
}

fn carrying_key(name: &NodeName) -> String {
    format!("carried/{name}")
}
