//! What a firing comes to, in rows that people read: each Subscriber and Distribution with names, state and reason.

use crate::distributor::report::{DeliveryRow, FiringReport};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::FiringId;
use crate::protocol::{FiringHead, Part, PartState, Waiting, WaitingFor};

/// Firings that are over which [`State::reports`] goes back to.
const REPORTED: usize = 100;

impl State {
    pub(super) fn report(&self, id: &FiringId) -> Result<FiringReport, Error> {
        let (head, parts) = (self.firing_head(id)?, self.parts_of_firing(id)?);
        Ok(self.report_of(&head, &parts))
    }

    /// The open firings and, where wanted, the last ones that are over, newest first.
    pub(super) fn reports(&self, over_too: bool) -> Result<Vec<FiringReport>, Error> {
        let mut over = 0;
        let wanted: Vec<_> = lock(&self.firings)
            .heads()
            .filter(|head| {
                over += usize::from(head.is_over());
                !head.is_over() || over_too && over <= REPORTED
            })
            .cloned()
            .collect();
        wanted.iter().map(|head| Ok(self.report_of(head, &self.parts_of_firing(&head.id)?))).collect()
    }

    fn report_of(&self, head: &FiringHead, parts: &[Part]) -> FiringReport {
        let rows = parts.iter().map(|part| self.row_of(head, part)).collect();
        FiringReport {
            firing: head.id,
            channel: head.channel.clone(),
            started: head.started,
            cause: head.cause,
            outcome: head.outcome(),
            rows,
        }
    }

    fn row_of(&self, head: &FiringHead, part: &Part) -> DeliveryRow {
        let sent = lock(&self.sent).get(&(part.subscriber, part.distribution)).copied();
        let sent = sent.filter(|sent| sent.revision >= part.revision);
        let waiting = self.waiting_of(head, part);
        let is_away = waiting.is_some_and(|waiting| waiting.waiting_for == WaitingFor::Connection);
        DeliveryRow {
            subscriber: self.name_of_key(&part.subscriber),
            distribution: self.name_of_distribution(&part.distribution),
            revision: part.revision,
            role: part.role,
            state: part.state,
            since: part.since,
            waiting,
            hop: part.hop.map(|hop| self.name_of_key(&hop)),
            times: part.times,
            code: part.code.clone(),
            detail: if is_away && part.detail.is_empty() { "not connected".to_owned() } else { part.detail.clone() },
            note: lock(&self.mended).get(&(head.id, part.distribution)).cloned(),
            sent_bytes: sent.map_or(part.bytes, |sent| sent.bytes),
            package_bytes: sent.map_or(part.bytes_total, |sent| sent.bytes_total),
        }
    }

    /// What a part waits for: what was said of it, or a connection where there is none.
    fn waiting_of(&self, head: &FiringHead, part: &Part) -> Option<Waiting> {
        let goes_on = matches!(part.state, PartState::Pending | PartState::Offered | PartState::Receiving);
        if head.is_over() || !goes_on {
            return None;
        }
        let is_away = || part.hop.is_none() && !self.links.is_connected(&part.subscriber);
        let connection = Waiting { waiting_for: WaitingFor::Connection, since: part.since, until: None };
        part.waiting.or_else(|| is_away().then_some(connection))
    }
}
