//! Which frames of a package are on disk: the bitmap beside `distfile.part`, and where the frames lie.
//! Bytes: `docs/protocol.md`, "The map of received frames".

use std::ops::Range;
use std::sync::Arc;

use crate::error::Coded;
use crate::id::{Hash, PackageId};
use crate::limits::Limits;
use crate::package::PackageIndex;

/// Why a map or a layout is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// It does not begin as a map of this version does.
    #[error("this is no map of received frames, or one of another version")]
    NotAMap,
    /// Its length, its bits or its hash are wrong: it was cut off or altered.
    #[error("the map of received frames is damaged")]
    Damaged,
    /// A package has more frames than allowed, one of no length, or ends beyond the largest offset.
    #[error("frames that no package may have: {reason}")]
    BadFrames {
        /// What is wrong with them.
        reason: &'static str,
    },
}

impl Coded for MapError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotAMap => "TED-1360",
            Self::Damaged => "TED-1361",
            Self::BadFrames { .. } => "TED-1362",
        }
    }
}

/// Which body frames of one package are in `distfile.part` for certain: written, and synced before this map was.
///
/// It vouches for the frames' presence, never for their truth: a frame is verified before it is written, and a
/// complete package is verified once more where its digest or a scrub demands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameMap {
    package: PackageId,
    package_bytes: u64,
    frames: u64,
    bits: Vec<u8>,
    present: u64,
}

impl FrameMap {
    const MAGIC: &[u8; 4] = b"TEDM";
    const VERSION: u16 = 1;
    const HEADER_BYTES: usize = 4 + 2 + 2 + 32 + 8 + 8;

    /// A map without any frame, of a package of `package_bytes` bytes with `frames` body frames.
    ///
    /// # Errors
    /// [`MapError::BadFrames`] if there are more frames than [`Limits::table_rows_max`].
    pub fn empty(package: PackageId, package_bytes: u64, frames: u64, limits: &Limits) -> Result<Self, MapError> {
        let bytes = bit_bytes(frames, limits)?;
        Ok(Self { package, package_bytes, frames, bits: vec![0; bytes], present: 0 })
    }

    /// Whether this map is about this package.
    #[must_use]
    pub fn is_of(&self, package: &PackageId, package_bytes: u64, frames: u64) -> bool {
        self.package == *package && self.package_bytes == package_bytes && self.frames == frames
    }

    /// Which package it is about.
    #[must_use]
    pub fn package(&self) -> &PackageId {
        &self.package
    }

    /// Body frames of the package.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many of them are present.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.present
    }

    /// Whether no frame is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.present == self.frames
    }

    /// Whether `frame` is present. A frame that the package does not have is not.
    #[must_use]
    pub fn has(&self, frame: u64) -> bool {
        frame < self.frames && self.bits[(frame / 8) as usize] & (1 << (frame % 8)) != 0
    }

    /// Marks `frame` as present; one that the package does not have changes nothing.
    pub fn insert(&mut self, frame: u64) {
        if frame < self.frames && !self.has(frame) {
            self.bits[(frame / 8) as usize] |= 1 << (frame % 8);
            self.present += 1;
        }
    }

    /// The bytes of `distfile.part.map`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER_BYTES + self.bits.len() + 32);
        bytes.extend_from_slice(Self::MAGIC);
        bytes.extend_from_slice(&Self::VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(self.package.as_bytes());
        bytes.extend_from_slice(&self.package_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.frames.to_le_bytes());
        bytes.extend_from_slice(&self.bits);
        let hash = Hash::of(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// The map that `bytes` hold.
    ///
    /// # Errors
    /// [`MapError`]; the receiver then begins with an empty map.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, MapError> {
        let start = [Self::MAGIC.as_slice(), &Self::VERSION.to_le_bytes(), &[0; 2]].concat();
        let rest = bytes.strip_prefix(start.as_slice()).ok_or(MapError::NotAMap)?;
        let (package, rest) = rest.split_first_chunk::<32>().ok_or(MapError::Damaged)?;
        let (package_bytes, rest) = rest.split_first_chunk::<8>().ok_or(MapError::Damaged)?;
        let (frames, rest) = rest.split_first_chunk::<8>().ok_or(MapError::Damaged)?;
        let (bits, hash) = rest.split_last_chunk::<32>().ok_or(MapError::Damaged)?;
        let frames = u64::from_le_bytes(*frames);
        let spare_bits_are_zero = frames % 8 == 0 || bits.last().is_some_and(|last| last >> (frames % 8) == 0);
        if bits.len() != bit_bytes(frames, limits)?
            || !spare_bits_are_zero
            || Hash::of(&bytes[..bytes.len() - 32]).as_bytes() != hash
        {
            return Err(MapError::Damaged);
        }
        Ok(Self {
            package: PackageId::from_bytes(*package),
            package_bytes: u64::from_le_bytes(*package_bytes),
            frames,
            bits: bits.to_vec(),
            present: bits.iter().map(|byte| u64::from(byte.count_ones())).sum(),
        })
    }
}

fn bit_bytes(frames: u64, limits: &Limits) -> Result<usize, MapError> {
    if frames > limits.table_rows_max {
        return Err(MapError::BadFrames { reason: "there are too many" });
    }
    usize::try_from(frames.div_ceil(8)).map_err(|_| MapError::BadFrames { reason: "there are too many" })
}

