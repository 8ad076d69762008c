//! The driver of schedules: one task that sleeps until something is due, notes durably that it comes, and starts it.
//!
//! What comes when is the timetable's matter; here are the clock, the catalog and the tasks. It looks at the clock again
//! after half a minute at the latest, so that one that was set is noticed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Coded as _, Error};
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::node::records::RecordError;
use crate::node::{Clock, RecordBatch, Records};
use crate::schedule::{Rhythm, Schedule, Start, Timetable, Turn};

/// What something that was begun is known by, before there is anything of it.
pub(crate) type TurnId = [u8; 16];

/// What a node does by schedules.
pub(crate) trait Scheduled: Send + Sync + 'static {
    /// One thing that is done by a schedule, written out as what it is and of what.
    type Task: Clone + Ord + Display + Send + Sync + 'static;

    /// The clock that schedules follow.
    fn clock(&self) -> &dyn Clock;

    /// Where planned moments are kept.
    fn records(&self) -> &Records;

    /// Names everything that is declared now, with its rhythm.
    fn declared(&self, each: &mut dyn FnMut(Self::Task, Rhythm));

    /// Whether a restart may neither repeat nor forget what was planned. Otherwise it begins anew with every start.
    fn is_kept(&self, task: &Self::Task) -> bool;

    /// A new id for a turn.
    fn turn_id(&self) -> Result<TurnId, Error>;

    /// Whether what was begun under this id got so far before a crash that it is not to be begun again.
    fn was_begun(&self, task: &Self::Task, turn_id: &TurnId) -> bool;

    /// It was overtaken, and the window that it was planned in has closed.
    fn lapsed(&self, task: &Self::Task, planned: UnixMillis);

    /// Does it. That it comes is durable.
    fn carry_out(self: Arc<Self>, turn: Turn<Self::Task>, turn_id: TurnId) -> impl Future<Output = ()> + Send;
}

/// The way to the driver for everything else in a node.
#[derive(Debug)]
pub(crate) struct Schedules<T> {
    orders: Mutex<Vec<Order<T>>>,
    wake: Notify,
}

#[derive(Debug)]
enum Order<T> {
    /// What is declared may have changed.
    Declared,
    /// There is a reason for what comes `now`.
    Ask(T),
    /// Once, at this moment.
    Once(T, UnixMillis),
}

/// What is kept of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The schedule that it is about; with another one, counting begins anew.
    pub(crate) schedule: String,
    /// The planned moment of the last turn, or when the schedule was set.
    pub(crate) last: UnixMillis,
    /// The turn that was begun last and has not ended yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begun: Option<Begun>,
}

/// A turn that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    turn_id: TurnId,
    /// The planned moment of the turn before.
    before: UnixMillis,
}

const PREFIX: &str = "schedule/";

impl<T> Default for Schedules<T> {
    fn default() -> Self {
        Self { orders: Mutex::default(), wake: Notify::new() }
    }
}

impl<T: Clone + Ord + Display + Send + Sync + 'static> Schedules<T> {
    /// What is declared may have changed.
    pub(crate) fn declared(&self) {
        self.order(Order::Declared);
    }

    /// There is a reason for what comes `now`.
    pub(crate) fn ask(&self, task: T) {
        self.order(Order::Ask(task));
    }

    /// This is to be done once, at that moment.
    pub(crate) fn once(&self, task: T, at: UnixMillis) {
        self.order(Order::Once(task, at));
    }

    fn order(&self, order: Order<T>) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.wake.notify_one();
    }

    fn take_orders(&self) -> Vec<Order<T>> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does what is due until `stop` comes. What it starts belongs to `tasks`.
    pub(crate) async fn drive<S: Scheduled<Task = T>>(
        &self,
        node: Arc<S>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        let mut driver = Driver { node, timetable: Timetable::default(), known: None, turn_ids: HashMap::new() };
        self.declared();
        let (ended, mut ends) = mpsc::unbounded_channel::<(T, TurnId)>();
        loop {
            let orders = self.take_orders();
            if !orders.is_empty() {
                driver.follow(orders).await;
            }
            for (turn, turn_id) in driver.begin().await {
                let (node, stop, ended) = (driver.node.clone(), stop.clone(), ended.clone());
                tasks.spawn(async move {
                    let task = turn.key.clone();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        // The driver is gone when it has been stopped.
                        () = node.carry_out(turn, turn_id) => { let _ = ended.send((task, turn_id)); }
                    }
                });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(first) = ends.recv() => {
                    let mut all = vec![first];
                    while let Ok(more) = ends.try_recv() {
                        all.push(more);
                    }
                    driver.end(all).await;
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep(driver.pause()) => {}
            }
        }
    }
}

