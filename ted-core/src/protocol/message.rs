//! What two nodes say to each other. Bytes: `docs/protocol.md`, "Messages".

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{EnvelopeId, InstanceId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::name::NodeName;
use crate::protocol::receipts;
use crate::protocol::{
    Announce, AnnounceAnswer, Offer, OfferAnswer, Presence, ProgressEntry, ReceiptsAnswer, Refused, tiers,
};

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
    /// Envelopes that hold receipts, in the order in which they were made; at most [`Limits::receipts_max`].
    Receipts(Vec<Vec<u8>>),
    /// An enrolment request; its bytes are judged by the enrolment code.
    Enrol(Vec<u8>),
    /// See [`Announce`].
    Announce(Announce),
    /// See [`Presence`].
    Presence(Presence),
    /// How far deliveries at the sender and behind it are, of what has changed; at most
    /// [`Limits::progress_entries_max`]. Hints for people: what counts are receipts.
    Progress(Vec<ProgressEntry>),
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
    /// See [`ReceiptsAnswer`].
    Receipts(ReceiptsAnswer),
    /// An answer to an enrolment request; its bytes are judged by the enrolment code.
    Enrol(Vec<u8>),
    /// See [`AnnounceAnswer`].
    Announce(AnnounceAnswer),
    /// What was said about presence was noted.
    Presence,
    /// What was said about progress was heard.
    Progress,
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
    pub(super) const RECEIPTS: u16 = 4;
    pub(super) const ENROL: u16 = 5;
    pub(super) const ANNOUNCE: u16 = 6;
    pub(super) const PRESENCE: u16 = 7;
    pub(super) const PROGRESS: u16 = 8;
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
        Request::Receipts(envelopes) => frame(kind::RECEIPTS, envelopes, limits),
        Request::Enrol(bytes) => frame(kind::ENROL, bytes, limits),
        Request::Announce(announce) => frame(kind::ANNOUNCE, announce, limits),
        Request::Presence(presence) => frame(kind::PRESENCE, presence, limits),
        Request::Progress(entries) => frame(kind::PROGRESS, entries, limits),
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
        Answer::Receipts(answer) => frame(kind::ANSWER | kind::RECEIPTS, answer, limits),
        Answer::Enrol(bytes) => frame(kind::ANSWER | kind::ENROL, bytes, limits),
        Answer::Announce(answer) => frame(kind::ANSWER | kind::ANNOUNCE, answer, limits),
        Answer::Presence => frame(kind::ANSWER | kind::PRESENCE, &(), limits),
        Answer::Progress => frame(kind::ANSWER | kind::PROGRESS, &(), limits),
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
        kind::RECEIPTS => Request::Receipts(receipts::within(payload("receipts", message, limits)?, limits)?),
        kind::ENROL => Request::Enrol(payload("an enrolment request", message, limits)?),
        kind::ANNOUNCE => Request::Announce(payload::<Announce>("an announcement", message, limits)?.within(limits)?),
        kind::PRESENCE => Request::Presence(payload::<Presence>("presence", message, limits)?.within(limits)?),
        kind::PROGRESS => Request::Progress(tiers::within(payload("progress", message, limits)?, limits)?),
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
            let answer: OfferAnswer = payload("an answer to an offer", message, limits)?;
            Answer::Offer(answer.within(limits)?)
        }
        kind::FETCH => Answer::Fetch(payload("an answer to a fetch", message, limits)?),
        kind::RECEIPTS => {
            let answer: ReceiptsAnswer = payload("an answer to receipts", message, limits)?;
            Answer::Receipts(answer.within(limits)?)
        }
        kind::ENROL => Answer::Enrol(payload("an answer to an enrolment request", message, limits)?),
        kind::ANNOUNCE => {
            let answer: AnnounceAnswer = payload("an answer to an announcement", message, limits)?;
            Answer::Announce(answer.within(limits)?)
        }
        kind::PRESENCE => {
            payload::<()>("an acknowledgement", message, limits)?;
            Answer::Presence
        }
        kind::PROGRESS => {
            payload::<()>("an acknowledgement", message, limits)?;
            Answer::Progress
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
mod tests;
