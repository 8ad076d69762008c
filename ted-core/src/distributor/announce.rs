//! Standing envelopes: announced to every Subscriber on each new connection and whenever one changes, until it says
//! that it holds them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::rotation::Looked;
use crate::distributor::state::{State, lock};
use crate::error::{Coded, Error};
use crate::id::{EnvelopeId, KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::node::{Content, ExchangeError, RecordBatch, Reply, ask};
use crate::protocol::{Announce, AnnounceAnswer, Announced, Answer, Request, code};
use crate::security::{Envelope, EnvelopeBody, EnvelopeKind};
use crate::store::{StandingEnvelope, StandingSlot};
use crate::transport::{Connection, QuicConnection};

/// How long a Subscriber may take to fetch what was announced, to judge it and to make it durable.
const PATIENCE: Duration = Duration::from_secs(60);

/// After which pause a Subscriber is told again that could not take everything.
const AGAIN: Duration = Duration::from_secs(10);

/// How often is looked for whoever is to be told again, and for envelopes that are to be signed anew.
const ROUND: Duration = Duration::from_secs(1);

/// For whom an envelope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// For every Subscriber of the fleet.
    All,
    /// For the one with this key; nobody else may fetch it.
    To(KeyHash),
}

impl State {
    /// Has an envelope stand, durably, in the place of the one of its kind and address that stood before, and announces
    /// it to whoever is connected. The fleet and the kind are those of the envelope.
    #[expect(dead_code, reason = "for what replaces the Distributor's certificate")]
    pub(super) fn announce(&self, address: Address, envelope: &Envelope) -> Result<(), Error> {
        self.announce_all(vec![(slot(address, envelope, 0), envelope.clone())])
    }

    /// Signs an envelope with the signing certificate, for the slot that it is to stand in.
    pub(super) fn seal_standing(
        &self,
        kind: EnvelopeKind,
        address: Address,
        page: u16,
        life: Duration,
        payload: Vec<u8>,
    ) -> Result<(StandingSlot, Envelope), Error> {
        let (own, now) = (self.own(), self.now());
        let body = EnvelopeBody {
            kind,
            distributor: own.authority.root().key_hash(),
            issuer: own.signing.certificate.key_hash(),
            sequence: self.next_sequence()?,
            issued: now,
            expires: now.plus(life),
            payload,
        };
        let envelope = Envelope::seal(&*self.crypto, &own.signing, body)?;
        Ok((slot(address, &envelope, page), envelope))
    }

    /// The same as [`State::announce`] for several at once, each in its own slot: all of them stand afterwards, or none.
    pub(super) fn announce_all(&self, envelopes: Vec<(StandingSlot, Envelope)>) -> Result<(), Error> {
        let envelopes = envelopes.iter().map(|(slot, envelope)| (*slot, StandingEnvelope::from(envelope))).collect();
        let before = self.standing.put(envelopes)?;
        self.forget_acknowledgements(&before)?;
        self.announcing.notify_one();
        Ok(())
    }

    /// Announces no more what stands in the slots that `unwanted` chooses. Whoever has it keeps it.
    pub(super) fn withdraw(&self, unwanted: impl Fn(&StandingSlot) -> bool) -> Result<(), Error> {
        let gone = self.standing.remove(unwanted)?;
        self.forget_acknowledgements(&gone)
    }

    /// The Subscribers that said that they hold this envelope.
    pub(super) fn acknowledged(&self, kind: EnvelopeKind, id: &EnvelopeId) -> Result<Vec<KeyHash>, Error> {
        let prefix = acknowledged_prefix(kind, id);
        let rows = self.records.list::<UnixMillis>(&prefix)?;
        let keys = rows.iter().filter_map(|(row, _)| row.strip_prefix(&prefix)?.parse().ok());
        // One whose key was removed since is none of the fleet any more.
        Ok(keys.filter(|key| self.registrations.is_registered(key)).collect())
    }

    fn forget_acknowledgements(&self, of: &[(StandingSlot, StandingEnvelope)]) -> Result<(), Error> {
        let mut batch = RecordBatch::default();
        for (slot, envelope) in of {
            for (row, _) in self.records.list::<UnixMillis>(&acknowledged_prefix(slot.kind, &envelope.id))? {
                batch = batch.delete(&row);
            }
        }
        Ok(self.records.apply(batch)?)
    }

