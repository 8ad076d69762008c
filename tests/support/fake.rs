//! A Distributor that lies: it has the keys of a real one, and serves and states whatever a test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ted_core::error::Coded as _;
use ted_core::id::{DistributionId, EnvelopeId, FiringId, InstanceId, KeyHash, PackageId, Revision, UnixMillis};
use ted_core::limits::Limits;
use ted_core::model::Priority;
use ted_core::node::{Clock, SystemClock};
use ted_core::package::{PackageError, PackageIndex, Root, read_index};
use ted_core::protocol::{
    Announce, AnnounceAnswer, Announced, Answer, FetchAnswer, FetchTarget, Hello, Offer, OfferAnswer, PROTOCOL_VERSION,
    ReceiptsAnswer, Refused, Request, code, data_header, decode_request, encode_answer, end_block,
};
use ted_core::security::{
    Authority, AwsLc, Carried, Envelope, EnvelopeBody, EnvelopeKind, FleetRole, FleetTrust, Identity, PackageRef,
    Receipt, ReleaseStatement, Signature, Stage, TrustPolicy, Usage,
};
use ted_core::store::{NodeRole, SecurityDir};
use ted_core::transport::{Connection, Endpoint, EndpointOptions, FleetIdentity, QuicConnection, SendHalf};
use tokio::sync::mpsc;

use super::raw::{Reply, ask, read_message};
use super::{find, within};

/// What is done to the bytes of a served range before they leave.
pub type Alter = Box<dyn Fn(Range<u64>, Vec<u8>) -> Vec<u8> + Send + Sync>;

/// Trusts everybody who is of the fleet.
struct Everybody(Authority);

impl TrustPolicy for Everybody {
    fn fleets(&self) -> Vec<FleetTrust> {
        vec![FleetTrust { root: self.0.root().clone(), role: FleetRole::Distributor }]
    }

    fn is_registered(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        true
    }

    fn is_revoked(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }
}

/// A package of the real Distributor.
pub struct Package {
    pub bytes: Vec<u8>,
    pub index: PackageIndex,
}

impl Package {
    /// The one package below a data directory.
    pub fn of(data: &Path) -> Self {
        let files = find(data, "distfile.ted");
        let bytes = std::fs::read(files.last().expect("a package was built")).expect("readable");
        let mut judge = |_: &Root, _: &[u8], _: &Signature| Ok::<(), PackageError>(());
        let index = read_index(&bytes, &Limits::DEFAULT, &mut judge).expect("whole");
        Self { bytes, index }
    }

    pub fn reference(&self) -> PackageRef {
        let carried = Carried::Baseline { revision: self.index.root().revision };
        PackageRef { id: self.index.id(), carried, bytes: self.bytes.len() as u64 }
    }

    pub fn release(&self) -> ReleaseStatement {
        ReleaseStatement {
            distribution: self.index.root().distribution,
            revision: self.index.root().revision,
            packages: vec![self.reference()],
            extensions: vec![],
        }
    }
}

struct Shared {
    package: PackageId,
    bytes: Vec<u8>,
    alter: Alter,
    envelopes: Mutex<HashMap<EnvelopeId, Vec<u8>>>,
    grants: Mutex<HashMap<EnvelopeId, Vec<u8>>>,
    receipts: mpsc::UnboundedSender<Receipt>,
    served: AtomicU64,
}

/// The liar, connected to one Subscriber.
pub struct Fake {
    connection: QuicConnection,
    signing: Identity,
    distributor: KeyHash,
    shared: Arc<Shared>,
    receipts: mpsc::UnboundedReceiver<Receipt>,
    sequence: AtomicU64,
    _endpoint: Endpoint,
}

/// The keys of the Distributor whose data directory this is: authority, signing key, TLS key.
pub fn keys(data: &Path) -> (Authority, Identity, Identity) {
    let security = SecurityDir::open(&data.join("security"), NodeRole::Distributor).expect("a security folder");
    let keystore = security.load_keystore().expect("a keystore");
    let authority = keystore.authority().expect("a Distributor's");
    let fleet = authority.root().key_hash();
    let own = |usage| keystore.identity(&fleet, usage).expect("it was issued");
    (authority, own(Usage::Sign), own(Usage::DistributorTls))
}

