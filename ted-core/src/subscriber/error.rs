//! What can be wrong with a call to a Subscriber, beyond what the parts under it say.

use std::path::PathBuf;

use crate::error::Coded;
use crate::id::PackageId;
use crate::id::Revision;
use crate::model::ExtractMode;
use crate::name::NodeName;

/// Why a Subscriber refused a call, or could not do what a Distributor asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriberError {
    /// The data directory holds no Subscriber, and no name was given to make one.
    #[error("{} holds no Subscriber", .0.display())]
    NotInitialised(PathBuf),
    /// The data directory holds a Subscriber of another name.
    #[error("{} holds the Subscriber {there}, not {asked}", .data.display())]
    OtherName {
        /// The data directory.
        data: PathBuf,
        /// Whose it is.
        there: NodeName,
        /// Who was asked for.
        asked: NodeName,
    },
    /// It is running already.
    #[error("the Subscriber is running already")]
    Started,
    /// No Distributor of this name is trusted.
    #[error("the Distributor {0} is not trusted here")]
    UnknownDistributor(String),
    /// Several Distributors are trusted, and none was named.
    #[error("{0} Distributors are trusted here, and none was named")]
    WhichDistributor(usize),
    /// No Distributor is trusted yet.
    #[error("no Distributor is trusted here yet: neither security/ nor the keystore has a certificate of one")]
    NobodyTrusted,
    /// The connection with the Distributor was refused, by this side or by the other.
    #[error("the connection with the Distributor {name} was refused: {reason}")]
    ConnectionRefused {
        /// Its name.
        name: NodeName,
        /// The code of the refusal.
        code: &'static str,
        /// Why.
        reason: String,
    },
    /// The Distributor could not be reached at any of its endpoints.
    #[error("the Distributor {name} was not reached at {tried}: {reason}")]
    Unreachable {
        /// Its name.
        name: NodeName,
        /// The endpoints that were tried.
        tried: String,
        /// What went wrong last.
        reason: String,
    },
    /// The Distributor refused to enrol this node.
    #[error("the Distributor {name} refuses to enrol this node: {reason}")]
    EnrolmentRefused {
        /// Its name.
        name: NodeName,
        /// Its reason.
        reason: String,
    },
    /// A peer cannot have an enrolment judged now.
    #[error("{name} cannot have this node's enrolment judged now: {reason}")]
    EnrolmentLater {
        /// The Distributor or a parent.
        name: NodeName,
        /// Its reason.
        reason: String,
    },
    /// Nobody is known through whom the Distributor could be asked.
    #[error("neither the Distributor {0} nor a parent of this node has an endpoint here")]
    NoWayUp(NodeName),
    /// A receipt of a node that is not behind the child that sent it.
    #[error("the receipt is of a node that is not reached through the child that sent it")]
    ForeignReceipt,
    /// The Distributor's answer to the enrolment does not fit this node's keys.
    #[error("the Distributor {name} issued certificates that do not fit: {reason}")]
    UnfitCertificate {
        /// Its name.
        name: NodeName,
        /// What is wrong.
        reason: String,
    },
    /// No certificate that was carried here can be used.
    #[error("nothing that the Distributor {name} issued can be taken in: {reason}")]
    NothingIssued {
        /// Its name.
        name: NodeName,
        /// Why, for each file.
        reason: String,
    },
    /// The target that a Distribution proposes is not below an allowed directory.
    #[error("Distribution `{distribution}` proposes the target {}, which is not allowed here", .target.display())]
    TargetNotAllowed {
        /// The Distribution's name.
        distribution: String,
        /// What it proposes.
        target: PathBuf,
    },
    /// A mode does not fit the target.
    #[error("Distribution `{distribution}` cannot be extracted to {} in mode {mode}: {reason}", .target.display())]
    TargetUnfit {
        /// The Distribution's name.
        distribution: String,
        /// Where it goes.
        target: PathBuf,
        /// How.
        mode: ExtractMode,
        /// Why not.
        reason: String,
    },
    /// The target is not an absolute path, or holds a variable that nobody defines.
    #[error("the target `{target}` cannot be used: {reason}")]
    BadTarget {
        /// As it was given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This node has no certificates of that Distributor yet.
    #[error("this node is not enrolled with the Distributor {0}")]
    NotEnrolled(NodeName),
    /// No earlier revision is kept to go back to.
    #[error("no earlier revision of `{0}` is kept to go back to")]
    NothingBefore(String),
    /// Something of this Distribution is just being received.
    #[error("a revision of `{0}` is just being received")]
    Receiving(String),
    /// No rollback stands.
    #[error("`{0}` was not rolled back")]
    NotRolledBack(String),
    /// A name that means several Distributions.
    #[error("{count} Distributions are named {name}")]
    SeveralMeant {
        /// The name.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// A Distributor offers more Distributions than this node keeps account of.
    #[error("the Distributor offers more than {0} Distributions")]
    TooManyDistributions(usize),
    /// A certificate that is to take over carries another name.
    #[error("the certificate that is to take over is for {found}, and the Distributor is {wanted}")]
    UnfitSuccessor {
        /// The name it carries.
        found: NodeName,
        /// The Distributor's name.
        wanted: NodeName,
    },
    /// The Distributor's operator has to approve this node's name first.
    #[error("the Distributor {name} has to approve this node's name first; fingerprint {fingerprint}")]
    AwaitsApproval {
        /// Its name.
        name: NodeName,
        /// The fingerprint that the Distributor prints too.
        fingerprint: String,
    },
    /// Nothing of this Distribution is here to extract.
    #[error("no verified revision of `{0}` is here")]
    NothingToExtract(String),
    /// A kept package turned out to be damaged just now, and was set aside.
    #[error("revision {revision} of `{distribution}` is damaged and was set aside: {detail}")]
    Damaged {
        /// Whose package it is.
        distribution: String,
        /// Which revision.
        revision: Revision,
        /// What was found.
        detail: String,
    },
    /// The newest revision is damaged and set aside until the Channel's next firing.
    #[error("revision {revision} is set aside until the Channel's next firing: {detail}")]
    SetAside {
        /// Which revision.
        revision: Revision,
        /// What was found.
        detail: String,
    },
    /// The revision that a delta goes from is not here.
    #[error("revision {0}, which the delta goes from, is not here")]
    NoBase(Revision),
    /// A verified revision cannot be made from what is here, and its baseline is fetched.
    #[error(
        "revision {revision} of `{distribution}` cannot be made from what is here; its baseline is fetched: {reason}"
    )]
    FallsBack {
        /// Whose revision it is.
        distribution: String,
        /// Which.
        revision: Revision,
        /// What was found.
        reason: String,
    },
    /// The release statement is not what it should be.
    #[error("the release statement cannot be used: {0}")]
    Statement(String),
    /// A sealed revision is offered, and there is no grant for this node.
    #[error("the revision is encrypted, and there is no grant for this node: {0}")]
    NoGrant(String),
    /// A sealed revision is offered, and nothing can be wrapped for this node.
    #[error("the revision is encrypted, and this node's encryption certificate cannot be used: {0}")]
    EncryptionCertificate(String),
    /// A sealed package is here without its grant.
    #[error("package {0} is encrypted, and its grant is not here")]
    GrantGone(PackageId),
    /// Nobody is connected from whom it could be had.
    #[error("it is not here, and neither a parent nor the Distributor is connected")]
    UpstreamAway,
    /// A worker thread ended without a result.
    #[error("a worker thread failed")]
    Worker,
    /// It is stopping.
    #[error("the Subscriber is stopping")]
    Stopping,
}

