//! Dialling a Distributor or the parents that lead to it again and again, and what is wrong while none is reached.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{ExchangeError, ask, dial, is_spare};
use crate::protocol::{Ascent, Request};
use crate::security::{Alpn, ParentHint, Side, clock_text};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::peers::{ASK_AGAIN, GREETING_PATIENCE};
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{State, lock};
use crate::subscriber::ways::way_key;
use crate::transport::{CLOSE_DONE, Connection, Endpoint, QuicConnection};

/// The code of a node that was dialled in a fleet that it takes no part in.
const ELSEWHERE: &str = "TED-1314";

/// The code of a node that answers in another one's place.
const ANOTHER_ANSWERS: &str = "TED-1227";

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
    /// Dials the peers above this node in a fleet again and again: the preferred one first, others when it is missed, and
    /// better ones while another one serves. A node without certificates asks for them instead.
    pub(super) async fn keep_connected(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        fleet: KeyHash,
        stop: CancellationToken,
        hasten: Arc<Notify>,
    ) {
        let begun = Instant::now();
        let mut ascent = Ascent::new(self.settings.fallback, Duration::ZERO);
        let mut link = self.links.watch(&fleet);
        loop {
            let state = self.clone();
            let finding = move || state.ways(&fleet);
            let ways = match tokio::task::spawn_blocking(finding).await {
                Ok(Ok(ways)) => ways,
                Ok(Err(error)) => {
                    tracing::error!(code = error.code(), %error, "the ways up from this node cannot be read");
                    vec![]
                }
                Err(_) => return,
            };
            let keys: Vec<KeyHash> = ways.iter().map(|way| way.key).collect();
            let changed = ascent.set_ways(&keys, begun.elapsed());
            let serves = link.borrow_and_update().as_ref().map(|link| way_key(link.peer()));
            ascent.serves(serves.as_ref(), begun.elapsed());
            if changed {
                ascent.hasten(begun.elapsed());
            }
            for key in ascent.due(begun.elapsed()) {
                let Some(way) = ways.iter().find(|way| way.key == key) else { continue };
                let attempt = tokio::select! {
                    () = stop.cancelled() => return,
                    attempt = self.attempt(&endpoint, fleet, way) => attempt,
                };
                let now = begun.elapsed();
                match attempt {
                    Attempt::Met(connection) => {
                        ascent.pause(&key, None, now);
                        self.live_with(connection).await;
                        break;
                    }
                    Attempt::Spare => ascent.pause(&key, None, now),
                    Attempt::Pending => ascent.pause(&key, Some(ASK_AGAIN), now),
                    Attempt::Enrolled => {
                        ascent.pause(&key, Some(Duration::ZERO), now);
                        break;
                    }
                    Attempt::Failed => ascent.failed(&key, now),
                }
            }
            // What came of it counts first.
            if link.has_changed().unwrap_or(true) {
                continue;
            }
            let due = ascent.next_due();
            tokio::select! {
                () = stop.cancelled() => return,
                () = hasten.notified() => ascent.hasten(begun.elapsed()),
                _ = link.changed() => {}
                () = sleep_until(begun + due.unwrap_or_default()), if due.is_some() => {}
            }
        }
    }

    /// Takes a connection in that was dialled, and lives with it aside.
    async fn live_with(self: &Arc<Self>, connection: QuicConnection) {
        let Some(generation) = self.admit(&connection, Side::Dialler).await else { return };
        let state = self.clone();
        // It ends with the connection, which whoever stops this closes.
        self.links.spawn(async move { state.live(connection, generation).await });
    }

    /// Dials a peer above this node once, and greets it.
    async fn attempt(self: &Arc<Self>, endpoint: &Arc<Endpoint>, fleet: KeyHash, way: &ParentHint) -> Attempt {
        let state = self.clone();
        let finding = move || -> Result<_, Error> {
            state.show_identities()?;
            if !state.is_enrolled(&fleet) {
                state.take_issued_quietly(&fleet);
            }
            Ok(state.is_enrolled(&fleet))
        };
        let found = tokio::task::spawn_blocking(finding).await.unwrap_or_else(|_| Err(SubscriberError::Worker.into()));
        let enrolled = match found {
            Ok(enrolled) => enrolled,
            Err(error) => return self.trouble(&fleet, way, error.code(), &error.to_string()),
        };
        if !enrolled {
            return match self.enrol_once(&fleet, std::slice::from_ref(way), None, None).await {
                Ok(Enrolment::Enrolled) => Attempt::Enrolled,
                Ok(Enrolment::Pending { fingerprint }) => {
                    let waits = format!("waits for approval; fingerprint {fingerprint}");
                    if lock(&self.troubles).insert(fleet, waits.clone()).as_ref() != Some(&waits) {
                        tracing::info!(distributor = %self.distributor_name(&fleet), fingerprint, "waiting for the Distributor's approval");
                    }
                    Attempt::Pending
                }
                Err(error) => self.trouble(&fleet, way, error.code(), &error.to_string()),
            };
        }
        let connection = match dial(endpoint, &way.endpoints, &fleet, Alpn::Ted1).await {
            Ok(connection) if way_key(connection.peer()) == way.key => connection,
            Ok(connection) => {
                connection.close(CLOSE_DONE, "another node was meant");
                let reason = format!("{} answers where {} is to be", connection.peer(), way.name);
                return self.trouble(&fleet, way, ANOTHER_ANSWERS, &reason);
            }
            Err(error) => {
                if error.code == ELSEWHERE && self.try_successor(&fleet).await.is_some() {
                    return Attempt::Enrolled;
                }
                return self.trouble(&fleet, way, error.code, &error.reason);
            }
        };
        match ask(&connection, &Request::Hello(self.hello(&fleet)), &Limits::DEFAULT, GREETING_PATIENCE).await {
            Ok(_) => Attempt::Met(connection),
            Err(ExchangeError::Connection(error)) if is_spare(&error) => {
                tracing::debug!(peer = %way.name, %error, "dialled in vain");
                Attempt::Spare
            }
            Err(error) => {
                let error = Error::from(error);
                // The other side judges after this one; its word is the reason for which the connection ended.
                let reason = error.to_string();
                let code = reason.split([':', ' ']).find(|word| word.starts_with("TED-")).unwrap_or(error.code());
                self.trouble(&fleet, way, code, &reason)
            }
        }
    }

    /// Tells what is wrong between this node and a peer above it, once for as long as it is the same.
    fn trouble(&self, fleet: &KeyHash, way: &ParentHint, code: &str, reason: &str) -> Attempt {
        let mut text = if reason.contains(code) { reason.to_owned() } else { format!("{code}: {reason}") };
        let over_time = OVER_TIME.contains(&code);
        if over_time {
            // The reason names the clock of the node that refuses; with this one's it can be told which is wrong.
            text = format!("{text}; the clock of this node says {}", clock_text(self.clock.now()));
        }
        let reason = text.clone();
        lock(&self.troubles).insert(*fleet, text.clone());
        let before = lock(&self.told_troubles).insert((*fleet, way.key), text.clone());
        if before.is_none_or(|before| before != text && !(over_time && before.contains(code))) {
            tracing::warn!(peer = %way.name, code, reason, "no connection");
            self.events.emit(SubscriberEvent::Refused { peer: way.name.to_string(), code: code.to_owned(), reason });
        }
        Attempt::Failed
    }
}
