//! The receipt: a Subscriber's signed statement of how far a revision came.

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, FiringId, PackageId, Revision, UnixMillis};

/// How far a revision came at one Subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// All its packages are on the Subscriber's disk.
    Received,
    /// They were verified whole.
    Verified,
    /// The target holds the revision.
    Extracted,
    /// A package was damaged beyond the tries that are allowed.
    Corrupt,
    /// Something else went wrong; the code says what.
    Failed,
}

/// The payload of an envelope of kind 6, signed with the Subscriber's identity key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The firing that it answers, where there was one.
    pub firing: Option<FiringId>,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision.
    pub revision: Revision,
    /// Which package, where it is about one.
    pub package: Option<PackageId>,
    /// How far it came.
    pub stage: Stage,
    /// The error's stable code, where it failed.
    pub code: Option<String>,
    /// What happened, for people; at most 1 KiB.
    pub detail: String,
    /// When, by the Subscriber's clock.
    pub at: UnixMillis,
}
