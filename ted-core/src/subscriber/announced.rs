//! Standing envelopes, as their Distributor announces them: fetched, verified, put in force, durable, and only then
//! answered for.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Coded, Error};
use crate::id::{EnvelopeId, KeyHash};
use crate::limits::Limits;
use crate::node::fetch;
use crate::package::Root;
use crate::protocol::{Announce, AnnounceAnswer, Announced, Fetch, FetchTarget, Refused};
use crate::security::{
    Certificate, DistributorRoot, Envelope, EnvelopeKind, RevocationList, Signature, judge_standing,
};
use crate::store::{StandingEnvelope, StandingSlot};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::serving::Policy;
use crate::subscriber::state::State;
use crate::transport::{Connection, QuicConnection};

/// How long the sender may take to hand out an envelope that it has just announced.
const ENVELOPE_PATIENCE: Duration = Duration::from_secs(30);

/// So many characters of a reason go back: all refusals together have to fit into one answer.
const REASON_CHARS_MAX: usize = 200;

/// Why a standing envelope is refused that verifies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncedError {
    /// What stands here already is newer.
    #[error("the {kind} is no newer than the one in force here ({offered}, and {held} is in force)")]
    NotNewer {
        /// What it holds.
        kind: EnvelopeKind,
        /// Its sequence number.
        offered: u64,
        /// The sequence number of the one that is in force.
        held: u64,
    },
    /// It is not what was announced.
    #[error("the envelope is not the one that was announced")]
    NotAnnounced,
    /// Envelopes of this kind do not stand by themselves.
    #[error("a {0} is not announced")]
    NotStanding(EnvelopeKind),
    /// It is for another node.
    #[error("it is for the node with key {0}")]
    Foreign(String),
    /// Its signer's key was revoked.
    #[error("the key {0} that signed it was revoked")]
    RevokedSigner(String),
    /// Together with what is known already it revokes more keys than a list may hold.
    #[error("the list revokes more keys than all its pages may hold")]
    TooManyRevoked,
}

impl Coded for AnnouncedError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotNewer { .. } => "TED-1190",
            Self::NotAnnounced => "TED-1191",
            Self::NotStanding(_) => "TED-1192",
            Self::Foreign(_) => "TED-1876",
            Self::RevokedSigner(_) => "TED-1194",
            Self::TooManyRevoked => "TED-1877",
        }
    }
}

impl State {
    /// Takes what stands at a Distributor. The answer names what is in force here, durably, once it returns.
    pub(super) async fn take_announcement(
        self: &Arc<Self>,
        connection: &QuicConnection,
        announce: Announce,
    ) -> AnnounceAnswer {
        let fleet = connection.peer().fleet;
        let mut answer = AnnounceAnswer::default();
        for announced in announce.envelopes {
            match self.take_envelope(connection, &announced).await {
                Ok(()) => answer.holds.push(announced.id),
                Err(error) if error.is_retryable() => {
                    tracing::info!(code = error.code(), %error, "an announced envelope is to be had later");
                }
                Err(error) => {
                    self.refused_envelope(&fleet, announced.kind, &error);
                    let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
                    answer.refused.push((announced.id, Refused::new(error.code(), reason)));
                }
            }
        }
        answer
    }

    fn refused_envelope(&self, fleet: &KeyHash, kind: EnvelopeKind, error: &Error) {
        let distributor = self.distributor_name(fleet);
        tracing::warn!(%distributor, %kind, code = error.code(), reason = %error, "an envelope was refused");
        self.events.emit(SubscriberEvent::EnvelopeRefused {
            distributor,
            kind: kind.to_string(),
            code: error.code().to_owned(),
            reason: error.to_string(),
        });
    }

    async fn take_envelope(self: &Arc<Self>, connection: &QuicConnection, announced: &Announced) -> Result<(), Error> {
        let fleet = connection.peer().fleet;
        if self.envelopes.find(&announced.id).is_some_and(|(slot, _)| slot.fleet == fleet) {
            return Ok(());
        }
        let limits = Limits::DEFAULT;
        let target = FetchTarget::Envelope(announced.id);
        let wanted = Fetch { target, from: 0, to: limits.envelope_bytes_max };
        let fetched = fetch(connection, wanted, &limits, ENVELOPE_PATIENCE).await?;
        let bytes = fetched.collect(limits.envelope_bytes_max).await?;
        let (state, id) = (self.clone(), announced.id);
        // One Distributor that hands its envelopes out slowly does not make the others' wait.
        let one_at_a_time = self.taking.lock().await;
        let taking = move || state.accept_envelope(&fleet, &id, &bytes);
        tokio::task::spawn_blocking(taking).await.map_err(|_| SubscriberError::Worker)??;
        drop(one_at_a_time);
        if self.lineage.former(&fleet).is_some() {
            self.links.spawn(self.clone().move_on(connection.clone(), fleet));
        }
        Ok(())
    }

