//! One Distribution at one node, in the course of one firing: how far it is, and what it waits for.

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::protocol::{Until, WaitsFor};

/// How far one Distribution is at one node, in the course of one firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// Not offered on a live connection yet.
    Pending,
    /// Offered, not answered.
    Offered,
    /// The node fetches. How much of it is there stands in [`Part::bytes`].
    Receiving,
    /// See [`Stage::Received`](crate::security::Stage::Received).
    Received,
    /// See [`Stage::Verified`](crate::security::Stage::Verified).
    Verified,
    /// See [`Stage::Extracted`](crate::security::Stage::Extracted).
    Extracted,
    /// See [`Stage::Corrupt`](crate::security::Stage::Corrupt). Not offered again before the Channel's next firing.
    Corrupt,
    /// Refused, or failed at the Subscriber. Offered again when it reconnects.
    Failed,
    /// The Subscriber was connected and silent for the connection timeout. Not offered again before the Channel's
    /// next firing.
    TimedOut,
}

impl PartState {
    /// All of them, from the beginning of a delivery to its ends.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Offered,
        Self::Receiving,
        Self::Received,
        Self::Verified,
        Self::Extracted,
        Self::Corrupt,
        Self::Failed,
        Self::TimedOut,
    ];

    /// How far the state is on the good path; `None` off it.
    pub(super) fn progress(self) -> Option<u8> {
        match self {
            Self::Pending => Some(0),
            Self::Offered => Some(1),
            Self::Receiving => Some(2),
            Self::Received => Some(3),
            Self::Verified => Some(4),
            Self::Extracted => Some(5),
            Self::Corrupt | Self::Failed | Self::TimedOut => None,
        }
    }

    /// Whether it is as far as `until` says.
    #[must_use]
    pub fn is_done(self, until: Until) -> bool {
        match until {
            Until::Received => matches!(self, Self::Received | Self::Verified | Self::Extracted),
            Until::Extracted => self == Self::Extracted,
        }
    }

    /// Whether it is under way on a live connection.
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Self::Offered | Self::Receiving)
    }
}

/// What a node has to do with a Distribution in a firing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartRole {
    /// It is to have it. The firing stays open until it does.
    #[default]
    Recipient,
    /// It only passes it on. Its part never keeps a firing open, and says what went wrong there.
    Relay,
}

/// What a delivery waits for: what a peer may say it does, and what only its Distributor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitingFor {
    /// A connection to the Subscriber.
    Connection,
    /// A window in which it may be sent or extracted.
    Window,
    /// A parent: the Subscriber is not reached through it, or it does not have the package yet.
    Parent,
    /// A grant for a sealed package.
    Grant,
    /// The Distributor's certificate, or the Subscriber's own.
    Certificate,
    /// Its turn, or the rate that is allowed.
    Rate,
    /// An operator who paused it.
    Pause,
}

impl WaitingFor {
    /// The word that people and JSON see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Window => "window",
            Self::Parent => "parent",
            Self::Grant => "grant",
            Self::Certificate => "certificate",
            Self::Rate => "rate",
            Self::Pause => "pause",
        }
    }
}

impl From<WaitsFor> for WaitingFor {
    fn from(said: WaitsFor) -> Self {
        match said {
            WaitsFor::Window => Self::Window,
            WaitsFor::Parent => Self::Parent,
            WaitsFor::Grant => Self::Grant,
            WaitsFor::Certificate => Self::Certificate,
            WaitsFor::Rate => Self::Rate,
            WaitsFor::Pause => Self::Pause,
        }
    }
}

/// What a delivery waits for, since when and, where that is known, until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    pub waiting_for: WaitingFor,
    /// Since when.
    pub since: UnixMillis,
    /// Until when, where that is known.
    pub until: Option<UnixMillis>,
}

/// When a delivery came to its stages first; `None` where it did not, or nobody said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTimes {
    /// It was offered.
    pub offered: Option<UnixMillis>,
    /// The node began to fetch.
    pub receiving: Option<UnixMillis>,
    /// All its packages were on the node's disk.
    pub received: Option<UnixMillis>,
    /// They were verified whole.
    pub verified: Option<UnixMillis>,
    /// The target held the revision.
    pub extracted: Option<UnixMillis>,
}

