//! What is damaged in a package is found, and nothing else.

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
