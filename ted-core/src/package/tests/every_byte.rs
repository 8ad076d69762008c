use super::*;

fn small_package() -> (Tree, Vec<u8>) {
    let tree = small_tree();
    let (bytes, _) = tree.build(&BuildOptions { digest: DigestKind::Md5, ..options(SMALL_FRAMES) });
    (tree, bytes)
}

fn small_tree() -> Tree {
    let mut tree = Tree::new();
    tree.dir("d").file("d/f", b"hello".to_vec()).file("e", Vec::new());
    tree.link("h", EntryKind::HardLink, "d/f").link("s", EntryKind::Symlink, "d/f");
    tree
}

#[test]
fn a_flipped_byte_is_rejected_or_changes_nothing() {
    let tree = small_tree();
    for digest in [DigestKind::None, DigestKind::Md5, DigestKind::Blake3] {
        let (good, built) = tree.build(&BuildOptions { digest, ..options(SMALL_FRAMES) });
        let minor = good.len() - 7 * 8 - 2;
        for (at, bytes) in flipped(&good) {
            if let Ok((found, contents)) = open(&bytes) {
                assert_eq!((found.catalog(), found.id()), (built.catalog(), built.id), "byte {at}");
                assert_eq!(contents, tree.contents, "byte {at}");
                assert!((minor..minor + 2).contains(&at), "only the minor version may be any: byte {at}");
            }
        }
    }
}

#[test]
fn a_flipped_byte_of_a_sealed_package_is_rejected_with_its_key_and_without() {
    let tree = small_tree();
    for digest in [DigestKind::None, DigestKind::Md5, DigestKind::Blake3] {
        let (good, _) = tree.build(&BuildOptions { digest, ..sealed(SMALL_FRAMES) });
        let verify_blind = |bytes: &Vec<u8>| verify_frames(&read_blind(bytes)?, bytes, 1, &|_| {});
        assert_eq!(open(&good).expect("good").1, tree.contents);
        verify_blind(&good).expect("good");
        for (at, bytes) in flipped(&good) {
            assert!(open(&bytes).is_err(), "{digest:?}, byte {at} of {}", good.len());
            assert!(verify_blind(&bytes).is_err(), "{digest:?}, blind, byte {at} of {}", good.len());
        }
    }
}

/// `good` with one byte changed, each in three ways.
fn flipped(good: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..good.len()).flat_map(move |at| {
        [0x01, 0x80, 0xff].into_iter().map(move |flip| {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            (at, bytes)
        })
    })
}

#[test]
fn a_package_that_was_cut_off_is_rejected_at_every_length() {
    for good in [small_package().1, small_tree().build(&sealed(SMALL_FRAMES)).0] {
        for length in 0..good.len() {
            assert!(open(&good[..length]).is_err(), "{length} of {} bytes", good.len());
        }
    }
}

#[test]
fn a_package_with_something_behind_it_is_rejected() {
    let (_, good) = small_package();
    for tail in [&[0][..], &[0; 512], &good] {
        assert!(open(&[&good, tail].concat()).is_err(), "{} bytes more", tail.len());
    }
}
