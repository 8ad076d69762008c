//! What a Subscriber makes of standing envelopes that are not what they should be, announced by a Distributor that has
//! all the right keys.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::fake::{self, Fake, Package};
use support::{TestClock, World, event, node, raw, within};
use ted_core::id::{KeyHash, UnixMillis};
use ted_core::model::{Setting, Settings};
use ted_core::node::{Clock as _, SystemClock};
use ted_core::protocol::OfferAnswer;
use ted_core::security::{
    Authority, AwsLc, Configuration, Configured, ContentKey, Envelope, EnvelopeBody, EnvelopeKind, Grant, GrantTree,
    Grants, Identity, ProvenGrant, Recipient, RevocationList, RevocationReason, RevokedKey, Section, Usage,
};
use ted_core::{Subscriber, SubscriberEvent};

const ONE: &str = "one.example";
const DAY: Duration = Duration::from_secs(86_400);

/// A Subscriber that has met the liar, and the keys of all who could have signed something.
struct Stage {
    world: World,
    subscriber: Subscriber,
    fake: Fake,
    package: Package,
    authority: Authority,
    signing: Identity,
    tls: Identity,
    own: Identity,
}

impl Stage {
    async fn new() -> Self {
        let world = World::new().await;
        let subscriber = world.joined(ONE).await;
        world.distributor.build(&support::label(support::DISTRIBUTION)).await.expect("built");
        within("the shutdown", world.distributor.shutdown()).await;
        let data = world.data_of("distributor");
        let package = Package::of(&data);
        let (authority, signing, tls) = fake::keys(&data);
        let (_, own) = raw::identity(&world.data_of(ONE));
        subscriber.start().await.expect("started");
        let fake = Fake::meet(&data, world.address, &package, Box::new(|_, bytes| bytes)).await;
        Self { world, subscriber, fake, package, authority, signing, tls, own }
    }

    fn fleet(&self) -> KeyHash {
        self.authority.root().key_hash()
    }

    fn me(&self) -> KeyHash {
        self.own.certificate.key_hash()
    }

    fn body(&self, kind: EnvelopeKind, sequence: u64, payload: Vec<u8>) -> EnvelopeBody {
        let issued = SystemClock.now();
        let (distributor, issuer, expires) = (self.fleet(), self.fleet(), issued.plus(DAY));
        EnvelopeBody { kind, distributor, issuer, sequence, issued, expires, payload }
    }

    /// What the Subscriber says to this envelope: nothing where it is in force, else the code of its refusal.
    async fn says(&self, envelope: &Envelope) -> Option<String> {
        self.says_to(envelope.body().kind, envelope, envelope.to_bytes().to_vec()).await
    }

    async fn says_to(&self, kind: EnvelopeKind, envelope: &Envelope, bytes: Vec<u8>) -> Option<String> {
        let answer = self.fake.announce(kind, envelope.id(), bytes).await;
        match (&answer.holds[..], &answer.refused[..]) {
            ([held], []) if *held == envelope.id() => None,
            ([], [(id, refused)]) if *id == envelope.id() => Some(refused.code().to_owned()),
            _ => panic!("{answer:?}"),
        }
    }

    async fn value(&self, setting: &str) -> Option<String> {
        let setting: Setting = setting.parse().expect("known");
        let all = self.subscriber.configuration().await.expect("readable");
        all.settings.into_iter().find(|row| row.setting == setting).map(|row| row.value)
    }
}

fn seal(signer: &Identity, body: EnvelopeBody) -> Envelope {
    Envelope::seal(&AwsLc, signer, body).expect("sealed")
}

fn configuration(recipient: Option<KeyHash>, site: &str) -> Vec<u8> {
    let mut settings = Settings::default();
    settings.set("variable.SITE".parse().expect("known"), site).expect("fits");
    let configured = Configured { settings, ..Configured::default() };
    Configuration::of(recipient, &configured).and_then(|it| it.to_payload()).expect("short enough")
}

