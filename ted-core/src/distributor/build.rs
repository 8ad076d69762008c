//! Building revisions: one look at the source, one pass over it, and nothing new where nothing changed.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::{BuildOutcome, BuiltRevision};
use crate::distributor::source::{Exclude, FolderSource, Unreadable};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{Revision, UnixMillis};
use crate::model::{Digest, Distribution};
use crate::name::Label;
use crate::node::{keep_newest, wait};
use crate::package::{
    BuildOptions, BuildProgress, DigestKind, Entry, PackageIndex, PackageKind, ROOT_CONTEXT, RootSigner, Skipped,
    Source, build_baseline, same_but_content,
};
use crate::security::{Crypto, Identity, Signature, sign};
use crate::store::{Depot, FinishedFile, PackagePlace};

/// The code of a source that changed while it was read.
const CHANGED: &str = "TED-1703";

/// Bytes that are handed to the file system at once.
const WRITE_BYTES: usize = 1 << 20;

/// A source that changes while it is read is read once more; then it is an error.
const ATTEMPTS: u32 = 2;

/// How often a build says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Revisions that stay: the newest, and the one before it, which a Subscriber may be in the middle of.
pub(super) const REVISIONS_KEPT: usize = 2;

impl State {
    /// Builds the newest state of a Distribution, if it is not built yet.
    pub(super) async fn build(self: &Arc<Self>, name: &Label) -> Result<BuildOutcome, Error> {
        let _one_at_a_time = self.building.lock().await;
        let (state, name) = (self.clone(), name.clone());
        let work = move || {
            let distribution = lock(&state.fleet).distribution(&name)?.clone();
            state.build_now(&distribution)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| DistributorError::Worker)?
    }

    /// The newest revision that was built.
    pub(super) fn newest(&self, distribution: &Distribution) -> Result<Option<BuiltRevision>, Error> {
        Ok(self.records.get(&newest_key(distribution))?)
    }

    /// Makes this the newest revision.
    pub(super) fn set_newest(&self, distribution: &Distribution, built: &BuiltRevision) -> Result<(), Error> {
        Ok(self.records.put(&newest_key(distribution), built)?)
    }

