//! Trees in memory and in folders, and how they compare.

mod compare;
mod crash;
mod crash_modes;
mod gate;
mod hostile;
mod making;
mod planted;
mod real;
mod release;
mod survive;
mod sync;
mod target_files;
mod update;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::extract::{
    Contents, Create, ExtractError, ExtractJob, ExtractOptions, ExtractSummary, Recovery, Target, extract,
};
use crate::id::{DistributionId, Hash, Revision};
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath, Mtime, PackageError, RawFrames};

pub(super) const DISTRIBUTION: DistributionId = DistributionId::from_bytes([0xd1; 16]);
pub(super) const MTIME: Mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 123_456_789 };

pub(super) fn path(bytes: impl AsRef<[u8]>) -> EntryPath {
    EntryPath::from_bytes(bytes.as_ref()).expect("a valid path")
}

/// A tree to be extracted.
#[derive(Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<EntryPath, (Entry, Vec<u8>)>,
    /// Lengths of frames, used in turn.
    cuts: Vec<usize>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::new(), cuts: vec![1000, 3, 5000, 70_000] }.add(
            "",
            EntryKind::Directory,
            0o755,
            b"",
            b"",
        )
    }

    pub(super) fn dir(self, at: impl AsRef<[u8]>) -> Self {
        self.add(at, EntryKind::Directory, 0o755, b"", b"")
    }

    pub(super) fn file(self, at: impl AsRef<[u8]>, content: &[u8]) -> Self {
        self.add(at, EntryKind::File, 0o644, content, b"")
    }

    pub(super) fn symlink(self, at: impl AsRef<[u8]>, text: impl AsRef<[u8]>) -> Self {
        self.add(at, EntryKind::Symlink, 0o777, b"", text.as_ref())
    }

    pub(super) fn hard(self, at: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.add(at, EntryKind::HardLink, 0o644, b"", to.as_ref())
    }

    pub(super) fn mode(mut self, at: impl AsRef<[u8]>, mode: u32) -> Self {
        self.nodes.get_mut(&path(at)).expect("added before").0.mode = mode;
        self
    }

    pub(super) fn later(mut self, at: impl AsRef<[u8]>) -> Self {
        self.nodes.get_mut(&path(at)).expect("added before").0.mtime.seconds += 1000;
        self
    }

    pub(super) fn cuts(mut self, cuts: &[usize]) -> Self {
        self.cuts = cuts.to_vec();
        self
    }

    /// Folders that are not there yet are added.
    fn add(mut self, at: impl AsRef<[u8]>, kind: EntryKind, mode: u32, content: &[u8], link: &[u8]) -> Self {
        let at = path(at);
        if let Some(parent) = at.parent().filter(|parent| !self.nodes.contains_key(parent)) {
            self = self.dir(parent.as_bytes());
        }
        let is_file = kind == EntryKind::File;
        let entry = Entry {
            path: at.clone(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds: MTIME.seconds + self.nodes.len() as i64, ..MTIME },
            size: content.len() as u64,
            link: link.to_vec(),
            content: if is_file { Hash::of(content) } else { Entry::NO_CONTENT },
            extensions: Vec::new(),
        };
        self.nodes.insert(at, (entry, content.to_vec()));
        self
    }

    pub(super) fn build(&self) -> Built {
        let mut body = Vec::new();
        let mut rows = Vec::new();
        for (entry, content) in self.nodes.values() {
            body.resize(body.len() + 512, b'h');
            rows.push(CatalogRow { entry: entry.clone(), offset: if entry.size == 0 { 0 } else { body.len() as u64 } });
            body.extend_from_slice(content);
        }
        let mut starts = vec![0];
        let mut cuts = self.cuts.iter().cycle();
        while starts[starts.len() - 1] < body.len() {
            let end = starts[starts.len() - 1] + cuts.next().expect("endless");
            starts.push(end.min(body.len()));
        }
        Built { rows, frames: MemoryFrames { body, starts, unreadable: None } }
    }

    /// What a folder with this tree in it looks like.
    pub(super) fn seen(&self) -> Seen {
        let look = |(at, (entry, content)): (&EntryPath, &(Entry, Vec<u8>))| {
            let (first, (entry, content)) = match entry.kind {
                EntryKind::HardLink => (entry.link.clone(), &self.nodes[&path(&entry.link)]),
                _ => (at.as_bytes().to_vec(), &(entry.clone(), content.clone())),
            };
            let linked = self.nodes.values().any(|(other, _)| other.kind == EntryKind::HardLink && other.link == first);
            let thing = match entry.kind {
                EntryKind::Directory => Thing::Folder,
                EntryKind::Symlink => Thing::Symlink(entry.link.clone()),
                _ => Thing::File(content.clone()),
            };
            let mode = if entry.kind == EntryKind::Symlink { 0o777 } else { entry.mode & 0o1777 };
            (at.as_bytes().to_vec(), Sight { thing, mode, mtime: entry.mtime, same_as: linked.then_some(first) })
        };
        Seen(self.nodes.iter().map(look).collect())
    }
}

