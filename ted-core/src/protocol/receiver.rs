//! Receiving the body of one package: what to fetch, write, sync and vouch for, and when to stop.
//!
//! The machine holds no bytes and does no work. Its driver opens streams, checks frames, writes and syncs, reports
//! what happened, and asks [`Receiver::poll`] what to do. The order that makes a crash harmless lives here: a frame
//! is verified, then written; what is written is synced; only then a map that vouches for it is written.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::limits::Limits;
use crate::protocol::patience::{Patience, Silence};
use crate::protocol::{FrameLayout, FrameMap, MapError, Refused};

/// What one receiver may use and bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverOptions {
    /// The bounds it works within.
    pub limits: Limits,
    /// The connection timeout.
    pub silence: Silence,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self { limits: Limits::DEFAULT, silence: Silence::default() }
    }
}

/// One stream on which a receiver fetches. Numbers are never used twice by one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchNumber(u64);

/// Why a fetch ended before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailure {
    /// The stream or connection broke, was no sequence of blocks, or ended early. It is tried again.
    Broken,
    /// The peer refused, in its answer or in an error block. A retryable refusal is tried again, others end it.
    Refused(Refused),
}

/// Why a receiver stopped before the package was complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GiveUp {
    /// Frames (or the index, where none is named) failed their hashes too often. What was received is kept as
    /// `distfile.corrupt`, a `corrupt` receipt goes up, and the Channel's next firing is awaited.
    Corrupt {
        /// The frame that failed last.
        frame: Option<u64>,
    },
    /// The peer was silent for the connection timeout. What was received stays; the next offer resumes.
    Silence,
    /// The peer has no such package or does not give it out. What was received stays; the next offer resumes.
    Refused(Refused),
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fetch these bytes of the package on a new stream. The first may lie inside a frame whose beginning is kept.
    Fetch {
        /// By which number its events are reported.
        fetch: FetchNumber,
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// Stop this stream; its peer sent more than was asked for.
    Cancel {
        /// Which one.
        fetch: FetchNumber,
    },
    /// Write this verified frame at `offset` of `distfile.part`; then report [`Receiver::written`].
    Write {
        /// Which one.
        frame: u64,
        /// Where.
        offset: u64,
    },
    /// Sync the data of `distfile.part` (every write reported so far); then report [`Receiver::synced`]. Receiving
    /// goes on meanwhile.
    SyncData,
    /// Replace `distfile.part.map` durably by this one; then report [`Receiver::map_written`].
    WriteMap(FrameMap),
    /// All frames are there, synced and vouched for: check the whole and rename it. No action follows.
    Finish,
    /// Stop; drop all streams and frames, and wait for what was given to the disk before the files are touched in
    /// any other way. No action follows, and the map on disk stays true.
    GiveUp(GiveUp),
}

/// Which part of received bytes belongs to which frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The frame.
    pub frame: u64,
    /// Where in the received bytes its part begins and ends.
    pub from: usize,
    /// The byte after it.
    pub to: usize,
    /// Whether the frame is complete with it and wants to be checked.
    pub completes: bool,
}

/// How far a reception is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames that are written.
    pub frames_written: u64,
    /// Frames of the body.
    pub frames: u64,
    /// Stored bytes of the written frames.
    pub bytes_written: u64,
    /// Stored bytes of the body.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameState {
    /// Not here, or only its beginning, and no stream will bring it.
    Missing,
    /// A stream will bring it.
    Requested,
    /// Here, being checked.
    Checking,
    /// Verified, being written.
    Writing,
    /// Written; perhaps synced, perhaps vouched for.
    Written,
}

