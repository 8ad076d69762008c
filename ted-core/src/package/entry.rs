//! Entries: what a revision says about each file, and the checked path that names it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Hash;
use crate::limits::Limits;

/// Why bytes are not an entry's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It begins with a slash.
    #[error("it is absolute")]
    Absolute,
    /// It has `.`, `..` or nothing between two slashes, or ends in a slash.
    #[error("a component is empty, `.` or `..`")]
    Component,
    /// It has a NUL byte.
    #[error("it holds a NUL byte")]
    Nul,
    /// It, one of its components, or their number is beyond [`Limits`].
    #[error("it is too long or too deep")]
    TooLong,
}

/// A path below the root of a tree: components joined by `/`, no `.` or `..`, no NUL, any other bytes.
/// The empty path is the root itself. Ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// The root of the tree.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// The path that `bytes` spell.
    ///
    /// # Errors
    /// [`PathError`] says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        let limits = Limits::DEFAULT;
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes[0] == b'/' {
            return Err(PathError::Absolute);
        }
        if bytes.len() > limits.path_bytes_max {
            return Err(PathError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut depth = 0;
        for component in bytes.split(|&byte| byte == b'/') {
            depth += 1;
            if matches!(component, b"" | b"." | b"..") {
                return Err(PathError::Component);
            }
            if component.len() > limits.path_component_bytes_max {
                return Err(PathError::TooLong);
            }
        }
        if depth > limits.path_depth_max {
            return Err(PathError::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root of the tree.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its components, outermost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|component| !component.is_empty())
    }

    /// The path of the folder it lies in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// Its last component; `None` for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The path of `name` in the folder that this path names.
    ///
    /// # Errors
    /// [`PathError`] when `name` is not one component, or the whole becomes too long.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if name.is_empty() || name.contains(&b'/') {
            return Err(PathError::Component);
        }
        if self.is_root() {
            return Self::from_bytes(name);
        }
        Self::from_bytes(&[&self.0, b"/".as_slice(), name].concat())
    }
}

impl TryFrom<Vec<u8>> for EntryPath {
    type Error = PathError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        Self::from_bytes(&bytes)
    }
}

impl From<EntryPath> for Vec<u8> {
    fn from(path: EntryPath) -> Self {
        path.0.into_vec()
    }
}

/// Prints invalid UTF-8 and control characters escaped, and the root as `.`.
impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() || character == '\\' {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self})")
    }
}

/// What an entry is. Other kinds of file are not distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A file with content of its own.
    File,
    /// A symbolic link; its target is data and never followed.
    Symlink,
    /// Another name of the file or symlink whose path is the link target, and which comes earlier in path order.
    HardLink,
}

/// A modification time: seconds since 1970, possibly negative, and nanoseconds below 10⁹ after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mtime {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Something about an entry that not every version knows: a kind and its bytes. Unknown kinds are kept.
pub type Extension = (u16, Vec<u8>);

/// One entry of a revision. The encoding of these, in path order, is what the content id hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lies.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// The owner's number at the source.
    pub uid: u32,
    /// The group's number at the source.
    pub gid: u32,
    /// When its content last changed.
    pub mtime: Mtime,
    /// Bytes of content; 0 unless it is a file.
    pub size: u64,
    /// A symlink's target as it is, or the path a hard link names; empty otherwise.
    pub link: Vec<u8>,
    /// BLAKE3 of a file's content; zero bytes for anything else.
    pub content: Hash,
    /// Extended attributes and what later versions add, ordered by kind.
    pub extensions: Vec<Extension>,
}

impl Entry {
    /// The content hash of an entry that has no content.
    pub const NO_CONTENT: Hash = Hash::from_bytes([0; 32]);
}

/// A row of a baseline's catalog: an entry, and where its content begins in the raw body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogRow {
    /// The entry.
    pub entry: Entry,
    /// Bytes of raw body (all frames decoded, end to end) before its content; 0 for an entry without content.
    pub offset: u64,
}

/// What has an entry in it.
pub trait AsEntry: Sync {
    /// The entry.
    fn entry(&self) -> &Entry;
}

impl AsEntry for Entry {
    fn entry(&self) -> &Entry {
        self
    }
}

impl AsEntry for CatalogRow {
    fn entry(&self) -> &Entry {
        &self.entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        for (bad, error) in [
            (b"/etc".as_slice(), PathError::Absolute),
            (b"..", PathError::Component),
            (b"a/../b", PathError::Component),
            (b"a/./b", PathError::Component),
            (b"a//b", PathError::Component),
            (b"a/", PathError::Component),
            (b"a\0b", PathError::Nul),
            (&[b'a'; 256], PathError::TooLong),
        ] {
            assert_eq!(EntryPath::from_bytes(bad), Err(error), "{bad:?}");
        }
        assert_eq!(EntryPath::from_bytes([b"a".as_slice(); 1025].join(&b'/').as_slice()), Err(PathError::TooLong));
        assert_eq!(EntryPath::from_bytes([[b'a'; 255].as_slice(); 17].join(&b'/').as_slice()), Err(PathError::TooLong));
    }

    #[test]
    fn parents_and_names_take_a_path_apart() {
        let path = EntryPath::from_bytes(b"a/b\xff/c").expect("valid");
        assert_eq!(path.file_name(), Some(b"c".as_slice()));
        assert_eq!(path.parent().expect("has one").as_bytes(), b"a/b\xff");
        assert_eq!(path.to_string(), "a/b\\xff/c");
        assert_eq!(path.parent().and_then(|p| p.parent()).and_then(|p| p.parent()), Some(EntryPath::root()));
        assert_eq!(EntryPath::root().parent(), None);
        assert_eq!(EntryPath::root().join(b"x").expect("valid").as_bytes(), b"x");
        assert_eq!(EntryPath::root().join(b"x/y"), Err(PathError::Component));
    }

    #[test]
    fn decoding_checks_paths() {
        let bytes = crate::codec::encode("path", &b"../x".to_vec(), 64).expect("small");
        assert!(crate::codec::decode::<EntryPath>("path", &bytes, 64).is_err());
    }
}
