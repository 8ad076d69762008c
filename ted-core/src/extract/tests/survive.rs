//! What survives the way through a package.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::{Built, MemoryFrames, Thing, Tree, below, look, noise, open, path, scratch};
use crate::error::Coded;
use crate::extract::{Contents, ExtractOptions, ExtractPhase, Privilege, Target, extract};
use crate::id::Hash;
use crate::package::{CatalogRow, PackageError, RawFrames};

#[test]
fn every_kind_of_entry_survives() {
    let long = [b'l'; 255];
    let deep = [[b'd'; 200].as_slice(); 15].join(&b'/');
    let tree = Tree::new()
        .dir("empty/inside")
        .file("zero", b"")
        .file("a/one", b"1")
        .file("a/noise", &noise("x", 200_000))
        .file("a-between", b"sorts between a and a/")
        .hard("b/hard", "a/one")
        .hard("b/hard2", "a/one")
        .hard("zero-hard", "zero")
        .symlink("etc", "/etc/x")
        .symlink("up", "../../..")
        .symlink("raw", b"not \xff utf8 //./")
        .hard("raw-hard", "raw")
        .file(b"name-\xff\xfe", b"not utf8")
        .file("a name with \n, \\ and *", b"odd")
        .file("caf\u{e9}", b"composed")
        .file(long, b"long")
        .file(&deep, b"deep")
        .file("open to all", b"whatever the umask")
        .mode("open to all", 0o666)
        .file("program", b"#!/bin/sh")
        .mode("program", 0o777)
        .file("secret", b"0")
        .mode("secret", 0o400)
        .dir("sticky")
        .mode("sticky", 0o1777)
        .mode("", 0o750);
    for cuts in [&[1usize << 20][..], &[1], &[511, 1, 77_777], &[64 * 1024]] {
        // One byte a frame is too slow for the large file, and needs none.
        let tree = if cuts == [1] { Tree::new().file("a", b"abc").hard("b", "a") } else { tree.clone() }.cuts(cuts);
        let (_folder, at) = scratch();
        let built = tree.build();
        let summary = built.extract_to(&at, None).expect("nothing wrong with it");
        assert_eq!(look(&at), tree.seen(), "cuts {cuts:?}");
        assert_eq!(summary.files_written + summary.links_made + summary.folders_made + 1, built.rows.len() as u64);
    }
}

