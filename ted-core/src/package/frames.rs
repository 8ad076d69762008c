//! Raw frames: what extraction reads a revision's content through.

use std::ops::Range;

use crate::error::Coded;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The package could not be read.
    #[error("frame {frame} cannot be read")]
    Read {
        /// Which frame.
        frame: u64,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl Coded for PackageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TED-1020",
        }
    }
}

/// The body of a package as the bytes it decodes to, frame by frame, in any order and from several threads.
pub trait RawFrames: Sync {
    /// Frames of the body.
    fn body_frames(&self) -> u64;

    /// Where the decoded bytes of `frame` lie in the raw body.
    fn raw_range(&self, frame: u64) -> Range<u64>;

    /// Puts the decoded bytes of `frame` into `out`, whose old content is dropped.
    ///
    /// # Errors
    /// [`PackageError`] when the frame cannot be read or is not what the table says.
    fn read_raw(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError>;
}
