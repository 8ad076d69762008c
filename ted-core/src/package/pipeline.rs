//! A build's stages: several threads read files into raw frames, several compress, seal and hash them, one writes
//! them in order.
//!
//! The raw bytes of all frames that were begun and not yet written stay within a budget, so memory is bounded
//! whatever the tree and the number of threads. Which thread makes a frame changes nothing about its bytes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::id::Hash;
use crate::security::FrameSealer;

use super::build::BuildError;
use super::content::{ContentHasher, PieceHash};
use super::cuts::{FrameContent, Plan, PlannedFrame};
use super::entry::{AsEntry, Entry, EntryKind};
use super::frame::FrameEncoder;
use super::reuse::Reuse;
use super::source::{Source, SourceError};
use super::table::TableRow;
use super::tar_stream::{append_header, padding};

/// Raw bytes of the frames in flight, for each compressor: the frame it has, the next one, and one being written.
const IN_FLIGHT_BYTES_EACH: u64 = 12 * 1024 * 1024;
/// Raw bytes of the frames in flight at most.
const IN_FLIGHT_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Threads that compress at most. Each has a raw frame, room for its worst case and a zstd context, together about
/// 12 MiB; with what waits for them and for the writer a build stays at about 100 MiB, and at half of that with two.
const COMPRESSORS_MAX: usize = 6;
/// Readers wait for disks and networks, so there are more of them than compressors.
const READERS_EXTRA: usize = 2;
/// Raw frames beyond one for each compressor: those that are being read, and those that wait for a compressor.
const RAW_FRAMES_EXTRA: usize = 4;

/// A frame that is ready to be written.
pub(super) struct MadeFrame {
    pub(super) stored: Vec<u8>,
    pub(super) row: TableRow,
    /// The hashes of the files that lie in it, by entry.
    pub(super) hashes: Vec<(usize, HashedContent)>,
}

/// What a frame tells about a file's hash.
#[derive(Debug, Clone, Copy)]
pub(super) enum HashedContent {
    Whole(Hash),
    Piece { number: u64, hash: PieceHash },
}

/// What every stage needs to know.
pub(super) struct Job<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) entries: &'a [Entry],
    pub(super) plan: &'a Plan,
    pub(super) level: i32,
    pub(super) sealer: Option<&'a FrameSealer>,
    /// What the previous package has of it.
    pub(super) reuse: Option<&'a Reuse<'a>>,
    pub(super) threads: usize,
    pub(super) cancel: &'a AtomicBool,
}

/// Makes every frame of the plan and hands them to `write`, in order.
pub(super) fn run(
    job: &Job<'_>,
    write: &mut dyn FnMut(&PlannedFrame, MadeFrame) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let threads = job.threads.clamp(1, COMPRESSORS_MAX);
    let gate = Gate::new(Budget {
        bytes: (threads as u64 * IN_FLIGHT_BYTES_EACH).min(IN_FLIGHT_BYTES_MAX),
        raw_frames: threads + RAW_FRAMES_EXTRA,
    });
    let (to_compress, raw_frames) = sync_channel::<(usize, Vec<u8>)>(RAW_FRAMES_EXTRA);
    let (to_write, made_frames) = sync_channel::<(usize, MadeFrame)>(threads);
    // Owned by the compressors together: when the last one ends, readers find the other end closed.
    let raw_frames = Arc::new(Mutex::new(raw_frames));
    let written = std::thread::scope(|scope| {
        let _stop = StopOnPanic(&gate);
        for _ in 0..threads + READERS_EXTRA {
            let (gate, to_compress, to_write) = (&gate, to_compress.clone(), to_write.clone());
            scope.spawn(move || gate.guard(|| read_frames(job, gate, &to_compress, &to_write)));
        }
        for _ in 0..threads {
            let (gate, raw_frames, to_write) = (&gate, Arc::clone(&raw_frames), to_write.clone());
            scope.spawn(move || gate.guard(|| compress_frames(job, gate, &raw_frames, &to_write)));
        }
        drop((raw_frames, to_compress, to_write));
        let written = write_frames(job, &gate, made_frames, write);
        if written.is_err() {
            gate.stop(None);
        }
        written
    });
    match gate.take_error() {
        Some(error) => Err(error),
        None => written,
    }
}

