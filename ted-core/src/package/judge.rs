//! The one place that judges a catalog: what is refused here never reaches extraction.

use crate::id::Hash;
use crate::limits::Limits;

use super::entry::{AsEntry, CatalogRow, Entry, EntryKind, EntryPath};
use super::error::{CatalogFault, PackageError};
use super::tar_layout;
use super::tar_stream::{END_BYTES, padding};

const MODE_MAX: u32 = 0o7777;
const NANOSECONDS_MAX: u32 = 999_999_999;

/// Whether `entries` may be a revision: root folder first, path order, parents present, fields that fit the kind,
/// hard links to earlier files. Content hashes and places are not looked at.
///
/// # Errors
/// [`PackageError::Catalog`] names the first entry that may not be.
pub fn judge_entries(entries: &[Entry], limits: &Limits) -> Result<(), PackageError> {
    judge_list(entries, limits)
}

/// [`judge_entries`] for the rows of a catalog that did not come from a [`PackageIndex`](super::PackageIndex).
///
/// # Errors
/// [`PackageError::Catalog`] names the first entry that may not be.
pub fn judge_rows(rows: &[CatalogRow], limits: &Limits) -> Result<(), PackageError> {
    judge_list(rows, limits)
}

fn judge_list<E: AsEntry>(entries: &[E], limits: &Limits) -> Result<(), PackageError> {
    if entries.len() as u64 > limits.entries_max {
        return Err(PackageError::Catalog { path: EntryPath::root(), reason: CatalogFault::TooMany });
    }
    let empty = || PackageError::Catalog { path: EntryPath::root(), reason: CatalogFault::NoRoot };
    let first = entries.first().ok_or_else(empty)?.entry();
    if !first.path.is_root() || first.kind != EntryKind::Directory {
        return Err(PackageError::Catalog { path: first.path.clone(), reason: CatalogFault::NoRoot });
    }
    for index in 0..entries.len() {
        let (before, entry) = (&entries[..index], entries[index].entry());
        judge_entry(before, entry, limits)
            .map_err(|reason| PackageError::Catalog { path: entry.path.clone(), reason })?;
    }
    Ok(())
}

fn judge_entry<E: AsEntry>(before: &[E], entry: &Entry, limits: &Limits) -> Result<(), CatalogFault> {
    if before.last().is_some_and(|last| last.entry().path >= entry.path) {
        return Err(CatalogFault::Order);
    }
    judge_parent(before, entry)?;
    if entry.mode > MODE_MAX || entry.mtime.nanoseconds > NANOSECONDS_MAX {
        return Err(CatalogFault::Attributes);
    }
    judge_link(before, entry, limits)?;
    if entry.kind != EntryKind::File && entry.size != 0 {
        return Err(CatalogFault::Kind);
    }
    judge_extensions(entry, limits)
}

fn judge_parent<E: AsEntry>(before: &[E], entry: &Entry) -> Result<(), CatalogFault> {
    match (before.last(), entry.path.parent()) {
        (None, None) if entry.kind == EntryKind::Directory => Ok(()),
        (Some(_), Some(parent)) => match find(before, &parent) {
            Some(found) if found.kind == EntryKind::Directory => Ok(()),
            _ => Err(CatalogFault::Parent),
        },
        _ => Err(CatalogFault::NoRoot),
    }
}

fn judge_link<E: AsEntry>(before: &[E], entry: &Entry, limits: &Limits) -> Result<(), CatalogFault> {
    match entry.kind {
        EntryKind::Directory | EntryKind::File if entry.link.is_empty() => Ok(()),
        EntryKind::Directory | EntryKind::File => Err(CatalogFault::Kind),
        EntryKind::Symlink if entry.link.is_empty() => Err(CatalogFault::Kind),
        EntryKind::Symlink if entry.link.len() > limits.link_bytes_max || entry.link.contains(&0) => {
            Err(CatalogFault::Link)
        }
        EntryKind::Symlink => Ok(()),
        EntryKind::HardLink => {
            let target = EntryPath::from_bytes(&entry.link).map_err(|_| CatalogFault::HardLink)?;
            match find(before, &target) {
                Some(found) if matches!(found.kind, EntryKind::File | EntryKind::Symlink) => Ok(()),
                _ => Err(CatalogFault::HardLink),
            }
        }
    }
}

fn judge_extensions(entry: &Entry, limits: &Limits) -> Result<(), CatalogFault> {
    let ordered = entry.extensions.is_sorted_by(|left, right| left.0 < right.0);
    let short = entry.extensions.iter().all(|(_, bytes)| bytes.len() <= limits.extension_bytes_max);
    if ordered && short && entry.extensions.len() <= limits.extensions_max {
        return Ok(());
    }
    Err(CatalogFault::Extensions)
}

