//! Certificates, signatures, envelopes, enrolment and the one place that judges who may speak.

mod authority;
mod aws_lc;
mod certificate;
mod configuration;
mod crypto;
mod csr;
mod enrol;
mod entitlements;
mod envelope;
#[cfg(test)]
pub(crate) mod fixtures;
mod grant;
mod hpke;
mod import;
mod invite;
mod judge;
mod keystore;
mod pair;
mod receipt;
mod replacement;
mod revocation;
mod root;
mod seal;
mod signature;
mod statement;
mod summary;
mod token;
mod trust;
mod usage;

pub use authority::{Authority, Identity};
pub use aws_lc::AwsLc;
pub use certificate::Certificate;
pub use configuration::{Configuration, Configured, Section};
pub use crypto::{Crypto, CryptoError, SecretKey, verify_signature};
pub use csr::CertificateRequest;
pub use enrol::{CheckedEnrolment, EnrolAnswer, EnrolError, EnrolRequest, TokenProof};
pub use entitlements::{Descendant, Entitlements, EntitlementsPage};
pub use envelope::{Envelope, EnvelopeBody, EnvelopeError, EnvelopeKind};
pub use grant::{
    Grant, GrantError, GrantTree, Grants, KeptGrant, ProvenGrant, Recipient, Unfit, Wrap, judge_recipient,
};
pub use hpke::{HPKE_ENC_BYTES, HPKE_TAG_BYTES, HpkeError, HpkeSealed, hpke_open};
pub use import::{ImportError, ImportedBundle, TlsIdentity};
pub use invite::{Invite, InviteError, ParentHint};
pub use judge::{
    Alpn, Facts, FleetRole, FleetTrust, Peer, PeerRole, Refusal, Relation, Side, TrustPolicy, fleet_sni,
    judge_connection, judge_standing, sni_means, stays_of_two,
};
pub use keystore::{HeldKey, Keystore, KeystoreError};
pub use pair::{CertificateFacts, CertificateState, HeldCertificate, HeldIn, PairFacts};
pub use receipt::{Receipt, Stage};
pub use replacement::{Replacement, ReplacementState, RootFile, SignedTime};
pub use revocation::{ReasonError, RevocationList, RevocationReason, RevokedKey};
pub use root::DistributorRoot;
pub use seal::{ContentKey, EpochSecret, FrameSealer, SALT_BYTES, SEAL_BYTES, SealError};
pub use signature::{Signature, sign, signed_message};
pub use statement::{Carried, PackageRef, ReleaseStatement};
pub use summary::CertificateSummary;
pub use token::{Token, TokenError, TokenId};
pub use trust::TrustError;
pub use usage::Usage;

pub(crate) use certificate::clock_text;
use certificate::pem_text;
