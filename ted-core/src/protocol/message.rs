//! What two nodes say to each other. Bytes: `docs/protocol.md`, "Messages".

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{DistributionId, EnvelopeId, FiringId, InstanceId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::Priority;
use crate::name::NodeName;
use crate::protocol::{Announce, AnnounceAnswer, Refused};

/// The version of the protocol that this library speaks, as `Hello` carries it.
pub const PROTOCOL_VERSION: u16 = 1;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Its length is not between 2 bytes and the limit.
    #[error("a message of {bytes} bytes, where 2 to {limit} are allowed")]
    Length {
        /// The length that was announced.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Its payload is not what its kind demands.
    #[error("a message cannot be read")]
    Payload(#[from] CodecError),
    /// It says something that cannot be.
    #[error("{what} says something impossible: {reason}")]
    Impossible {
        /// Which message.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An answer of a kind that is unknown here or answers another question.
    #[error("an answer of kind {kind:#06x} was not expected")]
    UnexpectedAnswer {
        /// Its kind.
        kind: u16,
    },
}

impl Coded for MessageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "TED-1330",
            Self::Payload(_) => "TED-1331",
            Self::Impossible { .. } => "TED-1332",
            Self::UnexpectedAnswer { .. } => "TED-1333",
        }
    }
}

/// The first thing that each side says on a connection, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the speaker.
    pub version: u16,
    /// What the speaker calls itself. A label; who it is stands in its certificate.
    pub node: NodeName,
    /// Its running process.
    pub instance: InstanceId,
    /// Its clock when it spoke.
    pub clock: UnixMillis,
    /// What it can do beyond version 1. Unknown ones are kept.
    pub capabilities: Vec<u16>,
    /// What later versions add, ordered by kind. Unknown kinds are kept.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// A parent's word that there is something to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The firing that it belongs to.
    pub firing: FiringId,
    /// Which Distribution. A hint, so that a node can answer `Later` unread; the statement decides.
    pub distribution: DistributionId,
    /// How urgent it is.
    pub priority: Priority,
    /// The envelope with the release statement, to be had by `Fetch`.
    pub statement: EnvelopeId,
    /// For each sealed package that the statement names, the envelope with its grants; at most
    /// [`Limits::statement_packages_max`], no package twice.
    pub grants: Vec<(PackageId, EnvelopeId)>,
}

impl Offer {
    /// The envelope with the grants of `package`.
    #[must_use]
    pub fn grants_of(&self, package: &PackageId) -> Option<EnvelopeId> {
        self.grants.iter().find(|(of, _)| of == package).map(|(_, envelope)| *envelope)
    }

    fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        let impossible = |reason| Err(MessageError::Impossible { what: "an offer", reason });
        if self.grants.len() > limits.statement_packages_max {
            return impossible("it names grants of more packages than a statement may name");
        }
        let mut named: Vec<_> = self.grants.iter().map(|(package, _)| package).collect();
        named.sort_unstable();
        if named.windows(2).any(|two| two[0] == two[1]) {
            return impossible("it names grants of a package twice");
        }
        Ok(self)
    }
}

/// What a child says to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfferAnswer {
    /// It has the revision, verified. Its latest receipt for it follows.
    Current,
    /// It will fetch these packages, in this order.
    Want {
        /// Their ids.
        packages: Vec<PackageId>,
    },
    /// It does not want to be offered this before then.
    Later {
        /// The earliest time for another offer.
        until: UnixMillis,
    },
    /// It will not have it.
    Refused(Refused),
}

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FetchTarget {
    /// A package.
    Package(PackageId),
    /// An envelope.
    Envelope(EnvelopeId),
    /// The grant of one recipient, of those that an envelope signs.
    Grant {
        /// That envelope.
        grants: EnvelopeId,
        /// The recipient's identity key.
        recipient: KeyHash,
    },
}

/// Asks for bytes of a package or an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Of what.
    pub target: FetchTarget,
    /// The first byte.
    pub from: u64,
    /// The byte after the last. Beyond the end it means the end; the answer says the total length.
    pub to: u64,
}

/// What precedes the blocks of an answered `Fetch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchAnswer {
    /// The whole length of what was asked for, in bytes.
    pub total_bytes: u64,
}

