//! How schedules are written: [`Schedule`] from text, and its one way of being written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::Limits;
use crate::schedule::cron::Cron;
use crate::schedule::error::{Problem, ScheduleError};
use crate::schedule::window::{TimeOfDay, Weekdays};
use crate::schedule::zone::{LocalTime, Zone};
use crate::schedule::{LocalMinute, Purpose, Schedule, Start};

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let most = Limits::DEFAULT.schedule_bytes_max;
        let mut characters = text.char_indices().zip(1..);
        if let Some(((_, character), at)) =
            characters.find(|((place, character), _)| place + character.len_utf8() > most || character.is_control())
        {
            let found = character.escape_debug().to_string();
            return Err(ScheduleError { at, found, problem: Problem::Text { most } });
        }
        let mut words = Words::of(text);
        let begin = words.next();
        let start = start(&begin, &mut words)?;
        let mut schedule = Self::plain(start);
        clauses(&mut schedule, &mut words)?;
        if schedule.is_impossible() {
            return Err(begin.refused(Problem::Impossible));
        }
        Ok(schedule)
    }
}

impl Schedule {
    /// Reads a schedule for a purpose.
    ///
    /// # Errors
    /// [`ScheduleError`], also where the purpose does not have that kind of schedule.
    pub fn parse_for(purpose: Purpose, text: &str) -> Result<Self, ScheduleError> {
        let schedule: Self = text.parse()?;
        if !schedule.fits(purpose) {
            return Err(Words::of(text).next().refused(Problem::Purpose { purpose }));
        }
        Ok(schedule)
    }
}

fn start(begin: &Word<'_>, words: &mut Words<'_>) -> Result<Start, ScheduleError> {
    match begin.text {
        "never" => Ok(Start::Never),
        "now" => Ok(Start::Now),
        "with" => {
            let word = words.next();
            if word.text == "send" { Ok(Start::WithSend) } else { Err(word.refused(Problem::Start)) }
        }
        "at" => {
            let word = words.next();
            LocalMinute::parse(word.text).map(Start::At).ok_or_else(|| word.refused(Problem::Time))
        }
        "every" => {
            let (least, most) =
                (Limits::DEFAULT.schedule_interval_seconds_min, Limits::DEFAULT.schedule_interval_seconds_max);
            duration(&words.next(), least, most).map(Start::Every)
        }
        "cron" => {
            let word = words.next();
            let pattern = word.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let unquoted = || "it has to stand between double quotes".to_owned();
            let cron = pattern.ok_or_else(unquoted).and_then(Cron::parse);
            cron.map(|cron| Start::Cron(Box::new(cron))).map_err(|reason| word.refused(Problem::Cron { reason }))
        }
        _ => Err(begin.refused(Problem::Start)),
    }
}

fn clauses(schedule: &mut Schedule, words: &mut Words<'_>) -> Result<(), ScheduleError> {
    let mut seen: Vec<&str> = vec![];
    loop {
        let clause = words.next();
        if clause.text.is_empty() {
            return Ok(());
        }
        if seen.contains(&clause.text) {
            return Err(clause.misplaced(&format!("there can be one `{}`, and here is a second", clause.text)));
        }
        match clause.text {
            "between" => schedule.window.between = Some(between(words)?),
            "on" => {
                let word = words.next();
                schedule.window.on = Weekdays::parse(word.text).map_err(|name| {
                    let what = if name.is_empty() { "a weekday is missing".to_owned() } else { format!("`{name}`") };
                    let days = "after `on` come weekdays with commas and without spaces between them, such as mon,tue";
                    word.misplaced(&format!("{days}; of mon, tue, wed, thu, fri, sat and sun this is none: {what}"))
                })?;
            }
            "in" => {
                let word = words.next();
                schedule.zone = Some(Zone::named(word.text).ok_or_else(|| word.refused(Problem::Zone))?);
            }
            "jitter" => {
                let word = words.next();
                schedule.jitter = Some(duration(&word, 1, Limits::DEFAULT.schedule_jitter_seconds_max)?);
                refuse_overlap(schedule, &word)?;
            }
            _ => {
                let expected = "after its beginning a schedule has only `between 22:00 and 05:00`, `on mon,tue`, \
                                `in Europe/Berlin` and `jitter 10m`";
                return Err(clause.misplaced(expected));
            }
        }
        seen.push(clause.text);
    }
}

