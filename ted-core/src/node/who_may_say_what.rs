//! Every kind of certificate says everything that can be said; what counts is what is its own to say, and nothing else.

use std::time::Duration;

use crate::error::Error;
use crate::id::{DistributionId, KeyHash, PackageId, Revision};
use crate::model::Settings;
use crate::node::judge_signature;
use crate::package::tests::Tree;
use crate::package::{BuildOptions, ROOT_CONTEXT, Root, RootSigner, Source as _, build_baseline, read_index};
use crate::security::fixtures::{FleetFixture, NOW, PolicyFixture, name};
use crate::security::{
    Alpn, AwsLc, Carried, CertificateRequest, CheckedEnrolment, Configuration, Configured, Crypto, EnrolRequest,
    Envelope, EnvelopeBody, EnvelopeKind, Facts, FleetRole, Identity, PackageRef, Receipt, ReleaseStatement,
    RevocationList, RevocationReason, RevokedKey, Side, Signature, Stage, Usage, fleet_sni, judge_connection, sign,
};

const DIST: &str = "dist.example.com";
const SUB: &str = "sub.example.com";

const USAGES: [Usage; 5] =
    [Usage::Authority, Usage::Sign, Usage::DistributorTls, Usage::SubscriberIdentity, Usage::SubscriberEncryption];

fn identity(fleet: &FleetFixture, usage: Usage) -> Identity {
    match usage {
        Usage::Authority => fleet.authority.identity(),
        _ => fleet.issue(usage, if usage.is_distributor_role() { DIST } else { SUB }),
    }
}

/// Something that is said, and what this library makes of it when `speaker` says it in the fleet of `of`.
struct Saying {
    what: &'static str,
    /// The only use of a certificate that may say it.
    whose: Usage,
    say: fn(of: &FleetFixture, speaker: &Identity) -> Result<(), Error>,
}

const SAYINGS: [Saying; 13] = [
    Saying { what: "this is a package", whose: Usage::Sign, say: package },
    Saying { what: "this is the current revision", whose: Usage::Sign, say: |of, by| envelope(of, by, statement()) },
    Saying {
        what: "these may open it",
        whose: Usage::Sign,
        say: |of, by| envelope(of, by, (EnvelopeKind::GRANTS, b"a Merkle root".to_vec())),
    },
    Saying {
        what: "these may pass it on",
        whose: Usage::Sign,
        say: |of, by| envelope(of, by, (EnvelopeKind::ENTITLEMENTS, b"keys and ids".to_vec())),
    },
    Saying { what: "do it like this", whose: Usage::Sign, say: |of, by| envelope(of, by, configuration(by)) },
    Saying { what: "trust this key no more", whose: Usage::Authority, say: |of, by| envelope(of, by, revocations()) },
    Saying {
        what: "trust this certificate after mine",
        whose: Usage::Authority,
        say: |of, by| envelope(of, by, (EnvelopeKind::REPLACEMENT, of.root().certificate().der().to_vec())),
    },
    Saying {
        what: "this is the time, whatever I said before",
        whose: Usage::Authority,
        say: |of, by| envelope(of, by, (EnvelopeKind::TIME, b"a time".to_vec())),
    },
    Saying { what: "I have it", whose: Usage::SubscriberIdentity, say: |of, by| envelope(of, by, receipt()) },
    Saying {
        what: "I am the Distributor",
        whose: Usage::DistributorTls,
        say: |of, by| connect(of, by, &of.subscriber_policy()),
    },
    Saying {
        what: "I am a Subscriber",
        whose: Usage::SubscriberIdentity,
        say: |of, by| {
            // Even if somebody registered the key of whatever this is.
            let policy = PolicyFixture::new(of.root(), FleetRole::Distributor);
            policy.register(by);
            connect(of, by, &policy)
        },
    },
    Saying {
        what: "this Distributor is trusted",
        whose: Usage::Authority,
        say: |_, by| Ok(crate::security::DistributorRoot::try_from(by.certificate.clone()).map(drop)?),
    },
    Saying {
        what: "that key encrypts for me",
        whose: Usage::SubscriberIdentity,
        say: |of, by| {
            // The identity key that is registered countersigns the request for the encryption certificate.
            let encryption = AwsLc.generate_key()?;
            let made = EnrolRequest::make(&AwsLc, &name(SUB), &by.key, &encryption, None)?;
            let asked = CertificateRequest::from_der(&made.encryption_csr)?;
            let registered =
                CertificateRequest::make(&AwsLc, &of.subscriber.key, &name(SUB), Usage::SubscriberIdentity)?;
            CheckedEnrolment::from_requests(registered, asked, &made.countersignature).map(drop)?;
            Ok(())
        },
    },
];

#[test]
fn whatever_is_said_counts_only_from_the_certificate_whose_it_is_to_say() {
    let fleet = FleetFixture::new(DIST);
    for saying in &SAYINGS {
        for usage in USAGES {
            let speaker = match usage {
                // The one that is registered.
                Usage::SubscriberIdentity => fleet.subscriber.clone(),
                _ => identity(&fleet, usage),
            };
            let verdict = (saying.say)(&fleet, &speaker);
            let is_own = usage == saying.whose;
            assert_eq!(verdict.is_ok(), is_own, "\"{}\", says {usage}: {verdict:?}", saying.what);
        }
    }
}

