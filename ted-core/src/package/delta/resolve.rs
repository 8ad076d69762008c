//! What a delta makes of the revision that it goes from: the one place that judges its catalog.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::id::Hash;
use crate::limits::Limits;

use super::super::catalog::{content_id, entry_bytes};
use super::super::entry::{AsEntry, Entry, EntryKind, EntryPath, Mtime};
use super::super::error::PackageError;
use super::super::judge::judge_entries;
use super::columns::{Cursor, content_from, operation, says};
use super::error::DeltaError;
use super::index::DeltaIndex;

/// A revision as a delta makes it of another one: judged as a baseline's catalog is, and with the stated content id.
#[derive(Debug)]
pub struct Resolved {
    /// Its entries, in path order.
    pub entries: Vec<Entry>,
    /// The files whose content is not the one that the old revision has at their path, in path order.
    pub contents: Vec<NewContent>,
    /// Of each frame of the body: the old content that it was compressed against.
    pub(super) prefixes: Vec<Vec<OldRange>>,
}

/// A file whose content is new at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContent {
    /// Its number among the entries.
    pub entry: usize,
    /// What makes it, in order; nothing makes an empty file.
    pub operations: Vec<Operation>,
}

/// One step in making a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Copies a range of an old file.
    Copy(OldRange),
    /// Takes raw bytes of the delta's body, which may lie in several frames.
    Body {
        /// Raw bytes of the body before them.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// Content of the old revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldRange {
    /// The file's number in the old entry list.
    pub file: usize,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Resolved {
    /// The old files, by their number, that are read to make a content: those that it copies from, and those against
    /// which the frames that it takes were compressed.
    #[must_use]
    pub fn old_files(&self, index: &DeltaIndex, content: &NewContent) -> BTreeSet<usize> {
        let mut files = BTreeSet::new();
        for operation in &content.operations {
            match *operation {
                Operation::Copy(range) => drop(files.insert(range.file)),
                Operation::Body { offset, bytes } => {
                    let first = index.frame_at(offset).unwrap_or(u64::MAX);
                    let last = index.frame_at(offset + bytes.saturating_sub(1)).unwrap_or(0);
                    let prefixes = (first..=last).filter_map(|frame| self.prefixes.get(frame as usize));
                    files.extend(prefixes.flatten().map(|range| range.file));
                }
            }
        }
        files
    }
}

impl DeltaIndex {
    /// The revision that this delta makes of the one with the entries `old`. Nothing was read of either's content.
    ///
    /// # Errors
    /// [`DeltaError::OtherBase`], or [`DeltaError::Package`] for a catalog that no reader accepts.
    pub fn resolve<E: AsEntry>(&self, old: &[E], limits: &Limits) -> Result<Resolved, DeltaError> {
        let base = self.catalog().base;
        if base.entries != old.len() as u64 || content_id(old.iter().map(AsEntry::entry))? != base.content {
            return Err(DeltaError::OtherBase);
        }
        Ok(self.resolve_judged(old, limits)?)
    }

    fn resolve_judged<E: AsEntry>(&self, old: &[E], limits: &Limits) -> Result<Resolved, PackageError> {
        let columns = &self.catalog().columns;
        let disclosure = self.disclosure();
        if disclosure.entries > limits.entries_max {
            return Err(refuse("the delta leads to more entries than allowed"));
        }
        let bounds = Bounds { entries: disclosure.entries, bytes: limits.catalog_bytes_max };
        let mut resolver = Resolver::new(old, Cursor::new(columns), columns.removed.len(), bounds)?;
        let mut contents = Vec::new();
        for _ in 0..columns.rows.len() {
            if let Some(operations) = resolver.take_row()? {
                contents.push(NewContent { entry: resolver.entries.len() - 1, operations });
            }
        }
        resolver.keep_until(old.len())?;
        let prefixes = (0..self.body_frames()).map(|_| resolver.take_prefix(limits)).collect::<Result<_, _>>()?;
        let Resolver { cursor, entries, body_bytes, .. } = resolver;
        if !cursor.is_done() || body_bytes != self.root().body_raw_bytes {
            return Err(refuse("the delta's catalog does not use all that it has"));
        }
        judge_entries(&entries, limits)?;
        if entries.len() as u64 != disclosure.entries || content_id(&entries)? != disclosure.content {
            return Err(refuse("the delta does not lead to the content id that is stated"));
        }
        Ok(Resolved { entries, contents, prefixes })
    }
}

fn refuse(what: &'static str) -> PackageError {
    PackageError::Structure { what }
}

/// What there may be of the new entries.
struct Bounds {
    entries: u64,
    /// Of their encodings.
    bytes: u64,
}

/// Puts the new entries together.
struct Resolver<'a, E> {
    old: &'a [E],
    cursor: Cursor<'a>,
    /// Old entries that go, ascending; the next one is `removed[removed_taken]`.
    removed: Vec<usize>,
    removed_taken: usize,
    /// The next old entry that is not dealt with.
    next_old: usize,
    /// The old entry behind the last one that was changed.
    after_changed: usize,
    /// The path of the last row that was added.
    last_added: Vec<u8>,
    entries: Vec<Entry>,
    left: Bounds,
    /// Raw bytes of the body that operations have taken.
    body_bytes: u64,
}

