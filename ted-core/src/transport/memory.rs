//! [`Connection`] inside one process, for tests of what runs on connections. It can be cut.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::security::Peer;
use crate::transport::connection::{Connection, LinkStats, RecvHalf, SendHalf};
use crate::transport::error::{ConnectionError, StreamError};

/// Bytes that wait in one direction of a stream before the writer waits.
const WINDOW_BYTES: usize = 256 * 1024;

/// One end of a connection inside this process.
#[derive(Clone)]
pub struct MemoryConnection(Arc<End>);

struct End {
    link: Arc<Link>,
    side: usize,
    peer: Peer,
}

/// Everything both ends share. One counter wakes whoever waits for anything.
struct Link {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    ending: Option<Ending>,
    pipes: HashMap<u64, Pipe>,
    next_pipe: u64,
    /// Streams that the peer has written to and this side not yet accepted: what it reads, what it writes.
    incoming: [VecDeque<(u64, u64)>; 2],
    carried_bytes: [u64; 2],
}

enum Ending {
    Closed { by: usize, code: u64, reason: String },
    Cut,
}

/// One direction of a stream.
#[derive(Default)]
struct Pipe {
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    finished: bool,
    reset: Option<u64>,
    stopped: Option<u64>,
    writer_gone: bool,
    reader_gone: bool,
}

impl State {
    /// How the connection's end looks from `side`.
    fn ended(&self, side: usize) -> Option<ConnectionError> {
        self.ending.as_ref().map(|ending| match ending {
            Ending::Closed { by, .. } if *by == side => ConnectionError::ClosedHere,
            Ending::Closed { code, reason, .. } => ConnectionError::Closed { code: *code, reason: reason.clone() },
            Ending::Cut => ConnectionError::TimedOut,
        })
    }

    fn pipe(&mut self, id: u64) -> &mut Pipe {
        self.pipes.entry(id).or_default()
    }

    fn sweep(&mut self, id: u64) {
        if self.pipes.get(&id).is_some_and(|pipe| pipe.writer_gone && pipe.reader_gone) {
            self.pipes.remove(&id);
        }
    }
}

