//! Hooks: what this node's own configuration has run around an extraction. Nothing that a Distributor sends, neither
//! content nor settings, names a program or a word of its arguments.
//!
//! Every passed `before` is followed by one `after`, also where the extraction failed in between: a note in the catalog
//! says that it is due, is durable before the first of them is started, and goes when the last has ended. A process that
//! died in between finds the note when it starts. An extraction that failed after its commit is finished later, without
//! `before`: then `after` runs again, and is told that it is extracted.

mod process;
mod settings;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::error::{Coded, Error};
use crate::extract::{Create, Gate, Target, is_interrupted, switch_release};
use crate::id::{DistributionId, KeyHash, Revision};
use crate::limits::Limits;
use crate::model::ExtractMode;
use crate::name::{Label, NodeName};
use crate::package::{Entry, encode_entry_list};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::{Extracted, Held, extracted_key};
use crate::subscriber::report::ExtractionRow;
use crate::subscriber::state::{Key, State, lock};
use crate::subscriber::verify::Mend;

pub(crate) use settings::HookTable;
pub use settings::{AfterFailure, HookCommand, HookScope, HookTimeout, Hooks};

use process::{End, Program, Ran};

/// Whether an extraction runs its hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HookRule {
    /// It does.
    #[default]
    Run,
    /// The operator says that this one does not.
    Skip,
}

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    /// Before the first change.
    Before,
    /// After the last.
    After,
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    /// Which one.
    pub hook: HookKind,
    /// The stable code, where it failed.
    pub code: Option<String>,
    /// How it ended.
    pub end: String,
    /// The end of what it printed.
    pub output: String,
}

/// Why a hook is none, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// It failed before anything changed.
    #[error("the hook `before` failed, so nothing was changed: {0}")]
    Before(HookReport),
    /// `after` failed, and the release before is current again.
    #[error("the hook `after` failed, so revision {to} is current again: {failed}")]
    RolledBack {
        /// The revision that is current.
        to: Revision,
        /// How it failed.
        failed: HookReport,
    },
    /// A command that cannot be run.
    #[error("the command {words:?} cannot be a hook: {reason}")]
    Command {
        /// As it was given.
        words: Vec<String>,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// `before` failed.
const BEFORE_FAILED: &str = "TED-1900";

/// `after` failed.
const AFTER_FAILED: &str = "TED-1901";

impl Coded for HookError {
    fn code(&self) -> &'static str {
        match self {
            Self::Before(_) => BEFORE_FAILED,
            Self::RolledBack { .. } => "TED-1902",
            Self::Command { .. } => "TED-1903",
        }
    }

    fn is_retryable(&self) -> bool {
        false
    }
}

impl fmt::Display for HookReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.end)?;
        let bytes_max = Limits::DEFAULT.hook_receipt_bytes_max;
        let cut = self.output.len().saturating_sub(bytes_max);
        let from = (cut..=self.output.len()).find(|at| self.output.is_char_boundary(*at)).unwrap_or_default();
        match self.output[from..].trim() {
            "" => Ok(()),
            said if from > 0 => write!(f, "; it said at the end: {said}"),
            said => write!(f, "; it said: {said}"),
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// What became of an extraction, as `after` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Extracted,
    Failed,
    RolledBack,
}

/// `after` is due: what stood in the target before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Due {
    previous: Option<Extracted>,
}

/// The revision that a hook is about, and the one before it in the target.
type Revisions = (Revision, Option<Revision>);

/// The hooks of one extraction.
pub(super) struct HookRun {
    state: Arc<State>,
    key: Key,
    hooks: Hooks,
    distributor: NodeName,
    distribution: Label,
    revision: Revision,
    mode: ExtractMode,
    /// What the target held before.
    previous: Option<Extracted>,
    target: PathBuf,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// The target changes, or has changed.
    passed: bool,
    reports: Vec<HookReport>,
    /// Why it does not.
    refused: Option<Error>,
}

impl State {
    /// The hooks for extracting `held` to `target`.
    pub(super) fn hooks(
        self: &Arc<Self>,
        key: Key,
        held: &Held,
        target: &Path,
        rule: HookRule,
    ) -> Result<Arc<HookRun>, Error> {
        let distributor = self.distributor_name(&key.0);
        let found = self.settings.hooks.of(&distributor, &held.name).filter(|_| rule == HookRule::Run);
        let hooks = found.map(|(_, hooks)| hooks.clone()).unwrap_or_default();
        let previous = self.extracted(&key.0, &key.1)?.filter(|previous| previous.target == target);
        Ok(Arc::new(HookRun {
            state: self.clone(),
            key,
            hooks,
            distributor,
            distribution: held.name.clone(),
            revision: held.revision,
            mode: self.mode_of(&key.0, held),
            previous,
            target: target.to_owned(),
            progress: Mutex::default(),
        }))
    }

