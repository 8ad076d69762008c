//! How a firing is kept: a record with its head, and one for each part, so that a receipt costs one small write.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::limits::Limits;
use crate::protocol::firing::head::FiringHead;
use crate::protocol::firing::part::Part;

/// The form that heads and parts are written in.
const FORM: u16 = 1;

/// Why a persisted firing cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FiringError {
    /// It was written by a later version.
    #[error("a firing written in form {form} by a later version")]
    LaterForm {
        /// The form's number.
        form: u16,
    },
    /// Its bytes are damaged, or there are too many.
    #[error("a firing cannot be read or written")]
    Codec(#[from] CodecError),
}

impl Coded for FiringError {
    fn code(&self) -> &'static str {
        match self {
            Self::LaterForm { .. } => "TED-1370",
            Self::Codec(_) => "TED-1371",
        }
    }
}

/// Which record of a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FiringRecord {
    /// Its [`FiringHead`].
    Head,
    /// The [`Part`] with this number.
    Part(u32),
}

/// Records of a firing that are to be written or, without bytes, removed: all of them together.
pub type FiringChanges = Vec<(FiringRecord, Option<Vec<u8>>)>;

impl FiringHead {
    /// The bytes that are persisted: a `u16` with the form's number, then the head.
    ///
    /// # Errors
    /// [`FiringError::Codec`] if they are more than [`Limits::firing_record_bytes_max`].
    pub fn encode(&self, limits: &Limits) -> Result<Vec<u8>, FiringError> {
        encode("a firing", self, limits)
    }

    /// The head that `bytes` hold.
    ///
    /// # Errors
    /// [`FiringError`].
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, FiringError> {
        decode("a firing", bytes, limits)
    }
}

impl Part {
    /// The bytes that are persisted: a `u16` with the form's number, then the part.
    ///
    /// # Errors
    /// [`FiringError::Codec`] if they are more than [`Limits::firing_record_bytes_max`].
    pub fn encode(&self, limits: &Limits) -> Result<Vec<u8>, FiringError> {
        encode("a part of a firing", self, limits)
    }

    /// The part that `bytes` hold.
    ///
    /// # Errors
    /// [`FiringError`].
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, FiringError> {
        decode("a part of a firing", bytes, limits)
    }
}

fn encode<T: Serialize>(what: &'static str, value: &T, limits: &Limits) -> Result<Vec<u8>, FiringError> {
    let mut bytes = FORM.to_le_bytes().to_vec();
    bytes.extend(codec::encode(what, value, limits.firing_record_bytes_max)?);
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limits: &Limits) -> Result<T, FiringError> {
    let (form, rest) = bytes.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
    let form = u16::from_le_bytes(*form);
    if form > FORM {
        return Err(FiringError::LaterForm { form });
    }
    Ok(codec::decode(what, rest, limits.firing_record_bytes_max)?)
}
