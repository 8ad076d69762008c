//! Another CA key takes over from a Distributor's: either the old one said so itself, in a signed word that arrives over
//! the wire, or somebody brought the new certificate and a first package under it was verified. What is kept of the old
//! one goes on under the new one: floors, revocations, this node's keys, and what was received.

use std::sync::Arc;

use crate::error::Error;
use crate::id::{KeyHash, PackageId};
use crate::node::{RecordBatch, wait};
use crate::security::{
    DistributorRoot, EnrolAnswer, Envelope, EnvelopeKind, Replacement, ReplacementState, SignedTime,
};
use crate::store::{Depot as _, PackageInfo, StandingSlot, Step, TrustedIn};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{KnownDistributor, State, known_key, lock};
use crate::transport::QuicConnection;

/// What the catalog keeps by Distributor and Distribution.
const BY_DISTRIBUTION: [&str; 8] = ["held", "before", "extracted", "checked", "aside", "fired", "fallback", "hook"];

impl State {
    /// Judges what a Distributor's CA key says about its replacement. What is final takes over at once.
    pub(super) fn apply_replacement(self: &Arc<Self>, fleet: &KeyHash, envelope: &Envelope) -> Result<(), Error> {
        let (old, replacement) = (self.trusted_root(fleet)?, Replacement::from_payload(&envelope.body().payload)?);
        let new = replacement.root()?;
        if new.name() != old.name() || new.key_hash() == old.key_hash() {
            let (found, wanted) = (new.name().clone(), old.name().clone());
            return Err(SubscriberError::UnfitSuccessor { found, wanted }.into());
        }
        if replacement.state == ReplacementState::Final {
            self.adopt(&old.key_hash(), &new)?;
            self.take_over(&old, &new)?;
        }
        Ok(())
    }

    /// Lets the CA key's word about the time lower what the Distributor signed before.
    pub(super) fn apply_time(&self, fleet: &KeyHash, envelope: &Envelope) -> Result<(), Error> {
        let said = SignedTime::from_payload(&envelope.body().payload)?;
        self.floors.lower_time(fleet, said.time)?;
        // What waits in memory was judged by the time that is taken back.
        lock(&self.deliveries).retain(|(of, _), _| of != fleet);
        let distributor = self.distributor_name(fleet);
        tracing::warn!(%distributor, time = said.time.millis(), "the Distributor corrected its time");
        Ok(())
    }

    /// The certificate that a Distributor's CA key said will take over from it.
    pub(super) fn announced_successor(&self, fleet: &KeyHash) -> Option<DistributorRoot> {
        let slot = StandingSlot { fleet: *fleet, kind: EnvelopeKind::REPLACEMENT, recipient: None, page: 0 };
        let envelope = Envelope::from_bytes(&self.envelopes.get(&slot)?.bytes).ok()?;
        // One that was taken back meanwhile is not said anew: it counts for as long as it was said for.
        envelope.verify(&self.trusted_root(fleet).ok()?, self.now(fleet)).ok()?;
        let replacement = Replacement::from_payload(&envelope.body().payload).ok()?;
        (replacement.state != ReplacementState::Cancelled).then(|| replacement.root().ok())?
    }

    /// Prepares for a certificate that is to take over: what was accepted and revoked under the old one counts, this
    /// node's keys are known there, and it is dialled at the same endpoints.
    pub(super) fn adopt(self: &Arc<Self>, old: &KeyHash, new: &DistributorRoot) -> Result<(), Error> {
        let fleet = new.key_hash();
        self.floors.carry_over(old, &fleet)?;
        self.revocations.carry_over(old, &fleet)?;
        self.security.change_keystore(|keystore| -> Result<(), Error> {
            keystore.carry_keys(old, &fleet);
            Ok(())
        })?;
        if let Some(known) = self.records.get::<KnownDistributor>(&known_key(old))? {
            let known = KnownDistributor { name: new.name().clone(), ..known };
            self.records.put(&known_key(&fleet), &known)?;
        }
        Ok(())
    }

