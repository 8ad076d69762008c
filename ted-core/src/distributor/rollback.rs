//! Going back, as an operator's explicit act: a new revision with the content of an older one that is kept.

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::build::Newest;
use crate::distributor::chain::RevisionSource;
use crate::distributor::deltas::NewBaseline;
use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::history::RevisionOrigin;
use crate::distributor::report::BuiltRevision;
use crate::distributor::revisions::KeptPackages;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{PackageId, Revision};
use crate::model::Distribution;
use crate::name::Label;
use crate::node::{RecordBatch, wait};
use crate::package::{BuildOptions, CatalogRow, Entry, PackageKind, Source, same_but_content};
use crate::store::{Depot as _, FinishedFile, PackagePlace};

/// What the catalog keeps of a rollback, until the source has changed: its content is not built again by itself.
#[derive(Serialize, Deserialize)]
struct RolledBack {
    /// The revision that was made.
    made: Revision,
    /// The revision that was gone back from: the last one that the source gave.
    from: Revision,
}

impl State {
    /// Makes a new revision with the content of the kept revision `to`, or of the one before the newest.
    pub(super) fn rollback(&self, name: &Label, to: Option<Revision>) -> Result<BuiltRevision, Error> {
        let _no_build_meanwhile = self.building.blocking_lock();
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        let newest = self.newest(&distribution)?.ok_or_else(|| DistributorError::NotBuilt(name.clone()))?;
        let kept = self.kept_packages(&distribution);
        let to = to_go_back_to(&distribution, &kept, newest.revision, to)?;
        let now = self.now();
        let revision = self.sequences.next_revision(&distribution.id, now)?;
        let options = self.build_options(&distribution, revision, now)?;
        // One that cannot be read, perhaps the reason for going back, gives nothing to the new one.
        let old = self.newest_package(&distribution)?;
        let as_it_is = kept.baseline(to).filter(|info| info.root.is_sealed() == distribution.encrypt);
        let (package, copied) = match as_it_is {
            Some(info) => {
                let place = PackagePlace::at_distributor(name, revision, PackageKind::Baseline);
                (self.sign_package_again(info, revision, &place)?.id, None)
            }
            None => self.build_again(&distribution, (&kept, to), old.as_ref(), &options)?,
        };
        let (index, file) = self.open_own(package)?;
        let built = BuiltRevision {
            revision,
            created: now,
            package,
            bytes: index.bytes(),
            content_bytes: index.catalog().iter().map(|row| row.entry.size).sum(),
            entries: index.catalog().len() as u64,
            skipped: vec![],
            frames: index.body_frames(),
            frames_copied: copied.unwrap_or(index.body_frames()),
            delta: None,
            no_delta: None,
        };
        let new = NewBaseline { index: &index, file: &*file, options: &options };
        let built = self.add_revision(&distribution, built, old.as_ref(), (&new, RevisionOrigin::Rollback { to }))?;
        let from = newest.revision;
        tracing::warn!(distribution = %name, %from, %to, %revision, "rolled back");
        self.events.emit(DistributorEvent::RolledBack { distribution: name.clone(), from, to, revision });
        Ok(built)
    }

    /// Builds the baseline of the kept revision `to` anew, and says how many of its frames were copied.
    fn build_again(
        &self,
        distribution: &Distribution,
        (kept, to): (&KeptPackages, Revision),
        old: Option<&Newest>,
        options: &BuildOptions,
    ) -> Result<(PackageId, Option<u64>), Error> {
        let chain = self.open_revision(distribution, kept, to)?;
        let files = chain.contents(self.scratch_file()?)?;
        let entries = chain.entries();
        let source = RevisionSource::new(&entries, &files);
        let place = PackagePlace::at_distributor(&distribution.name, options.revision, PackageKind::Baseline);
        let mut staged = self.depot.stage(&place)?;
        let unchanged = old.map(|old| same_contents(old.index.catalog(), &entries)).unwrap_or_default();
        let without = |entry: &Entry| Entry { content: Entry::NO_CONTENT, ..entry.clone() };
        let input = (&source as &dyn Source, entries.iter().map(without).collect());
        let made =
            self.write_package(distribution, input, old.map(|old| (old, unchanged.as_slice())), options, &mut staged)?;
        let info = wait(self.depot.put(FinishedFile { path: staged.finish()?, place }))?;
        Ok((info.id, Some(made.reused.frames)))
    }

