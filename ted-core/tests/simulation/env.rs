//! What both nodes live in: the clock, the events to come, the network, and the truth that nodes do not see.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use ted_core::id::{DistributionId, EnvelopeId, KeyHash, PackageId, Revision, UnixMillis};
use ted_core::limits::Limits;
use ted_core::protocol::{Floor, ReceiverOptions, Silence, Statement};

use crate::rng::Rng;
use crate::work::Work;

pub(crate) const SITE: DistributionId = DistributionId::from_bytes([0x51; 16]);
pub(crate) const SUBSCRIBER: KeyHash = KeyHash::from_bytes([0x5b; 32]);
const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Distributor,
    Subscriber,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// Bytes of a stream arrive; `fin` with the last.
    Deliver {
        connection: u64,
        stream: u64,
        to: Side,
        bytes: Vec<u8>,
        fin: bool,
    },
    /// A side notices that its connection is gone.
    Lost {
        connection: u64,
        side: Side,
    },
    Dial,
    Wake(Side),
    /// Work that the Subscriber gave to its disk or its threads is done.
    Done {
        life: u64,
        work: Work,
    },
    Crash(Side),
    Restart(Side),
    Release,
    Fire,
    BreakLink,
    Stall,
    FaultsEnd,
}

/// What is so, whatever the nodes believe.
#[derive(Default)]
pub(crate) struct Truth {
    /// The bytes of every package that the Distributor ever built.
    pub(crate) packages: BTreeMap<PackageId, Vec<u8>>,
    pub(crate) newest: Option<Revision>,
    /// The highest floor that the Subscriber ever had a right to.
    pub(crate) floor: Option<Floor>,
    pub(crate) extracted: Option<Revision>,
    pub(crate) violation: Option<String>,
}

impl Truth {
    pub(crate) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// A statement was accepted by the Subscriber.
    pub(crate) fn accepted(&mut self, statement: &Statement, now: UnixMillis) {
        let floor = self.floor.unwrap_or(Floor::NONE);
        let revision = statement.release.revision;
        self.demand(revision >= floor.revision && statement.issued >= floor.issued, || {
            format!("accepted revision {revision}, which lies below the floor {floor:?}")
        });
        self.demand(now < statement.expires, || format!("accepted an expired statement about revision {revision}"));
        self.floor = Some(floor.raised_to(Floor { issued: statement.issued, ..Floor::NONE }));
    }

    /// A package counts as complete and verified at the Subscriber.
    pub(crate) fn verified(&mut self, package: &PackageId, revision: Revision, bytes: &[u8]) {
        let right = self.packages.get(package).is_some_and(|truth| truth == bytes);
        self.demand(right, || format!("revision {revision} counts as received, and its bytes are wrong"));
        let floor = self.floor.unwrap_or(Floor::NONE);
        self.demand(revision >= floor.revision, || format!("revision {revision} was verified below {floor:?}"));
        self.floor = Some(floor.raised_to(Floor { revision, ..Floor::NONE }));
    }

    pub(crate) fn was_extracted(&mut self, revision: Revision) {
        let newest_verified = self.floor.map_or(Revision::from_number(0), |floor| floor.revision);
        self.demand(revision <= newest_verified, || format!("revision {revision} was extracted and never verified"));
        self.demand(Some(revision) >= self.extracted, || format!("revision {revision} was extracted over a newer one"));
        self.extracted = self.extracted.max(Some(revision));
    }
}

/// How often something happened that the simulation is there for. A world without it proves nothing about it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) crashes_with_unsynced_writes: u64,
    pub(crate) resumed_receptions: u64,
    pub(crate) resumed_frames_in_memory: u64,
    pub(crate) bad_frames: u64,
    pub(crate) corrupt_packages: u64,
    pub(crate) silences: u64,
    pub(crate) offers_below_the_floor: u64,
    pub(crate) expired_offers: u64,
    pub(crate) pauses_for_the_disk: u64,
    pub(crate) firings_timed_out: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.crashes_with_unsynced_writes += other.crashes_with_unsynced_writes;
        self.resumed_receptions += other.resumed_receptions;
        self.resumed_frames_in_memory += other.resumed_frames_in_memory;
        self.bad_frames += other.bad_frames;
        self.corrupt_packages += other.corrupt_packages;
        self.silences += other.silences;
        self.offers_below_the_floor += other.offers_below_the_floor;
        self.expired_offers += other.expired_offers;
        self.pauses_for_the_disk += other.pauses_for_the_disk;
        self.firings_timed_out += other.firings_timed_out;
    }

    pub(crate) fn everything(&self) -> bool {
        let Self { crashes_with_unsynced_writes: a, resumed_receptions: b, resumed_frames_in_memory: c, .. } = *self;
        let Self { bad_frames: d, corrupt_packages: e, silences: f, offers_below_the_floor: g, .. } = *self;
        let Self { expired_offers: h, pauses_for_the_disk: i, firings_timed_out: j, .. } = *self;
        [a, b, c, d, e, f, g, h, i, j].iter().all(|count| *count > 0)
    }
}

