//! Several sources as one tree: each below its own prefix.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{PoisonError, RwLock};

use crate::package::{
    Asked, Entry, EntryKind, EntryPath, PathError, SkipReason, Skipped, Source, SourceError, SourceFile,
};

use super::Watched;
use crate::distributor::seen::Mark;

/// The permissions of a folder that only a prefix speaks of.
const FOLDER_MODE: u32 = 0o755;

/// One of the sources of a tree.
pub(in crate::distributor) struct Part {
    /// The folder that it fills.
    pub(in crate::distributor) prefix: EntryPath,
    /// How it is spoken of.
    pub(in crate::distributor) name: String,
    /// The source itself.
    pub(in crate::distributor) source: Box<dyn Watched>,
}

/// All sources of a Distribution as one.
pub(in crate::distributor) struct SourceTree {
    parts: Vec<Part>,
    /// Which part each path is of, once it was listed; empty where there is only one, without a prefix.
    owners: RwLock<HashMap<EntryPath, usize>>,
}

impl SourceTree {
    pub(in crate::distributor) fn new(parts: Vec<Part>) -> Self {
        Self { parts, owners: RwLock::default() }
    }

    /// What each of `entries` was when it was listed; `None` for what is no file.
    pub(in crate::distributor) fn marks<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Option<Mark>> {
        let mark = |entry: &Entry| {
            let part = self.owner(&entry.path)?;
            part.source.mark(&within(&part.prefix, &entry.path)?)
        };
        entries.into_iter().map(mark).collect()
    }

    /// The one part that is all of the tree.
    fn only(&self) -> Option<&Part> {
        match self.parts.as_slice() {
            [part] if part.prefix.is_root() => Some(part),
            _ => None,
        }
    }

    fn owner(&self, path: &EntryPath) -> Option<&Part> {
        if let Some(only) = self.only() {
            return Some(only);
        }
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        owners.get(path).map(|&part| &self.parts[part])
    }

    /// The entries of one source. What it asks of whoever extracts goes to `asked`.
    fn list(&self, number: usize, asked: &mut Asked, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Found>, SourceError> {
        let Part { prefix, source, .. } = &self.parts[number];
        let mut told = |skipped: Skipped| skip(Skipped { path: below(prefix, &skipped.path), ..skipped });
        let mut entries = source.entries(&mut told).map_err(|error| renamed(error, prefix))?;
        if let Some(root) = entries.first_mut() {
            asked.join(Asked::take(root));
        }
        let mut found = Vec::with_capacity(entries.len() + 1);
        let root = entries.first().cloned();
        let mut refused = Vec::new();
        for entry in entries {
            let path = entry.path.to_string();
            match placed(prefix, entry) {
                Ok(entry) => found.push(Found { entry, made_up: false, part: number }),
                Err(reason) => {
                    refused.push(Skipped { path: below(prefix, &path), reason: SkipReason::Path(reason) });
                }
            }
        }
        if !refused.is_empty() {
            return Err(SourceError::Refused(refused));
        }
        let ways = std::iter::successors(prefix.parent(), EntryPath::parent);
        if let Some(root) = root {
            let made_up = |path| Entry { path, mode: FOLDER_MODE, extensions: vec![], ..root.clone() };
            found.extend(ways.map(|path| Found { entry: made_up(path), made_up: true, part: number }));
        }
        Ok(found)
    }
}

/// An entry of the tree, where it was found.
struct Found {
    entry: Entry,
    /// Whether only a prefix speaks of it.
    made_up: bool,
    part: usize,
}

impl Source for SourceTree {
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        if let Some(only) = self.only() {
            return only.source.entries(skip);
        }
        let (mut all, mut asked) = (Vec::new(), Asked::default());
        for number in 0..self.parts.len() {
            all.append(&mut self.list(number, &mut asked, skip)?);
        }
        all.sort_by(|left, right| {
            let key = |found: &Found| (found.made_up, found.part);
            left.entry.path.cmp(&right.entry.path).then(key(left).cmp(&key(right)))
        });
        let mut kept: Vec<Found> = Vec::with_capacity(all.len());
        for found in all {
            match kept.last().filter(|last| last.entry.path == found.entry.path) {
                None => kept.push(found),
                // Folders are one; what the first source says of them holds.
                Some(last) if last.entry.kind == EntryKind::Directory && found.entry.kind == EntryKind::Directory => {}
                Some(last) => {
                    let name = |part: usize| self.parts[part].name.clone();
                    let (first, second) = (name(last.part), name(found.part));
                    return Err(SourceError::Overlap { path: found.entry.path, first, second });
                }
            }
        }
        *self.owners.write().unwrap_or_else(PoisonError::into_inner) =
            kept.iter().map(|found| (found.entry.path.clone(), found.part)).collect();
        // Only the root of the whole says it.
        if let Some(root) = kept.first_mut() {
            asked.put_what_fits(&mut root.entry);
        }
        Ok(kept.into_iter().map(|found| found.entry).collect())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        let changed = || SourceError::Changed { path: entry.path.clone() };
        let part = self.owner(&entry.path).ok_or_else(changed)?;
        if part.prefix.is_root() {
            return part.source.open(entry, offset);
        }
        let path = within(&part.prefix, &entry.path).ok_or_else(changed)?;
        let opened = part.source.open(&Entry { path, ..entry.clone() }, offset);
        let inner = opened.map_err(|error| renamed(error, &part.prefix))?;
        Ok(Box::new(PlacedFile { inner, prefix: part.prefix.clone() }))
    }
}

