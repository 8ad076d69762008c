//! The release statement: the Distributor's signed, dated word that a revision is the current one.

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, PackageId, Revision};

/// What a package named by a statement holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    /// The whole revision.
    Baseline {
        /// That revision.
        revision: Revision,
    },
    /// The difference between two revisions.
    Delta {
        /// From this one.
        base: Revision,
        /// To this one.
        revision: Revision,
    },
}

/// A package that a statement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRef {
    /// Its id.
    pub id: PackageId,
    /// What it holds.
    pub carried: Carried,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The payload of an envelope of kind 1. When it was issued, until when it holds and its sequence number
/// stand in the envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatement {
    /// Which Distribution.
    pub distribution: DistributionId,
    /// The revision that is current.
    pub revision: Revision,
    /// The packages that carry it, chain members included.
    pub packages: Vec<PackageRef>,
    /// What not every version knows, ordered by kind: 1 = the proposed target, UTF-8. Unknown kinds are kept.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl ReleaseStatement {
    const TARGET: u16 = 1;

    /// The target that the Distribution proposes; `None` without one, or if it is not UTF-8.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        let (_, bytes) = self.extensions.iter().find(|(kind, _)| *kind == Self::TARGET)?;
        std::str::from_utf8(bytes).ok()
    }

    /// The same statement, proposing `target`.
    #[must_use]
    pub fn with_target(mut self, target: Option<&str>) -> Self {
        self.extensions.retain(|(kind, _)| *kind != Self::TARGET);
        if let Some(target) = target {
            self.extensions.push((Self::TARGET, target.as_bytes().to_vec()));
            self.extensions.sort_by_key(|(kind, _)| *kind);
        }
        self
    }

    /// The baseline of the current revision, where one is named.
    #[must_use]
    pub fn baseline(&self) -> Option<&PackageRef> {
        self.packages.iter().find(|package| package.carried == Carried::Baseline { revision: self.revision })
    }
}
