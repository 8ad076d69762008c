//! A folder as the source of a build.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use rustix::fs::OFlags;

use crate::package::{Entry, EntryKind, EntryPath, Skipped, Source, SourceError, SourceFile};

use super::walk::walk;
use super::{Selection, Unreadable, Watched, path_of};
use crate::distributor::seen::Mark;

/// A folder. Symlinks in it are data and never followed; file systems mounted below it are part of it.
#[derive(Debug)]
pub struct FolderSource {
    root: PathBuf,
    selection: Selection,
    unreadable: Unreadable,
    /// What each file was when it was listed, by path.
    stamps: RwLock<HashMap<EntryPath, Stamp>>,
}

impl FolderSource {
    /// The folder at `root`.
    #[must_use]
    pub fn new(root: PathBuf, selection: Selection, unreadable: Unreadable) -> Self {
        Self { root, selection, unreadable, stamps: RwLock::default() }
    }
}

impl Watched for FolderSource {
    fn mark(&self, path: &EntryPath) -> Option<Mark> {
        self.stamps.read().unwrap_or_else(PoisonError::into_inner).get(path).map(Stamp::mark)
    }
}

impl Source for FolderSource {
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let failed = |source| SourceError::Root { place: self.root.display().to_string(), source };
        // The source itself may be named by a symlink; nothing below it is.
        let root = std::fs::canonicalize(&self.root).map_err(failed)?;
        let metadata = std::fs::symlink_metadata(&root).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        std::fs::read_dir(&root).map_err(failed)?;
        let found = walk(&root, &metadata, &self.selection);
        if !found.skipped.is_empty() && self.unreadable == Unreadable::Refuse {
            return Err(SourceError::Refused(found.skipped));
        }
        found.skipped.into_iter().for_each(skip);
        let files = found.seen.iter().filter(|seen| seen.entry.kind == EntryKind::File);
        *self.stamps.write().unwrap_or_else(PoisonError::into_inner) =
            files.map(|seen| (seen.entry.path.clone(), seen.stamp)).collect();
        Ok(found.seen.into_iter().map(|seen| seen.entry).collect())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        let failed = |source| SourceError::Read { path: entry.path.clone(), source };
        // Without O_NONBLOCK a FIFO that took the file's place would hold the build for ever.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.root.join(path_of(&entry.path)));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::Changed { path: entry.path.clone() });
            }
            Err(error) => return Err(failed(error)),
        };
        let listed = self.stamps.read().unwrap_or_else(PoisonError::into_inner).get(&entry.path).copied();
        let opened = OpenFile { file, offset, path: entry.path.clone(), listed };
        opened.judge()?;
        Ok(Box::new(opened))
    }
}

/// What must not change while a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    mode: u32,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn mark(&self) -> Mark {
        Mark { inode: self.inode, changed: self.ctime }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

struct OpenFile {
    file: File,
    offset: u64,
    path: EntryPath,
    listed: Option<Stamp>,
}

impl OpenFile {
    fn judge(&self) -> Result<(), SourceError> {
        let failed = |source| SourceError::Read { path: self.path.clone(), source };
        let now = Stamp::of(&self.file.metadata().map_err(failed)?);
        if self.listed == Some(now) { Ok(()) } else { Err(SourceError::Changed { path: self.path.clone() }) }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buf, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl SourceFile for OpenFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        self.judge()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::error::Coded;
    use crate::package::SkipReason;

    fn source(root: &Path, excludes: &[&str], unreadable: Unreadable) -> FolderSource {
        FolderSource::new(root.to_owned(), Selection::new(excludes, &[]).expect("patterns"), unreadable)
    }

    fn list(source: &FolderSource) -> Vec<Entry> {
        source.entries(&mut |skipped| panic!("{} {}", skipped.path, skipped.reason)).expect("readable")
    }

    fn paths(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| entry.path.to_string()).collect()
    }

    fn read(source: &FolderSource, entry: &Entry, offset: u64) -> Result<Vec<u8>, SourceError> {
        let mut file = source.open(entry, offset)?;
        let mut content = vec![0; (entry.size - offset) as usize];
        file.read_exact(&mut content).expect("long enough");
        file.finish().map(|()| content)
    }

