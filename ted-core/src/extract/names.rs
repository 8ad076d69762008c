//! What the target's file system makes of names, found out by trying them in the staging folder.

use std::io;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Disk};
use crate::extract::error::{ExtractError, Refusal};
use crate::extract::fold;
use crate::extract::job::ExtractOptions;
use crate::extract::judge::judge_entries;
use crate::extract::step::Step;
use crate::package::CatalogRow;

/// Names that a file system which folds takes for one: by case, and by Unicode's forms.
const FOLDING: [(&[u8], &[u8]); 2] = [(b"ted-probe", b"TED-PROBE"), ("ted-é".as_bytes(), "ted-e\u{301}".as_bytes())];

/// Refuses names that this file system would take for one another, or does not take at all.
///
/// Nothing is tried where every name is plain ASCII and none collides, which is nearly always.
pub(super) fn judge_names(
    disk: Disk<'_>,
    staging: &Dir,
    rows: &[CatalogRow],
    options: &ExtractOptions,
) -> Result<(), ExtractError> {
    let failed = |error| ExtractError::io("trying names in", "the staging folder", error);
    if fold::collision(rows).is_some() {
        judge_entries(rows, options, folds(disk, staging).map_err(failed)?)?;
    }
    let mut tried: Option<&[u8]> = None;
    for row in rows {
        let Some(name) = row.entry.path.file_name().filter(|name| is_unusual(name)) else { continue };
        if tried == Some(name) {
            continue;
        }
        match exists_after_creating(disk, staging, name, name) {
            Ok(true) => tried = Some(name),
            Ok(false) => return Err(ExtractError::refused(&row.entry.path, Refusal::Name)),
            Err(error) if is_about_name(&error) => {
                return Err(ExtractError::refused(&row.entry.path, Refusal::Name));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Whether the target's file system folds case or Unicode forms.
fn folds(disk: Disk<'_>, staging: &Dir) -> io::Result<bool> {
    for (name, same) in FOLDING {
        if exists_after_creating(disk, staging, name, same)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn exists_after_creating(disk: Disk<'_>, staging: &Dir, name: &[u8], looked_for: &[u8]) -> io::Result<bool> {
    drop(disk.create_file(Step::CreateFile, staging, name)?);
    let found = disk::facts_at(staging, looked_for)?.is_some();
    disk.remove_file(Step::RemoveStaged, staging, name)?;
    Ok(found)
}

/// Names that Windows' file systems, or those that insist on UTF-8, are known to refuse.
fn is_unusual(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_err()
        || name.iter().any(|byte| byte.is_ascii_control() || b"\\:*?\"<>|".contains(byte))
        || matches!(name.last(), Some(b'.' | b' '))
}

fn is_about_name(error: &io::Error) -> bool {
    // EILSEQ has no kind of its own.
    let illegal_sequence = rustix::io::Errno::ILSEQ.raw_os_error();
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename)
        || error.raw_os_error() == Some(illegal_sequence)
}
