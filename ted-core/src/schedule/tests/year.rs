//! A year of several schedules in three zones, minute by minute, against a computation that shares nothing with the code
//! under test: the changes of the clocks are written down here, and so is what each schedule means.

use std::sync::LazyLock;

use super::{moment, schedule};
use crate::id::UnixMillis;
use crate::schedule::Schedule;

pub(crate) const MINUTES: u64 = 365 * 24 * 60;

/// A zone in 2027: its offset in minutes when the year begins, and from when on it has another.
struct Place {
    zone: &'static str,
    begin: i64,
    changes: [(&'static str, i64); 2],
}

const PLACES: [Place; 3] = [
    Place { zone: "Europe/Berlin", begin: 60, changes: [("2027-03-28T01:00Z", 120), ("2027-10-31T01:00Z", 60)] },
    Place {
        zone: "America/New_York",
        begin: -300,
        changes: [("2027-03-14T07:00Z", -240), ("2027-11-07T06:00Z", -300)],
    },
    // Half an hour, and the other way round.
    Place {
        zone: "Australia/Lord_Howe",
        begin: 660,
        changes: [("2027-04-03T15:00Z", 630), ("2027-10-02T15:30Z", 660)],
    },
];

/// What a local clock shows.
#[derive(Clone, Copy)]
struct Reading {
    /// 1 for the first of January.
    day_of_year: i64,
    /// 0 for Monday.
    weekday: i64,
    hour: i64,
    minute: i64,
}

impl Reading {
    /// `minutes` count from the beginning of 2027, which was a Friday.
    fn of(minutes: i64) -> Self {
        let (day, minute) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
        Self { day_of_year: day + 1, weekday: (day + 4).rem_euclid(7), hour: minute / 60, minute: minute % 60 }
    }

    fn clock(self) -> i64 {
        self.hour * 100 + self.minute
    }

    /// Whether this is within the night that began on one of these weekdays.
    fn night_of(self, from: i64, until: i64, weekdays: &[i64]) -> bool {
        let yesterday = (self.weekday + 6) % 7;
        (self.clock() >= from && weekdays.contains(&self.weekday))
            || (self.clock() < until && weekdays.contains(&yesterday))
    }
}

enum Rhythm {
    Clock(fn(Reading) -> bool),
    Minutes(u64),
}

struct Case {
    text: &'static str,
    rhythm: Rhythm,
    open: fn(Reading) -> bool,
}

const EVERY_DAY: [i64; 7] = [0, 1, 2, 3, 4, 5, 6];

const CASES: [Case; 10] = [
    Case { text: "cron \"30 2 * * *\"", rhythm: Rhythm::Clock(|now| now.clock() == 230), open: |_| true },
    Case { text: "cron \"*/15 * * * *\"", rhythm: Rhythm::Clock(|now| now.minute % 15 == 0), open: |_| true },
    Case { text: "cron \"0 3 * * *\"", rhythm: Rhythm::Clock(|now| now.clock() == 300), open: |_| true },
    Case {
        text: "cron \"10,50 0-4 * * sun,mon\"",
        rhythm: Rhythm::Clock(|now| now.hour < 5 && matches!(now.minute, 10 | 50) && matches!(now.weekday, 6 | 0)),
        open: |_| true,
    },
    Case {
        text: "cron \"0 12 1 1,3 *\"",
        rhythm: Rhythm::Clock(|now| now.clock() == 1200 && matches!(now.day_of_year, 1 | 60)),
        open: |_| true,
    },
    Case {
        text: "cron \"*/20 * * * *\" between 22:00 and 02:30",
        rhythm: Rhythm::Clock(|now| now.minute % 20 == 0),
        open: |now| now.night_of(2200, 230, &EVERY_DAY),
    },
    Case {
        text: "cron \"5 * * * *\" between 02:15 and 03:30 on sat,sun",
        rhythm: Rhythm::Clock(|now| now.minute == 5),
        open: |now| (215..330).contains(&now.clock()) && now.weekday >= 5,
    },
    Case { text: "every 90m", rhythm: Rhythm::Minutes(90), open: |_| true },
    Case {
        text: "every 45m between 23:00 and 02:10 on sat,mon",
        rhythm: Rhythm::Minutes(45),
        open: |now| now.night_of(2300, 210, &[5, 0]),
    },
    Case {
        text: "every 7h on sun,mon,wed",
        rhythm: Rhythm::Minutes(420),
        open: |now| matches!(now.weekday, 6 | 0 | 2),
    },
];

/// What a walk through the year finds, in minutes since its beginning in universal time.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) fired: Vec<u64>,
    /// For each minute whether the window is open.
    pub(crate) open: Vec<bool>,
}

/// Walks with a clock that never goes back: what it shows is the latest that was shown.
fn walk(place: &Place, case: &Case) -> Walk {
    let begin = minute_of(moment("2027-01-01T00:00Z"));
    let changes = place.changes.map(|(at, offset)| (minute_of(moment(at)) - begin, offset));
    let mut walk = Walk::default();
    let mut latest = place.begin - 1;
    let mut waiting = false;
    for minute in 0..MINUTES {
        let offset = changes.iter().rev().find(|(at, _)| *at <= minute).map_or(place.begin, |(_, offset)| *offset);
        let local = i64::try_from(minute).unwrap() + offset;
        let newly_shown = latest + 1..=local;
        let open = (case.open)(Reading::of(latest.max(local)));
        let fires = match &case.rhythm {
            Rhythm::Clock(matches) => open && newly_shown.into_iter().any(|shown| matches(Reading::of(shown))),
            Rhythm::Minutes(period) => {
                waiting |= (begin + minute).is_multiple_of(*period);
                open && std::mem::take(&mut waiting)
            }
        };
        latest = latest.max(local);
        if fires {
            walk.fired.push(minute);
        }
        walk.open.push(open);
    }
    walk
}

fn minute_of(at: UnixMillis) -> u64 {
    at.millis() / 60_000
}

/// A minute of the year.
pub(crate) fn at(minute: u64) -> UnixMillis {
    moment("2027-01-01T00:00Z").plus(std::time::Duration::from_secs(minute * 60))
}

/// All cases at all places, each walked once for all tests.
pub(crate) fn walks() -> &'static [(String, Walk)] {
    static WALKS: LazyLock<Vec<(String, Walk)>> = LazyLock::new(|| {
        let all = PLACES.iter().flat_map(|place| CASES.iter().map(move |case| (place, case)));
        all.map(|(place, case)| (format!("{} in {}", case.text, place.zone), walk(place, case))).collect()
    });
    &WALKS
}

