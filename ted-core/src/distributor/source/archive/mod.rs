//! A tar file as a source, perhaps compressed. It is never unpacked by trusting it: its entries are judged one by one as
//! they come, and only their content goes to the spool, under no name of theirs.

mod error;
mod header;
#[cfg(test)]
mod hostile;
mod input;
mod members;
mod pax;
mod reader;
#[cfg(test)]
pub(in crate::distributor::source) mod write;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::folder::Stamp;
use super::spool::SpoolFile;
use super::{Progress, Selection, Unreadable, Watched};
use crate::distributor::seen::Mark;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::package::{Entry, EntryKind, EntryPath, SkipReason, Skipped, Source, SourceError, SourceFile};

use error::ArchiveError;
use input::{Packed, Packing, Plain};
use members::Members;

/// A tar file.
pub(in crate::distributor) struct TarSource {
    options: TarOptions,
    state: Mutex<Option<Opened>>,
}

/// What a tar source is told.
#[derive(Clone)]
pub(in crate::distributor) struct TarOptions {
    /// Where it lies.
    pub(in crate::distributor) file: PathBuf,
    /// How it is spoken of.
    pub(in crate::distributor) place: String,
    /// Where its content goes while it is unpacked.
    pub(in crate::distributor) spool: PathBuf,
    pub(in crate::distributor) selection: Selection,
    pub(in crate::distributor) unreadable: Unreadable,
    pub(in crate::distributor) limits: Limits,
    pub(in crate::distributor) progress: Progress,
    /// What was listed before, of files as they still are.
    pub(in crate::distributor) known: Arc<KnownArchives>,
    /// What the selection is, as text: two that are the same have the same.
    pub(in crate::distributor) selected: String,
    pub(in crate::distributor) now: UnixMillis,
}

/// Listings of compressed tar files, so that looking whether one has changed does not unpack it.
#[derive(Default)]
pub(in crate::distributor) struct KnownArchives(Mutex<HashMap<(PathBuf, String), Arc<Listing>>>);

/// Listings that are kept.
const KNOWN_MAX: usize = 16;

/// What is known of one tar file without its content.
struct Listing {
    stamp: Stamp,
    entries: Vec<Entry>,
    skipped: Vec<(String, &'static str)>,
    /// Where the content of each file begins.
    places: HashMap<EntryPath, u64>,
}

/// A tar file that was listed.
struct Opened {
    listing: Arc<Listing>,
    /// What content is read from, once it is there.
    contents: Option<Contents>,
}

#[derive(Clone)]
struct Contents {
    file: Arc<File>,
    /// What the file has to stay, unless nobody else can change it.
    stamp: Option<Stamp>,
}

impl TarSource {
    pub(in crate::distributor) fn new(options: TarOptions) -> Self {
        Self { options, state: Mutex::default() }
    }