struct Driver<S: Scheduled> {
    node: Arc<S>,
    timetable: Timetable<S::Task>,
    /// What was kept when this began, until it was looked at.
    known: Option<HashMap<String, Kept>>,
    /// What is being carried out, by what it was begun as.
    turn_ids: HashMap<TurnId, Kept>,
}

impl<S: Scheduled> Driver<S> {
    fn now(&self) -> UnixMillis {
        self.node.clock().now()
    }

    /// How long nothing is due, as far as the clock is right.
    fn pause(&self) -> Duration {
        let idle = Duration::from_secs(Limits::DEFAULT.schedule_idle_seconds);
        self.timetable.next_wakeup().map_or(idle, |at| at.since(self.now()).min(idle))
    }

    async fn follow(&mut self, orders: Vec<Order<S::Task>>) {
        if orders.iter().any(|order| matches!(order, Order::Declared)) {
            self.declare().await;
        }
        let now = self.now();
        for order in orders {
            match order {
                Order::Declared => {}
                Order::Ask(task) => self.timetable.ask(&task, now),
                Order::Once(task, at) => self.timetable.set(&task, Rhythm::Once(at), now, now),
            }
        }
    }

    /// Brings the timetable to what is declared. Only what is new there costs more than a comparison.
    async fn declare(&mut self) {
        let now = self.now();
        let (mut there, mut new) = (BTreeSet::new(), vec![]);
        self.node.declared(&mut |task, rhythm| {
            if self.timetable.rhythm(&task) != Some(&rhythm) {
                new.push((task.clone(), rhythm));
            }
            there.insert(task);
        });
        let is_declared = |task: &S::Task| !matches!(self.timetable.rhythm(task), Some(Rhythm::Once(_)) | None);
        let gone: Vec<_> =
            self.timetable.keys().filter(|task| is_declared(task) && !there.contains(*task)).cloned().collect();
        let known = match self.known.take() {
            Some(known) => known,
            None => self.load(&there).await,
        };
        let mut batch = RecordBatch::default();
        for task in &gone {
            self.timetable.remove(task);
            batch = batch.delete(&record_key(task));
        }
        for (task, rhythm) in new {
            let mut last = now;
            if let (true, Some(schedule)) = (self.node.is_kept(&task), schedule_of(&rhythm)) {
                let schedule = schedule.to_string();
                match known.get(&task.to_string()).filter(|kept| kept.schedule == schedule) {
                    Some(kept) => last = self.resume(&task, kept),
                    None => match batch.put(&record_key(&task), &Kept { schedule, last, begun: None }) {
                        Ok(more) => batch = more,
                        Err(error) => return tell(&error),
                    },
                }
            }
            let comes_now = schedule_of(&rhythm).is_some_and(|schedule| *schedule.start() == Start::Now);
            self.timetable.set(&task, rhythm, last, now);
            if comes_now {
                // There may have been a reason while nobody looked.
                self.timetable.ask(&task, now);
            }
        }
        self.known = Some(HashMap::new());
        if let Err(error) = self.apply(batch).await {
            // What was missed is counted from the next change then.
            tell(&error);
        }
    }

    /// What was kept when the node stopped. What nobody declares any more is forgotten.
    async fn load(&self, there: &BTreeSet<S::Task>) -> HashMap<String, Kept> {
        let records = self.node.records().clone();
        let loading = tokio::task::spawn_blocking(move || records.list::<Kept>(PREFIX));
        let rows = loading.await.unwrap_or(Err(RecordError::Worker)).unwrap_or_else(|error| {
            tell(&error);
            vec![]
        });
        let mut known: HashMap<String, Kept> =
            rows.into_iter().filter_map(|(key, kept)| Some((key.strip_prefix(PREFIX)?.to_owned(), kept))).collect();
        let there: HashSet<String> = there.iter().map(ToString::to_string).collect();
        let mut batch = RecordBatch::default();
        for key in known.keys().filter(|key| !there.contains(*key)) {
            batch = batch.delete(&format!("{PREFIX}{key}"));
        }
        known.retain(|key, _| there.contains(key));
        if let Err(error) = self.apply(batch).await {
            tell(&error);
        }
        known
    }

