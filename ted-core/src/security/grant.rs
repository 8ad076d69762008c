//! Grants: the content key of one sealed package, wrapped for one recipient each. The Distributor signs only the root of
//! a hash tree over them, so that a grant costs its recipient a few hundred bytes in a fleet of any size.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{Hash, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::{
    Certificate, ContentKey, Crypto, DistributorRoot, Envelope, EnvelopeError, EnvelopeKind, HpkeError, HpkeSealed,
    SecretKey, TrustError, Usage, hpke_open,
};

/// What the sealing of a content key is bound to, besides package and recipient.
const INFO_CONTEXT: &[u8] = b"ted/grant/1";
/// Contexts of the tree's hashes, so that no leaf passes for a node and no node for a leaf.
const LEAF_CONTEXT: &str = "ted 2026 leaf of a tree of grants";
const NODE_CONTEXT: &str = "ted 2026 node of a tree of grants";

const WHAT: &str = "a grant";
const WHAT_ALL: &str = "a package's grants";

/// Why a grant is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The bytes are none, or beyond [`Limits`].
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The envelope with the tree's root does not hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It opens another package.
    #[error("the grants are those of package {found}, not of {wanted}")]
    OtherPackage {
        /// Whose they are.
        found: PackageId,
        /// Whose they would have to be.
        wanted: PackageId,
    },
    /// It is another node's.
    #[error("the grant is that of the key {}, not of {}", found.fingerprint(), wanted.fingerprint())]
    OtherRecipient {
        /// Whose it is.
        found: KeyHash,
        /// Whose it would have to be.
        wanted: KeyHash,
    },
    /// It is none of those that were signed.
    #[error("the grant is none of those that the Distributor signed")]
    NotSigned,
    /// This node does not hold the key that it was sealed to.
    #[error("the grant was sealed to the key {}, which this node does not hold", .0.fingerprint())]
    OtherKey(KeyHash),
    /// What it holds is no content key.
    #[error("the grant does not hold a content key")]
    NoContentKey,
    /// There are more than a tree may have.
    #[error("{0} grants are more than one package may have")]
    TooMany(usize),
    /// It does not open.
    #[error(transparent)]
    Hpke(#[from] HpkeError),
}

impl Coded for GrantError {
    fn code(&self) -> &'static str {
        match self {
            Self::Codec(error) => error.code(),
            Self::Envelope(error) => error.code(),
            Self::OtherPackage { .. } => "TED-1162",
            Self::OtherRecipient { .. } => "TED-1163",
            Self::NotSigned => "TED-1164",
            Self::OtherKey(_) => "TED-1165",
            Self::NoContentKey => "TED-1166",
            Self::TooMany(_) => "TED-1167",
            Self::Hpke(error) => error.code(),
        }
    }
}

/// The payload of an envelope of kind 2: what the Distributor signs of a package's grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Which package they open.
    pub package: PackageId,
    /// How many there are.
    pub count: u32,
    /// The root of the tree over them.
    pub merkle_root: Hash,
}

impl Grants {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(WHAT_ALL, self, Limits::DEFAULT.envelope_bytes_max)
    }

    /// Reads the payload of an envelope of kind 2.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let grants: Self = codec::decode(WHAT_ALL, payload, Limits::DEFAULT.envelope_bytes_max)?;
        if grants.count == 0 || grants.count > Limits::DEFAULT.grants_max {
            return Err(CodecError::Malformed { what: WHAT_ALL, reason: "it counts none, or too many".to_owned() });
        }
        Ok(grants)
    }
}

/// How a content key is wrapped. Another way becomes another variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrap {
    /// HPKE to a P-256 key, see [`Crypto::seal_to`].
    HpkeP256(HpkeSealed),
}

/// The content key of one package, wrapped for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The recipient's registered identity key.
    pub recipient: KeyHash,
    /// The recipient's encryption key, to which it is sealed.
    pub encryption: KeyHash,
    /// The wrapped key.
    pub wrap: Wrap,
}

impl Grant {
    /// Wraps the content key of `package` for `recipient`.
    ///
    /// # Errors
    /// [`HpkeError`].
    pub fn issue(
        crypto: &dyn Crypto,
        key: &ContentKey,
        package: &PackageId,
        recipient: &Recipient,
    ) -> Result<Self, HpkeError> {
        let sealed = crypto.seal_to(&recipient.encryption, &info(package, &recipient.identity), key.as_bytes())?;
        Ok(Self {
            recipient: recipient.identity,
            encryption: KeyHash::of_spki(&recipient.encryption),
            wrap: Wrap::HpkeP256(sealed),
        })
    }

