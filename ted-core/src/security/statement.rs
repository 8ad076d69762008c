//! The release statement: the Distributor's signed, dated word that a revision is the current one.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::id::{DistributionId, PackageId, Revision};
use crate::limits::Limits;
use crate::model::ExtractMode;

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
    /// What not every version knows, ordered by kind: 1 = the proposed target, UTF-8; 2 = the packages are sealed,
    /// empty; 3 = the mode of extraction, as text, where it is not `merge`. Unknown kinds are kept.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl ReleaseStatement {
    const TARGET: u16 = 1;
    const SEALED: u16 = 2;
    const MODE: u16 = 3;

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

    /// The mode that the Distribution is extracted in. A mode that is not known here counts as the one that does least,
    /// which deletes nothing.
    #[must_use]
    pub fn mode(&self) -> ExtractMode {
        let told = self.extensions.iter().find(|(kind, _)| *kind == Self::MODE);
        let text = told.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The same statement, with this mode.
    #[must_use]
    pub fn with_mode(mut self, mode: ExtractMode) -> Self {
        self.extensions.retain(|(kind, _)| *kind != Self::MODE);
        if mode != ExtractMode::default() {
            self.extensions.push((Self::MODE, mode.to_string().into_bytes()));
            self.extensions.sort_by_key(|(kind, _)| *kind);
        }
        self
    }

    /// Whether the revision's packages are sealed, so that nobody can use them without a grant.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.extensions.iter().any(|(kind, _)| *kind == Self::SEALED)
    }

    /// The same statement, about packages that are sealed (or not).
    #[must_use]
    pub fn with_sealed(mut self, sealed: bool) -> Self {
        self.extensions.retain(|(kind, _)| *kind != Self::SEALED);
        if sealed {
            self.extensions.push((Self::SEALED, vec![]));
            self.extensions.sort_by_key(|(kind, _)| *kind);
        }
        self
    }

    /// The baseline of the current revision, where one is named.
    #[must_use]
    pub fn baseline(&self) -> Option<&PackageRef> {
        self.packages.iter().find(|package| package.carried == Carried::Baseline { revision: self.revision })
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`] when it names more packages or extensions than [`Limits`] allow.
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        self.within_limits()?;
        codec::encode(WHAT, self, Limits::DEFAULT.envelope_bytes_max)
    }

    /// Reads the payload of an envelope of kind 1.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let statement: Self = codec::decode(WHAT, payload, Limits::DEFAULT.envelope_bytes_max)?;
        statement.within_limits()?;
        Ok(statement)
    }

    fn within_limits(&self) -> Result<(), CodecError> {
        let limits = Limits::DEFAULT;
        let refuse = |reason: &str| Err(CodecError::Malformed { what: WHAT, reason: reason.to_owned() });
        if self.packages.len() > limits.statement_packages_max {
            return refuse("it names too many packages");
        }
        if self.extensions.len() > limits.extensions_max {
            return refuse("it has too many extensions");
        }
        Ok(())
    }
}

const WHAT: &str = "a release statement";

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(packages: usize) -> ReleaseStatement {
        let revision = Revision::from_number(7);
        let package =
            PackageRef { id: PackageId::from_bytes([1; 32]), carried: Carried::Baseline { revision }, bytes: 9 };
        ReleaseStatement {
            distribution: DistributionId::from_bytes([2; 16]),
            revision,
            packages: vec![package; packages],
            extensions: vec![(9, b"kept".to_vec())],
        }
    }

    #[test]
    fn statements_survive_their_bytes_with_target_and_unknown_extensions() {
        let given = statement(64).with_mode(ExtractMode::Sync).with_sealed(true).with_target(Some("/srv/www"));
        let read = ReleaseStatement::from_payload(&given.to_payload().unwrap()).unwrap();
        assert_eq!(read, given);
        assert_eq!(read.target(), Some("/srv/www"));
        assert!(read.is_sealed());
        assert_eq!(read.mode(), ExtractMode::Sync);
        let plain = read.with_target(None).with_sealed(false).with_mode(ExtractMode::Merge);
        assert!(!plain.is_sealed());
        assert_eq!(plain.extensions, [(9, b"kept".to_vec())]);
    }

    #[test]
    fn a_mode_that_nobody_knows_deletes_nothing() {
        for unknown in [&b"purge"[..], b"", b"\xff"] {
            let mut statement = statement(1);
            statement.extensions = vec![(ReleaseStatement::MODE, unknown.to_vec())];
            assert_eq!(statement.mode(), ExtractMode::Merge);
        }
    }

    #[test]
    fn statements_that_name_too_much_are_refused() {
        assert!(statement(65).to_payload().is_err());
        let bytes = codec::encode(WHAT, &statement(65), 1 << 20).unwrap();
        assert!(ReleaseStatement::from_payload(&bytes).is_err());
    }
}
