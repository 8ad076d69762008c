//! The queue of sends: which bytes of which package may go next, to whom, and how many.
//!
//! A *send* is one package on its way to one node, by however many Fetches. There are so many slots; a send that has one
//! is permitted bytes, in turn with the others of its priority, as far as the rate of its priority and that of the link
//! allow. Those that have none wait in line.
//!
//! **Slots go by weights, not strictly**: while there are more sends than slots, high, medium and low have slots for 16,
//! 4 and 1 parts of the time. Strictly, one Channel that always has something urgent would keep everything else from ever
//! arriving. Within that, the more urgent send takes a slot from a less urgent one at once, and the less urgent one gets
//! its part when a turn ends.
//!
//! **Inside a priority** nobody holds up others: a turn ends after some seconds or bytes, and whoever takes nothing for a
//! moment (its link or its disk is slow, or it is gone) gives its slot back and is among the first when it reads again.
//! So slow nodes proceed at their own speed beside the slots.
//!
//! Nothing here has a clock or moves a byte: the driver says who wants what, and when it is.

mod bucket;
mod shares;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::id::{KeyHash, PackageId};
use crate::limits::Limits;
use crate::model::Priority;
use crate::schedule::RatePlan;

pub use bucket::{Limit, Moment};
use shares::{PRIORITIES, Shares, place};

/// A send that took nothing for so long gives its slot back.
const QUIET: Duration = Duration::from_millis(100);

/// A turn lasts so long at most, while others wait for a slot.
const TURN: Duration = Duration::from_secs(10);

/// A turn has so many bytes at most, while others wait for a slot.
const TURN_BYTES: u64 = 64 << 20;

/// How long a send keeps its slot before a more urgent one can take it.
const HOLD: Duration = Duration::from_millis(100);

/// How often slots are looked at while somebody waits for one.
const TICK: Duration = Duration::from_millis(50);

/// How long a send without a Fetch is remembered: it asks for a package's index first, and for its body a moment later.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The least that is permitted at once where many send.
const BLOCK_BYTES_MIN: u64 = 16 << 10;

/// One package on its way to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SendKey {
    /// The node at the other end.
    pub link: KeyHash,
    /// The package.
    pub package: PackageId,
}

/// One Fetch that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// Bytes that may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// On which stream.
    pub stream: StreamId,
    /// How many, at least one and at most what was wanted.
    pub bytes: u64,
}

/// What a node that sends goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRates {
    /// How many sends have a slot at once.
    pub sends_max: usize,
    /// What sends of high priority may take together; none for no limit.
    pub high: Option<RatePlan>,
    /// The same for medium.
    pub medium: Option<RatePlan>,
    /// The same for low.
    pub low: Option<RatePlan>,
}

impl Default for SendRates {
    fn default() -> Self {
        Self { sends_max: Limits::DEFAULT.sends, high: None, medium: None, low: None }
    }
}

impl SendRates {
    /// The plan of one priority.
    #[must_use]
    pub fn of(&self, priority: Priority) -> Option<&RatePlan> {
        match priority {
            Priority::High => self.high.as_ref(),
            Priority::Medium => self.medium.as_ref(),
            Priority::Low => self.low.as_ref(),
        }
    }
}

/// How many sends there are, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Those with a slot.
    pub sending: usize,
    /// Those in line for one.
    pub waiting: usize,
}

/// The queue of one node that sends.
#[derive(Debug)]
pub struct Queue {
    sends_max: usize,
    /// In the order of [`PRIORITIES`].
    classes: [Class; 3],
    links: BTreeMap<KeyHash, Link>,
    sends: BTreeMap<SendKey, Send>,
    streams: BTreeMap<StreamId, SendKey>,
    next_stream: u64,
    slot_time: Shares,
    /// Until when slot time is accounted for.
    accounted: Duration,
    /// Sends without a Fetch, and since when.
    left: VecDeque<(Duration, SendKey)>,
}

