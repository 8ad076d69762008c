//! Coming to trust a Distributor, and enrolling with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::model::Endpoint;
use crate::name::NodeName;
use crate::node::{DialError, ExchangeError, ask, dial};
use crate::protocol::{Answer, Request};
use crate::security::{
    Alpn, Certificate, DistributorRoot, EnrolAnswer, EnrolRequest, HeldKey, Invite, Keystore, ParentHint, RootFile,
    SecretKey, Token, Usage,
};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{KnownDistributor, State, known_key, lock};
use crate::transport::{Connection, QuicConnection};

/// How long a Distributor may take to judge an enrolment request.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long a parent is asked again that has not heard yet that it is one, or is not connected itself: an invite may
/// be used the moment it is made.
const PARENT_PATIENCE: Duration = Duration::from_secs(30);

/// In which pauses.
const PARENT_AGAIN: Duration = Duration::from_millis(500);

/// The code of a node that is no parent as far as it has heard.
const NO_ENROLMENTS_HERE: &str = "TED-1306";

impl State {
    /// Puts a Distributor's certificate into `security/`, from where the first verified package takes it into the
    /// keystore. One that is in the keystore already changes nothing.
    pub(super) fn trust(self: &Arc<Self>, pem: &str) -> Result<NodeName, Error> {
        let file = RootFile::from_pem(pem)?;
        self.trust_file(&file)?;
        Ok(file.root.name().clone())
    }

    fn trust_file(self: &Arc<Self>, file: &RootFile) -> Result<(), Error> {
        if !self.security.trust()?.roots.iter().any(|trusted| trusted.root == file.root) {
            self.security.drop_root_file(file)?;
        }
        self.adopt_brought()?;
        self.hasten(&file.root.key_hash());
        Ok(())
    }

    /// Does what an invite says: trusts, and enrols with its token unless this node is enrolled already.
    pub(super) async fn accept_invite(self: &Arc<Self>, text: &str) -> Result<(NodeName, Enrolment), Error> {
        let invite = Invite::from_text(text)?;
        let there = self.name();
        if invite.node != there {
            return Err(
                SubscriberError::OtherName { data: self.data.path().to_owned(), there, asked: invite.node }.into()
            );
        }
        let (fleet, name) = (invite.distributor.key_hash(), invite.distributor.name().clone());
        let known = KnownDistributor { name: name.clone(), endpoints: invite.endpoints, parents: invite.parents };
        let (state, root, learned) = (self.clone(), invite.distributor.clone(), known.clone());
        let trusting = move || -> Result<bool, Error> {
            state.trust_file(&RootFile { root: root.clone(), replacement: None })?;
            let enrolled = state.is_enrolled(&fleet);
            if enrolled {
                state.records.put(&known_key(&fleet), &learned)?;
            }
            Ok(enrolled)
        };
        if tokio::task::spawn_blocking(trusting).await.map_err(|_| SubscriberError::Worker)?? {
            self.follow(&fleet);
            return Ok((name, Enrolment::Enrolled));
        }
        // The parents that the invite names are trusted to pass this on, and are noted once one of them did.
        lock(&self.invited).insert(fleet, known.parents.clone());
        let ways = self.ways_with(&fleet, &known);
        let enrolment = self.enrol(&fleet, &ways, Some(&invite.token), Some(known)).await;
        lock(&self.invited).remove(&fleet);
        Ok((name, enrolment?))
    }

    /// Notes where a Distributor is reached. The parents that are known stay.
    pub(super) fn know(&self, fleet: &KeyHash, name: &NodeName, endpoints: &[Endpoint]) -> Result<(), Error> {
        let before: Option<KnownDistributor> = self.records.get(&known_key(fleet))?;
        let parents = before.map(|known| known.parents).unwrap_or_default();
        let known = KnownDistributor { name: name.clone(), endpoints: endpoints.to_vec(), parents };
        Ok(self.records.put(&known_key(fleet), &known)?)
    }