/// Where each body frame of a package lies in its file. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameLayout {
    /// The first byte of each frame, and the byte after the last one.
    starts: Arc<[u64]>,
}

impl FrameLayout {
    /// Frames that lie end to end from the byte `first`, with these stored lengths.
    ///
    /// # Errors
    /// [`MapError::BadFrames`] if there are too many, one has no bytes or more than allowed, or they end beyond the
    /// largest offset.
    pub fn new(first: u64, stored: impl IntoIterator<Item = u32>, limits: &Limits) -> Result<Self, MapError> {
        let mut starts = vec![first];
        let mut end = first;
        for bytes in stored {
            if bytes == 0 {
                return Err(MapError::BadFrames { reason: "one has no bytes" });
            }
            if bytes > limits.frame_stored_bytes_max || starts.len() as u64 > limits.table_rows_max {
                return Err(MapError::BadFrames { reason: "there are too many, or one is too long" });
            }
            end = end
                .checked_add(u64::from(bytes))
                .ok_or(MapError::BadFrames { reason: "they end beyond the largest offset" })?;
            starts.push(end);
        }
        Ok(Self { starts: starts.into() })
    }

    /// The body frames of a package.
    ///
    /// # Errors
    /// As [`FrameLayout::new`].
    pub fn of_body(index: &PackageIndex, limits: &Limits) -> Result<Self, MapError> {
        let body = usize::try_from(index.body_frames()).unwrap_or(usize::MAX);
        Self::new(index.frame_range(0).start, index.rows().iter().take(body).map(|row| row.stored_bytes), limits)
    }

    /// How many frames there are.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// The bytes of `frame` in the file; empty for a frame that is not there.
    #[must_use]
    pub fn range(&self, frame: u64) -> Range<u64> {
        let at = |index: u64| usize::try_from(index).ok().and_then(|index| self.starts.get(index).copied());
        match (at(frame), at(frame.saturating_add(1))) {
            (Some(from), Some(to)) => from..to,
            _ => 0..0,
        }
    }

    /// How long `frame` is as stored, in bytes.
    #[must_use]
    pub fn bytes_of(&self, frame: u64) -> u64 {
        let range = self.range(frame);
        range.end - range.start
    }

    /// Stored bytes of all frames.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        match (self.starts.first(), self.starts.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits::DEFAULT;

    fn map(frames: u64, present: &[u64]) -> FrameMap {
        let mut map = FrameMap::empty(PackageId::from_bytes([3; 32]), 1000, frames, &LIMITS).expect("few");
        for frame in present {
            map.insert(*frame);
        }
        map
    }

    #[test]
    fn a_map_comes_back_as_it_was_written() {
        for (frames, present) in
            [(0, vec![]), (1, vec![0]), (7, vec![6]), (8, vec![0, 7]), (9, vec![8]), (1000, vec![1, 500, 999, 1000])]
        {
            let map = map(frames, &present);
            assert_eq!(FrameMap::decode(&map.encode(), &LIMITS), Ok(map.clone()), "{frames}");
            assert_eq!(map.present(), present.iter().filter(|frame| **frame < frames).count() as u64);
            for frame in 0..frames + 9 {
                assert_eq!(map.has(frame), frame < frames && present.contains(&frame));
            }
        }
        assert!(map(0, &[]).is_complete());
        assert!(map(2, &[0, 1]).is_complete());
    }

    #[test]
    fn the_documented_map_has_these_bytes() {
        let bytes = map(10, &[0, 3, 9]).encode();
        assert_eq!(bytes[..8], *b"TEDM\x01\0\0\0");
        assert_eq!(bytes[8..40], [3; 32]);
        assert_eq!(bytes[40..56], [0xe8, 3, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[56..58], [0b1001, 0b10]);
        assert_eq!(bytes.len(), 58 + 32);
    }

    #[test]
    fn every_altered_or_missing_byte_is_noticed() {
        let bytes = map(10, &[0, 3, 9]).encode();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x10;
            assert!(FrameMap::decode(&altered, &LIMITS).is_err(), "byte {at}");
            assert!(FrameMap::decode(&bytes[..at], &LIMITS).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_map_for_too_many_frames_is_refused_unallocated() {
        assert!(FrameMap::empty(PackageId::from_bytes([0; 32]), 0, u64::MAX, &LIMITS).is_err());
        let mut bytes = map(8, &[]).encode();
        bytes[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(FrameMap::decode(&bytes, &LIMITS).is_err());
    }

    #[test]
    fn frames_lie_end_to_end() {
        let layout = FrameLayout::new(12, [5, 1, 7], &LIMITS).expect("valid");
        assert_eq!(
            (0..4).map(|frame| layout.range(frame)).collect::<Vec<_>>(),
            [12..17, 17..18, 18..25, 0..0],
            "the fourth is not there"
        );
        assert_eq!((layout.frames(), layout.total_bytes(), layout.bytes_of(2)), (3, 13, 7));
        assert!(FrameLayout::new(0, [1, 0], &LIMITS).is_err());
        assert!(FrameLayout::new(u64::MAX, [1], &LIMITS).is_err());
        assert!(FrameLayout::new(0, [u32::MAX], &LIMITS).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
            if real && bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"TEDM\x01\0\0\0");
            }
            prop_assert!(FrameMap::decode(&bytes, &LIMITS).is_err());
        }
    }
}
