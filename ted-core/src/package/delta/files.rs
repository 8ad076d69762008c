//! Contents of files at any place, by their number in an entry list.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::body::{BodyReader, RawFrames, ReadAt};
use super::super::entry::AsEntry;
use super::super::error::PackageError;
use super::super::index::PackageIndex;
use super::super::source::Source;

/// Decoded frames that [`PackageFiles`] keeps: a segment's window touches four.
const FRAMES_KEPT: usize = 4;

/// The contents of one revision's files. Many threads read at once.
pub trait Files: Sync {
    /// Fills `buf` with the content of entry number `file` of the revision's entry list, from `offset`.
    ///
    /// # Errors
    /// What keeps it from that; [`io::ErrorKind::UnexpectedEof`] when there are not enough bytes.
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// The files of a baseline. Every frame is checked as it is read, and the last few stay decoded.
pub struct PackageFiles<'a> {
    index: PackageIndex,
    body: BodyReader<'a>,
    decoded: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl<'a> PackageFiles<'a> {
    /// The files of the baseline that `index` describes and `source` holds.
    #[must_use]
    pub fn new(index: PackageIndex, source: &'a dyn ReadAt) -> Self {
        let body = BodyReader::new(index.clone(), source);
        Self { index, body, decoded: Mutex::default() }
    }

    fn frame(&self, frame: u64) -> Result<Arc<Vec<u8>>, PackageError> {
        // Nothing panics while the lock is held.
        let lock = || self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, raw)) = lock().iter().find(|(number, _)| *number == frame) {
            return Ok(Arc::clone(raw));
        }
        let mut raw = Vec::new();
        self.body.read_raw(frame, &mut raw)?;
        let raw = Arc::new(raw);
        let mut decoded = lock();
        decoded.truncate(FRAMES_KEPT - 1);
        decoded.push_front((frame, Arc::clone(&raw)));
        Ok(raw)
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
            let raw = self.frame(frame).map_err(io::Error::other)?;
            let from = (at - range.start) as usize;
            let bytes = rest.len().min(raw.len() - from);
            rest[..bytes].copy_from_slice(&raw[from..from + bytes]);
            rest = &mut rest[bytes..];
            at += bytes as u64;
        }
        Ok(())
    }
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
