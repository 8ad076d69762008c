//! Windows: the times of day and the weekdays within which a schedule acts.

use std::fmt;

use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::schedule::zone::{LocalTime, Zone};

/// A time of day, to the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

/// Some of the seven weekdays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays(u8);

/// When a schedule may act. Between two times of day, on some weekdays, both, or always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// From the first time to the second, over midnight where the second is not the later one.
    pub(super) between: Option<(TimeOfDay, TimeOfDay)>,
    /// The days on which it opens.
    pub(super) on: Weekdays,
}

/// One time that a window is open: from `opens` up to, and without, `closes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTime {
    /// Its first moment.
    pub opens: UnixMillis,
    /// The first moment after it.
    pub closes: UnixMillis,
}

impl OpenTime {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: UnixMillis) -> bool {
        self.opens <= at && at < self.closes
    }
}

impl Window {
    pub(super) const ALWAYS: Self = Self { between: None, on: Weekdays::ALL };

    pub(super) fn is_always(&self) -> bool {
        *self == Self::ALWAYS
    }

    /// The time that the window is open around `at`. None where it is closed then, or is always open.
    pub(super) fn around(&self, zone: &Zone, at: UnixMillis) -> Option<OpenTime> {
        if self.is_always() {
            return None;
        }
        let today = zone.local(at)?.day();
        // Yesterday's may go over midnight, and a clock that was set back shows yesterday after it opened today's.
        let mut days = today - 1..=today + 1;
        days.find_map(|day| Some((day, self.of_day(zone, day)?)).filter(|(_, open)| open.contains(at)))
            .and_then(|(day, open)| self.joined(zone, day, open))
    }

    /// The next time that the window opens, after `at`. None where it is always open.
    pub(super) fn next(&self, zone: &Zone, at: UnixMillis) -> Option<OpenTime> {
        if self.is_always() {
            return None;
        }
        let today = zone.local(at)?.day();
        for day in today - 1..=today + i64::from(Limits::DEFAULT.schedule_days_max) {
            let Some(open) = self.of_day(zone, day).filter(|open| open.opens > at && open.opens < open.closes) else {
                continue;
            };
            let before = UnixMillis::from_millis(open.opens.millis().saturating_sub(1));
            // Where it was open just before, it goes on and does not open.
            if before < at || self.around(zone, before).is_none() {
                return self.joined(zone, day, open);
            }
        }
        None
    }

    /// The time that belongs to a local day; an empty one where clocks skip all of it.
    fn of_day(&self, zone: &Zone, day: i64) -> Option<OpenTime> {
        if !self.on.contains(day) {
            return None;
        }
        let (from, until, last) = match self.between {
            None => (0, 0, day + 1),
            Some((TimeOfDay(from), TimeOfDay(until))) => (from, until, day + i64::from(until <= from)),
        };
        let opens = zone.first_at(LocalTime::of_day(day, from))?;
        Some(OpenTime { opens, closes: zone.first_at(LocalTime::of_day(last, until))? })
    }

    /// `open` with the times before and after it that follow each other without a break.
    fn joined(&self, zone: &Zone, day: i64, mut open: OpenTime) -> Option<OpenTime> {
        // Both end: a window that is not always open leaves out a weekday, or a part of every day.
        for earlier in (0..day).rev().map_while(|day| self.of_day(zone, day)) {
            if earlier.closes < open.opens {
                break;
            }
            open.opens = open.opens.min(earlier.opens);
        }
        for later in (day + 1..).map_while(|day| self.of_day(zone, day)) {
            if later.opens > open.closes {
                break;
            }
            open.closes = open.closes.max(later.closes);
        }
        Some(open)
    }
}

impl TimeOfDay {
    /// Reads `22:00`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let two_digits = |text: &str| -> Option<u16> {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
        (hour < 24 && minute < 60).then_some(Self(hour * 60 + minute))
    }

    /// Minutes since midnight.
    #[must_use]
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// The names of the weekdays, Monday first.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Weekdays {
    /// Every day.
    pub const ALL: Self = Self(0b111_1111);

    /// Reads `mon,tue`. The name that is none, where there is one.
    pub(super) fn parse(text: &str) -> Result<Self, &str> {
        let mut days = 0;
        for name in text.split(',') {
            days |= 1 << NAMES.iter().position(|day| *day == name).ok_or(name)?;
        }
        Ok(Self(days))
    }

    /// Whether the day, counted from 1970-01-01, is one of them. That was a Thursday.
    fn contains(self, day: i64) -> bool {
        self.0 & (1 << (day + 3).rem_euclid(7)) != 0
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            NAMES.into_iter().enumerate().filter(|(day, _)| self.0 & (1 << day) != 0).map(|(_, name)| name).collect();
        f.write_str(&names.join(","))
    }
}
