//! What a thread works in.

use super::plan::WINDOW_SEGMENTS;
use super::prefix::stored_bytes_max;

/// Buffers of one thread, which it keeps from one piece of work to the next.
#[derive(Debug)]
pub(super) struct Room {
    /// New content: a segment, or a frame before it is compressed.
    pub(super) raw: Vec<u8>,
    /// Old content: what a segment is compared with, or a frame's prefix.
    pub(super) before: Vec<u8>,
    /// A frame as it is stored.
    pub(super) stored: Vec<u8>,
}

impl Room {
    /// With the longest buffers that are needed, which take memory once they are written: an allocator keeps what they
    /// would leave behind as they grow.
    pub(super) fn new(segment_bytes: u32) -> Self {
        let segment_bytes = segment_bytes as usize;
        Self {
            raw: Vec::with_capacity(segment_bytes),
            before: Vec::with_capacity(segment_bytes * WINDOW_SEGMENTS as usize),
            stored: Vec::with_capacity(stored_bytes_max(segment_bytes)),
        }
    }
}
