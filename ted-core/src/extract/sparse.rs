//! Writing without the zeros.

use std::fs::File;
use std::io;

use crate::extract::disk::Disk;
use crate::extract::step::Step;

/// Zeros are left out in whole blocks of this size: smaller holes cost more than they save.
const HOLE_BYTES: usize = 64 * 1024;

static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// What a file's content ends in, once a piece of it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Data,
    Hole,
}

/// Writes `bytes` at `offset` of a file of `size` bytes, new and empty there, and leaves out what is zero anyway.
pub(super) fn write(disk: Disk<'_>, file: &File, offset: u64, bytes: &[u8], size: u64) -> io::Result<End> {
    if size < HOLE_BYTES as u64 {
        disk.write_at(Step::WriteFile, file, bytes, offset)?;
        return Ok(End::Data);
    }
    let mut run = 0;
    let mut at = 0;
    while at < bytes.len() {
        let past_block = (offset + at as u64) as usize % HOLE_BYTES;
        let end = bytes.len().min(at + HOLE_BYTES - past_block);
        if bytes[at..end] == ZEROS[..end - at] {
            if run < at {
                disk.write_at(Step::WriteFile, file, &bytes[run..at], offset + run as u64)?;
            }
            run = end;
        }
        at = end;
    }
    if run == bytes.len() {
        return Ok(End::Hole);
    }
    disk.write_at(Step::WriteFile, file, &bytes[run..], offset + run as u64)?;
    Ok(End::Data)
}
