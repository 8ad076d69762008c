//! What goes wrong on connections.

use std::io;
use std::net::SocketAddr;

use crate::error::Coded;
use crate::security::Refusal;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer closed it and says why. A reason that begins with `TED-` is a refusal.
    #[error("the peer closed the connection: {}", if reason.is_empty() { "it gave no reason" } else { reason })]
    Closed {
        /// The peer's code: the digits of its `TED-` code, 0 for an orderly end.
        code: u64,
        /// Its words.
        reason: String,
    },
    /// This side closed it.
    #[error("the connection was closed here")]
    ClosedHere,
    /// Nothing came for too long.
    #[error("the peer fell silent")]
    TimedOut,
    /// It broke.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// What the transport says.
        reason: String,
    },
}

impl Coded for ConnectionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "TED-1311",
            Self::ClosedHere => "TED-1312",
            Self::TimedOut => "TED-1313",
            Self::Lost { .. } => "TED-1314",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Closed { code, .. } => *code == 0,
            Self::ClosedHere => false,
            Self::TimedOut | Self::Lost { .. } => true,
        }
    }
}

/// Why a stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer gave up sending.
    #[error("the peer gave up the stream (code {code})")]
    Reset {
        /// Its code.
        code: u64,
    },
    /// The peer does not want the rest.
    #[error("the peer does not read the stream any more (code {code})")]
    Stopped {
        /// Its code.
        code: u64,
    },
    /// This side ended the stream before.
    #[error("the stream was ended here")]
    Ended,
    /// The whole connection is over.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Coded for StreamError {
    fn code(&self) -> &'static str {
        match self {
            Self::Reset { .. } => "TED-1315",
            Self::Stopped { .. } => "TED-1316",
            Self::Ended => "TED-1317",
            Self::Connection(error) => error.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Reset { .. } | Self::Stopped { .. } => true,
            Self::Ended => false,
            Self::Connection(error) => error.is_retryable(),
        }
    }
}

/// Why a node could not be dialled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// This node has no certificate in that fleet yet.
    #[error("this node has no certificate in the fleet with key {0}: it has to enrol first")]
    NoIdentity(String),
    /// The address cannot be dialled from this socket.
    #[error("{to} cannot be dialled from here: {reason}")]
    Address {
        /// Where to.
        to: SocketAddr,
        /// What the transport says.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(String),
    /// There was no connection, or none for long.
    #[error("no connection to {to}")]
    Connection {
        /// Where to.
        to: SocketAddr,
        /// What happened.
        source: ConnectionError,
    },
    /// The peer is not whom it has to be; the connection was closed, and the peer told why.
    #[error("the node at {to} is refused")]
    Refused {
        /// Where to.
        to: SocketAddr,
        /// Why.
        source: Box<Refusal>,
    },
}

impl Coded for DialError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoIdentity(_) => "TED-1320",
            Self::Address { .. } => "TED-1321",
            Self::Tls(_) => "TED-1322",
            Self::Connection { source, .. } => source.code(),
            Self::Refused { source, .. } => source.code(),
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Connection { source, .. } if source.is_retryable())
    }
}

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The system refuses the socket.
    #[error("cannot listen on UDP {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(String),
}

impl Coded for BindError {
    fn code(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "TED-1325",
            Self::Tls(_) => "TED-1322",
        }
    }
}
