//! Certificates, signatures, envelopes, enrolment and the one place that judges who may speak.

mod authority;
mod aws_lc;
mod certificate;
mod crypto;
mod csr;
mod envelope;
mod receipt;
mod root;
mod signature;
mod statement;
mod trust;
mod usage;

pub use authority::{Authority, Identity};
pub use aws_lc::AwsLc;
pub use certificate::Certificate;
pub use crypto::{Crypto, CryptoError, SecretKey, verify_signature};
pub use csr::CertificateRequest;
pub use envelope::{Envelope, EnvelopeBody, EnvelopeError, EnvelopeKind};
pub use receipt::{Receipt, Stage};
pub use root::DistributorRoot;
pub use signature::{Signature, sign, signed_message};
pub use statement::{Carried, PackageRef, ReleaseStatement};
pub use trust::TrustError;
pub use usage::Usage;

use certificate::clock_text;
