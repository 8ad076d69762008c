//! What a Distributor answers when it is asked how things stand.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, FiringId, PackageId, Revision, UnixMillis};
use crate::model::{CompressionLevel, Digest, Distribution, Endpoint, ExtractMode, Kept, Priority, Sources};
use crate::name::{Label, NodeName};
use crate::node::Alarm;
use crate::protocol::{Cause, Outcome, PartRole, PartState, StageTimes, Waiting};
use crate::schedule::{RatePlan, Schedule};
use crate::security::{Certificate, CertificateState};

/// What a new Distribution shall be, or an existing one become.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributionSpec {
    /// Its name.
    pub name: Label,
    /// What it is built from.
    pub source: Sources,
    /// Globs of what is left out, matched against paths below each source.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Globs of what is taken, matched in the same way; without any, everything is.
    #[serde(default)]
    pub include: Vec<String>,
    /// Leave out what the `.gitignore` files in a folder name.
    #[serde(default)]
    pub gitignore: bool,
    /// The digest over the package's body.
    #[serde(default)]
    pub digest: Digest,
    /// The target that is proposed to Subscribers, absolute.
    #[serde(default)]
    pub target: Option<String>,
    /// Leave out what cannot be read, instead of failing the build.
    #[serde(default)]
    pub skip_unreadable: bool,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// Seal its packages, so that only Subscribers with a grant can read them.
    #[serde(default)]
    pub encrypt: bool,
    /// What it carries beyond modes and times.
    #[serde(default)]
    pub keep: Kept,
    /// How many revisions a Subscriber may be behind and still be brought the differences alone; 1 for none.
    #[serde(default = "max_revisions")]
    pub max_revisions: u32,
    /// How hard baselines are compressed.
    #[serde(default)]
    pub level: CompressionLevel,
    /// How hard deltas are compressed.
    #[serde(default)]
    pub delta_level: CompressionLevel,
    /// What extraction does about what else lies in the target; each Subscriber has the last word.
    #[serde(default)]
    pub mode: ExtractMode,
    /// Whether it is built and sent at all.
    #[serde(default = "active")]
    pub active: bool,
    /// When it is built by itself.
    #[serde(default = "Schedule::with_send")]
    pub build: Schedule,
}

fn active() -> bool {
    true
}

fn max_revisions() -> u32 {
    Distribution::MAX_REVISIONS
}

impl DistributionSpec {
    /// A Distribution of everything below `source`, with defaults for the rest.
    #[must_use]
    pub fn new(name: Label, source: impl AsRef<std::path::Path>) -> Self {
        Self {
            name,
            source: Sources::from(source.as_ref().to_string_lossy().into_owned()),
            exclude: vec![],
            include: vec![],
            gitignore: false,
            digest: Digest::default(),
            target: None,
            skip_unreadable: false,
            priority: Priority::default(),
            encrypt: false,
            keep: Kept::default(),
            mode: ExtractMode::default(),
            max_revisions: Distribution::MAX_REVISIONS,
            level: CompressionLevel::default(),
            delta_level: CompressionLevel::default(),
            active: true,
            build: Schedule::with_send(),
        }
    }

    /// The same, leaving out (or not) what cannot be read.
    #[must_use]
    pub fn skip_unreadable(mut self, skip: bool) -> Self {
        self.skip_unreadable = skip;
        self
    }

    /// The same, with packages that are sealed (or not).
    #[must_use]
    pub fn encrypt(mut self, encrypt: bool) -> Self {
        self.encrypt = encrypt;
        self
    }

    /// The same, carrying this beyond modes and times.
    #[must_use]
    pub fn keep(mut self, keep: Kept) -> Self {
        self.keep = keep;
        self
    }

    /// The same, extracted in this mode.
    #[must_use]
    pub fn mode(mut self, mode: ExtractMode) -> Self {
        self.mode = mode;
        self
    }

    /// The same, with this many revisions within reach of a delta.
    #[must_use]
    pub fn max_revisions(mut self, revisions: u32) -> Self {
        self.max_revisions = revisions;
        self
    }

    pub(super) fn of(distribution: Distribution) -> Self {
        Self {
            name: distribution.name,
            source: distribution.source,
            exclude: distribution.exclude,
            include: distribution.include,
            gitignore: distribution.gitignore,
            digest: distribution.digest,
            target: distribution.target,
            skip_unreadable: distribution.skip_unreadable,
            priority: distribution.priority,
            encrypt: distribution.encrypt,
            keep: distribution.keep,
            mode: distribution.mode,
            max_revisions: distribution.max_revisions,
            level: distribution.level,
            delta_level: distribution.delta_level,
            active: distribution.active,
            build: distribution.build,
        }
    }

