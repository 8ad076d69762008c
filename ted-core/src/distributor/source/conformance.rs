//! What holds for every source, and the one tree that all of them are made of to show it.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::archive::write::{Raw, Tar, raw};
use super::{FolderSource, Part, Selection, SourceTree, TarOptions, TarSource, Unreadable};
use crate::error::Coded;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::model::Kept;
use crate::package::{Asked, Entry, EntryKind, EntryPath, Mtime, Source, judge_entries};

const MTIME: Mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 123_456_789 };

/// One entry of the tree, and its content.
pub(super) struct Sample {
    pub(super) entry: Entry,
    pub(super) content: Vec<u8>,
}

impl Sample {
    fn again(&self) -> Self {
        Self { entry: self.entry.clone(), content: self.content.clone() }
    }
}

fn sample(path: &str, kind: EntryKind, mode: u32, text: &[u8]) -> Sample {
    let process = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_file = kind == EntryKind::File;
    let entry = Entry {
        path: EntryPath::from_bytes(path.as_bytes()).expect("valid"),
        kind,
        mode,
        uid: process.0,
        gid: process.1,
        mtime: MTIME,
        size: if is_file { text.len() as u64 } else { 0 },
        link: if is_file { Vec::new() } else { text.to_vec() },
        content: Entry::NO_CONTENT,
        extensions: Vec::new(),
    };
    Sample { entry, content: if is_file { text.to_vec() } else { Vec::new() } }
}

/// A tree with every kind of entry, names that sort oddly, and files of all sizes that matter.
pub(super) fn samples() -> Vec<Sample> {
    use EntryKind::{Directory, File, HardLink, Symlink};
    let long = "d".repeat(120);
    let noise: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut samples = vec![
        sample("", Directory, 0o755, b""),
        sample("a", Directory, 0o700, b""),
        sample("a-b", File, 0o644, b"between a and what lies in it"),
        sample("a/empty", File, 0o600, b""),
        sample("a/executable", File, 0o755, b"#!/bin/sh\n"),
        sample("a/nothing", Directory, 0o755, b""),
        sample("block", File, 0o644, &[7; 512]),
        sample("large", File, 0o644, &noise),
        sample("large.again", HardLink, 0o644, b"large"),
        sample("link", Symlink, 0o777, b"a/executable"),
        sample("link-out", Symlink, 0o777, b"/nowhere/../at all"),
        sample(&long, Directory, 0o755, b""),
        sample(&format!("{long}/{long}"), File, 0o644, b"a long way down"),
        sample("\u{e4}\u{f6}\u{fc}", File, 0o444, b"no ASCII"),
    ];
    samples.sort_by(|left, right| left.entry.path.cmp(&right.entry.path));
    samples
}

/// The entries of the tree, with `prefix` before every path.
fn expected(samples: &[Sample]) -> Vec<Entry> {
    samples.iter().map(|sample| sample.entry.clone()).collect()
}

/// Writes the tree below `root`, which is there.
pub(super) fn write(root: &Path, samples: &[Sample]) {
    for Sample { entry, content } in samples {
        let place = root.join(super::path_of(&entry.path));
        let text = std::str::from_utf8(&entry.link).expect("text");
        match entry.kind {
            EntryKind::Directory if entry.path.is_root() => {}
            EntryKind::Directory => fs::create_dir(&place).expect("made"),
            EntryKind::File => fs::write(&place, content).expect("written"),
            EntryKind::Symlink => std::os::unix::fs::symlink(text, &place).expect("made"),
            EntryKind::HardLink => fs::hard_link(root.join(text), &place).expect("made"),
        }
    }
    for Sample { entry, .. } in samples.iter().rev() {
        let place = root.join(super::path_of(&entry.path));
        if entry.kind != EntryKind::Symlink {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(entry.mode);
            fs::set_permissions(&place, mode).expect("set");
        }
        let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, &place, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set");
    }
}

fn list(source: &dyn Source) -> Vec<Entry> {
    source.entries(&mut |skipped| panic!("{}: {}", skipped.path, skipped.reason)).expect("it can be listed")
}

fn read(source: &dyn Source, entry: &Entry, offset: u64) -> Vec<u8> {
    let mut file = source.open(entry, offset).expect("it can be opened");
    let mut content = vec![0; (entry.size - offset) as usize];
    file.read_exact(&mut content).expect("it is long enough");
    file.finish().expect("it did not change");
    content
}

