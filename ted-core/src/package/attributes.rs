//! What extensions say of an entry beyond mode and time: extended attributes, and on the root folder what the whole
//! Distribution asks of whoever extracts it. Byte layout in `docs/format.md`, "Extensions".

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::limits::Limits;

use super::entry::{AsEntry, Entry, EntryKind};

/// The kinds of extension that this version knows.
mod kind {
    pub(super) const XATTRS: u16 = 1;
    pub(super) const OWNERS: u16 = 2;
    pub(super) const PRIVILEGED: u16 = 3;
}

/// The names that a file system gives to the two access control lists of POSIX.1e.
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
const USER_PREFIX: &[u8] = b"user.";
/// Bytes of an extended attribute's name: what Linux allows.
const NAME_BYTES_MAX: usize = 255;

/// What an extended attribute is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrKind {
    /// `user.*`: somebody's own, without meaning for the system.
    User,
    /// An access control list, of the entry itself or what is inherited in a folder.
    Acl,
    /// Rights that a program gets when it is started.
    Capability,
}

impl XattrKind {
    /// The kind of the attribute with this name; `None` for those that belong to one machine (labels, trusted ones).
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            ACL_ACCESS | ACL_DEFAULT => Some(Self::Acl),
            CAPABILITY => Some(Self::Capability),
            _ if name.len() > USER_PREFIX.len() && name.starts_with(USER_PREFIX) => Some(Self::User),
            _ => None,
        }
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// Its whole name, such as `user.mime_type`.
    pub name: Vec<u8>,
    /// Its value as the system gives it.
    pub value: Vec<u8>,
}

/// Names of the owners and groups that entries have, by their numbers at the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Ordered by number.
    pub users: Vec<(u32, String)>,
    /// Ordered by number.
    pub groups: Vec<(u32, String)>,
}

/// What a Distribution asks of whoever extracts it, as its root folder says. A Subscriber decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// To give entries their owners, whose names these are.
    pub owners: Option<Owners>,
    /// To keep setuid, setgid and `security.capability`.
    pub privileged: bool,
}

impl Asked {
    /// What the revision with these entries asks.
    #[must_use]
    pub fn of<E: AsEntry>(entries: &[E]) -> Self {
        let Some(root) = entries.first().map(AsEntry::entry) else { return Self::default() };
        let owners = root.extension(kind::OWNERS).and_then(|bytes| decode(bytes).ok());
        Self { owners, privileged: root.extension(kind::PRIVILEGED).is_some() }
    }

    /// Has the root folder say it.
    ///
    /// # Errors
    /// [`CodecError`] when there are more names than an extension holds.
    pub fn put(&self, root: &mut Entry) -> Result<(), CodecError> {
        if let Some(owners) = &self.owners {
            root.put_extension(kind::OWNERS, encode(owners)?);
        }
        if self.privileged {
            root.put_extension(kind::PRIVILEGED, vec![]);
        }
        Ok(())
    }

    /// As [`Asked::put`]; more names than an extension holds, thousands, are left to their numbers.
    pub(crate) fn put_what_fits(mut self, root: &mut Entry) {
        while self.put(root).is_err() {
            let Some(owners) = &mut self.owners else { return };
            owners.users.truncate(owners.users.len() / 2);
            owners.groups.truncate(owners.groups.len() / 2);
        }
    }

    /// Takes from the root of one part what it says.
    pub(crate) fn take(root: &mut Entry) -> Self {
        let asked = Self::of(std::slice::from_ref(root));
        root.extensions.retain(|known| !matches!(known.0, kind::OWNERS | kind::PRIVILEGED));
        asked
    }

    /// Adds what another part of the same Distribution asks.
    pub(crate) fn join(&mut self, other: Self) {
        self.privileged |= other.privileged;
        let Some(others) = other.owners else { return };
        let own = self.owners.get_or_insert_default();
        for (own, others) in [(&mut own.users, others.users), (&mut own.groups, others.groups)] {
            own.extend(others);
            // One number has one name on the machine that builds.
            own.sort_by_key(|named| named.0);
            own.dedup_by_key(|named| named.0);
        }
    }
}

impl Entry {
    fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|known| known.0 == kind).map(|(_, bytes)| bytes.as_slice())
    }

    fn put_extension(&mut self, kind: u16, bytes: Vec<u8>) {
        self.extensions.retain(|known| known.0 != kind);
        self.extensions.push((kind, bytes));
        self.extensions.sort_unstable_by_key(|known| known.0);
    }

    /// Its extended attributes, ordered by name. The catalog's judge has seen to it that they can be read.
    #[must_use]
    pub fn xattrs(&self) -> Vec<Xattr> {
        self.extension(kind::XATTRS).and_then(|bytes| decode(bytes).ok()).unwrap_or_default()
    }

    /// Gives it these extended attributes, in any order; none takes them away.
    ///
    /// # Errors
    /// [`CodecError`] when they are longer than an extension may be.
    pub fn set_xattrs(&mut self, mut xattrs: Vec<Xattr>) -> Result<(), CodecError> {
        xattrs.sort_unstable();
        self.extensions.retain(|known| known.0 != kind::XATTRS);
        if !xattrs.is_empty() {
            self.put_extension(kind::XATTRS, encode(&xattrs)?);
        }
        Ok(())
    }
}

