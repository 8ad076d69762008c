//! Damaged frames are found, and made again from the source as they were signed or not at all.

use super::*;

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.dir("d").file("d/large", noise(1, 300_000)).file("d/none", vec![]);
    for number in 0..40 {
        tree.file(&format!("small-{number:02}"), noise(number, 5000));
    }
    tree.link("l", EntryKind::Symlink, "d/large").link("m", EntryKind::HardLink, "d/large");
    tree
}

/// Where the middle of a frame lies.
fn middle(index: &PackageIndex, frame: u64) -> usize {
    let range = index.frame_range(frame);
    (range.start + (range.end - range.start) / 2) as usize
}

#[test]
fn every_frame_of_the_body_is_made_again_as_it_was_signed() {
    let tree = tree();
    let (bytes, built) = tree.build(&options(SMALL_FRAMES));
    let index = built.index;
    assert!(index.body_frames() > 6, "{}", index.body_frames());
    let mut remaker = Remaker::new(&tree, &index).expect("a baseline");
    for frame in 0..index.body_frames() {
        let range = index.frame_range(frame);
        assert_eq!(remaker.make(frame).expect("made"), bytes[range.start as usize..range.end as usize]);
    }
    assert!(matches!(remaker.make(index.body_frames()), Err(RemakeError::Differs { .. })));
}

#[test]
fn a_frame_whose_source_changed_is_not_made_and_the_others_are() {
    let mut tree = tree();
    let (_, built) = tree.build(&options(SMALL_FRAMES));
    let index = built.index;
    // Same name, same length, other content: nothing but the bytes shows it.
    let path = EntryPath::from_bytes(b"small-07").expect("valid");
    tree.contents.get_mut(&path).expect("there")[0] ^= 1;
    let mut remaker = Remaker::new(&tree, &index).expect("a baseline");
    let different: Vec<u64> = (0..index.body_frames()).filter(|frame| remaker.make(*frame).is_err()).collect();
    let row = index.catalog().iter().find(|row| row.entry.path == path).expect("there");
    assert_eq!(different, [index.frame_at(row.offset).expect("in the body")]);

    tree.contents.remove(&path);
    let mut remaker = Remaker::new(&tree, &index).expect("a baseline");
    assert!(matches!(remaker.make(different[0]), Err(RemakeError::Differs { .. })), "a file that is gone");
}

#[test]
fn exactly_the_damaged_frames_are_named() {
    let (bytes, built) = tree().build(&options(SMALL_FRAMES));
    let index = built.index;
    assert_eq!(damaged_frames(&index, &bytes, 2).expect("readable"), Vec::<u64>::new());
    for frames in [vec![0], vec![2, 3], vec![index.body_frames() - 1]] {
        let mut damaged = bytes.clone();
        for frame in &frames {
            damaged[middle(&index, *frame)] ^= 1;
        }
        assert_eq!(damaged_frames(&index, &damaged, 3).expect("readable"), frames);
    }
    // What is cut off is damaged too.
    let cut = index.frame_range(4).start as usize;
    let rest: Vec<u64> = (4..index.body_frames()).collect();
    assert_eq!(damaged_frames(&index, &bytes[..cut].to_vec(), 1).expect("readable"), rest);
}

#[test]
fn only_what_fetching_again_mends_counts_as_damage() {
    let io = |source: io::Error| PackageError::Io { place: "body", source };
    let frame = |source| PackageError::Frame { frame: 3, source };
    for (damage, error) in [
        (true, io(io::ErrorKind::UnexpectedEof.into())),
        (true, io(io::Error::from_raw_os_error(5))),
        (false, io(io::ErrorKind::PermissionDenied.into())),
        (false, io(io::ErrorKind::NotFound.into())),
        (true, frame(FrameError::Hash)),
        (true, frame(FrameError::Length { stated: 1, found: 2 })),
        (false, frame(FrameError::Decompress { reason: String::new() })),
        (true, PackageError::NotAPackage),
        (true, PackageError::TableHash),
        (true, PackageError::Digest),
        (false, PackageError::Version { major: 9, known: 1 }),
        (false, PackageError::Unsupported { what: "x" }),
    ] {
        assert_eq!(is_damage(&error), damage, "{error:?}");
    }
}
