//! Opening a revision from what is here: its entries by the deltas' catalogs, and its contents one whole revision at a
//! time, from the target, from the own baseline, and from the deltas between.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use crate::extract::{ContentMaker, MakeContent, MakeError, TargetFiles};
use crate::id::Hash;
use crate::limits::Limits;
use crate::package::delta::{Applier, DeltaError, DeltaIndex, Files, NewContent, PackageFiles, Resolved};
use crate::package::{Entry, EntryKind, PackageIndex};
use crate::store::{FileError, ScratchFile, create_folders};
use crate::subscriber::state::lock;

/// Makers at the same time: each holds a frame, a prefix and what zstd needs, under 40 MiB.
const MAKERS_MAX: usize = 2;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 256 * 1024;

/// The name of a scratch file for the moment that it has one. Whoever opens a chain holds the extraction's lock.
const SCRATCH_FILE: &str = "scratch";

/// A revision's entries, and the steps that lead to it.
pub(super) struct Chain {
    start: Vec<Entry>,
    steps: Vec<ChainStep>,
}

struct ChainStep {
    index: DeltaIndex,
    file: Arc<File>,
    resolved: Resolved,
    /// By content: which of `resolved.contents` it is.
    made: HashMap<Hash, usize>,
}

impl Chain {
    /// What these deltas, in this order, make of the revision with the entries `start`. Nothing is read of any content.
    pub(super) fn new(
        start: Vec<Entry>,
        deltas: impl IntoIterator<Item = (DeltaIndex, Arc<File>)>,
    ) -> Result<Self, DeltaError> {
        let mut chain = Self { start, steps: Vec::new() };
        for (index, file) in deltas {
            let resolved = index.resolve(chain.entries(), &Limits::DEFAULT)?;
            let contents = resolved.contents.iter().enumerate();
            let made = contents.map(|(number, new)| (resolved.entries[new.entry].content, number)).collect();
            chain.steps.push(ChainStep { index, file, resolved, made });
        }
        Ok(chain)
    }

    /// The entries that it leads to.
    pub(super) fn entries(&self) -> &[Entry] {
        self.level(self.steps.len())
    }

    pub(super) fn into_entries(mut self) -> Vec<Entry> {
        self.steps.pop().map_or(self.start, |last| last.resolved.entries)
    }

    /// The entries after so many steps.
    fn level(&self, steps: usize) -> &[Entry] {
        match steps.checked_sub(1).and_then(|last| self.steps.get(last)) {
            Some(step) => &step.resolved.entries,
            None => &self.start,
        }
    }
}

/// Contents of one entry list, by what they are and not by where they stand.
struct Pool<F> {
    files: F,
    by_content: HashMap<Hash, usize>,
}

impl<F> Pool<F> {
    fn new<'e>(files: F, entries: impl Iterator<Item = &'e Entry>) -> Self {
        let files_of = entries.enumerate().filter(|(_, entry)| entry.kind == EntryKind::File);
        Self { files, by_content: files_of.map(|(number, entry)| (entry.content, number)).collect() }
    }
}

/// Where a content is to be had.
#[derive(Clone, Copy)]
enum Place {
    Target(usize),
    Baseline(usize),
    /// From this byte of the scratch file.
    Scratch(u64),
}

/// The contents of the revision that a chain leads to.
pub(super) struct ChainContents<'a> {
    chain: &'a Chain,
    /// The target, as the revision that was extracted there last.
    target: Option<Pool<TargetFiles<'a>>>,
    /// The target as this revision: after a crash it may stand there already.
    done: Option<TargetFiles<'a>>,
    baseline: Option<Pool<PackageFiles<'a>>>,
    scratch: Scratch,
    /// New contents of the last step for which everything is at hand, by their number. One prepares at a time.
    ready: Mutex<HashSet<usize>>,
}

impl<'a> ChainContents<'a> {
    /// `scratch` is a folder for what has to be made on the way.
    pub(super) fn new(chain: &'a Chain, scratch: &Path) -> Self {
        let (scratch, ready) = (Scratch::new(scratch), Mutex::default());
        Self { chain, target: None, done: None, baseline: None, scratch, ready }
    }

    /// Takes contents from a target, too.
    pub(super) fn with_target(mut self, files: Option<TargetFiles<'a>>, done: Option<TargetFiles<'a>>) -> Self {
        self.target = files.map(|files| {
            let entries = files.entries();
            Pool::new(files, entries.iter())
        });
        self.done = done;
        self
    }

    /// Takes contents from a baseline, too.
    pub(super) fn with_baseline(mut self, index: &PackageIndex, file: &'a File) -> Self {
        let entries = index.catalog().iter().map(|row| &row.entry);
        self.baseline = Some(Pool::new(PackageFiles::new(index.clone(), file), entries));
        self
    }

