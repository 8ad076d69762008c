//! Receipts: signed, kept until the Distributor or a parent has stored them, and sent in the order in which they were
//! made; then those of others that this node passes on.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::Error;
use crate::id::{KeyHash, next_number};
use crate::limits::Limits;
use crate::node::{ExchangeError, RecordBatch, ask};
use crate::protocol::{Answer, Request, receipts_that_fit};
use crate::security::{Envelope, EnvelopeBody, EnvelopeKind, Receipt};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::state::{State, lock};
use crate::transport::QuicConnection;

/// How long a receipt stays valid: longer than any node is expected to be away.
const LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// How long the other side may take to store a receipt.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a receipt's text for people.
const DETAIL_BYTES_MAX: usize = 1024;

/// Receipts that wait for one Distributor; beyond that the oldest are dropped, because newer ones say more.
const WAITING_MAX: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Waiting {
    envelope: String,
}

impl State {
    /// Signs a receipt, keeps it, and has it sent as soon as the Distributor is connected.
    pub(super) async fn say(self: &Arc<Self>, fleet: KeyHash, receipt: Receipt) {
        let state = self.clone();
        // A worker that is gone has nobody left to tell.
        let _ = tokio::task::spawn_blocking(move || state.say_now(&fleet, receipt)).await;
    }

    /// As [`State::say`], for what blocks anyway.
    pub(super) fn say_now(&self, fleet: &KeyHash, receipt: Receipt) {
        match self.keep_receipt(fleet, receipt) {
            Ok(()) => self.receipts.notify_one(),
            Err(error) => tracing::error!(code = error.code(), %error, "a receipt cannot be kept"),
        }
    }

    fn keep_receipt(&self, fleet: &KeyHash, receipt: Receipt) -> Result<(), Error> {
        match self.receipt_in(fleet, receipt, RecordBatch::default())? {
            Ok(batch) => Ok(self.records.apply(batch)?),
            Err((_, error)) => Err(error),
        }
    }

    /// Signs a receipt and adds it to what `batch` does, so that both happen or neither. Where it cannot be signed, the
    /// batch comes back as it was.
    pub(super) fn receipt_in(
        &self,
        fleet: &KeyHash,
        receipt: Receipt,
        mut batch: RecordBatch,
    ) -> Result<Result<RecordBatch, (RecordBatch, Error)>, Error> {
        let (sequence, envelope) = match self.sign_receipt(fleet, receipt) {
            Ok(signed) => signed,
            Err(error) => return Ok(Err((batch, error))),
        };
        let prefix = format!("outbox/{fleet}/");
        let waiting = self.records.list::<Waiting>(&prefix)?;
        for (key, _) in waiting.iter().rev().skip(WAITING_MAX - 1) {
            batch = batch.delete(key);
        }
        let waiting = Waiting { envelope: hex::encode(envelope.to_bytes()) };
        Ok(Ok(batch.put(&format!("{prefix}{sequence:020}"), &waiting)?))
    }

    fn sign_receipt(&self, fleet: &KeyHash, mut receipt: Receipt) -> Result<(u64, Envelope), Error> {
        receipt.detail.truncate(receipt.detail.floor_char_boundary(DETAIL_BYTES_MAX));
        let identity = self.identity(fleet)?;
        let now = self.clock.now();
        let sequence = {
            let mut last = lock(&self.last_sequence);
            *last = next_number(Some(*last), now);
            *last
        };
        let body = EnvelopeBody {
            kind: EnvelopeKind::RECEIPT,
            distributor: *fleet,
            issuer: identity.certificate.key_hash(),
            sequence,
            issued: now,
            expires: now.plus(LIFE),
            payload: codec::encode("a receipt", &receipt, Limits::DEFAULT.envelope_bytes_max)?,
        };
        Ok((sequence, Envelope::seal(&*self.crypto, &identity, body)?))
    }

    /// Drops what waits for a Distributor that this node has left.
    pub(super) fn forget_receipts(&self, fleet: &KeyHash) -> Result<(), Error> {
        for (key, _) in self.records.list::<Waiting>(&format!("outbox/{fleet}/"))? {
            self.records.delete(&key)?;
        }
        Ok(())
    }

    /// Sends what waits for one Distributor, oldest first and several together; gives up where one is to be sent later.
    pub(super) async fn send_receipts(
        self: &Arc<Self>,
        fleet: KeyHash,
        connection: &QuicConnection,
    ) -> Result<(), Error> {
        let state = self.clone();
        let listing = move || -> Result<Vec<(String, Vec<u8>)>, Error> {
            let own = state.records.list::<Waiting>(&format!("outbox/{fleet}/"))?.into_iter();
            let own = own.map(|(key, waiting)| (key, hex::decode(&waiting.envelope).unwrap_or_default()));
            Ok(own.chain(state.passed_receipts(&fleet)?).collect())
        };
        let mut waiting = tokio::task::spawn_blocking(listing).await.map_err(|_| SubscriberError::Worker)??;
        while !waiting.is_empty() {
            let count = receipts_that_fit(waiting.iter().map(|(_, envelope)| envelope), &Limits::DEFAULT);
            let together: Vec<_> = waiting.drain(..count).collect();
            let envelopes = together.iter().map(|(_, envelope)| envelope.clone()).collect();
            let asked = ask(connection, &Request::Receipts(envelopes), &Limits::DEFAULT, PATIENCE).await?;
            let Answer::Receipts(answer) = asked else { return Err(ExchangeError::Unexpected.into()) };
            let mut batch = RecordBatch::default();
            let mut later = None;
            for (place, (key, _)) in together.iter().enumerate() {
                match answer.refusal_of(place) {
                    Some(refused) if refused.is_retryable() => {
                        later.get_or_insert_with(|| refused.clone());
                        continue;
                    }
                    // A receipt that the Distributor will never take is of no use to anybody.
                    Some(refused) => {
                        tracing::warn!(code = refused.code(), reason = refused.reason(), "a receipt was refused");
                    }
                    None => {}
                }
                batch = batch.delete(key);
            }
            let state = self.clone();
            let deleting = move || state.records.apply(batch);
            tokio::task::spawn_blocking(deleting).await.map_err(|_| SubscriberError::Worker)??;
            if let Some(refused) = later {
                return Err(ExchangeError::Refused(refused).into());
            }
        }
        Ok(())
    }
}
