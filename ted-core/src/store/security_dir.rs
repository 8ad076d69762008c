//! `<data>/security/`: trusted certificates, keys, requests, and the move of a certificate into the keystore.

mod carried;
mod error;
mod safety;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::security::{DistributorRoot, Keystore, KeystoreError, RootFile};
use crate::store::data_dir::NodeRole;
use crate::store::durable::DurableFile;
use crate::store::file::{FileError, create_folders, remove_if_there, sync_folder};
use crate::store::steps::{AllSteps, Step, Steps};

pub use carried::IssuedFile;
pub use error::SecurityDirError;

const PRIVATE: &str = "private";
const KEYSTORE: &str = ".keystore";
/// Lies in `security/` from the first keystore on, so that a lost keystore is told from one that never was.
const MARKER: &str = ".keystore-made";
const REQUESTS: &str = "csr";
const ISSUED: &str = "issued";
/// Keystores that others took the place of.
const RETIRED: &str = "retired";
const CERTIFICATE_ENDING: &str = ".cer";

/// Where a trusted certificate lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedIn {
    /// In the keystore: trusted for good.
    Keystore,
    /// In a `.cer` file: trusted, and moved into the keystore at the first verified package.
    File(PathBuf),
}

/// A Distributor that this node trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot {
    /// Its certificate.
    pub root: DistributorRoot,
    /// Where that lies.
    pub lies_in: TrustedIn,
    /// The trusted Distributor that it takes over from once a package of it is verified: one of the same name, or the
    /// one whose word for it lies in the file. Only for those that lie in a file.
    pub predecessor: Option<KeyHash>,
}

/// Something in the security folder that is not a Distributor's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredFile {
    /// What it is.
    pub path: PathBuf,
    /// Why it is not trusted.
    pub reason: String,
}

/// The security folder of a node, checked when it was opened.
#[derive(Clone)]
pub struct SecurityDir {
    path: PathBuf,
    role: NodeRole,
    steps: Arc<dyn Steps>,
    /// Held while the keystore is read, changed and written, so that no change is lost to another.
    changing: Arc<Mutex<()>>,
    /// What was read last, and of which files.
    read: Arc<Mutex<Option<Reading>>>,
}

/// The keystore and the trusted Distributors, read together.
#[derive(Debug)]
pub struct Trust {
    /// The keystore.
    pub keystore: Keystore,
    /// The Distributors that are trusted: those of the keystore and the valid `.cer` files together.
    pub roots: Vec<TrustedRoot>,
    /// What else lies in the folder.
    pub ignored: Vec<IgnoredFile>,
}

/// What tells whether the folder is as it was: each file's name, inode, length and time of change. A file that is
/// replaced has another inode, and one that is written to another time.
type Stamp = Vec<(PathBuf, u64, u64, i64, i64)>;

/// What was read, and of which files.
type Reading = (Stamp, Arc<Trust>);

impl SecurityDir {
    /// Makes the folder with what belongs in it, or opens the one that is there.
    ///
    /// # Errors
    /// [`SecurityDirError`].
    pub fn create(path: &Path, role: NodeRole) -> Result<Self, SecurityDirError> {
        for folder in [path.join(PRIVATE), path.join(REQUESTS), path.join(ISSUED)] {
            create_folders(&folder)?;
        }
        Self::open(path, role)
    }

    /// Opens the folder of an existing node.
    ///
    /// # Errors
    /// [`SecurityDirError::Unsafe`] when owner or modes are not as they must be, with the command that mends it;
    /// [`SecurityDirError::KeystoreGone`] when a keystore was made once and is not there.
    pub fn open(path: &Path, role: NodeRole) -> Result<Self, SecurityDirError> {
        let this = Self {
            path: path.to_owned(),
            role,
            steps: Arc::new(AllSteps),
            changing: Arc::default(),
            read: Arc::default(),
        };
        this.check_permissions()?;
        this.load_keystore()?;
        Ok(this)
    }

