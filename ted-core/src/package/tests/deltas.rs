use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::delta::*;
use super::*;
use proptest::prelude::*;

/// Large files of the tests are cut into segments of this many bytes.
const SEGMENT: usize = SMALL_FRAMES as usize;

/// A tree with a baseline of it.
struct Built {
    bytes: Vec<u8>,
    index: PackageIndex,
    contents: BTreeMap<EntryPath, Vec<u8>>,
}

impl Built {
    fn of(tree: &Tree) -> Self {
        let (bytes, built) = tree.build(&options(SMALL_FRAMES));
        Self { bytes, index: built.index, contents: tree.contents.clone() }
    }

    fn revision<'a>(&'a self, number: u64, files: &'a dyn Files) -> RevisionContent<'a, CatalogRow> {
        RevisionContent { number: Revision::from_number(number), entries: self.index.catalog(), files }
    }
}

fn build(old: &Built, new: &Built, options: &BuildOptions) -> (Vec<u8>, DeltaIndex) {
    let mut bytes = Vec::new();
    let [old_files, new_files] = [old, new].map(|built| PackageFiles::new(built.index.clone(), &built.bytes));
    let (old, new) = (old.revision(6, &old_files), new.revision(7, &new_files));
    let built = build_delta(&old, &new, options, &FixtureSigner, &mut bytes, &|_| {}).expect("builds");
    assert_eq!(built.index.bytes(), bytes.len() as u64);
    (bytes, built.index)
}

fn read_delta(source: &dyn ReadAt) -> Result<DeltaIndex, PackageError> {
    read_delta_index(source, &Limits::DEFAULT, |root: &Root, root_bytes: &[u8], signature: &Signature| {
        judge_fixture(root_bytes, signature)?;
        Ok::<_, PackageError>(match root.suite {
            Suite::None => Opening::Unsealed,
            Suite::Aes256Gcm { salt, .. } => Opening::With(secret().content_key(&salt)),
        })
    })
}

/// Entries and contents.
type Made = (Vec<Entry>, BTreeMap<EntryPath, Vec<u8>>);

/// What a receiver makes of `old` and the delta.
fn apply(old: &Built, bytes: &dyn ReadAt) -> Result<Made, DeltaError> {
    let index = read_delta(bytes)?;
    let files = PackageFiles::new(old.index.clone(), &old.bytes);
    apply_with(old, &index, bytes, &files)
}

fn apply_with(old: &Built, index: &DeltaIndex, bytes: &dyn ReadAt, files: &dyn Files) -> Result<Made, DeltaError> {
    let resolved = index.resolve(old.index.catalog(), &Limits::DEFAULT)?;
    let mut applier = Applier::new(index, &resolved, bytes, (old.index.catalog(), files));
    let mut contents = BTreeMap::new();
    for content in &resolved.contents {
        let mut out = Vec::new();
        applier.write(content, &mut out)?;
        contents.insert(resolved.entries[content.entry].path.clone(), out);
    }
    for entry in resolved.entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        if !contents.contains_key(&entry.path) {
            contents.insert(entry.path.clone(), old.contents.get(&entry.path).cloned().unwrap_or_default());
        }
    }
    Ok((resolved.entries, contents))
}

/// Builds both deltas between the trees and applies them; gives the length of the unsealed one.
fn check(old: &Tree, new: &Tree) -> u64 {
    let (old, new) = (Built::of(old), Built::of(new));
    let entries: Vec<Entry> = new.index.catalog().iter().map(|row| row.entry.clone()).collect();
    let [plain, _] = [options(SMALL_FRAMES), sealed(SMALL_FRAMES)].map(|options| {
        let (bytes, built) = build(&old, &new, &options);
        assert_eq!(read_delta(&bytes).expect("good").root(), built.root());
        let (made, contents) = apply(&old, &bytes).expect("applies");
        assert_eq!(made, entries);
        assert!(contents == new.contents, "contents differ");
        bytes.len() as u64
    });
    plain
}

