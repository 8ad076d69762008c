//! `certificate replace`: a new CA certificate under the same name, made known by the old one's signature while both are
//! there, put in force by an operator's act, and found for a while by those that were away.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::announce::{Address, slot};
use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::rotation::{Renew, issue_own};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{KeyHash, UnixMillis};
use crate::name::NodeName;
use crate::security::{
    Authority, Envelope, EnvelopeBody, EnvelopeKind, Keystore, Replacement, ReplacementState, Usage,
};
use crate::store::{StandingSlot, Step};

/// How long a prepared replacement holds; it is signed anew at two thirds of that.
const PREPARED_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long nodes that were away find their way from the old certificate to the new one, unless told otherwise.
pub const GRACE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How a replacement of the Distributor's certificate stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacementReport {
    /// The short form of the key that speaks now.
    pub fingerprint: String,
    /// The short form of the key that is to take over; none while nothing is prepared.
    pub successor: Option<String>,
    /// The Subscribers that have the new certificate.
    pub have: Vec<NodeName>,
    /// Those that have not said so yet.
    pub lack: Vec<NodeName>,
    /// Until when nodes find their way from certificates that were replaced, by the short form of their keys.
    pub grace: Vec<(String, UnixMillis)>,
}

impl State {
    /// The CA that is prepared to take over: one that is held and was issued nothing yet.
    fn prepared(keystore: &Keystore, current: &KeyHash) -> Option<Authority> {
        let has_tls = |key: &KeyHash| keystore.identity(key, Usage::DistributorTls).is_some();
        keystore.authorities().into_iter().find(|authority| {
            let key = authority.root().key_hash();
            key != *current && !has_tls(&key)
        })
    }

    /// Makes the certificate that is to take over, unless it is there, and makes it known.
    pub(super) fn prepare_replacement(&self) -> Result<ReplacementReport, Error> {
        let _one_at_a_time = lock(&self.rotating);
        let (own, now) = (self.own(), self.now());
        let current = own.authority.root();
        let next = match Self::prepared(&self.security.load_keystore()?, &current.key_hash()) {
            Some(next) => next,
            None => {
                let next = Authority::create(&*self.crypto, current.name(), now)?;
                self.security.change_keystore(|keystore| -> Result<(), Error> {
                    keystore.hold_identity(next.root().key_hash(), next.identity());
                    keystore.make_current(&current.key_hash());
                    Ok(())
                })?;
                tracing::info!(fingerprint = next.root().key_hash().fingerprint(), "prepared a new certificate");
                next
            }
        };
        self.say_replacement(&own.authority, &next, ReplacementState::Prepared, PREPARED_LIFE)?;
        self.replacement_report()
    }

    /// Has the word about a replacement stand that `old` gives about `next`, unless it does already.
    fn say_replacement(
        &self,
        old: &Authority,
        next: &Authority,
        state: ReplacementState,
        life: Duration,
    ) -> Result<(), Error> {
        let certificate = next.root().certificate().der().to_vec();
        let replacement = Replacement { certificate, state, extensions: vec![] };
        if self.said(&old.root().key_hash()).is_some_and(|(said, _)| said == replacement) {
            return Ok(());
        }
        let envelope = self.seal_word(old, EnvelopeKind::REPLACEMENT, replacement.to_payload()?, life)?;
        self.security.before(Step::Announce)?;
        self.announce_all(vec![(slot(Address::All, &envelope, 0), envelope)])
    }

    /// An envelope that only a CA key may sign.
    pub(super) fn seal_word(
        &self,
        authority: &Authority,
        kind: EnvelopeKind,
        payload: Vec<u8>,
        life: Duration,
    ) -> Result<Envelope, Error> {
        let now = self.now();
        let key = authority.root().key_hash();
        let sequence = self.next_sequence()?;
        let body = EnvelopeBody {
            kind,
            distributor: key,
            issuer: key,
            sequence,
            issued: now,
            expires: now.plus(life),
            payload,
        };
        Ok(Envelope::seal(&*self.crypto, &authority.identity(), body)?)
    }