    pub(super) fn into_distribution(self, id: DistributionId) -> Distribution {
        Distribution {
            id,
            name: self.name,
            source: self.source,
            exclude: self.exclude,
            include: self.include,
            gitignore: self.gitignore,
            digest: self.digest,
            target: self.target,
            skip_unreadable: self.skip_unreadable,
            priority: self.priority,
            encrypt: self.encrypt,
            keep: self.keep,
            mode: self.mode,
            max_revisions: self.max_revisions,
            level: self.level,
            delta_level: self.delta_level,
            active: self.active,
            build: self.build,
        }
    }
}

/// A Distribution and its newest revision.
#[derive(Debug, Clone)]
pub struct DistributionStatus {
    /// Its identifier.
    pub id: DistributionId,
    /// What it is made of.
    pub spec: DistributionSpec,
    /// The newest revision, once something was built.
    pub newest: Option<BuiltRevision>,
    /// The file of its baseline.
    pub file: Option<PathBuf>,
}

/// A built revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltRevision {
    /// Which revision.
    pub revision: Revision,
    /// When it was built.
    pub created: UnixMillis,
    /// Its baseline, as hex.
    #[serde(with = "crate::node::as_text")]
    pub package: PackageId,
    /// The baseline's length in bytes.
    pub bytes: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Entries: files, folders, links.
    pub entries: u64,
    /// What was left out because it could not be read or is nothing to distribute: `path: reason`.
    pub skipped: Vec<String>,
    /// Frames of the baseline's body.
    #[serde(default)]
    pub frames: u64,
    /// How many of these were copied from the baseline before it.
    #[serde(default)]
    pub frames_copied: u64,
    /// The delta that leads to it, where there is one.
    #[serde(default)]
    pub delta: Option<DeltaPackage>,
    /// Why there is no delta, in words.
    #[serde(default)]
    pub no_delta: Option<String>,
}

/// The delta that leads to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaPackage {
    /// The revision that it goes from.
    pub base: Revision,
    /// The package, as hex.
    #[serde(with = "crate::node::as_text")]
    pub package: PackageId,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Which files of a source a build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// Those that are not what they were at the last build, by size, times and inode.
    #[default]
    Changed,
    /// All of them: nothing is copied from the package before.
    Everything,
}

/// What a build did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum BuildOutcome {
    /// A new revision was built.
    Built(BuiltRevision),
    /// The source is what the newest revision holds.
    Unchanged(BuiltRevision),
}

impl BuildOutcome {
    /// The newest revision now.
    #[must_use]
    pub fn revision(&self) -> &BuiltRevision {
        match self {
            Self::Built(revision) | Self::Unchanged(revision) => revision,
        }
    }
}

/// How `send` goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOptions {
    /// Look whether the sources have changed, and build first if so.
    pub build: bool,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self { build: true }
    }
}

/// What a `send` would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendPlan {
    /// A row for each Subscriber and Distribution.
    pub rows: Vec<PlannedDelivery>,
    /// A row for each link: of a Subscriber, and of each parent on the way to one.
    pub links: Vec<PlannedLink>,
    /// When it would begin: now, or when the Channel's window opens.
    pub starts: UnixMillis,
    /// When that window closes, if the Channel has one.
    pub closes: Option<UnixMillis>,
}

/// A link in a [`SendPlan`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedLink {
    /// The node at its lower end.
    pub subscriber: NodeName,
    /// The parent at its upper end; `None` for the Distributor.
    pub through: Option<NodeName>,
    /// Bytes of packages that cross it, each once, for the node and all behind it.
    pub bytes: u64,
    /// Bytes a second that it is expected to take: what was measured, and what it is limited to; `None` where neither is
    /// known.
    pub bytes_per_second: Option<u64>,
    /// After how many seconds the node has all of it; `None` where a link on the way is not known.
    pub takes_seconds: Option<u64>,
    /// Whether that is before the window closes; `None` where there is no window or the time is not known.
    pub fits: Option<bool>,
}

/// A row of a [`SendPlan`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedDelivery {
    /// To whom.
    pub subscriber: NodeName,
    /// Whether it is reached now, by itself or through others.
    pub connected: bool,
    /// What.
    pub distribution: Label,
    /// The newest revision, where one was built.
    pub revision: Option<Revision>,
    /// The revision that the Subscriber verified last, as far as its receipts say.
    pub from: Option<Revision>,
    /// Bytes of the packages that it needs: the cheapest way from there.
    pub bytes: Option<u64>,
    /// After how many seconds it has them; `None` where a link on the way is not known.
    pub takes_seconds: Option<u64>,
    /// Whether that is before the window closes; `None` where there is no window or the time is not known.
    pub fits: Option<bool>,
}

