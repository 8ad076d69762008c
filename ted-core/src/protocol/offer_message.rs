//! Offers and their answers as they travel. Bytes: `docs/protocol.md`, "Offer".

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, EnvelopeId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::Priority;
use crate::protocol::{MessageError, Refused};

/// A parent's word that there is something to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The firing that it belongs to.
    pub firing: FiringId,
    /// Which Distribution. A hint, so that a node can answer `Later` unread; the statement decides.
    pub distribution: DistributionId,
    /// How urgent it is.
    pub priority: Priority,
    /// The envelope with the release statement, to be had by `Fetch`.
    pub statement: EnvelopeId,
    /// For each sealed package that the statement names, the envelope with its grants; at most
    /// [`Limits::statement_packages_max`], no package twice.
    pub grants: Vec<(PackageId, EnvelopeId)>,
    /// The identity keys of those whom it is for: the receiver, descendants behind it, or both. One or more, at most
    /// [`Limits::named_keys_max`], none twice. Who is not among them passes it on and extracts nothing. Offers of one
    /// firing and Distribution with other recipients may follow each other.
    pub recipients: Vec<KeyHash>,
    /// When the send window ends: after it nothing new is started.
    pub closes: Option<UnixMillis>,
}

impl Offer {
    /// The envelope with the grants of `package`.
    #[must_use]
    pub fn grants_of(&self, package: &PackageId) -> Option<EnvelopeId> {
        self.grants.iter().find(|(of, _)| of == package).map(|(_, envelope)| *envelope)
    }

    /// Whether it is for the node with this key.
    #[must_use]
    pub fn is_for(&self, key: &KeyHash) -> bool {
        self.recipients.contains(key)
    }

    pub(super) fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        let impossible = |reason| Err(MessageError::Impossible { what: "an offer", reason });
        if self.grants.len() > limits.statement_packages_max {
            return impossible("it names grants of more packages than a statement may name");
        }
        if named_twice(self.grants.iter().map(|(package, _)| package)) {
            return impossible("it names grants of a package twice");
        }
        if self.recipients.is_empty() || self.recipients.len() > limits.named_keys_max {
            return impossible("it is for nobody, or for too many");
        }
        if named_twice(self.recipients.iter()) {
            return impossible("it names a recipient twice");
        }
        Ok(self)
    }
}

/// Whether something stands among `all` more than once.
pub(super) fn named_twice<'a, T: Ord + 'a>(all: impl Iterator<Item = &'a T>) -> bool {
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all.windows(2).any(|two| two[0] == two[1])
}

/// What a child says to an offer. A recipient answers for itself; that it passes the offer on to the others goes
/// without saying, unless it refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfferAnswer {
    /// It has the revision, verified. Its latest receipt for it follows.
    Current,
    /// It will fetch these packages, in this order.
    Want {
        /// Their ids.
        packages: Vec<PackageId>,
    },
    /// It does not want to be offered this before then.
    Later {
        /// The earliest time for another offer.
        until: UnixMillis,
    },
    /// It will not have it.
    Refused(Refused),
    /// It is no recipient, and passes it on to those who are.
    Relays,
}

impl OfferAnswer {
    pub(super) fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        match &self {
            Self::Want { packages } if packages.len() > limits.statement_packages_max => {
                let reason = "it wants more packages than a statement may name";
                Err(MessageError::Impossible { what: "an answer to an offer", reason })
            }
            _ => Ok(self),
        }
    }
}
