//! The queue under virtual time: nodes that read at their own speeds, and what each of them gets.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::UnixMillis;

const MB: u64 = 1_000_000;
const BLOCK: u64 = 1 << 20;
/// A node that reads whatever comes.
const FAST: u64 = 1000 * MB;

/// One node that fetches one package.
struct Reader {
    stream: StreamId,
    /// Bytes a second that it reads.
    speed: u64,
    left: u64,
    /// When it has read what it was granted last.
    reads_until: Option<Duration>,
    got: u64,
    done: Option<Duration>,
}

struct World {
    queue: Queue,
    now: Duration,
    began: UnixMillis,
    readers: BTreeMap<StreamId, Reader>,
    polls: u64,
}

fn plan(text: &str) -> Option<RatePlan> {
    Some(text.parse().unwrap())
}

fn key(link: u8, package: u8) -> SendKey {
    SendKey { link: KeyHash::from_bytes([link; 32]), package: PackageId::from_bytes([package; 32]) }
}

impl World {
    fn new(rates: &SendRates, began: &str) -> Self {
        let began: jiff::Timestamp = began.parse().unwrap();
        let began = UnixMillis::from_millis(u64::try_from(began.as_millisecond()).unwrap());
        let now = Moment { elapsed: Duration::ZERO, wall: began };
        Self { queue: Queue::new(rates, now), now: Duration::ZERO, began, readers: BTreeMap::new(), polls: 0 }
    }

    fn with(rates: &SendRates) -> Self {
        Self::new(rates, "2027-01-30T12:00:00Z")
    }

    fn moment(&self) -> Moment {
        Moment { elapsed: self.now, wall: self.began.plus(self.now) }
    }

    fn reader(
        &mut self,
        send: SendKey,
        priority: Priority,
        plan: Option<RatePlan>,
        speed: u64,
        bytes: u64,
    ) -> StreamId {
        let now = self.moment();
        let stream = self.queue.open(send, priority, plan, now);
        self.queue.want(stream, BLOCK.min(bytes), now);
        let reader = Reader { stream, speed, left: bytes, reads_until: None, got: 0, done: None };
        self.readers.insert(stream, reader);
        stream
    }

    fn got(&self, stream: StreamId) -> u64 {
        self.readers[&stream].got
    }

    fn done(&self, stream: StreamId) -> Duration {
        self.readers[&stream].done.expect("it has everything")
    }

    /// Runs for so long.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.read();
            let now = self.moment();
            while let Some(Grant { stream, bytes }) = self.queue.poll(now) {
                self.polls += 1;
                let reader = self.readers.get_mut(&stream).unwrap();
                assert!(bytes > 0 && bytes <= reader.left.min(BLOCK));
                reader.left -= bytes;
                reader.got += bytes;
                let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(reader.speed);
                reader.reads_until = Some(self.now + Duration::from_nanos(u64::try_from(nanos).unwrap()));
            }
            let wakeup = self.queue.next_wakeup(now).map(|wait| self.now + wait.max(Duration::from_micros(1)));
            let read = self.readers.values().filter_map(|reader| reader.reads_until).min();
            self.polls += 1;
            match wakeup.into_iter().chain(read).min() {
                Some(next) if next < end => self.now = next,
                _ => break,
            }
        }
        self.now = end;
    }

    /// Those that have read what they got ask for more, or are done.
    fn read(&mut self) {
        let now = self.moment();
        for reader in self.readers.values_mut() {
            if reader.reads_until.is_some_and(|until| until <= self.now) {
                reader.reads_until = None;
                if reader.left == 0 {
                    reader.done = Some(self.now);
                    self.queue.close(reader.stream, now);
                } else {
                    self.queue.want(reader.stream, reader.left.min(BLOCK), now);
                }
            }
        }
    }
}