impl Coded for SubscriberError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotInitialised(_) => "TED-1850",
            Self::OtherName { .. } => "TED-1851",
            Self::Started => "TED-1852",
            Self::UnknownDistributor(_) => "TED-1853",
            Self::WhichDistributor(_) => "TED-1854",
            Self::Unreachable { .. } => "TED-1855",
            Self::NobodyTrusted => "TED-1867",
            Self::ConnectionRefused { code, .. } => code,
            Self::EnrolmentRefused { .. } => "TED-1856",
            Self::EnrolmentLater { .. } => "TED-1224",
            Self::NoWayUp(_) => "TED-1225",
            Self::ForeignReceipt => "TED-1226",
            Self::UnfitCertificate { .. } => "TED-1857",
            Self::NothingIssued { .. } => "TED-1219",
            Self::TargetNotAllowed { .. } => "TED-1858",
            Self::BadTarget { .. } => "TED-1859",
            Self::TargetUnfit { .. } => "TED-1422",
            Self::NotEnrolled(_) => "TED-1864",
            Self::NothingBefore(_) => "TED-1882",
            Self::Receiving(_) => "TED-1884",
            Self::NotRolledBack(_) => "TED-1887",
            Self::SeveralMeant { .. } => "TED-1888",
            Self::UnfitSuccessor { .. } => "TED-1881",
            Self::TooManyDistributions(_) => "TED-1878",
            Self::AwaitsApproval { .. } => "TED-1880",
            Self::NothingToExtract(_) => "TED-1860",
            Self::Damaged { .. } => "TED-1873",
            Self::SetAside { .. } => "TED-1874",
            Self::NoBase(_) => "TED-1896",
            Self::FallsBack { .. } => "TED-1895",
            Self::Statement(_) => "TED-1861",
            Self::NoGrant(_) => "TED-1868",
            Self::EncryptionCertificate(_) => "TED-1869",
            Self::GrantGone(_) => "TED-1870",
            Self::UpstreamAway => "TED-1904",
            Self::Worker => "TED-1862",
            Self::Stopping => "TED-1863",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::UpstreamAway | Self::EnrolmentLater { .. } | Self::Stopping)
    }
}
