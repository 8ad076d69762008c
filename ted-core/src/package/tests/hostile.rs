use super::super::error::CatalogFault;
use super::*;
use crate::id::Hash;

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.dir("d").file("d/a", noise(1, 3000)).file("d/b", noise(2, 150_000)).file("e", Vec::new());
    tree.link("h", EntryKind::HardLink, "d/a").link("s", EntryKind::Symlink, "/etc/x");
    tree
}

fn rows() -> Vec<CatalogRow> {
    tree().build(&options(SMALL_FRAMES)).1.catalog().to_vec()
}

/// What a reader says about packages that are right in everything but their catalog rows.
fn judge(rows: &[CatalogRow]) -> CatalogFault {
    let [plain, sealed] = Forge::both(&tree()).map(|mut forge| {
        forge.rows(rows);
        match open(&forge.seal(|_, _| {})) {
            Err(PackageError::Catalog { reason, .. }) => reason,
            other => panic!("{:?} is not a refused catalog", other.map(|_| "accepted")),
        }
    });
    assert_eq!(plain, sealed);
    plain
}

#[test]
fn a_forged_package_with_nothing_wrong_is_accepted() {
    for forge in Forge::both(&tree()) {
        assert!(open(&forge.seal(|_, _| {})).is_ok());
    }
}

#[test]
fn entries_that_no_catalog_may_have_are_refused() {
    type Change = fn(&mut Vec<CatalogRow>);
    // The rows are: root, d, d/a, d/b, e, h, s.
    let cases: &[(&str, Change, CatalogFault)] = &[
        ("no root", |rows| drop(rows.remove(0)), CatalogFault::NoRoot),
        ("a file as root", |rows| rows[0].entry.kind = EntryKind::Symlink, CatalogFault::NoRoot),
        ("a duplicate", |rows| rows.insert(5, rows[4].clone()), CatalogFault::Order),
        ("disorder", |rows| rows.swap(4, 6), CatalogFault::Order),
        ("a second root", |rows| rows.insert(1, rows[0].clone()), CatalogFault::Order),
        ("no parent", |rows| drop(rows.remove(1)), CatalogFault::Parent),
        ("a symlink as parent", |rows| become_symlink(&mut rows[1]), CatalogFault::Parent),
        ("mode bits beyond", |rows| rows[4].entry.mode = 0o10000, CatalogFault::Attributes),
        ("a second too many", |rows| rows[4].entry.mtime.nanoseconds = 1_000_000_000, CatalogFault::Attributes),
        ("a folder with a link", |rows| rows[1].entry.link = b"x".to_vec(), CatalogFault::Kind),
        ("a file with a link", |rows| rows[2].entry.link = b"x".to_vec(), CatalogFault::Kind),
        ("a folder with a size", |rows| rows[1].entry.size = 1, CatalogFault::Kind),
        ("a folder with content", |rows| rows[1].entry.content = Hash::of(b"x"), CatalogFault::Kind),
        ("a folder with an offset", |rows| rows[1].offset = 512, CatalogFault::Kind),
        ("an empty file with content", |rows| rows[4].entry.content = Hash::of(b"x"), CatalogFault::Kind),
        ("an empty file without a hash", |rows| rows[4].entry.content = Entry::NO_CONTENT, CatalogFault::Kind),
        ("a symlink to nothing", |rows| rows[6].entry.link = Vec::new(), CatalogFault::Kind),
        ("a NUL in a link", |rows| rows[6].entry.link = b"a\0b".to_vec(), CatalogFault::Link),
        ("a long link", |rows| rows[6].entry.link = vec![b'x'; 4097], CatalogFault::Link),
        ("a hard link forward", |rows| rows[5].entry.link = b"s".to_vec(), CatalogFault::HardLink),
        ("a hard link to itself", |rows| rows[5].entry.link = b"h".to_vec(), CatalogFault::HardLink),
        ("a hard link out", |rows| rows[5].entry.link = b"../x".to_vec(), CatalogFault::HardLink),
        ("an absolute hard link", |rows| rows[5].entry.link = b"/etc/x".to_vec(), CatalogFault::HardLink),
        ("a hard link to a folder", |rows| rows[5].entry.link = b"d".to_vec(), CatalogFault::HardLink),
        ("a hard link to the root", |rows| rows[5].entry.link = Vec::new(), CatalogFault::HardLink),
        ("extensions in disorder", |rows| extend(rows, &[2, 1]), CatalogFault::Extensions),
        ("an extension twice", |rows| extend(rows, &[1, 1]), CatalogFault::Extensions),
        ("too many extensions", |rows| extend(rows, &(0..65).collect::<Vec<_>>()), CatalogFault::Extensions),
        ("content over content", |rows| rows[3].offset = rows[2].offset, CatalogFault::Offset),
        ("content in the first header", |rows| rows[2].offset = 0, CatalogFault::Offset),
        ("content out of place", |rows| rows[3].offset += 512, CatalogFault::Offset),
        ("content beyond the body", |rows| rows[2].offset = 1 << 40, CatalogFault::Offset),
        ("content without end", |rows| rows[2].offset = u64::MAX, CatalogFault::Offset),
        ("a size that lies", |rows| rows[2].entry.size = 1 << 40, CatalogFault::Offset),
        ("the largest size", |rows| rows[2].entry.size = u64::MAX, CatalogFault::Offset),
        ("a size across frames", |rows| rows[2].entry.size = 60_000, CatalogFault::Offset),
    ];
    for (what, change, fault) in cases {
        let mut rows = rows();
        change(&mut rows);
        assert_eq!(judge(&rows), *fault, "{what}");
    }
}

