//! Entitlements in force: who is behind this node, and what it may give to whom.

use std::sync::Arc;

use crate::error::Error;
use crate::id::KeyHash;
use crate::security::{Entitlements, EntitlementsPage, Envelope, EnvelopeKind};
use crate::store::{StandingEnvelope, StandingSlot};
use crate::subscriber::announced::AnnouncedError;
use crate::subscriber::state::{State, lock};

impl State {
    /// Who is behind this node in a fleet, and what each may be given; nobody where it is no parent there.
    pub(super) fn entitlements(&self, fleet: &KeyHash) -> Arc<Entitlements> {
        let mut entitled = lock(&self.entitled);
        entitled.entry(*fleet).or_insert_with(|| Arc::new(self.read_entitlements(fleet))).clone()
    }

    /// What stands; nothing where this node's own key was revoked.
    fn read_entitlements(&self, fleet: &KeyHash) -> Entitlements {
        let own = self.identity(fleet).map(|identity| identity.certificate.key_hash());
        if own.is_ok_and(|own| self.revocations.is_revoked(fleet, &own)) {
            return Entitlements::default();
        }
        Entitlements::of(self.entitlement_pages(fleet))
    }

    /// Whether a Distributor made this node a parent, be it of nobody yet.
    pub(super) fn is_parent(&self, fleet: &KeyHash) -> bool {
        self.entitlements(fleet).is_complete()
    }

    /// Where entitlements stand: they have to be for this node.
    pub(super) fn entitlements_slot(&self, fleet: &KeyHash, envelope: &Envelope) -> Result<StandingSlot, Error> {
        let page = EntitlementsPage::from_payload(&envelope.body().payload)?;
        if page.recipient != self.identity(fleet)?.certificate.key_hash() {
            return Err(AnnouncedError::Foreign(page.recipient.fingerprint()).into());
        }
        let (kind, recipient) = (EnvelopeKind::ENTITLEMENTS, Some(page.recipient));
        Ok(StandingSlot { fleet: *fleet, kind, recipient, page: page.page })
    }

    /// Has what stands now count: whoever lost its standing is let go, and what was said of others is taken back.
    pub(super) fn follow_entitlements(self: &Arc<Self>, fleet: &KeyHash) -> Result<(), Error> {
        self.forget_entitlements();
        let entitlements = self.entitlements(fleet);
        if entitlements.is_complete() {
            self.drop_old_pages(fleet)?;
        }
        self.judge_all_again();
        self.change_reach(fleet, |reach| reach.judge_again(|child, key| entitlements.is_behind(child, key)));
        self.dialling_children.notify_one();
        self.relay_entitled(fleet)
    }

    /// Has what stands be read again when it is asked for next.
    pub(super) fn forget_entitlements(&self) {
        lock(&self.entitled).clear();
    }

    fn entitlement_pages(&self, fleet: &KeyHash) -> Vec<(u64, EntitlementsPage)> {
        let standing =
            self.envelopes.choose(|slot| slot.fleet == *fleet && slot.kind == EnvelopeKind::ENTITLEMENTS).into_iter();
        standing.filter_map(|(_, standing)| Some((standing.sequence, page_of(&standing)?))).collect()
    }

    /// Clears the slots of pages that there were more of before.
    fn drop_old_pages(&self, fleet: &KeyHash) -> Result<(), Error> {
        let pages = self.entitlement_pages(fleet);
        let newest = pages.iter().max_by_key(|(sequence, _)| *sequence).map_or(0, |(_, page)| page.pages);
        let is_old = |slot: &StandingSlot| {
            slot.fleet == *fleet && slot.kind == EnvelopeKind::ENTITLEMENTS && slot.page >= newest
        };
        self.envelopes.remove(is_old)?;
        Ok(())
    }
}

fn page_of(standing: &StandingEnvelope) -> Option<EntitlementsPage> {
    let envelope = Envelope::from_bytes(&standing.bytes).ok()?;
    EntitlementsPage::from_payload(&envelope.body().payload).ok()
}
