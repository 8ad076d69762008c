//! One firing at the Distributor: what each Subscriber is to get, how far it is, and whether it is over.

mod head;
mod hearing;
mod part;
mod stored;

use std::collections::BTreeSet;
use std::time::Duration;

pub use self::head::{Cause, Counts, FiringEnd, FiringHead, FiringStart, Outcome, Until};
pub use self::part::{FiringTarget, Part, PartRole, PartState, StageTimes, Waiting, WaitingFor};
pub use self::stored::{FiringChanges, FiringError, FiringRecord};

use self::part::PartKey;
use crate::id::{DistributionId, FiringId, KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::model::Priority;
use crate::name::Label;
use crate::protocol::{Silence, code};

/// One start of a Channel's schedule or of `send`. What has changed since it was persisted last it gives to
/// [`Firing::take_changes`]. It stays open until every Subscriber is done, it is cancelled, its window closes, or the
/// Channel fires again.
///
/// What is asked about one node costs what that node's parts cost, whatever the number of all.
///
/// `now` should come from a clock that does not jump, such as the wall clock at the process's start plus a monotonic
/// time: connection timeouts are counted with it.
#[derive(Debug, Clone)]
pub struct Firing {
    /// Its counts are those of the recipients' parts, always.
    head: FiringHead,
    /// Ordered by Subscriber, then Distribution; no pair comes twice.
    parts: Vec<Part>,
    /// The parts that are under way on a live connection, and those that wait for their time.
    awaited: BTreeSet<PartKey>,
    /// Nothing that is awaited has anything to say before then: what is heard only moves it further away.
    quiet: Option<Quiet>,
    head_changed: bool,
    changed: BTreeSet<PartKey>,
    removed: Vec<(KeyHash, u32)>,
}

/// What [`Firing::tick`] found at its last look through what is awaited.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// Who of those under way was heard least recently, as of then.
    heard: Option<UnixMillis>,
}

impl Firing {
    /// A firing that starts now.
    #[must_use]
    pub fn start(start: FiringStart, targets: impl IntoIterator<Item = FiringTarget>, now: UnixMillis) -> Self {
        let mut targets: Vec<_> = targets.into_iter().collect();
        targets.sort_by_key(|target| (target.subscriber, target.distribution));
        targets.dedup_by_key(|target| (target.subscriber, target.distribution));
        let mut head = FiringHead::new(start, now);
        let parts: Vec<Part> =
            (0..).zip(&targets).map(|(number, target)| Part::new(target, PartRole::Recipient, number, now)).collect();
        head.numbers = parts.len() as u32;
        let mut firing = Self::of(head, parts);
        firing.head_changed = true;
        firing.changed = firing.parts.iter().map(Part::key).collect();
        firing
    }

    /// The firing whose records these are, as a process finds it at its start: nobody is connected.
    #[must_use]
    pub fn restore(head: FiringHead, mut parts: Vec<Part>) -> Self {
        for part in &mut parts {
            part.unlink();
        }
        parts.sort_by_key(|part| (part.key(), part.number));
        parts.dedup_by_key(|part| part.key());
        Self::of(head, parts)
    }

    fn of(mut head: FiringHead, parts: Vec<Part>) -> Self {
        head.counts = Counts::default();
        for part in parts.iter().filter(|part| part.role == PartRole::Recipient) {
            head.counts.add(part.state);
        }
        let awaited = parts.iter().filter(|part| part.not_before.is_some()).map(Part::key).collect();
        Self { head, parts, awaited, quiet: None, head_changed: false, changed: BTreeSet::new(), removed: vec![] }
    }