    /// What the CA with this key says about its replacement, and the envelope.
    fn said(&self, key: &KeyHash) -> Option<(Replacement, Envelope)> {
        let standing = self.standing.get(&word_slot(key))?;
        let envelope = Envelope::from_bytes(&standing.bytes).ok()?;
        Some((Replacement::from_payload(&envelope.body().payload).ok()?, envelope))
    }

    /// Puts the prepared certificate in force. The old one's word for it stands for `grace`.
    pub(super) fn finalize_replacement(&self, grace: Duration) -> Result<ReplacementReport, Error> {
        let _no_build_meanwhile = self.building.blocking_lock();
        let one_at_a_time = lock(&self.rotating);
        let (own, now) = (self.own(), self.now());
        let old = &own.authority;
        let next = Self::prepared(&self.security.load_keystore()?, &old.root().key_hash())
            .ok_or(DistributorError::NothingPrepared)?;
        let key = next.root().key_hash();
        // Whoever lacks it now finds its way by the old one's word, which the operator should know.
        let ReplacementReport { have, lack, .. } = self.replacement_report()?;
        self.lineage.add(old.root(), &key, now)?;
        let switched = self.security.change_keystore(|keystore| -> Result<_, Error> {
            keystore.make_current(&key);
            Ok(issue_own(keystore, next.clone(), &*self.crypto, Renew::Due, now)?.0)
        })?;
        self.set_own(switched);
        self.finish_succession()?;
        self.say_replacement(old, &next, ReplacementState::Final, grace)?;
        self.show_identities()?;
        self.issue_missing_revocations()?;
        self.announce_configuration()?;
        drop(one_at_a_time);
        tracing::warn!(fingerprint = key.fingerprint(), "the new certificate is in force");
        self.events.emit(DistributorEvent::Replaced { fingerprint: key.fingerprint() });
        Ok(ReplacementReport { have, lack, ..self.replacement_report()? })
    }

    /// Takes a prepared replacement back.
    pub(super) fn cancel_replacement(&self) -> Result<ReplacementReport, Error> {
        let _one_at_a_time = lock(&self.rotating);
        let own = self.own();
        let current = own.authority.root().key_hash();
        let next =
            Self::prepared(&self.security.load_keystore()?, &current).ok_or(DistributorError::NothingPrepared)?;
        // Those that have it have to hear that it will not come; its key goes only then.
        self.say_replacement(&own.authority, &next, ReplacementState::Cancelled, PREPARED_LIFE)?;
        self.security.change_keystore(|keystore| -> Result<(), Error> {
            keystore.forget_fleet(&next.root().key_hash());
            Ok(())
        })?;
        self.replacement_report()
    }

    /// Forgets the key of a replacement that was taken back, where a crash came between the word and that.
    pub(super) fn finish_cancelling(&self) -> Result<(), Error> {
        let current = self.own().authority.root().key_hash();
        let Some((said, _)) = self.said(&current) else { return Ok(()) };
        let next = Self::prepared(&self.security.load_keystore()?, &current);
        // One that was prepared since is another.
        let kept = next.filter(|next| {
            said.state == ReplacementState::Cancelled && said.certificate == next.root().certificate().der()
        });
        let Some(kept) = kept else { return Ok(()) };
        self.security.change_keystore(|keystore| -> Result<(), Error> {
            keystore.forget_fleet(&kept.root().key_hash());
            Ok(())
        })
    }

