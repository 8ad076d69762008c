//! What a baseline takes from the one before it: whole frames as they are stored, and the content of unchanged files
//! whose frame has to be made anew. Nothing is taken that is not what the old table says.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::Hash;
use crate::security::FrameSealer;

use super::body::{ReadAt, read_stored};
use super::build::{BuildError, BuildOptions};
use super::catalog::same_attributes;
use super::cuts::{FrameContent, Plan, PlannedFrame};
use super::entry::{CatalogRow, Entry, EntryKind};
use super::error::PackageError;
use super::frame::FrameDecoder;
use super::index::PackageIndex;
use super::pipeline::{HashedContent, MadeFrame};
use super::remake::{RemakeError, make_frame};
use super::root::PackageKind;
use super::source::{Source, SourceError};
use super::table::TableRow;

/// The baseline before the one that is built, sealed or not.
pub struct Previous<'a> {
    /// It, opened.
    pub index: &'a PackageIndex,
    /// Its file.
    pub package: &'a dyn ReadAt,
    /// For each entry that is built, in order: whether it is a file whose content is sure to be that of the entry of the
    /// same path in the package. Such a file is not read; what is missing at the end counts as false.
    pub unchanged: &'a [bool],
}

/// What came of taking from the previous baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reused {
    /// Frames of the body that were copied.
    pub frames: u64,
    /// Frames of the previous package that were to be read, and are not what its table says: none of their bytes were
    /// taken.
    pub damaged: Vec<u64>,
}

/// Who takes what from where.
pub(super) struct Reuse<'a> {
    index: &'a PackageIndex,
    package: &'a dyn ReadAt,
    /// Of each entry: the old row that has its content.
    rows: Vec<Option<u32>>,
    /// Of each planned frame: the old frame with the same raw bytes.
    frames: Vec<Option<u64>>,
    /// One for all readers, so that memory does not grow with their number.
    opened: Mutex<OpenedFrame>,
    copied: AtomicU64,
    damaged: Mutex<BTreeSet<u64>>,
}

/// The old frame that was opened last.
#[derive(Default)]
struct OpenedFrame {
    frame: Option<u64>,
    stored: Vec<u8>,
    raw: Vec<u8>,
    decoder: FrameDecoder,
}

impl<'a> Reuse<'a> {
    /// What `previous` has of `plan`. Nothing if it was cut or compressed in another way.
    pub(super) fn new(previous: &Previous<'a>, entries: &[Entry], plan: &Plan, options: &BuildOptions) -> Option<Self> {
        let (index, root) = (previous.index, previous.index.root());
        let same_way =
            (root.kind, root.level, root.frame_bytes) == (PackageKind::Baseline, options.level, options.frame_bytes);
        let old_plan = same_way.then(|| Plan::of(index.catalog(), root.frame_bytes))?;
        if !is_cut_by(index, &old_plan) {
            return None;
        }
        let pairs = pairs(index.catalog(), entries);
        let matching = Matching { old: index.catalog(), new: entries, pairs, unchanged: previous.unchanged };
        let frames = matching.frames(plan, &old_plan);
        let rows = (0..entries.len()).map(|new| matching.pair_with_content(new)).collect();
        Some(Self {
            index,
            package: previous.package,
            rows,
            frames,
            opened: Mutex::default(),
            copied: AtomicU64::new(0),
            damaged: Mutex::default(),
        })
    }

    /// Frame number `number` of the plan out of the previous package, sealed as this one is; `None` if it has to be
    /// made. A damaged piece of a large file is made again from the source, and counts only if it comes out as it was
    /// signed: the other pieces are copied, and the file must not be a mixture.
    pub(super) fn copy(
        &self,
        source: &dyn Source,
        (number, planned): (usize, &PlannedFrame),
        sealer: Option<&FrameSealer>,
    ) -> Result<Option<MadeFrame>, BuildError> {
        let Some(old) = self.frames.get(number).copied().flatten() else { return Ok(None) };
        let mut stored = Vec::new();
        let copied = read_stored(self.index, self.package, old, &mut stored)
            .and_then(|()| self.seal_anew((old, number as u64), sealer, &mut stored));
        let row = match copied {
            Ok(row) => {
                self.copied.fetch_add(1, Ordering::Relaxed);
                row
            }
            Err(_) => {
                lock(&self.damaged).insert(old);
                let FrameContent::Piece { entry, .. } = planned.content else { return Ok(None) };
                let changed = || SourceError::Changed { path: self.row(entry).entry.path.clone() };
                stored = make_frame(self.index, source, old).map_err(|error| match error {
                    RemakeError::Source(error) => error,
                    _ => changed(),
                })?;
                self.seal_anew((old, number as u64), sealer, &mut stored).map_err(|_| changed())?
            }
        };
        Ok(Some(MadeFrame { stored, row, hashes: self.hashes(planned) }))
    }

