//! Where a command's operations go: to the daemon, or to the state itself where no daemon runs.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::broadcast;

use crate::api::{Api, Operation};
use crate::control::{Control, EventStream};
use crate::error::{ApiError, code};
use crate::events;
use crate::progress::Progress;

/// The library's code for a data directory that another process has open.
const IN_USE: &str = "TED-1501";

/// How long another command may have the state open, or a daemon take to open its socket.
const PASSING: Duration = Duration::from_secs(3);

/// The pause before the state is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Opens the state for a daemon: `open` is tried again for a moment while another command is busy with it. Another
/// daemon is refused at once.
///
/// # Errors
/// What `open` fails with.
pub async fn open_for_daemon<T>(data_dir: &Path, open: impl AsyncFn() -> Result<T, ApiError>) -> Result<T, ApiError> {
    let started = Instant::now();
    loop {
        match open().await {
            Err(error) if error.code == IN_USE && started.elapsed() < PASSING => {
                if matches!(Control::connect(data_dir).await, Ok(Some(_))) {
                    return Err(error);
                }
                tokio::time::sleep(AGAIN).await;
            }
            opened => return opened,
        }
    }
}

/// One command's way to a node.
#[derive(Debug)]
pub enum Session<A> {
    /// To the daemon that runs on the data directory.
    Daemon(Control),
    /// To the state, opened in this process.
    Local(A),
}

impl<A: Api> Session<A> {
    /// Reaches the daemon of `data_dir`; where none runs, `open` opens the state in this process.
    ///
    /// # Errors
    /// What [`Control::connect`] or `open` fails with.
    pub async fn open(data_dir: &Path, open: impl AsyncFn() -> Result<A, ApiError>) -> Result<Self, ApiError> {
        let started = Instant::now();
        loop {
            if let Some(control) = Control::connect(data_dir).await? {
                return Ok(Self::Daemon(control));
            }
            match open().await {
                Err(error) if error.code == IN_USE && started.elapsed() < PASSING => tokio::time::sleep(AGAIN).await,
                opened => return opened.map(Self::Local),
            }
        }
    }

    /// Reaches the daemon of `data_dir`, for commands that make no sense without one.
    ///
    /// # Errors
    /// [`code::NO_DAEMON`] where none runs.
    pub async fn daemon(data_dir: &Path) -> Result<Self, ApiError> {
        match Control::connect(data_dir).await? {
            Some(control) => Ok(Self::Daemon(control)),
            None => Err(ApiError::new(code::NO_DAEMON, format!("no daemon runs on {}", data_dir.display()))),
        }
    }

    /// Whether a daemon answers.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// What the operation fails with, and what [`Control::call`] does.
    pub async fn call<O: Operation>(&self, request: &O) -> Result<O::Answer, ApiError> {
        let body = serde_json::to_value(request)
            .map_err(|error| ApiError::new(code::BAD_REQUEST, format!("the request cannot be written: {error}")))?;
        let answer = match self {
            Self::Daemon(control) => control.call(O::NAME, &body).await?,
            Self::Local(api) => api.call(O::NAME, body).await?,
        };
        serde_json::from_value(answer)
            .map_err(|error| ApiError::new(code::BAD_ANSWER, format!("the answer to {} is odd: {error}", O::NAME)))
    }

    /// Carries out one operation, and shows the progress events that come meanwhile.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_with_progress<O: Operation>(
        &self,
        request: &O,
        progress: &Progress,
    ) -> Result<O::Answer, ApiError> {
        let mut events = self.events().await?;
        let watch = async {
            while let Ok(Some(event)) = events.next().await {
                events::show_progress(&event, progress);
            }
            std::future::pending().await
        };
        tokio::select! {
            answer = self.call(request) => answer,
            never = watch => never,
        }
    }

    /// The events from now on.
    ///
    /// # Errors
    /// As [`Control::events`].
    pub async fn events(&self) -> Result<Events, ApiError> {
        match self {
            Self::Daemon(control) => control.events().await.map(Events::Daemon),
            Self::Local(api) => Ok(Events::Local(api.events())),
        }
    }
}

/// Events of a node, wherever it runs.
#[derive(Debug)]
pub enum Events {
    /// The daemon's.
    Daemon(EventStream),
    /// Of this process.
    Local(broadcast::Receiver<Value>),
}

impl Events {
    /// The next event; `None` when the node has ended.
    ///
    /// # Errors
    /// As [`EventStream::next`].
    pub async fn next(&mut self) -> Result<Option<Value>, ApiError> {
        match self {
            Self::Daemon(stream) => stream.next().await,
            Self::Local(receiver) => loop {
                match receiver.recv().await {
                    Ok(event) => return Ok(Some(event)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(None),
                }
            },
        }
    }
}

/// Carries out one operation in the daemon of `data_dir`, or where none runs, on the state that `open` opens.
///
/// # Errors
/// What [`Session::open`] and [`Session::call`] fail with.
pub async fn run_or_open<A: Api>(
    data_dir: &Path,
    operation: &str,
    body: Value,
    open: impl AsyncFn() -> Result<A, ApiError>,
) -> Result<Value, ApiError> {
    match Session::open(data_dir, open).await? {
        Session::Daemon(control) => control.call(operation, &body).await,
        Session::Local(api) => api.call(operation, body).await,
    }
}
