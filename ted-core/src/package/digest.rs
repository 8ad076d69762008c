//! The operator's digest over a body as stored.

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::root::BodyDigest;

/// Which digest a build computes over the body as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestKind {
    /// None: frame hashes and the signature are always there.
    #[default]
    None,
    /// MD5, because existing tooling checks it. It authorises nothing.
    Md5,
    /// BLAKE3.
    Blake3,
}

/// Computes a body's digest from its stored bytes, in order.
pub(super) enum BodyHasher {
    None,
    Md5(Md5),
    Blake3(Box<blake3::Hasher>),
}

impl BodyHasher {
    pub(super) fn new(kind: DigestKind) -> Self {
        match kind {
            DigestKind::None => Self::None,
            DigestKind::Md5 => Self::Md5(Md5::new()),
            DigestKind::Blake3 => Self::Blake3(Box::default()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    pub(super) fn finish(self) -> BodyDigest {
        match self {
            Self::None => BodyDigest::None,
            Self::Md5(hasher) => BodyDigest::Md5(hasher.finalize().into()),
            Self::Blake3(hasher) => BodyDigest::Blake3(hasher.finalize().into()),
        }
    }
}

impl BodyDigest {
    /// Which digest it is.
    #[must_use]
    pub fn kind(&self) -> DigestKind {
        match self {
            Self::None => DigestKind::None,
            Self::Md5(_) => DigestKind::Md5,
            Self::Blake3(_) => DigestKind::Blake3,
        }
    }
}