/// Whether what an entry says in extensions of known kinds is what an entry like it may say.
pub(super) fn judge(entry: &Entry) -> bool {
    entry.extensions.iter().all(|(kind, bytes)| match *kind {
        kind::XATTRS => decode(bytes).is_ok_and(|xattrs: Vec<Xattr>| judge_xattrs(entry.kind, &xattrs)),
        kind::OWNERS => entry.path.is_root() && decode(bytes).is_ok_and(|owners: Owners| judge_owners(&owners)),
        kind::PRIVILEGED => entry.path.is_root() && bytes.is_empty(),
        _ => true,
    })
}

fn judge_xattrs(entry: EntryKind, xattrs: &[Xattr]) -> bool {
    let fits = |xattr: &Xattr| match XattrKind::of(&xattr.name) {
        None => false,
        Some(XattrKind::Capability) => entry == EntryKind::File,
        Some(XattrKind::Acl) if xattr.name == ACL_DEFAULT => entry == EntryKind::Directory,
        Some(_) => matches!(entry, EntryKind::File | EntryKind::Directory),
    };
    let named = |xattr: &Xattr| xattr.name.len() <= NAME_BYTES_MAX && !xattr.name.contains(&0);
    !xattrs.is_empty()
        && xattrs.is_sorted_by(|left, right| left.name < right.name)
        && xattrs.iter().all(|xattr| fits(xattr) && named(xattr))
}

fn judge_owners(owners: &Owners) -> bool {
    [&owners.users, &owners.groups].into_iter().all(|names| {
        let named = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
        names.is_sorted_by(|left, right| left.0 < right.0) && names.iter().all(|(_, name)| named(name))
    })
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    codec::encode("an entry's attributes", value, Limits::DEFAULT.extension_bytes_max as u64)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    codec::decode("an entry's attributes", bytes, Limits::DEFAULT.extension_bytes_max as u64)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{EntryPath, Mtime};
    use super::*;

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        Entry {
            path: EntryPath::from_bytes(path).expect("valid"),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds: 0, nanoseconds: 0 },
            size: 0,
            link: vec![],
            content: Entry::NO_CONTENT,
            extensions: vec![(9, b"kept".to_vec())],
        }
    }

    fn xattr(name: &str) -> Xattr {
        Xattr { name: name.into(), value: b"value".to_vec() }
    }

    #[test]
    fn attributes_come_back_in_order_and_leave_what_is_unknown_alone() {
        let mut file = entry(b"f", EntryKind::File);
        assert_eq!(file.xattrs(), []);
        file.set_xattrs(vec![xattr("user.b"), xattr("security.capability"), xattr("user.a")]).expect("short");
        assert!(judge(&file));
        let names: Vec<_> = file.xattrs().into_iter().map(|xattr| xattr.name).collect();
        assert_eq!(names, [b"security.capability".to_vec(), b"user.a".to_vec(), b"user.b".to_vec()]);
        assert_eq!(file.extensions.iter().map(|known| known.0).collect::<Vec<_>>(), [1, 9]);
        file.set_xattrs(vec![]).expect("short");
        assert_eq!(file.extensions, [(9, b"kept".to_vec())]);
        assert!(file.set_xattrs(vec![Xattr { name: b"user.a".to_vec(), value: vec![0; 65_536] }]).is_err());
    }

    #[test]
    fn what_a_distribution_asks_stands_on_its_root() {
        let mut root = entry(b"", EntryKind::Directory);
        assert_eq!(Asked::of(&[root.clone()]), Asked::default());
        let owners = Owners { users: vec![(0, "root".to_owned()), (33, "www".to_owned())], groups: vec![] };
        let asked = Asked { owners: Some(owners), privileged: true };
        asked.put(&mut root).expect("short");
        assert!(judge(&root));
        assert_eq!(Asked::of(&[root.clone()]), asked);
        root.path = EntryPath::from_bytes(b"below").expect("valid");
        assert!(!judge(&root), "nothing below the root asks for anything");
    }

    #[test]
    fn attributes_that_no_entry_of_its_kind_has_are_refused() {
        use EntryKind::{Directory, File, HardLink, Symlink};
        for (kind, names) in [
            (File, &["trusted.x"][..]),
            (File, &["security.selinux"]),
            (File, &["system.nfs4_acl"]),
            (File, &["user."]),
            (File, &["user.a\0b"]),
            (File, &["user.b", "user.a"]),
            (File, &["user.a", "user.a"]),
            (File, &["system.posix_acl_default"]),
            (Directory, &["security.capability"]),
            (Symlink, &["user.a"]),
            (HardLink, &["user.a"]),
            (File, &[]),
        ] {
            let mut entry = entry(b"f", kind);
            let xattrs: Vec<_> = names.iter().map(|name| xattr(name)).collect();
            entry.put_extension(kind::XATTRS, encode(&xattrs).expect("short"));
            assert!(!judge(&entry), "{kind:?} {names:?}");
        }
        let mut malformed = entry(b"f", File);
        malformed.put_extension(kind::XATTRS, vec![0xff; 8]);
        assert!(!judge(&malformed));
    }
}
