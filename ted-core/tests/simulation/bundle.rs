//! A small package: frames of random bytes, and after them an index (a row per frame, the revision, the number of
//! frames) whose hash is the package's id. It stands for the real format, whose reader has its own tests; its frames
//! are judged by the real table rows and the real check.

use ted_core::id::{Hash, PackageId, Revision};
use ted_core::package::TableRow;
use ted_core::protocol::FrameLayout;

use crate::rng::Rng;

const ROW_BYTES: usize = 36;
pub(crate) const FOOTER_BYTES: usize = 16;
const FRAMES_MAX: u64 = 40;
/// No index is longer.
pub(crate) const INDEX_BYTES_MAX: u64 = FRAMES_MAX * ROW_BYTES as u64 + FOOTER_BYTES as u64;

pub(crate) struct Bundle {
    pub(crate) id: PackageId,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Index {
    pub(crate) rows: Vec<TableRow>,
    pub(crate) layout: FrameLayout,
    pub(crate) revision: Revision,
    pub(crate) bytes: Vec<u8>,
}

impl Bundle {
    pub(crate) fn make(revision: Revision, rng: &mut Rng) -> Self {
        let (mut bytes, mut index) = (Vec::new(), Vec::new());
        let frames = rng.below(FRAMES_MAX + 1);
        for _ in 0..frames {
            let length = rng.between(1, 250);
            let frame = rng.bytes(length);
            index.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            index.extend_from_slice(Hash::of(&frame).as_bytes());
            bytes.extend_from_slice(&frame);
        }
        index.extend_from_slice(&revision.number().to_le_bytes());
        index.extend_from_slice(&frames.to_le_bytes());
        let id = PackageId::from_bytes(*blake3::hash(&index).as_bytes());
        bytes.extend_from_slice(&index);
        Self { id, bytes }
    }
}

impl Index {
    /// How many bytes the index has, as its end says.
    pub(crate) fn length(footer: &[u8]) -> Option<u64> {
        let frames = u64::from_le_bytes(*footer.last_chunk::<8>()?);
        (frames <= FRAMES_MAX).then(|| frames * ROW_BYTES as u64 + FOOTER_BYTES as u64)
    }

    /// The index at the end of `tail`, if it is the one of this package of `total` bytes.
    pub(crate) fn read(id: &PackageId, total: u64, tail: &[u8]) -> Option<Self> {
        let length = usize::try_from(Self::length(tail)?).ok()?;
        let frames = (length - FOOTER_BYTES) / ROW_BYTES;
        let bytes = tail.get(tail.len().checked_sub(length)?..)?;
        if blake3::hash(bytes).as_bytes() != id.as_bytes() {
            return None;
        }
        let (rows, footer) = bytes.split_at(frames * ROW_BYTES);
        let rows: Vec<TableRow> = rows.chunks(ROW_BYTES).filter_map(row).collect();
        let lengths = rows.iter().map(|row| row.stored_bytes);
        let layout = FrameLayout::new(0, lengths, &ted_core::limits::Limits::DEFAULT).ok()?;
        let revision = Revision::from_number(u64::from_le_bytes(*footer.first_chunk()?));
        (layout.total_bytes() + length as u64 == total).then(|| Self { rows, layout, revision, bytes: bytes.to_vec() })
    }
}

fn row(bytes: &[u8]) -> Option<TableRow> {
    let (length, hash) = bytes.split_first_chunk::<4>()?;
    let stored_bytes = u32::from_le_bytes(*length);
    Some(TableRow { stored_bytes, raw_bytes: stored_bytes, hash: Hash::from_bytes(*hash.first_chunk()?) })
}
