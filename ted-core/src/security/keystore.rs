//! The keystore's bytes: a node's trusted certificates and its own keys, one format for both roles.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::{
    Authority, Certificate, DistributorRoot, EpochSecret, Identity, SecretKey, TlsIdentity, TrustError, Usage,
};

const MAGIC: &[u8; 4] = b"TEDK";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u16>();
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;
/// The extension that holds a Distributor's epoch secrets, 32 bytes each, the newest last.
const EPOCH_SECRETS: u16 = 1;
const EPOCH_SECRET_BYTES: usize = 32;

/// Why a keystore cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// Not a keystore, or cut short.
    #[error("the keystore is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer TED.
    #[error("the keystore has version {0}, and this TED reads version {VERSION}")]
    Version(u16),
    /// The content does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A certificate or key in it cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Coded for KeystoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::Damaged(_) => "TED-1125",
            Self::Version(_) => "TED-1126",
            Self::Codec(error) => error.code(),
            Self::Trust(error) => error.code(),
        }
    }
}

/// One of the node's own keys.
#[derive(Debug, Clone)]
pub struct HeldKey {
    /// What it is for.
    pub usage: Usage,
    /// In whose fleet.
    pub distributor: KeyHash,
    /// Under which name.
    pub name: NodeName,
    /// The key.
    pub key: SecretKey,
    /// Its certificate, once there is one.
    pub certificate: Option<Certificate>,
}

/// The extension that holds the key and certificate for HTTPS, encoded as [`TlsIdentity`].
const HTTPS: u16 = 100;

/// Trusted certificates and own keys.
#[derive(Clone, Default)]
pub struct Keystore {
    trusted: Vec<DistributorRoot>,
    held: Vec<HeldKey>,
    /// The newest last.
    epoch_secrets: Vec<EpochSecret>,
    /// What other versions keep here, by kind; it is carried along untouched.
    extensions: Vec<(u16, Zeroizing<Vec<u8>>)>,
}

impl Keystore {
    /// The Distributors that are trusted for good.
    #[must_use]
    pub fn trusted(&self) -> &[DistributorRoot] {
        &self.trusted
    }

    /// Trusts `root` from now on. Answers the root of the same name that it takes over from, where there was one.
    pub fn trust(&mut self, root: DistributorRoot) -> Option<DistributorRoot> {
        let same_name = self.trusted.iter().position(|trusted| trusted.name() == root.name());
        let replaced = same_name.map(|at| self.trusted.remove(at));
        self.trusted.push(root);
        replaced
    }

    /// Trusts the Distributor with this key no more. Answers whether it was trusted.
    pub fn distrust(&mut self, distributor: &KeyHash) -> bool {
        let before = self.trusted.len();
        self.trusted.retain(|root| root.key_hash() != *distributor);
        self.trusted.len() < before
    }

    /// All own keys.
    #[must_use]
    pub fn held(&self) -> &[HeldKey] {
        &self.held
    }

    /// Keeps a key.
    pub fn hold(&mut self, key: HeldKey) {
        self.held.push(key);
    }

    /// Keeps an identity of the fleet `distributor`.
    pub fn hold_identity(&mut self, distributor: KeyHash, identity: Identity) {
        self.hold(HeldKey {
            usage: identity.certificate.usage(),
            distributor,
            name: identity.certificate.name().clone(),
            key: identity.key,
            certificate: Some(identity.certificate),
        });
    }

    /// Puts a certificate to the key that it is for. Answers whether that key is held for that use.
    pub fn certify(&mut self, certificate: &Certificate) -> bool {
        let fits = |held: &&mut HeldKey| held.key.spki() == certificate.spki() && held.usage == certificate.usage();
        match self.held.iter_mut().find(fits) {
            Some(held) => {
                held.certificate = Some(certificate.clone());
                true
            }
            None => false,
        }
    }

    /// The same within one fleet: a key may be known in several.
    pub fn certify_in(&mut self, distributor: &KeyHash, certificate: &Certificate) -> bool {
        let fits = |held: &&mut HeldKey| {
            held.distributor == *distributor
                && held.key.spki() == certificate.spki()
                && held.usage == certificate.usage()
        };
        match self.held.iter_mut().find(fits) {
            Some(held) => {
                (held.name, held.certificate) = (certificate.name().clone(), Some(certificate.clone()));
                true
            }
            None => false,
        }
    }