#[test]
fn nothing_counts_that_is_said_in_another_fleet_though_all_names_are_the_same() {
    let (fleet, twin) = (FleetFixture::new(DIST), FleetFixture::new(DIST));
    for saying in SAYINGS.iter().filter(|saying| saying.what != "this Distributor is trusted") {
        for usage in USAGES {
            let verdict = (saying.say)(&fleet, &identity(&twin, usage));
            assert!(verdict.is_err(), "\"{}\", says {usage} of another Distributor", saying.what);
        }
    }
}

#[test]
fn no_word_can_be_passed_off_as_another() {
    let fleet = FleetFixture::new(DIST);
    let signer = identity(&fleet, Usage::Sign);
    // What was signed as an envelope is no package root, and the other way round.
    let signature = sign(&AwsLc, &signer, ROOT_CONTEXT, b"bytes").unwrap();
    for (context, holds) in [(ROOT_CONTEXT, true), ("ted/envelope/1", false), ("ted/enrol/1", false), ("", false)] {
        let verdict = fleet.root().verify(context, b"bytes", &signature, Usage::Sign, NOW);
        assert_eq!(verdict.is_ok(), holds, "{context}");
    }
    // A countersignature over one request is none over another, nor any other signature of that key.
    let key = AwsLc.generate_key().unwrap();
    let request = CertificateRequest::make(&AwsLc, &key, &name(SUB), Usage::SubscriberEncryption).unwrap();
    let subscriber = &fleet.subscriber;
    let other = sign(&AwsLc, subscriber, "ted/envelope/1", request.der()).unwrap().signature;
    let plain = AwsLc.sign(&subscriber.key, request.der()).unwrap();
    for signature in [other, plain] {
        assert!(request.check_countersignature(subscriber.certificate.spki(), &signature).is_err());
    }
}

fn envelope(of: &FleetFixture, by: &Identity, (kind, payload): (EnvelopeKind, Vec<u8>)) -> Result<(), Error> {
    let body = EnvelopeBody {
        kind,
        distributor: of.key(),
        issuer: by.certificate.key_hash(),
        sequence: 1,
        issued: NOW,
        expires: NOW.plus(Duration::from_secs(86_400)),
        payload,
    };
    let sealed = Envelope::seal(&AwsLc, by, body)?;
    Ok(Envelope::from_bytes(sealed.to_bytes())?.verify(of.root(), NOW)?)
}

fn statement() -> (EnvelopeKind, Vec<u8>) {
    let revision = Revision::from_number(7);
    let package = PackageRef { id: PackageId::from_bytes([1; 32]), carried: Carried::Baseline { revision }, bytes: 9 };
    let statement = ReleaseStatement {
        distribution: DistributionId::from_bytes([2; 16]),
        revision,
        packages: vec![package],
        extensions: vec![],
    };
    (EnvelopeKind::RELEASE_STATEMENT, statement.to_payload().unwrap())
}

fn configuration(by: &Identity) -> (EnvelopeKind, Vec<u8>) {
    let mut settings = Settings::default();
    settings.set("scrub.interval".parse().unwrap(), "never").unwrap();
    let configured = Configured { settings, ..Configured::default() };
    let configuration = Configuration::of(Some(by.certificate.key_hash()), &configured).unwrap();
    (EnvelopeKind::CONFIGURATION, configuration.to_payload().unwrap())
}

fn revocations() -> (EnvelopeKind, Vec<u8>) {
    let key = KeyHash::from_bytes([3; 32]);
    let revoked = RevokedKey { key, serials: vec![], since: NOW, reason: RevocationReason::LOST };
    let list = RevocationList { page: 0, keys: vec![revoked], extensions: vec![] };
    (EnvelopeKind::REVOCATION_LIST, list.to_payload().unwrap())
}

fn receipt() -> (EnvelopeKind, Vec<u8>) {
    let receipt = Receipt {
        firing: None,
        distribution: DistributionId::from_bytes([2; 16]),
        revision: Revision::from_number(7),
        package: None,
        stage: Stage::Extracted,
        code: None,
        detail: String::new(),
        at: NOW,
    };
    (EnvelopeKind::RECEIPT, receipt.to_payload().unwrap())
}

fn connect(of: &FleetFixture, by: &Identity, policy: &PolicyFixture) -> Result<(), Error> {
    let (sni, chain) = (fleet_sni(&of.key()), [by.certificate.der().to_vec()]);
    for side in [Side::Dialler, Side::Listener] {
        let facts = Facts { alpn: Alpn::Ted1.as_bytes(), sni: Some(&sni), side, chain: &chain };
        judge_connection(&facts, policy, NOW)?;
    }
    Ok(())
}

/// A whole package of an empty tree, signed by `by` and read back.
fn package(of: &FleetFixture, by: &Identity) -> Result<(), Error> {
    let distribution = DistributionId::from_bytes([1; 16]);
    let mut options = BuildOptions::new(distribution, "site".parse().unwrap(), of.key(), 1);
    (options.revision, options.created) = (Revision::from_number(1), NOW);
    let tree = Tree::new();
    let entries = tree.entries(&mut |_| {}).unwrap();
    let mut bytes = Vec::new();
    build_baseline(&tree, entries, &options, &SignedBy(by), &mut bytes, &|_| {})?;
    read_index(&bytes, &crate::limits::Limits::DEFAULT, &mut |found: &Root, bytes: &[u8], signature: &Signature| {
        judge_signature(of.root(), found, bytes, signature)
    })?;
    Ok(())
}

struct SignedBy<'a>(&'a Identity);

impl RootSigner for SignedBy<'_> {
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(sign(&AwsLc, self.0, ROOT_CONTEXT, root_bytes)?)
    }
}
