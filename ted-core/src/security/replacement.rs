//! A Distributor's certificate that takes over from an older one, by the older one's own word; and the word of the CA
//! key about the time.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::security::{Certificate, DistributorRoot, Envelope, EnvelopeError, EnvelopeKind, TrustError, pem_text};

const WHAT: &str = "a replacement";
const WHAT_TIME: &str = "a word about the time";

/// The label of the PEM block that may follow a Distributor's certificate in its `.cer` file.
pub(super) const REPLACEMENT_LABEL: &str = "TED REPLACEMENT";

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplacementState {
    /// The new certificate is made known; the old one still speaks.
    Prepared,
    /// The new certificate has taken over.
    Final,
    /// The new certificate will not come.
    Cancelled,
}

/// The payload of an envelope of kind 7, which only the CA key that is replaced signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The certificate that takes over, DER.
    pub certificate: Vec<u8>,
    /// How far it is.
    pub state: ReplacementState,
    /// What later versions add, ordered by kind. Unknown kinds are kept.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Replacement {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`] when it is beyond [`Limits`].
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        self.within_limits()?;
        codec::encode(WHAT, self, Limits::DEFAULT.envelope_bytes_max)
    }

    /// Reads the payload of an envelope of kind 7.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let replacement: Self = codec::decode(WHAT, payload, Limits::DEFAULT.envelope_bytes_max)?;
        replacement.within_limits()?;
        Ok(replacement)
    }

    /// The certificate that takes over.
    ///
    /// # Errors
    /// [`TrustError`] when it is not a Distributor's own.
    pub fn root(&self) -> Result<DistributorRoot, TrustError> {
        DistributorRoot::try_from(Certificate::from_der(&self.certificate)?)
    }

    fn within_limits(&self) -> Result<(), CodecError> {
        let limits = Limits::DEFAULT;
        let refuse = |reason: &str| Err(CodecError::Malformed { what: WHAT, reason: reason.to_owned() });
        if self.certificate.len() as u64 > limits.certificate_bytes_max {
            return refuse("its certificate is too long");
        }
        if self.extensions.len() > limits.extensions_max {
            return refuse("it has too many extensions");
        }
        Ok(())
    }
}

/// The payload of an envelope of kind 8, which only the CA key signs: the time that it is, also where the Distributor
/// signed a later one before, because its clock was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTime {
    /// The time at which it was said.
    pub time: UnixMillis,
    /// What later versions add, ordered by kind. Unknown kinds are kept.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl SignedTime {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`] when it is beyond [`Limits`].
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(WHAT_TIME, self, Limits::DEFAULT.envelope_bytes_max)
    }

    /// Reads the payload of an envelope of kind 8.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let time: Self = codec::decode(WHAT_TIME, payload, Limits::DEFAULT.envelope_bytes_max)?;
        if time.extensions.len() > Limits::DEFAULT.extensions_max {
            let reason = "it has too many extensions".to_owned();
            return Err(CodecError::Malformed { what: WHAT_TIME, reason });
        }
        Ok(time)
    }
}

/// What a Distributor's `.cer` file holds: its certificate and, where it took over from another, that one's word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFile {
    /// The certificate.
    pub root: DistributorRoot,
    /// The word of the one before it; unverified until [`RootFile::takes_over_from`].
    pub replacement: Option<Envelope>,
}

impl RootFile {
    /// Reads a `.cer` file's text.
    ///
    /// # Errors
    /// [`TrustError`] when it holds no Distributor's certificate, [`EnvelopeError`] when what follows it is no envelope.
    pub fn from_pem(text: &str) -> Result<Self, EnvelopeError> {
        let root = DistributorRoot::try_from(Certificate::from_pem(text)?)?;
        let blocks = pem::parse_many(text).unwrap_or_default();
        let replacement = blocks.iter().find(|block| block.tag() == REPLACEMENT_LABEL);
        let replacement = replacement.map(|block| Envelope::from_bytes(block.contents())).transpose()?;
        Ok(Self { root, replacement })
    }

