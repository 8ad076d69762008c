//! The time by the word of the CA key: what a Distributor signed while its clock was ahead is taken back.

use std::time::Duration;

use crate::distributor::Distributor;
use crate::distributor::announce::{Address, slot};
use crate::distributor::rotation::Renew;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::UnixMillis;
use crate::node::RecordBatch;
use crate::security::{EnvelopeKind, SignedTime};

/// How long the word holds: it is for those who heard the wrong time, and whoever comes later heard none.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

impl State {
    /// Says with the CA key that it is the time that the clock shows now, and states everything anew at that time.
    pub(super) fn correct_clock(&self) -> Result<UnixMillis, Error> {
        let time = self.now();
        {
            let _no_statement_meanwhile = lock(&self.stating);
            let payload = SignedTime { time, extensions: vec![] }.to_payload()?;
            let envelope = self.seal_word(&self.own().authority, EnvelopeKind::TIME, payload, LIFE)?;
            self.announce_all(vec![(slot(Address::All, &envelope, 0), envelope)])?;
            let mut batch = RecordBatch::default();
            for (key, _) in self.records.list::<serde_json::Value>("stated/")? {
                batch = batch.delete(&key);
            }
            self.records.apply(batch)?;
        }
        self.renew(Renew::Due)?;
        tracing::warn!(time = time.millis(), "corrected the time for every Subscriber");
        Ok(time)
    }
}

impl Distributor {
    /// Tells every Subscriber, with the CA key, that it is the time that this clock shows now, although this Distributor
    /// signed later ones: its clock was ahead and is right again. Answers the time.
    ///
    /// # Errors
    /// When the word cannot be made durable.
    pub async fn correct_clock(&self) -> Result<UnixMillis, Error> {
        self.blocking(State::correct_clock).await
    }
}
