//! Where the socket lies, also where the path is longer than a socket's address may be.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// The socket's file name in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

/// `sun_path` has 108 bytes on Linux; a few less leave room for the terminating NUL and other systems.
const ADDRESS_BYTES_MAX: usize = 100;

/// A path to a file of the data directory that fits a socket's address.
pub(super) struct Address {
    path: PathBuf,
    /// Keeps the folder open while `path` leads through `/proc/self/fd`.
    _folder: Option<File>,
}

impl Address {
    pub(super) fn of(data_dir: &Path, name: &str) -> io::Result<Self> {
        let direct = data_dir.join(name);
        if direct.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(Self { path: direct, _folder: None });
        }
        let folder = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
