//! What became of each path from one revision to another, for people: a delta's rows say it for machines.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::id::Hash;

use super::entry::{AsEntry, Entry, EntryKind};

/// What became of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// There was nothing.
    Added(&'a Entry),
    /// There is nothing any more.
    Removed(&'a Entry),
    /// A file of the same content is at another path now.
    Moved {
        /// What it was.
        from: &'a Entry,
        /// What it is.
        to: &'a Entry,
    },
    /// It is not what it was.
    Changed {
        /// What it was.
        from: &'a Entry,
        /// What it is.
        to: &'a Entry,
    },
}

impl<'a> Change<'a> {
    /// The entry that stands for the change: the new one where there is one.
    #[must_use]
    pub fn entry(&self) -> &'a Entry {
        match *self {
            Self::Added(entry) | Self::Removed(entry) => entry,
            Self::Moved { to, .. } | Self::Changed { to, .. } => to,
        }
    }

    /// In what the two entries differ, beside their paths.
    #[must_use]
    pub fn differs_in(&self) -> Vec<Aspect> {
        let (Self::Moved { from, to } | Self::Changed { from, to }) = *self else { return vec![] };
        let aspects = [
            (Aspect::Kind, from.kind != to.kind),
            (Aspect::Content, (from.size, from.content) != (to.size, to.content)),
            (Aspect::Link, from.link != to.link),
            (Aspect::Mode, from.mode != to.mode),
            (Aspect::Owner, (from.uid, from.gid) != (to.uid, to.gid)),
            (Aspect::Time, from.mtime != to.mtime),
            (Aspect::Extensions, from.extensions != to.extensions),
        ];
        aspects.into_iter().filter(|(_, differs)| *differs).map(|(aspect, _)| aspect).collect()
    }
}

/// In what two entries of one path can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Aspect {
    /// Whether it is a file, a folder or a link.
    Kind,
    /// What a file holds.
    Content,
    /// What a link names.
    Link,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// When it was changed.
    Time,
    /// Extended attributes.
    Extensions,
}

/// How many paths changed in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Entries that were not there before.
    pub added: u64,
    /// Entries that are there no more.
    pub removed: u64,
    /// Files of the same content at another path.
    pub moved: u64,
    /// Entries with another content, kind or link.
    pub changed: u64,
    /// Entries of which only mode, owner, time or extensions are others.
    pub attributes: u64,
}

