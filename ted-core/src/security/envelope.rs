//! The one signed container: release statements, grants, entitlements, configuration, revocation lists, receipts.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{EnvelopeId, KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::security::{Crypto, DistributorRoot, Identity, Signature, TrustError, Usage, clock_text, sign};

/// The context of an envelope's signature.
const CONTEXT: &str = "ted/envelope/1";

/// What an envelope holds. Unknown kinds are kept and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EnvelopeKind(pub u16);

impl EnvelopeKind {
    /// A [`ReleaseStatement`](crate::security::ReleaseStatement).
    pub const RELEASE_STATEMENT: Self = Self(1);
    /// What lets Subscribers open a sealed package.
    pub const GRANTS: Self = Self(2);
    /// Which Distributions a descendant may fetch.
    pub const ENTITLEMENTS: Self = Self(3);
    /// Configuration sections.
    pub const CONFIGURATION: Self = Self(4);
    /// Keys that are no longer trusted.
    pub const REVOCATION_LIST: Self = Self(5);
    /// A [`Receipt`](crate::security::Receipt).
    pub const RECEIPT: Self = Self(6);
    /// The certificate that takes over from the CA's.
    pub const REPLACEMENT: Self = Self(7);
    /// The time, by the word of the CA key.
    pub const TIME: Self = Self(8);

    /// Whose signature makes an envelope of this kind count: the one place that says who may say what. `None` for
    /// kinds that this version does not know, which nobody can make count here.
    #[must_use]
    pub const fn signer(self) -> Option<Usage> {
        match self {
            Self::RELEASE_STATEMENT | Self::GRANTS | Self::ENTITLEMENTS | Self::CONFIGURATION => Some(Usage::Sign),
            Self::REVOCATION_LIST | Self::REPLACEMENT | Self::TIME => Some(Usage::Authority),
            Self::RECEIPT => Some(Usage::SubscriberIdentity),
            _ => None,
        }
    }
}

impl std::fmt::Display for EnvelopeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::RELEASE_STATEMENT => f.pad("release statement"),
            Self::GRANTS => f.pad("grants"),
            Self::ENTITLEMENTS => f.pad("entitlements"),
            Self::CONFIGURATION => f.pad("configuration"),
            Self::REVOCATION_LIST => f.pad("revocation list"),
            Self::RECEIPT => f.pad("receipt"),
            Self::REPLACEMENT => f.pad("replacement"),
            Self::TIME => f.pad("time"),
            Self(other) => write!(f, "envelope of kind {other}"),
        }
    }
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeBody {
    /// What the payload is.
    pub kind: EnvelopeKind,
    /// The CA key of the Distributor in whose fleet it counts.
    pub distributor: KeyHash,
    /// The key that signed it.
    pub issuer: KeyHash,
    /// Grows with every envelope of this issuer: `max(previous + 1, unix milliseconds)`.
    pub sequence: u64,
    /// When it was signed.
    pub issued: UnixMillis,
    /// Until when it holds.
    pub expires: UnixMillis,
    /// The content.
    pub payload: Vec<u8>,
}

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Its bytes are no envelope, or its payload not what its kind says.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It counts in another Distributor's fleet.
    #[error("the envelope is of the Distributor with key {}, not of {}", found.fingerprint(), wanted.fingerprint())]
    OtherDistributor {
        /// Whose it is.
        found: KeyHash,
        /// Whose it would have to be.
        wanted: KeyHash,
    },
    /// The issuer it names is not the key that signed it.
    #[error("the envelope names another issuer than the key that signed it")]
    OtherIssuer,
    /// It does not hold any more.
    #[error("the envelope expired at {}; the clock here says {}", clock_text(*.expires), clock_text(*.now))]
    Expired {
        /// Until when it held.
        expires: UnixMillis,
        /// What was taken for now.
        now: UnixMillis,
    },
    /// It holds something else than what is wanted.
    #[error("the envelope is of kind {}, and kind {} is wanted here", found.0, wanted.0)]
    OtherKind {
        /// What it holds.
        found: EnvelopeKind,
        /// What it would have to hold.
        wanted: EnvelopeKind,
    },
    /// This version does not know who may say such things.
    #[error("the envelope is of kind {}, which this version does not know", .0.0)]
    UnknownKind(EnvelopeKind),
    /// Certificate or signature do not hold.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Coded for EnvelopeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Codec(error) => error.code(),
            Self::OtherDistributor { .. } => "TED-1121",
            Self::OtherIssuer => "TED-1122",
            Self::Expired { .. } => "TED-1123",
            Self::OtherKind { .. } => "TED-1124",
            Self::UnknownKind(_) => "TED-1127",
            Self::Trust(error) => error.code(),
        }
    }
}

