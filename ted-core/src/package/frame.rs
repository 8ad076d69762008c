//! One frame.

use crate::id::Hash;

use super::table::TableRow;

/// Why a frame is not what the table means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it does not have the hash that the table states")]
pub struct FrameError;

/// Whether `stored` are the bytes that the table means.
///
/// # Errors
/// [`FrameError`] if not.
pub fn check_frame(row: &TableRow, stored: &[u8]) -> Result<(), FrameError> {
    if stored.len() as u64 != u64::from(row.stored_bytes) {
        return Err(FrameError);
    }
    if Hash::of(stored) != row.hash {
        return Err(FrameError);
    }
    Ok(())
}