#[derive(Debug)]
struct Class {
    limit: Limit,
    /// In line, those first whose turn is not over.
    returning: VecDeque<SendKey>,
    waiting: VecDeque<SendKey>,
    /// Those with a slot; the first is next.
    holders: VecDeque<SendKey>,
}

#[derive(Debug)]
struct Link {
    limit: Limit,
    shares: Shares,
    /// Streams of each priority.
    streams: [usize; 3],
}

#[derive(Debug)]
struct Send {
    class: usize,
    streams: usize,
    asking: VecDeque<(StreamId, u64)>,
    slot: Slot,
    /// It stands in one of the lines.
    in_line: bool,
    turn_bytes: u64,
    turn_held: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    None,
    Held {
        since: Duration,
        /// Since when it has asked for nothing.
        quiet: Option<Duration>,
    },
}

impl Send {
    fn held(&self, now: Duration) -> Duration {
        match self.slot {
            Slot::Held { since, .. } => self.turn_held + now.saturating_sub(since),
            Slot::None => self.turn_held,
        }
    }

    fn is_turn_over(&self, now: Duration) -> bool {
        self.turn_bytes >= TURN_BYTES || self.held(now) >= TURN
    }
}

impl Queue {
    /// A queue without sends.
    #[must_use]
    pub fn new(rates: &SendRates, now: Moment) -> Self {
        let class = |priority| Class {
            limit: Limit::new(rates.of(priority).cloned(), now),
            returning: VecDeque::new(),
            waiting: VecDeque::new(),
            holders: VecDeque::new(),
        };
        Self {
            sends_max: rates.sends_max.max(1),
            classes: PRIORITIES.map(class),
            links: BTreeMap::new(),
            sends: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            slot_time: Shares::default(),
            accounted: now.elapsed,
            left: VecDeque::new(),
        }
    }

    /// Puts other rates in force, at once. Slots beyond a lower number are given back as their sends take a pause.
    pub fn set_rates(&mut self, rates: &SendRates, now: Moment) {
        self.sends_max = rates.sends_max.max(1);
        for (class, priority) in self.classes.iter_mut().zip(PRIORITIES) {
            class.limit.set(rates.of(priority).cloned(), now);
        }
    }

    /// Puts another rate in force for all that goes to a node, at once.
    pub fn set_link(&mut self, link: &KeyHash, plan: Option<RatePlan>, now: Moment) {
        if let Some(link) = self.links.get_mut(link) {
            link.limit.set(plan, now);
        }
    }

    /// The nodes to which something goes now.
    pub fn links(&self) -> impl Iterator<Item = &KeyHash> {
        self.links.keys()
    }

    /// A Fetch of a package begins; `plan` is the rate for all that goes to that node.
    pub fn open(&mut self, send: SendKey, priority: Priority, plan: Option<RatePlan>, now: Moment) -> StreamId {
        self.forget(now);
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(stream, send);
        let known = self.sends.entry(send).or_insert_with(|| Send {
            class: place(priority),
            streams: 0,
            asking: VecDeque::new(),
            slot: Slot::None,
            in_line: false,
            turn_bytes: 0,
            turn_held: Duration::ZERO,
        });
        known.streams += 1;
        let class = known.class;
        let link = self.links.entry(send.link).or_insert_with(|| Link {
            limit: Limit::new(plan.clone(), now),
            shares: Shares::default(),
            streams: [0; 3],
        });
        link.limit.set(plan, now);
        if link.streams[class] == 0 {
            link.shares.enter(class, link.streams.map(|streams| streams > 0));
        }
        link.streams[class] += 1;
        stream
    }

    /// A stream wants to send so many bytes, at most; [`Queue::poll`] says when and how many. It asks for nothing else
    /// meanwhile.
    pub fn want(&mut self, stream: StreamId, bytes: u64, now: Moment) {
        let Some((key, send)) = self.send_of(stream) else { return };
        send.asking.push_back((stream, bytes.max(1)));
        match &mut send.slot {
            Slot::Held { quiet, .. } => *quiet = None,
            Slot::None => self.line_up(key, now),
        }
    }

