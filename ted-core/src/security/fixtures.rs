//! Fleets made for tests of judging and of the transport.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::id::{KeyHash, UnixMillis};
use crate::name::NodeName;
use crate::security::{
    Authority, AwsLc, DistributorRoot, FleetRole, FleetTrust, Identity, Relation, TrustPolicy, Usage,
};

pub(crate) const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A Distributor with everything it issues.
pub(crate) struct FleetFixture {
    pub(crate) authority: Authority,
    pub(crate) tls: Identity,
    pub(crate) subscriber: Identity,
}

impl FleetFixture {
    pub(crate) fn new(distributor: &str) -> Self {
        let authority = Authority::create(&AwsLc, &name(distributor), NOW).unwrap();
        let tls = authority.issue_identity(&AwsLc, Usage::DistributorTls, &name(distributor), NOW).unwrap();
        let subscriber =
            authority.issue_identity(&AwsLc, Usage::SubscriberIdentity, &name("sub.example.com"), NOW).unwrap();
        Self { authority, tls, subscriber }
    }

    pub(crate) fn root(&self) -> &DistributorRoot {
        self.authority.root()
    }

    pub(crate) fn key(&self) -> KeyHash {
        self.root().key_hash()
    }

    pub(crate) fn issue(&self, usage: Usage, of: &str) -> Identity {
        self.authority.issue_identity(&AwsLc, usage, &name(of), NOW).unwrap()
    }

    /// What the Distributor itself trusts; its one Subscriber is registered.
    pub(crate) fn distributor_policy(&self) -> PolicyFixture {
        let policy = PolicyFixture::new(self.root(), FleetRole::Distributor);
        policy.register(&self.subscriber);
        policy
    }

    /// What one of its Subscribers trusts.
    pub(crate) fn subscriber_policy(&self) -> PolicyFixture {
        PolicyFixture::new(self.root(), FleetRole::Subscriber)
    }
}

/// A policy that tests change while connections live.
pub(crate) struct PolicyFixture {
    fleets: Vec<FleetTrust>,
    registered: Mutex<HashSet<KeyHash>>,
    revoked: Mutex<HashSet<KeyHash>>,
    related: Mutex<HashMap<KeyHash, Relation>>,
    passes_enrolments_on: AtomicBool,
}

impl PolicyFixture {
    pub(crate) fn new(root: &DistributorRoot, role: FleetRole) -> Self {
        let fleets = vec![FleetTrust { root: root.clone(), role }];
        Self {
            fleets,
            registered: Mutex::default(),
            revoked: Mutex::default(),
            related: Mutex::default(),
            passes_enrolments_on: AtomicBool::new(false),
        }
    }

    pub(crate) fn with(mut self, root: &DistributorRoot, role: FleetRole) -> Self {
        self.fleets.push(FleetTrust { root: root.clone(), role });
        self
    }

    pub(crate) fn register(&self, identity: &Identity) {
        self.registered.lock().unwrap().insert(identity.certificate.key_hash());
    }

    pub(crate) fn revoke(&self, identity: &Identity) {
        self.revoked.lock().unwrap().insert(identity.certificate.key_hash());
    }

    pub(crate) fn forgive(&self, identity: &Identity) {
        self.revoked.lock().unwrap().remove(&identity.certificate.key_hash());
    }

    pub(crate) fn relate(&self, identity: &Identity, relation: Relation) {
        self.related.lock().unwrap().insert(identity.certificate.key_hash(), relation);
    }

    pub(crate) fn unrelate(&self, identity: &Identity) {
        self.related.lock().unwrap().remove(&identity.certificate.key_hash());
    }

    pub(crate) fn pass_enrolments_on(&self) {
        self.passes_enrolments_on.store(true, Ordering::SeqCst);
    }
}

impl TrustPolicy for PolicyFixture {
    fn fleets(&self) -> Vec<FleetTrust> {
        self.fleets.clone()
    }

    fn is_registered(&self, _: &KeyHash, key: &KeyHash) -> bool {
        self.registered.lock().unwrap().contains(key)
    }

    fn is_revoked(&self, _: &KeyHash, key: &KeyHash) -> bool {
        self.revoked.lock().unwrap().contains(key)
    }

    fn relation(&self, _: &KeyHash, key: &KeyHash) -> Option<Relation> {
        self.related.lock().unwrap().get(key).copied()
    }

    fn passes_enrolments_on(&self, _: &KeyHash) -> bool {
        self.passes_enrolments_on.load(Ordering::SeqCst)
    }
}
