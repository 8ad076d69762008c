//! Connections within one process, with bounded buffers: for tests and simulations of the drivers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::limits::Limits;
use crate::security::Peer;
use crate::transport::{CLOSE_DONE, Connection, ConnectionError, RecvHalf, STREAM_ABANDONED, SendHalf};

/// Makes pairs of connected [`MemoryConnection`]s, and cuts them.
#[derive(Debug, Clone)]
pub struct MemoryLink(Arc<Link>);

#[derive(Debug)]
struct Link {
    buffer_bytes: usize,
    ending: watch::Sender<Option<Ending>>,
    /// Streams that were opened towards each end and not accepted yet.
    opened: [Queue; 2],
    /// How many more streams each end may open.
    credit: [Arc<Semaphore>; 2],
}

#[derive(Debug, Clone)]
enum Ending {
    Closed { by: usize, code: u32, reason: String },
    Cut,
}

#[derive(Debug, Default)]
struct Queue {
    streams: Mutex<VecDeque<Opened>>,
    arrived: Notify,
}

/// A stream as the end sees it that did not open it. The permit is given back when both halves there are dropped.
#[derive(Debug)]
struct Opened {
    send: Arc<Pipe>,
    recv: Arc<Pipe>,
    permit: Arc<OwnedSemaphorePermit>,
}

impl MemoryLink {
    /// Two ends of one connection; a stream takes `buffer_bytes` in each direction before its writer waits. `first` is
    /// what the first end sees as its peer, `second` what the second does.
    #[must_use]
    pub fn pair(buffer_bytes: usize, first: Peer, second: Peer) -> (Self, MemoryConnection, MemoryConnection) {
        let streams_max = Limits::DEFAULT.streams_max as usize;
        let credit = || Arc::new(Semaphore::new(streams_max));
        let link = Arc::new(Link {
            buffer_bytes: buffer_bytes.max(1),
            ending: watch::Sender::new(None),
            opened: Default::default(),
            credit: [credit(), credit()],
        });
        let end = |number, peer| MemoryConnection(Arc::new(End { link: link.clone(), number, peer }));
        (Self(link.clone()), end(0, first), end(1, second))
    }

    /// Cuts the link: both ends see [`ConnectionError::TimedOut`].
    pub fn cut(&self) {
        self.0.end(Ending::Cut);
    }
}

impl Link {
    /// The first ending counts.
    fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(ending);
            }
            first
        });
    }
}

/// One end of a connection within this process.
#[derive(Debug, Clone)]
pub struct MemoryConnection(Arc<End>);

#[derive(Debug)]
struct End {
    link: Arc<Link>,
    number: usize,
    peer: Peer,
}

impl Drop for End {
    fn drop(&mut self) {
        self.link.end(Ending::Closed { by: self.number, code: CLOSE_DONE, reason: String::new() });
    }
}

impl End {
    fn other(&self) -> usize {
        1 - self.number
    }

    /// Fails if the connection is over.
    fn alive(&self) -> Result<(), ConnectionError> {
        match &*self.link.ending.borrow() {
            None => Ok(()),
            Some(ending) => Err(self.error(ending)),
        }
    }

    fn error(&self, ending: &Ending) -> ConnectionError {
        match ending {
            Ending::Cut => ConnectionError::TimedOut,
            Ending::Closed { by, .. } if *by == self.number => ConnectionError::ClosedHere,
            Ending::Closed { code, reason, .. } => ConnectionError::closed_by_peer(*code, reason.as_bytes()),
        }
    }

    async fn over(&self) -> ConnectionError {
        let mut endings = self.link.ending.subscribe();
        match endings.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(ending)) => self.error(ending),
            // The sender is part of the link, which this end holds.
            _ => ConnectionError::ClosedHere,
        }
    }

    /// Waits for `event`, or fails with the end of the connection.
    async fn wait<T>(&self, event: impl Future<Output = T>) -> Result<T, ConnectionError> {
        tokio::select! {
            biased;
            error = self.over() => Err(error),
            happened = event => Ok(happened),
        }
    }
}

impl Connection for MemoryConnection {
    type Send = MemorySend;
    type Recv = MemoryRecv;

    async fn open(&self) -> Result<(MemorySend, MemoryRecv), ConnectionError> {
        let end = &self.0;
        let credit = end.link.credit[end.number].clone().acquire_owned();
        let permit = Arc::new(end.wait(credit).await?.map_err(|_| ConnectionError::ClosedHere)?);
        let (there, back) = (Arc::<Pipe>::default(), Arc::<Pipe>::default());
        let queue = &end.link.opened[end.other()];
        lock(&queue.streams).push_back(Opened { send: back.clone(), recv: there.clone(), permit });
        queue.arrived.notify_one();
        Ok((MemorySend::new(end, there, None), MemoryRecv::new(end, back, None)))
    }