fn each(check: impl Fn(&str, &Schedule, &Walk)) {
    for (text, walk) in walks() {
        check(text, &schedule(text), walk);
    }
}

#[test]
fn a_year_of_occurrences_is_the_one_that_a_walk_through_it_finds() {
    each(|text, schedule, walk| {
        let before = UnixMillis::from_millis(at(0).millis() - 1);
        // What the window held back when the year began is not known to the walk.
        let first = walk.fired[0];
        let begin = if first == 0 { before } else { at(first - 1) };
        let found: Vec<u64> = std::iter::successors(schedule.next_after(begin), |last| schedule.next_after(*last))
            .map(|planned| planned.since(at(0)).as_secs() / 60)
            .take_while(|minute| *minute < MINUTES)
            .collect();
        let differs = found.iter().zip(&walk.fired).find(|(found, walked)| found != walked);
        assert_eq!(differs, None, "{text}");
        assert_eq!(found.len(), walk.fired.len(), "{text}");
        assert!(found.len() >= 2, "{text} shows something");
    });
}

#[test]
fn from_any_moment_of_the_year_the_next_and_the_missed_one_are_those_of_the_walk() {
    each(|text, schedule, walk| {
        for now in (3 * 1440..MINUTES - 30 * 1440).step_by(1009) {
            let later = walk.fired.partition_point(|fired| *fired <= now);
            let next = schedule.next_after(at(now));
            assert_eq!(next, walk.fired.get(later).map(|minute| at(*minute)).or(next), "{text} after minute {now}");
            let last = later.checked_sub(1).map(|place| walk.fired[place]);
            // Still open means that it was never closed in between.
            let expected = last.filter(|last| (*last..=now).all(|minute| walk.open[usize::try_from(minute).unwrap()]));
            let missed = schedule.missed(at(0), at(now));
            assert_eq!(missed, expected.filter(|minute| *minute > 0).map(at), "{text}, missed at minute {now}");
        }
    });
}

#[test]
fn a_year_of_windows_opens_and_closes_as_the_walk_does() {
    each(|text, schedule, walk| {
        if schedule.is_always_open() {
            assert!(walk.open.iter().all(|open| *open), "{text}");
            return;
        }
        let changes = |to: bool| {
            let minutes = walk.open.windows(2).zip(1_u64..);
            let changes = minutes.filter(move |(pair, _)| pair[1] == to && pair[0] != to);
            changes.map(|(_, minute)| at(minute)).collect::<Vec<_>>()
        };
        let (openings, closings) = (changes(true), changes(false));
        let mut now = at(0);
        for opens in openings {
            let open = schedule.next_open_time(now).unwrap();
            assert_eq!(open.opens, opens, "{text}");
            assert_eq!(schedule.open_time(opens), Some(open), "{text}");
            assert!(!schedule.is_open(UnixMillis::from_millis(opens.millis() - 1)), "{text}");
            let closes = closings.iter().copied().find(|closes| *closes > opens);
            assert_eq!(closes.unwrap_or(open.closes), open.closes, "{text}");
            assert!(!schedule.is_open(open.closes), "{text}");
            now = opens;
        }
    });
}
