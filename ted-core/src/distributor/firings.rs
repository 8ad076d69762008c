//! Firings as they are kept: changed, persisted, reported, and forgotten after a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::{DeliveryRow, FiringReport};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{FiringId, UnixMillis};
use crate::limits::Limits;
use crate::protocol::{Firing, Outcome, PartState, Until};

/// Ended firings that stay on record.
const FIRINGS_KEPT: usize = 100;

impl State {
    /// Waits until the firing is done as far as `until` says, or ends otherwise, or the time is over.
    pub(super) async fn wait(
        &self,
        id: &FiringId,
        until: Until,
        patience: Option<Duration>,
    ) -> Result<FiringReport, Error> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut changes = self.firing_changes.subscribe();
        loop {
            changes.borrow_and_update();
            let report = self.report(id)?;
            let reached = report.rows.iter().all(|row| row.state.is_done(until));
            if reached || report.outcome != Outcome::Open {
                return Ok(report);
            }
            let timed_out = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = timed_out => return self.report(id),
            }
        }
    }

    pub(super) fn report(&self, id: &FiringId) -> Result<FiringReport, Error> {
        let firings = lock(&self.firings);
        let firing = firings.get(id).ok_or(DistributorError::UnknownFiring(*id))?;
        Ok(self.report_of(firing))
    }

    /// The firings that `wanted` chooses, newest first.
    pub(super) fn reports(&self, wanted: impl Fn(&Firing) -> bool) -> Vec<FiringReport> {
        let firings = lock(&self.firings);
        let mut reports: Vec<_> =
            firings.values().filter(|firing| wanted(firing)).map(|firing| self.report_of(firing)).collect();
        reports.sort_by_key(|report| std::cmp::Reverse(report.started));
        reports
    }

    fn report_of(&self, firing: &Firing) -> FiringReport {
        let (sent, mended) = (lock(&self.sent), lock(&self.mended));
        let rows = firing.parts().iter().map(|part| {
            let sent = sent.get(&(part.subscriber, part.distribution)).filter(|sent| sent.revision >= part.revision);
            let goes_on = matches!(part.state, PartState::Pending | PartState::Offered | PartState::Receiving);
            let is_away = goes_on && part.detail.is_empty() && !self.links.is_connected(&part.subscriber);
            DeliveryRow {
                subscriber: self.name_of_key(&part.subscriber),
                distribution: self.name_of_distribution(&part.distribution),
                revision: part.revision,
                state: part.state,
                since: part.since,
                code: part.code.clone(),
                detail: if is_away { "not connected".to_owned() } else { part.detail.clone() },
                note: mended.get(&(firing.id(), part.distribution)).cloned(),
                sent_bytes: sent.map_or(0, |sent| sent.bytes),
                package_bytes: sent.map_or(0, |sent| sent.bytes_total),
            }
        });
        FiringReport {
            firing: firing.id(),
            channel: firing.channel().clone(),
            started: firing.started(),
            outcome: firing.outcome(),
            rows: rows.collect(),
        }
    }

    /// Changes one firing, persists it, and tells those who wait.
    pub(super) async fn change_firing(
        self: &Arc<Self>,
        id: FiringId,
        change: impl Fn(&mut Firing, UnixMillis) -> bool + Send + 'static,
    ) {
        self.change_firings(move |firing, now| firing.id() == id && change(firing, now)).await;
    }

    /// Changes every open firing, persists those that changed, and tells those who wait.
    pub(super) async fn change_firings(
        self: &Arc<Self>,
        change: impl Fn(&mut Firing, UnixMillis) -> bool + Send + 'static,
    ) {
        let state = self.clone();
        let changing = move || state.change_firings_now(change);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(changing).await {
            tracing::error!(code = error.code(), %error, "a firing cannot be kept");
        }
    }

    /// As [`State::change_firings`], on a thread where blocking is allowed.
    pub(super) fn change_firings_now(&self, change: impl Fn(&mut Firing, UnixMillis) -> bool) -> Result<(), Error> {
        let now = self.now();
        let (mut changed, mut ended) = (false, vec![]);
        {
            let mut firings = lock(&self.firings);
            for firing in firings.values_mut().filter(|firing| !firing.is_over()) {
                if !change(firing, now) {
                    continue;
                }
                changed = true;
                self.persist(firing)?;
                if firing.is_over() {
                    ended.push(firing.id());
                }
            }
        }
        if changed {
            self.firing_changes.send_modify(|count| *count += 1);
        }
        for firing in ended {
            tracing::info!(%firing, "a firing is over");
            self.events.emit(DistributorEvent::FiringEnded { firing });
        }
        Ok(())
    }

    pub(super) fn persist(&self, firing: &Firing) -> Result<(), Error> {
        let bytes = firing.encode(&Limits::DEFAULT)?;
        Ok(self.records.put_bytes(&format!("firing/{}", firing.id()), bytes)?)
    }

    pub(super) fn forget_old_firings(&self) -> Result<(), Error> {
        let mut firings = lock(&self.firings);
        let mut over: Vec<_> =
            firings.values().filter(|firing| firing.is_over()).map(|firing| (firing.started(), firing.id())).collect();
        over.sort_unstable();
        for (_, id) in over.iter().rev().skip(FIRINGS_KEPT) {
            self.records.delete(&format!("firing/{id}"))?;
            self.forget_mended(*id)?;
            firings.remove(id);
        }
        Ok(())
    }
}
