//! Why an extraction was refused or failed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::codec::CodecError;
use crate::error::Coded;
use crate::id::Revision;
use crate::package::delta::DeltaError;
use crate::package::{CatalogFault, EntryPath, PackageError};

/// Errors about entries that are worded after the first one.
const SEVERAL_NAMED_MAX: usize = 49;

/// What is wrong with an entry, whatever the target holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It may stand in no catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogFault),
    /// Its first component is kept for staging folders.
    #[error("names that begin with `.ted-staging-` are kept for extraction itself")]
    StagingName,
    /// It would be the same name as another on this file system.
    #[error("on this file system it is the same name as `{0}`")]
    Collision(EntryPath),
    /// A symbolic link leads out of the target, and `links = inside` forbids that.
    #[error("it is a symbolic link that leaves the target, which `links = inside` forbids")]
    LinkLeaves,
    /// This file system does not take its name.
    #[error("the target's file system does not take its name")]
    Name,
}

/// Why an extraction was refused or failed.
///
/// Up to the commit of the journal nothing in the target has changed. After it, [`recover`](super::recover), or the
/// next extraction, finishes what was begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The list of entries is one that no Subscriber extracts.
    #[error("entry `{path}` is refused: {reason}")]
    Refused {
        /// The entry.
        path: EntryPath,
        /// What is wrong with it.
        reason: Refusal,
    },
    /// The target is there, but no folder.
    #[error("the target `{}` is not a folder: `{}` is a file", target.display(), component.display())]
    TargetIsFile {
        /// The target as it was given.
        target: PathBuf,
        /// The part of it that is no folder.
        component: PathBuf,
    },
    /// The target, or a folder above it, is a symbolic link.
    #[error("the target `{}` leads through a symbolic link: `{}`", target.display(), component.display())]
    TargetIsLink {
        /// The target as it was given.
        target: PathBuf,
        /// The part of it that is a link.
        component: PathBuf,
    },
    /// The target does not exist, and was not to be created.
    #[error("the target `{}` does not exist", target.display())]
    TargetMissing {
        /// The target as it was given.
        target: PathBuf,
    },
    /// Something of another kind stands where an entry should go, and no earlier revision made it.
    #[error("`{path}` should become a {wanted}, but a {found} stands in the way that this Distribution did not make")]
    Obstacle {
        /// What stands in the way.
        path: EntryPath,
        /// What the revision has there.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// Another file system, or a part of one, is mounted where an entry should go.
    #[error("`{path}` is a mount point, so it cannot be written by renaming")]
    MountPoint {
        /// Where.
        path: EntryPath,
    },
    /// Something that would be replaced, deleted or changed cannot be.
    #[error("`{path}` cannot be changed: {why}")]
    Locked {
        /// What.
        path: EntryPath,
        /// Why not.
        why: &'static str,
    },
    /// Several entries cannot be written; each is named.
    #[error("{first}{}", listed(others))]
    Several {
        /// The first.
        first: Box<ExtractError>,
        /// The others.
        others: Vec<ExtractError>,
    },
    /// Removed files are still open, and NFS keeps them in the staging folder until they are closed.
    #[error("files in `{}` are held open, so that NFS cannot remove them yet", staging.display())]
    HeldOpen {
        /// The staging folder.
        staging: PathBuf,
    },
    /// The release is not there.
    #[error("the target `{}` holds no release {revision}", target.display())]
    NoRelease {
        /// The target.
        target: PathBuf,
        /// The revision that was asked for.
        revision: Revision,
    },
    /// The revision does not fit.
    #[error("{needed} bytes are needed on the target's file system, and {available} are free")]
    NoSpace {
        /// Bytes needed, at most.
        needed: u64,
        /// Bytes free for this user.
        available: u64,
    },
    /// The file system has too few inodes.
    #[error("{needed} inodes are needed on the target's file system, and {available} are free")]
    NoInodes {
        /// Inodes needed.
        needed: u64,
        /// Inodes free for this user.
        available: u64,
    },
    /// What the package holds for a file is not what the list says.
    #[error("the content of `{path}` is not what the list of entries says")]
    Content {
        /// The file.
        path: EntryPath,
    },
    /// The package could not be read.
    #[error("the package cannot be read")]
    Package(#[source] PackageError),
    /// A file could not be made from what is here.
    #[error("`{path}` cannot be made from what is here")]
    Made {
        /// The file.
        path: EntryPath,
        /// Why not.
        source: DeltaError,
    },
    /// The target's file system became full.
    #[error("the disk is full: {doing} `{place}`")]
    DiskFull {
        /// What was being done.
        doing: &'static str,
        /// To what.
        place: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The user may not write there, or nobody may.
    #[error("not permitted: {doing} `{place}`")]
    Denied {
        /// What was being done.
        doing: &'static str,
        /// To what.
        place: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Anything else the operating system refuses.
    #[error("{doing} `{place}` failed")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        place: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Another process extracts the same Distribution to the same target.
    #[error("another extraction of this Distribution to `{}` is under way", target.display())]
    Busy {
        /// The target.
        target: PathBuf,
    },
    /// The staging folder belongs to somebody else, is no folder, or is open to others.
    #[error("`{name}` in `{}` is not a staging folder of ours", target.display())]
    NotOurs {
        /// The target.
        target: PathBuf,
        /// The folder's name.
        name: String,
    },
    /// The journal is not what was written.
    #[error("the journal of an interrupted extraction in `{}` is damaged", staging.display())]
    Journal {
        /// The staging folder.
        staging: PathBuf,
        /// What is wrong, where the decoder has more to say.
        source: Option<CodecError>,
    },
    /// A file that the journal moves is neither in the staging folder nor in its place.
    #[error("`{path}` is lost: it is neither staged nor in place")]
    Lost {
        /// The file.
        path: EntryPath,
    },
    /// Somebody changed the target while the extraction ran.
    #[error("`{path}` was changed while the extraction ran")]
    Changed {
        /// What was changed.
        path: EntryPath,
    },
    /// The caller asked to stop.
    #[error("the extraction was cancelled")]
    Cancelled,
}

impl ExtractError {
    /// What the operating system refused, told apart by what an operator can do about it.
    pub(super) fn io(doing: &'static str, place: impl fmt::Display, source: io::Error) -> Self {
        let place = place.to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { doing, place, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { doing, place, source }
            }
            _ => Self::Io { doing, place, source },
        }
    }

    pub(super) fn refused(path: &EntryPath, reason: Refusal) -> Self {
        Self::Refused { path: path.clone(), reason }
    }

    pub(super) fn locked(path: &EntryPath, why: &'static str) -> Self {
        Self::Locked { path: path.clone(), why }
    }

    /// All of them as one; `None` if there is none.
    pub(super) fn all_of(errors: Vec<Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        let others: Vec<_> = errors.collect();
        if others.is_empty() { Some(first) } else { Some(Self::Several { first: Box::new(first), others }) }
    }

    /// Whether it is about one entry, so that others may succeed all the same.
    pub(super) fn is_about_one(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Obstacle { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::ResourceBusy,
            _ => false,
        }
    }

    /// The entry that it is about, where it names one.
    #[must_use]
    pub const fn path(&self) -> Option<&EntryPath> {
        match self {
            Self::Refused { path, .. }
            | Self::Obstacle { path, .. }
            | Self::MountPoint { path }
            | Self::Locked { path, .. }
            | Self::Content { path }
            | Self::Lost { path }
            | Self::Changed { path } => Some(path),
            _ => None,
        }
    }
}

/// Errors after the first one, those that a person can still take in.
fn listed(others: &[ExtractError]) -> String {
    let mut text = String::new();
    for other in others.iter().take(SEVERAL_NAMED_MAX) {
        text.push_str("; ");
        text.push_str(&other.to_string());
    }
    if let Some(more) = others.len().checked_sub(SEVERAL_NAMED_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

impl Coded for ExtractError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "TED-1401",
            Self::TargetIsFile { .. } => "TED-1402",
            Self::TargetIsLink { .. } => "TED-1403",
            Self::TargetMissing { .. } => "TED-1404",
            Self::Obstacle { .. } => "TED-1405",
            Self::MountPoint { .. } => "TED-1406",
            Self::NoSpace { .. } => "TED-1407",
            Self::NoInodes { .. } => "TED-1408",
            Self::Content { .. } => "TED-1409",
            Self::Package(error) => error.code(),
            Self::Made { source, .. } => source.code(),
            Self::DiskFull { .. } => "TED-1410",
            Self::Denied { .. } => "TED-1411",
            Self::Io { .. } => "TED-1412",
            Self::Busy { .. } => "TED-1413",
            Self::NotOurs { .. } => "TED-1414",
            Self::Journal { .. } => "TED-1415",
            Self::Lost { .. } => "TED-1416",
            Self::Changed { .. } => "TED-1417",
            Self::Cancelled => "TED-1418",
            Self::Locked { .. } => "TED-1419",
            Self::Several { first, .. } => first.code(),
            Self::HeldOpen { .. } => "TED-1420",
            Self::NoRelease { .. } => "TED-1421",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Changed { .. } | Self::Cancelled | Self::HeldOpen { .. } => true,
            Self::Package(error) => error.is_retryable(),
            Self::Made { source, .. } => source.is_retryable(),
            _ => false,
        }
    }
}
