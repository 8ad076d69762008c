//! What comes when: the schedules of a node side by side, as a machine without a clock.
//!
//! It is told what is declared, what was asked for and what time it is, and says whose turn it is and when to look again.
//! Time may jump: what was overtaken by a clock that went ahead comes once, if its window is still open, and a clock that
//! was set back brings nothing a second time. What a look costs is in proportion to what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::schedule::{Schedule, Start};

/// How something comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rhythm {
    /// As its schedule says. `now` comes when it is asked for.
    Scheduled(Schedule),
    /// As its schedule says, and `now` again after a while: whoever carries it out says whether there is reason to.
    Retried(Schedule),
    /// Once, at this moment or as soon as that has passed.
    Once(UnixMillis),
}

/// Why it is somebody's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The calendar has it now.
    Planned,
    /// The calendar had it when nobody could act, and its window is still open.
    Missed,
    /// It was asked for.
    Asked,
    /// A while has passed since it came last.
    Again,
}

/// Something whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<K> {
    /// Whose.
    pub key: K,
    /// When the calendar has it. It is known by this, and never comes again.
    pub planned: UnixMillis,
    /// The same of the turn before, or when the schedule was set.
    pub before: UnixMillis,
    /// Why.
    pub cause: Cause,
    /// When its window closes; none where it has none.
    pub closes: Option<UnixMillis>,
}

/// What a look at the timetable finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken<K> {
    /// Whose turn it is, in the order in which they were due.
    pub turns: Vec<Turn<K>>,
    /// What was overtaken, and the window that it lay in has closed: it does not come any more.
    pub lapsed: Vec<(K, UnixMillis)>,
}

/// Schedules side by side. Keys are written out for their jitter, so they should say what they are and where.
#[derive(Debug)]
pub struct Timetable<K> {
    plans: BTreeMap<K, Plan>,
    /// What is not being carried out, by when it is due.
    queue: BTreeSet<(UnixMillis, K)>,
    /// What is being carried out. It comes again after its end only.
    busy: BTreeSet<K>,
    /// The latest time that was told.
    latest: UnixMillis,
}

#[derive(Debug)]
struct Plan {
    rhythm: Rhythm,
    last: UnixMillis,
    /// When it was asked for, where that is not done.
    asked: Option<UnixMillis>,
    /// It could not be begun, and is not tried again before this.
    held: Option<UnixMillis>,
    /// As it stands in the queue.
    next: Option<Next>,
}

#[derive(Debug, Clone, Copy)]
struct Next {
    planned: UnixMillis,
    due: UnixMillis,
    cause: Cause,
}

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self {
            plans: BTreeMap::new(),
            queue: BTreeSet::new(),
            busy: BTreeSet::new(),
            latest: UnixMillis::from_millis(0),
        }
    }
}

impl<K: Ord + Clone + Display> Timetable<K> {
    /// Puts something on the timetable, or another rhythm in the place of the one it had. `last` is the planned moment
    /// of its last turn, or when its schedule was set where it had none.
    pub fn set(&mut self, key: &K, rhythm: Rhythm, last: UnixMillis, now: UnixMillis) {
        self.unqueue(key);
        // A last turn that far ahead was noted by a clock that was wrong.
        let last = if last > now.plus(set_back()) { now } else { last };
        self.plans.insert(key.clone(), Plan { rhythm, last, asked: None, held: None, next: None });
        self.enqueue(key, now);
    }

    /// The rhythm that something has.
    #[must_use]
    pub fn rhythm(&self, key: &K) -> Option<&Rhythm> {
        self.plans.get(key).map(|plan| &plan.rhythm)
    }

