//! A kept revision, opened: from its baseline, or from an older one and the deltas that lead on from it. One whole
//! revision is made at a time, so that a delta never waits for another one's content.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::sync::Arc;

use crate::distributor::build::WRITE_BYTES;
use crate::distributor::revisions::{KeptPackages, Way};
use crate::distributor::state::State;
use crate::error::Error;
use crate::id::{PackageId, Revision};
use crate::limits::Limits;
use crate::model::Distribution;
use crate::node::open_delta;
use crate::package::delta::{Applier, DeltaIndex, Files, PackageFiles, Resolved};
use crate::package::{AsEntry, Entry, Opening, PackageIndex, Skipped, Source, SourceError, SourceFile};
use crate::store::ScratchFile;

/// A revision's packages, opened. Its entries are known; its contents are made when they are wanted.
pub(super) struct Chain {
    index: PackageIndex,
    file: Arc<File>,
    steps: Vec<Step>,
}

/// One delta, and the revision that it makes.
struct Step {
    index: DeltaIndex,
    file: Arc<File>,
    resolved: Resolved,
}

impl State {
    /// Opens a delta of this Distributor's own.
    pub(super) fn open_own_delta(&self, package: PackageId) -> Result<(DeltaIndex, Arc<File>), Error> {
        open_delta(&self.depot, package, self.own().authority.root(), |root| {
            Ok(self.content_key(root)?.map_or(Opening::Unsealed, Opening::With))
        })
    }

    /// Opens a revision that is kept.
    pub(super) fn open_revision(
        &self,
        distribution: &Distribution,
        kept: &KeptPackages,
        revision: Revision,
    ) -> Result<Chain, Error> {
        self.open_way(&kept.way_to(revision).ok_or_else(|| kept.not_kept(distribution))?)
    }

    fn open_way(&self, way: &Way<'_>) -> Result<Chain, Error> {
        let (index, file) = self.open_own(way.baseline.id)?;
        let mut chain = Chain { index, file, steps: vec![] };
        for delta in &way.deltas {
            let (index, file) = self.open_own_delta(delta.id)?;
            let resolved = match chain.steps.last() {
                Some(step) => index.resolve(&step.resolved.entries, &Limits::DEFAULT)?,
                None => index.resolve(chain.index.catalog(), &Limits::DEFAULT)?,
            };
            chain.steps.push(Step { index, file, resolved });
        }
        Ok(chain)
    }

    /// Where the contents of an older revision are made. Whoever makes them holds the lock on building.
    pub(super) fn scratch_file(&self) -> Result<ScratchFile, Error> {
        Ok(ScratchFile::create(&self.data.path().join("scratch"))?)
    }
}

impl Chain {
    /// The revision's entries, in path order.
    pub(super) fn entries(&self) -> Vec<Entry> {
        match self.steps.last() {
            Some(step) => step.resolved.entries.clone(),
            None => self.index.catalog().iter().map(|row| row.entry.clone()).collect(),
        }
    }

    /// Makes the revision's contents, as far as they are not in the baseline, in `scratch`.
    pub(super) fn contents(&self, scratch: ScratchFile) -> Result<RevisionFiles<'_>, Error> {
        let baseline = PackageFiles::new(self.index.clone(), &*self.file);
        let places = (0..self.index.catalog().len()).map(Place::Baseline).collect();
        let mut files = RevisionFiles { baseline, scratch, scratch_bytes: 0, places };
        let mut before: Option<&Step> = None;
        for step in &self.steps {
            match before {
                Some(before) => files.step(&before.resolved.entries, step)?,
                None => files.step(self.index.catalog(), step)?,
            }
            before = Some(step);
        }
        Ok(files)
    }
}

/// Where a content stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the baseline, as the content of this entry.
    Baseline(usize),
    /// In the scratch file, from this offset.
    Scratch(u64),
}

/// The contents of one revision's files, by their numbers in its entry list.
pub(super) struct RevisionFiles<'a> {
    baseline: PackageFiles<'a>,
    scratch: ScratchFile,
    scratch_bytes: u64,
    places: Vec<Place>,
}

impl RevisionFiles<'_> {
    /// Goes on from the revision with the entries `old` to the next one.
    fn step<E: AsEntry>(&mut self, old: &[E], step: &Step) -> Result<(), Error> {
        let entries = &step.resolved.entries;
        let mut at = 0;
        let place = |entry: &Entry| {
            while old.get(at).is_some_and(|old| old.entry().path < entry.path) {
                at += 1;
            }
            // An entry that is new at its path has no content, or is given its place below.
            self.places.get(at).copied().unwrap_or(Place::Scratch(0))
        };
        let mut places: Vec<Place> = entries.iter().map(place).collect();
        let mut out = BufWriter::with_capacity(WRITE_BYTES, self.scratch.writer(self.scratch_bytes));
        let mut offset = self.scratch_bytes;
        let mut applier = Applier::new(&step.index, &step.resolved, &*step.file, (old, &*self));
        for content in &step.resolved.contents {
            applier.write(content, &mut out)?;
            places[content.entry] = Place::Scratch(offset);
            offset += entries[content.entry].size;
        }
        out.flush().map_err(|error| self.scratch.error(error))?;
        drop(applier);
        (self.places, self.scratch_bytes) = (places, offset);
        Ok(())
    }
}

impl Files for RevisionFiles<'_> {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self.places.get(file) {
            Some(Place::Baseline(number)) => self.baseline.read_at(*number, offset, buf),
            Some(Place::Scratch(start)) => self.scratch.read_exact_at(buf, start + offset),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// A revision as the source of a build.
pub(super) struct RevisionSource<'a> {
    entries: &'a [Entry],
    files: &'a dyn Files,
}

impl<'a> RevisionSource<'a> {
    /// The revision with these entries and contents.
    pub(super) fn new(entries: &'a [Entry], files: &'a dyn Files) -> Self {
        Self { entries, files }
    }
}

impl Source for RevisionSource<'_> {
    fn entries(&self, _: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        Ok(self.entries.iter().map(|entry| Entry { content: Entry::NO_CONTENT, ..entry.clone() }).collect())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile + '_>, SourceError> {
        let changed = || SourceError::Changed { path: entry.path.clone() };
        let number = self.entries.binary_search_by(|known| known.path.cmp(&entry.path)).map_err(|_| changed())?;
        Ok(Box::new(RevisionFile { files: self.files, number, at: offset, size: entry.size }))
    }
}

/// One file of a revision while it is read.
struct RevisionFile<'a> {
    files: &'a dyn Files,
    number: usize,
    at: u64,
    size: u64,
}

impl Read for RevisionFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = (buf.len() as u64).min(self.size.saturating_sub(self.at)) as usize;
        self.files.read_at(self.number, self.at, &mut buf[..bytes])?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

impl SourceFile for RevisionFile<'_> {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}
