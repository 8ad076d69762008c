//! Extracting what was verified, and saying so.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::extract::{Create, ExtractOptions, Target, recover};
use crate::id::{DistributionId, FiringId, KeyHash, Revision};
use crate::name::Label;
use crate::node::wait;
use crate::security::{Receipt, Stage};
use crate::store::PackagePlace;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::fall_back::is_of_base;
use crate::subscriber::held::{Held, OpenPackage, fall_back_key, held_key};
use crate::subscriber::hooks::HookRule;
use crate::subscriber::opening::Extraction;
use crate::subscriber::report::ExtractionRow;
use crate::subscriber::state::{Key, State, lock};
use crate::subscriber::targets::{TargetRule, Variables};
use crate::subscriber::verify::Mend;

/// The codes of errors that say what was told already.
const DAMAGED: &str = "TED-1873";
const SET_ASIDE: &str = "TED-1874";
pub(super) const FALLS_BACK: &str = "TED-1895";

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
                self.extracted_well((fleet, distribution), &done);
                let code = done.failed_hook().and_then(|failed| failed.code.clone());
                let receipt = self.extracted_receipt(distribution, firing, revision, &done.to_string());
                self.say(fleet, Receipt { code, ..receipt }).await;
            }
            Err(_) if self.run().is_over() => {}
            // The receipt and everything else about it is done.
            Err(error) if [DAMAGED, SET_ASIDE, FALLS_BACK].contains(&error.code()) => {}
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

    /// As [`State::extract_held_with`], where an operator asks for it: what came of it stands in the status, and its
    /// Distributor learns of it when a failure is mended so.
    pub(super) fn extract_by_hand(
        self: &Arc<Self>,
        key: Key,
        hooks: HookRule,
        mend: Mend,
    ) -> Result<ExtractionRow, Error> {
        let (fleet, distribution) = key;
        let done = self.extract_held_with(fleet, distribution, hooks, mend);
        match &done {
            Ok(row) => {
                self.extracted_well(key, row);
                let code = row.failed_hook().and_then(|failed| failed.code.clone());
                let receipt = self.extracted_receipt(distribution, None, row.revision, &row.to_string());
                self.say_now(&fleet, Receipt { code, ..receipt });
            }
            Err(_) if self.run().is_over() => {}
            Err(error) if [DAMAGED, SET_ASIDE, FALLS_BACK].contains(&error.code()) => {}
            Err(error) => self.failed(key, error),
        }
        done
    }

    fn extracted_well(&self, key: Key, done: &ExtractionRow) {
        self.note(key, |standing| {
            standing.stage = Some(Stage::Extracted);
            standing.trouble = done.hook_trouble();
        });
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
    /// A package that turns out to be damaged is set aside, and the error says so; where deltas are of no use, the
    /// baseline is taken, and the error says that.
    pub(super) fn extract_held_with(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
        hooks: HookRule,
        mend: Mend,
    ) -> Result<ExtractionRow, Error> {
        let key = (fleet, distribution);
        let Some(held) = self.held(&fleet, &distribution)? else {
            return Err(match (self.aside(&key)?, self.fall_back_of(&key)?, self.noted_held(&key)?) {
                (Some(aside), ..) => aside.error().into(),
                (None, Some(wish), Some(held)) if !wish.done => {
                    let (distribution, reason) = (held.name.to_string(), format!("{}: {}", wish.code, wish.reason));
                    SubscriberError::FallsBack { distribution, revision: held.revision, reason }.into()
                }
                _ => SubscriberError::NothingToExtract(self.known_label(&fleet, &distribution).to_string()).into(),
            });
        };
        let error = match self.extract_revision(key, &held, hooks, mend) {
            Ok(row) => return Ok(row),
            Err(error) => error,
        };
        let [package] = held.packages.as_slice() else {
            return Err(if is_of_base(&error) { self.fall_back(key, &held, &error) } else { error });
        };
        if package.base.is_some() {
            return Err(if is_of_base(&error) { self.fall_back(key, &held, &error) } else { error });
        }
        let opened = self.open_any(&fleet, package);
        let (index, error) = match opened {
            Ok((index, _)) => (Some(index), error),
            // What keeps it from being opened says more than what followed from it.
            Err(error) => (None, error),
        };
        let index = index.as_ref().map(OpenPackage::blind);
        let Some(detail) = self.damage_of(index, &error, package.id) else { return Err(error) };
        self.set_aside(key, &held, package, detail.clone())?;
        let (distribution, revision) = (held.name.to_string(), held.revision);
        Err(SubscriberError::Damaged { distribution, revision, detail }.into())
    }

    fn extract_revision(
        self: &Arc<Self>,
        key: Key,
        held: &Held,
        hooks: HookRule,
        mend: Mend,
    ) -> Result<ExtractionRow, Error> {
        let (fleet, distribution) = key;
        let (path, _) = self.target_of(&fleet, held)?;
        let root = self.trusted_root(&fleet)?;
        let _one_at_a_time = lock(&self.extracting);
        let hooks = self.hooks(key, held, &path, hooks)?;
        let mut options = ExtractOptions { gate: hooks.gate(), ..self.extract_options(&key, held, &path)? };
        let target = Target::open(&path, Create::Missing)?;
        let recovered = recover(&target, &distribution)?;
        let stood = self.extracted(&fleet, &distribution)?;
        let entries = stood.as_ref().and_then(|stood| self.kept_entries(stood));
        let is_of_target = stood.as_ref().is_some_and(|stood| stood.stands_for(&path, options.mode));
        let previous = entries.as_deref().filter(|_| is_of_target);
        let fell_back = self.fall_back_of(&key)?;
        // A target in which something was found wrong is not trusted by the looks of the rest.
        if let (Some(stood), Some(previous), true) = (&stood, previous, mend == Mend::Targets || fell_back.is_some()) {
            match self.differences_of(stood, previous, &options) {
                Ok(found) => options.again = found.into_iter().map(|differs| differs.path).collect(),
                Err(error) => tracing::warn!(code = error.code(), %error, "the target cannot be read through"),
            }
        }
        let old_files = stood.map(|stood| stood.files());
        let extraction =
            Extraction { state: self, key, held, target: &target, previous, old_files, recovered, options: &options };
        let done = extraction.run(entries.as_deref());
        let (summary, extracted) = done.map_err(|error| hooks.failed(error))?;
        self.note_extracted(&key, held, (&path, options.mode), &extracted)?;
        let hooks = hooks.done(entries.as_deref())?;
        if fell_back.is_some() {
            self.records.delete(&fall_back_key(&key))?;
        }
        self.keep_what_is_needed(&key, held)?;
        self.clear_superseded(&key, held.revision)?;
        let (name, revision) = (&held.name, held.revision);
        tracing::info!(distribution = %name, %revision, to = %path.display(), files = summary.files_written, "extracted");
        for (path, what) in &summary.not_kept.first {
            tracing::warn!(distribution = %held.name, %path, what, "not kept");
        }
        self.events.emit(SubscriberEvent::Extracted {
            distribution: held.name.clone(),
            revision: held.revision,
            content: held.content,
            target: path.clone(),
            files_written: summary.files_written,
        });
        let deltas = held.packages.iter().filter(|package| package.base.is_some()).count();
        Ok(ExtractionRow {
            distributor: root.name().clone(),
            distribution: held.name.clone(),
            revision: held.revision,
            target: path,
            mode: options.mode,
            summary,
            hooks,
            deltas,
            fell_back: fell_back.map(|why| format!("{}: {}", why.code, why.reason)),
        })
    }

    /// Removes what is left of revisions that will never be finished, because this newer one is here, and what of this
    /// one is not needed any more. What cannot be removed now is removed after the next one.
    fn clear_superseded(&self, key: &Key, newest: Revision) -> Result<(), Error> {
        let Some(extracted) = self.extracted(&key.0, &key.1)? else { return Ok(()) };
        // What is set aside of it is wanted again.
        let is_whole = self.aside(key)?.is_none();
        let revisions = std::fs::read_dir(self.data.path().join(&extracted.folder)).into_iter().flatten().flatten();
        for folder in revisions.map(|entry| extracted.folder.join(entry.file_name())) {
            let number = folder.file_name().and_then(|name| name.to_str()?.parse().ok()).map(Revision::from_number);
            if number.is_none_or(|number| number > newest || (number == newest && !is_whole)) {
                continue;
            }
            for place in ["baseline", "delta"].iter().filter_map(|kind| PackagePlace::from_found(&folder.join(kind))) {
                if let Err(error) = wait(self.depot.clear(&place)) {
                    tracing::warn!(%place, %error, "what is left of an older revision cannot be removed");
                }
            }
        }
        Ok(())
    }

    /// A Distribution's name, once a package of it was seen; its id in hex before.
    pub(super) fn known_label(&self, fleet: &KeyHash, distribution: &DistributionId) -> Label {
        let held: Option<Held> = self.records.get(&held_key(fleet, distribution)).ok().flatten();
        held.map_or_else(|| crate::node::label_of_id(distribution), |held| held.name)
    }
}
