//! How a Distributor's certificate stands with one of its Subscribers: one state for each pair, decided in one place.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::UnixMillis;
use crate::name::NodeName;
use crate::security::{Certificate, Usage};

/// A Distributor's own certificate is carried by hand, so its end is announced a year before.
const AUTHORITY_NOTICE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Where a Subscriber has its Distributor's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldIn {
    /// Nowhere.
    Absent,
    /// In a `.cer` file in `security/`: trusted, and moved into the keystore at the first verified package.
    File,
    /// In the keystore.
    Keystore,
}

/// What a Subscriber says of the Distributor's certificate that it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCertificate {
    /// Where it lies.
    pub held_in: HeldIn,
    /// SHA-256 of the certificate's bytes; zeros where there is none.
    pub thumbprint: [u8; 32],
    /// The name in it.
    pub name: NodeName,
}

/// What of a certificate decides about a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The name in it.
    pub name: NodeName,
    /// SHA-256 of its bytes.
    pub thumbprint: [u8; 32],
    /// When its end begins to be announced.
    pub expiring_from: UnixMillis,
    /// Until when it holds.
    pub not_after: UnixMillis,
    /// Whether it is signed in a way that is not good enough any more.
    pub is_weak: bool,
}

impl CertificateFacts {
    /// The facts of a certificate: a Distributor's own expires with a year's notice, one that renews by itself when it
    /// should have been renewed.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        let not_after = certificate.not_after();
        let notice = match certificate.usage() {
            Usage::Authority => {
                UnixMillis::from_millis(not_after.millis().saturating_sub(AUTHORITY_NOTICE.as_millis() as u64))
            }
            _ => certificate.renew_at(),
        };
        Self {
            name: certificate.name().clone(),
            thumbprint: certificate.thumbprint_bytes(),
            expiring_from: notice,
            not_after,
            is_weak: certificate.is_weak(),
        }
    }

    fn is_expired(&self, now: UnixMillis) -> bool {
        now > self.not_after
    }

    fn is_expiring(&self, now: UnixMillis) -> bool {
        now >= self.expiring_from
    }
}

/// All that is known of one Subscriber and its Distributor's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFacts {
    /// The Distributor's certificate as it is now.
    pub root: CertificateFacts,
    /// The Subscriber's name in the fleet.
    pub subscriber: NodeName,
    /// The certificate that was issued to it last; none before it is enrolled.
    pub own: Option<CertificateFacts>,
    /// What it said last of the Distributor's certificate; none before it was ever connected.
    pub held: Option<HeldCertificate>,
    /// Whether the Distributor's certificate, as it is now, was brought to it.
    pub is_copied: bool,
    /// Whether its key was revoked.
    pub is_revoked: bool,
}

impl PairFacts {
    /// Whether the Distributor's certificate has to be brought to the Subscriber. Where only the Subscriber has another
    /// name now, its own certificates are what is wrong, and the Distributor's is where it should be.
    #[must_use]
    pub fn needs_resolving(&self, now: UnixMillis) -> bool {
        let held = self.held.as_ref().filter(|held| held.held_in != HeldIn::Absent);
        match CertificateState::decide(self, now) {
            CertificateState::NameChanged => held.is_none_or(|held| held.thumbprint != self.root.thumbprint),
            state => state.needs_resolving(),
        }
    }
}

/// How a Distributor's certificate stands with one Subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// The Subscriber lacks the Distributor's certificate, as far as is known: it has to be resolved.
    Needed,
    /// It was brought to the Subscriber, which has not been connected since.
    Copied,
    /// The Subscriber trusts it, and keeps it for good at the first verified package.
    AwaitingFirstPackage,
    /// It is in the Subscriber's keystore.
    InKeystore,
    /// The Distributor or the Subscriber has another name now than the certificate between them says.
    NameChanged,
    /// A certificate is signed in a way that is not good enough any more.
    Weak,
    /// A certificate comes to its end and has not been renewed.
    Expiring,
    /// A certificate has ended.
    Expired,
    /// The Subscriber's key was revoked.
    Revoked,
    /// The Subscriber holds an earlier certificate of the Distributor.
    Replaced,
}

impl CertificateState {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Needed,
        Self::Copied,
        Self::AwaitingFirstPackage,
        Self::InKeystore,
        Self::NameChanged,
        Self::Weak,
        Self::Expiring,
        Self::Expired,
        Self::Revoked,
        Self::Replaced,
    ];

    /// The one state that these facts make at the time `now`. What keeps a Subscriber from receiving comes before
    /// what only will, and that before where the certificate lies.
    #[must_use]
    pub fn decide(facts: &PairFacts, now: UnixMillis) -> Self {
        let PairFacts { root, subscriber, own, held, is_copied, is_revoked } = facts;
        let held = held.as_ref().filter(|held| held.held_in != HeldIn::Absent);
        let any = |of: fn(&CertificateFacts, UnixMillis) -> bool| {
            of(root, now) || own.as_ref().is_some_and(|own| of(own, now))
        };
        if *is_revoked {
            return Self::Revoked;
        }
        if any(CertificateFacts::is_expired) {
            return Self::Expired;
        }
        let renamed = held.is_some_and(|held| held.name != root.name);
        if renamed || own.as_ref().is_some_and(|own| own.name != *subscriber) {
            return Self::NameChanged;
        }
        if any(|certificate, _| certificate.is_weak) {
            return Self::Weak;
        }
        match held {
            Some(held) if held.thumbprint != root.thumbprint => Self::Replaced,
            Some(_) if any(CertificateFacts::is_expiring) => Self::Expiring,
            Some(held) if held.held_in == HeldIn::Keystore => Self::InKeystore,
            Some(_) => Self::AwaitingFirstPackage,
            None if *is_copied => Self::Copied,
            None => Self::Needed,
        }
    }

    /// Whether a state as such says that the Distributor's certificate has to be brought to the Subscriber; of one whose
    /// name has changed only [`PairFacts::needs_resolving`] can say.
    #[must_use]
    pub const fn needs_resolving(self) -> bool {
        matches!(self, Self::Needed | Self::NameChanged | Self::Replaced)
    }

    /// Whether an operator should look at it.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        !matches!(self, Self::Copied | Self::AwaitingFirstPackage | Self::InKeystore)
    }
}