fn list(page: u16, keys: &[KeyHash]) -> Vec<u8> {
    let (since, reason) = (UnixMillis::from_millis(1), RevocationReason::LOST);
    let keys = keys.iter().map(|key| RevokedKey { key: *key, serials: vec![], since, reason });
    RevocationList { page, keys: keys.collect(), extensions: vec![] }.to_payload().expect("short enough")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_foreign_old_altered_or_wrongly_signed_is_refused_and_changes_nothing() {
    use EnvelopeKind as Kind;
    let stage = Stage::new().await;
    let (me, kind) = (Some(stage.me()), Kind::CONFIGURATION);
    let body = |sequence, payload| stage.body(kind, sequence, payload);
    let good = seal(&stage.signing, body(100, configuration(me, "north")));
    assert_eq!(stage.says(&good).await, None);
    assert_eq!(stage.says(&good).await, None, "announced again, it is in force still");
    let for_all = seal(&stage.signing, body(50, configuration(None, "everywhere")));
    assert_eq!(stage.says(&for_all).await, None, "what is for all is numbered apart");
    assert_eq!(stage.value("variable.SITE").await.as_deref(), Some("north"), "what is for it alone wins");

    let stranger = Authority::create(&AwsLc, &node("dist.example"), SystemClock.now()).expect("made");
    let strange = stranger.issue_identity(&AwsLc, Usage::Sign, &node("dist.example"), SystemClock.now()).expect("made");
    let bad_section = Section { id: 5, version: 1, bytes: vec![1] };
    let bad_section = Configuration { recipient: me, sections: vec![bad_section] }.to_payload().expect("short");
    let other_fleet = EnvelopeBody { distributor: stranger.root().key_hash(), ..body(101, configuration(me, "x")) };
    let expired = EnvelopeBody { expires: UnixMillis::from_millis(1), ..body(101, configuration(me, "x")) };
    for (what, envelope, code) in [
        ("older", seal(&stage.signing, body(99, configuration(me, "x"))), "TED-1190"),
        ("of the same number", seal(&stage.signing, body(100, configuration(me, "x"))), "TED-1190"),
        ("for another node", seal(&stage.signing, body(101, configuration(Some(stage.fleet()), "x"))), "TED-1876"),
        ("signed by the CA key", seal(&stage.authority.identity(), body(101, configuration(me, "x"))), "TED-1104"),
        ("signed by a TLS key", seal(&stage.tls, body(101, configuration(me, "x"))), "TED-1104"),
        ("signed by itself", seal(&stage.own, body(101, configuration(me, "x"))), "TED-1104"),
        ("signed by another of that name", seal(&strange, body(101, configuration(me, "x"))), "TED-1105"),
        ("of another fleet", seal(&strange, other_fleet), "TED-1121"),
        ("expired", seal(&stage.signing, expired), "TED-1123"),
        ("of nonsense", seal(&stage.signing, body(101, b"nonsense".to_vec())), "TED-1002"),
        ("with a section that lies", seal(&stage.signing, body(101, bad_section)), "TED-1002"),
        (
            "of a kind that does not stand",
            seal(
                &stage.signing,
                stage.body(Kind::RELEASE_STATEMENT, 101, stage.package.release().to_payload().unwrap()),
            ),
            "TED-1192",
        ),
        ("of a kind that nobody knows", seal(&stage.signing, stage.body(Kind(77), 101, vec![])), "TED-1127"),
    ] {
        assert_eq!(stage.says(&envelope).await.as_deref(), Some(code), "{what}");
    }
    let next = seal(&stage.signing, body(102, configuration(me, "x")));
    for at in [9, next.to_bytes().len() / 2, next.to_bytes().len() - 3] {
        let mut bytes = next.to_bytes().to_vec();
        bytes[at] ^= 1;
        let code = stage.says_to(kind, &next, bytes).await;
        assert!(code.as_deref().is_some_and(|code| ["TED-1002", "TED-1191"].contains(&code)), "{at}: {code:?}");
    }
    assert_eq!(stage.value("variable.SITE").await.as_deref(), Some("north"));

    // Neither a restart nor the loss of the catalog makes it forget what it was told last.
    let Stage { world, subscriber, fake, .. } = stage;
    within("the shutdown", subscriber.shutdown()).await;
    drop((subscriber, fake));
    std::fs::remove_dir_all(world.data_of(ONE).join("catalog")).expect("the catalog is lost");
    let subscriber = world.builder(ONE).name(node(ONE)).open().await.expect("opened");
    let shown = subscriber.configuration().await.expect("readable");
    assert_eq!(shown.settings[0].value, "north");
    assert_eq!(shown.configurations[0].sequence, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_takes_over_and_unknown_sections_are_kept_and_shown() {
    let stage = Stage::new().await;
    let kind = EnvelopeKind::CONFIGURATION;
    let later = Section { id: 77, version: 9, bytes: b"later".to_vec() };
    let mixed = Configuration { recipient: Some(stage.me()), sections: vec![later] }.to_payload().expect("short");
    let mut events = stage.subscriber.events();
    assert_eq!(
        stage.says(&seal(&stage.signing, stage.body(kind, 7, configuration(Some(stage.me()), "north")))).await,
        None
    );
    assert_eq!(stage.says(&seal(&stage.signing, stage.body(kind, 8, mixed))).await, None);
    let old = seal(&stage.signing, stage.body(kind, 7, configuration(Some(stage.me()), "north")));
    assert_eq!(stage.says(&old).await.as_deref(), Some("TED-1190"));
    event("the refusal to be told", &mut events, |event| match event {
        SubscriberEvent::EnvelopeRefused { code, .. } => (code == "TED-1190").then_some(()),
        _ => None,
    })
    .await;
    let shown = stage.subscriber.configuration().await.expect("readable");
    assert_eq!(shown.settings, [], "what is not in the newest one is not set");
    assert_eq!((shown.configurations[0].sequence, &shown.configurations[0].unknown[..]), (8, &[(77, 9)][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_list_counts_from_the_ca_key_alone_and_no_key_ever_leaves_it() {
    let stage = Stage::new().await;
    let kind = EnvelopeKind::REVOCATION_LIST;
    let (ca, one, other) =
        (stage.authority.identity(), KeyHash::from_bytes([1; 32]), stage.signing.certificate.key_hash());
    let by_signer = seal(&stage.signing, stage.body(kind, 5, list(0, &[one])));
    assert_eq!(stage.says(&by_signer).await.as_deref(), Some("TED-1104"));
    assert_eq!(stage.says(&seal(&ca, stage.body(kind, 5, list(0, &[one])))).await, None);
    assert_eq!(stage.says(&seal(&ca, stage.body(kind, 4, list(0, &[one, other])))).await.as_deref(), Some("TED-1190"));

    // The signing key itself: from now on nothing counts that it signs, whatever date it writes.
    let before = seal(&stage.signing, stage.body(EnvelopeKind::CONFIGURATION, 9, configuration(None, "north")));
    assert_eq!(stage.says(&seal(&ca, stage.body(kind, 6, list(0, &[other])))).await, None);
    assert_eq!(stage.says(&before).await.as_deref(), Some("TED-1194"));
    let answer = stage.fake.state_and_offer(1, &stage.package.release()).await;
    assert!(matches!(&answer, OfferAnswer::Refused(refused) if refused.code() == "TED-1194"), "{answer:?}");

    // The list of number 6 named one key only, and the other is revoked all the same; also after a restart.
    within("the shutdown", stage.subscriber.shutdown()).await;
    drop(stage.subscriber);
    std::fs::remove_dir_all(stage.world.data_of(ONE).join("catalog")).expect("the catalog is lost");
    let security = ted_core::store::SecurityDir::open(
        &stage.world.data_of(ONE).join("security"),
        ted_core::store::NodeRole::Subscriber,
    );
    let revocations = ted_core::store::Revocations::open(&security.expect("opened")).expect("readable");
    let fleet = stage.authority.root().key_hash();
    assert!(revocations.is_revoked(&fleet, &one) && revocations.is_revoked(&fleet, &other));
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_a_revoked_key_signed_count_for_nothing() {
    let stage = Stage::new().await;
    let name = stage.authority.root().name();
    let stolen = stage.authority.issue_identity(&AwsLc, Usage::Sign, name, SystemClock.now()).expect("issued");
    let package = stage.package.index.id();
    let encryption = {
        let path = stage.world.data_of(ONE).join("security");
        let security = ted_core::store::SecurityDir::open(&path, ted_core::store::NodeRole::Subscriber);
        let keystore = security.expect("opened").load_keystore().expect("readable");
        keystore.identity(&stage.fleet(), Usage::SubscriberEncryption).expect("enrolled").key.spki().to_vec()
    };
    let recipient = Recipient { identity: stage.me(), encryption };
    let grant = Grant::issue(&AwsLc, &ContentKey::from_bytes([1; 32]), &package, &recipient).expect("wrapped");
    let merkle_root = GrantTree::over(vec![grant.leaf().expect("short")]).expect("one").root();
    let payload = Grants { package, count: 1, merkle_root }.to_payload().expect("short");
    let envelope = seal(&stolen, stage.body(EnvelopeKind::GRANTS, 3, payload));
    let proven = ProvenGrant { grant, index: 0, path: vec![] }.to_bytes().expect("short");
    stage.fake.hand_out_grant(envelope.id(), proven);
    // It is no standing envelope; it is there to be fetched from now on.
    assert_eq!(stage.says(&envelope).await.as_deref(), Some("TED-1192"));
    let ca = stage.authority.identity();
    let revoked = list(0, &[stolen.certificate.key_hash()]);
    assert_eq!(stage.says(&seal(&ca, stage.body(EnvelopeKind::REVOCATION_LIST, 4, revoked))).await, None);

    let release = stage.package.release().with_sealed(true);
    let statement = stage.fake.state(&release, SystemClock.now(), DAY, |_| {});
    let answer = stage.fake.offer_with(1, release.distribution, statement, vec![(package, envelope.id())]).await;
    assert!(matches!(&answer, OfferAnswer::Refused(refused) if refused.code() == "TED-1194"), "{answer:?}");
    assert_eq!(stage.fake.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_the_node_itself_then_from_its_distributor_for_it_then_for_all() {
    use ted_core::distributor::SettingChanges;
    use ted_core::subscriber::SettingSource;
    let world = World::new().await;
    let mut own = Settings::default();
    own.set("rate.low".parse().expect("known"), "1k").expect("fits");
    let invite = world.invite(ONE).await;
    let subscriber = world.builder(ONE).settings(own).join(&invite).await.expect("it joins");
    let other = world.subscriber("other.example").await;
    let set = |pairs: &[(&str, &str)]| SettingChanges {
        set: pairs.iter().map(|(name, value)| (name.parse().expect("known"), (*value).to_owned())).collect(),
        unset: vec![],
    };
    let (one, mut events) = (node(ONE), world.distributor.events());
    let for_one = set(&[("variable.SITE", "north"), ("rate.low", "2k")]);
    world.distributor.configure(Some(&one), for_one).await.expect("set");
    world.distributor.configure(None, set(&[("variable.SITE", "all"), ("scrub.interval", "7d")])).await.expect("set");
    let wrong = world.distributor.configure(Some(&one), set(&[("scrub.interval", "weekly")])).await;
    assert_eq!(wrong.expect_err("refused").code(), "TED-1373");
    assert!(world.distributor.fleet().to_toml().expect("writable").contains("\"variable.SITE\" = \"north\""));

    subscriber.start().await.expect("started");
    let mut acknowledged = 0;
    event("both to be in force", &mut events, |event| {
        if matches!(&event, ted_core::DistributorEvent::Acknowledged { subscriber, .. } if *subscriber == one) {
            acknowledged += 1;
        }
        (acknowledged == 2).then_some(())
    })
    .await;
    let shown = subscriber.configuration().await.expect("readable");
    let rows: Vec<_> =
        shown.settings.iter().map(|row| (row.setting.to_string(), row.value.as_str(), row.source)).collect();
    assert_eq!(
        rows,
        [
            ("rate.low".to_owned(), "1kB/s", SettingSource::Own),
            ("variable.SITE".to_owned(), "north", SettingSource::Distributor),
            ("scrub.interval".to_owned(), "7d", SettingSource::DistributorForAll),
        ]
    );
    let asked = world.distributor.configure(Some(&one), SettingChanges::default()).await.expect("shown");
    assert_eq!((asked.in_force, asked.sequence.is_some()), (vec![one.clone()], true));

    // What is for one is handed to no other, though it knows the id.
    let security =
        ted_core::store::SecurityDir::open(&world.data_of(ONE).join("security"), ted_core::store::NodeRole::Subscriber);
    let standing = ted_core::store::StandingEnvelopes::open(&security.expect("opened")).expect("readable");
    let (_, addressed) = standing.choose(|slot| slot.recipient.is_some()).remove(0);
    within("the shutdown", other.shutdown()).await;
    let (_endpoint, connection) = raw::dial(&world.data_of("other.example"), world.address).await;
    let target = ted_core::protocol::FetchTarget::Envelope(addressed.id);
    let fetch = ted_core::protocol::Fetch { target, from: 0, to: u64::MAX };
    let reply = raw::ask(&connection, &ted_core::protocol::Request::Fetch(fetch)).await;
    assert!(
        matches!(&reply, raw::Reply::Answer(ted_core::protocol::Answer::Refused(refused)) if refused.code() == "TED-1341"),
        "{reply:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_the_distributor_sets_stands_in_targets() {
    use ted_core::distributor::SettingChanges;
    let world = World::new().await;
    let allowed = world.folder.path().join("allowed");
    let mut spec = ted_core::DistributionSpec::new(support::label(support::DISTRIBUTION), &world.source);
    spec.target = Some(format!("{}/%SITE%/www", allowed.display()));
    world.distributor.update_distribution(&support::label(support::DISTRIBUTION), spec).await.expect("changed");
    let set = vec![("variable.SITE".parse().expect("known"), "north".to_owned())];
    let invite = world.invite(ONE).await;
    let builder = Subscriber::builder(world.data_of(ONE)).allow_targets_below(&allowed);
    let subscriber = within("the enrolment", builder.join(&invite)).await.expect("it joins");
    world.distributor.configure(None, SettingChanges { set, unset: vec![] }).await.expect("set");
    let mut events = subscriber.events();
    subscriber.start().await.expect("started");
    event("the configuration", &mut events, |event| {
        matches!(event, SubscriberEvent::EnvelopeAccepted { .. }).then_some(())
    })
    .await;
    world.deliver().await;
    let north: PathBuf = allowed.join("north/www");
    support::compare::trees(&world.source, &north, &[]).expect("extracted where the variable says");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_configurations_are_signed_anew_at_two_thirds_of_their_life() {
    use ted_core::distributor::SettingChanges;
    let clock = TestClock::at_present();
    let ticking = clock.clone();
    let world = World::with(|builder| builder.clock(ticking)).await;
    let subscriber = world.subscriber(ONE).await;
    let mut events = world.distributor.events();
    let set = vec![("scrub.interval".parse().expect("known"), "7d".to_owned())];
    world.distributor.configure(Some(&node(ONE)), SettingChanges { set, unset: vec![] }).await.expect("set");
    world.invite("lost.example").await;
    let lost = world.joined("lost.example").await;
    drop(lost);
    world.distributor.revoke("lost.example", RevocationReason::LOST).await.expect("revoked");
    let mut newest = std::collections::BTreeMap::new();
    for days in [0, 61, 61] {
        clock.forward(DAY * days);
        let mut waiting = vec!["configuration", "revocation list"];
        let seen = &mut newest;
        event("both to be in force", &mut events, |event| {
            if let ted_core::DistributorEvent::Acknowledged { kind, sequence, .. } = event
                && seen.get(&kind).is_none_or(|before| *before < sequence)
            {
                waiting.retain(|waits| *waits != kind);
                seen.insert(kind, sequence);
            }
            waiting.is_empty().then_some(())
        })
        .await;
    }
    let value = subscriber.configuration().await.expect("readable").settings;
    assert_eq!(value[0].value, "7d");
}
