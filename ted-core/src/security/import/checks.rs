//! What a key and certificate must be to serve HTTPS.

use std::time::Duration;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::{ImportedBundle, KeyForm, TlsIdentity, private_key};
use crate::id::UnixMillis;
use crate::security::certificate::point_in_time;
use crate::security::summary::{is_strong, parse};
use crate::security::{CertificateSummary, ImportError};

/// One that ends sooner would be replaced before anybody got used to it.
const LEFT_MIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const RSA_BITS_MIN: usize = 2048;
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];

pub(super) fn judge(bundle: ImportedBundle, name: &str, now: UnixMillis) -> Result<TlsIdentity, ImportError> {
    let ImportedBundle { mut certificates, mut keys } = bundle;
    let (form, key) = match keys.len() {
        1 => keys.remove(0),
        count => return Err(ImportError::Keys(count)),
    };
    let at = own_certificate(&certificates, form, &key)?;
    // The server's own first, then those that lead to its CA in the order they had.
    certificates[..=at].rotate_right(1);
    let own = parse(&certificates[0])?;
    check_validity(&own, now)?;
    check_purpose(&own)?;
    for der in &certificates {
        let certificate = parse(der)?;
        // Nobody relies on a root's signature of itself.
        if certificate.subject() != certificate.issuer() && !is_strong(&certificate.signature_algorithm) {
            return Err(ImportError::WeakSignature(certificate.subject().to_string()));
        }
    }
    if !is_strong(&own.signature_algorithm) {
        return Err(ImportError::WeakSignature(own.subject().to_string()));
    }
    check_name(&certificates[0], name)?;
    Ok(TlsIdentity { chain: certificates, form, key: key.to_vec(), name: name.to_owned() })
}

/// Which certificate is the key's.
fn own_certificate(certificates: &[Vec<u8>], form: KeyForm, key: &[u8]) -> Result<usize, ImportError> {
    let first = parse(certificates.first().ok_or(ImportError::NoCertificate)?)?;
    let Ok(signing) = any_supported_type(&private_key(form, key)) else {
        // A key that is too small or of another curve is not even read; its certificate says what it is.
        check_key(&first)?;
        return Err(ImportError::KeyKind("the private key".to_owned()));
    };
    let public = signing.public_key().ok_or_else(|| ImportError::KeyKind("the private key".to_owned()))?;
    for (at, der) in certificates.iter().enumerate() {
        let certificate = parse(der)?;
        if certificate.public_key().raw == public.as_ref() {
            check_key(&certificate)?;
            return Ok(at);
        }
    }
    Err(ImportError::KeyMismatch)
}

fn check_key(certificate: &X509Certificate<'_>) -> Result<(), ImportError> {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() >= RSA_BITS_MIN => Ok(()),
        Ok(PublicKey::RSA(key)) => Err(ImportError::KeyKind(format!("RSA of {} bits", key.key_size()))),
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            let curve = curve.map(|curve| curve.to_id_string()).unwrap_or_default();
            if CURVES.contains(&curve.as_str()) {
                return Ok(());
            }
            Err(ImportError::KeyKind(format!("ECDSA on the curve {curve}")))
        }
        _ => Err(ImportError::KeyKind(format!("a key of the kind {}", info.algorithm.algorithm.to_id_string()))),
    }
}

fn check_validity(certificate: &X509Certificate<'_>, now: UnixMillis) -> Result<(), ImportError> {
    let validity = certificate.validity();
    let (from, until) = (point_in_time(validity.not_before.timestamp()), point_in_time(validity.not_after.timestamp()));
    if now < from {
        return Err(ImportError::NotYetValid(from));
    }
    if until < now.plus(LEFT_MIN) {
        return Err(ImportError::EndsSoon(until));
    }
    Ok(())
}

fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), ImportError> {
    let malformed = |_| ImportError::Malformed("an extension of the certificate comes twice".to_owned());
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(ImportError::Authority);
    }
    let purposes = certificate.extended_key_usage().map_err(malformed)?;
    if !purposes.is_some_and(|purposes| purposes.value.server_auth) {
        return Err(ImportError::NotForServers("its extended key usage does not name server authentication"));
    }
    let usage = certificate.key_usage().map_err(malformed)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(ImportError::NotForServers("its key usage does not allow signatures, which TLS 1.3 needs"));
    }
    Ok(())
}

/// RFC 6125: an exact name, an address, or a wildcard for one label. The subject's common name does not count.
fn check_name(der: &[u8], name: &str) -> Result<(), ImportError> {
    let malformed = |reason: String| ImportError::Malformed(reason);
    let wanted = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let wanted = ServerName::try_from(wanted).map_err(|_| malformed(format!("`{name}` is no host's name")))?;
    let der = CertificateDer::from(der);
    let entity = webpki::EndEntityCert::try_from(&der).map_err(|error| malformed(error.to_string()))?;
    if entity.verify_is_valid_for_subject_name(&wanted).is_ok() {
        return Ok(());
    }
    let names = CertificateSummary::of(&der)?.names;
    let found = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
    Err(ImportError::Name { wanted: name.to_owned(), found })
}