    /// A stream wants nothing any more.
    pub fn withdraw(&mut self, stream: StreamId, now: Moment) {
        let Some((_, send)) = self.send_of(stream) else { return };
        send.asking.retain(|(asking, _)| *asking != stream);
        send.rest(now.elapsed);
    }

    /// A Fetch is over, whether it was answered or not.
    pub fn close(&mut self, stream: StreamId, now: Moment) {
        self.withdraw(stream, now);
        let Some(key) = self.streams.remove(&stream) else { return };
        let Some(send) = self.sends.get_mut(&key) else { return };
        send.streams -= 1;
        let (class, is_last) = (send.class, send.streams == 0);
        if let Some(link) = self.links.get_mut(&key.link) {
            link.streams[class] -= 1;
        }
        if is_last {
            self.account(now.elapsed);
            self.take_slot(&key, now.elapsed);
            self.left.push_back((now.elapsed, key));
        }
        self.forget(now);
    }

    /// Bytes that may go now, if there are any; to be called until there are none.
    pub fn poll(&mut self, now: Moment) -> Option<Grant> {
        self.account(now.elapsed);
        if self.is_anyone_in_line() {
            self.take_back(now.elapsed);
            self.give_out(now.elapsed);
        }
        (0..self.classes.len()).find_map(|class| self.grant(class, now))
    }

    /// In how long [`Queue::poll`] may have something to say, if nobody asks for anything meanwhile.
    pub fn next_wakeup(&mut self, now: Moment) -> Option<Duration> {
        let mut wakeup = self.is_anyone_in_line().then_some(TICK);
        for class in &mut self.classes {
            let asking = class.holders.iter().filter(|key| self.sends.get(key).is_some_and(|send| send.is_asking()));
            for key in asking {
                let Some(link) = self.links.get_mut(&key.link) else { continue };
                let wait = class.limit.wait(now).max(link.limit.wait(now));
                let changes = class.limit.next_change(now).into_iter().chain(link.limit.next_change(now));
                // What waits for a more urgent one on the same link is looked at when that one is.
                let wait = if wait.is_zero() { TICK } else { wait };
                wakeup = changes.chain([wait]).chain(wakeup).min();
            }
        }
        wakeup
    }