#[derive(Debug, Clone)]
struct OpenFetch {
    /// The byte that comes next.
    at: u64,
    to: u64,
    /// The frame that it belongs to, and the frame after the last.
    frame: u64,
    frame_end: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Sync {
    Idle,
    /// The data of these frames is being synced.
    Data(Vec<u64>),
    /// The map that vouches for them is being written.
    Map,
}

/// The receiving side of one package's body. `now` is a monotonic time since any fixed moment.
#[derive(Debug, Clone)]
pub struct Receiver {
    layout: FrameLayout,
    /// What is vouched for on disk, or is about to be by the map being written.
    map: FrameMap,
    limits: Limits,
    buffer_bytes_max: u64,
    patience: Patience,
    states: Vec<FrameState>,
    /// No frame below it is missing.
    lowest_missing: u64,
    /// Frames that are missing or requested: what the peer still owes.
    owed: u64,
    /// Bytes that are kept of frames whose end is still to come.
    kept: BTreeMap<u64, u64>,
    fetches: BTreeMap<FetchNumber, OpenFetch>,
    next_fetch: u64,
    failures: BTreeMap<u64, u32>,
    failures_total: u32,
    /// Bytes that were received and are not written yet.
    buffered: u64,
    progress: Progress,
    unsynced: Vec<u64>,
    unsynced_bytes: u64,
    /// When the frames that are written but not synced must be, however few they are.
    sync_by: Option<Duration>,
    sync: Sync,
    actions: VecDeque<Action>,
    ended: bool,
}

impl Receiver {
    /// Goes on from `map`, which is what `distfile.part.map` vouches for (or empty), over a connection that is up.
    ///
    /// # Errors
    /// [`MapError::BadFrames`] if the map is about another number of frames than the layout.
    pub fn new(layout: FrameLayout, map: FrameMap, options: &ReceiverOptions, now: Duration) -> Result<Self, MapError> {
        if map.frames() != layout.frames() {
            return Err(MapError::BadFrames { reason: "the map is about another number of them" });
        }
        let mut progress = Progress { frames: layout.frames(), bytes: layout.total_bytes(), ..Progress::default() };
        let (mut states, mut longest) = (Vec::new(), 0);
        for frame in 0..layout.frames() {
            longest = layout.bytes_of(frame).max(longest);
            states.push(if map.has(frame) { FrameState::Written } else { FrameState::Missing });
            if map.has(frame) {
                progress.frames_written += 1;
                progress.bytes_written += layout.bytes_of(frame);
            }
        }
        let map_missing = map.frames() - map.present();
        // Each stream may keep the beginning of one frame, and one more frame must fit for anything to move.
        let least = longest.saturating_mul(options.limits.fetches_max as u64 + 1);
        Ok(Self {
            layout,
            map,
            buffer_bytes_max: options.limits.receive_buffer_bytes.max(least),
            limits: options.limits.clone(),
            patience: Patience::new(options.silence, now),
            states,
            lowest_missing: 0,
            owed: map_missing,
            kept: BTreeMap::new(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            failures: BTreeMap::new(),
            failures_total: 0,
            buffered: 0,
            progress,
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            sync_by: None,
            sync: Sync::Idle,
            actions: VecDeque::new(),
            ended: false,
        })
    }

    /// The next thing to do; `None` until something happens or [`Receiver::next_wakeup`] comes.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.ended {
            return None;
        }
        if self.wants_bytes() && self.may_read() && self.patience.is_exhausted(now) {
            return self.end(Action::GiveUp(GiveUp::Silence));
        }
        if self.map.is_complete() && self.sync == Sync::Idle {
            return self.end(Action::Finish);
        }
        if self.is_sync_due(now) {
            self.begin_sync();
            return self.actions.pop_front();
        }
        self.open_fetch(now)
    }

