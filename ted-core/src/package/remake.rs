//! Making single frames of a baseline again from its source: what repairs a Distributor's own copy.

use crate::codec::CodecError;
use crate::error::Coded;

use super::build::BuildError;
use super::cuts::Plan;
use super::entry::Entry;
use super::frame::{FrameEncoder, check_frame};
use super::index::PackageIndex;
use super::pipeline::{Job, read_frame};
use super::root::{PackageKind, Suite};
use super::source::Source;

/// Why a frame was not made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemakeError {
    /// The source does not give the bytes that were signed.
    #[error("the source does not give frame {frame} as it was signed")]
    Differs {
        /// Which frame.
        frame: u64,
    },
    /// The package is not one whose frames this version can make.
    #[error("this version does not make {what} again")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// The source cannot be read, or a frame not be compressed.
    #[error("a frame cannot be made again")]
    Build(#[from] BuildError),
}

impl Coded for RemakeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Differs { .. } => "TED-1534",
            Self::Unsupported { .. } => "TED-1535",
            Self::Build(inner) => inner.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Build(inner) if inner.is_retryable())
    }
}

impl From<CodecError> for RemakeError {
    fn from(error: CodecError) -> Self {
        Self::Build(error.into())
    }
}

/// Makes frames of one package's body again. What it makes is what the table says, or an error.
pub struct Remaker<'a> {
    source: &'a dyn Source,
    index: &'a PackageIndex,
    entries: Vec<Entry>,
    plan: Plan,
    encoder: FrameEncoder,
    cancel: std::sync::atomic::AtomicBool,
}

impl<'a> Remaker<'a> {
    /// A maker of the frames of the package that `index` describes, from `source`, which has been listed.
    ///
    /// # Errors
    /// [`RemakeError::Unsupported`]; [`RemakeError::Differs`] when the entries are cut in another way today.
    pub fn new(source: &'a dyn Source, index: &'a PackageIndex) -> Result<Self, RemakeError> {
        let root = index.root();
        if root.kind != PackageKind::Baseline {
            return Err(RemakeError::Unsupported { what: "deltas" });
        }
        if root.suite != Suite::None {
            return Err(RemakeError::Unsupported { what: "sealed packages" });
        }
        let entries: Vec<Entry> = index.catalog().iter().map(|row| row.entry.clone()).collect();
        let plan = Plan::of(&entries, root.frame_bytes);
        let cut_alike = plan.frames.len() as u64 == index.body_frames()
            && plan.frames.iter().zip(index.rows()).all(|(planned, row)| planned.raw_bytes == row.raw_bytes);
        if !cut_alike {
            return Err(RemakeError::Differs { frame: 0 });
        }
        let encoder = FrameEncoder::new(root.level).map_err(BuildError::Compress)?;
        Ok(Self { source, index, entries, plan, encoder, cancel: false.into() })
    }

    /// The stored bytes of frame number `frame` of the body.
    ///
    /// # Errors
    /// [`RemakeError::Differs`] when they are not those that were signed; [`RemakeError::Build`] when the source cannot
    /// be read.
    pub fn make(&mut self, frame: u64) -> Result<Vec<u8>, RemakeError> {
        let differs = RemakeError::Differs { frame };
        let number = usize::try_from(frame).unwrap_or(usize::MAX);
        let (Some(planned), Some(row)) = (self.plan.frames.get(number), self.index.rows().get(number)) else {
            return Err(differs);
        };
        let job = Job {
            source: self.source,
            entries: &self.entries,
            plan: &self.plan,
            level: self.index.root().level,
            threads: 1,
            cancel: &self.cancel,
        };
        let (mut raw, mut stored) = (Vec::new(), Vec::new());
        match read_frame(&job, planned, &mut raw) {
            Err(BuildError::Source(error)) if error.is_retryable() => return Err(differs),
            read => read?,
        }
        self.encoder.encode(&raw, &mut stored).map_err(BuildError::Compress)?;
        match check_frame(row, &stored) {
            Ok(()) => Ok(stored),
            Err(_) => Err(differs),
        }
    }
}
