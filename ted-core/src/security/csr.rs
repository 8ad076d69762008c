//! Certificate requests: how a node asks for certificates without its keys ever leaving it.

use rcgen::CustomExtension;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_X509_EXT_EXTENDED_KEY_USAGE};
use x509_parser::prelude::FromDer;

use crate::id::KeyHash;
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::authority::{EXTENDED_KEY_USAGE, Signer, params, refused};
use crate::security::certificate::{one_name, pem_text, usage_named_by};
use crate::security::crypto::point_of;
use crate::security::{Crypto, SecretKey, TrustError, Usage, signed_message, verify_signature};

const PEM_LABEL: &str = "CERTIFICATE REQUEST";
const COUNTERSIGNATURE_LABEL: &str = "TED COUNTERSIGNATURE";
/// What an identity key's signature over an encryption request says it is for.
const COUNTERSIGNATURE_CONTEXT: &str = "ted/enrol/1";

/// A request whose own signature holds: one name, one use, one P-256 key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Vec<u8>,
    name: NodeName,
    usage: Usage,
    spki: Vec<u8>,
}

impl CertificateRequest {
    /// Asks for a certificate of `key` for `usage` under `name`.
    ///
    /// # Errors
    /// [`TrustError::Issue`] for [`Usage::Authority`], [`TrustError::Crypto`] when signing fails.
    pub fn make(crypto: &dyn Crypto, key: &SecretKey, name: &NodeName, usage: Usage) -> Result<Self, TrustError> {
        let Some(extension) = usage.extension_value() else {
            return Err(TrustError::Issue { reason: "an authority makes its own certificate".to_owned() });
        };
        let mut params = params(crypto, name, &usage.to_string())?;
        params.serial_number = None;
        params.custom_extensions = vec![CustomExtension::from_oid_content(&EXTENDED_KEY_USAGE, extension)];
        let made = params.serialize_request(&Signer { crypto, key }).map_err(refused)?;
        Self::from_der(made.der())
    }

    /// Reads a request in DER and checks its own signature.
    ///
    /// # Errors
    /// [`TrustError::Request`], [`TrustError::Key`], [`TrustError::Foreign`] or [`TrustError::Signature`].
    pub fn from_der(der: &[u8]) -> Result<Self, TrustError> {
        let refuse = |reason: String| TrustError::Request { reason };
        if der.len() as u64 > Limits::DEFAULT.certificate_bytes_max {
            return Err(refuse(format!("it has {} bytes", der.len())));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(der).map_err(|error| refuse(error.to_string()))?;
        if !rest.is_empty() {
            return Err(refuse("bytes follow it".to_owned()));
        }
        let info = &parsed.certification_request_info;
        let spki = info.subject_pki.raw.to_vec();
        point_of(&spki)?;
        let algorithm = &parsed.signature_algorithm;
        // RFC 5758 section 3.2: ECDSA's algorithm has no parameters. Its signature has whole bytes.
        if algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
            || algorithm.parameters.is_some()
            || parsed.signature_value.unused_bits != 0
        {
            return Err(TrustError::Signature);
        }
        verify_signature(&spki, info.raw, &parsed.signature_value.data)?;
        let extensions = requested_extensions(&parsed);
        let names = extensions.iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => Some(&san.general_names),
            _ => None,
        });
        let extended = extensions
            .iter()
            .find(|extension| extension.oid == OID_X509_EXT_EXTENDED_KEY_USAGE)
            .ok_or(TrustError::Foreign { reason: "the request names no use" })?;
        Ok(Self { name: one_name(names)?, usage: usage_named_by(extended)?, der: der.to_vec(), spki })
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The name it asks for.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The use it asks for.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The public key, a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// BLAKE3 of the public key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        KeyHash::of_spki(&self.spki)
    }

    /// The file name it is carried under: `<node name>.identity.csr` or `<node name>.encryption.csr`.
    #[must_use]
    pub fn file_name(&self) -> String {
        let kind = match self.usage {
            Usage::SubscriberIdentity => "identity",
            Usage::SubscriberEncryption => "encryption",
            Usage::Authority | Usage::Sign | Usage::DistributorTls => "distributor",
        };
        format!("{}.{kind}.csr", self.name.file_stem())
    }

    /// As PEM text; an encryption request carries its countersignature in a second block.
    #[must_use]
    pub fn to_pem(&self, countersignature: Option<&[u8]>) -> String {
        let mut text = pem_text(PEM_LABEL, &self.der);
        if let Some(signature) = countersignature {
            text.push_str(&pem_text(COUNTERSIGNATURE_LABEL, signature));
        }
        text
    }

    /// Reads PEM text: the request, and its countersignature where there is one.
    ///
    /// # Errors
    /// [`TrustError::Request`] when the blocks are others, and what [`CertificateRequest::from_der`] refuses.
    pub fn from_pem(text: &str) -> Result<(Self, Option<Vec<u8>>), TrustError> {
        let blocks = pem::parse_many(text).map_err(|error| TrustError::Request { reason: error.to_string() })?;
        let (request, countersignature) = match &blocks[..] {
            [request] => (request, None),
            [request, second] if second.tag() == COUNTERSIGNATURE_LABEL => (request, Some(second.contents().to_vec())),
            _ => return Err(TrustError::Request { reason: "the PEM blocks are not a request's".to_owned() }),
        };
        if request.tag() != PEM_LABEL {
            return Err(TrustError::Request { reason: format!("the PEM block is a {}", request.tag()) });
        }
        Ok((Self::from_der(request.contents())?, countersignature))
    }

    /// The identity key's word that this encryption request is its own node's.
    ///
    /// # Errors
    /// [`TrustError::Crypto`] when signing fails.
    pub fn countersign(&self, crypto: &dyn Crypto, identity_key: &SecretKey) -> Result<Vec<u8>, TrustError> {
        Ok(crypto.sign(identity_key, &signed_message(COUNTERSIGNATURE_CONTEXT, &self.der))?)
    }

    /// Checks that the key of `identity` countersigned this request.
    ///
    /// # Errors
    /// [`TrustError::Signature`] when it did not.
    pub fn check_countersignature(&self, identity_spki: &[u8], countersignature: &[u8]) -> Result<(), TrustError> {
        verify_signature(identity_spki, &signed_message(COUNTERSIGNATURE_CONTEXT, &self.der), countersignature)
    }
}

fn requested_extensions<'a>(parsed: &'a X509CertificationRequest<'a>) -> &'a [X509Extension<'a>] {
    parsed
        .certification_request_info
        .iter_attributes()
        .find_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => Some(requested.extensions.as_slice()),
            _ => None,
        })
        .unwrap_or_default()
}
