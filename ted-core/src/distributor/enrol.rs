//! Enrolment: tokens, invites, nodes that wait for approval, and the certificates that are issued.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::certificates::note_issued_in;
use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::issued::remember_in;
use crate::distributor::report::{IssuedInvite, IssuedToken, PendingNode};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{KeyHash, UnixMillis};
use crate::model::{DEFAULT_PORT, Endpoint};
use crate::name::{Label, NodeName};
use crate::node::RecordBatch;
use crate::security::{
    Certificate, CheckedEnrolment, EnrolAnswer, EnrolRequest, FleetRole, FleetTrust, Invite, ParentHint, Token,
    TokenProof, TrustPolicy, Usage,
};
use crate::store::{Registration, TokenGrant};

/// Nodes that may wait for approval at once: anybody can ask, so their number is bounded.
const PENDING_MAX: usize = 1000;

/// A node that waits, as the catalog keeps it.
#[derive(Serialize, Deserialize)]
struct StoredPending {
    name: NodeName,
    asked: UnixMillis,
    approved: bool,
}

impl State {
    pub(super) fn create_token(&self, uses: u32, life: Duration, node: Option<NodeName>) -> Result<IssuedToken, Error> {
        let token = Token::generate(&*self.crypto)?;
        let expires = self.now().plus(life);
        self.tokens.add(&token, TokenGrant { uses_left: uses, expires, node }, self.now())?;
        Ok(IssuedToken { token: token.to_text(), uses, expires })
    }

    pub(super) fn invite(
        &self,
        name: &NodeName,
        channels: &[Label],
        endpoints: &[Endpoint],
        life: Duration,
    ) -> Result<IssuedInvite, Error> {
        let endpoints = if endpoints.is_empty() { self.reached_at()? } else { endpoints.to_vec() };
        self.ensure_subscriber(name, channels)?;
        let parents_of_invite = self.invited_parents(name)?;
        let issued = self.create_token(1, life, Some(name.clone()))?;
        let invite = Invite {
            distributor: self.own().authority.root().clone(),
            endpoints,
            node: name.clone(),
            parents: parents_of_invite,
            token: issued.token.parse()?,
        };
        let text = invite.to_text()?;
        // It holds the certificate, so nobody has to bring that too.
        self.note_carried(name, "with an invite".to_owned(), None);
        Ok(IssuedInvite { text, expires: issued.expires })
    }

    /// The parents that an invite names: those of the node's route, each of which has to be known by its key, and one of
    /// which has to be found.
    fn invited_parents(&self, name: &NodeName) -> Result<Vec<ParentHint>, Error> {
        let fleet = lock(&self.fleet).clone();
        let route = fleet.subscriber(name)?.parents.clone();
        let parents = self.parents_of(&fleet, name);
        if let Some(unknown) = route.iter().find(|parent| !parents.iter().any(|known| known.name == **parent)) {
            return Err(DistributorError::ParentNotEnrolled { node: name.clone(), parent: unknown.clone() }.into());
        }
        if !parents.is_empty() && parents.iter().all(|parent| parent.endpoints.is_empty()) {
            return Err(DistributorError::ParentsWithoutEndpoints(name.clone()).into());
        }
        Ok(parents)
    }

    /// Where Subscribers reach this Distributor: what it was told to advertise; else the address it listens on, where
    /// that is one; else its name.
    pub(super) fn reached_at(&self) -> Result<Vec<Endpoint>, Error> {
        if !self.settings.advertise.is_empty() {
            return Ok(self.settings.advertise.clone());
        }
        let listening = self.listening().unwrap_or(self.settings.listen);
        let port = if listening.port() == 0 { DEFAULT_PORT } else { listening.port() };
        let host = if listening.ip().is_unspecified() {
            self.name().ip().map_or_else(|| self.name().to_string(), bracketed)
        } else {
            bracketed(listening.ip())
        };
        Ok(vec![format!("{host}:{port}").parse()?])
    }

    pub(super) fn pending(&self) -> Result<Vec<PendingNode>, Error> {
        let rows = self.waiting()?.into_iter().map(|(key, pending)| PendingNode {
            name: pending.name,
            fingerprint: key.fingerprint(),
            asked: pending.asked,
        });
        Ok(rows.collect())
    }