/// Bytes of a delta around what it carries: root, signature, tail, table, catalog.
const AROUND_BYTES: u64 = 2000;

#[test]
fn moved_renamed_and_touched_files_cost_no_content() {
    let (mut old, mut new) = (Tree::new(), Tree::new());
    old.dir("a").file("a/x", noise(1, 200_000)).file("b", noise(2, 3000)).file("same", noise(3, 9000));
    new.dir("c").file("c/x", noise(1, 200_000)).file("bb", noise(2, 3000)).file("same", noise(3, 9000));
    new.entries.get_mut(&EntryPath::from_bytes(b"same").expect("valid")).expect("there").mtime.seconds += 1;
    assert!(check(&old, &new) < AROUND_BYTES);
}

#[test]
fn kinds_links_and_empty_files_change_into_each_other() {
    let (mut old, mut new) = (Tree::new(), Tree::new());
    old.dir("d").file("d/f", vec![1; 10]).file("e", Vec::new()).file("f", vec![2; 10]);
    old.link("s", EntryKind::Symlink, "x").file("t", vec![3; 5]).file("g", vec![9; 5]);
    new.file("d", vec![1; 10]).file("e", vec![4; 7]).file("f", Vec::new()).dir("s").file("s/n", Vec::new());
    new.link("t", EntryKind::Symlink, "d").link("u", EntryKind::HardLink, "d").link("g", EntryKind::HardLink, "e");
    check(&old, &new);
    check(&new, &old);
}

#[test]
fn an_insertion_at_the_front_of_a_large_file_costs_what_was_inserted() {
    let content = noise(1, 40 * SEGMENT + 77);
    for inserted in [1, SEGMENT / 2, 7 * SEGMENT + 123] {
        let (mut old, mut new) = (Tree::new(), Tree::new());
        old.file("large", content.clone());
        new.file("large", [noise(2, inserted), content.clone()].concat());
        let bytes = check(&old, &new);
        let most = inserted as u64 + SEGMENT as u64 / 32 + AROUND_BYTES;
        assert!(bytes < most, "{inserted} inserted bytes cost {bytes}");
        // And taking it away again costs nothing.
        assert!(check(&new, &old) < AROUND_BYTES);
    }
}

#[test]
fn a_large_file_with_small_changes_everywhere_costs_about_these() {
    let content = noise(1, 20 * SEGMENT);
    let mut changed = content.clone();
    (0..changed.len()).step_by(5000).for_each(|at| changed[at] ^= 1);
    let (mut old, mut new) = (Tree::new(), Tree::new());
    old.file("large", content);
    new.file("large", changed);
    let bytes = check(&old, &new);
    assert!(bytes < 20_000, "262 changed bytes cost {bytes}");
}

#[test]
fn many_small_changed_files_share_frames() {
    let (mut old, mut new) = (Tree::new(), Tree::new());
    for number in 0..200 {
        let content = noise(number, 300);
        old.file(&format!("{number}"), content.clone());
        new.file(&format!("{number}"), [b"changed", &content[..]].concat());
    }
    let [built_old, built_new] = [&old, &new].map(Built::of);
    assert_eq!(build(&built_old, &built_new, &options(SMALL_FRAMES)).1.body_frames(), 1);
    assert!(check(&old, &new) < 200 * 64 + AROUND_BYTES, "a hash each, and little more");
}

#[test]
fn nothing_is_said_of_nothing() {
    let mut tree = Tree::new();
    tree.file("a", noise(1, 100));
    let built = Built::of(&tree);
    assert_eq!(build(&built, &built, &options(SMALL_FRAMES)).1.body_frames(), 0);
    check(&tree, &tree);
    check(&Tree::new(), &tree);
    check(&tree, &Tree::new());
}

#[test]
fn a_delta_does_not_depend_on_threads() {
    let (mut old, mut new) = (Tree::new(), Tree::new());
    old.file("large", noise(1, 9 * SEGMENT)).file("b", noise(3, 5000));
    new.file("large", [noise(2, 70_000), noise(1, 9 * SEGMENT)].concat()).file("c", noise(4, 5000));
    let (old, new) = (Built::of(&old), Built::of(&new));
    let made = [1, 2].map(|threads| build(&old, &new, &BuildOptions { threads, ..options(SMALL_FRAMES) }).0);
    assert!(made[0] == made[1]);
}