/// How far a firing is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FiringReport {
    /// Its id, as hex.
    #[serde(with = "crate::node::as_text")]
    pub firing: FiringId,
    /// The Channel.
    pub channel: Label,
    /// When it began.
    pub started: UnixMillis,
    /// Why it began.
    #[serde(default)]
    pub cause: Cause,
    /// When its window closes, after which nothing new is started.
    #[serde(default)]
    pub closes: Option<UnixMillis>,
    /// When it was over.
    #[serde(default)]
    pub ended: Option<UnixMillis>,
    /// How it stands.
    pub outcome: Outcome,
    /// A row for each Subscriber and Distribution.
    pub rows: Vec<DeliveryRow>,
}

/// One Subscriber's part of a firing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Whose.
    pub subscriber: NodeName,
    /// Of what.
    pub distribution: Label,
    /// Which revision.
    pub revision: Revision,
    /// How far it is.
    pub state: PartState,
    /// Since when.
    pub since: UnixMillis,
    /// Whether it is to have the Distribution, or only passes it on.
    #[serde(default)]
    pub role: PartRole,
    /// What it waits for, where something is known to be in the way.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// The node over which it was offered last, where that is another one.
    #[serde(default)]
    pub hop: Option<NodeName>,
    /// When it came to its stages.
    #[serde(default)]
    pub times: StageTimes,
    /// The error's code where it failed.
    pub code: Option<String>,
    /// What happened, for people.
    pub detail: String,
    /// What was done about this Distributor's own copy before the firing began, with its code.
    #[serde(default)]
    pub note: Option<String>,
    /// Bytes of the package that were served to this Subscriber since this process started.
    pub sent_bytes: u64,
    /// That package's length in bytes; 0 where nothing was served yet.
    pub package_bytes: u64,
}

impl FiringReport {
    /// Whether every Subscriber has extracted everything.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.outcome == Outcome::Complete
    }
}

impl fmt::Display for FiringReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.outcome)?;
        for row in &self.rows {
            write!(f, "; {} {} {:?}", row.subscriber, row.distribution, row.state)?;
            if let Some(code) = &row.code {
                write!(f, " {code} {}", row.detail)?;
            }
            if let Some(note) = &row.note {
                write!(f, " ({note})")?;
            }
        }
        Ok(())
    }
}

/// How a Distributor stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DistributorStatus {
    /// Its name.
    pub name: NodeName,
    /// The short form of its key, as Subscribers print it too.
    pub fingerprint: String,
    /// The address it listens on, while it serves.
    pub listening: Option<String>,
    /// Its Distributions, each with its newest revision.
    pub distributions: Vec<(Label, Option<BuiltRevision>)>,
    /// Its Channels, with Distributions and Subscribers.
    pub channels: Vec<(Label, Vec<Label>, Vec<NodeName>)>,
    /// Its Subscribers.
    pub subscribers: Vec<SubscriberStatus>,
    /// Firings that are open, newest first.
    pub firings: Vec<FiringReport>,
    /// When each Channel fires next.
    #[serde(default)]
    pub next_firings: Vec<NextFiring>,
    /// What its operator has to know.
    pub alarms: Vec<Alarm>,
}

/// What `send` began.
#[derive(Debug, Clone)]
pub struct SentFiring {
    /// The firing.
    pub firing: FiringId,
    /// The builds that came first.
    pub builds: Vec<SentBuild>,
}

/// A build that came before a firing.
#[derive(Debug, Clone)]
pub struct SentBuild {
    /// What was built.
    pub distribution: Label,
    /// What came of it.
    pub outcome: BuildOutcome,
    /// How long it took.
    pub took: Duration,
}

/// When a Channel fires next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextFiring {
    /// Which Channel.
    pub channel: Label,
    /// Its schedule.
    pub schedule: String,
    /// Whether it fires at all.
    pub active: bool,
    /// The planned moment of its last firing by the schedule, or when the schedule was set; none before the running
    /// node follows it.
    pub last: Option<UnixMillis>,
    /// When it fires, by the calendar.
    pub at: Option<UnixMillis>,
    /// When the window opens, where it sends on every new revision and the window is closed.
    pub opens: Option<UnixMillis>,
}

