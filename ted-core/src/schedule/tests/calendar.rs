//! Occurrences, windows, what was missed, and jitter.

use std::time::Duration;

use super::{moment, schedule, shown};
use crate::id::UnixMillis;

fn next(text: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text);
    let following = |at: &UnixMillis| schedule.next_after(*at);
    let first = following(&moment(after));
    std::iter::successors(first, following).take(count).map(shown).collect()
}

#[test]
fn occurrences_follow_the_grammar() {
    for (text, after, expected) in [
        ("never", "2027-01-01T00:00Z", &[][..]),
        ("now", "2027-01-01T00:00Z", &[]),
        ("at 2027-01-31T02:00", "2027-01-01T00:00Z", &["2027-01-31T02:00Z"]),
        ("at 2027-01-31T02:00 in Europe/Berlin", "2027-01-01T00:00Z", &["2027-01-31T01:00Z"]),
        ("at 2027-01-31T02:00", "2027-01-31T02:00Z", &[]),
        ("every 30m", "2027-01-01T00:00Z", &["2027-01-01T00:30Z", "2027-01-01T01:00Z"]),
        ("every 30m", "2027-01-01T00:29:59.999Z", &["2027-01-01T00:30Z"]),
        // What falls outside the window comes when it opens.
        (
            "every 45m between 22:00 and 23:30",
            "2027-01-01T12:00Z",
            &["2027-01-01T22:00Z", "2027-01-01T22:30Z", "2027-01-01T23:15Z", "2027-01-02T22:00Z"],
        ),
        ("every 7d on mon between 03:00 and 04:00", "2027-01-01T00:00Z", &["2027-01-04T03:00Z", "2027-01-11T03:00Z"]),
        ("cron \"0 2 * * mon-fri\"", "2027-01-01T02:00Z", &["2027-01-04T02:00Z", "2027-01-05T02:00Z"]),
        ("cron \"0 2 * * *\" on sat", "2027-01-01T00:00Z", &["2027-01-02T02:00Z", "2027-01-09T02:00Z"]),
        // The night of Friday goes on until Saturday's morning.
        (
            "cron \"0 2,23 * * *\" between 22:00 and 05:00 on fri",
            "2027-01-01T00:00Z",
            &["2027-01-01T23:00Z", "2027-01-02T02:00Z", "2027-01-08T23:00Z"],
        ),
        ("cron \"0 0 29 2 *\" on mon", "2072-03-01T00:00Z", &["2112-02-29T00:00Z"]),
        // Skipped forward: it is 03:00 when 02:30 does not exist. Twice: the first one.
        ("cron \"30 2 * * *\" in Europe/Berlin", "2027-03-27T12:00Z", &["2027-03-28T01:00Z", "2027-03-29T00:30Z"]),
        ("cron \"30 2 * * *\" in Europe/Berlin", "2027-10-30T12:00Z", &["2027-10-31T00:30Z", "2027-11-01T01:30Z"]),
        // A day that a whole country skipped.
        ("cron \"0 12 30 12 *\" in Pacific/Apia", "2011-12-01T00:00Z", &["2011-12-30T10:00Z", "2012-12-29T22:00Z"]),
    ] {
        let found = next(text, after, expected.len().max(1));
        assert_eq!(found, expected, "{text} after {after}");
    }
}

#[test]
fn windows_open_and_close_over_midnight_and_join_where_they_touch() {
    for (text, at, open, following) in [
        ("now between 22:00 and 05:00", "2027-01-01T21:59:59.999Z", None, Some(("01T22:00", "02T05:00"))),
        (
            "now between 22:00 and 05:00",
            "2027-01-01T22:00Z",
            Some(("01T22:00", "02T05:00")),
            Some(("02T22:00", "03T05:00")),
        ),
        (
            "now between 22:00 and 05:00",
            "2027-01-02T04:59Z",
            Some(("01T22:00", "02T05:00")),
            Some(("02T22:00", "03T05:00")),
        ),
        ("now between 22:00 and 05:00", "2027-01-02T05:00Z", None, Some(("02T22:00", "03T05:00"))),
        ("now on sat,sun", "2027-01-01T00:00Z", None, Some(("02T00:00", "04T00:00"))),
        ("now on sat,sun", "2027-01-03T00:00Z", Some(("02T00:00", "04T00:00")), Some(("09T00:00", "11T00:00"))),
        (
            "now on fri between 22:00 and 05:00",
            "2027-01-02T01:00Z",
            Some(("01T22:00", "02T05:00")),
            Some(("08T22:00", "09T05:00")),
        ),
        ("now", "2027-01-01T00:00Z", None, None),
    ] {
        let (schedule, at) = (schedule(text), moment(at));
        let days = |(opens, closes): (&str, &str)| {
            (moment(&format!("2027-01-{opens}Z")), moment(&format!("2027-01-{closes}Z")))
        };
        let found = schedule.open_time(at).map(|open| (open.opens, open.closes));
        assert_eq!(found, open.map(days), "{text} at {}", shown(at));
        let found = schedule.next_open_time(at).map(|open| (open.opens, open.closes));
        assert_eq!(found, following.map(days), "{text} after {}", shown(at));
        assert_eq!(schedule.is_open(at), open.is_some() || schedule.is_always_open());
    }
}

