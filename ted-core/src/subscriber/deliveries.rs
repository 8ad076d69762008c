//! What follows an accepted offer: receive, verify, keep, extract, and say so in receipts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Coded as _, Error};
use crate::extract::{Create, ExtractJob, ExtractOptions, Target, extract, recover};
use crate::id::{DistributionId, FiringId, KeyHash, PackageId, Revision};
use crate::limits::Limits;
use crate::name::{Label, NodeName};
use crate::node::{judge_signature, keep_newest, open_package, wait};
use crate::package::{BodyReader, Entry, PackageError, PackageIndex, Root, verify_digest};
use crate::protocol::{DeliveryEnd, Floor, FrameMap, Progress, ReceiverOptions, judge_root};
use crate::security::{PackageRef, Receipt, ReleaseStatement, Stage};
use crate::store::{Depot, FinishedFile, PackagePlace, PartFile};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::receive::{Piece, Reception, ReceptionError, Search};
use crate::subscriber::report::ExtractionRow;
use crate::subscriber::state::{Key, State, lock};
use crate::subscriber::targets::{TargetRule, Variables};

/// One thing to do for one Distribution. Those of one Distribution are done one after the other.
pub(super) enum Job {
    /// Receive a package.
    Receive { fleet: KeyHash, statement: ReleaseStatement, firing: FiringId, package: PackageRef },
    /// Extract a verified revision.
    Extract { fleet: KeyHash, distribution: DistributionId, firing: Option<FiringId>, revision: Revision },
    /// Say again how far an offered revision is that is here already, and extract it if that is still to be done.
    Confirm { fleet: KeyHash, statement: ReleaseStatement, firing: FiringId },
}

impl Job {
    pub(super) fn key(&self) -> (KeyHash, DistributionId) {
        match self {
            Self::Receive { fleet, statement, .. } | Self::Confirm { fleet, statement, .. } => {
                (*fleet, statement.distribution)
            }
            Self::Extract { fleet, distribution, .. } => (*fleet, *distribution),
        }
    }
}

/// The newest verified revision of a Distribution, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) name: Label,
    pub(super) revision: Revision,
    #[serde(with = "crate::node::as_text")]
    pub(super) package: PackageId,
    pub(super) bytes: u64,
    /// What the newest statement proposes.
    pub(super) proposed_target: Option<String>,
}

/// The revision that a target holds, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Extracted {
    pub(super) revision: Revision,
    #[serde(with = "crate::node::as_text")]
    pub(super) package: PackageId,
    pub(super) target: PathBuf,
    pub(super) at: crate::id::UnixMillis,
}

impl State {
    pub(super) async fn do_job(self: &Arc<Self>, job: Job) {
        match job {
            Job::Receive { fleet, statement, firing, package } => {
                self.receive(fleet, &statement, firing, package).await;
            }
            Job::Extract { fleet, distribution, firing, revision } => {
                self.extract_and_say(fleet, distribution, firing, revision).await;
            }
            Job::Confirm { fleet, statement, firing } => self.confirm(fleet, &statement, firing).await,
        }
    }