impl StageTimes {
    fn of(&mut self, state: PartState) -> Option<&mut Option<UnixMillis>> {
        match state {
            PartState::Offered => Some(&mut self.offered),
            PartState::Receiving => Some(&mut self.receiving),
            PartState::Received => Some(&mut self.received),
            PartState::Verified => Some(&mut self.verified),
            PartState::Extracted => Some(&mut self.extracted),
            _ => None,
        }
    }
}

/// What one Subscriber is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiringTarget {
    /// The Subscriber's registered key.
    pub subscriber: KeyHash,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision of it, or any later one.
    pub revision: Revision,
}

/// One Distribution at one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The node's registered key.
    pub subscriber: KeyHash,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision of it, or any later one.
    pub revision: Revision,
    /// Its number in the firing, which no other part of it ever has: what it is kept under.
    pub number: u32,
    /// Whether the node is to have it, or passes it on.
    pub role: PartRole,
    /// How far it is.
    pub state: PartState,
    /// When it came into that state.
    pub since: UnixMillis,
    /// When the node was last heard about it.
    pub heard: UnixMillis,
    /// Not to be offered before then.
    pub not_before: Option<UnixMillis>,
    /// When the last receipt that counted was made, by the Subscriber's clock.
    pub receipt_at: Option<UnixMillis>,
    /// What it waits for, where something is known to be in the way.
    pub waiting: Option<Waiting>,
    /// The node at the other end of the connection on which it was offered last, where that is another one.
    pub hop: Option<KeyHash>,
    /// Bytes of its packages that are at the node, as far as it said.
    pub bytes: u64,
    /// Bytes of these packages; 0 where nobody said.
    pub bytes_total: u64,
    /// When it came to its stages.
    pub times: StageTimes,
    /// The stable code of what went wrong last.
    pub code: Option<String>,
    /// What went wrong last, for people.
    pub detail: String,
}

/// By what a part is found in its firing.
pub(super) type PartKey = (KeyHash, DistributionId);

impl Part {
    pub(super) fn new(target: &FiringTarget, role: PartRole, number: u32, now: UnixMillis) -> Self {
        Self {
            subscriber: target.subscriber,
            distribution: target.distribution,
            revision: target.revision,
            number,
            role,
            state: PartState::Pending,
            since: now,
            heard: now,
            not_before: None,
            receipt_at: None,
            waiting: None,
            hop: None,
            bytes: 0,
            bytes_total: 0,
            times: StageTimes::default(),
            code: None,
            detail: String::new(),
        }
    }

    pub(super) fn key(&self) -> PartKey {
        (self.subscriber, self.distribution)
    }

    /// The Subscriber, the Distribution and the revision.
    #[must_use]
    pub fn target(&self) -> FiringTarget {
        FiringTarget { subscriber: self.subscriber, distribution: self.distribution, revision: self.revision }
    }

    /// Whether it is as far as `until` says; what a relay has verified is done.
    #[must_use]
    pub fn is_done(&self, until: Until) -> bool {
        match self.role {
            PartRole::Recipient => self.state.is_done(until),
            PartRole::Relay => matches!(self.state, PartState::Verified | PartState::Extracted),
        }
    }

    /// Whether no receipt changes it any more.
    pub(super) fn is_final(&self) -> bool {
        self.is_done(Until::Extracted)
    }

    /// Whether a connected Subscriber is to be offered it: also where packages arrived but the last word is missing,
    /// because its receipt may have been lost on the way. A relay is offered what is due to those behind it.
    pub(super) fn is_due(&self, until: Until) -> bool {
        self.role == PartRole::Recipient
            && !self.is_done(until)
            && !matches!(self.state, PartState::Corrupt | PartState::TimedOut)
    }

    pub(super) fn enter(&mut self, state: PartState, now: UnixMillis) {
        if self.state != state {
            self.state = state;
            self.since = now;
            self.waiting = None;
            if let Some(time) = self.times.of(state) {
                time.get_or_insert(now);
            }
        }
    }

    /// Goes to `state` unless it is further already. What went wrong before is over.
    pub(super) fn advance(&mut self, state: PartState, now: UnixMillis) {
        if self.state.progress() < state.progress() {
            self.enter(state, now);
            self.code = None;
            self.detail.clear();
        }
    }

    /// Nobody is connected any more who would go on with it.
    pub(super) fn unlink(&mut self) -> bool {
        let under_way = self.state.is_under_way();
        if under_way {
            self.state = PartState::Pending;
            self.waiting = None;
        }
        under_way
    }
}
