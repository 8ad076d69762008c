//! Small files that must survive anything: replaced whole, in one step, and checked when they are read.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::limits::Limits;
use crate::store::file::{FileError, remove_if_there, sync_folder};
use crate::store::steps::{AllSteps, Step, Steps};

const MAGIC: &[u8; 4] = b"TEDS";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;

/// One file that is only ever replaced whole: written beside, made durable, renamed, and the folder made durable.
/// A crash leaves the old content or the new one. Its mode is 0600.
#[derive(Clone)]
pub struct DurableFile {
    path: PathBuf,
    steps: Arc<dyn Steps>,
}

impl DurableFile {
    /// The file at `path`, there or not yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self::new_with(path, Arc::new(AllSteps))
    }

    /// The same, asking `steps` before each step.
    #[must_use]
    pub fn new_with(path: PathBuf, steps: Arc<dyn Steps>) -> Self {
        Self { path, steps }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content, zeroed when dropped; `None` if there is no file.
    ///
    /// # Errors
    /// [`FileError`], also when it is longer than `limit` bytes or a symlink.
    pub fn read(&self, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
        let opened = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&self.path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(FileError::at("open", &self.path))?,
        };
        let bytes = file.metadata().map_err(FileError::at("look at", &self.path))?.len();
        if bytes > limit {
            return Err(FileError::new("read", &self.path, io::ErrorKind::FileTooLarge.into()));
        }
        let mut content = Zeroizing::new(Vec::with_capacity(bytes as usize));
        file.take(limit).read_to_end(&mut content).map_err(FileError::at("read", &self.path))?;
        Ok(Some(content))
    }

    /// Puts `content` in its place. When this returns, the new content survives a power cut.
    ///
    /// # Errors
    /// [`FileError`]; then the old content is still there.
    pub fn replace(&self, content: &[u8]) -> Result<(), FileError> {
        let beside = self.beside();
        let written = self.write_beside(&beside, content).and_then(|()| {
            self.before(Step::RenameState)?;
            std::fs::rename(&beside, &self.path).map_err(FileError::at("replace", &self.path))
        });
        if let Err(error) = written {
            // The first error is the one to tell; a leftover is overwritten by the next replacement.
            let _ = remove_if_there(&beside);
            return Err(error);
        }
        self.before(Step::SyncFolder)?;
        sync_folder(self.folder())
    }

    /// Removes it, where it is there.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn remove(&self) -> Result<(), FileError> {
        remove_if_there(&self.path)
    }

    fn write_beside(&self, beside: &Path, content: &[u8]) -> Result<(), FileError> {
        self.before(Step::WriteState)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(beside)
            .map_err(FileError::at("create", beside))?;
        file.write_all(content).map_err(FileError::at("write", beside))?;
        self.before(Step::SyncState)?;
        file.sync_all().map_err(FileError::at("make durable", beside))
    }

    /// Asks whether a step may happen.
    pub(super) fn before(&self, step: Step) -> Result<(), FileError> {
        self.steps.before(step).map_err(FileError::at("replace", &self.path))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn beside(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        self.path.with_file_name(name)
    }
}

/// Why a state file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what it should be. It must come back from a backup: an empty one in its place would forget.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Written by a newer TED.
    #[error("{} has version {found}, and this TED reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// Its content does not decode, or has grown beyond the limit.
    #[error("{}", path.display())]
    Codec {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        source: CodecError,
    },
}

impl Coded for StateError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(error) => error.code(),
            Self::Damaged { .. } => "TED-1131",
            Self::Version { .. } => "TED-1132",
            Self::Codec { .. } => "TED-1133",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::File(error) if error.is_retryable())
    }
}

/// A value that lives in memory and, durable before any change counts, in a [`DurableFile`]: magic, kind, version,
/// content, BLAKE3 of all before it.
pub(super) struct StateFile<T> {
    file: DurableFile,
    what: &'static str,
    kind: u16,
    state: Mutex<T>,
}

impl<T: Serialize + DeserializeOwned + Default + Clone> StateFile<T> {
    /// Reads the file, or begins with the default where there is none yet.
    pub(super) fn open(file: DurableFile, what: &'static str, kind: u16) -> Result<Self, StateError> {
        let state = match file.read(Limits::DEFAULT.state_file_bytes_max)? {
            Some(bytes) => unframe(&file, what, kind, &bytes)?,
            None => T::default(),
        };
        Ok(Self { file, what, kind, state: Mutex::new(state) })
    }

