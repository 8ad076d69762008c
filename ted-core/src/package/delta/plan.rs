//! What a delta's body will hold: frames, what each is compressed against, and how files are put together from them.

use std::sync::atomic::AtomicBool;

use super::super::build::BuildError;
use super::super::content::ContentHasher;
use super::super::entry::AsEntry;
use super::super::source::SourceError;
use super::anchors::Anchors;
use super::build::{RevisionContent, unreadable};
use super::diff::{Diff, DiffContent};
use super::parallel;
use super::resolve::OldRange;
use super::room::Room;
use super::segments::{FileRef, LargeFile, Segment, Stretch, shifted};

/// Ranges in one frame's prefix at most: files of about 1 KiB, and what describes more would outweigh them.
const PREFIX_RANGES_MAX: usize = 4096;
/// Segments before and behind its place that a segment is compressed against, together with that of its place.
pub(super) const WINDOW_SEGMENTS: u64 = 3;

/// A frame of the body.
#[derive(Debug, Default)]
pub(super) struct PlannedFrame {
    /// What it holds, end to end.
    pub(super) pieces: Vec<Piece>,
    pub(super) raw_bytes: u64,
    pub(super) prefix: Vec<OldRange>,
    pub(super) prefix_bytes: u64,
}

/// A range of a new file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// One step in making a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum PlannedOperation {
    Copy(OldRange),
    Body { bytes: u64 },
}

/// The frames of the body, and of each row of the difference the operations that make its content.
#[derive(Debug, Default)]
pub(super) struct DeltaPlan {
    pub(super) frames: Vec<PlannedFrame>,
    pub(super) operations: Vec<Vec<PlannedOperation>>,
}

/// What a plan is made of.
pub(super) struct Planner<'a, O, N> {
    pub(super) old: &'a RevisionContent<'a, O>,
    pub(super) new: &'a RevisionContent<'a, N>,
    pub(super) segment_bytes: u64,
    pub(super) cancel: &'a AtomicBool,
}