fn between(words: &mut Words<'_>) -> Result<(TimeOfDay, TimeOfDay), ScheduleError> {
    const EXPECTED: &str = "after `between` come two different times of day, such as 22:00 and 05:00";
    let time = |word: &Word<'_>| TimeOfDay::parse(word.text).ok_or_else(|| word.misplaced(EXPECTED));
    let from = time(&words.next())?;
    let and = words.next();
    if and.text != "and" {
        return Err(and.misplaced(EXPECTED));
    }
    let word = words.next();
    let until = time(&word)?;
    if from == until { Err(word.misplaced(EXPECTED)) } else { Ok((from, until)) }
}

/// A jitter as long as the time between two firings would let one overtake the other.
fn refuse_overlap(schedule: &Schedule, word: &Word<'_>) -> Result<(), ScheduleError> {
    match (&schedule.start, schedule.jitter) {
        (Start::Every(period), Some(jitter)) if jitter >= *period => {
            let bounds = format!("shorter than {}", Written(*period));
            Err(word.refused(Problem::Duration { bounds }))
        }
        _ => Ok(()),
    }
}

fn duration(word: &Word<'_>, least: u64, most: u64) -> Result<Duration, ScheduleError> {
    let digits = word.text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
    let seconds = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    seconds.filter(|seconds| (least..=most).contains(seconds)).map(Duration::from_secs).ok_or_else(|| {
        let (least, most) = (Written(Duration::from_secs(least)), Written(Duration::from_secs(most)));
        word.refused(Problem::Duration { bounds: format!("from {least} to {most}") })
    })
}

/// Units of time, the largest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// A length of time as schedules write it.
struct Written(Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (unit, length) = UNITS.into_iter().find(|(_, length)| seconds.is_multiple_of(*length)).unwrap_or(("s", 1));
        write!(f, "{}{unit}", seconds / length)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Start::Never => f.write_str("never")?,
            Start::Now => f.write_str("now")?,
            Start::WithSend => f.write_str("with send")?,
            Start::At(time) => write!(f, "at {time}")?,
            Start::Every(period) => write!(f, "every {}", Written(*period))?,
            Start::Cron(cron) => write!(f, "cron \"{}\"", cron.as_str())?,
        }
        if let Some((from, until)) = self.window.between {
            write!(f, " between {from} and {until}")?;
        }
        if self.window.on != Weekdays::ALL {
            write!(f, " on {}", self.window.on)?;
        }
        if let Some(zone) = &self.zone {
            write!(f, " in {zone}")?;
        }
        if let Some(jitter) = self.jitter {
            write!(f, " jitter {}", Written(jitter))?;
        }
        Ok(())
    }
}

impl LocalMinute {
    /// Reads `2027-01-31T02:00`.
    fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let time = TimeOfDay::parse(time)?;
        let shaped = date.len() == 10
            && date.bytes().enumerate().all(|(place, byte)| match place {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if !shaped {
            return None;
        }
        let (year, month, day) = (date[..4].parse().ok()?, date[5..7].parse().ok()?, date[8..].parse().ok()?);
        // What lies before 1970 could not be told from its beginning.
        LocalTime::of_date(year, month, day, time.minutes())
            .filter(|local| year >= 1971 && local.date().is_some())
            .map(Self)
    }
}

impl fmt::Display for LocalMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.date().unwrap_or_default();
        let minute = self.0.minute();
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}", minute / 60, minute % 60)
    }
}

/// A word of a schedule, and its place. What stands between double quotes is one word, quotes included.
pub(super) struct Word<'a> {
    pub(super) at: usize,
    pub(super) text: &'a str,
}

impl Word<'_> {
    fn refused(&self, problem: Problem) -> ScheduleError {
        ScheduleError { at: self.at, found: self.text.to_owned(), problem }
    }

    fn misplaced(&self, expected: &str) -> ScheduleError {
        self.refused(Problem::Clause { expected: expected.to_owned() })
    }
}

/// The words of a schedule, one after the other; empty ones at its end.
pub(super) struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn next(&mut self) -> Word<'a> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        let rest = &self.text[self.at..];
        let length = match rest.strip_prefix('"').map(|inner| inner.find('"')) {
            Some(Some(closing)) => closing + 2,
            Some(None) => rest.len(),
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        let at = self.text[..self.at].chars().count() + 1;
        self.at += length;
        Word { at, text: &rest[..length] }
    }
}
