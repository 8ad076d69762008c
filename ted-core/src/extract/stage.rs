//! Staging: the content of every file that changes is decoded, hashed and written by several threads at once.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::Dir;

use crate::extract::contents::Contents;
use crate::extract::disk::{self, Disk};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::job::{ExtractJob, ExtractPhase, ExtractProgress};
use crate::extract::journal::staged_name;
use crate::extract::judge::{find_row, hard_link_target, judge_places};
use crate::extract::making;
use crate::extract::plan::{Plan, attributes};
use crate::extract::sparse::{self, End};
use crate::extract::step::Step;
use crate::id::Hash;
use crate::package::{CatalogFault, CatalogRow, ContentHasher, FRAME_BYTES, RawFrames};

/// Content that has to be read again is read in pieces of this.
const READ_BYTES: usize = 1024 * 1024;

/// What staging works with.
#[derive(Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) disk: Disk<'a>,
    pub(super) job: &'a ExtractJob<'a>,
    pub(super) plan: &'a Plan,
    pub(super) staging: &'a Dir,
    pub(super) report: &'a (dyn Fn(ExtractProgress) + Sync),
    pub(super) cancel: &'a AtomicBool,
}

/// Refuses content that the body does not hold. Content that is made lies in none.
pub(super) fn judge_body(rows: &[CatalogRow], contents: Contents<'_>) -> Result<(), ExtractError> {
    let Contents::Frames(frames) = contents else { return Ok(()) };
    let last = frames.body_frames().checked_sub(1);
    judge_places(rows, last.map_or(0, |frame| frames.raw_range(frame).end))
}

impl<'a> Stage<'a> {
    /// Writes everything that the plan says is new into the staging folder. `root` is the target.
    pub(super) fn run(self, root: &Arc<Dir>) -> Result<(), ExtractError> {
        self.contents()?;
        for &index in &self.plan.symlinks {
            let entry = &self.job.rows[index].entry;
            let name = staged_name(index as u64);
            self.disk
                .symlink(&entry.link, self.staging, name.as_bytes(), entry.mtime)
                .map_err(|error| ExtractError::io("making the symbolic link", &entry.path, error))?;
        }
        let mut folders = Folders::new(Arc::clone(root), Access::Look, self.job.options.limits.open_folders_max);
        self.plan.hard_links.iter().try_for_each(|&index| self.hard_link(index, &mut folders))
    }

    fn contents(self) -> Result<(), ExtractError> {
        let rows = self.job.rows;
        let (files, empty): (Vec<usize>, Vec<usize>) =
            self.plan.contents.iter().partition(|&&index| rows[index].entry.size > 0);
        let total = ExtractProgress {
            phase: ExtractPhase::Staging,
            bytes: 0,
            bytes_total: files.iter().map(|&index| rows[index].entry.size).sum(),
            entries: empty.len() as u64,
            entries_total: self.plan.contents.len() as u64,
        };
        for index in empty {
            self.whole(index, b"")?;
        }
        match self.job.contents {
            Contents::Frames(frames) => Work::new(self, frames, files, total).run(),
            Contents::Made(contents) => making::run(self, contents, &files, total),
            Contents::None => match files.first() {
                Some(&index) => Err(ExtractError::Content { path: rows[index].entry.path.clone() }),
                None => Ok(()),
            },
        }
    }

    /// A file whose content is all there: it is not even created unless it is right.
    fn whole(self, index: usize, bytes: &[u8]) -> Result<(), ExtractError> {
        let row = &self.job.rows[index];
        if Hash::of(bytes) != row.entry.content {
            return Err(ExtractError::Content { path: row.entry.path.clone() });
        }
        let write = || {
            let file = self.create(index)?;
            if !bytes.is_empty() && sparse::write(self.disk, &file, 0, bytes, row.entry.size)? == End::Hole {
                self.disk.set_length(Step::WriteFile, &file, row.entry.size)?;
            }
            self.close(row, &file)
        };
        write().map_err(|error| ExtractError::io("writing", &row.entry.path, error))
    }

    /// Makes the staged file of an entry.
    pub(super) fn create(self, index: usize) -> io::Result<File> {
        let name = staged_name(index as u64);
        self.disk.create_file(Step::CreateFile, self.staging, name.as_bytes())
    }

    /// Gives a staged file, whole now, what its entry says.
    pub(super) fn close(self, row: &CatalogRow, file: &File) -> io::Result<()> {
        let attributes = attributes(&row.entry, self.job.options.privilege);
        self.disk.set_attributes(Step::SetFile, file, attributes)
    }