/// Listens as the Distributor of this authority, showing that certificate.
///
/// The socket of one that was shut down goes a moment after it.
pub async fn listen_as(authority: Authority, tls: Identity, address: SocketAddr) -> Endpoint {
    let fleet = FleetIdentity { fleet: authority.root().key_hash(), identity: Some(tls) };
    within("the address to be free", async {
        loop {
            let options = EndpointOptions::new(Arc::new(Everybody(authority.clone())), vec![fleet.clone()]);
            match Endpoint::bind_with(address, options) {
                Err(error) if error.code() == "TED-1320" => tokio::task::yield_now().await,
                bound => return bound.expect("it listens"),
            }
        }
    })
    .await
}

impl Fake {
    /// Takes the place of the stopped Distributor whose data directory this is, and waits for a Subscriber to dial.
    pub async fn meet(data: &Path, address: SocketAddr, package: &Package, alter: Alter) -> Self {
        let (authority, signing, tls) = keys(data);
        let distributor = authority.root().key_hash();
        let endpoint = listen_as(authority, tls, address).await;
        let incoming = within("a Subscriber", endpoint.accept()).await.expect("open");
        let connection = incoming.judge().await.expect("it is of the fleet");
        let (receipts_in, receipts) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            package: package.index.id(),
            bytes: package.bytes.clone(),
            alter,
            envelopes: Mutex::default(),
            grants: Mutex::default(),
            receipts: receipts_in,
            served: AtomicU64::new(0),
        });
        tokio::spawn(serve(connection.clone(), shared.clone()));
        let sequence = AtomicU64::new(SystemClock.now().millis());
        Self { connection, signing, distributor, shared, receipts, sequence, _endpoint: endpoint }
    }

    /// Signs a statement that holds from `issued` for `life`, as the body is after `change`.
    pub fn state(
        &self,
        release: &ReleaseStatement,
        issued: UnixMillis,
        life: Duration,
        change: impl FnOnce(&mut EnvelopeBody),
    ) -> EnvelopeId {
        let mut body = EnvelopeBody {
            kind: EnvelopeKind::RELEASE_STATEMENT,
            distributor: self.distributor,
            issuer: self.signing.certificate.key_hash(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            issued,
            expires: issued.plus(life),
            payload: release.to_payload().expect("short enough"),
        };
        change(&mut body);
        let envelope = Envelope::seal(&AwsLc, &self.signing, body).expect("sealed");
        self.hand_out(envelope.id(), envelope.to_bytes().to_vec())
    }

    /// Hands these bytes out under that id, whatever they are.
    pub fn hand_out(&self, id: EnvelopeId, bytes: Vec<u8>) -> EnvelopeId {
        self.shared.envelopes.lock().expect("whole").insert(id, bytes);
        id
    }

    /// Announces these bytes under that id, and hands them out.
    pub async fn announce(&self, kind: EnvelopeKind, id: EnvelopeId, bytes: Vec<u8>) -> AnnounceAnswer {
        let announced = Announced { kind, id, sequence: 1, bytes: bytes.len() as u64 };
        self.hand_out(id, bytes);
        let request = Request::Announce(Announce { recipient: None, envelopes: vec![announced] });
        match within("an answer to the announcement", ask(&self.connection, &request)).await {
            Reply::Answer(Answer::Announce(answer)) => answer,
            other => panic!("an announcement was answered with {other:?}"),
        }
    }

    /// Hands these bytes out to whoever asks for a grant that the envelope counts.
    pub fn hand_out_grant(&self, grants: EnvelopeId, bytes: Vec<u8>) {
        self.shared.grants.lock().expect("whole").insert(grants, bytes);
    }

    pub async fn offer(&self, firing: u8, distribution: DistributionId, statement: EnvelopeId) -> OfferAnswer {
        self.offer_with(firing, distribution, statement, vec![]).await
    }

    pub async fn offer_with(
        &self,
        firing: u8,
        distribution: DistributionId,
        statement: EnvelopeId,
        grants: Vec<(PackageId, EnvelopeId)>,
    ) -> OfferAnswer {
        let firing = FiringId::from_bytes([firing; 16]);
        let recipients = vec![self.connection.peer().key.expect("a Subscriber")];
        let priority = Priority::Medium;
        let offer = Offer { firing, distribution, priority, statement, grants, recipients, closes: None };
        match within("an answer to the offer", ask(&self.connection, &Request::Offer(offer))).await {
            Reply::Answer(Answer::Offer(answer)) => answer,
            other => panic!("an offer was answered with {other:?}"),
        }
    }

    /// States `release` as of now and offers it.
    pub async fn state_and_offer(&self, firing: u8, release: &ReleaseStatement) -> OfferAnswer {
        let statement = self.state(release, SystemClock.now(), Duration::from_secs(3600), |_| {});
        self.offer(firing, release.distribution, statement).await
    }

    pub async fn receipt(&mut self) -> Receipt {
        within("a receipt", self.receipts.recv()).await.expect("the connection lives")
    }

    /// The next receipt of this stage.
    pub async fn receipt_of(&mut self, stage: Stage) -> Receipt {
        loop {
            let receipt = self.receipt().await;
            if receipt.stage == stage {
                return receipt;
            }
        }
    }

    /// Bytes of the package that were handed out.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }
}