    /// Sees to it that everything is at hand that is needed for the files that are not in place already; what has to be
    /// made on the way is made now, step by step.
    ///
    /// # Errors
    /// [`DeltaError`] when something is missing or damaged, or there is no room for what is made on the way.
    pub(super) fn prepare(&self) -> Result<(), DeltaError> {
        let entries = self.chain.entries().iter().enumerate();
        let wanted = entries.filter(|(_, entry)| entry.kind == EntryKind::File && entry.size > 0);
        let in_place = |number| self.done.as_ref().is_some_and(|done| done.looks_right(number));
        let wanted: Vec<usize> = wanted.map(|(number, _)| number).filter(|number| !in_place(*number)).collect();
        self.prepare_these(&wanted)
    }

    fn prepare_these(&self, wanted: &[usize]) -> Result<(), DeltaError> {
        let mut ready = lock(&self.ready);
        let last = self.chain.steps.len();
        let mut needed: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); last + 1];
        let mut made = Vec::new();
        for &entry in wanted {
            match self.new_at_last(entry) {
                Some((number, step, new)) => {
                    needed[last - 1].extend(step.resolved.old_files(&step.index, new));
                    made.push(number);
                }
                None => drop(needed[last].insert(entry)),
            }
        }
        for (level, contents) in self.plan(needed)? {
            self.make_scratch(level, &contents)?;
        }
        ready.extend(made);
        Ok(())
    }

    /// Which new contents of each step have to be made on the way, so that the needed files of each level are at hand:
    /// found from the last level down, to be made from the first one up.
    fn plan(&self, mut needed: Vec<BTreeSet<usize>>) -> Result<Vec<(usize, Vec<usize>)>, DeltaError> {
        let mut make = Vec::new();
        for level in (0..needed.len()).rev() {
            let mut contents = BTreeSet::new();
            for file in std::mem::take(&mut needed[level]) {
                let entry = &self.chain.level(level)[file];
                if self.place_of(entry.content).is_some() {
                    continue;
                }
                let gone = io::ErrorKind::NotFound.into();
                let missing = DeltaError::OldFile { path: entry.path.clone(), source: gone };
                let Some(below) = level.checked_sub(1) else { return Err(missing) };
                let step = &self.chain.steps[below];
                if let Some(&number) = step.made.get(&entry.content) {
                    needed[below].extend(step.resolved.old_files(&step.index, &step.resolved.contents[number]));
                    contents.insert(number);
                    continue;
                }
                // What no step makes stood at the same path before it.
                let before = self.chain.level(below);
                match before.binary_search_by(|old| old.path.cmp(&entry.path)) {
                    Ok(old) if before[old].content == entry.content => drop(needed[below].insert(old)),
                    _ => return Err(missing),
                }
            }
            if !contents.is_empty() {
                make.push((level, contents.into_iter().collect()));
            }
        }
        make.reverse();
        Ok(make)
    }

    /// Makes new contents of the step that leads to `level` into the scratch file.
    fn make_scratch(&self, level: usize, contents: &[usize]) -> Result<(), DeltaError> {
        let step = &self.chain.steps[level - 1];
        let old = Level { contents: self, entries: self.chain.level(level - 1) };
        let mut applier = Applier::new(&step.index, &step.resolved, &*step.file, (old.entries, &old));
        for &number in contents {
            let new = &step.resolved.contents[number];
            let entry = &step.resolved.entries[new.entry];
            self.scratch.add(entry, |out| applier.write(new, out))?;
        }
        Ok(())
    }

    /// The new content of the last step that makes an entry, if one does and it is to be had in no other way.
    fn new_at_last(&self, entry: usize) -> Option<(usize, &'a ChainStep, &'a NewContent)> {
        let step = self.chain.steps.last()?;
        let content = self.chain.entries()[entry].content;
        let number = *step.made.get(&content)?;
        self.place_of(content).is_none().then(|| (number, step, &step.resolved.contents[number]))
    }

    /// Where a content is at hand. A file of the target is read through for it, once.
    fn place_of(&self, content: Hash) -> Option<Place> {
        if let Some(from) = self.scratch.place(&content) {
            return Some(Place::Scratch(from));
        }
        let in_target = self.target.as_ref().and_then(|pool| {
            let number = *pool.by_content.get(&content)?;
            pool.files.holds(number).then_some(Place::Target(number))
        });
        in_target.or_else(|| Some(Place::Baseline(*self.baseline.as_ref()?.by_content.get(&content)?)))
    }

    fn read_content(&self, content: Hash, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        match self.place_of(content).ok_or_else(gone)? {
            Place::Target(number) => self.target.as_ref().ok_or_else(gone)?.files.read_at(number, offset, buf),
            Place::Baseline(number) => self.baseline.as_ref().ok_or_else(gone)?.files.read_at(number, offset, buf),
            Place::Scratch(from) => self.scratch.file.get().ok_or_else(gone)?.read_exact_at(buf, from + offset),
        }
    }
}

