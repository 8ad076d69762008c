//! The catalog's bytes, and the content id.

use crate::codec;
use crate::id::ContentId;
use crate::limits::Limits;

use super::entry::{CatalogRow, Entry};
use super::error::PackageError;
use super::root::Disclosure;

/// Raw bytes that a catalog frame has at most, unless a single row is longer.
const CATALOG_FRAME_BYTES: usize = 4 * 1024 * 1024;
const COUNT_BYTES: usize = 8;
const OFFSET_BYTES: usize = 8;

/// The raw bytes of each catalog frame (the encoding of a `Vec<CatalogRow>`), and the content id of the entries.
pub(super) fn encode_catalog(rows: &[CatalogRow]) -> Result<(Vec<Vec<u8>>, ContentId), PackageError> {
    let mut frames = Vec::new();
    let mut frame = vec![0; COUNT_BYTES];
    let mut count = 0_u64;
    let mut content = blake3::Hasher::new();
    for row in rows {
        let entry = encode_entry(&row.entry)?;
        content.update(&entry);
        if count > 0 && frame.len() + entry.len() + OFFSET_BYTES > CATALOG_FRAME_BYTES {
            end_frame(&mut frames, &mut frame, &mut count);
        }
        frame.extend_from_slice(&entry);
        frame.extend_from_slice(&row.offset.to_le_bytes());
        count += 1;
    }
    end_frame(&mut frames, &mut frame, &mut count);
    Ok((frames, ContentId::from_bytes(*content.finalize().as_bytes())))
}

fn end_frame(frames: &mut Vec<Vec<u8>>, frame: &mut Vec<u8>, count: &mut u64) {
    frame[..COUNT_BYTES].copy_from_slice(&count.to_le_bytes());
    frames.push(std::mem::replace(frame, vec![0; COUNT_BYTES]));
    *count = 0;
}

/// Puts what a sealed package discloses to those who open it before the rows of the first catalog frame.
pub(super) fn disclose(frames: &mut [Vec<u8>], disclosure: &Disclosure) -> Result<(), PackageError> {
    if let Some(first) = frames.first_mut() {
        first.splice(0..0, codec::encode("disclosure", disclosure, Limits::DEFAULT.root_bytes_max)?);
    }
    Ok(())
}

/// What [`disclose`] wrote, and the rows behind it.
pub(super) fn decode_first_sealed_catalog_frame(raw: &[u8]) -> Result<(Disclosure, Vec<CatalogRow>), PackageError> {
    Ok(codec::decode("catalog", raw, raw.len() as u64)?)
}

/// The rows of one catalog frame.
pub(super) fn decode_catalog_frame(raw: &[u8]) -> Result<Vec<CatalogRow>, PackageError> {
    Ok(codec::decode("catalog", raw, raw.len() as u64)?)
}

/// BLAKE3 of the codec's encodings of `entries`, in path order, one after the other.
///
/// # Errors
/// [`PackageError::Codec`] when an entry is beyond the limits.
pub fn content_id<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<ContentId, PackageError> {
    let mut content = blake3::Hasher::new();
    for entry in entries {
        content.update(&encode_entry(entry)?);
    }
    Ok(ContentId::from_bytes(*content.finalize().as_bytes()))
}

/// The length of an entry's encoding.
pub(super) fn entry_bytes(entry: &Entry) -> u64 {
    const FIXED_BYTES: usize = 8 + 4 + 3 * 4 + 12 + 8 + 8 + 32 + 8;
    let extensions: usize = entry.extensions.iter().map(|(_, bytes)| 2 + 8 + bytes.len()).sum();
    (FIXED_BYTES + entry.path.as_bytes().len() + entry.link.len() + extensions) as u64
}

/// Whether catalog frames of these raw lengths may be decoded.
pub(super) fn judge_catalog_bytes(raw_bytes: u64, limits: &Limits) -> Result<(), PackageError> {
    if raw_bytes > limits.catalog_bytes_max {
        return Err(PackageError::Structure { what: "the catalog is longer than allowed" });
    }
    Ok(())
}

fn encode_entry(entry: &Entry) -> Result<Vec<u8>, PackageError> {
    Ok(codec::encode("entry", entry, u64::from(Limits::DEFAULT.frame_raw_bytes_max))?)
}

/// Whether a source whose entries are `now` is the one that `rows` were built from: same paths, kinds, modes,
/// owners, times, sizes and links. Content is not looked at, so this is as quick as walking the source.
#[must_use]
pub fn same_but_content(rows: &[CatalogRow], now: &[Entry]) -> bool {
    rows.len() == now.len() && rows.iter().zip(now).all(|(row, entry)| same_attributes(&row.entry, entry))
}

pub(super) fn same_attributes(old: &Entry, new: &Entry) -> bool {
    let Entry { path, kind, mode, uid, gid, mtime, size, link, content: _, extensions } = old;
    (path, kind, mode, uid, gid) == (&new.path, &new.kind, &new.mode, &new.uid, &new.gid)
        && (mtime, size, link, extensions) == (&new.mtime, &new.size, &new.link, &new.extensions)
}
