//! The contents of files in a target, for whoever makes new ones from them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::extract::disk::{self, Facts, Found};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::target::Target;
use crate::id::Hash;
use crate::limits::Limits;
use crate::package::delta::Files;
use crate::package::{Entry, EntryKind};

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// The contents of the files of a revision that was extracted to a target. Nothing is read of a file that does not
/// have the size and the BLAKE3 that its entry states: it is read through once, and afterwards counts for as long as
/// it is the same file with the same size and times.
pub struct TargetFiles<'a> {
    entries: &'a [Entry],
    folders: Mutex<Folders<'a>>,
    checked: Mutex<HashMap<usize, Checked>>,
    /// The file that was read last: pieces of one come together.
    last: Mutex<Option<(usize, Arc<File>)>>,
}

/// What became of a file's check.
#[derive(Clone, Copy)]
enum Checked {
    /// It holds what it should, and these were its facts.
    Right(Stamp),
    Wrong,
}

/// What changes when a file is changed or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: (u32, u32, u64),
    size: u64,
    mtime: (i64, u32),
}

impl From<&Facts> for Stamp {
    fn from(facts: &Facts) -> Self {
        let mtime = (facts.mtime.seconds, facts.mtime.nanoseconds);
        Self { identity: facts.identity, size: facts.size, mtime }
    }
}

impl<'a> TargetFiles<'a> {
    /// The files that stand in `target` for `entries`, a revision's list; `None` where there is no target.
    ///
    /// # Errors
    /// [`ExtractError`] when the target is none.
    pub fn open(target: &Target, entries: &'a [Entry], limits: &Limits) -> Result<Option<Self>, ExtractError> {
        let Some(root) = target.existing()? else { return Ok(None) };
        let folders = Mutex::new(Folders::new(root, Access::Look, limits.open_folders_max));
        Ok(Some(Self { entries, folders, checked: Mutex::default(), last: Mutex::default() }))
    }

    /// The entries that it was opened with.
    #[must_use]
    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Whether a file with the size and the time of entry number `file` stands in its place. Nothing is read.
    #[must_use]
    pub fn looks_right(&self, file: usize) -> bool {
        let Some(entry) = self.file_entry(file) else { return false };
        let facts = self.folder_of(entry).and_then(|(folder, name)| disk::facts_at(&*folder, name));
        matches!(facts, Ok(Some(facts))
            if facts.found == Found::File && facts.size == entry.size && facts.mtime == entry.mtime)
    }

    /// Whether the content of entry number `file` stands in its place: it is read through, unless it was before.
    #[must_use]
    pub fn holds(&self, file: usize) -> bool {
        self.opened(file).is_ok()
    }

    /// The file of entry number `file`, checked.
    fn opened(&self, file: usize) -> io::Result<Arc<File>> {
        if let Some((_, opened)) = lock(&self.last).as_ref().filter(|(last, _)| *last == file) {
            return Ok(Arc::clone(opened));
        }
        let entry = self.file_entry(file).ok_or(io::ErrorKind::NotFound)?;
        let known = lock(&self.checked).get(&file).copied();
        if matches!(known, Some(Checked::Wrong)) {
            return Err(not_as_left());
        }
        let checked = self.open_checked(entry, known);
        let outcome = checked.as_ref().map_or(Checked::Wrong, |(_, stamp)| Checked::Right(*stamp));
        lock(&self.checked).insert(file, outcome);
        let opened = Arc::new(checked?.0);
        *lock(&self.last) = Some((file, Arc::clone(&opened)));
        Ok(opened)
    }

    fn open_checked(&self, entry: &'a Entry, known: Option<Checked>) -> io::Result<(File, Stamp)> {
        let (folder, name) = self.folder_of(entry)?;
        let mut file = disk::open_file(&folder, name)?;
        let facts = disk::facts_of(&file)?;
        let stamp = Stamp::from(&facts);
        if facts.found != Found::File || facts.size != entry.size {
            return Err(not_as_left());
        }
        let right = match known {
            Some(Checked::Right(before)) => before == stamp,
            _ => content(&mut file)? == entry.content,
        };
        if right { Ok((file, stamp)) } else { Err(not_as_left()) }
    }

    fn folder_of(&self, entry: &'a Entry) -> io::Result<(Arc<cap_std::fs::Dir>, &'a [u8])> {
        let (parent, name) = split(entry.path.as_bytes());
        Ok((lock(&self.folders).get(parent)?, name))
    }

    fn file_entry(&self, file: usize) -> Option<&'a Entry> {
        self.entries.get(file).filter(|entry| entry.kind == EntryKind::File)
    }
}

impl Files for TargetFiles<'_> {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.opened(file)?.read_exact_at(buf, offset)
    }
}

fn content(file: &mut File) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            length => {
                hasher.update(&buffer[..length]);
            }
        }
    }
}

fn not_as_left() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not the file that was extracted")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
