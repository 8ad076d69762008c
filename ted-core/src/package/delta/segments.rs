//! How a large file differs from its counterpart, segment by segment.

use std::io;
use std::ops::Range;

use super::super::content::{ContentHasher, PieceHash};
use super::anchors::{self, Anchors, Sparseness};
use super::files::Files;
use super::room::Room;

/// Shifts that one segment tries: the most voted for, and two that need no vote.
const SHIFTS_MAX: usize = 4;
/// Bytes that are compared at once before the ends of an equal run are looked for.
const COMPARE_BYTES: usize = 64;

/// A file of either revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRef {
    pub(super) number: usize,
    pub(super) bytes: u64,
}

/// A stretch of a new file. Offsets count from the file's begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) bytes: u64,
    /// The counterpart's content at `from` plus this many bytes is the same.
    pub(super) copy: Option<i64>,
}

/// What is known of one segment of a new file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) hash: PieceHash,
    /// The stretches that it consists of, in order.
    pub(super) stretches: Vec<Stretch>,
    /// Where its content most likely was: what most anchors say.
    pub(super) shift: Option<i64>,
}

/// One large file, and its counterpart.
pub(super) struct LargeFile<'a> {
    pub(super) segment_bytes: u64,
    pub(super) new: FileRef,
    pub(super) new_files: &'a dyn Files,
    pub(super) old: Option<FileRef>,
    pub(super) old_files: &'a dyn Files,
}

impl LargeFile<'_> {
    /// Segments of a file of this length.
    pub(super) fn segments(&self, bytes: u64) -> usize {
        bytes.div_ceil(self.segment_bytes) as usize
    }

    /// The anchors in segment number `segment` of the counterpart.
    pub(super) fn old_anchors(&self, room: &mut Room, segment: usize) -> io::Result<Vec<anchors::Anchor>> {
        let mut found = Vec::new();
        if let Some(old) = self.old {
            let range = self.range(segment, old.bytes);
            let bytes = read(self.old_files, old, &range, &mut room.before)?;
            anchors::find(bytes, range.start, Sparseness::of(old.bytes, self.segment_bytes), &mut found);
        }
        Ok(found)
    }

    /// Compares segment number `segment` with what the counterpart has of it.
    pub(super) fn compare(&self, room: &mut Room, segment: usize, anchors: &Anchors) -> io::Result<Segment> {
        let range = self.range(segment, self.new.bytes);
        let content = read(self.new_files, self.new, &range, &mut room.raw)?;
        let hash = ContentHasher::piece(content, range.start, self.new.bytes);
        let Some(old) = self.old else {
            return Ok(Segment { hash, stretches: vec![fresh(&range)], shift: None });
        };
        let mut found = Vec::new();
        anchors::find(content, range.start, Sparseness::of(old.bytes, self.segment_bytes), &mut found);
        let mut shifts = anchors.vote(&found, SHIFTS_MAX);
        let shift = shifts.first().copied();
        // Nothing moved; or what is behind the change moved as a whole. Content without anchors is found so.
        shifts.extend([0, old.bytes.cast_signed() - self.new.bytes.cast_signed()]);
        let mut stretches = vec![fresh(&range)];
        for (index, &shift) in shifts.iter().enumerate() {
            if !shifts[..index].contains(&shift) {
                stretches = self.copy_equal((old, shift), stretches, (content, range.start), &mut room.before)?;
            }
        }
        Ok(Segment { hash, stretches, shift })
    }

    /// Takes out of the fresh ones among `stretches` what the counterpart has at this shift.
    fn copy_equal(
        &self,
        (old, shift): (FileRef, i64),
        stretches: Vec<Stretch>,
        (content, start): (&[u8], u64),
        buffer: &mut Vec<u8>,
    ) -> io::Result<Vec<Stretch>> {
        let run_bytes_min = (self.segment_bytes / 64) as usize;
        let mut result = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            let there = shifted(stretch.from..stretch.from + stretch.bytes, shift, old.bytes);
            if stretch.copy.is_some() || there.end - there.start < run_bytes_min as u64 {
                result.push(stretch);
                continue;
            }
            let buffer = read(self.old_files, old, &there, buffer)?;
            let here = there.start.wrapping_add_signed(-shift);
            let beside = &content[(here - start) as usize..][..buffer.len()];
            let mut from = stretch.from;
            for run in equal_runs(beside, buffer, run_bytes_min) {
                let at = here + run.start as u64;
                if at > from {
                    result.push(Stretch { from, bytes: at - from, copy: None });
                }
                result.push(Stretch { from: at, bytes: run.len() as u64, copy: Some(shift) });
                from = at + run.len() as u64;
            }
            let end = stretch.from + stretch.bytes;
            if end > from {
                result.push(Stretch { from, bytes: end - from, copy: None });
            }
        }
        Ok(result)
    }

    fn range(&self, segment: usize, bytes: u64) -> Range<u64> {
        let from = segment as u64 * self.segment_bytes;
        from..bytes.min(from + self.segment_bytes)
    }
}

/// Where `range` of a new file lies in an old one of `old_bytes` at this shift, as far as it lies in it.
pub(super) fn shifted(range: Range<u64>, shift: i64, old_bytes: u64) -> Range<u64> {
    let place = |at: u64| (i128::from(at) + i128::from(shift)).clamp(0, i128::from(old_bytes)) as u64;
    place(range.start)..place(range.end)
}

/// The content of `range`, in `buffer`.
fn read<'a>(files: &dyn Files, file: FileRef, range: &Range<u64>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    // The buffer's old bytes need no clearing: all of them are written.
    buffer.resize((range.end - range.start) as usize, 0);
    files.read_at(file.number, range.start, buffer)?;
    Ok(buffer)
}

fn fresh(range: &Range<u64>) -> Stretch {
    Stretch { from: range.start, bytes: range.end - range.start, copy: None }
}

/// The runs of at least `bytes_min` bytes in which `left` and `right`, of one length, are the same.
fn equal_runs(left: &[u8], right: &[u8], bytes_min: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut end_run = |start: usize, end: usize| {
        if end - start >= bytes_min.max(1) {
            runs.push(start..end);
        }
    };
    while at < left.len() {
        let to = left.len().min(at + COMPARE_BYTES);
        if left[at..to] == right[at..to] {
            at = to;
            continue;
        }
        for index in at..to {
            if left[index] != right[index] {
                end_run(start, index);
                start = index + 1;
            }
        }
        at = to;
    }
    end_run(start, left.len());
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_runs_end_where_bytes_differ() {
        let left: Vec<u8> = (0..1000_u32).map(|index| (index * 7) as u8).collect();
        let mut right = left.clone();
        for at in [0, 100, 163, 164, 999] {
            right[at] ^= 1;
        }
        assert_eq!(equal_runs(&left, &right, 1), [1..100, 101..163, 165..999]);
        assert_eq!(equal_runs(&left, &right, 62), [1..100, 101..163, 165..999]);
        assert_eq!(equal_runs(&left, &left, 1000).first(), Some(&(0..1000)));
        assert!(equal_runs(&left, &left, 1001).is_empty());
        assert!(equal_runs(&[], &[], 0).is_empty());
    }

    #[test]
    fn shifted_ranges_stay_in_the_old_file() {
        assert_eq!(shifted(10..20, -15, 100), 0..5);
        assert_eq!(shifted(10..20, 85, 100), 95..100);
        assert_eq!(shifted(10..20, i64::MAX, 100), 100..100);
        assert_eq!(shifted(10..20, i64::MIN, 100), 0..0);
    }
}
