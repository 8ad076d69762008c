//! The judging of a list of entries, before anything is written.

use std::collections::HashSet;

use crate::extract::error::{ExtractError, Refusal};
use crate::extract::fold::{self, fold_key};
use crate::extract::job::{ExtractOptions, Links};
use crate::extract::staging::STAGING_PREFIX;
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath};

/// Refuses a list of entries that could harm, or that no file system can hold; the entry is named.
///
/// [`EntryPath`] and [`EntryKind`] already rule out absolute paths, `..`, NUL, devices, FIFOs and sockets. This
/// rules out disorder, duplicates, entries below what is no folder, hard links to what is outside, missing, later or
/// no file, symbolic links that leave the target where the options forbid them, fields that an entry of its kind
/// cannot have, content that overlaps, and more of anything than the limits allow. With `case_folding`, names that
/// are the same after folding case or Unicode forms are refused as well.
///
/// # Errors
/// [`ExtractError::Refused`] with the first bad entry.
pub fn judge_entries(rows: &[CatalogRow], options: &ExtractOptions, case_folding: bool) -> Result<(), ExtractError> {
    if let Some(row) = usize::try_from(options.limits.entries_max).ok().and_then(|most| rows.get(most)) {
        return Err(ExtractError::refused(&row.entry.path, Refusal::Limit("more entries")));
    }
    let mut judge = Judge { rows, options, folders: HashSet::new(), content_end: 0 };
    for index in 0..rows.len() {
        judge.row(index).map_err(|reason| ExtractError::refused(&rows[index].entry.path, reason))?;
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

struct Judge<'a> {
    rows: &'a [CatalogRow],
    options: &'a ExtractOptions,
    folders: HashSet<&'a [u8]>,
    content_end: u64,
}

impl<'a> Judge<'a> {
    fn row(&mut self, index: usize) -> Result<(), Refusal> {
        let row = &self.rows[index];
        let entry = &row.entry;
        self.order(index)?;
        self.place(index)?;
        self.fields(entry)?;
        match entry.kind {
            EntryKind::Directory => {
                self.folders.insert(entry.path.as_bytes());
            }
            EntryKind::File => self.content(row)?,
            EntryKind::Symlink => self.symlink(entry)?,
            EntryKind::HardLink => self.hard_link(index)?,
        }
        Ok(())
    }

    fn order(&self, index: usize) -> Result<(), Refusal> {
        let Some(before) = index.checked_sub(1) else { return Ok(()) };
        match self.rows[before].entry.path.cmp(&self.rows[index].entry.path) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal => Err(Refusal::Duplicate),
            std::cmp::Ordering::Greater => Err(Refusal::Disorder),
        }
    }

    fn place(&self, index: usize) -> Result<(), Refusal> {
        let entry = &self.rows[index].entry;
        let path = entry.path.as_bytes();
        let Some(first) = entry.path.components().next() else {
            return if entry.kind == EntryKind::Directory { Ok(()) } else { Err(Refusal::RootKind) };
        };
        if fold_key(first).starts_with(STAGING_PREFIX.as_bytes()) {
            return Err(Refusal::StagingName);
        }
        let Some(cut) = path.iter().rposition(|&byte| byte == b'/') else { return Ok(()) };
        if self.folders.contains(&path[..cut]) {
            return Ok(());
        }
        // The innermost thing that is listed and no folder is what the operator has to look at.
        let mut above = entry.path.parent();
        while let Some(path) = above {
            if find_row(&self.rows[..index], &path).is_some_and(|at| self.rows[at].entry.kind != EntryKind::Directory) {
                return Err(Refusal::BelowNonFolder(path));
            }
            above = path.parent();
        }
        Err(Refusal::NoFolder)
    }

    fn fields(&self, entry: &Entry) -> Result<(), Refusal> {
        let limits = &self.options.limits;
        let is_file = entry.kind == EntryKind::File;
        let is_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink);
        let wrong = [
            (entry.mode > 0o7777, "mode"),
            (entry.mtime.nanoseconds >= 1_000_000_000, "time"),
            (!is_file && entry.size != 0, "size"),
            (!is_file && entry.content != Entry::NO_CONTENT, "content hash"),
            (!is_link && !entry.link.is_empty(), "link target"),
        ];
        if let Some((_, field)) = wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(Refusal::Field(field));
        }
        if entry.extensions.len() > limits.extensions_max {
            return Err(Refusal::Limit("more extensions"));
        }
        if entry.extensions.iter().any(|(_, bytes)| bytes.len() > limits.extension_bytes_max) {
            return Err(Refusal::Limit("a longer extension"));
        }
        if entry.path.as_bytes().len() > limits.path_bytes_max {
            return Err(Refusal::Limit("a longer path"));
        }
        Ok(())
    }

    /// Contents follow one another in the body, so a sum that overflows is refused here too.
    fn content(&mut self, row: &CatalogRow) -> Result<(), Refusal> {
        // A size that no file system can express is refused before it is used as one.
        if i64::try_from(row.entry.size).is_err() {
            return Err(Refusal::Field("size"));
        }
        if row.entry.size == 0 {
            return Ok(());
        }
        if row.offset < self.content_end {
            return Err(Refusal::ContentPlace);
        }
        self.content_end = row.offset.checked_add(row.entry.size).ok_or(Refusal::ContentPlace)?;
        Ok(())
    }

    fn symlink(&self, entry: &Entry) -> Result<(), Refusal> {
        let text = entry.link.as_slice();
        if text.is_empty() || text.len() >= self.options.limits.link_bytes_max || text.contains(&0) {
            return Err(Refusal::LinkText);
        }
        if self.options.links == Links::Inside && leaves(&entry.path, text) {
            return Err(Refusal::LinkLeaves);
        }
        Ok(())
    }

    fn hard_link(&self, index: usize) -> Result<(), Refusal> {
        let target = hard_link_target(&self.rows[index].entry).ok_or(Refusal::LinkOutside)?;
        let Some(at) = find_row(&self.rows[..index], &target) else {
            return Err(Refusal::LinkMissing(target));
        };
        match self.rows[at].entry.kind {
            EntryKind::File | EntryKind::Symlink => Ok(()),
            EntryKind::Directory | EntryKind::HardLink => Err(Refusal::LinkKind(target)),
        }
    }
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