    async fn receive(
        self: &Arc<Self>,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        firing: FiringId,
        package: PackageRef,
    ) {
        let distribution = statement.distribution;
        let key = (fleet, distribution);
        self.note(key, |standing| (standing.stage, standing.bytes, standing.bytes_total) = (None, 0, package.bytes));
        let receipt = |stage, error: Option<&Error>, detail: String| Receipt {
            firing: Some(firing),
            distribution,
            revision: statement.revision,
            package: Some(package.id),
            stage,
            code: error.map(|error| error.code().to_owned()),
            detail,
            at: self.clock.now(),
        };
        let end = match self.receive_package(fleet, statement, package).await {
            Ok(name) => {
                let (revision, bytes) = (statement.revision, package.bytes);
                tracing::info!(distribution = %name, %revision, bytes, "received and verified");
                self.note(key, |standing| {
                    standing.stage = Some(Stage::Verified);
                    standing.trouble = None;
                    (standing.bytes, standing.bytes_total) = (package.bytes, package.bytes);
                });
                self.say(fleet, receipt(Stage::Received, None, String::new())).await;
                self.say(fleet, receipt(Stage::Verified, None, String::new())).await;
                self.events.emit(SubscriberEvent::Received {
                    distribution: name,
                    revision: statement.revision,
                    bytes: package.bytes,
                });
                DeliveryEnd::Verified
            }
            Err(ReceptionError::Corrupt { frame }) => {
                let detail = frame.map_or("its index".to_owned(), |frame| format!("frame {frame}"));
                let receipt = Receipt {
                    code: Some(crate::protocol::code::CORRUPT.to_owned()),
                    ..receipt(Stage::Corrupt, None, detail.clone())
                };
                self.note(key, |standing| {
                    standing.stage = Some(Stage::Corrupt);
                    standing.trouble = Some(format!("{}: {detail} stayed damaged", crate::protocol::code::CORRUPT));
                });
                self.say(fleet, receipt).await;
                let distribution = self.known_label(&fleet, &distribution);
                self.events.emit(SubscriberEvent::Corrupt { distribution, revision: statement.revision, detail });
                DeliveryEnd::Corrupt
            }
            Err(ReceptionError::Stopping) => return,
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(code = error.code(), %error, "receiving stopped");
                self.failed(key, &error);
                self.say(fleet, receipt(Stage::Failed, Some(&error), error.to_string())).await;
                self.events.emit(SubscriberEvent::Failed {
                    distribution: self.known_label(&fleet, &distribution),
                    revision: statement.revision,
                    code: error.code().to_owned(),
                    reason: error.to_string(),
                });
                DeliveryEnd::Stopped
            }
        };
        let state = self.clone();
        let ending = move || {
            let now = state.now(&fleet);
            let actions = match lock(&state.deliveries).get_mut(&(fleet, distribution)) {
                Some(delivery) => delivery.ended(&package.id, end, now),
                None => vec![],
            };
            state.carry_out(fleet, distribution, actions)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(ending).await {
            tracing::error!(code = error.code(), %error, "a delivery cannot go on");
        }
    }

    /// Receives one package whole: index first, then the body; verifies, names it `distfile.ted` and keeps it.
    async fn receive_package(
        self: &Arc<Self>,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        package: PackageRef,
    ) -> Result<Label, ReceptionError> {
        let root = self.trusted_root(&fleet)?;
        let distribution = statement.distribution;
        let (judge_by, state) = (root.clone(), self.clone());
        let mut reception = Reception {
            package,
            link: self.links.watch(&fleet),
            stop: self.run().stop,
            options: ReceiverOptions { silence: self.settings.silence, ..ReceiverOptions::default() },
            judge: Box::new(move |reader| {
                let (Some(found), Some(bytes), Some(signature)) =
                    (reader.root(), reader.root_bytes(), reader.signature())
                else {
                    return Err(SubscriberError::Statement("the root is missing".to_owned()).into());
                };
                judge_signature(&judge_by, found, bytes, signature)?;
                state.refuse_revoked_package(&judge_by, found, signature)?;
                judge_root(found, &judge_by.key_hash(), &distribution, &package)
                    .map_err(|refused| SubscriberError::Statement(refused.to_string()))?;
                Ok(())
            }),
            progress: Box::new(|_| {}),
            started: tokio::time::Instant::now(),
        };
        let (index, pieces) = reception.index().await?;
        if index.id() != package.id {
            return Err(ReceptionError::Corrupt { frame: None });
        }
        let Some(disclosure) = index.root().disclosure.clone() else {
            return Err(Error::from(SubscriberError::Statement("the package is sealed".to_owned())).into());
        };
        let name = disclosure.distribution_name;
        reception.progress = self.receiving_progress((fleet, distribution), &name, statement.revision, package.bytes);
        tracing::info!(distribution = %name, revision = %statement.revision, bytes = package.bytes, "receiving");
        self.events.emit(SubscriberEvent::Accepted { distribution: name.clone(), revision: statement.revision });
        let place = PackagePlace::of_root(root.name(), index.root());
        let (part, map, search) = self.open_part(&index, &place).await?;
        let part = Arc::new(part);
        let received = reception.body(&index, part.clone(), (map, search)).await;
        drop(reception);
        let part = Arc::into_inner(part).ok_or(ReceptionError::Stopping)?;
        if let Err(ReceptionError::Corrupt { frame }) = received {
            part.set_corrupt()?;
            return Err(ReceptionError::Corrupt { frame });
        }
        received?;
        let state = self.clone();
        let statement = statement.clone();
        let keeping = move || state.keep(fleet, &statement, (&index, &pieces), place, part);
        tokio::task::spawn_blocking(keeping).await.map_err(|_| ReceptionError::Stopping)??;
        Ok(name)
    }

