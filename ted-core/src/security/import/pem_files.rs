//! Certificates and keys in PEM (RFC 7468).

use pem::Pem;
use zeroize::{Zeroize as _, Zeroizing};

use super::der::{OCTETS, Reader, SEQUENCE};
use super::{ImportedBundle, KeyForm, pbes2};
use crate::security::ImportError;

pub(super) fn read(texts: &[&str], password: Option<&str>) -> Result<ImportedBundle, ImportError> {
    let mut bundle = ImportedBundle { certificates: vec![], keys: vec![] };
    for text in texts {
        let blocks = pem::parse_many(text).map_err(|error| ImportError::Malformed(error.to_string()))?;
        if blocks.is_empty() {
            return Err(ImportError::Malformed("it holds no PEM block".to_owned()));
        }
        for block in blocks {
            take(&mut bundle, block, password)?;
        }
    }
    match bundle.keys.len() {
        1 => Ok(bundle),
        // The same file given twice, or a combined one beside its parts.
        _ if bundle.keys.windows(2).all(|two| two[0] == two[1]) && !bundle.keys.is_empty() => {
            bundle.keys.truncate(1);
            Ok(bundle)
        }
        count => Err(ImportError::Keys(count)),
    }
}

fn take(bundle: &mut ImportedBundle, block: Pem, password: Option<&str>) -> Result<(), ImportError> {
    if block.headers().iter().any(|(name, value)| name == "Proc-Type" && value.contains("ENCRYPTED")) {
        let scheme = "the encryption of old PEM files (MD5)".to_owned();
        return Err(ImportError::Legacy(scheme));
    }
    let tag = block.tag().to_owned();
    let mut bytes = Zeroizing::new(block.into_contents());
    match tag.as_str() {
        "CERTIFICATE" => {
            if !bundle.certificates.contains(&*bytes) {
                bundle.certificates.push(bytes.to_vec());
            }
        }
        "PRIVATE KEY" => bundle.keys.push((KeyForm::Pkcs8, bytes)),
        "EC PRIVATE KEY" => bundle.keys.push((KeyForm::Sec1, bytes)),
        "RSA PRIVATE KEY" => bundle.keys.push((KeyForm::Pkcs1, bytes)),
        "ENCRYPTED PRIVATE KEY" => {
            let password = password.ok_or(ImportError::PasswordNeeded)?;
            let key = decrypt_key(&bytes, password.as_bytes())?;
            bundle.keys.push((KeyForm::Pkcs8, key));
        }
        // `openssl ecparam -genkey` writes the curve's name before the key.
        "EC PARAMETERS" => bytes.zeroize(),
        other => return Err(ImportError::Malformed(format!("it holds a PEM block `{other}`"))),
    }
    Ok(())
}

/// EncryptedPrivateKeyInfo (RFC 5958 section 3).
pub(super) fn decrypt_key(der: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, ImportError> {
    let mut encrypted = Reader(der).inside(SEQUENCE)?;
    let algorithm = encrypted.inside(SEQUENCE)?;
    let key = pbes2::decrypt(algorithm, encrypted.expect(OCTETS)?, password)?;
    // A wrong password may leave a padding that fits by chance.
    match Reader(&key).inside(SEQUENCE) {
        Ok(_) => Ok(key),
        Err(_) => Err(ImportError::Password),
    }
}
