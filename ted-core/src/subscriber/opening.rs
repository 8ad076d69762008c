//! One extraction: from which packages and files a revision's contents come, in which order that is tried.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::extract::{
    Contents, Create, ExtractJob, ExtractOptions, ExtractProgress, ExtractSummary, Recovery, Target, TargetFiles,
    extract, installed,
};
use crate::limits::Limits;
use crate::package::{BodyReader, CatalogRow, Entry, PackageIndex};
use crate::subscriber::chain::{Chain, ChainContents};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::fall_back::is_of_base;
use crate::subscriber::held::Held;
use crate::subscriber::state::{Key, State};

/// The folder below the data directory for what is made on the way.
const SCRATCH_FOLDER: &str = "scratch";

/// What an extraction works with.
pub(super) struct Extraction<'a> {
    pub(super) state: &'a State,
    pub(super) key: Key,
    pub(super) held: &'a Held,
    pub(super) target: &'a Target,
    /// The entries of what this target held last.
    pub(super) previous: Option<&'a [Entry]>,
    /// Where old contents stand: in this target, or in the one before it.
    pub(super) old_files: Option<PathBuf>,
    /// What had become of an interrupted extraction.
    pub(super) recovered: Recovery,
    /// How it is done.
    pub(super) options: &'a ExtractOptions,
}

impl Extraction<'_> {
    /// Extracts the revision; `stood` are the entries of what stands in the old target. A baseline is extracted from
    /// its frames. Else contents are made: first from the target and as few deltas as possible, then from all that is
    /// kept.
    pub(super) fn run(&self, stood: Option<&[Entry]>) -> Result<(ExtractSummary, Vec<Entry>), Error> {
        let (state, fleet) = (self.state, &self.key.0);
        if let [only] = self.held.packages.as_slice()
            && only.base.is_none()
        {
            let (index, file) = state.open_held(only.id, &state.package_root(fleet, only.id)?)?;
            let frames = BodyReader::new(index.clone(), &*file);
            let summary = self.extract(index.catalog(), Contents::Frames(&frames))?;
            return Ok((summary, index.catalog().iter().map(|row| row.entry.clone()).collect()));
        }
        let mut error = match state.chain_from_target(&self.key, self.held) {
            Ok(Some(chain)) => match self.extract_chain(chain, stood) {
                Err(error) if is_of_base(&error) => error,
                done => return done,
            },
            Ok(None) => SubscriberError::NoBase(self.held.revision).into(),
            Err(error) => error,
        };
        if self.held.has_baseline() {
            let distribution = &self.held.name;
            tracing::info!(code = error.code(), %error, %distribution, "what is kept is applied from the baseline on");
            match state.chain_from_baseline(fleet, self.held) {
                Ok(Some(chain)) => return self.extract_chain(chain, stood),
                Ok(None) => {}
                Err(damaged) => error = damaged,
            }
        }
        Err(error)
    }

    fn extract_chain(&self, chain: Chain, stood: Option<&[Entry]>) -> Result<(ExtractSummary, Vec<Entry>), Error> {
        let baseline = self.state.open_baseline(&self.key.0, self.held).unwrap_or_else(|error| {
            tracing::warn!(code = error.code(), %error, "the baseline that is kept cannot be used");
            None
        });
        let rows: Vec<CatalogRow> =
            chain.entries().iter().map(|entry| CatalogRow { entry: entry.clone(), offset: 0 }).collect();
        let summary = {
            let contents = self.contents(&chain, stood, baseline.as_ref())?;
            contents.prepare()?;
            self.extract(&rows, Contents::Made(&contents))?
        };
        Ok((summary, chain.into_entries()))
    }

    fn contents<'c>(
        &self,
        chain: &'c Chain,
        stood: Option<&'c [Entry]>,
        baseline: Option<&'c (PackageIndex, Arc<std::fs::File>)>,
    ) -> Result<ChainContents<'c>, Error> {
        let limits = Limits::DEFAULT;
        let files = match (&self.old_files, stood) {
            (Some(old), Some(stood)) => TargetFiles::open(&Target::open(old, Create::Missing)?, stood, &limits)?,
            _ => None,
        };
        let new_files = installed(self.target.path(), self.options.mode, self.held.revision);
        let done = TargetFiles::open(&Target::open(&new_files, Create::Missing)?, chain.entries(), &limits)?;
        let contents = ChainContents::new(chain, &self.state.data.path().join(SCRATCH_FOLDER));
        let contents = contents.with_target(files, done);
        Ok(match baseline {
            Some((index, file)) => contents.with_baseline(index, file),
            None => contents,
        })
    }

    fn extract(&self, rows: &[CatalogRow], contents: Contents<'_>) -> Result<ExtractSummary, Error> {
        let (state, held) = (self.state, self.held);
        let job = ExtractJob {
            rows,
            contents,
            previous: self.previous,
            distribution: self.key.1,
            revision: held.revision,
            options: self.options,
            recovered: self.recovered,
        };
        let progress = |progress: ExtractProgress| {
            state.events.emit(SubscriberEvent::Extracting {
                distribution: held.name.clone(),
                revision: held.revision,
                bytes: progress.bytes,
                bytes_total: progress.bytes_total,
            });
        };
        Ok(extract(self.target, &job, &progress, &state.run().stopping)?)
    }
}
