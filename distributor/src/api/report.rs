//! How deliveries stand, one by one and counted.

use serde::{Deserialize, Serialize};
use ted_cli::error::{ApiError, code};
use ted_cli::output::{Column, Render, Text, or_dash};
use ted_cli::units::{self, Time};
use ted_core::id::FiringId;
use ted_core::name::{Label, NodeName};
use ted_core::protocol::{Cause, Counts, PartRole, PartState, StageTimes, WaitingFor};

use crate::cli::{DeliveryArgs, StateArg, WaitingArg};

/// Which deliveries are asked for; see [`ted_core::distributor::DeliveryQuery`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryFilter {
    #[serde(default)]
    pub(crate) firing: Option<String>,
    #[serde(default)]
    pub(crate) channel: Option<Label>,
    #[serde(default)]
    pub(crate) distribution: Option<Label>,
    #[serde(default)]
    pub(crate) subscriber: Option<NodeName>,
    #[serde(default)]
    pub(crate) states: Vec<StateArg>,
    #[serde(default)]
    pub(crate) waiting_for: Option<WaitingArg>,
    #[serde(default)]
    pub(crate) since: Option<Time>,
}

impl From<DeliveryArgs> for DeliveryFilter {
    fn from(args: DeliveryArgs) -> Self {
        Self {
            firing: args.firing.as_ref().map(FiringId::to_string),
            channel: args.channel,
            distribution: args.distribution,
            subscriber: args.subscriber,
            states: args.state,
            waiting_for: args.waiting_for,
            since: args.since.map(Time),
        }
    }
}

/// Asks for deliveries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ReportDeliveries(pub(crate) DeliveryFilter);

/// Asks how many are how far.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ReportSummary(pub(crate) DeliveryFilter);

ted_cli::operations! {
    ReportDeliveries => "report/deliveries" -> Deliveries,
    ReportSummary => "report/summary" -> SummaryView,
}

/// One Distribution at one node in one firing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReportedDelivery {
    pub(crate) firing: String,
    pub(crate) channel: Label,
    /// When the firing began, and why.
    pub(crate) started: Time,
    pub(crate) cause: Cause,
    pub(crate) subscriber: NodeName,
    /// Whether it is to have the Distribution, or only passes it on.
    pub(crate) role: PartRole,
    pub(crate) distribution: Label,
    pub(crate) revision: u64,
    pub(crate) state: StateArg,
    pub(crate) since: Time,
    /// What it waits for, since when and until when, where that is known.
    pub(crate) waiting_for: Option<WaitingFor>,
    pub(crate) waiting_since: Option<Time>,
    pub(crate) waiting_until: Option<Time>,
    /// The node over which it was offered, where that is another one.
    pub(crate) hop: Option<NodeName>,
    /// When it came to its stages.
    pub(crate) stages: StagesView,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) code: Option<String>,
    pub(crate) detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// When a delivery came to its stages.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StagesView {
    pub(crate) offered: Option<Time>,
    pub(crate) receiving: Option<Time>,
    pub(crate) received: Option<Time>,
    pub(crate) verified: Option<Time>,
    pub(crate) extracted: Option<Time>,
}

impl From<StageTimes> for StagesView {
    fn from(times: StageTimes) -> Self {
        Self {
            offered: times.offered.map(Time),
            receiving: times.receiving.map(Time),
            received: times.received.map(Time),
            verified: times.verified.map(Time),
            extracted: times.extracted.map(Time),
        }
    }
}

impl ReportedDelivery {
    /// The state as people read it: with how much is there, or what is waited for.
    fn state_text(&self) -> String {
        if let Some(waiting) = self.waiting_for {
            let until = self.waiting_until.map(|until| format!(" until {until}")).unwrap_or_default();
            let waiting = format!("waiting for {}{until}", waiting.as_str());
            let goes_on = [StateArg::Pending, StateArg::Offered, StateArg::Receiving].contains(&self.state);
            return if goes_on { waiting } else { format!("{}, {waiting}", state_word(self.state)) };
        }
        let state = state_word(self.state);
        if self.state == StateArg::Receiving && self.total_bytes > 0 {
            let percent = self.done_bytes.min(self.total_bytes).saturating_mul(100) / self.total_bytes;
            return format!("{state} {percent} %");
        }
        state.to_owned()
    }
}

