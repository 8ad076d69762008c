//! A TED certificate, parsed once and judged by its exact shape.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, X509Extension};
use x509_parser::oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_X509_EXT_EXTENDED_KEY_USAGE};
use x509_parser::prelude::FromDer;

use crate::id::{KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::crypto::point_of;
use crate::security::summary::{is_strong, thumbprint};
use crate::security::{TrustError, Usage, verify_signature};

/// The label of a certificate's PEM block (RFC 7468 section 5.1).
const PEM_LABEL: &str = "CERTIFICATE";

/// One certificate of the kinds that TED knows: a P-256 key, one name, one use. Cheap to clone.
///
/// Parsing says what it claims to be; only [`DistributorRoot::judge`](crate::security::DistributorRoot::judge)
/// says whether that is true.
#[derive(Clone)]
pub struct Certificate(Arc<Parts>);

struct Parts {
    der: Vec<u8>,
    name: NodeName,
    usage: Usage,
    spki: Vec<u8>,
    not_before: UnixMillis,
    not_after: UnixMillis,
    serial: Vec<u8>,
    self_signed: bool,
    weak: bool,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`TrustError::Malformed`] when it is none, [`TrustError::Foreign`] or [`TrustError::Key`] when it is none of
    /// TED's.
    pub fn from_der(der: &[u8]) -> Result<Self, TrustError> {
        let malformed = |reason: String| TrustError::Malformed { reason };
        if der.len() as u64 > Limits::DEFAULT.certificate_bytes_max {
            return Err(malformed(format!("it has {} bytes", der.len())));
        }
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow it".to_owned()));
        }
        let spki = parsed.public_key().raw.to_vec();
        point_of(&spki)?;
        let validity = parsed.validity();
        let parts = Parts {
            name: one_name(parsed.subject_alternative_name().ok().flatten().map(|san| &san.value.general_names))?,
            usage: usage_of(&parsed)?,
            not_before: point_in_time(validity.not_before.timestamp()),
            not_after: point_in_time(validity.not_after.timestamp()),
            serial: parsed.raw_serial().to_vec(),
            self_signed: is_self_signed(&parsed, &spki),
            weak: !is_strong(&parsed.signature_algorithm),
            der: der.to_vec(),
            spki,
        };
        Ok(Self(Arc::new(parts)))
    }

    /// Reads the one certificate in a PEM text. A Distributor's may be followed by the word of the one before it.
    ///
    /// # Errors
    /// [`TrustError::Malformed`] when there is none or more than one, and what [`Certificate::from_der`] refuses.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        let mut blocks = pem::parse_many(text).map_err(|error| TrustError::Malformed { reason: error.to_string() })?;
        if blocks.get(1).is_some_and(|block| block.tag() == super::replacement::REPLACEMENT_LABEL) {
            blocks.remove(1);
        }
        match &blocks[..] {
            [block] if block.tag() == PEM_LABEL => Self::from_der(block.contents()),
            [_] => Err(TrustError::Malformed { reason: "the PEM block is no certificate".to_owned() }),
            _ => Err(TrustError::Malformed { reason: format!("{} PEM blocks instead of one", blocks.len()) }),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// As PEM text, lines ended by LF.
    #[must_use]
    pub fn pem(&self) -> String {
        pem_text(PEM_LABEL, &self.0.der)
    }

    /// Its one subject alternative name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.0.name
    }

    /// What it is for.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.0.usage
    }

    /// The public key, a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.0.spki
    }

    /// BLAKE3 of the public key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        KeyHash::of_spki(&self.0.spki)
    }

    /// From when it holds, to the second.
    #[must_use]
    pub fn not_before(&self) -> UnixMillis {
        self.0.not_before
    }

    /// Until when it holds, to the second.
    #[must_use]
    pub fn not_after(&self) -> UnixMillis {
        self.0.not_after
    }

    /// The end of its time for people, in UTC.
    #[must_use]
    pub fn not_after_text(&self) -> String {
        clock_text(self.not_after())
    }

    /// When it should be renewed: after two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> UnixMillis {
        self.0.not_before.plus(self.0.not_after.since(self.0.not_before) / 3 * 2)
    }

    /// Its serial number in hex digits.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        hex::encode(&self.0.serial)
    }

    /// SHA-256 of its bytes in hex digits, as other tools print it.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        hex::encode(self.thumbprint_bytes())
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub fn thumbprint_bytes(&self) -> [u8; 32] {
        thumbprint(&self.0.der)
    }

    /// Whether it is signed in a way that is not good enough any more: with less than SHA-256.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.0.weak
    }

    /// Whether issuer and subject are the same and its own key signed it.
    pub(super) fn is_self_signed(&self) -> bool {
        self.0.self_signed
    }

    /// Refuses a time at which the certificate does not hold.
    pub(super) fn holds_at(&self, now: UnixMillis) -> Result<(), TrustError> {
        let name = self.name().clone();
        if now < self.not_before() {
            return Err(TrustError::NotYetValid { name, not_before: self.not_before(), now });
        }
        // The field counts whole seconds, and the last one belongs to it.
        if now.seconds() > self.not_after().seconds() {
            return Err(TrustError::Expired { name, not_after: self.not_after(), now });
        }
        Ok(())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} {} {})", self.name(), self.usage(), self.key_hash().fingerprint())
    }
}

