//! What a source's entries have beyond modes, times and numbers of owners, read where the Distribution asks for it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::extract::accounts;
use crate::model::Kept;
use crate::package::{Asked, Entry, EntryKind, Owners, SkipReason, Skipped, Xattr, XattrKind};

use super::path_of;
use super::walk::Seen;

/// Threads that read: a few requests at once hide the waiting for disks and servers.
const READERS: usize = 4;
/// Bytes of a list of names, and of a value: the most that Linux gives.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Adds to the entries `seen` below `root` what is to be kept of them. Answers which could not be read; these stay
/// without.
pub(super) fn read(root: &Path, seen: &mut [Seen], keep: Kept) -> Vec<Skipped> {
    let mut skipped = Vec::new();
    if keep.xattrs || keep.privileged {
        let share = seen.len().div_ceil(READERS).max(1);
        skipped = std::thread::scope(|scope| {
            let readers: Vec<_> =
                seen.chunks_mut(share).map(|seen| scope.spawn(|| read_some(root, seen, keep))).collect();
            readers.into_iter().filter_map(|reader| reader.join().ok()).flatten().collect()
        });
    }
    let owners = keep.ownership.then(|| names(seen.iter().map(|seen| &seen.entry)));
    if let Some(first) = seen.first_mut() {
        Asked { owners, privileged: keep.privileged }.put_what_fits(&mut first.entry);
    }
    skipped
}

fn read_some(root: &Path, seen: &mut [Seen], keep: Kept) -> Vec<Skipped> {
    let mut skipped = Vec::new();
    let mut buffer = vec![0; XATTR_BYTES_MAX];
    for Seen { entry, .. } in seen {
        if !matches!(entry.kind, EntryKind::File | EntryKind::Directory) {
            continue;
        }
        let place = root.join(path_of(&entry.path));
        let kept = xattrs(&place, keep, &mut buffer).map_err(SkipReason::Attributes);
        if let Err(reason) = kept.and_then(|xattrs| entry.set_xattrs(xattrs).map_err(|_| SkipReason::TooManyAttributes))
        {
            skipped.push(Skipped { path: entry.path.to_string(), reason });
        }
    }
    skipped
}

fn xattrs(place: &Path, keep: Kept, buffer: &mut [u8]) -> io::Result<Vec<Xattr>> {
    let listed = match llistxattr(place, &mut *buffer) {
        Ok(length) => buffer[..length].to_vec(),
        // The file system has none.
        Err(Errno::NOTSUP) => return Ok(vec![]),
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    for name in listed.split(|&byte| byte == 0) {
        let wanted = match XattrKind::of(name) {
            Some(XattrKind::User | XattrKind::Acl) => keep.xattrs,
            Some(XattrKind::Capability) => keep.privileged,
            None => false,
        };
        if !wanted {
            continue;
        }
        match lgetxattr(place, name, &mut *buffer) {
            Ok(length) => xattrs.push(Xattr { name: name.to_vec(), value: buffer[..length].to_vec() }),
            // Gone since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

/// The names of everybody who owns something.
fn names<'a>(entries: impl Iterator<Item = &'a Entry>) -> Owners {
    let (users, groups): (BTreeSet<u32>, BTreeSet<u32>) = entries.map(|entry| (entry.uid, entry.gid)).unzip();
    let named = |numbers: BTreeSet<u32>, name: fn(u32) -> Option<String>| {
        numbers.into_iter().filter_map(|number| Some((number, name(number)?))).collect()
    };
    Owners { users: named(users, accounts::user_name), groups: named(groups, accounts::group_name) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{XattrFlags, fsetxattr};

    use super::*;
    use crate::distributor::source::{FolderSource, Selection, Unreadable};
    use crate::package::Source;

    fn entries(folder: &Path, keep: Kept) -> Vec<Entry> {
        let source = FolderSource::new(folder.to_owned(), Selection::default(), Unreadable::Refuse).keeping(keep);
        source.entries(&mut |_| {}).expect("readable")
    }

    #[test]
    fn only_what_is_asked_for_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("f");
        fs::write(&place, "x").expect("written");
        std::os::unix::fs::symlink("f", folder.path().join("s")).expect("linked");
        if fsetxattr(File::open(&place).expect("there"), "user.a", b"1", XattrFlags::empty()).is_err() {
            eprintln!("not run: the file system has no extended attributes");
            return;
        }
        let plain = entries(folder.path(), Kept::default());
        assert!(plain.iter().all(|entry| entry.extensions.is_empty()));
        let with = entries(folder.path(), Kept { xattrs: true, ..Kept::default() });
        assert_eq!(with[1].xattrs(), [Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }]);
        assert!(with[0].extensions.is_empty() && with[2].extensions.is_empty());
        let asking = entries(folder.path(), Kept { ownership: true, privileged: true, ..Kept::default() });
        assert!(asking[1].extensions.is_empty());
        let asked = Asked::of(&asking);
        assert!(asked.privileged);
        let owner = (asking[0].uid, accounts::user_name(asking[0].uid));
        let named = |(number, name): (u32, Option<String>)| Some((number, name?));
        assert_eq!(asked.owners.expect("asked for").users, named(owner).into_iter().collect::<Vec<_>>());
    }
}