    fn receiving_progress(
        self: &Arc<Self>,
        key: Key,
        name: &Label,
        revision: Revision,
        bytes_total: u64,
    ) -> Box<dyn Fn(Progress) + Send + Sync> {
        let (state, name) = (self.clone(), name.clone());
        let said = std::sync::atomic::AtomicU64::new(u64::MAX);
        Box::new(move |progress| {
            // The machine tells it after every event; what has not changed is not worth a word.
            if said.swap(progress.bytes_written, std::sync::atomic::Ordering::Relaxed) != progress.bytes_written {
                state.note(key, |standing| standing.bytes = progress.bytes_written);
                state.events.emit(SubscriberEvent::Receiving {
                    distribution: name.clone(),
                    revision,
                    bytes: progress.bytes_written,
                    bytes_total,
                });
            }
        })
    }

    /// Opens `distfile.part`, or goes on with what is there, and puts the package's index into it.
    async fn open_part(
        &self,
        index: &PackageIndex,
        place: &PackagePlace,
    ) -> Result<(PartFile, FrameMap, Search), ReceptionError> {
        let (index, folder) = (index.clone(), self.depot.folder(place));
        let trusted = self.trusted_root(&index.root().distributor);
        let opening = move || -> Result<(PartFile, FrameMap, Search), Error> {
            // Trust may have been taken back while the index was fetched; then nothing is written.
            trusted?;
            let (part, map, search) = match PartFile::salvage(&folder, index.bytes())? {
                Some(part) => (part, None, Search::Everywhere),
                None => {
                    let (part, map) = PartFile::open(&folder, index.bytes())?;
                    (part, map, Search::UntilWrong)
                }
            };
            let (id, bytes, frames) = (index.id(), index.bytes(), index.body_frames());
            let kept = map.and_then(|map| FrameMap::decode(&map, &Limits::DEFAULT).ok());
            match kept.filter(|map| map.is_of(&id, bytes, frames)) {
                Some(kept) => Ok((part, kept, search)),
                None => Ok((part, FrameMap::empty(id, bytes, frames, &Limits::DEFAULT)?, search)),
            }
        };
        Ok(tokio::task::spawn_blocking(opening).await.map_err(|_| ReceptionError::Stopping)??)
    }

    /// Takes a complete package in: digest, `distfile.ted`, the Distributor's certificate into the keystore, the floor,
    /// and only then the record that makes it count as verified.
    fn keep(
        &self,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        (index, pieces): (&PackageIndex, &[Piece]),
        place: PackagePlace,
        part: PartFile,
    ) -> Result<(), ReceptionError> {
        self.trusted_root(&fleet)?;
        for piece in pieces {
            part.write_at(&piece.bytes, piece.offset)?;
        }
        match verify_digest(index, &*part.file()) {
            Err(error @ PackageError::Io { .. }) => Err(Error::from(error).into()),
            Err(error) => {
                tracing::error!(code = error.code(), %error, package = %index.id(), "a complete package is damaged");
                part.set_corrupt()?;
                Err(ReceptionError::Corrupt { frame: None })
            }
            Ok(()) => Ok(self.take_in(fleet, statement, index, place, part)?),
        }
    }

    fn take_in(
        &self,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        index: &PackageIndex,
        place: PackagePlace,
        part: PartFile,
    ) -> Result<(), Error> {
        let disclosure = index.root().disclosure.as_ref();
        let name = disclosure.map(|disclosure| disclosure.distribution_name.clone());
        let name = name.ok_or_else(|| SubscriberError::Statement("the package is sealed".to_owned()))?;
        wait(self.depot.put(FinishedFile { path: part.finish()?, place }))?;
        self.security.promote(&fleet).map_err(Error::from)?;
        let issued = self.floors.get(&fleet, &statement.distribution).issued;
        let floor = Floor { revision: statement.revision, issued };
        self.floors.raise(&fleet, &statement.distribution, floor).map_err(Error::from)?;
        let held = Held {
            name,
            revision: statement.revision,
            package: index.id(),
            bytes: index.bytes(),
            proposed_target: statement.target().map(ToOwned::to_owned),
        };
        Ok(self.records.put(&held_key(&fleet, &statement.distribution), &held)?)
    }

