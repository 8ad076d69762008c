//! A tree with everything that copying tends to lose, and the comparison of two trees.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const FOLDERS: usize = 50;
const FILES_PER_FOLDER: usize = 100;
const SPARSE_BYTES: u64 = 1 << 30;

/// Makes 5,000 files, and among them what is rare in a tree and must survive all the same.
pub(crate) fn make(root: &Path) {
    for folder in 0..FOLDERS {
        let folder_path = root.join(format!("folder {folder:02}"));
        fs::create_dir_all(&folder_path).expect("made");
        for file in 0..FILES_PER_FOLDER {
            let content = format!("file {file} of folder {folder}\n").repeat(file % 17);
            fs::write(folder_path.join(format!("file-{file:03}.txt")), content).expect("written");
        }
    }
    let first = root.join("folder 00/file-001.txt");
    fs::hard_link(&first, root.join("a hard link")).expect("made");
    fs::hard_link(&first, root.join("folder 49/another hard link")).expect("made");
    symlink("/etc/x", root.join("a link to elsewhere")).expect("made");
    symlink("folder 00", root.join("a link to a folder")).expect("made");
    fs::write(root.join(OsStr::from_bytes(b"not UTF-8: \xff\xfe")), b"named in Latin-1").expect("written");
    fs::write(root.join("x".repeat(255)), b"the longest name").expect("written");
    fs::create_dir_all(root.join("empty/empty too/and this")).expect("made");
    let script = root.join("a script");
    fs::write(&script, b"#!/bin/sh\n").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).expect("set");
    let old = SystemTime::UNIX_EPOCH + Duration::new(86_400, 123_456_789);
    File::options().write(true).open(&script).and_then(|file| file.set_modified(old)).expect("set");
    make_sparse(&root.join("sparse")).expect("made");
}

/// A file of 1 GiB that has a few bytes in its middle and at its end, and holes around them.
fn make_sparse(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for place in [SPARSE_BYTES / 2, SPARSE_BYTES - 4] {
        file.seek(SeekFrom::Start(place))?;
        file.write_all(b"here")?;
    }
    file.flush()
}

/// Panics with the differences, where there are some: by rsync where there is one, and by a comparison of our own.
pub(crate) fn assert_same(source: &Path, target: &Path) {
    if let Ok(output) = Command::new("rsync").arg("-aniHc").arg("--delete").args(slashed(source, target)).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.is_empty(), "rsync would still do this:\n{printed}");
    }
    let (from, to) = (list(source), list(target));
    let both = from.keys().chain(to.keys());
    let differing: Vec<_> = both.filter(|path| from.get(*path) != to.get(*path)).collect();
    assert!(differing.is_empty(), "{} entries differ, the first is {:?}", differing.len(), differing[0]);
    for (path, _) in from.iter().filter(|(_, entry)| entry.kind == "file") {
        assert!(same_content(&source.join(path), &target.join(path)), "{} has another content", path.display());
    }
}

fn slashed(source: &Path, target: &Path) -> [PathBuf; 2] {
    [source.join(""), target.join("")]
}

#[derive(Debug, PartialEq, Eq)]
struct Listed {
    kind: &'static str,
    mode: u32,
    mtime: (i64, i64),
    size: u64,
    owner: (u32, u32),
    link: Option<PathBuf>,
    /// The first path of the same file.
    first: Option<PathBuf>,
}

fn list(root: &Path) -> BTreeMap<PathBuf, Listed> {
    let mut paths = vec![];
    collect(root, root, &mut paths);
    paths.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut firsts = HashMap::new();
    let listed = paths.into_iter().map(|(path, metadata)| {
        let kind = match (metadata.is_dir(), metadata.is_symlink()) {
            (true, _) => "folder",
            (_, true) => "link",
            _ => "file",
        };
        let first = (kind != "folder").then(|| {
            let inode = (metadata.dev(), metadata.ino());
            firsts.entry(inode).or_insert_with(|| path.clone()).clone()
        });
        let entry = Listed {
            kind,
            mode: metadata.mode(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            size: if kind == "folder" { 0 } else { metadata.len() },
            owner: (metadata.uid(), metadata.gid()),
            link: fs::read_link(root.join(&path)).ok(),
            first,
        };
        (path, entry)
    });
    listed.collect()
}

fn collect(root: &Path, folder: &Path, paths: &mut Vec<(PathBuf, Metadata)>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let relative = path.strip_prefix(root).expect("below the root").to_owned();
        let metadata = fs::symlink_metadata(&path).expect("readable");
        if metadata.is_dir() {
            collect(root, &path, paths);
        }
        paths.push((relative, metadata));
    }
}

fn same_content(left: &Path, right: &Path) -> bool {
    let (mut left, mut right) = (File::open(left).expect("opened"), File::open(right).expect("opened"));
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = left.read(&mut one).expect("read");
        let (one, other) = (&one[..count], &mut other[..count]);
        if right.read_exact(other).is_err() || one != other {
            return false;
        }
        if count == 0 {
            return right.read(&mut [0]).expect("read") == 0;
        }
    }
}