#[test]
fn read_only_folders_are_filled_and_updated() {
    let tree = Tree::new().file("ro/deep/file", b"old").mode("ro", 0o555).mode("ro/deep", 0o555).mode("", 0o555);
    let (_folder, at) = scratch();
    let old = tree.build();
    old.extract_to(&at, None).expect("fresh");
    assert_eq!(look(&at), tree.seen());
    let changed = tree.clone().file("ro/deep/file", b"new!").file("ro/more/x", b"x");
    changed.build().extract_to(&at, Some(&old.entries())).expect("update");
    assert_eq!(look(&at), changed.seen());
    // So that the folder can be removed by a user who is not root.
    for name in ["", "ro", "ro/deep"] {
        let mut rights = at.join(name).metadata().expect("there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o755);
        std::fs::set_permissions(at.join(name), rights).expect("ours");
    }
}

#[test]
fn setuid_and_setgid_are_dropped_unless_the_distribution_is_privileged() {
    let tree = Tree::new().file("suid", b"x").mode("suid", 0o6755).dir("sgid").mode("sgid", 0o2755);
    let (_folder, at) = scratch();
    tree.build().extract_to(&at, None).expect("fresh");
    assert_eq!(look(&at), tree.seen(), "expected without the bits");
    let options = ExtractOptions { privilege: Privilege::KeepSetuid, ..ExtractOptions::default() };
    tree.build().extract_with(&at, None, &options).expect("again");
    assert_eq!(at.join("suid").metadata().expect("there").mode() & 0o7777, 0o6755);
    assert_eq!(at.join("sgid").metadata().expect("there").mode() & 0o7777, 0o2755);
}

#[test]
fn many_files_in_many_folders_survive_with_few_folders_open() {
    let mut tree = Tree::new().cuts(&[9000]);
    for number in 0..600 {
        tree = tree.file(format!("{}/{}/{number}", number % 7, number % 150), &noise(&number.to_string(), number));
    }
    let (_folder, at) = scratch();
    let mut options = ExtractOptions { threads: 3, ..ExtractOptions::default() };
    options.limits.open_folders_max = 4;
    tree.build().extract_with(&at, None, &options).expect("fresh");
    assert_eq!(look(&at), tree.seen());
}

/// 1 GiB of zeros with a few bytes here and there.
struct Sparse {
    islands: Vec<u64>,
}

const GIB: u64 = 1 << 30;
const FRAME: u64 = 4 << 20;

impl RawFrames for Sparse {
    fn body_frames(&self) -> u64 {
        GIB.div_ceil(FRAME) + 1
    }

    fn raw_range(&self, frame: u64) -> Range<u64> {
        frame * FRAME..(frame + 1) * FRAME
    }

    fn read_raw(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError> {
        *out = vec![0; FRAME as usize];
        for island in self.islands.iter().filter(|&island| island / FRAME == frame) {
            out[(island % FRAME) as usize] = 1;
        }
        Ok(())
    }
}

#[test]
fn a_sparse_file_of_1_gib_stays_sparse() {
    let frames = Sparse { islands: vec![5, 300 * 1024 * 1024, GIB - 1] };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    for frame in 0..GIB / FRAME {
        frames.read_raw(frame, &mut buffer).expect("never fails");
        hasher.update(&buffer);
    }
    let mut rows: Vec<CatalogRow> = Tree::new().file("sparse", b"x").build().rows;
    rows[1].offset = 0;
    rows[1].entry.size = GIB;
    rows[1].entry.content = Hash::from(hasher.finalize());
    let (_folder, at) = scratch();
    let options = ExtractOptions { threads: 2, ..ExtractOptions::default() };
    let built = Built { rows, frames: Tree::new().build().frames };
    let mut job = built.job(None, &options);
    job.contents = Contents::Frames(&frames);
    extract(&open(&at), &job, &|_| {}, &AtomicBool::new(false)).expect("it fits");
    let facts = at.join("sparse").metadata().expect("there");
    assert_eq!(facts.len(), GIB);
    assert!(facts.blocks() * 512 <= 1024 * 1024, "{} blocks", facts.blocks());
    let mut byte = [0];
    let file = std::fs::File::open(at.join("sparse")).expect("there");
    for island in &frames.islands {
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, *island).expect("inside");
        assert_eq!(byte, [1]);
    }
}

#[test]
fn holes_at_any_place_are_zeros_again() {
    let block = 64 * 1024;
    let mut content = noise("holes", 6 * block + 100);
    for hole in [0..block, 2 * block..4 * block, 6 * block..6 * block + 100] {
        content[hole].fill(0);
    }
    let tree = Tree::new().file("a", &content).file("b", &vec![0; 3 * block]).file("c", &[0; 100]);
    for cuts in [&[1usize << 20][..], &[100_001], &[block]] {
        let (_folder, at) = scratch();
        tree.clone().cuts(cuts).build().extract_to(&at, None).expect("fresh");
        assert_eq!(look(&at), tree.seen());
        assert_eq!(at.join("b").metadata().expect("there").blocks(), 0);
    }
}

#[test]
fn progress_ends_where_it_said_it_would() {
    let tree = Tree::new().file("a", &noise("a", 10_000)).file("b", b"").symlink("c", "a").hard("d", "a");
    let (_folder, at) = scratch();
    let seen = Mutex::new(Vec::new());
    let options = ExtractOptions::default();
    let built = tree.build();
    extract(
        &open(&at),
        &built.job(None, &options),
        &|now| seen.lock().expect("mine").push(now),
        &AtomicBool::new(false),
    )
    .expect("fresh");
    let seen = seen.into_inner().expect("mine");
    for phase in [ExtractPhase::Staging, ExtractPhase::Applying] {
        let last = seen.iter().rfind(|progress| progress.phase == phase).expect("at least one of each");
        assert_eq!((last.bytes, last.entries), (last.bytes_total, last.entries_total));
    }
}

#[test]
fn content_that_is_not_what_the_list_says_changes_nothing() {
    let old = Tree::new().file("a", b"old").file("big", &noise("old", 100_000));
    let new = Tree::new().file("a", b"new").file("big", &noise("new", 100_000)).file("c", b"c");
    for (victim, offset) in [("a", 1), ("big", 77_777)] {
        let (_folder, at) = scratch();
        let before = old.build();
        before.extract_to(&at, None).expect("fresh");
        let mut built = new.build();
        let row = built.rows.iter().find(|row| row.entry.path == path(victim)).expect("listed");
        let place = row.offset as usize + offset;
        built.frames.body[place] ^= 1;
        let error = built.extract_to(&at, Some(&before.entries())).expect_err("altered");
        assert_eq!(error.code(), "TED-1409", "{error}");
        assert!(error.to_string().contains(victim));
        assert_eq!(look(&at), old.seen());
    }
}

#[test]
fn a_package_that_cannot_be_read_changes_nothing() {
    let (_folder, at) = scratch();
    let mut built = Tree::new().file("a", &noise("a", 10_000)).build();
    built.frames.unreadable = Some(2);
    let error = built.extract_to(&at, None).expect_err("unreadable");
    assert!(error.code().starts_with("TED-10"), "{error}");
    assert!(!at.exists(), "a target that was made for nothing is taken away again");
}

/// Frames that leave out a stretch of the body, although they end where it ends.
struct Gap<'a>(&'a MemoryFrames, Range<u64>);