#[test]
fn what_is_read_at_once_is_bounded_whatever_the_files_length() {
    /// Notes the longest read.
    struct Measured<'a>(PackageFiles<'a>, AtomicUsize);
    impl Files for Measured<'_> {
        fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.1.fetch_max(buf.len(), Ordering::Relaxed);
            self.0.read_at(file, offset, buf)
        }
    }
    let (mut old, mut new) = (Tree::new(), Tree::new());
    let content = noise(1, 30 * SEGMENT);
    old.file("large", content.clone());
    new.file("large", [noise(2, 5 * SEGMENT + 9), content].concat());
    let (old, new) = (Built::of(&old), Built::of(&new));
    let measured =
        [&old, &new].map(|built| Measured(PackageFiles::new(built.index.clone(), &built.bytes), AtomicUsize::new(0)));
    let mut bytes = Vec::new();
    let (from, to) = (old.revision(6, &measured[0]), new.revision(7, &measured[1]));
    let built = build_delta(&from, &to, &options(SMALL_FRAMES), &FixtureSigner, &mut bytes, &|_| {}).expect("builds");
    let longest = measured.each_ref().map(|files| files.1.swap(0, Ordering::Relaxed));
    assert!(longest[0] <= 3 * SEGMENT && longest[1] <= SEGMENT + 64, "{longest:?} bytes were read at once");
    assert!(
        built.index.rows().iter().all(|row| row.raw_bytes as usize <= SEGMENT),
        "no frame is longer than a segment"
    );
    let (_, contents) = apply_with(&old, &built.index, &bytes, &measured[0]).expect("applies");
    assert!(contents == new.contents);
    assert!(measured[0].1.load(Ordering::Relaxed) <= 256 * 1024 + 3 * SEGMENT);
}

#[test]
fn another_or_a_damaged_base_is_noticed() {
    let (mut old, mut new) = (Tree::new(), Tree::new());
    old.file("a", noise(1, 5000)).file("m", noise(2, 5000));
    new.file("a", [noise(1, 5000), vec![1]].concat()).file("n", noise(2, 5000));
    let [built_old, built_new] = [&old, &new].map(Built::of);
    let (bytes, index) = build(&built_old, &built_new, &options(SMALL_FRAMES));
    assert!(matches!(apply(&built_new, &bytes), Err(DeltaError::OtherBase)));

    struct Damaged<'a>(PackageFiles<'a>, &'static str);
    impl Files for Damaged<'_> {
        fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(file, offset, buf)?;
            // Entry 0 is the root folder.
            if (file == 1) == (self.1 == "a") {
                buf[2500] ^= 1;
            }
            Ok(())
        }
    }
    for which in ["a", "m"] {
        let files = Damaged(PackageFiles::new(built_old.index.clone(), &built_old.bytes), which);
        let error = apply_with(&built_old, &index, &bytes, &files).expect_err("noticed");
        assert!(matches!(error, DeltaError::Content { .. }), "{error}");
    }
}

#[test]
fn readers_of_baselines_refuse_deltas_and_the_other_way_round() {
    let mut tree = Tree::new();
    tree.file("a", noise(1, 100));
    let built = Built::of(&tree);
    let (bytes, _) = build(&built, &built, &options(SMALL_FRAMES));
    assert!(matches!(read(&bytes), Err(PackageError::Unsupported { .. })));
    assert!(matches!(read_delta(&built.bytes), Err(PackageError::Unsupported { .. })));
}

#[test]
fn every_byte_of_a_delta_counts() {
    let (mut old, mut new) = (Tree::new(), Tree::new());
    old.file("a", noise(1, 700)).file("b", noise(2, 300));
    new.file("a", [noise(1, 700), noise(3, 20)].concat()).file("c", noise(2, 300));
    let (old, new) = (Built::of(&old), Built::of(&new));
    for options in [options(SMALL_FRAMES), sealed(SMALL_FRAMES)] {
        let (mut bytes, _) = build(&old, &new, &options);
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert!(apply(&old, &bytes).is_err(), "byte {at}");
            bytes[at] ^= 0x10;
        }
    }
}

