//! Sending: firings, and how far each Subscriber is.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ted_cli::error::{ApiError, code};
use ted_cli::output::{Column, Render, Text, count, list, or_dash};
use ted_cli::units::{self, Time};
use ted_core::distributor::SendPlan;
use ted_core::id::FiringId;
use ted_core::name::{Label, NodeName};
use ted_core::protocol::{Cause, PartRole};

use super::BuildView;
use super::firings::cause;
use crate::cli::Until;

/// Fires a Channel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelSend {
    pub(crate) channel: Label,
    /// Build first what has changed.
    pub(crate) build: bool,
    /// Only say what would happen.
    pub(crate) dry_run: bool,
}

/// Answers when the firing is [settled](FiringView::is_settled), or after `timeout_ms` as it is then.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FiringWait {
    #[serde(with = "ted_cli::text")]
    pub(crate) firing: FiringId,
    pub(crate) until: Until,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FiringCancel {
    #[serde(with = "ted_cli::text")]
    pub(crate) firing: FiringId,
}

ted_cli::operations! {
    ChannelSend => "channel/send" -> SendView,
    FiringWait => "firing/wait" -> FiringView,
    FiringCancel => "firing/cancel" -> FiringView,
}

/// What was started, or would be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SendView {
    pub(crate) channel: Label,
    /// The firing's id; `None` for a dry run.
    pub(crate) firing: Option<String>,
    /// The builds that came first; none for a dry run or without building.
    pub(crate) builds: Vec<BuildView>,
    pub(crate) distributions: Vec<PlannedView>,
    pub(crate) subscribers: Vec<NodeName>,
    /// Those of the Channel to whom nothing is sent: they are not enrolled, or were revoked.
    #[serde(default)]
    pub(crate) left_out: Vec<NodeName>,
    /// What a dry run expects: bytes, links, and how long it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<SendPlan>,
}

/// A Distribution that is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlannedView {
    pub(crate) distribution: Label,
    /// The revision that is sent; `None` where a dry run would build one first.
    pub(crate) revision: Option<u64>,
    /// Bytes of the package that a Subscriber without any revision fetches.
    pub(crate) package_bytes: Option<u64>,
}

impl Render for SendView {
    fn render(&self, out: &mut Text) {
        for build in &self.builds {
            build.render(out);
        }
        let is_built = |name: &Label| self.builds.iter().any(|build| build.distribution == *name);
        for planned in self.distributions.iter().filter(|planned| !is_built(&planned.distribution)) {
            let what = match (planned.revision, planned.package_bytes) {
                (Some(revision), Some(bytes)) => format!("revision {revision}, {}", units::bytes(bytes)),
                (Some(revision), None) => format!("revision {revision}"),
                (None, _) => "built first: the source has changed".to_owned(),
            };
            out.line(format_args!("{}: {what}", planned.distribution));
        }
        let subscribers = count(self.subscribers.len() as u64, "Subscriber", "Subscribers");
        match &self.firing {
            Some(firing) => out.line(format_args!("{}: sending to {subscribers}, firing {firing}", self.channel)),
            None => out.line(format_args!("{}: would be sent to {subscribers}; nothing was done", self.channel)),
        }
        if !self.left_out.is_empty() {
            out.line(format_args!("left out, since not enrolled or revoked: {}", list(&self.left_out)));
        }
        if let Some(plan) = &self.plan {
            out.gap();
            forecast(plan, out);
            if self.distributions.iter().any(|planned| planned.revision.is_none()) {
                out.line("without what is built first: how much that is shows when it is built");
            }
        }
    }
}

/// What crosses each link and how long it takes, and who will not be done.
fn forecast(plan: &SendPlan, out: &mut Text) {
    let columns = [
        Column::Left("LINK TO"),
        Column::Left("THROUGH"),
        Column::Right("BYTES"),
        Column::Right("RATE"),
        Column::Right("TIME"),
        Column::Left("FITS"),
    ];
    let rows = plan.links.iter().map(|link| {
        let fits = link.fits.map(|fits| if fits { "yes" } else { "no" }.to_owned());
        vec![
            link.subscriber.to_string(),
            or_dash(link.through.as_ref()),
            units::bytes(link.bytes),
            link.bytes_per_second.map_or_else(|| "not known".to_owned(), |rate| format!("{}/s", units::bytes(rate))),
            link.takes_seconds.map_or_else(|| "-".to_owned(), |time| units::duration(Duration::from_secs(time))),
            or_dash(fits),
        ]
    });
    out.table(&columns, rows, "nothing would be sent");
    let Some(closes) = plan.closes else { return };
    let late = |row: &&ted_core::distributor::PlannedDelivery| row.fits == Some(false);
    let late: BTreeSet<String> = plan.rows.iter().filter(late).map(|row| row.subscriber.to_string()).collect();
    let (starts, closes) = (Time::from(plan.starts), Time::from(closes));
    out.line(format_args!("the window: from {starts} to {closes}"));
    if !late.is_empty() {
        out.line(format_args!("not done when it closes: {}", list(&late)));
    }
}