impl RawFrames for Gap<'_> {
    fn body_frames(&self) -> u64 {
        2
    }

    fn raw_range(&self, frame: u64) -> Range<u64> {
        if frame == 0 { 0..self.1.start } else { self.1.end..self.0.body.len() as u64 }
    }

    fn read_raw(&self, frame: u64, out: &mut Vec<u8>) -> Result<(), PackageError> {
        let range = self.raw_range(frame);
        *out = self.0.body[range.start as usize..range.end as usize].to_vec();
        Ok(())
    }
}

#[test]
fn frames_that_leave_out_some_of_a_file_or_all_of_it_change_nothing() {
    let built = Tree::new().file("a", &[b'a'; 1000]).file("b", &[b'b'; 1000]).file("c", b"c").build();
    for gap in [1100..1200, 1024..2024, 900..2100, 2000..2600] {
        let (_folder, at) = scratch();
        let options = ExtractOptions { threads: 1, ..ExtractOptions::default() };
        let frames = Gap(&built.frames, gap.clone());
        let mut job = built.job(None, &options);
        job.contents = Contents::Frames(&frames);
        let error = extract(&open(&at), &job, &|_| {}, &AtomicBool::new(false)).expect_err("a gap");
        assert_eq!(error.code(), "TED-1409", "{gap:?}: {error}");
        assert!(!at.exists());
    }
}

#[test]
fn a_cancelled_extraction_changes_nothing() {
    let (_folder, at) = scratch();
    let built = Tree::new().file("a/b", b"a").build();
    let options = ExtractOptions::default();
    let error =
        extract(&open(&at), &built.job(None, &options), &|_| {}, &AtomicBool::new(true)).expect_err("cancelled");
    assert_eq!(error.code(), "TED-1418");
    assert!(error.is_retryable());
    assert!(!at.exists());
}

#[test]
fn targets_are_made_with_the_folders_above_them() {
    let (_folder, at) = scratch();
    let deep = at.join("x/y");
    let tree = Tree::new().file("a", b"a");
    tree.build().extract_to(&deep, None).expect("fresh");
    assert_eq!(look(&deep), tree.seen());
    let missing = Target::open(&at.join("z"), crate::extract::Create::Never).expect_err("not there");
    assert_eq!(missing.code(), "TED-1404");
    assert!(!matches!(look(&deep).0[b"a".as_slice()].thing, Thing::Folder));
    assert!(!below(&at, "z").exists());
}
