//! Receiving one package: the driver of the protocol's machines. It opens Fetches, checks frames off the async
//! threads, writes and syncs `distfile.part`, and goes on after every break.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Coded, Error};
use crate::limits::Limits;
use crate::name::NodeName;
use crate::node::{ExchangeError, Fetched, InputPace, Live, fetch};
use crate::package::{
    AnyIndex, BlindIndex, FrameError, IndexReader, Opening, PackageError, ReadAt, Root, Step, check_frame,
};
use crate::protocol::{
    Action, Fetch, FetchFailure, FetchNumber, FetchTarget, FrameLayout, FrameMap, GiveUp, IndexAction, IndexPhase,
    Progress, Receiver, ReceiverOptions, code,
};
use crate::security::{Carried, PackageRef, PeerRole, Signature};
use crate::store::{FileError, PartFile};
use crate::transport::{Connection as _, QuicConnection, RecvHalf};

/// Where the connection to the sender is to be had; `None` while there is none.
pub(super) type LinkWatch = watch::Receiver<Option<QuicConnection>>;

/// Bytes that a stream's reader hands on at once: few hand-overs, and little that waits.
const BATCH_BYTES: usize = 256 * 1024;

/// Batches that wait between a stream's reader and the machine.
const BATCHES_WAITING: usize = 4;

/// Frame buffers that are kept for reuse.
const BUFFERS_KEPT: usize = 8;

/// Why a reception ended without a package.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceptionError {
    #[error("the package stayed damaged{}", .frame.map_or(String::new(), |frame| format!(": frame {frame}")))]
    Corrupt {
        frame: Option<u64>,
        /// Who sent it last.
        from: Option<NodeName>,
        /// What arrived of it, once there is something.
        part: Option<PartFile>,
    },
    /// What a delta goes from is not here after all.
    #[error("{0}")]
    NoBase(Error),
    #[error("the sender was silent for the connection timeout")]
    Silence,
    #[error("{0}")]
    Refused(crate::protocol::Refused),
    /// Nothing is wrong: it is offered again, and goes on from what is here.
    #[error("{0}")]
    Held(crate::protocol::Refused),
    #[error("{0}")]
    Failed(#[from] Error),
    #[error("the Subscriber is stopping")]
    Stopping,
}

impl From<FileError> for ReceptionError {
    fn from(error: FileError) -> Self {
        Self::Failed(error.into())
    }
}

impl ReceptionError {
    /// A damaged package that came from this node.
    fn sent_by(self, hop: Option<&NodeName>) -> Self {
        match self {
            Self::Corrupt { frame, part, .. } => Self::Corrupt { frame, from: hop.cloned(), part },
            other => other,
        }
    }
}

impl Coded for ReceptionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => code::CORRUPT,
            Self::Silence => code::SILENCE,
            Self::Refused(_) | Self::Held(_) => "TED-1865",
            Self::Failed(error) | Self::NoBase(error) => error.code(),
            Self::Stopping => "TED-1866",
        }
    }
}

impl From<GiveUp> for ReceptionError {
    fn from(cause: GiveUp) -> Self {
        match cause {
            GiveUp::Corrupt { frame } => Self::Corrupt { frame, from: None, part: None },
            GiveUp::Silence => Self::Silence,
            GiveUp::Refused(refused) if refused.waits_for_offer() => Self::Held(refused),
            GiveUp::Refused(refused) => Self::Refused(refused),
        }
    }
}

/// Bytes of a package outside its body, and where they lie.
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    /// Writes what of it lies outside the body. What it has of the body is verified first.
    pub(super) fn lay_outside(&self, body: &Range<u64>, part: &PartFile) -> Result<(), FileError> {
        let end = self.offset + self.bytes.len() as u64;
        for outside in [self.offset..end.min(body.start), self.offset.max(body.end)..end] {
            if outside.start < outside.end {
                let [from, to] = [outside.start, outside.end].map(|at| (at - self.offset) as usize);
                part.write_at(self.bytes.get(from..to).unwrap_or_default(), outside.start)?;
            }
        }
        Ok(())
    }

    /// The body's frames that lie whole in it; the first read from a package's end often holds some.
    fn frames<'a>(&'a self, index: &'a BlindIndex) -> impl Iterator<Item = (u64, &'a [u8])> {
        let frames = (0..index.body_frames()).rev().map(|frame| (frame, index.frame_range(frame)));
        frames.take_while(|(_, range)| range.start >= self.offset).filter_map(|(frame, range)| {
            let [from, to] = [range.start, range.end].map(|at| (at - self.offset) as usize);
            Some((frame, self.bytes.get(from..to)?))
        })
    }
}

