//! Rates that change by the time of day: how they are written, and which one holds at a moment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::schedule::grammar::{Word, Words};
use crate::schedule::window::{TimeOfDay, Weekdays, Window};
use crate::schedule::zone::Zone;

/// How many bytes may go within a second, by the time of day: `20MB/s; 2MB/s between 08:00 and 18:00 on mon,tue in
/// Europe/Berlin`. Of its parts the last one holds whose window is open; where none is, there is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RatePlan {
    /// At least one; only the first may have no window.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Bytes within a second; none for `unlimited`.
    rate: Option<u64>,
    window: Window,
    zone: Option<Zone>,
}

/// A text that is no rate, with the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at} of the rate, {}: {problem}", place(.found))]
pub struct RateError {
    /// The place, counted in characters from 1.
    pub at: usize,
    /// What stands there; nothing where the text ends.
    pub found: String,
    /// What is wrong with it.
    pub problem: RateProblem,
}

fn place(found: &str) -> String {
    if found.is_empty() { "where it ends".to_owned() } else { format!("`{found}`") }
}

/// What can be wrong with a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateProblem {
    /// It does not begin as rates do, or is beyond the limits.
    #[error(
        "a rate such as 500kB/s, 20MB/s, 1.5GB/s, 100Mbit/s or unlimited is needed here, from {} to {}",
        Written(Some(*least)), Written(Some(*most))
    )]
    Rate {
        /// The lowest rate, in bytes a second.
        least: u64,
        /// The highest.
        most: u64,
    },
    /// A clause is unknown, incomplete, or there twice.
    #[error("{expected}")]
    Clause {
        /// What it would have to be.
        expected: String,
    },
    /// There is no such time zone.
    #[error("there is no such time zone: take a name of the IANA database, such as Europe/Berlin or UTC")]
    Zone,
    /// A part that always holds stands behind others, which would never hold.
    #[error("only the first part of a rate can do without `between` or `on`: those before this one would never hold")]
    Hidden,
    /// It is too long, or has characters that nobody can see.
    #[error("a rate has at most {parts} parts, {bytes} bytes, and no control characters")]
    Text {
        /// The most parts that it may have.
        parts: usize,
        /// The most bytes that it may have.
        bytes: usize,
    },
}

impl Coded for RateError {
    fn code(&self) -> &'static str {
        match self.problem {
            RateProblem::Rate { .. } => "TED-1650",
            RateProblem::Clause { .. } => "TED-1651",
            RateProblem::Zone => "TED-1652",
            RateProblem::Hidden => "TED-1653",
            RateProblem::Text { .. } => "TED-1654",
        }
    }
}

impl RatePlan {
    /// The same rate at all times, within the limits.
    ///
    /// # Errors
    /// [`RateError`] when it is beyond them.
    pub fn steady(bytes_per_second: u64) -> Result<Self, RateError> {
        format!("{bytes_per_second}B/s").parse()
    }

    /// The bytes within a second that may go at `at`; none where there is no limit then.
    #[must_use]
    pub fn at(&self, at: UnixMillis) -> Option<u64> {
        self.parts.iter().rev().find(|part| part.holds(at)).and_then(|part| part.rate)
    }

    /// The first moment after `at` at which another part may hold; none where it never changes.
    #[must_use]
    pub fn next_change(&self, at: UnixMillis) -> Option<UnixMillis> {
        self.parts.iter().filter_map(|part| part.next_change(at)).min()
    }

    /// The highest rate that ever holds; none where there is none at some time.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        let always = self.parts.first().is_some_and(|part| part.window.is_always());
        let highest = self.parts.iter().map(|part| part.rate.unwrap_or(u64::MAX)).max();
        highest.filter(|rate| always && *rate != u64::MAX)
    }
}

impl Part {
    fn holds(&self, at: UnixMillis) -> bool {
        self.window.is_always() || self.window.around(&self.zone(), at).is_some()
    }

    fn next_change(&self, at: UnixMillis) -> Option<UnixMillis> {
        match self.window.around(&self.zone(), at) {
            Some(open) => Some(open.closes),
            None => self.window.next(&self.zone(), at).map(|open| open.opens),
        }
    }

    fn zone(&self) -> Zone {
        self.zone.clone().unwrap_or_else(Zone::utc)
    }
}

impl FromStr for RatePlan {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (bytes, most) = (Limits::DEFAULT.setting_bytes_max, Limits::DEFAULT.rate_parts_max);
        let written: Vec<&str> = text.split(';').collect();
        if text.len() > bytes || text.chars().any(char::is_control) || written.len() > most {
            let found = text.chars().filter(|character| !character.is_control()).take(40).collect();
            return Err(RateError { at: 1, found, problem: RateProblem::Text { parts: most, bytes } });
        }
        let (mut parts, mut before) = (vec![], 0);
        for (number, written) in written.into_iter().enumerate() {
            let part = part(written, number > 0).map_err(|error| RateError { at: error.at + before, ..error })?;
            parts.push(part);
            before += written.chars().count() + 1;
        }
        Ok(Self { parts })
    }
}

