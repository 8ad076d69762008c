//! Standing envelopes: what a Distributor has said once and every child should know, whatever is delivered.
//! Bytes: `docs/protocol.md`, "Announce".

use serde::{Deserialize, Serialize};

use crate::id::{EnvelopeId, KeyHash};
use crate::limits::Limits;
use crate::protocol::{MessageError, Refused};
use crate::security::EnvelopeKind;

/// A parent's word which envelopes stand, to be had by `Fetch`. Said on every new connection, and whenever one changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// For whom they stand: the receiver where it is `None`; else a descendant, to which the receiver passes it on, and
    /// the answer back. One that is not reached through the receiver now makes it a retryable refusal.
    pub recipient: Option<KeyHash>,
    /// Those that stand for the child: for everybody, or for it alone. At most [`Limits::announced_envelopes_max`].
    pub envelopes: Vec<Announced>,
}

/// One envelope that stands. All of it but the id is a hint; the envelope decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// What it holds.
    pub kind: EnvelopeKind,
    /// Its id.
    pub id: EnvelopeId,
    /// Its sequence number.
    pub sequence: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a child says once everything that it accepts is in force and durable. An envelope that is in neither list
/// could not be had or stored now, and may be announced again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceAnswer {
    /// Those of the announced envelopes that are in force at the child.
    pub holds: Vec<EnvelopeId>,
    /// Those that it refuses, and why.
    pub refused: Vec<(EnvelopeId, Refused)>,
}

impl Announce {
    pub(super) fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        judge("an announcement", self.envelopes.len(), limits)?;
        Ok(self)
    }
}

impl AnnounceAnswer {
    pub(super) fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        judge("an answer to an announcement", self.holds.len().saturating_add(self.refused.len()), limits)?;
        Ok(self)
    }
}

fn judge(what: &'static str, count: usize, limits: &Limits) -> Result<(), MessageError> {
    if count > limits.announced_envelopes_max {
        return Err(MessageError::Impossible { what, reason: "it names too many envelopes" });
    }
    Ok(())
}
