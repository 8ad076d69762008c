//! Peers that speak garbage, lie or stall: they get a refusal or nothing, and everybody else is served as ever.

mod support;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use support::fake::{Alter, Fake, Package, flip, revision};
use support::raw::{self, Reply};
use support::{DISTRIBUTION, World, event, find, label, node, noise, within};
use ted_core::id::{DistributionId, EnvelopeId, FiringId};
use ted_core::limits::Limits;
use ted_core::node::{Clock, SystemClock};
use ted_core::protocol::{
    Answer, Fetch, FetchTarget, OfferAnswer, PartState, ReceiptsAnswer, Request, code, encode_request,
};
use ted_core::security::{
    AwsLc, Crypto as _, EnrolRequest, Envelope, EnvelopeBody, EnvelopeKind, Identity, Receipt, ReleaseStatement, Stage,
};
use ted_core::transport::{Connection, SendHalf};
use ted_core::{BuildOutcome, DistributorEvent, Subscriber, SubscriberEvent};

const HOUR: Duration = Duration::from_secs(3600);

fn refusal(reply: Reply) -> String {
    match reply {
        Reply::Answer(Answer::Refused(refused)) => refused.code().to_owned(),
        Reply::Answer(Answer::Receipts(answer)) => answer.refusal_of(0).expect("refused").code().to_owned(),
        other => panic!("answered with {other:?}"),
    }
}

