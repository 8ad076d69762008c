//! Cron patterns of five fields. The only user of croner, which says what a pattern means; which moments its local times
//! are is the calendar's matter.

use std::fmt;

use croner::parser::{CronParser, Seconds, Year};
use croner::{CronPattern, Weekday};

use crate::schedule::zone::LocalTime;

/// A cron pattern: minute, hour, day of the month, month, weekday.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: CronPattern,
    /// The minutes of a day that match, in their order.
    minutes: Vec<u16>,
}

impl Cron {
    /// Reads a pattern; what is wrong with it, if it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if fields.len() != 5 {
            return Err(format!(
                "it has {} instead of five fields: minute, hour, day of the month, month, weekday",
                fields.len()
            ));
        }
        let text = fields.join(" ");
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(&text).map_err(|error| error.to_string())?.pattern;
        let hours = (0..24).filter(|hour| pattern.hour_match(*hour).unwrap_or(false));
        let minutes: Vec<u32> = (0..60).filter(|minute| pattern.minute_match(*minute).unwrap_or(false)).collect();
        let minutes = hours.flat_map(|hour| minutes.iter().map(move |minute| hour * 60 + minute));
        let minutes = minutes.filter_map(|minute| u16::try_from(minute).ok()).collect();
        Ok(Self { text, pattern, minutes })
    }

    /// The pattern, with one space between its fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first local time that matches, from `from` on and for `days` days.
    pub(super) fn first_from(&self, from: LocalTime, days: i64) -> Option<LocalTime> {
        let today = from.day();
        for day in today..=today + days {
            let least = if day == today { from.minute() } else { 0 };
            if let Some(minute) = self.minutes.iter().find(|minute| **minute >= least)
                && self.matches_day(day)?
            {
                return Some(LocalTime::of_day(day, *minute));
            }
        }
        None
    }

    /// All local times that match, from `from` backwards and for `days` days.
    pub(super) fn backwards(&self, from: LocalTime, days: i64) -> impl Iterator<Item = LocalTime> {
        let today = from.day();
        let matching = (today - days..=today).rev().filter(|day| self.matches_day(*day).unwrap_or(false));
        matching
            .flat_map(|day| self.minutes.iter().rev().map(move |minute| LocalTime::of_day(day, *minute)))
            .filter(move |local| *local <= from)
    }

    /// None beyond the year 9999.
    fn matches_day(&self, day: i64) -> Option<bool> {
        let (year, month, date) = LocalTime::of_day(day, 0).date()?;
        let (month, date) = (u32::try_from(month).ok()?, u32::try_from(date).ok()?);
        let matches = self.pattern.month_match(month).ok()?
            && self.pattern.day_match(i32::from(year), month, date, weekday(day)).ok()?;
        Some(matches)
    }
}

/// 1970-01-01 was a Thursday.
fn weekday(day: i64) -> Weekday {
    const FROM_EPOCH: [Weekday; 7] = [
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
    ];
    FROM_EPOCH[usize::try_from(day.rem_euclid(7)).unwrap_or(0)]
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}
