//! Identifiers: random or hashed bytes that print as hex, revisions, and points in time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Coded;

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct IdError {
    what: &'static str,
    text: String,
}

impl Coded for IdError {
    fn code(&self) -> &'static str {
        "TED-1003"
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The identifier made of these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text.trim(), &mut bytes)
                    .map_err(|_| IdError { what: $what, text: text.to_owned() })?;
                Ok(Self(bytes))
            }
        }
    };
}

bytes_id!(
    /// A BLAKE3 hash, 32 bytes.
    Hash, 32, "a hash (64 hex digits)"
);
bytes_id!(
    /// A Distribution's identifier: 16 random bytes, given once.
    DistributionId, 16, "a Distribution's id (32 hex digits)"
);
bytes_id!(
    /// BLAKE3 of a package's root bytes.
    PackageId, 32, "a package id (64 hex digits)"
);
bytes_id!(
    /// BLAKE3 of a revision's plaintext entry list: the same for its baseline and its deltas.
    ContentId, 32, "a content id (64 hex digits)"
);
bytes_id!(
    /// BLAKE3 of a public key (its SubjectPublicKeyInfo in DER). What a node is known by; names are labels.
    KeyHash, 32, "a key hash (64 hex digits)"
);
bytes_id!(
    /// BLAKE3 of an envelope's bytes.
    EnvelopeId, 32, "an envelope id (64 hex digits)"
);
bytes_id!(
    /// One start of a Channel's schedule, or of `send`: 16 random bytes.
    FiringId, 16, "a firing's id (32 hex digits)"
);
bytes_id!(
    /// One running process of a node: 16 random bytes, new at every start.
    InstanceId, 16, "an instance id (32 hex digits)"
);

impl Hash {
    /// BLAKE3 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl KeyHash {
    /// The hash of a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(*blake3::hash(spki_der).as_bytes())
    }

    /// The short form that both sides of an enrolment print: the first 16 hex digits in groups of four.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digits = hex::encode(&self.0[..8]);
        [&digits[..4], &digits[4..8], &digits[8..12], &digits[12..]].join("-")
    }

    /// Whether a fingerprint that somebody typed is this key's, however its digits are grouped and written.
    #[must_use]
    pub fn has_fingerprint(&self, typed: &str) -> bool {
        let digits = |text: &str| -> String {
            text.chars()
                .filter(|letter| !matches!(letter, '-' | ':' | ' '))
                .map(|letter| letter.to_ascii_lowercase())
                .collect()
        };
        digits(typed) == digits(&self.fingerprint())
    }
}

/// One built state of a Distribution. It only grows: `max(previous + 1, unix milliseconds)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The revision that follows `previous` when the clock says `now`.
    #[must_use]
    pub fn after(previous: Option<Self>, now: UnixMillis) -> Self {
        Self(next_number(previous.map(Self::number), now))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.trim().parse().map(Self).map_err(|_| IdError { what: "a revision (a number)", text: text.to_owned() })
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// This many milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The point in time that is `duration` later; the last one there is, where that would overflow.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// `max(previous + 1, unix milliseconds)`: a restored node is never refused for ever.
#[must_use]
pub fn next_number(previous: Option<u64>, now: UnixMillis) -> u64 {
    previous.map_or(now.0, |number| number.saturating_add(1).max(now.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_print_and_parse_as_hex() {
        let id = DistributionId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<DistributionId>(), Ok(id));
        assert!("ab".parse::<DistributionId>().is_err());
        assert!("zz".repeat(16).parse::<DistributionId>().is_err());
    }

    #[test]
    fn a_typed_fingerprint_is_compared_by_its_digits_and_only_whole() {
        let key = KeyHash::from_bytes([0xab; 32]);
        for typed in ["abab-abab-abab-abab", "ABAB ABAB abab abab", "ab:ab:ab:ab:ab:ab:ab:ab"] {
            assert!(key.has_fingerprint(typed), "{typed}");
        }
        for typed in ["", "abab", "abab-abab-abab-abac", "abab-abab-abab-abab-ab"] {
            assert!(!key.has_fingerprint(typed), "{typed}");
        }
    }

    #[test]
    fn revisions_only_grow() {
        let now = UnixMillis::from_millis(1000);
        let first = Revision::after(None, now);
        assert_eq!(first.number(), 1000);
        assert_eq!(Revision::after(Some(first), now).number(), 1001, "the clock stood still");
        assert_eq!(Revision::after(Some(Revision::from_number(5000)), now).number(), 5001, "the clock went back");
        assert_eq!(Revision::after(Some(first), UnixMillis::from_millis(9000)).number(), 9000);
    }
}