    pub(super) fn held(&self, fleet: &KeyHash, distribution: &DistributionId) -> Result<Option<Held>, Error> {
        let held: Option<Held> = self.records.get(&held_key(fleet, distribution))?;
        let Some(held) = held else { return Ok(None) };
        Ok(wait(self.depot.info(held.package))?.map(|_| held))
    }

    pub(super) fn extracted(&self, fleet: &KeyHash, distribution: &DistributionId) -> Result<Option<Extracted>, Error> {
        Ok(self.records.get(&extracted_key(fleet, distribution))?)
    }

    async fn confirm(self: &Arc<Self>, fleet: KeyHash, statement: &ReleaseStatement, firing: FiringId) {
        let distribution = statement.distribution;
        let (state, stated) = (self.clone(), statement.clone());
        let looking = move || state.follow_proposal(&fleet, &stated);
        let as_proposed = tokio::task::spawn_blocking(looking).await;
        let done = self.extracted(&fleet, &distribution).ok().flatten();
        if matches!(as_proposed, Ok(Ok(true))) && done.is_some_and(|done| done.revision == statement.revision) {
            self.say(fleet, self.extracted_receipt(distribution, Some(firing), statement.revision, "current")).await;
            return;
        }
        self.extract_and_say(fleet, distribution, Some(firing), statement.revision).await;
    }

    /// Notes the target that a statement proposes for a revision that is here already. Says whether the revision lies
    /// where it belongs.
    fn follow_proposal(&self, fleet: &KeyHash, statement: &ReleaseStatement) -> Result<bool, Error> {
        let Some(mut held) = self.held(fleet, &statement.distribution)? else { return Ok(true) };
        if held.proposed_target.as_deref() != statement.target() {
            held.proposed_target = statement.target().map(ToOwned::to_owned);
            self.records.put(&held_key(fleet, &statement.distribution), &held)?;
        }
        let (lies, belongs) = (self.extracted(fleet, &statement.distribution)?, self.target_of(fleet, &held)?);
        Ok(lies.is_some_and(|lies| lies.target == belongs.0))
    }

    fn extracted_receipt(
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

    async fn extract_and_say(
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

    fn failed(&self, key: Key, error: &Error) {
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
    pub(super) fn extract_held(&self, fleet: KeyHash, distribution: DistributionId) -> Result<ExtractionRow, Error> {
        let held = self.held(&fleet, &distribution)?;
        let held = held.ok_or_else(|| SubscriberError::NothingToExtract(distribution.to_string()))?;
        let (path, _) = self.target_of(&fleet, &held)?;
        let root = self.trusted_root(&fleet)?;
        let _one_at_a_time = lock(&self.extracting);
        let previous = self.extracted(&fleet, &distribution)?.filter(|previous| previous.target == path);
        // The package before this one may be gone; then nothing counts as made by it.
        let previous = previous.and_then(|previous| open_package(&self.depot, previous.package, &root).ok());
        let previous: Option<Vec<Entry>> =
            previous.map(|(index, _)| index.catalog().iter().map(|row| row.entry.clone()).collect());
        let (index, file) = open_package(&self.depot, held.package, &root)?;
        let target = Target::open(&path, Create::Missing)?;
        recover(&target, &distribution)?;
        let threads = self.settings.threads.map_or(0, usize::from);
        let options = ExtractOptions { links: self.settings.links, threads, ..ExtractOptions::default() };
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
        let extracted =
            Extracted { revision: held.revision, package: held.package, target: path.clone(), at: self.clock.now() };
        self.records.put(&extracted_key(&fleet, &distribution), &extracted)?;
        keep_newest(&self.depot, &distribution, 1)?;
        self.clear_superseded(index.root(), root.name());
        let (name, revision) = (&held.name, held.revision);
        tracing::info!(distribution = %name, %revision, to = %path.display(), files = summary.files_written, "extracted");
        if let Some(disclosure) = &index.root().disclosure {
            self.events.emit(SubscriberEvent::Extracted {
                distribution: held.name.clone(),
                revision: held.revision,
                content: disclosure.content,
                target: path.clone(),
                files_written: summary.files_written,
            });
        }
        Ok(ExtractionRow {
            distributor: root.name().clone(),
            distribution: held.name,
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

pub(super) fn held_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("held/{fleet}/{distribution}")
}

pub(super) fn extracted_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("extracted/{fleet}/{distribution}")
}
