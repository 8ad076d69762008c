//! Answering what Subscribers ask: greetings, fetches, receipts, enrolments.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::release::StoredEnvelope;
use crate::distributor::state::{Sent, State, lock};
use crate::error::Error;
use crate::id::{DistributionId, KeyHash};
use crate::node::{Answering, Content, Reply, wait};
use crate::protocol::{Answer, FetchTarget, ReceiptsAnswer, Refused, Request, code};
use crate::security::{Envelope, EnvelopeKind, Receipt, Stage};
use crate::store::Depot;

/// How often a fetch says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Answers a node that wants to be enrolled, and nothing else.
pub(super) struct Enrolling {
    pub(super) state: Arc<State>,
}

impl Answering for Enrolling {
    async fn answer(&self, request: Request) -> Reply {
        let Request::Enrol(bytes) = request else {
            return Reply::refuse(code::NOT_ENTITLED, "only an enrolment is answered on this connection");
        };
        let state = self.state.clone();
        answer_enrolment(&self.state, move || state.enrol(&bytes)).await
    }
}

/// The answer to an enrolment request, which is judged on a thread where blocking is allowed.
async fn answer_enrolment(state: &State, enrolling: impl FnOnce() -> Result<Vec<u8>, Error> + Send + 'static) -> Reply {
    // They are judged one after the other, and need not wait on a thread each.
    let Ok(_turn) = state.upkeep.acquire().await else {
        return Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own");
    };
    match tokio::task::spawn_blocking(enrolling).await {
        Ok(Ok(answer)) => Reply::Answer(Answer::Enrol(answer)),
        Ok(Err(error)) => {
            tracing::warn!(code = error.code(), %error, "an enrolment was refused");
            Reply::refuse(error.code(), error.to_string())
        }
        Err(_) => Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"),
    }
}

/// Answers an enrolled Subscriber.
pub(super) struct Serving {
    pub(super) state: Arc<State>,
    pub(super) key: KeyHash,
}

impl Answering for Serving {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Hello(greeting) => {
                self.state.note_greeting_aside(self.key, greeting);
                Reply::Answer(Answer::Hello(self.state.hello()))
            }
            Request::Fetch(fetch) => {
                let (state, key) = (self.state.clone(), self.key);
                let finding = move || match fetch.target {
                    FetchTarget::Package(id) => state.package_content(&key, &id),
                    FetchTarget::Envelope(id) => state.envelope_content(&key, &id),
                    FetchTarget::Grant { grants, recipient } => state.grant_content(&key, &grants, &recipient),
                };
                let found = tokio::task::spawn_blocking(finding).await;
                found.unwrap_or_else(|_| Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"))
            }
            Request::Enrol(bytes) => {
                let (state, key) = (self.state.clone(), self.key);
                answer_enrolment(&self.state, move || state.renew_subscriber(&key, &bytes)).await
            }
            Request::Presence(presence) => {
                let (state, key) = (self.state.clone(), self.key);
                match tokio::task::spawn_blocking(move || state.take_presence(key, &presence)).await {
                    Ok(()) => Reply::Answer(Answer::Presence),
                    Err(_) => Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"),
                }
            }
            Request::Receipts(envelopes) => {
                let (state, key) = (self.state.clone(), self.key);
                match tokio::task::spawn_blocking(move || state.take_receipts(&key, &envelopes)).await {
                    Ok(answer) => Reply::Answer(Answer::Receipts(answer)),
                    Err(_) => Reply::refuse(code::INTERNAL, "the Distributor has a problem of its own"),
                }
            }
            Request::Progress(entries) => {
                let (state, key) = (&self.state, &self.key);
                let own: Vec<_> = entries.into_iter().filter(|entry| state.is_at(key, &entry.subscriber)).collect();
                state.note_progress(key, &own);
                Reply::Answer(Answer::Progress)
            }
            _ => Reply::refuse(code::BAD_REQUEST, "a Distributor does not answer this"),
        }
    }
}

impl State {
    fn package_content(self: &Arc<Self>, key: &KeyHash, id: &crate::id::PackageId) -> Reply {
        let Ok(Some(info)) = wait(self.depot.info(*id)) else {
            return Reply::refuse(code::NOT_FOUND, "this package is not here");
        };
        if !self.entitled(key, &info.root.distribution) {
            return Reply::refuse(code::NOT_ENTITLED, "no Channel of yours has this Distribution");
        }
        let pace = match self.pace_of(key, &info) {
            Ok(pace) => pace,
            Err(refused) => return Reply::Answer(Answer::Refused(refused)),
        };
        match self.depot.open_file(*id) {
            Ok(file) => {
                let revision = info.root.revision;
                let about = Sent { package: *id, revision, bytes: 0, bytes_total: info.bytes };
                let sent = self.sending_progress(key, &info.root.distribution, about);
                Reply::Content(Content::File { file, bytes: info.bytes, pace, sent })
            }
            Err(error) => {
                tracing::error!(package = %id, %error, "a package cannot be opened");
                Reply::refuse(code::INTERNAL, "the package cannot be read here")
            }
        }
    }

