//! What follows an accepted offer: receive, verify, keep, extract, and say so in receipts.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::extract::{Create, ExtractJob, ExtractOptions, Target, extract, recover};
use crate::id::{DistributionId, FiringId, KeyHash, PackageId, Revision};
use crate::limits::Limits;
use crate::name::Label;
use crate::node::{judge_signature, keep_newest, open_package, wait};
use crate::package::{BodyReader, Entry, PackageIndex, verify_digest};
use crate::protocol::{DeliveryEnd, FrameMap, Progress, ReceiverOptions, judge_root};
use crate::security::{PackageRef, Receipt, ReleaseStatement, Stage};
use crate::store::{Depot, FinishedFile, PackagePlace, PartFile};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::receive::{Piece, Reception, ReceptionError};
use crate::subscriber::state::{State, lock};
use crate::subscriber::targets::Variables;

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
    pub(super) target: std::path::PathBuf,
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
                self.say(fleet, receipt).await;
                let distribution = self.known_label(&fleet, &distribution);
                self.events.emit(SubscriberEvent::Corrupt { distribution, revision: statement.revision, detail });
                DeliveryEnd::Corrupt
            }
            Err(ReceptionError::Stopping) => return,
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(code = error.code(), %error, "receiving stopped");
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
        let judge_by = root.clone();
        let mut reception = Reception {
            package,
            link: self.links.watch(&fleet),
            options: ReceiverOptions { silence: self.settings.silence, ..ReceiverOptions::default() },
            judge: Box::new(move |reader| {
                let (Some(found), Some(bytes), Some(signature)) =
                    (reader.root(), reader.root_bytes(), reader.signature())
                else {
                    return Err(SubscriberError::Statement("the root is missing".to_owned()).into());
                };
                judge_signature(&judge_by, found, bytes, signature)?;
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
        reception.progress = self.receiving_progress(&name, statement.revision, package.bytes);
        self.events.emit(SubscriberEvent::Accepted { distribution: name.clone(), revision: statement.revision });
        let place = PackagePlace::of_root(root.name(), index.root());
        let (part, map) = self.open_part(&index, &place).await?;
        let part = Arc::new(part);
        let received = reception.body(&index, part.clone(), map).await;
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
        &self,
        name: &Label,
        revision: Revision,
        bytes_total: u64,
    ) -> Box<dyn Fn(Progress) + Send + Sync> {
        let (events, name) = (self.events.clone(), name.clone());
        let said = std::sync::atomic::AtomicU64::new(u64::MAX);
        Box::new(move |progress| {
            // The machine tells it after every event; what has not changed is not worth a word.
            if said.swap(progress.bytes_written, std::sync::atomic::Ordering::Relaxed) != progress.bytes_written {
                events.emit(SubscriberEvent::Receiving {
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
    ) -> Result<(PartFile, FrameMap), ReceptionError> {
        let (index, folder) = (index.clone(), self.depot.folder(place));
        let opening = move || -> Result<(PartFile, FrameMap), Error> {
            let (part, map) = match PartFile::salvage(&folder, index.bytes())? {
                Some(part) => (part, None),
                None => PartFile::open(&folder, index.bytes())?,
            };
            let (id, bytes, frames) = (index.id(), index.bytes(), index.body_frames());
            let kept = map.and_then(|map| FrameMap::decode(&map, &Limits::DEFAULT).ok());
            match kept.filter(|map| map.is_of(&id, bytes, frames)) {
                Some(kept) => Ok((part, kept)),
                None => Ok((part, FrameMap::empty(id, bytes, frames, &Limits::DEFAULT)?)),
            }
        };
        Ok(tokio::task::spawn_blocking(opening).await.map_err(|_| ReceptionError::Stopping)??)
    }

    /// Takes a complete package in: digest, `distfile.ted`, catalog, and the Distributor's certificate into the keystore.
    fn keep(
        &self,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        (index, pieces): (&PackageIndex, &[Piece]),
        place: PackagePlace,
        part: PartFile,
    ) -> Result<(), Error> {
        for piece in pieces {
            part.write_at(&piece.bytes, piece.offset)?;
        }
        let file = part.file();
        verify_digest(index, &*file)?;
        drop(file);
        let disclosure = index.root().disclosure.as_ref();
        let name = disclosure.map(|disclosure| disclosure.distribution_name.clone());
        let name = name.ok_or_else(|| SubscriberError::Statement("the package is sealed".to_owned()))?;
        wait(self.depot.put(FinishedFile { path: part.finish()?, place }))?;
        self.promote(&fleet)?;
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
        let done = self.extracted(&fleet, &distribution).ok().flatten();
        if done.is_some_and(|done| done.revision == statement.revision) {
            self.say(fleet, self.extracted_receipt(distribution, Some(firing), statement.revision, "current")).await;
            return;
        }
        self.extract_and_say(fleet, distribution, Some(firing), statement.revision).await;
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
            Ok(detail) => self.say(fleet, self.extracted_receipt(distribution, firing, revision, &detail)).await,
            Err(error) => {
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

    /// Where a Distribution is extracted.
    pub(super) fn target_of(&self, fleet: &KeyHash, held: &Held) -> Result<std::path::PathBuf, Error> {
        let distributor = self.distributor_name(fleet);
        let variables = Variables { node: self.name(), distribution: &held.name, distributor: &distributor };
        let files = self.data.path().join("files");
        Ok(self.settings.targets.resolve(held.proposed_target.as_deref(), &variables, &files)?)
    }

    /// Takes a Distributor's certificate into the keystore, once a package of it was verified whole.
    fn promote(&self, fleet: &KeyHash) -> Result<(), Error> {
        let mut keystore = lock(&self.keystore);
        self.security.promote(fleet)?;
        *keystore = self.security.load_keystore()?;
        Ok(())
    }

    /// Extracts the newest verified revision. Blocks; says what it did.
    pub(super) fn extract_held(&self, fleet: KeyHash, distribution: DistributionId) -> Result<String, Error> {
        let held = self.held(&fleet, &distribution)?;
        let held = held.ok_or_else(|| SubscriberError::NothingToExtract(distribution.to_string()))?;
        let path = self.target_of(&fleet, &held)?;
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
        let options = ExtractOptions { links: self.settings.links, ..ExtractOptions::default() };
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
        let summary = extract(&target, &job, &progress, &AtomicBool::new(false))?;
        let extracted =
            Extracted { revision: held.revision, package: held.package, target: path.clone(), at: self.clock.now() };
        self.records.put(&extracted_key(&fleet, &distribution), &extracted)?;
        keep_newest(&self.depot, &distribution, 1)?;
        if let Some(disclosure) = &index.root().disclosure {
            self.events.emit(SubscriberEvent::Extracted {
                distribution: held.name.clone(),
                revision: held.revision,
                content: disclosure.content,
                target: path,
                files_written: summary.files_written,
            });
        }
        Ok(format!("{} files written, {} unchanged", summary.files_written, summary.unchanged))
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
