//! Why a certificate, a request or a signature is not trusted.

use crate::error::Coded;
use crate::id::UnixMillis;
use crate::name::NodeName;
use crate::security::{CryptoError, Usage, clock_text};

/// Why something that claims to be signed or certified is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Not an X.509 certificate that can be read.
    #[error("the certificate cannot be read: {reason}")]
    Malformed {
        /// What the parser says.
        reason: String,
    },
    /// A certificate, but none that TED issues.
    #[error("not a TED certificate: {reason}")]
    Foreign {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its key is not a P-256 key.
    #[error("the public key is not an ECDSA P-256 key")]
    Key,
    /// It was issued for something else.
    #[error("the certificate of {name} is for {found}, and {wanted} is wanted here")]
    Usage {
        /// Whose certificate it is.
        name: NodeName,
        /// What it is for.
        found: Usage,
        /// What it would have to be for.
        wanted: Usage,
    },
    /// The claimed Distributor did not issue it.
    #[error("the certificate of {name} was not issued by the Distributor {root} (key {fingerprint}): {reason}")]
    Chain {
        /// Whose certificate it is.
        name: NodeName,
        /// The Distributor it would have to come from.
        root: NodeName,
        /// That Distributor's short key.
        fingerprint: String,
        /// What the verifier says.
        reason: String,
    },
    /// Its time has not come. Both clocks are named, because one of them may be wrong.
    #[error("the certificate of {name} is not valid before {}; the clock here says {}", clock_text(*.not_before), clock_text(*.now))]
    NotYetValid {
        /// Whose certificate it is.
        name: NodeName,
        /// From when it holds.
        not_before: UnixMillis,
        /// What was taken for now.
        now: UnixMillis,
    },
    /// Its time is over.
    #[error("the certificate of {name} expired at {}; the clock here says {}", clock_text(*.not_after), clock_text(*.now))]
    Expired {
        /// Whose certificate it is.
        name: NodeName,
        /// Until when it held.
        not_after: UnixMillis,
        /// What was taken for now.
        now: UnixMillis,
    },
    /// It speaks for the Distributor, but carries another name.
    #[error("the certificate is for {found}, and the trusted Distributor is {wanted}")]
    OtherName {
        /// The certificate's name.
        found: NodeName,
        /// The root's name.
        wanted: NodeName,
    },
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
    /// The signature's algorithm is unknown.
    #[error("signature algorithm {0} is unknown")]
    Algorithm(u16),
    /// A `.cer` that is not a Distributor's self-signed CA certificate.
    #[error("not a Distributor's own certificate: {reason}")]
    NotARoot {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a certificate request that can be read.
    #[error("the certificate request cannot be read: {reason}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("the certificate could not be issued: {reason}")]
    Issue {
        /// What the encoder says.
        reason: String,
    },
    /// A key could not be made or used.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl Coded for TrustError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "TED-1101",
            Self::Foreign { .. } => "TED-1102",
            Self::Key => "TED-1103",
            Self::Usage { .. } => "TED-1104",
            Self::Chain { .. } => "TED-1105",
            Self::NotYetValid { .. } => "TED-1106",
            Self::Expired { .. } => "TED-1107",
            Self::OtherName { .. } => "TED-1108",
            Self::Signature => "TED-1109",
            Self::Algorithm(_) => "TED-1110",
            Self::NotARoot { .. } => "TED-1111",
            Self::Request { .. } => "TED-1112",
            Self::Issue { .. } => "TED-1113",
            Self::Crypto(error) => error.code(),
        }
    }
}
