//! The Distributor behind its API: each operation is one call of the library.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use ted_cli::api::{self, Api};
use ted_cli::error::{ApiError, from_library};
use ted_core::store::{DataDir, NodeRole};
use tokio::sync::broadcast;

use crate::config::Config;

/// Events that a slow listener may lag behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;

/// What the command line and the configuration say.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Config,
}

/// Whether the data directory has to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// For all but `init`.
    Existing,
    /// For `init`.
    MadeIfMissing,
}

/// A Distributor that this process holds: the daemon, or one command while no daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    data: DataDir,
    settings: Settings,
    events: broadcast::Sender<Value>,
}

impl Service {
    /// Takes the data directory; a second process is refused.
    ///
    /// # Errors
    /// What the library says of the data directory.
    pub(crate) fn open(settings: &Settings, presence: Presence) -> Result<Self, ApiError> {
        let data = match presence {
            Presence::Existing => DataDir::open(&settings.data_dir, NodeRole::Distributor),
            Presence::MadeIfMissing => DataDir::create(&settings.data_dir, NodeRole::Distributor),
        };
        let data = data.map_err(from_library)?;
        let events = broadcast::Sender::new(EVENTS_KEPT);
        Ok(Self { held: Arc::new(Held { data, settings: settings.clone(), events }) })
    }

    /// The data directory that is held.
    pub(crate) fn data(&self) -> &DataDir {
        &self.held.data
    }

    /// What it was opened with.
    pub(crate) fn settings(&self) -> &Settings {
        &self.held.settings
    }
}

impl Api for Service {
    async fn call(&self, operation: &str, _body: Value) -> Result<Value, ApiError> {
        Err(api::unknown_operation(operation))
    }

    fn events(&self) -> broadcast::Receiver<Value> {
        self.held.events.subscribe()
    }
}