    fn build_now(&self, distribution: &Distribution) -> Result<BuildOutcome, Error> {
        let mut attempt = 1;
        loop {
            match self.attempt(distribution) {
                Err(error) if error.code() == CHANGED && attempt < ATTEMPTS => {
                    tracing::warn!(distribution = %distribution.name, %error, "reading the source once more");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Whether the source differs from the newest revision, as far as it shows without reading files.
    pub(super) fn has_changed(&self, name: &Label) -> Result<bool, Error> {
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        let entries = source_of(&distribution)?.entries(&mut |_| {})?;
        let newest = self.newest_package(&distribution)?;
        if let Some((newest, _)) = &newest
            && self.is_rolled_back(&distribution, newest, &entries)?
        {
            return Ok(false);
        }
        Ok(newest.is_none_or(|(_, index)| !same_but_content(index.catalog(), &entries)))
    }

    fn attempt(&self, distribution: &Distribution) -> Result<BuildOutcome, Error> {
        let source = source_of(distribution)?;
        let (entries, skipped) = self.entries_of(distribution, &source)?;
        let newest = self.newest_package(distribution)?;
        if let Some((newest, index)) = &newest
            && (same_but_content(index.catalog(), &entries) || self.is_rolled_back(distribution, newest, &entries)?)
        {
            return Ok(BuildOutcome::Unchanged(newest.clone()));
        }
        self.build_entries(distribution, &source, entries, newest, skipped)
    }

    /// Builds a new revision, whether or not the source has changed.
    pub(super) fn build_anew(&self, distribution: &Distribution) -> Result<BuiltRevision, Error> {
        let source = source_of(distribution)?;
        let (entries, skipped) = self.entries_of(distribution, &source)?;
        Ok(self.build_entries(distribution, &source, entries, None, skipped)?.revision().clone())
    }

    fn entries_of(
        &self,
        distribution: &Distribution,
        source: &FolderSource,
    ) -> Result<(Vec<Entry>, Vec<String>), Error> {
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

    /// The newest revision and its package. One that cannot be read any more does not count, nor one that is sealed
    /// where it should not be, or the other way round: it is built anew.
    fn newest_package(&self, distribution: &Distribution) -> Result<Option<(BuiltRevision, PackageIndex)>, Error> {
        let Some(newest) = self.newest(distribution)? else { return Ok(None) };
        match self.open_own(newest.package) {
            Ok((index, _)) if index.root().is_sealed() != distribution.encrypt => Ok(None),
            Ok((index, _)) => Ok(Some((newest, index))),
            Err(error) => {
                tracing::warn!(distribution = %distribution.name, %error, "the newest package is built anew");
                self.events.emit(DistributorEvent::OwnCopyDamaged {
                    distribution: distribution.name.clone(),
                    revision: newest.revision,
                    detail: error.to_string(),
                });
                Ok(None)
            }
        }
    }

    fn build_entries(
        &self,
        distribution: &Distribution,
        source: &FolderSource,
        entries: Vec<Entry>,
        newest: Option<(BuiltRevision, PackageIndex)>,
        skipped: Vec<String>,
    ) -> Result<BuildOutcome, Error> {
        let now = self.now();
        let revision = self.sequences.next_revision(&distribution.id, now)?;
        let place = PackagePlace::at_distributor(&distribution.name, revision, PackageKind::Baseline);
        let content_bytes = entries.iter().map(|entry| entry.size).sum();
        let options = self.build_options(distribution, revision, now)?;
        let signer = Signer { crypto: &*self.crypto, identity: &self.own().signing };
        let mut staged = self.depot.stage(&place)?;
        let progress = self.build_progress(distribution);
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut staged);
        let built = build_baseline(source, entries, &options, &signer, &mut out, &progress)?;
        let flushed = out.flush();
        drop(out);
        flushed.map_err(|error| staged.error(error))?;
        if let Some((newest, index)) = newest
            && index.disclosure().content == built.index.disclosure().content
        {
            return Ok(BuildOutcome::Unchanged(newest));
        }
        wait(self.depot.put(FinishedFile { path: staged.finish()?, place }))?;
        let built = BuiltRevision {
            revision,
            created: now,
            package: built.id,
            bytes: built.bytes,
            content_bytes,
            entries: built.catalog().len() as u64,
            skipped,
        };
        self.records.put(&newest_key(distribution), &built)?;
        keep_newest(&self.depot, &distribution.id, REVISIONS_KEPT)?;
        self.forget_grants()?;
        tracing::info!(distribution = %distribution.name, %revision, package = %built.package, bytes = built.bytes, "built");
        self.events.emit(DistributorEvent::Built {
            distribution: distribution.name.clone(),
            revision,
            package: built.package,
            bytes: built.bytes,
        });
        Ok(BuildOutcome::Built(built))
    }

    fn build_options(
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
            seal: distribution.encrypt.then(|| self.new_seal()).transpose()?,
            ..BuildOptions::new(distribution.id, distribution.name.clone(), distributor, threads)
        })
    }

    /// Forgets what was built of a Distribution, packages included.
    pub(super) fn forget_built(&self, distribution: &Distribution) -> Result<(), Error> {
        self.records.delete(&newest_key(distribution))?;
        keep_newest(&self.depot, &distribution.id, 0)?;
        self.forget_grants()
    }

    fn build_progress(&self, distribution: &Distribution) -> impl Fn(BuildProgress) + Sync {
        let (name, events) = (distribution.name.clone(), self.events.clone());
        let said = std::sync::Mutex::new(None::<std::time::Instant>);
        move |progress: BuildProgress| {
            let mut said = lock(&said);
            let done = progress.raw_bytes >= progress.raw_bytes_total;
            if done || said.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                *said = Some(std::time::Instant::now());
                events.emit(DistributorEvent::Building {
                    distribution: name.clone(),
                    bytes: progress.raw_bytes,
                    bytes_total: progress.raw_bytes_total,
                });
            }
        }
    }
}

pub(super) fn source_of(distribution: &Distribution) -> Result<FolderSource, Error> {
    let unreadable = if distribution.skip_unreadable { Unreadable::Skip } else { Unreadable::Refuse };
    Ok(FolderSource::new(PathBuf::from(&distribution.source), Exclude::new(&distribution.exclude)?, unreadable))
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