    /// Whether this node has its certificates from a Distributor, and they hold.
    pub(super) fn is_enrolled(&self, fleet: &KeyHash) -> bool {
        let Ok(trust) = self.security.trust() else { return false };
        let identity = trust.keystore.identity(fleet, Usage::SubscriberIdentity);
        let now = self.clock.now();
        identity
            .is_some_and(|identity| now >= identity.certificate.not_before() && now < identity.certificate.not_after())
    }

    /// Asks for certificates at these endpoints, where the Distributor or a parent of this node is.
    pub(super) async fn enrol_at(
        self: &Arc<Self>,
        root: &DistributorRoot,
        endpoints: &[Endpoint],
        token: Option<&Token>,
    ) -> Result<Enrolment, Error> {
        let (fleet, name) = (root.key_hash(), root.name().clone());
        let state = self.clone();
        let finding = move || state.parents(&fleet);
        let parents = tokio::task::spawn_blocking(finding).await.map_err(|_| SubscriberError::Worker)?;
        let known = KnownDistributor { name: name.clone(), endpoints: endpoints.to_vec(), parents };
        let way = ParentHint { name, key: fleet, endpoints: endpoints.to_vec() };
        self.enrol(&fleet, &[way], token, Some(known)).await
    }

    /// Asks a Distributor for certificates because somebody wants it, and lets a Subscriber that runs go on at once.
    pub(super) async fn enrol(
        self: &Arc<Self>,
        fleet: &KeyHash,
        ways: &[ParentHint],
        token: Option<&Token>,
        learned: Option<KnownDistributor>,
    ) -> Result<Enrolment, Error> {
        let given_up = Instant::now() + PARENT_PATIENCE;
        let enrolment = loop {
            match self.enrol_once(fleet, ways, token, learned.clone()).await {
                Err(error) if hears_soon(&error) && Instant::now() < given_up => {
                    tracing::info!(code = error.code(), %error, "asked again until the parent knows");
                    tokio::time::sleep(PARENT_AGAIN).await;
                }
                answered => break answered?,
            }
        };
        self.follow(fleet);
        Ok(enrolment)
    }

    /// Asks a Distributor for certificates, once: itself, or through the first parent that passes it on. Nothing is
    /// written before the Distributor has answered; then what is `learned` is kept, and a Subscriber that runs goes on
    /// with it.
    pub(super) async fn enrol_once(
        self: &Arc<Self>,
        fleet: &KeyHash,
        ways: &[ParentHint],
        token: Option<&Token>,
        learned: Option<KnownDistributor>,
    ) -> Result<Enrolment, Error> {
        let (state, fleet) = (self.clone(), *fleet);
        let finding = move || state.trusted_root(&fleet);
        let root = tokio::task::spawn_blocking(finding).await.map_err(|_| SubscriberError::Worker)??;
        self.enrol_under(&root, ways, token, learned).await
    }

    /// The same under this certificate, which need not be trusted for more yet than for answering this.
    pub(super) async fn enrol_under(
        self: &Arc<Self>,
        root: &DistributorRoot,
        ways: &[ParentHint],
        token: Option<&Token>,
        learned: Option<KnownDistributor>,
    ) -> Result<Enrolment, Error> {
        let (root, fleet) = (root.clone(), root.key_hash());
        let name = root.name().clone();
        let answer = self.answer_of_any(&root, ways, token).await?;
        let state = self.clone();
        let keeping = move || state.keep_answer(&root, learned.as_ref(), answer);
        let enrolment = tokio::task::spawn_blocking(keeping).await.map_err(|_| SubscriberError::Worker)??;
        if enrolment == Enrolment::Enrolled {
            tracing::info!(distributor = %name, "enrolled");
        }
        self.events.emit(match &enrolment {
            Enrolment::Enrolled => SubscriberEvent::Enrolled { distributor: name },
            Enrolment::Pending { fingerprint } => {
                SubscriberEvent::EnrolmentPending { distributor: name, fingerprint: fingerprint.clone() }
            }
        });
        // Whoever asks again and again does not cut its own pause short.
        self.start_following(&fleet);
        Ok(enrolment)
    }