    /// Unwraps the content key of `package` with the recipient's encryption key. Whether it is that package's key only
    /// the commitment in its root says.
    ///
    /// # Errors
    /// [`GrantError`].
    pub fn open(&self, package: &PackageId, key: &SecretKey) -> Result<ContentKey, GrantError> {
        if key.key_hash() != self.encryption {
            return Err(GrantError::OtherKey(self.encryption));
        }
        let Wrap::HpkeP256(sealed) = &self.wrap;
        let opened = hpke_open(key, &info(package, &self.recipient), sealed)?;
        let bytes = opened.as_slice().try_into().map_err(|_| GrantError::NoContentKey)?;
        Ok(ContentKey::from_bytes(bytes))
    }

    /// Its bytes, as a Distributor keeps them and as they are hashed.
    ///
    /// # Errors
    /// [`CodecError`] beyond [`Limits::grant_bytes_max`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(WHAT, self, Limits::DEFAULT.grant_bytes_max)
    }

    /// Reads the bytes that [`Grant::to_bytes`] made.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(WHAT, bytes, Limits::DEFAULT.grant_bytes_max)
    }

    /// Its place in the tree: the hash of its bytes.
    ///
    /// # Errors
    /// As [`Grant::to_bytes`].
    pub fn leaf(&self) -> Result<Hash, CodecError> {
        Ok(leaf(&self.to_bytes()?))
    }
}

fn leaf(bytes: &[u8]) -> Hash {
    Hash::from(blake3::Hasher::new_derive_key(LEAF_CONTEXT).update(bytes).finalize())
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(NODE_CONTEXT);
    hasher.update(left.as_bytes()).update(right.as_bytes());
    Hash::from(hasher.finalize())
}

/// Context, package and recipient, each after its length.
fn info(package: &PackageId, recipient: &KeyHash) -> Vec<u8> {
    let mut info = Vec::with_capacity(128);
    for part in [INFO_CONTEXT, package.as_bytes(), recipient.as_bytes()] {
        info.extend_from_slice(&(part.len() as u64).to_le_bytes());
        info.extend_from_slice(part);
    }
    info
}

/// A grant on its way to its recipient, with what proves that it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenGrant {
    /// The grant.
    pub grant: Grant,
    /// Which leaf of the tree it is.
    pub index: u32,
    /// The hashes beside its way to the root, from the leaf upwards.
    pub path: Vec<Hash>,
}

impl ProvenGrant {
    /// Its bytes, as they are fetched.
    ///
    /// # Errors
    /// [`CodecError`] beyond [`Limits::grant_bytes_max`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(WHAT, self, Limits::DEFAULT.grant_bytes_max)
    }

    /// Reads what was fetched; [`KeptGrant::judge`] judges it.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(WHAT, bytes, Limits::DEFAULT.grant_bytes_max)
    }

    /// Whether it is one of those that were signed.
    ///
    /// # Errors
    /// [`GrantError::NotSigned`].
    pub fn check(&self, grants: &Grants) -> Result<(), GrantError> {
        let mut hash = self.grant.leaf()?;
        let (mut index, mut last) = (self.index, grants.count.saturating_sub(1));
        if index > last {
            return Err(GrantError::NotSigned);
        }
        let mut beside = self.path.iter();
        while last > 0 {
            if index & 1 == 1 {
                hash = node(beside.next().ok_or(GrantError::NotSigned)?, &hash);
            } else if index < last {
                hash = node(&hash, beside.next().ok_or(GrantError::NotSigned)?);
            }
            (index, last) = (index >> 1, last >> 1);
        }
        if beside.next().is_some() || hash != grants.merkle_root {
            return Err(GrantError::NotSigned);
        }
        Ok(())
    }
}

/// The hash tree over a package's grants, in the order in which they were made. Two neighbours make a node; a last one
/// without a neighbour stands in the level above as it is. Adding grants at the end changes no leaf.
#[derive(Debug, Clone)]
pub struct GrantTree {
    /// The leaves first, the root alone last.
    levels: Vec<Vec<Hash>>,
}