    /// Looks for certificates that were brought and take over from known ones, and dials their Distributors.
    pub(super) fn adopt_brought(self: &Arc<Self>) -> Result<(), Error> {
        let trust = self.security.trust()?;
        for trusted in &trust.roots {
            let (Some(old), TrustedIn::File(_)) = (&trusted.predecessor, &trusted.lies_in) else { continue };
            let fleet = trusted.root.key_hash();
            if self.records.get::<KnownDistributor>(&known_key(&fleet))?.is_some() {
                continue;
            }
            let distributor = trusted.root.name();
            tracing::info!(%distributor, fingerprint = fleet.fingerprint(), "a new certificate was brought");
            self.adopt(old, &trusted.root)?;
            self.follow(&fleet);
        }
        Ok(())
    }

    /// Notes, before a certificate that was brought is trusted for good, which one it takes over from.
    pub(super) fn predecessor_of(&self, fleet: &KeyHash) -> Result<Option<DistributorRoot>, Error> {
        let trust = self.security.trust()?;
        let brought = trust.roots.iter().find(|trusted| trusted.root.key_hash() == *fleet);
        let Some(old) = brought.and_then(|trusted| trusted.predecessor) else { return Ok(None) };
        let old = trust.keystore.trusted().iter().find(|root| root.key_hash() == old).cloned();
        if let Some(old) = &old {
            self.lineage.add(old, fleet, self.clock.now())?;
        }
        Ok(old)
    }

    /// Lets `new` take over from `old` for good. Each step can be done again.
    pub(super) fn take_over(self: &Arc<Self>, old: &DistributorRoot, new: &DistributorRoot) -> Result<(), Error> {
        let (from, to) = (old.key_hash(), new.key_hash());
        self.lineage.add(old, &to, self.clock.now())?;
        self.floors.carry_over(&from, &to)?;
        self.revocations.carry_over(&from, &to)?;
        self.pins.carry_over(&from, &to)?;
        self.envelopes.carry_over(&from, &to)?;
        self.forget_entitlements();
        self.security.before(Step::Follow)?;
        self.move_records(old, new)?;
        self.security.before(Step::Follow)?;
        self.security.change_keystore(|keystore| -> Result<(), Error> {
            if !keystore.trusted().contains(new) {
                keystore.trust(new.clone());
            }
            keystore.distrust(&from);
            keystore.forget_fleet(&from);
            Ok(())
        })?;
        self.unfollow(&from);
        lock(&self.deliveries).retain(|(of, _), _| *of != from);
        lock(&self.standing).retain(|(of, _), _| *of != from);
        lock(&self.troubles).remove(&from);
        self.show_identities()?;
        self.follow(&to);
        let (distributor, fingerprint) = (new.name().clone(), to.fingerprint());
        tracing::warn!(%distributor, fingerprint, was = from.fingerprint(), "another certificate took over");
        self.events.emit(SubscriberEvent::Replaced { distributor, fingerprint });
        Ok(())
    }

    /// Has the catalog's records about a Distributor follow its new key, all at once.
    fn move_records(&self, old: &DistributorRoot, new: &DistributorRoot) -> Result<(), Error> {
        let (from, to) = (old.key_hash(), new.key_hash());
        let mut batch = RecordBatch::default().delete(&known_key(&from));
        for kind in BY_DISTRIBUTION {
            let (before, after) = (format!("{kind}/{from}/"), format!("{kind}/{to}/"));
            for (key, value) in self.records.list::<serde_json::Value>(&before)? {
                let moved = format!("{after}{}", key.trim_start_matches(&before));
                // What is there under the new key already is newer.
                if self.records.get::<serde_json::Value>(&moved)?.is_none() {
                    batch = batch.put(&moved, &value)?;
                }
                batch = batch.delete(&key);
            }
        }
        for (reference, target) in self.set_targets()? {
            if let Some(renamed) = reference.under(old.name(), new.name()) {
                batch = batch.put(&format!("target/{renamed}"), &target)?.delete(&format!("target/{reference}"));
            }
        }
        self.records.apply(batch)?;
        // They are signed for the old fleet, and would count for nothing.
        self.forget_receipts(&from)?;
        self.forget_passed(&from)?;
        self.forget_alarms(&from)
    }

    /// Does what a crash left undone: a certificate that is trusted for good has all that its predecessor had.
    pub(super) fn finish_successions(self: &Arc<Self>) -> Result<(), Error> {
        for former in self.lineage.all() {
            let keystore = self.security.load_keystore()?;
            let new = keystore.trusted().iter().find(|root| root.key_hash() == former.successor).cloned();
            let from = former.root.key_hash();
            let left = keystore.trusted().contains(&former.root)
                || keystore.held().iter().any(|held| held.distributor == from)
                || self.records.get::<KnownDistributor>(&known_key(&from))?.is_some();
            if let Some(new) = new.filter(|_| left) {
                self.take_over(&former.root, &new)?;
            }
        }
        Ok(())
    }

