//! The real [`Crypto`]: AWS-LC and the operating system's randomness.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use zeroize::Zeroize;

use crate::security::{Crypto, CryptoError, HpkeError, HpkeSealed, SecretKey, hpke};

/// Keys and randomness from AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl Crypto for AwsLc {
    fn fill_random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        aws_lc_rs::rand::fill(out).map_err(|_| CryptoError::Randomness)
    }

    fn generate_key(&self) -> Result<SecretKey, CryptoError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| CryptoError::Randomness)?;
        let mut bytes = document.as_ref().to_vec();
        let key = SecretKey::from_pkcs8(&bytes);
        bytes.zeroize();
        key
    }

    fn sign(&self, key: &SecretKey, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let signature = key.key_pair()?.sign(&SystemRandom::new(), message).map_err(|_| CryptoError::Signing)?;
        Ok(signature.as_ref().to_vec())
    }

    fn seal_to(&self, spki: &[u8], info: &[u8], plaintext: &[u8]) -> Result<HpkeSealed, HpkeError> {
        hpke::seal(spki, info, plaintext)
    }
}