/// A file that names itself, when it changes, by where it lies in the tree.
struct PlacedFile<'a> {
    inner: Box<dyn SourceFile + 'a>,
    prefix: EntryPath,
}

impl Read for PlacedFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf)
    }
}

impl SourceFile for PlacedFile<'_> {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        self.inner.finish().map_err(|error| renamed(error, &self.prefix))
    }
}

fn joined(prefix: &EntryPath, path: &[u8]) -> Result<EntryPath, PathError> {
    match (prefix.is_root(), path.is_empty()) {
        (true, _) => EntryPath::from_bytes(path),
        (_, true) => Ok(prefix.clone()),
        _ => EntryPath::from_bytes(&[prefix.as_bytes(), b"/", path].concat()),
    }
}

fn placed(prefix: &EntryPath, entry: Entry) -> Result<Entry, PathError> {
    let path = joined(prefix, entry.path.as_bytes())?;
    let link = match entry.kind {
        EntryKind::HardLink => joined(prefix, &entry.link)?.as_bytes().to_vec(),
        _ => entry.link,
    };
    Ok(Entry { path, link, ..entry })
}

/// `path` without `prefix` before it.
fn within(prefix: &EntryPath, path: &EntryPath) -> Option<EntryPath> {
    if prefix.is_root() {
        return Some(path.clone());
    }
    let rest = path.as_bytes().strip_prefix(prefix.as_bytes())?;
    EntryPath::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest)).ok()
}

fn below(prefix: &EntryPath, path: &str) -> String {
    if prefix.is_root() { path.to_owned() } else { format!("{prefix}/{path}") }
}

/// The error of a part, with paths as they are in the tree.
fn renamed(error: SourceError, prefix: &EntryPath) -> SourceError {
    let path = |path: EntryPath| joined(prefix, path.as_bytes()).unwrap_or(path);
    match error {
        SourceError::Changed { path: inner } => SourceError::Changed { path: path(inner) },
        SourceError::Read { path: inner, source } => SourceError::Read { path: path(inner), source },
        SourceError::Refused(skipped) => SourceError::Refused(
            skipped.into_iter().map(|it| Skipped { path: below(prefix, &it.path), ..it }).collect(),
        ),
        other => other,
    }
}
