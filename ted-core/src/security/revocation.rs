//! The revocation list: keys that count for nothing any more, whatever certificate they are shown with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{KeyHash, UnixMillis};
use crate::limits::Limits;

const WHAT: &str = "a revocation list";

/// The longest serial number that RFC 5280 section 4.1.2.2 allows.
const SERIAL_BYTES_MAX: usize = 20;

/// Why a key was revoked. Others than these may come from later versions, and are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevocationReason(pub u16);

impl RevocationReason {
    /// Nobody said why.
    pub const UNSPECIFIED: Self = Self(0);
    /// Somebody else may have the key.
    pub const KEY_COMPROMISE: Self = Self(1);
    /// The node is gone: lost, stolen, or taken out of service.
    pub const LOST: Self = Self(2);
    /// Another key took over.
    pub const SUPERSEDED: Self = Self(3);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::UNSPECIFIED, "unspecified"),
        (Self::KEY_COMPROMISE, "key-compromise"),
        (Self::LOST, "lost"),
        (Self::SUPERSEDED, "superseded"),
    ];
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(reason, _)| reason == self) {
            Some((_, name)) => f.pad(name),
            None => write!(f, "reason {}", self.0),
        }
    }
}

/// A text that names no [`RevocationReason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no reason for a revocation: unspecified, key-compromise, lost or superseded")]
pub struct ReasonError(String);

impl Coded for ReasonError {
    fn code(&self) -> &'static str {
        "TED-1199"
    }
}

impl FromStr for RevocationReason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Self, ReasonError> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text.trim());
        found.map(|(reason, _)| *reason).ok_or_else(|| ReasonError(text.to_owned()))
    }
}

/// A key that was revoked, with all certificates that were ever issued for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// The key.
    pub key: KeyHash,
    /// Serial numbers of its certificates, as far as they are known: for other tools; the key decides.
    pub serials: Vec<Vec<u8>>,
    /// Since when it counts for nothing.
    pub since: UnixMillis,
    /// Why.
    pub reason: RevocationReason,
}

/// The payload of an envelope of kind 5, which only the CA key signs: one page of the keys that were revoked.
/// Pages are only ever added to, and whoever has read one forgets nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// Which page, counted from 0.
    pub page: u16,
    /// The keys, in the order in which they were revoked.
    pub keys: Vec<RevokedKey>,
    /// What later versions add, ordered by kind. Unknown kinds are kept.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl RevocationList {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`] when it names more than [`Limits`] allow.
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        self.within_limits()?;
        codec::encode(WHAT, self, Limits::DEFAULT.envelope_bytes_max)
    }

    /// Reads the payload of an envelope of kind 5.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let list: Self = codec::decode(WHAT, payload, Limits::DEFAULT.envelope_bytes_max)?;
        list.within_limits()?;
        Ok(list)
    }

    fn within_limits(&self) -> Result<(), CodecError> {
        let limits = Limits::DEFAULT;
        let refuse = |reason: &str| Err(CodecError::Malformed { what: WHAT, reason: reason.to_owned() });
        if self.page >= limits.revocation_pages_max {
            return refuse("its page number is beyond the last one");
        }
        if self.keys.len() > limits.revocation_page_keys_max {
            return refuse("it names too many keys");
        }
        if self.extensions.len() > limits.extensions_max {
            return refuse("it has too many extensions");
        }
        let unfit = |revoked: &RevokedKey| {
            revoked.serials.len() > limits.revocation_serials_max
                || revoked.serials.iter().any(|serial| serial.len() > SERIAL_BYTES_MAX)
        };
        if self.keys.iter().any(unfit) {
            return refuse("a key has too many serial numbers, or one that is too long");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(page: u16, keys: usize, serials: usize) -> RevocationList {
        let key = RevokedKey {
            key: KeyHash::from_bytes([7; 32]),
            serials: vec![vec![0x7f; SERIAL_BYTES_MAX]; serials],
            since: UnixMillis::from_millis(5),
            reason: RevocationReason::LOST,
        };
        RevocationList { page, keys: vec![key; keys], extensions: vec![(9, b"kept".to_vec())] }
    }

    #[test]
    fn a_full_page_survives_its_bytes_and_leaves_room_for_its_envelope() {
        let limits = Limits::DEFAULT;
        let full = list(49, limits.revocation_page_keys_max, limits.revocation_serials_max);
        let payload = full.to_payload().unwrap();
        assert_eq!(RevocationList::from_payload(&payload).unwrap(), full);
        assert!((payload.len() as u64) < limits.envelope_bytes_max - limits.certificate_bytes_max / 2);
    }

    #[test]
    fn lists_beyond_the_limits_are_refused() {
        for unfit in [list(50, 1, 0), list(0, 501, 0), list(0, 1, 3)] {
            assert!(unfit.to_payload().is_err());
            let bytes = codec::encode(WHAT, &unfit, 1 << 20).unwrap();
            assert!(RevocationList::from_payload(&bytes).is_err());
        }
    }

    #[test]
    fn reasons_are_known_by_their_names() {
        for (reason, name) in RevocationReason::NAMES {
            assert_eq!((reason.to_string().as_str(), name.parse()), (name, Ok(reason)));
        }
        assert_eq!(RevocationReason(77).to_string(), "reason 77");
        assert_eq!("because".parse::<RevocationReason>().unwrap_err().code(), "TED-1199");
    }
}
