//! What follows an accepted offer: receive, verify, keep, and say so in receipts.

use std::sync::Arc;

use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash, Revision};
use crate::name::{Label, NodeName};
use crate::node::{RecordBatch, wait};
use crate::package::{Opening, Root};
use crate::protocol::{DeliveryEnd, Floor, Progress};
use crate::security::{Carried, PackageRef, Receipt, ReleaseStatement, Stage};
use crate::store::{Depot, FinishedFile, PackagePlace, PartFile};
use crate::subscriber::arriving::Arrived;
use crate::subscriber::damage::{Damage, aside_key};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::extract_times::Begins;
use crate::subscriber::grants::judge_key;
use crate::subscriber::held::{Held, HeldPackage, OpenPackage, held_key};
use crate::subscriber::receive::ReceptionError;
use crate::subscriber::rollback::before_key;
use crate::subscriber::scrub::{Checked, checked_key};
use crate::subscriber::state::{Key, State, lock};

/// One thing to do for one Distribution. Those of one Distribution are done one after the other.
pub(super) enum Job {
    /// Receive a package.
    Receive { fleet: KeyHash, statement: ReleaseStatement, firing: FiringId, package: PackageRef },
    /// Extract a verified revision.
    Extract {
        fleet: KeyHash,
        distribution: DistributionId,
        firing: Option<FiringId>,
        revision: Revision,
        begins: Begins,
    },
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

impl State {
    pub(super) async fn do_job(self: &Arc<Self>, job: Job) {
        match job {
            Job::Receive { fleet, statement, firing, package } => {
                self.receive(fleet, &statement, firing, package).await;
            }
            Job::Extract { fleet, distribution, firing, revision, begins } => {
                let (state, key) = (self.clone(), (fleet, distribution));
                let judging = tokio::task::spawn_blocking(move || state.may_extract(key, revision, begins));
                if judging.await.unwrap_or(true) {
                    self.extract_and_say(fleet, distribution, firing, revision).await;
                }
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
        let revision = revision_of(&package);
        self.note(key, |standing| (standing.stage, standing.bytes, standing.bytes_total) = (None, 0, package.bytes));
        let receipt = |stage, error: Option<&Error>, detail: String| Receipt {
            firing: Some(firing),
            distribution,
            revision,
            package: Some(package.id),
            stage,
            code: error.map(|error| error.code().to_owned()),
            detail,
            at: self.clock.now(),
        };
        if matches!(package.carried, Carried::Baseline { .. }) {
            let (state, stated) = (self.clone(), statement.clone());
            let saying = move || state.say_target_gone(key, &stated);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(saying).await {
                tracing::error!(code = error.code(), %error, "it cannot be looked at what stood in the target");
            }
        }
        let end = match self.receive_package(fleet, statement, package).await {
            Ok(name) => {
                let bytes = package.bytes;
                tracing::info!(distribution = %name, %revision, bytes, "received and verified");
                self.note(key, |standing| {
                    standing.stage = Some(Stage::Verified);
                    standing.trouble = None;
                    (standing.bytes, standing.bytes_total) = (package.bytes, package.bytes);
                });
                self.say(fleet, receipt(Stage::Received, None, String::new())).await;
                self.say(fleet, receipt(Stage::Verified, None, String::new())).await;
                self.events.emit(SubscriberEvent::Received { distribution: name, revision, bytes });
                DeliveryEnd::Verified
            }
            Err(ReceptionError::Corrupt { frame, from, part }) => {
                let detail = what_is_damaged(frame, from.as_ref());
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
            Err(ReceptionError::Stopping) if self.is_paused() && !self.run().is_over() => {
                let refused = Self::says_paused();
                self.note(key, |standing| standing.trouble = Some(refused.to_string()));
                DeliveryEnd::Stopped
            }
            Err(ReceptionError::Stopping) => return,
            Err(ReceptionError::NoBase(error)) => {
                let (state, wanted) = (self.clone(), statement.revision);
                let saying = move || state.say_fall_back(key, wanted, &error);
                if tokio::task::spawn_blocking(saying).await.is_err() {
                    return;
                }
                DeliveryEnd::NoBase
            }
            Err(ReceptionError::Held(refused)) => {
                tracing::info!(code = refused.code(), reason = refused.reason(), "receiving waits for another offer");
                self.note(key, |standing| standing.trouble = Some(refused.to_string()));
                DeliveryEnd::Stopped
            }
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(code = error.code(), %error, "receiving stopped");
                self.failed(key, &error);
                self.say(fleet, receipt(Stage::Failed, Some(&error), error.to_string())).await;
                self.events.emit(SubscriberEvent::Failed {
                    distribution: self.known_label(&fleet, &distribution),
                    revision,
                    code: error.code().to_owned(),
                    reason: error.to_string(),
                });
                DeliveryEnd::Stopped
            }
        };
        let state = self.clone();
        let ending = move || {
            let now = state.now(&fleet);
            let starts = state.starts(&key)?;
            let actions = match lock(&state.deliveries).get_mut(&key) {
                Some(delivery) => {
                    delivery.start_from(starts);
                    delivery.ended(&package.id, end, now)
                }
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
        let arrival = self.claim_arrival(&package).await?;
        let root = self.trusted_root(&fleet)?;
        let (distribution, revision) = (statement.distribution, revision_of(&package));
        let (state, by, of) = (self.clone(), root.clone(), statement.clone());
        let unwrapping = move || state.key_of_stated(&by, &of, &package);
        let key = tokio::task::spawn_blocking(unwrapping).await.map_err(|_| ReceptionError::Stopping)??;
        let opening = move |found: &Root| -> Result<Opening, Error> {
            match &key {
                Some(key) => judge_key(found, key)?,
                None if found.is_sealed() => return Err(SubscriberError::GrantGone(package.id).into()),
                None => {}
            }
            Ok(key.clone().map_or(Opening::Unsealed, Opening::With))
        };
        let judge = self.judges_root(&root, distribution, package, opening);
        let (state, looking_by) = (self.clone(), judge.clone());
        let looking = move || state.index_set_aside(&(fleet, distribution), &package, &*looking_by);
        let kept = tokio::task::spawn_blocking(looking).await.map_err(|_| ReceptionError::Stopping)?;
        let mut reception = self.reception((fleet, distribution), package, judge, &arrival);
        let (index, pieces) = match kept {
            // What lies in the part file already needs no writing.
            Some(index) => (index, vec![]),
            None => {
                let (index, pieces) = reception.index().await?;
                (OpenPackage::of(index).map_err(Error::from)?, pieces)
            }
        };
        self.judge_base((fleet, distribution), &index).await?;
        let name = index.disclosure().distribution_name.clone();
        let told = std::mem::replace(&mut reception.progress, Box::new(|_| {}));
        reception.progress = self.receiving_progress((fleet, distribution), &name, (revision, package.bytes), told);
        let what = if matches!(index, OpenPackage::Delta(_)) { "a delta" } else { "a baseline" };
        tracing::info!(distribution = %name, %revision, bytes = package.bytes, what, "receiving");
        self.events.emit(SubscriberEvent::Accepted { distribution: name.clone(), revision });
        let blind = index.blind().clone();
        let arrived = self.bring((fleet, distribution), reception, &blind, pieces, root.name()).await?;
        let state = self.clone();
        let statement = statement.clone();
        let keeping = move || state.keep(fleet, &statement, &index, arrived);
        tokio::task::spawn_blocking(keeping).await.map_err(|_| ReceptionError::Stopping)??;
        arrival.is_whole();
        Ok(name)
    }

    /// Judges, before anything of its body is fetched, whether what a delta goes from is here: its entries, and at first
    /// sight the files that are read.
    async fn judge_base(self: &Arc<Self>, key: Key, index: &OpenPackage) -> Result<(), ReceptionError> {
        let OpenPackage::Delta(delta) = index else { return Ok(()) };
        let (state, delta) = (self.clone(), delta.clone());
        let judging = move || state.missing_base(&key, &delta);
        let missing = tokio::task::spawn_blocking(judging).await.map_err(|_| ReceptionError::Stopping)??;
        missing.map_or(Ok(()), |missing| Err(ReceptionError::NoBase(missing)))
    }

    fn receiving_progress(
        self: &Arc<Self>,
        key: Key,
        name: &Label,
        (revision, bytes_total): (Revision, u64),
        told: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Box<dyn Fn(Progress) + Send + Sync> {
        let (state, name) = (self.clone(), name.clone());
        let said = std::sync::atomic::AtomicU64::new(u64::MAX);
        Box::new(move |progress| {
            // The machine tells it after every event; what has not changed is not worth a word.
            if said.swap(progress.bytes_written, std::sync::atomic::Ordering::Relaxed) != progress.bytes_written {
                told(progress);
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

    /// Takes a complete package in: digest, `distfile.ted`, the Distributor's certificate into the keystore, the floor,
    /// and only then the record that makes it count as verified.
    fn keep(
        self: &Arc<Self>,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        index: &OpenPackage,
        arrived: Arrived,
    ) -> Result<(), ReceptionError> {
        self.trusted_root(&fleet)?;
        let Arrived { part, place } = arrived.complete(index.blind())?;
        Ok(self.take_in(fleet, statement, index, place, part)?)
    }

    fn take_in(
        self: &Arc<Self>,
        fleet: KeyHash,
        statement: &ReleaseStatement,
        index: &OpenPackage,
        place: PackagePlace,
        part: PartFile,
    ) -> Result<(), Error> {
        let _nothing_goes = lock(&self.holding);
        let info = wait(self.depot.put(FinishedFile { path: part.finish()?, place }))?;
        let predecessor = self.predecessor_of(&fleet)?;
        self.security.promote(&fleet).map_err(Error::from)?;
        let key = (fleet, statement.distribution);
        let came = HeldPackage::of(&info);
        let floor = Floor { revision: came.revision, ..Floor::NONE };
        self.floors.raise(&fleet, &statement.distribution, floor).map_err(Error::from)?;
        let (noted, before) = (self.noted_held(&key)?, self.held(&fleet, &statement.distribution)?);
        let held = Held {
            name: index.disclosure().distribution_name.clone(),
            revision: came.revision,
            content: index.disclosure().content,
            packages: self.held_with(&key, noted.as_ref(), came.clone())?,
            proposed_target: statement.target().map(ToOwned::to_owned),
            proposed_mode: statement.mode(),
        };
        // What was set aside of it is whole again, or overtaken.
        let mut batch = RecordBatch::default()
            .put(&held_key(&fleet, &statement.distribution), &held)?
            .put(&checked_key(&key, &came.id), &Checked::whole(self.clock.now()))?
            .delete(&aside_key(&key));
        // What one goes back to is what stood in the target, and not what was only passed through.
        let stood = self.extracted(&fleet, &statement.distribution)?.map(|extracted| extracted.revision);
        if let Some(before) = before.filter(|before| before.revision < held.revision && stood == Some(before.revision))
        {
            batch = batch.put(&before_key(&key), &before)?;
        }
        self.records.apply(self.fall_back_met(&key, batch, &came)?)?;
        if let Some(old) = predecessor {
            self.take_over(&old, &self.trusted_root(&fleet)?)?;
        }
        self.drop_former_packages(&fleet, &info)
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
        let (revision, begins) = (statement.revision, Begins::AsScheduled);
        self.start_job(Job::Extract { fleet, distribution, firing: Some(firing), revision, begins });
    }

    /// Notes the target and the mode that a statement proposes for a revision that is here already. Says whether the revision lies
    /// where it belongs.
    fn follow_proposal(&self, fleet: &KeyHash, statement: &ReleaseStatement) -> Result<bool, Error> {
        let _nothing_comes = lock(&self.holding);
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

/// What of a package stayed damaged, and who sent it.
pub(super) fn what_is_damaged(frame: Option<u64>, from: Option<&NodeName>) -> String {
    let what = frame.map_or("its index".to_owned(), |frame| format!("frame {frame}"));
    from.map_or(what.clone(), |from| format!("{what} from {from}"))
}

/// The revision that a package leads to.
pub(super) fn revision_of(package: &PackageRef) -> Revision {
    match package.carried {
        Carried::Baseline { revision } | Carried::Delta { revision, .. } => revision,
    }
}