fn part(text: &str, follows_others: bool) -> Result<Part, RateError> {
    let mut words = Words::of(text);
    let begin = words.next();
    let rate = match begin.text {
        "unlimited" => None,
        text => Some(bytes_per_second(text).ok_or_else(|| {
            let (least, most) = (Limits::DEFAULT.rate_bytes_min, Limits::DEFAULT.rate_bytes_max);
            refused(&begin, RateProblem::Rate { least, most })
        })?),
    };
    let mut part = Part { rate, window: Window::ALWAYS, zone: None };
    let mut seen: Vec<&str> = vec![];
    loop {
        let clause = words.next();
        if clause.text.is_empty() {
            break;
        }
        if seen.contains(&clause.text) {
            return Err(misplaced(&clause, "a part of a rate has each clause once"));
        }
        match clause.text {
            "between" => part.window.between = Some(between(&mut words)?),
            "on" => {
                let word = words.next();
                part.window.on = Weekdays::parse(word.text).map_err(|_| {
                    misplaced(&word, "after `on` come weekdays with commas between them, as in mon,tue")
                })?;
            }
            "in" => {
                let word = words.next();
                part.zone = Some(Zone::named(word.text).ok_or_else(|| refused(&word, RateProblem::Zone))?);
            }
            _ => {
                let expected = "after it a rate has only `between 08:00 and 18:00`, `on mon,tue` and `in Europe/Berlin`; \
                                a semicolon begins its next part";
                return Err(misplaced(&clause, expected));
            }
        }
        seen.push(clause.text);
    }
    if follows_others && part.window.is_always() {
        return Err(refused(&begin, RateProblem::Hidden));
    }
    Ok(part)
}

fn between(words: &mut Words<'_>) -> Result<(TimeOfDay, TimeOfDay), RateError> {
    const EXPECTED: &str = "after `between` come two different times of day, such as 08:00 and 18:00";
    let from = words.next();
    let first = TimeOfDay::parse(from.text).ok_or_else(|| misplaced(&from, EXPECTED))?;
    let and = words.next();
    if and.text != "and" {
        return Err(misplaced(&and, EXPECTED));
    }
    let until = words.next();
    let second = TimeOfDay::parse(until.text).filter(|second| *second != first);
    Ok((first, second.ok_or_else(|| misplaced(&until, EXPECTED))?))
}

fn refused(word: &Word<'_>, problem: RateProblem) -> RateError {
    RateError { at: word.at, found: word.text.to_owned(), problem }
}

fn misplaced(word: &Word<'_>, expected: &str) -> RateError {
    refused(word, RateProblem::Clause { expected: expected.to_owned() })
}

