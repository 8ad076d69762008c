//! The sending side of package bytes: every one goes through one queue for each node, which says when, and through a gate,
//! which says whether at all.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::id::{KeyHash, UnixMillis};
use crate::model::Priority;
use crate::node::clock::Clock;
use crate::node::measure::{Measured, Measuring};
use crate::node::serve::{Pace, Permit, Permitting};
use crate::protocol::{Limit, Moment, Queue, QueueCounts, Refused, SendKey, SendRates, StreamId};
use crate::schedule::RatePlan;

/// How long a gate's word is believed: clocks can be set, and windows close by the clock.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Whether a package may go to a node now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It may, up to this time where one is known.
    Open { until: Option<UnixMillis> },
    /// It may not, and what is waited for.
    Closed(Refused),
}

/// Looks at a gate. It is asked before the first byte, whenever something changed, and when its time is over.
pub(crate) type GateLook = Box<dyn Fn() -> Gate + Send + Sync>;

/// Where the frame ends that a place lies in, so that one in flight is not cut. It may read the disk.
pub(crate) type FrameEnd = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// One node's queue of sends, with the clock and the tasks that wait.
pub(crate) struct SendQueue {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    began: Instant,
    /// Something was asked, so that the next wakeup may be an earlier one.
    asked: Arc<Notify>,
    is_driven: AtomicBool,
    /// Counts what may have changed a gate.
    gates: watch::Sender<u64>,
    pub(crate) measured: Measured,
}

struct Inner {
    queue: Queue,
    waiting: HashMap<StreamId, oneshot::Sender<u64>>,
}

/// What one Fetch is sent under.
pub(crate) struct PaceOptions {
    pub(crate) send: SendKey,
    pub(crate) priority: Priority,
    /// The rate for all that goes to that node.
    pub(crate) link_rate: Option<RatePlan>,
    /// What has happened to gates since `open_until` was seen: [`SendQueue::gate_changes`], asked before.
    pub(crate) changes: watch::Receiver<u64>,
    /// Until when the gate is open, as it was just seen.
    pub(crate) open_until: Option<UnixMillis>,
    pub(crate) gate: GateLook,
    pub(crate) frame_end: FrameEnd,
}

impl SendQueue {
    pub(crate) fn new(rates: &SendRates, clock: Arc<dyn Clock>) -> Arc<Self> {
        let now = Moment { elapsed: Duration::ZERO, wall: clock.now() };
        let inner = Inner { queue: Queue::new(rates, now), waiting: HashMap::new() };
        Arc::new(Self {
            inner: Mutex::new(inner),
            clock,
            began: Instant::now(),
            asked: Arc::default(),
            is_driven: AtomicBool::new(false),
            gates: watch::Sender::new(0),
            measured: Measured::default(),
        })
    }

    /// Puts other rates in force, at once.
    pub(crate) fn set_rates(&self, rates: &SendRates) {
        let now = self.now();
        let mut inner = self.lock();
        inner.queue.set_rates(rates, now);
        self.pump(&mut inner, now);
        drop(inner);
        self.asked.notify_one();
    }

    /// Puts the rates of nodes to which something goes now in force, at once.
    pub(crate) fn set_links(&self, plan_of: impl Fn(&KeyHash) -> Option<RatePlan>) {
        let now = self.now();
        let links: Vec<KeyHash> = self.lock().queue.links().copied().collect();
        let plans: Vec<_> = links.into_iter().map(|link| (link, plan_of(&link))).collect();
        let mut inner = self.lock();
        for (link, plan) in plans {
            inner.queue.set_link(&link, plan, now);
        }
        self.pump(&mut inner, now);
        drop(inner);
        self.asked.notify_one();
    }

    /// Something happened that may have opened or closed a gate: all are looked at again.
    pub(crate) fn look_again(&self) {
        self.gates.send_modify(|count| *count += 1);
    }

