//! The command's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::path::{Address, SOCKET_NAME};
use super::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::error::{ApiError, code};

/// A daemon that answers on its control socket.
#[derive(Debug, Clone)]
pub struct Control {
    data_dir: PathBuf,
}

impl Control {
    /// The daemon that runs on `data_dir`; `None` where none does.
    ///
    /// # Errors
    /// [`code::SOCKET`] where a socket is there but may not be used.
    pub async fn connect(data_dir: &Path) -> Result<Option<Self>, ApiError> {
        match dial(data_dir).await {
            Ok(_) => Ok(Some(Self { data_dir: data_dir.to_owned() })),
            // Without a socket, or with one that nobody listens on, no daemon runs.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(socket_error(data_dir, &error)),
        }
    }

    /// Carries out `operation` (`noun/verb`) in the daemon.
    ///
    /// # Errors
    /// The daemon's own error, [`code::SOCKET`] where it went away, [`code::BAD_ANSWER`] where it cannot be understood.
    pub async fn call(&self, operation: &str, body: &Value) -> Result<Value, ApiError> {
        let body = Bytes::from(body.to_string());
        if body.len() > REQUEST_BYTES_MAX {
            return Err(ApiError::new(
                code::BAD_REQUEST,
                format!("the request is larger than {REQUEST_BYTES_MAX} bytes"),
            ));
        }
        let response = self.send(Method::POST, &format!("/v1/{operation}"), body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| ApiError::new(code::BAD_ANSWER, format!("the daemon's answer broke off: {error}")))?
            .to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| not_understood(&error));
        }
        Err(serde_json::from_slice::<ApiError>(&body).unwrap_or_else(|error| not_understood(&error)))
    }

    /// The daemon's events from now on.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn events(&self) -> Result<EventStream, ApiError> {
        let response = self.send(Method::GET, "/v1/events", Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(ApiError::new(code::BAD_ANSWER, format!("the daemon answers {}", response.status())));
        }
        Ok(EventStream { body: response.into_body(), unread: Vec::new() })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ApiError> {
        let fail = |error: &dyn std::error::Error| socket_error(&self.data_dir, error);
        let stream = dial(&self.data_dir).await.map_err(|error| fail(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| fail(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("control connection: {error}");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "ted")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ApiError::new(code::BAD_REQUEST, format!("`{path}` is no operation: {error}")))?;
        sender.send_request(request).await.map_err(|error| fail(&error))
    }
}

/// Events as they arrive. The stream ends with the daemon.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    unread: Vec<u8>,
}

impl EventStream {
    /// The next event; `None` when the daemon has ended.
    ///
    /// # Errors
    /// [`code::BAD_ANSWER`] for a line that is no JSON.
    pub async fn next(&mut self) -> Result<Option<Value>, ApiError> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|error| not_understood(&error));
            }
            // A daemon that was killed breaks the stream off; for the reader it has ended all the same.
            let Some(Ok(frame)) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.into_data() {
                self.unread.extend_from_slice(&data);
            }
            if self.unread.len() > ANSWER_BYTES_MAX {
                return Err(ApiError::new(code::BAD_ANSWER, "an event of the daemon has no end"));
            }
        }
    }
}

async fn dial(data_dir: &Path) -> io::Result<UnixStream> {
    let address = Address::of(data_dir, SOCKET_NAME)?;
    UnixStream::connect(address.path()).await
}

fn socket_error(data_dir: &Path, error: &dyn std::error::Error) -> ApiError {
    ApiError::new(code::SOCKET, format!("{}: {error}", data_dir.join(SOCKET_NAME).display()))
}

fn not_understood(error: &serde_json::Error) -> ApiError {
    ApiError::new(code::BAD_ANSWER, format!("the daemon's answer is not understood: {error}"))
}
