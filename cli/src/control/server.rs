//! The daemon's side of the control socket.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::{Bytes, Frame};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, watch};

use super::REQUEST_BYTES_MAX;
use super::path::{Address, SOCKET_NAME};
use crate::api::{self, Api};
use crate::error::{ApiError, code};
use crate::exit::Exit;

/// Operations that run when the daemon ends get this long to answer.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Events that wait for one slow reader before its oldest are dropped.
const EVENTS_QUEUED: usize = 64;

/// The bound control socket of one daemon. Dropping it removes the socket's file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    _file: SocketFile,
}

impl ControlSocket {
    /// Binds `<data_dir>/control.sock`, 0600. A socket that a dead daemon left is replaced; one that answers is not.
    ///
    /// # Errors
    /// [`code::SOCKET`] where another daemon answers, something else lies there, or the file cannot be made.
    pub async fn bind(data_dir: &Path) -> Result<Self, ApiError> {
        let path = data_dir.join(SOCKET_NAME);
        let fail = |error: io::Error| ApiError::new(code::SOCKET, format!("{}: {error}", path.display()));
        let address = Address::of(data_dir, SOCKET_NAME).map_err(fail)?;
        match UnixStream::connect(address.path()).await {
            Ok(_) => {
                let message = format!("another daemon answers on {}", path.display());
                return Err(ApiError::new(code::SOCKET, message)
                    .with_remedy("stop the other daemon first, or give this one another --data-dir"));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(fail(error)),
        }
        // Made under another name and renamed, the socket is never there with wrong permissions, nor missing.
        let fresh = Address::of(data_dir, ".control.sock.new").map_err(fail)?;
        match std::fs::remove_file(fresh.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let listener = UnixListener::bind(fresh.path()).map_err(fail)?;
        std::fs::set_permissions(fresh.path(), Permissions::from_mode(0o600)).map_err(fail)?;
        let inode = std::fs::symlink_metadata(fresh.path()).map_err(fail)?.ino();
        std::fs::rename(fresh.path(), address.path()).map_err(fail)?;
        Ok(Self { listener, _file: SocketFile { path, inode } })
    }

    /// Offers `api` until `shutdown` completes; then operations that run get ten seconds to answer, event streams end
    /// and the socket's file goes.
    ///
    /// # Errors
    /// [`code::SOCKET`] when the socket fails.
    pub async fn serve<A: Api>(
        self,
        api: A,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ApiError> {
        let (ending, ended) = watch::channel(false);
        let mut patience = ended.clone();
        let app = axum::Router::new()
            .route("/v1/events", get(events::<A>))
            .route("/v1/{noun}/{verb}", post(operation::<A>))
            .fallback(no_such_path)
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .with_state(Served { api, ended });
        let serving = axum::serve(self.listener, app).with_graceful_shutdown(async move {
            shutdown.await;
            ending.send_replace(true);
        });
        let out_of_patience = async move {
            // The sender lives as long as the server, whose end is awaited beside this.
            let _ = patience.wait_for(|ended| *ended).await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = serving => {
                served.map_err(|error| ApiError::new(code::SOCKET, format!("the control socket failed: {error}")))
            }
            () = out_of_patience => {
                tracing::warn!("an operation on the control socket did not end in time and is given up");
                Ok(())
            }
        }
    }
}

/// Removes the file when it is done with, unless a later daemon has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // A file that stays is replaced by the next daemon.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Clone)]
struct Served<A> {
    api: A,
    ended: watch::Receiver<bool>,
}

async fn operation<A: Api>(
    State(served): State<Served<A>>,
    UrlPath((noun, verb)): UrlPath<(String, String)>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let operation = format!("{noun}/{verb}");
    let body = match body.map_err(|error| error.body_text()).and_then(|body| read_body(&body)) {
        Ok(body) => body,
        Err(reason) => {
            let error = ApiError::new(code::BAD_REQUEST, format!("{operation} cannot take this request: {reason}"));
            return error_response(&error);
        }
    };
    match served.api.call(&operation, body).await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) => {
            tracing::debug!(operation, code = error.code, "{}", error.message);
            error_response(&error)
        }
    }
}

fn read_body(body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

async fn no_such_path(uri: axum::http::Uri) -> Response {
    error_response(&api::unknown_operation(uri.path()))
}

fn error_response(error: &ApiError) -> Response {
    let status = match error.code.as_str() {
        code::UNKNOWN_OPERATION => StatusCode::NOT_FOUND,
        code::BAD_REQUEST => StatusCode::BAD_REQUEST,
        _ if error.exit() == Exit::Refused => StatusCode::FORBIDDEN,
        _ if error.exit() == Exit::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ if error.retryable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, axum::Json(error)).into_response()
}

async fn events<A: Api>(State(served): State<Served<A>>) -> Response {
    let (lines, receiver) = mpsc::channel(EVENTS_QUEUED);
    tokio::spawn(forward(served.api.events(), lines, served.ended));
    let body = Body::new(Lines(receiver));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Writes events as lines until the daemon ends, the reader goes, or there can be no more events.
async fn forward(mut events: broadcast::Receiver<Value>, lines: mpsc::Sender<Bytes>, mut ended: watch::Receiver<bool>) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = ended.wait_for(|ended| *ended) => return,
            () = lines.closed() => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                serde_json::json!({ "event": "events-missed", "count": missed })
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let line = Bytes::from(format!("{event}\n"));
        tokio::select! {
            sent = lines.send(line) => if sent.is_err() { return },
            _ = ended.wait_for(|ended| *ended) => return,
        }
    }
}

/// A response body of the lines that arrive.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