    /// What is to be persisted since the last call: records to write or to remove, all of them together.
    ///
    /// # Errors
    /// [`FiringError::Codec`] if a record is longer than [`Limits::firing_record_bytes_max`].
    pub fn take_changes(&mut self, limits: &Limits) -> Result<FiringChanges, FiringError> {
        let mut changes = Vec::with_capacity(self.changed.len() + 1);
        if std::mem::take(&mut self.head_changed) {
            changes.push((FiringRecord::Head, Some(self.head.encode(limits)?)));
        }
        changes.extend(
            std::mem::take(&mut self.removed).into_iter().map(|(_, number)| (FiringRecord::Part(number), None)),
        );
        for key in std::mem::take(&mut self.changed) {
            if let Some(part) = self.part(&key.0, &key.1) {
                changes.push((FiringRecord::Part(part.number), Some(part.encode(limits)?)));
            }
        }
        Ok(changes)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> FiringId {
        self.head.id
    }

    /// The Channel that fired.
    #[must_use]
    pub fn channel(&self) -> &Label {
        &self.head.channel
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.head.priority
    }

    /// When a Subscriber counts as done.
    #[must_use]
    pub fn until(&self) -> Until {
        self.head.until
    }

    /// When it started.
    #[must_use]
    pub fn started(&self) -> UnixMillis {
        self.head.started
    }

    /// The end of its window, after which nothing new is started.
    #[must_use]
    pub fn closes(&self) -> Option<UnixMillis> {
        self.head.closes
    }

    /// All that is known of it apart from its parts.
    #[must_use]
    pub fn head(&self) -> &FiringHead {
        &self.head
    }

    /// Every node's part, ordered by node, then Distribution.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The parts of one node.
    #[must_use]
    pub fn parts_of(&self, subscriber: &KeyHash) -> &[Part] {
        let from = self.parts.partition_point(|part| part.subscriber < *subscriber);
        let rest = &self.parts[from..];
        &rest[..rest.partition_point(|part| part.subscriber == *subscriber)]
    }

    /// The part of one node in one Distribution.
    #[must_use]
    pub fn part(&self, subscriber: &KeyHash, distribution: &DistributionId) -> Option<&Part> {
        self.position(subscriber, distribution).map(|at| &self.parts[at])
    }

    /// Whether anything that this node says may still change its parts.
    #[must_use]
    pub fn concerns(&self, subscriber: &KeyHash) -> bool {
        self.parts_of(subscriber).iter().any(|part| !part.is_final())
    }

    /// The nodes whose parts have changed since the last [`Firing::take_changes`].
    #[must_use]
    pub fn touched(&self) -> BTreeSet<KeyHash> {
        let removed = self.removed.iter().map(|(subscriber, _)| *subscriber);
        self.changed.iter().map(|(subscriber, _)| *subscriber).chain(removed).collect()
    }

    /// How many Subscribers' parts are in which state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.head.counts
    }

