//! Decryption with a password by PBES2 (RFC 8018 section 6.2): PBKDF2 and AES in CBC mode. Older schemes are named and
//! refused.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA384, PBKDF2_HMAC_SHA512};
use zeroize::Zeroizing;

use super::der::{INTEGER, OCTETS, Reader, SEQUENCE};
use crate::limits::Limits;
use crate::security::ImportError;

const PBES2: &str = "1.2.840.113549.1.5.13";
const PBKDF2: &str = "1.2.840.113549.1.5.12";
const CIPHERS: [(&str, &Algorithm, usize); 3] = [
    ("2.16.840.1.101.3.4.1.2", &AES_128, 16),
    ("2.16.840.1.101.3.4.1.22", &AES_192, 24),
    ("2.16.840.1.101.3.4.1.42", &AES_256, 32),
];

/// Decrypts `content` as the algorithm identifier says whose values `algorithm` reads.
pub(super) fn decrypt(
    mut algorithm: Reader<'_>,
    content: &[u8],
    password: &[u8],
) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let scheme = algorithm.oid()?;
    if scheme != PBES2 {
        return Err(ImportError::Legacy(name_of(&scheme)));
    }
    let mut params = algorithm.inside(SEQUENCE)?;
    let (mut derivation, mut encryption) = (params.inside(SEQUENCE)?, params.inside(SEQUENCE)?);
    let cipher = encryption.oid()?;
    let Some((_, cipher, key_bytes)) = CIPHERS.into_iter().find(|(oid, ..)| *oid == cipher) else {
        return Err(ImportError::Legacy(name_of(&cipher)));
    };
    let iv: [u8; 16] = encryption
        .expect(OCTETS)?
        .try_into()
        .map_err(|_| ImportError::Malformed("its initialisation vector has another length".to_owned()))?;
    let key = derive(&mut derivation, password, key_bytes)?;
    // A wrong password shows as a padding that does not fit, or as content that cannot be read.
    let key = UnboundCipherKey::new(cipher, &key).and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
    let mut bytes = Zeroizing::new(content.to_vec());
    let plain = key
        .and_then(|key| {
            key.decrypt(&mut bytes, DecryptionContext::Iv128(FixedLength::from(iv))).map(|plain| plain.len())
        })
        .map_err(|_| ImportError::Password)?;
    bytes.truncate(plain);
    Ok(bytes)
}

fn derive(derivation: &mut Reader<'_>, password: &[u8], key_bytes: usize) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let function = derivation.oid()?;
    if function != PBKDF2 {
        return Err(ImportError::Malformed(format!("its key derivation {function} is not known here")));
    }
    let mut params = derivation.inside(SEQUENCE)?;
    let salt = params.expect(OCTETS)?;
    let iterations = iterations(params.number()?)?;
    if params.peek() == Some(INTEGER) {
        params.number()?;
    }
    let hash = match params.is_empty() {
        // RFC 8018 appendix A.2: HMAC with SHA-1 is what goes without saying.
        true => "1.2.840.113549.2.7".to_owned(),
        false => params.inside(SEQUENCE)?.oid()?,
    };
    let hash = match hash.as_str() {
        "1.2.840.113549.2.9" => PBKDF2_HMAC_SHA256,
        "1.2.840.113549.2.10" => PBKDF2_HMAC_SHA384,
        "1.2.840.113549.2.11" => PBKDF2_HMAC_SHA512,
        other => return Err(ImportError::Legacy(name_of(other))),
    };
    let mut key = Zeroizing::new(vec![0; key_bytes]);
    pbkdf2::derive(hash, iterations, salt, password, &mut key);
    Ok(key)
}

/// A count of iterations that a file may ask for.
pub(super) fn iterations(count: u32) -> Result<NonZeroU32, ImportError> {
    NonZeroU32::new(count)
        .filter(|count| count.get() <= Limits::DEFAULT.password_iterations_max)
        .ok_or_else(|| ImportError::Malformed(format!("it asks for {count} iterations of its key derivation")))
}

/// What people call a scheme that is not read.
pub(super) fn name_of(oid: &str) -> String {
    let known = match oid {
        "1.2.840.113549.1.12.1.1" | "1.2.840.113549.1.12.1.2" => "RC4",
        "1.2.840.113549.1.12.1.3" | "1.2.840.113549.1.12.1.4" | "1.2.840.113549.3.7" => "Triple DES",
        "1.2.840.113549.1.12.1.5" | "1.2.840.113549.1.12.1.6" | "1.2.840.113549.3.2" => "RC2",
        "1.2.840.113549.1.5.1" | "1.2.840.113549.1.5.3" | "1.2.840.113549.1.5.10" => "DES",
        "1.2.840.113549.2.7" | "1.3.14.3.2.26" => "SHA-1",
        "1.2.840.113549.2.5" => "MD5",
        "1.3.14.3.2.7" => "DES",
        other => return format!("the scheme {other}"),
    };
    known.to_owned()
}
