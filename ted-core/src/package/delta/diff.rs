//! What differs between two entry lists.

use std::collections::HashMap;

use crate::id::Hash;

use super::super::entry::{AsEntry, Entry, EntryKind};

/// The difference of a revision from an earlier one, both in path order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Numbers of old entries whose path is gone, or names another kind of thing.
    pub removed: Vec<usize>,
    /// New entries that are not in the old revision as they are, in path order.
    pub rows: Vec<DiffRow>,
}

/// A new entry that is added or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffRow {
    /// Its number in the new list.
    pub new: usize,
    /// The old entry of the same path and kind; none if it is added.
    pub old: Option<usize>,
    /// Where its content comes from.
    pub content: DiffContent,
}

/// Where the content of a new entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffContent {
    /// There is none to bring: it is the one of `old`, or the entry is no file.
    Kept,
    /// It is empty.
    Empty,
    /// It is the content of this old file.
    Same(usize),
    /// It is new, and resembles that of this old file, if any.
    New(Option<usize>),
}

impl Diff {
    /// The difference of `new` from `old`; both have content hashes.
    #[must_use]
    pub fn of(old: &[impl AsEntry], new: &[impl AsEntry]) -> Self {
        let mut diff = Self { removed: Vec::new(), rows: Vec::new() };
        let contents = Contents::of(old);
        let mut at = 0;
        for (number, row) in new.iter().enumerate() {
            let entry = row.entry();
            while old.get(at).is_some_and(|old| old.entry().path < entry.path) {
                diff.removed.push(at);
                at += 1;
            }
            let mut same_path = old.get(at).map(AsEntry::entry).filter(|old| old.path == entry.path).map(|_| at);
            at += usize::from(same_path.is_some());
            if let Some(other) = same_path.filter(|&old_at| old[old_at].entry().kind != entry.kind) {
                diff.removed.push(other);
                same_path = None;
            }
            if same_path.is_some_and(|same| old[same].entry() == entry) {
                continue;
            }
            let content = contents.find(old, same_path, entry);
            diff.rows.push(DiffRow { new: number, old: same_path, content });
        }
        diff.removed.extend(at..old.len());
        diff
    }
}

/// The old files by what may lead to them.
struct Contents<'a> {
    by_hash: HashMap<Hash, usize>,
    by_name: HashMap<&'a [u8], Vec<usize>>,
    by_shape: HashMap<Vec<u8>, Vec<usize>>,
}

impl<'a> Contents<'a> {
    fn of(old: &'a [impl AsEntry]) -> Self {
        let mut contents = Self { by_hash: HashMap::new(), by_name: HashMap::new(), by_shape: HashMap::new() };
        for (number, entry) in old.iter().map(AsEntry::entry).enumerate().filter(|(_, entry)| entry.size > 0) {
            contents.by_hash.entry(entry.content).or_insert(number);
            let name = entry.path.file_name().unwrap_or_default();
            contents.by_name.entry(name).or_default().push(number);
            contents.by_shape.entry(without_digits(name)).or_default().push(number);
        }
        contents
    }

    fn find(&self, old: &[impl AsEntry], same_path: Option<usize>, entry: &Entry) -> DiffContent {
        let before = same_path.map(|at| old[at].entry());
        if entry.kind != EntryKind::File || before.is_some_and(|before| before.content == entry.content) {
            return DiffContent::Kept;
        }
        if entry.size == 0 {
            return DiffContent::Empty;
        }
        if let Some(&same) = self.by_hash.get(&entry.content) {
            return DiffContent::Same(same);
        }
        if let Some(same_path) = same_path.filter(|&at| old[at].entry().size > 0) {
            return DiffContent::New(Some(same_path));
        }
        let name = entry.path.file_name().unwrap_or_default();
        let named = self.by_name.get(name).or_else(|| self.by_shape.get(&without_digits(name)));
        let nearest = named.and_then(|found| nearest(old, found, entry));
        DiffContent::New(nearest)
    }
}

/// A name with each run of digits as one, so that `libx-1.2.so` leads to `libx-1.10.so`.
fn without_digits(name: &[u8]) -> Vec<u8> {
    let mut shape = Vec::with_capacity(name.len());
    for &byte in name {
        let byte = if byte.is_ascii_digit() { b'0' } else { byte };
        if byte != b'0' || shape.last() != Some(&b'0') {
            shape.push(byte);
        }
    }
    shape
}

/// Candidates that are looked at for one file: enough for `index.html` in the folders around.
const CANDIDATES_MAX: usize = 64;

/// The one that shares the longest end of its path with `entry`, then the longest begin, then the nearest size.
fn nearest(old: &[impl AsEntry], found: &[usize], entry: &Entry) -> Option<usize> {
    let path = entry.path.as_bytes();
    let after = found.partition_point(|&number| old[number].entry().path < entry.path);
    let from = after.saturating_sub(CANDIDATES_MAX / 2);
    let around = &found[from..found.len().min(from + CANDIDATES_MAX)];
    around.iter().copied().min_by_key(|&number| {
        let other = old[number].entry();
        let bytes = other.path.as_bytes();
        let end = path.iter().rev().zip(bytes.iter().rev()).take_while(|(left, right)| left == right).count();
        let begin = path.iter().zip(bytes).take_while(|(left, right)| left == right).count();
        (std::cmp::Reverse(end), std::cmp::Reverse(begin), other.size.abs_diff(entry.size), number)
    })
}
