//! Revocation: keys that count for nothing any more, here at once and at every Subscriber by a signed list.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::announce::{Address, slot};
use crate::distributor::error::DistributorError;
use crate::distributor::rotation::Renew;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{KeyHash, UnixMillis};
use crate::name::NodeName;
use crate::security::{Envelope, EnvelopeBody, EnvelopeKind, RevocationList, RevocationReason, RevokedKey};
use crate::store::{Revocation, StandingSlot};

/// How long a list holds; it is signed anew at two thirds of that. What it says holds for good.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

impl State {
    /// Revokes keys: durably, with their live connections closed, and with the list that says so on its way to all.
    pub(super) fn revoke_keys(&self, keys: Vec<(RevokedKey, Option<NodeName>)>) -> Result<(), Error> {
        let fleet = self.own().authority.root().key_hash();
        let revoked: Vec<KeyHash> = keys.iter().map(|(revoked, _)| revoked.key).collect();
        let parents = self.with_behind(&revoked);
        let pages = self.revocations.revoke(&fleet, keys)?.ok_or(DistributorError::TooManyRevoked)?;
        self.replace_revoked()?;
        self.issue_revocations(&pages)?;
        if parents.is_empty() {
            self.judge_all_again();
        } else {
            lock(&self.last_words).extend(parents);
        }
        self.tiers_changed();
        let ticket = self.change_firings_of(&revoked, |firing, now| {
            revoked.iter().filter(|key| firing.remove(key, now)).count() > 0
        });
        self.durable_now(ticket)?;
        // What a revoked key signed counts no more.
        self.announce_configuration()
    }

    /// Signs pages of the list anew, and has them stand.
    pub(super) fn issue_revocations(&self, pages: &[u16]) -> Result<(), Error> {
        let own = self.own();
        let fleet = own.authority.root().key_hash();
        let mut all = self.revocations.all(&fleet);
        all.sort_by_key(|(key, revocation)| (revocation.since, *key));
        let mut envelopes = vec![];
        for page in pages {
            let of_page = all.iter().filter(|(_, revocation)| revocation.page == *page);
            let keys = of_page.map(|(key, revocation)| RevokedKey {
                key: *key,
                serials: revocation.serials.clone(),
                since: revocation.since,
                reason: revocation.reason,
            });
            let list = RevocationList { page: *page, keys: keys.collect(), extensions: vec![] };
            let now = self.now();
            let body = EnvelopeBody {
                kind: EnvelopeKind::REVOCATION_LIST,
                distributor: fleet,
                issuer: fleet,
                sequence: self.next_sequence()?,
                issued: now,
                expires: now.plus(LIFE),
                payload: list.to_payload()?,
            };
            let envelope = Envelope::seal(&*self.crypto, &own.authority.identity(), body)?;
            envelopes.push((slot(Address::All, &envelope, *page), envelope));
        }
        if envelopes.is_empty() { Ok(()) } else { self.announce_all(envelopes) }
    }

    /// Signs pages of which no envelope stands, because a crash came between revoking and saying so.
    pub(super) fn issue_missing_revocations(&self) -> Result<(), Error> {
        let fleet = self.own().authority.root().key_hash();
        let mut pages: Vec<u16> = self.revocations.all(&fleet).iter().map(|(_, revocation)| revocation.page).collect();
        pages.sort_unstable();
        pages.dedup();
        let page_slot = |page| StandingSlot { fleet, kind: EnvelopeKind::REVOCATION_LIST, recipient: None, page };
        pages.retain(|page| !self.names_all_revoked(&page_slot(*page)));
        self.issue_revocations(&pages)
    }

    /// Whether what stands in a page's slot names every key that was revoked on that page.
    fn names_all_revoked(&self, slot: &StandingSlot) -> bool {
        let Some(standing) = self.standing.get(slot) else { return false };
        let Ok(envelope) = Envelope::from_bytes(&standing.bytes) else { return false };
        let Ok(list) = RevocationList::from_payload(&envelope.body().payload) else { return false };
        let of_page =
            self.revocations.all(&slot.fleet).into_iter().filter(|(_, revocation)| revocation.page == slot.page);
        of_page.count() == list.keys.len()
    }

    /// Signs anew what has lived for two thirds of its life.
    pub(super) fn renew_due(&self) -> Result<(), Error> {
        let fleet = self.own().authority.root().key_hash();
        let due = self.standing.due(self.now());
        let pages: Vec<u16> = due
            .iter()
            .filter(|slot| (slot.fleet, slot.kind) == (fleet, EnvelopeKind::REVOCATION_LIST))
            .map(|slot| slot.page)
            .collect();
        self.issue_revocations(&pages)?;
        if due.iter().any(|slot| (slot.fleet, slot.kind) == (fleet, EnvelopeKind::CONFIGURATION)) {
            self.announce_configuration()?;
        }
        if due.iter().any(|slot| (slot.fleet, slot.kind) == (fleet, EnvelopeKind::ENTITLEMENTS)) {
            self.issue_entitlements()?;
        }
        Ok(())
    }