impl GrantTree {
    /// The tree over these leaves.
    ///
    /// # Errors
    /// [`GrantError::TooMany`] beyond [`Limits::grants_max`], or of none.
    pub fn over(leaves: Vec<Hash>) -> Result<Self, GrantError> {
        if leaves.is_empty() || leaves.len() > Limits::DEFAULT.grants_max as usize {
            return Err(GrantError::TooMany(leaves.len()));
        }
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = level.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                alone => alone[0],
            });
            levels.push(above.collect());
        }
        Ok(Self { levels })
    }

    /// How many grants there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        // `over` bounds it.
        self.levels[0].len() as u32
    }

    /// What the Distributor signs.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels[self.levels.len() - 1][0]
    }

    /// The hashes beside the way of leaf `index` to the root; `None` where there is no such leaf.
    #[must_use]
    pub fn path(&self, index: u32) -> Option<Vec<Hash>> {
        let mut at = index as usize;
        self.levels[0].get(at)?;
        let mut path = Vec::new();
        for level in &self.levels {
            path.extend(level.get(at ^ 1));
            at >>= 1;
        }
        Some(path)
    }
}

/// A grant as its recipient keeps it: wrapped, with the envelope that proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGrant {
    /// The envelope's bytes.
    pub envelope: Vec<u8>,
    /// The grant.
    pub proven: ProvenGrant,
}

impl KeptGrant {
    /// Checks everything about it: the envelope is the Distributor's and holds at `now`, it is about `package`, and the
    /// grant is one of those signed and made for `recipient`. Answers the key that signed.
    ///
    /// # Errors
    /// [`GrantError`] says what does not hold.
    pub fn judge(
        &self,
        root: &DistributorRoot,
        package: &PackageId,
        recipient: &KeyHash,
        now: UnixMillis,
    ) -> Result<KeyHash, GrantError> {
        let envelope = Envelope::from_bytes(&self.envelope)?;
        envelope.expect_kind(EnvelopeKind::GRANTS)?;
        envelope.verify(root, now)?;
        let grants = Grants::from_payload(&envelope.body().payload)?;
        if grants.package != *package {
            return Err(GrantError::OtherPackage { found: grants.package, wanted: *package });
        }
        if self.proven.grant.recipient != *recipient {
            return Err(GrantError::OtherRecipient { found: self.proven.grant.recipient, wanted: *recipient });
        }
        self.proven.check(&grants)?;
        Ok(envelope.body().issuer)
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// [`CodecError`] beyond [`Limits::kept_grant_bytes_max`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(WHAT, self, Limits::DEFAULT.kept_grant_bytes_max)
    }

    /// Reads its file.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(WHAT, bytes, Limits::DEFAULT.kept_grant_bytes_max)
    }
}

/// Whom a content key can be wrapped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The registered identity key.
    pub identity: KeyHash,
    /// The public encryption key, a SubjectPublicKeyInfo in DER.
    pub encryption: Vec<u8>,
}

/// Why nothing can be wrapped for a Subscriber.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It has no encryption certificate.
    #[error("it has no encryption certificate")]
    Missing,
    /// Its encryption certificate does not hold: its time is over, or it is for something else.
    #[error("its encryption certificate does not hold")]
    Certificate(#[source] TrustError),
    /// Its encryption certificate is for another name than it has now.
    #[error("its encryption certificate is for the name {found}, and it is called {wanted} now")]
    OtherName {
        /// The certificate's name.
        found: NodeName,
        /// The Subscriber's.
        wanted: NodeName,
    },
}

impl Coded for Unfit {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "TED-1842",
            Self::Certificate(_) => "TED-1843",
            Self::OtherName { .. } => "TED-1844",
        }
    }
}

/// Whether a Subscriber can be given grants: it needs an encryption certificate that holds now and is for the name that
/// it has now. Identity goes by key; encryption alone goes by name. The certificate comes from the Distributor's own
/// registrations, where only what it issued itself gets in, so its chain is not verified ten thousand times more.
///
/// # Errors
/// [`Unfit`] says what is in the way.
pub fn judge_recipient(
    identity: &KeyHash,
    name: &NodeName,
    encryption: Option<&[u8]>,
    now: UnixMillis,
) -> Result<Recipient, Unfit> {
    let certificate = Certificate::from_der(encryption.ok_or(Unfit::Missing)?).map_err(Unfit::Certificate)?;
    let (found, wanted) = (certificate.usage(), Usage::SubscriberEncryption);
    if found != wanted {
        return Err(Unfit::Certificate(TrustError::Usage { name: certificate.name().clone(), found, wanted }));
    }
    certificate.holds_at(now).map_err(Unfit::Certificate)?;
    if certificate.name() != name {
        return Err(Unfit::OtherName { found: certificate.name().clone(), wanted: name.clone() });
    }
    Ok(Recipient { identity: *identity, encryption: certificate.spki().to_vec() })
}

#[cfg(test)]
mod tests;
