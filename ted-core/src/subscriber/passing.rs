//! Passing on between the peer above this node and its children: enrolments and receipts upwards, announcements
//! downwards, and the envelopes that were announced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::Error;
use crate::id::{EnvelopeId, KeyHash};
use crate::limits::Limits;
use crate::node::{Content, ExchangeError, RecordBatch, Reply, ask, fetch};
use crate::protocol::{Announce, Answer, Fetch, FetchTarget, ReceiptsAnswer, Refused, Request, code};
use crate::security::{Configuration, EntitlementsPage, Envelope, EnvelopeKind, Receipt, ReleaseStatement};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::state::{State, lock};

/// How long the Distributor may take to judge an enrolment that passes through here: a parent above waits as well.
const ENROLMENT_PATIENCE: Duration = Duration::from_secs(60);

/// How long a node behind this one may take to take what is announced to it.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(55);

/// How long the peer above may take to hand out an envelope.
const ENVELOPE_PATIENCE: Duration = Duration::from_secs(30);

const NO_WAY_UP: &str = "this node is not connected with the Distributor now";
const OWN_PROBLEM: &str = "this node has a problem of its own";

/// A receipt that is passed on, as the catalog keeps it.
#[derive(Serialize, Deserialize)]
struct Passed {
    envelope: String,
}

impl State {
    /// Passes an enrolment up; the Distributor alone judges it, and what it answers goes back as it is.
    pub(super) async fn pass_enrolment(self: &Arc<Self>, fleet: &KeyHash, bytes: Vec<u8>) -> Reply {
        let Some(upstream) = self.links.get(fleet) else { return Reply::refuse(code::BUSY, NO_WAY_UP) };
        let Ok(_permit) = self.passing_enrolments.try_acquire() else {
            return Reply::refuse(code::BUSY, "too many nodes are just being enrolled through this one");
        };
        match ask(&upstream, &Request::Enrol(bytes), &Limits::DEFAULT, ENROLMENT_PATIENCE).await {
            Ok(Answer::Enrol(answer)) => Reply::Answer(Answer::Enrol(answer)),
            Ok(_) => Reply::refuse(code::INTERNAL, "the answer does not fit the question"),
            Err(ExchangeError::Refused(refused)) => Reply::Answer(Answer::Refused(refused)),
            Err(error) => {
                tracing::info!(%error, "an enrolment could not be passed on");
                Reply::refuse(code::BUSY, NO_WAY_UP)
            }
        }
    }

    /// Passes an announcement down to the node that it is for, and its answer back.
    pub(super) async fn pass_announcement(self: &Arc<Self>, fleet: &KeyHash, to: KeyHash, of: Announce) -> Reply {
        let Some((hop, child)) = self.child_towards(fleet, &to) else {
            return Reply::refuse(code::BUSY, "that node is not reached through this one now");
        };
        let recipient = Some(to).filter(|to| *to != hop);
        let request = Request::Announce(Announce { recipient, ..of });
        match ask(&child, &request, &Limits::DEFAULT, ANNOUNCE_PATIENCE).await {
            Ok(Answer::Announce(answer)) => Reply::Answer(Answer::Announce(answer)),
            Ok(_) => Reply::refuse(code::INTERNAL, "the answer does not fit the question"),
            Err(ExchangeError::Refused(refused)) => Reply::Answer(Answer::Refused(refused)),
            Err(error) => {
                tracing::debug!(%error, "an announcement could not be passed on");
                Reply::refuse(code::BUSY, "that node does not answer now")
            }
        }
    }

    /// Keeps receipts of a child and of those behind it until they are passed on. They are durable when it answers.
    pub(super) async fn pass_receipts(self: &Arc<Self>, fleet: KeyHash, child: KeyHash, of: Vec<Vec<u8>>) -> Reply {
        let state = self.clone();
        match tokio::task::spawn_blocking(move || state.keep_passed(&fleet, &child, &of)).await {
            Ok(Ok(answer)) => {
                self.receipts.notify_one();
                Reply::Answer(Answer::Receipts(answer))
            }
            Ok(Err(error)) => {
                tracing::error!(code = error.code(), %error, "receipts of a child cannot be kept");
                Reply::refuse(code::INTERNAL, OWN_PROBLEM)
            }
            Err(_) => Reply::refuse(code::INTERNAL, OWN_PROBLEM),
        }
    }

