//! The word that a peer gets instead of what it asked for: a stable code and a reason.

use serde::{Deserialize, Serialize};

/// The codes with which this protocol refuses. Peers of other versions may send others; those are kept as they are.
pub mod code {
    /// Nothing by that id is here.
    pub const NOT_FOUND: &str = "TED-1340";
    /// The node that asks is not entitled to it.
    pub const NOT_ENTITLED: &str = "TED-1341";
    /// The request cannot be read, or asks for something impossible.
    pub const BAD_REQUEST: &str = "TED-1342";
    /// Not now: a limit is reached. Asking again later may succeed.
    pub const BUSY: &str = "TED-1343";
    /// The node that was asked has a problem of its own. Asking again later may succeed.
    pub const INTERNAL: &str = "TED-1344";
    /// The release statement's time is over.
    pub const STATEMENT_EXPIRED: &str = "TED-1350";
    /// The release statement is older than what was accepted, or names a revision older than what was verified.
    pub const BELOW_FLOOR: &str = "TED-1351";
    /// The release statement contradicts itself or its envelope.
    pub const BAD_STATEMENT: &str = "TED-1352";
    /// The release statement names no package that this node can use.
    pub const NO_USABLE_PACKAGE: &str = "TED-1353";
    /// A package's root is not what the release statement says of it.
    pub const ROOT_DIFFERS: &str = "TED-1354";
    /// The package stayed damaged after all tries; nothing more is tried before the Channel's next firing.
    pub const CORRUPT: &str = "TED-1355";
    /// The peer was silent for longer than the connection timeout.
    pub const SILENCE: &str = "TED-1356";
    /// An operator paused it: the Channel, the Distribution or the Subscriber. It is offered again afterwards.
    pub const PAUSED: &str = "TED-1750";
    /// The send window is closed. What is here is kept, and the Channel's next firing goes on from it.
    pub const WINDOW_CLOSED: &str = "TED-1751";
    /// No open firing sends it to this node now: it was cancelled, is done, or never began.
    pub const NOT_UNDER_WAY: &str = "TED-1752";
}

const REASON_BYTES_MAX: usize = 1024;
const CODE_BYTES_MAX: usize = 16;

/// A refusal: a code that an operator can look up, and a sentence for the log.
///
/// It may come from a peer, so both parts are made safe to print when they are read: at most 16 and 1,024 bytes,
/// without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "Wire", into = "Wire")]
#[error("{code}: {reason}")]
pub struct Refused {
    code: String,
    reason: String,
}

impl Refused {
    /// A refusal with one of the codes of [`code`] or of another part of this library.
    #[must_use]
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: printable(code, CODE_BYTES_MAX), reason: printable(&reason.into(), REASON_BYTES_MAX) }
    }

    /// The code, for instance `TED-1340`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether asking again later may succeed without anybody mending anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.code.as_str(), code::BUSY | code::INTERNAL) || self.waits_for_offer()
    }

    /// Whether asking again is of no use before there is another offer, which comes by itself: what is here is kept until
    /// then, and nothing went wrong.
    #[must_use]
    pub fn waits_for_offer(&self) -> bool {
        matches!(self.code.as_str(), code::PAUSED | code::WINDOW_CLOSED | code::NOT_UNDER_WAY)
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    code: String,
    reason: String,
}

impl From<Wire> for Refused {
    fn from(wire: Wire) -> Self {
        Self::new(&wire.code, wire.reason)
    }
}

impl From<Refused> for Wire {
    fn from(refused: Refused) -> Self {
        Self { code: refused.code, reason: refused.reason }
    }
}

/// `text` without control characters, cut to `limit` bytes at a character's boundary.
fn printable(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if clean.len() + character.len_utf8() > limit {
            break;
        }
        clean.push(character);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_safe_to_print() {
        let refused = Refused::new("TED-1340", format!("no\nsuch\u{1b}[2J{}", "ä".repeat(2000)));
        assert!(!refused.reason().contains(['\n', '\u{1b}']));
        assert!(refused.reason().len() <= REASON_BYTES_MAX);
        assert_eq!(Refused::new(&"x".repeat(99), "").code().len(), CODE_BYTES_MAX);
    }

    #[test]
    fn only_a_busy_or_troubled_peer_is_asked_again() {
        assert!(Refused::new(code::BUSY, "").is_retryable());
        assert!(Refused::new(code::INTERNAL, "").is_retryable());
        assert!(!Refused::new(code::NOT_FOUND, "").is_retryable());
        assert!(!Refused::new(code::NOT_ENTITLED, "").is_retryable());
    }
}
