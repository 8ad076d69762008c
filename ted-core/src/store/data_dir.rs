//! The data directory: where a node keeps everything, held by one process at a time.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::Coded;
use crate::store::file::{FileError, create_folders};

const LOCK_FILE: &str = "lock";

/// Which of the two a node is; each has its own data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// Builds and sends.
    Distributor,
    /// Receives and extracts.
    Subscriber,
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Distributor => "distributor",
            Self::Subscriber => "subscriber",
        })
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process has it.
    #[error("{} is in use by {holder}", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// Who has it: `process 4711`.
        holder: String,
    },
    /// It is that of a node of the other role.
    #[error("{} belongs to a {found}, not to a {wanted}", path.display())]
    OtherRole {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: NodeRole,
    },
    /// Others than the running user could change what is in it.
    #[error("{} is not safe: {reason}; mend it with `{remedy}`", path.display())]
    Unsafe {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
        /// A command that mends it.
        remedy: String,
    },
    /// No place is known for it.
    #[error("no data directory is given, and neither XDG_STATE_HOME nor HOME is set")]
    NoPlace,
    /// It is not there, and should be.
    #[error("{} is not a data directory yet", path.display())]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// A file in it does not let itself be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Coded for DataDirError {
    fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "TED-1501",
            Self::OtherRole { .. } => "TED-1502",
            Self::Unsafe { .. } => "TED-1503",
            Self::NoPlace => "TED-1504",
            Self::Missing { .. } => "TED-1505",
            Self::File(error) => error.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. }) || matches!(self, Self::File(error) if error.is_retryable())
    }
}

/// A data directory that this process holds until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    role: NodeRole,
    _lock: File,
}

impl DataDir {
    /// Where a node's data lies: `given` (from `--data-dir`), else `TED_DATA_DIR`, else `/var/lib/ted/<role>` for
    /// root and `$XDG_STATE_HOME/ted/<role>` or `~/.local/state/ted/<role>` otherwise.
    ///
    /// # Errors
    /// [`DataDirError::NoPlace`].
    pub fn locate(given: Option<&Path>, role: NodeRole) -> Result<PathBuf, DataDirError> {
        locate(given, role, rustix::process::geteuid().is_root(), |name| std::env::var_os(name))
    }

    /// Takes the data directory at `path`, which is created (0700) where it is missing.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] names the process that has it; [`DataDirError::OtherRole`],
    /// [`DataDirError::Unsafe`] and [`DataDirError::File`] say what to mend.
    pub fn create(path: &Path, role: NodeRole) -> Result<Self, DataDirError> {
        create_folders(path)?;
        Self::open(path, role)
    }

    /// Takes the data directory at `path`, which has to be there.
    ///
    /// # Errors
    /// As [`DataDir::create`], and [`DataDirError::Missing`].
    pub fn open(path: &Path, role: NodeRole) -> Result<Self, DataDirError> {
        if !path.exists() {
            return Err(DataDirError::Missing { path: path.to_owned() });
        }
        let path = path.canonicalize().map_err(FileError::at("find", path))?;
        check_owner(&path)?;
        let lock = take_lock(&path, role)?;
        Ok(Self { path, role, _lock: lock })
    }

    /// The directory, absolute and without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn role(&self) -> NodeRole {
        self.role
    }

    /// Where the catalog lies.
    #[must_use]
    pub fn catalog(&self) -> PathBuf {
        self.path.join("catalog")
    }

    /// Where certificates and keys lie.
    #[must_use]
    pub fn security(&self) -> PathBuf {
        self.path.join("security")
    }

    /// The Unix socket on which a daemon talks to its own command line.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        Self::control_socket_of(&self.path)
    }

    /// The Unix socket of the daemon that may run in `path`: for those who do not hold the directory.
    #[must_use]
    pub fn control_socket_of(path: &Path) -> PathBuf {
        path.join("control.sock")
    }
}

