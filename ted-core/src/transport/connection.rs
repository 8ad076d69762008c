//! What the rest of TED knows of a connection.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::security::Peer;
use crate::transport::{ConnectionError, StreamError};

/// A connection to a peer that was judged. Either side opens streams; each stream goes both ways.
///
/// The peer learns of a stream when something is first written to it, not when it is opened. The connection closes
/// itself in order when its last handle, streams included, is dropped.
pub trait Connection: Clone + Send + Sync + 'static {
    /// The half that is written to.
    type Send: SendHalf;
    /// The half that is read from.
    type Recv: RecvHalf;

    /// Opens a stream; waits while the peer allows no more of them.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection is over.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), ConnectionError>> + Send;

    /// Waits for the next stream that the peer opens.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection is over.
    fn accept(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), ConnectionError>> + Send;

    /// Closes the connection at once. What was not delivered may be lost; the peer is told code and reason.
    fn close(&self, code: u32, reason: &str);

    /// Waits until the connection is over, and says why.
    fn closed(&self) -> impl Future<Output = ConnectionError> + Send;

    /// Who is at the other end.
    fn peer(&self) -> &Peer;

    /// How the connection does.
    fn stats(&self) -> LinkStats;
}

/// The sending half of a stream. Dropped before [`SendHalf::finish`], it resets the stream with code 0, so that a
/// reader never takes a part for the whole.
pub trait SendHalf: Send + 'static {
    /// Hands `bytes` to the connection; waits while the windows are full. Not cancel safe: some may have been taken.
    ///
    /// # Errors
    /// [`StreamError`].
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Says that nothing more comes. What was written is still being delivered.
    ///
    /// # Errors
    /// [`StreamError`].
    fn finish(&mut self) -> Result<(), StreamError>;

    /// After [`SendHalf::finish`]: waits until the peer has received everything. To be awaited before a close.
    ///
    /// # Errors
    /// [`StreamError`].
    fn delivered(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Gives the stream up.
    fn reset(&mut self, code: u32);
}

/// The receiving half of a stream. Dropped before its end, it tells the peer to stop with code 0.
pub trait RecvHalf: Send + 'static {
    /// Fills the front of `chunks` with what has come, without copying, and says how many; `None` at the end.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`StreamError`].
    fn read_chunks(&mut self, chunks: &mut [Bytes]) -> impl Future<Output = Result<Option<usize>, StreamError>> + Send;

    /// Tells the peer that the rest is not wanted.
    fn stop(&mut self, code: u32);
}

/// How a connection does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// The round-trip time, smoothed.
    pub round_trip: Duration,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Packets that were lost on the way to the peer.
    pub lost_packets: u64,
    /// Bytes that congestion control allows in flight.
    pub congestion_window_bytes: u64,
    /// The largest UDP payload that is known to pass.
    pub payload_bytes_max: u16,
}
