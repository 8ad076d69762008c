//! Keys, and the trait that stands in front of everything that needs randomness.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::error::Coded;
use crate::id::KeyHash;
use crate::security::{HpkeError, HpkeSealed, TrustError};

/// DER of a SubjectPublicKeyInfo for P-256 up to its 65-byte uncompressed point (RFC 5480 section 2.1.1).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point begins with this byte (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
const POINT_BYTES: usize = 65;

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes")]
    Randomness,
    /// The bytes are not a P-256 key in PKCS #8.
    #[error("not an ECDSA P-256 key in PKCS #8: {0}")]
    Key(String),
    /// Signing failed.
    #[error("signing failed")]
    Signing,
}

impl Coded for CryptoError {
    fn code(&self) -> &'static str {
        match self {
            Self::Randomness => "TED-1118",
            Self::Key(_) => "TED-1119",
            Self::Signing => "TED-1120",
        }
    }
}

/// What needs the operating system's randomness. A simulation puts its own behind it.
pub trait Crypto: Send + Sync {
    /// Fills `out` with unpredictable bytes.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    fn fill_random(&self, out: &mut [u8]) -> Result<(), CryptoError>;

    /// A new ECDSA P-256 key.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    fn generate_key(&self) -> Result<SecretKey, CryptoError>;

    /// An ECDSA P-256 SHA-256 signature of `message`, in its ASN.1 form.
    ///
    /// # Errors
    /// [`CryptoError::Signing`].
    fn sign(&self, key: &SecretKey, message: &[u8]) -> Result<Vec<u8>, CryptoError>;

    /// Seals `plaintext` to the public key `spki` (a SubjectPublicKeyInfo in DER), bound to `info`.
    /// [`hpke_open`](crate::security::hpke_open) opens it.
    ///
    /// # Errors
    /// [`HpkeError::Key`] or [`HpkeError::Seal`].
    fn seal_to(&self, spki: &[u8], info: &[u8], plaintext: &[u8]) -> Result<HpkeSealed, HpkeError>;
}

/// An ECDSA P-256 private key. Its bytes are zeroed when it is dropped.
#[derive(Clone)]
pub struct SecretKey {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
}

impl SecretKey {
    /// The key that these PKCS #8 bytes hold.
    ///
    /// # Errors
    /// [`CryptoError::Key`] if they are anything else.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, CryptoError> {
        let pair = key_pair(pkcs8)?;
        let mut spki = P256_SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        Ok(Self { pkcs8: Zeroizing::new(pkcs8.to_vec()), spki })
    }

    /// The private key in PKCS #8 DER. Handle with care.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key, a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// BLAKE3 of the public key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        KeyHash::of_spki(&self.spki)
    }

    pub(super) fn key_pair(&self) -> Result<EcdsaKeyPair, CryptoError> {
        key_pair(&self.pkcs8)
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.key_hash().fingerprint())
    }
}

fn key_pair(pkcs8: &[u8]) -> Result<EcdsaKeyPair, CryptoError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
        .map_err(|error| CryptoError::Key(error.to_string()))
}

/// Checks an ECDSA P-256 SHA-256 signature in ASN.1 form over `message`.
///
/// # Errors
/// [`TrustError::Key`] when `spki` is not a P-256 key, [`TrustError::Signature`] when the signature does not hold.
pub fn verify_signature(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), TrustError> {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point_of(spki)?)
        .verify(message, signature)
        .map_err(|_| TrustError::Signature)
}

/// The uncompressed point inside a P-256 SubjectPublicKeyInfo; every other kind of key is refused.
pub(super) fn point_of(spki: &[u8]) -> Result<&[u8], TrustError> {
    match spki.strip_prefix(&P256_SPKI_PREFIX) {
        Some(point) if point.len() == POINT_BYTES && point.first() == Some(&UNCOMPRESSED) => Ok(point),
        _ => Err(TrustError::Key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::AwsLc;

    #[test]
    fn a_key_survives_its_pkcs8_form_and_signs_what_its_public_key_verifies() {
        let key = AwsLc.generate_key().unwrap();
        let again = SecretKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(key.spki(), again.spki());
        let signature = AwsLc.sign(&again, b"words").unwrap();
        verify_signature(key.spki(), b"words", &signature).unwrap();
        assert!(matches!(verify_signature(key.spki(), b"other words", &signature), Err(TrustError::Signature)));
        let stranger = AwsLc.generate_key().unwrap();
        assert!(matches!(verify_signature(stranger.spki(), b"words", &signature), Err(TrustError::Signature)));
    }

    #[test]
    fn keys_that_are_not_p256_are_refused() {
        let key = AwsLc.generate_key().unwrap();
        let mut shorter = key.spki().to_vec();
        shorter.pop();
        let mut other_curve = key.spki().to_vec();
        other_curve[22] = 8;
        for spki in [&[][..], &[0; 91], &shorter, &other_curve] {
            assert!(matches!(verify_signature(spki, b"", b""), Err(TrustError::Key)));
        }
        assert!(SecretKey::from_pkcs8(b"no key").is_err());
    }

    #[test]
    fn debug_prints_nothing_secret() {
        let key = AwsLc.generate_key().unwrap();
        let printed = format!("{key:?}");
        assert_eq!(printed, format!("SecretKey({})", key.key_hash().fingerprint()));
    }
}
