//! Proof of schedules: the grammar, the calendar, and a year against an independent computation.

mod calendar;
mod grammar;
mod timetable;
pub(crate) mod year;

use crate::id::UnixMillis;
use crate::schedule::Schedule;

pub(crate) fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// `2027-01-31T02:00Z`, or with another offset.
pub(crate) fn moment(text: &str) -> UnixMillis {
    let at: jiff::Timestamp = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    UnixMillis::from_millis(u64::try_from(at.as_millisecond()).unwrap())
}

/// As `moment` reads it, in universal time.
fn shown(at: UnixMillis) -> String {
    crate::schedule::Zone::utc().show(at).unwrap().replace(":00+00:00", "Z")
}
