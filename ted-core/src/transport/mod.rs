//! Connections between nodes: QUIC with mutual TLS 1.3, judged before anything is served.

mod budget;
mod config;
#[cfg(test)]
mod conformance;
mod connection;
mod endpoint;
mod error;
mod memory;
mod quic;
mod socket;
mod tls;

pub use connection::{Connection, LinkStats, RecvHalf, SendHalf};
pub use endpoint::{Clock, Endpoint, EndpointConfig};
pub use error::{BindError, ConnectionError, DialError, StreamError};
pub use memory::{MemoryConnection, MemoryRecv, MemorySend};
pub use quic::{QuicConnection, QuicRecv, QuicSend};
