use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

fn mixed() -> Tree {
    let mut tree = Tree::new();
    for number in 0..200 {
        let mut content = noise(number, 3000);
        content.resize(number as usize * 200, b'x');
        tree.file(&format!("f{number}"), content);
    }
    tree.file("large", noise(1, 700_000));
    tree
}

fn try_build(source: &dyn Source, options: &BuildOptions, out: &mut dyn io::Write) -> Result<BuiltPackage, BuildError> {
    build_baseline(source, source.entries(&mut |_| {})?, options, &FixtureSigner, out, &|_| {})
}

#[test]
fn threads_change_nothing_about_a_package() {
    let tree = mixed();
    for options in [options(SMALL_FRAMES), sealed(SMALL_FRAMES)] {
        let first = tree.build(&BuildOptions { threads: 1, ..options.clone() }).0;
        for threads in [0, 2, 3, 8, 100] {
            assert_eq!(tree.build(&BuildOptions { threads, ..options.clone() }).0, first, "{threads} threads");
        }
    }
}

#[test]
fn progress_reaches_the_end_and_never_goes_back() {
    let tree = mixed();
    let last = AtomicU64::new(0);
    let entries = tree.entries(&mut |_| {}).expect("memory");
    let built = build_baseline(&tree, entries, &options(SMALL_FRAMES), &FixtureSigner, &mut io::sink(), &|progress| {
        let before = last.swap(progress.raw_bytes, Ordering::Relaxed);
        assert!(before < progress.raw_bytes && progress.raw_bytes <= progress.raw_bytes_total);
    });
    assert_eq!(last.into_inner(), built.expect("builds").root.body_raw_bytes);
}

#[test]
fn a_cancelled_build_ends_with_the_reason() {
    let options = options(SMALL_FRAMES);
    options.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(try_build(&mixed(), &options, &mut io::sink()), Err(BuildError::Cancelled)));
}

#[test]
fn a_full_disk_at_any_point_ends_the_build() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tree = mixed();
    let whole = tree.build(&options(SMALL_FRAMES)).0.len();
    for room in [0, 1000, whole / 2, whole - 300, whole - 1] {
        let result = try_build(&tree, &options(SMALL_FRAMES), &mut Full(room));
        assert!(matches!(result, Err(BuildError::Write(_))), "{room} of {whole} bytes");
    }
}

#[test]
fn a_file_that_shrank_is_a_change() {
    let mut tree = mixed();
    for (path, size) in [("f7", 10), ("large", 500_000)] {
        let path = EntryPath::from_bytes(path.as_bytes()).expect("valid");
        let content = tree.contents.insert(path.clone(), vec![0; size]).expect("was there");
        let error = try_build(&tree, &options(SMALL_FRAMES), &mut io::sink()).expect_err("changed");
        assert!(
            matches!(&error, BuildError::Source(SourceError::Changed { path: named }) if *named == path),
            "{error}"
        );
        assert!(crate::error::Coded::is_retryable(&error));
        tree.contents.insert(path, content);
    }
}

#[test]
fn a_source_that_panics_does_not_hang_the_build() {
    struct Panics(Tree);
    impl Source for Panics {
        fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
            self.0.entries(skip)
        }
        fn open(&self, _: &Entry, _: u64) -> Result<Box<dyn SourceFile>, SourceError> {
            panic!("a source with a bug");
        }
    }
    let build = || try_build(&Panics(mixed()), &options(SMALL_FRAMES), &mut io::sink());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(build)).is_err());
}

#[test]
fn options_out_of_range_are_refused() {
    for wrong in [
        BuildOptions { frame_bytes: 3 << 20, ..options(SMALL_FRAMES) },
        BuildOptions { frame_bytes: 8 << 20, ..options(SMALL_FRAMES) },
        BuildOptions { frame_bytes: 1024, ..options(SMALL_FRAMES) },
        BuildOptions { level: 0, ..options(SMALL_FRAMES) },
        BuildOptions { level: 23, ..options(SMALL_FRAMES) },
    ] {
        assert!(matches!(try_build(&Tree::new(), &wrong, &mut io::sink()), Err(BuildError::Options { .. })));
    }
}

#[test]
fn what_every_subscriber_would_refuse_is_not_built() {
    let mut tree = mixed();
    tree.link("z", EntryKind::HardLink, "nowhere");
    let error = try_build(&tree, &options(SMALL_FRAMES), &mut io::sink()).expect_err("refused");
    assert!(matches!(error, BuildError::Refused(PackageError::Catalog { reason: CatalogFault::HardLink, .. })));
    let mut tree = Tree::new();
    tree.add(Entry { size: u64::MAX, ..entry("f", EntryKind::File) });
    let error = try_build(&tree, &options(SMALL_FRAMES), &mut io::sink()).expect_err("refused");
    assert!(matches!(error, BuildError::Refused(PackageError::Catalog { reason: CatalogFault::TooMany, .. })));
}

#[test]
fn a_package_that_is_signed_again_differs_in_root_and_tail_alone() {
    let mut tree = Tree::new();
    tree.file("a", noise(1, 200_000)).file("b", b"small".to_vec());
    let (bytes, built) = tree.build(&options(SMALL_FRAMES));
    let new = NewRoot {
        distributor: KeyHash::from_bytes([9; 32]),
        revision: Revision::from_number(8),
        created: UnixMillis::from_millis(1_800_000_000_000),
    };
    let mut again = Vec::new();
    let judge = |_: &Root, root: &[u8], signature: &Signature| {
        assert_eq!(*signature, fixture_signature(root), "the old root is judged as it was signed");
        Ok::<_, BuildError>(())
    };
    let resigned = sign_again(&bytes, new, judge, &FixtureSigner, &mut again).expect("signed");
    let (index, contents) = open(&again).expect("a whole package");
    assert_eq!((resigned.id, resigned.bytes), (index.id(), again.len() as u64));
    let expected =
        Root { distributor: new.distributor, revision: new.revision, created: new.created, ..built.root.clone() };
    assert_eq!((&resigned.root, index.root()), (&expected, &expected));
    assert_ne!(resigned.id, built.id);
    let before = open(&bytes).expect("a whole package").1;
    assert_eq!(contents, before);
    let table_end = (built.root.body_bytes + built.root.catalog_bytes) as usize + 8 + 40 * built.index.rows().len();
    assert_eq!(again[..table_end], bytes[..table_end], "nothing before the root has changed");

    let refuse = |_: &Root, _: &[u8], _: &Signature| Err(BuildError::Options { what: "not ours" });
    assert!(sign_again(&bytes, new, refuse, &FixtureSigner, &mut Vec::new()).is_err());
    let mut damaged = bytes.clone();
    damaged[table_end - 1] ^= 1;
    assert!(
        sign_again(&damaged, new, judge, &FixtureSigner, &mut Vec::new()).is_err(),
        "the table is not the signed one"
    );
}
