//! Coming to trust a Distributor, and enrolling with it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::model::Endpoint;
use crate::name::NodeName;
use crate::node::{ask, dial};
use crate::protocol::{Answer, Request};
use crate::security::{Alpn, Certificate, DistributorRoot, EnrolAnswer, EnrolRequest, HeldKey, Invite, Token, Usage};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{KnownDistributor, State, known_key, lock};
use crate::transport::Connection;

/// How long a Distributor may take to judge an enrolment request.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a node that waits for approval pauses before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

impl State {
    /// Puts a Distributor's certificate into `security/`, from where the first verified package takes it into the
    /// keystore.
    pub(super) fn trust(&self, pem: &str) -> Result<NodeName, Error> {
        let root = DistributorRoot::try_from(Certificate::from_pem(pem)?)?;
        self.security.drop_certificate(&root)?;
        Ok(root.name().clone())
    }

    /// Does what an invite says, but for the network part: trusts, and notes where the Distributor is reached.
    pub(super) fn accept_invite(&self, invite: &Invite) -> Result<KeyHash, Error> {
        self.security.drop_certificate(&invite.distributor)?;
        let key = invite.distributor.key_hash();
        self.know(&key, invite.distributor.name(), &invite.endpoints)?;
        Ok(key)
    }

    pub(super) fn know(&self, fleet: &KeyHash, name: &NodeName, endpoints: &[Endpoint]) -> Result<(), Error> {
        let known = KnownDistributor { name: name.clone(), endpoints: endpoints.to_vec() };
        Ok(self.records.put(&known_key(fleet), &known)?)
    }

    /// Whether this node has its certificates from a Distributor, and they hold.
    pub(super) fn is_enrolled(&self, fleet: &KeyHash) -> bool {
        let identity = lock(&self.keystore).identity(fleet, Usage::SubscriberIdentity);
        identity.is_some_and(|identity| self.clock.now() < identity.certificate.not_after())
    }

    /// Asks a Distributor for certificates, once.
    pub(super) async fn enrol(self: &Arc<Self>, fleet: &KeyHash, token: Option<&Token>) -> Result<Enrolment, Error> {
        let (state, fleet, token) = (self.clone(), *fleet, token.cloned());
        let making = move || state.make_request(&fleet, token.as_ref());
        let (request, known) = tokio::task::spawn_blocking(making).await.map_err(|_| SubscriberError::Worker)??;
        let endpoint = self.endpoint()?;
        let connection = dial(&endpoint, &known.endpoints, &fleet, Alpn::Enrol1).await.map_err(|error| {
            let tried = known.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            SubscriberError::Unreachable { name: known.name.clone(), tried, reason: error.reason }
        })?;
        let answered = ask(&connection, &Request::Enrol(request.to_bytes()?), &Limits::DEFAULT, PATIENCE).await;
        connection.close(0, "the enrolment was answered");
        let refused = |reason: String| SubscriberError::EnrolmentRefused { name: known.name.clone(), reason };
        let answer = match answered {
            Ok(Answer::Enrol(bytes)) => EnrolAnswer::from_bytes(&bytes)?,
            Ok(_) => return Err(refused("the answer does not fit the question".to_owned()).into()),
            Err(crate::node::ExchangeError::Refused(why)) => return Err(refused(why.to_string()).into()),
            Err(error) => return Err(error.into()),
        };
        match answer {
            EnrolAnswer::Issued { identity, encryption } => {
                let (state, name) = (self.clone(), known.name.clone());
                let keeping = move || state.keep_issued(&fleet, &name, &identity, &encryption);
                tokio::task::spawn_blocking(keeping).await.map_err(|_| SubscriberError::Worker)??;
                endpoint.set_identities(&self.fleet_identities()?)?;
                self.events.emit(SubscriberEvent::Enrolled { distributor: known.name });
                Ok(Enrolment::Enrolled)
            }
            EnrolAnswer::Pending { fingerprint } => {
                self.events.emit(SubscriberEvent::EnrolmentPending {
                    distributor: known.name,
                    fingerprint: fingerprint.clone(),
                });
                Ok(Enrolment::Pending { fingerprint })
            }
            EnrolAnswer::Refused { code, reason } => Err(refused(format!("{code}: {reason}")).into()),
        }
    }

    /// Asks until it is enrolled or refused, or told to stop.
    pub(super) async fn enrol_until_done(self: &Arc<Self>, fleet: &KeyHash, stop: &CancellationToken) -> bool {
        loop {
            match self.enrol(fleet, None).await {
                Ok(Enrolment::Enrolled) => return true,
                Ok(Enrolment::Pending { fingerprint }) => {
                    tracing::info!(fingerprint, "waiting for the Distributor's approval");
                }
                Err(error) => tracing::warn!(code = error.code(), %error, "not enrolled yet"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// The request, made of this node's keys for that fleet; they are made and kept first where there are none yet.
    fn make_request(&self, fleet: &KeyHash, token: Option<&Token>) -> Result<(EnrolRequest, KnownDistributor), Error> {
        let root = self.trusted_root(fleet)?;
        let known: Option<KnownDistributor> = self.records.get(&known_key(fleet))?;
        let known = known.unwrap_or_else(|| KnownDistributor { name: root.name().clone(), endpoints: vec![] });
        let mut keystore = lock(&self.keystore);
        let mut keys = vec![];
        let mut made = false;
        for usage in [Usage::SubscriberIdentity, Usage::SubscriberEncryption] {
            let held = keystore.held().iter().rev().find(|held| held.distributor == *fleet && held.usage == usage);
            if let Some(held) = held {
                keys.push(held.key.clone());
                continue;
            }
            let key = self.crypto.generate_key()?;
            keys.push(key.clone());
            let name = self.name().clone();
            keystore.hold(HeldKey { usage, distributor: *fleet, name, key, certificate: None });
            made = true;
        }
        if made {
            self.security.save_keystore(&keystore)?;
        }
        let request = EnrolRequest::make(&*self.crypto, self.name(), &keys[0], &keys[1], token)?;
        let checked = request.check()?;
        self.security.write_request(root.name(), &checked.identity, None)?;
        self.security.write_request(root.name(), &checked.encryption, Some(&request.countersignature))?;
        Ok((request, known))
    }

    fn keep_issued(&self, fleet: &KeyHash, name: &NodeName, identity: &[u8], encryption: &[u8]) -> Result<(), Error> {
        let root = self.trusted_root(fleet)?;
        let unfit = |reason: &str| SubscriberError::UnfitCertificate { name: name.clone(), reason: reason.to_owned() };
        let mut keystore = lock(&self.keystore);
        let mut changed = keystore.clone();
        let issued = [(identity, Usage::SubscriberIdentity), (encryption, Usage::SubscriberEncryption)];
        for (der, usage) in issued {
            let certificate = Certificate::from_der(der)?;
            root.judge(&certificate, usage, self.now(fleet))?;
            if certificate.name() != self.name() {
                return Err(unfit("they are for another name").into());
            }
            if !changed.certify(&certificate) {
                return Err(unfit("they are for another key").into());
            }
            self.security.write_issued(root.name(), &certificate)?;
        }
        self.security.save_keystore(&changed)?;
        *keystore = changed;
        Ok(())
    }
}
