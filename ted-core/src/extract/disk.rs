//! The few operations on folders that extraction is made of. Each takes a folder's handle and one name in it, and
//! follows no symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use cap_std::fs::Dir;
use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Mode, OFlags, StatxAttributes, StatxFlags, Timespec, Timestamps,
    UTIME_OMIT,
};
use rustix::io::Errno;

use crate::extract::step::{Hook, Step};
use crate::package::Mtime;

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Folder,
    File,
    Symlink,
    Other,
}

impl Found {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File => "file",
            Self::Symlink => "symbolic link",
            Self::Other => "device, FIFO or socket",
        }
    }
}

/// What the file system says of a name, or of an open file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) found: Found,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: Mtime,
    pub(super) uid: u32,
    /// Device and inode.
    pub(super) identity: (u32, u32, u64),
    /// Whether something is mounted right here.
    pub(super) mount_point: bool,
    /// Whether it may not be replaced or removed, by anybody.
    pub(super) immutable: bool,
}

/// Mode and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
}

/// What stands at `name`; `None` if nothing does.
pub(super) fn facts_at(folder: impl AsFd, name: &[u8]) -> io::Result<Option<Facts>> {
    match stat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an open file or folder is.
pub(super) fn facts_of(file: impl AsFd) -> io::Result<Facts> {
    stat(file, b"", AtFlags::EMPTY_PATH)
}

fn stat(folder: impl AsFd, name: &[u8], flags: AtFlags) -> io::Result<Facts> {
    let stat = fs::statx(folder, name, flags, StatxFlags::BASIC_STATS)?;
    let found = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Directory => Found::Folder,
        FileType::RegularFile => Found::File,
        FileType::Symlink => Found::Symlink,
        _ => Found::Other,
    };
    Ok(Facts {
        found,
        mode: u32::from(stat.stx_mode) & 0o7777,
        size: stat.stx_size,
        mtime: Mtime { seconds: stat.stx_mtime.tv_sec, nanoseconds: stat.stx_mtime.tv_nsec },
        uid: stat.stx_uid,
        identity: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
        mount_point: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        immutable: stat.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
    })
}

/// Opens the folder `name`. A symbolic link, or anything else, gives an error.
pub(super) fn open_folder(parent: impl AsFd, name: &[u8]) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(Dir::from(fs::openat(parent, name, flags, Mode::empty())?))
}

/// Opens the folder `name` only to go on from there: no right to list it is needed.
pub(super) fn pass_folder(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

/// Opens the file `name` for reading.
pub(super) fn open_file(folder: &Dir, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(fs::openat(folder, name, flags, Mode::empty())?))
}

/// A symbolic link's text.
pub(super) fn link_text(folder: &Dir, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(fs::readlinkat(folder, name, Vec::new())?.into_bytes())
}

/// Takes the lock of a folder; `false` if another process, or another handle, has it.
pub(super) fn lock(folder: &Dir) -> io::Result<bool> {
    match fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The names in a folder.
pub(super) fn names_in(folder: &Dir) -> io::Result<Vec<Vec<u8>>> {
    use std::os::unix::ffi::OsStringExt;
    folder.entries()?.map(|entry| Ok(entry?.file_name().into_vec())).collect()
}

/// The operations that change the disk; the hook is told of each beforehand.
#[derive(Clone, Copy)]
pub(super) struct Disk<'a> {
    hook: &'a dyn Hook,
}

impl<'a> Disk<'a> {
    pub(super) fn new(hook: &'a dyn Hook) -> Self {
        Self { hook }
    }

    /// Makes the folder `name`.
    pub(super) fn create_folder(self, step: Step, parent: impl AsFd, name: &[u8], mode: u32) -> io::Result<()> {
        self.hook.before(step)?;
        Ok(fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?)
    }

    /// Makes the file `name`, for its owner alone, and opens it.
    pub(super) fn create_file(self, step: Step, folder: &Dir, name: &[u8]) -> io::Result<File> {
        self.hook.before(step)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    pub(super) fn write_at(self, step: Step, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.hook.before(step)?;
        file.write_all_at(bytes, offset)
    }

    pub(super) fn set_length(self, step: Step, file: &File, bytes: u64) -> io::Result<()> {
        self.hook.before(step)?;
        file.set_len(bytes)
    }

    /// Sets mode and time of an open file or folder; the mode is what it says, whatever the umask.
    pub(super) fn set_attributes(self, step: Step, file: impl AsFd, attributes: Attributes) -> io::Result<()> {
        self.hook.before(step)?;
        fs::fchmod(&file, Mode::from_raw_mode(attributes.mode))?;
        Ok(fs::futimens(&file, &timestamps(attributes.mtime))?)
    }

    /// Gives the owner every right to an open folder, if that is what it takes to change it.
    pub(super) fn make_writable(self, step: Step, folder: &Dir) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let mode = facts_of(folder)?.mode;
        if mode & 0o700 == 0o700 {
            return Ok(());
        }
        self.hook.before(step)?;
        Ok(fs::fchmod(folder, Mode::from_raw_mode(mode | 0o700))?)
    }

    /// Makes the symbolic link `name` with this text, which is not looked at.
    pub(super) fn symlink(self, text: &[u8], folder: &Dir, name: &[u8], mtime: Mtime) -> io::Result<()> {
        self.hook.before(Step::MakeLink)?;
        fs::symlinkat(text, folder, name)?;
        Ok(fs::utimensat(folder, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes `name` another name of `old_name`, of the link itself if that is a symbolic link.
    pub(super) fn hard_link(self, old_folder: &Dir, old_name: &[u8], folder: &Dir, name: &[u8]) -> io::Result<()> {
        self.hook.before(Step::MakeLink)?;
        Ok(fs::linkat(old_folder, old_name, folder, name, AtFlags::empty())?)
    }

    /// Keeps the file `name` as `copy` too. Where the file system cannot give a file two names, it is renamed.
    pub(super) fn keep_as(self, folder: &Dir, name: &[u8], copy: &[u8]) -> io::Result<()> {
        self.hook.before(Step::KeepCopy)?;
        match fs::linkat(folder, name, folder, copy, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => Ok(fs::renameat(folder, name, folder, copy)?),
            other => Ok(other?),
        }
    }

    pub(super) fn rename(
        self,
        step: Step,
        (old_folder, old_name): (&Dir, &[u8]),
        (folder, name): (&Dir, &[u8]),
    ) -> io::Result<()> {
        self.hook.before(step)?;
        Ok(fs::renameat(old_folder, old_name, folder, name)?)
    }

    pub(super) fn remove_file(self, step: Step, folder: &Dir, name: &[u8]) -> io::Result<()> {
        self.hook.before(step)?;
        Ok(fs::unlinkat(folder, name, AtFlags::empty())?)
    }

    pub(super) fn remove_folder(self, step: Step, parent: impl AsFd, name: &[u8]) -> io::Result<()> {
        self.hook.before(step)?;
        Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }

    /// Everything written to the file system that `folder` lies on reaches the disk.
    pub(super) fn sync_file_system(self, folder: &Dir) -> io::Result<()> {
        self.hook.before(Step::Sync)?;
        Ok(fs::syncfs(folder)?)
    }

    /// One file, or one folder's list of names, reaches the disk.
    pub(super) fn sync(self, file: impl AsFd) -> io::Result<()> {
        self.hook.before(Step::Sync)?;
        Ok(fs::fsync(file)?)
    }
}

fn timestamps(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}
