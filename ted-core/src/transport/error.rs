//! Why an endpoint could not be set up, or a peer not be reached.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::Coded;
use crate::security::Refusal;
use crate::transport::ConnectionError;

/// Why an endpoint could not be set up, or a peer not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The UDP socket could not be had.
    #[error("cannot use the UDP address {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// TLS does not take a certificate, key or setting.
    #[error("TLS cannot be set up: {reason}")]
    Tls {
        /// What TLS says.
        reason: String,
    },
    /// This node has no certificate in the fleet it wants to dial in.
    #[error("this node has no certificate in the fleet {fleet}; it has to enrol first")]
    NoIdentity {
        /// The short key of the fleet's Distributor.
        fleet: String,
    },
    /// The address cannot be dialled from this endpoint.
    #[error("{address} cannot be dialled: {reason}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The handshake took too long.
    #[error("{address} did not answer within {} ms", .waited.as_millis())]
    Silent {
        /// The address.
        address: SocketAddr,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The handshake failed.
    #[error("the handshake with {address} failed")]
    Handshake {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: ConnectionError,
    },
    /// The peer answered, and is not who it must be.
    #[error("{address} is refused: {source}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: Box<Refusal>,
    },
}

impl Coded for TransportError {
    fn code(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "TED-1320",
            Self::Tls { .. } => "TED-1321",
            Self::NoIdentity { .. } => "TED-1322",
            Self::Address { .. } => "TED-1323",
            Self::Silent { .. } => "TED-1324",
            Self::Handshake { source, .. } => source.code(),
            Self::Refused { source, .. } => source.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Handshake { source, .. } => source.is_retryable(),
            _ => false,
        }
    }
}
