//! What can be wrong with a package.

use std::io;

use crate::codec::CodecError;
use crate::error::Coded;
use crate::security::SealError;

use super::entry::EntryPath;

/// Why a package was refused, or could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The bytes could not be read.
    #[error("cannot read the {place}")]
    Io {
        /// Which part of the package.
        place: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It does not end as a package does: something else, or cut off.
    #[error("this is not a whole package: its tail is missing")]
    NotAPackage,
    /// It was made by a later major version of the format.
    #[error("the package has format version {major}, and this program reads version {known}")]
    Version {
        /// The package's.
        major: u16,
        /// What this program reads.
        known: u16,
    },
    /// Its parts do not fit together, or one is beyond [`Limits`](crate::limits::Limits).
    #[error("the package is damaged or hostile: {what}")]
    Structure {
        /// What does not fit.
        what: &'static str,
    },
    /// Root, signature or catalog bytes that do not decode.
    #[error("the package is damaged or hostile")]
    Codec(#[from] CodecError),
    /// A kind of package or way of sealing that this version does not read.
    #[error("this version does not read {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// It is sealed, and what was asked for needs its content key.
    #[error("the package is sealed, and there is no key to open it with")]
    Sealed,
    /// The content key is not the one that the root commits to.
    #[error("the key does not open this package: the root commits to another one")]
    WrongKey,
    /// The table is not the one that the root names.
    #[error("the table does not have the hash that the root states")]
    TableHash,
    /// A frame that is not what the table says.
    #[error("frame {frame} is damaged")]
    Frame {
        /// Its row in the table.
        frame: u64,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// An entry that no catalog may have.
    #[error("the catalog is refused at `{path}`: {reason}")]
    Catalog {
        /// The entry.
        path: EntryPath,
        /// What is wrong with it.
        reason: CatalogFault,
    },
    /// Content that does not have the hash its entry states.
    #[error("the content of `{path}` does not have the hash that the catalog states")]
    Content {
        /// The entry.
        path: EntryPath,
    },
    /// The tar stream in the body is not the one that the catalog makes: other tools would unpack something else.
    #[error("the tar header of `{path}` in the body, or what fills its last block, is not what the catalog makes it")]
    Tar {
        /// The entry.
        path: EntryPath,
    },
    /// The body does not have the digest that the root states.
    #[error("the body does not have the digest that the root states")]
    Digest,
}

impl Coded for PackageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "TED-1010",
            Self::NotAPackage => "TED-1011",
            Self::Version { .. } => "TED-1012",
            Self::Structure { .. } => "TED-1013",
            Self::Codec(inner) => inner.code(),
            Self::Unsupported { .. } => "TED-1014",
            Self::TableHash => "TED-1015",
            Self::Frame { source: FrameError::Sealed(inner), .. } => inner.code(),
            Self::Frame { .. } => "TED-1016",
            Self::Catalog { .. } => "TED-1017",
            Self::Content { .. } => "TED-1018",
            Self::Digest => "TED-1019",
            Self::Tar { .. } => "TED-1030",
            Self::Sealed => "TED-1151",
            Self::WrongKey => "TED-1152",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted)
    }
}

/// What is wrong with one frame's bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// More or fewer bytes than the table states.
    #[error("it has {found} bytes and the table states {stated}")]
    Length {
        /// The table's word.
        stated: u64,
        /// What there is.
        found: u64,
    },
    /// Not the hash that the table states.
    #[error("it does not have the hash that the table states")]
    Hash,
    /// It has its hash, but was sealed under another key, for another row or another package.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// It has its hash, but does not become what the table states.
    #[error("it cannot be decompressed: {reason}")]
    Decompress {
        /// What zstd says.
        reason: String,
    },
}

/// Why an entry stands in no catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogFault {
    /// The first entry is not the root folder.
    #[error("the first entry must be the root folder")]
    NoRoot,
    /// It comes twice, or not in path order.
    #[error("it is a duplicate or out of order")]
    Order,
    /// The folder it lies in is missing or is no folder.
    #[error("the folder it lies in is not in the catalog")]
    Parent,
    /// Mode bits beyond `0o7777`, or nanoseconds beyond a second.
    #[error("its mode or time is out of range")]
    Attributes,
    /// A size, hash, offset or link that its kind does not have, or lacks one that it has.
    #[error("it has a field that its kind does not have, or lacks one")]
    Kind,
    /// A symlink's target that is too long or holds a NUL byte.
    #[error("its link target is too long or holds a NUL byte")]
    Link,
    /// A hard link to something that is not an earlier file or symlink of the catalog.
    #[error("it is a hard link to something that is not an earlier file or symlink of the package")]
    HardLink,
    /// Extensions out of order, or more or longer than the limits allow.
    #[error("its extensions are out of order, or beyond the limits")]
    Extensions,
    /// Content outside the body, over other content, or not cut as the format demands.
    #[error("its content does not lie in the body as the format demands")]
    Offset,
    /// More entries than the limits or the root allow.
    #[error("there are more entries than allowed")]
    TooMany,
}
