//! The one place that judges a connection: who the peer is, and whether it may speak at all.
//!
//! The TLS handshake proves only that the peer holds the key of the certificate it showed. Everything else is judged
//! here, right after the handshake and before any stream exists, in one function for both sides.

use crate::error::Coded;
use crate::id::{KeyHash, UnixMillis};
use crate::name::NodeName;
use crate::security::{Certificate, DistributorRoot, TrustError, Usage};

const SNI_SUFFIX: &str = ".ted.internal";
const SNI_DIGITS: usize = 32;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// The protocol itself; both sides have certificates.
    Ted1,
    /// Enrolment; the node that dials has no certificate yet.
    Enrol1,
}

impl Alpn {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Ted1, Self::Enrol1];

    /// Its name in the TLS handshake.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Ted1 => b"ted/1",
            Self::Enrol1 => b"ted-enrol/1",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.as_bytes() == bytes)
    }
}

/// The server name that tells a listener which fleet is meant: half of the CA key's hash, below `ted.internal`.
#[must_use]
pub fn fleet_sni(distributor: &KeyHash) -> String {
    format!("{}{SNI_SUFFIX}", &distributor.to_string()[..SNI_DIGITS])
}

/// Whether `sni` is the name of this fleet.
#[must_use]
pub fn sni_means(sni: &str, distributor: &KeyHash) -> bool {
    sni.eq_ignore_ascii_case(&fleet_sni(distributor))
}

/// Which end of the connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It dialled.
    Dialler,
    /// It was dialled.
    Listener,
}

/// Whether a connection stays when both nodes dialled each other at once: the one stays that was dialled by the node
/// with the smaller key hash. `side` is this node's end of it. Both ends come to the same answer.
#[must_use]
pub fn stays_of_two(own: &KeyHash, peer: &KeyHash, side: Side) -> bool {
    (own < peer) == (side == Side::Dialler)
}

/// What the handshake left behind.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The negotiated protocol.
    pub alpn: &'a [u8],
    /// The server name: what the listener was asked for, or what the dialler asked for.
    pub sni: Option<&'a str>,
    /// Which end this node is.
    pub side: Side,
    /// The peer's certificates in DER, its own first; empty without any.
    pub chain: &'a [Vec<u8>],
}

/// What this node is in a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetRole {
    /// Its Distributor.
    Distributor,
    /// One of its Subscribers.
    Subscriber,
}

/// A fleet that this node takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetTrust {
    /// The Distributor's certificate.
    pub root: DistributorRoot,
    /// What this node is in it.
    pub role: FleetRole,
}

/// What a node knows about whom it trusts. It is asked anew for every connection.
pub trait TrustPolicy: Send + Sync {
    /// The fleets this node takes part in.
    fn fleets(&self) -> Vec<FleetTrust>;

    /// Whether the Subscriber with this identity key is registered in the fleet. Asked at its Distributor only.
    fn is_registered(&self, fleet: &KeyHash, key: &KeyHash) -> bool;

    /// Whether this key was revoked in the fleet.
    fn is_revoked(&self, fleet: &KeyHash, key: &KeyHash) -> bool;

    /// What the Subscriber with this identity key is to this node; `None` for one that it has nothing to do with. Asked
    /// at Subscribers only.
    fn relation(&self, _fleet: &KeyHash, _key: &KeyHash) -> Option<Relation> {
        None
    }

    /// Whether this node passes enrolments on to the Distributor: it is somebody's parent. Asked at Subscribers only.
    fn passes_enrolments_on(&self, _fleet: &KeyHash) -> bool {
        false
    }
}

/// What another Subscriber of the fleet is to a Subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A parent, which the invite or the Distributor's configuration names.
    Parent,
    /// A child, which the Distributor's entitlements name.
    Child,
}

/// What the peer is in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// The Distributor.
    Distributor,
    /// A registered Subscriber, at its Distributor.
    Subscriber,
    /// A Subscriber through which this one is reached.
    Parent,
    /// A Subscriber that is reached through this one.
    Child,
    /// A node without certificates that wants to enrol; it may do nothing else.
    Unenrolled,
}