    /// Asks the peers that lead to a Distributor for certificates, one after the other, until one has its answer.
    async fn answer_of_any(
        self: &Arc<Self>,
        root: &DistributorRoot,
        ways: &[ParentHint],
        token: Option<&Token>,
    ) -> Result<EnrolAnswer, Error> {
        let endpoint = self.endpoint()?;
        let mut failed = None;
        for way in ways {
            let connection = match dial(&endpoint, &way.endpoints, &root.key_hash(), Alpn::Enrol1).await {
                Ok(connection) => connection,
                Err(error) => {
                    failed = Some(Error::from(not_reached(way, error)));
                    continue;
                }
            };
            let answer = self.ask_for_certificates(&connection, root, token.cloned()).await;
            connection.close(0, "the enrolment was answered");
            match answer {
                Err(error) if error.is_retryable() => failed = Some(error),
                answer => return answer,
            }
        }
        Err(failed.unwrap_or_else(|| SubscriberError::NoWayUp(root.name().clone()).into()))
    }

    /// Asks over a connection for certificates for this node's keys in a fleet.
    pub(super) async fn ask_for_certificates(
        self: &Arc<Self>,
        connection: &QuicConnection,
        root: &DistributorRoot,
        token: Option<Token>,
    ) -> Result<EnrolAnswer, Error> {
        let (state, of) = (self.clone(), root.clone());
        let making = move || state.make_request(&of, token.as_ref());
        let request = tokio::task::spawn_blocking(making).await.map_err(|_| SubscriberError::Worker)??;
        let refused = |reason: String| SubscriberError::EnrolmentRefused { name: root.name().clone(), reason };
        let answer = match ask(connection, &Request::Enrol(request.to_bytes()?), &Limits::DEFAULT, PATIENCE).await {
            Ok(Answer::Enrol(bytes)) => EnrolAnswer::from_bytes(&bytes)?,
            Ok(_) => return Err(refused("the answer does not fit the question".to_owned()).into()),
            Err(ExchangeError::Refused(why)) if why.is_retryable() => {
                let name = connection.peer().name.clone().unwrap_or_else(|| root.name().clone());
                return Err(SubscriberError::EnrolmentLater { name, reason: why.to_string() }.into());
            }
            Err(ExchangeError::Refused(why)) => return Err(refused(why.to_string()).into()),
            Err(error) => return Err(error.into()),
        };
        match answer {
            EnrolAnswer::Refused { code, reason } => Err(refused(format!("{code}: {reason}")).into()),
            answer => Ok(answer),
        }
    }

    fn keep_answer(
        &self,
        root: &DistributorRoot,
        learned: Option<&KnownDistributor>,
        answer: EnrolAnswer,
    ) -> Result<Enrolment, Error> {
        let enrolment = match answer {
            EnrolAnswer::Issued { identity, encryption } => {
                self.keep_issued(root, &identity, &encryption)?;
                Enrolment::Enrolled
            }
            EnrolAnswer::Pending { fingerprint } => Enrolment::Pending { fingerprint },
            EnrolAnswer::Refused { reason, .. } => {
                return Err(SubscriberError::EnrolmentRefused { name: root.name().clone(), reason }.into());
            }
        };
        if let Some(learned) = learned {
            self.records.put(&known_key(&root.key_hash()), learned)?;
        }
        Ok(enrolment)
    }

