//! The control socket: a daemon's [`Api`](crate::api::Api) as HTTP/1 and JSON over `<data>/control.sock`.
//!
//! `POST /v1/<noun>/<verb>` carries out an operation; `GET /v1/events` streams events, one JSON object a line, until
//! the daemon ends. A failure is an [`ApiError`](crate::error::ApiError) as JSON. Whoever may open the socket (0600, in
//! a directory of 0700) may do anything: there is no other check.

mod client;
mod path;
mod server;

pub use client::{Control, EventStream};
pub use path::SOCKET_NAME;
pub use server::ControlSocket;

/// Bytes of a request's body: the largest is a fleet file, of which 10,000 Subscribers in 1,000 Channels make some 5 MiB.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of an answer that the client takes: a status with 10,000 Subscribers needs about 5 MiB.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests;