    /// [`State::extract_held_with`] its hooks.
    pub(super) fn extract_held(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
    ) -> Result<ExtractionRow, Error> {
        self.extract_held_with(fleet, distribution, HookRule::Run, Mend::Nothing)
    }

    /// Whether an `after` is due that a stop or a crash kept from running.
    pub(super) fn is_hook_due(&self, key: &Key) -> Result<bool, Error> {
        Ok(self.records.get::<Due>(&due_key(key))?.is_some())
    }

    /// Whose hooks an extraction of this Distribution runs.
    pub(super) fn hook_scope(&self, distributor: &NodeName, name: &Label) -> Option<HookScope> {
        self.settings.hooks.of(distributor, name).map(|(scope, _)| scope)
    }
}

impl HookRun {
    /// Runs `before` when the extraction is about to change the target.
    pub(super) fn gate(self: &Arc<Self>) -> Gate {
        let run = self.clone();
        Gate::new(move || match run.begin() {
            Ok(()) => true,
            Err(error) => {
                lock(&run.progress).refused = Some(error);
                false
            }
        })
    }

    fn begin(&self) -> Result<(), Error> {
        // Contents that could not be made in one way are made in another: still one extraction.
        if lock(&self.progress).passed {
            return Ok(());
        }
        if self.is_stopping() {
            return Err(SubscriberError::Stopping.into());
        }
        if self.hooks.after.is_some() {
            self.state.records.put(&due_key(&self.key), &Due { previous: self.previous.clone() })?;
        }
        if let Some(command) = &self.hooks.before {
            let ran = self.run(HookKind::Before, command, None, self.revisions());
            let report = self.report(HookKind::Before, BEFORE_FAILED, &ran);
            if matches!(ran.end, End::Stopped) {
                // It may have done half of what it is for: the next start tries again.
                return Err(SubscriberError::Stopping.into());
            }
            if report.code.is_some() {
                self.state.records.delete(&due_key(&self.key))?;
                return Err(HookError::Before(report).into());
            }
            lock(&self.progress).reports.push(report);
        }
        lock(&self.progress).passed = true;
        Ok(())
    }

    /// The extraction failed: says why, and runs `after` where `before` was passed.
    pub(super) fn failed(&self, error: Error) -> Error {
        let (refused, passed) = {
            let mut progress = lock(&self.progress);
            (progress.refused.take(), progress.passed)
        };
        if let Some(command) = self.hooks.after.as_ref().filter(|_| passed) {
            let ran = self.run(HookKind::After, command, Some(Outcome::Failed), self.revisions());
            self.report(HookKind::After, AFTER_FAILED, &ran);
            // What is committed will be finished, and then `after` is due once more: to be told that it is extracted.
            if !self.is_committed()
                && let Err(error) = self.over(&ran)
            {
                tracing::warn!(code = error.code(), %error, "it is not on record that the hook `after` has run");
            }
        }
        refused.unwrap_or(error)
    }

    /// Whether the extraction that failed will be finished by the next one. What cannot be told counts so.
    fn is_committed(&self) -> bool {
        let target = Target::open(&self.target, Create::Missing);
        target.and_then(|target| is_interrupted(&target, &self.key.1)).unwrap_or(true)
    }

    /// The extraction is done, and is on record. Runs `after` where something changed, now or before a crash. `stood`
    /// are the entries of what stood in the target before.
    ///
    /// # Errors
    /// [`HookError::RolledBack`] when it failed and the release before is current again, which is on record too.
    pub(super) fn done(&self, stood: Option<&[Entry]>) -> Result<Vec<HookReport>, Error> {
        let passed = lock(&self.progress).passed;
        let due: Option<Due> = self.state.records.get(&due_key(&self.key))?;
        if let Some(command) = self.hooks.after.as_ref().filter(|_| passed || due.is_some()) {
            let previous = due.map_or_else(|| self.previous.clone(), |due| due.previous);
            let revisions = (self.revision, previous.as_ref().map(|previous| previous.revision));
            let ran = self.run(HookKind::After, command, Some(Outcome::Extracted), revisions);
            let report = self.report(HookKind::After, AFTER_FAILED, &ran);
            let back = previous.filter(|previous| self.goes_back(&ran, previous));
            if let Some(back) = back
                && self.go_back(&back, stood.filter(|_| passed))?
            {
                let revisions = (back.revision, Some(self.revision));
                let ran = self.run(HookKind::After, command, Some(Outcome::RolledBack), revisions);
                self.report(HookKind::After, AFTER_FAILED, &ran);
                self.over(&ran)?;
                return Err(HookError::RolledBack { to: back.revision, failed: report }.into());
            }
            self.over(&ran)?;
            lock(&self.progress).reports.push(report);
        }
        Ok(std::mem::take(&mut lock(&self.progress).reports))
    }