    /// See [`FiringHead::outcome`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.head.outcome()
    }

    /// Whether nothing more is offered: every Subscriber is done, or it was ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.head.is_over()
    }

    /// What to offer to a Subscriber that is reached now: on every new connection, and again when
    /// [`Firing::next_wakeup`] says so.
    #[must_use]
    pub fn offers(&self, subscriber: &KeyHash, now: UnixMillis) -> Vec<FiringTarget> {
        if self.head.end.is_some() {
            return Vec::new();
        }
        let due = self.parts_of(subscriber).iter();
        due.filter(|part| part.is_due(self.head.until) && part.not_before.is_none_or(|at| at <= now))
            .map(Part::target)
            .collect()
    }

    /// Whose offers, put off until now, are due: `Later` was the answer, and that is now.
    #[must_use]
    pub fn waited(&self, now: UnixMillis) -> Vec<FiringTarget> {
        if self.head.end.is_some() {
            return Vec::new();
        }
        let awaited = self.awaited.iter().filter_map(|(subscriber, distribution)| self.part(subscriber, distribution));
        let due = awaited.filter(|part| part.is_due(self.head.until) && part.not_before.is_some_and(|at| at <= now));
        due.map(Part::target).collect()
    }

    /// A node passes on what it has no part in: it gets one as a relay. Says whether the firing changed.
    pub fn relays(&mut self, hop: &FiringTarget, now: UnixMillis) -> bool {
        self.insert(hop, PartRole::Relay, now)
    }

    /// Ends the parts of Subscribers that were connected and silent for too long. Says whether the firing changed.
    ///
    /// Who is behind a hop is not silent while the hop is not: it may be waiting for its turn there. What waits for
    /// something that is known is not silent either.
    pub fn tick(&mut self, silence: Silence, now: UnixMillis) -> bool {
        let is_silent = |heard: UnixMillis| now.since(heard) >= silence.duration();
        if let Some(Quiet { heard }) = self.quiet
            && !heard.is_some_and(is_silent)
        {
            return false;
        }
        let under_way = self.awaited.iter().filter_map(|(node, distribution)| self.part(node, distribution));
        let heard = |part: &Part| {
            let hop = part.hop.and_then(|hop| self.part(&hop, &part.distribution));
            part.heard.max(hop.map_or(part.heard, |hop| hop.heard))
        };
        let waits: Vec<_> = under_way
            .filter(|part| part.state.is_under_way() && part.waiting.is_none())
            .map(|part| (part.key(), heard(part)))
            .collect();
        let (silent, others): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(_, heard)| is_silent(*heard));
        let mut changed = false;
        for ((subscriber, distribution), heard) in silent {
            changed |= self.change(&subscriber, &distribution, heard, |part| {
                part.enter(PartState::TimedOut, now);
                part.code = Some(code::SILENCE.to_owned());
                part.detail = format!("silent for {} s", silence.duration().as_secs());
            });
        }
        self.quiet = Some(Quiet { heard: others.into_iter().map(|(_, heard)| heard).min() });
        changed
    }

    /// In how long [`Firing::tick`] or [`Firing::offers`] may have something to say.
    #[must_use]
    pub fn next_wakeup(&self, silence: Silence, now: UnixMillis) -> Option<Duration> {
        if self.head.end.is_some() {
            return None;
        }
        let wait = |part: &Part| match part.state {
            state if state.is_under_way() && part.waiting.is_none() => {
                Some(part.heard.plus(silence.duration()).since(now))
            }
            PartState::Pending => part.not_before.map(|at| at.since(now)),
            _ => None,
        };
        let awaited = self.awaited.iter().filter_map(|(subscriber, distribution)| self.part(subscriber, distribution));
        awaited.filter_map(wait).min()
    }

    /// A Subscriber no longer belongs to the Channel: its parts are dropped. Says whether the firing changed.
    pub fn remove(&mut self, subscriber: &KeyHash, now: UnixMillis) -> bool {
        let removed = self.take_out(subscriber);
        self.note_end(now);
        !removed.is_empty()
    }

    /// A node was enrolled anew, with another key: what was open for the old key is open for the new one, from the
    /// beginning. Says whether the firing changed.
    pub fn replace(&mut self, before: &KeyHash, after: &KeyHash, now: UnixMillis) -> bool {
        let replaced = self.take_out(before);
        for part in &replaced {
            self.insert(&FiringTarget { subscriber: *after, ..part.target() }, part.role, now);
        }
        !replaced.is_empty()
    }

    /// An operator ends it: nothing more is offered. One that is over already stays as it is.
    pub fn cancel(&mut self, now: UnixMillis) {
        self.finish(FiringEnd::Cancelled, now);
    }

    /// The Channel fires again, which ends this firing. One that is over already stays as it is.
    pub fn supersede(&mut self, now: UnixMillis) {
        self.finish(FiringEnd::Superseded, now);
    }

    /// Its window closed, which ends this firing. One that is over already stays as it is.
    pub fn close(&mut self, now: UnixMillis) {
        self.finish(FiringEnd::Closed, now);
    }

    fn finish(&mut self, end: FiringEnd, now: UnixMillis) {
        if !self.is_over() {
            self.head.end = Some(end);
            self.note_end(now);
        }
    }

    /// Notes when it was over, the first time that it is.
    fn note_end(&mut self, now: UnixMillis) {
        if self.is_over() && self.head.ended.is_none() {
            self.head.ended = Some(now);
            self.head_changed = true;
        }
    }

    fn position(&self, subscriber: &KeyHash, distribution: &DistributionId) -> Option<usize> {
        self.parts.binary_search_by_key(&(*subscriber, *distribution), Part::key).ok()
    }

    fn change(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        now: UnixMillis,
        change: impl FnOnce(&mut Part),
    ) -> bool {
        let Some(at) = self.position(subscriber, distribution) else { return false };
        let part = &mut self.parts[at];
        part.heard = now;
        let before = part.clone();
        change(part);
        let hinted = Part { bytes: part.bytes, bytes_total: part.bytes_total, ..before.clone() };
        if *part == hinted {
            return false;
        }
        let (key, state, role) = (part.key(), part.state, part.role);
        let (under_way, put_off) = (state.is_under_way(), part.not_before.is_some());
        let is_new = before.state != state || before.waiting.is_some() && part.waiting.is_none();
        if under_way && is_new {
            self.quiet = self.quiet.map(|quiet| Quiet { heard: earlier(quiet.heard, now) });
        }
        if under_way || put_off {
            self.awaited.insert(key);
        } else {
            self.awaited.remove(&key);
        }
        self.changed.insert(key);
        if role == PartRole::Recipient && before.state != state {
            self.head.counts.take(before.state);
            self.head.counts.add(state);
            self.note_end(now);
        }
        true
    }

    fn insert(&mut self, target: &FiringTarget, role: PartRole, now: UnixMillis) -> bool {
        let key = (target.subscriber, target.distribution);
        let Err(at) = self.parts.binary_search_by_key(&key, Part::key) else { return false };
        self.parts.insert(at, Part::new(target, role, self.head.numbers, now));
        self.head.numbers += 1;
        self.head_changed = true;
        self.changed.insert(key);
        if role == PartRole::Recipient {
            self.head.counts.add(PartState::Pending);
        }
        true
    }

    fn take_out(&mut self, subscriber: &KeyHash) -> Vec<Part> {
        let taken = self.parts_of(subscriber).to_vec();
        if taken.is_empty() {
            return taken;
        }
        self.parts.retain(|part| part.subscriber != *subscriber);
        for part in &taken {
            self.awaited.remove(&part.key());
            self.changed.remove(&part.key());
            self.removed.push((part.subscriber, part.number));
            if part.role == PartRole::Recipient {
                self.head.counts.take(part.state);
            }
        }
        self.head_changed = true;
        taken
    }
}

fn earlier(heard: Option<UnixMillis>, now: UnixMillis) -> Option<UnixMillis> {
    Some(heard.map_or(now, |heard| heard.min(now)))
}

#[cfg(test)]
mod tests;