    fn open_file(&self) -> Result<(File, Stamp), ArchiveError> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let failed = |source| ArchiveError::Read { place: self.options.place.clone(), source };
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.options.file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is no file")));
        }
        Ok((file, Stamp::of(&metadata)))
    }

    /// Reads the whole archive.
    fn read(&self, file: File, stamp: Stamp) -> Result<Opened, SourceError> {
        let TarOptions { place, spool, selection, unreadable, limits, progress, .. } = &self.options;
        let failed = |source| ArchiveError::Read { place: place.clone(), source };
        let packing = Packing::of(&file).map_err(failed)?;
        let members = Members::new(limits, selection, *unreadable);
        let (members, unpacked) = if packing == Packing::None {
            let mut input = Plain { file: &file, bytes: stamp.size(), at: 0, place };
            (reader::read(&mut input, limits, members)?, None)
        } else {
            let spool = SpoolFile::unnamed(spool, limits);
            let spool = spool.map_err(|source| ArchiveError::Spool { place: place.clone(), source })?;
            let told = |bytes| progress(place, bytes, stamp.size());
            let mut input = Packed::new(&file, packing, (spool, limits.spool_bytes_max), place, &told)?;
            let members = reader::read(&mut input, limits, members)?;
            (members, Some(input.into_spool()))
        };
        if Stamp::of(&file.metadata().map_err(failed)?) != stamp {
            return Err(SourceError::Changed { path: EntryPath::root() });
        }
        let (placed, skipped) = members.finish();
        let places = placed.iter().filter(|(entry, _)| entry.kind == EntryKind::File);
        let places = places.map(|(entry, at)| (entry.path.clone(), *at)).collect();
        let entries = placed.into_iter().map(|(entry, _)| entry).collect();
        let contents = match unpacked {
            Some(unpacked) => Contents { file: Arc::new(unpacked), stamp: None },
            None => Contents { file: Arc::new(file), stamp: Some(stamp) },
        };
        let listing = Arc::new(Listing { stamp, entries, skipped, places });
        Ok(Opened { listing, contents: Some(contents) })
    }

    /// The listing of the file as it is now.
    fn list(&self) -> Result<Arc<Listing>, SourceError> {
        let (file, stamp) = self.open_file()?;
        let TarOptions { file: path, known, selected, now, .. } = &self.options;
        let key = (path.clone(), selected.clone());
        let before = lock(&known.0).get(&key).filter(|listing| listing.stamp == stamp).cloned();
        let opened = match before {
            Some(listing) => Opened { listing, contents: None },
            None => self.read(file, stamp)?,
        };
        let listing = opened.listing.clone();
        *lock(&self.state) = Some(opened);
        if stamp.mark().is_settled(*now) {
            let mut known = lock(&known.0);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(key, listing.clone());
        }
        Ok(listing)
    }

    /// The content of `entry` from `offset` on.
    pub(super) fn open_stored(&self, entry: &Entry, offset: u64) -> Result<StoredFile, SourceError> {
        let (contents, at) = self.contents(&entry.path)?;
        let offset = offset.min(entry.size);
        let file = StoredFile { contents, at: at + offset, rest: entry.size - offset, path: entry.path.clone() };
        file.judge()?;
        Ok(file)
    }

    /// Where the content of the file at `path` is read from.
    fn contents(&self, path: &EntryPath) -> Result<(Contents, u64), SourceError> {
        let changed = || SourceError::Changed { path: path.clone() };
        let mut state = lock(&self.state);
        let opened = state.as_mut().ok_or_else(changed)?;
        let at = *opened.listing.places.get(path).ok_or_else(changed)?;
        if let Some(contents) = &opened.contents {
            return Ok((contents.clone(), at));
        }
        let (file, stamp) = match self.open_file() {
            Err(ArchiveError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(changed()),
            opened => opened?,
        };
        let again = self.read(file, stamp)?;
        if again.listing.stamp != opened.listing.stamp || again.listing.places != opened.listing.places {
            return Err(changed());
        }
        opened.contents = again.contents;
        Ok((opened.contents.clone().ok_or_else(changed)?, at))
    }
}

/// Whoever panics while it holds a lock leaves what it protects whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for TarSource {
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let listing = self.list()?;
        for (path, what) in &listing.skipped {
            skip(Skipped { path: path.clone(), reason: SkipReason::Special(what) });
        }
        Ok(listing.entries.clone())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        Ok(Box::new(self.open_stored(entry, offset)?))
    }
}

impl Watched for TarSource {
    fn mark(&self, path: &EntryPath) -> Option<Mark> {
        let state = lock(&self.state);
        let listing = &state.as_ref()?.listing;
        listing.places.contains_key(path).then(|| listing.stamp.mark())
    }
}

/// The content of one entry while it is read.
pub(super) struct StoredFile {
    contents: Contents,
    at: u64,
    rest: u64,
    path: EntryPath,
}

impl StoredFile {
    fn judge(&self) -> Result<(), SourceError> {
        let Some(stamp) = self.contents.stamp else { return Ok(()) };
        let failed = |source| SourceError::Read { path: self.path.clone(), source };
        let now = Stamp::of(&self.contents.file.metadata().map_err(failed)?);
        if now == stamp { Ok(()) } else { Err(SourceError::Changed { path: self.path.clone() }) }
    }
}

impl Read for StoredFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
        let count = self.contents.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.rest -= count as u64;
        Ok(count)
    }
}

impl SourceFile for StoredFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        self.judge()
    }
}
