//! Building revisions: one look at the source, one pass over it, and nothing new where nothing changed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::distributor::deltas::{NewBaseline, OldBaseline};
use crate::distributor::error::DistributorError;
use crate::distributor::events::{BuildPhase, DistributorEvent};
use crate::distributor::history::RevisionOrigin;
use crate::distributor::report::{BuildOutcome, BuiltRevision, Reading};
use crate::distributor::seen::Look;
use crate::distributor::source::SourceTree;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{Revision, UnixMillis};
use crate::model::{Digest, Distribution};
use crate::name::Label;
use crate::node::{RecordBatch, keep_packages, wait};
use crate::package::{
    BuildOptions, BuildProgress, BuiltPackage, DigestKind, Entry, PackageIndex, PackageKind, Previous, ROOT_CONTEXT,
    RootSigner, Skipped, Source, build_baseline, build_next_baseline, same_but_content,
};
use crate::security::{Crypto, Identity, Signature, sign};
use crate::store::{Depot, FinishedFile, PackagePlace, StagedFile};

/// The code of a source that changed while it was read.
const CHANGED: &str = "TED-1703";

/// Bytes that are handed to the file system at once.
pub(super) const WRITE_BYTES: usize = 1 << 20;

/// A source that changes while it is read is read once more; then it is an error.
const ATTEMPTS: u32 = 2;