/// A message that opens a stream and wants an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Offer`].
    Offer(Offer),
    /// See [`Fetch`].
    Fetch(Fetch),
    /// An envelope that holds a receipt.
    Receipt(Vec<u8>),
    /// An enrolment request; its bytes are judged by the enrolment code.
    Enrol(Vec<u8>),
    /// See [`Announce`].
    Announce(Announce),
    /// A kind from another version. It is answered with [`Answer::Unsupported`].
    Unknown {
        /// Its kind.
        kind: u16,
    },
}

/// The one answer that a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The other side's greeting.
    Hello(Hello),
    /// See [`OfferAnswer`].
    Offer(OfferAnswer),
    /// See [`FetchAnswer`]; blocks follow.
    Fetch(FetchAnswer),
    /// The receipt was stored.
    Receipt,
    /// An answer to an enrolment request; its bytes are judged by the enrolment code.
    Enrol(Vec<u8>),
    /// See [`AnnounceAnswer`].
    Announce(AnnounceAnswer),
    /// This node does not know that kind of request.
    Unsupported {
        /// The kind that was asked.
        kind: u16,
    },
    /// The request was understood and refused.
    Refused(Refused),
}

mod kind {
    pub(super) const HELLO: u16 = 1;
    pub(super) const OFFER: u16 = 2;
    pub(super) const FETCH: u16 = 3;
    pub(super) const RECEIPT: u16 = 4;
    pub(super) const ENROL: u16 = 5;
    pub(super) const ANNOUNCE: u16 = 6;
    /// Set in the kind of every answer.
    pub(super) const ANSWER: u16 = 0x8000;
    pub(super) const UNSUPPORTED: u16 = 0xfffe;
    pub(super) const REFUSED: u16 = 0xffff;
}

/// A message as it travels: its kind, and a payload that is not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which message it is.
    pub kind: u16,
    /// Its payload, at most [`Limits::message_bytes_max`] less the kind's two bytes.
    pub payload: Vec<u8>,
}

/// The bytes of `request`, length prefix included.
///
/// # Errors
/// [`MessageError::Payload`] if it is longer than [`Limits::message_bytes_max`].
pub fn encode_request(request: &Request, limits: &Limits) -> Result<Vec<u8>, MessageError> {
    match request {
        Request::Hello(hello) => frame(kind::HELLO, hello, limits),
        Request::Offer(offer) => frame(kind::OFFER, offer, limits),
        Request::Fetch(fetch) => frame(kind::FETCH, fetch, limits),
        Request::Receipt(envelope) => frame(kind::RECEIPT, envelope, limits),
        Request::Enrol(bytes) => frame(kind::ENROL, bytes, limits),
        Request::Announce(announce) => frame(kind::ANNOUNCE, announce, limits),
        Request::Unknown { kind } => frame(*kind, &(), limits),
    }
}

/// The bytes of `answer`, length prefix included.
///
/// # Errors
/// [`MessageError::Payload`] if it is longer than [`Limits::message_bytes_max`].
pub fn encode_answer(answer: &Answer, limits: &Limits) -> Result<Vec<u8>, MessageError> {
    match answer {
        Answer::Hello(hello) => frame(kind::ANSWER | kind::HELLO, hello, limits),
        Answer::Offer(answer) => frame(kind::ANSWER | kind::OFFER, answer, limits),
        Answer::Fetch(answer) => frame(kind::ANSWER | kind::FETCH, answer, limits),
        Answer::Receipt => frame(kind::ANSWER | kind::RECEIPT, &(), limits),
        Answer::Enrol(bytes) => frame(kind::ANSWER | kind::ENROL, bytes, limits),
        Answer::Announce(answer) => frame(kind::ANSWER | kind::ANNOUNCE, answer, limits),
        Answer::Unsupported { kind } => frame(kind::UNSUPPORTED, kind, limits),
        Answer::Refused(refused) => frame(kind::REFUSED, refused, limits),
    }
}

