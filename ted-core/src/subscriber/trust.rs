//! Coming to trust a Distributor, and enrolling with it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::model::Endpoint;
use crate::name::NodeName;
use crate::node::{DialError, ExchangeError, ask, dial};
use crate::protocol::{Answer, Request};
use crate::security::{
    Alpn, Certificate, DistributorRoot, EnrolAnswer, EnrolRequest, HeldKey, Invite, Keystore, RootFile, SecretKey,
    Token, Usage,
};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{KnownDistributor, State, known_key, lock};
use crate::transport::{Connection, QuicConnection};

/// How long a Distributor may take to judge an enrolment request.
const PATIENCE: Duration = Duration::from_secs(30);

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
        let (state, root, endpoints) = (self.clone(), invite.distributor.clone(), invite.endpoints.clone());
        let trusting = move || -> Result<bool, Error> {
            state.trust_file(&RootFile { root: root.clone(), replacement: None })?;
            let enrolled = state.is_enrolled(&fleet);
            if enrolled {
                state.know(&fleet, root.name(), &endpoints)?;
            }
            Ok(enrolled)
        };
        if tokio::task::spawn_blocking(trusting).await.map_err(|_| SubscriberError::Worker)?? {
            self.follow(&fleet);
            return Ok((name, Enrolment::Enrolled));
        }
        Ok((name, self.enrol(&fleet, &invite.endpoints, Some(&invite.token)).await?))
    }

    /// Notes where a Distributor is reached.
    pub(super) fn know(&self, fleet: &KeyHash, name: &NodeName, endpoints: &[Endpoint]) -> Result<(), Error> {
        let known = KnownDistributor { name: name.clone(), endpoints: endpoints.to_vec() };
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

    /// Asks a Distributor for certificates because somebody wants it, and lets a Subscriber that runs go on at once.
    pub(super) async fn enrol(
        self: &Arc<Self>,
        fleet: &KeyHash,
        endpoints: &[Endpoint],
        token: Option<&Token>,
    ) -> Result<Enrolment, Error> {
        let enrolment = self.enrol_once(fleet, endpoints, token).await?;
        self.follow(fleet);
        Ok(enrolment)
    }

    /// Asks a Distributor for certificates, once. Nothing is written before the Distributor has proved who it is; what
    /// it answers to is kept, and a Subscriber that runs goes on with it.
    pub(super) async fn enrol_once(
        self: &Arc<Self>,
        fleet: &KeyHash,
        endpoints: &[Endpoint],
        token: Option<&Token>,
    ) -> Result<Enrolment, Error> {
        let (state, fleet) = (self.clone(), *fleet);
        let finding = move || state.trusted_root(&fleet);
        let root = tokio::task::spawn_blocking(finding).await.map_err(|_| SubscriberError::Worker)??;
        self.enrol_under(&root, endpoints, token).await
    }

    /// The same under this certificate, which need not be trusted for more yet than for answering this.
    pub(super) async fn enrol_under(
        self: &Arc<Self>,
        root: &DistributorRoot,
        endpoints: &[Endpoint],
        token: Option<&Token>,
    ) -> Result<Enrolment, Error> {
        let (root, fleet, token) = (root.clone(), root.key_hash(), token.cloned());
        let name = root.name().clone();
        let endpoint = self.endpoint()?;
        let connection = dial(&endpoint, endpoints, &fleet, Alpn::Enrol1).await;
        let connection = connection.map_err(|error| not_reached(&name, endpoints, error))?;
        let answer = self.ask_for_certificates(&connection, &root, token).await;
        connection.close(0, "the enrolment was answered");
        let answer = answer?;
        let (state, endpoints) = (self.clone(), endpoints.to_vec());
        let keeping = move || state.keep_answer(&root, &endpoints, answer);
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
        endpoints: &[Endpoint],
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
        self.know(&root.key_hash(), root.name(), endpoints)?;
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
fn not_reached(name: &NodeName, endpoints: &[Endpoint], error: DialError) -> SubscriberError {
    let (name, DialError { reason, code }) = (name.clone(), error);
    if code.starts_with("TED-130") || code.starts_with("TED-11") || code == "TED-1314" {
        return SubscriberError::ConnectionRefused { name, code, reason };
    }
    let tried = endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
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
