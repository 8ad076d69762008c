//! What is known of a firing apart from its parts: why it began, how it ended, and how many are how far.

use serde::{Deserialize, Serialize};

use crate::id::{FiringId, UnixMillis};
use crate::model::Priority;
use crate::name::Label;
use crate::protocol::PartState;

/// When a Subscriber's part of a firing is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// Its packages are on the Subscriber's disk.
    Received,
    /// Its target holds the revision.
    #[default]
    Extracted,
}

/// Why a firing began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody said `send`.
    #[default]
    Send,
    /// The Channel's schedule.
    Schedule,
    /// A new revision, on a Channel whose schedule is `now`.
    NewRevision,
    /// Its schedule's moment passed while this node was down, and it is made up for.
    Missed,
    /// A connected Subscriber still lacks what the Channel's last firing brought.
    Retry,
}

/// What a firing begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiringStart {
    /// Its id.
    pub id: FiringId,
    /// The Channel that fires.
    pub channel: Label,
    /// How urgent it is.
    pub priority: Priority,
    /// When a Subscriber counts as done.
    pub until: Until,
    /// Why.
    pub cause: Cause,
    /// The end of the window, after which nothing new is started.
    pub closes: Option<UnixMillis>,
}

/// Why a firing ended before all were done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FiringEnd {
    /// An operator ended it.
    Cancelled,
    /// The Channel fired again.
    Superseded,
    /// Its window closed.
    Closed,
}

/// What became of a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every Subscriber is done.
    Complete,
    /// Nothing more comes by itself, and not every Subscriber is done.
    Partial,
    /// It goes on.
    Open,
    /// An operator ended it.
    Cancelled,
}

/// How many parts are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// See [`PartState::Pending`].
    pub pending: u64,
    /// See [`PartState::Offered`].
    pub offered: u64,
    /// See [`PartState::Receiving`].
    pub receiving: u64,
    /// See [`PartState::Received`].
    pub received: u64,
    /// See [`PartState::Verified`].
    pub verified: u64,
    /// See [`PartState::Extracted`].
    pub extracted: u64,
    /// See [`PartState::Corrupt`].
    pub corrupt: u64,
    /// See [`PartState::Failed`].
    pub failed: u64,
    /// See [`PartState::TimedOut`].
    pub timed_out: u64,
}

impl Counts {
    /// How many are in `state`.
    #[must_use]
    pub fn of(&self, state: PartState) -> u64 {
        let mut counts = *self;
        *counts.of_mut(state)
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        PartState::ALL.iter().map(|state| self.of(*state)).sum()
    }

    /// How many are as far as `until` says.
    #[must_use]
    pub fn done(&self, until: Until) -> u64 {
        PartState::ALL.iter().filter(|state| state.is_done(until)).map(|state| self.of(*state)).sum()
    }

    /// Adds one that is in `state`.
    pub fn add(&mut self, state: PartState) {
        *self.of_mut(state) += 1;
    }

    pub(super) fn take(&mut self, state: PartState) {
        let count = self.of_mut(state);
        *count = count.saturating_sub(1);
    }

    fn of_mut(&mut self, state: PartState) -> &mut u64 {
        match state {
            PartState::Pending => &mut self.pending,
            PartState::Offered => &mut self.offered,
            PartState::Receiving => &mut self.receiving,
            PartState::Received => &mut self.received,
            PartState::Verified => &mut self.verified,
            PartState::Extracted => &mut self.extracted,
            PartState::Corrupt => &mut self.corrupt,
            PartState::Failed => &mut self.failed,
            PartState::TimedOut => &mut self.timed_out,
        }
    }
}

/// A firing without its parts. While it is open, `counts` are those of the last time that it was persisted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiringHead {
    /// Its id.
    pub id: FiringId,
    /// The Channel that fired.
    pub channel: Label,
    /// How urgent it is.
    pub priority: Priority,
    /// When a Subscriber counts as done.
    pub until: Until,
    /// Why it began.
    pub cause: Cause,
    /// The end of its window, after which nothing new is started.
    pub closes: Option<UnixMillis>,
    /// When it began.
    pub started: UnixMillis,
    /// Why it ended before all were done, where it did.
    pub end: Option<FiringEnd>,
    /// When it was over, where it is.
    pub ended: Option<UnixMillis>,
    /// How many Subscribers' parts are how far.
    pub counts: Counts,
    /// Numbers of parts that were given.
    pub numbers: u32,
}

impl FiringHead {
    pub(super) fn new(start: FiringStart, now: UnixMillis) -> Self {
        Self {
            id: start.id,
            channel: start.channel,
            priority: start.priority,
            until: start.until,
            cause: start.cause,
            closes: start.closes,
            started: now,
            end: None,
            ended: None,
            counts: Counts::default(),
            numbers: 0,
        }
    }

    /// What became of it. A partial one that was not ended may still become complete: a Subscriber that failed is
    /// offered it again when it reconnects, and late receipts count.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let (total, done) = (self.counts.total(), self.counts.done(self.until));
        if total == done {
            return Outcome::Complete;
        }
        let failed = self.counts.corrupt + self.counts.failed + self.counts.timed_out;
        match self.end {
            Some(FiringEnd::Cancelled) => Outcome::Cancelled,
            Some(FiringEnd::Superseded | FiringEnd::Closed) => Outcome::Partial,
            None if done + failed == total => Outcome::Partial,
            None => Outcome::Open,
        }
    }

    /// Whether its window closed before all was done: what arrived within may still be told of later.
    #[must_use]
    pub fn awaits_receipts(&self) -> bool {
        self.end == Some(FiringEnd::Closed) && self.counts.extracted < self.counts.total()
    }

    /// Whether nothing more is offered: every Subscriber is done, or it was ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some() || self.outcome() == Outcome::Complete
    }
}