impl Link {
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let answer = change(&mut self.lock());
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        answer
    }

    /// Waits until `ready` has an answer.
    async fn wait<R>(&self, mut ready: impl FnMut(&mut State) -> Option<R>) -> R {
        loop {
            // Subscribed before looking, so that no change in between is missed.
            let mut changed = self.changed.subscribe();
            if let Some(answer) = ready(&mut self.lock()) {
                self.changed.send_modify(|count| *count = count.wrapping_add(1));
                return answer;
            }
            // The sender lives in this link.
            let _ = changed.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryConnection {
    /// Both ends of a connection: `peers.0` is whom the first end sees, `peers.1` whom the second sees.
    #[must_use]
    pub fn pair(peers: (Peer, Peer)) -> (Self, Self) {
        let link = Arc::new(Link { state: Mutex::default(), changed: watch::Sender::new(0) });
        let end = |side, peer| Self(Arc::new(End { link: Arc::clone(&link), side, peer }));
        (end(0, peers.0), end(1, peers.1))
    }

    /// Cuts the connection as a dead network would: both ends see the other fall silent.
    pub fn cut(&self) {
        self.0.link.change(|state| {
            state.ending.get_or_insert(Ending::Cut);
        });
    }

    fn halves(&self, reads: u64, writes: u64, announce: Option<(u64, u64)>) -> (MemorySend, MemoryRecv) {
        let send = MemorySend { end: Arc::clone(&self.0), pipe: writes, announce };
        (send, MemoryRecv { end: Arc::clone(&self.0), pipe: reads })
    }
}

impl Connection for MemoryConnection {
    type Send = MemorySend;
    type Recv = MemoryRecv;

    async fn open(&self) -> Result<(MemorySend, MemoryRecv), ConnectionError> {
        let opened = self.0.link.change(|state| match state.ended(self.0.side) {
            Some(error) => Err(error),
            None => {
                let (there, back) = (state.next_pipe, state.next_pipe + 1);
                state.next_pipe += 2;
                Ok((there, back))
            }
        });
        let (there, back) = opened?;
        Ok(self.halves(back, there, Some((there, back))))
    }

    async fn accept(&self) -> Result<(MemorySend, MemoryRecv), ConnectionError> {
        let side = self.0.side;
        let next = |state: &mut State| match state.ended(side) {
            Some(error) => Some(Err(error)),
            None => state.incoming[side].pop_front().map(Ok),
        };
        let (reads, writes) = self.0.link.wait(next).await?;
        Ok(self.halves(reads, writes, None))
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.close(code, reason);
    }

    async fn closed(&self) -> ConnectionError {
        self.0.link.wait(|state| state.ended(self.0.side)).await
    }

    fn peer(&self) -> &Peer {
        &self.0.peer
    }

    fn stats(&self) -> LinkStats {
        let carried = self.0.link.lock().carried_bytes;
        LinkStats {
            round_trip: Duration::ZERO,
            sent_bytes: carried[self.0.side],
            received_bytes: carried[1 - self.0.side],
            ..LinkStats::default()
        }
    }
}

impl End {
    fn close(&self, code: u32, reason: &str) {
        let (by, code, reason) = (self.side, u64::from(code), reason.to_owned());
        self.link.change(|state| {
            state.ending.get_or_insert(Ending::Closed { by, code, reason });
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close(0, "");
    }
}

/// The sending half of a stream in memory.
pub struct MemorySend {
    end: Arc<End>,
    pipe: u64,
    /// What the peer will accept once something is written.
    announce: Option<(u64, u64)>,
}

impl MemorySend {
    fn act<R>(&mut self, act: impl FnOnce(&mut Pipe) -> R) -> R {
        let (announce, other, pipe) = (self.announce.take(), 1 - self.end.side, self.pipe);
        self.end.link.change(|state| {
            state.incoming[other].extend(announce);
            act(state.pipe(pipe))
        })
    }
}

impl SendHalf for MemorySend {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.act(|pipe| if pipe.finished || pipe.reset.is_some() { Err(StreamError::Ended) } else { Ok(()) })?;
        if bytes.is_empty() {
            return Ok(());
        }
        let (side, id) = (self.end.side, self.pipe);
        let mut bytes = Some(bytes);
        let put = |state: &mut State| {
            if let Some(error) = state.ended(side) {
                return Some(Err(error.into()));
            }
            let pipe = state.pipe(id);
            if let Some(code) = pipe.stopped {
                return Some(Err(StreamError::Stopped { code }));
            }
            if pipe.queued_bytes >= WINDOW_BYTES {
                return None;
            }
            let bytes = bytes.take()?;
            pipe.queued_bytes += bytes.len();
            let sent = bytes.len() as u64;
            pipe.queue.push_back(bytes);
            state.carried_bytes[side] += sent;
            Some(Ok(()))
        };
        self.end.link.wait(put).await
    }

    fn finish(&mut self) -> Result<(), StreamError> {
        self.act(|pipe| {
            if pipe.finished || pipe.reset.is_some() {
                return Err(StreamError::Ended);
            }
            pipe.finished = true;
            Ok(())
        })
    }

    async fn delivered(&mut self) -> Result<(), StreamError> {
        let (side, id) = (self.end.side, self.pipe);
        let done = |state: &mut State| {
            let ended = state.ended(side);
            let pipe = state.pipe(id);
            if pipe.finished && pipe.queue.is_empty() {
                return Some(Ok(()));
            }
            if let Some(error) = ended {
                return Some(Err(error.into()));
            }
            pipe.stopped.map(|code| Err(StreamError::Stopped { code }))
        };
        self.end.link.wait(done).await
    }

    fn reset(&mut self, code: u32) {
        self.act(|pipe| {
            if !pipe.finished && pipe.reset.is_none() {
                pipe.reset = Some(code.into());
                pipe.queue.clear();
                pipe.queued_bytes = 0;
            }
        });
    }
}

impl Drop for MemorySend {
    fn drop(&mut self) {
        self.reset(0);
        let id = self.pipe;
        self.end.link.change(|state| {
            state.pipe(id).writer_gone = true;
            state.sweep(id);
        });
    }
}

/// The receiving half of a stream in memory.
pub struct MemoryRecv {
    end: Arc<End>,
    pipe: u64,
}

impl RecvHalf for MemoryRecv {
    async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, StreamError> {
        let (side, id) = (self.end.side, self.pipe);
        let take = |state: &mut State| {
            let ended = state.ended(side);
            let pipe = state.pipe(id);
            if let Some(code) = pipe.reset {
                return Some(Err(StreamError::Reset { code }));
            }
            if pipe.stopped.is_some() {
                return Some(Err(StreamError::Ended));
            }
            if let Some(error) = ended {
                return Some(Err(error.into()));
            }
            if pipe.queue.is_empty() {
                return pipe.finished.then_some(Ok(None));
            }
            let mut taken = 0;
            for slot in chunks.iter_mut() {
                let Some(bytes) = pipe.queue.pop_front() else { break };
                pipe.queued_bytes -= bytes.len();
                *slot = bytes;
                taken += 1;
            }
            Some(Ok(Some(taken)))
        };
        self.end.link.wait(take).await
    }

    fn stop(&mut self, code: u32) {
        let id = self.pipe;
        self.end.link.change(|state| {
            let pipe = state.pipe(id);
            if !(pipe.finished && pipe.queue.is_empty()) {
                pipe.stopped.get_or_insert(code.into());
            }
        });
    }
}

impl Drop for MemoryRecv {
    fn drop(&mut self) {
        self.stop(0);
        let id = self.pipe;
        self.end.link.change(|state| {
            state.pipe(id).reader_gone = true;
            state.sweep(id);
        });
    }
}
