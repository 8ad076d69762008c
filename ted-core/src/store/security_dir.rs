//! `<data>/security/`: trusted certificates, keys, requests, and the move of a certificate into the keystore.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Coded;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::{Certificate, CertificateRequest, DistributorRoot, Keystore, KeystoreError, TrustError};
use crate::store::data_dir::NodeRole;
use crate::store::durable::DurableFile;
use crate::store::file::{FileError, create_folders, remove_if_there, sync_folder};
use crate::store::steps::{AllSteps, Step, Steps};

const PRIVATE: &str = "private";
const KEYSTORE: &str = ".keystore";
/// Lies in `security/` from the first keystore on, so that a lost keystore is told from one that never was.
const MARKER: &str = ".keystore-made";
const REQUESTS: &str = "csr";
const ISSUED: &str = "issued";
const CERTIFICATE_ENDING: &str = ".cer";

/// Why the security folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityDirError {
    /// Others could read keys or plant certificates.
    #[error("{} is not safe: {reason}; mend it with `{remedy}`", path.display())]
    Unsafe {
        /// What is not safe.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The command that mends it.
        remedy: String,
    },
    /// There is no security folder.
    #[error("{} does not exist: run `init` or `join` first", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There was a keystore once, and it is gone.
    #[error("{} is gone: {remedy}", path.display())]
    KeystoreGone {
        /// Where it should be.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The keystore cannot be read.
    #[error("{}", path.display())]
    Keystore {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: KeystoreError,
    },
    /// No certificate of this Distributor lies there.
    #[error("no certificate of the Distributor with key {0} is in the security folder or the keystore")]
    NotTrusted(String),
    /// A certificate or request in a file is not what it should be.
    #[error("{}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TrustError,
    },
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Coded for SecurityDirError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unsafe { .. } => "TED-1141",
            Self::Missing { .. } => "TED-1142",
            Self::KeystoreGone { .. } => "TED-1143",
            Self::Keystore { source, .. } => source.code(),
            Self::NotTrusted(_) => "TED-1144",
            Self::Trust { source, .. } => source.code(),
            Self::File(error) => error.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::File(error) if error.is_retryable())
    }
}

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
}

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
        let this = Self { path: path.to_owned(), role, steps: Arc::new(AllSteps) };
        this.check_permissions()?;
        this.load_keystore()?;
        Ok(this)
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
                keystore.map_err(|source| SecurityDirError::Keystore { path, source })
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

    /// Puts `keystore` in the place of the one that is there, durably.
    ///
    /// # Errors
    /// [`SecurityDirError`]; then the old keystore is still there.
    pub fn save_keystore(&self, keystore: &Keystore) -> Result<(), SecurityDirError> {
        let file = self.private_file(KEYSTORE);
        let bytes =
            keystore.encode().map_err(|source| SecurityDirError::Keystore { path: file.path().to_owned(), source })?;
        file.replace(&bytes)?;
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
        let path = self.path.join(root.file_name());
        DurableFile::new(path.clone()).replace(root.certificate().pem().as_bytes())?;
        Ok(path)
    }

    /// Removes a Distributor's `.cer` file, where there is one.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn remove_certificate(&self, root: &DistributorRoot) -> Result<(), SecurityDirError> {
        remove_if_there(&self.path.join(root.file_name()))?;
        Ok(sync_folder(&self.path)?)
    }

    /// The Distributors that are trusted: those of the keystore and the valid `.cer` files together. What else lies
    /// in the folder is named in a warning and answered beside.
    ///
    /// # Errors
    /// [`SecurityDirError`] when the folder or the keystore cannot be read.
    pub fn trusted_roots(&self) -> Result<(Vec<TrustedRoot>, Vec<IgnoredFile>), SecurityDirError> {
        let keystore = self.load_keystore()?;
        let in_keystore = |root: &DistributorRoot| TrustedRoot { root: root.clone(), lies_in: TrustedIn::Keystore };
        let mut trusted: Vec<_> = keystore.trusted().iter().map(in_keystore).collect();
        let mut ignored = Vec::new();
        for path in self.dropped_files()? {
            match read_root(&path) {
                Ok(root) if trusted.iter().any(|known| known.root == root) => {}
                Ok(root) => trusted.push(TrustedRoot { root, lies_in: TrustedIn::File(path) }),
                Err(reason) => {
                    tracing::warn!(path = %path.display(), %reason, "ignored in the security folder");
                    ignored.push(IgnoredFile { path, reason });
                }
            }
        }
        Ok((trusted, ignored))
    }

    /// Moves the certificate of the Distributor with this key into the keystore, where it takes over from one of the
    /// same name: the keystore is written, made durable, renamed, its folder made durable, and only then the `.cer`
    /// removed. A crash between any two of these steps is harmless, and doing it again does no harm. Called after the
    /// first verified package.
    ///
    /// # Errors
    /// [`SecurityDirError::NotTrusted`] if no such certificate lies anywhere.
    pub fn promote(&self, distributor: &KeyHash) -> Result<(), SecurityDirError> {
        let mut keystore = self.load_keystore()?;
        let files: Vec<_> = self
            .dropped_files()?
            .into_iter()
            .filter_map(|path| Some((read_root(&path).ok()?, path)))
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
        Ok(())
    }

    /// Writes a request to `csr/<distributor>/<name>.{identity,encryption}.csr`, from where it is carried.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn write_request(
        &self,
        distributor: &NodeName,
        request: &CertificateRequest,
        countersignature: Option<&[u8]>,
    ) -> Result<PathBuf, SecurityDirError> {
        let folder = self.path.join(REQUESTS).join(distributor.file_stem());
        create_folders(&folder)?;
        let path = folder.join(request.file_name());
        DurableFile::new(path.clone()).replace(request.to_pem(countersignature).as_bytes())?;
        Ok(path)
    }

    /// Writes a certificate that came back to `issued/<distributor>/`.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn write_issued(&self, distributor: &NodeName, certificate: &Certificate) -> Result<PathBuf, SecurityDirError> {
        let folder = self.path.join(ISSUED).join(distributor.file_stem());
        create_folders(&folder)?;
        let path = folder.join(format!("{}.{}.cer", certificate.name().file_stem(), certificate.usage()));
        DurableFile::new(path.clone()).replace(certificate.pem().as_bytes())?;
        Ok(path)
    }

    /// The certificates that were carried into `issued/<distributor>/`.
    ///
    /// # Errors
    /// [`SecurityDirError`], naming a file that is no certificate.
    pub fn read_issued(&self, distributor: &NodeName) -> Result<Vec<Certificate>, SecurityDirError> {
        let folder = self.path.join(ISSUED).join(distributor.file_stem());
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let read = |path: PathBuf| {
            let text = read_small(&path)?;
            Certificate::from_pem(&text).map_err(|source| SecurityDirError::Trust { path, source })
        };
        let mut files = list(&folder)?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "cer"));
        files.into_iter().map(read).collect()
    }

    /// What lies in the folder and does not belong to it otherwise, in the order of names.
    fn dropped_files(&self) -> Result<Vec<PathBuf>, SecurityDirError> {
        let own = [PRIVATE, REQUESTS, ISSUED, MARKER].map(|name| self.path.join(name));
        let mut files = list(&self.path)?;
        files.retain(|path| !own.contains(path));
        Ok(files)
    }

    fn check_permissions(&self) -> Result<(), SecurityDirError> {
        let private = self.path.join(PRIVATE);
        for folder in [&self.path, &private] {
            match folder.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => check_owner_and_mode(folder, &metadata, 0o700)?,
                Ok(_) => {
                    let remedy = format!("mv {} {}.away", shell_word(folder), shell_word(folder));
                    let reason = "it is not a folder".to_owned();
                    return Err(SecurityDirError::Unsafe { path: folder.clone(), reason, remedy });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(SecurityDirError::Missing { path: folder.clone() });
                }
                Err(error) => return Err(FileError::new("look at", folder, error).into()),
            }
        }
        for path in list(&private)? {
            let metadata = path.symlink_metadata().map_err(FileError::at("look at", &path))?;
            if !metadata.is_file() {
                let remedy = format!("rm -r {}", shell_word(&path));
                let reason = "only plain files belong there".to_owned();
                return Err(SecurityDirError::Unsafe { path, reason, remedy });
            }
            check_owner_and_mode(&path, &metadata, 0o600)?;
        }
        Ok(())
    }
}