    fn keep_passed(&self, fleet: &KeyHash, child: &KeyHash, envelopes: &[Vec<u8>]) -> Result<ReceiptsAnswer, Error> {
        let mut answer = ReceiptsAnswer::default();
        let mut batch = RecordBatch::default();
        let mut new: std::collections::HashMap<KeyHash, usize> = std::collections::HashMap::new();
        for (place, bytes) in (0..).zip(envelopes) {
            match self.judge_passed(fleet, child, bytes) {
                Ok((issuer, sequence)) => {
                    let prefix = passed_prefix(fleet, Some(&issuer));
                    let passed = Passed { envelope: hex::encode(bytes) };
                    batch = batch.put(&format!("{prefix}{sequence:020}"), &passed)?;
                    *new.entry(issuer).or_default() += 1;
                }
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "a receipt of a child was refused");
                    answer.refused.push((place, Refused::new(error.code(), error.to_string())));
                }
            }
        }
        // Newer ones say more than the oldest.
        for (issuer, count) in new {
            let waiting = self.records.keys(&passed_prefix(fleet, Some(&issuer)))?;
            let room = Limits::DEFAULT.passed_receipts_max.saturating_sub(count);
            for key in waiting.iter().rev().skip(room) {
                batch = batch.delete(key);
            }
        }
        self.records.apply(batch)?;
        self.relay_receipts(fleet, envelopes, &answer);
        Ok(answer)
    }

    /// Verifies that a receipt is one, and of a node behind the child that sent it.
    fn judge_passed(&self, fleet: &KeyHash, child: &KeyHash, bytes: &[u8]) -> Result<(KeyHash, u64), Error> {
        let envelope = Envelope::from_bytes(bytes)?;
        envelope.expect_kind(EnvelopeKind::RECEIPT)?;
        let body = envelope.body();
        envelope.verify(&self.trusted_root(fleet)?, self.now(fleet).max(body.issued))?;
        self.refuse_revoked(fleet, &body.issuer)?;
        if !self.entitlements(fleet).is_behind(child, &body.issuer) {
            return Err(SubscriberError::ForeignReceipt.into());
        }
        Receipt::from_payload(&body.payload)?;
        Ok((body.issuer, body.sequence))
    }

    /// The receipts of others that wait to be passed on, each with its record's key.
    pub(super) fn passed_receipts(&self, fleet: &KeyHash) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let waiting = self.records.list::<Passed>(&passed_prefix(fleet, None))?.into_iter();
        Ok(waiting.map(|(key, passed)| (key, hex::decode(&passed.envelope).unwrap_or_default())).collect())
    }

    /// Drops the receipts of others that wait to be passed on in a fleet.
    pub(super) fn forget_passed(&self, fleet: &KeyHash) -> Result<(), Error> {
        let keys = self.records.keys(&passed_prefix(fleet, None))?;
        let batch = keys.iter().fold(RecordBatch::default(), |batch, key| batch.delete(key));
        Ok(self.records.apply(batch)?)
    }

    /// Hands a child an envelope that was announced to it: one that stands here too, or one from above that is for the
    /// child or a node behind it.
    pub(super) async fn pass_envelope(self: &Arc<Self>, fleet: KeyHash, child: KeyHash, id: EnvelopeId) -> Reply {
        if let Some((slot, standing)) = self.envelopes.find(&id)
            && slot.fleet == fleet
        {
            return match slot.recipient {
                None => Reply::Content(Content::Bytes(Bytes::from(standing.bytes))),
                Some(_) => Reply::refuse(code::NOT_ENTITLED, "this envelope is for another node"),
            };
        }
        let bytes = match self.fetch_envelope(&fleet, id).await {
            Ok(bytes) => bytes,
            Err(refused) => return Reply::Answer(Answer::Refused(refused)),
        };
        let state = self.clone();
        let judging = move || state.judge_handed_on(&fleet, &child, id, &bytes).map(|()| bytes);
        match tokio::task::spawn_blocking(judging).await {
            Ok(Ok(bytes)) => Reply::Content(Content::Bytes(Bytes::from(bytes))),
            Ok(Err(refused)) => Reply::Answer(Answer::Refused(refused)),
            Err(_) => Reply::refuse(code::INTERNAL, OWN_PROBLEM),
        }
    }

    /// An envelope's bytes from the peer above this node.
    pub(super) async fn fetch_envelope(&self, fleet: &KeyHash, id: EnvelopeId) -> Result<Vec<u8>, Refused> {
        let upstream = self.links.get(fleet).ok_or_else(|| Refused::new(code::BUSY, NO_WAY_UP))?;
        let limits = Limits::DEFAULT;
        let wanted = Fetch { target: FetchTarget::Envelope(id), from: 0, to: limits.envelope_bytes_max };
        let fetching = async {
            let fetched = fetch(&upstream, wanted, &limits, ENVELOPE_PATIENCE).await?;
            fetched.collect(limits.envelope_bytes_max).await
        };
        fetching.await.map_err(|error| match error {
            ExchangeError::Refused(refused) => refused,
            error => Refused::new(code::BUSY, format!("the envelope could not be had: {error}")),
        })
    }

    /// Whether a child may be handed this envelope, which came from above.
    fn judge_handed_on(&self, fleet: &KeyHash, child: &KeyHash, id: EnvelopeId, bytes: &[u8]) -> Result<(), Refused> {
        let broken =
            |error: Error| Refused::new(code::INTERNAL, format!("what came from above is not usable: {error}"));
        let envelope = Envelope::from_bytes(bytes).map_err(|error| broken(error.into()))?;
        let body = envelope.body();
        let root = self.trusted_root(fleet).map_err(broken)?;
        let at = self.now(fleet).min(body.expires).max(body.issued);
        envelope.verify(&root, at).map_err(|error| broken(error.into()))?;
        let entitlements = self.entitlements(fleet);
        let of_child = match body.kind {
            _ if envelope.id() != id => return Err(Refused::new(code::INTERNAL, "another envelope came from above")),
            EnvelopeKind::REVOCATION_LIST | EnvelopeKind::REPLACEMENT | EnvelopeKind::TIME => true,
            EnvelopeKind::CONFIGURATION => {
                let recipient =
                    Configuration::from_payload(&body.payload).map_err(|error| broken(error.into()))?.recipient;
                recipient.is_none_or(|recipient| entitlements.is_behind(child, &recipient))
            }
            EnvelopeKind::ENTITLEMENTS => {
                let page = EntitlementsPage::from_payload(&body.payload).map_err(|error| broken(error.into()))?;
                entitlements.is_behind(child, &page.recipient)
            }
            EnvelopeKind::RELEASE_STATEMENT => {
                let bytes_max = Limits::DEFAULT.envelope_bytes_max;
                let release: ReleaseStatement = codec::decode("a release statement", &body.payload, bytes_max)
                    .map_err(|error| broken(error.into()))?;
                entitlements.may_fetch(child, &release.distribution)
            }
            _ => false,
        };
        if of_child { Ok(()) } else { Err(Refused::new(code::NOT_ENTITLED, "this envelope is for another node")) }
    }

    /// Closes the connections of all children of a fleet: this node may not serve them any more.
    pub(super) fn close_children(&self, fleet: &KeyHash, reason: &str) {
        for (key, _) in self.children.all().iter().filter(|(key, _)| key.0 == *fleet) {
            self.children.close(key, reason);
        }
        lock(&self.reach).remove(fleet);
    }
}

fn passed_prefix(fleet: &KeyHash, issuer: Option<&KeyHash>) -> String {
    issuer.map_or_else(|| format!("passed/{fleet}/"), |issuer| format!("passed/{fleet}/{issuer}/"))
}