    /// Notes that `after` has run. One that was ended because the node stops is run again when it starts.
    fn over(&self, ran: &Ran) -> Result<(), Error> {
        match ran.end {
            End::Stopped => Ok(()),
            _ => Ok(self.state.records.delete(&due_key(&self.key))?),
        }
    }

    /// Whether a failed `after` has the release before become current again.
    fn goes_back(&self, ran: &Ran, previous: &Extracted) -> bool {
        let failed = match &ran.end {
            End::Exited(status) => !status.success(),
            End::Failed(_) | End::TimedOut => true,
            End::Stopped => false,
        };
        failed
            && self.hooks.on_failure_after == AfterFailure::Rollback
            && [self.mode, previous.mode] == [ExtractMode::Release; 2]
            && previous.revision != self.revision
    }

    /// Makes the release before current again, on record too. Says whether it is there to become so.
    fn go_back(&self, back: &Extracted, stood: Option<&[Entry]>) -> Result<bool, Error> {
        let (distribution, to) = (&self.distribution, back.revision);
        let target = Target::open(&self.target, Create::Missing)?;
        if let Err(error) = switch_release(&target, &self.key.1, to) {
            tracing::error!(%distribution, %to, code = error.code(), %error, "the release before cannot be gone back to");
            return Ok(false);
        }
        // Without its own entries, it is nothing that the next delta can go from.
        match stood {
            Some(entries) => {
                let list = encode_entry_list(self.key.1, to, entries)?;
                self.state.entries_file(back).replace(&list)?;
            }
            None => self.state.forget_entries(back)?,
        }
        self.state.records.put(&extracted_key(&self.key.0, &self.key.1), back)?;
        tracing::warn!(%distribution, from = %self.revision, %to, "a hook failed, so the release before is current again");
        Ok(true)
    }

    /// The revision that is extracted, and the one that stood in the target before.
    fn revisions(&self) -> Revisions {
        (self.revision, self.previous.as_ref().map(|previous| previous.revision))
    }

    fn run(&self, hook: HookKind, command: &HookCommand, outcome: Option<Outcome>, revisions: Revisions) -> Ran {
        tracing::info!(distribution = %self.distribution, %hook, program = command.words()[0], "running a hook");
        let program = Program {
            words: command.words(),
            variables: self.variables(hook, outcome, revisions),
            folder: self.target.clone(),
            timeout: self.hooks.timeout_s.duration(),
        };
        program.run(&self.state.run().stopping, &Limits::DEFAULT)
    }

    fn variables(
        &self,
        hook: HookKind,
        outcome: Option<Outcome>,
        (revision, previous): Revisions,
    ) -> Vec<(&'static str, OsString)> {
        let mut variables: Vec<(&'static str, OsString)> = vec![
            ("TED_STAGE", hook.to_string().into()),
            ("TED_DISTRIBUTOR", self.distributor.to_string().into()),
            ("TED_DISTRIBUTION", self.distribution.to_string().into()),
            ("TED_REVISION", revision.to_string().into()),
            ("TED_TARGET", self.target.clone().into()),
            ("TED_MODE", self.mode.to_string().into()),
            ("TED_DATA_DIR", self.state.data.path().into()),
        ];
        variables.extend(previous.map(|previous| ("TED_PREVIOUS_REVISION", previous.to_string().into())));
        variables.extend(outcome.map(|outcome| {
            let said = match outcome {
                Outcome::Extracted => "extracted",
                Outcome::Failed => "failed",
                Outcome::RolledBack => "rolled-back",
            };
            ("TED_OUTCOME", said.into())
        }));
        variables
    }

    fn report(&self, hook: HookKind, code: &'static str, ran: &Ran) -> HookReport {
        let (failed, end) = match &ran.end {
            End::Exited(status) => (!status.success(), status.to_string()),
            End::Failed(error) => (true, format!("it could not be run: {error}")),
            End::TimedOut => (true, format!("it was ended after {} s", self.hooks.timeout_s.duration().as_secs())),
            End::Stopped => (true, "it was ended because this node stops".to_owned()),
        };
        let code = failed.then(|| code.to_owned());
        let report = HookReport { hook, code, end, output: ran.output.clone() };
        let (distribution, revision, said) = (&self.distribution, self.revision, &report.output);
        match &report.code {
            None => tracing::info!(%distribution, %revision, %hook, end = report.end, said, "a hook has run"),
            Some(code) => {
                tracing::error!(%distribution, %revision, %hook, code, end = report.end, said, "a hook failed")
            }
        }
        self.state.events.emit(SubscriberEvent::Hook {
            distribution: self.distribution.clone(),
            revision: self.revision,
            report: report.clone(),
        });
        report
    }

    fn is_stopping(&self) -> bool {
        self.state.run().stopping.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Where the catalog keeps that an `after` is due.
pub(super) fn due_key((fleet, distribution): &Key) -> String {
    format!("hook/{fleet}/{distribution}")
}
