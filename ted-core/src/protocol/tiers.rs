//! What a child tells its parent about the nodes behind it: who is there, and how far they are. Bytes:
//! `docs/protocol.md`, "Presence" and "Progress".

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, FiringId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::protocol::MessageError;
use crate::protocol::offer_message::named_twice;

/// Which descendants are reached through the sender. It goes upwards from parent to parent; each believes it only of
/// those whom its entitlements place behind the sender.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether what was said before holds no more: true in the first message on a connection.
    pub reset: bool,
    /// The identity keys of those who are reached from now on.
    pub up: Vec<KeyHash>,
    /// Of those who are not reached any more.
    pub down: Vec<KeyHash>,
}

impl Presence {
    pub(super) fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        let impossible = |reason| Err(MessageError::Impossible { what: "presence", reason });
        if self.up.len().saturating_add(self.down.len()) > limits.named_keys_max {
            return impossible("it names too many nodes");
        }
        if named_twice(self.up.iter().chain(&self.down)) {
            return impossible("it names a node twice");
        }
        Ok(self)
    }
}

/// How far one delivery is: a hint for people, unsigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressEntry {
    /// The identity key of the Subscriber: the sender, or one behind it.
    pub subscriber: KeyHash,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision.
    pub revision: Revision,
    /// The firing that offered it.
    pub firing: FiringId,
    /// How far it is.
    pub state: ProgressState,
    /// Since when, by the Subscriber's clock.
    pub at: UnixMillis,
}

/// How far a delivery is that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressState {
    /// It was offered to the Subscriber.
    Offered,
    /// It is on its way to the Subscriber.
    Receiving {
        /// Bytes that are there.
        bytes: u64,
        /// Bytes in all.
        bytes_total: u64,
    },
    /// It waits.
    Waiting {
        /// For what.
        waits_for: WaitsFor,
        /// Until when, where that is known.
        until: Option<UnixMillis>,
    },
}

/// What a delivery waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WaitsFor {
    /// A window in which it may be sent or extracted.
    Window,
    /// The parent: the Subscriber is not reached, or its parent does not have it yet.
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

pub(super) fn within(entries: Vec<ProgressEntry>, limits: &Limits) -> Result<Vec<ProgressEntry>, MessageError> {
    if entries.len() > limits.progress_entries_max {
        return Err(MessageError::Impossible { what: "progress", reason: "it names too many deliveries" });
    }
    Ok(entries)
}
