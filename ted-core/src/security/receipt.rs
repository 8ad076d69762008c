//! The receipt: a Subscriber's signed statement of how far a revision came.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::id::{DistributionId, FiringId, PackageId, Revision, UnixMillis};
use crate::limits::Limits;

/// Bytes of [`Receipt::detail`].
const DETAIL_BYTES_MAX: usize = 1024;
/// Bytes of [`Receipt::code`]: `TED-` and some digits, with room for a letter.
const CODE_BYTES_MAX: usize = 16;
const WHAT: &str = "a receipt";

/// How far a revision came at one Subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// All its packages are on the Subscriber's disk.
    Received,
    /// They were verified whole.
    Verified,
    /// The target holds the revision.
    Extracted,
    /// A package was damaged beyond the tries that are allowed.
    Corrupt,
    /// Something else went wrong; the code says what.
    Failed,
}

/// The payload of an envelope of kind 6, signed with the Subscriber's identity key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The firing that it answers, where there was one.
    pub firing: Option<FiringId>,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision.
    pub revision: Revision,
    /// Which package, where it is about one.
    pub package: Option<PackageId>,
    /// How far it came.
    pub stage: Stage,
    /// The error's stable code, where it failed.
    pub code: Option<String>,
    /// What happened, for people; at most 1 KiB.
    pub detail: String,
    /// When, by the Subscriber's clock.
    pub at: UnixMillis,
}

impl Receipt {
    /// The payload's bytes. A detail that is too long is cut at a character's end.
    ///
    /// # Errors
    /// [`CodecError`] when the code is too long.
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        let mut receipt = self.clone();
        while receipt.detail.len() > DETAIL_BYTES_MAX {
            receipt.detail.pop();
        }
        receipt.within_limits()?;
        codec::encode(WHAT, &receipt, Limits::DEFAULT.envelope_bytes_max)
    }

    /// Reads the payload of an envelope of kind 6.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or a text in it is too long.
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let receipt: Self = codec::decode(WHAT, payload, Limits::DEFAULT.envelope_bytes_max)?;
        receipt.within_limits()?;
        Ok(receipt)
    }

    fn within_limits(&self) -> Result<(), CodecError> {
        let too_long =
            self.detail.len() > DETAIL_BYTES_MAX || self.code.as_ref().is_some_and(|code| code.len() > CODE_BYTES_MAX);
        if too_long {
            return Err(CodecError::Malformed { what: WHAT, reason: "a text in it is too long".to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_survive_their_bytes_and_long_details_are_cut_whole_characters_at_a_time() {
        let given = Receipt {
            firing: None,
            distribution: DistributionId::from_bytes([2; 16]),
            revision: Revision::from_number(7),
            package: Some(PackageId::from_bytes([1; 32])),
            stage: Stage::Failed,
            code: Some("TED-1501".to_owned()),
            detail: format!("x{}", "ä".repeat(600)),
            at: UnixMillis::from_millis(5),
        };
        let read = Receipt::from_payload(&given.to_payload().unwrap()).unwrap();
        assert_eq!(read.detail.len(), 1023);
        assert_eq!(Receipt { detail: given.detail.clone(), ..read }, given);
        let bytes = codec::encode(WHAT, &given, 1 << 20).unwrap();
        assert!(Receipt::from_payload(&bytes).is_err());
    }
}
