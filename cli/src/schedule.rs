//! `schedule …`: what a schedule means, without any daemon, the same in both binaries.

use serde::{Deserialize, Serialize};
use ted_core::id::UnixMillis;
use ted_core::limits::Limits;
use ted_core::node::{Clock as _, SystemClock};
use ted_core::schedule::{OpenTime, Schedule, Start, Zone};

use crate::error::{ApiError, from_library};
use crate::output::{self, Column, Format, Render, Text};
use crate::units::{self, Time};

/// More rows than these are read by nobody.
const ROWS_MAX: i64 = 10_000;

/// What to ask of a schedule.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ScheduleCommand {
    /// Print when a schedule comes next, so that it can be tried before it is used.
    Next(NextArgs),
}

/// Which schedule, from when on, and how far.
#[derive(Debug, Clone, clap::Args)]
pub struct NextArgs {
    /// The schedule in quotes, such as 'every 30m between 22:00 and 05:00 in Europe/Berlin'.
    #[arg(value_name = "EXPR")]
    pub expression: String,
    /// How many occurrences.
    #[arg(short = 'n', long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=ROWS_MAX))]
    pub number: u16,
    /// After which time, such as 2027-01-31T02:00:00Z [default: now].
    #[arg(long, value_name = "TIME")]
    pub after: Option<Time>,
}

/// When a schedule comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// The schedule, as it is written.
    pub schedule: String,
    /// The time zone that its times are in.
    pub zone: String,
    /// After which time was asked.
    pub after: Time,
    /// What the calendar does not say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// By how many seconds occurrences are put off at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_seconds: Option<u64>,
    /// The next occurrences, as they are planned: jitter puts them off.
    pub next: Vec<OccurrenceView>,
    /// Where it follows no calendar: the next times at which its window is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowView>,
}

/// One occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OccurrenceView {
    /// When, in universal time.
    pub at: Time,
    /// The same in the schedule's zone.
    pub local: String,
    /// When the window closes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes: Option<Time>,
}

/// A time that a window is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// Its first moment.
    pub opens: Time,
    /// The same in the schedule's zone.
    pub local: String,
    /// The first moment after it.
    pub closes: Time,
}

/// Carries out a `schedule` command and prints its outcome.
///
/// # Errors
/// The library's codes for texts that are no schedule.
pub fn run(command: &ScheduleCommand, format: Format) -> Result<(), ApiError> {
    let ScheduleCommand::Next(args) = command;
    let schedule: Schedule = args.expression.parse().map_err(from_library)?;
    let after = args.after.map_or_else(|| SystemClock.now(), |time| time.0);
    output::print(format, &view(&schedule, after, args.number.into()))
}

fn view(schedule: &Schedule, after: UnixMillis, number: usize) -> ScheduleView {
    let zone = schedule.zone();
    let occurrences = std::iter::successors(schedule.next_after(after), |last| schedule.next_after(*last));
    let next = occurrences.take(number).map(|at| OccurrenceView {
        at: Time(at),
        local: local(&zone, at),
        closes: schedule.open_time(at).map(|open| Time(open.closes)),
    });
    let by_calendar = matches!(schedule.start(), Start::At(_) | Start::Every(_) | Start::Cron(_));
    let first = schedule.open_time(after).or_else(|| schedule.next_open_time(after));
    let open = std::iter::successors(first, |last| schedule.next_open_time(last.opens));
    let open = open.take(if by_calendar || *schedule.start() == Start::Never { 0 } else { number });
    let window = |open: OpenTime| WindowView {
        opens: Time(open.opens),
        local: local(&zone, open.opens),
        closes: Time(open.closes),
    };
    ScheduleView {
        schedule: schedule.to_string(),
        zone: zone.to_string(),
        after: Time(after),
        note: note(schedule.start()),
        jitter_seconds: schedule.jitter().map(|jitter| jitter.as_secs()),
        next: next.collect(),
        windows: open.map(window).collect(),
    }
}

fn local(zone: &Zone, at: UnixMillis) -> String {
    zone.show(at).unwrap_or_else(|| Time(at).to_string())
}

