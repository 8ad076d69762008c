//! Time zones: which moment a local clock's reading is. The only user of jiff, and of its built-in zone data alone.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use crate::id::UnixMillis;

const MINUTE_MILLIS: i64 = 60_000;
const DAY_MILLIS: i64 = 24 * 60 * MINUTE_MILLIS;

/// A time zone by its name in the IANA database.
///
/// Moments and readings of the local clock are joined by one rule: a reading happens at the first moment at which the
/// clock shows it or more. So what a clock skips happens as it skips it, and what it shows twice happens the first time.
#[derive(Clone)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// What a local clock shows, in milliseconds counted as if the place had no offset and no summer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalTime(i64);

impl Zone {
    /// Universal time, which schedules count in that name no zone.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// The zone of this name, in any case; none where the database has no such zone.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let rules = TimeZoneDatabase::bundled().get(name).ok().filter(|rules| !rules.is_unknown())?;
        Some(Self { name: rules.iana_name()?.to_owned(), rules })
    }

    /// Its name, as the database writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What clocks show there at `at`, with their offset: `2027-01-31T02:00:00+01:00`. None beyond the year 9999.
    #[must_use]
    pub fn show(&self, at: UnixMillis) -> Option<String> {
        let offset = self.rules.to_offset(timestamp(i64::try_from(at.millis()).ok()?)?);
        let minutes = offset.seconds().div_euclid(60);
        let sign = if minutes < 0 { '-' } else { '+' };
        let shown = Offset::UTC.to_datetime(timestamp(self.local(at)?.0)?);
        Some(format!("{shown:.0}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60))
    }

    /// What clocks show there at `at`. None beyond the year 9999.
    pub(super) fn local(&self, at: UnixMillis) -> Option<LocalTime> {
        let millis = i64::try_from(at.millis()).ok()?;
        Some(LocalTime(millis + offset_millis(self.rules.to_offset(timestamp(millis)?))))
    }

    /// The first moment at which clocks there show `local` or more. None beyond the year 9999.
    pub(super) fn first_at(&self, local: LocalTime) -> Option<UnixMillis> {
        let reading = Offset::UTC.to_datetime(timestamp(local.0)?);
        let millis = match self.rules.to_ambiguous_timestamp(reading).offset() {
            AmbiguousOffset::Unambiguous { offset } => local.0 - offset_millis(offset),
            AmbiguousOffset::Fold { before, .. } => local.0 - offset_millis(before),
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset that comes after the gap, the reading lies before the gap.
                let before = timestamp(local.0 - offset_millis(after))?;
                let mut changes = self.rules.following(before);
                changes.find(|change| change.offset() == after)?.timestamp().as_millisecond()
            }
        };
        // Nothing is scheduled before 1970.
        Some(UnixMillis::from_millis(u64::try_from(millis).unwrap_or(0)))
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl LocalTime {
    /// This minute of this day, which is counted from 1970-01-01.
    pub(super) fn of_day(day: i64, minute: u16) -> Self {
        Self(day * DAY_MILLIS + i64::from(minute) * MINUTE_MILLIS)
    }

    /// This minute of a date; none where there is no such date.
    pub(super) fn of_date(year: i16, month: i8, day: i8, minute: u16) -> Option<Self> {
        let midnight = jiff::civil::Date::new(year, month, day).ok()?.at(0, 0, 0, 0);
        let midnight = Offset::UTC.to_timestamp(midnight).ok()?;
        Some(Self::of_day(midnight.as_millisecond().div_euclid(DAY_MILLIS), minute))
    }

    /// The day, counted from 1970-01-01.
    pub(super) fn day(self) -> i64 {
        self.0.div_euclid(DAY_MILLIS)
    }

    /// The minute of the day.
    pub(super) fn minute(self) -> u16 {
        u16::try_from(self.0.rem_euclid(DAY_MILLIS) / MINUTE_MILLIS).unwrap_or(0)
    }

    /// The same without its seconds.
    pub(super) fn whole_minute(self) -> Self {
        Self(self.0.div_euclid(MINUTE_MILLIS) * MINUTE_MILLIS)
    }

    /// The next whole minute.
    pub(super) fn next_minute(self) -> Self {
        Self(self.whole_minute().0 + MINUTE_MILLIS)
    }

    /// Year, month and day. None beyond the year 9999.
    pub(super) fn date(self) -> Option<(i16, i8, i8)> {
        let reading = Offset::UTC.to_datetime(timestamp(self.0)?);
        Some((reading.year(), reading.month(), reading.day()))
    }
}

fn timestamp(millis: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(millis).ok()
}

fn offset_millis(offset: Offset) -> i64 {
    i64::from(offset.seconds()) * 1000
}