/// How often a build says how far it is.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl State {
    /// Builds the newest state of a Distribution, if it is not built yet.
    pub(super) async fn build(self: &Arc<Self>, name: &Label, reading: Reading) -> Result<BuildOutcome, Error> {
        let _one_at_a_time = self.building.lock().await;
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        self.build_distribution(distribution, reading).await
    }

    /// The same of a Distribution as it is given, for whoever holds the right to build.
    pub(super) async fn build_distribution(
        self: &Arc<Self>,
        distribution: Distribution,
        reading: Reading,
    ) -> Result<BuildOutcome, Error> {
        let state = self.clone();
        let work = move || state.build_now(&distribution, reading);
        tokio::task::spawn_blocking(work).await.map_err(|_| DistributorError::Worker)?
    }

    /// The newest revision that was built.
    pub(super) fn newest(&self, distribution: &Distribution) -> Result<Option<BuiltRevision>, Error> {
        Ok(self.records.get(&newest_key(distribution))?)
    }

    /// Makes this the newest revision.
    pub(super) fn set_newest(&self, distribution: &Distribution, built: &BuiltRevision) -> Result<(), Error> {
        Ok(self.records.apply(self.put_newest(RecordBatch::default(), distribution, built)?)?)
    }

    /// Adds to `batch` that this is the newest revision.
    pub(super) fn put_newest(
        &self,
        batch: RecordBatch,
        distribution: &Distribution,
        built: &BuiltRevision,
    ) -> Result<RecordBatch, Error> {
        Ok(batch.put(&newest_key(distribution), built)?)
    }

    fn build_now(&self, distribution: &Distribution, mut reading: Reading) -> Result<BuildOutcome, Error> {
        let mut attempt = 1;
        loop {
            match self.attempt(distribution, reading) {
                Err(error) if error.code() == CHANGED && attempt < ATTEMPTS => {
                    tracing::warn!(distribution = %distribution.name, %error, "reading the source once more");
                    // Perhaps the quick check was wrong about a file.
                    reading = Reading::Everything;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Whether the source differs from the newest revision, as far as it shows without reading files.
    pub(super) fn has_changed(&self, name: &Label) -> Result<bool, Error> {
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        if distribution.source.is_input() {
            return Ok(self.newest(&distribution)?.is_none());
        }
        let source = self.source_of(&distribution)?;
        let entries = source.entries(&mut |_| {})?;
        let newest = self.newest_package(&distribution)?.filter(|newest| newest.stands);
        let Some(Newest { built, index, .. }) = newest else { return Ok(true) };
        if self.is_rolled_back(&distribution, &built, &entries)? {
            return Ok(false);
        }
        let looks = self.look(&distribution, &index, (&entries, &source));
        Ok(!same_but_content(index.catalog(), &entries) || looks.contains(&Look::Different))
    }

    fn attempt(&self, distribution: &Distribution, reading: Reading) -> Result<BuildOutcome, Error> {
        // What is only ever fed stays as it is in between.
        if let (true, Some(newest)) = (distribution.source.is_input(), self.newest_package(distribution)?)
            && newest.stands
        {
            return Ok(BuildOutcome::Unchanged(newest.built));
        }
        let found = self.find(distribution)?;
        let Some(newest) = self.newest_package(distribution)? else {
            return self.build_found(distribution, found, None);
        };
        if newest.stands && self.is_rolled_back(distribution, &newest.built, &found.entries)? {
            return Ok(BuildOutcome::Unchanged(newest.built));
        }
        let looks = match reading {
            Reading::Changed => self.look(distribution, &newest.index, (&found.entries, &found.source)),
            Reading::Everything => vec![],
        };
        let quiet = reading == Reading::Changed && looks.iter().all(|look| *look == Look::Same);
        if newest.stands && quiet && same_but_content(newest.index.catalog(), &found.entries) {
            return Ok(BuildOutcome::Unchanged(newest.built));
        }
        let unchanged = looks.into_iter().map(|look| look == Look::Same).collect();
        self.build_found(distribution, found, Some((newest, unchanged)))
    }

    /// Builds a new revision, whether or not the source has changed.
    pub(super) fn build_anew(&self, distribution: &Distribution) -> Result<BuiltRevision, Error> {
        let found = self.find(distribution)?;
        Ok(self.build_found(distribution, found, None)?.revision().clone())
    }

    fn find(&self, distribution: &Distribution) -> Result<Found, Error> {
        let walked = self.now();
        let source = self.source_of(distribution)?;
        let (entries, skipped) = self.entries_of(distribution, &source)?;
        Ok(Found { source, walked, entries, skipped })
    }

    fn entries_of(&self, distribution: &Distribution, source: &SourceTree) -> Result<(Vec<Entry>, Vec<String>), Error> {
        let mut skipped = vec![];
        let entries = source.entries(&mut |skip: Skipped| {
            tracing::info!(distribution = %distribution.name, path = skip.path, reason = %skip.reason, "left out");
            self.events.emit(DistributorEvent::Skipped {
                distribution: distribution.name.clone(),
                path: PathBuf::from(&skip.path),
                reason: skip.reason.to_string(),
            });
            skipped.push(format!("{}: {}", skip.path, skip.reason));
        })?;
        Ok((entries, skipped))
    }

    /// The newest revision and its package. One that cannot be read any more does not count: it is built anew.
    pub(super) fn newest_package(&self, distribution: &Distribution) -> Result<Option<Newest>, Error> {
        let Some(newest) = self.newest(distribution)? else { return Ok(None) };
        match self.open_own(newest.package) {
            Ok((index, file)) => {
                let stands = index.root().is_sealed() == distribution.encrypt;
                Ok(Some(Newest { built: newest, index, file, stands }))
            }
            Err(error) => {
                tracing::warn!(distribution = %distribution.name, %error, "the newest package is built anew");
                self.tell_damage(distribution, newest.revision, error.to_string());
                Ok(None)
            }
        }
    }

    fn tell_damage(&self, distribution: &Distribution, revision: Revision, detail: String) {
        let distribution = distribution.name.clone();
        self.events.emit(DistributorEvent::OwnCopyDamaged { distribution, revision, detail });
    }

    fn build_found(
        &self,
        distribution: &Distribution,
        found: Found,
        newest: Option<(Newest, Vec<bool>)>,
    ) -> Result<BuildOutcome, Error> {
        let Found { source, walked, entries, skipped } = found;
        let revision = self.sequences.next_revision(&distribution.id, walked)?;
        let place = PackagePlace::at_distributor(&distribution.name, revision, PackageKind::Baseline);
        let content_bytes = entries.iter().map(|entry| entry.size).sum();
        let options = self.build_options(distribution, revision, walked)?;
        let mut staged = self.depot.stage(&place)?;
        let previous = newest.as_ref().map(|(newest, unchanged)| (newest, unchanged.as_slice()));
        let made = self.write_package(distribution, (&source, entries), previous, &options, &mut staged)?;
        self.remember_source(distribution, &made.index, (&source, walked));
        self.tidy_spool(distribution);
        if let Some((newest, _)) = &newest {
            self.doubt_what_was_read(distribution, &newest.built, &made.reused.damaged)?;
            if newest.stands && newest.index.disclosure().content == made.index.disclosure().content {
                return Ok(BuildOutcome::Unchanged(newest.built.clone()));
            }
        }
        wait(self.depot.put(FinishedFile { path: staged.finish()?, place }))?;
        let built = BuiltRevision {
            revision,
            created: walked,
            package: made.id,
            bytes: made.bytes,
            content_bytes,
            entries: made.catalog().len() as u64,
            skipped,
            frames: made.root.body_frames,
            frames_copied: made.reused.frames,
            delta: None,
            no_delta: None,
        };
        let newest = newest.map(|(newest, _)| newest);
        let file = self.depot.open_file(made.id)?;
        let new = NewBaseline { index: &made.index, file: &*file, options: &options };
        let built = self.add_revision(distribution, built, newest.as_ref(), (&new, RevisionOrigin::Build))?;
        self.tell_built(distribution, &built);
        Ok(BuildOutcome::Built(built))
    }

    /// Makes a baseline that is in its place the newest revision, with the delta that leads to it from `old`.
    pub(super) fn add_revision(
        &self,
        distribution: &Distribution,
        mut built: BuiltRevision,
        old: Option<&Newest>,
        (new, origin): (&NewBaseline<'_>, RevisionOrigin),
    ) -> Result<BuiltRevision, Error> {
        self.drop_unfinished(distribution, built.revision)?;
        let delta = match old {
            Some(old) => {
                let old = OldBaseline { revision: old.built.revision, index: &old.index, file: &*old.file };
                self.add_delta(distribution, &old, new)
            }
            None => Err("there is no revision before it to go from".to_owned()),
        };
        match delta {
            Ok(delta) => built.delta = Some(delta),
            Err(why) => built.no_delta = Some(why),
        }
        self.record_revision(distribution, &built, old, (new, origin))?;
        self.prune_packages(distribution, built.revision)?;
        self.forget_grants()?;
        self.tell_new_revision(distribution);
        Ok(built)
    }

    /// Removes what builds left that a crash or an error ended before their revision was the newest one: nobody knows
    /// of it, and it must not be taken for the revision before `new`.
    fn drop_unfinished(&self, distribution: &Distribution, new: Revision) -> Result<(), Error> {
        let Some(newest) = self.newest(distribution)? else { return Ok(()) };
        keep_packages(&self.depot, &distribution.id, |info| {
            info.root.revision <= newest.revision || info.root.revision == new
        })
    }

    /// Writes the package of `entries`, and takes from the newest one what is unchanged, if there is anything.
    pub(super) fn write_package(
        &self,
        distribution: &Distribution,
        (source, entries): (&dyn Source, Vec<Entry>),
        newest: Option<(&Newest, &[bool])>,
        options: &BuildOptions,
        staged: &mut StagedFile,
    ) -> Result<BuiltPackage, Error> {
        let signer = Signer { crypto: &*self.crypto, identity: &self.own().signing };
        let progress = self.build_progress(distribution, BuildPhase::Baseline);
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut *staged);
        let made = match newest.filter(|(_, unchanged)| unchanged.contains(&true)) {
            Some((Newest { index, file, .. }, unchanged)) => {
                let previous = Previous { index, package: &**file, unchanged };
                build_next_baseline((source, &previous), entries, options, &signer, &mut out, &progress)?
            }
            None => build_baseline(source, entries, options, &signer, &mut out, &progress)?,
        };
        let flushed = out.flush();
        drop(out);
        flushed.map_err(|error| staged.error(error))?;
        Ok(made)
    }

    /// Frames of the package before were damaged, and were made from the source instead.
    fn doubt_what_was_read(
        &self,
        distribution: &Distribution,
        built: &BuiltRevision,
        damaged: &[u64],
    ) -> Result<(), Error> {
        let Some(first) = damaged.first() else { return Ok(()) };
        let (name, revision, frames) = (&distribution.name, built.revision, damaged.len());
        tracing::error!(distribution = %name, %revision, frames, first, "the package before is damaged: nothing damaged was copied");
        self.tell_damage(distribution, revision, format!("{frames} of the frames to be copied, the first is {first}"));
        self.doubt_own(distribution, built.package)
    }

    fn tell_built(&self, distribution: &Distribution, built: &BuiltRevision) {
        let BuiltRevision { revision, package, bytes, frames, frames_copied, delta, .. } = *built;
        let name = &distribution.name;
        tracing::info!(distribution = %name, %revision, %package, bytes, frames, frames_copied, "built");
        self.events.emit(DistributorEvent::Built {
            distribution: name.clone(),
            revision,
            package,
            bytes,
            frames,
            frames_copied,
            delta_bytes: delta.map(|delta| delta.bytes),
        });
    }

    pub(super) fn build_options(
        &self,
        distribution: &Distribution,
        revision: Revision,
        created: UnixMillis,
    ) -> Result<BuildOptions, Error> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let distributor = self.own().authority.root().key_hash();
        let digest = match distribution.digest {
            Digest::None => DigestKind::None,
            Digest::Md5 => DigestKind::Md5,
            Digest::Blake3 => DigestKind::Blake3,
        };
        Ok(BuildOptions {
            revision,
            created,
            digest,
            level: distribution.level.zstd(),
            seal: distribution.encrypt.then(|| self.new_seal()).transpose()?,
            ..BuildOptions::new(distribution.id, distribution.name.clone(), distributor, threads)
        })
    }

    /// Forgets what was built of a Distribution, packages included.
    pub(super) fn forget_built(&self, distribution: &Distribution) -> Result<(), Error> {
        self.records.delete(&newest_key(distribution))?;
        keep_packages(&self.depot, &distribution.id, |_| false)?;
        self.forget_history(distribution)?;
        self.forget_seen(distribution);
        self.forget_fetched(distribution);
        self.forget_grants()
    }

    pub(super) fn build_progress(
        &self,
        distribution: &Distribution,
        phase: BuildPhase,
    ) -> impl Fn(BuildProgress) + Sync + use<> {
        let (name, events) = (distribution.name.clone(), self.events.clone());
        let said = std::sync::Mutex::new(None::<std::time::Instant>);
        move |progress: BuildProgress| {
            let mut said = lock(&said);
            let done = progress.raw_bytes >= progress.raw_bytes_total;
            if done || said.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                *said = Some(std::time::Instant::now());
                events.emit(DistributorEvent::Building {
                    distribution: name.clone(),
                    phase,
                    bytes: progress.raw_bytes,
                    bytes_total: progress.raw_bytes_total,
                });
            }
        }
    }
}

/// The newest revision, opened.
pub(super) struct Newest {
    pub(super) built: BuiltRevision,
    pub(super) index: PackageIndex,
    pub(super) file: Arc<File>,
    /// Whether it is what the Distribution should be: not where it is sealed and should not be, or the other way round.
    stands: bool,
}

/// A source that was walked.
struct Found {
    source: SourceTree,
    walked: UnixMillis,
    entries: Vec<Entry>,
    skipped: Vec<String>,
}

fn newest_key(distribution: &Distribution) -> String {
    format!("newest/{}", distribution.id)
}

/// Signs the roots of packages.
pub(super) struct Signer<'a> {
    pub(super) crypto: &'a dyn Crypto,
    pub(super) identity: &'a Identity,
}

impl RootSigner for Signer<'_> {
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(sign(self.crypto, self.identity, ROOT_CONTEXT, root_bytes)?)
    }
}