    /// The same compressed bytes under this package's seal, and their row. Without any seal it is the old row.
    fn seal_anew(
        &self,
        (old, new): (u64, u64),
        sealer: Option<&FrameSealer>,
        stored: &mut Vec<u8>,
    ) -> Result<TableRow, PackageError> {
        let row = *self.index.row(old)?;
        if self.index.sealer().is_none() && sealer.is_none() {
            return Ok(row);
        }
        if let Some(before) = self.index.sealer() {
            before.open(old, stored).map_err(|error| PackageError::Frame { frame: old, source: error.into() })?;
        }
        if let Some(sealer) = sealer {
            sealer.seal(new, stored);
        }
        Ok(TableRow { stored_bytes: stored.len() as u32, hash: Hash::of(stored), ..row })
    }

    /// The hashes of the files that begin in a copied frame.
    fn hashes(&self, planned: &PlannedFrame) -> Vec<(usize, HashedContent)> {
        let whole = |entry: usize| (entry, HashedContent::Whole(self.row(entry).entry.content));
        match &planned.content {
            FrameContent::End => Vec::new(),
            FrameContent::Piece { number, .. } if *number > 0 => Vec::new(),
            FrameContent::Piece { entry, .. } => vec![whole(*entry)],
            FrameContent::Entries { entries, .. } => {
                entries.clone().filter(|&entry| self.rows[entry].is_some()).map(whole).collect()
            }
        }
    }

    /// The old row of an entry whose content it has.
    fn row(&self, entry: usize) -> &CatalogRow {
        let row = self.rows[entry].expect("only asked for entries that have one");
        &self.index.catalog()[row as usize]
    }

    /// Contents for one frame that has to be made.
    pub(super) fn contents(&self) -> OldContents<'_> {
        OldContents { reuse: self, opened: None }
    }

    /// What came of it.
    pub(super) fn finish(self) -> Reused {
        let damaged = self.damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        Reused { frames: self.copied.into_inner(), damaged: damaged.into_iter().collect() }
    }
}

/// Contents of unchanged files for one frame. Others wait from the first one on, so that they do not take the opened
/// frame away between two files.
pub(super) struct OldContents<'a> {
    reuse: &'a Reuse<'a>,
    opened: Option<MutexGuard<'a, OpenedFrame>>,
}

impl OldContents<'_> {
    /// Fills `room` with the whole content of an entry; false if it has to be read from the source.
    pub(super) fn read(&mut self, entry: usize, room: &mut [u8]) -> bool {
        let reuse = self.reuse;
        if reuse.rows[entry].is_none() {
            return false;
        }
        let offset = reuse.row(entry).offset;
        let Some(frame) = reuse.index.frame_at(offset) else { return false };
        if lock(&reuse.damaged).contains(&frame) {
            return false;
        }
        let opened = self.opened.get_or_insert_with(|| lock(&reuse.opened));
        if opened.frame != Some(frame) && opened.open(reuse, frame).is_err() {
            lock(&reuse.damaged).insert(frame);
            return false;
        }
        let from = (offset - reuse.index.raw_range(frame).start) as usize;
        let Some(content) = opened.raw.get(from..).and_then(|rest| rest.get(..room.len())) else { return false };
        room.copy_from_slice(content);
        true
    }
}

impl OpenedFrame {
    fn open(&mut self, reuse: &Reuse<'_>, frame: u64) -> Result<(), PackageError> {
        self.frame = None;
        read_stored(reuse.index, reuse.package, frame, &mut self.stored)?;
        reuse.index.open_frame(&mut self.decoder, frame, &mut self.stored, &mut self.raw)?;
        self.frame = Some(frame);
        Ok(())
    }
}