/// The request that `message` is. A kind from another version is [`Request::Unknown`], not an error.
///
/// # Errors
/// When the payload of a known kind is malformed or impossible. The stream is then answered with
/// [`Answer::Refused`]; the connection goes on.
pub fn decode_request(message: &Message, limits: &Limits) -> Result<Request, MessageError> {
    Ok(match message.kind {
        kind::HELLO => Request::Hello(hello(message, limits)?),
        kind::OFFER => Request::Offer(payload::<Offer>("an offer", message, limits)?.within(limits)?),
        kind::FETCH => {
            let fetch: Fetch = payload("a fetch", message, limits)?;
            if fetch.from > fetch.to {
                return Err(MessageError::Impossible { what: "a fetch", reason: "its end lies before its start" });
            }
            Request::Fetch(fetch)
        }
        kind::RECEIPT => Request::Receipt(payload("a receipt", message, limits)?),
        kind::ENROL => Request::Enrol(payload("an enrolment request", message, limits)?),
        kind::ANNOUNCE => Request::Announce(payload::<Announce>("an announcement", message, limits)?.within(limits)?),
        kind => Request::Unknown { kind },
    })
}

/// The answer that `message` is.
///
/// # Errors
/// When its kind is unknown or its payload is malformed or impossible. The request counts as failed; the connection
/// goes on.
pub fn decode_answer(message: &Message, limits: &Limits) -> Result<Answer, MessageError> {
    if message.kind == kind::UNSUPPORTED {
        return Ok(Answer::Unsupported { kind: payload("an answer", message, limits)? });
    }
    if message.kind == kind::REFUSED {
        return Ok(Answer::Refused(payload("a refusal", message, limits)?));
    }
    Ok(match message.kind ^ kind::ANSWER {
        kind::HELLO => Answer::Hello(hello(message, limits)?),
        kind::OFFER => {
            let answer = payload("an answer to an offer", message, limits)?;
            if let OfferAnswer::Want { packages } = &answer
                && packages.len() > limits.statement_packages_max
            {
                return Err(MessageError::Impossible {
                    what: "an answer to an offer",
                    reason: "it wants more packages than a statement may name",
                });
            }
            Answer::Offer(answer)
        }
        kind::FETCH => Answer::Fetch(payload("an answer to a fetch", message, limits)?),
        kind::RECEIPT => {
            payload::<()>("an acknowledgement", message, limits)?;
            Answer::Receipt
        }
        kind::ENROL => Answer::Enrol(payload("an answer to an enrolment request", message, limits)?),
        kind::ANNOUNCE => {
            let answer: AnnounceAnswer = payload("an answer to an announcement", message, limits)?;
            Answer::Announce(answer.within(limits)?)
        }
        _ => return Err(MessageError::UnexpectedAnswer { kind: message.kind }),
    })
}

fn frame<T: Serialize>(kind: u16, value: &T, limits: &Limits) -> Result<Vec<u8>, MessageError> {
    let payload = codec::encode("a message", value, limits.message_bytes_max.saturating_sub(2))?;
    let bytes = payload.len() as u64 + 2;
    let length = u32::try_from(bytes).map_err(|_| MessageError::Length { bytes, limit: limits.message_bytes_max })?;
    let mut out = Vec::with_capacity(payload.len() + 6);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(out)
}

fn payload<T: DeserializeOwned>(what: &'static str, message: &Message, limits: &Limits) -> Result<T, MessageError> {
    Ok(codec::decode(what, &message.payload, limits.message_bytes_max)?)
}

fn hello(message: &Message, limits: &Limits) -> Result<Hello, MessageError> {
    let hello: Hello = payload("a greeting", message, limits)?;
    if hello.capabilities.len() > limits.extensions_max || hello.extensions.len() > limits.extensions_max {
        return Err(MessageError::Impossible { what: "a greeting", reason: "it lists too much" });
    }
    Ok(hello)
}

/// Cuts one message out of a stream of bytes, whatever pieces they come in.
#[derive(Debug)]
pub struct MessageReader {
    limit: u64,
    prefix: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the body, once the prefix is complete and judged.
    length: Option<usize>,
}

impl MessageReader {
    const PREFIX_BYTES: usize = 4;

