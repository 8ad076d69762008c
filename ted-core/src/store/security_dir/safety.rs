//! Whether nobody else can read the keys or plant certificates.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::{PRIVATE, SecurityDir, SecurityDirError, list};
use crate::store::file::FileError;

impl SecurityDir {
    pub(super) fn check_permissions(&self) -> Result<(), SecurityDirError> {
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

/// A path as one word of a shell command.
pub(super) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
