//! Files below `<data>/spool`: what is fed, fetched or unpacked, before it is built from.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};

use crate::error::{Coded, Error};
use crate::limits::Limits;
use crate::store::{create_folders, free_bytes, sync_folder};

/// What names of fed files begin with.
const INPUT: &str = "input-";

/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 1 << 18;

/// After so many bytes it is looked how much room is left, and so much has to be left for others.
const ROOM_BYTES: u64 = 64 << 20;

/// Why something could not be spooled.
#[derive(Debug, thiserror::Error)]
pub(in crate::distributor) enum SpoolError {
    #[error("the spool file {} cannot be written or read", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("there is no room for it in the spool: {} has {free} bytes left", path.display())]
    NoRoom { path: PathBuf, free: u64 },
    #[error("it has more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("standard input cannot be read")]
    Input(#[source] io::Error),
    #[error("`{0}` was not spooled here, or is gone")]
    Gone(String),
}

impl Coded for SpoolError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "TED-1735",
            Self::NoRoom { .. } => "TED-1736",
            Self::TooLarge { .. } => "TED-1737",
            Self::Input(_) => "TED-1738",
            Self::Gone(_) => "TED-1739",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::NoRoom { .. } | Self::Gone(_))
    }
}

/// A file in the spool while it is written, within bounds.
#[derive(Debug)]
pub(in crate::distributor) struct SpoolFile {
    file: File,
    path: PathBuf,
    bytes: u64,
    looked_at: u64,
    limit: u64,
}

impl SpoolFile {
    /// A new file at `path`, or with `append` the one that is there, at its end.
    pub(in crate::distributor) fn open(path: &Path, append: bool, limits: &Limits) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            create_folders(folder).map_err(|error| failed(io::Error::other(error)))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path).map_err(failed)?;
        if !append {
            file.set_len(0).map_err(failed)?;
        }
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Self { file, path: path.to_owned(), bytes, looked_at: bytes, limit: limits.spool_bytes_max })
    }

    /// A new file in `folder`, a folder and no link to one, where nothing of its name may be yet: whoever the folder
    /// belongs to must not have somebody with more rights write elsewhere.
    fn new_in(folder: &File, path: &Path, name: &str, limits: &Limits) -> Result<Self, SpoolError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(folder.as_fd(), name, flags, Mode::RUSR | Mode::WUSR);
        let file = opened.map_err(|error| SpoolError::File { path: path.to_owned(), source: error.into() })?.into();
        Ok(Self { file, path: path.to_owned(), bytes: 0, looked_at: 0, limit: limits.spool_bytes_max })
    }

    /// A file without a name in `folder`: it is gone when nobody has it open any more.
    pub(in crate::distributor) fn unnamed(folder: &Path, limits: &Limits) -> Result<Self, SpoolError> {
        let path = folder.join(unique("unpacked-"));
        let spooled = Self::open(&path, false, limits)?;
        std::fs::remove_file(&path).map_err(|source| SpoolError::File { path, source })?;
        Ok(spooled)
    }

    /// Bytes that it has.
    pub(in crate::distributor) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Refuses what surely finds no room, before the first byte of it.
    pub(in crate::distributor) fn expect(&self, bytes: u64) -> Result<(), SpoolError> {
        if self.bytes.saturating_add(bytes) > self.limit {
            return Err(SpoolError::TooLarge { limit: self.limit });
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        // Where nobody can tell how much room there is, writing will.
        match free_bytes(folder) {
            Ok(free) if free < bytes => Err(SpoolError::NoRoom { path: folder.to_owned(), free }),
            _ => Ok(()),
        }
    }

    pub(in crate::distributor) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if self.bytes + bytes.len() as u64 - self.looked_at >= ROOM_BYTES {
            self.expect(ROOM_BYTES)?;
            self.looked_at = self.bytes;
        }
        if self.bytes + bytes.len() as u64 > self.limit {
            return Err(SpoolError::TooLarge { limit: self.limit });
        }
        self.file.write_all(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                SpoolError::NoRoom { path: self.path.clone(), free: 0 }
            }
            _ => SpoolError::File { path: self.path.clone(), source },
        })?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it durable, and returns it for reading.
    pub(in crate::distributor) fn finish(self) -> Result<File, SpoolError> {
        let failed = |source| SpoolError::File { path: self.path.clone(), source };
        self.file.sync_all().map_err(failed)?;
        Ok(self.file)
    }

    /// Returns it for reading, where a crash may take it.
    pub(in crate::distributor) fn into_file(self) -> File {
        self.file
    }
}

