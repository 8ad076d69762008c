//! What a node's keystore holds, for people: certificates and whose they are, never a key.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::UnixMillis;
use crate::name::NodeName;
use crate::security::{CertificateSummary, ImportError, ImportedBundle, KeystoreError, TlsIdentity, Usage};
use crate::store::security_dir::{SecurityDir, SecurityDirError, Trust, TrustedIn};

/// What an entry of the keystore is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryUse {
    /// A Distributor's certificate that this node trusts.
    TrustedDistributor,
    /// A key of this node, for this.
    Own(Usage),
    /// Serving HTTPS.
    Https,
}

impl std::fmt::Display for EntryUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TrustedDistributor => f.pad("trusted"),
            Self::Own(usage) => usage.fmt(f),
            Self::Https => f.pad("https"),
        }
    }
}

/// One entry of a keystore, without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreEntry {
    /// What it is for.
    pub entry_use: EntryUse,
    /// Whose it is: a node's name, or the host that HTTPS is served for.
    pub name: String,
    /// The Distributor in whose fleet it counts, where it is known here.
    pub distributor: Option<NodeName>,
    /// The short form of the key's hash; none for HTTPS.
    pub fingerprint: Option<String>,
    /// What the certificate says; none while a key waits for it.
    pub certificate: Option<CertificateSummary>,
    /// Whether the private key is here too.
    pub has_key: bool,
    /// The file it lies in, where that is not the keystore: a Distributor's `.cer` before its first package.
    pub file: Option<PathBuf>,
}

impl KeystoreEntry {
    /// Whether somebody means this entry by `text`: a name, a use, or the beginning of a thumbprint, serial number or
    /// fingerprint, in which blanks and colons do not count.
    #[must_use]
    pub fn is_meant_by(&self, text: &str) -> bool {
        let digits: String = text.chars().filter(|c| !matches!(c, ' ' | ':' | '-')).collect::<String>().to_lowercase();
        let begins = |value: &str| !digits.is_empty() && value.replace('-', "").starts_with(&digits);
        self.name == text
            || self.distributor.as_ref().is_some_and(|distributor| distributor.to_string() == text)
            || self.entry_use.to_string() == text
            || self.fingerprint.as_deref().is_some_and(begins)
            || self.certificate.as_ref().is_some_and(|it| begins(&it.thumbprint) || begins(&it.serial))
    }
}

impl Trust {
    /// Everything that is in the keystore, and the certificates that lie beside it: trusted ones first.
    ///
    /// # Errors
    /// [`KeystoreError`] if an entry cannot be read.
    pub fn entries(&self) -> Result<Vec<KeystoreEntry>, KeystoreError> {
        let mut entries = vec![];
        for trusted in &self.roots {
            let certificate = trusted.root.certificate();
            entries.push(KeystoreEntry {
                entry_use: EntryUse::TrustedDistributor,
                name: trusted.root.name().to_string(),
                distributor: Some(trusted.root.name().clone()),
                fingerprint: Some(trusted.root.key_hash().fingerprint()),
                certificate: Some(CertificateSummary::of(certificate.der())?),
                has_key: false,
                file: match &trusted.lies_in {
                    TrustedIn::Keystore => None,
                    TrustedIn::File(path) => Some(path.clone()),
                },
            });
        }
        let own_root = self.keystore.authority();
        for held in self.keystore.held() {
            let root = self.roots.iter().map(|trusted| &trusted.root);
            let root =
                root.chain(own_root.as_ref().map(|own| own.root())).find(|root| root.key_hash() == held.distributor);
            entries.push(KeystoreEntry {
                entry_use: EntryUse::Own(held.usage),
                name: held.name.to_string(),
                distributor: root.map(|root| root.name().clone()),
                fingerprint: Some(held.key.key_hash().fingerprint()),
                certificate: held.certificate.as_ref().map(|it| CertificateSummary::of(it.der())).transpose()?,
                has_key: true,
                file: None,
            });
        }
        if let Some(https) = self.keystore.https()? {
            entries.push(https_entry(&https)?);
        }
        Ok(entries)
    }
}

