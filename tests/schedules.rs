//! Schedules of whole nodes: what they send, build and extract by themselves.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{CHANNEL, DISTRIBUTION, TestClock, World, event, extracted, label, node, within};
use ted_core::distributor::{ChannelChanges, NextFiring, Refresh, SettingChanges};
use ted_core::id::{FiringId, UnixMillis};
use ted_core::model::{Setting, Settings};
use ted_core::node::Clock as _;
use ted_core::protocol::{Cause, FiringEnd, Outcome};
use ted_core::schedule::Zone;
use ted_core::security::Stage;
use ted_core::subscriber::ExtractTime;
use ted_core::{DistributorEvent, SendOptions, Subscriber, SubscriberEvent, Until};

const ONE: &str = "one.example";

/// A clock that stands just before a whole minute, and that minute as universal time shows it: `2027-01-31T02:00`. The
/// driver looks at it every few milliseconds, so that a test need not wait for it.
fn before_a_minute(minutes: u64) -> (Arc<TestClock>, String) {
    let clock = TestClock::at_present();
    let minute = (clock.now().millis() / 60_000 + minutes) * 60_000;
    clock.forward(Duration::from_millis(minute - clock.now().millis() - 5));
    (clock, minute_text(UnixMillis::from_millis(minute)))
}

fn minute_text(at: UnixMillis) -> String {
    Zone::utc().show(at).expect("a time")[..16].to_owned()
}

/// `02:00` of `2027-01-31T02:00`.
fn time_of_day(minute: &str) -> &str {
    &minute[11..]
}

async fn waits(subscriber: &Subscriber) -> Option<ExtractTime> {
    let status = subscriber.status().await.expect("known");
    status.distributions.iter().find(|row| row.distribution == label(DISTRIBUTION)).and_then(|row| row.waits)
}

/// The next revision whose extraction waits, and until when.
async fn told_to_wait(events: &mut ted_core::Events<SubscriberEvent>) -> Option<UnixMillis> {
    event("an extraction to wait", events, |event| match event {
        SubscriberEvent::ExtractionWaits { until, .. } => Some(until),
        _ => None,
    })
    .await
}

fn extracting(schedule: &str) -> Settings {
    let mut settings = Settings::default();
    settings.set(Setting::ExtractSchedule, schedule).expect("a schedule");
    settings
}