    pub(super) fn approve(&self, name: &NodeName, fingerprint: Option<&str>, channels: &[Label]) -> Result<(), Error> {
        let mut named: Vec<_> = self.waiting()?.into_iter().filter(|(_, pending)| pending.name == *name).collect();
        if let Some(asked) = fingerprint {
            let waiting: Vec<_> = named.iter().map(|(key, _)| key.fingerprint()).collect();
            named.retain(|(key, _)| key.has_fingerprint(asked));
            if named.is_empty() && !waiting.is_empty() {
                let (asked, found) = (asked.to_owned(), waiting.join(", "));
                return Err(DistributorError::OtherFingerprint { asked, found }.into());
            }
        }
        match named.len() {
            0 => return Err(DistributorError::NothingPending(name.clone()).into()),
            1 => {}
            count => return Err(DistributorError::SeveralPending { name: name.clone(), count }.into()),
        }
        for (key, _) in &named {
            self.follow_name(key, name)?;
        }
        self.ensure_subscriber(name, channels)?;
        for (key, pending) in named {
            self.records.put(&pending_key(&key), &StoredPending { approved: true, ..pending })?;
        }
        Ok(())
    }

    /// A node that was enrolled otherwise waits no more.
    pub(super) fn forget_pending(&self, key: &KeyHash) -> Result<(), Error> {
        Ok(self.records.delete(&pending_key(key))?)
    }

    /// Takes back what would let a node of this name enrol by itself: unused invites, and an approval.
    pub(super) fn forget_invitations(&self, name: &NodeName) -> Result<(), Error> {
        self.tokens.take_back(name)?;
        let pending = self.records.list::<StoredPending>("pending/")?.into_iter();
        let pending = pending.filter(|(_, pending)| pending.name == *name).map(|(key, _)| key);
        let batch = pending.fold(RecordBatch::default(), |batch, key| batch.delete(&key));
        Ok(self.records.apply(batch)?)
    }

    /// Those who wait and are not approved yet.
    fn waiting(&self) -> Result<Vec<(KeyHash, StoredPending)>, Error> {
        let mut rows = vec![];
        for (key, pending) in self.records.list::<StoredPending>("pending/")? {
            if let (Some(Ok(hash)), false) = (key.strip_prefix("pending/").map(str::parse), pending.approved) {
                rows.push((hash, pending));
            }
        }
        Ok(rows)
    }

    /// Judges an enrolment request and answers it. Blocks on the disk: what is issued is registered durably before.
    pub(super) fn enrol(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let request = EnrolRequest::from_bytes(bytes)?;
        let checked = request.check()?;
        let key = checked.key_hash();
        let _one_at_a_time = lock(&self.enrolling);
        for key in [key, KeyHash::of_spki(checked.encryption.spki())] {
            self.refuse_revoked(&key, checked.node())?;
        }
        let known = self.registrations.get(&key).map(|registration| registration.name);
        let answer = if known.as_ref() == Some(checked.node()) {
            // The answer was lost on the way, or the certificates are to be renewed.
            self.issue(&checked)?
        } else if let Some(proof) = &request.token {
            self.use_token(&request, proof)?;
            self.register(&checked)?
        } else {
            self.enrol_by_approval(&checked)?
        };
        Ok(answer.to_bytes()?)
    }

    /// A Subscriber that is connected asks for new certificates for the keys it has; or it is a parent, and passes on
    /// what another node asks.
    pub(super) fn renew_subscriber(&self, key: &KeyHash, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        if EnrolRequest::from_bytes(bytes)?.check()?.key_hash() != *key && !self.tiers().is_parent(key) {
            return Err(DistributorError::ForeignRequest.into());
        }
        self.enrol(bytes)
    }

    fn use_token(&self, request: &EnrolRequest, proof: &TokenProof) -> Result<(), Error> {
        let (token, grant) = self.tokens.get(&proof.token).ok_or(DistributorError::UnknownToken)?;
        request.check_token(&token)?;
        if self.now() >= grant.expires {
            return Err(DistributorError::ExpiredToken.into());
        }
        if grant.node.is_some_and(|node| node != request.node) {
            return Err(DistributorError::TokenForAnother.into());
        }
        Ok(self.tokens.spend(&proof.token)?)
    }