fn https_entry(https: &TlsIdentity) -> Result<KeystoreEntry, KeystoreError> {
    let own = https.chain().first().map(Vec::as_slice).unwrap_or_default();
    Ok(KeystoreEntry {
        entry_use: EntryUse::Https,
        name: https.name().to_owned(),
        distributor: None,
        fingerprint: None,
        certificate: Some(CertificateSummary::of(own)?),
        has_key: true,
        file: None,
    })
}

impl SecurityDir {
    /// What the keystore holds, without keys.
    ///
    /// # Errors
    /// [`SecurityDirError`] when it cannot be read.
    pub fn entries(&self) -> Result<Vec<KeystoreEntry>, SecurityDirError> {
        self.trust()?.entries().map_err(|source| self.unreadable(source))
    }

    /// Judges a key and certificate that were made elsewhere for serving `name` over HTTPS, and keeps them.
    ///
    /// # Errors
    /// [`ImportError`] says why they do not do; else as [`SecurityDir::keep_https`].
    pub fn import_https<E: From<ImportError> + From<SecurityDirError>>(
        &self,
        files: &[Zeroizing<Vec<u8>>],
        password: Option<&str>,
        name: &str,
        now: UnixMillis,
    ) -> Result<KeystoreEntry, E> {
        let files: Vec<&[u8]> = files.iter().map(|file| file.as_slice()).collect();
        let bundle = ImportedBundle::from_files(&files, password)?;
        Ok(self.keep_https(&bundle.judge(name, now)?)?)
    }

    /// Keeps a key and certificate for HTTPS, durably, in the place of what was imported before.
    ///
    /// # Errors
    /// [`SecurityDirError`]; then what was there still is.
    pub fn keep_https(&self, https: &TlsIdentity) -> Result<KeystoreEntry, SecurityDirError> {
        let entry = https_entry(https).map_err(|source| self.unreadable(source))?;
        self.change_keystore(|keystore| keystore.set_https(Some(https)).map_err(|source| self.unreadable(source)))?;
        Ok(entry)
    }

    /// Removes what was imported for HTTPS. Answers whether there was anything.
    ///
    /// # Errors
    /// [`SecurityDirError`]; then what was there still is.
    pub fn remove_https(&self) -> Result<bool, SecurityDirError> {
        self.change_keystore(|keystore| keystore.set_https(None).map_err(|source| self.unreadable(source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UnixMillis;
    use crate::security::{Authority, AwsLc};
    use crate::store::NodeRole;

    #[test]
    fn entries_are_found_by_what_people_paste_and_hold_no_key() {
        let temp = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&temp.path().join("security"), NodeRole::Subscriber).unwrap();
        let now = UnixMillis::from_millis(1_800_000_000_000);
        let authority = Authority::create(&AwsLc, &"dist.example.com".parse().unwrap(), now).unwrap();
        let fleet = authority.root().key_hash();
        let own = authority
            .issue_identity(&AwsLc, Usage::SubscriberIdentity, &"sub.example.com".parse().unwrap(), now)
            .unwrap();
        let secret = own.key.pkcs8().to_vec();
        security.drop_certificate(authority.root()).unwrap();
        security
            .change_keystore(|keystore| -> Result<(), SecurityDirError> {
                keystore.hold_identity(fleet, own);
                Ok(())
            })
            .unwrap();
        let entries = security.entries().unwrap();
        let [trusted, own] = &entries[..] else { panic!("{entries:?}") };
        assert!(trusted.file.is_some() && !trusted.has_key && own.has_key);
        let summary = own.certificate.clone().unwrap();
        assert_eq!(summary.names, ["sub.example.com"]);
        assert!(summary.issuer.contains("dist.example.com"), "{}", summary.issuer);
        let pasted = summary
            .thumbprint
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .map(|two| String::from_utf8_lossy(two).into_owned())
            .collect::<Vec<_>>()
            .join(":");
        for text in
            [&pasted, &pasted[..12], &summary.serial, "sub.example.com", "subscriber-identity", "dist.example.com"]
        {
            assert!(own.is_meant_by(text), "{text}");
        }
        for text in ["", ":", "example.com", "https", "zz"] {
            assert!(!own.is_meant_by(text), "{text}");
        }
        let shown = format!("{entries:?}") + &serde_json::to_string(&entries).unwrap();
        assert!(!shown.contains(&hex::encode(&secret[36..68])), "no private key");
    }
}
