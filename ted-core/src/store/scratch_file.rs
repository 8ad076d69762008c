//! A file of no name, for what is made, read at any place and not wanted any more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::file::FileError;

/// A file that is gone when the process ends, however it ends. Cheap to clone; all clones are the same file.
#[derive(Debug, Clone)]
pub struct ScratchFile {
    file: Arc<File>,
    path: PathBuf,
}

impl ScratchFile {
    /// Makes one on the file system of `path`, which is a name for as long as it takes to take it away again, and nobody
    /// else's to read. A file that a crash left there is overwritten.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let file = File::options().create(true).truncate(true).read(true).write(true).mode(0o600).open(path);
        let file = Arc::new(file.map_err(FileError::at("create", path))?);
        std::fs::remove_file(path).map_err(FileError::at("remove", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Fills `buf` from what was written at `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when there is less.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Writes to it from `offset` on.
    #[must_use]
    pub fn writer(&self, offset: u64) -> impl Write + use<> {
        ScratchWriter { file: Arc::clone(&self.file), at: offset }
    }

    /// The error of a failed write, with its place and code.
    #[must_use]
    pub fn error(&self, source: io::Error) -> FileError {
        FileError::new("write", &self.path, source)
    }
}

struct ScratchWriter {
    file: Arc<File>,
    at: u64,
}

impl Write for ScratchWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_was_written_is_read_at_any_place_and_no_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch");
        std::fs::write(&path, "left by a crash").unwrap();
        let file = ScratchFile::create(&path).unwrap();
        file.writer(0).write_all(b"first").unwrap();
        file.writer(5).write_all(b"second").unwrap();
        let mut read = [0; 4];
        file.read_exact_at(&mut read, 3).unwrap();
        assert_eq!(&read, b"stse");
        assert_eq!(file.read_exact_at(&mut read, 8).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(ScratchFile::create(&path).unwrap().file.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
