//! What a web server gives, as a source: one file, or the tree of a tar file.

mod client;
mod error;
mod fetch;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::folder::Stamp;
use super::selection::Taken;
use super::{Selection, TarOptions, TarSource, Watched};
use crate::distributor::seen::Mark;
use crate::package::{Entry, EntryKind, EntryPath, Mtime, SkipReason, Skipped, Source, SourceError, SourceFile};

pub(in crate::distributor) use fetch::{Fetching, UrlOptions};

/// The permissions of a file that is fetched.
const FILE_MODE: u32 = 0o644;

/// The permissions of the folder that it is in.
const FOLDER_MODE: u32 = 0o755;

/// The name of what a URL gives that names nothing.
const NAMELESS: &[u8] = b"index";

/// One file, named as the last part of its URL.
pub(in crate::distributor) struct UrlSource {
    options: UrlOptions,
    selection: Selection,
    fetched: Mutex<Option<Fetched>>,
}

#[derive(Clone)]
struct Fetched {
    file: Arc<File>,
    stamp: Stamp,
    path: EntryPath,
}

impl UrlSource {
    pub(in crate::distributor) fn new(options: UrlOptions, selection: Selection) -> Self {
        Self { options, selection, fetched: Mutex::default() }
    }

    fn fetched(&self) -> Option<Fetched> {
        lock(&self.fetched).clone()
    }
}

/// Whoever panics while it holds a lock leaves what it protects whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for UrlSource {
    fn entries(&self, _skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let url = &self.options.url;
        let refused =
            |reason| SourceError::Refused(vec![Skipped { path: url.clone(), reason: SkipReason::Path(reason) }]);
        let path = EntryPath::root().join(&name(url)).map_err(refused)?;
        let kept = self.options.fetch()?;
        let failed = |source| SourceError::Read { path: path.clone(), source };
        let file = File::open(kept.path(&self.options.folder)).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        *lock(&self.fetched) = Some(Fetched { file: Arc::new(file), stamp, path: path.clone() });
        let mtime = Mtime { seconds: kept.mtime, nanoseconds: 0 };
        let root = Entry {
            path: EntryPath::root(),
            kind: EntryKind::Directory,
            mode: FOLDER_MODE,
            uid: 0,
            gid: 0,
            mtime,
            size: 0,
            link: Vec::new(),
            content: Entry::NO_CONTENT,
            extensions: Vec::new(),
        };
        let taken = self.selection.takes(&path) == Taken::Yes;
        let file = Entry { path, kind: EntryKind::File, mode: FILE_MODE, size: kept.bytes, ..root.clone() };
        Ok(if taken { vec![root, file] } else { vec![root] })
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        let changed = || SourceError::Changed { path: entry.path.clone() };
        let fetched = self.fetched().filter(|fetched| fetched.path == entry.path).ok_or_else(changed)?;
        let opened = FetchedFile { fetched, at: offset };
        opened.judge()?;
        Ok(Box::new(opened))
    }
}

impl Watched for UrlSource {
    fn mark(&self, path: &EntryPath) -> Option<Mark> {
        let fetched = self.fetched().filter(|fetched| fetched.path == *path)?;
        Some(fetched.stamp.mark())
    }
}

struct FetchedFile {
    fetched: Fetched,
    at: u64,
}

impl FetchedFile {
    fn judge(&self) -> Result<(), SourceError> {
        let path = || self.fetched.path.clone();
        let metadata = self.fetched.file.metadata();
        let now = Stamp::of(&metadata.map_err(|source| SourceError::Read { path: path(), source })?);
        if now == self.fetched.stamp { Ok(()) } else { Err(SourceError::Changed { path: path() }) }
    }
}

impl Read for FetchedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fetched.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl SourceFile for FetchedFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        self.judge()
    }
}

/// The last part of the URL's path, its escapes resolved.
fn name(url: &str) -> Vec<u8> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let last = path.split_once('/').map_or("", |(_, path)| path.rsplit('/').next().unwrap_or_default());
    let hex = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let (mut name, mut rest) = (Vec::with_capacity(last.len()), last.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%').and_then(hex);
        name.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    if name.is_empty() { NAMELESS.to_vec() } else { name }
}

/// The tree of a tar file that is fetched.
pub(in crate::distributor) struct TarUrlSource {
    url: UrlOptions,
    /// How the archive is read, wherever it is kept.
    tar: TarOptions,
    opened: Mutex<Option<Arc<TarSource>>>,
}

impl TarUrlSource {
    pub(in crate::distributor) fn new(url: UrlOptions, tar: TarOptions) -> Self {
        Self { url, tar, opened: Mutex::default() }
    }
}

impl Source for TarUrlSource {
    fn entries(&self, skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let kept = self.url.fetch()?;
        let file = kept.path(&self.url.folder);
        let tar = Arc::new(TarSource::new(TarOptions { file, place: self.url.url.clone(), ..self.tar.clone() }));
        let entries = tar.entries(skip)?;
        *lock(&self.opened) = Some(tar);
        Ok(entries)
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        let tar = lock(&self.opened).clone();
        let tar = tar.ok_or_else(|| SourceError::Changed { path: entry.path.clone() })?;
        Ok(Box::new(tar.open_stored(entry, offset)?))
    }
}

impl Watched for TarUrlSource {
    fn mark(&self, path: &EntryPath) -> Option<Mark> {
        lock(&self.opened).as_ref()?.mark(path)
    }
}