/// A point in time for people, in UTC: `2027-01-31 02:00:00 UTC`.
pub(crate) fn clock_text(at: UnixMillis) -> String {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

/// A PEM block with LF line ends, which every reader accepts.
pub(super) fn pem_text(label: &str, bytes: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, bytes), config)
}

/// The one name among `names`; none, several, or another kind of name is refused.
pub(super) fn one_name(names: Option<&Vec<GeneralName<'_>>>) -> Result<NodeName, TrustError> {
    let refuse = |reason| Err(TrustError::Foreign { reason });
    let [name] = names.map(Vec::as_slice).unwrap_or_default() else {
        return refuse("it does not have exactly one subject alternative name");
    };
    let text = match name {
        GeneralName::DNSName(text) => (*text).to_owned(),
        GeneralName::IPAddress(bytes) => match ip_address(bytes) {
            Some(ip) => ip.to_string(),
            None => return refuse("its IP address has neither 4 nor 16 bytes"),
        },
        _ => return refuse("its subject alternative name is neither a DNS name nor an IP address"),
    };
    match text.parse::<NodeName>() {
        // A DNS name that reads like an address would make one name of two kinds.
        Ok(parsed) if parsed.ip().is_some() == matches!(name, GeneralName::IPAddress(_)) => Ok(parsed),
        _ => refuse("its subject alternative name is no node name"),
    }
}

pub(super) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn usage_of(parsed: &X509Certificate<'_>) -> Result<Usage, TrustError> {
    let constraints =
        parsed.basic_constraints().map_err(|_| TrustError::Foreign { reason: "its basic constraints come twice" })?;
    let is_ca = constraints.is_some_and(|constraints| constraints.value.ca);
    let mut extended = parsed.extensions().iter().filter(|extension| extension.oid == OID_X509_EXT_EXTENDED_KEY_USAGE);
    match (is_ca, extended.next(), extended.next()) {
        (true, None, None) => Ok(Usage::Authority),
        (true, ..) => Err(TrustError::Foreign { reason: "a CA certificate with an extended key usage" }),
        (false, Some(extension), None) => usage_named_by(extension),
        (false, ..) => Err(TrustError::Foreign { reason: "it does not have exactly one extended key usage" }),
    }
}

/// The use whose extension looks exactly like this one; a second purpose beside it makes it none of ours.
pub(super) fn usage_named_by(extension: &X509Extension<'_>) -> Result<Usage, TrustError> {
    Usage::ISSUED
        .into_iter()
        .find(|usage| usage.extension_value().as_deref() == Some(extension.value))
        .ok_or(TrustError::Foreign { reason: "its extended key usage is none of TED's" })
}

fn is_self_signed(parsed: &X509Certificate<'_>, spki: &[u8]) -> bool {
    parsed.issuer().as_raw() == parsed.subject().as_raw()
        && parsed.signature_algorithm == parsed.tbs_certificate.signature
        && parsed.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
        && parsed.signature_value.unused_bits == 0
        && verify_signature(spki, parsed.tbs_certificate.as_ref(), &parsed.signature_value.data).is_ok()
}

pub(super) fn point_in_time(seconds: i64) -> UnixMillis {
    UnixMillis::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}