impl fmt::Display for CertificateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Needed => "needed",
            Self::Copied => "copied",
            Self::AwaitingFirstPackage => "awaits first package",
            Self::InKeystore => "in keystore",
            Self::NameChanged => "name changed",
            Self::Weak => "weak",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Replaced => "replaced",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::fixtures::{FleetFixture, NOW, name};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn later(days: u64) -> UnixMillis {
        UnixMillis::from_millis(NOW.millis() + days * DAY)
    }

    fn held(held_in: HeldIn, of: &CertificateFacts) -> Option<HeldCertificate> {
        Some(HeldCertificate { held_in, thumbprint: of.thumbprint, name: of.name.clone() })
    }

    #[test]
    fn every_state_is_decided_by_the_facts_in_the_order_of_what_matters_most() {
        use CertificateState as State;
        let fleet = FleetFixture::new("dist.example.com");
        let root = CertificateFacts::of(fleet.root().certificate());
        let own = CertificateFacts::of(&fleet.subscriber.certificate);
        let unknown = PairFacts {
            root: root.clone(),
            subscriber: name("sub.example.com"),
            own: None,
            held: None,
            is_copied: false,
            is_revoked: false,
        };
        let kept = PairFacts { own: Some(own.clone()), held: held(HeldIn::Keystore, &root), ..unknown.clone() };
        let other_name = CertificateFacts { name: name("old.example.com"), thumbprint: [1; 32], ..root.clone() };
        let earlier = CertificateFacts { thumbprint: [1; 32], ..root.clone() };
        let weak = CertificateFacts { is_weak: true, ..root.clone() };
        for (what, facts, at, expected) in [
            ("nothing is known", unknown.clone(), NOW, State::Needed),
            ("it was brought", PairFacts { is_copied: true, ..unknown.clone() }, NOW, State::Copied),
            (
                "it says it has none",
                PairFacts { held: held(HeldIn::Absent, &root), ..kept.clone() },
                NOW,
                State::Needed,
            ),
            (
                "it says it has none of an earlier name",
                PairFacts { held: held(HeldIn::Absent, &other_name), ..unknown.clone() },
                NOW,
                State::Needed,
            ),
            ("a file", PairFacts { held: held(HeldIn::File, &root), ..kept.clone() }, NOW, State::AwaitingFirstPackage),
            ("the keystore", kept.clone(), NOW, State::InKeystore),
            (
                "an earlier one",
                PairFacts { held: held(HeldIn::Keystore, &earlier), ..kept.clone() },
                NOW,
                State::Replaced,
            ),
            (
                "the Distributor was renamed",
                PairFacts { held: held(HeldIn::Keystore, &other_name), ..kept.clone() },
                NOW,
                State::NameChanged,
            ),
            (
                "the Subscriber was renamed",
                PairFacts { subscriber: name("new.example.com"), ..kept.clone() },
                NOW,
                State::NameChanged,
            ),
            ("weakly signed", PairFacts { root: weak, ..kept.clone() }, NOW, State::Weak),
            (
                "its own is weakly signed",
                PairFacts { own: Some(CertificateFacts { is_weak: true, ..own }), ..kept.clone() },
                NOW,
                State::Weak,
            ),
            ("its own was not renewed", kept.clone(), later(300), State::Expiring),
            ("its own has ended", kept.clone(), later(366), State::Expired),
            (
                "the Distributor's ends within a year",
                PairFacts { own: None, ..kept.clone() },
                later(19 * 365 + 1),
                State::Expiring,
            ),
            (
                "the Distributor's has ended",
                PairFacts { own: None, ..kept.clone() },
                later(20 * 365 + 1),
                State::Expired,
            ),
            ("revoked comes first", PairFacts { is_revoked: true, ..kept.clone() }, later(366), State::Revoked),
            ("revoked before it ever came", PairFacts { is_revoked: true, ..unknown }, NOW, State::Revoked),
        ] {
            assert_eq!(State::decide(&facts, at), expected, "{what}");
        }
    }

    #[test]
    fn a_renamed_subscriber_needs_nothing_brought_and_a_renamed_distributor_does() {
        let fleet = FleetFixture::new("dist.example.com");
        let root = CertificateFacts::of(fleet.root().certificate());
        let former = CertificateFacts { name: name("old.example.com"), thumbprint: [1; 32], ..root.clone() };
        let facts = |subscriber, held_before| PairFacts {
            root: root.clone(),
            subscriber: name(subscriber),
            own: Some(CertificateFacts::of(&fleet.subscriber.certificate)),
            held: held(HeldIn::Keystore, held_before),
            is_copied: false,
            is_revoked: false,
        };
        for (what, facts, expected) in [
            ("as it should be", facts("sub.example.com", &root), false),
            ("the Subscriber was renamed", facts("new.example.com", &root), false),
            ("the Distributor was renamed", facts("sub.example.com", &former), true),
            ("both were renamed", facts("new.example.com", &former), true),
        ] {
            assert_eq!(facts.needs_resolving(NOW), expected, "{what}");
        }
    }

    #[test]
    fn states_that_ask_for_the_certificate_are_trouble_too() {
        for state in CertificateState::ALL {
            assert!(state.is_trouble() || !state.needs_resolving(), "{state}");
        }
    }
}