    /// The planned moment of the last turn that came about.
    fn resume(&self, task: &S::Task, kept: &Kept) -> UnixMillis {
        match &kept.begun {
            Some(begun) if !self.node.was_begun(task, &begun.turn_id) => begun.before,
            _ => kept.last,
        }
    }

    /// Takes what is due, and makes durable that it comes before anything of it is begun.
    async fn begin(&mut self) -> Vec<(Turn<S::Task>, TurnId)> {
        let now = self.now();
        let taken = self.timetable.take(now);
        for (task, planned) in &taken.lapsed {
            self.node.lapsed(task, *planned);
        }
        if taken.turns.is_empty() {
            return vec![];
        }
        match self.note(&taken.turns).await {
            Ok(begun) => taken.turns.into_iter().zip(begun).collect(),
            Err(error) => {
                tracing::error!(code = error.code(), %error, "what is due cannot be begun, and waits");
                let again = now.plus(Duration::from_secs(Limits::DEFAULT.schedule_idle_seconds));
                for turn in &taken.turns {
                    self.timetable.put_back(turn, again, now);
                }
                vec![]
            }
        }
    }

    async fn note(&mut self, turns: &[Turn<S::Task>]) -> Result<Vec<TurnId>, Error> {
        let (mut batch, mut turn_ids, mut notes) = (RecordBatch::default(), vec![], vec![]);
        for turn in turns {
            let turn_id = self.node.turn_id()?;
            turn_ids.push(turn_id);
            let rhythm = self.timetable.rhythm(&turn.key).filter(|_| self.node.is_kept(&turn.key));
            let Some(schedule) = rhythm.and_then(schedule_of) else { continue };
            let begun = Some(Begun { turn_id, before: turn.before });
            let kept = Kept { schedule: schedule.to_string(), last: turn.planned, begun };
            batch = batch.put(&record_key(&turn.key), &kept)?;
            notes.push((turn_id, kept));
        }
        self.apply(batch).await?;
        self.turn_ids.extend(notes);
        Ok(turn_ids)
    }

    /// What was begun has ended: a restart need not ask about it any more.
    async fn end(&mut self, ended: Vec<(S::Task, TurnId)>) {
        let now = self.now();
        let mut batch = RecordBatch::default();
        for (task, turn_id) in ended {
            self.timetable.ended(&task, now);
            let Some(kept) = self.turn_ids.remove(&turn_id) else { continue };
            // It may have another schedule by now, or none.
            let schedule = self.timetable.rhythm(&task).and_then(schedule_of).map(ToString::to_string);
            if schedule.as_deref() == Some(&kept.schedule) {
                match batch.put(&record_key(&task), &Kept { begun: None, ..kept }) {
                    Ok(more) => batch = more,
                    Err(error) => return tell(&error),
                }
            }
        }
        if let Err(error) = self.apply(batch).await {
            tell(&error);
        }
    }

    async fn apply(&self, batch: RecordBatch) -> Result<(), RecordError> {
        if batch.is_empty() {
            return Ok(());
        }
        let records = self.node.records().clone();
        // A worker that failed has written nothing, and what was not noted is not begun.
        tokio::task::spawn_blocking(move || records.apply(batch)).await.unwrap_or(Err(RecordError::Worker))
    }
}

/// What is kept of something that is done by a schedule.
pub(crate) fn kept(records: &Records, task: &impl Display) -> Result<Option<Kept>, RecordError> {
    records.get(&record_key(task))
}

fn record_key(task: &impl Display) -> String {
    format!("{PREFIX}{task}")
}

fn schedule_of(rhythm: &Rhythm) -> Option<&Schedule> {
    match rhythm {
        Rhythm::Scheduled(schedule) | Rhythm::Retried(schedule) => Some(schedule),
        Rhythm::Once(_) => None,
    }
}

fn tell(error: &RecordError) {
    tracing::error!(code = error.code(), %error, "what is planned cannot be kept");
}

#[cfg(test)]
mod tests;
