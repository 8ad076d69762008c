//! What a Distributor does by schedules: it reads its declared fleet again, builds, looks at sources, fires Channels, and
//! ends firings whose window closes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::{BuildOutcome, NextFiring, Reading};
use crate::distributor::send::Fire;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::{Channel, Distribution};
use crate::name::Label;
use crate::node::{Alarm, Clock, Records, Scheduled, TurnId, kept};
use crate::protocol::{Cause, Outcome, Part, PartState, Until};
use crate::schedule::{self, Rhythm, Schedule, Start, Turn};

/// The codes of what an operator has to know about schedules.
pub(super) const REFRESH_FAILS: &str = "TED-1619";
const BUILD_FAILS: &str = "TED-1620";
const FIRING_FAILS: &str = "TED-1621";
const LAPSED: &str = "TED-1622";

/// One thing that is done by a schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// The declared fleet is read again.
    Refresh,
    /// The same where its schedule is `now`: every minute.
    Reread,
    /// A Distribution is built.
    Build(DistributionId),
    /// Its source is looked at every minute, because its own schedule or that of this Channel is `now`.
    Look(DistributionId, Option<Label>),
    /// A Channel fires.
    Send(Label),
    /// The window of a firing closes.
    Close(FiringId),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refresh => f.write_str("refresh"),
            Self::Reread => f.write_str("reread"),
            Self::Build(id) => write!(f, "build/{id}"),
            Self::Look(id, None) => write!(f, "look/{id}"),
            Self::Look(id, Some(channel)) => write!(f, "look/{id}/{channel}"),
            Self::Send(channel) => write!(f, "send/{channel}"),
            Self::Close(firing) => write!(f, "close/{firing}"),
        }
    }
}

/// What a Channel's last firing brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LastFired {
    #[serde(with = "crate::node::as_text")]
    firing: FiringId,
    /// Distributions, as hex, and which revision of each.
    revisions: BTreeMap<String, Revision>,
}

impl State {
    /// A Distribution has a new revision: Channels that send on every one have a reason to.
    pub(super) fn tell_new_revision(&self, distribution: &Distribution) {
        let fleet = lock(&self.fleet);
        let sends_now = |channel: &&Channel| {
            channel.distributions.contains(&distribution.name) && *channel.schedule.start() == Start::Now
        };
        for channel in fleet.channels().filter(sends_now) {
            self.schedules.ask(Task::Send(channel.name.clone()));
        }
    }

    /// Has the firings end whose windows close, and forgets what is known of Channels that are gone.
    pub(super) fn resume_schedules(&self) -> Result<(), Error> {
        self.end_orphaned_firings()?;
        for firing in lock(&self.firings).open() {
            if let Some(closes) = firing.closes() {
                self.schedules.once(Task::Close(firing.id()), closes);
            }
        }
        for key in self.records.keys(LAST_FIRED)? {
            let name = key.trim_start_matches(LAST_FIRED).parse::<Label>();
            if name.is_ok_and(|name| lock(&self.fleet).channel(&name).is_err()) {
                self.records.delete(&key)?;
            }
        }
        Ok(())
    }

    /// A firing began: its window is watched, and what it brings is not new to its Channel any more.
    pub(super) fn follow_firing(&self, id: FiringId) -> Result<(), Error> {
        let head = self.firing_head(&id)?;
        let mut revisions = BTreeMap::new();
        for part in self.parts_of_firing(&id)? {
            revisions.insert(part.distribution.to_string(), part.revision);
        }
        self.records.put(&last_fired_key(&head.channel), &LastFired { firing: id, revisions })?;
        if let Some(closes) = head.closes {
            self.schedules.once(Task::Close(id), closes);
        }
        Ok(())
    }

    fn last_fired(&self, channel: &Label) -> Result<Option<LastFired>, Error> {
        Ok(self.records.get(&last_fired_key(channel))?)
    }