    /// As PEM text, lines ended by LF.
    #[must_use]
    pub fn pem(&self) -> String {
        let mut text = self.root.certificate().pem();
        if let Some(replacement) = &self.replacement {
            text.push_str(&pem_text(REPLACEMENT_LABEL, replacement.to_bytes()));
        }
        text
    }

    /// Whether `old` itself said that this certificate takes over from it. When it said so does not matter: the file
    /// was carried here by hand.
    #[must_use]
    pub fn takes_over_from(&self, old: &DistributorRoot) -> bool {
        let Some(envelope) = &self.replacement else { return false };
        let verified =
            envelope.expect_kind(EnvelopeKind::REPLACEMENT).and_then(|()| envelope.verify(old, envelope.body().issued));
        let replacement = Replacement::from_payload(&envelope.body().payload);
        verified.is_ok()
            && replacement.is_ok_and(|replacement| replacement.certificate == self.root.certificate().der())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::security::{Authority, AwsLc, EnvelopeBody, Identity, Usage};

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn authority(name: &str) -> Authority {
        Authority::create(&AwsLc, &name.parse().unwrap(), NOW).unwrap()
    }

    fn word(by: &Authority, signer: &Identity, about: &Authority) -> Envelope {
        let certificate = about.root().certificate().der().to_vec();
        let replacement = Replacement { certificate, state: ReplacementState::Final, extensions: vec![] };
        let body = EnvelopeBody {
            kind: EnvelopeKind::REPLACEMENT,
            distributor: by.root().key_hash(),
            issuer: by.root().key_hash(),
            sequence: 1,
            issued: NOW,
            expires: NOW.plus(Duration::from_secs(1)),
            payload: replacement.to_payload().unwrap(),
        };
        Envelope::seal(&AwsLc, signer, body).unwrap()
    }

    #[test]
    fn a_certificate_takes_over_only_by_the_word_of_the_one_it_takes_over_from() {
        let (old, new, stranger) = (authority("old.example"), authority("new.example"), authority("old.example"));
        let signing = old.issue_identity(&AwsLc, Usage::Sign, old.root().name(), NOW).unwrap();
        let file = |replacement| RootFile { root: new.root().clone(), replacement };
        for (what, replacement, takes_over) in [
            ("the old one's word", Some(word(&old, &old.identity(), &new)), true),
            ("nobody's word", None, false),
            ("its signing key's word", Some(word(&old, &signing, &new)), false),
            ("its own word", Some(word(&new, &new.identity(), &new)), false),
            ("a namesake's word", Some(word(&stranger, &stranger.identity(), &new)), false),
            ("a word about another", Some(word(&old, &old.identity(), &stranger)), false),
        ] {
            let given = file(replacement);
            let read = RootFile::from_pem(&given.pem()).unwrap();
            assert_eq!(read, given, "{what}");
            assert_eq!(read.takes_over_from(old.root()), takes_over, "{what}");
            assert_eq!(Certificate::from_pem(&given.pem()).unwrap(), *new.root().certificate(), "{what}");
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused() {
        let long = vec![0; Limits::DEFAULT.certificate_bytes_max as usize + 1];
        let (certificate, extensions) = (vec![1], vec![(9, vec![]); Limits::DEFAULT.extensions_max + 1]);
        let state = ReplacementState::Prepared;
        for unfit in [
            Replacement { certificate: long, state, extensions: vec![] },
            Replacement { certificate, state, extensions: extensions.clone() },
        ] {
            assert!(unfit.to_payload().is_err());
            assert!(Replacement::from_payload(&codec::encode(WHAT, &unfit, 1 << 20).unwrap()).is_err());
        }
        let time = SignedTime { time: NOW, extensions };
        assert!(SignedTime::from_payload(&time.to_payload().unwrap()).is_err());
    }
}