    /// Opens the folder of a node whose keystore is gone for good.
    ///
    /// # Errors
    /// As [`SecurityDir::open`].
    pub fn open_without_keystore(path: &Path, role: NodeRole) -> Result<Self, SecurityDirError> {
        match Self::open(path, role) {
            Err(SecurityDirError::KeystoreGone { .. }) => Ok(Self {
                path: path.to_owned(),
                role,
                steps: Arc::new(AllSteps),
                changing: Arc::default(),
                read: Arc::default(),
            }),
            opened => opened,
        }
    }

    /// Asks before a step of a change that is made of several files.
    ///
    /// # Errors
    /// What a test wants the disk to say.
    pub(crate) fn before(&self, step: Step) -> Result<(), FileError> {
        self.steps.before(step).map_err(FileError::at("change", &self.path))
    }

    /// Puts the keystore, requests and issued certificates as they are now aside, in `retired/<time>/`, where only the
    /// node's user reads them. The keystore itself stays in its place until another one takes it. Answers the folder.
    ///
    /// # Errors
    /// [`SecurityDirError::File`]; doing it again does no harm.
    pub fn retire(&self, now: UnixMillis) -> Result<PathBuf, SecurityDirError> {
        let folder = self.path.join(RETIRED).join(now.millis().to_string());
        create_folders(&folder)?;
        for made in [&self.path.join(RETIRED), &folder] {
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(made, private).map_err(FileError::at("protect", made))?;
        }
        self.before(Step::Retire)?;
        let (keystore, aside) = (self.path.join(PRIVATE).join(KEYSTORE), folder.join(KEYSTORE));
        match std::fs::hard_link(&keystore, &aside) {
            Err(error) if ![io::ErrorKind::NotFound, io::ErrorKind::AlreadyExists].contains(&error.kind()) => {
                return Err(FileError::new("link", &aside, error).into());
            }
            _ => sync_folder(&folder)?,
        }
        for name in [REQUESTS, ISSUED] {
            self.before(Step::Retire)?;
            let (from, to) = (self.path.join(name), folder.join(name));
            if from.exists() && !to.exists() {
                std::fs::rename(&from, &to).map_err(FileError::at("rename", &from))?;
            }
            create_folders(&from)?;
        }
        sync_folder(&folder)?;
        Ok(folder)
    }

    /// The same folder, asking `steps` before each step of a change.
    #[must_use]
    pub fn with_steps(mut self, steps: Arc<dyn Steps>) -> Self {
        self.steps = steps;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A small file in `private/`.
    #[must_use]
    pub fn private_file(&self, name: &str) -> DurableFile {
        DurableFile::new_with(self.path.join(PRIVATE).join(name), Arc::clone(&self.steps))
    }

    /// The keystore; empty if there never was one.
    ///
    /// # Errors
    /// [`SecurityDirError::KeystoreGone`] or [`SecurityDirError::Keystore`].
    pub fn load_keystore(&self) -> Result<Keystore, SecurityDirError> {
        let file = self.private_file(KEYSTORE);
        let path = file.path().to_owned();
        match file.read(Limits::DEFAULT.state_file_bytes_max)? {
            Some(bytes) => {
                let keystore = Keystore::decode(&bytes);
                keystore.map_err(|source| SecurityDirError::Keystore { path, source: Box::new(source) })
            }
            None if self.path.join(MARKER).exists() => {
                let remedy = match self.role {
                    NodeRole::Distributor => {
                        "bring it back with `ted-distributor restore FILE`, or make new keys with \
                         `ted-distributor certificate rekey`"
                    }
                    NodeRole::Subscriber => "bring it back from a backup, or remove this node's data and join anew",
                };
                Err(SecurityDirError::KeystoreGone { path, remedy })
            }
            None => Ok(Keystore::default()),
        }
    }

    /// Reads the keystore, changes it, and writes it durably. Changes through clones of this value wait for each
    /// other. Nothing is written when `change` fails.
    ///
    /// # Errors
    /// [`SecurityDirError`], then the old keystore is still there; or what `change` says.
    pub fn change_keystore<R, E: From<SecurityDirError>>(
        &self,
        change: impl FnOnce(&mut Keystore) -> Result<R, E>,
    ) -> Result<R, E> {
        // Nothing is guarded but the order of changes, so a panic in one leaves nothing half-made.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keystore = self.load_keystore()?;
        let answer = change(&mut keystore)?;
        self.save_keystore(&keystore)?;
        Ok(answer)
    }

    /// Puts `keystore` in the place of the one that is there, durably. A change of it belongs into
    /// [`SecurityDir::change_keystore`]; this is for a new node and for restoring.
    ///
    /// # Errors
    /// [`SecurityDirError`]; then the old keystore is still there.
    pub fn save_keystore(&self, keystore: &Keystore) -> Result<(), SecurityDirError> {
        let file = self.private_file(KEYSTORE);
        let bytes = keystore
            .encode()
            .map_err(|source| SecurityDirError::Keystore { path: file.path().to_owned(), source: Box::new(source) })?;
        let replaced = file.replace(&bytes);
        self.forget_read();
        replaced?;
        let marker = self.path.join(MARKER);
        if !marker.exists() {
            DurableFile::new(marker).replace(b"")?;
        }
        Ok(())
    }

    /// Puts a Distributor's certificate into the folder, as if it had been carried there. Trusted from now on.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn drop_certificate(&self, root: &DistributorRoot) -> Result<PathBuf, SecurityDirError> {
        self.drop_root_file(&RootFile { root: root.clone(), replacement: None })
    }

