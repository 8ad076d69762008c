//! Certificates, signatures, envelopes, enrolment and the one place that judges who may speak.

mod receipt;
mod signature;
mod statement;

pub use receipt::{Receipt, Stage};
pub use signature::{Signature, signed_message};
pub use statement::{Carried, PackageRef, ReleaseStatement};