/// How one Subscriber stands, seen from its Distributor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriberStatus {
    /// Its name.
    pub name: NodeName,
    /// Where it is dialled; none if it dials.
    pub endpoints: Vec<Endpoint>,
    /// Its route; empty for one that is reached directly.
    pub parents: Vec<NodeName>,
    /// Whether it is outside the own fleet.
    pub external: bool,
    /// Whether it is offered anything.
    pub active: bool,
    /// What it is selected by.
    pub labels: BTreeMap<Label, Label>,
    /// How fast it is sent to; none for as fast as it goes.
    pub rate: Option<RatePlan>,
    /// The groups it belongs to.
    pub groups: Vec<Label>,
    /// The Channels it is in, itself or through a group.
    pub channels: Vec<Label>,
    /// The fingerprint of its registered key; none before it is enrolled.
    pub fingerprint: Option<String>,
    /// When that key was registered.
    pub enrolled: Option<UnixMillis>,
    /// Whether it is connected now.
    pub connected: bool,
    /// The address it is connected from, or at.
    pub address: Option<String>,
    /// The peer through which it is reached now, where it is not connected itself.
    #[serde(default)]
    pub through: Option<NodeName>,
    /// How this Distributor's certificate stands with it.
    pub certificate: CertificatePair,
}

/// How this Distributor's certificate stands with one Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificatePair {
    /// Whose.
    pub subscriber: NodeName,
    /// How it stands.
    pub state: CertificateState,
    /// When that was last heard of; none where nothing is on record.
    pub since: Option<UnixMillis>,
    /// How the certificate is brought there, in words; none where somebody carries it by hand.
    pub way: Option<String>,
    /// What came of the last attempt to bring it, in words.
    pub detail: Option<String>,
}

/// How `resolve` goes about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolvingWay {
    /// It only says who lacks the certificate.
    Look,
    /// Copied to each Subscriber on its own way.
    Copy,
    /// Written into this folder, from where somebody carries it.
    Save(PathBuf),
}

/// What came of resolving.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolving {
    /// The certificate's file name.
    pub file_name: String,
    /// The fingerprint of its key, as Subscribers print it too.
    pub fingerprint: String,
    /// A row for each Subscriber that was looked at.
    pub rows: Vec<ResolvingRow>,
}

impl Resolving {
    /// How many Subscribers the certificate could not be copied to.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.outcome, ResolvingOutcome::Failed { .. })).count()
    }
}

/// What came of resolving for one Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResolvingRow {
    /// Whose.
    pub subscriber: NodeName,
    /// How the certificate stands with it now.
    pub state: CertificateState,
    /// How the certificate is brought there, in words; none where somebody carries it by hand.
    pub way: Option<String>,
    /// What came of it.
    pub outcome: ResolvingOutcome,
}

/// What came of bringing the certificate to one Subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum ResolvingOutcome {
    /// Nothing was done.
    Waiting,
    /// It was brought there.
    Copied {
        /// Where, or by which command.
        to: String,
    },
    /// It lies in a file that has to be carried.
    Saved {
        /// Which file.
        path: PathBuf,
    },
    /// It could not be brought there.
    Failed {
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
}

/// A node that waits for approval.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingNode {
    /// The name it gave.
    pub name: NodeName,
    /// The fingerprint that its own side prints too.
    pub fingerprint: String,
    /// When it last asked.
    pub asked: UnixMillis,
}

/// Whose requests were carried here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestingNode {
    /// The name that they ask for.
    pub name: NodeName,
    /// The fingerprint that the node itself prints too.
    pub fingerprint: String,
    /// Whether this key is registered under this name already.
    pub is_registered: bool,
    /// The fingerprint of the key that is registered under this name and would be so no more.
    pub replaces: Option<String>,
}

/// A node whose requests were signed.
#[derive(Debug, Clone)]
pub struct SignedNode {
    /// Its name.
    pub name: NodeName,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// What was issued, to be carried back.
    pub certificates: Vec<Certificate>,
}

/// An invite and until when it can be used. It holds a token, so it prints nothing of itself.
#[derive(Clone)]
pub struct IssuedInvite {
    /// The text of the file that `join` reads.
    pub text: String,
    /// Until when.
    pub expires: UnixMillis,
}

impl fmt::Debug for IssuedInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedInvite").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A one-time token and what it allows.
#[derive(Clone, Serialize, Deserialize)]
pub struct IssuedToken {
    /// The token as it is carried. It is shown this once.
    pub token: String,
    /// How many nodes may use it.
    pub uses: u32,
    /// Until when.
    pub expires: UnixMillis,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken").field("uses", &self.uses).field("expires", &self.expires).finish_non_exhaustive()
    }
}
