use proptest::prelude::*;

use super::*;

fn check(tree: &Tree, options: &BuildOptions) {
    let (bytes, built) = tree.build(options);
    let (index, contents) = open(&bytes).expect("its own reader accepts it");
    assert_eq!(contents, tree.contents);
    assert_eq!(index.id(), built.id);
    assert_eq!(index.root(), &built.root);
    assert_eq!(index.catalog(), built.catalog());
    assert_eq!(index.rows(), built.index.rows());
    let entries: Vec<Entry> = tree.entries.values().cloned().collect();
    assert!(same_but_content(index.catalog(), &entries), "unchanged");
    for row in index.catalog() {
        let content = tree.contents.get(&row.entry.path);
        assert_eq!(row.entry.content, content.map_or(Entry::NO_CONTENT, |content| crate::id::Hash::of(content)));
    }
}

#[test]
fn files_of_every_boundary_size_come_back() {
    const MIB: usize = 1024 * 1024;
    let mut tree = Tree::new();
    // Nothing, one byte; about one tar block; about one frame, about two.
    for size in [0, 1, 511, 512, 513, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1] {
        let mut content = noise(size as u64, size.min(64 * 1024));
        content.resize(size, 7);
        tree.file(&format!("{size}"), content);
    }
    check(&tree, &options(FRAME_BYTES));
    check(&tree, &sealed(FRAME_BYTES));
}

#[test]
fn an_empty_tree_comes_back() {
    check(&Tree::new(), &options(FRAME_BYTES));
    check(&Tree::new(), &sealed(FRAME_BYTES));
}

#[test]
fn every_kind_of_entry_comes_back_with_every_digest() {
    let mut tree = Tree::new();
    tree.dir("d").dir("d/empty").file("d/f", noise(1, 200_000)).file("d/g", b"g".to_vec());
    tree.link("d/h", EntryKind::HardLink, "d/f").link("l", EntryKind::Symlink, "/etc/x");
    tree.link("m", EntryKind::HardLink, "l");
    let mut odd = entry("odd", EntryKind::Symlink);
    (odd.mode, odd.uid, odd.gid, odd.link) = (0o7777, u32::MAX, u32::MAX, vec![0xff; 4096]);
    odd.mtime = Mtime { seconds: i64::MIN, nanoseconds: 999_999_999 };
    odd.extensions = vec![(1, vec![1, 2, 3]), (9, Vec::new())];
    tree.add(odd);
    for digest in [DigestKind::None, DigestKind::Md5, DigestKind::Blake3] {
        check(&tree, &BuildOptions { digest, ..options(SMALL_FRAMES) });
        check(&tree, &BuildOptions { digest, ..sealed(SMALL_FRAMES) });
    }
}

#[test]
fn a_reader_is_content_with_any_number_of_bytes_at_a_time() {
    let mut tree = Tree::new();
    for number in 0..2000 {
        tree.file(&format!("{number}-{}", hex::encode(noise(number, 40))), Vec::new());
    }
    let (bytes, built) = tree.build(&options(SMALL_FRAMES));
    assert!(bytes.len() > 100_000, "the first read is not all");
    for at_once in [1, 100, 8191, usize::MAX] {
        let mut reader = IndexReader::new(bytes.len() as u64, Limits::DEFAULT).expect("long enough");
        loop {
            match reader.next() {
                Step::Read { from, to } => {
                    let to = (to as usize).min((from as usize).saturating_add(at_once));
                    reader.feed(&bytes[from as usize..to]).expect("good");
                }
                Step::JudgeRoot => {
                    assert_eq!(reader.root(), Some(&built.root));
                    reader.accept_root().expect("good");
                }
                Step::Done => break,
            }
        }
        assert_eq!(reader.finish().expect("done").catalog(), built.catalog());
    }
}