/// What every source of the tree `samples` keeps to.
pub(super) fn conforms(source: &dyn Source, samples: &[Sample]) {
    let entries = list(source);
    assert_eq!(entries, expected(samples), "the entries in path order, hard links resolved, without content");
    judge_entries(&entries, &Limits::DEFAULT).expect("no Subscriber refuses them");
    assert_eq!(list(source), entries, "the same again");

    let files: Vec<&Sample> = samples.iter().filter(|sample| sample.entry.kind == EntryKind::File).collect();
    for Sample { entry, content } in &files {
        for offset in [0, 1, entry.size / 2, entry.size] {
            let offset = offset.min(entry.size);
            assert_eq!(read(source, entry, offset), content[offset as usize..], "{} from {offset}", entry.path);
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(sample) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    assert_eq!(read(source, &sample.entry, 0), sample.content, "{}, many at once", sample.entry.path);
                }
            });
        }
    });
    let unknown = Entry { path: EntryPath::from_bytes(b"never listed").expect("valid"), ..files[0].entry.clone() };
    let error = source.open(&unknown, 0).map(|_| ()).expect_err("it is not there");
    assert_eq!(error.code(), "TED-1703", "what is not there was taken away meanwhile: {error}");
}

#[test]
fn a_folder_conforms() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let samples = samples();
    write(folder.path(), &samples);
    conforms(&FolderSource::new(folder.path().to_owned(), Selection::default(), Unreadable::Refuse), &samples);
}

fn part(prefix: &str, root: &Path) -> Part {
    let source = FolderSource::new(root.to_owned(), Selection::default(), Unreadable::Refuse);
    let prefix = EntryPath::from_bytes(prefix.as_bytes()).expect("valid");
    Part { prefix, name: root.display().to_string(), source: Box::new(source) }
}

/// `samples` below `prefix`, and the folders on the way to there.
fn below(prefix: &str, samples: Vec<Sample>) -> Vec<Sample> {
    let path = |path: &str| if path.is_empty() { prefix.to_owned() } else { format!("{prefix}/{path}") };
    let root = samples[0].entry.clone();
    let mut all: Vec<Sample> = samples
        .into_iter()
        .map(|mut sample| {
            let old = String::from_utf8(sample.entry.path.as_bytes().to_vec()).expect("text");
            sample.entry.path = EntryPath::from_bytes(path(&old).as_bytes()).expect("valid");
            if sample.entry.kind == EntryKind::HardLink {
                sample.entry.link = path(std::str::from_utf8(&sample.entry.link).expect("text")).into_bytes();
            }
            sample
        })
        .collect();
    let prefix = EntryPath::from_bytes(prefix.as_bytes()).expect("valid");
    for way in std::iter::successors(prefix.parent(), EntryPath::parent) {
        all.push(Sample { entry: Entry { path: way, ..root.clone() }, content: Vec::new() });
    }
    all.sort_by(|left, right| left.entry.path.cmp(&right.entry.path));
    all
}

#[test]
fn folders_with_prefixes_conform() {
    let (one, two) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    write(one.path(), &samples());
    let few = || vec![sample("", EntryKind::Directory, 0o750, b""), sample("file", EntryKind::File, 0o644, b"two")];
    write(two.path(), &few());

    conforms(&SourceTree::new(vec![part("", one.path())]), &samples());
    conforms(&SourceTree::new(vec![part("usr/share", one.path())]), &below("usr/share", samples()));
    // Two below prefixes, one of which lies in a folder that the other has.
    let mut both = samples();
    both.extend(below("a/inner", few()).into_iter().filter(|it| it.entry.path.as_bytes().starts_with(b"a/inner")));
    both.sort_by(|left, right| left.entry.path.cmp(&right.entry.path));
    conforms(&SourceTree::new(vec![part("a/inner", two.path()), part("", one.path())]), &both);
}

#[test]
fn what_several_folders_ask_of_whoever_extracts_the_root_of_the_whole_says() {
    let (one, two) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    for folder in [&one, &two] {
        fs::write(folder.path().join("file"), "content").expect("written");
    }
    let part = |prefix: &str, folder: &Path, keep: Kept| {
        let source = FolderSource::new(folder.to_owned(), Selection::default(), Unreadable::Refuse).keeping(keep);
        let prefix = EntryPath::from_bytes(prefix.as_bytes()).expect("valid");
        Part { prefix, name: folder.display().to_string(), source: Box::new(source) }
    };
    let all = Kept { ownership: true, privileged: true, ..Kept::default() };
    let alone = Asked::of(&list(&SourceTree::new(vec![part("", one.path(), all)])));
    assert!(alone.privileged && alone.owners.is_some());
    for parts in [
        vec![part("usr/share", one.path(), all)],
        vec![part("", one.path(), all), part("b", two.path(), all)],
        vec![part("", one.path(), Kept::default()), part("b", two.path(), all)],
    ] {
        let entries = list(&SourceTree::new(parts));
        judge_entries(&entries, &Limits::DEFAULT).expect("what anybody takes");
        assert_eq!(Asked::of(&entries), alone);
    }
}