    /// The value.
    pub(super) fn state(&self) -> MutexGuard<'_, T> {
        // A change is put in place whole, so a panic elsewhere cannot have left it half-made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value. It is durable when this returns, and unchanged when this fails.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, StateError> {
        let mut state = self.state();
        let mut next = state.clone();
        let answer = change(&mut next);
        self.file.replace(&self.frame(&next)?)?;
        *state = next;
        Ok(answer)
    }

    fn frame(&self, state: &T) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let codec = |source| StateError::Codec { path: self.file.path.clone(), source };
        let content = codec::encode(self.what, state, Limits::DEFAULT.state_file_bytes_max).map_err(codec)?;
        let content = Zeroizing::new(content);
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + content.len() + CHECKSUM_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.kind.to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&content);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        Ok(bytes)
    }
}

fn unframe<T: DeserializeOwned>(
    file: &DurableFile,
    what: &'static str,
    kind: u16,
    bytes: &[u8],
) -> Result<T, StateError> {
    let path = || file.path.clone();
    let damaged = |reason| StateError::Damaged { path: path(), reason };
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it is cut short"))?;
    let (header, content) = body.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged("it is cut short"))?;
    let [magic @ .., k0, k1, v0, v1] = header;
    if magic != MAGIC {
        return Err(damaged("it does not begin like a state file"));
    }
    let found = u16::from_le_bytes([*v0, *v1]);
    if found != VERSION {
        return Err(StateError::Version { path: path(), found });
    }
    if u16::from_le_bytes([*k0, *k1]) != kind {
        return Err(damaged("it is a state file of another kind"));
    }
    if blake3::hash(body).as_bytes() != checksum {
        return Err(damaged("its checksum does not match"));
    }
    codec::decode(what, content, Limits::DEFAULT.state_file_bytes_max)
        .map_err(|source| StateError::Codec { path: path(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::steps::tests::StopAfter;

    #[test]
    fn a_replacement_that_stops_anywhere_leaves_the_old_content_or_the_new() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        for allowed in 0..=4 {
            DurableFile::new(path.clone()).replace(b"old").unwrap();
            let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::StorageFull));
            let outcome = DurableFile::new_with(path.clone(), Arc::<StopAfter>::clone(&steps) as _).replace(b"new");
            assert_eq!(outcome.is_ok(), allowed == 4);
            let left = DurableFile::new(path.clone()).read(10).unwrap().unwrap();
            let expected: &[u8] = if allowed >= 3 { b"new" } else { b"old" };
            assert_eq!(&left[..], expected, "{allowed} steps");
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else is left behind");
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn too_long_files_and_symlinks_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        let file = DurableFile::new(path.clone());
        assert!(file.read(10).unwrap().is_none());
        std::fs::write(&path, [0; 11]).unwrap();
        assert!(file.read(10).is_err());
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(DurableFile::new(link).read(100).is_err());
    }

    #[test]
    fn a_state_file_is_refused_when_any_byte_of_it_changed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        let open = |kind| StateFile::<Vec<u64>>::open(DurableFile::new(path.clone()), "numbers", kind);
        open(1).unwrap().change(|numbers| numbers.push(7)).unwrap();
        assert_eq!(*open(1).unwrap().state(), [7]);
        assert_eq!(open(2).err().unwrap().code(), "TED-1131");
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(open(1).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_change_that_cannot_be_written_did_not_happen() {
        let temp = tempfile::tempdir().unwrap();
        let steps = Arc::new(StopAfter::new(5, io::ErrorKind::StorageFull));
        let file = DurableFile::new_with(temp.path().join("state"), steps as _);
        let numbers = StateFile::<Vec<u64>>::open(file, "numbers", 1).unwrap();
        numbers.change(|numbers| numbers.push(1)).unwrap();
        assert_eq!(numbers.change(|numbers| numbers.push(2)).unwrap_err().code(), "TED-1510");
        assert_eq!(*numbers.state(), [1]);
    }
}
