//! Whether a revision fits on the target's file system, asked before anything is written.

use cap_std::fs::Dir;

use crate::extract::error::{ExtractError, Refusal};
use crate::extract::plan::Plan;
use crate::package::CatalogRow;

/// Refuses a plan that needs more bytes or inodes than are free, or names longer than the file system takes.
///
/// Files count in full, although some may turn out to have holes.
pub(super) fn judge_space(folder: &Dir, rows: &[CatalogRow], plan: &Plan) -> Result<(), ExtractError> {
    let stat = rustix::fs::fstatvfs(folder)
        .map_err(|error| ExtractError::io("asking for free space at", "the target", error.into()))?;
    let block = stat.f_frsize.max(1);
    let files = plan.contents.iter().map(|&index| rows[index].entry.size);
    let content = files.fold(0u64, |sum, size| sum.saturating_add(size.div_ceil(block).saturating_mul(block)));
    let inodes = (plan.contents.len() + plan.symlinks.len() + plan.new_folders.len()) as u64;
    let needed = content.saturating_add((plan.symlinks.len() + plan.new_folders.len()) as u64 * block);
    let available = stat.f_bavail.saturating_mul(block);
    if needed > available {
        return Err(ExtractError::NoSpace { needed, available });
    }
    // File systems that make inodes as they go say that they have none.
    if stat.f_files != 0 && inodes > stat.f_favail {
        return Err(ExtractError::NoInodes { needed: inodes, available: stat.f_favail });
    }
    let longest = rows.iter().filter_map(|row| Some((row.entry.path.file_name()?.len(), row))).max_by_key(|row| row.0);
    if let Some((bytes, row)) = longest
        && stat.f_namemax != 0
        && bytes as u64 > stat.f_namemax
    {
        return Err(ExtractError::refused(&row.entry.path, Refusal::Name));
    }
    Ok(())
}
