//! What a node needs of a package that it passes on.

use super::*;
use crate::package::PackagePart;

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.dir("d").file("d/small", noise(3, 3000)).file("large", noise(4, 200_000));
    tree
}

/// Reads an index as a receiver does, and gives the ranges that it asked for.
fn read_stepwise(mut reader: IndexReader, bytes: &[u8], opening: &Opening) -> (AnyIndex, Vec<(u64, u64)>) {
    let mut asked = vec![];
    loop {
        match reader.next() {
            Step::Done => return (reader.finish_any().expect("whole"), asked),
            Step::JudgeRoot => reader.open_root(opening).expect("good"),
            Step::Read { from, to } => {
                asked.push((from, to));
                reader.feed(&bytes[from as usize..to as usize]).expect("good");
            }
        }
    }
}

fn reader(bytes: &[u8]) -> IndexReader {
    IndexReader::new(bytes.len() as u64, Limits::DEFAULT).expect("long enough")
}

#[test]
fn read_tail_first_nothing_of_the_body_is_asked_for() {
    for options in [options(SMALL_FRAMES), sealed(SMALL_FRAMES)] {
        let (bytes, built) = tree().build(&options);
        let body = built.index.body_range();
        let (_, at_once) = read_stepwise(reader(&bytes), &bytes, &Opening::Unread);
        assert!(at_once[0].0 < body.end, "as ever, the end of the body comes with the first read");
        let (index, asked) = read_stepwise(reader(&bytes).tail_first(), &bytes, &Opening::Unread);
        assert_eq!(index.blind().id(), built.index.id());
        assert!(asked.iter().all(|(from, to)| *to <= body.start || *from >= body.end), "{asked:?}");
        assert!(asked.len() <= 3, "tail, what is behind the body, and the head where there is one: {asked:?}");
    }
    let mut small = Tree::new();
    small.file("a", b"one line".to_vec());
    let (bytes, _) = small.build(&options(SMALL_FRAMES));
    let (_, asked) = read_stepwise(reader(&bytes).tail_first(), &bytes, &Opening::Unread);
    assert_eq!(asked, [(0, bytes.len() as u64)], "a small one comes in one read");
}

#[test]
fn unread_nothing_is_looked_at_behind_the_hashes_and_all_of_them_are() {
    let (bytes, built) = tree().build(&options(SMALL_FRAMES));
    let (index, _) = read_stepwise(reader(&bytes), &bytes, &Opening::Unread);
    assert!(matches!(index, AnyIndex::Blind(_)), "though nothing is sealed");
    let catalog = built.index.frame_range(built.index.body_frames());
    let mut damaged = bytes.clone();
    damaged[catalog.start as usize] ^= 1;
    let judged = read_any_index(&damaged, &Limits::DEFAULT, |_: &Root, _: &[u8], _: &Signature| {
        Ok::<_, PackageError>(Opening::Unread)
    });
    judged.expect_err("damaged");
}

#[test]
fn every_byte_of_a_package_belongs_to_one_frame_or_to_none() {
    for options in [options(SMALL_FRAMES), sealed(SMALL_FRAMES)] {
        let (bytes, built) = tree().build(&options);
        let index = built.index.blind();
        let (mut at, mut frames) = (0, 0);
        while at < bytes.len() as u64 {
            let range = match index.part_at(at) {
                PackagePart::Frame { frame, range } => {
                    assert_eq!((frame, &range), (frames, &index.frame_range(frames)));
                    frames += 1;
                    range
                }
                PackagePart::Between { range } => range,
            };
            assert_eq!(range.start, at);
            assert!(range.end > at);
            for inside in [at, range.end - 1] {
                let found = match index.part_at(inside) {
                    PackagePart::Frame { range, .. } | PackagePart::Between { range } => range,
                };
                assert_eq!(found, range);
            }
            at = range.end;
        }
        assert_eq!(frames, index.rows().len() as u64);
        assert_eq!(index.part_at(at), PackagePart::Between { range: at..at });
    }
}
