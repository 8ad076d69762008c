//! A Subscriber as the Distributor sees one: its own keys, a connection, and the whole protocol on it. It keeps nothing
//! on disk, and what it received only as long as it takes to verify it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ted_core::id::{InstanceId, KeyHash, PackageId, UnixMillis};
use ted_core::name::NodeName;
use ted_core::package::{PackageError, ROOT_CONTEXT, Root, package_id, read_index, verify_body};
use ted_core::protocol::{
    AnnounceAnswer, Answer, FetchTarget, Hello, Offer, OfferAnswer, PROTOCOL_VERSION, Refused, Request, decode_request,
    encode_answer,
};
use ted_core::security::{
    Alpn, AwsLc, Certificate, Crypto as _, DistributorRoot, EnrolAnswer, EnrolRequest, Envelope, EnvelopeBody,
    EnvelopeKind, FleetRole, FleetTrust, HeldCertificate, HeldIn, Identity, Receipt, ReleaseStatement, Signature,
    Stage, Token, TrustPolicy, Usage,
};
use ted_core::transport::{Connection as _, Endpoint, EndpointOptions, QuicConnection, SendHalf as _};
use tokio::sync::Notify;

use crate::Failure;
use crate::exchange::{LIMITS, ask, fetch, read_message};

const RECEIPT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What all nodes share.
pub(crate) struct Fleet {
    pub(crate) root: DistributorRoot,
    pub(crate) address: SocketAddr,
    pub(crate) counts: Counts,
}

/// What the nodes did so far.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) announcements: AtomicU64,
    pub(crate) offers: AtomicU64,
    pub(crate) package_bytes: AtomicU64,
    /// Receipts that were acknowledged.
    pub(crate) receipts: AtomicU64,
    /// Nodes whose receipt about an extraction was acknowledged, counted anew for each firing.
    pub(crate) extracted: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Attempts to connect that failed and were made again.
    pub(crate) retries: AtomicU64,
    pub(crate) changed: Notify,
}

impl Counts {
    fn add(&self, to: &AtomicU64, count: u64) {
        to.fetch_add(count, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn fail(&self, what: &str, error: &Failure) {
        // Thousands of the same would say no more.
        if self.failures.fetch_add(1, Ordering::Relaxed) < 10 {
            eprintln!("{what}: {error}");
        }
        self.changed.notify_one();
    }
}

/// Trusts the one Distributor.
struct Policy(DistributorRoot);

impl TrustPolicy for Policy {
    fn fleets(&self) -> Vec<FleetTrust> {
        vec![FleetTrust { root: self.0.clone(), role: FleetRole::Subscriber }]
    }

    fn is_registered(&self, _: &KeyHash, _: &KeyHash) -> bool {
        false
    }

    fn is_revoked(&self, _: &KeyHash, _: &KeyHash) -> bool {
        false
    }
}

pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// An endpoint that some hundreds of nodes dial from.
pub(crate) fn endpoint(fleet: &Fleet) -> Result<Endpoint, Failure> {
    Ok(Endpoint::dial_only(EndpointOptions::new(Arc::new(Policy(fleet.root.clone())), vec![]))?)
}

/// A node that has enrolled.
pub(crate) struct Node {
    name: NodeName,
    identity: Identity,
}

impl Node {
    /// Makes keys, asks for certificates with a token, and checks what comes back.
    pub(crate) async fn enrol(
        fleet: &Fleet,
        endpoint: &Endpoint,
        name: NodeName,
        token: &Token,
    ) -> Result<Self, Failure> {
        let (identity, encryption) = (AwsLc.generate_key()?, AwsLc.generate_key()?);
        let request = EnrolRequest::make(&AwsLc, &name, &identity, &encryption, Some(token))?;
        let connection = endpoint.dial(fleet.address, &fleet.root.key_hash(), Alpn::Enrol1).await?;
        let answer = ask(&connection, &Request::Enrol(request.to_bytes()?)).await?;
        connection.close(0, "enrolled");
        let Answer::Enrol(bytes) = answer else { return Err("no answer to an enrolment".into()) };
        let EnrolAnswer::Issued { identity: issued, .. } = EnrolAnswer::from_bytes(&bytes)? else {
            return Err("the token did not suffice".into());
        };
        let certificate = Certificate::from_der(&issued)?;
        fleet.root.judge(&certificate, Usage::SubscriberIdentity, now())?;
        Ok(Self { name, identity: Identity { certificate, key: identity } })
    }

    /// Connects, greets, and answers from then on until the connection ends.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        fleet: &Arc<Fleet>,
        endpoint: &Endpoint,
    ) -> Result<QuicConnection, Failure> {
        let connection = endpoint.dial_as(fleet.address, &fleet.root.key_hash(), &self.identity).await?;
        let Answer::Hello(_) = ask(&connection, &Request::Hello(self.hello(fleet)?)).await? else {
            return Err("no greeting".into());
        };
        let (node, fleet, held) = (self.clone(), fleet.clone(), connection.clone());
        tokio::spawn(async move {
            while let Ok((send, recv)) = held.accept().await {
                let (node, fleet, connection) = (node.clone(), fleet.clone(), held.clone());
                tokio::spawn(async move {
                    if let Err(error) = node.answer(&fleet, &connection, send, recv).await {
                        fleet.counts.fail("an answer", &error);
                    }
                });
            }
        });
        Ok(connection)
    }

    /// As a Subscriber greets that has verified a package before: its Distributor's certificate is in its keystore.
    fn hello(&self, fleet: &Fleet) -> Result<Hello, Failure> {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            node: self.name.clone(),
            instance: InstanceId::from_bytes([7; 16]),
            clock: now(),
            capabilities: vec![],
            extensions: vec![],
        };
        let (thumbprint, name) = (fleet.root.certificate().thumbprint_bytes(), fleet.root.name().clone());
        Ok(hello.holding(&HeldCertificate { held_in: HeldIn::Keystore, thumbprint, name }, &LIMITS)?)
    }

