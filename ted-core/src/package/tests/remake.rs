//! Frames that are made again are the signed ones, or none.

use super::*;

fn tree() -> Tree {
    let mut tree = Tree::new();
    for number in 0..60 {
        tree.file(&format!("f{number:02}"), noise(number, number as usize * 300));
    }
    tree.file("large", noise(1, 300_000)).link("s", EntryKind::Symlink, "f01");
    tree
}

#[test]
fn every_frame_of_a_body_can_be_made_again() {
    let tree = tree();
    for options in [options(SMALL_FRAMES), sealed(SMALL_FRAMES), BuildOptions { level: 9, ..sealed(SMALL_FRAMES) }] {
        let (bytes, _) = tree.build(&options);
        let index = read(&bytes).expect("good");
        let mut remaker = FrameRemaker::new(&index).expect("zstd");
        let mut stored = Vec::new();
        assert!(index.body_frames() > 6);
        for frame in 0..index.body_frames() {
            let range = index.frame_range(frame);
            let good = &bytes[range.start as usize..range.end as usize];
            remaker.make(&tree, frame, &mut stored).expect("unchanged");
            assert_eq!(stored, good, "frame {frame}");
            assert_eq!(make_frame(&index, &tree, frame).expect("unchanged"), good, "frame {frame}");
        }
    }
}

#[test]
fn a_frame_that_would_differ_does_not_come_out() {
    let mut tree = tree();
    let (bytes, _) = tree.build(&sealed(SMALL_FRAMES));
    let index = read(&bytes).expect("good");
    let large = index.catalog().iter().find(|row| row.entry.path.as_bytes() == b"large").expect("there").clone();
    let first = index.frame_at(large.offset).expect("there");
    tree.contents.get_mut(&large.entry.path).expect("there")[70_000] ^= 1;
    let mut remaker = FrameRemaker::new(&index).expect("zstd");
    let mut stored = b"what was there before".to_vec();
    let error = remaker.make(&tree, first + 1, &mut stored).expect_err("another content");
    assert_eq!(crate::error::Coded::code(&error), "TED-1021");
    assert!(stored.is_empty());
    remaker.make(&tree, first, &mut stored).expect("this piece is the same");
    tree.contents.remove(&large.entry.path);
    let error = remaker.make(&tree, first, &mut stored).expect_err("it is gone");
    assert!(matches!(error, RemakeError::Source(SourceError::Changed { .. })), "{error}");
    for frame in [index.body_frames(), index.rows().len() as u64, u64::MAX] {
        assert!(matches!(make_frame(&index, &tree, frame), Err(RemakeError::NoSuchFrame { .. })), "{frame}");
    }
}