fn check_owner_and_mode(path: &Path, metadata: &Metadata, mode: u32) -> Result<(), SecurityDirError> {
    let user = rustix::process::geteuid().as_raw();
    let refuse = |reason, remedy| Err(SecurityDirError::Unsafe { path: path.to_owned(), reason, remedy });
    if metadata.uid() != user {
        let reason = format!("it belongs to user {}, and this process runs as user {user}", metadata.uid());
        return refuse(reason, format!("chown {user} {}", shell_word(path)));
    }
    let found = metadata.permissions().mode() & 0o7777;
    if found != mode {
        return refuse(
            format!("its mode is {found:04o} instead of {mode:04o}"),
            format!("chmod {mode:03o} {}", shell_word(path)),
        );
    }
    Ok(())
}

/// The certificate in a dropped file, or why it is ignored.
fn read_root(path: &Path) -> Result<DistributorRoot, String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.ends_with(CERTIFICATE_ENDING) {
        return Err(format!("its name does not end in {CERTIFICATE_ENDING}"));
    }
    let metadata = path.symlink_metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    let text = read_small(path).map_err(|error| error.to_string())?;
    let certificate = Certificate::from_pem(&text).map_err(|error| error.to_string())?;
    let root = DistributorRoot::try_from(certificate).map_err(|error| error.to_string())?;
    if root.file_name() != name {
        return Err(format!("it is the certificate of {}, whose file is {}", root.name(), root.file_name()));
    }
    Ok(root)
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