/// How a firing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FiringState {
    /// Somebody still waits for something.
    Open,
    /// Everyone is done, well or not.
    Done,
    /// Somebody ended it.
    Cancelled,
}

/// How far one Distribution is at one Subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeliveryStage {
    /// It is not connected, or has not answered the offer yet.
    Waiting,
    /// Bytes flow.
    Sending,
    /// All bytes are there.
    Received,
    /// They are what was signed.
    Verified,
    /// The files are in their places.
    Extracted,
    /// It was damaged beyond the tries that are allowed.
    Corrupt,
    /// It ended with an error.
    Failed,
}

impl DeliveryStage {
    /// Whether `until` is reached.
    pub(crate) fn has_reached(self, until: Until) -> bool {
        match until {
            Until::Received => matches!(self, Self::Received | Self::Verified | Self::Extracted),
            Until::Extracted => self == Self::Extracted,
        }
    }

    /// Whether this firing will not bring it any further.
    pub(crate) fn has_failed(self) -> bool {
        matches!(self, Self::Corrupt | Self::Failed)
    }
}

impl fmt::Display for DeliveryStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Received => "received",
            Self::Verified => "verified",
            Self::Extracted => "extracted",
            Self::Corrupt => "corrupt",
            Self::Failed => "failed",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryView {
    pub(crate) subscriber: NodeName,
    pub(crate) distribution: Label,
    pub(crate) revision: u64,
    /// Whether it is to have the Distribution, or only passes it on.
    #[serde(default)]
    pub(crate) role: PartRole,
    pub(crate) stage: DeliveryStage,
    /// Bytes of packages that have crossed so far, and that will in all; 0 of 0 where nothing is known.
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    /// The error's code where it failed.
    pub(crate) code: Option<String>,
    /// What happened, for people.
    pub(crate) detail: Option<String>,
    /// What was done about the Distributor's own copy before, with its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// When this was last heard of.
    pub(crate) at: Option<Time>,
}