    /// A reader that refuses messages over [`Limits::message_bytes_max`].
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { limit: limits.message_bytes_max, prefix: Vec::new(), body: Vec::new(), length: None }
    }

    /// Takes from the front of `input` what belongs to the message, and gives the message once it is complete.
    /// What follows it (blocks, after the answer to a `Fetch`) stays in `input`.
    ///
    /// # Errors
    /// [`MessageError::Length`], before anything is allocated for the message.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Message>, MessageError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                take(input, &mut self.prefix, Self::PREFIX_BYTES);
                let Ok(prefix) = <[u8; Self::PREFIX_BYTES]>::try_from(self.prefix.as_slice()) else {
                    return Ok(None);
                };
                let length = self.judge(u32::from_le_bytes(prefix))?;
                self.length = Some(length);
                length
            }
        };
        take(input, &mut self.body, length);
        if self.body.len() < length {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.body);
        let payload = body.split_off(2);
        self.prefix.clear();
        self.length = None;
        Ok(Some(Message { kind: u16::from_le_bytes([body[0], body[1]]), payload }))
    }

    fn judge(&self, announced: u32) -> Result<usize, MessageError> {
        let error = MessageError::Length { bytes: u64::from(announced), limit: self.limit };
        if announced < 2 || u64::from(announced) > self.limit {
            return Err(error);
        }
        usize::try_from(announced).map_err(|_| error)
    }
}

