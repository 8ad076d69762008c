//! A baseline that takes from the one before it is the one that would be built from nothing.

use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

/// A tree that keeps in mind which files were opened.
struct Watched<'a> {
    tree: &'a Tree,
    opened: Mutex<BTreeSet<String>>,
}

impl Source for Watched<'_> {
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        self.tree.entries(skip)
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        self.opened.lock().unwrap().insert(entry.path.to_string());
        self.tree.open(entry, offset)
    }
}

/// For each entry of `new`, whether its content is that of `old`.
fn unchanged(old: &Tree, new: &Tree) -> Vec<bool> {
    let same = |path: &EntryPath| new.contents.contains_key(path) && old.contents.get(path) == new.contents.get(path);
    new.entries.keys().map(same).collect()
}

struct Next {
    bytes: Vec<u8>,
    built: BuiltPackage,
    opened: BTreeSet<String>,
}

fn next(new: &Tree, previous: &Previous<'_>, options: &BuildOptions) -> Result<Next, BuildError> {
    let source = Watched { tree: new, opened: Mutex::default() };
    let (entries, mut bytes) = (new.entries(&mut |_| {})?, Vec::new());
    let built = build_next_baseline((&source, previous), entries, options, &FixtureSigner, &mut bytes, &|_| {})?;
    Ok(Next { bytes, built, opened: source.opened.into_inner().unwrap() })
}

/// Builds `new` after `old`, which was built as `before`; the package must be the one that is built from nothing.
fn build_after(old: &Tree, new: &Tree, (before, options): (&BuildOptions, &BuildOptions)) -> Next {
    let (package, _) = old.build(before);
    let index = read(&package).expect("good");
    let previous = Previous { index: &index, package: &package, unchanged: &unchanged(old, new) };
    let made = next(new, &previous, options).expect("builds");
    let (from_nothing, _) = new.build(options);
    assert!(made.bytes == from_nothing, "another package than from nothing");
    assert_eq!(made.built.reused.damaged, [0; 0]);
    let changed: BTreeSet<String> = new
        .entries
        .values()
        .zip(previous.unchanged)
        .filter(|(entry, unchanged)| entry.size > 0 && !**unchanged)
        .map(|(entry, _)| entry.path.to_string())
        .collect();
    assert_eq!(made.opened, changed, "what changed is read, and nothing else");
    made
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    for folder in ["a", "b"] {
        tree.dir(folder);
        for number in 0..150 {
            tree.file(&format!("{folder}/f{number:03}"), noise(number, number as usize * 40));
        }
    }
    tree.file("a/large", noise(1, 300_000)).file("b/big", noise(2, 65_537)).link("s", EntryKind::Symlink, "a/f01");
    tree.link("z", EntryKind::HardLink, "a/f001");
    tree
}

fn remove(tree: &mut Tree, path: &str) {
    let path = EntryPath::from_bytes(path.as_bytes()).expect("valid");
    tree.entries.remove(&path);
    tree.contents.remove(&path);
}

type Change = fn(&mut Tree);

const CHANGES: [(&str, Change); 10] = [
    ("nothing", |_| {}),
    ("a file changed", |tree| {
        tree.file("a/f100", noise(9, 4000));
    }),
    ("a file is longer", |tree| {
        tree.file("a/f100", noise(9, 4600));
    }),
    ("a file was added", |tree| {
        tree.file("a/f100x", noise(9, 3000));
    }),
    ("a file was removed", |tree| remove(tree, "b/f070")),
    ("a file was renamed", |tree| {
        remove(tree, "b/f070");
        tree.file("b/g070", noise(70, 2800));
    }),
    ("a file was touched", |tree| {
        let path = EntryPath::from_bytes(b"b/f070").expect("valid");
        tree.entries.get_mut(&path).expect("there").mtime.nanoseconds = 5;
    }),
    ("a large file changed", |tree| {
        tree.file("a/large", noise(3, 300_000));
    }),
    ("a large file was touched", |tree| {
        let path = EntryPath::from_bytes(b"a/large").expect("valid");
        tree.entries.get_mut(&path).expect("there").mode = 0o600;
    }),
    ("a large file became small", |tree| {
        tree.file("a/large", noise(3, 300));
    }),
];

#[test]
fn whatever_changed_the_package_is_the_one_that_is_built_from_nothing() {
    let other_salt = BuildOptions { seal: Some(Seal::of(&secret(), [9; SALT_BYTES])), ..options(SMALL_FRAMES) };
    let (plain, sealed) = (options(SMALL_FRAMES), sealed(SMALL_FRAMES));
    let plain_md5 = BuildOptions { digest: DigestKind::Md5, ..plain.clone() };
    for (what, change) in CHANGES {
        let (old, mut new) = (tree(), tree());
        change(&mut new);
        for ways in [(&plain, &plain_md5), (&plain, &sealed), (&sealed, &plain), (&sealed, &other_salt)] {
            let frames = new.build(ways.1).1.root.body_frames;
            for threads in [1, 2, 7] {
                let made = build_after(&old, &new, (ways.0, &BuildOptions { threads, ..ways.1.clone() }));
                let copied = made.built.reused.frames;
                assert!(copied + 8 >= frames && copied >= 8, "{what}: {copied} of {frames}");
                assert_eq!(copied == frames, what == "nothing", "{what}");
            }
        }
    }
}

