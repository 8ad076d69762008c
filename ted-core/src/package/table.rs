//! The table: a row for every frame, body first, then catalog.

use crate::id::Hash;

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