/// The folder below the data directory.
pub(in crate::distributor) fn spool_folder(data: &Path) -> PathBuf {
    data.join("spool")
}

fn unique(start: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{start}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What was fed to one build. Dropped, it is removed.
#[derive(Debug)]
pub struct SpooledInput {
    path: PathBuf,
    name: String,
}

impl SpooledInput {
    /// What a [`Distributor`](crate::Distributor) with that data directory knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was spooled below `data` under `name`.
    pub(in crate::distributor) fn find(data: &Path, name: &str) -> Result<Self, SpoolError> {
        let gone = || SpoolError::Gone(name.to_owned());
        let number = name.strip_prefix(INPUT).ok_or_else(gone)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return Err(gone());
        }
        let path = spool_folder(data).join(name);
        let found = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if found { Ok(Self { path, name: name.to_owned() }) } else { Err(gone()) }
    }

    pub(in crate::distributor) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpooledInput {
    fn drop(&mut self) {
        // What stays behind is removed when the Distributor is opened the next time.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes what `input` gives, a tar file, into the spool of the Distributor in `data`, durably, for
/// [`Distributor::build_input`](crate::Distributor::build_input). It belongs to whom the data directory belongs to.
///
/// # Errors
/// When `input` cannot be read, or there is no room.
pub fn spool_input(data: &Path, input: &mut dyn Read) -> Result<SpooledInput, Error> {
    let folder = spool_folder(data);
    let name = unique(INPUT);
    let path = folder.join(&name);
    let failed = |source: io::Error| SpoolError::File { path: path.clone(), source };
    let owner = std::fs::metadata(data).map_err(failed)?;
    let opened = own_folder(&folder, &owner).map_err(failed)?;
    let mut file = SpoolFile::new_in(&opened, &path, &name, &Limits::DEFAULT)?;
    let spooled = SpooledInput { path: path.clone(), name };
    give_to(&file.file, &owner).map_err(failed)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => file.write(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SpoolError::Input(error).into()),
        }
    }
    file.finish()?;
    sync_folder(&folder)?;
    Ok(spooled)
}

/// The folder, made for `owner` if it is not there; never a link to another one.
fn own_folder(folder: &Path, owner: &Metadata) -> io::Result<File> {
    let made = !folder.is_dir();
    create_folders(folder).map_err(io::Error::other)?;
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    if made {
        give_to(&opened, owner)?;
    }
    Ok(opened)
}

fn give_to(file: &File, owner: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
        fchown(file.as_fd(), Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?;
    }
    Ok(())
}

/// Removes what commands that were ended left behind. Nobody else may have the Distributor open.
pub(in crate::distributor) fn clean_spool(data: &Path) {
    let Ok(listing) = std::fs::read_dir(spool_folder(data)) else { return };
    for item in listing.flatten() {
        let name = item.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(INPUT) || name.starts_with("unpacked-") {
            let _ = std::fs::remove_file(item.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fed_is_written_to_no_place_that_a_link_in_the_data_directory_names() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let (data, elsewhere) = (temp.path().join("data"), temp.path().join("elsewhere"));
        std::fs::create_dir_all(&elsewhere).expect("made");
        std::fs::create_dir_all(spool_folder(&data)).expect("made");
        let mine = elsewhere.join("mine");
        std::fs::write(&mine, "mine").expect("written");
        // The next names are no secret.
        let next: u64 = unique("").rsplit('-').next().and_then(|number| number.parse().ok()).expect("a number");
        for number in next..next + 1000 {
            let planted = spool_folder(&data).join(format!("{INPUT}{}-{number}", std::process::id()));
            std::os::unix::fs::symlink(&mine, planted).expect("linked");
        }
        let error = spool_input(&data, &mut &b"tar"[..]).expect_err("nothing is followed");
        assert_eq!(error.code(), "TED-1735", "{error}");
        assert_eq!(std::fs::read(&mine).expect("there"), b"mine");

        std::fs::remove_dir_all(spool_folder(&data)).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, spool_folder(&data)).expect("linked");
        assert_eq!(spool_input(&data, &mut &b"tar"[..]).expect_err("no folder").code(), "TED-1735");
        assert_eq!(std::fs::read_dir(&elsewhere).expect("listed").count(), 1);

        std::fs::remove_file(spool_folder(&data)).expect("removed");
        let spooled = spool_input(&data, &mut &b"tar"[..]).expect("spooled");
        assert_eq!(std::fs::read(spooled.path()).expect("there"), b"tar");
    }
}