/// The files of a revision on the way.
struct Level<'c, 'a> {
    contents: &'c ChainContents<'a>,
    entries: &'c [Entry],
}

impl Files for Level<'_, '_> {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let entry = self.entries.get(file).ok_or(io::ErrorKind::NotFound)?;
        self.contents.read_content(entry.content, offset, buf)
    }
}

/// The files of the revision that the last step goes from.
impl Files for ChainContents<'_> {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let below = self.chain.steps.len().saturating_sub(1);
        Level { contents: self, entries: self.chain.level(below) }.read_at(file, offset, buf)
    }
}

impl MakeContent for ChainContents<'_> {
    fn threads_max(&self) -> usize {
        MAKERS_MAX
    }

    fn maker(&self) -> Box<dyn ContentMaker + '_> {
        Box::new(Maker { contents: self, applier: None })
    }
}

/// Makes contents for one thread.
struct Maker<'c, 'a> {
    contents: &'c ChainContents<'a>,
    applier: Option<Applier<'c, Entry>>,
}

impl ContentMaker for Maker<'_, '_> {
    fn make(&mut self, entry: usize, out: &mut dyn Write) -> Result<(), MakeError> {
        let contents = self.contents;
        if let Some(done) = contents.done.as_ref().filter(|done| done.looks_right(entry) && done.holds(entry)) {
            return copy(&contents.chain.entries()[entry], out, |offset, buf| done.read_at(entry, offset, buf));
        }
        let made = contents.new_at_last(entry);
        if made.is_none_or(|(number, ..)| !lock(&contents.ready).contains(&number)) {
            contents.prepare_these(&[entry])?;
        }
        let Some((_, step, new)) = made else {
            let entry = &contents.chain.entries()[entry];
            return copy(entry, out, |offset, buf| contents.read_content(entry.content, offset, buf));
        };
        let below = contents.chain.level(contents.chain.steps.len() - 1);
        let applier = self
            .applier
            .get_or_insert_with(|| Applier::new(&step.index, &step.resolved, &*step.file, (below, contents)));
        // Several paths may have one content, which was made for one of them.
        Ok(applier.write(new, out)?)
    }
}

fn copy(entry: &Entry, out: &mut dyn Write, read: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> Result<(), MakeError> {
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < entry.size {
        buffer.resize((entry.size - at).min(COPY_BYTES) as usize, 0);
        let unreadable = |source| DeltaError::OldFile { path: entry.path.clone(), source };
        read(at, &mut buffer).map_err(unreadable)?;
        out.write_all(&buffer).map_err(MakeError::Sink)?;
        at += buffer.len() as u64;
    }
    Ok(())
}

/// What is made on the way.
struct Scratch {
    folder: PathBuf,
    file: OnceLock<ScratchFile>,
    made: RwLock<Made>,
}

/// What lies in the scratch file.
#[derive(Default)]
struct Made {
    /// From which byte on each content lies.
    places: HashMap<Hash, u64>,
    /// Where the next one begins.
    end: u64,
}

impl Scratch {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: OnceLock::new(), made: RwLock::default() }
    }

    fn place(&self, content: &Hash) -> Option<u64> {
        self.made.read().unwrap_or_else(PoisonError::into_inner).places.get(content).copied()
    }

    /// Adds the content of `entry`, which `write` makes, perhaps from what lies here already. One adds at a time.
    fn add(
        &self,
        entry: &Entry,
        write: impl FnOnce(&mut dyn Write) -> Result<(), DeltaError>,
    ) -> Result<(), DeltaError> {
        let failed = |source| DeltaError::Write { path: entry.path.clone(), source };
        let from = self.made.read().unwrap_or_else(PoisonError::into_inner).end;
        let mut out = BufWriter::with_capacity(COPY_BYTES as usize, self.open().map_err(failed)?.writer(from));
        write(&mut out)?;
        out.flush().map_err(failed)?;
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        made.places.insert(entry.content, from);
        made.end = from + entry.size;
        Ok(())
    }

    fn open(&self) -> io::Result<&ScratchFile> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        create_folders(&self.folder).map_err(what_the_system_says)?;
        let file = ScratchFile::create(&self.folder.join(SCRATCH_FILE)).map_err(what_the_system_says)?;
        Ok(self.file.get_or_init(|| file))
    }
}

fn what_the_system_says(error: FileError) -> io::Error {
    match error {
        FileError::DiskFull { source, .. } | FileError::Io { source, .. } => source,
        busy @ FileError::Busy { .. } => io::Error::other(busy),
    }
}

#[cfg(test)]
mod tests;
