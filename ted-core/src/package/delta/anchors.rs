//! Anchors: places in a large file that its content alone picks, so that the same content is found at another offset.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Bytes that a gear hash depends on.
const GEAR_BYTES: usize = 64;
/// Anchors of one file at most (16 bytes each), give or take chance; larger files have sparser ones.
const ANCHORS_MAX: u64 = 1_000_000;
/// Places that one content may have in a file before it says nothing about where it came from.
const PLACES_MAX: usize = 8;

/// 256 numbers without pattern. They are no part of the format.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut bytes = [0; 256 * 8];
    blake3::Hasher::new_derive_key("ted 2026 gear table").finalize_xof().fill(&mut bytes);
    std::array::from_fn(|index| {
        let (words, _) = bytes.as_chunks::<8>();
        u64::from_le_bytes(words[index])
    })
});

/// How rare anchors are: the number of bits at the top of a hash that are zero at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sparseness(u32);

impl Sparseness {
    /// About one anchor per 64th of a segment, and sparser in files that would have too many.
    pub(super) fn of(file_bytes: u64, segment_bytes: u64) -> Self {
        let bytes_each = (segment_bytes / 64).max(file_bytes / ANCHORS_MAX).max(1);
        Self(bytes_each.next_power_of_two().ilog2())
    }
}

/// A place that its content picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Anchor {
    pub(super) hash: u64,
    /// The byte behind the content.
    pub(super) at: u64,
}

/// The anchors in `bytes`, which lie at `offset`: those that end behind the first [`GEAR_BYTES`].
pub(super) fn find(bytes: &[u8], offset: u64, sparseness: Sparseness, anchors: &mut Vec<Anchor>) {
    let gear = &*GEAR;
    let mask = !(u64::MAX >> sparseness.0);
    let (mut hash, mut last) = (0_u64, None);
    for (index, &byte) in bytes.iter().enumerate() {
        hash = (hash << 1).wrapping_add(gear[usize::from(byte)]);
        // A stretch of one byte has one hash everywhere: it is one anchor or none.
        if hash & mask == 0 && index >= GEAR_BYTES && last != Some(hash) {
            anchors.push(Anchor { hash, at: offset + index as u64 + 1 });
            last = Some(hash);
        }
    }
}

/// The anchors of an old file, by content.
#[derive(Debug, Default)]
pub(super) struct Anchors(Vec<Anchor>);

impl Anchors {
    pub(super) fn new(mut anchors: Vec<Anchor>) -> Self {
        anchors.sort_unstable();
        anchors.dedup();
        Self(anchors)
    }

    /// By how much old content lies behind the new one, for each way in which an anchor of `new` is found: the shifts,
    /// most votes first, at most `shifts_max`.
    pub(super) fn vote(&self, new: &[Anchor], shifts_max: usize) -> Vec<i64> {
        let mut votes = HashMap::<i64, usize>::new();
        for anchor in new {
            let from = self.0.partition_point(|old| old.hash < anchor.hash);
            let places = self.0[from..].iter().take_while(|old| old.hash == anchor.hash).take(PLACES_MAX + 1);
            if places.clone().count() <= PLACES_MAX {
                for place in places {
                    *votes.entry(place.at.cast_signed() - anchor.at.cast_signed()).or_default() += 1;
                }
            }
        }
        let mut shifts: Vec<_> = votes.into_iter().collect();
        shifts.sort_unstable_by_key(|&(shift, votes)| (std::cmp::Reverse(votes), shift.unsigned_abs(), shift));
        shifts.into_iter().map(|(shift, _)| shift).take(shifts_max).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors(bytes: &[u8]) -> Vec<Anchor> {
        let mut anchors = Vec::new();
        find(bytes, 0, Sparseness::of(bytes.len() as u64, 1 << 16), &mut anchors);
        anchors
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn content_behind_an_insertion_votes_for_its_shift() {
        let old = noise(300_000);
        let new = [&[7; 12_345], &old[..]].concat();
        let votes = Anchors::new(anchors(&old)).vote(&anchors(&new), 4);
        assert_eq!(votes, [-12_345]);
    }

    #[test]
    fn there_is_about_one_anchor_for_a_64th_of_a_segment() {
        let found = anchors(&noise(1 << 20)).len();
        assert!((512..2048).contains(&found), "{found} of about 1024");
    }

    #[test]
    fn a_stretch_of_one_byte_has_at_most_one_anchor() {
        for byte in 0..=255 {
            assert!(anchors(&[byte; 10_000]).len() <= 1);
        }
    }

    #[test]
    fn large_files_have_no_more_than_about_a_million_anchors() {
        for (bytes, each) in [(1_u64 << 31, 16), (64_u64 << 30, 17), (2_u64 << 40, 22)] {
            assert_eq!(Sparseness::of(bytes, 4 << 20), Sparseness(each), "{bytes}");
        }
    }
}