fn note(start: &Start) -> Option<String> {
    let note = match start {
        Start::Never => "never by itself",
        Start::Now => {
            let minutes = Limits::DEFAULT.schedule_retry_seconds / 60;
            return Some(format!("on every new revision, and every {minutes} minutes while a Subscriber lacks it"));
        }
        Start::WithSend => "whenever a Channel that has the Distribution fires",
        Start::At(_) => "once; afterwards only by hand",
        Start::Every(_) | Start::Cron(_) => return None,
    };
    Some(note.to_owned())
}

impl Render for ScheduleView {
    fn render(&self, out: &mut Text) {
        let seconds = self.jitter_seconds.map(std::time::Duration::from_secs);
        out.fields([
            ("schedule", Some(self.schedule.clone())),
            ("zone", Some(self.zone.clone())),
            ("comes", self.note.clone()),
            ("jitter", seconds.map(|jitter| format!("each up to {} later", units::duration(jitter)))),
        ]);
        if !self.windows.is_empty() {
            out.gap();
            let columns = [Column::Left("WINDOW OPENS"), Column::Left("UTC"), Column::Left("CLOSES, UTC")];
            let row = |open: &WindowView| vec![open.local.clone(), open.opens.to_string(), open.closes.to_string()];
            out.table(&columns, self.windows.iter().map(row), "");
        } else if !self.next.is_empty() {
            out.gap();
            let windowed = self.next.iter().any(|next| next.closes.is_some());
            let columns = [Column::Left("LOCAL"), Column::Left("UTC"), Column::Left("WINDOW CLOSES, UTC")];
            let row = |next: &OccurrenceView| {
                let closes = windowed.then(|| output::or_dash(next.closes));
                [next.local.clone(), next.at.to_string()].into_iter().chain(closes).collect()
            };
            out.table(&columns[..if windowed { 3 } else { 2 }], self.next.iter().map(row), "");
        } else if self.note.is_none() || self.schedule.starts_with("at ") {
            out.gap();
            out.line(format!("nothing after {}", self.after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;

    fn shown(text: &str, number: usize) -> String {
        let after: Time = "2027-03-27T12:00:00Z".parse().expect("a time");
        let mut out = Text::new(Paint::Plain);
        view(&text.parse().expect("a schedule"), after.0, number).render(&mut out);
        out.into_string()
    }

    #[test]
    fn occurrences_are_shown_in_the_zone_and_in_universal_time() {
        assert_eq!(
            shown("cron \"30 2 * * *\" in Europe/Berlin jitter 10m", 2),
            "schedule  cron \"30 2 * * *\" in Europe/Berlin jitter 10m\n\
             zone      Europe/Berlin\n\
             jitter    each up to 10m 00s later\n\n\
             LOCAL                      UTC\n\
             2027-03-28T03:00:00+02:00  2027-03-28T01:00:00Z\n\
             2027-03-29T02:30:00+02:00  2027-03-29T00:30:00Z\n"
        );
    }

    #[test]
    fn what_follows_no_calendar_says_so_and_shows_its_windows() {
        assert_eq!(shown("never", 2), "schedule  never\nzone      UTC\ncomes     never by itself\n");
        let now = shown("now on sun in Europe/Berlin", 2);
        assert!(now.contains("every 15 minutes"), "{now}");
        assert!(now.contains("2027-03-28T00:00:00+01:00  2027-03-27T23:00:00Z  2027-03-28T22:00:00Z"), "{now}");
        assert!(shown("at 2027-01-01T00:00", 1).ends_with("nothing after 2027-03-27T12:00:00Z\n"));
        let windowed = shown("every 1h between 22:00 and 05:00", 1);
        assert!(
            windowed.contains("2027-03-27T22:00:00+00:00  2027-03-27T22:00:00Z  2027-03-28T05:00:00Z"),
            "{windowed}"
        );
    }

    #[test]
    fn the_json_reads_back() {
        let asked = view(&"now on sun".parse().expect("a schedule"), UnixMillis::from_millis(0), 1);
        let text = serde_json::to_string(&asked).expect("JSON");
        assert_eq!(serde_json::from_str::<ScheduleView>(&text).expect("the same"), asked);
    }
}
