//! What a firing comes to, in rows that people read: each Subscriber and Distribution with names, state and reason.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::distributor::report::{DeliveryRow, FiringReport};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{FiringId, KeyHash, UnixMillis};
use crate::name::{Label, NodeName};
use crate::protocol::{Cause, FiringHead, Part, PartRole, PartState, Waiting, WaitingFor};

/// Firings that are over which [`State::reports`] goes back to.
const REPORTED: usize = 100;

/// Which deliveries are wanted: those for which everything holds that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Those of this firing.
    pub firing: Option<FiringId>,
    /// Those of this Channel.
    pub channel: Option<Label>,
    /// Those of this Distribution.
    pub distribution: Option<Label>,
    /// Those to this Subscriber, or through it as a relay.
    pub subscriber: Option<NodeName>,
    /// Those that are in one of these states; all, where none is named.
    pub states: Vec<PartState>,
    /// Those that wait for this.
    pub waiting_for: Option<WaitingFor>,
    /// Those that came into their state then or later, of all firings on record.
    pub since: Option<UnixMillis>,
}

/// One Distribution at one node in one firing.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Which firing.
    pub firing: FiringId,
    /// The Channel that fired.
    pub channel: Label,
    /// When.
    pub started: UnixMillis,
    /// Why.
    pub cause: Cause,
    /// What was to be done, and how far it is.
    pub row: DeliveryRow,
}

impl DeliveryQuery {
    fn chooses(&self, row: &DeliveryRow) -> bool {
        let waits = |wanted| row.waiting.is_some_and(|waiting| waiting.waiting_for == wanted);
        self.distribution.as_ref().is_none_or(|name| row.distribution == *name)
            && (self.states.is_empty() || self.states.contains(&row.state))
            && self.waiting_for.is_none_or(waits)
            && self.since.is_none_or(|since| row.since >= since)
    }
}

impl State {
    /// The deliveries that a query chooses, by Channel, Subscriber and Distribution, the newest firing first.
    pub(super) fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Delivery>, Error> {
        let key = match &query.subscriber {
            None => None,
            Some(name) => match self.key_of_name(name) {
                Some(key) => Some(key),
                // Nothing was ever sent to a node without a key.
                None => return Ok(vec![]),
            },
        };
        let mut found = vec![];
        for head in self.heads_for(query)? {
            for part in self.parts_for(&head.id, key.as_ref())?.iter().filter(|part| is_shown(&head, part)) {
                let row = self.row_of(&head, part);
                if query.chooses(&row) {
                    let (firing, channel, started, cause) = (head.id, head.channel.clone(), head.started, head.cause);
                    found.push(Delivery { firing, channel, started, cause, row });
                }
            }
        }
        found.sort_by_cached_key(|Delivery { channel, row, started, .. }| {
            (channel.clone(), row.subscriber.clone(), row.distribution.clone(), Reverse(*started))
        });
        Ok(found)
    }

    fn heads_for(&self, query: &DeliveryQuery) -> Result<Vec<FiringHead>, Error> {
        if let Some(id) = &query.firing {
            return Ok(vec![self.firing_head(id)?]);
        }
        let firings = lock(&self.firings);
        let mut seen = BTreeSet::new();
        let wanted = firings.heads().filter(|head| {
            let is_newest = seen.insert(&head.channel);
            let is_recent = query.since.is_some_and(|since| head.ended.is_none_or(|ended| ended >= since));
            let is_shown = if query.since.is_some() { is_recent } else { is_newest || !head.is_over() };
            is_shown && query.channel.as_ref().is_none_or(|channel| head.channel == *channel)
        });
        Ok(wanted.cloned().collect())
    }

    fn parts_for(&self, id: &FiringId, key: Option<&KeyHash>) -> Result<Vec<Part>, Error> {
        if let (Some(key), Some(firing)) = (key, lock(&self.firings).get(id)) {
            return Ok(firing.parts_of(key).to_vec());
        }
        let mut parts = self.parts_of_firing(id)?;
        parts.retain(|part| key.is_none_or(|key| part.subscriber == *key));
        Ok(parts)
    }

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
        let shown = parts.iter().filter(|part| is_shown(head, part));
        let rows = shown.map(|part| self.row_of(head, part)).collect();
        FiringReport {
            firing: head.id,
            channel: head.channel.clone(),
            started: head.started,
            cause: head.cause,
            closes: head.closes,
            ended: head.ended,
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
        if head.is_over() || part.state.is_done(head.until) {
            return None;
        }
        let missed_for = if part.hop.is_some() { WaitingFor::Parent } else { WaitingFor::Connection };
        let missed = Waiting { waiting_for: missed_for, since: part.since, until: None };
        part.waiting.or_else(|| (goes_on && !self.is_reached(&part.subscriber)).then_some(missed))
    }
}

/// A relay that a firing which is over never needed, since those behind it had everything, would stay pending for ever.
fn is_shown(head: &FiringHead, part: &Part) -> bool {
    !(head.is_over() && part.role == PartRole::Relay && part.state == PartState::Pending)
}
