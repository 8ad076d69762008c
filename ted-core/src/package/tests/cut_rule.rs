use std::collections::HashSet;

use super::super::cuts::{FrameContent, Plan};
use super::*;

/// 3,000 files of 0 to 40 KB in 30 folders, and three of 9 MB.
fn many() -> Tree {
    let mut tree = Tree::new();
    for folder in 0..30 {
        tree.dir(&format!("{folder}"));
        for number in 0..100_u64 {
            let size = noise(folder * 100 + number, 4)[0] as u64 * 160;
            tree.add(Entry { size, ..entry(&format!("{folder}/{number}"), EntryKind::File) });
        }
    }
    for large in ["0/large", "15/large", "zz"] {
        tree.add(Entry { size: 9_000_000, ..entry(large, EntryKind::File) });
    }
    tree
}

/// What each frame holds, as far as it decides its bytes.
fn frames(tree: &Tree) -> Vec<Vec<(EntryPath, u64, u32)>> {
    let entries: Vec<Entry> = tree.entries.values().cloned().collect();
    let plan = Plan::of(&entries, FRAME_BYTES);
    let mut offset = 0;
    for frame in &plan.frames {
        assert_eq!(frame.offset, offset, "frames follow each other");
        offset += u64::from(frame.raw_bytes);
    }
    assert_eq!(offset, plan.raw_bytes);
    let held = |frame: &super::super::cuts::PlannedFrame| match &frame.content {
        FrameContent::End => vec![(EntryPath::root(), u64::MAX, frame.raw_bytes)],
        FrameContent::Piece { entry, from, .. } => vec![(entries[*entry].path.clone(), *from, frame.raw_bytes)],
        FrameContent::Entries { entries: held, large_header } => held
            .clone()
            .chain(*large_header)
            .map(|index| (entries[index].path.clone(), entries[index].size, frame.raw_bytes))
            .collect(),
    };
    plan.frames.iter().map(held).collect()
}

#[test]
fn one_more_file_makes_few_frames_new() {
    let tree = many();
    let before = frames(&tree);
    let known: HashSet<_> = before.iter().collect();
    let mut worst = 0;
    for number in 0..60 {
        let mut tree = tree.clone();
        tree.add(Entry { size: 10_000, ..entry(&format!("{}/5-new-{number}", number / 2), EntryKind::File) });
        let new = frames(&tree).iter().filter(|frame| !known.contains(frame)).count();
        assert!(new >= 1);
        worst = worst.max(new);
    }
    assert!(worst <= 6, "{worst} of {} frames are new", before.len());
}

#[test]
fn frames_of_small_files_are_neither_tiny_nor_over_twice_the_frame_length() {
    let entries: Vec<Entry> = many().entries.values().cloned().collect();
    let plan = Plan::of(&entries, FRAME_BYTES);
    let small: Vec<u64> = plan
        .frames
        .iter()
        .filter(|frame| matches!(frame.content, FrameContent::Entries { large_header: None, .. }))
        .map(|frame| u64::from(frame.raw_bytes))
        .collect();
    let mean = small.iter().sum::<u64>() / small.len() as u64;
    assert!(mean > 1024 * 1024, "{mean}");
    assert!(small.iter().all(|&bytes| bytes <= 2 * u64::from(FRAME_BYTES)));
}

#[test]
fn a_touched_large_file_keeps_the_frames_of_its_content() {
    let tree = many();
    let mut touched = tree.clone();
    touched.add(Entry {
        size: 9_000_000,
        mtime: Mtime { seconds: 1, nanoseconds: 5 },
        ..entry("15/large", EntryKind::File)
    });
    let pieces = |tree: &Tree| {
        let all = frames(tree);
        all.into_iter().filter(|frame| frame.len() == 1 && frame[0].0.as_bytes() == b"15/large").collect::<Vec<_>>()
    };
    assert_eq!(pieces(&tree), pieces(&touched));
    let lengths: Vec<u32> = pieces(&tree).iter().map(|frame| frame[0].2).collect();
    assert_eq!(lengths, [4 << 20, 4 << 20, 9_000_000_u32.next_multiple_of(512) - (8 << 20)]);
}

#[test]
fn only_a_file_over_the_frame_length_has_frames_of_its_own() {
    for (size, pieces) in [(4 << 20, 0), ((4 << 20) + 1, 2), (8 << 20, 2), ((8 << 20) + 1, 3)] {
        let mut tree = Tree::new();
        tree.add(Entry { size, ..entry("f", EntryKind::File) });
        let entries: Vec<Entry> = tree.entries.values().cloned().collect();
        let plan = Plan::of(&entries, FRAME_BYTES);
        let found = plan.frames.iter().filter(|frame| matches!(frame.content, FrameContent::Piece { .. })).count();
        assert_eq!(found, pieces, "{size}");
        assert_eq!(plan.frames.last().map(|frame| frame.raw_bytes), Some(1024), "the end marker stands alone");
    }
}