/// Judges a root, its bytes and its signature, and brings what opens the package.
pub(super) type RootJudge = Arc<dyn Fn(&Root, &[u8], &Signature) -> Result<Opening, Error> + Send + Sync>;

/// Finds a package that is here already and has the same frames, catalog and table as the one with this root.
pub(super) type Twin = Box<dyn Fn(&Root) -> Option<File> + Send + Sync>;

/// What a reception needs from the node.
pub(super) struct Reception {
    pub(super) package: PackageRef,
    pub(super) link: LinkWatch,
    /// Says when the Subscriber stops.
    pub(super) stop: CancellationToken,
    /// How fast bytes are taken in.
    pub(super) input: Arc<InputPace>,
    pub(super) options: ReceiverOptions,
    /// Judges the root as soon as it is there: signature, signer, and that it is the package the statement names.
    pub(super) judge: RootJudge,
    /// What is here of it under another root is not fetched again.
    pub(super) twin: Twin,
    /// The twin did not turn out to be one.
    pub(super) twin_failed: AtomicBool,
    pub(super) progress: Box<dyn Fn(Progress) + Send + Sync>,
    pub(super) started: Instant,
    /// Hears how many bytes came of it, whatever became of them.
    pub(super) came: Arc<dyn Fn(u64) + Send + Sync>,
    /// What others are served from meanwhile.
    pub(super) live: Arc<Live>,
    /// Whether anything was heard since the machine was told.
    pub(super) heard: AtomicBool,
    /// Who was asked last.
    pub(super) hop: Option<NodeName>,
}

