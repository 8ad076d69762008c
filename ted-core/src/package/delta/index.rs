//! Everything about a delta but its body.

use std::ops::Deref;
use std::sync::Arc;

use crate::codec::{self, CodecError};
use crate::id::{ContentId, Revision};
use crate::limits::Limits;
use crate::security::FrameSealer;

use super::super::error::PackageError;
use super::super::index::BlindIndex;
use super::super::root::{Disclosure, PackageKind};
use super::columns::{BaseList, Columns};

/// A delta without its body, opened. Its parts fit together; what its catalog says is judged by
/// [`resolve`](Self::resolve), against the revision that it goes from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeltaIndex {
    blind: BlindIndex,
    opened: Arc<OpenedDelta>,
}

#[derive(Debug)]
pub(in super::super) struct OpenedDelta {
    pub(in super::super) disclosure: Disclosure,
    pub(in super::super) catalog: DeltaCatalog,
    pub(in super::super) sealer: Option<FrameSealer>,
}

/// The catalog frames of a delta, put together.
#[derive(Debug)]
pub(in super::super) struct DeltaCatalog {
    pub(super) base: BaseList,
    pub(super) columns: Columns,
}

impl DeltaCatalog {
    /// What the first frame of an unsealed catalog holds.
    pub(in super::super) fn first(raw: &[u8]) -> Result<Self, PackageError> {
        let (base, columns) = codec::decode("catalog", raw, raw.len() as u64)?;
        Ok(Self { base, columns })
    }

    /// What the first frame of a sealed catalog holds.
    pub(in super::super) fn first_sealed(raw: &[u8]) -> Result<(Disclosure, Self), PackageError> {
        let (disclosure, base, columns) = codec::decode("catalog", raw, raw.len() as u64)?;
        Ok((disclosure, Self { base, columns }))
    }

    /// The raw bytes of each catalog frame; a sealed one discloses in the first what it is.
    pub(super) fn frames(&self, sealed: Option<&Disclosure>) -> Result<Vec<Vec<u8>>, CodecError> {
        let limit = u64::from(Limits::DEFAULT.frame_raw_bytes_max);
        let stretches = self.columns.stretches();
        let frames = stretches.iter().enumerate().map(|(number, columns)| match (number, sealed) {
            (0, Some(disclosure)) => codec::encode("catalog", &(disclosure, self.base, columns), limit),
            (0, None) => codec::encode("catalog", &(self.base, columns), limit),
            _ => codec::encode("catalog", columns, limit),
        });
        frames.collect()
    }

    /// Takes a later frame.
    pub(in super::super) fn add(&mut self, raw: &[u8]) -> Result<(), PackageError> {
        self.columns.append(codec::decode("catalog", raw, raw.len() as u64)?);
        Ok(())
    }
}

impl DeltaIndex {
    pub(in super::super) fn new(blind: BlindIndex, opened: OpenedDelta) -> Self {
        Self { blind, opened: Arc::new(opened) }
    }

    /// The part of it that needs no key.
    #[must_use]
    pub fn blind(&self) -> &BlindIndex {
        &self.blind
    }

    /// The Distribution's name, and content id and number of entries of the revision that the delta leads to.
    #[must_use]
    pub fn disclosure(&self) -> &Disclosure {
        &self.opened.disclosure
    }

    /// The revision that it goes from.
    #[must_use]
    pub fn base_revision(&self) -> Revision {
        match self.root().kind {
            PackageKind::Delta { base } => base,
            // No index is made for one.
            PackageKind::Baseline => self.root().revision,
        }
    }

    /// The content id of the revision that it goes from.
    #[must_use]
    pub fn base_content(&self) -> ContentId {
        self.opened.catalog.base.content
    }

    pub(super) fn catalog(&self) -> &DeltaCatalog {
        &self.opened.catalog
    }

    pub(super) fn sealer(&self) -> Option<&FrameSealer> {
        self.opened.sealer.as_ref()
    }
}

/// An opened index is a blind one, and more.
impl Deref for DeltaIndex {
    type Target = BlindIndex;

    fn deref(&self) -> &BlindIndex {
        &self.blind
    }
}
