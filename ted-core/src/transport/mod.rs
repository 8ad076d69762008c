//! Connections between nodes: QUIC with mutual TLS 1.3, and a stand-in that lives in memory.
//!
//! [`Endpoint`] dials and listens on one UDP socket. What it hands out has been judged: [`judge_connection`] ran right
//! after the handshake, and until it has said yes the other side may open no stream at all, because it is granted none.
//! The drivers know connections by the trait [`Connection`] alone; one suite of checks holds every implementation to
//! the same behaviour.
//!
//! Section 5 ("Transport") and section 6 of the design.
//!
//! [`judge_connection`]: crate::security::judge_connection

mod budget;
mod config;
mod connection;
mod endpoint;
mod error;
mod memory;
mod quic;
mod socket;
mod tls;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod hostile;

pub use config::Timing;
pub use connection::{CLOSE_DONE, Connection, ConnectionError, RecvHalf, STREAM_ABANDONED, SendHalf};
pub use endpoint::{Endpoint, EndpointOptions, Incoming, Refused};
pub use error::TransportError;
pub use memory::{MemoryConnection, MemoryLink, MemoryRecv, MemorySend};
pub use quic::{QuicConnection, QuicRecv, QuicSend};
pub use tls::FleetIdentity;