fn find<'a, E: AsEntry>(before: &'a [E], path: &EntryPath) -> Option<&'a Entry> {
    // Neighbours mostly lie in the folder that was named last.
    if let Some(last) = before.last().filter(|last| last.entry().path == *path) {
        return Some(last.entry());
    }
    before.binary_search_by(|row| row.entry().path.cmp(path)).ok().map(|index| before[index].entry())
}

/// What the root and the table say about the body, for judging where content lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyShape<'a> {
    pub(super) frame_bytes: u32,
    /// Raw bytes of the body before each frame, and at the end the length of the whole.
    pub(super) raw_offsets: &'a [u64],
}

/// Takes a catalog frame by frame, so that the first wrong row stops it before more is decoded.
#[derive(Debug, Default)]
pub(super) struct CatalogJudge {
    rows: Vec<CatalogRow>,
    /// Raw bytes of the body up to the end of the last row's content and its padding.
    stream_end: u64,
    /// Room for a header.
    header: Vec<u8>,
}

impl CatalogJudge {
    /// Judges and keeps the rows of one frame.
    pub(super) fn add(
        &mut self,
        rows: Vec<CatalogRow>,
        shape: BodyShape<'_>,
        entries_max: u64,
        limits: &Limits,
    ) -> Result<(), PackageError> {
        for row in rows {
            let fault = |reason| PackageError::Catalog { path: row.entry.path.clone(), reason };
            if self.rows.len() as u64 >= entries_max.min(limits.entries_max) {
                return Err(fault(CatalogFault::TooMany));
            }
            judge_entry(&self.rows, &row.entry, limits).map_err(fault)?;
            self.judge_content(&row, shape).map_err(fault)?;
            self.rows.push(row);
        }
        Ok(())
    }

    /// The rows so far.
    pub(super) fn rows(&self) -> &[CatalogRow] {
        &self.rows
    }

    /// Whether the body holds the stream of these rows and its end marker, and nothing else.
    pub(super) fn fills(&self, body_raw_bytes: u64) -> bool {
        self.stream_end.checked_add(END_BYTES) == Some(body_raw_bytes)
    }

    /// Every row, once all frames have come.
    pub(super) fn finish(self) -> Vec<CatalogRow> {
        self.rows
    }

    fn judge_content(&mut self, row: &CatalogRow, shape: BodyShape<'_>) -> Result<(), CatalogFault> {
        let entry = &row.entry;
        // The stream of the entries alone says where each content lies. The end marker must still fit behind it.
        let place = tar_layout::place(row, self.stream_end, &mut self.header).ok_or(CatalogFault::Offset)?;
        let body_end = shape.raw_offsets.last().copied().unwrap_or(0);
        if place.end > body_end.saturating_sub(END_BYTES) {
            return Err(CatalogFault::Offset);
        }
        self.stream_end = place.end;
        if entry.size == 0 {
            let content = if entry.kind == EntryKind::File { Hash::of(&[]) } else { Entry::NO_CONTENT };
            let right = row.offset == 0 && entry.content == content;
            return if right { Ok(()) } else { Err(CatalogFault::Kind) };
        }
        if row.offset != place.start {
            return Err(CatalogFault::Offset);
        }
        if cut_right(row.offset, entry.size, shape) { Ok(()) } else { Err(CatalogFault::Offset) }
    }
}

/// Content of up to `frame_bytes` lies in one frame. Longer content begins with a frame, and is cut every
/// `frame_bytes`: so each piece is a subtree of its hash tree, and frames can be verified in any order.
fn cut_right(offset: u64, size: u64, shape: BodyShape<'_>) -> bool {
    let BodyShape { frame_bytes, raw_offsets } = shape;
    let frame_bytes = u64::from(frame_bytes);
    // The frame that holds the first byte: `raw_offsets` is strictly ascending and begins with 0.
    let frame = raw_offsets.partition_point(|&start| start <= offset) - 1;
    if size <= frame_bytes {
        return raw_offsets.get(frame + 1).is_some_and(|&end| offset + size <= end);
    }
    let pieces = size.div_ceil(frame_bytes);
    let Some(starts) = usize::try_from(pieces).ok().and_then(|pieces| raw_offsets.get(frame..frame + pieces)) else {
        return false;
    };
    let starts_right = starts.iter().zip(0..).all(|(&start, number)| start == offset + number * frame_bytes);
    let end = raw_offsets.get(frame + starts.len());
    starts_right && end == Some(&(offset + size + padding(size)))
}