    /// Adds to `batch` that `made` was made by going back from `newest`.
    pub(super) fn put_rolled_back(
        &self,
        batch: RecordBatch,
        distribution: &Distribution,
        (newest, made): (Revision, Revision),
    ) -> Result<RecordBatch, Error> {
        let from = self.built_from_source(distribution, newest)?.unwrap_or(newest);
        Ok(batch.put(&rolled_back_key(distribution), &RolledBack { made, from })?)
    }

    /// The revision that was built from the source last, if `newest` was made by going back, perhaps more than once.
    pub(super) fn built_from_source(
        &self,
        distribution: &Distribution,
        newest: Revision,
    ) -> Result<Option<Revision>, Error> {
        let rolled_back: Option<RolledBack> = self.records.get(&rolled_back_key(distribution))?;
        Ok(rolled_back.filter(|rolled_back| rolled_back.made == newest).map(|rolled_back| rolled_back.from))
    }

    /// Whether the source still is what was rolled back from: then nothing new is built, or the rollback would undo
    /// itself with the next send.
    pub(super) fn is_rolled_back(
        &self,
        distribution: &Distribution,
        newest: &BuiltRevision,
        entries: &[Entry],
    ) -> Result<bool, Error> {
        let Some(from) = self.built_from_source(distribution, newest.revision)? else { return Ok(false) };
        let kept = self.kept_packages(distribution);
        let Some(from) = kept.baseline(from) else { return Ok(false) };
        Ok(self.open_own(from.id).is_ok_and(|(index, _)| same_but_content(index.catalog(), entries)))
    }
}

/// The revision that an operator means to go back to.
fn to_go_back_to(
    distribution: &Distribution,
    kept: &KeptPackages,
    newest: Revision,
    to: Option<Revision>,
) -> Result<Revision, DistributorError> {
    let mut there = kept.revisions();
    there.retain(|revision| *revision < newest);
    let found = match to {
        Some(to) => there.contains(&to).then_some(to),
        None => there.last().copied(),
    };
    let there: Vec<_> = there.iter().map(Revision::to_string).collect();
    found.ok_or_else(|| DistributorError::NotKept { name: distribution.name.clone(), kept: there.join(", ") })
}

/// For each of `entries`: whether the file of the same path among `rows` has the same content. Both are in path order.
fn same_contents(rows: &[CatalogRow], entries: &[Entry]) -> Vec<bool> {
    let mut at = 0;
    let same = |entry: &Entry| {
        while rows.get(at).is_some_and(|row| row.entry.path < entry.path) {
            at += 1;
        }
        let row = rows.get(at).filter(|row| row.entry.path == entry.path);
        row.is_some_and(|row| (row.entry.kind, row.entry.content) == (entry.kind, entry.content))
    };
    entries.iter().map(same).collect()
}

fn rolled_back_key(distribution: &Distribution) -> String {
    format!("rolled-back/{}", distribution.id)
}

impl Distributor {
    /// Makes a new revision of a Distribution with the content of an older one that is kept: `to`, or the one before the
    /// newest. What the source holds now is not built again before it changes.
    ///
    /// # Errors
    /// When there is no such Distribution, or no such revision is kept.
    pub async fn rollback(&self, name: &Label, to: Option<Revision>) -> Result<BuiltRevision, Error> {
        let name = name.clone();
        self.blocking(move |state| state.rollback(&name, to)).await
    }
}