fn locate(
    given: Option<&Path>,
    role: NodeRole,
    is_root: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, DataDirError> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = given.map(Path::to_owned).or_else(|| set("TED_DATA_DIR")) {
        return Ok(path);
    }
    if is_root {
        return Ok(Path::new("/var/lib/ted").join(role.to_string()));
    }
    // The XDG specification says to ignore a relative path.
    let state = set("XDG_STATE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .ok_or(DataDirError::NoPlace)?;
    Ok(state.join("ted").join(role.to_string()))
}

fn check_owner(path: &Path) -> Result<(), DataDirError> {
    let found = path.metadata().map_err(FileError::at("look at", path))?;
    let refuse = |reason, command: &str| {
        Err(DataDirError::Unsafe { path: path.to_owned(), reason, remedy: mend(command, path) })
    };
    if !found.is_dir() {
        let source = io::ErrorKind::NotADirectory.into();
        return Err(FileError::new("use as a data directory", path, source).into());
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return refuse("another user owns it", &format!("chown -R {user}"));
    }
    if found.mode() & 0o022 != 0 {
        return refuse("others may write to it", "chmod go-w");
    }
    Ok(())
}

fn mend(command: &str, path: &Path) -> String {
    format!("{command} '{}'", path.display())
}

/// The lock is the kernel's, on an open file, so it ends with the process. What stands in the file, role and process
/// id, is for people and for telling a Subscriber's directory from a Distributor's.
fn take_lock(folder: &Path, role: NodeRole) -> Result<File, DataDirError> {
    let path = folder.join(LOCK_FILE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(FileError::at("open", &path))?;
    let locked = file.try_lock();
    let mut text = Vec::new();
    (&file).take(256).read_to_end(&mut text).map_err(FileError::at("read", &path))?;
    let text = String::from_utf8_lossy(&text);
    let (found, holder) = text.trim().split_once(' ').unwrap_or_default();
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
            return Err(DataDirError::InUse { path: folder.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(FileError::new("lock", &path, error).into()),
    }
    if !found.is_empty() && found != role.to_string() {
        return Err(DataDirError::OtherRole { path: folder.to_owned(), found: found.to_owned(), wanted: role });
    }
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.set_len(0))
        .and_then(|()| writeln!(file, "{role} {}", std::process::id()))
        .map_err(FileError::at("write", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_instance_is_refused_and_told_who_has_it() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("data");
        let first = DataDir::create(&path, NodeRole::Subscriber).expect("created");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o700);
        let error = DataDir::open(&path, NodeRole::Subscriber).expect_err("held");
        assert_eq!(error.code(), "TED-1501");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DataDir::open(&path, NodeRole::Subscriber).expect("free again");
    }

    #[test]
    fn a_data_directory_has_one_role() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("data");
        drop(DataDir::create(&path, NodeRole::Subscriber).expect("created"));
        let error = DataDir::open(&path, NodeRole::Distributor).expect_err("a Subscriber's");
        assert_eq!(error.code(), "TED-1502");
        drop(DataDir::open(&path, NodeRole::Subscriber).expect("still the Subscriber's"));
        std::fs::write(path.join(LOCK_FILE), "").expect("as a crash in the middle of writing leaves it");
        DataDir::open(&path, NodeRole::Subscriber).expect("an empty lock file is no hindrance");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_with_the_remedy() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("data");
        drop(DataDir::create(&path, NodeRole::Distributor).expect("created"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).expect("changed");
        let error = DataDir::open(&path, NodeRole::Distributor).expect_err("writable");
        assert_eq!(error.code(), "TED-1503");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    }

    #[test]
    fn a_missing_directory_or_a_file_in_its_place_is_an_error() {
        let temp = tempfile::tempdir().expect("temp");
        let path = temp.path().join("data");
        assert_eq!(DataDir::open(&path, NodeRole::Distributor).expect_err("missing").code(), "TED-1505");
        std::fs::write(&path, "").expect("written");
        assert_eq!(DataDir::create(&path, NodeRole::Distributor).expect_err("a file").code(), "TED-1512");
    }

    #[test]
    fn the_place_is_what_is_given_else_the_environments_else_the_systems() {
        let with = |given: Option<&str>, is_root, variables: &[(&str, &str)]| {
            locate(given.map(Path::new), NodeRole::Subscriber, is_root, |name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            })
            .map(|path| path.display().to_string())
        };
        let all = [("TED_DATA_DIR", "/env"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/u")];
        for (given, is_root, variables, expected) in [
            (Some("/given"), false, &all[..], "/given"),
            (None, true, &all[..], "/env"),
            (None, true, &all[1..], "/var/lib/ted/subscriber"),
            (None, false, &all[1..], "/xdg/ted/subscriber"),
            (None, false, &all[2..], "/home/u/.local/state/ted/subscriber"),
            (None, false, &[("XDG_STATE_HOME", "rel"), ("HOME", "/h")][..], "/h/.local/state/ted/subscriber"),
            (None, false, &[("TED_DATA_DIR", ""), ("HOME", "/h")][..], "/h/.local/state/ted/subscriber"),
        ] {
            assert_eq!(with(given, is_root, variables).expect("a place"), expected);
        }
        assert_eq!(with(None, false, &[]).expect_err("nowhere").code(), "TED-1504");
    }
}