pub(super) fn table(deliveries: &[DeliveryView], out: &mut Text) {
    let columns = [
        Column::Left("SUBSCRIBER"),
        Column::Left("DISTRIBUTION"),
        Column::Left("REVISION"),
        Column::Left("STAGE"),
        Column::Right("SENT"),
        Column::Left("AT"),
        Column::Left("DETAIL"),
    ];
    let rows = deliveries.iter().map(|delivery| {
        let bytes = (delivery.total_bytes > 0).then(|| units::bytes(delivery.done_bytes));
        let code = delivery.code.as_ref().map(|code| match delivery.detail {
            Some(_) => format!("{code}:"),
            None => code.clone(),
        });
        let detail = code.iter().chain(&delivery.detail).chain(&delivery.note);
        let detail: Vec<_> = detail.map(String::as_str).collect();
        vec![
            delivery.subscriber.to_string(),
            delivery.distribution.to_string(),
            delivery.revision.to_string(),
            delivery.stage.to_string(),
            or_dash(bytes),
            or_dash(delivery.at),
            detail.join(" "),
        ]
    });
    out.table(&columns, rows, "nobody to send to");
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FiringView {
    pub(crate) firing: String,
    pub(crate) channel: Label,
    /// Why it began.
    #[serde(default)]
    pub(crate) cause: Cause,
    pub(crate) started: Time,
    /// When its window closes, after which nothing new is started.
    #[serde(default)]
    pub(crate) closes: Option<Time>,
    /// When it was over.
    #[serde(default)]
    pub(crate) ended: Option<Time>,
    pub(crate) state: FiringState,
    pub(crate) deliveries: Vec<DeliveryView>,
}

impl FiringView {
    /// Whether waiting any longer changes nothing: each delivery has reached `until` or failed, or the firing ended.
    pub(crate) fn is_settled(&self, until: Until) -> bool {
        let settled = |delivery: &DeliveryView| delivery.stage.has_reached(until) || delivery.stage.has_failed();
        self.state != FiringState::Open || self.recipients().all(settled)
    }

    /// Those that are to have it: who only passes it on decides nothing.
    fn recipients(&self) -> impl Iterator<Item = &DeliveryView> {
        self.deliveries.iter().filter(|delivery| delivery.role == PartRole::Recipient)
    }

    /// How `send --wait` ends once the firing is settled.
    ///
    /// # Errors
    /// [`code::PARTLY_DELIVERED`], [`code::NOT_DELIVERED`] or [`code::CANCELLED`] where somebody was not reached.
    pub(crate) fn verdict(&self, until: Until) -> Result<(), ApiError> {
        let all = self.recipients().count();
        let reached = self.recipients().filter(|delivery| delivery.stage.has_reached(until)).count();
        let message = format!("{reached} of {all} deliveries reached their end");
        match (reached, self.state) {
            (reached, _) if reached == all => Ok(()),
            (_, FiringState::Cancelled) => Err(ApiError::new(code::CANCELLED, format!("cancelled: {message}"))),
            (0, _) => Err(ApiError::new(code::NOT_DELIVERED, message)),
            _ => Err(ApiError::new(code::PARTLY_DELIVERED, message)),
        }
    }
}

impl Render for FiringView {
    fn render(&self, out: &mut Text) {
        let state = match self.state {
            FiringState::Open => "open",
            FiringState::Done => "done",
            FiringState::Cancelled => "cancelled",
        };
        let closes = match (self.closes, self.ended) {
            (Some(closes), None) => format!(", window closes {closes}"),
            (_, Some(ended)) => format!(" until {ended}"),
            (None, None) => String::new(),
        };
        let cause = cause(self.cause);
        let (firing, channel, started) = (&self.firing, &self.channel, self.started);
        out.line(format_args!("firing {firing} of {channel} ({cause}), {state}, since {started}{closes}"));
        table(&self.deliveries, out);
    }
}

#[cfg(test)]
mod tests {
    use ted_cli::exit::Exit;
    use ted_core::id::UnixMillis;

    use super::*;

    fn firing(state: FiringState, stages: &[DeliveryStage]) -> FiringView {
        let deliveries = stages.iter().map(|&stage| DeliveryView {
            subscriber: "s1".parse().expect("valid"),
            distribution: "site".parse().expect("valid"),
            revision: 5,
            role: PartRole::Recipient,
            stage,
            done_bytes: 1,
            total_bytes: 2,
            code: None,
            detail: None,
            note: None,
            at: None,
        });
        FiringView {
            firing: "00".repeat(16),
            channel: "nightly".parse().expect("valid"),
            cause: Cause::default(),
            started: Time(UnixMillis::from_millis(0)),
            closes: None,
            ended: None,
            state,
            deliveries: deliveries.collect(),
        }
    }

    #[test]
    fn waiting_ends_when_everyone_is_done_or_failed_and_the_exit_code_says_which() {
        use DeliveryStage::{Corrupt, Extracted, Failed, Received, Sending, Verified, Waiting};
        use FiringState::{Cancelled, Done, Open};
        use Until::Extracted as Files;
        use Until::Received as Packages;
        let (fine, none, partly) = (Exit::Success, Exit::Failure, Exit::PartlyDelivered);
        for (state, stages, until, settled, exit) in [
            (Open, vec![Extracted, Extracted], Files, true, fine),
            (Open, vec![Verified, Extracted], Packages, true, fine),
            (Open, vec![Received], Packages, true, fine),
            (Open, vec![Sending], Packages, false, none),
            (Open, vec![Verified, Extracted], Files, false, partly),
            (Open, vec![Waiting], Files, false, none),
            (Open, vec![Sending, Failed], Files, false, none),
            (Open, vec![Extracted, Failed], Files, true, partly),
            (Open, vec![Corrupt, Failed], Files, true, none),
            (Done, vec![Extracted], Files, true, fine),
            (Done, vec![], Files, true, fine),
            (Cancelled, vec![Extracted, Waiting], Files, true, none),
            (Cancelled, vec![Extracted], Files, true, fine),
        ] {
            let firing = firing(state, &stages);
            assert_eq!(firing.is_settled(until), settled, "{stages:?}");
            let verdict = firing.verdict(until).map_or_else(|error| error.exit(), |()| Exit::Success);
            assert_eq!(verdict, exit, "{state:?} {stages:?}");
        }
    }

    #[test]
    fn views_survive_json() {
        let view = firing(FiringState::Open, &[DeliveryStage::Sending]);
        let json = serde_json::to_value(&view).expect("written");
        assert_eq!(json["deliveries"][0]["stage"], "sending");
        assert_eq!(json["started"], "1970-01-01T00:00:00Z");
        assert_eq!(serde_json::from_value::<FiringView>(json).expect("read"), view);
    }
}
