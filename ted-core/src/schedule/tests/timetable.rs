//! The timetable: what comes, what was missed, what lapsed, whatever the clock does.

use std::time::Duration;

use super::{moment, schedule, shown};
use crate::id::UnixMillis;
use crate::schedule::{Cause, Rhythm, Timetable};

type Table = Timetable<&'static str>;

fn scheduled(text: &str) -> Rhythm {
    Rhythm::Scheduled(schedule(text))
}

fn table(text: &str, last: &str, now: &str) -> Table {
    let mut table = Table::default();
    table.set(&"it", scheduled(text), moment(last), moment(now));
    table
}

fn next(table: &Table) -> Option<String> {
    table.next_wakeup().map(shown)
}

/// Takes at `now`, and ends what was taken: planned moments and causes.
fn take(table: &mut Table, now: &str) -> Vec<(String, Cause)> {
    let now = moment(now);
    let turns = table.take(now).turns;
    turns.iter().for_each(|turn| table.ended(&turn.key, now));
    turns.into_iter().map(|turn| (shown(turn.planned), turn.cause)).collect()
}

fn one(planned: &str, cause: Cause) -> Vec<(String, Cause)> {
    vec![(planned.to_owned(), cause)]
}

#[test]
fn each_occurrence_comes_once_and_only_when_it_is_due() {
    let mut table = table("every 1h", "2027-05-01T00:30Z", "2027-05-01T00:30Z");
    assert_eq!(next(&table).as_deref(), Some("2027-05-01T01:00Z"));
    assert_eq!(take(&mut table, "2027-05-01T00:59:59.999Z"), []);
    assert_eq!(take(&mut table, "2027-05-01T01:00Z"), one("2027-05-01T01:00Z", Cause::Planned));
    assert_eq!(take(&mut table, "2027-05-01T01:00Z"), []);
    assert_eq!(next(&table).as_deref(), Some("2027-05-01T02:00Z"));
}

#[test]
fn of_what_was_missed_the_last_comes_once_while_its_window_is_open() {
    let night = "cron \"0 * * * *\" between 22:00 and 05:00";
    let mut open = table(night, "2027-05-01T22:00Z", "2027-05-02T03:30Z");
    assert_eq!(take(&mut open, "2027-05-02T03:30Z"), one("2027-05-02T03:00Z", Cause::Missed));
    assert_eq!(next(&open).as_deref(), Some("2027-05-02T04:00Z"));
    let mut closed = table(night, "2027-05-01T22:00Z", "2027-05-02T05:00Z");
    assert_eq!(take(&mut closed, "2027-05-02T05:00Z"), []);
    assert_eq!(next(&closed).as_deref(), Some("2027-05-02T22:00Z"));
}

#[test]
fn a_clock_that_goes_ahead_brings_the_last_occurrence_once_and_lapses_what_is_over() {
    let mut table = table("every 5m", "2027-05-01T00:00Z", "2027-05-01T00:01Z");
    table.set(
        &"night",
        scheduled("cron \"0 2 * * *\" between 02:00 and 03:00"),
        moment("2027-05-01T00:00Z"),
        moment("2027-05-01T00:01Z"),
    );
    let now = moment("2027-05-01T09:33Z");
    let taken = table.take(now);
    assert_eq!(taken.turns.len(), 1);
    assert_eq!((shown(taken.turns[0].planned).as_str(), taken.turns[0].cause), ("2027-05-01T09:30Z", Cause::Missed));
    assert_eq!(taken.lapsed, [("night", moment("2027-05-01T02:00Z"))]);
    assert_eq!(shown(table.next_of(&"night").unwrap()), "2027-05-02T02:00Z");
}