/// Moves bytes from the front of `input` until `out` has `until` of them.
fn take(input: &mut &[u8], out: &mut Vec<u8>, until: usize) {
    let count = until.saturating_sub(out.len()).min(input.len());
    let (taken, rest) = input.split_at(count);
    out.extend_from_slice(taken);
    *input = rest;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Announced, code};
    use crate::security::EnvelopeKind;

    const LIMITS: Limits = Limits::DEFAULT;

    fn read(bytes: &[u8]) -> Message {
        let mut rest = bytes;
        let message = MessageReader::new(&LIMITS).push(&mut rest).expect("readable").expect("complete");
        assert!(rest.is_empty());
        message
    }

    fn greeting() -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            node: "edge-1.example.com".parse().expect("valid"),
            instance: InstanceId::from_bytes([7; 16]),
            clock: UnixMillis::from_millis(1_800_000_000_000),
            capabilities: vec![1, 900],
            extensions: vec![(9, b"later".to_vec())],
        }
    }

    fn announcement(envelopes: usize) -> Announce {
        let (kind, id) = (EnvelopeKind::REVOCATION_LIST, EnvelopeId::from_bytes([6; 32]));
        Announce { envelopes: vec![Announced { kind, id, sequence: 9, bytes: 700 }; envelopes] }
    }

    #[test]
    fn every_request_comes_back_as_it_went() {
        for request in [
            Request::Hello(greeting()),
            Request::Offer(Offer {
                firing: FiringId::from_bytes([1; 16]),
                distribution: DistributionId::from_bytes([2; 16]),
                priority: Priority::High,
                statement: EnvelopeId::from_bytes([3; 32]),
                grants: vec![(PackageId::from_bytes([5; 32]), EnvelopeId::from_bytes([4; 32]))],
            }),
            Request::Fetch(Fetch {
                target: FetchTarget::Package(PackageId::from_bytes([5; 32])),
                from: 7,
                to: u64::MAX,
            }),
            Request::Receipt(vec![1, 2, 3]),
            Request::Enrol(vec![4]),
            Request::Announce(announcement(3)),
        ] {
            let bytes = encode_request(&request, &LIMITS).expect("short");
            assert_eq!(decode_request(&read(&bytes), &LIMITS).expect("valid"), request);
        }
    }

    #[test]
    fn every_answer_comes_back_as_it_went() {
        for answer in [
            Answer::Hello(greeting()),
            Answer::Offer(OfferAnswer::Current),
            Answer::Offer(OfferAnswer::Want { packages: vec![PackageId::from_bytes([5; 32])] }),
            Answer::Offer(OfferAnswer::Later { until: UnixMillis::from_millis(5) }),
            Answer::Offer(OfferAnswer::Refused(Refused::new(code::BELOW_FLOOR, "older"))),
            Answer::Fetch(FetchAnswer { total_bytes: 99 }),
            Answer::Receipt,
            Answer::Enrol(vec![4]),
            Answer::Announce(AnnounceAnswer {
                holds: vec![EnvelopeId::from_bytes([6; 32])],
                refused: vec![(EnvelopeId::from_bytes([7; 32]), Refused::new(code::NOT_FOUND, "gone"))],
            }),
            Answer::Unsupported { kind: 77 },
            Answer::Refused(Refused::new(code::NOT_FOUND, "no such package")),
        ] {
            let bytes = encode_answer(&answer, &LIMITS).expect("short");
            assert_eq!(decode_answer(&read(&bytes), &LIMITS).expect("valid"), answer);
        }
    }

    /// The bytes of `docs/protocol.md`'s example. They must never change.
    #[test]
    fn the_documented_fetch_has_these_bytes() {
        let fetch = Fetch { target: FetchTarget::Package(PackageId::from_bytes([0xaa; 32])), from: 1, to: 0x0203 };
        let bytes = encode_request(&Request::Fetch(fetch), &LIMITS).expect("short");
        let mut expected = vec![54, 0, 0, 0, 3, 0, 0, 0, 0, 0];
        expected.extend([0xaa; 32]);
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn unknown_kinds_are_answered_not_fatal() {
        let message = Message { kind: 4711, payload: vec![1, 2, 3] };
        assert_eq!(decode_request(&message, &LIMITS).expect("not fatal"), Request::Unknown { kind: 4711 });
        let error = decode_answer(&message, &LIMITS).expect_err("not an answer");
        assert_eq!(error.code(), "TED-1333");
    }

    #[test]
    fn lengths_are_judged_before_anything_is_allocated() {
        for announced in [0, 1, 64 * 1024 + 1, u32::MAX] {
            let bytes = announced.to_le_bytes();
            let error = MessageReader::new(&LIMITS).push(&mut bytes.as_slice()).expect_err("out of bounds");
            assert_eq!(error.code(), "TED-1330", "{announced}");
        }
        assert!(encode_request(&Request::Receipt(vec![0; 64 * 1024]), &LIMITS).is_err());
    }

    #[test]
    fn a_fetch_that_ends_before_it_starts_is_refused() {
        let fetch = Fetch { target: FetchTarget::Envelope(EnvelopeId::from_bytes([0; 32])), from: 2, to: 1 };
        let bytes = encode_request(&Request::Fetch(fetch), &LIMITS).expect("short");
        assert_eq!(decode_request(&read(&bytes), &LIMITS).expect_err("impossible").code(), "TED-1332");
    }

    #[test]
    fn an_offer_that_names_too_many_grants_or_one_twice_is_refused() {
        let package = |number: usize| PackageId::from_bytes([number as u8; 32]);
        let grants =
            |of: &mut dyn Iterator<Item = usize>| of.map(|n| (package(n), EnvelopeId::from_bytes([9; 32]))).collect();
        for (grants, code) in [
            (grants(&mut (0..0)), None),
            (grants(&mut (0..64)), None),
            (grants(&mut (0..65)), Some("TED-1332")),
            (grants(&mut [1, 2, 1].into_iter()), Some("TED-1332")),
        ] {
            let offer = Offer {
                firing: FiringId::from_bytes([1; 16]),
                distribution: DistributionId::from_bytes([2; 16]),
                priority: Priority::High,
                statement: EnvelopeId::from_bytes([3; 32]),
                grants,
            };
            let bytes = encode_request(&Request::Offer(offer), &LIMITS).expect("short");
            assert_eq!(decode_request(&read(&bytes), &LIMITS).err().map(|error| error.code()), code);
        }
    }

    #[test]
    fn an_announcement_that_names_too_much_is_refused() {
        for (envelopes, code) in [(64, None), (65, Some("TED-1332"))] {
            let bytes = encode_request(&Request::Announce(announcement(envelopes)), &LIMITS).expect("short");
            assert_eq!(decode_request(&read(&bytes), &LIMITS).err().map(|error| error.code()), code);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(kind in prop_oneof![0u16..8, 0x8000u16..0x8008, 0xfffdu16.., any::<u16>()],
                                          payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = Message { kind, payload };
            let _ = decode_request(&message, &LIMITS);
            let _ = decode_answer(&message, &LIMITS);
        }

        #[test]
        fn a_message_is_cut_out_of_any_pieces(cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let mut bytes = encode_request(&Request::Hello(greeting()), &LIMITS).expect("short");
            bytes.extend_from_slice(b"what follows");
            let mut reader = MessageReader::new(&LIMITS);
            let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
            let message = loop {
                let (mut piece, after) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
                let done = reader.push(&mut piece).expect("valid");
                let taken = rest.len() - after.len() - piece.len();
                rest = &rest[taken..];
                if let Some(message) = done { break message; }
            };
            prop_assert_eq!(decode_request(&message, &LIMITS).expect("valid"), Request::Hello(greeting()));
            prop_assert_eq!(rest, b"what follows");
        }
    }
}