#[derive(Debug, Clone)]
struct Change {
    file: usize,
    what: u8,
    at: usize,
    bytes: usize,
    seed: u64,
}

/// A tree of a few files, some of them of many segments, to which some things have happened, and more happen then.
fn arbitrary_pair() -> impl Strategy<Value = (Tree, Tree)> {
    let sizes = proptest::collection::vec(prop_oneof![Just(0), 1_usize..5000, 1..6 * SEGMENT], 1..8);
    let change = || {
        (any::<usize>(), 0..14_u8, any::<usize>(), 0..2 * SEGMENT, any::<u64>())
            .prop_map(|(file, what, at, bytes, seed)| Change { file, what, at, bytes, seed })
    };
    let before = proptest::collection::vec(change(), 0..4);
    let after = proptest::collection::vec(change(), 0..8);
    (sizes, before, after).prop_map(|(sizes, before, after)| {
        let mut old = Tree::new();
        old.dir("d");
        for (number, &size) in sizes.iter().enumerate() {
            let folder = if number % 2 == 0 { "d/" } else { "" };
            old.file(&format!("{folder}{number}"), noise(number as u64, size));
        }
        before.iter().for_each(|change| make(&mut old, change));
        let mut new = old.clone();
        after.iter().for_each(|change| make(&mut new, change));
        (old, new)
    })
}

fn make(tree: &mut Tree, change: &Change) {
    let paths: Vec<String> = tree.contents.keys().map(ToString::to_string).collect();
    let Some(path) = paths.get(change.file % paths.len().max(1)) else { return };
    let key = EntryPath::from_bytes(path.as_bytes()).expect("valid");
    let mut content = tree.contents[&key].clone();
    let at = change.at % (content.len() + 1);
    let end = content.len().min(at + change.bytes);
    match change.what {
        0 => drop(content.splice(at..at, noise(change.seed, change.bytes))),
        1 => drop(content.splice(0..0, noise(change.seed, change.bytes))),
        2 => drop(content.drain(at..end)),
        3 => content[at..end].reverse(),
        4 => content.rotate_left(at),
        5 => content.clear(),
        6..9 => return change_attribute(tree.entries.get_mut(&key).expect("there"), change),
        9 => {
            // Behind everything that it may name.
            tree.link(&format!("z{}", change.seed % 3), EntryKind::HardLink, path);
            return;
        }
        _ => return replace(tree, (path, key), content, change),
    }
    let before = tree.entries[&key].clone();
    tree.file(path, content);
    let entry = tree.entries.get_mut(&key).expect("there");
    *entry = Entry { size: entry.size, ..before };
}

fn change_attribute(entry: &mut Entry, change: &Change) {
    match change.what {
        6 => entry.mode ^= 0o100,
        7 => (entry.mtime.seconds, entry.uid) = (change.at as u32 as i64, 7),
        _ => entry.extensions = vec![(60_000, noise(change.seed, change.at % 300))],
    }
}

/// A file is moved, or goes, or something else comes in its place. Hard links to it go too.
fn replace(tree: &mut Tree, (path, key): (&str, EntryPath), content: Vec<u8>, change: &Change) {
    tree.entries.remove(&key);
    tree.contents.remove(&key);
    tree.entries.retain(|_, entry| entry.kind != EntryKind::HardLink || entry.link != path.as_bytes());
    match change.what {
        10 => drop(tree.file(&format!("moved{}", change.seed % 10), content)),
        11 => drop(tree.link(path, EntryKind::Symlink, "anything")),
        12 => drop(tree.dir(path).file(&format!("{path}/f"), content)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_delta_makes_the_new_tree_of_the_old_one((old, new) in arbitrary_pair()) {
        check(&old, &new);
    }
}