/// A peer that may speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// In whose fleet.
    pub fleet: KeyHash,
    /// As what.
    pub role: PeerRole,
    /// The name in its certificate, a label.
    pub name: Option<NodeName>,
    /// Its key: what it is known by.
    pub key: Option<KeyHash>,
    /// What is spoken.
    pub alpn: Alpn,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.name, &self.key) {
            (Some(name), Some(key)) => write!(f, "{name} ({})", key.fingerprint()),
            _ => f.write_str("a node without certificates"),
        }
    }
}

/// Why a peer may not speak. Code and text go to both sides' logs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The protocol is unknown.
    #[error("the protocol `{0}` is unknown here")]
    Alpn(String),
    /// The server name names no fleet that this node takes part in.
    #[error("the fleet `{0}` is unknown here: no certificate of its Distributor is trusted")]
    UnknownFleet(String),
    /// No certificate where one is needed.
    #[error("no certificate was shown")]
    NoCertificate,
    /// The certificate is not what it must be.
    #[error(transparent)]
    Certificate(#[from] TrustError),
    /// A Subscriber whose key the Distributor does not know.
    #[error("{name} (key {fingerprint}) is not registered with this Distributor; it has to enrol")]
    NotRegistered {
        /// The name in the certificate.
        name: NodeName,
        /// Its short key.
        fingerprint: String,
    },
    /// A key that was revoked.
    #[error("the key {fingerprint} of {name} was revoked")]
    Revoked {
        /// The name in the certificate.
        name: NodeName,
        /// Its short key.
        fingerprint: String,
    },
    /// Enrolment goes to the Distributor or through a parent, and to nobody else.
    #[error("this node does not take enrolments for that fleet")]
    EnrolmentNotHere,
    /// A Subscriber that is no parent and no child of this one.
    #[error("{name} (key {fingerprint}) is neither a parent nor a child of this node")]
    NoRelation {
        /// The name in the certificate.
        name: NodeName,
        /// Its short key.
        fingerprint: String,
    },
}

impl Refusal {
    /// The QUIC application close code: the digits of [`Coded::code`].
    #[must_use]
    pub fn close_code(&self) -> u32 {
        self.code().trim_start_matches("TED-").parse().unwrap_or(0)
    }

    /// The close reason: code and text.
    #[must_use]
    pub fn close_reason(&self) -> String {
        format!("{}: {self}", self.code())
    }
}

impl Coded for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Alpn(_) => "TED-1301",
            Self::UnknownFleet(_) => "TED-1302",
            Self::NoCertificate => "TED-1303",
            Self::Certificate(error) => error.code(),
            Self::NotRegistered { .. } => "TED-1304",
            Self::Revoked { .. } => "TED-1305",
            Self::EnrolmentNotHere => "TED-1306",
            Self::NoRelation { .. } => "TED-1307",
        }
    }
}

