use super::*;

fn small_package() -> (Tree, Vec<u8>) {
    let mut tree = Tree::new();
    tree.dir("d").file("d/f", b"hello".to_vec()).file("e", Vec::new());
    tree.link("h", EntryKind::HardLink, "d/f").link("s", EntryKind::Symlink, "d/f");
    let (bytes, _) = tree.build(&BuildOptions { digest: DigestKind::Md5, ..options(SMALL_FRAMES) });
    (tree, bytes)
}

#[test]
fn a_flipped_byte_is_rejected_or_changes_nothing() {
    let (tree, good) = small_package();
    let (index, _) = open(&good).expect("good");
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            if let Ok((found, contents)) = open(&bytes) {
                assert_eq!((found.catalog(), found.id()), (index.catalog(), index.id()), "byte {at}");
                assert_eq!(contents, tree.contents, "byte {at}");
                let minor = good.len() - 7 * 8 - 2;
                assert!((minor..minor + 2).contains(&at), "only the minor version may be any: byte {at}");
            }
        }
    }
}

#[test]
fn a_package_that_was_cut_off_is_rejected_at_every_length() {
    let (_, good) = small_package();
    for length in 0..good.len() {
        assert!(open(&good[..length]).is_err(), "{length} of {} bytes", good.len());
    }
}

#[test]
fn a_package_with_something_behind_it_is_rejected() {
    let (_, good) = small_package();
    for tail in [&[0][..], &[0; 512], &good] {
        assert!(open(&[&good, tail].concat()).is_err(), "{} bytes more", tail.len());
    }
}
