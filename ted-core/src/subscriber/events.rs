//! What a Subscriber tells whoever listens.

use std::path::PathBuf;

use serde::Serialize;

use crate::id::{ContentId, Revision, UnixMillis};
use crate::name::{Label, NodeName};
use crate::subscriber::hooks::HookReport;

/// Something that happened at a Subscriber. As JSON: an object whose `event` says which.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SubscriberEvent {
    /// A Distributor is connected, itself or through a parent.
    Connected {
        /// Which one.
        distributor: NodeName,
        /// The parent that it is reached through; none where it is reached itself.
        through: Option<NodeName>,
    },
    /// A child is connected.
    ChildConnected {
        /// In whose fleet.
        distributor: NodeName,
        /// Which one.
        child: NodeName,
    },
    /// A child is no longer connected.
    ChildDisconnected {
        /// In whose fleet.
        distributor: NodeName,
        /// Which one.
        child: NodeName,
        /// Why.
        reason: String,
    },
    /// A Distributor is no longer connected; the Subscriber goes on dialling where it can.
    Disconnected {
        /// Which one.
        distributor: NodeName,
        /// Why.
        reason: String,
    },
    /// A connection was refused, by this side or the other.
    Refused {
        /// Who it was with, as far as that is known.
        peer: String,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// The Distributor issued this node's certificates.
    Enrolled {
        /// Which Distributor.
        distributor: NodeName,
    },
    /// The Distributor has to approve this node first.
    EnrolmentPending {
        /// Which Distributor.
        distributor: NodeName,
        /// The fingerprint that its side prints too.
        fingerprint: String,
    },
    /// The Distributor issued this node's certificates anew.
    Renewed {
        /// Which Distributor.
        distributor: NodeName,
    },
    /// This node's operator went back to an earlier revision.
    RolledBack {
        /// Which Distribution.
        distribution: Label,
        /// The revision that was gone back from.
        from: Revision,
        /// The revision that the target holds again.
        to: Revision,
    },
    /// Another CA key speaks for a Distributor now.
    Replaced {
        /// Which Distributor.
        distributor: NodeName,
        /// The short form of its new key.
        fingerprint: String,
    },
    /// An operator has to know this. It is told once, and stands in the status until it is mended.
    Alarm {
        /// The stable code.
        code: String,
        /// What is the matter.
        reason: String,
    },
    /// A revision was offered and is wanted.
    Accepted {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
    },
    /// An offer was refused.
    OfferRefused {
        /// Who offered.
        distributor: NodeName,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// An envelope that the Distributor announced is in force here.
    EnvelopeAccepted {
        /// Whose it is.
        distributor: NodeName,
        /// What it holds.
        kind: String,
        /// Its sequence number.
        sequence: u64,
    },
    /// An envelope that the Distributor announced was refused.
    EnvelopeRefused {
        /// Whose it is.
        distributor: NodeName,
        /// What it was said to hold.
        kind: String,
        /// The stable code.
        code: String,
        /// Why.
        reason: String,
    },
    /// A revision is here and verified, and its extraction waits for its schedule.
    ExtractionWaits {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// Until when; none where only an operator extracts.
        until: Option<UnixMillis>,
    },
    /// A package is arriving: verified bytes so far, of how many.
    Receiving {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// Bytes on disk.
        bytes: u64,
        /// Bytes there are.
        bytes_total: u64,
    },
    /// A package is on disk, every frame verified.
    Received {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// The package's length.
        bytes: u64,
    },
    /// A revision is being extracted: bytes of content so far, of how many.
    Extracting {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// Bytes in staging.
        bytes: u64,
        /// Bytes there are.
        bytes_total: u64,
    },
    /// The target holds the revision.
    Extracted {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// The revision's content id.
        #[serde(with = "crate::node::as_text")]
        content: ContentId,
        /// Where it lies.
        #[serde(serialize_with = "crate::node::as_text::serialize_path")]
        target: PathBuf,
        /// Files that were written; the rest was there already.
        files_written: u64,
    },
    /// A hook has run.
    Hook {
        /// Which Distribution.
        distribution: Label,
        /// The revision that is being extracted, or was.
        revision: Revision,
        /// What became of it.
        #[serde(flatten)]
        report: HookReport,
    },
    /// A kept package was read again and is as it was signed.
    Scrubbed {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// The package's length.
        bytes: u64,
    },
    /// A revision cannot be made from what is here and deltas: its baseline is taken instead.
    FellBack {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// The stable code of what was found.
        code: String,
        /// What was found.
        reason: String,
    },
    /// A package was damaged beyond the tries that are allowed, or is not whole any more; nothing more happens until the
    /// Channel's next firing.
    Corrupt {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// What was found.
        detail: String,
    },
    /// Receiving or extracting failed.
    Failed {
        /// Which Distribution.
        distribution: Label,
        /// Which revision.
        revision: Revision,
        /// The stable code.
        code: String,
        /// What happened.
        reason: String,
    },
}