/// Judges a connection right after its handshake.
///
/// At the Distributor the peer must be a registered Subscriber of its own fleet; at a Subscriber it must be the
/// Distributor whose certificate it trusts, under that certificate's name, whatever address was dialled, or a Subscriber
/// of the same fleet that is its parent or its child. Only a node that dials a Distributor or a parent to enrol passes
/// without a certificate.
///
/// # Errors
/// [`Refusal`]: the connection must be closed with its code and reason, and no stream served.
pub fn judge_connection(facts: &Facts<'_>, policy: &dyn TrustPolicy, now: UnixMillis) -> Result<Peer, Refusal> {
    let alpn =
        Alpn::from_bytes(facts.alpn).ok_or_else(|| Refusal::Alpn(printable(&String::from_utf8_lossy(facts.alpn))))?;
    let sni = facts.sni.unwrap_or_default();
    let fleet = policy
        .fleets()
        .into_iter()
        .find(|fleet| sni_means(sni, &fleet.root.key_hash()))
        .ok_or_else(|| Refusal::UnknownFleet(printable(sni)))?;
    let key = fleet.root.key_hash();
    match (alpn, fleet.role, facts.side) {
        (Alpn::Enrol1, role, Side::Listener) => {
            if role == FleetRole::Subscriber && !policy.passes_enrolments_on(&key) {
                return Err(Refusal::EnrolmentNotHere);
            }
            return Ok(Peer { fleet: key, role: PeerRole::Unenrolled, name: None, key: None, alpn });
        }
        (Alpn::Enrol1, FleetRole::Distributor, Side::Dialler) => return Err(Refusal::EnrolmentNotHere),
        (Alpn::Enrol1, FleetRole::Subscriber, Side::Dialler) | (Alpn::Ted1, ..) => {}
    }
    let certificate = Certificate::from_der(facts.chain.first().ok_or(Refusal::NoCertificate)?)?;
    let shows_subscriber = certificate.usage() == Usage::SubscriberIdentity;
    let usage = match fleet.role {
        FleetRole::Subscriber if !shows_subscriber => Usage::DistributorTls,
        _ => Usage::SubscriberIdentity,
    };
    fleet.root.judge(&certificate, usage, now)?;
    let relation = policy.relation(&key, &certificate.key_hash());
    let role = match (fleet.role, usage, relation) {
        (FleetRole::Distributor, ..) => PeerRole::Subscriber,
        (FleetRole::Subscriber, Usage::DistributorTls, _) => PeerRole::Distributor,
        (FleetRole::Subscriber, _, Some(Relation::Child)) if alpn == Alpn::Ted1 => PeerRole::Child,
        // Without a relation, or asked to enrol this node as its child: its standing says why not.
        (FleetRole::Subscriber, ..) => PeerRole::Parent,
    };
    let peer =
        Peer { fleet: key, role, name: Some(certificate.name().clone()), key: Some(certificate.key_hash()), alpn };
    judge_standing(&peer, policy)?;
    Ok(peer)
}

/// Judges again whether a peer that was accepted earlier still may speak: its fleet is known, its key not revoked, and
/// registered, or that of a parent or a child.
///
/// # Errors
/// [`Refusal`]: the connection must be closed.
pub fn judge_standing(peer: &Peer, policy: &dyn TrustPolicy) -> Result<(), Refusal> {
    if !policy.fleets().iter().any(|fleet| fleet.root.key_hash() == peer.fleet) {
        return Err(Refusal::UnknownFleet(fleet_sni(&peer.fleet)));
    }
    let (Some(name), Some(key)) = (&peer.name, &peer.key) else { return Ok(()) };
    let (name, fingerprint) = (name.clone(), key.fingerprint());
    if policy.is_revoked(&peer.fleet, key) {
        return Err(Refusal::Revoked { name, fingerprint });
    }
    let related = |relation| policy.relation(&peer.fleet, key) == Some(relation);
    match peer.role {
        PeerRole::Subscriber if !policy.is_registered(&peer.fleet, key) => {
            Err(Refusal::NotRegistered { name, fingerprint })
        }
        PeerRole::Parent if !related(Relation::Parent) => Err(Refusal::NoRelation { name, fingerprint }),
        PeerRole::Child if !related(Relation::Child) => Err(Refusal::NoRelation { name, fingerprint }),
        _ => Ok(()),
    }
}

