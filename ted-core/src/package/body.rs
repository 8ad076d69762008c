//! Random access to a package's frames.

use std::io;
use std::ops::Range;

use super::error::PackageError;
use super::frame::{FrameDecoder, check_frame};
use super::index::{BlindIndex, PackageIndex};

/// Bytes that can be read from any place, by many threads at once.
pub trait ReadAt: Send + Sync {
    /// How many there are.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` with the bytes from `offset`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] when there are not enough.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset).ok().and_then(|from| self.get(from..)?.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

impl ReadAt for bytes::Bytes {
    fn size(&self) -> io::Result<u64> {
        self.as_ref().size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_ref().read_exact_at(buf, offset)
    }
}

/// The raw frames of a body, in any order, by many threads at once.
pub trait RawFrames: Sync {
    /// How many there are.
    fn body_frames(&self) -> u64;

    /// Which raw bytes of the body frame number `frame` is; an empty range beyond the last.
    fn raw_range(&self, frame: u64) -> Range<u64>;

    /// Reads, checks, opens and decompresses frame number `frame` into `out`, whose old bytes are dropped.
    ///
    /// # Errors
    /// [`PackageError::Io`], [`PackageError::Frame`], or [`PackageError::Structure`] beyond the last frame.
    fn read_raw(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError>;
}

/// The body of the package that an index describes and `source` holds. Every frame is checked as it is read.
pub struct BodyReader<'a> {
    index: PackageIndex,
    source: &'a dyn ReadAt,
}

impl<'a> BodyReader<'a> {
    /// A reader of the body that `index` describes.
    #[must_use]
    pub fn new(index: PackageIndex, source: &'a dyn ReadAt) -> Self {
        Self { index, source }
    }

    /// Reads and checks frame number `frame`, a row of the table, into `out`, whose old bytes are dropped.
    ///
    /// # Errors
    /// [`PackageError::Io`], [`PackageError::Frame`], or [`PackageError::Structure`] beyond the last row.
    pub fn read_stored(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError> {
        read_stored(&self.index, self.source, frame, out)
    }
}

impl RawFrames for BodyReader<'_> {
    fn body_frames(&self) -> u64 {
        self.index.body_frames()
    }

    fn raw_range(&self, frame: u64) -> Range<u64> {
        self.index.raw_range(frame)
    }

    fn read_raw(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError> {
        if frame >= self.index.body_frames() {
            return Err(PackageError::Structure { what: "there is no such frame" });
        }
        let mut stored = Vec::new();
        self.read_stored(frame, &mut stored)?;
        self.index.open_frame(&mut FrameDecoder::default(), frame, &mut stored, out)
    }
}

/// Reads frame number `frame`, a row of the table, as it is stored into `out`, whose old bytes are dropped, and checks
/// it. Needs no key.
///
/// # Errors
/// [`PackageError::Io`], [`PackageError::Frame`], or [`PackageError::Structure`] beyond the last row.
pub fn read_stored(index: &BlindIndex, source: &dyn ReadAt, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError> {
    let row = index.row(frame)?;
    out.resize(row.stored_bytes as usize, 0);
    let from = index.frame_range(frame).start;
    source.read_exact_at(out, from).map_err(|source| PackageError::Io { place: "body", source })?;
    check_frame(row, out).map_err(|source| PackageError::Frame { frame, source })
}
