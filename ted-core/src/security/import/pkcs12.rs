//! PKCS #12 (RFC 7292) with a password: certificates and keys in PBES2, its integrity by HMAC with SHA-2. That is what
//! `openssl pkcs12 -export` since version 3 and Windows' `AES256_SHA256` write. Written here because the crates that
//! read it bring a second set of ciphers and the broken ones with it.

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::der::{EXPLICIT_0, IMPLICIT_0, OCTETS, OID, Reader, SEQUENCE};
use super::pem_files::decrypt_key;
use super::{ImportedBundle, KeyForm, pbes2};
use crate::security::ImportError;

const DATA: &str = "1.2.840.113549.1.7.1";
const ENCRYPTED_DATA: &str = "1.2.840.113549.1.7.6";
const KEY_BAG: &str = "1.2.840.113549.1.12.10.1.1";
const SHROUDED_KEY_BAG: &str = "1.2.840.113549.1.12.10.1.2";
const CERTIFICATE_BAG: &str = "1.2.840.113549.1.12.10.1.3";
const X509: &str = "1.2.840.113549.1.9.22.1";
/// RFC 7292 appendix B.3: what a derived key is for.
const MAC_PURPOSE: u8 = 3;
const VERSION: u32 = 3;

pub(super) fn read(bytes: &[u8], password: &str) -> Result<ImportedBundle, ImportError> {
    let mut outer = Reader(bytes);
    let mut pfx = outer.inside(SEQUENCE)?;
    if !outer.is_empty() {
        return Err(ImportError::Malformed("bytes follow it".to_owned()));
    }
    if pfx.number()? != VERSION {
        return Err(ImportError::Malformed("it is no PKCS #12 file of version 3".to_owned()));
    }
    let mut info = pfx.inside(SEQUENCE)?;
    if info.oid()? != DATA {
        return Err(ImportError::Malformed("it is not protected by a password".to_owned()));
    }
    let safes = info.inside(EXPLICIT_0)?.expect(OCTETS)?;
    if !pfx.is_empty() {
        check_mac(pfx.inside(SEQUENCE)?, safes, password)?;
    }
    let mut bundle = ImportedBundle { certificates: vec![], keys: vec![] };
    let mut safes = Reader(safes).inside(SEQUENCE)?;
    while !safes.is_empty() {
        read_safe(safes.inside(SEQUENCE)?, password, &mut bundle)?;
    }
    match bundle.keys.len() {
        1 => Ok(bundle),
        count => Err(ImportError::Keys(count)),
    }
}

fn read_safe(mut info: Reader<'_>, password: &str, bundle: &mut ImportedBundle) -> Result<(), ImportError> {
    match info.oid()?.as_str() {
        DATA => read_bags(info.inside(EXPLICIT_0)?.expect(OCTETS)?, password, bundle),
        ENCRYPTED_DATA => {
            let mut data = info.inside(EXPLICIT_0)?.inside(SEQUENCE)?;
            data.number()?;
            let mut content = data.inside(SEQUENCE)?;
            content.expect(OID)?;
            let algorithm = content.inside(SEQUENCE)?;
            let bags = pbes2::decrypt(algorithm, content.expect(IMPLICIT_0)?, password.as_bytes())?;
            read_bags(&bags, password, bundle)
        }
        other => Err(ImportError::Malformed(format!("a part of it is of the kind {other}"))),
    }
}

fn read_bags(bytes: &[u8], password: &str, bundle: &mut ImportedBundle) -> Result<(), ImportError> {
    let mut bags = Reader(bytes).inside(SEQUENCE)?;
    while !bags.is_empty() {
        let mut bag = bags.inside(SEQUENCE)?;
        let kind = bag.oid()?;
        let value = bag.expect(EXPLICIT_0)?;
        match kind.as_str() {
            KEY_BAG => bundle.keys.push((KeyForm::Pkcs8, Zeroizing::new(value.to_vec()))),
            SHROUDED_KEY_BAG => {
                bundle.keys.push((KeyForm::Pkcs8, decrypt_key(value, password.as_bytes())?));
            }
            CERTIFICATE_BAG => {
                let mut certificate = Reader(value).inside(SEQUENCE)?;
                if certificate.oid()? == X509 {
                    bundle.certificates.push(certificate.inside(EXPLICIT_0)?.expect(OCTETS)?.to_vec());
                }
            }
            // Revocation lists and secrets of others are not ours to keep.
            _ => {}
        }
    }
    Ok(())
}

/// Checks that the file was made with this password and not altered since.
fn check_mac(mut mac: Reader<'_>, safes: &[u8], password: &str) -> Result<(), ImportError> {
    let mut info = mac.inside(SEQUENCE)?;
    let hash = info.inside(SEQUENCE)?.oid()?;
    let said = info.expect(OCTETS)?;
    let salt = mac.expect(OCTETS)?;
    let iterations = if mac.is_empty() { 1 } else { mac.number()? };
    let iterations = pbes2::iterations(iterations)?.get();
    let (digest, hmac) = match hash.as_str() {
        "2.16.840.1.101.3.4.2.1" => (&SHA256, hmac::HMAC_SHA256),
        "2.16.840.1.101.3.4.2.2" => (&SHA384, hmac::HMAC_SHA384),
        "2.16.840.1.101.3.4.2.3" => (&SHA512, hmac::HMAC_SHA512),
        other => return Err(ImportError::Legacy(pbes2::name_of(other))),
    };
    let key = derive(digest, password, salt, iterations);
    hmac::verify(&hmac::Key::new(hmac, &key), safes, said).map_err(|_| ImportError::Password)
}

/// The key derivation of RFC 7292 appendix B.2, as far as one hash's length of key needs it.
fn derive(hash: &'static digest::Algorithm, password: &str, salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
    // A BMPString with a zero at its end.
    let units = password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes);
    let password = Zeroizing::new(units.collect::<Vec<u8>>());
    let block = hash.block_len();
    let fill = |bytes: &[u8]| -> Vec<u8> {
        let length = bytes.len().div_ceil(block) * block;
        bytes.iter().copied().cycle().take(length).collect()
    };
    let mut input = Zeroizing::new(vec![MAC_PURPOSE; block]);
    input.extend(fill(salt));
    input.extend(Zeroizing::new(fill(&password)).iter());
    let mut key = Zeroizing::new(digest::digest(hash, &input).as_ref().to_vec());
    for _ in 1..iterations {
        let next = digest::digest(hash, &key);
        key.copy_from_slice(next.as_ref());
    }
    key
}
