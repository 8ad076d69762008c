//! The one place that knows bincode: fixed-size little-endian integers, `u64` lengths, `u32` enum tags,
//! a size limit, and no trailing bytes.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Coded;

/// Why bytes were refused, or a value could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are longer than the limit for their kind.
    #[error("{what} has {bytes} bytes, more than the {limit} allowed")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not what they should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

impl Coded for CodecError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "TED-1001",
            Self::Malformed { .. } => "TED-1002",
        }
    }
}

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_little_endian().with_limit(limit).reject_trailing_bytes()
}

/// The bytes of `value`.
///
/// # Errors
/// [`CodecError::TooLong`] or [`CodecError::Malformed`] when the encoding exceeds `limit` bytes.
pub fn encode<T: Serialize>(what: &'static str, value: &T, limit: u64) -> Result<Vec<u8>, CodecError> {
    options(limit).serialize(value).map_err(|error| CodecError::Malformed { what, reason: error.to_string() })
}

/// The value that `bytes` hold, all of them.
///
/// # Errors
/// [`CodecError::TooLong`] before anything is allocated when there are more than `limit` bytes;
/// [`CodecError::Malformed`] when they end early, go on too long, or say something impossible.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limit: u64) -> Result<T, CodecError> {
    if bytes.len() as u64 > limit {
        return Err(CodecError::TooLong { what, bytes: bytes.len() as u64, limit });
    }
    options(limit).deserialize(bytes).map_err(|error| CodecError::Malformed { what, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_fixed_size_little_endian() {
        let bytes = encode("pair", &(1u16, 2u64), 64).expect("small");
        assert_eq!(bytes, [1, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let error = decode::<u16>("number", &[1, 0, 0], 64).expect_err("one byte too many");
        assert_eq!(error.code(), "TED-1002");
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let lie = u64::MAX.to_le_bytes();
        assert!(decode::<Vec<u8>>("bytes", &lie, 64).is_err());
        assert!(decode::<Vec<u64>>("numbers", &lie, 64).is_err());
    }

    #[test]
    fn more_than_the_limit_is_refused_unread() {
        let error = decode::<Vec<u8>>("bytes", &[0; 65], 64).expect_err("too long");
        assert_eq!(error.code(), "TED-1001");
    }
}
