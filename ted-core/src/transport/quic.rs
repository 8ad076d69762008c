//! [`Connection`] over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quinn::VarInt;

use crate::security::{Peer, Side};
use crate::transport::budget::SendBudget;
use crate::transport::connection::{Connection, LinkStats, RecvHalf, SendHalf};
use crate::transport::endpoint::Live;
use crate::transport::error::{ConnectionError, StreamError};

/// What a dropped half tells the peer.
const DROPPED: VarInt = VarInt::from_u32(0);

/// A QUIC connection to a peer that was judged.
#[derive(Clone)]
pub struct QuicConnection(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) quinn: quinn::Connection,
    pub(super) peer: Peer,
    pub(super) side: Side,
    pub(super) id: u64,
    pub(super) budget: Arc<SendBudget<quinn::Connection>>,
    pub(super) live: Arc<Live>,
    pub(super) end_logged: AtomicBool,
}

impl Inner {
    /// The error in our words. The first time, what a peer said when it closed goes to the log.
    fn ended(&self, error: quinn::ConnectionError) -> ConnectionError {
        let error = translate(error);
        if let ConnectionError::Closed { code, reason } = &error
            && *code != 0
            && !self.end_logged.swap(true, Ordering::Relaxed)
        {
            let address = self.quinn.remote_address();
            tracing::warn!(peer = %self.peer, %address, %reason, "the peer closed the connection");
        }
        error
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.live.forget(self.id);
    }
}

impl QuicConnection {
    /// Where the peer is now.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.0.quinn.remote_address()
    }

    /// Which end of it this node is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.0.side
    }

    fn halves(&self, (send, recv): (quinn::SendStream, quinn::RecvStream)) -> (QuicSend, QuicRecv) {
        self.0.budget.enter(self.0.id, &self.0.quinn);
        let send = QuicSend { quinn: send, connection: Arc::clone(&self.0), ended: false };
        (send, QuicRecv { quinn: recv, connection: Arc::clone(&self.0) })
    }
}

impl std::fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicConnection({} at {})", self.0.peer, self.remote_address())
    }
}

impl Connection for QuicConnection {
    type Send = QuicSend;
    type Recv = QuicRecv;

    async fn open(&self) -> Result<(QuicSend, QuicRecv), ConnectionError> {
        let halves = self.0.quinn.open_bi().await.map_err(|error| self.0.ended(error))?;
        Ok(self.halves(halves))
    }

    async fn accept(&self) -> Result<(QuicSend, QuicRecv), ConnectionError> {
        let halves = self.0.quinn.accept_bi().await.map_err(|error| self.0.ended(error))?;
        Ok(self.halves(halves))
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.quinn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    async fn closed(&self) -> ConnectionError {
        let error = self.0.quinn.closed().await;
        self.0.ended(error)
    }

    fn peer(&self) -> &Peer {
        &self.0.peer
    }

    fn stats(&self) -> LinkStats {
        let stats = self.0.quinn.stats();
        LinkStats {
            round_trip: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            congestion_window_bytes: stats.path.cwnd,
            payload_bytes_max: stats.path.current_mtu,
        }
    }
}

/// The sending half of a QUIC stream.
pub struct QuicSend {
    quinn: quinn::SendStream,
    connection: Arc<Inner>,
    ended: bool,
}

impl SendHalf for QuicSend {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        if self.ended {
            return Err(StreamError::Ended);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.quinn.write_chunk(bytes).await.map_err(|error| match error {
            quinn::WriteError::Stopped(code) => StreamError::Stopped { code: code.into_inner() },
            quinn::WriteError::ConnectionLost(error) => self.connection.ended(error).into(),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => StreamError::Ended,
        })
    }

    fn finish(&mut self) -> Result<(), StreamError> {
        self.ended = true;
        self.quinn.finish().map_err(|_| StreamError::Ended)
    }

    async fn delivered(&mut self) -> Result<(), StreamError> {
        match self.quinn.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::Stopped { code: code.into_inner() }),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(self.connection.ended(error).into()),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Ended),
        }
    }

    fn reset(&mut self, code: u32) {
        self.ended = true;
        // A stream that has ended already cannot be given up, and need not be.
        let _ = self.quinn.reset(VarInt::from_u32(code));
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        // quinn would finish the stream, and the reader take a part for the whole.
        if !self.ended {
            let _ = self.quinn.reset(DROPPED);
        }
        self.connection.budget.leave(self.connection.id);
    }
}

/// The receiving half of a QUIC stream. quinn itself stops the stream with code 0 when it is dropped.
pub struct QuicRecv {
    quinn: quinn::RecvStream,
    connection: Arc<Inner>,
}

impl RecvHalf for QuicRecv {
    async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, StreamError> {
        self.quinn.read_chunks(chunks).await.map_err(|error| match error {
            quinn::ReadError::Reset(code) => StreamError::Reset { code: code.into_inner() },
            quinn::ReadError::ConnectionLost(error) => self.connection.ended(error).into(),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => StreamError::Ended,
        })
    }

    fn stop(&mut self, code: u32) {
        // A stream that has ended already needs no stopping.
        let _ = self.quinn.stop(VarInt::from_u32(code));
    }
}

/// quinn's reason for the end of a connection, in our words.
pub(super) fn translate(error: quinn::ConnectionError) -> ConnectionError {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => ConnectionError::Closed {
            code: close.error_code.into_inner(),
            reason: printable(&String::from_utf8_lossy(&close.reason)),
        },
        quinn::ConnectionError::LocallyClosed => ConnectionError::ClosedHere,
        quinn::ConnectionError::TimedOut => ConnectionError::TimedOut,
        error => ConnectionError::Lost { reason: printable(&error.to_string()) },
    }
}

/// What a peer wrote, fit for a log.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(512).collect()
}
