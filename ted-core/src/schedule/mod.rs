//! Schedules: how they are written, and which moments they mean.
//!
//! A [`Schedule`] says when something begins (`never`, `now`, `with send`, `at`, `every`, `cron`), within which window
//! (` between A and B`, ` on mon,tue`), in which time zone and with which jitter. `docs/schedules.md` explains them to
//! operators. Nothing here has a clock: the time comes in as a value, and the same question has the same answer on every
//! machine, since the zone data is built in.
//!
//! A [`RatePlan`] says how many bytes may go within a second, by the same windows.
//!
//! Two moments belong to an occurrence: the one that is *planned*, which is also what it is known by, and the one when it
//! is *due*, which jitter puts later. Whoever fires by a schedule keeps the planned moment of the last firing.

mod calendar;
mod cron;
mod error;
mod grammar;
mod rate;
mod timetable;
mod window;
mod zone;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use calendar::Occurrence;
pub use cron::Cron;
pub use error::{Problem, ScheduleError};
pub use rate::{RateError, RatePlan, RateProblem};
pub use timetable::{Cause, Rhythm, Taken, Timetable, Turn};
pub use window::{OpenTime, TimeOfDay, Weekdays};
pub use zone::Zone;

use window::Window;
use zone::LocalTime;

/// When something is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    start: Start,
    window: Window,
    zone: Option<Zone>,
    jitter: Option<Duration>,
}

/// What a schedule begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Not by itself.
    Never,
    /// On every new revision, and after a while again where a Subscriber lacks it.
    Now,
    /// Whenever a Channel that has the Distribution fires.
    WithSend,
    /// Once, when local clocks show this.
    At(LocalMinute),
    /// Again and again after this time, counted from 1970-01-01T00:00:00Z.
    Every(Duration),
    /// Whenever local clocks show what the pattern says.
    Cron(Box<Cron>),
}

/// A date and a time of day, as local clocks show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalMinute(LocalTime);

/// What a schedule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading a declared fleet again.
    Refresh,
    /// Building a Distribution.
    Build,
    /// Sending a Channel.
    Send,
    /// Extracting at a Subscriber.
    Extract,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refresh => "refresh",
            Self::Build => "build",
            Self::Send => "send",
            Self::Extract => "extract",
        })
    }
}

impl Schedule {
    /// `never`.
    #[must_use]
    pub fn never() -> Self {
        Self::plain(Start::Never)
    }

    /// `now`.
    #[must_use]
    pub fn now() -> Self {
        Self::plain(Start::Now)
    }

    /// `with send`.
    #[must_use]
    pub fn with_send() -> Self {
        Self::plain(Start::WithSend)
    }

    fn plain(start: Start) -> Self {
        Self { start, window: Window::ALWAYS, zone: None, jitter: None }
    }

    /// Whether the purpose has schedules of this kind: only builds go `with send`.
    #[must_use]
    pub fn fits(&self, purpose: Purpose) -> bool {
        self.start != Start::WithSend || purpose == Purpose::Build
    }

    /// What it begins with.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The zone that its times are in: universal time where it names none.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone.clone().unwrap_or_else(Zone::utc)
    }

    /// The most by which an occurrence is put off.
    #[must_use]
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter
    }

    /// A schedule that comes again and again after `period`, put off by up to `jitter`, within the same window.
    #[must_use]
    pub fn every_within(&self, period: Duration, jitter: Duration) -> Self {
        Self { start: Start::Every(period), jitter: Some(jitter), ..self.clone() }
    }

    /// Whether it has no window, so that it may act at any time.
    #[must_use]
    pub fn is_always_open(&self) -> bool {
        self.window.is_always()
    }
}

impl TryFrom<String> for Schedule {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}
