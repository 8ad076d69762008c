//! What all nodes live in: the clock, the events to come, connections and what travels over them.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use ted_core::id::{DistributionId, PackageId, UnixMillis};
use ted_core::limits::Limits;
use ted_core::protocol::{ReceiverOptions, Silence};

use crate::message::Message;
use crate::rng::Rng;
use crate::seen::Seen;
use crate::topology::{NodeId, Topology};
use crate::truth::Truth;
use crate::work::Work;

const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

pub(crate) enum Event {
    Deliver {
        connection: u64,
        to: NodeId,
        message: Message,
    },
    /// A node notices that a connection is gone.
    Lost {
        connection: u64,
        node: NodeId,
    },
    Dial(NodeId),
    Wake(NodeId),
    /// Work that a node gave to its disk or its threads is done.
    Done {
        node: NodeId,
        life: u64,
        distribution: DistributionId,
        work: Work,
    },
    /// A stream that is served may send its next block.
    Serve {
        node: NodeId,
        stream: u64,
        turn: u64,
    },
    Crash(NodeId),
    Restart(NodeId),
    /// A bit of a complete package turns over on a node's disk.
    Rot(NodeId),
    /// A node asks its parent for what is none of its business.
    Rogue(NodeId),
    Release(DistributionId),
    Fire(DistributionId),
    /// The node's connection to its parent breaks.
    Break(NodeId),
    Stall(NodeId),
    /// Some nodes do not reach the others.
    Partition,
    FaultsEnd,
}

struct Planned {
    when: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.when, self.number).cmp(&(other.when, other.number))
    }
}

pub(crate) struct Link {
    pub(crate) child: NodeId,
    pub(crate) parent: NodeId,
    stalled_until: Duration,
}

impl Link {
    pub(crate) fn peer_of(&self, node: NodeId) -> NodeId {
        if node == self.child { self.parent } else { self.child }
    }
}