/// Reader thread: claims the next frame while the budget allows, and copies it from the previous package for the writer,
/// or reads its files and passes it on.
fn read_frames(
    job: &Job<'_>,
    gate: &Gate,
    to_compress: &SyncSender<(usize, Vec<u8>)>,
    to_write: &SyncSender<(usize, MadeFrame)>,
) -> Result<(), BuildError> {
    while let Some((number, mut raw)) = gate.claim(&job.plan.frames) {
        if job.cancel.load(Ordering::Relaxed) {
            return Err(BuildError::Cancelled);
        }
        let frame = &job.plan.frames[number];
        if let Some(reuse) = job.reuse
            && let Some(copied) = reuse.copy(job.source, (number, frame), job.sealer)?
        {
            gate.give_back(raw);
            if to_write.send((number, copied)).is_err() {
                break;
            }
            continue;
        }
        let mut old = job.reuse.map(Reuse::contents);
        let read = &mut |index: usize, from: u64, room: &mut [u8]| {
            let is_whole = room.len() as u64 == job.entries[index].size;
            if is_whole && old.as_mut().is_some_and(|old| old.read(index, room)) {
                return Ok(());
            }
            read_content(job.source, &job.entries[index], from, room)
        };
        read_frame(read, job.entries, frame, &mut raw)?;
        drop(old);
        if to_compress.send((number, raw)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Fills its last argument with the content of an entry, given by its number, from an offset on.
pub(super) type ReadContent<'a> = dyn FnMut(usize, u64, &mut [u8]) -> Result<(), SourceError> + 'a;

/// Puts a planned frame's raw bytes together; `entries` are those that were planned.
pub(super) fn read_frame(
    read: &mut ReadContent<'_>,
    entries: &[impl AsEntry],
    frame: &PlannedFrame,
    raw: &mut Vec<u8>,
) -> Result<(), SourceError> {
    // The buffer's old bytes need no clearing: every byte of the frame is written below.
    raw.resize(frame.raw_bytes as usize, 0);
    let mut room = Room { raw, filled: 0 };
    match &frame.content {
        FrameContent::End => {}
        FrameContent::Piece { entry, from, content_bytes, .. } => {
            read(*entry, *from, room.take(u64::from(*content_bytes)))?;
        }
        FrameContent::Entries { entries: held, large_header } => {
            let mut header = Vec::new();
            for index in held.clone() {
                let entry = entries[index].entry();
                room.put_header(entry, &mut header);
                if entry.size > 0 {
                    read(index, 0, room.take(entry.size))?;
                    room.take(padding(entry.size)).fill(0);
                }
            }
            if let Some(index) = large_header {
                room.put_header(entries[*index].entry(), &mut header);
            }
        }
    }
    room.rest().fill(0);
    Ok(())
}

/// A frame's raw bytes while they are filled from the front.
struct Room<'a> {
    raw: &'a mut [u8],
    filled: usize,
}

impl Room<'_> {
    fn take(&mut self, bytes: u64) -> &mut [u8] {
        let from = self.filled;
        self.filled += bytes as usize;
        &mut self.raw[from..self.filled]
    }

    fn rest(&mut self) -> &mut [u8] {
        &mut self.raw[self.filled..]
    }

    fn put_header(&mut self, entry: &Entry, header: &mut Vec<u8>) {
        header.clear();
        append_header(entry, header);
        self.take(header.len() as u64).copy_from_slice(header);
    }
}

/// Fills `room` from the source with a file's content from `from` on.
pub(super) fn read_content(source: &dyn Source, entry: &Entry, from: u64, room: &mut [u8]) -> Result<(), SourceError> {
    let mut file = source.open(entry, from)?;
    file.read_exact(room).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => SourceError::Changed { path: entry.path.clone() },
        _ => SourceError::Read { path: entry.path.clone(), source: error },
    })?;
    file.finish()
}

/// Compressor thread: hashes the files of a frame, compresses and seals it, passes it on.
fn compress_frames(
    job: &Job<'_>,
    gate: &Gate,
    raw_frames: &Mutex<Receiver<(usize, Vec<u8>)>>,
    to_write: &SyncSender<(usize, MadeFrame)>,
) -> Result<(), BuildError> {
    let mut encoder = FrameEncoder::new(job.level, job.sealer).map_err(BuildError::Compress)?;
    let mut worst_case = Vec::new();
    loop {
        // The lock is held while waiting; whoever gets a frame lets the next one wait.
        let received = lock(raw_frames).recv();
        let Ok((number, raw)) = received else { return Ok(()) };
        let hashes = hash_contents(job, &job.plan.frames[number], &raw);
        let row = encoder.encode(number as u64, &raw, &mut worst_case).map_err(BuildError::Compress)?;
        gate.give_back(raw);
        // What waits to be written takes no more room than it has bytes.
        let stored = worst_case.as_slice().to_vec();
        if to_write.send((number, MadeFrame { stored, row, hashes })).is_err() {
            return Ok(());
        }
    }
}

