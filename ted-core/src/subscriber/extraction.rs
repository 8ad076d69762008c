//! Extracting what was verified, and saying so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::extract::{Create, ExtractJob, Target, extract, recover};
use crate::id::{DistributionId, FiringId, KeyHash, Revision};
use crate::name::{Label, NodeName};
use crate::node::wait;
use crate::package::{BodyReader, Entry, Root};
use crate::security::{Receipt, Stage};
use crate::store::PackagePlace;
use crate::subscriber::deliveries::{Extracted, Held, extracted_key, held_key};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::report::ExtractionRow;
use crate::subscriber::state::{Key, State, lock};
use crate::subscriber::targets::{TargetRule, Variables};

/// The codes of errors that say what was told already.
const DAMAGED: &str = "TED-1873";
const SET_ASIDE: &str = "TED-1874";

impl State {
    pub(super) fn extracted_receipt(
        &self,
        distribution: DistributionId,
        firing: Option<FiringId>,
        revision: Revision,
        detail: &str,
    ) -> Receipt {
        Receipt {
            firing,
            distribution,
            revision,
            package: None,
            stage: Stage::Extracted,
            code: None,
            detail: detail.to_owned(),
            at: self.clock.now(),
        }
    }

    pub(super) async fn extract_and_say(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
        firing: Option<FiringId>,
        revision: Revision,
    ) {
        let state = self.clone();
        let work = move || state.extract_held(fleet, distribution);
        let result = tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(SubscriberError::Worker.into()));
        match result {
            Ok(done) => {
                self.note((fleet, distribution), |standing| {
                    standing.stage = Some(Stage::Extracted);
                    standing.trouble = None;
                });
                self.say(fleet, self.extracted_receipt(distribution, firing, revision, &done.to_string())).await;
            }
            Err(_) if self.run().is_over() => {}
            // The receipt and everything else about it is done.
            Err(error) if error.code() == DAMAGED || error.code() == SET_ASIDE => {}
            Err(error) => {
                self.failed((fleet, distribution), &error);
                tracing::error!(code = error.code(), %error, "the extraction failed");
                let receipt = Receipt {
                    stage: Stage::Failed,
                    code: Some(error.code().to_owned()),
                    ..self.extracted_receipt(distribution, firing, revision, &error.to_string())
                };
                self.say(fleet, receipt).await;
                self.events.emit(SubscriberEvent::Failed {
                    distribution: self.known_label(&fleet, &distribution),
                    revision,
                    code: error.code().to_owned(),
                    reason: error.to_string(),
                });
            }
        }
    }

    pub(super) fn failed(&self, key: Key, error: &Error) {
        self.note(key, |standing| {
            standing.stage = Some(Stage::Failed);
            standing.trouble = Some(format!("{}: {error}", error.code()));
        });
    }

    /// Where a Distribution is extracted, and why there.
    pub(super) fn target_of(&self, fleet: &KeyHash, held: &Held) -> Result<(PathBuf, TargetRule), Error> {
        let distributor = self.distributor_name(fleet);
        let node = self.name();
        let given = self.settings_from(fleet);
        let variables = Variables {
            node: &node,
            distribution: &held.name,
            distributor: &distributor,
            own: &self.settings.own,
            given: &given,
        };
        let files = self.data.path().join("files");
        let set = self.set_targets()?;
        Ok(self.settings.targets.resolve(&set, held.proposed_target.as_deref(), &variables, &files)?)
    }

    /// Extracts the newest verified revision. Blocks; says what it did.
    /// A package that turns out to be damaged is set aside, and the error says so.
    pub(super) fn extract_held(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
    ) -> Result<ExtractionRow, Error> {
        let key = (fleet, distribution);
        let Some(held) = self.held(&fleet, &distribution)? else {
            return Err(match self.aside(&key)? {
                Some(aside) => aside.error().into(),
                None => SubscriberError::NothingToExtract(distribution.to_string()).into(),
            });
        };
        let error = match self.extract_package(fleet, distribution, &held) {
            Ok(row) => return Ok(row),
            Err(error) => error,
        };
        let opened = self.package_root(&fleet, held.package).and_then(|root| self.open_held(held.package, &root));
        let (index, error) = match opened {
            Ok((index, _)) => (Some(index), error),
            // What keeps it from being opened says more than what followed from it.
            Err(error) => (None, error),
        };
        let Some(detail) = self.damage_of(index.as_ref(), &error, held.package) else { return Err(error) };
        self.set_aside(key, &held, detail.clone())?;
        let (distribution, revision) = (held.name.to_string(), held.revision);
        Err(SubscriberError::Damaged { distribution, revision, detail }.into())
    }

    fn extract_package(
        &self,
        fleet: KeyHash,
        distribution: DistributionId,
        held: &Held,
    ) -> Result<ExtractionRow, Error> {
        let (path, _) = self.target_of(&fleet, held)?;
        let root = self.trusted_root(&fleet)?;
        let _one_at_a_time = lock(&self.extracting);
        let previous = self.extracted(&fleet, &distribution)?.filter(|previous| previous.target == path);
        // The package before this one may be gone; then nothing counts as made by it.
        let opened = |id| self.open_held(id, &self.package_root(&fleet, id)?);
        let previous = previous.and_then(|previous| match opened(previous.package) {
            Ok((index, _)) => Some(index),
            Err(_) => self.index_of_leftover(held, previous.revision, &root),
        });
        let previous: Option<Vec<Entry>> =
            previous.map(|index| index.catalog().iter().map(|row| row.entry.clone()).collect());
        let (index, file) = opened(held.package)?;
        let target = Target::open(&path, Create::Missing)?;
        recover(&target, &distribution)?;
        let options = self.extract_options(&fleet, &held.name, index.catalog());
        let frames = BodyReader::new(index.clone(), &*file);
        let job = ExtractJob {
            rows: index.catalog(),
            frames: &frames,
            previous: previous.as_deref(),
            distribution,
            revision: held.revision,
            options: &options,
        };
        let progress = |progress: crate::extract::ExtractProgress| {
            self.events.emit(SubscriberEvent::Extracting {
                distribution: held.name.clone(),
                revision: held.revision,
                bytes: progress.bytes,
                bytes_total: progress.bytes_total,
            });
        };
        let summary = extract(&target, &job, &progress, &self.run().stopping)?;
        for (path, what) in &summary.not_kept.first {
            tracing::warn!(distribution = %held.name, %path, what, "not kept");
        }
        let extracted =
            Extracted { revision: held.revision, package: held.package, target: path.clone(), at: self.clock.now() };
        self.records.put(&extracted_key(&fleet, &distribution), &extracted)?;
        self.keep_what_is_needed(&(fleet, distribution), held)?;
        self.clear_superseded(index.root(), root.name());
        let (name, revision) = (&held.name, held.revision);
        tracing::info!(distribution = %name, %revision, to = %path.display(), files = summary.files_written, "extracted");
        self.events.emit(SubscriberEvent::Extracted {
            distribution: held.name.clone(),
            revision: held.revision,
            content: index.disclosure().content,
            target: path.clone(),
            files_written: summary.files_written,
        });
        Ok(ExtractionRow {
            distributor: root.name().clone(),
            distribution: held.name.clone(),
            revision: held.revision,
            target: path,
            summary,
        })
    }

    /// Removes what is left of revisions that will never be finished, because this newer one is here. What cannot be
    /// removed now is removed after the next one.
    fn clear_superseded(&self, root: &Root, distributor: &NodeName) {
        let newest = PackagePlace::of_root(distributor, root);
        let Some(folder) = self.depot.folder(&newest).parent().and_then(Path::parent).map(Path::to_owned) else {
            return;
        };
        let revisions = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let revisions = revisions.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        for revision in revisions.map(Revision::from_number).filter(|revision| *revision < root.revision) {
            let place = PackagePlace::of_root(distributor, &Root { revision, ..root.clone() });
            if let Err(error) = wait(self.depot.clear(&place)) {
                tracing::warn!(%revision, %error, "what is left of an older revision cannot be removed");
            }
        }
    }

    /// A Distribution's name, once a package of it was seen; its id in hex before.
    pub(super) fn known_label(&self, fleet: &KeyHash, distribution: &DistributionId) -> Label {
        let held: Option<Held> = self.records.get(&held_key(fleet, distribution)).ok().flatten();
        held.map_or_else(|| crate::node::label_of_id(distribution), |held| held.name)
    }
}