    /// Forgets the key with this hash. Answers whether it was held.
    pub fn forget(&mut self, key: &KeyHash) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.key.key_hash() != *key);
        self.held.len() < before
    }

    /// The certified key of a fleet for a use; of several the one that holds longest.
    #[must_use]
    pub fn identity(&self, distributor: &KeyHash, usage: Usage) -> Option<Identity> {
        self.of(distributor, usage)
            .filter_map(|held| {
                let certificate = held.certificate.clone()?;
                Some(Identity { certificate, key: held.key.clone() })
            })
            .max_by_key(|identity| identity.certificate.not_after())
    }

    /// The key of a fleet for a use that still waits for its certificate; the one made last.
    #[must_use]
    pub fn pending(&self, distributor: &KeyHash, usage: Usage) -> Option<&HeldKey> {
        self.of(distributor, usage).filter(|held| held.certificate.is_none()).last()
    }

    /// The CA that this node is, where it is a Distributor.
    #[must_use]
    pub fn authority(&self) -> Option<Authority> {
        let held = self.held.iter().rfind(|held| held.usage == Usage::Authority)?;
        let root = DistributorRoot::try_from(held.certificate.clone()?).ok()?;
        Authority::from_parts(root, held.key.clone()).ok()
    }

    /// All CAs that this node holds: the last one is what it is now.
    #[must_use]
    pub fn authorities(&self) -> Vec<Authority> {
        let held = self.held.iter().filter(|held| held.usage == Usage::Authority);
        held.filter_map(|held| {
            let root = DistributorRoot::try_from(held.certificate.clone()?).ok()?;
            Authority::from_parts(root, held.key.clone()).ok()
        })
        .collect()
    }

    /// Makes the CA with this key what this node is from now on. Answers whether it is held.
    pub fn make_current(&mut self, authority: &KeyHash) -> bool {
        let is_it = |held: &HeldKey| held.usage == Usage::Authority && held.key.key_hash() == *authority;
        let Some(at) = self.held.iter().position(is_it) else { return false };
        let held = self.held.remove(at);
        self.held.push(held);
        true
    }

    /// Forgets every own key of a fleet.
    pub fn forget_fleet(&mut self, distributor: &KeyHash) {
        self.held.retain(|held| held.distributor != *distributor);
    }

    /// Holds the node's keys of one fleet in another one too, without certificates: its Distributor has another CA key
    /// now and knows them. Keys that are held there already stay.
    pub fn carry_keys(&mut self, from: &KeyHash, to: &KeyHash) {
        for usage in [Usage::SubscriberIdentity, Usage::SubscriberEncryption] {
            if self.of(to, usage).next().is_some() {
                continue;
            }
            if let Some(held) = self.of(from, usage).last().cloned() {
                self.held.push(HeldKey { distributor: *to, certificate: None, ..held });
            }
        }
    }

    /// The secrets of which a Distributor's content keys are derived, the newest last. That one is current; the others
    /// open what was sealed before.
    #[must_use]
    pub fn epoch_secrets(&self) -> &[EpochSecret] {
        &self.epoch_secrets
    }

    /// Makes `secret` the current one. Beyond [`Limits::epoch_secrets_max`] the oldest is forgotten, and with it the
    /// keys of what was sealed under it.
    pub fn add_epoch_secret(&mut self, secret: EpochSecret) {
        self.epoch_secrets.retain(|known| known.as_bytes() != secret.as_bytes());
        self.epoch_secrets.push(secret);
        let beyond = self.epoch_secrets.len().saturating_sub(Limits::DEFAULT.epoch_secrets_max);
        self.epoch_secrets.drain(..beyond);
    }

    /// The key and certificate that were imported for HTTPS, where there are any.
    ///
    /// # Errors
    /// [`KeystoreError::Codec`] if another version wrote them.
    pub fn https(&self) -> Result<Option<TlsIdentity>, KeystoreError> {
        let stored = self.extensions.iter().find(|(kind, _)| *kind == HTTPS);
        let read = |(_, bytes): &(u16, Zeroizing<Vec<u8>>)| {
            codec::decode("an imported key", bytes, Limits::DEFAULT.state_file_bytes_max)
        };
        Ok(stored.map(read).transpose()?)
    }

    /// Keeps a key and certificate for HTTPS in the place of the ones that are there; `None` removes those. Answers
    /// whether there were any.
    ///
    /// # Errors
    /// [`KeystoreError::Codec`] if they are too long to be kept.
    pub fn set_https(&mut self, identity: Option<&TlsIdentity>) -> Result<bool, KeystoreError> {
        let encode = |identity| codec::encode("an imported key", identity, Limits::DEFAULT.state_file_bytes_max);
        let encoded = identity.map(encode).transpose()?.map(Zeroizing::new);
        let before = self.extensions.len();
        self.extensions.retain(|(kind, _)| *kind != HTTPS);
        let removed = self.extensions.len() < before;
        self.extensions.extend(encoded.map(|bytes| (HTTPS, bytes)));
        Ok(removed)
    }

    fn of<'a>(&'a self, distributor: &KeyHash, usage: Usage) -> impl Iterator<Item = &'a HeldKey> {
        self.held.iter().filter(move |held| held.usage == usage && held.distributor == *distributor)
    }

    /// The file's bytes: magic, version, content, BLAKE3 of all before it. Zeroed when dropped.
    ///
    /// # Errors
    /// [`KeystoreError::Codec`] beyond [`Limits::state_file_bytes_max`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        let stored = Stored {
            trusted: self.trusted.iter().map(|root| root.certificate().der().to_vec()).collect(),
            held: self.held.iter().map(StoredKey::from).collect(),
            extensions: self.stored_extensions(),
        };
        let content = Zeroizing::new(codec::encode("a keystore", &stored, Limits::DEFAULT.state_file_bytes_max)?);
        // Reserved at once, so that growing leaves no copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + content.len() + CHECKSUM_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&content);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        Ok(bytes)
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// [`KeystoreError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeystoreError> {
        let damaged = KeystoreError::Damaged;
        let body_end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(damaged("it is cut short"))?;
        let (body, checksum) = bytes.split_at(body_end);
        let version = body.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<2>());
        let version = u16::from_le_bytes(*version.ok_or(damaged("it does not begin like one"))?);
        if version != VERSION {
            return Err(KeystoreError::Version(version));
        }
        if blake3::hash(body).as_bytes() != checksum {
            return Err(damaged("its checksum does not match"));
        }
        let stored: Stored = codec::decode("a keystore", &body[HEADER_BYTES..], Limits::DEFAULT.state_file_bytes_max)?;
        let root = |der: &Vec<u8>| DistributorRoot::try_from(Certificate::from_der(der)?);
        let epochs = stored.extensions.iter().filter(|(kind, _)| *kind == EPOCH_SECRETS);
        let mut epoch_secrets = Vec::new();
        for (_, bytes) in epochs {
            let (secrets, rest) = bytes.as_chunks::<EPOCH_SECRET_BYTES>();
            if !rest.is_empty() || secrets.len() > Limits::DEFAULT.epoch_secrets_max {
                return Err(damaged("its epoch secrets are cut short, or too many"));
            }
            epoch_secrets.extend(secrets.iter().map(|secret| EpochSecret::from_bytes(*secret)));
        }
        let others = stored.extensions.iter().filter(|(kind, _)| *kind != EPOCH_SECRETS);
        Ok(Self {
            trusted: stored.trusted.iter().map(root).collect::<Result<_, _>>()?,
            held: stored.held.iter().map(StoredKey::read).collect::<Result<_, _>>()?,
            epoch_secrets,
            extensions: others.map(|(kind, bytes)| (*kind, bytes.clone().into())).collect(),
        })
    }

    fn stored_extensions(&self) -> Vec<(u16, Vec<u8>)> {
        let mut extensions = Vec::with_capacity(self.extensions.len() + 1);
        if !self.epoch_secrets.is_empty() {
            // Reserved at once, so that growing leaves no copy behind; `Stored` zeroes it.
            let mut bytes = Vec::with_capacity(self.epoch_secrets.len() * EPOCH_SECRET_BYTES);
            for secret in &self.epoch_secrets {
                bytes.extend_from_slice(secret.as_bytes());
            }
            extensions.push((EPOCH_SECRETS, bytes));
        }
        extensions.extend(self.extensions.iter().map(|(kind, bytes)| (*kind, bytes.to_vec())));
        extensions
    }
}