    async fn answer(
        self: &Arc<Self>,
        fleet: &Arc<Fleet>,
        connection: &QuicConnection,
        mut send: ted_core::transport::QuicSend,
        mut recv: ted_core::transport::QuicRecv,
    ) -> Result<(), Failure> {
        let (message, _) = read_message(&mut recv).await?;
        let mut accepted = None;
        let answer = match decode_request(&message, &LIMITS)? {
            Request::Announce(announce) => {
                let mut holds = vec![];
                for announced in announce.envelopes {
                    self.envelope(fleet, connection, FetchTarget::Envelope(announced.id)).await?;
                    holds.push(announced.id);
                }
                fleet.counts.add(&fleet.counts.announcements, 1);
                Answer::Announce(AnnounceAnswer { holds, refused: vec![] })
            }
            Request::Offer(offer) => {
                fleet.counts.add(&fleet.counts.offers, 1);
                let statement = self.envelope(fleet, connection, FetchTarget::Envelope(offer.statement)).await?;
                statement.expect_kind(EnvelopeKind::RELEASE_STATEMENT)?;
                let statement = ReleaseStatement::from_payload(&statement.body().payload)?;
                let package = statement.baseline().ok_or("the statement names no baseline")?.id;
                accepted = Some((offer, statement));
                Answer::Offer(OfferAnswer::Want { packages: vec![package] })
            }
            _ => Answer::Refused(Refused::new("TED-1341", "a simulated node does not answer this")),
        };
        send.write(Bytes::from(encode_answer(&answer, &LIMITS)?)).await?;
        send.finish()?;
        match accepted {
            Some((offer, statement)) => self.receive(fleet, connection, offer, statement).await,
            None => Ok(()),
        }
    }

    /// Fetches an envelope and verifies it.
    async fn envelope(
        &self,
        fleet: &Fleet,
        connection: &QuicConnection,
        target: FetchTarget,
    ) -> Result<Envelope, Failure> {
        let bytes = fetch(connection, target, LIMITS.envelope_bytes_max).await?;
        let envelope = Envelope::from_bytes(&bytes)?;
        if target != FetchTarget::Envelope(envelope.id()) {
            return Err("another envelope than was asked for".into());
        }
        envelope.verify(&fleet.root, now())?;
        Ok(envelope)
    }

    async fn receive(
        &self,
        fleet: &Arc<Fleet>,
        connection: &QuicConnection,
        offer: Offer,
        statement: ReleaseStatement,
    ) -> Result<(), Failure> {
        let package = *statement.baseline().ok_or("the statement names no baseline")?;
        let bytes = fetch(connection, FetchTarget::Package(package.id), package.bytes).await?;
        fleet.counts.add(&fleet.counts.package_bytes, bytes.len() as u64);
        let root = fleet.root.clone();
        tokio::task::spawn_blocking(move || verify(&bytes, &root, package.id)).await??;
        for stage in [Stage::Received, Stage::Verified, Stage::Extracted] {
            let receipt = Receipt {
                firing: Some(offer.firing),
                distribution: statement.distribution,
                revision: statement.revision,
                package: Some(package.id),
                stage,
                code: None,
                detail: String::new(),
                at: now(),
            };
            let body = EnvelopeBody {
                kind: EnvelopeKind::RECEIPT,
                distributor: fleet.root.key_hash(),
                issuer: self.identity.certificate.key_hash(),
                sequence: now().millis(),
                issued: now(),
                expires: now().plus(RECEIPT_LIFE),
                payload: receipt.to_payload()?,
            };
            let envelope = Envelope::seal(&AwsLc, &self.identity, body)?;
            let receipts = Request::Receipts(vec![envelope.to_bytes().to_vec()]);
            let Answer::Receipts(_) = ask(connection, &receipts).await? else {
                return Err("a receipt was not acknowledged".into());
            };
            fleet.counts.add(&fleet.counts.receipts, 1);
        }
        fleet.counts.add(&fleet.counts.extracted, 1);
        Ok(())
    }
}

/// Verifies a package whole: its root's signature and id, its table, its catalog, every frame and every file.
fn verify(bytes: &[u8], root: &DistributorRoot, id: PackageId) -> Result<(), Failure> {
    let mut found_id = None;
    let judge = |found: &Root, root_bytes: &[u8], signature: &Signature| -> Result<(), Failure> {
        found_id = Some(package_id(root_bytes));
        root.verify(ROOT_CONTEXT, root_bytes, signature, Usage::Sign, found.created)?;
        Ok(())
    };
    let source = Bytes::copy_from_slice(bytes);
    let index = read_index::<Failure, ()>(&source, &LIMITS, judge)?;
    if found_id != Some(id) {
        return Err("another package than was stated".into());
    }
    verify_body(&index, &source, 1, &|_| {}).map_err(|error: PackageError| error.into())
}
