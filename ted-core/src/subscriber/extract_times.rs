//! When verified revisions are extracted: at once, within a window, by the calendar, or by hand alone.
//!
//! The schedule is the node's own, or what its Distributor set at it. Receiving goes on whatever it says.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{FiringId, KeyHash, Revision, UnixMillis};
use crate::name::NodeName;
use crate::node::{Clock, Records, Scheduled, TurnId, kept};
use crate::schedule::{Rhythm, Schedule, Start, Turn};
use crate::subscriber::deliveries::Job;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::{Extracted, Held};
use crate::subscriber::state::{Key, State};

/// Extracting what came from one Distributor. Named after the node too, so that the same schedule has another jitter at
/// each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExtractTask {
    fleet: KeyHash,
    node: NodeName,
}

impl fmt::Display for ExtractTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "extract/{}/{}", self.fleet, self.node)
    }
}

/// When a verified revision is extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtractTime {
    /// At once.
    Now,
    /// At this time.
    At(UnixMillis),
    /// Not by itself: an operator does it.
    ByHand,
}

/// By what right an extraction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// As the schedule lets it.
    AsScheduled,
    /// The schedule has its turn now, until its window closes.
    Due { closes: Option<UnixMillis> },
    /// It was begun before, and is finished whatever time it is.
    Anyway,
}

impl State {
    /// The schedule that revisions of a Distributor are extracted by.
    pub(super) fn extract_schedule(&self, fleet: &KeyHash) -> Schedule {
        let own = self.settings.own.extract_schedule();
        own.or_else(|| self.settings_from(fleet).extract_schedule()).unwrap_or_else(Schedule::now)
    }

    /// When a revision that is verified now is extracted.
    pub(super) fn extract_time(&self, fleet: &KeyHash) -> ExtractTime {
        let (schedule, now) = (self.extract_schedule(fleet), self.clock.now());
        let at = match schedule.start() {
            Start::Now if schedule.is_open(now) => return ExtractTime::Now,
            Start::Now => schedule.open_from(now),
            _ => {
                let task = self.extract_task(fleet);
                let last =
                    kept(&self.records, &task).ok().flatten().filter(|kept| kept.schedule == schedule.to_string());
                let last = last.map_or(now, |kept| kept.last);
                schedule.upcoming(task.to_string().as_bytes(), last, now).map(|next| next.due)
            }
        };
        at.map_or(ExtractTime::ByHand, ExtractTime::At)
    }

    /// Whether an extraction may begin now. Where it may not, that it waits is noted and told.
    pub(super) fn may_extract(&self, key: Key, revision: Revision, begins: Begins) -> bool {
        // Something else extracted it between the look at what is due and now.
        if matches!(begins, Begins::Due { .. })
            && let Ok(Some(extracted)) = self.extracted(&key.0, &key.1)
            && extracted.revision == revision
        {
            return false;
        }
        let is_open = match begins {
            Begins::Anyway => true,
            Begins::Due { closes } => closes.is_none_or(|closes| self.clock.now() < closes),
            Begins::AsScheduled => false,
        };
        let time = self.extract_time(&key.0);
        if is_open || time == ExtractTime::Now {
            self.note(key, |standing| standing.waits = None);
            return true;
        }
        let mut is_new = false;
        self.note(key, |standing| {
            is_new = standing.waits != Some(time);
            standing.waits = Some(time);
        });
        // A window that is waited for is asked for; the calendar comes by itself.
        self.schedules.ask(self.extract_task(&key.0));
        if is_new {
            let distribution = self.known_label(&key.0, &key.1);
            let until = match time {
                ExtractTime::At(at) => Some(at),
                _ => None,
            };
            tracing::info!(%distribution, %revision, until = until.map(crate::security::clock_text), "verified, and waits to be extracted");
            self.events.emit(SubscriberEvent::ExtractionWaits { distribution, revision, until });
        }
        false
    }

    /// When what is here and not extracted comes to that, where it waits.
    pub(super) fn waits(&self, key: &Key, held: Option<&Held>, extracted: Option<&Extracted>) -> Option<ExtractTime> {
        let is_done = extracted.map(|extracted| extracted.revision) == Some(held?.revision);
        (!is_done).then(|| self.extract_time(&key.0)).filter(|time| *time != ExtractTime::Now)
    }

    fn extract_task(&self, fleet: &KeyHash) -> ExtractTask {
        ExtractTask { fleet: *fleet, node: self.name() }
    }

    /// What of a Distributor is verified and not extracted.
    fn unextracted(&self, fleet: &KeyHash) -> Result<Vec<(Key, Held, Option<FiringId>)>, Error> {
        let mut waiting = vec![];
        for (key, noted) in self.all_held()?.into_iter().filter(|((of, _), _)| of == fleet) {
            // What is set aside is not here.
            let Some(held) = self.held(&key.0, &key.1)?.filter(|held| held.revision == noted.revision) else {
                continue;
            };
            let extracted = self.extracted(&key.0, &key.1)?;
            if extracted.is_none_or(|extracted| extracted.revision != held.revision) {
                let firing = self.last_firing(&key)?;
                waiting.push((key, held, firing));
            }
        }
        Ok(waiting)
    }
}

impl Scheduled for State {
    type Task = ExtractTask;

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn declared(&self, each: &mut dyn FnMut(ExtractTask, Rhythm)) {
        // Nothing waits for a Distributor that is not trusted any more.
        for root in self.trusted_roots().unwrap_or_default() {
            let fleet = root.key_hash();
            each(self.extract_task(&fleet), Rhythm::Scheduled(self.extract_schedule(&fleet)));
        }
    }

    fn is_kept(&self, _: &ExtractTask) -> bool {
        true
    }

    fn turn_id(&self) -> Result<TurnId, Error> {
        let mut turn_id = [0; 16];
        self.crypto.fill_random(&mut turn_id)?;
        Ok(turn_id)
    }

    fn was_begun(&self, _: &ExtractTask, _: &TurnId) -> bool {
        // What was extracted before the crash is not extracted again by another turn.
        false
    }

    fn lapsed(&self, task: &ExtractTask, planned: UnixMillis) {
        let distributor = self.distributor_name(&task.fleet);
        let planned = crate::security::clock_text(planned);
        tracing::warn!(%distributor, planned, "an extraction was planned while nobody could do it, and its window has closed");
    }

    async fn carry_out(self: Arc<Self>, turn: Turn<ExtractTask>, _: TurnId) {
        let (state, fleet) = (self.clone(), turn.key.fleet);
        let waiting = tokio::task::spawn_blocking(move || state.unextracted(&fleet)).await;
        match waiting {
            Ok(Ok(waiting)) => {
                for ((fleet, distribution), held, firing) in waiting {
                    let begins = Begins::Due { closes: turn.closes };
                    self.start_job(Job::Extract { fleet, distribution, firing, revision: held.revision, begins });
                }
            }
            Ok(Err(error)) => {
                tracing::error!(code = error.code(), %error, "what is to be extracted cannot be looked up");
            }
            Err(_) => tracing::error!("a worker thread failed while it looked up what is to be extracted"),
        }
    }
}
