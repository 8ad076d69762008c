//! The encrypted file: age (age-encryption.org/v1) with a passphrase, as the `age` program reads and writes it. The one
//! place that knows that crate, which takes its randomness from the system by itself.

use std::io::{Read as _, Write as _};
use std::iter;

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, scrypt};
use zeroize::Zeroizing;

use super::BackupError;
use crate::limits::Limits;

/// Encrypts `plain`; the passphrase is stretched by scrypt with N = 2^`work`.
pub(super) fn seal(plain: &[u8], passphrase: &str, work: u8) -> Result<Vec<u8>, BackupError> {
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(work.clamp(1, Limits::DEFAULT.backup_work_max));
    let failed = |reason: String| BackupError::Sealing(reason);
    let encryptor = Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient))
        .map_err(|error| failed(error.to_string()))?;
    let mut sealed = Vec::with_capacity(plain.len() + plain.len() / 1024 + 1024);
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(|error| failed(error.to_string()))?;
    writer.write_all(plain).map_err(|error| failed(error.to_string()))?;
    writer.finish().map_err(|error| failed(error.to_string()))?;
    Ok(sealed)
}

/// Decrypts what [`seal`] made. Nothing is given out before all of it was authenticated.
pub(super) fn open(sealed: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let decryptor = Decryptor::new(sealed).map_err(refused)?;
    if !decryptor.is_scrypt() {
        return Err(BackupError::Malformed("it was not encrypted with a passphrase".to_owned()));
    }
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    identity.set_max_work_factor(Limits::DEFAULT.backup_work_max);
    let reader = decryptor.decrypt(iter::once(&identity as &dyn age::Identity)).map_err(refused)?;
    let limit = Limits::DEFAULT.backup_bytes_max;
    // Never longer than what it was encrypted from, so that reading leaves no copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader
        .take(limit + 1)
        .read_to_end(&mut plain)
        .map_err(|error| BackupError::Malformed(format!("it was altered or cut short: {error}")))?;
    if plain.len() as u64 > limit {
        return Err(BackupError::Malformed(format!("it has more than {limit} bytes")));
    }
    Ok(plain)
}

fn refused(error: DecryptError) -> BackupError {
    match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys => {
            BackupError::Passphrase
        }
        other => BackupError::Malformed(other.to_string()),
    }
}