async fn serve(connection: QuicConnection, shared: Arc<Shared>) {
    while let Ok((mut send, mut recv)) = connection.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let limits = Limits::DEFAULT;
            let Some(message) = read_message(&mut recv).await else { return };
            let request = decode_request(&message, &limits).expect("a Subscriber speaks the protocol");
            let (answer, content) = answer(&shared, request);
            let mut out = encode_answer(&answer, &limits).expect("short enough");
            for block in content.iter().flat_map(|content| content.chunks(limits.block_bytes_max as usize)) {
                out.extend_from_slice(&data_header(block.len() as u32));
                out.extend_from_slice(block);
            }
            if content.is_some() {
                out.extend_from_slice(&end_block());
            }
            // A Subscriber that has heard enough stops the stream.
            let _ = send.write(Bytes::from(out)).await;
            let _ = send.finish();
        });
    }
}

fn answer(shared: &Shared, request: Request) -> (Answer, Option<Vec<u8>>) {
    match request {
        Request::Hello(_) => (Answer::Hello(hello()), None),
        Request::Receipts(envelopes) => {
            for bytes in envelopes {
                let envelope = Envelope::from_bytes(&bytes).expect("an envelope");
                let receipt = Receipt::from_payload(&envelope.body().payload).expect("a receipt");
                let _ = shared.receipts.send(receipt);
            }
            (Answer::Receipts(ReceiptsAnswer::default()), None)
        }
        Request::Fetch(fetch) => match fetch.target {
            FetchTarget::Package(id) if id == shared.package => {
                let total_bytes = shared.bytes.len() as u64;
                let (from, to) = (fetch.from.min(total_bytes), fetch.to.min(total_bytes));
                let bytes = (shared.alter)(from..to, shared.bytes[from as usize..to as usize].to_vec());
                shared.served.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                (Answer::Fetch(FetchAnswer { total_bytes }), Some(bytes))
            }
            FetchTarget::Envelope(id) => match shared.envelopes.lock().expect("whole").get(&id) {
                Some(bytes) => (Answer::Fetch(FetchAnswer { total_bytes: bytes.len() as u64 }), Some(bytes.clone())),
                None => (Answer::Refused(Refused::new(code::NOT_FOUND, "not here")), None),
            },
            FetchTarget::Grant { grants, .. } => match shared.grants.lock().expect("whole").get(&grants) {
                Some(bytes) => (Answer::Fetch(FetchAnswer { total_bytes: bytes.len() as u64 }), Some(bytes.clone())),
                None => (Answer::Refused(Refused::new(code::NOT_ENTITLED, "not yours")), None),
            },
            FetchTarget::Package(_) => (Answer::Refused(Refused::new(code::NOT_FOUND, "not here")), None),
        },
        _ => (Answer::Refused(Refused::new(code::BAD_REQUEST, "not answered here")), None),
    }
}

fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        node: "dist.example".parse().expect("a node name"),
        instance: InstanceId::from_bytes([9; 16]),
        clock: SystemClock.now(),
        capabilities: vec![],
        extensions: vec![],
    }
}

/// Damages the byte at `at` of the package, if it is in the range.
pub fn flip(range: &Range<u64>, bytes: &mut [u8], at: u64) {
    if range.contains(&at) {
        bytes[(at - range.start) as usize] ^= 1;
    }
}

/// A later revision in the statement's name, of the same package.
pub fn revision(number: u64) -> Revision {
    Revision::from_number(number)
}
