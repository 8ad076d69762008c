//! Connections over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, TransportErrorCode, VarInt, WriteError};
use tokio::runtime::Handle;

use crate::security::Peer;
use crate::transport::budget::{SendBudget, SendingStream};
use crate::transport::connection::readable;
use crate::transport::{Connection, ConnectionError, RecvHalf, STREAM_ABANDONED, SendHalf};

/// Pieces taken from a stream at once. QUIC hands out one for each packet, so this is 180 KiB at common packet sizes:
/// enough to pay for the lock, little enough not to hold much.
const PIECES: usize = 128;

/// TLS's alert for "no certificate for this server name" (RFC 8446 section 6.2, as rustls uses it).
const ALERT_ACCESS_DENIED: u8 = 49;

/// A judged connection over QUIC.
#[derive(Debug, Clone)]
pub struct QuicConnection {
    inner: quinn::Connection,
    peer: Arc<Peer>,
    budget: Arc<SendBudget<quinn::Connection>>,
}

impl QuicConnection {
    /// Lets the judged peer open streams.
    pub(super) fn accepted(
        inner: quinn::Connection,
        peer: Peer,
        streams_max: u32,
        budget: Arc<SendBudget<quinn::Connection>>,
    ) -> Self {
        inner.set_max_concurrent_bi_streams(VarInt::from_u32(streams_max));
        Self { inner, peer: Arc::new(peer), budget }
    }

    fn halves(&self, (send, recv): (SendStream, RecvStream)) -> (QuicSend, QuicRecv) {
        let send = QuicSend {
            stream: send,
            over: false,
            connection: self.inner.clone(),
            budget: self.budget.clone(),
            sending: None,
        };
        (send, QuicRecv { stream: recv, stopped: false })
    }

    /// Where the other side is now.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }
}

impl Connection for QuicConnection {
    type Send = QuicSend;
    type Recv = QuicRecv;

    async fn open(&self) -> Result<(QuicSend, QuicRecv), ConnectionError> {
        self.inner.open_bi().await.map(|stream| self.halves(stream)).map_err(over)
    }

    async fn accept(&self) -> Result<(QuicSend, QuicRecv), ConnectionError> {
        self.inner.accept_bi().await.map(|stream| self.halves(stream)).map_err(over)
    }

    fn close(&self, code: u32, reason: &str) {
        self.inner.close(VarInt::from_u32(code), reason.as_bytes());
    }

    async fn closed(&self) -> ConnectionError {
        over(self.inner.closed().await)
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn rtt(&self) -> Duration {
        self.inner.rtt()
    }
}

/// The writing half of a stream over QUIC.
#[derive(Debug)]
pub struct QuicSend {
    stream: SendStream,
    over: bool,
    connection: quinn::Connection,
    budget: Arc<SendBudget<quinn::Connection>>,
    /// From the first write on, until everything is acknowledged.
    sending: Option<SendingStream<quinn::Connection>>,
}

impl QuicSend {
    /// Keeps the connection's share of the budget until the other side has acknowledged everything.
    fn leave_when_acknowledged(&mut self) {
        let Some(sending) = self.sending.take() else { return };
        // Without a runtime nothing is sent any more.
        let Ok(runtime) = Handle::try_current() else { return };
        let acknowledged = self.stream.stopped();
        runtime.spawn(async move {
            // It fails with the connection, which takes its bytes along.
            let _ = acknowledged.await;
            drop(sending);
        });
    }
}

impl SendHalf for QuicSend {
    async fn write(&mut self, bytes: Bytes) -> Result<(), ConnectionError> {
        if !self.over && self.sending.is_none() {
            self.sending = Some(self.budget.enter(self.connection.stable_id(), &self.connection));
        }
        self.stream.write_chunk(bytes).await.map_err(|error| match error {
            WriteError::Stopped(code) => ConnectionError::Stopped { code: number(code) },
            WriteError::ConnectionLost(error) => over(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => ConnectionError::StreamOver,
        })
    }

    fn finish(&mut self) -> Result<(), ConnectionError> {
        self.over = true;
        let finished = self.stream.finish().map_err(|_| ConnectionError::StreamOver);
        self.leave_when_acknowledged();
        finished
    }

    fn reset(&mut self, code: u32) {
        // quinn would reset a stream that was finished and has unacknowledged bytes.
        if self.over {
            return;
        }
        self.over = true;
        // Refused only where the other side has stopped the stream already.
        let _ = self.stream.reset(VarInt::from_u32(code));
        self.sending = None;
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        // quinn would finish the stream.
        self.reset(STREAM_ABANDONED);
    }
}

/// The reading half of a stream over QUIC.
#[derive(Debug)]
pub struct QuicRecv {
    stream: RecvStream,
    stopped: bool,
}

impl RecvHalf for QuicRecv {
    async fn read_chunks(&mut self) -> Result<Option<Vec<Bytes>>, ConnectionError> {
        // quinn would say later that the stream has ended.
        if self.stopped {
            return Err(ConnectionError::StreamOver);
        }
        let mut pieces = vec![Bytes::new(); PIECES];
        let count = self.stream.read_chunks(&mut pieces).await.map_err(|error| match error {
            ReadError::Reset(code) => ConnectionError::Reset { code: number(code) },
            ReadError::ConnectionLost(error) => over(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                ConnectionError::StreamOver
            }
        })?;
        Ok(count.map(|count| {
            pieces.truncate(count);
            pieces
        }))
    }

    fn stop(&mut self, code: u32) {
        // Refused only where everything was read or stopped already.
        self.stopped |= self.stream.stop(VarInt::from_u32(code)).is_ok();
    }
}

impl Drop for QuicRecv {
    fn drop(&mut self) {
        // quinn would say code 0.
        self.stop(STREAM_ABANDONED);
    }
}

/// An address as people write it: IPv4 seen through an IPv6 socket is IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// quinn's reason in our words.
pub(super) fn over(error: quinn::ConnectionError) -> ConnectionError {
    use quinn::ConnectionError as Quinn;
    match error {
        Quinn::ApplicationClosed(close) => ConnectionError::closed_by_peer(number(close.error_code), &close.reason),
        Quinn::LocallyClosed => ConnectionError::ClosedHere,
        Quinn::TimedOut => ConnectionError::TimedOut,
        Quinn::ConnectionClosed(close) => failed(close.error_code, readable(&close.reason)),
        Quinn::TransportError(error) => failed(error.code, error.reason),
        error @ (Quinn::VersionMismatch | Quinn::Reset | Quinn::CidsExhausted) => {
            ConnectionError::Broken { reason: error.to_string() }
        }
    }
}

fn failed(code: TransportErrorCode, reason: String) -> ConnectionError {
    let reason = if reason.is_empty() { code.to_string() } else { reason };
    if code == TransportErrorCode::crypto(ALERT_ACCESS_DENIED) {
        return ConnectionError::UnknownFleet { reason };
    }
    ConnectionError::Broken { reason }
}

/// A code as far as we can say it; larger ones are none of ours.
fn number(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}