#[test]
fn a_package_that_was_compressed_or_cut_in_another_way_is_not_used() {
    let tree = tree();
    let way = options(SMALL_FRAMES);
    for before in [BuildOptions { level: 9, ..way.clone() }, options(2 * SMALL_FRAMES)] {
        let (package, _) = tree.build(&before);
        let index = read(&package).expect("good");
        let previous = Previous { index: &index, package: &package, unchanged: &unchanged(&tree, &tree) };
        let made = next(&tree, &previous, &way).expect("builds");
        assert_eq!((made.bytes, made.built.reused), (tree.build(&way).0, Reused::default()));
    }
}

#[test]
fn a_flipped_bit_in_the_previous_package_is_noticed_and_never_copied() {
    let mut new = tree();
    new.file("a/f100", noise(9, 4000));
    for way in [options(SMALL_FRAMES), sealed(SMALL_FRAMES)] {
        let (package, _) = tree().build(&way);
        let index = read(&package).expect("good");
        let unchanged = unchanged(&tree(), &new);
        let (from_nothing, _) = new.build(&way);
        for frame in 0..index.body_frames() {
            let mut package = package.clone();
            package[index.frame_range(frame).end as usize - 1] ^= 4;
            let previous = Previous { index: &index, package: &package, unchanged: &unchanged };
            let made = next(&new, &previous, &way).expect("made from the source instead");
            assert!(made.bytes == from_nothing, "frame {frame}");
            assert!(made.built.reused.damaged.len() <= 1);
            assert!(made.built.reused.damaged.iter().all(|&damaged| damaged == frame));
        }
        let previous = Previous { index: &index, package: &[0; 0].as_slice().to_vec(), unchanged: &unchanged };
        let made = next(&new, &previous, &way).expect("all is made from the source");
        assert_eq!((made.bytes, made.built.reused.frames), (from_nothing, 0));
    }
}

#[test]
fn a_large_file_is_never_a_mixture_of_two_revisions() {
    let (old, mut new) = (tree(), tree());
    let (mut package, _) = old.build(&options(SMALL_FRAMES));
    let index = read(&package).expect("good");
    let large = index.catalog().iter().find(|row| row.entry.path.as_bytes() == b"a/large").expect("there").clone();
    let first = index.frame_at(large.offset).expect("there");
    // It is said to be unchanged, and is not.
    let unchanged = unchanged(&old, &new);
    new.file("a/large", noise(8, 300_000));
    package[index.frame_range(first + 1).start as usize + 9] ^= 1;
    let previous = Previous { index: &index, package: &package, unchanged: &unchanged };
    let error = next(&new, &previous, &options(SMALL_FRAMES)).err().expect("no mixture");
    assert!(
        matches!(error, BuildError::Source(SourceError::Changed { ref path }) if *path == large.entry.path),
        "{error}"
    );
}

/// A small tree: for each of forty names, nothing or a file's length and seed.
fn small_tree(files: &[Option<(usize, u64)>]) -> Tree {
    let mut tree = Tree::new();
    for (number, file) in files.iter().enumerate() {
        if let Some((bytes, seed)) = file {
            tree.file(&format!("f{number:02}"), noise(*seed, *bytes));
        }
    }
    tree
}

fn small_files() -> impl Strategy<Value = Vec<Option<(usize, u64)>>> {
    let bytes = prop_oneof![8 => 0..9000_usize, 1 => 60_000..70_000_usize, 1 => 131_072..200_000_usize];
    proptest::collection::vec(proptest::option::weighted(0.8, (bytes, 0..1000_u64)), 40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_after_any_other_gives_the_package_of_a_build_from_nothing(
        old in small_files(),
        changes in proptest::collection::vec((0..40_usize, proptest::option::of((0..80_000_usize, 0..1000_u64))), 0..6),
        touched in proptest::collection::vec(0..40_usize, 0..3),
        was_sealed in any::<bool>(),
        is_sealed in any::<bool>(),
        threads in 1..5_usize,
    ) {
        let mut files = old.clone();
        for (at, file) in changes {
            files[at] = file;
        }
        let (old, mut new) = (small_tree(&old), small_tree(&files));
        for number in touched {
            let path = EntryPath::from_bytes(format!("f{number:02}").as_bytes()).expect("valid");
            if let Some(entry) = new.entries.get_mut(&path) {
                entry.mtime.seconds += 1;
            }
        }
        let way = |is_sealed| if is_sealed { sealed(SMALL_FRAMES) } else { options(SMALL_FRAMES) };
        let after = BuildOptions { threads, ..way(is_sealed) };
        // The same salt before and after would never be: but then nothing would show that frames are sealed anew.
        let before = BuildOptions {
            seal: was_sealed.then(|| Seal::of(&secret(), [8; SALT_BYTES])),
            ..options(SMALL_FRAMES)
        };
        build_after(&old, &new, (&before, &after));
    }
}
