//! What a Subscriber answers when it is asked how things stand.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::{Revision, UnixMillis};
use crate::model::Endpoint;
use crate::name::{Label, NodeName};

/// What became of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Enrolment {
    /// The certificates are here.
    Enrolled,
    /// The Distributor's operator has to approve first.
    Pending {
        /// The fingerprint that the Distributor prints too.
        fingerprint: String,
    },
}

/// How a Subscriber stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriberStatus {
    /// Its name.
    pub name: NodeName,
    /// The address it listens on, where it does.
    pub listening: Option<String>,
    /// The Distributors it trusts.
    pub distributors: Vec<DistributorRow>,
    /// The Distributions it has something of.
    pub distributions: Vec<DistributionRow>,
}

/// A Distributor, seen from a Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DistributorRow {
    /// Its name.
    pub name: NodeName,
    /// The short form of its key.
    pub fingerprint: String,
    /// Whether its certificate is in the keystore; else it lies in `security/` and awaits the first package.
    pub in_keystore: bool,
    /// Where it is dialled.
    pub endpoints: Vec<Endpoint>,
    /// The fingerprint of this node's key in its fleet; none before the first request.
    pub own_fingerprint: Option<String>,
    /// Until when this node's certificate holds; none before it is enrolled.
    pub enrolled_until: Option<UnixMillis>,
    /// Whether it is connected now.
    pub connected: bool,
}

/// A Distribution, seen from a Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DistributionRow {
    /// Whose it is.
    pub distributor: NodeName,
    /// Its name.
    pub distribution: Label,
    /// The newest verified revision.
    pub revision: Revision,
    /// Bytes of its package.
    pub bytes: u64,
    /// The revision that the target holds.
    pub extracted: Option<Revision>,
    /// Where it lies.
    pub target: Option<PathBuf>,
    /// When it was extracted.
    pub extracted_at: Option<UnixMillis>,
}

/// What `verify` found about one Distribution.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyRow {
    /// Its name.
    pub distribution: Label,
    /// The revision that was verified.
    pub revision: Revision,
    /// What is wrong; none if everything is as it was signed.
    pub fault: Option<String>,
}
