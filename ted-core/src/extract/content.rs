//! BLAKE3 of a file whose pieces come in any order and from several threads.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, max_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use crate::id::Hash;

/// Pieces are cut at multiples of this, and what is left at their ends waits for its neighbour. A power of two.
const GROUP_BYTES: u64 = 64 * 1024;

/// Hashes one content of known length.
///
/// A piece's aligned middle is hashed at once, as subtrees of BLAKE3's tree, outside the lock; only its two ends,
/// shorter than a group each, are kept until the group is whole.
pub(super) struct ContentHasher {
    bytes_total: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subtrees: BTreeMap<u64, (u64, ChainingValue)>,
    groups: BTreeMap<u64, Group>,
}

struct Group {
    bytes: Vec<u8>,
    missing: usize,
}

impl ContentHasher {
    pub(super) fn new(bytes_total: u64) -> Self {
        Self { bytes_total, state: Mutex::default() }
    }

    /// Takes the bytes at `offset`. Each byte must be given once; the content is wrong otherwise, and so is the hash.
    pub(super) fn add(&self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let first = offset.next_multiple_of(GROUP_BYTES).min(end);
        let last = if end == self.bytes_total { end } else { (end / GROUP_BYTES * GROUP_BYTES).max(first) };
        let (head, rest) = bytes.split_at((first - offset) as usize);
        let (middle, tail) = rest.split_at((last - first) as usize);
        // A content of one group has no subtrees: its hash is made of its bytes.
        if self.bytes_total <= GROUP_BYTES {
            self.add_to_group(offset, bytes);
            return;
        }
        self.add_groups(first, middle);
        self.add_to_group(offset, head);
        self.add_to_group(last, tail);
    }

    /// The hash, if all bytes were given.
    pub(super) fn finish(&self) -> Option<Hash> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bytes_total == 0 {
            return Some(Hash::of(b""));
        }
        if self.bytes_total <= GROUP_BYTES {
            let group = state.groups.get(&0)?;
            return (group.missing == 0).then(|| Hash::of(&group.bytes));
        }
        let left = left_subtree_len(self.bytes_total);
        let left_value = state.subtree(0, left)?;
        let right_value = state.subtree(left, self.bytes_total - left)?;
        Some(merge_subtrees_root(&left_value, &right_value, Mode::Hash).into())
    }

    /// Hashes whole groups as the largest subtrees that begin where they begin.
    fn add_groups(&self, mut offset: u64, mut bytes: &[u8]) {
        let mut values = Vec::new();
        while !bytes.is_empty() {
            let left = bytes.len() as u64;
            let reaches_end = offset + left == self.bytes_total;
            let mut length = max_subtree_len(offset).unwrap_or(u64::MAX).min(left);
            if !(reaches_end && length == left && left <= GROUP_BYTES) {
                length = 1 << length.ilog2();
            }
            // The whole content is no subtree of anything.
            if length == self.bytes_total {
                length /= 2;
            }
            let (now, rest) = bytes.split_at(length as usize);
            values.push((offset, length, subtree_value(offset, now)));
            offset += length;
            bytes = rest;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (start, length, value) in values {
            state.subtrees.insert(start, (length, value));
        }
    }

    fn add_to_group(&self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = offset / GROUP_BYTES * GROUP_BYTES;
        let length = GROUP_BYTES.min(self.bytes_total - start) as usize;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let group = state.groups.entry(start).or_insert_with(|| Group { bytes: vec![0; length], missing: length });
        let from = (offset - start) as usize;
        group.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        group.missing = group.missing.saturating_sub(bytes.len());
        if group.missing == 0 && self.bytes_total > GROUP_BYTES {
            let value = subtree_value(start, &group.bytes);
            state.groups.remove(&start);
            state.subtrees.insert(start, (length as u64, value));
        }
    }
}

impl State {
    /// The value of the subtree over `length` bytes from `start`, merged from smaller ones where it was not hashed whole.
    fn subtree(&self, start: u64, length: u64) -> Option<ChainingValue> {
        match self.subtrees.get(&start) {
            Some((known, value)) if *known == length => return Some(*value),
            _ if length <= GROUP_BYTES => return None,
            _ => {}
        }
        let left = left_subtree_len(length);
        let left_value = self.subtree(start, left)?;
        let right_value = self.subtree(start + left, length - left)?;
        Some(merge_subtrees_non_root(&left_value, &right_value, Mode::Hash))
    }
}

fn subtree_value(offset: u64, bytes: &[u8]) -> ChainingValue {
    Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn any_cuts_in_any_order_give_blake3_of_the_whole() {
        let group = GROUP_BYTES as usize;
        // One chunk; a group and its neighbours; a power of two of groups; several with a rest.
        for total in [0, 1, 1024, 1025, group - 1, group, group + 1, 4 * group, 4 * group + 1, 11 * group + 777] {
            let content = noise(total);
            for piece in [100, 1024, group - 1, group, group + 512, 3 * group, 4 * group, 64 * group] {
                if total / piece > 2000 {
                    continue;
                }
                let hasher = ContentHasher::new(total as u64);
                let mut pieces: Vec<_> = content.chunks(piece).enumerate().collect();
                pieces.reverse();
                let middle = pieces.len() / 2;
                pieces.rotate_left(middle);
                for (number, bytes) in pieces {
                    hasher.add((number * piece) as u64, bytes);
                }
                assert_eq!(hasher.finish(), Some(Hash::of(&content)), "{total} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_content_that_lacks_a_piece_has_no_hash() {
        let content = noise(3 * GROUP_BYTES as usize);
        let hasher = ContentHasher::new(content.len() as u64);
        hasher.add(0, &content[..100]);
        hasher.add(101, &content[101..]);
        assert_eq!(hasher.finish(), None);
    }
}