    /// Issues anew what this node uses itself, where the key of it was revoked.
    pub(super) fn replace_revoked(&self) -> Result<(), Error> {
        let own = self.own();
        for certificate in [&own.signing.certificate, &own.tls.certificate] {
            if self.is_key_revoked(&certificate.key_hash()) {
                self.renew(Renew::One(certificate.usage()))?;
            }
        }
        Ok(())
    }

    /// Whether any key was revoked in this Distributor's fleet.
    pub(super) fn has_revoked(&self) -> bool {
        self.revocations.count(&self.own().authority.root().key_hash()) > 0
    }

    /// Whether a key was revoked in this Distributor's fleet.
    pub(super) fn is_key_revoked(&self, key: &KeyHash) -> bool {
        self.revocations.is_revoked(&self.own().authority.root().key_hash(), key)
    }
}

/// A key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedRow {
    /// Whose it was, as far as that is known.
    pub name: Option<NodeName>,
    /// Its short form.
    pub fingerprint: String,
    /// Serial numbers of its certificates in hex digits, as far as they are known.
    pub serials: Vec<String>,
    /// Since when it counts for nothing.
    pub since: UnixMillis,
    /// Why.
    pub reason: String,
}

impl RevokedRow {
    pub(super) fn of(key: &KeyHash, revocation: &Revocation) -> Self {
        Self {
            name: revocation.name.clone(),
            fingerprint: key.fingerprint(),
            serials: revocation.serials.iter().map(hex::encode).collect(),
            since: revocation.since,
            reason: revocation.reason.to_string(),
        }
    }
}

impl Distributor {
    /// Revokes certificates by their keys: those of the Subscriber of this name, or the one with this thumbprint,
    /// serial number or key fingerprint, however it is written. The keys count for nothing from now on, live connections
    /// close, and every Subscriber is told. This Distributor's own signing and TLS certificates are replaced at once.
    ///
    /// # Errors
    /// When nothing is known by that, or several keys are, or it is the CA certificate; or when the revocation cannot
    /// be made durable.
    pub async fn revoke(&self, what: &str, reason: RevocationReason) -> Result<Vec<RevokedRow>, Error> {
        let what = what.to_owned();
        self.blocking(move |state| state.revoke(&what, reason)).await
    }

    /// The keys that were revoked, the latest first.
    #[must_use]
    pub fn revoked(&self) -> Vec<RevokedRow> {
        let fleet = self.state.own().authority.root().key_hash();
        let mut all = self.state.revocations.all(&fleet);
        all.sort_by_key(|(key, revocation)| (std::cmp::Reverse(revocation.since), *key));
        all.iter().map(|(key, revocation)| RevokedRow::of(key, revocation)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::Path;

    use super::*;
    use crate::security::Usage;
    use crate::store::StandingEnvelope;

    async fn open(folder: &Path) -> Distributor {
        let builder = Distributor::builder(folder).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        builder.name("dist.example".parse().unwrap()).open().await.unwrap()
    }

    fn lists(distributor: &Distributor) -> Vec<StandingEnvelope> {
        let all = distributor.state.standing.choose(|slot| slot.kind == EnvelopeKind::REVOCATION_LIST);
        all.into_iter().map(|(_, envelope)| envelope).collect()
    }

    /// After each step of revoking the Distributor's own signing certificate, the process ends.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_revocation_that_a_crash_cut_short_is_completed_at_the_next_start() {
        for steps in 0..=3 {
            let folder = tempfile::tempdir().unwrap();
            let distributor = open(folder.path()).await;
            let state = &distributor.state;
            let (fleet, old) = (state.own().authority.root().key_hash(), state.own().signing.certificate.clone());
            let (key, since, reason) = (old.key_hash(), state.now(), RevocationReason::KEY_COMPROMISE);
            let revoked = RevokedKey { key, serials: vec![], since, reason };
            let pages = match steps {
                0 => vec![],
                _ => state.revocations.revoke(&fleet, vec![(revoked, None)]).unwrap().unwrap(),
            };
            if steps > 1 {
                state.replace_revoked().unwrap();
            }
            if steps > 2 {
                state.issue_revocations(&pages).unwrap();
            }
            drop(distributor);

            let distributor = open(folder.path()).await;
            let signing = distributor.state.own().signing.certificate.clone();
            assert_eq!(signing == old, steps == 0, "{steps} steps: a revoked certificate is not used once more");
            distributor.start().await.unwrap();
            let lists = lists(&distributor);
            assert_eq!(lists.len(), usize::from(steps > 0), "{steps} steps");
            for list in lists {
                let envelope = Envelope::from_bytes(&list.bytes).unwrap();
                let now = distributor.state.now();
                envelope.verify(distributor.state.own().authority.root(), now).unwrap();
                let named = RevocationList::from_payload(&envelope.body().payload).unwrap().keys;
                assert_eq!(named.iter().map(|revoked| revoked.key).collect::<Vec<_>>(), [key]);
            }
            assert_eq!(distributor.state.own().signing.certificate.usage(), Usage::Sign);
            distributor.shutdown().await;
        }
    }
}
