//! The judging of a list of entries, before anything is written.

use crate::extract::error::{ExtractError, Refusal};
use crate::extract::fold::{self, fold_key};
use crate::extract::job::{ExtractOptions, Links};
use crate::extract::staging::STAGING_PREFIX;
use crate::package::{self, CatalogFault, CatalogRow, Entry, EntryKind, EntryPath, PackageError};

/// Refuses a list of entries that could harm, or that no file system can hold; the entry is named.
///
/// [`EntryPath`] and [`EntryKind`] rule out absolute paths, `..`, NUL, devices, FIFOs and sockets, and
/// [`package::judge_rows`] disorder, duplicates, entries below what is no folder, hard links to what is outside,
/// missing or later, and fields that an entry of its kind cannot have. What is left is judged here: names that are kept
/// for staging, symbolic links that leave the target where the options forbid them, sizes that no file can have, and,
/// with `case_folding`, names that are the same after folding case or Unicode forms.
///
/// # Errors
/// [`ExtractError::Refused`] with the first bad entry.
pub fn judge_entries(rows: &[CatalogRow], options: &ExtractOptions, case_folding: bool) -> Result<(), ExtractError> {
    package::judge_rows(rows, &options.limits).map_err(|error| match error {
        PackageError::Catalog { path, reason } => ExtractError::Refused { path, reason: reason.into() },
        other => ExtractError::Package(other),
    })?;
    for row in rows {
        judge_entry(&row.entry, options).map_err(|reason| ExtractError::refused(&row.entry.path, reason))?;
    }
    if case_folding && let Some((path, earlier)) = fold::collision(rows) {
        return Err(ExtractError::refused(path, Refusal::Collision(earlier.clone())));
    }
    Ok(())
}

/// The position of the entry with this path among rows in path order.
pub(super) fn find_row(rows: &[CatalogRow], path: &EntryPath) -> Option<usize> {
    rows.binary_search_by(|row| row.entry.path.cmp(path)).ok()
}

/// The path that a hard link names.
pub(super) fn hard_link_target(entry: &Entry) -> Option<EntryPath> {
    EntryPath::from_bytes(&entry.link).ok().filter(|path| !path.is_root())
}

/// Refuses contents that lie over one another, or behind the end of a body with so many raw bytes: they follow one
/// another, so that the files in a frame are found by searching.
pub(super) fn judge_places(rows: &[CatalogRow], body_bytes: u64) -> Result<(), ExtractError> {
    let mut content_end = 0;
    for row in rows.iter().filter(|row| row.entry.size > 0) {
        let end = row.offset.checked_add(row.entry.size).filter(|end| *end <= body_bytes);
        match end {
            Some(end) if row.offset >= content_end => content_end = end,
            _ => return Err(ExtractError::refused(&row.entry.path, CatalogFault::Offset.into())),
        }
    }
    Ok(())
}

fn judge_entry(entry: &Entry, options: &ExtractOptions) -> Result<(), Refusal> {
    let first = entry.path.components().next().unwrap_or_default();
    if fold_key(first).starts_with(STAGING_PREFIX.as_bytes()) {
        return Err(Refusal::StagingName);
    }
    if entry.kind == EntryKind::Symlink && options.links == Links::Inside && leaves(&entry.path, &entry.link) {
        return Err(Refusal::LinkLeaves);
    }
    // A size beyond what a file can have is refused before it is used as one.
    if i64::try_from(entry.size).is_err() {
        return Err(CatalogFault::Offset.into());
    }
    Ok(())
}

/// Whether a symbolic link at `path` with this text, read as text, leads above the root of the tree.
fn leaves(path: &EntryPath, text: &[u8]) -> bool {
    if text.starts_with(b"/") {
        return true;
    }
    let mut depth = path.components().count().saturating_sub(1);
    for component in text.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}