fn about(got: u64, expected: u64) {
    assert!(got.abs_diff(expected) * 50 <= expected, "{got} is not within 2 % of {expected}");
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn each_priority_has_its_own_rate_and_they_are_exact() {
    let rates = SendRates { high: plan("8MB/s"), medium: plan("4MB/s"), low: plan("500kB/s"), ..SendRates::default() };
    let mut world = World::with(&rates);
    let got: Vec<_> = PRIORITIES
        .iter()
        .zip(1..)
        .map(|(priority, link)| world.reader(key(link, 1), *priority, None, FAST, 1000 * MB))
        .collect();
    world.run(seconds(10));
    for (stream, rate) in got.into_iter().zip([8 * MB, 4 * MB, MB / 2]) {
        about(world.got(stream), rate * 10);
    }
    assert!(world.polls < 10 * 60 * 3 * 2, "{} looks at the queue are busy waiting", world.polls);
}

#[test]
fn inside_a_priority_all_get_the_same_and_a_slow_one_holds_up_nobody() {
    let mut world = World::with(&SendRates { medium: plan("10MB/s"), ..SendRates::default() });
    let fast: Vec<_> = (1..=4).map(|link| world.reader(key(link, 1), Priority::Medium, None, FAST, 999 * MB)).collect();
    let slow = world.reader(key(9, 1), Priority::Medium, None, 200_000, 999 * MB);
    world.run(seconds(20));
    let alone = 20 * 200_000;
    assert!(world.got(slow) > alone * 9 / 10 && world.got(slow) <= alone * 11 / 10, "{}", world.got(slow));
    for stream in fast {
        about(world.got(stream), (200 * MB - 4 * MB) / 4);
    }
}

#[test]
fn no_more_send_at_once_than_there_are_slots_and_the_first_are_done_first() {
    let mut world = World::with(&SendRates { sends_max: 2, medium: plan("10MB/s"), ..SendRates::default() });
    let streams: Vec<_> =
        (1..=6).map(|link| world.reader(key(link, 1), Priority::Medium, None, FAST, 20 * MB)).collect();
    world.run(seconds(1));
    assert_eq!(world.queue.counts(), QueueCounts { sending: 2, waiting: 4 });
    world.run(seconds(12));
    for (number, stream) in streams.into_iter().enumerate() {
        let expected = seconds(4 * (number as u64 / 2 + 1));
        let done = world.done(stream);
        assert!(done.abs_diff(expected) < Duration::from_millis(300), "{number}: {done:?}");
    }
}

#[test]
fn slow_readers_give_their_slots_back_and_go_on_beside_them() {
    let mut world = World::with(&SendRates { sends_max: 2, ..SendRates::default() });
    let slow: Vec<_> = (1..=10).map(|link| world.reader(key(link, 1), Priority::Medium, None, MB, 30 * MB)).collect();
    let fast = world.reader(key(99, 1), Priority::Medium, None, 100 * MB, 200 * MB);
    world.run(seconds(10));
    assert!(world.done(fast) < seconds(6), "ten slow ones came before it: {:?}", world.done(fast));
    world.run(seconds(30));
    for stream in slow {
        assert!(world.done(stream) < seconds(36), "alone it would take 30 s: {:?}", world.done(stream));
    }
}

#[test]
fn the_more_urgent_takes_a_slot_at_once() {
    let mut world = World::with(&SendRates { sends_max: 1, low: plan("1MB/s"), ..SendRates::default() });
    let low = world.reader(key(1, 1), Priority::Low, None, FAST, 100 * MB);
    world.run(seconds(3));
    let high = world.reader(key(2, 1), Priority::High, None, 100 * MB, 50 * MB);
    world.run(seconds(2));
    assert!(world.done(high) < Duration::from_millis(3600), "{:?}", world.done(high));
    let before = world.got(low);
    world.run(seconds(5));
    about(world.got(low) - before, 5 * MB);
}

#[test]
fn the_least_urgent_never_starves() {
    let mut world = World::with(&SendRates { sends_max: 1, ..SendRates::default() });
    let speed = 50 * MB;
    let high = world.reader(key(1, 1), Priority::High, None, speed, 1_000_000 * MB);
    let low = world.reader(key(2, 1), Priority::Low, None, speed, 1_000_000 * MB);
    world.run(seconds(600));
    let (high, low) = (world.got(high), world.got(low));
    assert!((11..=18).contains(&(high / low)), "high has {} times what low has", high / low);
    assert!(high + low > 590 * speed, "and the line is never idle");
}

#[test]
fn all_that_goes_to_one_node_keeps_to_its_rate_and_shares_it_by_weight() {
    let mut world = World::with(&SendRates::default());
    let link = || plan("10MB/s");
    let high = world.reader(key(1, 1), Priority::High, link(), FAST, 9999 * MB);
    let low = world.reader(key(1, 2), Priority::Low, link(), FAST, 9999 * MB);
    let other = world.reader(key(2, 1), Priority::Low, plan("2MB/s"), FAST, 9999 * MB);
    world.run(seconds(60));
    about(world.got(high) + world.got(low), 600 * MB);
    about(world.got(high), 600 * MB * 16 / 17);
    about(world.got(other), 120 * MB);
    let before = world.got(other);
    let now = world.moment();
    world.queue.set_link(&key(2, 1).link, plan("20MB/s"), now);
    world.run(seconds(10));
    about(world.got(other) - before, 200 * MB);
}

#[test]
fn the_time_of_day_switches_rates_also_when_clocks_change() {
    // Clocks in Berlin go from 02:00 to 03:00 at 01:00Z.
    let rates =
        SendRates { high: plan("10MB/s; 1MB/s between 00:00 and 04:00 in Europe/Berlin"), ..SendRates::default() };
    for (began, switches_after) in [
        ("2027-03-28T01:59:50Z", 10),
        ("2027-03-27T02:59:50Z", 10),
        ("2027-10-31T02:59:50Z", 10),
        ("2027-03-28T02:59:50Z", 0),
    ] {
        let mut world = World::new(&rates, began);
        let stream = world.reader(key(1, 1), Priority::High, None, FAST, 9999 * MB);
        world.run(seconds(20));
        about(world.got(stream), switches_after * MB + (20 - switches_after) * 10 * MB);
    }
}

#[test]
fn other_rates_and_slots_act_at_once() {
    let mut world = World::with(&SendRates { medium: plan("1MB/s"), ..SendRates::default() });
    let stream = world.reader(key(1, 1), Priority::Medium, None, FAST, 9999 * MB);
    world.run(seconds(5));
    let (before, now) = (world.got(stream), world.moment());
    world.queue.set_rates(&SendRates { medium: plan("30MB/s"), sends_max: 1, ..SendRates::default() }, now);
    world.run(seconds(5));
    about(world.got(stream) - before, 150 * MB);
}

#[test]
fn fetches_opened_and_dropped_are_no_way_around_a_rate_and_leave_nothing() {
    let mut world = World::with(&SendRates::default());
    let mut got = 0;
    for round in 0..1000 {
        let now = world.moment();
        let stream = world.queue.open(key(1, (round % 200) as u8), Priority::Medium, plan("100kB/s"), now);
        world.queue.want(stream, BLOCK, now);
        got += world.queue.poll(now).map_or(0, |grant| grant.bytes);
        world.queue.close(stream, now);
        world.now += Duration::from_millis(10);
    }
    assert!(got < 1_020_000, "{got} bytes in ten seconds");
    world.now += seconds(60);
    for _ in 0..2 {
        let now = world.moment();
        let stream = world.queue.open(key(2, 1), Priority::Medium, None, now);
        world.queue.close(stream, now);
        world.now += seconds(60);
    }
    assert!(world.queue.sends.len() <= 1 && world.queue.links.len() <= 1 && world.queue.streams.is_empty());
    assert_eq!(world.queue.next_wakeup(world.moment()), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn everyone_gets_everything_in_the_end(
        sends_max in 1_usize..4,
        limited in any::<[bool; 3]>(),
        readers in proptest::collection::vec((0_usize..3, 1_u64..40, 1_u64..30, 0_u8..4, 0_u8..3), 1..12),
    ) {
        let [high, medium, low] = limited.map(|limited| limited.then(|| "5MB/s".parse().unwrap()));
        let mut world = World::with(&SendRates { sends_max, high, medium, low });
        let mut streams = vec![];
        for (number, (class, speed, bytes, link, package)) in readers.into_iter().enumerate() {
            let link_plan = (link == 3).then(|| "3MB/s".parse().unwrap());
            streams.push(world.reader(key(link, package), PRIORITIES[class], link_plan, speed * MB, bytes * MB));
            world.run(Duration::from_millis(number as u64 * 37));
        }
        world.run(seconds(600));
        for stream in streams {
            prop_assert!(world.readers[&stream].done.is_some());
        }
        prop_assert_eq!(world.queue.counts(), QueueCounts::default());
    }
}
