//! Contents of files at any place, by their number in an entry list.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::body::{ReadAt, read_stored};
use super::super::entry::AsEntry;
use super::super::error::PackageError;
use super::super::frame::FrameDecoder;
use super::super::index::PackageIndex;
use super::super::source::Source;

/// Decoded frames that [`PackageFiles`] keeps: one for each of two readers that go on where they were.
const FRAMES_KEPT: usize = 2;

/// The contents of one revision's files. Many threads read at once.
pub trait Files: Sync {
    /// Fills `buf` with the content of entry number `file` of the revision's entry list, from `offset`.
    ///
    /// # Errors
    /// What keeps it from that; [`io::ErrorKind::UnexpectedEof`] when there are not enough bytes.
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// The files of a baseline. Every frame is checked as it is read, and those that were asked for in part stay decoded
/// until the next ones are. One frame is decoded at a time, so that memory does not grow with the number of readers.
pub struct PackageFiles<'a> {
    index: PackageIndex,
    source: &'a dyn ReadAt,
    frames: Mutex<Frames>,
}

#[derive(Default)]
struct Frames {
    decoder: FrameDecoder,
    stored: Vec<u8>,
    kept: [KeptFrame; FRAMES_KEPT],
    /// Goes up by one with each use.
    uses: u64,
}

#[derive(Default)]
struct KeptFrame {
    number: Option<u64>,
    raw: Vec<u8>,
    used: u64,
}

impl<'a> PackageFiles<'a> {
    /// The files of the baseline that `index` describes and `source` holds.
    #[must_use]
    pub fn new(index: PackageIndex, source: &'a dyn ReadAt) -> Self {
        Self { index, source, frames: Mutex::default() }
    }

    /// Fills `room` with what frame number `frame` has from `from` on.
    fn read_frame(&self, frame: u64, from: usize, room: &mut [u8]) -> Result<(), PackageError> {
        let mut frames = lock(&self.frames);
        let frames = &mut *frames;
        frames.uses += 1;
        let place = frames.kept.iter().position(|kept| kept.number == Some(frame));
        if place.is_none() {
            read_stored(&self.index, self.source, frame, &mut frames.stored)?;
            if room.len() as u64 == u64::from(self.index.row(frame)?.raw_bytes) {
                return self.index.open_frame_to(&mut frames.decoder, frame, &mut frames.stored, room);
            }
        }
        let place = place.unwrap_or_else(|| frames.place_for(frame));
        let kept = &mut frames.kept[place];
        kept.used = frames.uses;
        if kept.number != Some(frame) {
            kept.number = None;
            self.index.open_frame(&mut frames.decoder, frame, &mut frames.stored, &mut kept.raw)?;
            kept.number = Some(frame);
        }
        room.copy_from_slice(&kept.raw[from..from + room.len()]);
        Ok(())
    }
}

impl Frames {
    /// The place of the frame before, whose reader has gone on to this one, or the one that was not used for longest.
    fn place_for(&self, frame: u64) -> usize {
        let before = self.kept.iter().position(|kept| kept.number.is_some_and(|number| number + 1 == frame));
        let oldest = || (0..FRAMES_KEPT).min_by_key(|&place| self.kept[place].used).unwrap_or(0);
        before.unwrap_or_else(oldest)
    }
}

impl Files for PackageFiles<'_> {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let row = self.index.catalog().get(file).ok_or(io::ErrorKind::NotFound)?;
        judge_range(row.entry.size, offset, buf.len())?;
        let mut at = row.offset + offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let frame = self.index.frame_at(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            let range = self.index.raw_range(frame);
            let (room, next) = rest.split_at_mut((rest.len() as u64).min(range.end - at) as usize);
            self.read_frame(frame, (at - range.start) as usize, room).map_err(io::Error::other)?;
            at += room.len() as u64;
            rest = next;
        }
        Ok(())
    }
}

/// Nothing panics while the lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of a build's source.
pub struct SourceFiles<'a, E> {
    source: &'a dyn Source,
    entries: &'a [E],
}

impl<'a, E: AsEntry> SourceFiles<'a, E> {
    /// The contents that `source` has for `entries`.
    #[must_use]
    pub fn new(source: &'a dyn Source, entries: &'a [E]) -> Self {
        Self { source, entries }
    }
}

impl<E: AsEntry + Sync> Files for SourceFiles<'_, E> {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let entry = self.entries.get(file).ok_or(io::ErrorKind::NotFound)?.entry();
        judge_range(entry.size, offset, buf.len())?;
        let mut opened = self.source.open(entry, offset).map_err(io::Error::other)?;
        opened.read_exact(buf)?;
        opened.finish().map_err(io::Error::other)
    }
}

fn judge_range(size: u64, offset: u64, bytes: usize) -> io::Result<()> {
    let end = offset.checked_add(bytes as u64);
    if end.is_some_and(|end| end <= size) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
