//! The table: a row for every frame, body first, then catalog.

use crate::id::Hash;
use crate::limits::Limits;

use super::error::PackageError;

/// What the table says of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRow {
    /// Bytes of the frame as stored (compressed, possibly sealed; without a skippable frame's header).
    pub stored_bytes: u32,
    /// Bytes it becomes.
    pub raw_bytes: u32,
    /// BLAKE3 of the stored bytes.
    pub hash: Hash,
}

/// Bytes of one row.
pub(super) const ROW_BYTES: usize = 40;

/// The rows as stored.
pub(super) fn encode_rows(rows: &[TableRow]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * ROW_BYTES);
    for row in rows {
        bytes.extend_from_slice(&row.stored_bytes.to_le_bytes());
        bytes.extend_from_slice(&row.raw_bytes.to_le_bytes());
        bytes.extend_from_slice(row.hash.as_bytes());
    }
    bytes
}

/// The rows that `bytes` hold, each within the limits.
pub(super) fn decode_rows(bytes: &[u8], limits: &Limits) -> Result<Vec<TableRow>, PackageError> {
    let (chunks, rest) = bytes.as_chunks::<ROW_BYTES>();
    if !rest.is_empty() {
        return Err(PackageError::Structure { what: "the table does not consist of whole rows" });
    }
    if chunks.len() as u64 > limits.table_rows_max {
        return Err(PackageError::Structure { what: "the table has more rows than allowed" });
    }
    chunks.iter().map(|chunk| decode_row(chunk, limits)).collect()
}

fn decode_row(bytes: &[u8; ROW_BYTES], limits: &Limits) -> Result<TableRow, PackageError> {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[8..]);
    let row = TableRow { stored_bytes: number(0), raw_bytes: number(4), hash: Hash::from_bytes(hash) };
    let stored_fits = (1..=limits.frame_stored_bytes_max).contains(&row.stored_bytes);
    let raw_fits = (1..=limits.frame_raw_bytes_max).contains(&row.raw_bytes);
    if !stored_fits || !raw_fits {
        return Err(PackageError::Structure { what: "a frame is empty or longer than allowed" });
    }
    Ok(row)
}
