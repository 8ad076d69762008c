//! A node's whole security state in one encrypted file, and back.

mod restore;
mod sealed;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::name::NodeName;
use crate::store::data_dir::{DataDirError, NodeRole};
use crate::store::durable::{DurableFile, StateError};
use crate::store::file::FileError;
use crate::store::security_dir::SecurityDirError;
use crate::store::tokens::TOKENS_FILE;

pub use restore::{Overwrite, Restoring};

const MAGIC: &[u8; 4] = b"TEDB";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u16>();
/// How often the folder is read until nothing changed while it was.
const TRIES: usize = 5;

/// Why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The passphrase is too short to protect keys.
    #[error("a passphrase needs {0} characters or more")]
    ShortPassphrase(usize),
    /// The passphrase does not open it.
    #[error("the passphrase does not open the backup")]
    Passphrase,
    /// Not a backup, or altered.
    #[error("not a whole backup: {0}")]
    Malformed(String),
    /// Written by a newer TED.
    #[error("the backup has version {0}, and this TED reads version {VERSION}")]
    Version(u16),
    /// It is that of a node of the other role.
    #[error("it is the backup of the {found} {node}, not of a {wanted}")]
    OtherRole {
        /// Whose it is.
        node: NodeName,
        /// What that is.
        found: String,
        /// What is wanted.
        wanted: NodeRole,
    },
    /// There are keys already.
    #[error("{} holds keys already", .0.display())]
    Exists(PathBuf),
    /// Something changed again and again while it was read.
    #[error("{} changed again and again while it was read", .0.display())]
    Changing(PathBuf),
    /// It could not be encrypted.
    #[error("the backup cannot be encrypted: {0}")]
    Sealing(String),
    /// Its content does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A part of it is not what it should be.
    #[error(transparent)]
    Security(#[from] SecurityDirError),
    /// A part of it is not what it should be.
    #[error(transparent)]
    State(#[from] StateError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Coded for BackupError {
    fn code(&self) -> &'static str {
        match self {
            Self::ShortPassphrase(_) => "TED-1182",
            Self::Passphrase => "TED-1183",
            Self::Malformed(_) => "TED-1184",
            Self::Version(_) => "TED-1185",
            Self::Exists(_) => "TED-1186",
            Self::OtherRole { .. } => "TED-1187",
            Self::Changing(_) => "TED-1188",
            Self::Sealing(_) => "TED-1189",
            Self::Codec(error) => error.code(),
            Self::Security(error) => error.code(),
            Self::State(error) => error.code(),
            Self::DataDir(error) => error.code(),
            Self::File(error) => error.code(),
        }
    }
}

/// A node's security state as it was at one moment. Its bytes are zeroed when it is dropped.
#[derive(Serialize, Deserialize)]
pub struct Backup {
    role: String,
    node: NodeName,
    made: UnixMillis,
    files: Vec<StoredFile>,
    /// What the node needs beside its security state, by kind; unknown kinds are left alone.
    extras: Vec<(u16, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    /// Below `security/`, with `/` between its parts.
    path: String,
    bytes: Vec<u8>,
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Backup({} {}, {} files)", self.role, self.node, self.files.len())
    }
}

impl Backup {
    /// Reads everything below `security`, while the node may run: each file is only ever replaced whole, and all are
    /// read again if one of them changed meanwhile.
    ///
    /// # Errors
    /// [`BackupError::Changing`] if that went on, or what the disk says.
    pub fn collect(security: &Path, role: NodeRole, node: &NodeName, now: UnixMillis) -> Result<Self, BackupError> {
        for _ in 0..TRIES {
            let before = stamps(security)?;
            let read = before.iter().map(|(path, ..)| read_file(security, path)).collect::<Result<Vec<_>, _>>();
            if stamps(security)? == before {
                let (role, node) = (role.to_string(), node.clone());
                return Ok(Self { role, node, made: now, files: read?, extras: vec![] });
            }
        }
        Err(BackupError::Changing(security.to_owned()))
    }

    /// The same with something that the node needs beside its security state.
    #[must_use]
    pub fn with_extra(mut self, kind: u16, bytes: Vec<u8>) -> Self {
        self.extras.push((kind, bytes));
        self
    }