pub(crate) struct Env {
    pub(crate) now: Duration,
    pub(crate) rng: Rng,
    pub(crate) faults: bool,
    pub(crate) truth: Truth,
    pub(crate) options: ReceiverOptions,
    /// The connection that carries bytes, if there is one.
    pub(crate) connection: Option<u64>,
    pub(crate) no_dialling_before: Duration,
    stalled_until: Duration,
    /// The longest time that a piece travels, in milliseconds: some worlds are quick, in others each transfer lasts.
    pace: u64,
    pub(crate) seen: Seen,
    /// When the last piece of a stream arrives, by stream and direction: streams keep their order, each for itself.
    stream_ends: BTreeMap<(u64, Side), Duration>,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    numbers: u64,
    trace: bool,
}

impl Env {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let limits = Limits {
            sync_interval_bytes: rng.between(1, 1500),
            sync_interval_seconds: rng.between(1, 20),
            receive_buffer_bytes: rng.between(1, 2000),
            fetches_max: rng.between(1, 4) as usize,
            block_bytes_max: rng.between(16, 400) as u32,
            ..Limits::DEFAULT
        };
        let pace = [20, 60, 500, 2000][rng.below(4) as usize];
        let silence = Silence::from_seconds(rng.between(10, 60), &limits).expect("within bounds");
        Self {
            now: Duration::ZERO,
            rng,
            faults: true,
            truth: Truth::default(),
            options: ReceiverOptions { limits, silence },
            connection: None,
            no_dialling_before: Duration::ZERO,
            stalled_until: Duration::ZERO,
            pace,
            seen: Seen::default(),
            stream_ends: BTreeMap::new(),
            queue: BinaryHeap::new(),
            numbers: 0,
            trace,
        }
    }

    pub(crate) fn unix(&self) -> UnixMillis {
        START.plus(self.now)
    }

    /// A number that was not used before, for connections, streams and receptions.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} {}", self.now.as_secs_f64(), what());
        }
    }

    pub(crate) fn at(&mut self, when: Duration, event: Event) {
        let number = self.number();
        self.queue.push(Reverse((when.max(self.now), number, event)));
    }

    /// Between so many milliseconds from now.
    pub(crate) fn soon(&mut self, low: u64, high: u64, event: Event) {
        let pause = Duration::from_millis(self.rng.between(low, high));
        self.at(self.now + pause, event);
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse((when, _, event)) = self.queue.pop()?;
        self.now = when;
        Some(event)
    }

    /// Sends bytes on a stream of a connection. They arrive in pieces, in order; other streams overtake.
    pub(crate) fn send(&mut self, connection: u64, stream: u64, from: Side, bytes: &[u8], fin: bool) {
        let to = if from == Side::Distributor { Side::Subscriber } else { Side::Distributor };
        let mut bytes = bytes.to_vec();
        if self.faults && !bytes.is_empty() && self.rng.chance(8) {
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.rng.below(8);
        }
        let mut rest = bytes.as_slice();
        loop {
            let count = self.rng.between(1, 600).min(rest.len() as u64) as usize;
            let (piece, after) = rest.split_at(count);
            rest = after;
            let pause = Duration::from_millis(self.rng.between(1, self.pace));
            let last = self.stream_ends.get(&(stream, to)).copied().unwrap_or_default();
            let when = (self.now + pause).max(self.stalled_until).max(last);
            self.stream_ends.insert((stream, to), when);
            let fin = fin && rest.is_empty();
            self.at(when, Event::Deliver { connection, stream, to, bytes: piece.to_vec(), fin });
            if rest.is_empty() {
                break;
            }
        }
    }

    pub(crate) fn stall(&mut self) {
        let seconds = if self.rng.chance(300) { self.rng.between(10, 120) } else { self.rng.between(1, 5) };
        self.stalled_until = self.now + Duration::from_secs(seconds);
        self.note(|| format!("the network stalls for {seconds} s"));
    }

    /// The connection breaks. Each side notices in its own time.
    pub(crate) fn break_link(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.note(|| format!("connection {connection} breaks"));
            for side in [Side::Distributor, Side::Subscriber] {
                self.soon(0, 3000, Event::Lost { connection, side });
            }
            if self.faults && self.rng.chance(200) {
                self.no_dialling_before = self.now + Duration::from_secs(self.rng.between(1, 90));
            }
        }
    }
}

pub(crate) fn envelope_id(bytes: &[u8]) -> EnvelopeId {
    EnvelopeId::from_bytes(*blake3::hash(bytes).as_bytes())
}