    /// Announces what changes to all who are connected, tells those again who could not take it, and has envelopes
    /// signed anew at two thirds of their life.
    pub(super) async fn announce_changes(self: Arc<Self>, stop: CancellationToken) {
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Looked::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.announcing.notified() => {
                    for (key, connection) in self.links.all() {
                        self.announce_to(key, connection.clone());
                        let behind = lock(&self.reach).behind(&key);
                        if !behind.is_empty() {
                            self.announce_behind(behind, connection);
                        }
                    }
                }
                _ = round.tick() => {
                    self.announce_again();
                    if looked.is_due(self.now()) {
                        self.renew_standing().await;
                    }
                }
            }
        }
    }

    fn announce_again(self: &Arc<Self>) {
        let now = Instant::now();
        let due: Vec<KeyHash> = lock(&self.announce_later).extract_if(|_, at| *at <= now).map(|(key, _)| key).collect();
        for key in due {
            if let Some((_, connection)) = self.reached_through(&key) {
                self.announce_to(key, connection);
            }
        }
    }

    async fn renew_standing(self: &Arc<Self>) {
        let state = self.clone();
        let renewing = tokio::task::spawn_blocking(move || state.renew_due()).await;
        if let Ok(Err(error)) = renewing {
            tracing::error!(code = error.code(), %error, "standing envelopes cannot be signed anew");
        }
    }

    /// Tells a Subscriber what stands for it, and notes what it says that it holds.
    pub(super) fn announce_to(self: &Arc<Self>, key: KeyHash, connection: QuicConnection) {
        let state = self.clone();
        self.links.spawn(async move { state.tell_standing(key, &connection).await });
    }

    /// The same, and waits for the answer. The connection is with the Subscriber or with the hop on the way to it.
    pub(super) async fn tell_standing(self: &Arc<Self>, key: KeyHash, connection: &QuicConnection) {
        let said = match self.announce_once(key, connection).await {
            Ok(said) => said,
            Err(error) => {
                let subscriber = self.name_of_key(&key);
                tracing::debug!(%subscriber, code = error.code(), %error, "standing envelopes were not taken");
                // An older version knows no announcements; it need not be asked again on this connection.
                error.code() == ExchangeError::Unsupported.code()
            }
        };
        if !said {
            lock(&self.announce_later).insert(key, Instant::now() + AGAIN);
        }
    }

    /// Whether the Subscriber has a word about every envelope.
    async fn announce_once(self: &Arc<Self>, key: KeyHash, connection: &QuicConnection) -> Result<bool, Error> {
        let (state, fleet) = (self.clone(), connection.peer().fleet);
        let recipient = Some(key).filter(|key| connection.peer().key != Some(*key));
        let finding = move || state.to_announce(&fleet, &key, recipient.is_some());
        let envelopes = tokio::task::spawn_blocking(finding).await.map_err(|_| DistributorError::Worker)??;
        let mut said = true;
        for some in envelopes.chunks(Limits::DEFAULT.announced_envelopes_max) {
            said &= self.announce_some(key, recipient, connection, some.to_vec()).await?;
        }
        Ok(said)
    }

    /// What stands for a Subscriber. One behind a hop that has all of it need not be told again.
    fn to_announce(&self, fleet: &KeyHash, key: &KeyHash, behind: bool) -> Result<Vec<Announced>, Error> {
        let mut envelopes = self.standing.of_recipient(fleet, key);
        // Nobody outside the Distributor's own fleet is configured.
        if lock(&self.fleet).subscriber(&self.name_of_key(key)).is_ok_and(|subscriber| subscriber.external) {
            envelopes.retain(|(slot, _)| slot.kind != EnvelopeKind::CONFIGURATION);
        }
        let mut new = !behind;
        for (slot, envelope) in envelopes.iter().filter(|_| behind) {
            let row = format!("{}{key}", acknowledged_prefix(slot.kind, &envelope.id));
            new = new || self.records.get::<UnixMillis>(&row)?.is_none();
        }
        let announced = |(slot, envelope): (StandingSlot, StandingEnvelope)| Announced {
            kind: slot.kind,
            id: envelope.id,
            sequence: envelope.sequence,
            bytes: envelope.bytes.len() as u64,
        };
        Ok(if new { envelopes.into_iter().map(announced).collect() } else { vec![] })
    }

    async fn announce_some(
        self: &Arc<Self>,
        key: KeyHash,
        recipient: Option<KeyHash>,
        connection: &QuicConnection,
        envelopes: Vec<Announced>,
    ) -> Result<bool, Error> {
        let fleet = connection.peer().fleet;
        let request = Request::Announce(Announce { recipient, envelopes: envelopes.clone() });
        let Answer::Announce(answer) = ask(connection, &request, &Limits::DEFAULT, PATIENCE).await? else {
            return Err(ExchangeError::Unexpected.into());
        };
        let _turn = self.upkeep.acquire().await.map_err(|_| DistributorError::Worker)?;
        let state = self.clone();
        let noting = move || state.note_acknowledged(&fleet, &key, &envelopes, &answer);
        tokio::task::spawn_blocking(noting).await.map_err(|_| DistributorError::Worker)?
    }

    fn note_acknowledged(
        &self,
        fleet: &KeyHash,
        key: &KeyHash,
        announced: &[Announced],
        answer: &AnnounceAnswer,
    ) -> Result<bool, Error> {
        let subscriber = self.name_of_key(key);
        let standing = self.standing.of_recipient(fleet, key);
        let mut batch = RecordBatch::default();
        let mut news = vec![];
        for (slot, envelope) in standing.iter().filter(|(_, envelope)| answer.holds.contains(&envelope.id)) {
            let row = format!("{}{key}", acknowledged_prefix(slot.kind, &envelope.id));
            if self.records.get::<UnixMillis>(&row)?.is_none() {
                batch = batch.put(&row, &self.now())?;
                news.push((slot.kind, envelope.sequence));
            }
        }
        if !news.is_empty() {
            self.records.apply(batch)?;
        }
        for (kind, sequence) in news {
            tracing::info!(%subscriber, %kind, sequence, "a standing envelope is in force there");
            self.events.emit(DistributorEvent::Acknowledged {
                subscriber: subscriber.clone(),
                kind: kind.to_string(),
                sequence,
            });
        }
        for (id, refused) in &answer.refused {
            let Some(of) = announced.iter().find(|of| of.id == *id) else { continue };
            let (kind, code, reason) = (of.kind.to_string(), refused.code(), refused.reason());
            tracing::warn!(%subscriber, kind, code, reason, "a standing envelope was refused");
            self.events.emit(DistributorEvent::NotAcknowledged {
                subscriber: subscriber.clone(),
                kind,
                code: code.to_owned(),
                reason: reason.to_owned(),
            });
        }
        let answered =
            |of: &Announced| answer.holds.contains(&of.id) || answer.refused.iter().any(|(id, _)| *id == of.id);
        Ok(announced.iter().all(answered))
    }

    /// A standing envelope's bytes, for a Subscriber that it is for; `None` if no such envelope stands.
    pub(super) fn standing_content(&self, key: &KeyHash, id: &EnvelopeId) -> Option<Reply> {
        let found = self.standing.find(id)?;
        Some(match found {
            (StandingSlot { recipient: Some(other), .. }, _)
                if !self.is_at(key, &other) && !self.is_through(key, &other) =>
            {
                Reply::refuse(code::NOT_ENTITLED, "this envelope is for another node")
            }
            (_, envelope) => Reply::Content(Content::Bytes(Bytes::from(envelope.bytes))),
        })
    }
}

/// Where an envelope stands.
pub(super) fn slot(address: Address, envelope: &Envelope, page: u16) -> StandingSlot {
    let recipient = match address {
        Address::All => None,
        Address::To(key) => Some(key),
    };
    StandingSlot { fleet: envelope.body().distributor, kind: envelope.body().kind, recipient, page }
}

fn acknowledged_prefix(kind: EnvelopeKind, id: &EnvelopeId) -> String {
    format!("acknowledged/{}/{id}/", kind.0)
}