    fn enrol_by_approval(&self, checked: &CheckedEnrolment) -> Result<EnrolAnswer, Error> {
        let key = checked.key_hash();
        let stored: Option<StoredPending> = self.records.get(&pending_key(&key))?;
        let approved = stored.as_ref().is_some_and(|pending| pending.approved && pending.name == *checked.node());
        if approved {
            let answer = self.register(checked)?;
            self.records.delete(&pending_key(&key))?;
            return Ok(answer);
        }
        if stored.is_none() {
            if self.waiting()?.len() >= PENDING_MAX {
                return Err(DistributorError::TooManyPending.into());
            }
            tracing::info!(name = %checked.node(), fingerprint = key.fingerprint(), "a node asks to be enrolled");
            self.events.emit(DistributorEvent::EnrolmentPending {
                name: checked.node().clone(),
                fingerprint: key.fingerprint(),
            });
        }
        let pending = StoredPending { name: checked.node().clone(), asked: self.now(), approved: false };
        self.records.put(&pending_key(&key), &pending)?;
        Ok(EnrolAnswer::Pending { fingerprint: key.fingerprint() })
    }

    /// Registers a node's key, durably, with the certificates that are issued for it. A node of the same name that was
    /// registered before is so no more.
    pub(super) fn register(&self, checked: &CheckedEnrolment) -> Result<EnrolAnswer, Error> {
        self.ensure_subscriber(checked.node(), &[])?;
        let before = self.key_of_name(checked.node());
        let issued = self.make_certificates(checked)?;
        self.registrations.register(Registration {
            name: checked.node().clone(),
            spki: checked.identity.spki().to_vec(),
            encryption: Some(issued.encryption.der().to_vec()),
            registered: self.now(),
        })?;
        self.tiers_changed();
        if let Some(before) = before.filter(|before| *before != checked.key_hash()) {
            self.registrations.remove(&before)?;
            self.tiers_changed();
            self.links.close(&before, "another node was enrolled under this name");
            let after = checked.key_hash();
            let ticket = self.change_firings_of(&[before], |firing, now| firing.replace(&before, &after, now));
            self.durable_now(ticket)?;
        }
        self.announce_configuration_around(checked.node())?;
        let fingerprint = checked.key_hash().fingerprint();
        tracing::info!(name = %checked.node(), fingerprint, "enrolled");
        self.events.emit(DistributorEvent::Enrolled { name: checked.node().clone(), fingerprint });
        Ok(issued.answer())
    }

    /// Issues both certificates. To the key of the one for encryption grants are sealed from now on.
    pub(super) fn issue(&self, checked: &CheckedEnrolment) -> Result<EnrolAnswer, Error> {
        let issued = self.make_certificates(checked)?;
        self.registrations.set_encryption(&checked.key_hash(), issued.encryption.der())?;
        Ok(issued.answer())
    }

    /// Issues both certificates, of which this Distributor keeps what it has to know.
    fn make_certificates(&self, checked: &CheckedEnrolment) -> Result<IssuedPair, Error> {
        let (own, now) = (self.own(), self.now());
        let issue = |usage, spki: &[u8]| own.authority.issue(&*self.crypto, usage, checked.node(), spki, now);
        let issued = IssuedPair {
            identity: issue(Usage::SubscriberIdentity, checked.identity.spki())?,
            encryption: issue(Usage::SubscriberEncryption, checked.encryption.spki())?,
        };
        let batch = [&issued.identity, &issued.encryption].into_iter().try_fold(RecordBatch::default(), remember_in)?;
        self.records.apply(note_issued_in(batch, &checked.key_hash(), &issued.identity)?)?;
        Ok(issued)
    }
}

/// The two certificates of a Subscriber.
struct IssuedPair {
    identity: Certificate,
    encryption: Certificate,
}

impl IssuedPair {
    fn answer(&self) -> EnrolAnswer {
        EnrolAnswer::Issued { identity: self.identity.der().to_vec(), encryption: self.encryption.der().to_vec() }
    }
}

impl TrustPolicy for State {
    fn fleets(&self) -> Vec<FleetTrust> {
        let own = self.own();
        let former = own.former.iter().map(|former| former.authority.root());
        let roots = std::iter::once(own.authority.root()).chain(former);
        roots.map(|root| FleetTrust { root: root.clone(), role: FleetRole::Distributor }).collect()
    }

    fn is_registered(&self, _fleet: &KeyHash, key: &KeyHash) -> bool {
        self.registrations.is_registered(key)
    }

    /// What was revoked since another certificate took over counts on connections under the former one too.
    fn is_revoked(&self, fleet: &KeyHash, key: &KeyHash) -> bool {
        self.is_key_revoked(key) || self.revocations.is_revoked(fleet, key)
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn pending_key(key: &KeyHash) -> String {
    format!("pending/{key}")
}
