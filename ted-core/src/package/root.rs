//! The root: what a package is, signed. Byte layout in `docs/format.md`.

use serde::{Deserialize, Serialize};

use crate::id::{ContentId, DistributionId, Hash, KeyHash, Revision, UnixMillis};
use crate::name::Label;

/// The first field of every root's bytes.
pub const ROOT_CONTEXT: &str = "ted/root/1";

/// What a package holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageKind {
    /// A whole revision.
    Baseline,
    /// The difference from one earlier revision.
    Delta {
        /// That revision.
        base: Revision,
    },
}

/// How frames and catalog are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suite {
    /// Not at all.
    None,
    /// AES-256-GCM under a content key that grants carry.
    Aes256Gcm {
        /// Random bytes of this package, from which the content key is derived.
        salt: [u8; 32],
        /// A commitment to the content key.
        commitment: Hash,
    },
}

/// The operator's digest over the body as stored. It authorises nothing; existing tooling checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyDigest {
    /// No digest was asked for.
    None,
    /// MD5.
    Md5([u8; 16]),
    /// BLAKE3.
    Blake3(Hash),
}

/// What an unsealed package says to anyone who holds it; a sealed one keeps this in its sealed catalog, before the
/// rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disclosure {
    /// The Distribution's name.
    pub distribution_name: Label,
    /// The revision's content.
    pub content: ContentId,
    /// Entries of the revision.
    pub entries: u64,
}

/// What a package is. Its bytes are signed and hashed as they were received, never encoded again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// [`ROOT_CONTEXT`].
    pub context: String,
    /// Whose revision it is.
    pub distribution: DistributionId,
    /// The Distributor's CA key.
    pub distributor: KeyHash,
    /// Which revision.
    pub revision: Revision,
    /// When it was built; the signer's certificate is judged at this time.
    pub created: UnixMillis,
    /// Baseline or delta.
    pub kind: PackageKind,
    /// How it is sealed.
    pub suite: Suite,
    /// Raw bytes of a large file's frames.
    pub frame_bytes: u32,
    /// zstd's level.
    pub level: i32,
    /// Frames of the body.
    pub body_frames: u64,
    /// Frames of the catalog.
    pub catalog_frames: u64,
    /// Stored bytes of the body, without the head.
    pub body_bytes: u64,
    /// Raw bytes of the body.
    pub body_raw_bytes: u64,
    /// Stored bytes of the catalog, the headers of its skippable frames included.
    pub catalog_bytes: u64,
    /// BLAKE3 of the table's rows as stored.
    pub table: Hash,
    /// The operator's digest.
    pub digest: BodyDigest,
    /// Name, content id and entry count, unless sealed.
    pub disclosure: Option<Disclosure>,
}

impl Root {
    /// Whether frames and catalog are sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.suite != Suite::None
    }
}