    /// How many sends there are.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        let sending = self.classes.iter().map(|class| class.holders.len()).sum();
        let waiting = self.sends.values().filter(|send| send.is_asking() && send.slot == Slot::None).count();
        QueueCounts { sending, waiting }
    }

    fn send_of(&mut self, stream: StreamId) -> Option<(SendKey, &mut Send)> {
        let key = *self.streams.get(&stream)?;
        self.sends.get_mut(&key).map(|send| (key, send))
    }

    fn line_up(&mut self, key: SendKey, now: Moment) {
        self.account(now.elapsed);
        let there = std::array::from_fn(|class| self.is_in_line(class) || !self.classes[class].holders.is_empty());
        let Some(send) = self.sends.get_mut(&key).filter(|send| !send.in_line) else { return };
        send.in_line = true;
        let class = send.class;
        if !there[class] {
            self.slot_time.enter(class, there);
        }
        let has_begun = send.turn_bytes > 0 && !send.is_turn_over(now.elapsed);
        let class = &mut self.classes[class];
        if has_begun { class.returning.push_back(key) } else { class.waiting.push_back(key) }
    }

    fn is_in_line(&self, class: usize) -> bool {
        !self.classes[class].returning.is_empty() || !self.classes[class].waiting.is_empty()
    }

    fn is_anyone_in_line(&self) -> bool {
        (0..self.classes.len()).any(|class| self.is_in_line(class))
    }

    /// Slot time is what is shared out, and only while there is not enough of it.
    fn account(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.accounted);
        self.accounted = self.accounted.max(now);
        if self.is_anyone_in_line() {
            for (number, class) in self.classes.iter().enumerate() {
                self.slot_time.charge(number, passed.as_nanos().saturating_mul(class.holders.len() as u128));
            }
        }
    }

    /// Slots of those that take nothing go back.
    fn take_back(&mut self, now: Duration) {
        let is_quiet = |key: &&SendKey| {
            let slot = self.sends.get(key).map(|send| send.slot);
            matches!(slot, Some(Slot::Held { quiet: Some(since), .. }) if now.saturating_sub(since) >= QUIET)
        };
        let quiet: Vec<SendKey> =
            self.classes.iter().flat_map(|class| class.holders.iter().filter(is_quiet)).copied().collect();
        for key in quiet {
            self.take_slot(&key, now);
        }
    }

    fn give_out(&mut self, now: Duration) {
        loop {
            let mut want = [0, 1, 2].map(|class| self.next_in_line(class).is_some());
            let holders: usize = self.classes.iter().map(|class| class.holders.len()).sum();
            if holders < self.sends_max {
                let Some(class) = self.slot_time.first(want) else { return };
                self.seat(class, now);
                continue;
            }
            // Whoever is next may have to wait for the end of a turn, and another may not.
            let found = loop {
                let Some(class) = self.slot_time.first(want) else { break None };
                want[class] = false;
                if let Some(victim) = self.displaced_by(class, now) {
                    break Some((class, victim));
                }
            };
            let Some((class, victim)) = found else { return };
            self.take_slot(&victim, now);
            self.seat(class, now);
            self.requeue(victim);
        }
    }

    /// Who has to give its slot to the next in line of `class`: one whose turn is over, or a less urgent one.
    fn displaced_by(&self, class: usize, now: Duration) -> Option<SendKey> {
        // From those first that had the most, and of the same from the less urgent.
        let mut from = [2, 1, 0];
        from.sort_by_key(|class| Reverse(self.slot_time.of(*class)));
        from.into_iter().find_map(|other| {
            let is_less_urgent = other > class && self.slot_time.of(other) >= self.slot_time.of(class);
            let gives = |key: &&SendKey| {
                let Some(send) = self.sends.get(key) else { return true };
                send.is_turn_over(now) || (is_less_urgent && send.held(now) >= HOLD)
            };
            let holders = self.classes[other].holders.iter().filter(gives);
            holders.max_by_key(|key| self.sends.get(key).map(|send| send.held(now))).copied()
        })
    }

    /// The next in line of a class that still wants something.
    fn next_in_line(&mut self, class: usize) -> Option<SendKey> {
        loop {
            let line = &mut self.classes[class];
            let (key, returning) = match (line.returning.front(), line.waiting.front()) {
                (Some(key), _) => (*key, true),
                (None, Some(key)) => (*key, false),
                (None, None) => return None,
            };
            match self.sends.get_mut(&key) {
                Some(send) if send.is_asking() && send.slot == Slot::None => return Some(key),
                Some(send) => send.in_line = false,
                None => {}
            }
            if returning {
                line.returning.pop_front()
            } else {
                line.waiting.pop_front()
            };
        }
    }

    fn seat(&mut self, class: usize, now: Duration) {
        let Some(key) = self.next_in_line(class) else { return };
        let line = &mut self.classes[class];
        if line.returning.pop_front().is_none() {
            line.waiting.pop_front();
        }
        line.holders.push_back(key);
        let Some(send) = self.sends.get_mut(&key) else { return };
        send.in_line = false;
        send.slot = Slot::Held { since: now, quiet: None };
        if send.is_turn_over(now) {
            (send.turn_bytes, send.turn_held) = (0, Duration::ZERO);
        }
    }

    /// Takes a send's slot, if it has one. What it had of its turn is remembered.
    fn take_slot(&mut self, key: &SendKey, now: Duration) {
        let Some(send) = self.sends.get_mut(key) else { return };
        send.turn_held = send.held(now);
        if std::mem::replace(&mut send.slot, Slot::None) != Slot::None {
            self.classes[send.class].holders.retain(|holder| holder != key);
        }
    }

    /// One that had to give its slot away stands in line again, at the end.
    fn requeue(&mut self, key: SendKey) {
        let Some(send) = self.sends.get_mut(&key).filter(|send| send.is_asking() && !send.in_line) else { return };
        send.in_line = true;
        (send.turn_bytes, send.turn_held) = (0, Duration::ZERO);
        self.classes[send.class].waiting.push_back(key);
    }

    fn grant(&mut self, class: usize, now: Moment) -> Option<Grant> {
        if !self.classes[class].limit.wait(now).is_zero() {
            return None;
        }
        for _ in 0..self.classes[class].holders.len() {
            self.classes[class].holders.rotate_left(1);
            let key = *self.classes[class].holders.back()?;
            let wanted = self.sends.get(&key).and_then(|send| send.asking.front()).map(|(_, bytes)| *bytes);
            if let Some(wanted) = wanted.filter(|_| self.is_links_turn(class, &key.link, now)) {
                return self.permit(class, &key, wanted, now);
            }
        }
        None
    }

    /// Whether the link lets something through, and of this class first.
    fn is_links_turn(&mut self, class: usize, link: &KeyHash, now: Moment) -> bool {
        let Some(known) = self.links.get_mut(link) else { return false };
        if known.limit.rate(now).is_none() {
            return true;
        }
        if !known.limit.wait(now).is_zero() {
            return false;
        }
        let mut want = [false; 3];
        for (number, other) in self.classes.iter_mut().enumerate().filter(|(number, _)| known.streams[*number] > 0) {
            let asks = |key: &SendKey| key.link == *link && self.sends.get(key).is_some_and(Send::is_asking);
            want[number] = number == class || (other.holders.iter().any(asks) && other.limit.wait(now).is_zero());
        }
        known.shares.first(want) == Some(class)
    }

    fn permit(&mut self, class: usize, key: &SendKey, wanted: u64, now: Moment) -> Option<Grant> {
        let (send, link) = (self.sends.get_mut(key)?, self.links.get_mut(&key.link)?);
        let (stream, _) = send.asking.pop_front()?;
        let limit = &mut self.classes[class].limit;
        // Two blocks for each stream: one that is being written, and one that is read meanwhile.
        let streams = u64::try_from(self.streams.len()).unwrap_or(u64::MAX).max(1);
        let block = (Limits::DEFAULT.send_blocks_bytes / streams / 2).max(BLOCK_BYTES_MIN);
        let bytes = link.limit.grain(limit.grain(wanted.min(block), now), now);
        limit.take(bytes, now);
        link.limit.take(bytes, now);
        link.shares.charge(class, u128::from(bytes));
        send.turn_bytes = send.turn_bytes.saturating_add(bytes);
        send.rest(now.elapsed);
        Some(Grant { stream, bytes })
    }

    /// Forgets sends that have had no Fetch for a while, and links that have none and owe nothing.
    fn forget(&mut self, now: Moment) {
        while let Some((_, key)) = self.left.front().filter(|(at, _)| now.elapsed.saturating_sub(*at) >= REMEMBERED) {
            let key = *key;
            self.left.pop_front();
            if self.sends.get(&key).is_some_and(|send| send.streams == 0) {
                self.sends.remove(&key);
            }
            let Some(link) = self.links.get_mut(&key.link) else { continue };
            if link.streams.iter().all(|streams| *streams == 0) {
                // What is owed is not forgotten: it would be a way around the rate.
                if link.limit.wait(now).is_zero() {
                    self.links.remove(&key.link);
                } else {
                    self.left.push_back((now.elapsed, key));
                }
            }
        }
    }
}

impl Send {
    fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Notes since when it has a slot and asks for nothing.
    fn rest(&mut self, now: Duration) {
        let is_asking = self.is_asking();
        if let Slot::Held { quiet, .. } = &mut self.slot {
            *quiet = if is_asking { None } else { quiet.or(Some(now)) };
        }
    }
}