/// A peer's text made fit for logs: short, and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::security::Identity;
    use crate::security::fixtures::{FleetFixture, NOW, PolicyFixture};

    const YEAR: Duration = Duration::from_secs(366 * 86_400);
    const A: &str = "a.example.com";

    fn judge(
        policy: &PolicyFixture,
        (alpn, side): (&[u8], Side),
        sni: Option<&str>,
        shown: &[&Identity],
        now: UnixMillis,
    ) -> Result<Peer, Refusal> {
        let chain: Vec<_> = shown.iter().map(|identity| identity.certificate.der().to_vec()).collect();
        judge_connection(&Facts { alpn, sni, side, chain: &chain }, policy, now)
    }

    const TED1: &[u8] = b"ted/1";
    const ENROL1: &[u8] = b"ted-enrol/1";
    const LISTENER: Side = Side::Listener;
    const DIALLER: Side = Side::Dialler;

    #[test]
    fn server_names_mean_one_fleet() {
        let (a, b) = (KeyHash::from_bytes([0xab; 32]), KeyHash::from_bytes([0xac; 32]));
        let sni = fleet_sni(&a);
        assert_eq!(sni, format!("{}.ted.internal", "ab".repeat(16)));
        assert!(sni_means(&sni, &a) && sni_means(&sni.to_uppercase(), &a));
        for other in ["", "ted.internal", &fleet_sni(&b), &sni[1..], &format!("{sni}.")] {
            assert!(!sni_means(other, &a), "{other}");
        }
    }

    #[test]
    fn who_may_speak_is_accepted_as_what_it_is() {
        let a = FleetFixture::new(A);
        let (distributor, subscriber) = (a.distributor_policy(), a.subscriber_policy());
        let sni = fleet_sni(&a.key());
        for (policy, how, shown, role) in [
            (&distributor, (TED1, LISTENER), Some(&a.subscriber), PeerRole::Subscriber),
            (&distributor, (TED1, DIALLER), Some(&a.subscriber), PeerRole::Subscriber),
            (&distributor, (ENROL1, LISTENER), None, PeerRole::Unenrolled),
            (&distributor, (ENROL1, LISTENER), Some(&a.subscriber), PeerRole::Unenrolled),
            (&subscriber, (TED1, LISTENER), Some(&a.tls), PeerRole::Distributor),
            (&subscriber, (TED1, DIALLER), Some(&a.tls), PeerRole::Distributor),
            (&subscriber, (ENROL1, DIALLER), Some(&a.tls), PeerRole::Distributor),
        ] {
            let shown: Vec<_> = shown.into_iter().collect();
            let peer = judge(policy, how, Some(&sni), &shown, NOW).unwrap();
            assert_eq!((peer.fleet, peer.role), (a.key(), role));
            let known = if role == PeerRole::Unenrolled { None } else { Some(shown[0].certificate.key_hash()) };
            assert_eq!(peer.key, known);
        }
    }

    #[test]
    fn every_certificate_but_the_right_one_is_refused_on_either_side() {
        let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
        let twin = FleetFixture::new(A);
        let sni = fleet_sni(&a.key());
        let issued = |fleet: &FleetFixture, own: &str| {
            let mut all = vec![fleet.authority.identity()];
            for usage in Usage::ISSUED {
                let name = if usage.is_distributor_role() { own } else { "sub.example.com" };
                all.push(fleet.issue(usage, name));
            }
            all
        };
        let theirs = [issued(&a, A), issued(&b, "b.example.com"), issued(&twin, A)].concat();
        for (policy, right) in
            [(a.distributor_policy(), Usage::SubscriberIdentity), (a.subscriber_policy(), Usage::DistributorTls)]
        {
            for identity in &theirs {
                policy.register(identity);
                for how in [(TED1, LISTENER), (TED1, DIALLER)] {
                    let verdict = judge(&policy, how, Some(&sni), &[identity], NOW);
                    let found = &identity.certificate;
                    let upstream = right == Usage::DistributorTls;
                    let expected = match a.root().judge(found, found.usage(), NOW) {
                        Ok(()) if found.usage() == right => None,
                        // Another Subscriber may be a parent or a child, and is none of them here.
                        Ok(()) if upstream && found.usage() == Usage::SubscriberIdentity => Some("TED-1307"),
                        Err(_) if upstream && found.usage() == Usage::SubscriberIdentity => Some("TED-1105"),
                        _ if found.usage() != right => Some("TED-1104"),
                        _ => Some("TED-1105"),
                    };
                    assert_eq!(verdict.as_ref().err().map(Coded::code), expected, "{found:?}");
                }
            }
        }
    }

    #[test]
    fn whoever_is_out_of_place_time_or_standing_is_refused_with_a_code_of_its_own() {
        let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
        let (sni_a, sni_b) = (fleet_sni(&a.key()), fleet_sni(&b.key()));
        let (sni_a, sni_b) = (Some(sni_a.as_str()), Some(sni_b.as_str()));
        let distributor = a.distributor_policy();
        let subscriber = a.subscriber_policy();
        let both = b.distributor_policy().with(a.root(), FleetRole::Distributor);
        let stranger = a.issue(Usage::SubscriberIdentity, "new.example.com");
        let revoked = a.issue(Usage::SubscriberIdentity, "bad.example.com");
        distributor.register(&revoked);
        distributor.revoke(&revoked);
        subscriber.revoke(&a.issue(Usage::DistributorTls, A));
        let revoked_tls = a.issue(Usage::DistributorTls, A);
        subscriber.revoke(&revoked_tls);
        let (sub, tls) = (&a.subscriber, &a.tls);
        let before = UnixMillis::from_millis(0);
        for (what, policy, how, sni, shown, now, code) in [
            ("no certificate", &distributor, (TED1, LISTENER), sni_a, None, NOW, "TED-1303"),
            ("no certificate, dialled", &subscriber, (TED1, DIALLER), sni_a, None, NOW, "TED-1303"),
            ("no certificate, enrolling", &subscriber, (ENROL1, DIALLER), sni_a, None, NOW, "TED-1303"),
            ("B under A's name", &both, (TED1, LISTENER), sni_a, Some(&b.subscriber), NOW, "TED-1105"),
            ("A under B's name", &both, (TED1, LISTENER), sni_b, Some(sub), NOW, "TED-1105"),
            ("unknown fleet", &distributor, (TED1, LISTENER), sni_b, Some(sub), NOW, "TED-1302"),
            ("no server name", &distributor, (TED1, LISTENER), None, Some(sub), NOW, "TED-1302"),
            ("enrolling in an unknown fleet", &distributor, (ENROL1, LISTENER), sni_b, None, NOW, "TED-1302"),
            ("Subscriber as Distributor", &subscriber, (TED1, DIALLER), sni_a, Some(sub), NOW, "TED-1307"),
            ("Subscriber as Distributor, enrolling", &subscriber, (ENROL1, DIALLER), sni_a, Some(sub), NOW, "TED-1307"),
            ("Distributor as Subscriber", &distributor, (TED1, LISTENER), sni_a, Some(tls), NOW, "TED-1104"),
            ("expired", &distributor, (TED1, LISTENER), sni_a, Some(sub), NOW.plus(YEAR), "TED-1107"),
            ("expired Distributor", &subscriber, (TED1, DIALLER), sni_a, Some(tls), NOW.plus(YEAR), "TED-1107"),
            ("not yet valid", &distributor, (TED1, LISTENER), sni_a, Some(sub), before, "TED-1106"),
            ("not registered", &distributor, (TED1, LISTENER), sni_a, Some(&stranger), NOW, "TED-1304"),
            ("revoked", &distributor, (TED1, LISTENER), sni_a, Some(&revoked), NOW, "TED-1305"),
            ("revoked Distributor", &subscriber, (TED1, DIALLER), sni_a, Some(&revoked_tls), NOW, "TED-1305"),
            ("enrolling the wrong way", &distributor, (ENROL1, DIALLER), sni_a, Some(sub), NOW, "TED-1306"),
            ("enrolling at a Subscriber", &subscriber, (ENROL1, LISTENER), sni_a, Some(tls), NOW, "TED-1306"),
            ("another protocol", &distributor, (&b"h3"[..], LISTENER), sni_a, Some(sub), NOW, "TED-1301"),
        ] {
            let shown: Vec<_> = shown.into_iter().collect();
            let refusal = judge(policy, how, sni, &shown, now).expect_err(what);
            assert_eq!(refusal.code(), code, "{what}");
            assert_eq!(format!("TED-{}", refusal.close_code()), code, "{what}");
            assert!(refusal.close_reason().starts_with(code), "{what}");
        }
    }

    #[test]
    fn standing_is_lost_when_a_key_is_revoked_or_a_fleet_forgotten() {
        let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
        let policy = a.distributor_policy();
        let peer = judge(&policy, (TED1, LISTENER), Some(&fleet_sni(&a.key())), &[&a.subscriber], NOW).unwrap();
        judge_standing(&peer, &policy).unwrap();
        assert_eq!(judge_standing(&peer, &b.distributor_policy()).unwrap_err().code(), "TED-1302");
        policy.revoke(&a.subscriber);
        assert_eq!(judge_standing(&peer, &policy).unwrap_err().code(), "TED-1305");
    }

    #[test]
    fn a_subscriber_meets_the_parents_and_children_that_it_has_and_no_other_subscriber() {
        let (a, b) = (FleetFixture::new(A), FleetFixture::new("b.example.com"));
        let sni = fleet_sni(&a.key());
        let (parent, child) = (a.issue(Usage::SubscriberIdentity, "p.example"), a.issue(Usage::SubscriberIdentity, A));
        let revoked = a.issue(Usage::SubscriberIdentity, "was.example");
        let foreign = b.issue(Usage::SubscriberIdentity, "p.example");
        let policy = a.subscriber_policy();
        for (of, relation) in [
            (&parent, Relation::Parent),
            (&child, Relation::Child),
            (&revoked, Relation::Parent),
            (&foreign, Relation::Child),
        ] {
            policy.relate(of, relation);
        }
        policy.revoke(&revoked);
        for (identity, how, expected) in [
            (&parent, (TED1, DIALLER), Ok(PeerRole::Parent)),
            (&parent, (TED1, LISTENER), Ok(PeerRole::Parent)),
            (&child, (TED1, DIALLER), Ok(PeerRole::Child)),
            (&child, (TED1, LISTENER), Ok(PeerRole::Child)),
            (&a.subscriber, (TED1, DIALLER), Err("TED-1307")),
            (&a.subscriber, (TED1, LISTENER), Err("TED-1307")),
            (&revoked, (TED1, DIALLER), Err("TED-1305")),
            (&revoked, (TED1, LISTENER), Err("TED-1305")),
            (&foreign, (TED1, LISTENER), Err("TED-1105")),
            // Who is asked to enrol this node has to be above it.
            (&parent, (ENROL1, DIALLER), Ok(PeerRole::Parent)),
            (&child, (ENROL1, DIALLER), Err("TED-1307")),
            (&a.subscriber, (ENROL1, DIALLER), Err("TED-1307")),
        ] {
            let verdict = judge(&policy, how, Some(&sni), &[identity], NOW);
            assert_eq!(verdict.as_ref().map(|peer| peer.role).map_err(Coded::code), expected, "{how:?}");
            let Ok(peer) = verdict else { continue };
            assert!(judge_standing(&peer, &policy).is_ok());
            policy.unrelate(identity);
            assert_eq!(judge_standing(&peer, &policy).unwrap_err().code(), "TED-1307");
            policy.relate(identity, if std::ptr::eq(identity, &parent) { Relation::Parent } else { Relation::Child });
            policy.revoke(identity);
            assert_eq!(judge_standing(&peer, &policy).unwrap_err().code(), "TED-1305");
            policy.forgive(identity);
        }
    }

    #[test]
    fn a_subscriber_takes_an_enrolment_to_pass_on_only_where_it_is_a_parent() {
        let a = FleetFixture::new(A);
        let sni = fleet_sni(&a.key());
        let policy = a.subscriber_policy();
        assert_eq!(judge(&policy, (ENROL1, LISTENER), Some(&sni), &[], NOW).unwrap_err().code(), "TED-1306");
        policy.pass_enrolments_on();
        let peer = judge(&policy, (ENROL1, LISTENER), Some(&sni), &[], NOW).unwrap();
        assert_eq!((peer.role, peer.key), (PeerRole::Unenrolled, None));
        assert_eq!(judge(&policy, (TED1, LISTENER), Some(&sni), &[], NOW).unwrap_err().code(), "TED-1303");
    }

    #[test]
    fn of_two_connections_both_ends_keep_the_same_one() {
        let (small, large) = (KeyHash::from_bytes([1; 32]), KeyHash::from_bytes([2; 32]));
        for (dialler, listener, stays) in [(small, large, true), (large, small, false)] {
            assert_eq!(stays_of_two(&dialler, &listener, DIALLER), stays);
            assert_eq!(stays_of_two(&listener, &dialler, LISTENER), stays);
        }
    }

    #[test]
    fn what_a_peer_wrote_reaches_the_logs_short_and_without_control_characters() {
        let a = FleetFixture::new(A);
        let nasty = format!("\u{1b}[2J\n{}", "x".repeat(300));
        let refusal = judge(&a.distributor_policy(), (TED1, LISTENER), Some(&nasty), &[], NOW).unwrap_err();
        let reason = refusal.close_reason();
        assert!(reason.len() < 200 && !reason.contains(['\u{1b}', '\n']), "{reason}");
    }
}