#[test]
fn what_two_sources_have_at_one_place_is_named_with_both() {
    let (one, two) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    fs::create_dir(one.path().join("shared")).expect("made");
    fs::write(one.path().join("shared/file"), "one").expect("written");
    fs::write(two.path().join("file"), "two").expect("written");
    let error = |tree: SourceTree| tree.entries(&mut |_| {}).expect_err("they overlap");
    let overlap = error(SourceTree::new(vec![part("", one.path()), part("shared", two.path())]));
    assert_eq!(overlap.code(), "TED-1706");
    for named in ["shared/file", &one.path().display().to_string(), &two.path().display().to_string()] {
        assert!(overlap.to_string().contains(named), "{overlap}");
    }
    let in_the_way = error(SourceTree::new(vec![part("", two.path()), part("file/deeper", one.path())]));
    assert_eq!(in_the_way.code(), "TED-1706", "{in_the_way}");
}

#[test]
fn a_file_below_a_prefix_is_named_whole_when_it_changes_or_cannot_be_distributed() {
    let folder = tempfile::tempdir().expect("temporary");
    fs::write(folder.path().join("file"), "content").expect("written");
    let tree = SourceTree::new(vec![part("usr/share", folder.path())]);
    let entries = list(&tree);
    let file = entries.last().expect("the file");
    fs::write(folder.path().join("file"), "other content").expect("written");
    let error = tree.open(file, 0).map(|_| ()).expect_err("it changed");
    assert!(error.to_string().contains("usr/share/file"), "{error}");
    let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("bound");
    let error = tree.entries(&mut |_| {}).expect_err("a socket");
    assert!(error.to_string().contains("usr/share/socket"), "{error}");
    drop(socket);
}

/// A tar source of the archive that lies at `file`.
fn tar_source(file: &Path, spool: &Path) -> TarSource {
    TarSource::new(TarOptions {
        file: file.to_owned(),
        place: file.display().to_string(),
        spool: spool.to_owned(),
        selection: Selection::default(),
        unreadable: Unreadable::Refuse,
        limits: Limits::DEFAULT,
        progress: Arc::new(|_, _, _| {}),
        known: Arc::default(),
        selected: String::new(),
        now: UnixMillis::from_millis(0),
    })
}

/// The tree as a tar file, with extended headers for what ustar cannot say.
pub(super) fn archive(samples: &[Sample]) -> Vec<u8> {
    let mut tar = Tar::default();
    // The file that others link to has to come first there as well; anything else comes in no order.
    let (links, others): (Vec<_>, Vec<_>) =
        samples.iter().rev().partition(|sample| sample.entry.kind == EntryKind::HardLink);
    for Sample { entry, content } in others.into_iter().chain(links) {
        let path = if entry.path.is_root() { b"./".to_vec() } else { entry.path.as_bytes().to_vec() };
        let time = format!("{}.{:09}", entry.mtime.seconds, entry.mtime.nanoseconds);
        let mut records: Vec<(&str, &[u8])> = vec![("mtime", time.as_bytes())];
        let name = if path.len() > 100 || !path.is_ascii() {
            records.push(("path", &path));
            b"shortened".to_vec()
        } else {
            path.clone()
        };
        let kind = match entry.kind {
            EntryKind::Directory => b'5',
            EntryKind::File => b'0',
            EntryKind::Symlink => b'2',
            EntryKind::HardLink => b'1',
        };
        let header = Raw { mode: entry.mode, owner: (entry.uid, entry.gid), ..raw(name, kind) };
        tar = tar.pax(b'x', &records).raw(&header.link(&entry.link).size(entry.size), content);
    }
    tar.end()
}

#[test]
fn tar_files_conform_however_they_are_compressed() {
    let samples = samples();
    let plain = archive(&samples);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let zstd = zstd::stream::encode_all(plain.as_slice(), 1).expect("memory");
    for bytes in [plain, gzip, zstd] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("archive");
        fs::write(&file, bytes).expect("written");
        conforms(&tar_source(&file, &folder.path().join("spool")), &samples);
        let prefix = EntryPath::from_bytes(b"usr/share").expect("valid");
        let source = Box::new(tar_source(&file, &folder.path().join("spool")));
        let tree = SourceTree::new(vec![Part { prefix, name: "archive".to_owned(), source }]);
        conforms(&tree, &below("usr/share", samples.iter().map(Sample::again).collect()));
    }
}

#[test]
fn what_gnu_tar_writes_of_a_folder_is_that_folder() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("made");
    write(&tree, &samples());
    for (format, compress) in [("posix", None), ("gnu", None), ("posix", Some("--gzip"))] {
        let file = folder.path().join("archive");
        let mut tar = std::process::Command::new("tar");
        tar.args(["--create", "--format", format, "--file"]).arg(&file).arg("--directory").arg(&tree);
        let made = tar.args(compress).arg(".").status();
        // Where there is no tar, the archives that are made here say the same.
        let Ok(made) = made else { return };
        assert!(made.success());
        let mut expected = samples();
        if format == "gnu" {
            expected.iter_mut().for_each(|sample| sample.entry.mtime.nanoseconds = 0);
        }
        conforms(&tar_source(&file, &folder.path().join("spool")), &expected);
    }
}
