//! What follows an accepted offer: receive, verify, keep, and say so in receipts.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Coded as _, Error};
use crate::id::{DistributionId, FiringId, KeyHash, PackageId, Revision};
use crate::limits::Limits;
use crate::model::ExtractMode;
use crate::name::Label;
use crate::node::{RecordBatch, judge_signature, wait};
use crate::package::{Opening, PackageError, PackageIndex, Root, verify_digest};
use crate::protocol::{DeliveryEnd, Floor, FrameMap, Progress, ReceiverOptions, judge_root};
use crate::security::{PackageRef, Receipt, ReleaseStatement, Signature, Stage};
use crate::store::{Depot, FinishedFile, PackagePlace, PartFile};
use crate::subscriber::damage::{Damage, aside_key};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::grants::judge_key;
use crate::subscriber::receive::{Piece, Reception, ReceptionError, Search, Twin};
use crate::subscriber::rollback::before_key;
use crate::subscriber::scrub::{Checked, checked_key};
use crate::subscriber::state::{Key, State, lock};

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
    /// The mode that the newest statement says.
    #[serde(default)]
    pub(super) proposed_mode: ExtractMode,
    /// The package's folder below the data directory.
    #[serde(default)]
    pub(super) folder: Option<PathBuf>,
}

/// The revision that a target holds, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Extracted {
    pub(super) revision: Revision,
    #[serde(with = "crate::node::as_text")]
    pub(super) package: PackageId,
    pub(super) target: PathBuf,
    #[serde(default)]
    pub(super) mode: ExtractMode,
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
            Err(ReceptionError::Corrupt { frame, part }) => {
                let detail = frame.map_or("its index".to_owned(), |frame| format!("frame {frame}"));
                let revision = statement.revision;
                let damage = Damage { revision, package: package.id, code: crate::protocol::code::CORRUPT, detail };
                let state = self.clone();
                // It keeps what arrived; what is right of it counts when it is sent again.
                let put_away = move || part.map(PartFile::set_corrupt).transpose().map(|_| ());
                let telling = move || state.give_up(key, &damage, put_away);
                if let Ok(Err(error)) = tokio::task::spawn_blocking(telling).await {
                    tracing::error!(code = error.code(), %error, "a damaged package cannot be set aside");
                }
                return;
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
        let (state, by, of) = (self.clone(), root.clone(), statement.clone());
        let unwrapping = move || state.key_of_stated(&by, &of, &package.id);
        let key = tokio::task::spawn_blocking(unwrapping).await.map_err(|_| ReceptionError::Stopping)??;
        let (judge_by, judging) = (root.clone(), self.clone());
        let judge = move |found: &Root, bytes: &[u8], signature: &Signature| -> Result<Opening, Error> {
            judge_signature(&judge_by, found, bytes, signature)?;
            judging.refuse_revoked_package(&judge_by, found, signature)?;
            judge_root(found, &judge_by.key_hash(), &distribution, &package)
                .map_err(|refused| SubscriberError::Statement(refused.to_string()))?;
            match &key {
                Some(key) => judge_key(found, key)?,
                None if found.is_sealed() => return Err(SubscriberError::GrantGone(package.id).into()),
                None => {}
            }
            Ok(key.clone().map_or(Opening::Unsealed, Opening::With))
        };
        let (state, looking_by, looking_root) = (self.clone(), judge.clone(), root.clone());
        let looking = move || state.index_set_aside(&(fleet, distribution), &looking_root, &package, looking_by);
        let kept = tokio::task::spawn_blocking(looking).await.map_err(|_| ReceptionError::Stopping)?;
        let mut reception = Reception {
            package,
            link: self.links.watch(&fleet),
            stop: self.run().stop,
            options: ReceiverOptions { silence: self.settings.silence, ..ReceiverOptions::default() },
            judge: Box::new(move |reader| match (reader.root(), reader.root_bytes(), reader.signature()) {
                (Some(found), Some(bytes), Some(signature)) => judge(found, bytes, signature),
                _ => Err(SubscriberError::Statement("the root is missing".to_owned()).into()),
            }),
            twin: self.clone().finds_twin(),
            twin_failed: false.into(),
            progress: Box::new(|_| {}),
            started: tokio::time::Instant::now(),
        };
        let (index, pieces) = match kept {
            // What lies in the part file already needs no writing.
            Some(index) => (index, vec![]),
            None => reception.index().await?,
        };
        if index.id() != package.id {
            return Err(ReceptionError::Corrupt { frame: None, part: None });
        }
        let name = index.disclosure().distribution_name.clone();
        reception.progress = self.receiving_progress((fleet, distribution), &name, statement.revision, package.bytes);
        tracing::info!(distribution = %name, revision = %statement.revision, bytes = package.bytes, "receiving");
        self.events.emit(SubscriberEvent::Accepted { distribution: name.clone(), revision: statement.revision });
        let place = PackagePlace::of_root(root.name(), index.root());
        let twin = if reception.twin_failed.into_inner() { None } else { (reception.twin)(index.root()) };
        reception.twin_failed = false.into();
        let (part, map, search) = self.open_part(&index, &place, (fleet, distribution), twin).await?;
        let part = Arc::new(part);
        let received = reception.body(&index, part.clone(), (map, search)).await;
        drop(reception);
        let part = Arc::into_inner(part).ok_or(ReceptionError::Stopping)?;
        match received {
            Err(ReceptionError::Corrupt { frame, .. }) => {
                return Err(ReceptionError::Corrupt { frame, part: Some(part) });
            }
            received => received?,
        }
        let state = self.clone();
        let statement = statement.clone();
        let keeping = move || state.keep(fleet, &statement, (&index, &pieces), place, part);
        tokio::task::spawn_blocking(keeping).await.map_err(|_| ReceptionError::Stopping)??;
        Ok(name)
    }

    /// A package that is here with the same table has the same frames, whatever its root says otherwise.
    fn finds_twin(self: Arc<Self>) -> Twin {
        Box::new(move |root| {
            let here = self.depot.packages().into_iter().find(|info| {
                (info.root.table, info.root.body_bytes) == (root.table, root.body_bytes)
                    && info.root.distribution == root.distribution
            })?;
            File::open(self.depot.path_of(here.id)?).ok()
        })
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
        key: Key,
        twin: Option<File>,
    ) -> Result<(PartFile, FrameMap, Search), ReceptionError> {
        let (index, folder) = (index.clone(), self.depot.folder(place));
        let trusted = self.trusted_root(&index.root().distributor);
        // A crash after a corrupt package was taken up leaves a part file that is whole but for a few frames.
        let taken_up = self.aside(&key)?.is_some_and(|aside| aside.package == index.id());
        let search = if taken_up { Search::Everywhere } else { Search::UntilWrong };
        let opening = move || -> Result<(PartFile, FrameMap, Search), Error> {
            // Trust may have been taken back while the index was fetched; then nothing is written.
            trusted?;
            let (part, map, search) = match PartFile::salvage(&folder, index.bytes())? {
                Some(part) => (part, None, Search::Everywhere),
                None => match (PartFile::open(&folder, index.bytes())?, twin) {
                    ((part, None), Some(mut twin)) => {
                        part.copy_from(&mut twin, index.frame_range(0).start + index.root().body_bytes)?;
                        (part, None, Search::Everywhere)
                    }
                    ((part, map), _) => (part, map, search),
                },
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
        self: &Arc<Self>,
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
                Err(ReceptionError::Corrupt { frame: None, part: Some(part) })
            }
            Ok(()) => Ok(self.take_in(fleet, statement, index, place, part)?),
        }
    }

    fn take_in(
        self: &Arc<Self>,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        index: &PackageIndex,
        place: PackagePlace,
        part: PartFile,
    ) -> Result<(), Error> {
        let folder = Some(place.folder().to_owned());
        let info = wait(self.depot.put(FinishedFile { path: part.finish()?, place }))?;
        let predecessor = self.predecessor_of(&fleet)?;
        self.security.promote(&fleet).map_err(Error::from)?;
        let floor = Floor { revision: statement.revision, ..Floor::NONE };
        self.floors.raise(&fleet, &statement.distribution, floor).map_err(Error::from)?;
        let held = Held {
            name: index.disclosure().distribution_name.clone(),
            revision: statement.revision,
            package: index.id(),
            bytes: index.bytes(),
            proposed_target: statement.target().map(ToOwned::to_owned),
            proposed_mode: statement.mode(),
            folder,
        };
        let key = (fleet, statement.distribution);
        let checked = Checked::whole(held.package, self.clock.now());
        let before = self.held(&fleet, &statement.distribution)?;
        // What was set aside of it is whole again, or overtaken.
        let mut batch = RecordBatch::default()
            .put(&held_key(&fleet, &statement.distribution), &held)?
            .put(&checked_key(&key), &checked)?
            .delete(&aside_key(&key));
        if let Some(before) = before.filter(|before| before.revision < held.revision) {
            batch = batch.put(&before_key(&key), &before)?;
        }
        self.records.apply(batch)?;
        if let Some(old) = predecessor {
            self.take_over(&old, &self.trusted_root(&fleet)?)?;
        }
        self.drop_former_packages(&fleet, &info)
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

    /// Notes the target and the mode that a statement proposes for a revision that is here already. Says whether the revision lies
    /// where it belongs.
    fn follow_proposal(&self, fleet: &KeyHash, statement: &ReleaseStatement) -> Result<bool, Error> {
        let Some(mut held) = self.held(fleet, &statement.distribution)? else { return Ok(true) };
        if (held.proposed_target.as_deref(), held.proposed_mode) != (statement.target(), statement.mode()) {
            held.proposed_target = statement.target().map(ToOwned::to_owned);
            held.proposed_mode = statement.mode();
            self.records.put(&held_key(fleet, &statement.distribution), &held)?;
        }
        let (lies, belongs) = (self.extracted(fleet, &statement.distribution)?, self.target_of(fleet, &held)?);
        let mode = self.mode_of(fleet, &held);
        Ok(lies.is_some_and(|lies| (lies.target, lies.mode) == (belongs.0, mode)))
    }
}

pub(super) fn held_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("held/{fleet}/{distribution}")
}

pub(super) fn extracted_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("extracted/{fleet}/{distribution}")
}