    pub(super) fn replacement_report(&self) -> Result<ReplacementReport, Error> {
        let own = self.own();
        let current = own.authority.root().key_hash();
        let next = Self::prepared(&self.security.load_keystore()?, &current);
        let (mut have, mut lack): (Vec<NodeName>, Vec<NodeName>) = (vec![], vec![]);
        if let Some((_, envelope)) = self.said(&current).filter(|_| next.is_some()) {
            let holders = self.acknowledged(EnvelopeKind::REPLACEMENT, &envelope.id())?;
            for (key, registration) in self.registrations.all() {
                if !self.is_key_revoked(&key) {
                    if holders.contains(&key) { &mut have } else { &mut lack }.push(registration.name);
                }
            }
        }
        have.sort_unstable();
        lack.sort_unstable();
        let grace = own.former.iter().filter_map(|former| {
            let key = former.authority.root().key_hash();
            Some((key.fingerprint(), self.said(&key)?.1.body().expires))
        });
        Ok(ReplacementReport {
            fingerprint: current.fingerprint(),
            successor: next.map(|next| next.root().key_hash().fingerprint()),
            have,
            lack,
            grace: grace.collect(),
        })
    }

    /// Signs the word about a replacement anew where that is due, says it where a crash came before it, and forgets the
    /// keys of certificates whose grace is over. Part of every round.
    pub(super) fn keep_replacements(&self) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.rotating);
        let (own, now) = (self.own(), self.now());
        let current = own.authority.root().key_hash();
        if self.standing.due(now).contains(&word_slot(&current))
            && let Some(next) = Self::prepared(&self.security.load_keystore()?, &current)
        {
            self.withdraw(|slot| *slot == word_slot(&current))?;
            self.say_replacement(&own.authority, &next, ReplacementState::Prepared, PREPARED_LIFE)?;
        }
        for former in &own.former {
            let key = former.authority.root().key_hash();
            match self.said(&key) {
                Some((said, envelope)) if said.state == ReplacementState::Final => {
                    if now >= envelope.body().expires {
                        self.forget_former(&key)?;
                    }
                }
                _ => self.say_replacement(&former.authority, &own.authority, ReplacementState::Final, GRACE)?,
            }
        }
        Ok(())
    }

    fn forget_former(&self, key: &KeyHash) -> Result<(), Error> {
        let own = self.own();
        let changed = self.security.change_keystore(|keystore| -> Result<_, Error> {
            keystore.forget_fleet(key);
            Ok(issue_own(keystore, own.authority.clone(), &*self.crypto, Renew::Due, self.now())?.0)
        })?;
        self.set_own(changed);
        self.withdraw(|slot| slot.fleet == *key)?;
        self.show_identities()?;
        tracing::info!(fingerprint = key.fingerprint(), "the grace of a replaced certificate is over");
        Ok(())
    }
}

/// Where the word of the CA with this key about its replacement stands.
fn word_slot(key: &KeyHash) -> StandingSlot {
    StandingSlot { fleet: *key, kind: EnvelopeKind::REPLACEMENT, recipient: None, page: 0 }
}

impl Distributor {
    /// Prepares a new certificate of the same name: it is signed by the present one and made known to every Subscriber,
    /// and speaks for nobody yet. Said again, it reports who has it.
    ///
    /// # Errors
    /// When it cannot be made or made durable.
    pub async fn replace(&self) -> Result<ReplacementReport, Error> {
        self.blocking(State::prepare_replacement).await
    }

    /// Puts the prepared certificate in force: it issues everything from now on. A Subscriber that was away finds its
    /// way by the old one's word for it, for as long as `grace`.
    ///
    /// # Errors
    /// When nothing is prepared, or the change cannot be made durable.
    pub async fn finalize_replacement(&self, grace: Duration) -> Result<ReplacementReport, Error> {
        self.blocking(move |state| state.finalize_replacement(grace)).await
    }

    /// Takes the prepared certificate back: the present one goes on.
    ///
    /// # Errors
    /// When nothing is prepared, or the change cannot be made durable.
    pub async fn cancel_replacement(&self) -> Result<ReplacementReport, Error> {
        self.blocking(State::cancel_replacement).await
    }

    /// How a replacement stands.
    ///
    /// # Errors
    /// When the keystore or the catalog cannot be read.
    pub async fn replacement(&self) -> Result<ReplacementReport, Error> {
        self.blocking(State::replacement_report).await
    }
}
