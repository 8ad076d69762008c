//! Making single frames of a body again, for a package whose file was damaged.

use std::io;

use crate::error::Coded;

use super::cuts::Plan;
use super::error::FrameError;
use super::frame::{FrameEncoder, check_frame};
use super::index::PackageIndex;
use super::pipeline::{read_content, read_frame};
use super::source::{Source, SourceError};

/// Why a frame was not made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemakeError {
    /// The source cannot be read, or is no longer what the package was built from.
    #[error("the source of the frame cannot be read")]
    Source(#[from] SourceError),
    /// zstd gave up.
    #[error("the frame cannot be compressed")]
    Compress(#[source] io::Error),
    /// What was made is not what was signed: the source has changed, or zstd has.
    #[error("frame {frame} comes out different from the one that was signed")]
    Differs {
        /// The frame.
        frame: u64,
        /// What differs.
        #[source]
        source: FrameError,
    },
    /// The body has no such frame, or is not cut as this version cuts.
    #[error("frame {frame} is not one that this version makes")]
    NoSuchFrame {
        /// The frame.
        frame: u64,
    },
}

impl Coded for RemakeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Source(inner) => inner.code(),
            Self::Compress(_) => "TED-1020",
            Self::Differs { .. } => "TED-1021",
            Self::NoSuchFrame { .. } => "TED-1022",
        }
    }
}

/// Makes frames of one package's body again. What the package says of itself decides how: entries, level, seal.
pub struct FrameRemaker<'a> {
    index: &'a PackageIndex,
    plan: Plan,
    encoder: FrameEncoder<'a>,
    raw: Vec<u8>,
}

impl<'a> FrameRemaker<'a> {
    /// For the body that `index` describes.
    ///
    /// # Errors
    /// [`RemakeError::Compress`] when zstd cannot be set up.
    pub fn new(index: &'a PackageIndex) -> Result<Self, RemakeError> {
        let root = index.root();
        let encoder = FrameEncoder::new(root.level, index.sealer()).map_err(RemakeError::Compress)?;
        let plan = Plan::of(index.catalog(), root.frame_bytes);
        Ok(Self { index, plan, encoder, raw: Vec::new() })
    }

    /// Makes frame number `frame` of the body again, into `stored`, whose old bytes are dropped.
    ///
    /// # Errors
    /// [`RemakeError`], and then `stored` is empty: a frame that is not exactly the signed one never comes out, least
    /// of all a sealed one, whose nonce another content has used.
    pub fn make(&mut self, source: &dyn Source, frame: u64, stored: &mut Vec<u8>) -> Result<(), RemakeError> {
        let made = self.make_unchecked(source, frame, stored);
        if made.is_err() {
            stored.clear();
        }
        made
    }

    fn make_unchecked(&mut self, source: &dyn Source, frame: u64, stored: &mut Vec<u8>) -> Result<(), RemakeError> {
        let no_such_frame = RemakeError::NoSuchFrame { frame };
        let range = self.index.raw_range(frame);
        let planned = usize::try_from(frame).ok().and_then(|frame| self.plan.frames.get(frame));
        let (Some(planned), Ok(row)) = (planned, self.index.row(frame)) else { return Err(no_such_frame) };
        if self.plan.frames.len() as u64 != self.index.body_frames()
            || (planned.offset, u64::from(planned.raw_bytes)) != (range.start, range.end - range.start)
        {
            return Err(no_such_frame);
        }
        let catalog = self.index.catalog();
        let read = &mut |index: usize, from, room: &mut [u8]| read_content(source, &catalog[index].entry, from, room);
        read_frame(read, catalog, planned, &mut self.raw)?;
        self.encoder.encode(frame, &self.raw, stored).map_err(RemakeError::Compress)?;
        check_frame(row, stored).map_err(|source| RemakeError::Differs { frame, source })
    }
}

/// Makes frame number `frame` of the body that `index` describes again, from `source`: exactly the bytes that were
/// signed, or an error. For many frames a [`FrameRemaker`] is cheaper.
///
/// # Errors
/// [`RemakeError`].
pub fn make_frame(index: &PackageIndex, source: &dyn Source, frame: u64) -> Result<Vec<u8>, RemakeError> {
    let mut stored = Vec::new();
    FrameRemaker::new(index)?.make(source, frame, &mut stored)?;
    Ok(stored)
}