    /// Whether a Channel has a revision that it has not sent yet.
    fn has_unsent(&self, channel: &Label) -> Result<bool, Error> {
        let last = self.last_fired(channel)?;
        let distributions = self.active_distributions(channel)?;
        for distribution in &distributions {
            let Some(newest) = self.newest(distribution)? else { continue };
            let sent = last.as_ref().and_then(|last| last.revisions.get(&distribution.id.to_string()));
            if sent != Some(&newest.revision) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a Subscriber that is reached lacks what a Channel's last firing brought, and that firing does not bring it any
    /// more. What an operator cancelled stays so until there is a new revision.
    fn is_lacked(&self, channel: &Label) -> Result<bool, Error> {
        let Some(last) = self.last_fired(channel)? else { return self.has_unsent(channel) };
        let Ok(head) = self.firing_head(&last.firing) else { return Ok(true) };
        if head.outcome() == Outcome::Cancelled {
            return Ok(false);
        }
        let (parts, is_over) = (self.parts_of_firing(&last.firing)?, head.is_over());
        let lacks = |key: &KeyHash, distribution: &Distribution| {
            let place =
                parts.binary_search_by_key(&(*key, distribution.id), |part| (part.subscriber, part.distribution));
            place.map_or(true, |place| !brings(&parts[place], head.until, is_over))
        };
        let distributions = self.active_distributions(channel)?;
        // Those behind a parent are connected as well.
        let connected = self.keys_of(channel)?.into_iter().filter(|key| self.is_reached(key));
        let mut pairs = connected.flat_map(|key| distributions.iter().map(move |distribution| (key, distribution)));
        Ok(pairs.any(|(key, distribution)| lacks(&key, distribution)))
    }

    /// When each Channel fires next.
    pub(super) fn next_firings(&self) -> Result<Vec<NextFiring>, Error> {
        let (now, channels) = (self.now(), lock(&self.fleet).channels().cloned().collect::<Vec<_>>());
        let next = |channel: Channel| {
            let task = Task::Send(channel.name.clone());
            let schedule = &channel.schedule;
            let last = kept(&self.records, &task)?.filter(|kept| kept.schedule == schedule.to_string());
            let last = last.map(|kept| kept.last);
            let at = match schedule.start() {
                _ if !channel.active => None,
                Start::Now => None,
                _ => schedule.upcoming(task.to_string().as_bytes(), last.unwrap_or(now), now).map(|next| next.due),
            };
            let opens = if *schedule.start() == Start::Now && channel.active { schedule.open_from(now) } else { None };
            Ok(NextFiring {
                channel: channel.name,
                schedule: schedule.to_string(),
                active: channel.active,
                last,
                at,
                opens: opens.filter(|opens| *opens > now),
            })
        };
        channels.into_iter().map(next).collect()
    }

    async fn send_by_schedule(self: &Arc<Self>, channel: &Label, turn: &Turn<Task>, id: FiringId) {
        let cause = match turn.cause {
            schedule::Cause::Planned => Cause::Schedule,
            schedule::Cause::Missed => Cause::Missed,
            schedule::Cause::Asked => Cause::NewRevision,
            schedule::Cause::Again => Cause::Retry,
        };
        let _one_at_a_time = self.sending(channel).await;
        let (state, of) = (self.clone(), channel.clone());
        let looking = move || match cause {
            Cause::NewRevision => state.has_unsent(&of),
            Cause::Retry => state.is_lacked(&of),
            _ => Ok(true),
        };
        let has_reason = tokio::task::spawn_blocking(looking).await.unwrap_or(Err(DistributorError::Worker.into()));
        let fired = match has_reason {
            Ok(false) => return,
            Ok(true) => {
                // What sends on every new revision has its sources looked at on their own.
                let build = matches!(cause, Cause::Schedule | Cause::Missed);
                self.fire(channel, Fire { id, cause, closes: turn.closes, build }).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match fired {
            Err(error) if !is_for_nobody(&error) => self.note_trouble(&turn.key, FIRING_FAILS, channel, &error),
            _ => self.end_trouble(&turn.key),
        }
    }

    async fn build_by_schedule(self: &Arc<Self>, task: &Task, id: &DistributionId) {
        let named = lock(&self.fleet).distribution_by_id(id).map(|distribution| distribution.name.clone());
        let Some(name) = named else { return };
        let built = self.build(&name, Reading::Changed).await;
        self.note_build(task, &name, &built);
    }

    /// Notes how a build went that nobody waits for.
    pub(super) fn note_build(&self, task: &Task, name: &Label, built: &Result<BuildOutcome, Error>) {
        match built {
            Ok(_) => self.end_trouble(task),
            Err(error) => self.note_trouble(task, BUILD_FAILS, name, error),
        }
    }

    /// Something that was to be done by itself went wrong. It is told when it is new, and an alarm until it goes well.
    pub(super) fn note_trouble(&self, task: &Task, code: &str, what: &impl fmt::Display, error: &Error) {
        let alarm = Alarm::new(code, format!("{what}: {}: {error}", error.code()));
        let before = lock(&self.schedule_troubles).insert(task.clone(), alarm.clone());
        if before.as_ref() != Some(&alarm) {
            let task = task.to_string();
            tracing::error!(task, code, reason = alarm.text, "what was scheduled went wrong");
            self.events.emit(DistributorEvent::ScheduleFailed { task, code: alarm.code, reason: alarm.text });
        }
    }

    pub(super) fn end_trouble(&self, task: &Task) {
        lock(&self.schedule_troubles).remove(task);
    }

    /// What went wrong the last time it was scheduled.
    pub(super) fn schedule_alarms(&self) -> Vec<Alarm> {
        lock(&self.schedule_troubles).values().cloned().collect()
    }
}

/// Whether a part is as it should be, or still comes to that by the firing that it belongs to.
fn brings(part: &Part, until: Until, is_over: bool) -> bool {
    let is_done = part.state.is_done(until) || matches!(part.state, PartState::Received | PartState::Verified);
    let has_failed = matches!(part.state, PartState::Corrupt | PartState::Failed | PartState::TimedOut);
    is_done || !(is_over || has_failed)
}

/// Whether a firing did not begin because there is nobody or nothing to send yet, which is nothing to worry about.
fn is_for_nobody(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<DistributorError>());
    matches!(
        cause,
        Some(
            DistributorError::NoSubscribers(_) | DistributorError::NoneEnrolled(_) | DistributorError::NothingActive(_)
        )
    )
}

impl Scheduled for State {
    type Task = Task;

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn declared(&self, each: &mut dyn FnMut(Task, Rhythm)) {
        if let Some(refresh) = &self.settings.refresh {
            match refresh.schedule.start() {
                Start::Never | Start::WithSend => {}
                Start::Now => each(refresh.task(), looks(&refresh.schedule)),
                _ => each(refresh.task(), Rhythm::Scheduled(refresh.schedule.clone())),
            }
        }
        let fleet = lock(&self.fleet);
        for distribution in fleet.distributions().filter(|distribution| distribution.active) {
            match distribution.build.start() {
                Start::Never | Start::WithSend => {}
                Start::Now => each(Task::Look(distribution.id, None), looks(&distribution.build)),
                _ => each(Task::Build(distribution.id), Rhythm::Scheduled(distribution.build.clone())),
            }
        }
        for channel in fleet.channels().filter(|channel| channel.active) {
            match channel.schedule.start() {
                Start::Never | Start::WithSend => {}
                Start::Now => {
                    each(Task::Send(channel.name.clone()), Rhythm::Retried(channel.schedule.clone()));
                    for distribution in fleet.distributions_of(&channel.name).into_iter().flatten() {
                        if distribution.active && *distribution.build.start() == Start::WithSend {
                            let look = Task::Look(distribution.id, Some(channel.name.clone()));
                            each(look, looks(&channel.schedule));
                        }
                    }
                }
                _ => each(Task::Send(channel.name.clone()), Rhythm::Scheduled(channel.schedule.clone())),
            }
        }
    }

    fn is_kept(&self, task: &Task) -> bool {
        matches!(task, Task::Refresh | Task::Build(_) | Task::Send(_))
    }

    fn turn_id(&self) -> Result<TurnId, Error> {
        self.random()
    }

    fn was_begun(&self, task: &Task, id: &TurnId) -> bool {
        let id = FiringId::from_bytes(*id);
        let is_there = matches!(task, Task::Send(_)) && self.firing_head(&id).is_ok();
        if is_there && let Err(error) = self.follow_firing(id) {
            tracing::error!(code = error.code(), %error, "it cannot be noted what a firing brought");
        }
        is_there
    }

    fn lapsed(&self, task: &Task, planned: UnixMillis) {
        let (task, at) = (task.to_string(), crate::security::clock_text(planned));
        tracing::warn!(task, at, code = LAPSED, "nobody could act at a planned time, and its window has closed");
        self.events.emit(DistributorEvent::Lapsed { task, planned, code: LAPSED.to_owned() });
    }

    async fn carry_out(self: Arc<Self>, turn: Turn<Task>, id: TurnId) {
        match &turn.key {
            Task::Refresh | Task::Reread => self.refresh_by_schedule(&turn.key).await,
            Task::Build(distribution) | Task::Look(distribution, _) => {
                self.build_by_schedule(&turn.key, distribution).await;
            }
            Task::Send(channel) => self.send_by_schedule(channel, &turn, FiringId::from_bytes(id)).await,
            Task::Close(firing) => {
                let ticket = self.change_firing(*firing, |firing, now| {
                    firing.close(now);
                    firing.is_over()
                });
                if let Err(error) = self.durable(ticket).await {
                    tracing::error!(code = error.code(), %error, "it cannot be kept that a firing's window has closed");
                }
            }
        }
    }
}

/// Every minute, within the window of a schedule that is `now`; at another moment of it for each, so that not all sources
/// are read at once.
fn looks(schedule: &Schedule) -> Rhythm {
    let period = Duration::from_secs(Limits::DEFAULT.schedule_look_seconds);
    Rhythm::Scheduled(schedule.every_within(period, period / 2))
}

const LAST_FIRED: &str = "last-fired/";

fn last_fired_key(channel: &Label) -> String {
    format!("{LAST_FIRED}{channel}")
}
