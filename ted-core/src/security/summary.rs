//! What every X.509 certificate says of itself, in the words that other tools use too.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::security::TrustError;
use crate::security::certificate::{ip_address, point_in_time};

/// The parts of a certificate that people compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSummary {
    /// Whose it is, as a distinguished name.
    pub subject: String,
    /// Who issued it, as a distinguished name.
    pub issuer: String,
    /// Its subject alternative names: DNS names and addresses.
    pub names: Vec<String>,
    /// From when it holds.
    pub not_before: UnixMillis,
    /// Until when it holds.
    pub not_after: UnixMillis,
    /// Its serial number in hex digits.
    pub serial: String,
    /// SHA-256 of its bytes in hex digits.
    pub thumbprint: String,
}

impl CertificateSummary {
    /// Reads a certificate in DER of any kind.
    ///
    /// # Errors
    /// [`TrustError::Malformed`] when it is none.
    pub fn of(der: &[u8]) -> Result<Self, TrustError> {
        let parsed = parse(der)?;
        let validity = parsed.validity();
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: names_of(&parsed),
            not_before: point_in_time(validity.not_before.timestamp()),
            not_after: point_in_time(validity.not_after.timestamp()),
            serial: hex::encode(parsed.raw_serial()),
            thumbprint: hex::encode(thumbprint(der)),
        })
    }
}

/// The one certificate that `der` is.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, TrustError> {
    let malformed = |reason: String| TrustError::Malformed { reason };
    if der.len() as u64 > Limits::DEFAULT.certificate_bytes_max {
        return Err(malformed(format!("it has {} bytes", der.len())));
    }
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() { Ok(parsed) } else { Err(malformed("bytes follow it".to_owned())) }
}

/// SHA-256 of a certificate's bytes.
pub(super) fn thumbprint(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    bytes
}

/// Whether a certificate is signed with SHA-256 or better, by an algorithm that is still good.
pub(super) fn is_strong(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    const STRONG: [Oid<'static>; 7] = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ED25519,
    ];
    if STRONG.contains(&algorithm.algorithm) {
        return true;
    }
    // RFC 4055 section 3.1: without parameters the hash is SHA-1.
    match SignatureAlgorithm::try_from(algorithm) {
        Ok(SignatureAlgorithm::RSASSA_PSS(params)) => {
            let hash = params.hash_algorithm_oid().to_id_string();
            ["2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3"].contains(&hash.as_str())
        }
        _ => false,
    }
}

fn names_of(parsed: &X509Certificate<'_>) -> Vec<String> {
    let extensions = parsed.extensions().iter();
    let names = extensions.filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(san) => Some(&san.general_names),
        _ => None,
    });
    names
        .flatten()
        .map(|name| match name {
            GeneralName::DNSName(text) => (*text).to_owned(),
            GeneralName::IPAddress(bytes) => ip_address(bytes).map_or_else(|| hex::encode(bytes), |ip| ip.to_string()),
            other => other.to_string(),
        })
        .collect()
}