impl<'a, E: AsEntry> Resolver<'a, E> {
    fn new(old: &'a [E], mut cursor: Cursor<'a>, removed: usize, left: Bounds) -> Result<Self, PackageError> {
        let mut after = 0;
        let removed = (0..removed)
            .map(|_| {
                let number = take_gap(&mut after, cursor.removed()?, old.len())?;
                Ok(number)
            })
            .collect::<Result<_, PackageError>>()?;
        Ok(Self {
            old,
            cursor,
            removed,
            removed_taken: 0,
            next_old: 0,
            after_changed: 0,
            last_added: Vec::new(),
            entries: Vec::new(),
            left,
            body_bytes: 0,
        })
    }

    fn push(&mut self, entry: Entry) -> Result<(), PackageError> {
        let Some(entries) = self.left.entries.checked_sub(1) else {
            return Err(refuse("the delta leads to more entries than stated"));
        };
        // Paths are spelled by what they share with others, so that a few bytes may become very many.
        let Some(bytes) = self.left.bytes.checked_sub(entry_bytes(&entry)) else {
            return Err(refuse("the delta leads to longer entries than allowed"));
        };
        self.left = Bounds { entries, bytes };
        self.entries.push(entry);
        Ok(())
    }

    /// Takes over the old entries before number `until` that are not removed.
    fn keep_until(&mut self, until: usize) -> Result<(), PackageError> {
        while self.next_old < until {
            if !self.take_removed() {
                self.push(self.old[self.next_old].entry().clone())?;
            }
            self.next_old += 1;
        }
        Ok(())
    }

    /// Whether the next old entry goes.
    fn take_removed(&mut self) -> bool {
        let goes = self.removed.get(self.removed_taken) == Some(&self.next_old);
        self.removed_taken += usize::from(goes);
        goes
    }

    /// Makes the next row's entry; gives what makes its content, if it brings one.
    fn take_row(&mut self) -> Result<Option<Vec<Operation>>, PackageError> {
        let row = self.cursor.rows()?;
        if row & !says::ALL != 0 || row == 0 {
            return Err(refuse("a row of the delta's catalog says what this version does not know"));
        }
        let mut entry = if row & says::ADDED == 0 { self.take_changed()? } else { self.take_added(row)? };
        self.take_attributes(row, &mut entry)?;
        let operations = self.take_content(row, &mut entry)?;
        self.push(entry)?;
        Ok(operations)
    }

    fn take_changed(&mut self) -> Result<Entry, PackageError> {
        let number = take_gap(&mut self.after_changed, self.cursor.changed()?, self.old.len())?;
        if number < self.next_old {
            return Err(refuse("the rows of the delta's catalog are out of order"));
        }
        self.keep_until(number)?;
        if self.take_removed() {
            return Err(refuse("an entry is removed and changed"));
        }
        self.next_old = number + 1;
        Ok(self.old[number].entry().clone())
    }

    fn take_added(&mut self, row: u8) -> Result<Entry, PackageError> {
        if row & (says::MODE | says::OWNER | says::MTIME) != 0 {
            return Err(refuse("an added entry says twice what it is"));
        }
        let shared = self.cursor.path_shared()? as usize;
        let length = self.cursor.path_lengths()?;
        if shared > self.last_added.len() {
            return Err(refuse("a path goes on behind one that is shorter"));
        }
        self.last_added.truncate(shared);
        self.last_added.extend_from_slice(self.cursor.path_bytes(length)?);
        let path = EntryPath::from_bytes(&self.last_added).map_err(|_| refuse("the delta adds a path that is none"))?;
        let until = self.old[self.next_old..].partition_point(|old| old.entry().path < path) + self.next_old;
        self.keep_until(until)?;
        let kind = match self.cursor.kinds()? {
            0 => EntryKind::Directory,
            1 => EntryKind::File,
            2 => EntryKind::Symlink,
            3 => EntryKind::HardLink,
            _ => return Err(refuse("the delta adds a kind of entry that this version does not know")),
        };
        let content = if kind == EntryKind::File { Hash::of(&[]) } else { Entry::NO_CONTENT };
        let mtime = Mtime { seconds: 0, nanoseconds: 0 };
        let (link, extensions) = (Vec::new(), Vec::new());
        Ok(Entry { path, kind, mode: 0, uid: 0, gid: 0, mtime, size: 0, link, content, extensions })
    }