fn hash_contents(job: &Job<'_>, frame: &PlannedFrame, raw: &[u8]) -> Vec<(usize, HashedContent)> {
    match &frame.content {
        FrameContent::End => Vec::new(),
        FrameContent::Piece { entry, number, from, content_bytes } => {
            let content = &raw[..*content_bytes as usize];
            let hash = ContentHasher::piece(content, *from, job.entries[*entry].size);
            vec![(*entry, HashedContent::Piece { number: *number, hash })]
        }
        FrameContent::Entries { entries, .. } => entries
            .clone()
            .filter(|&index| job.entries[index].kind == EntryKind::File)
            .map(|index| {
                let size = job.entries[index].size as usize;
                // An empty file has offset 0, which may lie before this frame.
                let from = job.plan.offsets[index].saturating_sub(frame.offset) as usize;
                let content = if size == 0 { &[] } else { &raw[from..from + size] };
                (index, HashedContent::Whole(Hash::of(content)))
            })
            .collect(),
    }
}

/// The calling thread: brings frames back into order and writes them. Takes everything that comes, so that no stage
/// before it waits for a frame that cannot arrive.
fn write_frames(
    job: &Job<'_>,
    gate: &Gate,
    made_frames: Receiver<(usize, MadeFrame)>,
    write: &mut dyn FnMut(&PlannedFrame, MadeFrame) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (number, frame) in made_frames {
        early.insert(number, frame);
        while let Some(frame) = early.remove(&next) {
            let planned = &job.plan.frames[next];
            write(planned, frame)?;
            gate.release(u64::from(planned.raw_bytes));
            next += 1;
        }
    }
    if next == job.plan.frames.len() { Ok(()) } else { Err(BuildError::Cancelled) }
}

/// What may be in flight at once.
struct Budget {
    bytes: u64,
    raw_frames: usize,
}

/// Hands out frames in order, each with a buffer, as long as there is room in the budget.
struct Gate {
    budget: Budget,
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    next: usize,
    in_flight_bytes: u64,
    raw_frames: usize,
    /// Buffers go round: the allocator would keep those that one thread takes and another gives back.
    buffers: Vec<Vec<u8>>,
    stopped: bool,
    error: Option<BuildError>,
}

impl Gate {
    fn new(budget: Budget) -> Self {
        Self { budget, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The next frame to be made, and a buffer for it; waits for room. `None` when all are handed out, or the build
    /// has stopped.
    fn claim(&self, frames: &[PlannedFrame]) -> Option<(usize, Vec<u8>)> {
        let mut state = lock(&self.state);
        loop {
            let frame = frames.get(state.next).filter(|_| !state.stopped)?;
            let bytes = u64::from(frame.raw_bytes);
            let room = state.in_flight_bytes == 0 || state.in_flight_bytes + bytes <= self.budget.bytes;
            if room && state.raw_frames < self.budget.raw_frames {
                state.in_flight_bytes += bytes;
                state.raw_frames += 1;
                state.next += 1;
                return Some((state.next - 1, state.buffers.pop().unwrap_or_default()));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A raw frame is compressed, and its buffer free for another.
    fn give_back(&self, raw: Vec<u8>) {
        let mut state = lock(&self.state);
        state.raw_frames -= 1;
        state.buffers.push(raw);
        drop(state);
        self.changed.notify_one();
    }

    /// A frame is written.
    fn release(&self, bytes: u64) {
        lock(&self.state).in_flight_bytes -= bytes;
        self.changed.notify_all();
    }

    /// Lets no further frame begin; the first error is the build's.
    fn stop(&self, error: Option<BuildError>) {
        let mut state = lock(&self.state);
        state.stopped = true;
        if state.error.is_none() {
            state.error = error;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn guard(&self, work: impl FnOnce() -> Result<(), BuildError>) {
        let _stop = StopOnPanic(self);
        if let Err(error) = work() {
            self.stop(Some(error));
        }
    }

    fn take_error(&self) -> Option<BuildError> {
        lock(&self.state).error.take()
    }
}

/// Stops the build when its thread panics, so that no other one waits for ever.
struct StopOnPanic<'a>(&'a Gate);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(None);
        }
    }
}

/// No lock here is held while anything can panic, so a poisoned one holds good data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
