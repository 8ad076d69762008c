//! What the drivers know of a connection.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Coded;
use crate::limits::Limits;
use crate::security::Peer;

/// The close code of a connection that ends because there is nothing more to say. Codes from 1000 on are the digits of
/// the `TED-…` code of a refusal.
pub const CLOSE_DONE: u32 = 0;

/// The code that the other side sees when a half of a stream was dropped before its end.
pub const STREAM_ABANDONED: u32 = 1;

/// Codes of refusals begin here.
const REFUSALS_FROM: u32 = 1000;

/// A connection to a peer that was judged. Clones are the same connection; it closes when the last one is dropped and
/// its streams are.
pub trait Connection: Clone + Send + Sync + 'static {
    /// The half of a stream that writes.
    type Send: SendHalf;
    /// The half of a stream that reads.
    type Recv: RecvHalf;

    /// Opens a stream both ways. Waits while the other side has as many open as it allows, and until it has judged us.
    /// The other side hears of the stream with the first bytes written to it.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection is over.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), ConnectionError>> + Send;

    /// The next stream that the other side opened.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection is over.
    fn accept(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), ConnectionError>> + Send;

    /// Closes the connection at once. What was not delivered yet is lost. The other side sees code and reason.
    fn close(&self, code: u32, reason: &str);

    /// Waits until the connection is over, and says why.
    fn closed(&self) -> impl Future<Output = ConnectionError> + Send;

    /// Who the other side is.
    fn peer(&self) -> &Peer;

    /// The round trip time as estimated now.
    fn rtt(&self) -> Duration;
}

/// The half of a stream that writes. Dropped before [`finish`](SendHalf::finish), it resets the stream, so that what
/// was cut short never looks complete.
pub trait SendHalf: Send + 'static {
    /// Hands all of `bytes` to the connection; waits while its buffers and the other side's are full.
    ///
    /// # Errors
    /// [`ConnectionError`]; when the other side reads no more, [`ConnectionError::Stopped`].
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), ConnectionError>> + Send;

    /// Says that nothing more follows. What was written is still delivered, as long as the connection lives.
    ///
    /// # Errors
    /// [`ConnectionError::StreamOver`] when the stream was finished or reset earlier.
    fn finish(&mut self) -> Result<(), ConnectionError>;

    /// Gives the stream up; the other side sees `code`. Does nothing to a stream that is over.
    fn reset(&mut self, code: u32);
}

/// The half of a stream that reads. Dropped before the end, it tells the other side to stop.
pub trait RecvHalf: Send + 'static {
    /// What has arrived, at least one piece and in order; `None` once everything was read up to the end.
    ///
    /// # Errors
    /// [`ConnectionError`]; when the other side gave the stream up, [`ConnectionError::Reset`].
    fn read_chunks(&mut self) -> impl Future<Output = Result<Option<Vec<Bytes>>, ConnectionError>> + Send;

    /// Reads no more, and lets the other side know with `code`. Does nothing to a stream that is over.
    fn stop(&mut self, code: u32);
}

/// Why a connection, or one stream of it, is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The other side closed the connection.
    #[error("the other side closed the connection: {}", in_words(*.code, .reason))]
    ClosedByPeer {
        /// Its code; from 1000 on the digits of a `TED-…` code.
        code: u32,
        /// Its words, made fit for logs.
        reason: String,
    },
    /// This side closed the connection.
    #[error("the connection was closed here")]
    ClosedHere,
    /// Nothing was heard from the other side for the idle timeout.
    #[error("nothing was heard from the other side any more")]
    TimedOut,
    /// The connection failed below the application.
    #[error("the connection failed: {reason}")]
    Broken {
        /// What QUIC or TLS says.
        reason: String,
    },
    /// The other side has no certificate for the fleet that was asked for.
    #[error("the other side takes no part in the fleet that was asked for ({reason})")]
    UnknownFleet {
        /// What TLS says.
        reason: String,
    },
    /// The other side gave the stream up.
    #[error("the other side gave the stream up (code {code})")]
    Reset {
        /// Its code.
        code: u32,
    },
    /// The other side reads no more of the stream.
    #[error("the other side reads no more of the stream (code {code})")]
    Stopped {
        /// Its code.
        code: u32,
    },
    /// The half was finished, reset or stopped earlier.
    #[error("this half of the stream was ended earlier")]
    StreamOver,
}

impl ConnectionError {
    /// What the other side said when it closed; its words cleaned and bounded, since anybody may have written them.
    pub(super) fn closed_by_peer(code: u32, reason: &[u8]) -> Self {
        Self::ClosedByPeer { code, reason: readable(reason) }
    }
}

impl Coded for ConnectionError {
    fn code(&self) -> &'static str {
        match self {
            Self::ClosedByPeer { .. } => "TED-1310",
            Self::ClosedHere => "TED-1311",
            Self::TimedOut => "TED-1312",
            Self::Broken { .. } => "TED-1313",
            Self::UnknownFleet { .. } => "TED-1314",
            Self::Reset { .. } => "TED-1315",
            Self::Stopped { .. } => "TED-1316",
            Self::StreamOver => "TED-1317",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::ClosedByPeer { code, .. } => *code < REFUSALS_FROM,
            Self::TimedOut | Self::Broken { .. } | Self::Reset { .. } => true,
            Self::ClosedHere | Self::UnknownFleet { .. } | Self::Stopped { .. } | Self::StreamOver => false,
        }
    }
}

/// A peer's words, fit for a log line.
pub(super) fn readable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().filter(|character| !character.is_control()).take(Limits::DEFAULT.close_reason_chars_max).collect()
}

fn in_words(code: u32, reason: &str) -> String {
    if reason.is_empty() { format!("code {code}") } else { reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_reach_the_logs_short_and_without_control_characters() {
        let words = format!("\u{1b}[2Jno{}", "x".repeat(2000));
        let ConnectionError::ClosedByPeer { reason, .. } = ConnectionError::closed_by_peer(7, words.as_bytes()) else {
            panic!("another error")
        };
        assert!(reason.starts_with("[2Jno") && reason.chars().count() == Limits::DEFAULT.close_reason_chars_max);
        assert!(!ConnectionError::closed_by_peer(7, &[0xff, 0xfe]).to_string().is_empty());
    }

    #[test]
    fn a_refusal_is_not_tried_again_and_a_goodbye_is() {
        assert!(ConnectionError::closed_by_peer(CLOSE_DONE, b"stopping").is_retryable());
        assert!(!ConnectionError::closed_by_peer(1305, b"TED-1305: revoked").is_retryable());
    }
}
