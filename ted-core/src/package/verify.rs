//! Checks a whole body: every frame, every file, the operator's digest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::body::{ReadAt, read_stored};
use super::content::ContentHasher;
use super::digest::{BodyHasher, DigestKind};
use super::entry::CatalogRow;
use super::error::PackageError;
use super::frame::FrameDecoder;
use super::index::{BlindIndex, PackageIndex};

/// Bytes that are read at once for the digest.
const DIGEST_READ_BYTES: u64 = 1024 * 1024;

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Frames of the body that were found good.
    pub frames: u64,
    /// Frames of the body.
    pub frames_total: u64,
}

/// Checks every frame of the body that `index` describes and `source` holds against the table, every file against
/// its BLAKE3 in the catalog, and the body against the root's digest, with this many threads.
///
/// # Errors
/// [`PackageError::Io`], [`PackageError::Frame`], [`PackageError::Content`] or [`PackageError::Digest`]: the first
/// that was met.
pub fn verify_body(
    index: &PackageIndex,
    source: &dyn ReadAt,
    threads: usize,
    progress: &(dyn Fn(VerifyProgress) + Sync),
) -> Result<(), PackageError> {
    Verifier::new(index, Some(index), source, progress).run(threads)
}

/// Checks every frame of the body against the table, and the body against the root's digest, with this many threads:
/// all that can be said about a sealed body without its key.
///
/// # Errors
/// [`PackageError::Io`], [`PackageError::Frame`] or [`PackageError::Digest`]: the first that was met.
pub fn verify_frames(
    index: &BlindIndex,
    source: &dyn ReadAt,
    threads: usize,
    progress: &(dyn Fn(VerifyProgress) + Sync),
) -> Result<(), PackageError> {
    Verifier::new(index, None, source, progress).run(threads)
}

struct Verifier<'a> {
    index: &'a BlindIndex,
    /// The same, unless what is sealed stays so.
    opened: Option<&'a PackageIndex>,
    source: &'a dyn ReadAt,
    progress: &'a (dyn Fn(VerifyProgress) + Sync),
    /// Rows that have content, by offset.
    contents: Vec<&'a CatalogRow>,
    /// Large files of which some frames are done, by offset.
    large: Mutex<HashMap<u64, ContentHasher>>,
    next: AtomicU64,
    done: AtomicU64,
    stopped: AtomicBool,
    error: Mutex<Option<PackageError>>,
}

impl<'a> Verifier<'a> {
    fn new(
        index: &'a BlindIndex,
        opened: Option<&'a PackageIndex>,
        source: &'a dyn ReadAt,
        progress: &'a (dyn Fn(VerifyProgress) + Sync),
    ) -> Self {
        let catalog = opened.map(PackageIndex::catalog).unwrap_or_default();
        Self {
            index,
            opened,
            source,
            progress,
            contents: catalog.iter().filter(|row| row.entry.size > 0).collect(),
            large: Mutex::default(),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            error: Mutex::default(),
        }
    }

    fn run(self, threads: usize) -> Result<(), PackageError> {
        std::thread::scope(|scope| {
            if self.index.root().digest.kind() != DigestKind::None {
                scope.spawn(|| self.guard(|| self.check_digest()));
            }
            for _ in 1..threads.max(1) {
                scope.spawn(|| self.guard(|| self.check_frames()));
            }
            self.guard(|| self.check_frames());
        });
        match self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn guard(&self, work: impl FnOnce() -> Result<(), PackageError>) {
        if let Err(error) = work() {
            // Where the digest does not match, a frame says which place is damaged, so the frames go on.
            let is_digest = |error: &PackageError| matches!(error, PackageError::Digest);
            if !is_digest(&error) {
                self.stopped.store(true, Ordering::Relaxed);
            }
            let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(is_digest) {
                *first = Some(error);
            }
        }
    }

    fn check_frames(&self) -> Result<(), PackageError> {
        let (mut stored, mut raw, mut decoder) = (Vec::new(), Vec::new(), FrameDecoder::default());
        let frames_total = self.index.body_frames();
        while !self.stopped.load(Ordering::Relaxed) {
            let frame = self.next.fetch_add(1, Ordering::Relaxed);
            if frame >= frames_total {
                break;
            }
            read_stored(self.index, self.source, frame, &mut stored)?;
            if let Some(opened) = self.opened {
                opened.open_frame(&mut decoder, frame, &mut stored, &mut raw)?;
                self.check_contents(frame, &raw)?;
            }
            let frames = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            (self.progress)(VerifyProgress { frames, frames_total });
        }
        Ok(())
    }

    /// Checks the files of one frame. The catalog's judge has seen to it that each lies in one frame, or in frames of
    /// its own.
    fn check_contents(&self, frame: u64, raw: &[u8]) -> Result<(), PackageError> {
        let range = self.index.raw_range(frame);
        let piece_bytes = u64::from(self.index.root().frame_bytes);
        let first = self.contents.partition_point(|row| row.offset + row.entry.size <= range.start);
        for row in self.contents[first..].iter().take_while(|row| row.offset < range.end) {
            let (entry, end) = (&row.entry, row.offset + row.entry.size);
            let from = row.offset.max(range.start);
            let content = &raw[(from - range.start) as usize..(end.min(range.end) - range.start) as usize];
            let piece = ContentHasher::piece(content, from - row.offset, entry.size);
            let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
            let hasher = large.entry(row.offset).or_insert_with(|| ContentHasher::new(entry.size, piece_bytes));
            hasher.add((from - row.offset) / piece_bytes, piece);
            if let Some(hash) = hasher.finish() {
                large.remove(&row.offset);
                if hash != entry.content {
                    return Err(PackageError::Content { path: entry.path.clone() });
                }
            }
        }
        Ok(())
    }

    fn check_digest(&self) -> Result<(), PackageError> {
        check_digest(self.index, self.source, &self.stopped)
    }
}

/// Checks the body against the root's digest, where it has one. A body that was verified frame by frame needs nothing
/// else to be as it was built.
///
/// # Errors
/// [`PackageError::Io`] or [`PackageError::Digest`].
pub fn verify_digest(index: &BlindIndex, source: &dyn ReadAt) -> Result<(), PackageError> {
    match index.root().digest.kind() {
        DigestKind::None => Ok(()),
        _ => check_digest(index, source, &AtomicBool::new(false)),
    }
}

fn check_digest(index: &BlindIndex, source: &dyn ReadAt, stopped: &AtomicBool) -> Result<(), PackageError> {
    let (root, body) = (index.root(), index.body_range());
    let mut hasher = BodyHasher::new(root.digest.kind());
    let mut buffer = Vec::new();
    let mut from = body.start;
    while from < body.end {
        if stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        buffer.resize((body.end - from).min(DIGEST_READ_BYTES) as usize, 0);
        source.read_exact_at(&mut buffer, from).map_err(|source| PackageError::Io { place: "body", source })?;
        hasher.update(&buffer);
        from += buffer.len() as u64;
    }
    if hasher.finish() == root.digest { Ok(()) } else { Err(PackageError::Digest) }
}
