//! Frames that are compressed against old content.

use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

use crate::security::SEAL_BYTES;

use super::super::error::FrameError;
use super::super::table::TableRow;

/// The shortest match that is looked for far away, and one in how many places (as a power of two) is remembered for it.
const FAR_MATCH_BYTES: u32 = 32;
const FAR_MATCH_RATE_LOG: u32 = 4;
/// A window for a segment (4 MiB) and its prefix (12 MiB); and the smallest that is worth a parameter.
const WINDOW_LOG_MAX: u32 = 24;
const WINDOW_LOG_MIN: u32 = 16;

/// Compresses `raw` with `prefix` before it into `stored`, whose old bytes are dropped; there is room for a seal.
pub(super) fn compress(level: i32, prefix: &[u8], raw: &[u8], stored: &mut Vec<u8>) -> io::Result<()> {
    let failed = |code| io::Error::other(get_error_name(code));
    stored.clear();
    stored.reserve(stored_bytes_max(raw.len()));
    let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let mut set = |parameter| context.set_parameter(parameter).map(drop).map_err(failed);
    set(CParameter::CompressionLevel(level))?;
    if !prefix.is_empty() {
        // All of the prefix is in reach from all of the content.
        let window_log = (prefix.len() + raw.len()).next_power_of_two().ilog2().clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
        set(CParameter::WindowLog(window_log))?;
        set(CParameter::EnableLongDistanceMatching(true))?;
        set(CParameter::LdmMinMatch(FAR_MATCH_BYTES))?;
        set(CParameter::LdmHashRateLog(FAR_MATCH_RATE_LOG))?;
        set(CParameter::LdmHashLog(window_log - FAR_MATCH_RATE_LOG))?;
        context.ref_prefix(prefix).map_err(failed)?;
    }
    context.compress2(stored, raw).map_err(failed)?;
    Ok(())
}

/// The most that so many raw bytes may become, sealed.
pub(super) fn stored_bytes_max(raw_bytes: usize) -> usize {
    compress_bound(raw_bytes) + SEAL_BYTES
}

/// Decompresses one whole frame that was compressed with `prefix` before it.
pub(super) fn decompress(row: &TableRow, prefix: &[u8], stored: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    super::super::frame::judge_frame(row, stored)?;
    let refuse = |code| FrameError::Decompress { reason: get_error_name(code).to_owned() };
    out.clear();
    out.reserve_exact(row.raw_bytes as usize);
    let none = || FrameError::Decompress { reason: "there is no memory".to_owned() };
    let mut context = DCtx::try_create().ok_or_else(none)?;
    context.ref_prefix(prefix).map_err(refuse)?;
    context.decompress(out, stored).map_err(refuse)?;
    if out.len() != row.raw_bytes as usize {
        return Err(FrameError::Decompress { reason: "it has another raw length than the table states".to_owned() });
    }
    Ok(())
}