/// What may stand behind a number, how many bytes it means, and of how many of it one byte is made.
const UNITS: [(&str, u64, u64); 16] = [
    ("", 1, 1),
    ("k", 1000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("B/s", 1, 1),
    ("kB/s", 1000, 1),
    ("MB/s", 1_000_000, 1),
    ("GB/s", 1_000_000_000, 1),
    ("KiB/s", 1 << 10, 1),
    ("MiB/s", 1 << 20, 1),
    ("GiB/s", 1 << 30, 1),
    ("bit/s", 1, 8),
    ("kbit/s", 1000, 8),
    ("Mbit/s", 1_000_000, 8),
    ("Gbit/s", 1_000_000_000, 8),
    ("Tbit/s", 1_000_000_000_000, 8),
];

fn bytes_per_second(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let (_, factor, divisor) = UNITS.into_iter().find(|(name, ..)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fits = |digits: &str, most| digits.len() <= most && digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !fits(whole, 15) || !fits(fraction, 6) || number.ends_with('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = whole.parse::<u128>().ok()? * scale + format!("0{fraction}").parse::<u128>().ok()?;
    let rate = u64::try_from(value * u128::from(factor) / (scale * u128::from(divisor))).ok()?;
    (Limits::DEFAULT.rate_bytes_min..=Limits::DEFAULT.rate_bytes_max).contains(&rate).then_some(rate)
}

/// A rate as it is written back.
struct Written(Option<u64>);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.0 else { return f.write_str("unlimited") };
        let units = [("GB/s", 1_000_000_000), ("MB/s", 1_000_000), ("kB/s", 1000)];
        let (unit, factor) = units.into_iter().find(|(_, factor)| rate.is_multiple_of(*factor)).unwrap_or(("B/s", 1));
        write!(f, "{}{unit}", rate / factor)
    }
}

impl fmt::Display for RatePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.parts.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            Written(part.rate).fmt(f)?;
            if let Some((from, until)) = part.window.between {
                write!(f, " between {from} and {until}")?;
            }
            if part.window.on != Weekdays::ALL {
                write!(f, " on {}", part.window.on)?;
            }
            if let Some(zone) = &part.zone {
                write!(f, " in {zone}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for RatePlan {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<RatePlan> for String {
    fn from(plan: RatePlan) -> Self {
        plan.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan(text: &str) -> RatePlan {
        text.parse().unwrap()
    }

    fn moment(text: &str) -> UnixMillis {
        let timestamp: jiff::Timestamp = text.parse().unwrap();
        UnixMillis::from_millis(u64::try_from(timestamp.as_millisecond()).unwrap())
    }

    #[test]
    fn rates_are_read_in_any_unit_and_written_in_one_way() {
        for (given, written) in [
            ("20MB/s", "20MB/s"),
            ("2M", "2MB/s"),
            ("500k", "500kB/s"),
            ("1500", "1500B/s"),
            ("1.5GB/s", "1500MB/s"),
            ("100Mbit/s", "12500kB/s"),
            ("1MiB/s", "1048576B/s"),
            ("unlimited", "unlimited"),
            (
                " 20MB/s;2MB/s  between 08:00 and 18:00 in europe/berlin on mon,fri ; unlimited on sun",
                "20MB/s; 2MB/s between 08:00 and 18:00 on mon,fri in Europe/Berlin; unlimited on sun",
            ),
        ] {
            assert_eq!(plan(given).to_string(), written, "{given}");
            assert_eq!(plan(written).to_string(), written, "{written}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_its_place() {
        for (text, at, code) in [
            ("", 1, "TED-1650"),
            ("fast", 1, "TED-1650"),
            ("0", 1, "TED-1650"),
            ("999B/s", 1, "TED-1650"),
            ("1TB/s", 1, "TED-1650"),
            ("1.MB/s", 1, "TED-1650"),
            ("99999999999999999999", 1, "TED-1650"),
            ("2MB/s;", 7, "TED-1650"),
            ("2MB/s; 1MB/s", 8, "TED-1653"),
            ("2MB/s at night", 7, "TED-1651"),
            ("2MB/s between 08:00 and 08:00", 25, "TED-1651"),
            ("2MB/s; 1MB/s between 8 and 9", 22, "TED-1651"),
            ("2MB/s on mon on tue", 14, "TED-1651"),
            ("2MB/s on monday", 10, "TED-1651"),
            ("2MB/s on mon in Mars", 17, "TED-1652"),
            ("2MB/s\n", 1, "TED-1654"),
        ] {
            let error = text.parse::<RatePlan>().unwrap_err();
            assert_eq!((error.at, error.code()), (at, code), "{text}: {error}");
        }
        assert_eq!("1MB/s;".repeat(60).parse::<RatePlan>().unwrap_err().code(), "TED-1654");
    }

    #[test]
    fn the_last_part_whose_window_is_open_holds() {
        let plan = plan("20MB/s; 2MB/s between 08:00 and 18:00; unlimited between 12:00 and 13:00 on sun");
        for (at, rate) in [
            ("2027-01-30T07:59:59.999Z", Some(20_000_000)),
            ("2027-01-30T08:00:00Z", Some(2_000_000)),
            ("2027-01-30T12:30:00Z", Some(2_000_000)),
            ("2027-01-31T12:30:00Z", None),
            ("2027-01-30T18:00:00Z", Some(20_000_000)),
        ] {
            assert_eq!(plan.at(moment(at)), rate, "{at}");
        }
        assert_eq!(plan.next_change(moment("2027-01-30T09:00:00Z")), Some(moment("2027-01-30T18:00:00Z")));
        assert_eq!(plan.next_change(moment("2027-01-31T09:00:00Z")), Some(moment("2027-01-31T12:00:00Z")));
        assert_eq!((plan.highest(), self::plan("20MB/s; 5MB/s on mon").highest()), (None, Some(20_000_000)));
    }

    #[test]
    fn a_rate_follows_local_clocks_over_both_changes_and_says_every_change() {
        let plan = plan("9MB/s; 1MB/s between 08:00 and 18:00 in Europe/Berlin");
        let (mut at, end) = (moment("2027-01-01T00:00:00Z"), moment("2028-01-01T00:00:00Z"));
        let mut slow = Duration::ZERO;
        while at < end {
            let change = plan.next_change(at).unwrap().min(end);
            let before = UnixMillis::from_millis(change.millis() - 1);
            assert_eq!(plan.at(at), plan.at(before), "nothing changes between two changes");
            if plan.at(at) == Some(1_000_000) {
                slow += change.since(at);
            }
            at = change;
        }
        assert_eq!(slow, Duration::from_secs(365 * 10 * 3600), "ten hours a day, whatever the clocks do");
        assert_eq!(plan.at(moment("2027-03-28T06:00:00Z")), Some(1_000_000), "summer time began that night");
        assert_eq!(plan.at(moment("2027-03-27T06:00:00Z")), Some(9_000_000));
        assert_eq!(plan.at(moment("2027-10-31T06:30:00Z")), Some(9_000_000), "and ended that night");
    }
}
