//! Compares a source with a target: kinds, permissions, times, link targets and every byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What was compared and found equal.
pub(crate) struct Same {
    pub(crate) entries: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Compares every entry below `source` with the one at the same place below `target`, and refuses extra ones.
/// Paths in `skipped` (and what lies below them) count as absent from the source.
pub(crate) fn trees(source: &Path, target: &Path, skipped: &[PathBuf]) -> io::Result<Same> {
    let (mut wanted, found) = (walk(source)?, walk(target)?);
    wanted.retain(|path, _| !skipped.iter().any(|skip| path.starts_with(skip)));
    if let Some(extra) = found.keys().find(|path| !wanted.contains_key(*path)) {
        return Err(io::Error::other(format!("{} is not in the source", extra.display())));
    }
    let mut same = Same { entries: 0, files: 0, bytes: 0 };
    for (path, meta) in &wanted {
        let differs = |what: &str| io::Error::other(format!("{}: {what} differs", path.display()));
        let copy = found.get(path).ok_or_else(|| io::Error::other(format!("{} is missing", path.display())))?;
        if meta.file_type() != copy.file_type() {
            return Err(differs("the kind"));
        }
        if (meta.mtime(), meta.mtime_nsec()) != (copy.mtime(), copy.mtime_nsec()) {
            return Err(differs("the time"));
        }
        same.entries += 1;
        if meta.is_symlink() {
            if fs::read_link(source.join(path))? != fs::read_link(target.join(path))? {
                return Err(differs("the link target"));
            }
            continue;
        }
        // Bits that lend the owner's rights are dropped on purpose.
        if meta.permissions().mode() & 0o1777 != copy.permissions().mode() & 0o7777 {
            return Err(differs("the mode"));
        }
        if meta.is_file() {
            if meta.len() != copy.len() || !equal(&source.join(path), &target.join(path))? {
                return Err(differs("the content"));
            }
            same.files += 1;
            same.bytes += meta.len();
        }
    }
    Ok(same)
}

fn walk(root: &Path) -> io::Result<BTreeMap<PathBuf, fs::Metadata>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    found.insert(PathBuf::new(), fs::metadata(root)?);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let (path, meta) = (folder.join(entry.file_name()), entry.metadata()?);
            if meta.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path, meta);
        }
    }
    Ok(found)
}

fn equal(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        if b.read_exact(&mut right[..n]).is_err() || left[..n] != right[..n] {
            return Ok(false);
        }
    }
}
