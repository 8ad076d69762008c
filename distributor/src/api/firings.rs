//! Firings past and present, and when the next ones are.

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text, or_dash};
use ted_cli::units::Time;
use ted_core::distributor::NextFiring;
use ted_core::id::FiringId;
use ted_core::name::Label;
use ted_core::protocol::{Cause, Counts, FiringEnd, FiringHead, Outcome};

use super::FiringView;

/// Lists the firings on record, the newest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FiringList {
    /// Only this Channel's.
    pub(crate) channel: Option<Label>,
}

/// Shows a firing, whether it is over or not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FiringShow {
    #[serde(with = "ted_cli::text")]
    pub(crate) firing: FiringId,
}

ted_cli::operations! {
    FiringList => "firing/list" -> FiringsView,
    FiringShow => "firing/show" -> FiringView,
}

/// Firings on record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FiringsView {
    pub(crate) firings: Vec<FiringRow>,
}

/// One firing at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FiringRow {
    pub(crate) firing: String,
    pub(crate) channel: Label,
    pub(crate) cause: Cause,
    pub(crate) started: Time,
    /// When its window closes; none where it has none.
    pub(crate) closes: Option<Time>,
    /// When it was over; none while it is open.
    pub(crate) ended: Option<Time>,
    pub(crate) outcome: Outcome,
    /// Why it ended before all were done.
    pub(crate) end: Option<FiringEnd>,
    /// Deliveries that are done, and all.
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) counts: Counts,
}

impl From<FiringHead> for FiringRow {
    fn from(head: FiringHead) -> Self {
        Self {
            firing: head.id.to_string(),
            outcome: head.outcome(),
            done: head.counts.done(head.until),
            total: head.counts.total(),
            channel: head.channel,
            cause: head.cause,
            started: head.started.into(),
            closes: head.closes.map(Into::into),
            ended: head.ended.map(Into::into),
            end: head.end,
            counts: head.counts,
        }
    }
}

/// Why a firing began, for people.
pub(crate) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Send => "send",
        Cause::Schedule => "schedule",
        Cause::NewRevision => "new revision",
        Cause::Missed => "missed",
        Cause::Retry => "retry",
    }
}

/// What became of it, for people.
fn outcome(row: &FiringRow) -> &'static str {
    match (row.outcome, row.end) {
        (Outcome::Open, _) => "open",
        (Outcome::Complete, _) => "complete",
        (Outcome::Cancelled, _) => "cancelled",
        (Outcome::Partial, Some(FiringEnd::Superseded)) => "partial, then fired again",
        (Outcome::Partial, Some(FiringEnd::Closed)) => "partial, window closed",
        (Outcome::Partial, _) => "partial",
    }
}

impl Render for FiringsView {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("FIRING"),
            Column::Left("CHANNEL"),
            Column::Left("CAUSE"),
            Column::Left("STARTED"),
            Column::Left("ENDED"),
            Column::Left("OUTCOME"),
            Column::Right("DONE"),
        ];
        let rows = self.firings.iter().map(|row| {
            vec![
                row.firing.clone(),
                row.channel.to_string(),
                cause(row.cause).to_owned(),
                row.started.to_string(),
                or_dash(row.ended),
                outcome(row).to_owned(),
                format!("{} of {}", row.done, row.total),
            ]
        });
        out.table(&columns, rows, "nothing was ever sent");
    }
}

/// When a Channel fires next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NextView {
    pub(crate) channel: Label,
    pub(crate) schedule: String,
    pub(crate) active: bool,
    /// The planned moment of its last firing by the schedule, or when the schedule was set.
    #[serde(default)]
    pub(crate) last: Option<Time>,
    /// When it fires, by the calendar.
    pub(crate) at: Option<Time>,
    /// When the window opens, where it sends on every new revision and the window is closed.
    pub(crate) opens: Option<Time>,
}

impl From<NextFiring> for NextView {
    fn from(next: NextFiring) -> Self {
        let NextFiring { channel, schedule, active, last, at, opens } = next;
        Self { channel, schedule, active, last: last.map(Time), at: at.map(Time), opens: opens.map(Time) }
    }
}

impl NextView {
    fn when(&self) -> String {
        match (self.active, self.at, self.opens) {
            (false, ..) => "paused".to_owned(),
            (true, Some(at), _) => at.to_string(),
            (true, None, Some(opens)) => format!("on a new revision, from {opens}"),
            (true, None, None) if self.schedule.starts_with("now") => "on a new revision".to_owned(),
            (true, None, None) => "only by `send`".to_owned(),
        }
    }
}

/// The Channels and when they fire next; nothing where there are none.
pub(super) fn next_table(next: &[NextView], out: &mut Text) {
    if next.is_empty() {
        return;
    }
    out.gap();
    let columns = [Column::Left("CHANNEL"), Column::Left("SCHEDULE"), Column::Left("FIRES NEXT")];
    let rows = next.iter().map(|next| vec![next.channel.to_string(), next.schedule.clone(), next.when()]);
    out.table(&columns, rows, "");
}
