//! Which moments a schedule means: occurrences, windows, what was missed, and jitter.

use std::time::Duration;

use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::schedule::window::OpenTime;
use crate::schedule::zone::{LocalTime, Zone};
use crate::schedule::{Cron, Schedule, Start};

/// One time that a schedule fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// When the calendar has it. It is known by this.
    pub planned: UnixMillis,
    /// When it is to be carried out: the same, or up to the jitter later. At once, where that has passed.
    pub due: UnixMillis,
}

impl Schedule {
    /// Whether the window is open at `at`.
    #[must_use]
    pub fn is_open(&self, at: UnixMillis) -> bool {
        self.window.is_always() || self.open_time(at).is_some()
    }

    /// The time that the window is open around `at`; none where it is closed then, or there is no window.
    #[must_use]
    pub fn open_time(&self, at: UnixMillis) -> Option<OpenTime> {
        self.window.around(self.zone_ref(), at)
    }

    /// The next time that the window opens after `at`; none where there is no window.
    #[must_use]
    pub fn next_open_time(&self, at: UnixMillis) -> Option<OpenTime> {
        self.window.next(self.zone_ref(), at)
    }

    /// The first moment from `at` on at which the window is open. None beyond the year 9999.
    #[must_use]
    pub fn open_from(&self, at: UnixMillis) -> Option<UnixMillis> {
        if self.is_open(at) { Some(at) } else { self.next_open_time(at).map(|open| open.opens) }
    }

    /// The next occurrence that is planned after `at`. None where the calendar has no more: `at` that has passed, and
    /// `never`, `now` and `with send`, which follow other things than the calendar.
    #[must_use]
    pub fn next_after(&self, at: UnixMillis) -> Option<UnixMillis> {
        match &self.start {
            Start::Never | Start::Now | Start::WithSend => None,
            Start::At(time) => {
                self.zone_ref().first_at(time.0).filter(|planned| *planned > at && self.is_open(*planned))
            }
            Start::Every(period) => {
                // One that the closed window holds back may still be to come.
                let held = self.open_from(multiple_before(*period, at))?;
                if held > at { Some(held) } else { self.open_from(multiple_before(*period, at).plus(*period)) }
            }
            Start::Cron(cron) => self.next_of_cron(cron, at),
        }
    }

    /// What was missed between the planned moment of the last firing and `now`, if it is to be made up for: the last such
    /// occurrence, unless its window has closed since. Where nothing ever fired, `last` is when the schedule was set.
    #[must_use]
    pub fn missed(&self, last: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
        let planned = self.latest_until(now).filter(|planned| *planned > last)?;
        if self.window.is_always() {
            return Some(planned);
        }
        self.open_time(now).filter(|open| open.contains(planned)).map(|_| planned)
    }

    /// What fires next, after a start at `now`: what was missed and is made up for, else the next occurrence. `id` names
    /// the schedule, for its jitter.
    #[must_use]
    pub fn upcoming(&self, id: &[u8], last: UnixMillis, now: UnixMillis) -> Option<Occurrence> {
        let planned = self.missed(last, now).or_else(|| self.next_after(last.max(now)))?;
        Some(self.occurrence(id, planned))
    }

    /// When `now` fires again after a firing at `last` that left a Subscriber without the revision. None for the others.
    #[must_use]
    pub fn retry_after(&self, last: UnixMillis) -> Option<UnixMillis> {
        let pause = Duration::from_secs(Limits::DEFAULT.schedule_retry_seconds);
        if self.start == Start::Now { self.open_from(last.plus(pause)) } else { None }
    }

    /// The occurrence that is planned for `planned`, with the jitter that the schedule named `id` has for it: always the
    /// same, spread evenly over occurrences and schedules, and never beyond the window's end.
    #[must_use]
    pub fn occurrence(&self, id: &[u8], planned: UnixMillis) -> Occurrence {
        let jitter = self.jitter.unwrap_or_default();
        let room = self.open_time(planned).map_or(jitter, |open| open.closes.since(planned).min(jitter));
        let room_millis = u64::try_from(room.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut hasher = blake3::Hasher::new_derive_key("TED 2026 jitter of schedules");
        hasher.update(&planned.millis().to_le_bytes()).update(id);
        let mut drawn = [0; 8];
        hasher.finalize_xof().fill(&mut drawn);
        let delay = Duration::from_millis(u64::from_le_bytes(drawn) % room_millis);
        Occurrence { planned, due: planned.plus(delay) }
    }

    /// Whether it should come by the calendar and never does.
    pub(super) fn is_impossible(&self) -> bool {
        // Any day does: cron patterns come again within the longest search, and windows every week.
        let begin = LocalTime::of_date(2024, 1, 1, 0).and_then(|local| self.zone_ref().first_at(local));
        match &self.start {
            Start::Never | Start::Now | Start::WithSend | Start::Every(_) => false,
            Start::At(_) => self.next_after(UnixMillis::from_millis(0)).is_none(),
            Start::Cron(_) => begin.and_then(|begin| self.next_after(begin)).is_none(),
        }
    }

    fn next_of_cron(&self, cron: &Cron, at: UnixMillis) -> Option<UnixMillis> {
        let zone = self.zone_ref();
        // What clocks have shown already came at `at` or before.
        let mut from = zone.local(at)?.next_minute();
        let last = from.day() + search_days();
        loop {
            let local = cron.first_from(from, last - from.day())?;
            let planned = zone.first_at(local)?;
            from = local.next_minute();
            if planned <= at {
                continue;
            }
            if self.is_open(planned) {
                return Some(planned);
            }
            // The minute before it opens, since a clock that skips may show nothing of the window's first minutes.
            let opens = self.next_open_time(planned)?.opens;
            from = from.max(zone.local(UnixMillis::from_millis(opens.millis().saturating_sub(1)))?.whole_minute());
        }
    }

    /// The latest occurrence that is planned for `now` or before. Where the window is closed now, what came before may
    /// be left out.
    fn latest_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        let zone = self.zone_ref();
        match &self.start {
            Start::Never | Start::Now | Start::WithSend => None,
            Start::At(time) => zone.first_at(time.0).filter(|planned| *planned <= now),
            Start::Every(period) => self.open_from(multiple_before(*period, now)).filter(|planned| *planned <= now),
            Start::Cron(cron) => {
                // A clock that was set back has shown later times than it shows.
                let shown = zone.local(now)?;
                let latest = LocalTime::of_day(shown.day() + 1, shown.minute());
                let mut moments = cron.backwards(latest, search_days()).map_while(|local| zone.first_at(local));
                moments.find(|planned| *planned <= now).filter(|planned| self.is_open(*planned))
            }
        }
    }

    fn zone_ref(&self) -> &Zone {
        static UTC: std::sync::OnceLock<Zone> = std::sync::OnceLock::new();
        self.zone.as_ref().unwrap_or_else(|| UTC.get_or_init(Zone::utc))
    }
}

/// The last multiple of `period` since 1970 that is not after `at`.
fn multiple_before(period: Duration, at: UnixMillis) -> UnixMillis {
    let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
    UnixMillis::from_millis(at.millis() / period * period)
}

fn search_days() -> i64 {
    i64::from(Limits::DEFAULT.schedule_days_max)
}