impl std::fmt::Debug for Keystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keystore({} trusted, {} keys)", self.trusted.len(), self.held.len())
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    trusted: Vec<Vec<u8>>,
    held: Vec<StoredKey>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        for (_, bytes) in &mut self.extensions {
            bytes.zeroize();
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    usage: Usage,
    distributor: KeyHash,
    name: NodeName,
    pkcs8: Vec<u8>,
    certificate: Option<Vec<u8>>,
}

impl From<&HeldKey> for StoredKey {
    fn from(held: &HeldKey) -> Self {
        Self {
            usage: held.usage,
            distributor: held.distributor,
            name: held.name.clone(),
            pkcs8: held.key.pkcs8().to_vec(),
            certificate: held.certificate.as_ref().map(|certificate| certificate.der().to_vec()),
        }
    }
}

impl StoredKey {
    fn read(&self) -> Result<HeldKey, TrustError> {
        Ok(HeldKey {
            usage: self.usage,
            distributor: self.distributor,
            name: self.name.clone(),
            key: SecretKey::from_pkcs8(&self.pkcs8)?,
            certificate: self.certificate.as_deref().map(Certificate::from_der).transpose()?,
        })
    }
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UnixMillis;
    use crate::security::{AwsLc, Crypto};

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn authority() -> Authority {
        Authority::create(&AwsLc, &"dist.example.com".parse().unwrap(), NOW).unwrap()
    }

