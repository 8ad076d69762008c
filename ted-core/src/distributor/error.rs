//! What can be wrong with a call to a Distributor, beyond what the parts under it say.

use std::path::PathBuf;

use crate::error::Coded;
use crate::id::{DistributionId, FiringId};
use crate::name::{Label, NodeName};

/// Why a Distributor refused a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributorError {
    /// The data directory holds no Distributor, and no name was given to make one.
    #[error("{} holds no Distributor", .0.display())]
    NotInitialised(PathBuf),
    /// The data directory holds a Distributor of another name.
    #[error("{} holds the Distributor {there}, not {asked}", .data.display())]
    OtherName {
        /// The data directory.
        data: PathBuf,
        /// Whose it is.
        there: NodeName,
        /// Who was asked for.
        asked: NodeName,
    },
    /// It is serving already.
    #[error("the Distributor is serving already")]
    Started,
    /// There is no revision to send.
    #[error("Distribution `{0}` has no revision yet")]
    NotBuilt(Label),
    /// It is built only from what it is fed with.
    #[error("Distribution `{0}` is built from standard input, and was not fed")]
    NotFed(Label),
    /// It has sources, and was fed all the same.
    #[error("Distribution `{0}` has sources of its own")]
    NotToBeFed(Label),
    /// Nothing to send to.
    #[error("Channel `{0}` has no Subscriber")]
    NoSubscribers(Label),
    /// The Channel is not active.
    #[error("Channel `{0}` is paused")]
    Inactive(Label),
    /// No Distribution of the Channel is active.
    #[error("no Distribution of Channel `{0}` is active")]
    NothingActive(Label),
    /// No firing has this id.
    #[error("there is no firing {0}")]
    UnknownFiring(FiringId),
    /// No node of this name waits for approval.
    #[error("no node named {0} waits for approval")]
    NothingPending(NodeName),
    /// Several nodes of this name wait for approval, with different keys.
    #[error("{count} nodes named {name} wait for approval")]
    SeveralPending {
        /// The name they share.
        name: NodeName,
        /// How many there are.
        count: usize,
    },
    /// No enrolled Subscriber to send to.
    #[error("no Subscriber of Channel `{0}` is enrolled yet")]
    NoneEnrolled(Label),
    /// The token was never issued here, or is used up.
    #[error("the token is not known here, or used up")]
    UnknownToken,
    /// The token's time is over.
    #[error("the token has expired")]
    ExpiredToken,
    /// The token came with an invite for another node.
    #[error("the token was made for another node")]
    TokenForAnother,
    /// Too many nodes wait for approval.
    #[error("too many nodes wait for approval; ask again later")]
    TooManyPending,
    /// A receipt that is signed by another node than the one that sent it.
    #[error("the receipt is another node's")]
    ForeignReceipt,
    /// A request for certificates for another key than that of the connection it came over.
    #[error("the request for certificates is for another key than the one that sent it")]
    ForeignRequest,
    /// No certificate is prepared that could take over.
    #[error("no certificate is prepared to take over from the present one")]
    NothingPrepared,
    /// A package was signed under a certificate that this Distributor never had.
    #[error("a kept package was signed under a certificate that this Distributor never had")]
    ForeignPackage,
    /// The keystore is there, and new keys were asked for in its place.
    #[error("the keystore is there: `certificate rekey` without a lost one retires it")]
    KeystoreThere,
    /// A revision that was asked for is not kept.
    #[error("no such revision of Distribution `{name}` is kept; there is: {}", if kept.is_empty() { "none" } else { kept })]
    NotKept {
        /// The Distribution.
        name: Label,
        /// The revisions that are kept.
        kept: String,
    },
    /// A Distribution has no such revision.
    #[error("Distribution `{name}` has no revision `{asked}`")]
    UnknownRevision {
        /// The Distribution.
        name: Label,
        /// What was asked for.
        asked: String,
    },
    /// Several revisions of a Distribution end with the same digits.
    #[error("several revisions of Distribution `{name}` end with {asked}")]
    AmbiguousRevision {
        /// The Distribution.
        name: Label,
        /// What was asked for.
        asked: String,
    },
    /// An invite needs at least one endpoint at which this Distributor is reached.
    #[error("this Distributor does not know at which endpoint it is reached")]
    NoEndpoint,
    /// The package that should be sent is damaged here, and could not be made good.
    #[error("the package of `{distribution}` is damaged here ({damage}) and cannot be made good: {reason}")]
    OwnCopyDamaged {
        /// Whose package it is.
        distribution: Label,
        /// What was found.
        damage: String,
        /// What keeps it from being made good.
        reason: String,
    },
    /// Nothing here is known by what was to be revoked.
    #[error("nothing here is known as `{0}`")]
    NothingToRevoke(String),
    /// Several keys are known by what was to be revoked.
    #[error("`{what}` means {count} keys")]
    SeveralToRevoke {
        /// What was given.
        what: String,
        /// How many keys it means.
        count: usize,
    },
    /// The CA certificate cannot say of itself that it counts for nothing.
    #[error("{0} cannot revoke its own CA certificate")]
    RevokesItself(NodeName),
    /// The pages of the revocation list are full.
    #[error("the revocation list is full")]
    TooManyRevoked,
    /// The certificate could not be written where it should be.
    #[error("the certificate cannot be written to {}: {reason}", path.display())]
    NotSaved {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No epoch secret gives the key that a sealed package was sealed with.
    #[error("the key of the newest package of Distribution {0} is lost: no epoch secret here gives it")]
    NoContentKey(DistributionId),
    /// Requests that were carried here do not make an enrolment.
    #[error("the requests cannot be signed: {0}")]
    Requests(&'static str),
    /// The requests are of another key than the one that was meant.
    #[error("the requests are of the key {found}, not of {asked}")]
    OtherFingerprint {
        /// What was asked for.
        asked: String,
        /// Whose they are.
        found: String,
    },
    /// A revoked key gets no certificate.
    #[error("the key {fingerprint} of {name} was revoked and gets no certificate any more")]
    RevokedKey {
        /// Whose it is.
        name: NodeName,
        /// Its short form.
        fingerprint: String,
    },
    /// A worker thread ended without a result.
    #[error("a worker thread failed")]
    Worker,
    /// A parent of the route has no key yet that an invite could name.
    #[error("{node} is to be reached through {parent}, which has not enrolled yet")]
    ParentNotEnrolled {
        /// Who is invited.
        node: NodeName,
        /// The parent.
        parent: NodeName,
    },
    /// Nobody of the route can be dialled.
    #[error("no parent of {0} has an endpoint, so that it finds none of them")]
    ParentsWithoutEndpoints(NodeName),
}

impl Coded for DistributorError {
    fn code(&self) -> &'static str {
        match self {
            Self::ParentNotEnrolled { .. } => "TED-1222",
            Self::ParentsWithoutEndpoints(_) => "TED-1223",
            Self::NotInitialised(_) => "TED-1830",
            Self::OtherName { .. } => "TED-1831",
            Self::Started => "TED-1832",
            Self::NotBuilt(_) => "TED-1833",
            Self::NotFed(_) => "TED-1707",
            Self::NotToBeFed(_) => "TED-1708",
            Self::NoSubscribers(_) => "TED-1834",
            Self::Inactive(_) => "TED-1623",
            Self::NothingActive(_) => "TED-1626",
            Self::UnknownFiring(_) => "TED-1835",
            Self::NothingPending(_) => "TED-1836",
            Self::SeveralPending { .. } => "TED-1837",
            Self::NoneEnrolled(_) => "TED-1840",
            Self::UnknownToken => "TED-1210",
            Self::ExpiredToken => "TED-1211",
            Self::TokenForAnother => "TED-1212",
            Self::TooManyPending => "TED-1213",
            Self::ForeignReceipt => "TED-1841",
            Self::ForeignRequest => "TED-1140",
            Self::NothingPrepared => "TED-1828",
            Self::ForeignPackage => "TED-1829",
            Self::KeystoreThere => "TED-1885",
            Self::NotKept { .. } => "TED-1886",
            Self::UnknownRevision { .. } => "TED-1721",
            Self::AmbiguousRevision { .. } => "TED-1722",
            Self::NoContentKey(_) => "TED-1168",
            Self::NoEndpoint => "TED-1838",
            Self::OwnCopyDamaged { .. } => "TED-1845",
            Self::NothingToRevoke(_) => "TED-1196",
            Self::SeveralToRevoke { .. } => "TED-1197",
            Self::RevokesItself(_) => "TED-1193",
            Self::TooManyRevoked => "TED-1198",
            Self::NotSaved { .. } => "TED-1215",
            Self::Requests(_) => "TED-1216",
            Self::OtherFingerprint { .. } => "TED-1217",
            Self::RevokedKey { .. } => "TED-1195",
            Self::Worker => "TED-1839",
        }
    }
}