    /// What was put in under this kind.
    #[must_use]
    pub fn extra(&self, kind: u16) -> Option<&[u8]> {
        self.extras.iter().find(|(of, _)| *of == kind).map(|(_, bytes)| bytes.as_slice())
    }

    /// Whose it is.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> UnixMillis {
        self.made
    }

    /// The encrypted file: age with a passphrase, which has to have [`Limits::passphrase_chars_min`] characters.
    /// Takes a second or so.
    ///
    /// # Errors
    /// [`BackupError::ShortPassphrase`], [`BackupError::Sealing`].
    pub fn seal(&self, passphrase: &str) -> Result<Vec<u8>, BackupError> {
        self.seal_with(passphrase, Limits::DEFAULT.backup_work)
    }

    fn seal_with(&self, passphrase: &str, work: u8) -> Result<Vec<u8>, BackupError> {
        let least = Limits::DEFAULT.passphrase_chars_min;
        if passphrase.chars().count() < least {
            return Err(BackupError::ShortPassphrase(least));
        }
        let content = Zeroizing::new(codec::encode("a backup", self, Limits::DEFAULT.backup_bytes_max)?);
        let mut plain = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + content.len()));
        plain.extend_from_slice(MAGIC);
        plain.extend_from_slice(&VERSION.to_le_bytes());
        plain.extend_from_slice(&content);
        sealed::seal(&plain, passphrase, work)
    }

    /// Opens an encrypted file.
    ///
    /// # Errors
    /// [`BackupError`] says what is wrong; nothing of it was used then.
    pub fn open(sealed: &[u8], passphrase: &str) -> Result<Self, BackupError> {
        let plain = sealed::open(sealed, passphrase)?;
        let content = plain.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<2>());
        let (version, content) =
            content.ok_or_else(|| BackupError::Malformed("it holds no backup of TED".to_owned()))?;
        match u16::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(BackupError::Version(other)),
        }
        let backup: Self = codec::decode("a backup", content, Limits::DEFAULT.backup_bytes_max)?;
        for file in &backup.files {
            check_path(&file.path)?;
        }
        Ok(backup)
    }
}

/// A path that stays below the folder it is joined to.
fn check_path(path: &str) -> Result<(), BackupError> {
    let parts: Vec<_> = Path::new(path).components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    if parts.is_empty() || !plain || path.contains('\0') {
        return Err(BackupError::Malformed(format!("it holds a file `{path}`")));
    }
    Ok(())
}

/// What tells whether a file is as it was: its path, inode, length and time of change.
type Stamp = (PathBuf, u64, u64, i64, i64);

/// The plain files below `security`, in the order of their paths. What a replacement leaves for a moment is none.
fn stamps(security: &Path) -> Result<Vec<Stamp>, FileError> {
    let mut folders = vec![PathBuf::new()];
    let mut found = vec![];
    while let Some(folder) = folders.pop() {
        let path = security.join(&folder);
        for entry in std::fs::read_dir(&path).map_err(FileError::at("list", &path))? {
            let entry = entry.map_err(FileError::at("list", &path))?;
            let below = folder.join(entry.file_name());
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(FileError::at("look at", &path))?,
            };
            if metadata.is_dir() {
                folders.push(below);
            } else if metadata.is_file()
                && below.extension().is_none_or(|ending| ending != "tmp")
                && below.file_name().is_none_or(|name| name != TOKENS_FILE)
            {
                found.push((below, metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(security: &Path, below: &Path) -> Result<StoredFile, FileError> {
    let path = security.join(below);
    let refuse = |kind: io::ErrorKind| FileError::new("read", &path, kind.into());
    let text = below.to_str().ok_or_else(|| refuse(io::ErrorKind::InvalidFilename))?;
    let bytes = DurableFile::new(path.clone()).read(Limits::DEFAULT.state_file_bytes_max)?;
    let bytes = bytes.ok_or_else(|| refuse(io::ErrorKind::NotFound))?;
    Ok(StoredFile { path: text.to_owned(), bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests;
