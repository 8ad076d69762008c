//! A package file while it is being built: it has its final name when it is whole and durable, or not at all.

use std::fs::File;
use std::io::{self, Write};
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::file::{FileError, create_folders, remove_if_there, sync_folder};
use crate::store::part_file::{PACKAGE_FILE, PART_FILE, open_locked};
use crate::store::steps::{AllSteps, Step, Steps};

/// Bytes after which the disk is told to begin with what was written, so that little is left to wait for at the end.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// A package file under construction in its folder. Dropped unfinished, it is removed.
pub struct StagedFile {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// Bytes that the disk was told to begin with.
    begun: u64,
    finished: bool,
    steps: Arc<dyn Steps>,
}

impl StagedFile {
    /// Begins a package file in `folder`; what a crashed build left there is overwritten.
    ///
    /// # Errors
    /// [`FileError`]; [`FileError::Busy`] while another build writes there.
    pub fn create(folder: &Path) -> Result<Self, FileError> {
        Self::create_with(folder, Arc::new(AllSteps))
    }

    /// [`StagedFile::create`], with `steps` asked before each step.
    ///
    /// # Errors
    /// As [`StagedFile::create`].
    pub fn create_with(folder: &Path, steps: Arc<dyn Steps>) -> Result<Self, FileError> {
        create_folders(folder)?;
        let path = folder.join(PART_FILE);
        let file = open_locked(&path)?;
        file.set_len(0).map_err(FileError::at("empty", &path))?;
        Ok(Self { folder: folder.to_owned(), file, bytes: 0, begun: 0, finished: false, steps })
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, for reading what has been written.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The error of a failed write, with its place and code: for a builder's `io::Error`.
    #[must_use]
    pub fn error(&self, source: io::Error) -> FileError {
        FileError::new("write", &self.folder.join(PART_FILE), source)
    }

    /// Makes the file durable under its final name, in the place of an older one, and returns its path.
    ///
    /// # Errors
    /// [`FileError`]; an older file then still stands, or the new one does, whole.
    pub fn finish(mut self) -> Result<PathBuf, FileError> {
        let (part, path) = (self.folder.join(PART_FILE), self.folder.join(PACKAGE_FILE));
        self.step(Step::SyncData, &part)?;
        self.file.sync_all().map_err(FileError::at("make durable", &part))?;
        self.step(Step::RenamePackage, &part)?;
        std::fs::rename(&part, &path).map_err(FileError::at("rename", &part))?;
        self.finished = true;
        self.step(Step::SyncFolder, &self.folder)?;
        sync_folder(&self.folder)?;
        Ok(path)
    }

    fn step(&self, step: Step, path: &Path) -> Result<(), FileError> {
        self.steps.before(step).map_err(FileError::at("work on", path))
    }
}

/// Has the disk begin with a range of a file, as Linux does when it is told that nobody needs the range soon. What is
/// still being written stays in memory. No error matters: it is made durable in the end.
fn begin_write_back(file: &File, range: Range<u64>) {
    #[cfg(target_os = "linux")]
    if let Some(bytes) = NonZeroU64::new(range.end - range.start) {
        let _ = rustix::fs::fadvise(file, range.start, Some(bytes), rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range);
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.steps.before(Step::WriteData)?;
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        if self.bytes - self.begun >= WRITE_BACK_BYTES {
            begin_write_back(&self.file, self.begun..self.bytes);
            self.begun = self.bytes;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.finished {
            let path = self.folder.join(PART_FILE);
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(path = %path.display(), %error, "an unfinished package file stays behind");
            }
            // The folder may have been made for it; one with anything else in it stays.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

impl std::fmt::Debug for StagedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagedFile").field("folder", &self.folder).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded as _;
    use crate::store::steps::tests::StopAfter;

    #[test]
    fn a_build_that_stops_anywhere_leaves_the_old_package_or_the_new_one() {
        for allowed in 0.. {
            let temp = tempfile::tempdir().expect("temp");
            let folder = temp.path().join("dist/site/1/baseline");
            let path = folder.join(PACKAGE_FILE);
            create_folders(&folder).expect("created");
            std::fs::write(&path, "old").expect("written");
            let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::StorageFull));
            let mut staged = StagedFile::create_with(&folder, steps).expect("begun");
            let outcome = match staged.write_all(b"new") {
                Ok(()) => staged.finish(),
                Err(error) => Err(staged.error(error)),
            };
            let held = std::fs::read(&path).expect("one of them");
            match outcome {
                Ok(_) => {
                    assert_eq!(held, b"new");
                    return;
                }
                Err(error) => {
                    assert_eq!(error.code(), "TED-1510");
                    assert_eq!(held, if allowed < 3 { b"old" } else { b"new" }, "after {allowed} steps");
                }
            }
        }
    }

    #[test]
    fn a_build_that_is_given_up_leaves_no_trace() {
        let temp = tempfile::tempdir().expect("temp");
        let folder = temp.path().join("new");
        let mut staged = StagedFile::create(&folder).expect("begun");
        staged.write_all(b"half").expect("written");
        assert_eq!(staged.bytes(), 4);
        drop(staged);
        assert!(!folder.exists());
    }
}
