//! Deliveries that go as they should, and what may come between: nodes that are away, that start again, that are
//! cancelled, overtaken, not entitled or enrolled anew.

mod support;

use std::fs;
use std::time::Duration;

use support::raw::{self, Reply};
use support::{
    ANY_PORT, CHANNEL, DISTRIBUTION, TestClock, World, connected, disconnected, event, extracted, find, label, node,
    noise, within,
};
use ted_core::distributor::Reading;
use ted_core::protocol::{Answer, Fetch, FetchTarget, Outcome, PartState, Request, code};
use ted_core::subscriber::Enrolment;
use ted_core::{BuildOutcome, DistributionSpec, DistributorEvent, Error, Subscriber, SubscriberEvent, Until};

const THREE: [&str; 3] = ["one.example", "two.example", "three.example"];

fn code_of<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.expect_err("refused").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_subscribers_get_every_byte_and_later_only_what_changed() {
    let world = World::new().await;
    let mut subscribers = vec![];
    for name in THREE {
        subscribers.push(world.subscriber(name).await);
    }
    world.deliver().await;
    for name in THREE {
        world.assert_equal(name);
    }

    let unchanged = world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    assert!(matches!(unchanged, BuildOutcome::Unchanged(_)), "{unchanged:?}");
    let mut events: Vec<_> = subscribers.iter().map(Subscriber::events).collect();
    let again = world.deliver().await;
    assert!(again.rows.iter().all(|row| row.revision == unchanged.revision().revision));

    fs::write(world.source.join("file-05"), "another line\n").expect("written");
    world.deliver().await;
    for (name, events) in THREE.iter().zip(&mut events) {
        assert_eq!(extracted(events).await, 1, "{name}: the one file that changed, and nothing for the same revision");
        world.assert_equal(name);
        assert_eq!(find(&world.data_of(name), "distfile.ted").len(), 2, "{name} keeps the newest two packages");
    }
    for subscriber in subscribers {
        within("the shutdown", subscriber.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_was_away_gets_it_when_it_comes_back_though_the_distributor_was_restarted() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);

    fs::write(world.source.join("file-05"), "written while it was away\n").expect("written");
    let firing = world.send().await;
    let report = world.distributor.report(firing).expect("known");
    assert_eq!((report.outcome, report.rows[0].state), (Outcome::Open, PartState::Pending));
    let world = world.restarted().await;
    assert_eq!(world.distributor.report(firing).expect("persisted").outcome, Outcome::Open);

    let subscriber = world.reopen("one.example").await;
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_finds_the_distributor_again_by_itself_and_can_be_started_twice() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let world = world.restarted().await;
    let mut events = world.distributor.events();
    if !world.distributor.status().await.expect("readable").subscribers[0].connected {
        connected(&mut events, "one.example").await;
    }
    fs::write(world.source.join("file-06"), "after the restart\n").expect("written");
    world.deliver().await;

    within("the shutdown", subscriber.shutdown()).await;
    fs::write(world.source.join("file-07"), "after its own stop\n").expect("written");
    let firing = world.send().await;
    subscriber.start().await.expect("the same Subscriber starts again");
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distributor_dials_a_subscriber_that_listens() {
    let world = World::new().await;
    let invite = world.invite("one.example").await;
    let subscriber =
        within("the enrolment", world.builder("one.example").listen(ANY_PORT).join(&invite)).await.expect("it joins");
    // It does not know where the Distributor is any more, so the Distributor has to come.
    let pem = world.distributor.certificate_pem();
    let name = subscriber.trust(&pem).await.expect("trusted");
    let refused = subscriber.enrol(Some(&name), &[], None).await;
    assert!(refused.is_err(), "{refused:?}");
    let mut events = world.distributor.events();
    let address = subscriber.start().await.expect("it starts").expect("it listens");
    let endpoint = address.to_string().parse().expect("an endpoint");
    world.distributor.update_subscriber(&node("one.example"), &[endpoint]).await.expect("changed");
    connected(&mut events, "one.example").await;
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_were_made_without_a_connection_arrive_later() {
    let world = World::new().await;
    let blocked = world.target_of("one.example");
    fs::write(&blocked, "a file where the target should be").expect("written");
    let subscriber = world.subscriber("one.example").await;
    let failed = world.wait(world.send().await).await;
    assert_eq!((failed.outcome, failed.rows[0].state), (Outcome::Partial, PartState::Failed), "{failed}");
    assert!(failed.rows[0].code.as_ref().is_some_and(|code| code.starts_with("TED-14")), "{failed}");
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);

    // Verified and not extracted: a Subscriber that starts catches up before anybody is connected.
    within("the shutdown", world.distributor.shutdown()).await;
    fs::remove_file(&blocked).expect("removed");
    let subscriber = world.builder("one.example").open().await.expect("its data directory is free");
    let mut events = subscriber.events();
    subscriber.start().await.expect("it starts");
    extracted(&mut events).await;
    world.assert_equal("one.example");
    let world = world.restarted().await;
    let mut ends = world.distributor.events();
    if !world.distributor.report(failed.firing).expect("persisted").is_complete() {
        event("the firing's end", &mut ends, |event| match event {
            DistributorEvent::FiringEnded { firing } if firing == failed.firing => Some(()),
            _ => None,
        })
        .await;
    }
    assert!(world.distributor.report(failed.firing).expect("known").is_complete());
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_is_not_offered_and_a_later_firing_takes_the_place_of_an_earlier_one() {
    let world = World::new().await;
    let subscriber = world.joined("one.example").await;
    let cancelled = world.send().await;
    world.distributor.cancel(cancelled).await.expect("open");
    assert_eq!(world.distributor.report(cancelled).expect("known").outcome, Outcome::Cancelled);
    world.start(&subscriber).await;
    let mut events = subscriber.events();
    assert!(world.distributor.status().await.expect("readable").firings.is_empty());

    within("the shutdown", subscriber.shutdown()).await;
    let earlier = world.send().await;
    fs::write(world.source.join("file-05"), "of the later firing\n").expect("written");
    let later = world.send().await;
    assert_eq!(world.distributor.report(earlier).expect("known").outcome, Outcome::Partial);
    world.start(&subscriber).await;
    let report = world.wait(later).await;
    assert!(report.is_complete(), "{report}");
    let accepted = event("an acceptance", &mut events, |event| match event {
        SubscriberEvent::Accepted { revision, .. } => Some(revision),
        _ => None,
    })
    .await;
    assert_eq!(accepted, report.rows[0].revision, "the first that was ever accepted is the later one's");
    assert_eq!(world.distributor.report(cancelled).expect("known").rows[0].state, PartState::Pending);
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_outside_the_channel_may_not_fetch() {
    let world = World::new().await;
    let other = world.folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("file"), noise(3, 1000)).expect("a file");
    world.distributor.create_distribution(DistributionSpec::new(label("other"), &other)).await.expect("made");
    world.distributor.create_channel(label("others"), &[label("other")], &[]).await.expect("made");
    let BuildOutcome::Built(secret) = world.distributor.build(&label("other")).await.expect("built") else {
        panic!("the first revision is a new one")
    };
    let subscriber = world.joined("one.example").await;
    let (_endpoint, connection) = raw::dial(&world.data_of("one.example"), world.address).await;
    let fetch = Request::Fetch(Fetch { target: FetchTarget::Package(secret.package), from: 0, to: 100 });
    let refused = |reply: &Reply| match reply {
        Reply::Answer(Answer::Refused(refused)) => refused.code().to_owned(),
        other => panic!("answered with {other:?}"),
    };
    assert_eq!(refused(&raw::ask(&connection, &fetch).await), code::NOT_ENTITLED);

    // In the Channel it is served, on the same connection, once it is sent; taken out again, it is not.
    let members = [node("one.example")];
    world.distributor.update_channel(&label("others"), &[label("other")], &members).await.expect("changed");
    assert_eq!(refused(&raw::ask(&connection, &fetch).await), code::NOT_UNDER_WAY);
    world.distributor.send(&label("others"), ted_core::SendOptions::default()).await.expect("sent");
    let served = raw::ask(&connection, &fetch).await;
    assert!(matches!(&served, Reply::Content { bytes, end: Ok(()), .. } if bytes.len() == 100), "{served:?}");
    world.distributor.update_channel(&label("others"), &[label("other")], &[]).await.expect("changed");
    assert_eq!(refused(&raw::ask(&connection, &fetch).await), code::NOT_ENTITLED);
    drop(subscriber);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_token_waits_until_it_is_approved() {
    let world = World::new().await;
    let subscriber = world.builder("new.example").name(node("new.example")).open().await.expect("opened");
    let name = subscriber.trust(&world.distributor.certificate_pem()).await.expect("trusted");
    let endpoints = [world.address.to_string().parse().expect("an endpoint")];
    let asked = within("an answer", subscriber.enrol(Some(&name), &endpoints, None)).await.expect("answered");
    let (_, Enrolment::Pending { fingerprint }) = asked else { panic!("{asked:?}") };
    let pending = world.distributor.pending().await.expect("readable");
    assert_eq!((pending.len(), &pending[0].fingerprint), (1, &fingerprint));
    let other = world.distributor.approve(&node("other.example"), None, &[]).await;
    assert_eq!(code_of(other), "TED-1836");

    world.distributor.approve(&node("new.example"), Some(&fingerprint), &[label(CHANNEL)]).await.expect("approved");
    assert!(world.distributor.pending().await.expect("readable").is_empty());
    let asked = within("an answer", subscriber.enrol(Some(&name), &endpoints, None)).await.expect("answered");
    assert_eq!(asked.1, Enrolment::Enrolled);
    world.start(&subscriber).await;
    world.deliver().await;
    world.assert_equal("new.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_uses_its_time_and_its_node_alone() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let endpoints = [world.address.to_string().parse().expect("an endpoint")];
    let enrol = async |name: &str, token: &str| {
        let subscriber = world.builder(name).name(node(name)).open().await.expect("opened");
        let distributor = subscriber.trust(&world.distributor.certificate_pem()).await.expect("trusted");
        within("an answer", subscriber.enrol(Some(&distributor), &endpoints, Some(token)))
            .await
            .map(|(_, enrolment)| enrolment)
    };
    let hour = Duration::from_secs(3600);

    let twice = world.distributor.create_token(2, hour).await.expect("made").token;
    for name in ["a.example", "b.example"] {
        assert_eq!(enrol(name, &twice).await.expect("enrolled"), Enrolment::Enrolled);
    }
    let used_up = enrol("c.example", &twice).await.expect_err("refused").to_string();
    assert!(used_up.contains("TED-1210"), "{used_up}");

    let short = world.distributor.create_token(1, hour).await.expect("made").token;
    clock.forward(hour);
    let late = enrol("d.example", &short).await.expect_err("refused").to_string();
    assert!(late.contains("TED-1211"), "{late}");

    let wrong = world.distributor.create_token(1, hour).await.expect("made").token;
    let mut letters: Vec<char> = wrong.chars().collect();
    let last = letters.len() - 1;
    letters[last] = if letters[last] == 'a' { 'b' } else { 'a' };
    let altered: String = letters.into_iter().collect();
    assert!(enrol("e.example", &altered).await.is_err());
    assert_eq!(enrol("e.example", &wrong).await.expect("the right one still holds"), Enrolment::Enrolled);

    let text = world.invite("f.example").await.replace("f.example", "g.example");
    let other = within("an answer", world.builder("g.example").join(&text)).await.expect_err("refused").to_string();
    assert!(other.contains("TED-1212"), "{other}");
    // What failed left the data directory free, so that the right invite can be used there.
    let text = world.invite("g.example").await;
    within("an answer", world.builder("g.example").join(&text)).await.expect("it joins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_was_removed_does_not_come_back_by_an_unused_invite_or_an_approval() {
    let world = World::new().await;
    let name = node("one.example");
    let invite = world.invite("one.example").await;
    world.distributor.delete_subscriber(&name).await.expect("removed");
    let joining = within("the answer", world.builder("one.example").join(&invite)).await;
    let refused = joining.map(drop).expect_err("the invite is void").to_string();
    assert!(refused.contains("TED-1210"), "{refused}");

    let subscriber = world.builder("one.example").name(name.clone()).open().await.expect("opened");
    let distributor = subscriber.trust(&world.distributor.certificate_pem()).await.expect("trusted");
    let endpoints = [world.address.to_string().parse().expect("an endpoint")];
    let ask = || within("an answer", subscriber.enrol(Some(&distributor), &endpoints, None));
    assert!(matches!(ask().await.expect("answered").1, Enrolment::Pending { .. }));
    world.distributor.approve(&name, None, &[]).await.expect("approved");
    world.distributor.delete_subscriber(&name).await.expect("removed");
    assert!(matches!(ask().await.expect("answered").1, Enrolment::Pending { .. }), "it is to be approved anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_anew_takes_the_place_of_the_one_that_had_its_name() {
    let world = World::new().await;
    let before = world.subscriber("one.example").await;
    let mut events = world.distributor.events();
    let mut refusals = before.events();
    within("the shutdown", before.shutdown()).await;
    let firing = world.send().await;
    world.start(&before).await;
    assert!(world.wait(firing).await.is_complete());
    fs::write(world.source.join("file-05"), "for the new one\n").expect("written");

    let invite = world.invite("one.example").await;
    let again = Subscriber::builder(world.data_of("again"))
        .target(DISTRIBUTION.parse().expect("valid"), world.target_of("again"));
    let after = within("the enrolment", again.join(&invite)).await.expect("it joins");
    disconnected(&mut events, "one.example").await;
    let code = event("the old key to be refused", &mut refusals, |event| match event {
        SubscriberEvent::Refused { code, .. } => Some(code),
        _ => None,
    })
    .await;
    assert!(code.starts_with("TED-13"), "{code}");
    within("the shutdown", before.shutdown()).await;
    let firing = world.send().await;
    world.start(&after).await;
    let report = world.wait(firing).await;
    assert!(report.is_complete(), "{report}");
    world.assert_equal("again");
    within("the shutdown", after.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_for_a_lost_node_is_delivered_to_the_one_that_joins_in_its_place() {
    let world = World::new().await;
    drop(world.joined("one.example").await);
    let firing = world.send().await;
    let invite = world.invite("one.example").await;
    let again = Subscriber::builder(world.data_of("again"))
        .target(DISTRIBUTION.parse().expect("valid"), world.target_of("again"));
    let after = within("the enrolment", again.join(&invite)).await.expect("it joins");
    world.start(&after).await;
    let report = world.wait(firing).await;
    assert!(report.is_complete() && report.rows.len() == 1, "{report}");
    within("the shutdown", after.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_does_not_make_new_statements_unacceptable() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    clock.back(Duration::from_secs(1800));
    fs::write(world.source.join("file-05"), "half an hour earlier\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_proposed_target_moves_the_same_revision() {
    let world = World::new().await;
    let below = world.folder.path().join("below");
    let builder = Subscriber::builder(world.data_of("one.example")).allow_targets_below(&below);
    let subscriber = builder.join(&world.invite("one.example").await).await.expect("it joins");
    let propose = |place: &str| DistributionSpec {
        target: Some(below.join(place).to_string_lossy().into_owned()),
        ..DistributionSpec::new(label(DISTRIBUTION), &world.source)
    };
    fs::create_dir(&below).expect("a folder");
    world.distributor.update_distribution(&label(DISTRIBUTION), propose("first")).await.expect("changed");
    world.start(&subscriber).await;
    let first = world.deliver().await;
    world.distributor.update_distribution(&label(DISTRIBUTION), propose("second")).await.expect("changed");
    let second = world.deliver().await;
    assert_eq!(first.rows[0].revision, second.rows[0].revision);
    for place in ["first", "second"] {
        support::compare::trees(&world.source, &below.join(place), &[]).expect(place);
    }
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_patience_and_says_how_far_it_is() {
    let world = World::new().await;
    drop(world.joined("one.example").await);
    let firing = world.send().await;
    let waited = world.distributor.wait(firing, Until::Received, Some(Duration::from_millis(50))).await;
    assert_eq!(waited.expect("known").outcome, Outcome::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_revision_copies_what_did_not_change_and_no_change_is_missed() {
    let clock = TestClock::at_present();
    // What has just been written is read again by the next build, because a second change may leave no trace.
    clock.forward(Duration::from_secs(3600));
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let large = world.source.join("large");
    fs::write(&large, noise(7, 9 << 20)).expect("written");
    let build = |reading| {
        let world = &world;
        async move { world.distributor.build_reading(&label(DISTRIBUTION), reading).await.expect("built") }
    };
    let built = |outcome: BuildOutcome| match outcome {
        BuildOutcome::Built(revision) => (revision.frames, revision.frames_copied),
        BuildOutcome::Unchanged(revision) => panic!("{revision:?}"),
    };
    let is_unchanged = |outcome| matches!(outcome, BuildOutcome::Unchanged(_));
    let has_changed = || async { world.distributor.has_changed(&label(DISTRIBUTION)).await.expect("known") };
    let (frames, copied) = built(build(Reading::Changed).await);
    assert_eq!(copied, 0, "there was nothing before");
    assert!(is_unchanged(build(Reading::Changed).await) && is_unchanged(build(Reading::Everything).await));

    let file = world.source.join("file-05");
    fs::write(&file, "another line\n").expect("written");
    let copied = built(build(Reading::Changed).await).1;
    assert!(copied >= 4 && copied < frames, "the large file's three frames and the end: {copied} of {frames}");

    // The same length and time, and another content: only the inode's own time tells.
    let before = fs::metadata(&file).expect("there").modified().expect("has one");
    fs::write(&file, "another LINE\n").expect("written");
    fs::File::options().write(true).open(&file).expect("opened").set_modified(before).expect("set");
    assert!(has_changed().await);
    assert!(built(build(Reading::Changed).await).1 >= 4);

    // Touched without any change.
    fs::set_permissions(&large, fs::metadata(&large).expect("there").permissions()).expect("set");
    assert!(has_changed().await, "it may have changed");
    assert!(is_unchanged(build(Reading::Changed).await), "it was read, and has not");
    assert!(!has_changed().await, "and that is kept");

    // The record of the last build gets lost.
    fs::remove_dir_all(world.folder.path().join("distributor/seen")).expect("removed");
    assert!(is_unchanged(build(Reading::Changed).await));
    fs::write(&file, "a third line\n").expect("written");
    let newest = world.distributor.distribution(&label(DISTRIBUTION)).await.expect("known");
    let place = newest.file.expect("a package");
    let package = fs::OpenOptions::new().write(true).open(&place).expect("opened");
    std::os::unix::fs::FileExt::write_all_at(&package, &[0; 8], newest.newest.expect("built").bytes / 2)
        .expect("written");
    let mut events = world.distributor.events();
    let copied_after_damage = built(build(Reading::Changed).await).1;
    assert_eq!(copied_after_damage, copied - 1, "the damaged frame was not copied");
    let detail = event("the damage", &mut events, |event| match event {
        DistributorEvent::OwnCopyDamaged { detail, .. } => Some(detail),
        _ => None,
    })
    .await;
    assert!(detail.starts_with("1 of the frames"), "{detail}");
    let invite = world.invite("one.example").await;
    let builder = world.builder("one.example").clock(clock);
    let subscriber = within("the enrolment", builder.join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_package_that_is_read_whole_at_first_is_sent_twice() {
    let world = World::new().await;
    fs::remove_dir_all(&world.source).expect("removed");
    for (name, bytes) in [("a", 700), ("b", 1), ("c/d", 3000)] {
        let path = world.source.join(name);
        fs::create_dir_all(path.parent().expect("below the source")).expect("made");
        fs::write(path, noise(3, bytes)).expect("written");
    }
    let subscriber = world.subscriber("one.example").await;
    for round in ["a baseline", "a revision after it"] {
        let report = world.deliver().await;
        let row = &report.rows[0];
        assert_eq!(row.sent_bytes, row.package_bytes, "{round}");
        world.assert_equal("one.example");
        fs::write(world.source.join("b"), "2").expect("written");
    }
    within("the shutdown", subscriber.shutdown()).await;
}