    /// Hears of what may have opened or closed a gate from now on.
    pub(crate) fn gate_changes(&self) -> watch::Receiver<u64> {
        self.gates.subscribe()
    }

    /// How many sends there are.
    pub(crate) fn counts(&self) -> QueueCounts {
        self.lock().queue.counts()
    }

    /// The pace of one Fetch, which goes back when it is dropped.
    pub(crate) fn pace(self: &Arc<Self>, options: PaceOptions) -> Box<dyn Pace> {
        let now = self.now();
        let PaceOptions { send, priority, link_rate, changes, open_until, gate, frame_end } = options;
        let stream = self.lock().queue.open(send, priority, link_rate, now);
        let measuring = self.measured.begin(send.link, now.elapsed);
        let looked = Some(Instant::now() + believed(open_until, now.wall));
        Box::new(Paced { queue: self.clone(), stream, gate, frame_end, changes, looked, ending: None, measuring })
    }

    fn now(&self) -> Moment {
        Moment { elapsed: self.began.elapsed(), wall: self.clock.now() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what may go.
    fn pump(&self, inner: &mut Inner, now: Moment) {
        while let Some(grant) = inner.queue.poll(now) {
            if let Some(waiting) = inner.waiting.remove(&grant.stream) {
                // Who gave up meanwhile withdraws, and loses what this cost.
                let _ = waiting.send(grant.bytes);
            }
        }
    }

    /// Asks for bytes. What comes back is dropped when they are not wanted any more.
    fn ask(self: &Arc<Self>, stream: StreamId, wanted: u64) -> Asking<'_> {
        self.drive();
        let now = self.now();
        let (sender, granted) = oneshot::channel();
        let mut inner = self.lock();
        inner.queue.want(stream, wanted, now);
        inner.waiting.insert(stream, sender);
        self.pump(&mut inner, now);
        let waits = inner.waiting.contains_key(&stream);
        drop(inner);
        if waits {
            self.asked.notify_one();
        }
        Asking { queue: self, stream, granted }
    }

    /// Hands out what may go, and says when to look again.
    fn step(&self) -> Option<Duration> {
        let now = self.now();
        let mut inner = self.lock();
        self.pump(&mut inner, now);
        inner.queue.next_wakeup(now)
    }

    /// Starts the task that wakes up when the queue says so, once.
    fn drive(self: &Arc<Self>) {
        if self.is_driven.swap(true, Ordering::Relaxed) {
            return;
        }
        let (queue, asked) = (Arc::downgrade(self), self.asked.clone());
        tokio::spawn(async move {
            loop {
                // It goes when its node does.
                let Some(strong) = queue.upgrade() else { return };
                let wakeup = strong.step();
                drop(strong);
                let sleeping = async {
                    match wakeup {
                        Some(wait) => sleep(wait).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = sleeping => {}
                    () = asked.notified() => {}
                }
            }
        });
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.asked.notify_one();
    }
}

/// Bytes that were asked for.
struct Asking<'a> {
    queue: &'a SendQueue,
    stream: StreamId,
    granted: oneshot::Receiver<u64>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let now = self.queue.now();
        let mut inner = self.queue.lock();
        if inner.waiting.remove(&self.stream).is_some() {
            inner.queue.withdraw(self.stream, now);
        }
    }
}

/// One Fetch's pace.
struct Paced {
    queue: Arc<SendQueue>,
    stream: StreamId,
    gate: GateLook,
    frame_end: FrameEnd,
    changes: watch::Receiver<u64>,
    /// Until when the gate's last word is believed.
    looked: Option<Instant>,
    /// The gate is closed: how far it still goes, and what it says then.
    ending: Option<(u64, Refused)>,
    measuring: Measuring,
}

impl Pace for Paced {
    fn permit(&mut self, at: u64, wanted: u64) -> Permitting<'_> {
        Box::pin(self.permit_next(at, wanted))
    }
}