/// A signed envelope. Its bytes are kept as they were received; they are never encoded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    bytes: Vec<u8>,
    wire: Wire,
    body: EnvelopeBody,
}

/// What the bytes hold: the body as it was signed, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wire {
    body: Vec<u8>,
    signature: Signature,
}

impl Envelope {
    /// Signs `body` with `identity`. The body's issuer becomes that identity's key.
    ///
    /// # Errors
    /// [`EnvelopeError::Codec`] when it grows over the limit, [`EnvelopeError::Trust`] when signing fails.
    pub fn seal(crypto: &dyn Crypto, identity: &Identity, mut body: EnvelopeBody) -> Result<Self, EnvelopeError> {
        let limit = Limits::DEFAULT.envelope_bytes_max;
        body.issuer = identity.certificate.key_hash();
        let body_bytes = codec::encode("an envelope's body", &body, limit)?;
        let signature = sign(crypto, identity, CONTEXT, &body_bytes)?;
        let wire = Wire { body: body_bytes, signature };
        let bytes = codec::encode("an envelope", &wire, limit)?;
        Ok(Self { bytes, wire, body })
    }

    /// Reads an envelope. Nothing of it is trusted before [`Envelope::verify`].
    ///
    /// # Errors
    /// [`EnvelopeError::Codec`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let limit = Limits::DEFAULT.envelope_bytes_max;
        let wire: Wire = codec::decode("an envelope", bytes, limit)?;
        let body = codec::decode("an envelope's body", &wire.body, limit)?;
        Ok(Self { bytes: bytes.to_vec(), wire, body })
    }

    /// Checks that it counts in the fleet of `root`, that a certificate issued there for the use that its kind demands
    /// ([`EnvelopeKind::signer`]) signed it, and that neither has expired. Time is the later of `now` and the time at
    /// which it says it was signed, so that a slow clock here refuses nothing.
    ///
    /// # Errors
    /// [`EnvelopeError`] says what does not hold.
    pub fn verify(&self, root: &DistributorRoot, now: UnixMillis) -> Result<(), EnvelopeError> {
        let usage = self.body.kind.signer().ok_or(EnvelopeError::UnknownKind(self.body.kind))?;
        if self.body.distributor != root.key_hash() {
            return Err(EnvelopeError::OtherDistributor { found: self.body.distributor, wanted: root.key_hash() });
        }
        let now = now.max(self.body.issued);
        if now > self.body.expires {
            return Err(EnvelopeError::Expired { expires: self.body.expires, now });
        }
        let signer = root.verify(CONTEXT, &self.wire.body, &self.wire.signature, usage, now)?;
        if signer.key_hash() != self.body.issuer {
            return Err(EnvelopeError::OtherIssuer);
        }
        Ok(())
    }

    /// Refuses an envelope that holds anything else than `wanted`.
    ///
    /// # Errors
    /// [`EnvelopeError::OtherKind`].
    pub fn expect_kind(&self, wanted: EnvelopeKind) -> Result<(), EnvelopeError> {
        if self.body.kind == wanted {
            return Ok(());
        }
        Err(EnvelopeError::OtherKind { found: self.body.kind, wanted })
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &EnvelopeBody {
        &self.body
    }

    /// Its bytes, as they were made or received.
    #[must_use]
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 of its bytes.
    #[must_use]
    pub fn id(&self) -> EnvelopeId {
        EnvelopeId::from_bytes(*blake3::hash(&self.bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::security::{Authority, AwsLc};

    const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    const KINDS: [EnvelopeKind; 8] = [
        EnvelopeKind::RELEASE_STATEMENT,
        EnvelopeKind::GRANTS,
        EnvelopeKind::ENTITLEMENTS,
        EnvelopeKind::CONFIGURATION,
        EnvelopeKind::REVOCATION_LIST,
        EnvelopeKind::RECEIPT,
        EnvelopeKind::REPLACEMENT,
        EnvelopeKind::TIME,
    ];
    const UNKNOWN: EnvelopeKind = EnvelopeKind(77);

    fn authority() -> Authority {
        Authority::create(&AwsLc, &"dist.example.com".parse().unwrap(), NOW).unwrap()
    }

    fn signer(authority: &Authority, usage: Usage) -> Identity {
        match usage {
            Usage::Authority => authority.identity(),
            _ => authority.issue_identity(&AwsLc, usage, authority.root().name(), NOW).unwrap(),
        }
    }

    fn sealed(authority: &Authority, signer: &Identity, kind: EnvelopeKind) -> Envelope {
        let body = EnvelopeBody {
            kind,
            distributor: authority.root().key_hash(),
            issuer: KeyHash::from_bytes([0; 32]),
            sequence: 1,
            issued: NOW,
            expires: NOW.plus(MONTH),
            payload: b"unknown kinds are kept".to_vec(),
        };
        Envelope::seal(&AwsLc, signer, body).unwrap()
    }

    #[test]
    fn an_envelope_of_an_unknown_kind_is_kept_byte_for_byte_and_counts_for_nothing() {
        let authority = authority();
        let signer = signer(&authority, Usage::Sign);
        let envelope = sealed(&authority, &signer, UNKNOWN);
        let read = Envelope::from_bytes(envelope.to_bytes()).unwrap();
        assert_eq!((read.id(), read.body(), read.to_bytes()), (envelope.id(), envelope.body(), envelope.to_bytes()));
        assert_eq!(read.body().issuer, signer.certificate.key_hash());
        assert_eq!(read.verify(authority.root(), NOW).unwrap_err().code(), "TED-1127");
        assert_eq!(read.expect_kind(EnvelopeKind::RECEIPT).unwrap_err().code(), "TED-1124");
    }

    #[test]
    fn every_kind_of_certificate_may_say_only_what_is_its_own_to_say() {
        let authority = authority();
        for usage in Usage::ISSUED.into_iter().chain([Usage::Authority]) {
            let signer = signer(&authority, usage);
            for kind in KINDS {
                let verdict = sealed(&authority, &signer, kind).verify(authority.root(), NOW);
                let expected = (kind.signer() != Some(usage)).then_some("TED-1104");
                assert_eq!(verdict.as_ref().err().map(Coded::code), expected, "{usage} says {kind:?}");
            }
        }
        // A certificate for encryption says nothing at all.
        assert!(KINDS.iter().all(|kind| kind.signer() != Some(Usage::SubscriberEncryption)));
        assert!(KINDS.iter().all(|kind| kind.signer() != Some(Usage::DistributorTls)));
    }

    #[test]
    fn no_byte_of_an_envelope_of_any_kind_can_change() {
        let authority = authority();
        for kind in KINDS {
            let signer = signer(&authority, kind.signer().unwrap());
            let envelope = sealed(&authority, &signer, kind);
            envelope.verify(authority.root(), NOW).unwrap();
            let bytes = envelope.to_bytes();
            for at in 0..bytes.len() {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 0x10;
                let verdict =
                    Envelope::from_bytes(&flipped).and_then(|envelope| envelope.verify(authority.root(), NOW));
                assert!(verdict.is_err(), "byte {at} of {} of {kind:?}", bytes.len());
            }
        }
    }

    #[test]
    fn envelopes_out_of_time_and_of_other_fleets_are_refused_and_a_slow_clock_refuses_none() {
        let (authority, stranger) = (authority(), authority());
        let envelope = sealed(&authority, &signer(&authority, Usage::Sign), EnvelopeKind::RELEASE_STATEMENT);
        envelope.verify(authority.root(), UnixMillis::from_millis(0)).unwrap();
        let after = NOW.plus(MONTH).plus(Duration::from_millis(1));
        for (root, now, code) in [(authority.root(), after, "TED-1123"), (stranger.root(), NOW, "TED-1121")] {
            assert_eq!(envelope.verify(root, now).unwrap_err().code(), code);
        }
    }

    #[test]
    fn a_distributor_that_issues_a_leaf_in_anothers_name_gains_nothing() {
        let (victim, attacker) = (authority(), authority());
        // Same name, other key: whatever it issues and signs counts only in its own fleet.
        for kind in KINDS {
            let forger = signer(&attacker, kind.signer().unwrap());
            let mut envelope = sealed(&attacker, &forger, kind);
            assert_eq!(envelope.verify(victim.root(), NOW).unwrap_err().code(), "TED-1121");
            let body = EnvelopeBody { distributor: victim.root().key_hash(), ..envelope.body().clone() };
            envelope = Envelope::seal(&AwsLc, &forger, body).unwrap();
            assert_eq!(envelope.verify(victim.root(), NOW).unwrap_err().code(), "TED-1105");
        }
    }
}