    /// Counts what is sent, so that a Subscriber that takes bytes does not count as silent, and people see it.
    fn sending_progress(
        self: &Arc<Self>,
        key: &KeyHash,
        distribution: &DistributionId,
        about: Sent,
    ) -> Box<dyn FnMut(u64) + Send> {
        let (state, key, distribution) = (self.clone(), *key, *distribution);
        let (subscriber, label) = (self.name_of_key(&key), self.name_of_distribution(&distribution));
        let mut said = None::<Instant>;
        Box::new(move |bytes| {
            let served = {
                let mut sent = lock(&state.sent);
                let entry = sent.entry((key, distribution)).or_insert(about);
                if entry.package != about.package {
                    *entry = about;
                }
                entry.bytes = entry.bytes.saturating_add(bytes);
                *entry
            };
            // Every block would be thousands of events a second.
            let done = served.bytes >= served.bytes_total;
            if !done && said.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) {
                return;
            }
            said = Some(Instant::now());
            state.note_receiving(&key, &distribution, (served.bytes, served.bytes_total));
            state.events.emit(DistributorEvent::Sending {
                subscriber: subscriber.clone(),
                distribution: label.clone(),
                bytes: served.bytes,
                bytes_total: served.bytes_total,
            });
        })
    }

    fn envelope_content(&self, key: &KeyHash, id: &crate::id::EnvelopeId) -> Reply {
        if let Some(reply) = self.standing_content(key, id) {
            return reply;
        }
        let stored: Option<StoredEnvelope> = self.records.get(&format!("envelope/{id}")).ok().flatten();
        let Some(stored) = stored else { return Reply::refuse(code::NOT_FOUND, "this envelope is not here") };
        let about = stored.distribution.parse();
        if !about.is_ok_and(|distribution| self.entitled(key, &distribution)) {
            return Reply::refuse(code::NOT_ENTITLED, "no Channel of yours has this Distribution");
        }
        match hex::decode(&stored.bytes) {
            Ok(bytes) => Reply::Content(Content::Bytes(Bytes::from(bytes))),
            Err(_) => Reply::refuse(code::INTERNAL, "the envelope cannot be read here"),
        }
    }

    /// Stores receipts; those that were not are named in the answer.
    fn take_receipts(&self, key: &KeyHash, envelopes: &[Vec<u8>]) -> ReceiptsAnswer {
        let mut answer = ReceiptsAnswer::default();
        let mut entered = vec![];
        for (place, bytes) in (0..).zip(envelopes) {
            match self.judge_receipt(key, bytes) {
                Ok((of, receipt)) => {
                    self.take_late_receipt(&of, &receipt);
                    let ticket = self.change_firings_of(&[of], |firing, now| firing.receipt(&of, &receipt, now));
                    entered.push((place, of, receipt, ticket));
                }
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "a receipt was refused");
                    answer.refused.push((place, Refused::new(error.code(), error.to_string())));
                }
            }
        }
        // The first one that needs a flush has all of them written.
        for (place, of, receipt, ticket) in entered {
            if let Err(error) = self.durable_now(ticket).and_then(|()| self.receipt_taken(&of, receipt)) {
                tracing::error!(code = error.code(), %error, "a receipt cannot be stored");
                let refused = Refused::new(code::INTERNAL, "the Distributor cannot store the receipt now");
                answer.refused.push((place, refused));
            }
        }
        answer.refused.sort_by_key(|(place, _)| *place);
        answer
    }

    /// Verifies that a receipt is one, and of the node that sent it or of one behind that. Answers of which.
    fn judge_receipt(&self, key: &KeyHash, bytes: &[u8]) -> Result<(KeyHash, Receipt), Error> {
        let envelope = Envelope::from_bytes(bytes)?;
        envelope.expect_kind(EnvelopeKind::RECEIPT)?;
        // A Subscriber's clock may be ahead of ours; a receipt is about the past and is judged when it was issued.
        let at = self.now().max(envelope.body().issued);
        envelope.verify(self.own().authority.root(), at)?;
        let issuer = envelope.body().issuer;
        if !self.is_at(key, &issuer) {
            return Err(DistributorError::ForeignReceipt.into());
        }
        Ok((issuer, Receipt::from_payload(&envelope.body().payload)?))
    }

    /// Does what follows from a receipt that is durable, and tells of it.
    fn receipt_taken(&self, key: &KeyHash, receipt: Receipt) -> Result<(), Error> {
        let (subscriber, distribution) = (self.name_of_key(key), self.name_of_distribution(&receipt.distribution));
        self.doubt_after(&subscriber, &receipt)?;
        let (revision, stage) = (receipt.revision, receipt.stage);
        if stage == Stage::Verified {
            self.note_verified(key);
        }
        match &receipt.code {
            None => tracing::info!(%subscriber, %distribution, %revision, ?stage, "receipt"),
            Some(code) => {
                tracing::warn!(%subscriber, %distribution, %revision, ?stage, code, detail = receipt.detail, "receipt");
            }
        }
        self.events.emit(DistributorEvent::Receipt {
            firing: receipt.firing,
            subscriber,
            distribution,
            revision: receipt.revision,
            stage: receipt.stage,
            code: receipt.code,
            detail: receipt.detail,
        });
        Ok(())
    }

    /// Whether a node may fetch a Distribution, for itself or for one behind it.
    pub(super) fn entitled(&self, key: &KeyHash, distribution: &DistributionId) -> bool {
        let registration = self.registrations.get(key).filter(|_| !self.is_key_revoked(key));
        registration.is_some_and(|known| {
            let own = lock(&self.fleet).entitled(&known.name).contains(distribution);
            own || self.tiers().may_fetch(key, distribution)
        })
    }
}