impl ChangeCounts {
    /// Counts changes.
    #[must_use]
    pub fn of(changes: &[Change<'_>]) -> Self {
        let mut counts = Self::default();
        for change in changes {
            let whole = [Aspect::Kind, Aspect::Content, Aspect::Link];
            let count = match change {
                Change::Added(_) => &mut counts.added,
                Change::Removed(_) => &mut counts.removed,
                Change::Moved { .. } => &mut counts.moved,
                Change::Changed { .. } if change.differs_in().iter().any(|it| whole.contains(it)) => {
                    &mut counts.changed
                }
                Change::Changed { .. } => &mut counts.attributes,
            };
            *count += 1;
        }
        counts
    }
}

/// What became of each path from `old` to `new`, both in path order, in the order of the paths; what is as it was is left
/// out. A file that is gone and one of the same content that is new are one that moved; empty files are not told apart.
#[must_use]
pub fn changes<'a>(old: &'a [impl AsEntry], new: &'a [impl AsEntry]) -> Vec<Change<'a>> {
    let mut found = vec![];
    let mut at = 0;
    for entry in new.iter().map(AsEntry::entry) {
        while let Some(gone) = old.get(at).map(AsEntry::entry).filter(|old| old.path < entry.path) {
            found.push(Change::Removed(gone));
            at += 1;
        }
        match old.get(at).map(AsEntry::entry).filter(|old| old.path == entry.path) {
            Some(from) => {
                at += 1;
                if from != entry {
                    found.push(Change::Changed { from, to: entry });
                }
            }
            None => found.push(Change::Added(entry)),
        }
    }
    found.extend(old[at..].iter().map(|gone| Change::Removed(gone.entry())));
    join_moves(found)
}

/// Makes one change of each file that is gone and the first new one with its content, that of the same name if there is one.
fn join_moves(found: Vec<Change<'_>>) -> Vec<Change<'_>> {
    let is_content = |entry: &Entry| entry.kind == EntryKind::File && entry.size > 0;
    let mut gone: HashMap<Hash, Vec<usize>> = HashMap::new();
    for (number, change) in found.iter().enumerate() {
        if let Change::Removed(entry) = change
            && is_content(entry)
        {
            gone.entry(entry.content).or_default().push(number);
        }
    }
    let mut joined = vec![false; found.len()];
    let mut changes: Vec<Change<'_>> = found.clone();
    for (number, change) in found.iter().enumerate() {
        let Change::Added(to) = change else { continue };
        let Some(candidates) = gone.get_mut(&to.content).filter(|left| is_content(to) && !left.is_empty()) else {
            continue;
        };
        let same_name = |&&at: &&usize| found[at].entry().path.file_name() == to.path.file_name();
        let place = candidates.iter().position(|at| same_name(&at)).unwrap_or(0);
        let from = candidates.remove(place);
        joined[from] = true;
        changes[number] = Change::Moved { from: found[from].entry(), to };
    }
    let kept = changes.into_iter().zip(joined).filter(|(_, joined)| !joined);
    kept.map(|(change, _)| change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{EntryPath, Mtime};

    fn entry(path: &str, content: &str) -> Entry {
        Entry {
            path: EntryPath::from_bytes(path.as_bytes()).unwrap(),
            kind: if path.is_empty() { EntryKind::Directory } else { EntryKind::File },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds: 1, nanoseconds: 0 },
            size: content.len() as u64,
            link: vec![],
            content: Hash::of(content.as_bytes()),
            extensions: vec![],
        }
    }

    fn told(old: &[Entry], new: &[Entry]) -> Vec<String> {
        let tell = |change: &Change<'_>| match change {
            Change::Added(it) => format!("+{}", it.path),
            Change::Removed(it) => format!("-{}", it.path),
            Change::Moved { from, to } => format!("{}>{} {:?}", from.path, to.path, change.differs_in()),
            Change::Changed { to, .. } => format!("{} {:?}", to.path, change.differs_in()),
        };
        changes(old, new).iter().map(tell).collect()
    }

    #[test]
    fn every_path_is_told_once_in_order_and_moves_are_one_change() {
        let old =
            [entry("", ""), entry("a", "1"), entry("b", "2"), entry("c", "3"), entry("old/x", "4"), entry("z", "5")];
        let mut time = entry("a", "1");
        time.mtime.seconds = 2;
        let mut moved = entry("new/x", "4");
        moved.mode = 0o755;
        let new = [entry("", ""), time, entry("b", "22"), entry("d", "6"), moved, entry("z", "5")];
        assert_eq!(told(&old, &new), ["a [Time]", "b [Content]", "-c", "+d", "old/x>new/x [Mode]"]);
        let counts = ChangeCounts::of(&changes(&old, &new));
        assert_eq!(counts, ChangeCounts { added: 1, removed: 1, moved: 1, changed: 1, attributes: 1 });
        assert!(changes(&old, &old).is_empty());
    }

    #[test]
    fn a_content_moves_once_by_name_if_it_can_and_nothing_empty_moves() {
        let old = [entry("a/one", "x"), entry("a/two", "x"), entry("empty", "")];
        let new = [entry("b/two", "x"), entry("b/zero", "x"), entry("c/more", "x"), entry("other", "")];
        assert_eq!(told(&old, &new), ["a/two>b/two []", "a/one>b/zero []", "+c/more", "-empty", "+other"]);
    }

    #[test]
    fn one_kind_in_anothers_place_is_a_change_of_kind() {
        let (file, mut link) = (entry("a", "x"), entry("a", "x"));
        (link.kind, link.size, link.content, link.link) = (EntryKind::Symlink, 0, Entry::NO_CONTENT, b"t".to_vec());
        assert_eq!(told(&[file], &[link]), ["a [Kind, Content, Link]"]);
    }
}
