//! What is a schedule, how it is written, and what is said of what is none.

use proptest::prelude::*;

use super::schedule;
use crate::error::Coded;
use crate::schedule::{Purpose, Schedule};

#[test]
fn schedules_are_written_in_one_way_which_reads_back() {
    for (given, written) in [
        ("never", "never"),
        ("now", "now"),
        ("with send", "with send"),
        ("at 2027-01-31T02:00", "at 2027-01-31T02:00"),
        ("at 2028-02-29T23:59", "at 2028-02-29T23:59"),
        ("every 30m", "every 30m"),
        ("every 60s", "every 1m"),
        ("every 120m", "every 2h"),
        ("every 48h", "every 2d"),
        ("every 90m", "every 90m"),
        ("cron \"0 2 * * mon-fri\"", "cron \"0 2 * * mon-fri\""),
        ("cron  \" 0  2 * *   5L \"", "cron \"0 2 * * 5L\""),
        ("  now   between 22:00 and  05:00 ", "now between 22:00 and 05:00"),
        ("now between 18:00 and 00:00", "now between 18:00 and 00:00"),
        ("every 1h on sun,mon,mon", "every 1h on mon,sun"),
        ("every 1h on mon,tue,wed,thu,fri,sat,sun", "every 1h"),
        ("now in europe/berlin", "now in Europe/Berlin"),
        ("now in UTC", "now in UTC"),
        ("now jitter 600s", "now jitter 10m"),
        (
            "cron \"0 2 * * *\" jitter 10m in Europe/Berlin on mon,tue between 01:00 and 03:00",
            "cron \"0 2 * * *\" between 01:00 and 03:00 on mon,tue in Europe/Berlin jitter 10m",
        ),
    ] {
        let read = schedule(given);
        assert_eq!(read.to_string(), written, "{given}");
        assert_eq!(schedule(written), read, "{given}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_its_place_and_a_remedy() {
    for (text, code, at, says) in [
        ("", "TED-1610", 1, "begins with never, now"),
        ("hourly", "TED-1610", 1, "`hourly`"),
        ("Now", "TED-1610", 1, "`Now`"),
        ("with", "TED-1610", 5, "where it ends"),
        ("with build", "TED-1610", 6, "`build`"),
        ("at", "TED-1611", 3, "2027-01-31T02:00"),
        ("at 02:00", "TED-1611", 4, "2027-01-31T02:00"),
        ("at 2027-02-29T02:00", "TED-1611", 4, "`2027-02-29T02:00`"),
        ("at 2027-01-31T24:00", "TED-1611", 4, ""),
        ("at 2027-01-31T02:00Z", "TED-1611", 4, "in Europe/Berlin"),
        ("at 2027-01-31T02:00:00", "TED-1611", 4, ""),
        ("at 1969-01-31T02:00", "TED-1611", 4, ""),
        ("at 20270-1-31T02:00", "TED-1611", 4, ""),
        ("every", "TED-1612", 6, "30m"),
        ("every 30", "TED-1612", 7, "30m, 12h or 7d"),
        ("every 59s", "TED-1612", 7, "from 1m to 3650d"),
        ("every 3651d", "TED-1612", 7, "from 1m to 3650d"),
        ("every 1.5h", "TED-1612", 7, ""),
        ("every -1h", "TED-1612", 7, ""),
        ("every 99999999999999999999d", "TED-1612", 7, ""),
        ("every 10m jitter 10m", "TED-1612", 18, "shorter than 10m"),
        ("now jitter 25h", "TED-1612", 12, "from 1s to 1d"),
        ("now jitter 0s", "TED-1612", 12, ""),
        ("cron", "TED-1613", 5, "double quotes"),
        ("cron 0 2 * * *", "TED-1613", 6, "double quotes"),
        ("cron \"0 2 * * *", "TED-1613", 6, "double quotes"),
        ("cron \"0 2 * *\"", "TED-1613", 6, "five fields"),
        ("cron \"0 0 2 * * *\"", "TED-1613", 6, "five fields"),
        ("cron \"@daily\"", "TED-1613", 6, "five fields"),
        ("cron \"60 2 * * *\"", "TED-1613", 6, ""),
        ("cron \"0 2 * * someday\"", "TED-1613", 6, ""),
        ("now between 22:00", "TED-1614", 18, "22:00 and 05:00"),
        ("now between 22:00 to 05:00", "TED-1614", 19, "`to`"),
        ("now between 22:00 and 24:00", "TED-1614", 23, "`24:00`"),
        ("now between 9:00 and 10:00", "TED-1614", 13, "`9:00`"),
        ("now between 09:00 and 09:00", "TED-1614", 23, "different"),
        ("now on monday", "TED-1614", 8, "`monday`"),
        ("now on mon, tue", "TED-1614", 8, "without spaces"),
        ("now on mon-fri", "TED-1614", 8, "`mon-fri`"),
        ("now daily", "TED-1614", 5, "`daily`"),
        ("now on mon on tue", "TED-1614", 12, "second"),
        ("now in Berlin", "TED-1615", 8, "Europe/Berlin"),
        ("now in", "TED-1615", 7, "where it ends"),
        ("now in Etc/Unknown", "TED-1615", 8, ""),
        ("cron \"0 0 30 2 *\"", "TED-1616", 1, "never comes"),
        ("cron \"0 2 * * *\" between 03:00 and 05:00", "TED-1616", 1, "`between`"),
        ("cron \"0 2 * * mon\" on tue", "TED-1616", 1, "`on`"),
        ("at 2027-01-31T02:00 between 03:00 and 05:00", "TED-1616", 1, ""),
        ("now\njitter 1m", "TED-1618", 4, "`\\n`"),
        ("é on x", "TED-1610", 1, ""),
        ("now in é on x", "TED-1615", 8, ""),
        ("now on mon é", "TED-1614", 12, "`é`"),
    ] {
        let error = text.parse::<Schedule>().expect_err(text);
        assert_eq!((error.code(), error.at), (code, at), "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    let long = format!("now in {}", "x".repeat(250)).parse::<Schedule>().expect_err("long");
    assert_eq!((long.code(), long.at), ("TED-1618", 257), "{long}");
}

#[test]
fn only_builds_go_with_a_send() {
    assert!(Schedule::parse_for(Purpose::Build, "with send").is_ok());
    for purpose in [Purpose::Refresh, Purpose::Send, Purpose::Extract] {
        let error = Schedule::parse_for(purpose, " with send").expect_err("refused");
        assert_eq!((error.code(), error.at), ("TED-1617", 2), "{error}");
        assert!(error.to_string().contains(&purpose.to_string()), "{error}");
        assert!(Schedule::parse_for(purpose, "every 1h").is_ok());
    }
}

fn starts() -> impl Strategy<Value = String> {
    let cron_field = |top: u32| {
        prop_oneof![
            Just("*".to_owned()),
            (2..9u32).prop_map(|n| format!("*/{n}")),
            (0..top).prop_map(|n| n.to_string())
        ]
    };
    prop_oneof![
        Just("never".to_owned()),
        Just("now".to_owned()),
        Just("with send".to_owned()),
        (1971..9000u32, 1..=12u32, 1..=28u32, 0..24u32, 0..60u32)
            .prop_map(|(y, m, d, h, min)| format!("at {y:04}-{m:02}-{d:02}T{h:02}:{min:02}")),
        (1..3000u32, prop_oneof![Just("m"), Just("h"), Just("d")]).prop_map(|(n, unit)| format!("every {n}{unit}")),
        (cron_field(60), cron_field(24), prop_oneof![Just("*"), Just("1-7"), Just("L"), Just("15W")], 1..=12u32)
            .prop_map(|(m, h, day, month)| format!("cron \"{m} {h} {day} {month} *\"")),
    ]
}

fn clauses() -> impl Strategy<Value = String> {
    let days = proptest::sample::subsequence(vec!["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 1..=7);
    let parts = (
        proptest::option::of(
            (0..24u32, 0..60u32, 0..24u32, 0..60u32)
                .prop_map(|(a, b, c, d)| format!(" between {a:02}:{b:02} and {c:02}:{d:02}")),
        ),
        proptest::option::of(days.prop_shuffle().prop_map(|days| format!(" on {}", days.join(",")))),
        proptest::option::of(
            proptest::sample::select(vec![
                " in Europe/Berlin",
                " in America/New_York",
                " in Australia/Lord_Howe",
                " in Asia/Kathmandu",
                " in utc",
                " in EST5EDT",
            ])
            .prop_map(str::to_owned),
        ),
        proptest::option::of((1..59u32).prop_map(|seconds| format!(" jitter {seconds}s"))),
    );
    parts
        .prop_map(|(between, on, zone, jitter)| [between, on, zone, jitter].into_iter().flatten().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn every_schedule_reads_back_as_it_is_written(start in starts(), clauses in clauses()) {
        // Some of these never come, or have a window without length.
        if let Ok(read) = format!("{start}{clauses}").parse::<Schedule>() {
            let written = read.to_string();
            prop_assert_eq!(schedule(&written), read);
            prop_assert_eq!(schedule(&written).to_string(), written);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(now|every|at|cron|on|in| |\"|between|jitter|[0-9:mh,é]){0,12}") {
        let _ = text.parse::<Schedule>();
    }
}