/// A revision: list and body.
#[derive(Clone)]
pub(super) struct Built {
    pub(super) rows: Vec<CatalogRow>,
    pub(super) frames: MemoryFrames,
}

impl Built {
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.rows.iter().map(|row| row.entry.clone()).collect()
    }

    pub(super) fn job<'a>(&'a self, previous: Option<&'a [Entry]>, options: &'a ExtractOptions) -> ExtractJob<'a> {
        ExtractJob {
            rows: &self.rows,
            contents: Contents::Frames(&self.frames),
            previous,
            distribution: DISTRIBUTION,
            revision: Revision::from_number(2),
            options,
            recovered: Recovery::Nothing,
        }
    }

    pub(super) fn extract_to(&self, at: &Path, previous: Option<&[Entry]>) -> Result<ExtractSummary, ExtractError> {
        self.extract_with(at, previous, &ExtractOptions { threads: 2, ..ExtractOptions::default() })
    }

    pub(super) fn extract_with(
        &self,
        at: &Path,
        previous: Option<&[Entry]>,
        options: &ExtractOptions,
    ) -> Result<ExtractSummary, ExtractError> {
        extract(&open(at), &self.job(previous, options), &|_| {}, &AtomicBool::new(false))
    }
}

/// A body in memory.
#[derive(Clone)]
pub(super) struct MemoryFrames {
    pub(super) body: Vec<u8>,
    starts: Vec<usize>,
    /// A frame that gives an error.
    pub(super) unreadable: Option<u64>,
}

impl RawFrames for MemoryFrames {
    fn body_frames(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    fn raw_range(&self, frame: u64) -> Range<u64> {
        self.starts[frame as usize] as u64..self.starts[frame as usize + 1] as u64
    }

    fn read_raw(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError> {
        if self.unreadable == Some(frame) {
            return Err(PackageError::Io { place: "body", source: io::Error::other("unreadable") });
        }
        out.clear();
        out.extend_from_slice(&self.body[self.starts[frame as usize]..self.starts[frame as usize + 1]]);
        Ok(())
    }
}

/// What is in a folder, by path; the folder itself has the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen(pub(super) BTreeMap<Vec<u8>, Sight>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) thing: Thing,
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
    /// The first of several names of one file.
    pub(super) same_as: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Thing {
    Folder,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

impl Seen {
    /// Without the root's time, which nobody can restore after a crash.
    pub(super) fn but_root_time(mut self) -> Self {
        if let Some(root) = self.0.get_mut(b"".as_slice()) {
            root.mtime = MTIME;
        }
        self
    }
}

pub(super) fn look(root: &Path) -> Seen {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut waiting = vec![(Vec::new(), root.to_owned())];
    while let Some((name, at)) = waiting.pop() {
        let facts = at.symlink_metadata().expect("it is there");
        let thing = if facts.is_dir() {
            for child in at.read_dir().expect("readable") {
                let child = child.expect("readable");
                let prefix = if name.is_empty() { Vec::new() } else { [name.as_slice(), b"/"].concat() };
                waiting.push(([&prefix, child.file_name().as_bytes()].concat(), child.path()));
            }
            Thing::Folder
        } else if facts.is_symlink() {
            Thing::Symlink(at.read_link().expect("a link").as_os_str().as_bytes().to_vec())
        } else {
            Thing::File(std::fs::read(&at).expect("readable"))
        };
        if !facts.is_dir() && facts.nlink() > 1 {
            inodes.entry(facts.ino()).or_insert_with(Vec::new).push(name.clone());
        }
        let mtime = Mtime { seconds: facts.mtime(), nanoseconds: facts.mtime_nsec() as u32 };
        let mode = facts.permissions().mode() & 0o7777;
        seen.insert(name, Sight { thing, mode, mtime, same_as: None });
    }
    for names in inodes.into_values() {
        let first = names.iter().min().expect("at least one").clone();
        for name in names {
            seen.get_mut(&name).expect("seen").same_as = Some(first.clone());
        }
    }
    Seen(seen)
}

pub(super) fn open(at: &Path) -> Target {
    Target::open(at, Create::Missing).expect("the target can be opened")
}

/// A folder of our own, with its path free of links.
pub(super) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let at = folder.path().canonicalize().expect("it exists").join("target");
    (folder, at)
}

/// A folder in memory, for tests that sync hundreds of times; a usual one where there is none in memory.
pub(super) fn scratch_in_memory() -> (tempfile::TempDir, PathBuf) {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => {
            let at = folder.path().join("target");
            (folder, at)
        }
        Err(_) => scratch(),
    }
}

pub(super) fn below(root: &Path, name: impl AsRef<[u8]>) -> PathBuf {
    root.join(OsStr::from_bytes(name.as_ref()))
}

/// Bytes that do not compress, the same every time.
pub(super) fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}