    /// The same for a certificate with the word of the one before it.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn drop_root_file(&self, file: &RootFile) -> Result<PathBuf, SecurityDirError> {
        let path = self.path.join(file.root.file_name());
        DurableFile::new(path.clone()).replace(file.pem().as_bytes())?;
        self.forget_read();
        Ok(path)
    }

    /// Removes a Distributor's `.cer` file, where there is one.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn remove_certificate(&self, root: &DistributorRoot) -> Result<(), SecurityDirError> {
        remove_if_there(&self.path.join(root.file_name()))?;
        self.forget_read();
        Ok(sync_folder(&self.path)?)
    }

    /// The keystore and whom this node trusts, as it is now: read anew whenever a file of it has changed, whoever
    /// changed it. What lies in the folder and is not trusted is named in a warning when it is first seen.
    ///
    /// # Errors
    /// [`SecurityDirError`] when the folder or the keystore cannot be read.
    pub fn trust(&self) -> Result<Arc<Trust>, SecurityDirError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the files are read: what changes meanwhile is read again the next time.
        let stamp = self.stamp()?;
        if let Some((_, trust)) = read.as_ref().filter(|(of, _)| *of == stamp) {
            return Ok(Arc::clone(trust));
        }
        let keystore = self.load_keystore()?;
        let in_keystore = |root: &DistributorRoot| TrustedRoot {
            root: root.clone(),
            lies_in: TrustedIn::Keystore,
            predecessor: None,
        };
        let mut roots: Vec<_> = keystore.trusted().iter().map(in_keystore).collect();
        let mut ignored = Vec::new();
        for path in self.dropped_files()? {
            match read_root(&path) {
                Ok(file) if roots.iter().any(|known| known.root == file.root) => {}
                Ok(file) => {
                    let before = keystore.trusted().iter().find(|old| {
                        **old != file.root && (old.name() == file.root.name() || file.takes_over_from(old))
                    });
                    let predecessor = before.map(DistributorRoot::key_hash);
                    roots.push(TrustedRoot { root: file.root, lies_in: TrustedIn::File(path), predecessor });
                }
                Err(reason) => {
                    tracing::warn!(path = %path.display(), %reason, "ignored in the security folder");
                    ignored.push(IgnoredFile { path, reason });
                }
            }
        }
        let trust = Arc::new(Trust { keystore, roots, ignored });
        *read = Some((stamp, Arc::clone(&trust)));
        Ok(trust)
    }

    /// The Distributors that are trusted, and what else lies in the folder: see [`SecurityDir::trust`].
    ///
    /// # Errors
    /// As [`SecurityDir::trust`].
    pub fn trusted_roots(&self) -> Result<(Vec<TrustedRoot>, Vec<IgnoredFile>), SecurityDirError> {
        let trust = self.trust()?;
        Ok((trust.roots.clone(), trust.ignored.clone()))
    }

    fn stamp(&self) -> Result<Stamp, FileError> {
        let mut files = self.dropped_files()?;
        files.push(self.path.join(PRIVATE).join(KEYSTORE));
        let mut stamp = Vec::with_capacity(files.len());
        for path in files {
            match path.symlink_metadata() {
                Ok(found) => stamp.push((path, found.ino(), found.len(), found.ctime(), found.ctime_nsec())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(FileError::new("look at", &path, error)),
            }
        }
        Ok(stamp)
    }

    /// Two changes may come within one tick of the file system's clock; those of this process are never missed.
    fn forget_read(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Moves the certificate of the Distributor with this key into the keystore, where it takes over from one of the
    /// same name: the keystore is written, made durable, renamed, its folder made durable, and only then the `.cer`
    /// removed. A crash between any two of these steps is harmless, and doing it again does no harm. Called after the
    /// first verified package.
    ///
    /// # Errors
    /// [`SecurityDirError::NotTrusted`] if no such certificate lies anywhere.
    pub fn promote(&self, distributor: &KeyHash) -> Result<(), SecurityDirError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keystore = self.load_keystore()?;
        let files: Vec<_> = self
            .dropped_files()?
            .into_iter()
            .filter_map(|path| Some((read_root(&path).ok()?.root, path)))
            .filter(|(root, _)| root.key_hash() == *distributor)
            .collect();
        if !keystore.trusted().iter().any(|root| root.key_hash() == *distributor) {
            let Some((root, _)) = files.first() else {
                return Err(SecurityDirError::NotTrusted(distributor.fingerprint()));
            };
            keystore.trust(root.clone());
            self.save_keystore(&keystore)?;
        }
        for (_, path) in files {
            self.steps.before(Step::RemoveCertificate).map_err(FileError::at("remove", &path))?;
            remove_if_there(&path)?;
        }
        self.forget_read();
        Ok(())
    }

    /// The error for what the keystore holds and nobody can read.
    pub(super) fn unreadable(&self, source: KeystoreError) -> SecurityDirError {
        let path = self.path.join(PRIVATE).join(KEYSTORE);
        SecurityDirError::Keystore { path, source: Box::new(source) }
    }

    /// What lies in the folder and does not belong to it otherwise, in the order of names.
    fn dropped_files(&self) -> Result<Vec<PathBuf>, FileError> {
        let own = [PRIVATE, REQUESTS, ISSUED, RETIRED, MARKER].map(|name| self.path.join(name));
        let mut files = list(&self.path)?;
        files.retain(|path| !own.contains(path));
        Ok(files)
    }
}

