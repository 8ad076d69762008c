//! Dialling a Distributor again and again, and what is wrong while it is not reached.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{Backoff, ExchangeError, ask, dial, is_spare};
use crate::protocol::Request;
use crate::security::{Alpn, Side, clock_text};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::peers::{ASK_AGAIN, GREETING_PATIENCE};
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{KnownDistributor, State, known_key, lock};
use crate::transport::{Endpoint, QuicConnection};

/// The code of a node that was dialled in a fleet that it takes no part in.
const ELSEWHERE: &str = "TED-1314";

/// The codes of certificates whose time has not come or is over.
const OVER_TIME: [&str; 2] = ["TED-1106", "TED-1107"];

/// How one attempt to meet a Distributor ended.
enum Attempt {
    /// There is a connection.
    Met(QuicConnection),
    /// Another connection stays.
    Spare,
    /// Its operator has to approve first.
    Pending,
    /// The certificates have come.
    Enrolled,
    /// It failed; why is told.
    Failed,
}

impl State {
    /// Dials a Distributor again and again, and lives with the connection while there is one. A node without
    /// certificates asks for them instead.
    pub(super) async fn keep_connected(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        fleet: KeyHash,
        stop: CancellationToken,
        hasten: Arc<Notify>,
    ) {
        let mut backoff = Backoff::default();
        loop {
            // One connection is enough, whoever dialled it.
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.links.gone(&fleet) => {}
            }
            let attempt = tokio::select! {
                () = stop.cancelled() => return,
                attempt = self.attempt(&endpoint, fleet) => attempt,
            };
            let pause = match attempt {
                Attempt::Met(connection) => {
                    // It ends with the connection, which whoever stops this closes.
                    self.meet(connection, Side::Dialler).await;
                    backoff.reset();
                    backoff.next()
                }
                Attempt::Spare => {
                    backoff.reset();
                    backoff.next()
                }
                Attempt::Pending => ASK_AGAIN,
                Attempt::Enrolled => Duration::ZERO,
                Attempt::Failed => backoff.next(),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = hasten.notified() => backoff.reset(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Dials a Distributor once, and greets it.
    async fn attempt(self: &Arc<Self>, endpoint: &Arc<Endpoint>, fleet: KeyHash) -> Attempt {
        let state = self.clone();
        let finding = move || -> Result<_, Error> {
            let known: Option<KnownDistributor> = state.records.get(&known_key(&fleet))?;
            state.show_identities()?;
            if !state.is_enrolled(&fleet) {
                state.take_issued_quietly(&fleet);
            }
            Ok((known, state.is_enrolled(&fleet)))
        };
        let found = tokio::task::spawn_blocking(finding).await.unwrap_or_else(|_| Err(SubscriberError::Worker.into()));
        let (known, enrolled) = match found {
            Ok((Some(known), enrolled)) => (known, enrolled),
            Ok((None, _)) => return Attempt::Failed,
            Err(error) => return self.trouble(&fleet, error.code(), &error.to_string()),
        };
        if !enrolled {
            return match self.enrol_once(&fleet, &known.endpoints, None).await {
                Ok(Enrolment::Enrolled) => Attempt::Enrolled,
                Ok(Enrolment::Pending { fingerprint }) => {
                    let waits = format!("waits for approval; fingerprint {fingerprint}");
                    if lock(&self.troubles).insert(fleet, waits.clone()).as_ref() != Some(&waits) {
                        tracing::info!(distributor = %known.name, fingerprint, "waiting for the Distributor's approval");
                    }
                    Attempt::Pending
                }
                Err(error) => self.trouble(&fleet, error.code(), &error.to_string()),
            };
        }
        let connection = match dial(endpoint, &known.endpoints, &fleet, Alpn::Ted1).await {
            Ok(connection) => connection,
            Err(error) => {
                if error.code == ELSEWHERE && self.try_successor(&fleet).await.is_some() {
                    return Attempt::Enrolled;
                }
                return self.trouble(&fleet, error.code, &error.reason);
            }
        };
        match ask(&connection, &Request::Hello(self.hello(&fleet)), &Limits::DEFAULT, GREETING_PATIENCE).await {
            Ok(_) => Attempt::Met(connection),
            Err(ExchangeError::Connection(error)) if is_spare(&error) => {
                tracing::debug!(distributor = %known.name, %error, "dialled in vain");
                Attempt::Spare
            }
            Err(error) => {
                let error = Error::from(error);
                // The other side judges after this one; its word is the reason for which the connection ended.
                let reason = error.to_string();
                let code = reason.split([':', ' ']).find(|word| word.starts_with("TED-")).unwrap_or(error.code());
                self.trouble(&fleet, code, &reason)
            }
        }
    }

    /// Tells what is wrong between this node and a Distributor, once for as long as it is the same.
    fn trouble(&self, fleet: &KeyHash, code: &str, reason: &str) -> Attempt {
        let mut text = if reason.contains(code) { reason.to_owned() } else { format!("{code}: {reason}") };
        let over_time = OVER_TIME.contains(&code);
        if over_time {
            // The reason names the clock of the node that refuses; with this one's it can be told which is wrong.
            text = format!("{text}; the clock of this node says {}", clock_text(self.clock.now()));
        }
        let reason = text.clone();
        let before = lock(&self.troubles).insert(*fleet, text.clone());
        if before.is_none_or(|before| before != text && !(over_time && before.contains(code))) {
            let distributor = self.distributor_name(fleet);
            tracing::warn!(%distributor, code, reason, "no connection");
            self.events.emit(SubscriberEvent::Refused { peer: distributor.to_string(), code: code.to_owned(), reason });
        }
        Attempt::Failed
    }
}
