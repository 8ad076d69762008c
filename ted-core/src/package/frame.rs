//! One frame: compressing and sealing, checking, opening and decompressing. The one place that knows zstd, but for
//! frames that are compressed against old content (`delta/prefix.rs`).

use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, WriteBuf};

use crate::id::Hash;
use crate::security::{FrameSealer, SEAL_BYTES};

use super::error::FrameError;
use super::table::TableRow;

/// Makes frames, one after the other, with one zstd context.
pub(super) struct FrameEncoder<'a> {
    context: Compressor<'static>,
    sealer: Option<&'a FrameSealer>,
}

impl<'a> FrameEncoder<'a> {
    /// An encoder of this zstd level. The content's size is written, a checksum is not. With a sealer, frames are
    /// sealed once they are compressed.
    pub(super) fn new(level: i32, sealer: Option<&'a FrameSealer>) -> io::Result<Self> {
        Ok(Self { context: Compressor::new(level)?, sealer })
    }

    /// Compresses `raw` as frame number `frame` (a row of the table) into `stored`, whose old bytes are dropped, seals
    /// it there, and returns the table's row.
    ///
    /// # Errors
    /// What zstd says; a frame of 4 GiB or more cannot be.
    pub(super) fn encode(&mut self, frame: u64, raw: &[u8], stored: &mut Vec<u8>) -> io::Result<TableRow> {
        stored.clear();
        stored.reserve(zstd_safe::compress_bound(raw.len()) + SEAL_BYTES);
        self.context.compress_to_buffer(raw, stored)?;
        if let Some(sealer) = self.sealer {
            sealer.seal(frame, stored);
        }
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        Ok(TableRow {
            stored_bytes: u32::try_from(stored.len()).map_err(too_long)?,
            raw_bytes: u32::try_from(raw.len()).map_err(too_long)?,
            hash: Hash::of(stored),
        })
    }
}

/// Takes frames apart, one after the other, with one zstd context. Sealed ones are to be opened first.
#[derive(Default)]
pub struct FrameDecoder {
    context: Decompressor<'static>,
}

impl FrameDecoder {
    /// Decompresses what [`check_frame`] has passed into `out`, whose old bytes are dropped.
    ///
    /// # Errors
    /// [`FrameError::Decompress`] when the bytes are anything but one zstd frame of exactly the stated raw length.
    pub fn decode(&mut self, row: &TableRow, stored: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.clear();
        out.reserve_exact(row.raw_bytes as usize);
        self.decode_to(row, stored, out)
    }

    /// Fills `out`, which has room for exactly the raw bytes of the frame.
    pub(super) fn decode_to<B: WriteBuf + ?Sized>(
        &mut self,
        row: &TableRow,
        stored: &[u8],
        out: &mut B,
    ) -> Result<(), FrameError> {
        judge_frame(row, stored)?;
        let refuse = |reason: &str| FrameError::Decompress { reason: reason.to_owned() };
        let bytes = self.context.decompress_to_buffer(stored, out).map_err(|error| refuse(&error.to_string()))?;
        if bytes != row.raw_bytes as usize {
            return Err(refuse("the frame has another raw length than the table states"));
        }
        Ok(())
    }
}

/// Whether `stored` is one zstd frame that states the raw length of its row.
pub(super) fn judge_frame(row: &TableRow, stored: &[u8]) -> Result<(), FrameError> {
    let refuse = |reason: &str| Err(FrameError::Decompress { reason: reason.to_owned() });
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(length) if length == stored.len() => {}
        _ => return refuse("the bytes are not one zstd frame"),
    }
    match zstd_safe::get_frame_content_size(stored) {
        Ok(Some(length)) if length == u64::from(row.raw_bytes) => Ok(()),
        _ => refuse("the frame does not state the raw length that the table states"),
    }
}

/// Opens frame number `frame`, which [`check_frame`] has passed, where it lies, and decompresses it into `out`.
pub(super) fn open_frame(
    decoder: &mut FrameDecoder,
    sealer: Option<&FrameSealer>,
    (frame, row): (u64, &TableRow),
    stored: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    unseal_frame(sealer, frame, stored)?;
    decoder.decode(row, stored, out)
}

/// Opens frame number `frame` where it lies, if it is sealed at all.
pub(super) fn unseal_frame(sealer: Option<&FrameSealer>, frame: u64, stored: &mut Vec<u8>) -> Result<(), FrameError> {
    if let Some(sealer) = sealer {
        sealer.open(frame, stored)?;
    }
    Ok(())
}

/// Whether `stored` are the bytes that the table means.
///
/// # Errors
/// [`FrameError::Length`] or [`FrameError::Hash`].
pub fn check_frame(row: &TableRow, stored: &[u8]) -> Result<(), FrameError> {
    if stored.len() as u64 != u64::from(row.stored_bytes) {
        return Err(FrameError::Length { stated: u64::from(row.stored_bytes), found: stored.len() as u64 });
    }
    if Hash::of(stored) != row.hash {
        return Err(FrameError::Hash);
    }
    Ok(())
}

/// Decompresses a frame that [`check_frame`] has passed into `out`, whose old bytes are dropped.
/// For many frames a [`FrameDecoder`] is cheaper.
///
/// # Errors
/// [`FrameError::Decompress`] when the bytes are anything but one zstd frame of exactly the stated raw length.
pub fn decode_frame(row: &TableRow, stored: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    FrameDecoder::default().decode(row, stored, out)
}