#[test]
fn what_was_missed_fires_once_while_its_window_is_open() {
    for (text, last, now, missed) in [
        ("every 1h", "2027-01-01T00:00Z", "2027-01-01T00:59Z", None),
        ("every 1h", "2027-01-01T00:00Z", "2027-01-01T05:30Z", Some("2027-01-01T05:00Z")),
        ("every 1h", "2027-01-01T05:00Z", "2027-01-01T05:30Z", None),
        ("cron \"0 2 * * *\"", "2027-01-01T02:00Z", "2027-01-09T12:00Z", Some("2027-01-09T02:00Z")),
        (
            "cron \"0 23 * * *\" between 22:00 and 05:00",
            "2027-01-01T23:00Z",
            "2027-01-03T04:00Z",
            Some("2027-01-02T23:00Z"),
        ),
        ("cron \"0 23 * * *\" between 22:00 and 05:00", "2027-01-01T23:00Z", "2027-01-03T06:00Z", None),
        ("cron \"0 23 * * *\" between 22:00 and 05:00", "2027-01-01T23:00Z", "2027-01-03T22:30Z", None),
        ("at 2027-01-31T02:00", "2027-01-01T00:00Z", "2027-02-05T00:00Z", Some("2027-01-31T02:00Z")),
        ("at 2027-01-31T02:00", "2027-01-31T02:00Z", "2027-02-05T00:00Z", None),
        ("at 2027-01-31T02:00 between 01:00 and 03:00", "2027-01-01T00:00Z", "2027-01-31T03:00Z", None),
        ("now", "2027-01-01T00:00Z", "2027-02-05T00:00Z", None),
    ] {
        let found = schedule(text).missed(moment(last), moment(now)).map(shown);
        assert_eq!(found.as_deref(), missed, "{text}, fired {last}, now {now}");
    }
}

#[test]
fn after_a_start_what_was_missed_comes_first_and_then_the_calendar() {
    let hourly = schedule("every 1h");
    let (last, now) = (moment("2027-01-01T00:00Z"), moment("2027-01-01T05:30Z"));
    let first = hourly.upcoming(b"nightly", last, now).unwrap();
    assert_eq!((shown(first.planned).as_str(), first.due), ("2027-01-01T05:00Z", first.planned));
    let second = hourly.upcoming(b"nightly", first.planned, now).unwrap();
    assert_eq!(shown(second.planned), "2027-01-01T06:00Z");
}

#[test]
fn now_tries_again_after_a_quarter_of_an_hour_within_its_window() {
    let at = moment("2027-01-01T04:50Z");
    assert_eq!(schedule("now").retry_after(at).map(shown).as_deref(), Some("2027-01-01T05:05Z"));
    let windowed = schedule("now between 22:00 and 05:00");
    assert_eq!(windowed.retry_after(at).map(shown).as_deref(), Some("2027-01-01T22:00Z"));
    assert_eq!(schedule("every 1h").retry_after(at), None);
}

#[test]
fn jitter_is_the_same_each_time_differs_between_schedules_and_stays_in_the_window() {
    let schedule = schedule("every 1h between 22:00 and 23:02 jitter 10m");
    let mut due = std::collections::BTreeSet::new();
    for number in 0..200_u64 {
        let id = number.to_le_bytes();
        let (early, late) = (moment("2027-01-01T22:00Z"), moment("2027-01-01T23:00Z"));
        let first = schedule.occurrence(&id, early);
        assert_eq!(schedule.occurrence(&id, early), first);
        assert!(first.due >= early && first.due < early.plus(Duration::from_secs(600)));
        let at_the_end = schedule.occurrence(&id, late);
        assert!(at_the_end.due < late.plus(Duration::from_secs(120)), "the window closes at 23:02");
        due.insert(first.due.since(early).as_secs() / 60);
    }
    assert_eq!(due.len(), 10, "200 schedules leave no minute of ten out: {due:?}");
    let without = super::schedule("every 1h");
    let planned = moment("2027-01-01T22:00Z");
    assert_eq!(without.occurrence(b"x", planned).due, planned);
}

#[test]
fn moments_at_the_end_of_time_have_no_answer_and_no_panic() {
    for text in ["every 1h", "cron \"* * * * *\"", "now between 22:00 and 05:00", "every 1h on mon in Asia/Tokyo"] {
        for millis in [0, 253_402_207_199_999, 253_402_300_799_999, u64::MAX] {
            let (schedule, at) = (schedule(text), UnixMillis::from_millis(millis));
            let _ = (schedule.next_after(at), schedule.next_open_time(at), schedule.open_time(at));
            let _ = (schedule.missed(UnixMillis::from_millis(0), at), schedule.upcoming(b"x", at, at));
        }
    }
}
