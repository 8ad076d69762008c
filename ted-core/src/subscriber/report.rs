//! What a Subscriber answers when it is asked how things stand.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::extract::{Difference, ExtractSummary, Preview};
use crate::id::{Revision, UnixMillis};
use crate::model::{Endpoint, ExtractMode};
use crate::name::{Label, NodeName};
use crate::node::Alarm;
use crate::security::Stage;
use crate::subscriber::extract_times::ExtractTime;
use crate::subscriber::hooks::{HookReport, HookScope};
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::relay::{PassedRow, TrafficRow};
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
    /// Whether an operator paused it: it receives nothing new.
    #[serde(default)]
    pub paused: bool,
    /// The Distributors it trusts.
    pub distributors: Vec<DistributorRow>,
    /// The Distributions it has something of.
    pub distributions: Vec<DistributionRow>,
    /// What it passes on to others.
    #[serde(default)]
    pub passes_on: Vec<PassedRow>,
    /// What every link carried of every package, since the node was opened.
    #[serde(default)]
    pub traffic: Vec<TrafficRow>,
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
    /// The address it is connected with, its own or a parent's; none while it is not.
    pub connected: Option<String>,
    /// The parent through which it is connected; none where it is itself.
    #[serde(default)]
    pub through: Option<NodeName>,
    /// The peers that this node may reach it through, in order of preference; empty where it is reached itself.
    #[serde(default)]
    pub parents: Vec<ParentRow>,
    /// This node's children in its fleet.
    #[serde(default)]
    pub children: Vec<ChildRow>,
    /// What is wrong, with its code; none while all is well.
    pub trouble: Option<String>,
}

/// A peer above a Subscriber: a parent, or the Distributor itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParentRow {
    /// Its name.
    pub name: NodeName,
    /// The short form of its key.
    pub fingerprint: String,
    /// Where it is dialled.
    pub endpoints: Vec<Endpoint>,
    /// Whether it is the one that is used now.
    pub serves: bool,
}

/// A Subscriber that is reached through this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChildRow {
    /// Its name.
    pub name: NodeName,
    /// The short form of its key.
    pub fingerprint: String,
    /// The address it is connected with; none while it is not.
    pub connected: Option<String>,
    /// How many nodes behind it are reached through it now.
    pub behind: usize,
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
    /// Whose hooks are run when it is extracted: those for this Distribution, or for every one.
    pub hooks: Option<HookScope>,
    /// In which mode it is extracted; none while nothing of it is here.
    pub mode: Option<ExtractMode>,
    /// The revision at which its operator's rollback holds it.
    pub rolled_back_to: Option<Revision>,
    /// What is wrong, with its code; none while all is well.
    pub trouble: Option<String>,
    /// When the verified revision is extracted, where it waits for that.
    #[serde(default)]
    pub waits: Option<ExtractTime>,
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
    /// In which mode it was extracted.
    pub mode: ExtractMode,
    /// What was done for it.
    pub summary: ExtractSummary,
    /// Deltas among the packages that carry it.
    pub deltas: usize,
    /// Why its baseline was taken although deltas were to be had, with the code; none where that was not so.
    pub fell_back: Option<String>,
    /// The hooks that were run for it.
    pub hooks: Vec<HookReport>,
}

/// A Distribution, and what became of its extraction.
pub type ExtractionEnd = (DistributionRef, Result<ExtractionRow, Error>);

impl ExtractionRow {
    /// The hook that failed although the revision was extracted.
    #[must_use]
    pub fn failed_hook(&self) -> Option<&HookReport> {
        self.hooks.iter().find(|report| report.code.is_some())
    }

    /// What stands in the status of it.
    pub(super) fn hook_trouble(&self) -> Option<String> {
        let failed = self.failed_hook()?;
        let code = failed.code.as_deref().unwrap_or_default();
        Some(format!("{code}: the hook `{}` failed: {failed}", failed.hook))
    }
}

impl fmt::Display for ExtractionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExtractSummary { files_written, unchanged, local_changes, kept, deleted, .. } = &self.summary;
        write!(f, "{files_written} files written, {unchanged} unchanged")?;
        if !deleted.is_empty() {
            write!(f, ", {} deleted", deleted.count)?;
        }
        if !local_changes.is_empty() {
            write!(f, "; changed here and {}: ", if kept.is_empty() { "not kept" } else { "kept beside" })?;
            for (number, path) in local_changes.first.iter().take(CHANGES_NAMED_MAX).enumerate() {
                write!(f, "{}`{path}`", if number > 0 { ", " } else { "" })?;
            }
            let more = local_changes.count.saturating_sub(CHANGES_NAMED_MAX as u64);
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        let lost = &self.summary.not_kept;
        if let Some((path, what)) = lost.first.first() {
            write!(f, "; {} attributes not kept, the first of `{path}`: {what}", lost.count)?;
        }
        if let Some(why) = &self.fell_back {
            write!(f, "; from a baseline, because deltas were of no use: {why}")?;
        }
        self.hooks.iter().try_for_each(|report| write!(f, "; hook `{}`: {report}", report.hook))
    }
}

/// Changed files that are named in a sentence.
const CHANGES_NAMED_MAX: usize = 5;

/// What an extraction would do.
#[derive(Debug, Clone)]
pub struct PreviewRow {
    /// Whose the Distribution is.
    pub distributor: NodeName,
    /// Its name.
    pub distribution: Label,
    /// The revision that would be extracted.
    pub revision: Revision,
    /// Where to.
    pub target: PathBuf,
    /// In which mode.
    pub mode: ExtractMode,
    /// What would be done.
    pub preview: Preview,
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
    /// In which mode; none while nothing of it is here, and this node says nothing about it.
    pub mode: Option<ExtractMode>,
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
