//! Small durable steps that all file work here is made of.

use std::fs::{DirBuilder, File};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use crate::error::Coded;

/// Why work on a package file, or on one of the files beside it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The disk, or the user's share of it, is full. Nothing was torn: what was durable before still is.
    #[error("no space is left for {}", path.display())]
    DiskFull {
        /// The file that needs it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Someone else in this process or another one is writing the file.
    #[error("{} is being written already", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Anything else that the system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Coded for FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::DiskFull { .. } => "TED-1510",
            Self::Busy { .. } => "TED-1511",
            Self::Io { .. } => "TED-1512",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Busy { .. })
    }
}

impl FileError {
    /// The error for `action` on `path`; a full disk or quota has its own.
    pub(super) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// For `map_err`: [`FileError::new`] waiting for its source.
    pub(super) fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::new(action, path, source)
    }
}

/// Makes the names in a folder durable: what was created, renamed or removed in it.
///
/// # Errors
/// [`FileError`].
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(FileError::at("make durable the folder", folder))
}

/// Creates the folders that `folder` still lacks, each 0700 and durable in the one above it.
///
/// # Errors
/// [`FileError`], also when a part of the path is no folder.
pub fn create_folders(folder: &Path) -> Result<(), FileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.parent().is_some() {
        create_folders(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(FileError::new("create the folder", folder, error)),
    }
}

/// Bytes that an unprivileged user can still write to the file system that holds `path`.
///
/// # Errors
/// [`FileError`].
pub fn free_bytes(path: &Path) -> Result<u64, FileError> {
    let stat = rustix::fs::statvfs(path).map_err(|errno| FileError::new("measure", path, errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Has the system forget what it remembers of these bytes of `file`, so that reading them reads the disk. What it
/// cannot forget it keeps, so there is no error to speak of.
pub fn forget_cached(file: &File, range: &Range<u64>) {
    let bytes = NonZeroU64::new(range.end.saturating_sub(range.start));
    let _ = rustix::fs::fadvise(file, range.start, bytes, Advice::DontNeed);
}

/// Gives `file` the length `bytes` with all of it reserved, so that a full disk shows now and not in the middle.
/// What the file already holds stays. Free space is looked at first: some file systems take all there is before they
/// find that it is not enough, and everybody else's disk would be full meanwhile.
pub(super) fn allocate(file: &File, path: &Path, bytes: u64) -> Result<(), FileError> {
    if bytes == 0 {
        return Ok(());
    }
    let held = file.metadata().map_err(FileError::at("look at", path))?.blocks().saturating_mul(512);
    if free_bytes(path)? < bytes.saturating_sub(held) {
        return Err(FileError::DiskFull { path: path.to_owned(), source: io::ErrorKind::StorageFull.into() });
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system that cannot reserve was at least measured.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(bytes).map_err(FileError::at("reserve space for", path)),
        Err(errno) => Err(FileError::new("reserve space for", path, errno.into())),
    }
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folders_are_created_private_and_a_file_in_the_way_is_named() {
        let temp = tempfile::tempdir().expect("temp");
        let deep = temp.path().join("a/b/c");
        create_folders(&deep).expect("created");
        create_folders(&deep).expect("there already");
        assert_eq!(deep.metadata().expect("there").permissions().mode() & 0o777, 0o700);
        std::fs::write(temp.path().join("file"), "").expect("written");
        let error = create_folders(&temp.path().join("file/below")).expect_err("in the way");
        assert_eq!(error.code(), "TED-1512");
        assert!(error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_at_once() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("file");
        let file = File::create(&path).expect("created");
        let free = free_bytes(temp.path()).expect("measured");
        let error = allocate(&file, &path, free.saturating_mul(2)).expect_err("twice what is free");
        assert_eq!(error.code(), "TED-1510", "{error}");
        assert_eq!(file.metadata().expect("there").blocks(), 0, "nothing was taken from others");
    }

    #[test]
    fn reserving_keeps_what_is_there() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("file");
        std::fs::write(&path, "content").expect("written");
        let file = File::options().write(true).open(&path).expect("opened");
        allocate(&file, &path, 4096).expect("reserved");
        let held = std::fs::read(&path).expect("read");
        assert_eq!(held.len(), 4096);
        assert_eq!(&held[..7], b"content");
    }
}
