//! The certificates that were issued: how one is found by what an operator pastes, and revoked.

use std::collections::BTreeMap;

use crate::distributor::error::DistributorError;
use crate::distributor::revoke::RevokedRow;
use crate::distributor::state::State;
use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::name::NodeName;
use crate::node::RecordBatch;
use crate::security::{Certificate, RevocationReason, RevokedKey, Usage};

const PREFIX: &str = "certificate/";

/// A key that certificates were issued for.
struct KnownKey {
    name: NodeName,
    usage: Usage,
    certificates: Vec<Certificate>,
}

impl KnownKey {
    /// Serial numbers of its newest certificates.
    fn serials(&self) -> Vec<Vec<u8>> {
        let mut newest: Vec<&Certificate> = self.certificates.iter().collect();
        newest.sort_by_key(|certificate| std::cmp::Reverse(certificate.not_before()));
        let serials = newest.into_iter().filter_map(|certificate| hex::decode(certificate.serial_hex()).ok());
        serials.take(Limits::DEFAULT.revocation_serials_max).collect()
    }
}

/// What an operator pasted: hex digits in capitals or not, with spaces, colons or a `0x` between or before them.
fn digits(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_prefix("0x").unwrap_or(&text);
    text.chars().filter(|character| !character.is_whitespace() && *character != ':').collect()
}

/// Whether a certificate is meant by hex digits: its thumbprint, or its serial number with or without leading zeros.
fn is_meant(certificate: &Certificate, digits: &str) -> bool {
    let serial = certificate.serial_hex();
    certificate.thumbprint() == digits
        || (!digits.is_empty() && serial.trim_start_matches('0') == digits.trim_start_matches('0'))
}

/// As [`State::remember_certificate`], together with what else is written.
pub(super) fn remember_in(batch: RecordBatch, certificate: &Certificate) -> Result<RecordBatch, Error> {
    Ok(batch.put(&format!("{PREFIX}{}", certificate.thumbprint()), &hex::encode(certificate.der()))?)
}

impl State {
    /// Keeps a certificate that was issued, so that it is found by its thumbprint and serial number.
    pub(super) fn remember_certificate(&self, certificate: &Certificate) -> Result<(), Error> {
        let row = format!("{PREFIX}{}", certificate.thumbprint());
        if self.records.get::<String>(&row)?.is_some() {
            return Ok(());
        }
        Ok(self.records.put(&row, &hex::encode(certificate.der()))?)
    }

    /// The certificates that were issued and have not expired, this node's own among them.
    pub(super) fn issued(&self) -> Result<Vec<Certificate>, Error> {
        let own = self.own();
        let mut all = vec![own.signing.certificate.clone(), own.tls.certificate.clone()];
        for (row, der) in self.records.list::<String>(PREFIX)? {
            let certificate = hex::decode(der).ok().and_then(|der| Certificate::from_der(&der).ok());
            match certificate.filter(|certificate| self.now() <= certificate.not_after()) {
                Some(certificate) if all.contains(&certificate) => {}
                Some(certificate) => all.push(certificate),
                None => self.records.delete(&row)?,
            }
        }
        Ok(all)
    }

    /// The keys that something was issued for or that are registered.
    fn known_keys(&self) -> Result<BTreeMap<KeyHash, KnownKey>, Error> {
        let mut keys: BTreeMap<KeyHash, KnownKey> = BTreeMap::new();
        let registered = self.registrations.all();
        let encryption =
            registered.iter().filter_map(|(_, known)| Certificate::from_der(known.encryption.as_ref()?).ok());
        for certificate in self.issued()?.into_iter().chain(encryption) {
            let (name, usage) = (certificate.name().clone(), certificate.usage());
            let known = keys.entry(certificate.key_hash()).or_insert(KnownKey { name, usage, certificates: vec![] });
            if !known.certificates.contains(&certificate) {
                known.certificates.push(certificate);
            }
        }
        for (key, registration) in registered {
            // The name may be another one by now.
            let certificates = keys.remove(&key).map(|known| known.certificates).unwrap_or_default();
            let usage = Usage::SubscriberIdentity;
            keys.insert(key, KnownKey { name: registration.name, usage, certificates });
        }
        Ok(keys)
    }

    pub(super) fn revoke(&self, what: &str, reason: RevocationReason) -> Result<Vec<RevokedRow>, Error> {
        let mut keys = self.known_keys()?;
        self.retain_meant(&mut keys, what)?;
        let since = self.now();
        let revoked = keys.iter().map(|(key, known)| {
            (RevokedKey { key: *key, serials: known.serials(), since, reason }, Some(known.name.clone()))
        });
        self.revoke_keys(revoked.collect())?;
        if let Ok(name) = what.trim().parse::<NodeName>() {
            // An invite that is still about would let whoever has it in again.
            self.forget_invitations(&name)?;
        }
        let fleet = self.own().authority.root().key_hash();
        let rows = keys.keys().filter_map(|key| Some(RevokedRow::of(key, &self.revocations.get(&fleet, key)?)));
        let rows: Vec<_> = rows.collect();
        for row in &rows {
            let RevokedRow { name, fingerprint, reason, .. } = row;
            tracing::warn!(name = name.as_ref().map(ToString::to_string), fingerprint, reason, "revoked");
        }
        Ok(rows)
    }

    /// Leaves those keys that `what` means: all of one Subscriber, or one.
    fn retain_meant(&self, keys: &mut BTreeMap<KeyHash, KnownKey>, what: &str) -> Result<(), Error> {
        let own = self.own();
        let root = own.authority.root();
        let (name, digits) = (what.trim().parse::<NodeName>().ok(), digits(what));
        if name.as_ref() == Some(root.name())
            || is_meant(root.certificate(), &digits)
            || root.key_hash().fingerprint() == digits
        {
            return Err(DistributorError::RevokesItself(root.name().clone()).into());
        }
        let is_subscribers = |known: &KnownKey| !known.usage.is_distributor_role();
        if keys.values().any(|known| is_subscribers(known) && Some(&known.name) == name.as_ref()) {
            keys.retain(|_, known| is_subscribers(known) && Some(&known.name) == name.as_ref());
            return Ok(());
        }
        keys.retain(|key, known| {
            key.fingerprint() == digits || known.certificates.iter().any(|certificate| is_meant(certificate, &digits))
        });
        match keys.len() {
            0 => Err(DistributorError::NothingToRevoke(what.to_owned()).into()),
            1 => Ok(()),
            count => Err(DistributorError::SeveralToRevoke { what: what.to_owned(), count }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_however_they_were_copied() {
        for text in ["0A1B2c", " 0a:1b:2C\n", "0a 1b 2c", "0x0a1b2c", "0a\u{a0}1b:2c"] {
            assert_eq!(digits(text), "0a1b2c", "{text}");
        }
    }
}