impl Paced {
    async fn permit_next(&mut self, at: u64, wanted: u64) -> Permit {
        self.measuring.wants(self.queue.began.elapsed(), &self.queue.measured);
        loop {
            if self.changes.has_changed().unwrap_or(false) || self.looked.is_none_or(|until| until <= Instant::now()) {
                self.look(at).await;
            }
            let wanted = match &self.ending {
                Some((end, refused)) if at >= *end => return Permit::Over(refused.clone()),
                Some((end, _)) => wanted.min(end - at),
                None => wanted,
            };
            let look_again = self.looked.unwrap_or_else(Instant::now);
            let mut asking = self.queue.ask(self.stream, wanted);
            tokio::select! {
                biased;
                granted = &mut asking.granted => if let Ok(bytes) = granted {
                    drop(asking);
                    self.measuring.granted(bytes, self.queue.began.elapsed(), &self.queue.measured);
                    return Permit::Bytes(bytes);
                },
                // The queue outlives those who wait for it.
                _ = self.changes.changed() => self.looked = None,
                () = sleep_until(look_again) => {}
            }
        }
    }

    /// Asks the gate. Once it is closed, the frame at `at` is finished if it has begun.
    async fn look(&mut self, at: u64) {
        self.changes.mark_unchanged();
        let now = self.queue.clock.now();
        let believed_for = match (self.gate)() {
            Gate::Open { until } => {
                self.ending = None;
                believed(until, now)
            }
            Gate::Closed(refused) => {
                if self.ending.is_none() {
                    let frame_end = self.frame_end.clone();
                    let looking = tokio::task::spawn_blocking(move || frame_end(at));
                    self.ending = Some((looking.await.unwrap_or(at), refused));
                }
                LOOK_AGAIN
            }
        };
        self.looked = Some(Instant::now() + believed_for);
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        let now = self.queue.now();
        let mut inner = self.queue.lock();
        inner.waiting.remove(&self.stream);
        inner.queue.close(self.stream, now);
        self.queue.pump(&mut inner, now);
        drop(inner);
        self.measuring.ends(now.elapsed, &self.queue.measured);
    }
}

/// How long a gate that is open up to a time is taken to be open.
fn believed(until: Option<UnixMillis>, now: UnixMillis) -> Duration {
    until.map_or(LOOK_AGAIN, |until| until.since(now).min(LOOK_AGAIN))
}

/// How fast a node takes bytes in, whoever sends them: readers wait, and QUIC's flow control has the senders wait.
pub(crate) struct InputPace {
    limit: Mutex<Limit>,
    clock: Arc<dyn Clock>,
    began: Instant,
    changed: Notify,
}

impl InputPace {
    pub(crate) fn new(plan: Option<RatePlan>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let now = Moment { elapsed: Duration::ZERO, wall: clock.now() };
        let limit = Mutex::new(Limit::new(plan, now));
        Arc::new(Self { limit, clock, began: Instant::now(), changed: Notify::new() })
    }

    /// Puts another rate in force, at once.
    pub(crate) fn set(&self, plan: Option<RatePlan>) {
        let now = self.now();
        self.lock().set(plan, now);
        self.changed.notify_waiters();
    }

    /// How many bytes of `wanted` are to be read at once.
    pub(crate) fn grain(&self, wanted: usize) -> usize {
        let now = self.now();
        usize::try_from(self.lock().grain(wanted as u64, now)).unwrap_or(wanted)
    }

    /// Notes what was read.
    pub(crate) fn took(&self, bytes: u64) {
        let now = self.now();
        self.lock().take(bytes, now);
    }

    /// Waits until more may be read.
    pub(crate) async fn ready(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = self.now();
            let wait = self.lock().wait(now);
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    fn now(&self) -> Moment {
        Moment { elapsed: self.began.elapsed(), wall: self.clock.now() }
    }

    fn lock(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
