//! Sealing a few bytes to one node's key: HPKE of RFC 9180 in base mode, with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and
//! AES-128-GCM (the suite of its appendix A.3). The one module that knows whose HPKE it is.

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::signature::EcdsaKeyPair;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_128;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkeOpener, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Coded;
use crate::security::crypto::point_of;
use crate::security::{SecretKey, TrustError};

/// Bytes of the encapsulated key: an uncompressed P-256 point.
pub const HPKE_ENC_BYTES: usize = 65;
/// Bytes by which a ciphertext is longer than its plaintext.
pub const HPKE_TAG_BYTES: usize = 16;

/// Why something could not be sealed to a key, or opened with one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HpkeError {
    /// The key is not a P-256 key.
    #[error(transparent)]
    Key(#[from] TrustError),
    /// Nothing could be sealed to the key: it is no point of the curve, or there is no randomness.
    #[error("nothing can be sealed to this key")]
    Seal,
    /// It was sealed to another key or for another purpose, or it was altered.
    #[error("it was sealed to another key or for another purpose, or it was altered")]
    Open,
}

impl Coded for HpkeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Key(error) => error.code(),
            Self::Seal => "TED-1160",
            Self::Open => "TED-1161",
        }
    }
}

/// What only the holder of one key opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HpkeSealed {
    /// The encapsulated key, [`HPKE_ENC_BYTES`] of it.
    pub enc: Vec<u8>,
    /// The sealed bytes, [`HPKE_TAG_BYTES`] longer than what they hold.
    pub ciphertext: Vec<u8>,
}

/// Seals `plaintext` to the public key `spki` (a SubjectPublicKeyInfo in DER), bound to `info`. It takes randomness, so
/// that [`Crypto::seal_to`](crate::security::Crypto::seal_to) stands in front of it.
pub(super) fn seal(spki: &[u8], info: &[u8], plaintext: &[u8]) -> Result<HpkeSealed, HpkeError> {
    let key = HpkePublicKey(point_of(spki)?.to_vec());
    let (enc, ciphertext) =
        DH_KEM_P256_HKDF_SHA256_AES_128.seal(info, &[], plaintext, &key).map_err(|_| HpkeError::Seal)?;
    Ok(HpkeSealed { enc: enc.0, ciphertext })
}

/// Opens what was sealed to `key` and bound to `info`.
///
/// # Errors
/// [`HpkeError::Open`].
pub fn hpke_open(key: &SecretKey, info: &[u8], sealed: &HpkeSealed) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
    let opened = opener(key, info, &sealed.enc)?.open(&[], &sealed.ciphertext);
    Ok(Zeroizing::new(opened.map_err(|_| HpkeError::Open)?))
}

fn opener(key: &SecretKey, info: &[u8], enc: &[u8]) -> Result<Box<dyn HpkeOpener>, HpkeError> {
    if enc.len() != HPKE_ENC_BYTES {
        return Err(HpkeError::Open);
    }
    let pair = key.key_pair().map_err(TrustError::from)?;
    let enc = EncapsulatedSecret(enc.to_vec());
    let opener = DH_KEM_P256_HKDF_SHA256_AES_128.setup_opener(&enc, info, &scalar(&pair)?);
    opener.map_err(|_| HpkeError::Open)
}

