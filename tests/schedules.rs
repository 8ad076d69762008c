//! Schedules of whole nodes: what they send, build and extract by themselves.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{DISTRIBUTION, TestClock, World, event, extracted, label, node, within};
use ted_core::distributor::SettingChanges;
use ted_core::id::UnixMillis;
use ted_core::model::{Setting, Settings};
use ted_core::node::Clock as _;
use ted_core::schedule::Zone;
use ted_core::subscriber::ExtractTime;
use ted_core::{Subscriber, SubscriberEvent, Until};

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
