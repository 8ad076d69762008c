//! Whether the tar stream in a body says what the catalog says: every byte of it but the contents follows from the
//! entries, so whoever reads it as a tar archive finds neither more nor less than the catalog has.

use std::ops::Range;

use super::entry::{CatalogRow, EntryKind};
use super::error::PackageError;
use super::tar_stream::{END_BYTES, append_header, padding};

/// Where the frames of a body begin in its tar stream.
#[derive(Debug)]
pub(super) struct TarLayout {
    /// Of each frame: the first entry of which something may lie in it, and where that one's header begins.
    starts: Vec<(usize, u64)>,
}

impl TarLayout {
    /// Of the canonical stream of `catalog`, whose frames begin at `raw_offsets`.
    pub(super) fn of(catalog: &[CatalogRow], raw_offsets: &[u64]) -> Self {
        let mut starts = Vec::with_capacity(raw_offsets.len());
        let mut header = Vec::new();
        let mut frames = raw_offsets.iter().copied().peekable();
        let mut at = 0;
        for (index, row) in catalog.iter().enumerate() {
            header.clear();
            append_header(&row.entry, &mut header);
            let end = at + header.len() as u64 + row.entry.size + padding(row.entry.size);
            while frames.next_if(|&start| start < end).is_some() {
                starts.push((index, at));
            }
            at = end;
        }
        starts.extend(frames.map(|_| (catalog.len(), at)));
        Self { starts }
    }

    /// Refuses frame number `frame`, which holds the bytes `range` of the stream, if any of them is not what the
    /// catalog makes it. Contents are not looked at: they have hashes.
    pub(super) fn check(
        &self,
        catalog: &[CatalogRow],
        (frame, range): (u64, Range<u64>),
        raw: &[u8],
    ) -> Result<(), PackageError> {
        let start = usize::try_from(frame).ok().and_then(|frame| self.starts.get(frame));
        let none = PackageError::Structure { what: "there is no such frame" };
        let &(first, mut at) = start.ok_or(none)?;
        let part = Part { raw, range: range.clone() };
        let mut header = Vec::new();
        for CatalogRow { entry, .. } in &catalog[first..] {
            if at >= range.end {
                return Ok(());
            }
            header.clear();
            append_header(entry, &mut header);
            let content_end = at + header.len() as u64 + entry.size;
            let padding = padding(entry.size);
            if !part.holds(at, &header) || !part.is_zero(content_end, padding) {
                return Err(PackageError::Tar { path: entry.path.clone() });
            }
            at = content_end + padding;
        }
        if part.is_zero(at, END_BYTES) {
            return Ok(());
        }
        Err(PackageError::Structure { what: "the tar stream does not end as it should" })
    }
}

/// Where the stream of `entry`, which begins at `at`, has its content, and where it ends; `None` beyond all numbers.
pub(super) fn place(row: &CatalogRow, at: u64, header: &mut Vec<u8>) -> Option<Range<u64>> {
    header.clear();
    append_header(&row.entry, header);
    let size = if row.entry.kind == EntryKind::File { row.entry.size } else { 0 };
    let content = at.checked_add(header.len() as u64)?;
    let end = content.checked_add(size)?.checked_add(padding(size))?;
    Some(content..end)
}

/// A part of the stream.
struct Part<'a> {
    raw: &'a [u8],
    range: Range<u64>,
}

impl Part<'_> {
    /// What this part has of `bytes` bytes from `at` on, and how many of them lie before it.
    fn overlap(&self, at: u64, bytes: u64) -> Option<(usize, &[u8])> {
        let (from, to) = (at.max(self.range.start), (at + bytes).min(self.range.end));
        if from >= to {
            return None;
        }
        let [start, end] = [from, to].map(|at| (at - self.range.start) as usize);
        Some(((from - at) as usize, self.raw.get(start..end).unwrap_or_default()))
    }

    fn holds(&self, at: u64, wanted: &[u8]) -> bool {
        match self.overlap(at, wanted.len() as u64) {
            None => true,
            Some((skipped, found)) => !found.is_empty() && wanted[skipped..].starts_with(found),
        }
    }

    fn is_zero(&self, at: u64, bytes: u64) -> bool {
        self.overlap(at, bytes).is_none_or(|(_, found)| found.iter().all(|&byte| byte == 0))
    }
}
