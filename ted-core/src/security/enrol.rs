//! Enrolment: what a node sends to get its certificates, and what it is answered.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::name::NodeName;
use crate::security::{CertificateRequest, Crypto, SecretKey, Token, TokenId, TrustError, Usage};

/// The context that separates this MAC from every other one.
const MAC_CONTEXT: &[u8] = b"ted/enrol/1";

/// Why an enrolment is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// The bytes are no enrolment message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A request's key, name or signature is wrong.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The requests do not belong together.
    #[error("the enrolment does not fit together: {reason}")]
    Mismatch {
        /// What does not fit.
        reason: &'static str,
    },
    /// The MAC was not made with the token.
    #[error("the enrolment was not made with the token {0}")]
    Mac(TokenId),
}

impl Coded for EnrolError {
    fn code(&self) -> &'static str {
        match self {
            Self::Codec(error) => error.code(),
            Self::Trust(error) => error.code(),
            Self::Mismatch { .. } => "TED-1202",
            Self::Mac(_) => "TED-1203",
        }
    }
}

/// What proves a token without sending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenProof {
    /// Which token.
    pub token: TokenId,
    /// BLAKE3 keyed with the token over context, name and both requests, each after its length.
    pub mac: [u8; 32],
}

/// A node's request for its identity and encryption certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// Who asks.
    pub node: NodeName,
    /// Request for the identity certificate, DER.
    pub identity_csr: Vec<u8>,
    /// Request for the encryption certificate, DER.
    pub encryption_csr: Vec<u8>,
    /// The identity key's signature over the encryption request.
    pub countersignature: Vec<u8>,
    /// The proof of a one-time token; without one the request waits for approval.
    pub token: Option<TokenProof>,
}

/// An [`EnrolRequest`] of which everything but the token was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedEnrolment {
    /// The request for the identity certificate.
    pub identity: CertificateRequest,
    /// The request for the encryption certificate.
    pub encryption: CertificateRequest,
}

impl CheckedEnrolment {
    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        self.identity.name()
    }

    /// The identity key: what the Subscriber will be known by.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        self.identity.key_hash()
    }

    /// The two requests, checked to belong together. Also the way in for requests that were carried as files.
    ///
    /// # Errors
    /// [`EnrolError::Mismatch`] for other uses or different names, [`EnrolError::Trust`] for a countersignature that
    /// does not hold.
    pub fn from_requests(
        identity: CertificateRequest,
        encryption: CertificateRequest,
        countersignature: &[u8],
    ) -> Result<Self, EnrolError> {
        let refuse = |reason| Err(EnrolError::Mismatch { reason });
        if identity.usage() != Usage::SubscriberIdentity || encryption.usage() != Usage::SubscriberEncryption {
            return refuse("the requests are not for an identity and an encryption certificate");
        }
        if identity.name() != encryption.name() {
            return refuse("the requests are for different names");
        }
        if identity.spki() == encryption.spki() {
            return refuse("one key cannot serve both uses");
        }
        encryption.check_countersignature(identity.spki(), countersignature)?;
        Ok(Self { identity, encryption })
    }
}

impl EnrolRequest {
    /// Asks for certificates of both keys under the name `node`, with a token where there is one.
    ///
    /// # Errors
    /// [`EnrolError::Trust`] when signing fails.
    pub fn make(
        crypto: &dyn Crypto,
        node: &NodeName,
        identity_key: &SecretKey,
        encryption_key: &SecretKey,
        token: Option<&Token>,
    ) -> Result<Self, EnrolError> {
        let identity = CertificateRequest::make(crypto, identity_key, node, Usage::SubscriberIdentity)?;
        let encryption = CertificateRequest::make(crypto, encryption_key, node, Usage::SubscriberEncryption)?;
        let mut request = Self {
            node: node.clone(),
            countersignature: encryption.countersign(crypto, identity_key)?,
            identity_csr: identity.der().to_vec(),
            encryption_csr: encryption.der().to_vec(),
            token: None,
        };
        request.token = token.map(|token| TokenProof { token: token.id(), mac: *request.mac(token).as_bytes() });
        Ok(request)
    }

    /// Checks both requests, their names, and the countersignature. The token is left to [`EnrolRequest::check_token`].
    ///
    /// # Errors
    /// [`EnrolError`] says what is wrong.
    pub fn check(&self) -> Result<CheckedEnrolment, EnrolError> {
        let identity = CertificateRequest::from_der(&self.identity_csr)?;
        let encryption = CertificateRequest::from_der(&self.encryption_csr)?;
        if identity.name() != &self.node {
            return Err(EnrolError::Mismatch { reason: "the request is for another name than the message" });
        }
        CheckedEnrolment::from_requests(identity, encryption, &self.countersignature)
    }