impl<O: AsEntry, N: AsEntry> Planner<'_, O, N> {
    /// The plan for `diff`. Large files are read, and their content is found to be what their entries say.
    pub(super) fn plan(&self, diff: &Diff, rooms: &mut [Room]) -> Result<DeltaPlan, BuildError> {
        let mut plan = DeltaPlan::default();
        for row in &diff.rows {
            let operations = match row.content {
                DiffContent::New(counterpart) => self.plan_file((row.new, counterpart), &mut plan.frames, rooms)?,
                DiffContent::Kept | DiffContent::Empty | DiffContent::Same(_) => Vec::new(),
            };
            plan.operations.push(operations);
        }
        Ok(plan)
    }

    fn plan_file(
        &self,
        (new, counterpart): (usize, Option<usize>),
        frames: &mut Vec<PlannedFrame>,
        rooms: &mut [Room],
    ) -> Result<Vec<PlannedOperation>, BuildError> {
        let new = FileRef { number: new, bytes: self.new.entries[new].entry().size };
        let old = counterpart.map(|number| FileRef { number, bytes: self.old.entries[number].entry().size });
        if new.bytes > self.segment_bytes {
            return self.plan_large((new, old), frames, rooms);
        }
        let piece = Piece { file: new.number, offset: 0, bytes: new.bytes };
        let window_bytes = self.segment_bytes * WINDOW_SEGMENTS;
        let prefix = old.map(|old| OldRange { file: old.number, offset: 0, bytes: old.bytes.min(window_bytes) });
        self.put(piece, prefix, frames);
        Ok(vec![PlannedOperation::Body { bytes: new.bytes }])
    }

    fn plan_large(
        &self,
        (new, old): (FileRef, Option<FileRef>),
        frames: &mut Vec<PlannedFrame>,
        rooms: &mut [Room],
    ) -> Result<Vec<PlannedOperation>, BuildError> {
        let file = LargeFile {
            segment_bytes: self.segment_bytes,
            new,
            new_files: self.new.files,
            old,
            old_files: self.old.files,
        };
        let path = || &self.new.entries[new.number].entry().path;
        let old_path = || old.map_or_else(path, |old| &self.old.entries[old.number].entry().path);
        let old_segments = old.map_or(0, |old| file.segments(old.bytes));
        let anchors = parallel::map(rooms, old_segments, self.cancel, |room, segment| {
            file.old_anchors(room, segment).map_err(|error| unreadable(old_path(), error))
        })?;
        let anchors = Anchors::new(anchors.concat());
        let segments = parallel::map(rooms, file.segments(new.bytes), self.cancel, |room, segment| {
            file.compare(room, segment, &anchors).map_err(|error| unreadable(path(), error))
        })?;
        let mut hasher = ContentHasher::new(new.bytes, self.segment_bytes);
        segments.iter().zip(0..).for_each(|(segment, number)| hasher.add(number, segment.hash));
        if hasher.finish() != Some(self.new.entries[new.number].entry().content) {
            return Err(SourceError::Changed { path: path().clone() }.into());
        }
        Ok(self.put_segments(new, old, &segments, frames))
    }

    fn put_segments(
        &self,
        new: FileRef,
        old: Option<FileRef>,
        segments: &[Segment],
        frames: &mut Vec<PlannedFrame>,
    ) -> Vec<PlannedOperation> {
        let mut operations = Vec::new();
        // A segment without anchors most likely was where the one before it was.
        let mut shift = 0;
        for segment in segments {
            shift = segment.shift.unwrap_or(shift);
            for stretch in &segment.stretches {
                if let (Some(copy), Some(old)) = (stretch.copy, old) {
                    let offset = stretch.from.wrapping_add_signed(copy);
                    push_copy(&mut operations, OldRange { file: old.number, offset, bytes: stretch.bytes });
                } else {
                    let prefix = old.and_then(|old| self.window(stretch, shift, old));
                    self.put(Piece { file: new.number, offset: stretch.from, bytes: stretch.bytes }, prefix, frames);
                    push_body(&mut operations, stretch.bytes);
                }
            }
        }
        operations
    }

    /// The old content around the place where a stretch most likely was: the more of it, the longer the stretch.
    fn window(&self, stretch: &Stretch, shift: i64, old: FileRef) -> Option<OldRange> {
        let margin = (stretch.bytes * 4).clamp(self.segment_bytes / 64, self.segment_bytes);
        let place = shifted(stretch.from..stretch.from + stretch.bytes, shift, old.bytes);
        let (from, to) = (place.start.saturating_sub(margin), old.bytes.min(place.end + margin));
        (from < to).then_some(OldRange { file: old.number, offset: from, bytes: to - from })
    }

    /// Puts a piece of at most a segment, with a prefix of at most a window, into the open frame, or into a new one.
    fn put(&self, piece: Piece, prefix: Option<OldRange>, frames: &mut Vec<PlannedFrame>) {
        let prefix_bytes = prefix.map_or(0, |prefix| prefix.bytes);
        let fits = frames.last().is_some_and(|frame| {
            frame.raw_bytes + piece.bytes <= self.segment_bytes
                && frame.prefix_bytes + prefix_bytes <= self.segment_bytes * WINDOW_SEGMENTS
                && frame.prefix.len() < PREFIX_RANGES_MAX
        });
        if !fits {
            frames.push(PlannedFrame::default());
        }
        if let Some(frame) = frames.last_mut() {
            frame.pieces.push(piece);
            frame.raw_bytes += piece.bytes;
            prefix.into_iter().for_each(|prefix| frame.add_prefix(prefix));
        }
    }
}

impl PlannedFrame {
    /// Adds a range, or makes the last one longer where they touch.
    fn add_prefix(&mut self, range: OldRange) {
        match self.prefix.last_mut() {
            Some(last)
                if last.file == range.file
                    && last.offset <= range.offset
                    && range.offset <= last.offset + last.bytes =>
            {
                let bytes = last.bytes.max(range.offset + range.bytes - last.offset);
                self.prefix_bytes += bytes - last.bytes;
                last.bytes = bytes;
            }
            _ => {
                self.prefix_bytes += range.bytes;
                self.prefix.push(range);
            }
        }
    }
}

fn push_copy(operations: &mut Vec<PlannedOperation>, range: OldRange) {
    match operations.last_mut() {
        Some(PlannedOperation::Copy(last)) if last.offset + last.bytes == range.offset => last.bytes += range.bytes,
        _ => operations.push(PlannedOperation::Copy(range)),
    }
}

fn push_body(operations: &mut Vec<PlannedOperation>, more: u64) {
    match operations.last_mut() {
        Some(PlannedOperation::Body { bytes }) => *bytes += more,
        _ => operations.push(PlannedOperation::Body { bytes: more }),
    }
}