    /// Asks over a connection with the certificate that was replaced for certificates under the new one, and goes on
    /// there.
    pub(super) async fn move_on(self: Arc<Self>, connection: QuicConnection, from: KeyHash) {
        let state = self.clone();
        let finding = move || {
            let former = state.lineage.former(&from)?;
            state.trusted_root(&former.successor).ok()
        };
        let Ok(Some(new)) = tokio::task::spawn_blocking(finding).await else { return };
        match self.ask_for_certificates(&connection, &new, None).await {
            Ok(EnrolAnswer::Issued { identity, encryption }) => {
                let (state, root) = (self.clone(), new.clone());
                let keeping = move || state.keep_issued(&root, &identity, &encryption);
                if let Ok(Err(error)) = tokio::task::spawn_blocking(keeping).await {
                    tracing::warn!(code = error.code(), %error, "certificates under the new key do not fit");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::info!(code = error.code(), %error, "certificates under the new key come later"),
        }
        self.links.close(&from, "another certificate took over");
        self.follow(&new.key_hash());
    }

    /// A Distributor does not answer to its old key any more: where that key said who takes over, that one is asked.
    pub(super) async fn try_successor(self: &Arc<Self>, fleet: &KeyHash) -> Option<Enrolment> {
        let (state, fleet) = (self.clone(), *fleet);
        let finding = move || -> Result<_, Error> {
            let old = state.trusted_root(&fleet)?;
            let new = state.announced_successor(&fleet).filter(|new| new.name() == old.name());
            let known: Option<KnownDistributor> = state.records.get(&known_key(&fleet))?;
            let (Some(new), Some(known)) = (new, known) else { return Ok(None) };
            state.adopt(&fleet, &new)?;
            let ways = state.ways_with(&fleet, &known);
            Ok(Some((old, new, ways)))
        };
        let Ok(Ok(Some((old, new, ways)))) = tokio::task::spawn_blocking(finding).await else { return None };
        let enrolment = self.enrol_under(&new, &ways, None, None).await.ok()?;
        let state = self.clone();
        let taking = move || state.take_over(&old, &new);
        match tokio::task::spawn_blocking(taking).await {
            Ok(Ok(())) => Some(enrolment),
            _ => None,
        }
    }

    /// The certificate under which a package that is kept was signed: the fleet's, or one that it took over from.
    pub(super) fn package_root(&self, fleet: &KeyHash, package: PackageId) -> Result<DistributorRoot, Error> {
        let signed_by = wait(self.depot.info(package))?.map(|info| info.root.distributor);
        match signed_by.filter(|key| key != fleet && self.lineage.descends(fleet, key)) {
            Some(key) => {
                let former = self.lineage.former(&key).map(|former| former.root);
                Ok(former.ok_or_else(|| SubscriberError::UnknownDistributor(key.fingerprint()))?)
            }
            None => self.trusted_root(fleet),
        }
    }

    /// Removes the packages of a revision that were signed under certificates that the fleet's took over from.
    pub(super) fn drop_former_packages(&self, fleet: &KeyHash, by: &PackageInfo) -> Result<(), Error> {
        let (distribution, revision) = (by.root.distribution, by.root.revision);
        for info in wait(self.depot.list())? {
            let of_former = self.lineage.descends(fleet, &info.root.distributor);
            let same =
                (info.root.distribution, info.root.revision, info.root.kind) == (distribution, revision, by.root.kind);
            if of_former && same {
                wait(self.depot.delete(info.id))?;
            }
        }
        Ok(())
    }
}

impl DistributionRef {
    /// The same Distribution of a Distributor that has another name now; `None` if it is not one of `from`'s.
    fn under(&self, from: &crate::name::NodeName, to: &crate::name::NodeName) -> Option<Self> {
        if from == to || self.distributor() != Some(from) {
            return None;
        }
        Some(Self::new(Some(to.clone()), self.name().clone()))
    }
}

#[cfg(test)]
mod tests;
