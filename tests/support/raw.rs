//! A Subscriber's place on the wire without a Subscriber: a connection with its real keys, on which a test says what it
//! likes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ted_core::id::KeyHash;
use ted_core::limits::Limits;
use ted_core::protocol::{
    Answer, BlockEvent, BlockReader, Message, MessageReader, Refused, Request, decode_answer, encode_request,
};
use ted_core::security::{Alpn, DistributorRoot, FleetRole, FleetTrust, Identity, TrustPolicy, Usage};
use ted_core::store::{NodeRole, SecurityDir};
use ted_core::transport::{Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection, RecvHalf, SendHalf};

/// Trusts one Distributor, as a Subscriber of it.
pub struct Trusts(pub DistributorRoot);

impl TrustPolicy for Trusts {
    fn fleets(&self) -> Vec<FleetTrust> {
        vec![FleetTrust { root: self.0.clone(), role: FleetRole::Subscriber }]
    }

    fn is_registered(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }

    fn is_revoked(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }
}

/// The Distributor that a Subscriber's data directory trusts, and the Subscriber's identity in its fleet.
pub fn identity(data: &Path) -> (DistributorRoot, Identity) {
    let security = SecurityDir::open(&data.join("security"), NodeRole::Subscriber).expect("a security folder");
    let root = security.trusted_roots().expect("readable").0.remove(0).root;
    let keystore = security.load_keystore().expect("a keystore");
    let identity = keystore.identity(&root.key_hash(), Usage::SubscriberIdentity).expect("it is enrolled");
    (root, identity)
}

/// A connection as the Subscriber whose data directory this is. The endpoint has to live as long.
pub async fn dial(data: &Path, address: SocketAddr) -> (Endpoint, QuicConnection) {
    let (root, identity) = identity(data);
    let fleet = root.key_hash();
    let options = EndpointOptions::new(
        Arc::new(Trusts(root.clone())),
        vec![FleetIdentity { fleet: root.key_hash(), identity: Some(identity) }],
    );
    let endpoint = Endpoint::dial_only(options).expect("an endpoint");
    let connection = endpoint.dial(address, &fleet, Alpn::Ted1).await.expect("it is accepted");
    (endpoint, connection)
}

/// A connection as somebody who is nobody yet, on which only an enrolment is answered.
pub async fn dial_to_enrol(root: DistributorRoot, address: SocketAddr) -> (Endpoint, QuicConnection) {
    let fleet = root.key_hash();
    let options = EndpointOptions::new(
        Arc::new(Trusts(root.clone())),
        vec![FleetIdentity { fleet: root.key_hash(), identity: None }],
    );
    let endpoint = Endpoint::dial_only(options).expect("an endpoint");
    let connection = endpoint.dial(address, &fleet, Alpn::Enrol1).await.expect("it is accepted");
    (endpoint, connection)
}

/// What came back for one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Answer(Answer),
    /// The stream was given up without an answer.
    Dropped,
    /// An answered Fetch: the whole length, the bytes, and how it ended.
    Content {
        total_bytes: u64,
        bytes: Vec<u8>,
        end: Result<(), Refused>,
    },
}

pub async fn ask(connection: &QuicConnection, request: &Request) -> Reply {
    ask_bytes(connection, encode_request(request, &Limits::DEFAULT).expect("short enough")).await
}

/// Says exactly these bytes on a stream of its own, and reads all that comes back.
pub async fn ask_bytes(connection: &QuicConnection, bytes: Vec<u8>) -> Reply {
    let (mut send, mut recv) = connection.open().await.expect("a stream");
    send.write(Bytes::from(bytes)).await.expect("written");
    send.finish().expect("finished");
    let mut all = VecDeque::new();
    loop {
        match recv.read_chunks().await {
            Ok(Some(chunks)) => all.extend(chunks),
            Ok(None) => break,
            Err(_) => return Reply::Dropped,
        }
    }
    let all: Vec<u8> = all.into_iter().flatten().collect();
    read(&all)
}

fn read(bytes: &[u8]) -> Reply {
    let mut rest = bytes;
    let limits = Limits::DEFAULT;
    let Ok(Some(message)) = MessageReader::new(&limits).push(&mut rest) else { return Reply::Dropped };
    match decode_answer(&message, &limits).expect("an answer") {
        Answer::Fetch(answer) => {
            let (mut bytes, mut blocks) = (vec![], BlockReader::new(&limits));
            let end = loop {
                match blocks.next(&mut rest).expect("blocks") {
                    Some(BlockEvent::Data(data)) => bytes.extend_from_slice(data),
                    Some(BlockEvent::Waiting) => {}
                    Some(BlockEvent::End) => break Ok(()),
                    Some(BlockEvent::Error(refused)) => break Err(refused),
                    None => panic!("the answer ends without an end"),
                }
            };
            Reply::Content { total_bytes: answer.total_bytes, bytes, end }
        }
        answer => Reply::Answer(answer),
    }
}

/// The one message that the other side says first on a stream.
pub async fn read_message<R: RecvHalf>(recv: &mut R) -> Option<Message> {
    let mut reader = MessageReader::new(&Limits::DEFAULT);
    loop {
        for chunk in recv.read_chunks().await.ok()?? {
            let mut rest: &[u8] = &chunk;
            if let Some(message) = reader.push(&mut rest).ok()? {
                return Some(message);
            }
        }
    }
}
