//! What a Subscriber answers when it is asked how things stand.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::extract::{Difference, ExtractSummary};
use crate::id::{Revision, UnixMillis};
use crate::model::Endpoint;
use crate::name::{Label, NodeName};
use crate::node::Alarm;
use crate::security::Stage;
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::targets::TargetRule;

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

/// Requests that were written as files, to be carried to a Distributor.
#[derive(Debug, Clone)]
pub struct CarriedRequest {
    /// To which Distributor.
    pub distributor: NodeName,
    /// The fingerprint that the Distributor prints too.
    pub fingerprint: String,
    /// The files: for the identity, then for encryption.
    pub files: Vec<PathBuf>,
    /// The folder to which the certificates are carried back.
    pub comes_back_to: PathBuf,
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
    /// What its operator has to know.
    pub alarms: Vec<Alarm>,
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
    /// Until when its certificate holds.
    pub certificate_until: UnixMillis,
    /// Where it is dialled.
    pub endpoints: Vec<Endpoint>,
    /// The fingerprint of this node's key in its fleet; none before the first request.
    pub own_fingerprint: Option<String>,
    /// Until when this node's certificate holds; none before it is enrolled.
    pub enrolled_until: Option<UnixMillis>,
    /// The name in that certificate; another than the node's where it was renamed and not approved yet.
    pub enrolled_as: Option<NodeName>,
    /// The address it is connected with; none while it is not.
    pub connected: Option<String>,
    /// What is wrong, with its code; none while all is well.
    pub trouble: Option<String>,
}

/// A Distribution, seen from a Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DistributionRow {
    /// Whose it is.
    pub distributor: NodeName,
    /// Its name.
    pub distribution: Label,
    /// The newest revision that was offered since this process began; before, the newest verified one.
    pub offered: Option<Revision>,
    /// The newest verified revision.
    pub verified: Option<Revision>,
    /// The revision that the target holds.
    pub extracted: Option<Revision>,
    /// The latest stage that the offered revision has reached.
    pub stage: Option<Stage>,
    /// Bytes of its package that are here.
    pub bytes: u64,
    /// Bytes of its package.
    pub bytes_total: u64,
    /// Where it goes; none where no place is allowed, or its name is not known yet.
    pub target: Option<PathBuf>,
    /// The revision at which its operator's rollback holds it.
    pub rolled_back_to: Option<Revision>,
    /// What is wrong, with its code; none while all is well.
    pub trouble: Option<String>,
    /// When something last happened to it.
    pub at: Option<UnixMillis>,
    /// When its package was last found whole, as far as that is on record.
    pub checked: Option<UnixMillis>,
}

/// What an extraction did.
#[derive(Debug, Clone)]
pub struct ExtractionRow {
    /// Whose the Distribution is.
    pub distributor: NodeName,
    /// Its name.
    pub distribution: Label,
    /// The revision that the target holds now.
    pub revision: Revision,
    /// Where it lies.
    pub target: PathBuf,
    /// What was done for it.
    pub summary: ExtractSummary,
}

impl fmt::Display for ExtractionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files written, {} unchanged", self.summary.files_written, self.summary.unchanged)?;
        let lost = &self.summary.not_kept;
        match lost.first.first() {
            Some((path, what)) => write!(f, "; {} attributes not kept, the first of `{path}`: {what}", lost.count),
            None => Ok(()),
        }
    }
}

/// Where a Distribution goes.
#[derive(Debug, Clone)]
pub struct TargetRow {
    /// The Distribution.
    pub distribution: DistributionRef,
    /// The directory; an error where none is allowed.
    pub target: Result<PathBuf, String>,
    /// Why there.
    pub rule: TargetRule,
}

/// What `verify` found about one Distribution.
#[derive(Debug, Clone)]
pub struct VerifyRow {
    /// Whose it is.
    pub distributor: NodeName,
    /// Its name.
    pub distribution: Label,
    /// The revision that was verified.
    pub revision: Revision,
    /// What is wrong with its package; none if that is as it was signed.
    pub fault: Option<String>,
    /// Whether the package is set aside now, so that the Channel's next firing brings what lacks.
    pub set_aside: bool,
    /// Entries of the target that are not as the package says, or were not before they were mended; empty as well while
    /// nothing is extracted.
    pub different: Vec<Difference>,
    /// Whether what was different is in order again.
    pub mended: bool,
}