fn become_symlink(row: &mut CatalogRow) {
    row.entry.kind = EntryKind::Symlink;
    row.entry.link = b"/etc".to_vec();
}

fn extend(rows: &mut [CatalogRow], kinds: &[u16]) {
    rows[4].entry.extensions = kinds.iter().map(|&kind| (kind, Vec::new())).collect();
}

#[test]
fn content_that_is_not_what_the_catalog_states_is_named() {
    for index in [2, 3] {
        let mut rows = rows();
        rows[index].entry.content = Hash::of(b"something else");
        for mut forge in Forge::both(&tree()) {
            forge.rows(&rows);
            let error = open(&forge.seal(|_, _| {})).expect_err("refused");
            assert!(matches!(&error, PackageError::Content { path } if *path == rows[index].entry.path), "{error}");
        }
    }
}

#[test]
fn tables_and_roots_that_lie_are_refused() {
    type Lie = fn(&mut Vec<TableRow>, &mut Root);
    fn honest_hash(rows: &[TableRow], root: &mut Root) {
        root.table = Hash::of(&super::super::table::encode_rows(rows));
    }
    let lies: &[(&str, Lie)] = &[
        ("another context", |_, root| root.context = "ted/root/2".to_owned()),
        ("a delta", |_, root| root.kind = PackageKind::Delta { base: Revision::from_number(1) }),
        ("another suite", |_, root| {
            let sealed = Suite::Aes256Gcm { salt: seal().salt, commitment: seal().key.commitment() };
            root.suite = if root.is_sealed() { Suite::None } else { sealed };
        }),
        ("another key", |_, root| root.suite = Suite::Aes256Gcm { salt: seal().salt, commitment: Hash::of(b"") }),
        ("another salt", |_, root| {
            let (salt, key) = ([7; 32], secret().content_key(&[7; 32]));
            root.suite = Suite::Aes256Gcm { salt, commitment: key.commitment() };
        }),
        ("disclosed where it must not be, or not where it must", |_, root| {
            let known = crate::id::ContentId::from_bytes([0; 32]);
            let name = "site".parse().expect("a label");
            let disclosure = Disclosure { distribution_name: name, content: known, entries: 7 };
            root.disclosure = if root.is_sealed() { Some(disclosure) } else { None };
        }),
        ("a frame length of zero", |_, root| root.frame_bytes = 0),
        ("a frame length that is no power of two", |_, root| root.frame_bytes = 3 << 20),
        ("a frame length beyond", |_, root| root.frame_bytes = 8 << 20),
        ("another frame length", |_, root| root.frame_bytes = 1 << 17),
        ("no body", |_, root| root.body_frames = 0),
        ("no catalog", |_, root| root.catalog_frames = 0),
        ("more frames", |_, root| root.body_frames += 1),
        ("frames without end", |_, root| root.body_frames = u64::MAX),
        ("a body frame as catalog", |_, root| {
            root.body_frames -= 1;
            root.catalog_frames += 1;
        }),
        ("a longer body", |_, root| root.body_bytes += 1),
        ("a body without end", |_, root| root.body_bytes = u64::MAX),
        ("a longer raw body", |_, root| root.body_raw_bytes += 512),
        ("a longer catalog", |_, root| root.catalog_bytes += 1),
        ("another table", |_, root| root.table = Hash::of(b"")),
        ("another digest", |_, root| root.digest = BodyDigest::Md5([0; 16])),
        ("another BLAKE3 digest", |_, root| root.digest = BodyDigest::Blake3(Hash::of(b""))),
        ("a frame of nothing", |rows, root| {
            rows[0].raw_bytes = 0;
            honest_hash(rows, root);
        }),
        ("a frame over the limit", |rows, root| {
            rows[0].raw_bytes = u32::MAX;
            honest_hash(rows, root);
        }),
        ("a stored frame over the limit", |rows, root| {
            rows[0].stored_bytes = u32::MAX;
            honest_hash(rows, root);
        }),
        ("raw lengths shifted between frames", |rows, root| {
            rows[0].raw_bytes -= 512;
            rows[1].raw_bytes += 512;
            honest_hash(rows, root);
        }),
        ("stored lengths shifted between frames", |rows, root| {
            rows[0].stored_bytes -= 1;
            rows[1].stored_bytes += 1;
            honest_hash(rows, root);
        }),
        ("a catalog frame that becomes more", |rows, root| {
            rows.last_mut().expect("one").raw_bytes += 1;
            honest_hash(rows, root);
        }),
        ("another hash", |rows, root| {
            rows[0].hash = Hash::of(b"");
            honest_hash(rows, root);
        }),
    ];
    for (what, lie) in lies {
        for forge in Forge::both(&tree()) {
            assert!(open(&forge.seal(lie)).is_err(), "{what}");
        }
    }
}