fn nothing_of(id: u8) -> Request {
    Request::Fetch(Fetch { target: FetchTarget::Envelope(EnvelopeId::from_bytes([id; 32])), from: 0, to: 10 })
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_one_stream_is_answered_or_dropped_and_the_connection_goes_on() {
    let world = World::new().await;
    let BuildOutcome::Built(built) = world.distributor.build(&label(DISTRIBUTION)).await.expect("built") else {
        panic!("the first revision is a new one")
    };
    drop(world.joined("bad.example").await);
    let (_endpoint, bad) = raw::dial(&world.data_of("bad.example"), world.address).await;

    let oversize = [u32::MAX.to_le_bytes().as_slice(), &[7; 64]].concat();
    let undersize = [1_u32.to_le_bytes().as_slice(), &[7; 1]].concat();
    for dropped in [oversize, undersize, vec![], vec![1, 2, 3], b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        assert_eq!(within("an end", raw::ask_bytes(&bad, dropped)).await, Reply::Dropped);
    }
    for kind in [0_u16, 9, 999, 0x7fff, 0x8003, 0xffff] {
        let unknown = encode_request(&Request::Unknown { kind }, &Limits::DEFAULT).expect("short");
        let answer = within("an answer", raw::ask_bytes(&bad, unknown)).await;
        assert_eq!(answer, Reply::Answer(Answer::Unsupported { kind }));
    }
    for kind in [1_u16, 2, 3, 4, 6, 7, 8] {
        let nonsense = [10_u32.to_le_bytes().as_slice(), &kind.to_le_bytes(), &[0xff; 8]].concat();
        let answer = within("an answer", raw::ask_bytes(&bad, nonsense)).await;
        assert_eq!(refusal(answer), code::BAD_REQUEST, "kind {kind}");
    }
    let enrol = within("an answer", raw::ask(&bad, &Request::Enrol(vec![1]))).await;
    assert_eq!(refusal(enrol), "TED-1002");
    // Whoever is enrolled renews its own certificates over its connection, and asks for nobody else's.
    let keys = [(); 2].map(|()| AwsLc.generate_key().expect("a key"));
    let other = EnrolRequest::make(&AwsLc, &node("bad.example"), &keys[0], &keys[1], None).expect("a request");
    let other = Request::Enrol(other.to_bytes().expect("short"));
    assert_eq!(refusal(within("an answer", raw::ask(&bad, &other)).await), "TED-1140");

    let target = FetchTarget::Package(built.package);
    world.send().await;
    for (from, to, length) in [
        (built.bytes, built.bytes + 10, 0),
        (built.bytes + 5, u64::MAX, 0),
        (u64::MAX, u64::MAX, 0),
        (built.bytes - 7, u64::MAX, 7),
        (3, 3, 0),
    ] {
        let reply = within("an answer", raw::ask(&bad, &Request::Fetch(Fetch { target, from, to }))).await;
        let Reply::Content { total_bytes, bytes, end } = reply else { panic!("{reply:?}") };
        assert_eq!((total_bytes, bytes.len(), end), (built.bytes, length, Ok(())), "{from}..{to}");
    }
    let backwards = within("an answer", raw::ask(&bad, &Request::Fetch(Fetch { target, from: 2, to: 1 }))).await;
    assert_eq!(refusal(backwards), code::BAD_REQUEST);

    world.subscriber("good.example").await;
    let firing = world.send().await;
    let mut events = world.distributor.events();
    event("the good one's extraction", &mut events, |event| match event {
        DistributorEvent::Receipt { subscriber, stage: Stage::Extracted, .. } => {
            (subscriber.to_string() == "good.example").then_some(())
        }
        _ => None,
    })
    .await;
    world.assert_equal("good.example");
    assert_eq!(world.distributor.report(firing).expect("known").rows.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_say_nothing_more_hold_up_nobody_else() {
    let world = World::new().await;
    drop(world.joined("bad.example").await);
    let (_endpoint, bad) = raw::dial(&world.data_of("bad.example"), world.address).await;
    let mut idle = vec![];
    for _ in 1..Limits::DEFAULT.streams_max {
        let (mut send, recv) = within("a stream", bad.open()).await.expect("granted");
        send.write(Bytes::from_static(&[54, 0, 0])).await.expect("written");
        idle.push((send, recv));
    }
    // The same peer is answered on the stream that is left, and others as ever.
    assert_eq!(refusal(within("an answer", raw::ask(&bad, &nothing_of(1))).await), code::NOT_FOUND);
    let good = world.subscriber("good.example").await;
    world.distributor.delete_subscriber(&support::node("bad.example")).await.expect("removed");
    world.deliver().await;
    world.assert_equal("good.example");
    let closed = within("the removed one's connection to close", bad.closed()).await;
    assert!(!closed.to_string().is_empty());
    within("the shutdown", good.shutdown()).await;
}

fn receipt(
    identity: &Identity,
    firing: FiringId,
    distribution: DistributionId,
    stage: Stage,
    change: impl FnOnce(&mut EnvelopeBody),
) -> Envelope {
    let now = SystemClock.now();
    let receipt = Receipt {
        firing: Some(firing),
        distribution,
        revision: revision(u64::MAX),
        package: None,
        stage,
        code: None,
        detail: "so they say".to_owned(),
        at: now,
    };
    let fleet = identity.certificate.key_hash();
    let mut body = EnvelopeBody {
        kind: EnvelopeKind::RECEIPT,
        distributor: fleet,
        issuer: fleet,
        sequence: now.millis(),
        issued: now,
        expires: now.plus(HOUR),
        payload: receipt.to_payload().expect("short enough"),
    };
    change(&mut body);
    Envelope::seal(&AwsLc, identity, body).expect("sealed")
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_are_forged_foreign_or_repeated_change_nothing() {
    let world = World::new().await;
    for name in ["bad.example", "victim.example"] {
        drop(world.joined(name).await);
    }
    let firing = world.send().await;
    let distribution = Package::of(&world.folder.path().join("distributor")).index.root().distribution;
    let (root, bad_identity) = raw::identity(&world.data_of("bad.example"));
    let (_, victim_identity) = raw::identity(&world.data_of("victim.example"));
    let fleet = root.key_hash();
    let (_endpoint, bad) = raw::dial(&world.data_of("bad.example"), world.address).await;
    let say = async |bytes: &[u8]| within("an answer", raw::ask(&bad, &Request::Receipts(vec![bytes.to_vec()]))).await;
    let make = |identity: &Identity, change: &dyn Fn(&mut EnvelopeBody)| {
        receipt(identity, firing, distribution, Stage::Extracted, |body| {
            body.distributor = fleet;
            change(body);
        })
    };

    let foreign = make(&victim_identity, &|_| {});
    assert_eq!(refusal(say(foreign.to_bytes()).await), "TED-1841");
    let mut forged = make(&bad_identity, &|_| {}).to_bytes().to_vec();
    let length = forged.len();
    forged[length - 3] ^= 1;
    refusal(say(&forged).await);
    let other_fleet = make(&bad_identity, &|body| body.distributor = body.issuer);
    refusal(say(other_fleet.to_bytes()).await);
    let other_kind = make(&bad_identity, &|body| body.kind = EnvelopeKind::RELEASE_STATEMENT);
    refusal(say(other_kind.to_bytes()).await);
    let no_receipt = make(&bad_identity, &|body| body.payload = vec![1, 2, 3]);
    refusal(say(no_receipt.to_bytes()).await);
    for nonsense in [vec![], vec![0xff; 1000]] {
        refusal(say(&nonsense).await);
    }
    let report = world.distributor.report(firing).expect("known");
    assert!(report.rows.iter().all(|row| row.state != PartState::Extracted), "{report}");

    // Its own word about itself counts, once or twice, and about nobody else.
    let own = make(&bad_identity, &|_| {});
    for _ in 0..2 {
        assert_eq!(say(own.to_bytes()).await, Reply::Answer(Answer::Receipts(ReceiptsAnswer::default())));
    }
    let late = receipt(&bad_identity, firing, distribution, Stage::Failed, |body| body.distributor = fleet);
    assert_eq!(say(late.to_bytes()).await, Reply::Answer(Answer::Receipts(ReceiptsAnswer::default())));
    let report = world.distributor.report(firing).expect("known");
    let extracted: Vec<_> = report
        .rows
        .iter()
        .filter(|row| row.state == PartState::Extracted)
        .map(|row| row.subscriber.to_string())
        .collect();
    assert_eq!(extracted, ["bad.example"], "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_at_the_port_disturbs_nobody() {
    let world = World::new().await;
    let subscriber = world.subscriber("good.example").await;
    let port = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for seed in 0..200 {
        let mut datagram = noise(seed, 16 + usize::from(seed) * 6);
        if seed % 3 == 0 {
            // As the first packet of a connection would begin.
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        port.send_to(&datagram, world.address).expect("sent");
    }
    world.deliver().await;
    world.assert_equal("good.example");
    within("the shutdown", subscriber.shutdown()).await;
}

/// A fake Distributor with a package of three large files, and the Subscriber that has dialled it.
struct Deceived {
    world: World,
    subscriber: Subscriber,
    events: ted_core::Events<SubscriberEvent>,
    package: Package,
    fake: Fake,
}

async fn deceive(alter: impl FnOnce(&Package) -> Alter) -> Deceived {
    deceive_with(None, alter).await
}

/// As [`deceive`], serving another package than the one that was built.
async fn deceive_with(served: Option<&Package>, alter: impl FnOnce(&Package) -> Alter) -> Deceived {
    let world = World::new().await;
    for number in 0..3 {
        std::fs::write(world.source.join(format!("large-{number}")), noise(number + 50, 5 << 20)).expect("written");
    }
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    let subscriber = world.joined("one.example").await;
    within("the shutdown", world.distributor.shutdown()).await;
    let data = world.folder.path().join("distributor");
    let package = Package::of(&data);
    assert!(package.index.body_frames() >= 3);
    let alter = alter(&package);
    let events = subscriber.events();
    subscriber.start().await.expect("it starts");
    let fake = Fake::meet(&data, world.address, served.unwrap_or(&package), alter).await;
    Deceived { world, subscriber, events, package, fake }
}

fn honest() -> Alter {
    Box::new(|_, bytes| bytes)
}

fn refused_code(answer: OfferAnswer) -> String {
    match answer {
        OfferAnswer::Refused(refused) => refused.code().to_owned(),
        other => panic!("answered with {other:?}"),
    }
}

fn wanted(answer: &OfferAnswer) -> bool {
    matches!(answer, OfferAnswer::Want { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_always_wrong_makes_the_package_corrupt_until_the_next_firing() {
    let frame_at = Arc::new(std::sync::Mutex::new(0..0));
    let bad = frame_at.clone();
    let healed = Arc::new(AtomicU32::new(0));
    let heals = healed.clone();
    let mut stage = deceive(move |package| {
        *bad.lock().expect("whole") = package.index.frame_range(1);
        Box::new(move |range, mut bytes| {
            if heals.load(Ordering::SeqCst) == 0 {
                flip(&range, &mut bytes, bad.lock().expect("whole").start + 9);
            }
            bytes
        })
    })
    .await;
    let release = stage.package.release();
    let whole = stage.package.bytes.len() as u64;
    assert!(wanted(&stage.fake.state_and_offer(1, &release).await));
    let receipt = stage.fake.receipt().await;
    assert_eq!((receipt.stage, receipt.code.as_deref()), (Stage::Corrupt, Some(code::CORRUPT)), "{receipt:?}");
    let data = stage.world.data_of("one.example");
    assert_eq!(find(&data, "distfile.corrupt").len(), 1);
    assert!(find(&data, "distfile.part").is_empty() && find(&data, "distfile.ted").is_empty());
    assert!(!stage.world.target_of("one.example").exists());
    let frame = frame_at.lock().expect("whole").clone();
    let frame_bytes = frame.end - frame.start;
    let served = stage.fake.served();
    assert!(served <= whole + 2 * frame_bytes + 256 * 1024, "{served} of {whole}: one frame was asked for three times");

    // The same firing is not tried again, the next one is; what was right is not fetched again.
    assert_eq!(refused_code(stage.fake.state_and_offer(1, &release).await), code::CORRUPT);
    assert_eq!(stage.fake.served(), served);
    healed.store(1, Ordering::SeqCst);
    assert!(wanted(&stage.fake.state_and_offer(2, &release).await));
    let receipt = stage.fake.receipt_of(Stage::Extracted).await;
    assert_eq!(receipt.firing, Some(FiringId::from_bytes([2; 16])));
    let again = stage.fake.served() - served;
    assert!(again < frame_bytes + 256 * 1024, "{again} bytes were fetched for a frame of {frame_bytes}");
    stage.world.assert_equal("one.example");
    within("the shutdown", stage.subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_always_damaged_is_attempted_once_a_firing_however_often_it_is_offered() {
    let always = |package: &Package| -> Alter {
        let frame = package.index.frame_range(1);
        Box::new(move |range, mut bytes| {
            flip(&range, &mut bytes, frame.start + 9);
            bytes
        })
    };
    let mut stage = deceive(always).await;
    let release = stage.package.release();
    let frame = stage.package.index.frame_range(1);
    let mut served = 0;
    for firing in 1..=5 {
        assert!(wanted(&stage.fake.state_and_offer(firing, &release).await), "firing {firing}");
        let receipt = stage.fake.receipt().await;
        assert_eq!((receipt.stage, receipt.firing), (Stage::Corrupt, Some(FiringId::from_bytes([firing; 16]))));
        let now = stage.fake.served();
        // The first brings everything else, each later one nothing but the three tries.
        assert!(firing == 1 || now - served <= 3 * (frame.end - frame.start) + 256 * 1024, "firing {firing}");
        served = now;
        for _ in 0..3 {
            assert_eq!(refused_code(stage.fake.state_and_offer(firing, &release).await), code::CORRUPT);
        }
        assert_eq!(stage.fake.served(), served, "firing {firing} is over for this node");
    }

    // Nor does a restart make it an attempt more.
    let Deceived { world, subscriber, package, fake, .. } = stage;
    within("the shutdown", subscriber.shutdown()).await;
    drop((subscriber, fake));
    within("the address to be free", async {
        while std::net::UdpSocket::bind(world.address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let subscriber = world.builder("one.example").open().await.expect("its data directory is free");
    subscriber.start().await.expect("it starts");
    let data = world.folder.path().join("distributor");
    let mut fake = Fake::meet(&data, world.address, &package, always(&package)).await;
    assert_eq!(refused_code(fake.state_and_offer(5, &release).await), code::CORRUPT);
    assert_eq!(fake.served(), 0);
    assert!(wanted(&fake.state_and_offer(6, &release).await));
    fake.receipt_of(Stage::Corrupt).await;
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_was_damaged_on_the_way_is_fetched_again() {
    let once = Arc::new(AtomicU32::new(0));
    let mut stage = deceive(|package| {
        let at = package.index.frame_range(1).start + 100;
        Box::new(move |range, mut bytes| {
            if range.contains(&at) && once.fetch_add(1, Ordering::SeqCst) == 0 {
                flip(&range, &mut bytes, at);
            }
            bytes
        })
    })
    .await;
    let release = stage.package.release();
    assert!(wanted(&stage.fake.state_and_offer(1, &release).await));
    stage.fake.receipt_of(Stage::Extracted).await;
    stage.world.assert_equal("one.example");
    within("the shutdown", stage.subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_always_wrong_is_corrupt_and_not_asked_for_for_ever() {
    for place in ["tail", "root", "table"] {
        let mut stage = deceive(move |package| {
            let length = package.bytes.len() as u64;
            let body_end = package.index.frame_range(package.index.body_frames() - 1).end;
            let at = match place {
                "tail" => length - 2,
                "root" => length - 300,
                _ => body_end + 40,
            };
            Box::new(move |range, mut bytes| {
                flip(&range, &mut bytes, at);
                bytes
            })
        })
        .await;
        let release = stage.package.release();
        stage.fake.state_and_offer(1, &release).await;
        let receipt = stage.fake.receipt().await;
        assert!(matches!(receipt.stage, Stage::Corrupt | Stage::Failed), "{place}: {receipt:?}");
        assert!(receipt.code.is_some(), "{place}");
        let served = stage.fake.served();
        assert!(served < 4 << 20, "{place}: {served} bytes for an index");
        assert!(find(&stage.world.data_of("one.example"), "distfile.ted").is_empty(), "{place}");
        within("the shutdown", stage.subscriber.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_cut_off_is_never_taken_for_whole() {
    let cut = Arc::new(AtomicU32::new(1));
    let cuts = cut.clone();
    let mut stage = deceive(|package| {
        let body = package.index.frame_range(1);
        Box::new(move |range, mut bytes| {
            // Each answer ends early in the second frame, as if the file ended there.
            if cuts.load(Ordering::SeqCst) == 1 && range.start < body.end && range.end > body.start + 1000 {
                bytes.truncate((body.start + 1000).saturating_sub(range.start) as usize);
            }
            bytes
        })
    })
    .await;
    let release = stage.package.release();
    assert!(wanted(&stage.fake.state_and_offer(1, &release).await));
    event("some progress", &mut stage.events, |event| matches!(event, SubscriberEvent::Receiving { .. }).then_some(()))
        .await;
    assert!(find(&stage.world.data_of("one.example"), "distfile.ted").is_empty());
    cut.store(0, Ordering::SeqCst);
    stage.fake.receipt_of(Stage::Extracted).await;
    stage.world.assert_equal("one.example");
    within("the shutdown", stage.subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_may_not_be_believed_are_refused_and_nothing_changes() {
    let mut stage = deceive(|_| honest()).await;
    let fake = &mut stage.fake;
    let now = SystemClock.now();
    let release = stage.package.release();
    let distribution = release.distribution;

    let hour_ago = ted_core::id::UnixMillis::from_millis(now.millis() - 3_600_000);
    let expired = fake.state(&release, hour_ago, Duration::from_secs(60), |_| {});
    assert_eq!(refused_code(fake.offer(1, distribution, expired).await), code::STATEMENT_EXPIRED);
    let elsewhere = DistributionId::from_bytes([0xee; 16]);
    let other = fake.state(&release, now, HOUR, |_| {});
    assert_eq!(refused_code(fake.offer(1, elsewhere, other).await), "TED-1861");
    let other_kind = fake.state(&release, now, HOUR, |body| body.kind = EnvelopeKind::GRANTS);
    refused_code(fake.offer(1, distribution, other_kind).await);
    let other_fleet = fake.state(&release, now, HOUR, |body| body.distributor = body.issuer);
    refused_code(fake.offer(1, distribution, other_fleet).await);
    let empty = ReleaseStatement { packages: vec![], ..release.clone() };
    assert_eq!(refused_code(fake.state_and_offer(1, &empty).await), code::NO_USABLE_PACKAGE);
    refused_code(fake.offer(1, distribution, EnvelopeId::from_bytes([1; 32])).await);
    let nonsense = fake.hand_out(EnvelopeId::from_bytes([2; 32]), vec![0xff; 300]);
    refused_code(fake.offer(1, distribution, nonsense).await);
    let flood = fake.hand_out(EnvelopeId::from_bytes([3; 32]), vec![0; 1 << 20]);
    refused_code(fake.offer(1, distribution, flood).await);
    assert_eq!(fake.served(), 0, "none of them had a byte of the package fetched");
    assert!(!stage.world.target_of("one.example").exists());
    let security = stage.world.data_of("one.example").join("security");
    assert!(find(&security, "dist.example.cer").len() == 1, "the certificate still waits for a verified package");

    // The root contradicts the statement: another revision, another Distribution.
    for lie in [
        ReleaseStatement {
            packages: vec![ted_core::security::PackageRef {
                carried: ted_core::security::Carried::Baseline { revision: revision(u64::MAX) },
                ..stage.package.reference()
            }],
            revision: revision(u64::MAX),
            ..release.clone()
        },
        ReleaseStatement { distribution: elsewhere, ..release.clone() },
    ] {
        assert!(wanted(&fake.state_and_offer(1, &lie).await));
        let receipt = fake.receipt().await;
        assert_eq!(receipt.stage, Stage::Failed, "{receipt:?}");
    }
    assert!(find(&stage.world.data_of("one.example"), "distfile.part").is_empty());

    let later = fake.state(&release, SystemClock.now().plus(HOUR), HOUR, |_| {});
    assert!(wanted(&fake.offer(2, distribution, later).await));
    fake.receipt_of(Stage::Extracted).await;
    stage.world.assert_equal("one.example");
    // What was accepted last is the floor, for statements and for revisions.
    let older = fake.state(&release, SystemClock.now(), HOUR * 3, |_| {});
    assert_eq!(refused_code(fake.offer(3, distribution, older).await), code::BELOW_FLOOR);
    let back = ReleaseStatement { revision: revision(1), ..release.clone() };
    let below = fake.state(&back, SystemClock.now().plus(HOUR), HOUR, |_| {});
    assert_eq!(refused_code(fake.offer(3, distribution, below).await), code::BELOW_FLOOR);
    assert_eq!(fake.offer(4, distribution, later).await, OfferAnswer::Current);
    let receipt = fake.receipt_of(Stage::Extracted).await;
    assert_eq!(receipt.firing, Some(FiringId::from_bytes([4; 16])), "the latest receipt comes again");
    within("the shutdown", stage.subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_of_another_distributor_is_refused_by_its_root() {
    let other = World::new().await;
    other.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    let foreign = Package::of(&other.folder.path().join("distributor"));
    // The right Distributor states and serves it, but somebody else has signed it.
    let Deceived { world, subscriber, package, mut fake, .. } = deceive_with(Some(&foreign), |_| honest()).await;
    let release = ReleaseStatement { distribution: package.release().distribution, ..foreign.release() };
    assert!(wanted(&fake.state_and_offer(1, &release).await));
    let receipt = fake.receipt().await;
    assert_eq!(receipt.stage, Stage::Failed, "{receipt:?}");
    let code = receipt.code.expect("a code");
    assert!(code.starts_with("TED-11"), "{code}: {}", receipt.detail);
    assert!(find(&world.data_of("one.example"), "distfile.part").is_empty());
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_enrolled_only_and_asked_for_nothing_else() {
    let world = World::new().await;
    drop(world.joined("one.example").await);
    let (root, _) = raw::identity(&world.data_of("one.example"));
    let (_endpoint, stranger) = raw::dial_to_enrol(root, world.address).await;
    for request in [nothing_of(1), Request::Receipts(vec![vec![1]])] {
        assert_eq!(refusal(within("an answer", raw::ask(&stranger, &request)).await), code::NOT_ENTITLED);
    }
    let nonsense = within("an answer", raw::ask(&stranger, &Request::Enrol(vec![1, 2, 3]))).await;
    assert!(refusal(nonsense).starts_with("TED-"));
}