    fn take_attributes(&mut self, row: u8, entry: &mut Entry) -> Result<(), PackageError> {
        let new = |what| row & (says::ADDED | what) != 0;
        if new(says::MODE) {
            entry.mode = self.cursor.modes()?;
        }
        if new(says::OWNER) {
            (entry.uid, entry.gid) = (self.cursor.uids()?, self.cursor.gids()?);
        }
        if new(says::MTIME) {
            entry.mtime =
                Mtime { seconds: self.cursor.mtime_seconds()?, nanoseconds: self.cursor.mtime_nanoseconds()? };
        }
        if row & says::LINK != 0 {
            let length = self.cursor.link_lengths()?;
            entry.link = self.cursor.link_bytes(length)?.to_vec();
        }
        if row & says::EXTENSIONS != 0 {
            let length = self.cursor.extension_lengths()?;
            let bytes = self.cursor.extension_bytes(length)?;
            entry.extensions = crate::codec::decode("extensions", bytes, bytes.len() as u64)?;
        }
        Ok(())
    }

    fn take_content(&mut self, row: u8, entry: &mut Entry) -> Result<Option<Vec<Operation>>, PackageError> {
        if row & says::CONTENT == 0 {
            return Ok(None);
        }
        if entry.kind != EntryKind::File {
            return Err(refuse("something that is no file has content"));
        }
        let operations = match self.cursor.content_from()? {
            content_from::NOTHING => {
                (entry.size, entry.content) = (0, Hash::of(&[]));
                Vec::new()
            }
            content_from::OLD_FILE => {
                let file = self.cursor.same_as()? as usize;
                let old = self.old_file(file)?;
                (entry.size, entry.content) = (old.size, old.content);
                vec![Operation::Copy(self.old_range(file, 0, old.size)?)]
            }
            content_from::OPERATIONS => {
                (entry.size, entry.content) = (self.cursor.sizes()?, self.cursor.contents()?);
                self.take_operations(entry.size)?
            }
            _ => return Err(refuse("content comes from where this version does not know")),
        };
        Ok(Some(operations))
    }

    fn take_operations(&mut self, size: u64) -> Result<Vec<Operation>, PackageError> {
        let count = self.cursor.operation_counts()?;
        let (mut operations, mut made) = (Vec::new(), 0_u64);
        for _ in 0..count {
            let (what, bytes) = (self.cursor.operations()?, self.cursor.operation_bytes()?);
            operations.push(match what {
                operation::BODY if bytes > 0 => {
                    let offset = self.body_bytes;
                    self.body_bytes = offset.checked_add(bytes).ok_or(refuse("an operation goes on without end"))?;
                    Operation::Body { offset, bytes }
                }
                operation::COPY => {
                    let (file, offset) = (self.cursor.copy_files()? as usize, self.cursor.copy_offsets()?);
                    Operation::Copy(self.old_range(file, offset, bytes)?)
                }
                _ => return Err(refuse("an operation does nothing, or what this version does not know")),
            });
            made = made.checked_add(bytes).ok_or(refuse("an operation goes on without end"))?;
        }
        if made == size && size > 0 { Ok(operations) } else { Err(refuse("operations make another size than stated")) }
    }

    fn take_prefix(&mut self, limits: &Limits) -> Result<Vec<OldRange>, PackageError> {
        let count = self.cursor.prefix_counts()?;
        let (mut ranges, mut total) = (Vec::new(), 0);
        for _ in 0..count {
            let (file, offset) = (self.cursor.prefix_files()? as usize, self.cursor.prefix_offsets()?);
            let bytes = u64::from(self.cursor.prefix_bytes()?);
            total += bytes;
            if total > limits.delta_prefix_bytes_max {
                return Err(refuse("a frame's prefix is longer than allowed"));
            }
            ranges.push(self.old_range(file, offset, bytes)?);
        }
        Ok(ranges)
    }

    fn old_file(&self, file: usize) -> Result<&'a Entry, PackageError> {
        let entry = self.old.get(file).map(AsEntry::entry).filter(|entry| entry.kind == EntryKind::File);
        entry.ok_or(refuse("the delta copies from what is no old file"))
    }

    fn old_range(&self, file: usize, offset: u64, bytes: u64) -> Result<OldRange, PackageError> {
        let size = self.old_file(file)?.size;
        let inside = bytes > 0 && offset.checked_add(bytes).is_some_and(|end| end <= size);
        if inside { Ok(OldRange { file, offset, bytes }) } else { Err(refuse("the delta copies beyond an old file")) }
    }
}

/// The number that lies `gap` behind `after`, which moves behind it.
fn take_gap(after: &mut usize, gap: u32, count: usize) -> Result<usize, PackageError> {
    let number = after.checked_add(gap as usize).filter(|&number| number < count);
    let number = number.ok_or(refuse("the delta speaks of an old entry that is none"))?;
    *after = number + 1;
    Ok(number)
}

impl OldRange {
    /// Its bytes, by their number in the old file.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes
    }
}