    /// Everything on the timetable.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.plans.keys()
    }

    /// Takes something off.
    pub fn remove(&mut self, key: &K) {
        self.unqueue(key);
        self.plans.remove(key);
    }

    /// There is a reason for what comes `now`: its turn is next, or when its window opens. Changes nothing for others.
    pub fn ask(&mut self, key: &K, now: UnixMillis) {
        if let Some(plan) = self.plans.get_mut(key) {
            plan.asked.get_or_insert(now);
            self.unqueue(key);
            self.enqueue(key, now);
        }
    }

    /// Takes what is due. What is taken counts as being carried out, and comes again after [`Timetable::ended`].
    pub fn take(&mut self, now: UnixMillis) -> Taken<K> {
        self.notice_set_back(now);
        let mut taken = Taken { turns: vec![], lapsed: vec![] };
        while self.queue.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.queue.pop_first() else { break };
            let Some(plan) = self.plans.get_mut(&key) else { continue };
            let Some(next) = plan.next.take() else { continue };
            match plan.turn(&key, next, now) {
                Some(turn) => {
                    plan.last = turn.planned;
                    plan.held = None;
                    if matches!(plan.rhythm, Rhythm::Once(_)) {
                        self.plans.remove(&key);
                    } else {
                        plan.asked = plan.asked.filter(|_| turn.cause != Cause::Asked);
                        self.busy.insert(key);
                    }
                    taken.turns.push(turn);
                }
                None => {
                    if plan.is_by_calendar() {
                        plan.last = plan.last.max(next.planned);
                        taken.lapsed.push((key.clone(), next.planned));
                    }
                    self.enqueue(&key, now);
                }
            }
        }
        taken
    }

    /// What was taken is done, well or not.
    pub fn ended(&mut self, key: &K, now: UnixMillis) {
        if self.busy.remove(key) {
            self.enqueue(key, now);
        }
    }

    /// What was taken could not be begun: it is taken again, not before `again`.
    pub fn put_back(&mut self, turn: &Turn<K>, again: UnixMillis, now: UnixMillis) {
        self.busy.remove(&turn.key);
        if !self.plans.contains_key(&turn.key) {
            // What comes once is off the timetable as soon as it is taken.
            self.set(&turn.key, Rhythm::Once(turn.planned), turn.before, now);
        }
        self.unqueue(&turn.key);
        if let Some(plan) = self.plans.get_mut(&turn.key) {
            plan.last = turn.before;
            plan.held = Some(again);
            if turn.cause == Cause::Asked {
                plan.asked.get_or_insert(turn.planned);
            }
            self.enqueue(&turn.key, now);
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<UnixMillis> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// When this is due next; none while it is being carried out, and where nothing is planned.
    #[must_use]
    pub fn next_of(&self, key: &K) -> Option<UnixMillis> {
        self.plans.get(key)?.next.map(|next| next.due)
    }

    fn enqueue(&mut self, key: &K, now: UnixMillis) {
        let Some(plan) = self.plans.get_mut(key).filter(|_| !self.busy.contains(key)) else { return };
        plan.next = plan.find_next(key, now);
        if let Some(next) = &mut plan.next {
            next.due = plan.held.map_or(next.due, |held| next.due.max(held));
            self.queue.insert((next.due, key.clone()));
        }
    }

    fn unqueue(&mut self, key: &K) {
        if let Some(next) = self.plans.get_mut(key).and_then(|plan| plan.next.take()) {
            self.queue.remove(&(next.due, key.clone()));
        }
    }

    /// Moments that follow from an earlier one would be too far away after a clock was set back.
    fn notice_set_back(&mut self, now: UnixMillis) {
        let back = self.latest.since(now);
        self.latest = self.latest.max(now);
        if back < late() {
            return;
        }
        self.latest = now;
        let wrong = back >= set_back();
        for key in self.plans.keys().cloned().collect::<Vec<_>>() {
            self.unqueue(&key);
            if let Some(plan) = self.plans.get_mut(&key) {
                plan.held = None;
                plan.asked = plan.asked.map(|asked| asked.min(now));
                if wrong || !plan.is_by_calendar() {
                    plan.last = plan.last.min(now);
                }
            }
            self.enqueue(&key, now);
        }
    }
}

impl Plan {
    fn find_next<K: Display>(&self, key: &K, now: UnixMillis) -> Option<Next> {
        let schedule = match &self.rhythm {
            Rhythm::Once(at) => return Some(Next { planned: *at, due: *at, cause: Cause::Planned }),
            Rhythm::Scheduled(schedule) | Rhythm::Retried(schedule) => schedule,
        };
        let id = key.to_string();
        if *schedule.start() != Start::Now {
            let next = schedule.upcoming(id.as_bytes(), self.last, now)?;
            let cause = if next.due.plus(late()) <= now { Cause::Missed } else { Cause::Planned };
            return Some(Next { planned: next.planned, due: next.due, cause });
        }
        let at = |from: UnixMillis, cause| {
            let planned = schedule.open_from(from.max(now))?;
            Some(Next { planned, due: schedule.occurrence(id.as_bytes(), planned).due, cause })
        };
        if let Some(asked) = self.asked {
            return at(asked, Cause::Asked);
        }
        let retried = matches!(self.rhythm, Rhythm::Retried(_));
        at(schedule.retry_after(self.last).filter(|_| retried)?, Cause::Again)
    }

    /// The turn that `next` has become by `now`; none where the window has closed since.
    fn turn<K: Clone + Display>(&self, key: &K, next: Next, now: UnixMillis) -> Option<Turn<K>> {
        let turn = |planned, cause, closes| Turn { key: key.clone(), planned, before: self.last, cause, closes };
        let schedule = match &self.rhythm {
            Rhythm::Once(at) => return Some(turn(*at, next.cause, None)),
            Rhythm::Scheduled(schedule) | Rhythm::Retried(schedule) => schedule,
        };
        let closes = schedule.open_time(now).map(|open| open.closes);
        if *schedule.start() == Start::Now {
            return schedule.is_open(now).then(|| turn(now, next.cause, closes));
        }
        let planned = schedule.missed(self.last, now)?;
        let was_late = next.due.plus(late()) <= now;
        Some(turn(planned, if was_late { Cause::Missed } else { next.cause }, closes))
    }

    fn is_by_calendar(&self) -> bool {
        match &self.rhythm {
            Rhythm::Scheduled(schedule) | Rhythm::Retried(schedule) => *schedule.start() != Start::Now,
            Rhythm::Once(_) => true,
        }
    }
}

/// From when on something that was due counts as missed.
fn late() -> Duration {
    Duration::from_secs(Limits::DEFAULT.schedule_late_seconds)
}

/// A clock that was set back by so much had been wrong before.
fn set_back() -> Duration {
    Duration::from_secs(Limits::DEFAULT.schedule_set_back_seconds)
}