    /// When [`Receiver::poll`] has something to say even if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let network = if self.wants_bytes() && self.may_read() { self.patience.deadline(true, now) } else { None };
        let sync = if self.sync == Sync::Idle { self.sync_by } else { None };
        network.into_iter().chain(sync).min()
    }

    /// Whether streams may be read. While not, the disk is behind, and leaving the bytes in the streams slows the
    /// peer down.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.buffered < self.buffer_bytes_max
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The connection is there again.
    pub fn link_up(&mut self, now: Duration) {
        self.patience.link_up(now);
    }

    /// The connection is lost, and all streams with it. The kept beginnings of frames stay.
    pub fn link_down(&mut self) {
        self.patience.link_down();
        while let Some((_, open)) = self.fetches.pop_first() {
            self.release(&open);
        }
    }

    /// The peer answered a fetch, or said in a waiting block that it is alive.
    pub fn heard(&mut self, now: Duration) {
        self.patience.heard(now);
    }

    /// `bytes` more bytes came on a stream. The driver appends them to the frames as the cuts say. No cuts mean that
    /// the bytes are not wanted and are dropped.
    pub fn received(&mut self, fetch: FetchNumber, bytes: usize, now: Duration) -> Vec<Cut> {
        let Some(mut open) = self.fetches.remove(&fetch) else {
            return Vec::new();
        };
        if bytes as u64 > open.to - open.at {
            self.release(&open);
            self.patience.failed(now);
            self.actions.push_back(Action::Cancel { fetch });
            return Vec::new();
        }
        self.patience.heard(now);
        self.buffered += bytes as u64;
        let cuts = self.cut(&mut open, bytes);
        if open.at < open.to {
            self.fetches.insert(fetch, open);
        }
        cuts
    }

    /// A stream ended with an end block. If bytes lack, that counts as broken.
    pub fn fetch_ended(&mut self, fetch: FetchNumber, now: Duration) {
        self.fetch_failed(fetch, FetchFailure::Broken, now);
    }

    /// A fetch failed. One that had delivered all its bytes before cannot fail any more.
    pub fn fetch_failed(&mut self, fetch: FetchNumber, failure: FetchFailure, now: Duration) {
        let Some(open) = self.fetches.remove(&fetch) else {
            return;
        };
        self.release(&open);
        match failure {
            FetchFailure::Refused(refused) if !refused.is_retryable() || refused.waits_for_offer() => {
                let action = self.end(Action::GiveUp(GiveUp::Refused(refused)));
                self.actions.extend(action);
            }
            _ => self.patience.failed(now),
        }
    }

    /// A complete frame has the hash that the table states.
    pub fn frame_good(&mut self, frame: u64) {
        if self.advance(frame, FrameState::Checking, FrameState::Writing) {
            self.actions.push_back(Action::Write { frame, offset: self.layout.range(frame).start });
        }
    }

    /// A complete frame does not have the hash that the table states. The driver has dropped its bytes.
    pub fn frame_bad(&mut self, frame: u64, now: Duration) {
        if !self.advance(frame, FrameState::Checking, FrameState::Missing) {
            return;
        }
        self.unbuffer(frame, now);
        if self.owed == 0 {
            self.patience.pardon(now);
        }
        self.owed += 1;
        self.lowest_missing = self.lowest_missing.min(frame);
        self.failures_total += 1;
        let failures = self.failures.entry(frame).or_default();
        *failures += 1;
        if *failures >= self.limits.frame_failures_max || self.failures_total >= self.limits.package_failures_max {
            let action = self.end(Action::GiveUp(GiveUp::Corrupt { frame: Some(frame) }));
            self.actions.extend(action);
        }
    }

    /// A verified frame was written.
    pub fn written(&mut self, frame: u64, now: Duration) {
        if self.advance(frame, FrameState::Writing, FrameState::Written) {
            self.unbuffer(frame, now);
            self.progress.frames_written += 1;
            self.progress.bytes_written += self.layout.bytes_of(frame);
            self.unsynced.push(frame);
            self.unsynced_bytes += self.layout.bytes_of(frame);
            self.sync_by.get_or_insert(now + Duration::from_secs(self.limits.sync_interval_seconds));
        }
    }

    /// A frame that the map does not vouch for was found in `distfile.part` all the same and verified: what a killed
    /// process had written and not synced. To be told before the first [`Receiver::poll`].
    pub fn already_written(&mut self, frame: u64, now: Duration) {
        if self.advance(frame, FrameState::Missing, FrameState::Writing) {
            self.buffered += self.layout.bytes_of(frame);
            self.written(frame, now);
        }
    }

    /// The sync that [`Action::SyncData`] demanded is done: what was written before it began may be vouched for.
    pub fn synced(&mut self) {
        if self.ended || !matches!(self.sync, Sync::Data(_)) {
            return;
        }
        if let Sync::Data(frames) = std::mem::replace(&mut self.sync, Sync::Map) {
            for frame in frames {
                self.map.insert(frame);
            }
            self.actions.push_back(Action::WriteMap(self.map.clone()));
        }
    }

    /// The map is durable.
    pub fn map_written(&mut self) {
        if self.sync == Sync::Map {
            self.sync = Sync::Idle;
        }
    }

    fn end(&mut self, last: Action) -> Option<Action> {
        self.actions.clear();
        self.fetches.clear();
        self.ended = true;
        Some(last)
    }

    fn wants_bytes(&self) -> bool {
        self.owed > 0
    }

    fn state(&self, frame: u64) -> Option<FrameState> {
        usize::try_from(frame).ok().and_then(|frame| self.states.get(frame).copied())
    }

    fn set(&mut self, frame: u64, state: FrameState) {
        if let Some(slot) = usize::try_from(frame).ok().and_then(|frame| self.states.get_mut(frame)) {
            *slot = state;
        }
    }

    /// Moves a frame from one state to the next; events about a frame in any other state change nothing.
    fn advance(&mut self, frame: u64, from: FrameState, to: FrameState) -> bool {
        let moves = !self.ended && self.state(frame) == Some(from);
        if moves {
            self.set(frame, to);
        }
        moves
    }

    fn unbuffer(&mut self, frame: u64, now: Duration) {
        let paused = !self.may_read();
        self.buffered = self.buffered.saturating_sub(self.layout.bytes_of(frame));
        if paused && self.may_read() {
            self.patience.pardon(now);
        }
    }

    fn cut(&mut self, open: &mut OpenFetch, bytes: usize) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut from = 0;
        while from < bytes {
            let frame = open.frame;
            let range = self.layout.range(frame);
            let count = (range.end - open.at).min((bytes - from) as u64);
            let completes = open.at + count == range.end;
            let to = from + count as usize;
            cuts.push(Cut { frame, from, to, completes });
            from = to;
            open.at += count;
            if completes {
                self.kept.remove(&frame);
                self.set(frame, FrameState::Checking);
                self.owed -= 1;
                open.frame += 1;
            } else {
                self.kept.insert(frame, open.at - range.start);
            }
        }
        cuts
    }

    /// A stream will bring no more: what it had not completed is missing again.
    fn release(&mut self, open: &OpenFetch) {
        for frame in open.frame..open.frame_end {
            self.set(frame, FrameState::Missing);
        }
        self.lowest_missing = self.lowest_missing.min(open.frame);
    }

    fn open_fetch(&mut self, now: Duration) -> Option<Action> {
        if self.fetches.len() >= self.limits.fetches_max || !self.may_read() || !self.patience.may_ask(now) {
            return None;
        }
        let frame = self.first_to_fetch()?;
        let mut frame_end = frame + 1;
        while self.state(frame_end) == Some(FrameState::Missing) && !self.kept.contains_key(&frame_end) {
            frame_end += 1;
        }
        for requested in frame..frame_end {
            self.set(requested, FrameState::Requested);
        }
        let at = self.layout.range(frame).start + self.kept.get(&frame).copied().unwrap_or(0);
        let to = self.layout.range(frame_end - 1).end;
        let fetch = FetchNumber(self.next_fetch);
        self.next_fetch += 1;
        self.fetches.insert(fetch, OpenFetch { at, to, frame, frame_end });
        Some(Action::Fetch { fetch, from: at, to })
    }

    /// Frames whose beginning is kept come first, so that no more beginnings are kept than streams are allowed.
    fn first_to_fetch(&mut self) -> Option<u64> {
        let kept = self.kept.keys().copied().find(|frame| self.state(*frame) == Some(FrameState::Missing));
        if kept.is_some() {
            return kept;
        }
        while self.state(self.lowest_missing).is_some_and(|state| state != FrameState::Missing) {
            self.lowest_missing += 1;
        }
        self.state(self.lowest_missing).map(|_| self.lowest_missing)
    }

    fn is_sync_due(&self, now: Duration) -> bool {
        if self.sync != Sync::Idle || self.unsynced.is_empty() {
            return false;
        }
        self.unsynced_bytes >= self.limits.sync_interval_bytes
            || self.progress.frames_written == self.progress.frames
            || !self.patience.is_linked()
            || self.sync_by.is_some_and(|at| now >= at)
    }

    fn begin_sync(&mut self) {
        self.sync = Sync::Data(std::mem::take(&mut self.unsynced));
        self.unsynced_bytes = 0;
        self.sync_by = None;
        self.actions.push_back(Action::SyncData);
    }
}

/// The bytes of the frames that a [`Receiver`] has asked for and that are not complete yet.
///
/// It lives beside the receiver and as long: after a break, the receiver asks from where these bytes end.
#[derive(Debug, Default)]
pub struct FrameBuffers {
    begun: BTreeMap<u64, Vec<u8>>,
}

impl FrameBuffers {
    /// Appends `bytes` as the cuts of [`Receiver::received`] say, and gives the frames that are complete now.
    pub fn append(&mut self, layout: &FrameLayout, cuts: &[Cut], bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut complete = Vec::new();
        for cut in cuts {
            let part = bytes.get(cut.from..cut.to).unwrap_or_default();
            let whole = usize::try_from(layout.bytes_of(cut.frame)).unwrap_or_default();
            let buffer = self.begun.entry(cut.frame).or_insert_with(|| Vec::with_capacity(whole));
            buffer.extend_from_slice(part);
            if cut.completes {
                complete.extend(self.begun.remove_entry(&cut.frame));
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests;
