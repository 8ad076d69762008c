//! The driver under a clock that a test moves: a year in three zones, restarts, crashes, and clocks that are set.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::time::Instant;

use super::*;
use crate::schedule::Cause;
use crate::schedule::tests::year::{MINUTES, Walk, at, walks};
use crate::schedule::tests::{moment, schedule};
use crate::store::MemoryCatalog;

/// Follows the runtime's paused time, and can be set.
struct TestClock {
    begin: UnixMillis,
    started: Instant,
    ahead_millis: AtomicI64,
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        let shown = self.begin.plus(self.started.elapsed()).millis();
        UnixMillis::from_millis(shown.saturating_add_signed(self.ahead_millis.load(Ordering::Relaxed)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    planned: UnixMillis,
    at: UnixMillis,
    cause: Cause,
}

/// Notes what comes.
struct Node {
    clock: TestClock,
    records: Records,
    declared: Mutex<BTreeMap<String, Schedule>>,
    came: Mutex<BTreeMap<String, Vec<Came>>>,
    lapsed: Mutex<Vec<(String, UnixMillis)>>,
    turn_ids: AtomicU64,
    /// What was carried out far enough not to be begun again.
    begun: Mutex<Vec<TurnId>>,
    /// Whether what comes is carried out, or the node dies over it.
    dies: bool,
    came_something: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    fn new(begin: UnixMillis, schedules: &[&str]) -> Self {
        let declared = schedules.iter().map(|text| ((*text).to_owned(), schedule(text))).collect();
        Self {
            clock: TestClock { begin, started: Instant::now(), ahead_millis: AtomicI64::new(0) },
            records: Records::new(Arc::new(MemoryCatalog::new())),
            declared: Mutex::new(declared),
            came: Mutex::default(),
            lapsed: Mutex::default(),
            turn_ids: AtomicU64::new(0),
            begun: Mutex::default(),
            dies: false,
            came_something: Notify::new(),
        }
    }

    fn came(&self, text: &str) -> Vec<Came> {
        lock(&self.came).get(text).cloned().unwrap_or_default()
    }

    fn planned(&self, text: &str) -> Vec<UnixMillis> {
        self.came(text).iter().map(|came| came.planned).collect()
    }

    fn set_clock(&self, to: &str) {
        let difference =
            i64::try_from(moment(to).millis()).unwrap() - i64::try_from(self.clock.now().millis()).unwrap();
        self.clock.ahead_millis.fetch_add(difference, Ordering::Relaxed);
    }
}

impl Scheduled for Node {
    type Task = String;

    fn clock(&self) -> &dyn Clock {
        &self.clock
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn declared(&self, each: &mut dyn FnMut(String, Rhythm)) {
        for (name, schedule) in &*lock(&self.declared) {
            each(name.clone(), Rhythm::Retried(schedule.clone()));
        }
    }

    fn is_kept(&self, _: &String) -> bool {
        true
    }

    fn turn_id(&self) -> Result<TurnId, Error> {
        let mut turn_id = [0; 16];
        turn_id[..8].copy_from_slice(&self.turn_ids.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        Ok(turn_id)
    }

    fn was_begun(&self, _: &String, turn_id: &TurnId) -> bool {
        lock(&self.begun).contains(turn_id)
    }

    fn lapsed(&self, task: &String, planned: UnixMillis) {
        lock(&self.lapsed).push((task.clone(), planned));
    }

    async fn carry_out(self: Arc<Self>, turn: Turn<String>, turn_id: TurnId) {
        if self.dies {
            self.came_something.notify_one();
            std::future::pending::<()>().await;
        }
        lock(&self.begun).push(turn_id);
        let came = Came { planned: turn.planned, at: self.clock.now(), cause: turn.cause };
        lock(&self.came).entry(turn.key).or_default().push(came);
        self.came_something.notify_one();
    }
}

/// Runs the driver for a while of the paused time.
async fn run_for(node: &Arc<Node>, time: Duration) {
    run_until(node, &Schedules::default(), tokio::time::sleep(time)).await;
}

async fn run_until(node: &Arc<Node>, schedules: &Schedules<String>, end: impl Future<Output = ()>) {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let driving = schedules.drive(node.clone(), stop.clone(), tasks.clone());
    tokio::pin!(driving);
    tokio::select! {
        () = &mut driving => {}
        () = end => stop.cancel(),
    }
    driving.await;
    tasks.close();
    tasks.wait().await;
}

fn minutes_of(node: &Node, text: &str) -> Vec<u64> {
    let first = at(0);
    node.planned(text).iter().filter(|at| **at >= first).map(|at| at.since(first).as_secs() / 60).collect()
}

/// What comes every quarter of an hour shows as much in one zone as in three.
fn year() -> impl Iterator<Item = &'static (String, Walk)> {
    walks().iter().filter(|(text, walk)| walk.fired.len() < 10_000 || text.ends_with("Lord_Howe"))
}

#[tokio::test(start_paused = true)]
async fn a_year_over_both_changes_of_three_zones_comes_as_a_walk_through_it_finds_and_on_time() {
    let begin = UnixMillis::from_millis(at(0).millis() - 500);
    let texts: Vec<&str> = year().map(|(text, _)| text.as_str()).collect();
    let node = Arc::new(Node::new(begin, &texts));
    run_for(&node, at(MINUTES).since(begin)).await;
    for (text, walk) in year() {
        // What the window held back when the year began is not known to the walk.
        let first = walk.fired[0];
        let came: Vec<u64> =
            minutes_of(&node, text).into_iter().filter(|minute| (first..MINUTES).contains(minute)).collect();
        let differs = came.iter().zip(&walk.fired).find(|(came, walked)| came != walked);
        assert_eq!((differs, came.len()), (None, walk.fired.len()), "{text}");
        for came in node.came(text) {
            assert_eq!(came.cause, Cause::Planned, "{text}");
            assert!(came.at.since(came.planned) <= Duration::from_millis(2), "{text}: {came:?}");
        }
    }
    assert_eq!(*lock(&node.lapsed), []);
}

/// What a walk says of a year with interruptions: each occurrence while the node ran, and at each start the last one
/// that was missed, if the window has not closed since.
fn interrupted(walk: &Walk, down: &[(u64, u64)]) -> Vec<u64> {
    let mut expected: Vec<u64> = walk.fired.clone();
    for (from, to) in down {
        let missed: Vec<u64> = expected.iter().copied().filter(|fired| (*from..*to).contains(fired)).collect();
        expected.retain(|fired| !missed.contains(fired));
        if let Some(last) = missed.last()
            && (*last..*to).all(|minute| walk.open[usize::try_from(minute).unwrap()])
        {
            expected.push(*last);
        }
    }
    expected.sort_unstable();
    expected
}

#[tokio::test(start_paused = true)]
async fn over_restarts_nothing_comes_twice_and_what_was_missed_comes_once_if_its_window_is_open() {
    // Over the first change of each zone; what comes all the time shows no more than what comes sometimes.
    const END: u64 = 110 * 1440;
    let begin = UnixMillis::from_millis(at(0).millis() - 500);
    let rare = || walks().iter().filter(|(_, walk)| walk.fired.len() < 3000);
    let texts: Vec<&str> = rare().map(|(text, _)| text.as_str()).collect();
    let node = Arc::new(Node::new(begin, &texts));
    // Down for something between minutes and days, again and again, and never on a whole minute.
    let mut down = vec![];
    let (mut minute, mut seed) = (0, 1_u64);
    while minute < END - 12_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (up, away) = (300 + (seed >> 33) % 9000, 1 + (seed >> 40) % 3000);
        run_for(&node, at(minute + up).since(node.clock.now()) - Duration::from_millis(500)).await;
        tokio::time::sleep(Duration::from_secs(60 * away)).await;
        down.push((minute + up, minute + up + away));
        minute += up + away;
    }
    run_for(&node, at(END).since(node.clock.now()) - Duration::from_millis(500)).await;
    assert!(down.len() > 15, "{}", down.len());
    for (text, walk) in rare() {
        let first = walk.fired[0];
        let came: Vec<u64> =
            minutes_of(&node, text).into_iter().filter(|minute| (first..END).contains(minute)).collect();
        let expected: Vec<u64> = interrupted(walk, &down).into_iter().filter(|minute| *minute < END).collect();
        let differs = came.iter().zip(&expected).find(|(came, expected)| came != expected);
        assert_eq!((differs, came.len()), (None, expected.len()), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_note_and_before_the_deed_loses_nothing_and_one_after_the_deed_repeats_nothing() {
    let text = "cron \"0 2 * * *\" between 02:00 and 04:00";
    let begin = moment("2027-05-01T01:00Z");
    let mut node = Node { dies: true, ..Node::new(begin, &[text]) };
    // It is noted that it comes, and the node dies.
    let first = Arc::new(node);
    run_until(&first, &Schedules::default(), first.came_something.notified()).await;
    let kept_before = kept(&first.records, &text).unwrap().unwrap();
    assert_eq!(kept_before.last, moment("2027-05-01T02:00Z"));
    assert!(kept_before.begun.is_some());
    assert_eq!(first.planned(text), []);
    node = Node { dies: false, ..Arc::into_inner(first).unwrap() };
    let second = Arc::new(node);
    run_for(&second, Duration::from_secs(600)).await;
    assert_eq!(second.planned(text), [moment("2027-05-01T02:00Z")]);
    // It was done, and the node dies before it can note that.
    second.records.put(&record_key(&text), &kept_before).unwrap();
    let Begun { turn_id, .. } = kept_before.begun.clone().unwrap();
    lock(&second.begun).push(turn_id);
    run_for(&second, Duration::from_secs(600)).await;
    assert_eq!(second.planned(text).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_whose_window_has_closed_meanwhile_brings_nothing() {
    let text = "cron \"0 2 * * *\" between 02:00 and 04:00";
    let first = Arc::new(Node { dies: true, ..Node::new(moment("2027-05-01T01:00Z"), &[text]) });
    run_until(&first, &Schedules::default(), first.came_something.notified()).await;
    let second = Arc::new(Node { dies: false, ..Arc::into_inner(first).unwrap() });
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    run_for(&second, Duration::from_secs(3600)).await;
    assert_eq!(second.planned(text), []);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_is_noticed_within_half_a_minute_in_both_directions() {
    let text = "cron \"0 2 * * *\"";
    let node = Arc::new(Node::new(moment("2027-05-01T12:00Z"), &[text]));
    let schedules = Schedules::default();
    let moving = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        node.set_clock("2027-05-02T01:59:50Z");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(node.planned(text), [moment("2027-05-02T02:00Z")]);
        node.set_clock("2027-05-02T01:30Z");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(node.planned(text).len(), 1, "a second time");
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        assert_eq!(node.planned(text).len(), 2);
        node.set_clock("2037-05-02T12:00Z");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(node.planned(text).last(), Some(&moment("2037-05-02T02:00Z")));
        node.set_clock("2027-05-04T01:59Z");
        tokio::time::sleep(Duration::from_secs(91)).await;
        assert_eq!(node.planned(text).last(), Some(&moment("2027-05-04T02:00Z")));
    };
    run_until(&node, &schedules, moving).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_declared_anew_counts_from_then_and_what_is_gone_does_not_come() {
    let node = Arc::new(Node::new(moment("2027-05-01T12:00Z"), &["every 1h", "every 2h"]));
    let schedules = Schedules::default();
    let changing = async {
        tokio::time::sleep(Duration::from_secs(3700)).await;
        assert_eq!((node.planned("every 1h").len(), node.planned("every 2h").len()), (1, 0));
        // Another schedule under the same name: what it would have had before is not made up for.
        lock(&node.declared).insert("every 2h".to_owned(), schedule("cron \"0 12 * * *\""));
        lock(&node.declared).remove("every 1h");
        schedules.declared();
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        assert_eq!((node.planned("every 1h").len(), node.planned("every 2h").len()), (1, 0));
        assert_eq!(kept(&node.records, &"every 1h").unwrap(), None);
        tokio::time::sleep(Duration::from_secs(20 * 3600)).await;
        assert_eq!(node.planned("every 2h"), [moment("2027-05-02T12:00Z")]);
    };
    run_until(&node, &schedules, changing).await;
}

#[tokio::test(start_paused = true)]
async fn now_comes_at_the_start_when_it_is_asked_for_and_every_quarter_of_an_hour() {
    let node = Arc::new(Node::new(moment("2027-05-01T12:00Z"), &["now"]));
    let schedules = Schedules::default();
    let asking = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        schedules.ask("now".to_owned());
        schedules.ask("nobody".to_owned());
        tokio::time::sleep(Duration::from_secs(1000)).await;
    };
    run_until(&node, &schedules, asking).await;
    let causes: Vec<_> = node.came("now").iter().map(|came| came.cause).collect();
    assert_eq!(causes, [Cause::Asked, Cause::Asked, Cause::Again]);
}