/// The private scalar, big-endian, as HPKE wants it. Its copy is zeroed when it is dropped.
fn scalar(pair: &EcdsaKeyPair) -> Result<HpkePrivateKey, HpkeError> {
    let bytes = pair.private_key().as_be_bytes().map_err(|_| HpkeError::Open)?;
    Ok(HpkePrivateKey::from(bytes.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{AwsLc, Crypto};

    /// RFC 9180 appendix A.3.1.
    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const SK_RM: &str = "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2";
    const PK_RM: &str = "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d30a\
                         d6aa8f80e30f1d128aafd68a2ce72ea0";
    const ENC: &str = "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be8\
                       63c403ce65c9bfcb9382657222d18c4";
    const PLAINTEXT: &str = "4265617574792069732074727574682c20747275746820626561757479";
    /// Sequence numbers 0 to 2: associated data and ciphertext.
    const ENCRYPTIONS: [(&str, &str); 3] = [
        (
            "436f756e742d30",
            "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
        ),
        (
            "436f756e742d31",
            "fa6f037b47fc21826b610172ca9637e82d6e5801eb31cbd3748271affd4ecb06646e0329cbdf3c3cd655b28e82",
        ),
        (
            "436f756e742d32",
            "895cabfac50ce6c6eb02ffe6c048bf53b7f7be9a91fc559402cbc5b8dcaeb52b2ccc93e466c28fb55fed7a7fec",
        ),
    ];

    fn bytes(digits: &str) -> Vec<u8> {
        hex::decode(digits).unwrap()
    }

    /// The RFC's key in the form in which keystores hold keys (RFC 5208, RFC 5915).
    fn rfc_key() -> SecretKey {
        let mut der = bytes("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420");
        der.extend(bytes(SK_RM));
        der.extend(bytes("a144034200"));
        der.extend(bytes(PK_RM));
        SecretKey::from_pkcs8(&der).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_9180_a_3_open() {
        let key = rfc_key();
        let mut opener = opener(&key, &bytes(INFO), &bytes(ENC)).unwrap();
        for (number, (aad, ciphertext)) in ENCRYPTIONS.into_iter().enumerate() {
            assert_eq!(opener.open(&bytes(aad), &bytes(ciphertext)).unwrap(), bytes(PLAINTEXT), "{number}");
        }
    }

    #[test]
    fn what_is_sealed_to_a_key_opens_with_it_alone_and_for_its_purpose_alone() {
        let (key, other) = (AwsLc.generate_key().unwrap(), AwsLc.generate_key().unwrap());
        let sealed = AwsLc.seal_to(key.spki(), b"purpose", b"secret").unwrap();
        assert_eq!(sealed.enc.len(), HPKE_ENC_BYTES);
        assert_eq!(sealed.ciphertext.len(), 6 + HPKE_TAG_BYTES);
        assert_eq!(**hpke_open(&key, b"purpose", &sealed).unwrap(), *b"secret");
        assert_eq!(hpke_open(&other, b"purpose", &sealed).unwrap_err().code(), "TED-1161");
        assert_eq!(hpke_open(&key, b"another", &sealed).unwrap_err().code(), "TED-1161");
        let again = AwsLc.seal_to(key.spki(), b"purpose", b"secret").unwrap();
        assert_ne!(again, sealed, "every sealing takes a key of its own");
    }

    #[test]
    fn nothing_that_was_altered_opens_and_nothing_is_sealed_to_what_is_no_key() {
        let key = AwsLc.generate_key().unwrap();
        let sealed = AwsLc.seal_to(key.spki(), b"", b"secret").unwrap();
        for at in 0..sealed.enc.len() {
            let mut altered = sealed.clone();
            altered.enc[at] ^= 1;
            assert!(hpke_open(&key, b"", &altered).is_err(), "byte {at} of the encapsulated key");
        }
        for at in 0..sealed.ciphertext.len() {
            let mut altered = sealed.clone();
            altered.ciphertext[at] ^= 1;
            assert!(hpke_open(&key, b"", &altered).is_err(), "byte {at} of the ciphertext");
        }
        for length in [0, 1, 64, 66, 1000] {
            let altered = HpkeSealed { enc: vec![4; length], ciphertext: sealed.ciphertext.clone() };
            assert!(hpke_open(&key, b"", &altered).is_err(), "{length} bytes");
        }
        let mut no_point = key.spki().to_vec();
        *no_point.last_mut().unwrap() ^= 1;
        assert_eq!(AwsLc.seal_to(&no_point, b"", b"secret").unwrap_err().code(), "TED-1160");
        assert_eq!(AwsLc.seal_to(b"no key", b"", b"secret").unwrap_err().code(), "TED-1103");
    }
}