async fn with_extract_schedule(world: &World, clock: Arc<TestClock>, schedule: &str) -> Subscriber {
    let invite = world.invite(ONE).await;
    let builder = world.builder(ONE).clock(clock).settings(extracting(schedule));
    let subscriber = within("the enrolment", builder.join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    subscriber
}

#[tokio::test(flavor = "multi_thread")]
async fn who_extracts_by_hand_still_receives_and_says_what_it_waits_for() {
    let world = World::new().await;
    let subscriber = with_extract_schedule(&world, TestClock::at_present(), "never").await;
    let mut events = subscriber.events();
    let firing = world.send().await;
    assert_eq!(told_to_wait(&mut events).await, None);
    let report = world.distributor.wait(firing, Until::Received, Some(support::PATIENCE)).await.expect("known");
    assert!(!report.is_complete(), "{report}");
    assert_eq!(waits(&subscriber).await, Some(ExtractTime::ByHand));
    assert!(!world.target_of(ONE).exists());
    // Neither an offer of what is here nor a restart extracts it.
    world.send().await;
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    let subscriber = world.builder(ONE).settings(extracting("never")).open().await.expect("its directory is free");
    let mut events = subscriber.events();
    world.start(&subscriber).await;
    told_to_wait(&mut events).await;
    assert!(!world.target_of(ONE).exists());
    let firing = world.send().await;
    subscriber.extract(None).await.expect("extracted");
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal(ONE);
    assert_eq!(waits(&subscriber).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_waits_for_the_moment_of_its_schedule_and_is_extracted_then() {
    let world = World::new().await;
    let (clock, minute) = before_a_minute(1);
    let subscriber = with_extract_schedule(&world, clock.clone(), &format!("at {minute}")).await;
    let mut events = subscriber.events();
    let firing = world.send().await;
    let until = told_to_wait(&mut events).await.expect("it says when");
    assert_eq!(minute_text(until), minute);
    assert_eq!(waits(&subscriber).await, Some(ExtractTime::At(until)));
    assert!(!world.target_of(ONE).exists());
    clock.forward(Duration::from_millis(10));
    extracted(&mut events).await;
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal(ONE);
    // The moment is over, and what comes later waits for an operator.
    std::fs::write(world.source.join("file-00"), "another\n").expect("written");
    world.send().await;
    assert_eq!(told_to_wait(&mut events).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_arrives_outside_the_window_is_extracted_when_that_opens() {
    let world = World::new().await;
    let (clock, opens) = before_a_minute(1);
    let later = before_a_minute(120).1;
    let window = format!("now between {} and {}", time_of_day(&opens), time_of_day(&later));
    let subscriber = with_extract_schedule(&world, clock.clone(), &window).await;
    let mut events = subscriber.events();
    world.send().await;
    assert_eq!(told_to_wait(&mut events).await.map(minute_text), Some(opens));
    clock.forward(Duration::from_millis(10));
    extracted(&mut events).await;
    // While it is open, what comes is extracted at once.
    std::fs::write(world.source.join("file-00"), "another\n").expect("written");
    assert!(world.deliver().await.is_complete());
    world.assert_equal(ONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_the_distributor_sets_holds_and_taking_it_back_extracts_what_waited() {
    let world = World::new().await;
    let subscriber = world.subscriber(ONE).await;
    let mut events = subscriber.events();
    let one = node(ONE);
    let set = |schedule: Option<&str>| {
        let changes = match schedule {
            Some(schedule) => {
                SettingChanges { set: vec![(Setting::ExtractSchedule, schedule.to_owned())], unset: vec![] }
            }
            None => SettingChanges { set: vec![], unset: vec![Setting::ExtractSchedule] },
        };
        world.distributor.configure(Some(&one), changes)
    };
    let in_force = |events| {
        event("the configuration", events, |event| match event {
            SubscriberEvent::EnvelopeAccepted { .. } => Some(()),
            _ => None,
        })
    };
    set(Some("never")).await.expect("set");
    in_force(&mut events).await;
    world.send().await;
    assert_eq!(told_to_wait(&mut events).await, None);
    set(None).await.expect("unset");
    extracted(&mut events).await;
    world.assert_equal(ONE);
}

/// The next firing that begins, and why.
async fn begun(events: &mut ted_core::Events<DistributorEvent>) -> (FiringId, Cause) {
    event("a firing to begin", events, |event| match event {
        DistributorEvent::FiringStarted { firing, cause, .. } => Some((firing, cause)),
        DistributorEvent::ScheduleFailed { code, reason, .. } => panic!("{code}: {reason}"),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_declared_elsewhere_is_read_again_by_its_schedule() {
    let (clock, minute) = before_a_minute(1);
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("declared.toml");
    let schedule = format!("cron \"{} * * * *\"", &time_of_day(&minute)[3..]).parse().expect("a schedule");
    let refresh = Refresh { source: source.clone(), schedule, prune: false };
    let world = World::with(|builder| builder.clock(clock.clone()).refresh(refresh)).await;
    assert_eq!(world.distributor.refresh().await.expect_err("nothing there").code(), "TED-1625");
    let declared = "[[subscriber]]\nname = \"declared.example\"\n";
    std::fs::write(&source, format!("{}{declared}", world.distributor.export().expect("text"))).expect("written");
    let is_there = || world.distributor.fleet().subscriber(&node("declared.example")).is_ok();
    assert!(!is_there());
    clock.forward(Duration::from_secs(3600));
    world.have_it_look().await;
    within("the declared Subscriber", async {
        while !is_there() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // What cannot be read changes nothing, and is an alarm until it can.
    let mut events = world.distributor.events();
    std::fs::write(&source, "no fleet").expect("written");
    clock.forward(Duration::from_secs(3600));
    world.have_it_look().await;
    let failed = event("the failure", &mut events, |event| match event {
        DistributorEvent::ScheduleFailed { code, .. } => Some(code),
        _ => None,
    });
    assert_eq!(failed.await, "TED-1619");
    assert!(is_there());
    std::fs::write(&source, world.distributor.export().expect("text")).expect("written");
    world.distributor.refresh().await.expect("read");
    assert!(world.distributor.status().await.expect("known").alarms.is_empty());
}

impl Schedules for World {
    async fn set_schedule(&self, schedule: &str) {
        let schedule = Some(schedule.parse().expect("a schedule"));
        let changes = ChannelChanges { schedule, ..ChannelChanges::default() };
        self.distributor.change_channel(&label(CHANNEL), changes).await.expect("changed");
        within("the schedule to be followed", async {
            while self.channel_schedule().await.last.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn next(&self) -> Option<String> {
        self.channel_schedule().await.at.map(minute_text)
    }

    async fn channel_schedule(&self) -> NextFiring {
        let status = self.distributor.status().await.expect("known");
        status.next_firings.into_iter().find(|next| next.channel == label(CHANNEL)).expect("it is there")
    }

    async fn have_it_look(&self) {
        let name = format!("nobody-{}.example", self.distributor.fleet().subscribers().count());
        self.distributor.create_subscriber(node(&name), &[], &[]).await.expect("declared");
    }
}

trait Schedules {
    /// Sets the Channel's schedule, and waits until the node follows it.
    async fn set_schedule(&self, schedule: &str);

    /// When the Channel fires next.
    async fn next(&self) -> Option<String>;

    async fn channel_schedule(&self) -> NextFiring;

    /// Has it look at the clock, which was moved, at once: with every change of the fleet it does.
    async fn have_it_look(&self);
}

fn change(world: &World, number: u32) {
    std::fs::write(world.source.join("file-00"), format!("change {number}\n")).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_fires_by_its_schedule_builds_first_and_is_never_fired_twice_for_one_moment() {
    let (clock, minute) = before_a_minute(1);
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let _subscriber = world.subscriber(ONE).await;
    let mut events = world.distributor.events();
    world.set_schedule(&format!("at {minute}")).await;
    assert_eq!(world.next().await, Some(minute.clone()));
    clock.forward(Duration::from_millis(10));
    let (firing, cause) = begun(&mut events).await;
    assert_eq!(cause, Cause::Schedule);
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal(ONE);
    assert_eq!(world.next().await, None);
    // Neither a restart nor a clock that is set back brings it again.
    let World { folder, source, distributor, address } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    clock.back(Duration::from_millis(15));
    let builder = ted_core::Distributor::builder(folder.path().join("distributor")).listen(address);
    let distributor = builder.clock(clock.clone()).open().await.expect("opened");
    support::listen(&distributor).await;
    let world = World { folder, source, distributor, address };
    assert_eq!(world.next().await, None);
    let heads = world.distributor.firing_heads(Some(&label(CHANNEL))).expect("known");
    assert_eq!(heads.iter().map(|head| (head.id, head.cause)).collect::<Vec<_>>(), [(firing, Cause::Schedule)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_while_down_fires_once_at_start_if_its_window_is_open() {
    for (hours_open, fires) in [(4, true), (1, false)] {
        let (clock, minute) = before_a_minute(1);
        let closes = before_a_minute(1 + 60 * hours_open).1;
        let world = World::with(|builder| builder.clock(clock.clone())).await;
        let subscriber = world.joined(ONE).await;
        let (from, until) = (time_of_day(&minute), time_of_day(&closes));
        let (hour, of_hour) = (&from[..2], &from[3..]);
        world.set_schedule(&format!("cron \"{of_hour} {hour} * * *\" between {from} and {until}")).await;
        let World { folder, source, distributor, address } = world;
        within("the shutdown", distributor.shutdown()).await;
        drop(distributor);
        clock.forward(Duration::from_secs(2 * 3600));
        let builder = ted_core::Distributor::builder(folder.path().join("distributor")).listen(address);
        let distributor = builder.clock(clock.clone()).open().await.expect("opened");
        let mut events = distributor.events();
        support::listen(&distributor).await;
        let world = World { folder, source, distributor, address };
        if fires {
            let (firing, cause) = begun(&mut events).await;
            assert_eq!(cause, Cause::Missed);
            subscriber.start().await.expect("it starts");
            assert!(world.wait(firing).await.is_complete());
            let report = world.distributor.report(firing).expect("known");
            assert_eq!(report.closes.map(minute_text), Some(closes));
        } else {
            assert!(world.next().await > Some(minute), "the next one is tomorrow's");
            assert!(world.distributor.firings().await.expect("known").is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_new_revision_fires_a_channel_that_is_now_whether_it_was_built_by_hand_or_found() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let _subscriber = world.subscriber(ONE).await;
    let mut events = world.distributor.events();
    world.set_schedule("now").await;
    // The source is looked at within a minute and a half, and the first revision is new.
    clock.forward(Duration::from_secs(91));
    world.have_it_look().await;
    let (firing, cause) = begun(&mut events).await;
    assert_eq!(cause, Cause::NewRevision);
    assert!(world.wait(firing).await.is_complete());
    change(&world, 1);
    clock.forward(Duration::from_secs(1));
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    let (firing, cause) = begun(&mut events).await;
    assert_eq!(cause, Cause::NewRevision);
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal(ONE);
    // Sent by hand, it fires once.
    change(&world, 2);
    clock.forward(Duration::from_secs(1));
    assert!(world.deliver().await.is_complete());
    change(&world, 3);
    clock.forward(Duration::from_secs(1));
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    within("the firing of the third change", async {
        loop {
            let heads = world.distributor.firing_heads(None).expect("known");
            if heads.len() >= 4 {
                let causes: Vec<_> = heads.iter().rev().map(|head| head.cause).collect();
                assert_eq!(causes, [Cause::NewRevision, Cause::NewRevision, Cause::Send, Cause::NewRevision]);
                return;
            }
            begun(&mut events).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_quarter_of_an_hour_a_channel_that_is_now_fires_again_only_where_a_connected_subscriber_lacks_it() {
    let clock = TestClock::at_present();
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let _first = world.subscriber(ONE).await;
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    let mut events = world.distributor.events();
    world.set_schedule("now").await;
    let (firing, _) = begun(&mut events).await;
    assert!(world.wait(firing).await.is_complete());
    // One that joins later lacks it.
    let _second = world.subscriber("two.example").await;
    clock.forward(Duration::from_secs(15 * 60 + 1));
    world.have_it_look().await;
    let (firing, cause) = begun(&mut events).await;
    assert_eq!(cause, Cause::Retry);
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal("two.example");
    // Nobody lacks it now: what fires next is the next revision, although two more quarters have passed.
    clock.forward(Duration::from_secs(31 * 60));
    world.have_it_look().await;
    change(&world, 1);
    world.distributor.build(&label(DISTRIBUTION)).await.expect("built");
    assert_eq!(begun(&mut events).await.1, Cause::NewRevision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_closes_ends_its_firing_and_the_next_one_goes_on() {
    let (clock, minute) = before_a_minute(1);
    let closes = before_a_minute(61).1;
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let subscriber = world.joined(ONE).await;
    let mut events = world.distributor.events();
    let window = format!("between {} and {}", time_of_day(&minute), time_of_day(&closes));
    world.set_schedule(&format!("every 1d {window}")).await;
    clock.forward(Duration::from_millis(10));
    let (firing, _) = begun(&mut events).await;
    assert_eq!(world.distributor.report(firing).expect("known").closes.map(minute_text), Some(closes));
    clock.forward(Duration::from_secs(3600));
    world.have_it_look().await;
    let ended = event("the end of the firing", &mut events, |event| match event {
        DistributorEvent::FiringEnded { firing } => Some(firing),
        _ => None,
    });
    assert_eq!(ended.await, firing);
    let head = world.distributor.firing_heads(None).expect("known").remove(0);
    assert_eq!((head.end, head.outcome()), (Some(FiringEnd::Closed), Outcome::Partial));
    // Who comes now is not offered it before the next firing.
    world.start(&subscriber).await;
    clock.forward(Duration::from_secs(23 * 3600));
    world.have_it_look().await;
    let (firing, _) = begun(&mut events).await;
    assert!(world.wait(firing).await.is_complete());
    world.assert_equal(ONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_extracted_after_the_window_has_closed_counts_for_the_firing_that_brought_it() {
    let (clock, minute) = before_a_minute(1);
    let closes = before_a_minute(61).1;
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let subscriber = with_extract_schedule(&world, clock.clone(), "never").await;
    let mut events = world.distributor.events();
    let window = format!("between {} and {}", time_of_day(&minute), time_of_day(&closes));
    world.set_schedule(&format!("every 1d {window}")).await;
    clock.forward(Duration::from_millis(10));
    let (firing, _) = begun(&mut events).await;
    let received = world.distributor.wait(firing, Until::Received, Some(support::PATIENCE)).await.expect("known");
    assert!(received.rows.iter().all(|row| row.state.is_done(Until::Received)), "{received}");
    clock.forward(Duration::from_secs(3600));
    world.have_it_look().await;
    let ended = event("the end of the firing", &mut events, |event| match event {
        DistributorEvent::FiringEnded { firing } => Some(firing),
        _ => None,
    });
    assert_eq!(ended.await, firing);
    subscriber.extract(None).await.expect("extracted");
    let told = event("the receipt", &mut events, |event| match event {
        DistributorEvent::Receipt { stage: Stage::Extracted, .. } => Some(()),
        _ => None,
    });
    told.await;
    let report = world.distributor.report(firing).expect("known");
    assert!(report.is_complete(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_paused_fires_neither_by_itself_nor_by_hand() {
    let (clock, minute) = before_a_minute(1);
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let _subscriber = world.subscriber(ONE).await;
    world.set_schedule(&format!("at {minute}")).await;
    let changes = ChannelChanges { active: Some(false), ..ChannelChanges::default() };
    world.distributor.change_channel(&label(CHANNEL), changes).await.expect("changed");
    assert_eq!(world.next().await, None);
    let refused = world.distributor.send(&label(CHANNEL), SendOptions::default()).await.expect_err("paused");
    assert_eq!(refused.code(), "TED-1623");
    clock.forward(Duration::from_secs(60));
    world.have_it_look().await;
    assert!(world.distributor.firings().await.expect("known").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_by_schedule_is_an_alarm_until_it_goes_well_and_what_was_built_goes_out() {
    let (clock, minute) = before_a_minute(1);
    let world = World::with(|builder| builder.clock(clock.clone())).await;
    let _subscriber = world.subscriber(ONE).await;
    assert!(world.deliver().await.is_complete());
    let away = world.folder.path().join("away");
    std::fs::rename(&world.source, &away).expect("moved");
    let mut events = world.distributor.events();
    world.set_schedule(&format!("cron \"{} * * * *\"", &time_of_day(&minute)[3..])).await;
    clock.forward(Duration::from_millis(10));
    let code = event("the failure", &mut events, |event| match event {
        DistributorEvent::ScheduleFailed { code, .. } => Some(code),
        _ => None,
    });
    assert_eq!(code.await, "TED-1620");
    let (firing, _) = begun(&mut events).await;
    assert!(world.wait(firing).await.is_complete(), "the revision from before");
    let alarms = || async { world.distributor.status().await.expect("known").alarms };
    assert!(alarms().await.iter().any(|alarm| alarm.code == "TED-1620"));
    std::fs::rename(&away, &world.source).expect("moved back");
    clock.forward(Duration::from_secs(3600));
    world.have_it_look().await;
    begun(&mut events).await;
    assert!(alarms().await.iter().all(|alarm| alarm.code != "TED-1620"));
}
