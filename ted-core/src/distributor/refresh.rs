//! Refreshing: the fleet is declared in a file elsewhere, and read again by a schedule or by hand.

use std::path::PathBuf;
use std::sync::Arc;

use crate::distributor::changes::{FleetChange, Trial};
use crate::distributor::scheduled::{REFRESH_FAILS, Task};
use crate::distributor::state::State;
use crate::distributor::{Distributor, DistributorError};
use crate::error::{Coded, Error};
use crate::model::Undeclared;
use crate::schedule::{Schedule, Start};

/// Where a fleet is declared, and when it is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// The file.
    pub source: PathBuf,
    /// When.
    pub schedule: Schedule,
    /// Whether what the file does not declare is deleted. Otherwise it stays.
    pub prune: bool,
}

/// Why a declared fleet was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// None is configured.
    #[error("no `refresh_source` is configured")]
    NoSource,
    /// The file cannot be read.
    #[error("the declared fleet {} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Coded for RefreshError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoSource => "TED-1624",
            Self::Unreadable { .. } => "TED-1625",
        }
    }
}

impl Distributor {
    /// Reads the declared fleet again and makes the fleet what it says, all of it or nothing. Answers what is another.
    ///
    /// # Errors
    /// [`RefreshError`]; as [`Distributor::apply`].
    pub async fn refresh(&self) -> Result<FleetChange, Error> {
        let task = self.state.settings.refresh.as_ref().map(Refresh::task);
        let done = self.blocking(State::refresh).await;
        if let (Some(task), Ok(_)) = (task, &done) {
            self.state.end_trouble(&task);
        }
        done
    }
}

impl Refresh {
    /// What its schedule is followed as.
    pub(super) fn task(&self) -> Task {
        if *self.schedule.start() == Start::Now { Task::Reread } else { Task::Refresh }
    }
}

impl State {
    fn refresh(&self) -> Result<FleetChange, Error> {
        let refresh = self.settings.refresh.as_ref().ok_or(RefreshError::NoSource)?;
        let text = std::fs::read_to_string(&refresh.source)
            .map_err(|source| RefreshError::Unreadable { path: refresh.source.clone(), source })?;
        let undeclared = if refresh.prune { Undeclared::Remove } else { Undeclared::Keep };
        let change = self.apply_text(&text, undeclared, Trial::Make)?;
        let changes = change.difference.changes.len();
        if changes > 0 {
            tracing::info!(source = %refresh.source.display(), changes, "the declared fleet was taken");
        }
        Ok(change)
    }

    pub(super) async fn refresh_by_schedule(self: &Arc<Self>, task: &Task) {
        let Some(refresh) = &self.settings.refresh else { return };
        let state = self.clone();
        let done = tokio::task::spawn_blocking(move || state.refresh().map(drop)).await;
        match done.unwrap_or(Err(DistributorError::Worker.into())) {
            Ok(()) => self.end_trouble(task),
            Err(error) => self.note_trouble(task, REFRESH_FAILS, &refresh.source.display(), &error),
        }
    }
}