/// Whether the body is cut as this version cuts.
fn is_cut_by(index: &PackageIndex, plan: &Plan) -> bool {
    let body = index.rows().iter().take(index.body_frames() as usize);
    plan.frames.len() as u64 == index.body_frames()
        && plan.frames.iter().zip(body).all(|(planned, row)| planned.raw_bytes == row.raw_bytes)
        && plan.offsets.iter().zip(index.catalog()).all(|(&offset, row)| offset == row.offset)
}

/// For each new entry, the old row of the same path.
fn pairs(old: &[CatalogRow], new: &[Entry]) -> Vec<Option<u32>> {
    let mut at = 0;
    let pair = |entry: &Entry| {
        while old.get(at).is_some_and(|row| row.entry.path < entry.path) {
            at += 1;
        }
        // A catalog has four million rows at most.
        old.get(at).filter(|row| row.entry.path == entry.path).map(|_| at as u32)
    };
    new.iter().map(pair).collect()
}

/// Old and new entries side by side.
struct Matching<'a> {
    old: &'a [CatalogRow],
    new: &'a [Entry],
    pairs: Vec<Option<u32>>,
    unchanged: &'a [bool],
}

impl Matching<'_> {
    /// The old row of a file that has the same content.
    fn pair_with_content(&self, new: usize) -> Option<u32> {
        let (row, entry) = (self.pairs[new]?, &self.new[new]);
        let old = &self.old[row as usize].entry;
        let unchanged = entry.size == 0 || self.unchanged.get(new).copied().unwrap_or(false);
        let files = old.kind == EntryKind::File && entry.kind == EntryKind::File;
        (files && unchanged && old.size == entry.size).then_some(row)
    }

    /// Whether the header of a new entry is that of its old row.
    fn same_header(&self, new: usize, old: usize) -> bool {
        self.pairs[new] == Some(old as u32) && same_attributes(&self.old[old].entry, &self.new[new])
    }

    fn same_entry(&self, new: usize, old: usize) -> bool {
        self.same_header(new, old) && (self.new[new].kind != EntryKind::File || self.pair_with_content(new).is_some())
    }

    /// For each planned frame, the old one with the same raw bytes.
    fn frames(&self, plan: &Plan, old_plan: &Plan) -> Vec<Option<u64>> {
        let old = OldFrames::of(old_plan);
        plan.frames.iter().map(|frame| self.frame(&frame.content, &old, old_plan)).collect()
    }

    fn frame(&self, content: &FrameContent, old: &OldFrames, old_plan: &Plan) -> Option<u64> {
        match content {
            FrameContent::End => (old_plan.frames.len() as u64).checked_sub(1),
            FrameContent::Piece { entry, number, .. } => {
                let row = self.pair_with_content(*entry)?;
                Some(old.first_pieces.get(&(row as usize))? + number)
            }
            FrameContent::Entries { entries, large_header } => {
                let first = entries.clone().chain(*large_header).next()?;
                let number = *old.entries.get(&(self.pairs[first]? as usize))?;
                let FrameContent::Entries { entries: held, large_header: header } =
                    &old_plan.frames[number as usize].content
                else {
                    return None;
                };
                let mut both = entries.clone().zip(held.clone());
                let same = entries.len() == held.len()
                    && both.all(|(new, old)| self.same_entry(new, old))
                    && match (large_header, header) {
                        (None, None) => true,
                        (Some(new), Some(old)) => self.same_header(*new, *old),
                        _ => false,
                    };
                same.then_some(number)
            }
        }
    }
}

/// Where the frames of the old plan are.
#[derive(Default)]
struct OldFrames {
    /// By the first entry whose header they hold.
    entries: HashMap<usize, u64>,
    /// By the large file whose content begins in them.
    first_pieces: HashMap<usize, u64>,
}

impl OldFrames {
    fn of(plan: &Plan) -> Self {
        let mut old = Self::default();
        for (number, frame) in (0..).zip(&plan.frames) {
            match &frame.content {
                FrameContent::Entries { entries, large_header } => {
                    if let Some(first) = entries.clone().chain(*large_header).next() {
                        old.entries.insert(first, number);
                    }
                }
                FrameContent::Piece { entry, number: 0, .. } => {
                    old.first_pieces.insert(*entry, number);
                }
                FrameContent::Piece { .. } | FrameContent::End => {}
            }
        }
        old
    }
}

/// Whoever panics while it holds the opened frame has left no number in it that is not true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