#[test]
fn disclosures_that_lie_are_refused() {
    type Lie = fn(&mut Disclosure);
    let lies: &[(&str, Lie)] = &[
        ("more entries", |disclosure| disclosure.entries += 1),
        ("fewer entries", |disclosure| disclosure.entries -= 1),
        ("entries without end", |disclosure| disclosure.entries = u64::MAX),
        ("another content id", |disclosure| disclosure.content = crate::id::ContentId::from_bytes([0; 32])),
    ];
    for (what, lie) in lies {
        for mut forge in Forge::both(&tree()) {
            lie(&mut forge.disclosure);
            assert!(open(&forge.seal(|_, _| {})).is_err(), "{what}");
        }
    }
}

#[test]
fn catalogs_whose_bytes_lie_are_refused() {
    let with = |change: fn(&mut Vec<u8>)| {
        let [plain, sealed] = Forge::both(&tree()).map(|mut forge| {
            change(&mut forge.catalog[0]);
            open(&forge.seal(|_, _| {})).is_ok()
        });
        assert_eq!(plain, sealed);
        plain
    };
    assert!(with(|_| {}));
    type Lie = fn(&mut Vec<u8>);
    let lies: &[(&str, Lie)] = &[
        ("fewer rows than there are", |raw| raw[0] -= 1),
        ("more rows than there are", |raw| raw[0] += 1),
        ("rows without end", |raw| raw[..8].fill(0xff)),
        ("a path without end", |raw| raw[8..16].fill(0xff)),
        ("an unknown kind", |raw| raw[16] = 9),
        ("a byte too many", |raw| raw.push(0)),
        ("a byte too few", |raw| raw.truncate(raw.len() - 1)),
    ];
    for (what, lie) in lies {
        assert!(!with(*lie), "{what}");
    }
}

#[test]
fn frames_that_are_not_exactly_one_zstd_frame_of_the_stated_length_are_refused() {
    let raw = vec![7; 1000];
    let mut stored = Vec::new();
    let row =
        super::super::frame::FrameEncoder::new(3, None).expect("zstd").encode(0, &raw, &mut stored).expect("zstd");
    let mut out = Vec::new();
    decode_frame(&row, &stored, &mut out).expect("good");
    assert_eq!(out, raw);
    let skippable = super::super::container::skippable_header(super::super::container::Part::Table, 0);
    for (what, stored, raw_bytes) in [
        ("a shorter length", stored.clone(), 999),
        ("a longer length", stored.clone(), 1001),
        ("two frames", [stored.clone(), stored.clone()].concat(), 2000),
        ("a skippable frame behind", [stored.as_slice(), &skippable].concat(), 1000),
        ("half a frame", stored[..stored.len() / 2].to_vec(), 1000),
        ("nothing", Vec::new(), 0),
        ("noise", noise(1, 100), 100),
    ] {
        let row = TableRow { raw_bytes, ..row };
        assert!(decode_frame(&row, &stored, &mut out).is_err(), "{what}");
    }
}