/// A path as one word of a shell command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::security::fixtures::{FleetFixture, NOW, name};
    use crate::security::{AwsLc, Crypto as _, EnrolRequest, Usage};
    use crate::store::steps::tests::StopAfter;

    const ROLE: NodeRole = NodeRole::Subscriber;

    fn folder() -> (tempfile::TempDir, SecurityDir) {
        let temp = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&temp.path().join("security"), ROLE).unwrap();
        (temp, security)
    }

    fn trusted(security: &SecurityDir) -> Vec<KeyHash> {
        security.trusted_roots().unwrap().0.iter().map(|trusted| trusted.root.key_hash()).collect()
    }

    #[test]
    fn a_promotion_that_stops_anywhere_is_harmless_and_can_be_done_again() {
        let fleet = FleetFixture::new("dist.example.com");
        let all = [Step::WriteState, Step::SyncState, Step::RenameState, Step::SyncFolder, Step::RemoveCertificate];
        for allowed in 0..=all.len() {
            let (_temp, security) = folder();
            security.save_keystore(&Keystore::default()).unwrap();
            let file = security.drop_certificate(fleet.root()).unwrap();
            let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::Other));
            let stopped = security.clone().with_steps(Arc::<StopAfter>::clone(&steps) as _);
            assert_eq!(stopped.promote(&fleet.key()).is_ok(), allowed == all.len());
            assert_eq!(steps.asked(), all[..(allowed + 1).min(all.len())], "the order of the steps");
            let again = SecurityDir::open(security.path(), ROLE).unwrap();
            assert_eq!(trusted(&again), [fleet.key()], "trusted once after {allowed} steps");
            let in_keystore = !again.load_keystore().unwrap().trusted().is_empty();
            assert_eq!((in_keystore, file.exists()), (allowed >= 3, allowed < all.len()), "{allowed} steps");
            again.promote(&fleet.key()).unwrap();
            again.promote(&fleet.key()).unwrap();
            assert_eq!(trusted(&again), [fleet.key()]);
            assert!(!file.exists());
        }
    }

    #[test]
    fn a_new_certificate_for_a_known_name_takes_over_when_it_is_promoted() {
        let (old, new) = (FleetFixture::new("dist.example.com"), FleetFixture::new("dist.example.com"));
        let (_temp, security) = folder();
        security.drop_certificate(old.root()).unwrap();
        security.promote(&old.key()).unwrap();
        security.drop_certificate(new.root()).unwrap();
        assert_eq!(trusted(&security), [old.key(), new.key()]);
        security.promote(&new.key()).unwrap();
        assert_eq!(trusted(&security), [new.key()]);
        assert_eq!(security.promote(&old.key()).unwrap_err().code(), "TED-1144");
    }

    #[test]
    fn only_distributors_own_certificates_are_trusted_and_everything_else_is_named() {
        let fleet = FleetFixture::new("dist.example.com");
        let (_temp, security) = folder();
        let path = |name: &str| security.path().join(name);
        std::fs::write(path("sub.example.com.cer"), fleet.subscriber.certificate.pem()).unwrap();
        std::fs::write(path("other.example.com.cer"), fleet.root().certificate().pem()).unwrap();
        std::fs::write(path("notes.txt"), "hello").unwrap();
        std::fs::write(path("garbage.cer"), [0xff; 10]).unwrap();
        std::fs::write(path("large.cer"), vec![b'x'; 1 << 20]).unwrap();
        std::fs::write(path("elsewhere"), fleet.root().certificate().pem()).unwrap();
        std::os::unix::fs::symlink(path("elsewhere"), path("dist.example.com.cer")).unwrap();
        std::fs::create_dir(path("folder.cer")).unwrap();
        let (roots, ignored) = security.trusted_roots().unwrap();
        assert_eq!(roots, []);
        let names: Vec<_> = ignored.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
        let expected = [
            "dist.example.com.cer",
            "elsewhere",
            "folder.cer",
            "garbage.cer",
            "large.cer",
            "notes.txt",
            "other.example.com.cer",
            "sub.example.com.cer",
        ];
        assert_eq!(names, expected);
        assert_eq!(security.promote(&fleet.key()).unwrap_err().code(), "TED-1144");
    }

    #[test]
    fn wrong_modes_are_refused_with_the_command_that_mends_them() {
        let (_temp, security) = folder();
        security.save_keystore(&Keystore::default()).unwrap();
        for (below, wrong, right) in
            [("", 0o755, 0o700), ("private", 0o750, 0o700), ("private/.keystore", 0o640, 0o600)]
        {
            let path = security.path().join(below);
            std::fs::set_permissions(&path, Permissions::from_mode(wrong)).unwrap();
            let error = SecurityDir::open(security.path(), ROLE).err().unwrap();
            assert_eq!(error.code(), "TED-1141");
            let SecurityDirError::Unsafe { remedy, .. } = error else { panic!("{error}") };
            assert!(remedy.starts_with(&format!("chmod {right:o} ")), "{remedy}");
            let mended = std::process::Command::new("sh").args(["-c", &remedy]).status().unwrap();
            assert!(mended.success() && SecurityDir::open(security.path(), ROLE).is_ok(), "{remedy}");
        }
        let odd = shell_word(Path::new("/a b/it's"));
        assert_eq!(odd, r"'/a b/it'\''s'");
    }

    #[test]
    fn what_is_not_a_folder_or_not_there_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("security");
        assert_eq!(SecurityDir::open(&path, ROLE).err().unwrap().code(), "TED-1142");
        std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(temp.path().join("elsewhere"), &path).unwrap();
        assert_eq!(SecurityDir::open(&path, ROLE).err().unwrap().code(), "TED-1141");
        let (_temp, security) = folder();
        std::os::unix::fs::symlink("/etc/passwd", security.path().join("private/floors")).unwrap();
        assert_eq!(SecurityDir::open(security.path(), ROLE).err().unwrap().code(), "TED-1141");
    }

    #[test]
    fn a_keystore_that_is_gone_is_told_from_one_that_never_was() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("security");
        let security = SecurityDir::create(&path, NodeRole::Distributor).unwrap();
        assert_eq!(security.load_keystore().unwrap().held().len(), 0);
        security.save_keystore(&Keystore::default()).unwrap();
        std::fs::remove_file(path.join("private/.keystore")).unwrap();
        let error = SecurityDir::open(&path, NodeRole::Distributor).err().unwrap();
        assert_eq!(error.code(), "TED-1143");
        let text = error.to_string();
        assert!(text.contains("certificate rekey") && text.contains("restore"), "{text}");
    }

    #[test]
    fn requests_go_out_and_certificates_come_back_as_files() {
        let fleet = FleetFixture::new("dist.example.com");
        let (_temp, security) = folder();
        let (identity, encryption) = (AwsLc.generate_key().unwrap(), AwsLc.generate_key().unwrap());
        let enrolment = EnrolRequest::make(&AwsLc, &name("10.0.0.9"), &identity, &encryption, None).unwrap();
        let checked = enrolment.check().unwrap();
        let distributor = name("dist.example.com");
        let path =
            security.write_request(&distributor, &checked.encryption, Some(&enrolment.countersignature)).unwrap();
        assert!(path.ends_with("csr/dist.example.com/10.0.0.9.encryption.csr"), "{}", path.display());
        let (read, countersignature) = CertificateRequest::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap();
        read.check_countersignature(identity.spki(), &countersignature.unwrap()).unwrap();
        let issued = fleet.authority.issue(&AwsLc, Usage::SubscriberEncryption, read.name(), read.spki(), NOW).unwrap();
        security.write_issued(&distributor, &issued).unwrap();
        assert_eq!(security.read_issued(&distributor).unwrap(), [issued]);
        assert_eq!(security.read_issued(&name("else.example.com")).unwrap(), []);
    }
}