impl Reception {
    fn limits(&self) -> &Limits {
        &self.options.limits
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The bytes of a silence, for streams: the machine counts it too, this one ends a stream that hangs.
    fn patience(&self) -> Duration {
        self.options.silence.duration()
    }

    /// Fetches tail, root, table and catalog, and verifies them.
    pub(super) async fn index(&mut self) -> Result<(AnyIndex, Vec<Piece>), ReceptionError> {
        let mut phase = IndexPhase::new(&self.options, self.now());
        let mut linked = true;
        loop {
            let connection = self.link.borrow_and_update().clone();
            match (&connection, linked) {
                (None, true) => phase.link_down(),
                (Some(_), false) => phase.link_up(self.now()),
                _ => {}
            }
            linked = connection.is_some();
            match (phase.poll(self.now()), connection) {
                (Some(IndexAction::GiveUp(cause)), _) => {
                    return Err(ReceptionError::from(cause).sent_by(self.hop.as_ref()));
                }
                (Some(IndexAction::Attempt), Some(connection)) => {
                    self.hop.clone_from(&connection.peer().name);
                    let attempted = self.attempt_unless_stopped(&connection).await?;
                    if self.heard.swap(false, Ordering::Relaxed) {
                        phase.heard(self.now());
                    }
                    match attempted {
                        Ok(index) => return Ok(index),
                        Err(IndexFailure::Exchange(error)) => phase.failed(failure_of(&error), self.now()),
                        Err(IndexFailure::Damaged(error)) => {
                            tracing::warn!(%error, package = %self.package.id, "the package's index is damaged");
                            phase.bad(self.now());
                        }
                        Err(IndexFailure::Judged(error)) => return Err(ReceptionError::Failed(error)),
                    }
                }
                _ => {
                    let wakeup = phase.next_wakeup(self.now()).map(|at| self.started + at);
                    tokio::select! {
                        () = self.stop.cancelled() => return Err(ReceptionError::Stopping),
                        () = sleep_until_some(wakeup) => {}
                        changed = self.link.changed() => changed.map_err(|_| ReceptionError::Stopping)?,
                    }
                }
            }
        }
    }

    async fn attempt_unless_stopped(
        &self,
        connection: &QuicConnection,
    ) -> Result<Result<(AnyIndex, Vec<Piece>), IndexFailure>, ReceptionError> {
        tokio::select! {
            () = self.stop.cancelled() => Err(ReceptionError::Stopping),
            attempted = self.attempt_index(connection) => Ok(attempted),
        }
    }

    async fn attempt_index(&self, connection: &QuicConnection) -> Result<(AnyIndex, Vec<Piece>), IndexFailure> {
        let limits = self.limits().clone();
        let mut reader = match self.package.carried {
            Carried::Baseline { .. } => IndexReader::new(self.package.bytes, limits)?,
            Carried::Delta { .. } => IndexReader::for_delta(self.package.bytes, limits)?,
        };
        // A parent that is still receiving has the end of the body last.
        if connection.peer().role != PeerRole::Distributor {
            reader = reader.tail_first();
        }
        let mut pieces = vec![];
        let mut twin = None;
        loop {
            match reader.next() {
                Step::Done => break,
                Step::JudgeRoot => {
                    let (Some(root), Some(bytes), Some(signature)) =
                        (reader.root(), reader.root_bytes(), reader.signature())
                    else {
                        return Err(PackageError::Structure { what: "the root is missing" }.into());
                    };
                    let opening = (self.judge)(root, bytes, signature).map_err(IndexFailure::Judged)?;
                    twin = reader.root().filter(|_| !self.twin_failed.load(Ordering::Relaxed)).and_then(&self.twin);
                    reader.open_root(&opening)?;
                }
                // Everything before the root lies where it lies here.
                Step::Read { from, to } if twin.is_some() => {
                    let mut bytes = vec![0; (to - from) as usize];
                    let read = twin.as_ref().is_some_and(|twin| ReadAt::read_exact_at(twin, &mut bytes, from).is_ok());
                    if !read || reader.feed(&bytes).is_err() {
                        self.twin_failed.store(true, Ordering::Relaxed);
                        return Err(IndexFailure::Exchange(ExchangeError::EndsEarly));
                    }
                    pieces.push(Piece { offset: from, bytes });
                }
                Step::Read { from, to } => {
                    let wanted = Fetch { target: FetchTarget::Package(self.package.id), from, to };
                    let fetched = fetch(connection, wanted, self.limits(), self.patience()).await?;
                    fetched.expect_total(self.package.bytes)?;
                    let bytes = self.collect(fetched, to - from).await?;
                    reader.feed(&bytes)?;
                    pieces.push(Piece { offset: from, bytes });
                }
            }
        }
        Ok((reader.finish_any()?, pieces))
    }

    /// The bytes of a Fetch, at most `bytes_max`. Whatever comes, be it that the other side waits itself, is heard.
    async fn collect<R: RecvHalf>(&self, mut fetched: Fetched<R>, bytes_max: u64) -> Result<Vec<u8>, ExchangeError> {
        let mut all = Vec::new();
        loop {
            self.input.ready().await;
            let Some(batch) = fetched.next_batch(self.input.grain(BATCH_BYTES)).await? else { return Ok(all) };
            self.heard.store(true, Ordering::Relaxed);
            (self.came)(batch.iter().map(|bytes| bytes.len() as u64).sum());
            for bytes in batch {
                self.input.took(bytes.len() as u64);
                if all.len() as u64 + bytes.len() as u64 > bytes_max {
                    return Err(ExchangeError::Unexpected);
                }
                all.extend_from_slice(&bytes);
            }
        }
    }

    /// Fetches the body's frames that `map` lacks into `part`, until all are there, synced and vouched for. Those that
    /// came whole with the `pieces` of the index are not fetched again.
    pub(super) async fn body(
        &mut self,
        index: &BlindIndex,
        part: Arc<PartFile>,
        (map, search): (FrameMap, Search),
        pieces: &Arc<Vec<Piece>>,
    ) -> Result<(), ReceptionError> {
        let stored = index.rows().iter().take(index.body_frames() as usize).map(|row| row.stored_bytes);
        let layout = FrameLayout::new(index.body_range().start, stored, self.limits()).map_err(Error::from)?;
        let found = part_frames(index, &part, (&map, search), pieces).await?;
        let reader: Arc<dyn ReadAt> = Arc::new(part.reader()?);
        self.live.laid_out(index.clone(), reader, |frame| map.has(frame) || found.contains(&frame));
        let mut machine = Receiver::new(layout, map, &self.options, self.now()).map_err(Error::from)?;
        for frame in found {
            machine.already_written(frame, self.now());
        }
        let (batches_in, batches) = mpsc::channel(BATCHES_WAITING);
        let (done_in, done) = mpsc::unbounded_channel();
        let mut body = Body {
            index: index.clone(),
            part,
            machine,
            frames: HashMap::new(),
            buffers: vec![],
            fetches: BTreeMap::new(),
            tasks: JoinSet::new(),
            workers: TaskTracker::new(),
            batches_in,
            done_in,
            linked: true,
            live: self.live.clone(),
        };
        let result = self.run(&mut body, batches, done).await;
        body.workers.close();
        body.workers.wait().await;
        result.map_err(|error| error.sent_by(self.hop.as_ref()))
    }

    async fn run(
        &mut self,
        body: &mut Body,
        mut batches: mpsc::Receiver<Batch>,
        mut done: mpsc::UnboundedReceiver<Done>,
    ) -> Result<(), ReceptionError> {
        loop {
            let connection = self.link.borrow_and_update().clone();
            if let Some(connection) = &connection {
                self.hop.clone_from(&connection.peer().name);
            }
            body.follow_link(connection.is_some(), self.now());
            while let Some(action) = body.machine.poll(self.now()) {
                match action {
                    Action::Finish => return Ok(()),
                    Action::GiveUp(cause) => return Err(cause.into()),
                    Action::Fetch { fetch, from, to } => match &connection {
                        Some(connection) => self.open(body, connection.clone(), fetch, from, to),
                        None => body.machine.fetch_failed(fetch, FetchFailure::Broken, self.now()),
                    },
                    action => body.work(action),
                }
            }
            let wakeup = body.machine.next_wakeup(self.now()).map(|at| self.started + at);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(ReceptionError::Stopping),
                Some(event) = done.recv() => body.finished(event, self.now())?,
                Some(batch) = batches.recv(), if body.machine.may_read() => body.arrived(batch, self.now()),
                () = sleep_until_some(wakeup) => {}
                changed = self.link.changed() => changed.map_err(|_| ReceptionError::Stopping)?,
            }
            (self.progress)(body.machine.progress());
        }
    }