pub(crate) struct Env {
    pub(crate) now: Duration,
    pub(crate) rng: Rng,
    pub(crate) faults: bool,
    pub(crate) truth: Truth,
    pub(crate) seen: Seen,
    pub(crate) topology: Topology,
    pub(crate) options: ReceiverOptions,
    /// The connections that carry bytes.
    pub(crate) links: BTreeMap<u64, Link>,
    apart: (BTreeSet<NodeId>, Duration),
    /// The longest time that a message travels, in milliseconds: some worlds are quick, in others each transfer lasts.
    pace: u64,
    /// How many blocks of a thousand are damaged on their way.
    pub(crate) damage: u64,
    /// When the last message of a stream arrives: streams keep their order, each for itself.
    stream_ends: BTreeMap<(u64, NodeId), Duration>,
    queue: BinaryHeap<Reverse<Planned>>,
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
            block_bytes_max: rng.between(64, 600) as u32,
            ..Limits::DEFAULT
        };
        let pace = [20, 60, 400, 1200][rng.below(4) as usize];
        let damage = [2, 8, 80][rng.below(3) as usize];
        let silence = Silence::from_seconds(rng.between(20, 90), &limits).expect("within bounds");
        let topology = Topology::plant(&mut rng);
        Self {
            now: Duration::ZERO,
            rng,
            faults: true,
            truth: Truth::default(),
            seen: Seen::default(),
            topology,
            options: ReceiverOptions { limits, silence },
            links: BTreeMap::new(),
            apart: (BTreeSet::new(), Duration::ZERO),
            pace,
            damage,
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
        self.queue.push(Reverse(Planned { when: when.max(self.now), number, event }));
    }

    /// Between so many milliseconds from now.
    pub(crate) fn soon(&mut self, low: u64, high: u64, event: Event) {
        let pause = Duration::from_millis(self.rng.between(low, high));
        self.at(self.now + pause, event);
    }

    /// As soon as a stream's next block may go. Gives the number of that turn.
    pub(crate) fn serve_soon(&mut self, node: NodeId, stream: u64) -> u64 {
        let turn = self.number();
        self.soon(1, self.pace, Event::Serve { node, stream, turn });
        turn
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(planned) = self.queue.pop()?;
        self.now = planned.when;
        Some(planned.event)
    }

    pub(crate) fn may_meet(&self, one: NodeId, other: NodeId) -> bool {
        let (apart, until) = &self.apart;
        self.now >= *until || apart.contains(&one) == apart.contains(&other)
    }

    pub(crate) fn connect(&mut self, child: NodeId, parent: NodeId) -> u64 {
        let connection = self.number();
        self.links.insert(connection, Link { child, parent, stalled_until: Duration::ZERO });
        connection
    }

    /// Sends over a connection. What travels on one stream keeps its order; streams overtake each other.
    pub(crate) fn send(&mut self, connection: u64, from: NodeId, message: Message) {
        let Some(link) = self.links.get(&connection) else { return };
        let (to, stalled_until) = (link.peer_of(from), link.stalled_until);
        let pause = Duration::from_millis(self.rng.between(1, self.pace));
        let key = (message.stream(), to);
        let last = self.stream_ends.get(&key).copied().unwrap_or_default();
        let when = (self.now + pause).max(stalled_until).max(last);
        if message.ends_stream() {
            self.stream_ends.remove(&key);
        } else {
            self.stream_ends.insert(key, when);
        }
        self.at(when, Event::Deliver { connection, to, message });
    }

    /// The connection breaks. Each side notices in its own time.
    pub(crate) fn break_link(&mut self, connection: u64) {
        if let Some(link) = self.links.remove(&connection) {
            for node in [link.child, link.parent] {
                self.soon(0, 3000, Event::Lost { connection, node });
            }
        }
    }

    pub(crate) fn break_links_of(&mut self, node: NodeId) {
        let touches = |link: &Link| link.child == node || link.parent == node;
        let broken: Vec<u64> = self.links.iter().filter(|(_, link)| touches(link)).map(|(number, _)| *number).collect();
        for connection in broken {
            self.break_link(connection);
        }
    }

    /// The link of a node to its parent.
    fn upstream_of(&self, node: NodeId) -> Option<u64> {
        self.links.iter().find(|(_, link)| link.child == node).map(|(number, _)| *number)
    }

    pub(crate) fn break_upstream(&mut self, node: NodeId) {
        if let Some(connection) = self.upstream_of(node) {
            self.note(|| format!("connection {connection} of {node} breaks"));
            self.break_link(connection);
        }
    }

    pub(crate) fn stall(&mut self, node: NodeId) {
        let seconds = if self.rng.chance(300) { self.rng.between(10, 120) } else { self.rng.between(1, 5) };
        let until = self.now + Duration::from_secs(seconds);
        if let Some(link) = self.upstream_of(node).and_then(|number| self.links.get_mut(&number)) {
            link.stalled_until = until;
            self.note(|| format!("the link of {node} to its parent stalls for {seconds} s"));
        }
    }

    pub(crate) fn partition(&mut self) {
        let share = self.rng.between(50, 500);
        let nodes: Vec<NodeId> = self.topology.nodes().collect();
        let apart: BTreeSet<NodeId> = nodes.into_iter().filter(|_| self.rng.chance(share)).collect();
        let until = self.now + Duration::from_secs(self.rng.between(5, 60));
        self.note(|| format!("{apart:?} do not reach the others before {:.0} s", until.as_secs_f64()));
        self.seen.partitions += 1;
        self.apart = (apart, until);
        let meet = |link: &Link| self.may_meet(link.child, link.parent);
        let broken: Vec<u64> = self.links.iter().filter(|(_, link)| !meet(link)).map(|(number, _)| *number).collect();
        for connection in broken {
            self.break_link(connection);
        }
    }

    /// All that is cut is joined again.
    pub(crate) fn heal(&mut self) {
        self.apart.1 = Duration::ZERO;
        for link in self.links.values_mut() {
            link.stalled_until = Duration::ZERO;
        }
    }

    pub(crate) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.truth.demand(holds, what);
    }

    /// Whether these are the bytes of the package from `at` on.
    pub(crate) fn is_true(&self, package: &PackageId, at: u64, bytes: &[u8]) -> bool {
        let truth = self.truth.packages.get(package).map(|known| known.bytes.as_slice()).unwrap_or_default();
        truth.get(at as usize..at as usize + bytes.len()) == Some(bytes)
    }
}