    #[test]
    fn entries_come_in_path_order_with_what_the_file_system_says() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).expect("made");
        fs::write(at("a/f"), b"hello").expect("made");
        fs::write(at("a-b"), b"").expect("made");
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"n\xff")), b"x").expect("made");
        symlink("/nowhere", at("s")).expect("made");
        fs::hard_link(at("s"), at("t")).expect("made");
        fs::hard_link(at("a/f"), at("z")).expect("made");
        fs::set_permissions(at("a/f"), fs::Permissions::from_mode(0o4751)).expect("set");
        let source = source(folder.path(), &[], Unreadable::Refuse);
        let entries = list(&source);
        assert_eq!(paths(&entries), [".", "a", "a-b", "a/f", "n\\xff", "s", "t", "z"]);
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.link.as_slice())).collect();
        assert_eq!(kinds[1], (EntryKind::Directory, &b""[..]));
        assert_eq!(kinds[5], (EntryKind::Symlink, &b"/nowhere"[..]));
        assert_eq!(kinds[6], (EntryKind::HardLink, &b"s"[..]));
        assert_eq!(kinds[7], (EntryKind::HardLink, &b"a/f"[..]));
        assert_eq!((entries[3].mode, entries[3].size), (0o4751, 5));
        assert_eq!(read(&source, &entries[3], 0).expect("unchanged"), b"hello");
        assert_eq!(read(&source, &entries[3], 3).expect("unchanged"), b"lo");
    }

    #[test]
    fn patterns_leave_out_what_they_match_and_all_that_lies_in_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["keep", "x.tmp", "d/x.tmp", "d/keep", "cache/f", "d/cache/f", "e/only/here", "only/here"] {
            let place = folder.path().join(name);
            fs::create_dir_all(place.parent().expect("has one")).expect("made");
            fs::write(place, b"").expect("made");
        }
        let listed = |excludes: &[&str]| paths(&list(&source(folder.path(), excludes, Unreadable::Refuse)));
        assert_eq!(listed(&["*.tmp", "cache/", "/only"]), [".", "d", "d/keep", "e", "e/only", "e/only/here", "keep"]);
        assert_eq!(listed(&["d/*", "e/**", "cache", "only", "x*"]), [".", "d", "e", "keep"]);
    }

    #[test]
    fn with_patterns_of_what_is_taken_only_that_and_the_way_to_it_is_there() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["a/b/page.html", "a/b/page.txt", "a/empty/x", "docs/any", "docs/deep/any", "docs/x.tmp", "x.html"]
        {
            let place = folder.path().join(name);
            fs::create_dir_all(place.parent().expect("has one")).expect("made");
            fs::write(place, b"").expect("made");
        }
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("bound");
        let selection = Selection::new(&["*.tmp"], &["*.html", "docs"]).expect("patterns");
        let source = FolderSource::new(folder.path().to_owned(), selection, Unreadable::Refuse);
        let taken = [".", "a", "a/b", "a/b/page.html", "docs", "docs/any", "docs/deep", "docs/deep/any", "x.html"];
        assert_eq!(paths(&list(&source)), taken);
        drop(socket);
    }

    #[test]
    fn gitignore_files_leave_out_what_git_would_and_deeper_ones_have_the_last_word() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (name, content) in [
            (".gitignore", "*.log\n/build/\n!keep.log\nnode_modules\n# no pattern\n"),
            (".git/config", "of git"),
            ("build/out", ""),
            ("src/build/kept", ""),
            ("src/a.log", ""),
            ("src/keep.log", ""),
            ("src/node_modules/x", ""),
            ("sub/.gitignore", "!a.log\nsecret\n"),
            ("sub/a.log", ""),
            ("sub/secret", ""),
            ("secret", ""),
        ] {
            let place = folder.path().join(name);
            fs::create_dir_all(place.parent().expect("has one")).expect("made");
            fs::write(place, content).expect("made");
        }
        let listed = |honoured| {
            let selection = Selection::default().gitignore(honoured);
            paths(&list(&FolderSource::new(folder.path().to_owned(), selection, Unreadable::Refuse)))
        };
        let taken = [
            ".",
            ".gitignore",
            "secret",
            "src",
            "src/build",
            "src/build/kept",
            "src/keep.log",
            "sub",
            "sub/.gitignore",
            "sub/a.log",
        ];
        assert_eq!(listed(true), taken);
        assert!(listed(false).contains(&".git/config".to_owned()), "unless it was asked for, nothing is left out");
    }

    #[test]
    fn what_cannot_be_distributed_is_named_and_refused_or_left_out() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join("f"), b"").expect("made");
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("bound");
        let refused = source(folder.path(), &[], Unreadable::Refuse).entries(&mut |_| {}).expect_err("a socket");
        assert_eq!(refused.code(), "TED-1702");
        assert!(refused.to_string().contains("socket"), "{refused}");
        let mut skipped = Vec::new();
        let entries = source(folder.path(), &[], Unreadable::Skip).entries(&mut |it| skipped.push(it)).expect("skips");
        assert_eq!(paths(&entries), [".", "f"]);
        assert!(matches!(&skipped[..], [Skipped { path, reason: SkipReason::Special("socket") }] if path == "socket"));
        drop(socket);
    }

    #[test]
    fn a_source_that_is_no_folder_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("f");
        fs::write(&file, b"").expect("made");
        for place in [file, folder.path().join("missing")] {
            let error = source(&place, &[], Unreadable::Skip).entries(&mut |_| {}).expect_err("no folder");
            assert_eq!(error.code(), "TED-1701");
        }
    }

    #[test]
    fn a_file_that_changed_since_it_was_listed_is_found_out() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let place = folder.path().join("f");
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("longer", |place| fs::write(place, b"hello world").expect("written")),
            ("another inode of the same length", |place| {
                fs::write(place.with_extension("new"), b"HELLO").expect("written");
                fs::rename(place.with_extension("new"), place).expect("renamed");
            }),
            ("another mode", |place| fs::set_permissions(place, fs::Permissions::from_mode(0o600)).expect("set")),
            ("gone", |place| fs::remove_file(place).expect("removed")),
            ("a folder", |place| {
                fs::remove_file(place).expect("removed");
                fs::create_dir(place).expect("made");
            }),
            ("a symlink", |place| {
                fs::remove_dir(place).expect("removed");
                symlink("/etc/passwd", place).expect("made");
            }),
        ];
        for (what, change) in changes {
            if !place.is_dir() {
                fs::write(&place, b"hello").expect("written");
                fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).expect("set");
            }
            let source = source(folder.path(), &[], Unreadable::Refuse);
            let mut entries = list(&source);
            let entry = entries.pop().expect("the file");
            let early = source.open(&entry, 0).ok();
            change(&place);
            let late = source.open(&entry, 0).map(|_| ()).expect_err(what);
            assert!(matches!(late, SourceError::Changed { .. } | SourceError::Read { .. }), "{what}: {late}");
            if let (Some(file), "longer" | "another mode" | "gone") = (early, what) {
                assert!(matches!(file.finish(), Err(SourceError::Changed { .. })), "{what}, while it was open");
            }
        }
    }
}