#[test]
fn nothing_behind_the_root_is_looked_at_before_it_is_accepted() {
    let mut tree = Tree::new();
    tree.file("a", b"content".to_vec());
    let (mut bytes, built) = tree.build(&options(SMALL_FRAMES));
    let catalog = built.index.frame_range(built.root.body_frames).start as usize;
    bytes[catalog] ^= 1;
    let mut reader = IndexReader::new(bytes.len() as u64, Limits::DEFAULT).expect("long enough");
    reader.feed(&bytes).expect("the damage lies behind the root");
    assert_eq!(reader.next(), Step::JudgeRoot);
    assert!(reader.feed(&bytes).is_err(), "nobody asked");
    assert!(reader.accept_root().is_err(), "now it is met");
}

#[test]
fn a_changed_attribute_is_a_change_and_another_content_alone_is_not() {
    let mut tree = Tree::new();
    tree.file("a", b"1".to_vec()).link("l", EntryKind::Symlink, "x");
    let (_, built) = tree.build(&options(SMALL_FRAMES));
    let entries: Vec<Entry> = tree.entries.values().cloned().collect();
    assert!(same_but_content(built.catalog(), &entries));
    let changes: [fn(&mut Entry); 8] = [
        |entry| entry.mode ^= 1,
        |entry| entry.uid ^= 1,
        |entry| entry.gid ^= 1,
        |entry| entry.mtime.nanoseconds ^= 1,
        |entry| entry.size ^= 1,
        |entry| entry.link.push(b'x'),
        |entry| entry.kind = EntryKind::Directory,
        |entry| entry.path = EntryPath::from_bytes(b"zz").expect("valid"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut entries = entries.clone();
        change(&mut entries[2]);
        assert!(!same_but_content(built.catalog(), &entries), "change {number}");
    }
    assert!(!same_but_content(built.catalog(), &entries[..2]));
}

fn arbitrary_tree() -> impl Strategy<Value = Tree> {
    let name = proptest::collection::vec(1_u8.., 1..120)
        .prop_map(|name| name.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect::<Vec<u8>>())
        .prop_filter("a name", |name| name != b"." && name != b"..");
    let item = (name, 0..4_u8, 0_usize..150_000, any::<(u16, u32, u32, i64, u32)>());
    proptest::collection::vec(item, 0..30).prop_map(|items| {
        let mut tree = Tree::new();
        let mut folder = EntryPath::root();
        for (name, kind, size, (mode, uid, gid, seconds, nanoseconds)) in items {
            let Ok(path) = folder.join(&name) else { continue };
            if tree.entries.contains_key(&path) {
                continue;
            }
            let mut made = Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
                mode: u32::from(mode) & 0o7777,
                uid,
                gid,
                mtime: Mtime { seconds, nanoseconds: nanoseconds % 1_000_000_000 },
                ..entry("", EntryKind::Directory)
            };
            match kind {
                0 => folder = path,
                1 => (made.kind, made.link) = (EntryKind::Symlink, name),
                _ => {
                    (made.kind, made.size) = (EntryKind::File, size as u64);
                    tree.contents.insert(path, noise(u64::from(uid), size));
                }
            }
            tree.add(made);
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(tree in arbitrary_tree()) {
        check(&tree, &options(SMALL_FRAMES));
        check(&tree, &sealed(SMALL_FRAMES));
    }
}

#[test]
fn the_length_of_an_entry_is_that_of_its_encoding() {
    let mut tree = Tree::new();
    tree.dir("d").file("d/a", noise(1, 3000)).link("s", EntryKind::Symlink, "/etc/x");
    for row in tree.build(&options(SMALL_FRAMES)).1.catalog() {
        let mut entry = row.entry.clone();
        for extensions in [vec![], vec![(1, vec![7; 5]), (9, vec![])]] {
            entry.extensions = extensions;
            let encoded = crate::codec::encode("entry", &entry, 1 << 20).expect("small");
            assert_eq!(super::super::catalog::entry_bytes(&entry), encoded.len() as u64);
        }
    }
}
