//! Files that a command writes where the user said.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::{ApiError, code};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// Its owner only: 0600.
    OwnerOnly,
    /// As the umask says.
    Public,
}

/// Refuses where something is in the file's place already; for before the content is made.
///
/// # Errors
/// [`code::FILE`].
pub fn check_absent(path: &Path) -> Result<(), ApiError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(exists(path)),
        Err(_) => Ok(()),
    }
}

/// Writes a new file, whole and synced, or none; an existing one is never overwritten.
///
/// # Errors
/// [`code::FILE`].
pub fn write_new(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), ApiError> {
    let mode = match secrecy {
        Secrecy::OwnerOnly => 0o600,
        Secrecy::Public => 0o666,
    };
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists(path)),
        Err(error) => return Err(ApiError::new(code::FILE, format!("{}: {error}", path.display()))),
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a file would be taken for a whole one; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
        ApiError::new(code::FILE, format!("{}: {error}", path.display()))
    })
}

/// Reads a text file of at most `bytes_max` bytes that the user named.
///
/// # Errors
/// [`code::FILE`].
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, ApiError> {
    use std::io::Read as _;
    let fail = |reason: &dyn std::fmt::Display| ApiError::new(code::FILE, format!("{}: {reason}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(|error| fail(&error))?;
    if text.len() as u64 > bytes_max {
        return Err(fail(&format_args!("it has more than {bytes_max} bytes, so it is another file")));
    }
    Ok(text)
}

/// Reads a file of at most `bytes_max` bytes that the user named.
///
/// # Errors
/// [`code::FILE`].
pub fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ApiError> {
    use std::io::Read as _;
    let fail = |reason: &dyn std::fmt::Display| ApiError::new(code::FILE, format!("{}: {reason}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(fail(&format_args!("it has more than {bytes_max} bytes, so it is another file")));
    }
    Ok(bytes)
}

fn exists(path: &Path) -> ApiError {
    ApiError::new(code::FILE, format!("{} exists already and is not overwritten", path.display()))
        .with_remedy("name another file, or remove this one first")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_the_owners_only_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("invite");
        check_absent(&path).expect("nothing is there");
        write_new(&path, b"secret", Secrecy::OwnerOnly).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(write_new(&path, b"other", Secrecy::Public).expect_err("it is there").code, code::FILE);
        assert_eq!(check_absent(&path).expect_err("it is there").code, code::FILE);
        assert_eq!(read_text(&path, 6).as_deref(), Ok("secret"));
        assert_eq!(read_text(&path, 5).expect_err("too large").code, code::FILE);
        assert_eq!(read_text(&folder.path().join("none"), 5).expect_err("missing").code, code::FILE);
    }
}