    /// Judges an envelope, puts it in force, and has it stand. Blocks on the disk.
    fn accept_envelope(self: &Arc<Self>, fleet: &KeyHash, id: &EnvelopeId, bytes: &[u8]) -> Result<(), Error> {
        let root = self.trusted_root(fleet)?;
        let envelope = Envelope::from_bytes(bytes)?;
        if envelope.id() != *id {
            return Err(AnnouncedError::NotAnnounced.into());
        }
        // What corrects the time is not judged by the time that it corrects.
        let is_time = envelope.body().kind == EnvelopeKind::TIME;
        envelope.verify(&root, if is_time { self.clock.now() } else { self.now(fleet) })?;
        self.refuse_revoked(fleet, &envelope.body().issuer)?;
        let slot = self.slot_of(fleet, &envelope)?;
        let (kind, offered) = (envelope.body().kind, envelope.body().sequence);
        if self.envelopes.get(&slot).is_some_and(|standing| standing.id == *id) {
            return Ok(());
        }
        if let Some(held) = self.envelopes.get(&slot).map(|standing| standing.sequence).filter(|held| offered <= *held)
        {
            return Err(AnnouncedError::NotNewer { kind, offered, held }.into());
        }
        self.apply_envelope(&slot, &envelope)?;
        self.envelopes.put(vec![(slot, StandingEnvelope::from(&envelope))])?;
        match kind {
            EnvelopeKind::ENTITLEMENTS => self.follow_entitlements(fleet)?,
            EnvelopeKind::CONFIGURATION => {
                self.follow_rates();
                // It may name other parents.
                self.hasten(fleet);
            }
            _ => {}
        }
        let distributor = self.distributor_name(fleet);
        tracing::info!(%distributor, %kind, sequence = offered, "a standing envelope is in force");
        self.schedules.declared();
        self.events.emit(SubscriberEvent::EnvelopeAccepted { distributor, kind: kind.to_string(), sequence: offered });
        Ok(())
    }

    /// Refuses what was signed with a key that was revoked since.
    pub(super) fn refuse_revoked(&self, fleet: &KeyHash, signer: &KeyHash) -> Result<(), AnnouncedError> {
        if self.revocations.is_revoked(fleet, signer) {
            return Err(AnnouncedError::RevokedSigner(signer.fingerprint()));
        }
        Ok(())
    }

    /// Refuses a package that was signed after its signer's key was revoked. An older one counts for what it is: the
    /// statement that names it, by a hash over all of it, is signed with a key that holds.
    pub(super) fn refuse_revoked_package(
        &self,
        root: &DistributorRoot,
        package: &Root,
        signature: &Signature,
    ) -> Result<(), Error> {
        let signer = Certificate::from_der(&signature.certificate)?.key_hash();
        match self.revocations.get(&root.key_hash(), &signer) {
            Some(revocation) if package.created >= revocation.since => {
                Err(AnnouncedError::RevokedSigner(signer.fingerprint()).into())
            }
            _ => Ok(()),
        }
    }

    /// Puts in force what a verified envelope says, durably. A crash before it stands makes it be applied once more.
    fn apply_envelope(self: &Arc<Self>, slot: &StandingSlot, envelope: &Envelope) -> Result<(), Error> {
        match slot.kind {
            EnvelopeKind::REVOCATION_LIST => self.apply_revocations(&slot.fleet, envelope),
            EnvelopeKind::CONFIGURATION => Self::check_configuration(envelope),
            EnvelopeKind::REPLACEMENT => self.apply_replacement(&slot.fleet, envelope),
            EnvelopeKind::TIME => self.apply_time(&slot.fleet, envelope),
            // Their slot was found by reading them, and what stands counts.
            EnvelopeKind::ENTITLEMENTS => Ok(()),
            other => Err(AnnouncedError::NotStanding(other).into()),
        }
    }

    fn apply_revocations(self: &Arc<Self>, fleet: &KeyHash, envelope: &Envelope) -> Result<(), Error> {
        let list = RevocationList::from_payload(&envelope.body().payload)?;
        let new = self.revocations.merge(fleet, list.page, &list.keys)?.ok_or(AnnouncedError::TooManyRevoked)?;
        if !new.is_empty() {
            let distributor = self.distributor_name(fleet);
            tracing::warn!(%distributor, keys = new.len(), "keys were revoked");
            // This node's own may be among them.
            self.forget_entitlements();
            self.judge_all_again();
        }
        Ok(())
    }

    /// Closes the connections of all peers that may not speak any more.
    pub(super) fn judge_all_again(self: &Arc<Self>) {
        let policy = Policy(Arc::downgrade(self));
        let children = self.children.all().into_iter().map(|(_, connection)| connection);
        for connection in self.links.all().into_iter().map(|(_, connection)| connection).chain(children) {
            if let Err(refusal) = judge_standing(connection.peer(), &policy) {
                tracing::info!(code = refusal.code(), reason = %refusal, "a peer may not speak any more");
                connection.close(refusal.close_code(), &refusal.close_reason());
            }
        }
    }

    /// Where an envelope stands, by what it says itself.
    fn slot_of(&self, fleet: &KeyHash, envelope: &Envelope) -> Result<StandingSlot, Error> {
        let kind = envelope.body().kind;
        let page = match kind {
            EnvelopeKind::REVOCATION_LIST => RevocationList::from_payload(&envelope.body().payload)?.page,
            EnvelopeKind::REPLACEMENT | EnvelopeKind::TIME => 0,
            EnvelopeKind::CONFIGURATION => return self.configuration_slot(fleet, envelope),
            EnvelopeKind::ENTITLEMENTS => return self.entitlements_slot(fleet, envelope),
            other => return Err(AnnouncedError::NotStanding(other).into()),
        };
        Ok(StandingSlot { fleet: *fleet, kind, recipient: None, page })
    }
}