    fn hard_link(self, index: usize, folders: &mut Folders<'_>) -> Result<(), ExtractError> {
        let rows = self.job.rows;
        let entry = &rows[index].entry;
        let failed = |error| ExtractError::io("making the hard link", &entry.path, error);
        let name = staged_name(index as u64);
        let Some(at) = hard_link_target(entry).and_then(|target| find_row(rows, &target)) else {
            return Err(ExtractError::refused(&entry.path, CatalogFault::HardLink.into()));
        };
        if self.plan.contents.binary_search(&at).is_ok() || self.plan.symlinks.binary_search(&at).is_ok() {
            let staged = staged_name(at as u64);
            return self.disk.hard_link(self.staging, staged.as_bytes(), self.staging, name.as_bytes()).map_err(failed);
        }
        let target = &rows[at].entry;
        let (parent, target_name) = split(target.path.as_bytes());
        let folder = folders.get(parent).map_err(failed)?;
        self.disk.hard_link(&folder, target_name, self.staging, name.as_bytes()).map_err(failed)?;
        // What was linked is looked at afterwards: between the plan and now it may have become something else.
        let facts = disk::facts_at(self.staging, name.as_bytes()).map_err(failed)?;
        let size = if target.link.is_empty() { target.size } else { target.link.len() as u64 };
        if facts.is_some_and(|facts| facts.mtime == target.mtime && facts.size == size) {
            return Ok(());
        }
        Err(ExtractError::Changed { path: target.path.clone() })
    }
}

/// A file whose content spans frames, so that several threads write it.
struct SharedFile<'a> {
    row: &'a CatalogRow,
    file: File,
    /// Length of its pieces; the format cuts content so that each is a subtree of its hash tree.
    piece_bytes: u64,
    hasher: Mutex<ContentHasher>,
    bytes_left: AtomicU64,
}

impl SharedFile<'_> {
    /// Hashes a piece that is cut as the format cuts it, outside the lock.
    fn hash(&self, offset: u64, bytes: &[u8]) {
        let (size, length) = (self.row.entry.size, bytes.len() as u64);
        let ends = offset + length == size;
        if offset.is_multiple_of(self.piece_bytes)
            && (length == self.piece_bytes || (ends && length < self.piece_bytes))
        {
            let piece = ContentHasher::piece(bytes, offset, size);
            lock(&self.hasher).add(offset / self.piece_bytes, piece);
        }
    }

    /// The hash of the whole. Content that was cut in another way is read again for it.
    fn finish(&self) -> io::Result<Hash> {
        if let Some(hash) = lock(&self.hasher).finish() {
            return Ok(hash);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = 0;
        while offset < self.row.entry.size {
            let length = (self.row.entry.size - offset).min(READ_BYTES as u64) as usize;
            self.file.read_exact_at(&mut buffer[..length], offset)?;
            hasher.update(&buffer[..length]);
            offset += length as u64;
        }
        Ok(hasher.finalize().into())
    }
}

/// What the threads share that take a body's frames.
struct Work<'a> {
    stage: Stage<'a>,
    body: &'a dyn RawFrames,
    /// Files with content, as positions in the list, in the order of the body.
    files: Vec<usize>,
    /// Frames that hold some of it.
    frames: Vec<u64>,
    next: AtomicUsize,
    shared: Mutex<HashMap<usize, Arc<SharedFile<'a>>>>,
    failed: Mutex<Option<ExtractError>>,
    stop: AtomicBool,
    progress: Mutex<ExtractProgress>,
}

impl<'a> Work<'a> {
    fn new(stage: Stage<'a>, body: &'a dyn RawFrames, files: Vec<usize>, progress: ExtractProgress) -> Self {
        Self {
            stage,
            body,
            frames: frames_with(&files, stage.job.rows, body),
            files,
            next: AtomicUsize::new(0),
            shared: Mutex::default(),
            failed: Mutex::default(),
            stop: AtomicBool::new(false),
            progress: Mutex::new(progress),
        }
    }