    async fn accept(&self) -> Result<(MemorySend, MemoryRecv), ConnectionError> {
        let end = &self.0;
        let queue = &end.link.opened[end.number];
        loop {
            end.alive()?;
            let (next, more) = {
                let mut streams = lock(&queue.streams);
                (streams.pop_front(), !streams.is_empty())
            };
            if let Some(Opened { send, recv, permit }) = next {
                if more {
                    queue.arrived.notify_one();
                }
                let recv = MemoryRecv::new(end, recv, Some(permit.clone()));
                return Ok((MemorySend::new(end, send, Some(permit)), recv));
            }
            end.wait(queue.arrived.notified()).await?;
        }
    }

    fn close(&self, code: u32, reason: &str) {
        self.0.link.end(Ending::Closed { by: self.0.number, code, reason: reason.to_owned() });
    }

    async fn closed(&self) -> ConnectionError {
        self.0.over().await
    }

    fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Memory answers at once.
    fn rtt(&self) -> Duration {
        Duration::ZERO
    }
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<PipeState>,
    readable: Notify,
    writable: Notify,
}

#[derive(Debug, Default)]
struct PipeState {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// The writer has ended the stream.
    ended: Option<WriterEnd>,
    /// The reader reads no more.
    stopped: Option<u32>,
    /// The reader has seen the end.
    read: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterEnd {
    Finished,
    Reset(u32),
}

/// The writing half of a stream in memory.
#[derive(Debug)]
pub struct MemorySend {
    end: Arc<End>,
    pipe: Arc<Pipe>,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl MemorySend {
    fn new(end: &Arc<End>, pipe: Arc<Pipe>, permit: Option<Arc<OwnedSemaphorePermit>>) -> Self {
        Self { end: end.clone(), pipe, _permit: permit }
    }

    /// Moves what fits from `bytes` into the pipe.
    fn push(&self, bytes: &mut Bytes) -> Result<(), ConnectionError> {
        self.end.alive()?;
        let mut state = lock(&self.pipe.state);
        if state.ended.is_some() {
            return Err(ConnectionError::StreamOver);
        }
        if let Some(code) = state.stopped {
            return Err(ConnectionError::Stopped { code });
        }
        let room = self.end.link.buffer_bytes.saturating_sub(state.bytes).min(bytes.len());
        if room > 0 {
            state.pieces.push_back(bytes.split_to(room));
            state.bytes += room;
            self.pipe.readable.notify_one();
        }
        Ok(())
    }

    fn end_with(&self, how: WriterEnd) -> Result<(), ConnectionError> {
        let mut state = lock(&self.pipe.state);
        if state.ended.is_some() {
            return Err(ConnectionError::StreamOver);
        }
        state.ended = Some(how);
        if matches!(how, WriterEnd::Reset(_)) {
            state.pieces.clear();
        }
        self.pipe.readable.notify_one();
        Ok(())
    }
}

impl SendHalf for MemorySend {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), ConnectionError> {
        loop {
            self.push(&mut bytes)?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.end.wait(self.pipe.writable.notified()).await?;
        }
    }

    fn finish(&mut self) -> Result<(), ConnectionError> {
        self.end_with(WriterEnd::Finished)
    }

    fn reset(&mut self, code: u32) {
        // Only a stream that is over refuses, and then there is nothing left to reset.
        let _ = self.end_with(WriterEnd::Reset(code));
    }
}

impl Drop for MemorySend {
    fn drop(&mut self) {
        self.reset(STREAM_ABANDONED);
    }
}

/// The reading half of a stream in memory.
#[derive(Debug)]
pub struct MemoryRecv {
    end: Arc<End>,
    pipe: Arc<Pipe>,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl MemoryRecv {
    fn new(end: &Arc<End>, pipe: Arc<Pipe>, permit: Option<Arc<OwnedSemaphorePermit>>) -> Self {
        Self { end: end.clone(), pipe, _permit: permit }
    }

    /// What there is: pieces, the end, or nothing yet.
    fn take(&self) -> Result<Option<Option<Vec<Bytes>>>, ConnectionError> {
        let mut state = lock(&self.pipe.state);
        if state.stopped.is_some() && !state.read {
            return Err(ConnectionError::StreamOver);
        }
        if !state.pieces.is_empty() {
            state.bytes = 0;
            self.pipe.writable.notify_one();
            return Ok(Some(Some(state.pieces.drain(..).collect())));
        }
        match state.ended {
            Some(WriterEnd::Reset(code)) => {
                state.read = true;
                Err(ConnectionError::Reset { code })
            }
            Some(WriterEnd::Finished) => {
                state.read = true;
                Ok(Some(None))
            }
            None => Ok(None),
        }
    }
}

impl RecvHalf for MemoryRecv {
    async fn read_chunks(&mut self) -> Result<Option<Vec<Bytes>>, ConnectionError> {
        loop {
            if let Some(found) = self.take()? {
                return Ok(found);
            }
            self.end.wait(self.pipe.readable.notified()).await?;
        }
    }

    fn stop(&mut self, code: u32) {
        let mut state = lock(&self.pipe.state);
        if state.read || state.stopped.is_some() {
            return;
        }
        state.stopped = Some(code);
        state.pieces.clear();
        self.pipe.writable.notify_one();
    }
}

impl Drop for MemoryRecv {
    fn drop(&mut self) {
        self.stop(STREAM_ABANDONED);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