    fn keystore() -> (Authority, Keystore) {
        let authority = authority();
        let fleet = authority.root().key_hash();
        let mut keystore = Keystore::default();
        keystore.trust(authority.root().clone());
        keystore.hold_identity(fleet, authority.identity());
        let sign = authority.issue_identity(&AwsLc, Usage::Sign, authority.root().name(), NOW).unwrap();
        keystore.hold_identity(fleet, sign);
        keystore.hold(HeldKey {
            usage: Usage::SubscriberIdentity,
            distributor: fleet,
            name: "sub.example.com".parse().unwrap(),
            key: AwsLc.generate_key().unwrap(),
            certificate: None,
        });
        keystore.add_epoch_secret(EpochSecret::from_bytes([1; EPOCH_SECRET_BYTES]));
        keystore.add_epoch_secret(EpochSecret::from_bytes([2; EPOCH_SECRET_BYTES]));
        keystore.extensions.push((9, Zeroizing::new(b"of a later version".to_vec())));
        (authority, keystore)
    }

    #[test]
    fn a_keystore_survives_its_bytes_and_keeps_what_it_does_not_know() {
        let (authority, given) = keystore();
        let bytes = given.encode().unwrap();
        let mut read = Keystore::decode(&bytes).unwrap();
        assert_eq!(read.encode().unwrap(), bytes);
        let fleet = authority.root().key_hash();
        let secrets: Vec<_> = read.epoch_secrets().iter().map(|secret| secret.as_bytes()[0]).collect();
        assert_eq!(secrets, [1, 2]);
        assert_eq!(read.authority().unwrap().root(), authority.root());
        assert!(read.identity(&fleet, Usage::Sign).is_some());
        assert!(read.identity(&fleet, Usage::SubscriberIdentity).is_none());
        let waiting = read.pending(&fleet, Usage::SubscriberIdentity).unwrap();
        let spki = waiting.key.spki().to_vec();
        let issued = authority.issue(&AwsLc, waiting.usage, &waiting.name.clone(), &spki, NOW).unwrap();
        assert!(read.certify(&issued));
        assert_eq!(read.identity(&fleet, Usage::SubscriberIdentity).unwrap().certificate, issued);
    }

    #[test]
    fn the_epoch_secret_that_was_added_last_is_current_and_the_oldest_goes_first() {
        let mut keystore = Keystore::default();
        let most = Limits::DEFAULT.epoch_secrets_max as u8;
        for number in (0..=most).chain([5]) {
            keystore.add_epoch_secret(EpochSecret::from_bytes([number; EPOCH_SECRET_BYTES]));
        }
        let secrets = keystore.epoch_secrets();
        assert_eq!(secrets.len(), usize::from(most));
        assert_eq!((secrets[0].as_bytes()[0], secrets[secrets.len() - 1].as_bytes()[0]), (1, 5));
    }

    #[test]
    fn a_new_root_takes_over_from_the_one_with_its_name() {
        let (old, mut keystore) = keystore();
        let new = authority();
        assert_eq!(keystore.trust(new.root().clone()).as_ref(), Some(old.root()));
        assert_eq!(keystore.trusted(), [new.root().clone()]);
        assert!(!keystore.distrust(&old.root().key_hash()));
        assert!(keystore.distrust(&new.root().key_hash()));
    }

    #[test]
    fn damage_anywhere_is_noticed_and_nothing_secret_is_printed() {
        let (_, given) = keystore();
        let bytes = given.encode().unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            assert!(Keystore::decode(&flipped).is_err(), "byte {at}");
            assert!(Keystore::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(format!("{given:?}"), "Keystore(1 trusted, 3 keys)");
    }
}