    fn run(&self) -> Result<(), ExtractError> {
        let wanted = self.stage.job.options.threads;
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if wanted == 0 { processors() } else { wanted }.min(self.frames.len());
        if threads > 1 {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| self.take_frames());
                }
            });
        } else {
            self.take_frames();
        }
        if let Some(error) = lock(&self.failed).take() {
            return Err(error);
        }
        let progress = *lock(&self.progress);
        if progress.entries == progress.entries_total { Ok(()) } else { Err(self.incomplete()) }
    }

    /// Names a file that lacks bytes although every frame was read: the frames leave gaps.
    fn incomplete(&self) -> ExtractError {
        let open = lock(&self.shared);
        let lacks = |&&index: &&usize| {
            let staged = disk::facts_at(self.stage.staging, staged_name(index as u64).as_bytes());
            open.contains_key(&index) || !matches!(staged, Ok(Some(_)))
        };
        let index = self.files.iter().find(lacks).copied().unwrap_or_default();
        ExtractError::Content { path: self.stage.job.rows[index].entry.path.clone() }
    }

    fn take_frames(&self) {
        let mut buffer = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(&frame) = self.frames.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let cancelled = self.stage.cancel.load(Ordering::Relaxed);
            let done = if cancelled { Err(ExtractError::Cancelled) } else { self.frame(frame, &mut buffer) };
            if let Err(error) = done {
                lock(&self.failed).get_or_insert(error);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn frame(&self, frame: u64, buffer: &mut Vec<u8>) -> Result<(), ExtractError> {
        let frames = self.body;
        let rows = self.stage.job.rows;
        frames.read_raw(frame, buffer).map_err(ExtractError::Package)?;
        let range = frames.raw_range(frame);
        let first = self.files.partition_point(|&index| content_end(&rows[index]) <= range.start);
        for &index in &self.files[first..] {
            let row = &rows[index];
            if row.offset >= range.end {
                break;
            }
            let from = row.offset.max(range.start);
            let to = content_end(row).min(range.end);
            let bytes = buffer
                .get((from - range.start) as usize..(to - range.start) as usize)
                .ok_or_else(|| ExtractError::Content { path: row.entry.path.clone() })?;
            if bytes.len() as u64 == row.entry.size {
                self.stage.whole(index, bytes)?;
                self.report(row.entry.size, 1);
            } else {
                self.part(index, from - row.offset, bytes)?;
            }
        }
        Ok(())
    }

    /// A piece of a file that spans frames. Whoever brings the last one checks the whole.
    fn part(&self, index: usize, offset: u64, bytes: &[u8]) -> Result<(), ExtractError> {
        let row = &self.stage.job.rows[index];
        let failed = |error| ExtractError::io("writing", &row.entry.path, error);
        let shared = self.shared_file(index).map_err(failed)?;
        shared.hash(offset, bytes);
        sparse::write(self.stage.disk, &shared.file, offset, bytes, row.entry.size).map_err(failed)?;
        let length = bytes.len() as u64;
        if shared.bytes_left.fetch_sub(length, Ordering::AcqRel) != length {
            self.report(length, 0);
            return Ok(());
        }
        lock(&self.shared).remove(&index);
        if shared.finish().map_err(failed)? != row.entry.content {
            return Err(ExtractError::Content { path: row.entry.path.clone() });
        }
        self.stage.close(row, &shared.file).map_err(failed)?;
        self.report(length, 1);
        Ok(())
    }

    fn shared_file(&self, index: usize) -> io::Result<Arc<SharedFile<'a>>> {
        let mut open = lock(&self.shared);
        if let Some(shared) = open.get(&index) {
            return Ok(Arc::clone(shared));
        }
        let row = &self.stage.job.rows[index];
        let size = row.entry.size;
        let file = self.stage.create(index)?;
        self.stage.disk.set_length(Step::WriteFile, &file, size)?;
        let piece_bytes = piece_bytes(row, self.body);
        let shared = Arc::new(SharedFile {
            row,
            file,
            piece_bytes,
            hasher: Mutex::new(ContentHasher::new(size, piece_bytes)),
            bytes_left: AtomicU64::new(size),
        });
        open.insert(index, Arc::clone(&shared));
        Ok(shared)
    }

    fn report(&self, bytes: u64, entries: u64) {
        let mut progress = lock(&self.progress);
        progress.bytes += bytes;
        progress.entries += entries;
        (self.stage.report)(*progress);
    }
}

/// The frames that hold content of these files, which are in the order of the body.
fn frames_with(files: &[usize], rows: &[CatalogRow], frames: &dyn RawFrames) -> Vec<u64> {
    let mut files = files.iter().map(|&index| &rows[index]).peekable();
    let holds_some = move |frame: &u64| {
        let range = frames.raw_range(*frame);
        while files.next_if(|row| content_end(row) <= range.start).is_some() {}
        files.peek().is_some_and(|row| row.offset < range.end)
    };
    (0..frames.body_frames()).filter(holds_some).collect()
}

/// The length of the pieces that the content of `row` is cut into, judged by the first; a power of two.
fn piece_bytes(row: &CatalogRow, frames: &dyn RawFrames) -> u64 {
    let (mut low, mut high) = (0, frames.body_frames());
    while low < high {
        let middle = low + (high - low) / 2;
        if frames.raw_range(middle).end <= row.offset { low = middle + 1 } else { high = middle }
    }
    let first = frames.raw_range(low).end.saturating_sub(row.offset);
    if first.is_power_of_two() && first >= blake3::CHUNK_LEN as u64 { first } else { u64::from(FRAME_BYTES) }
}

fn content_end(row: &CatalogRow) -> u64 {
    row.offset.saturating_add(row.entry.size)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
