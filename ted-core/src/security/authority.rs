//! Making certificates: a Distributor's own, and those it issues.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::id::UnixMillis;
use crate::name::NodeName;
use crate::security::crypto::point_of;
use crate::security::{Certificate, Crypto, DistributorRoot, SecretKey, TrustError, Usage};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A Distributor's own certificate is carried by hand, so it lives long.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(20 * 365);
/// Signing and Subscribers' certificates.
const YEAR_LIFE: Duration = DAY.saturating_mul(365);
/// TLS certificates of running instances.
const TLS_LIFE: Duration = DAY.saturating_mul(90);
/// How much slower a peer's clock may go before a new certificate looks like one from the future.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Object identifier of the extended key usage extension, 2.5.29.37.
pub(super) const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];
/// Bytes of a random serial number; RFC 5280 section 4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;
/// The longest common name (RFC 5280 appendix A.1, `ub-common-name`). The whole name stands in the SAN.
const COMMON_NAME_MAX: usize = 64;

/// A certificate and the key it is for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: Certificate,
    /// Its private key.
    pub key: SecretKey,
}

/// A Distributor's CA: the root and its key.
#[derive(Debug, Clone)]
pub struct Authority {
    root: DistributorRoot,
    key: SecretKey,
}

impl Authority {
    /// A new CA for the Distributor `name`, valid for twenty years.
    ///
    /// # Errors
    /// [`TrustError::Crypto`] without randomness, [`TrustError::Issue`] when the name cannot be encoded.
    pub fn create(crypto: &dyn Crypto, name: &NodeName, now: UnixMillis) -> Result<Self, TrustError> {
        let key = crypto.generate_key()?;
        let mut params = params(crypto, name, "TED Distributor")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = date_time(earlier(now, CLOCK_SKEW))?;
        params.not_after = date_time(now.plus(AUTHORITY_LIFE))?;
        let made = params.self_signed(&Signer { crypto, key: &key }).map_err(refused)?;
        let root = DistributorRoot::try_from(Certificate::from_der(made.der())?)?;
        Ok(Self { root, key })
    }

    /// The CA that was made earlier.
    ///
    /// # Errors
    /// [`TrustError::NotARoot`] when the key is not the certificate's.
    pub fn from_parts(root: DistributorRoot, key: SecretKey) -> Result<Self, TrustError> {
        if root.certificate().spki() != key.spki() {
            return Err(TrustError::NotARoot { reason: "the key beside it is not its own" });
        }
        Ok(Self { root, key })
    }

    /// The certificate that Subscribers trust.
    #[must_use]
    pub fn root(&self) -> &DistributorRoot {
        &self.root
    }

    /// The CA key.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The CA as a signer of revocation lists and of its own replacement.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { certificate: self.root.certificate().clone(), key: self.key.clone() }
    }

    /// Issues a certificate for the public key `spki` (SubjectPublicKeyInfo in DER). It begins an hour before `now`
    /// for slow clocks, but never before the CA's, and never outlives it.
    ///
    /// # Errors
    /// [`TrustError::Key`] for a key that is not P-256, [`TrustError::Issue`] for [`Usage::Authority`], for a name
    /// other than the root's in a Distributor role, or when the CA has expired.
    pub fn issue(
        &self,
        crypto: &dyn Crypto,
        usage: Usage,
        name: &NodeName,
        spki: &[u8],
        now: UnixMillis,
    ) -> Result<Certificate, TrustError> {
        let refuse = |reason: &str| Err(TrustError::Issue { reason: reason.to_owned() });
        let Some(extension) = usage.extension_value() else {
            return refuse("an authority makes its own certificate");
        };
        if usage.is_distributor_role() && name != self.root.name() {
            return refuse("a certificate that speaks for the Distributor carries its name");
        }
        let own = self.root.certificate();
        own.holds_at(now)?;
        let mut params = params(crypto, name, &usage.to_string())?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![match usage {
            Usage::SubscriberEncryption => KeyUsagePurpose::KeyAgreement,
            _ => KeyUsagePurpose::DigitalSignature,
        }];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&EXTENDED_KEY_USAGE, extension)];
        params.not_before = date_time(earlier(now, CLOCK_SKEW).max(own.not_before()))?;
        let life = if usage == Usage::DistributorTls { TLS_LIFE } else { YEAR_LIFE };
        params.not_after = date_time(now.plus(life).min(own.not_after()))?;
        let signer = Signer { crypto, key: &self.key };
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(own.der()), signer).map_err(refused)?;
        let made = params.signed_by(&PublicPoint(point_of(spki)?.to_vec()), &issuer).map_err(refused)?;
        Certificate::from_der(made.der())
    }

    /// Makes a key and issues its certificate.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_identity(
        &self,
        crypto: &dyn Crypto,
        usage: Usage,
        name: &NodeName,
        now: UnixMillis,
    ) -> Result<Identity, TrustError> {
        let key = crypto.generate_key()?;
        let certificate = self.issue(crypto, usage, name, key.spki(), now)?;
        Ok(Identity { certificate, key })
    }
}

/// What every certificate and request has: the name, and a subject that tells people what it is.
pub(super) fn params(crypto: &dyn Crypto, name: &NodeName, unit: &str) -> Result<CertificateParams, TrustError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![match name.ip() {
        Some(ip) => SanType::IpAddress(ip),
        None => SanType::DnsName(name.to_string().try_into().map_err(refused)?),
    }];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    let common_name: String = name.to_string().chars().take(COMMON_NAME_MAX).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let mut serial = [0; SERIAL_BYTES];
    crypto.fill_random(&mut serial)?;
    // Positive, and never zero (RFC 5280 section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

pub(super) fn refused(error: rcgen::Error) -> TrustError {
    TrustError::Issue { reason: error.to_string() }
}

fn earlier(at: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis::from_millis(at.millis().saturating_sub(by.as_millis() as u64))
}

fn date_time(at: UnixMillis) -> Result<OffsetDateTime, TrustError> {
    i64::try_from(at.seconds())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| TrustError::Issue { reason: "the clock is outside of what a certificate can say".to_owned() })
}

/// Lets rcgen sign through [`Crypto`].
pub(super) struct Signer<'a> {
    pub(super) crypto: &'a dyn Crypto,
    pub(super) key: &'a SecretKey,
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        // A `SecretKey` is P-256 by construction, so there is always a point.
        point_of(self.key.spki()).unwrap_or_default()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.crypto.sign(self.key, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

struct PublicPoint(Vec<u8>);

impl PublicKeyData for PublicPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