    /// The request, made of this node's keys for that fleet; they are made and kept first where there are none yet.
    pub(super) fn make_request(&self, root: &DistributorRoot, token: Option<&Token>) -> Result<EnrolRequest, Error> {
        let fleet = &root.key_hash();
        let kept = own_keys(&self.security.trust()?.keystore, fleet);
        let is_new = kept.is_none();
        let (identity, encryption) = match kept {
            Some(keys) => keys,
            None => self.security.change_keystore(|keystore| self.make_keys(keystore, fleet))?,
        };
        let request = EnrolRequest::make(&*self.crypto, &self.name(), &identity, &encryption, token)?;
        if is_new {
            let checked = request.check()?;
            self.security.write_request(root.name(), &checked.identity, None)?;
            self.security.write_request(root.name(), &checked.encryption, Some(&request.countersignature))?;
        }
        Ok(request)
    }

    fn make_keys(&self, keystore: &mut Keystore, fleet: &KeyHash) -> Result<(SecretKey, SecretKey), Error> {
        let mut make = |usage| -> Result<SecretKey, Error> {
            if let Some(kept) = own_key(keystore, fleet, usage) {
                return Ok(kept);
            }
            let key = self.crypto.generate_key()?;
            let name = self.name();
            keystore.hold(HeldKey { usage, distributor: *fleet, name, key: key.clone(), certificate: None });
            Ok(key)
        };
        Ok((make(Usage::SubscriberIdentity)?, make(Usage::SubscriberEncryption)?))
    }

    /// Takes certificates in that a Distributor issued for this node's keys, and shows them from now on.
    pub(super) fn keep_issued(&self, root: &DistributorRoot, identity: &[u8], encryption: &[u8]) -> Result<(), Error> {
        let unfit = |reason: &str| {
            Error::from(SubscriberError::UnfitCertificate { name: root.name().clone(), reason: reason.to_owned() })
        };
        let now = self.now(&root.key_hash());
        let mut issued = vec![];
        for (der, usage) in [(identity, Usage::SubscriberIdentity), (encryption, Usage::SubscriberEncryption)] {
            let certificate = Certificate::from_der(der)?;
            root.judge(&certificate, usage, now)?;
            if *certificate.name() != self.name() {
                return Err(unfit("they are for another name"));
            }
            issued.push(certificate);
        }
        // The operator and the daemon may have asked at the same time.
        let _one_at_a_time = lock(&self.keeping);
        self.security.change_keystore(|keystore| {
            let fit = issued.iter().all(|certificate| keystore.certify_in(&root.key_hash(), certificate));
            if fit { Ok(()) } else { Err(unfit("they are for another key")) }
        })?;
        for certificate in &issued {
            self.security.write_issued(root.name(), certificate)?;
        }
        self.show_identities()
    }
}

/// Why no connection came about, in this node's words.
/// Whether a parent will pass an enrolment on as soon as it has heard of it from above.
fn hears_soon(error: &Error) -> bool {
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(error) = cause {
        let later = matches!(error.downcast_ref(), Some(SubscriberError::EnrolmentLater { .. }));
        // Where the word came with the end of the connection, it is in the text alone.
        if later || error.to_string().contains(NO_ENROLMENTS_HERE) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn not_reached(way: &ParentHint, error: DialError) -> SubscriberError {
    let (name, DialError { reason, code }) = (way.name.clone(), error);
    if code.starts_with("TED-130") || code.starts_with("TED-11") || code == "TED-1314" {
        return SubscriberError::ConnectionRefused { name, code, reason };
    }
    let tried = way.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    SubscriberError::Unreachable { name, tried, reason }
}

/// This node's two keys in a fleet, if it has both.
fn own_keys(keystore: &Keystore, fleet: &KeyHash) -> Option<(SecretKey, SecretKey)> {
    let identity = own_key(keystore, fleet, Usage::SubscriberIdentity)?;
    Some((identity, own_key(keystore, fleet, Usage::SubscriberEncryption)?))
}

fn own_key(keystore: &Keystore, fleet: &KeyHash, usage: Usage) -> Option<SecretKey> {
    let held = keystore.held().iter().rev().find(|held| held.distributor == *fleet && held.usage == usage);
    held.map(|held| held.key.clone())
}