    fn open(&self, body: &mut Body, connection: QuicConnection, number: FetchNumber, from: u64, to: u64) {
        let wanted = Fetch { target: FetchTarget::Package(self.package.id), from, to };
        let (limits, patience, batches) = (self.limits().clone(), self.patience(), body.batches_in.clone());
        let (bytes_stated, came, input) = (self.package.bytes, self.came.clone(), self.input.clone());
        let task = body.tasks.spawn(async move {
            let ended = match fetch(&connection, wanted, &limits, patience).await {
                Ok(fetched) => match fetched.expect_total(bytes_stated) {
                    Ok(()) => forward(fetched, number, &batches, (&*came, &input)).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            let last = match ended {
                Ok(()) => Batch::Ended(number),
                Err(error) => Batch::Failed(number, error),
            };
            // The receiver is gone only when the reception is over.
            let _ = batches.send(last).await;
        });
        body.fetches.insert(number, task);
    }
}

/// Hands the bytes of a Fetch on in batches.
async fn forward<R: RecvHalf>(
    mut fetched: Fetched<R>,
    number: FetchNumber,
    batches: &mpsc::Sender<Batch>,
    (came, input): (&(dyn Fn(u64) + Send + Sync), &InputPace),
) -> Result<(), ExchangeError> {
    loop {
        input.ready().await;
        let Some(pieces) = fetched.next_batch(input.grain(BATCH_BYTES)).await? else { return Ok(()) };
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        input.took(bytes);
        came(bytes);
        if batches.send(Batch::Bytes(number, pieces)).await.is_err() {
            return Ok(());
        }
    }
}

/// What comes from a stream.
enum Batch {
    Bytes(FetchNumber, Vec<Bytes>),
    Ended(FetchNumber),
    Failed(FetchNumber, ExchangeError),
}

/// What comes from a worker thread.
enum Done {
    Checked { frame: u64, bytes: Vec<u8>, result: Result<(), FrameError> },
    Written { frame: u64, bytes: Vec<u8>, result: Result<(), FileError> },
    Synced(Result<(), FileError>),
    MapWritten(Result<(), FileError>),
}

struct Body {
    index: BlindIndex,
    part: Arc<PartFile>,
    machine: Receiver,
    /// The bytes of frames that are arriving, or verified and not written yet.
    frames: HashMap<u64, Vec<u8>>,
    buffers: Vec<Vec<u8>>,
    fetches: BTreeMap<FetchNumber, AbortHandle>,
    /// Dropping it ends the streams' readers.
    tasks: JoinSet<()>,
    /// Worker threads that still use the part file.
    workers: TaskTracker,
    batches_in: mpsc::Sender<Batch>,
    done_in: mpsc::UnboundedSender<Done>,
    linked: bool,
    live: Arc<Live>,
}

impl Body {
    fn follow_link(&mut self, linked: bool, now: Duration) {
        match (self.linked, linked) {
            (true, false) => {
                self.machine.link_down();
                for task in std::mem::take(&mut self.fetches).into_values() {
                    task.abort();
                }
            }
            (false, true) => self.machine.link_up(now),
            _ => {}
        }
        self.linked = linked;
    }

    /// Starts what the machine asks for on a worker thread.
    fn work(&mut self, action: Action) {
        let (part, done) = (self.part.clone(), self.done_in.clone());
        match action {
            Action::Cancel { fetch } => {
                if let Some(task) = self.fetches.remove(&fetch) {
                    task.abort();
                }
            }
            Action::Write { frame, offset } => {
                let bytes = self.frames.remove(&frame).unwrap_or_default();
                self.workers.spawn_blocking(move || {
                    let result = part.write_at(&bytes, offset);
                    let _ = done.send(Done::Written { frame, bytes, result });
                });
            }
            Action::SyncData => {
                self.workers.spawn_blocking(move || done.send(Done::Synced(part.sync_data())));
            }
            Action::WriteMap(map) => {
                self.workers.spawn_blocking(move || done.send(Done::MapWritten(part.write_map(&map.encode()))));
            }
            Action::Fetch { .. } | Action::Finish | Action::GiveUp(_) => {}
        }
    }

    /// Puts received bytes where they belong, and has complete frames checked.
    fn arrived(&mut self, batch: Batch, now: Duration) {
        match batch {
            // The other side is alive and waits for bytes itself.
            Batch::Bytes(_, pieces) if pieces.is_empty() => self.machine.heard(now),
            Batch::Bytes(number, pieces) => {
                for piece in pieces {
                    for cut in self.machine.received(number, piece.len(), now) {
                        let buffer = match self.frames.entry(cut.frame) {
                            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                            std::collections::hash_map::Entry::Vacant(entry) => {
                                entry.insert(self.buffers.pop().unwrap_or_default())
                            }
                        };
                        buffer.extend_from_slice(&piece[cut.from..cut.to]);
                        if cut.completes {
                            self.check(cut.frame);
                        }
                    }
                }
            }
            Batch::Ended(number) => {
                self.fetches.remove(&number);
                self.machine.fetch_ended(number, now);
            }
            Batch::Failed(number, error) => {
                self.fetches.remove(&number);
                tracing::debug!(%error, "a fetch failed");
                self.machine.fetch_failed(number, failure_of(&error), now);
            }
        }
    }

    fn check(&mut self, frame: u64) {
        let bytes = self.frames.remove(&frame).unwrap_or_default();
        let Some(row) = self.index.rows().get(frame as usize).copied() else { return };
        let done = self.done_in.clone();
        self.workers.spawn_blocking(move || {
            let result = check_frame(&row, &bytes);
            let _ = done.send(Done::Checked { frame, bytes, result });
        });
    }

    fn finished(&mut self, done: Done, now: Duration) -> Result<(), ReceptionError> {
        match done {
            Done::Checked { frame, bytes, result: Ok(()) } => {
                self.frames.insert(frame, bytes);
                self.machine.frame_good(frame);
            }
            Done::Checked { frame, bytes, result: Err(error) } => {
                tracing::warn!(frame, %error, "a frame is damaged and is fetched again");
                self.recycle(bytes);
                self.machine.frame_bad(frame, now);
            }
            Done::Written { frame, bytes, result } => {
                result?;
                self.recycle(bytes);
                self.live.wrote(frame);
                self.machine.written(frame, now);
            }
            Done::Synced(result) => {
                result?;
                self.machine.synced();
            }
            Done::MapWritten(result) => {
                result?;
                self.machine.map_written();
            }
        }
        Ok(())
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS_KEPT {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

/// How far a part file is searched for frames that its map does not vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// Up to the first that is not right: what a killed process had written and not synced is found, and never the
    /// whole file is read.
    UntilWrong,
    /// Everywhere: of a package that was damaged, all is kept that is right.
    Everywhere,
}

/// The frames that `map` does not vouch for and whose bytes are in `part` all the same, or came with `pieces` and are
/// there now.
async fn part_frames(
    index: &BlindIndex,
    part: &Arc<PartFile>,
    (map, search): (&FrameMap, Search),
    pieces: &Arc<Vec<Piece>>,
) -> Result<Vec<u64>, ReceptionError> {
    let (index, part, map, pieces) = (index.clone(), part.clone(), map.clone(), pieces.clone());
    let searching = move || {
        let (mut found, mut buffer) = (vec![], vec![]);
        for frame in (0..index.body_frames()).filter(|frame| !map.has(*frame)) {
            let row = index.rows()[frame as usize];
            buffer.resize(row.stored_bytes as usize, 0);
            let right = ReadAt::read_exact_at(&*part.file(), &mut buffer, index.frame_range(frame).start).is_ok()
                && check_frame(&row, &buffer).is_ok();
            match (right, search) {
                (true, _) => found.push(frame),
                (false, Search::UntilWrong) => break,
                (false, Search::Everywhere) => {}
            }
        }
        for piece in &*pieces {
            for (frame, bytes) in piece.frames(&index) {
                let row = &index.rows()[frame as usize];
                if !map.has(frame) && !found.contains(&frame) && check_frame(row, bytes).is_ok() {
                    part.write_at(bytes, index.frame_range(frame).start)?;
                    found.push(frame);
                }
            }
        }
        Ok(found)
    };
    tokio::task::spawn_blocking(searching).await.map_err(|_| ReceptionError::Stopping)?
}

/// Why one attempt at the index failed.
enum IndexFailure {
    Exchange(ExchangeError),
    Damaged(PackageError),
    Judged(Error),
}

impl From<ExchangeError> for IndexFailure {
    fn from(error: ExchangeError) -> Self {
        Self::Exchange(error)
    }
}

impl From<PackageError> for IndexFailure {
    fn from(error: PackageError) -> Self {
        match error {
            // Fetching it again brings no key.
            PackageError::Sealed | PackageError::WrongKey => Self::Judged(error.into()),
            error => Self::Damaged(error),
        }
    }
}

fn failure_of(error: &ExchangeError) -> FetchFailure {
    match error {
        ExchangeError::Refused(refused) => FetchFailure::Refused(refused.clone()),
        _ => FetchFailure::Broken,
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