#[test]
fn a_clock_that_is_set_back_brings_nothing_again_and_one_that_was_wrong_holds_up_nothing() {
    let mut hour = table("cron \"30 * * * *\"", "2027-05-01T04:00Z", "2027-05-01T04:00Z");
    assert_eq!(take(&mut hour, "2027-05-01T04:30Z"), one("2027-05-01T04:30Z", Cause::Planned));
    for again in ["2027-05-01T01:30Z", "2027-05-01T03:30Z", "2027-05-01T04:30Z"] {
        assert_eq!(take(&mut hour, again), [], "{again} came");
    }
    assert_eq!(take(&mut hour, "2027-05-01T05:30Z"), one("2027-05-01T05:30Z", Cause::Planned));
    // Years ahead by mistake, and then right again.
    assert_eq!(take(&mut hour, "2035-05-01T05:30Z"), one("2035-05-01T05:30Z", Cause::Missed));
    assert_eq!(take(&mut hour, "2027-05-01T06:00Z"), []);
    assert_eq!(next(&hour).as_deref(), Some("2027-05-01T06:30Z"));
    // The same where the node was started in between.
    let kept = table("cron \"30 * * * *\"", "2035-05-01T05:30Z", "2027-05-01T06:00Z");
    assert_eq!(next(&kept).as_deref(), Some("2027-05-01T06:30Z"));
}

#[test]
fn what_is_being_carried_out_comes_again_after_its_end_only() {
    let mut table = table("every 1m", "2027-05-01T00:00Z", "2027-05-01T00:00Z");
    let at = |text| moment(text);
    assert_eq!(table.take(at("2027-05-01T00:01Z")).turns.len(), 1);
    assert_eq!(table.next_wakeup(), None);
    assert_eq!(table.take(at("2027-05-01T00:07:30Z")).turns, []);
    table.ended(&"it", at("2027-05-01T00:07:30Z"));
    assert_eq!(take(&mut table, "2027-05-01T00:07:30Z"), one("2027-05-01T00:07Z", Cause::Planned));
    // What was taken off meanwhile does not come back by its end.
    assert_eq!(table.take(at("2027-05-01T00:08Z")).turns.len(), 1);
    table.remove(&"it");
    table.ended(&"it", at("2027-05-01T00:08Z"));
    assert_eq!(table.next_wakeup(), None);
}

#[test]
fn what_could_not_be_begun_is_not_lost() {
    let mut table = table("at 2027-05-01T01:00", "2027-05-01T00:00Z", "2027-05-01T00:00Z");
    let turn = table.take(moment("2027-05-01T01:00Z")).turns.remove(0);
    table.put_back(&turn, moment("2027-05-01T01:00:30Z"), moment("2027-05-01T01:00Z"));
    assert_eq!(take(&mut table, "2027-05-01T01:00:29Z"), []);
    assert_eq!(take(&mut table, "2027-05-01T01:00:30Z"), one("2027-05-01T01:00Z", Cause::Planned));
    assert_eq!(next(&table), None);
}

#[test]
fn what_comes_once_and_could_not_be_begun_is_not_lost() {
    let mut table = Table::default();
    let at = moment("2027-05-01T01:00Z");
    table.set(&"it", Rhythm::Once(at), at, at);
    let turn = table.take(at).turns.remove(0);
    table.put_back(&turn, moment("2027-05-01T01:00:30Z"), at);
    assert_eq!(take(&mut table, "2027-05-01T01:00:29Z"), []);
    assert_eq!(take(&mut table, "2027-05-01T01:00:30Z"), one("2027-05-01T01:00Z", Cause::Planned));
    assert_eq!((table.keys().count(), next(&table)), (0, None));
}

#[test]
fn now_comes_when_it_is_asked_for_and_its_window_opens() {
    let mut table = table("now between 22:00 and 05:00", "2027-05-01T12:00Z", "2027-05-01T12:00Z");
    assert_eq!(next(&table), None);
    table.ask(&"it", moment("2027-05-01T13:00Z"));
    table.ask(&"it", moment("2027-05-01T14:00Z"));
    assert_eq!(next(&table).as_deref(), Some("2027-05-01T22:00Z"));
    let taken = table.take(moment("2027-05-01T22:00Z")).turns.remove(0);
    assert_eq!((taken.cause, taken.closes), (Cause::Asked, Some(moment("2027-05-02T05:00Z"))));
    // Asked for while it is carried out, it comes once more.
    table.ask(&"it", moment("2027-05-01T22:01Z"));
    assert_eq!(table.next_wakeup(), None);
    table.ended(&"it", moment("2027-05-01T22:02Z"));
    assert_eq!(take(&mut table, "2027-05-01T22:02Z"), one("2027-05-01T22:02Z", Cause::Asked));
    assert_eq!(next(&table), None);
    // A window that closed before anybody could act is waited for again.
    table.ask(&"it", moment("2027-05-02T04:59:59Z"));
    assert_eq!(take(&mut table, "2027-05-02T05:00Z"), []);
    assert_eq!(next(&table).as_deref(), Some("2027-05-02T22:00Z"));
}