    /// Checks, in constant time, that the request was made with `token`.
    ///
    /// # Errors
    /// [`EnrolError::Mac`] when it was not, or was made without any.
    pub fn check_token(&self, token: &Token) -> Result<(), EnrolError> {
        match &self.token {
            // `blake3::Hash` compares in constant time.
            Some(proof) if self.mac(token) == blake3::Hash::from_bytes(proof.mac) => Ok(()),
            _ => Err(EnrolError::Mac(token.id())),
        }
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// [`CodecError`] beyond [`Limits::message_bytes_max`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode("an enrolment request", self, Limits::DEFAULT.message_bytes_max)
    }

    /// Reads the message; [`EnrolRequest::check`] judges it.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("an enrolment request", bytes, Limits::DEFAULT.message_bytes_max)
    }

    fn mac(&self, token: &Token) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(token.as_bytes());
        let node = self.node.to_string();
        for part in [MAC_CONTEXT, node.as_bytes(), &self.identity_csr, &self.encryption_csr] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// What the Distributor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolAnswer {
    /// Both certificates, DER.
    Issued {
        /// For the identity key.
        identity: Vec<u8>,
        /// For the encryption key.
        encryption: Vec<u8>,
    },
    /// The request waits until somebody approves it, comparing the identity key's fingerprint.
    Pending {
        /// As [`KeyHash::fingerprint`] writes it.
        fingerprint: String,
    },
    /// No certificates.
    Refused {
        /// The stable code.
        code: String,
        /// Why, for people.
        reason: String,
    },
}

impl EnrolAnswer {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`CodecError`] beyond [`Limits::message_bytes_max`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode("an enrolment answer", self, Limits::DEFAULT.message_bytes_max)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("an enrolment answer", bytes, Limits::DEFAULT.message_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::AwsLc;

    fn request(token: Option<&Token>) -> EnrolRequest {
        let (identity, encryption) = (AwsLc.generate_key().unwrap(), AwsLc.generate_key().unwrap());
        EnrolRequest::make(&AwsLc, &"sub.example.com".parse().unwrap(), &identity, &encryption, token).unwrap()
    }

    #[test]
    fn a_request_proves_its_token_without_carrying_it() {
        let (token, other) = (Token::generate(&AwsLc).unwrap(), Token::generate(&AwsLc).unwrap());
        let given = request(Some(&token));
        let bytes = given.to_bytes().unwrap();
        assert!(!bytes.windows(32).any(|window| window == token.as_bytes()));
        let read = EnrolRequest::from_bytes(&bytes).unwrap();
        let checked = read.check().unwrap();
        assert_eq!(checked.node().to_string(), "sub.example.com");
        read.check_token(&token).unwrap();
        assert_eq!(read.check_token(&other).unwrap_err().code(), "TED-1203");
        assert_eq!(request(None).check_token(&token).unwrap_err().code(), "TED-1203");
    }

    #[test]
    fn parts_of_different_requests_do_not_mix() {
        let token = Token::generate(&AwsLc).unwrap();
        let (ours, theirs) = (request(Some(&token)), request(None));
        type Change = fn(&mut EnrolRequest, &EnrolRequest);
        let changes: [(&str, Change); 5] = [
            ("another identity request", |ours, theirs| ours.identity_csr.clone_from(&theirs.identity_csr)),
            ("another encryption request", |ours, theirs| ours.encryption_csr.clone_from(&theirs.encryption_csr)),
            ("another countersignature", |ours, theirs| ours.countersignature.clone_from(&theirs.countersignature)),
            ("another name", |ours, _| ours.node = "else.example.com".parse().unwrap()),
            ("one request twice", |ours, _| ours.encryption_csr.clone_from(&ours.identity_csr)),
        ];
        for (what, change) in changes {
            let mut changed = ours.clone();
            change(&mut changed, &theirs);
            assert!(changed.check().is_err(), "{what}");
            let mac_covers = what != "another countersignature";
            assert_eq!(changed.check_token(&token).is_err(), mac_covers, "{what}");
        }
    }

    #[test]
    fn answers_survive_their_bytes() {
        for answer in [
            EnrolAnswer::Issued { identity: vec![1], encryption: vec![2] },
            EnrolAnswer::Pending { fingerprint: "0011-2233-4455-6677".to_owned() },
            EnrolAnswer::Refused { code: "TED-1203".to_owned(), reason: "no".to_owned() },
        ] {
            assert_eq!(EnrolAnswer::from_bytes(&answer.to_bytes().unwrap()).unwrap(), answer);
        }
    }
}
