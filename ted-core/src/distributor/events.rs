//! What a Distributor tells whoever listens.

use std::path::PathBuf;

use serde::Serialize;

use crate::id::{FiringId, PackageId, Revision, UnixMillis};
use crate::name::{Label, NodeName};
use crate::protocol::Cause;
use crate::security::Stage;

/// What a build makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BuildPhase {
    /// The package that holds the whole revision.
    Baseline,
    /// The package that leads to it from the revision before.
    Delta,
}

/// Something that happened at a Distributor. As JSON: an object whose `event` says which.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DistributorEvent {
    /// A build goes on: raw bytes read so far, of how many.
    Building {
        /// Which Distribution.
        distribution: Label,
        /// What is being made.
        phase: BuildPhase,
        /// Bytes read.
        bytes: u64,
        /// Bytes there are.
        bytes_total: u64,
    },
    /// A source is fetched or unpacked: bytes read so far, of how many; 0 where nobody knows.
    ReadingSource {
        /// Which Distribution.
        distribution: Label,
        /// Which of its sources.
        source: String,
        /// Bytes read.
        bytes: u64,
        /// Bytes there are.
        bytes_total: u64,
    },
    /// A build left something out, as `skip_unreadable` allows.
    Skipped {
        /// Which Distribution.
        distribution: Label,
        /// What was left out, below the source.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was to be done by a schedule went wrong. It is an alarm until it goes well.
    ScheduleFailed {
        /// What it was, such as `send/nightly`.
        task: String,
        /// The stable code.
        code: String,
        /// What went wrong.
        reason: String,
    },
    /// Something was planned while nobody could act, and its window has closed: it does not come any more.
    Lapsed {
        /// What it was, such as `send/nightly`.
        task: String,
        /// When it was planned.
        planned: UnixMillis,
        /// The stable code.
        code: String,
    },
    /// A new revision was built.
    Built {
        /// Which Distribution.
        distribution: Label,
        /// The new revision.
        revision: Revision,
        /// Its package, as hex.
        #[serde(with = "crate::node::as_text")]
        package: PackageId,
        /// The package's length in bytes.
        bytes: u64,
        /// Frames of its body.
        frames: u64,
        /// How many of these were copied from the package before it.
        frames_copied: u64,
        /// Bytes of the delta that leads to it, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        delta_bytes: Option<u64>,
    },
    /// A delta could not be made. Subscribers fetch the revision's baseline instead.
    NoDelta {
        /// Which Distribution.
        distribution: Label,
        /// The revision that it would have led to.
        revision: Revision,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// An operator went back: a new revision has the content of an older one.
    RolledBack {
        /// Which Distribution.
        distribution: Label,
        /// The revision that was the newest.
        from: Revision,
        /// The revision whose content it is.
        to: Revision,
        /// The new revision.
        revision: Revision,
    },
    /// A package that this Distributor keeps is damaged. It is not offered before it is whole again, or a new revision
    /// has taken its place.
    OwnCopyDamaged {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// What was found.
        detail: String,
    },
    /// That package is as it was signed again: its damaged frames were made again from the source.
    OwnCopyRepaired {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// How many frames.
        frames: u64,
    },
    /// A Subscriber is connected.
    Connected {
        /// Which one.
        subscriber: NodeName,
    },
    /// A Subscriber is no longer connected.
    Disconnected {
        /// Which one.
        subscriber: NodeName,
        /// Why.
        reason: String,
    },
    /// A connection was refused before anything was served.
    Refused {
        /// The address it came from.
        address: String,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// A node asks to be enrolled and waits for approval.
    EnrolmentPending {
        /// The name it gave.
        name: NodeName,
        /// The fingerprint that its own side prints too.
        fingerprint: String,
    },
    /// A node was enrolled.
    Enrolled {
        /// Which one.
        name: NodeName,
        /// The fingerprint of its key.
        fingerprint: String,
    },
    /// A certificate that this Distributor uses itself was issued anew.
    Renewed {
        /// What it is for.
        usage: String,
        /// Until when it holds.
        until: UnixMillis,
    },
    /// Another CA key speaks for this Distributor now.
    Replaced {
        /// Its short form.
        fingerprint: String,
    },
    /// Subscribers that will not be done when the window of a firing closes, as far as the speeds of links tell.
    WindowTooShort {
        /// The stable code.
        code: String,
        /// The firing, as hex.
        #[serde(with = "crate::node::as_text")]
        firing: FiringId,
        /// Its Channel.
        channel: Label,
        /// When the window closes.
        closes: UnixMillis,
        /// Who will not be done, as many as are named.
        subscribers: Vec<NodeName>,
        /// How many they are.
        count: u64,
    },
    /// An operator has to know this. It is told once, and stands in the status until it is mended.
    Alarm {
        /// The stable code.
        code: String,
        /// What is the matter.
        reason: String,
    },
    /// A firing began.
    FiringStarted {
        /// Why it began.
        cause: Cause,
        /// Its id, as hex.
        #[serde(with = "crate::node::as_text")]
        firing: FiringId,
        /// The Channel.
        channel: Label,
    },
    /// Bytes of a package were served.
    Sending {
        /// To whom.
        subscriber: NodeName,
        /// Which Distribution.
        distribution: Label,
        /// Bytes served to it so far, over however many fetches; what had to be fetched twice counts twice.
        bytes: u64,
        /// The package's length.
        bytes_total: u64,
    },
    /// A sealed revision is not offered to a Subscriber, because nothing can be wrapped for it.
    Withheld {
        /// To whom.
        subscriber: NodeName,
        /// Which Distribution.
        distribution: Label,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// A Subscriber's receipt arrived.
    Receipt {
        /// The firing it answers, as hex.
        #[serde(serialize_with = "crate::node::as_text::serialize_option")]
        firing: Option<FiringId>,
        /// Whose it is.
        subscriber: NodeName,
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// How far it came.
        stage: Stage,
        /// The error's code where it failed.
        code: Option<String>,
        /// What happened, for people; left out where there is nothing to say.
        #[serde(skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// A Subscriber said that an announced envelope is in force there.
    Acknowledged {
        /// Which one.
        subscriber: NodeName,
        /// What the envelope holds.
        kind: String,
        /// Its sequence number.
        sequence: u64,
    },
    /// A Subscriber refused an announced envelope.
    NotAcknowledged {
        /// Which one.
        subscriber: NodeName,
        /// What the envelope holds.
        kind: String,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// A firing is over: every Subscriber is done, or it was cancelled or followed by another.
    FiringEnded {
        /// Its id, as hex.
        #[serde(with = "crate::node::as_text")]
        firing: FiringId,
    },
}