#[test]
fn what_is_retried_comes_again_after_a_quarter_of_an_hour_within_its_window() {
    let mut table = Table::default();
    let begin = moment("2027-05-01T22:00Z");
    table.set(&"it", Rhythm::Retried(schedule("now between 22:00 and 22:40")), begin, begin);
    assert_eq!(take(&mut table, "2027-05-01T22:15Z"), one("2027-05-01T22:15Z", Cause::Again));
    table.ask(&"it", moment("2027-05-01T22:20Z"));
    assert_eq!(take(&mut table, "2027-05-01T22:20Z"), one("2027-05-01T22:20Z", Cause::Asked));
    assert_eq!(take(&mut table, "2027-05-01T22:35Z"), one("2027-05-01T22:35Z", Cause::Again));
    assert_eq!(next(&table).as_deref(), Some("2027-05-02T22:00Z"));
    // A clock that was set back does not make it wait for what it showed before.
    assert_eq!(take(&mut table, "2027-05-01T22:05Z"), []);
    assert_eq!(next(&table).as_deref(), Some("2027-05-01T22:20Z"));
}

#[test]
fn jitter_puts_off_what_comes_and_not_what_it_is_known_by() {
    let mut table = table("cron \"0 2 * * *\" jitter 1h", "2027-05-01T00:00Z", "2027-05-01T00:00Z");
    let due = table.next_wakeup().unwrap();
    let late = due.since(moment("2027-05-01T02:00Z"));
    assert!(late > Duration::ZERO && late < Duration::from_secs(3600), "{late:?}");
    assert_eq!(table.take(UnixMillis::from_millis(due.millis() - 1)).turns, []);
    let turn = table.take(due).turns.remove(0);
    assert_eq!((shown(turn.planned).as_str(), turn.cause), ("2027-05-01T02:00Z", Cause::Planned));
    assert_eq!(shown(turn.before), "2027-05-01T00:00Z");
}

#[test]
fn what_comes_once_comes_once_even_where_it_is_past() {
    let mut table = Table::default();
    let now = moment("2027-05-01T22:00Z");
    for (key, at) in [("past", "2027-05-01T21:00Z"), ("to come", "2027-05-01T23:00Z")] {
        table.set(&key, Rhythm::Once(moment(at)), now, now);
    }
    assert_eq!(table.take(now).turns.iter().map(|turn| turn.key).collect::<Vec<_>>(), ["past"]);
    assert_eq!(table.take(moment("2027-05-02T00:00Z")).turns.len(), 1);
    assert_eq!((table.keys().count(), table.next_wakeup()), (0, None));
}

#[test]
fn a_look_costs_what_is_due_however_much_is_planned() {
    let mut table = Timetable::<String>::default();
    let now = moment("2027-05-01T00:00Z");
    for number in 0..1000 {
        let minute = number % 60;
        let text = format!("cron \"{minute} {} * * *\"", number / 60);
        table.set(&format!("send/{number:04}"), scheduled(&text), now, now);
    }
    let mut came = 0;
    for minute in 1..=1440 {
        let now = now.plus(Duration::from_secs(60 * minute));
        let turns = table.take(now).turns;
        assert!(turns.len() <= 1, "{} at minute {minute}", turns.len());
        came += turns.len();
        turns.iter().for_each(|turn| table.ended(&turn.key, now));
    }
    assert_eq!(came, 1000);
}
