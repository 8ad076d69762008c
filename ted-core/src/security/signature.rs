//! What a signature is made over, and how it is carried.

use serde::{Deserialize, Serialize};

use crate::security::{Crypto, Identity, TrustError};

/// A signature and the certificate that vouches for its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// [`Signature::ECDSA_P256_SHA256`]; others are refused.
    pub algorithm: u16,
    /// The signer's certificate in DER.
    pub certificate: Vec<u8>,
    /// The signature, for ECDSA the ASN.1 form.
    pub signature: Vec<u8>,
}

impl Signature {
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5), as an ASN.1 `ECDSA-Sig-Value`.
    pub const ECDSA_P256_SHA256: u16 = 1;
}

/// The bytes that are signed for `bytes` in `context`: both, each after its length as a little-endian `u64`,
/// so that a signature made in one context never holds in another.
#[must_use]
pub fn signed_message(context: &str, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + context.len() + bytes.len());
    for part in [context.as_bytes(), bytes] {
        message.extend_from_slice(&(part.len() as u64).to_le_bytes());
        message.extend_from_slice(part);
    }
    message
}

/// Signs `bytes` in `context` with `identity`'s key.
///
/// # Errors
/// [`TrustError::Crypto`] when signing fails.
pub fn sign(crypto: &dyn Crypto, identity: &Identity, context: &str, bytes: &[u8]) -> Result<Signature, TrustError> {
    Ok(Signature {
        algorithm: Signature::ECDSA_P256_SHA256,
        certificate: identity.certificate.der().to_vec(),
        signature: crypto.sign(&identity.key, &signed_message(context, bytes))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_and_bytes_cannot_run_into_each_other() {
        assert_ne!(signed_message("ab", b"c"), signed_message("a", b"bc"));
        assert_eq!(signed_message("a", b"b"), [1, 0, 0, 0, 0, 0, 0, 0, b'a', 1, 0, 0, 0, 0, 0, 0, 0, b'b']);
    }
}