/// The certificate in a dropped file, or why it is ignored.
fn read_root(path: &Path) -> Result<RootFile, String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.ends_with(CERTIFICATE_ENDING) {
        return Err(format!("its name does not end in {CERTIFICATE_ENDING}"));
    }
    let metadata = path.symlink_metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    let text = read_small(path).map_err(|error| error.to_string())?;
    let file = RootFile::from_pem(&text).map_err(|error| error.to_string())?;
    if file.root.file_name() != name {
        let (of, wanted) = (file.root.name(), file.root.file_name());
        return Err(format!("it is the certificate of {of}, whose file is {wanted}"));
    }
    Ok(file)
}

/// A PEM file's text; PEM is a third longer than DER, and may have explanations before it.
fn read_small(path: &Path) -> Result<String, FileError> {
    let bytes = DurableFile::new(path.to_owned())
        .read(Limits::DEFAULT.certificate_bytes_max * 4)?
        .ok_or_else(|| FileError::new("read", path, io::ErrorKind::NotFound.into()))?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| FileError::new("read", path, io::Error::new(io::ErrorKind::InvalidData, "it is not text")))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = std::fs::read_dir(folder).map_err(FileError::at("list", folder))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(FileError::at("list", folder))?;
    paths.sort();
    Ok(paths)
}