fn state_word(state: StateArg) -> &'static str {
    match state {
        StateArg::Pending => "pending",
        StateArg::Offered => "offered",
        StateArg::Receiving => "receiving",
        StateArg::Received => "received",
        StateArg::Verified => "verified",
        StateArg::Extracted => "extracted",
        StateArg::Corrupt => "corrupt",
        StateArg::Failed => "failed",
        StateArg::TimedOut => "timed out",
    }
}

/// Deliveries, by Channel, Subscriber and Distribution.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deliveries {
    pub(crate) deliveries: Vec<ReportedDelivery>,
}

impl Deliveries {
    /// How `report deliveries` ends.
    ///
    /// # Errors
    /// [`code::PARTLY_DELIVERED`] or [`code::NOT_DELIVERED`] where not all that are shown are extracted.
    pub(crate) fn verdict(&self) -> Result<(), ApiError> {
        let recipients = self.deliveries.iter().filter(|delivery| delivery.role == PartRole::Recipient);
        let (done, others): (Vec<_>, Vec<_>) = recipients.partition(|delivery| delivery.state == StateArg::Extracted);
        let message = format!("{} of {} deliveries are extracted", done.len(), done.len() + others.len());
        match (done.len(), others.len()) {
            (_, 0) => Ok(()),
            (0, _) => Err(ApiError::new(code::NOT_DELIVERED, message)),
            _ => Err(ApiError::new(code::PARTLY_DELIVERED, message)),
        }
    }
}

impl Render for Deliveries {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("CHANNEL"),
            Column::Left("SUBSCRIBER"),
            Column::Left("DISTRIBUTION"),
            Column::Left("REVISION"),
            Column::Left("STATE"),
            Column::Right("BYTES"),
            Column::Left("SINCE"),
            Column::Left("OVER"),
            Column::Left("DETAIL"),
        ];
        let rows = self.deliveries.iter().map(|delivery| {
            let relay = (delivery.role == PartRole::Relay).then_some("passes it on");
            let code = delivery.code.as_deref();
            let texts = relay.into_iter().chain(code).chain(delivery.detail.as_deref()).chain(delivery.note.as_deref());
            vec![
                delivery.channel.to_string(),
                delivery.subscriber.to_string(),
                delivery.distribution.to_string(),
                delivery.revision.to_string(),
                delivery.state_text(),
                or_dash((delivery.total_bytes > 0).then(|| units::bytes(delivery.done_bytes))),
                delivery.waiting_since.unwrap_or(delivery.since).to_string(),
                or_dash(delivery.hop.as_ref()),
                texts.collect::<Vec<_>>().join(" "),
            ]
        });
        out.table(&columns, rows, "no deliveries");
    }
}

/// How many deliveries are how far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SummaryView {
    pub(crate) total: CountsView,
    /// Of each Channel, by name.
    pub(crate) channels: Vec<CountsView>,
    /// Over each node that passes deliveries on; `direct` for those that are reached without one.
    pub(crate) hops: Vec<CountsView>,
}

/// How many of some deliveries are how far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CountsView {
    /// Which deliveries these are.
    pub(crate) of: String,
    pub(crate) deliveries: u64,
    /// How many wait for something that is known.
    pub(crate) waiting: u64,
    pub(crate) counts: Counts,
}

impl CountsView {
    pub(crate) fn new(of: String) -> Self {
        Self { of, deliveries: 0, waiting: 0, counts: Counts::default() }
    }

    pub(crate) fn add(&mut self, state: PartState, waits: bool) {
        self.deliveries += 1;
        self.waiting += u64::from(waits);
        self.counts.add(state);
    }
}

impl Render for SummaryView {
    fn render(&self, out: &mut Text) {
        let columns = ["", "ALL", "PENDING", "OFFERED", "RECEIVING", "RECEIVED", "VERIFIED", "EXTRACTED", "CORRUPT"];
        let columns = columns.into_iter().chain(["FAILED", "TIMED OUT", "WAITING"]);
        let columns: Vec<_> = columns
            .enumerate()
            .map(|(place, name)| if place == 0 { Column::Left(name) } else { Column::Right(name) })
            .collect();
        let rows = self.channels.iter().chain(&self.hops).chain([&self.total]).map(|row| {
            let counts = PartState::ALL.iter().map(|state| row.counts.of(*state));
            let numbers = [row.deliveries].into_iter().chain(counts).chain([row.waiting]);
            std::iter::once(row.of.clone()).chain(numbers.map(|number| number.to_string())).collect()
        });
        out.table(&columns, rows, "no deliveries");
    }
}
