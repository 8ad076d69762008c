//! Subscribers, and who wants to become one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, list, or_dash};
use ted_cli::units::Time;
use ted_core::distributor::SubscriberChanges;
use ted_core::model::{Belonging, Endpoint, LabelCondition, Selection};
use ted_core::name::{Label, NodeName};
use ted_core::schedule::RatePlan;

use super::{ChangeView, DeliveryView, PairView};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberCreate {
    pub(crate) name: NodeName,
    /// What is said of it.
    #[serde(default)]
    pub(crate) changes: SubscriberChanges,
}

/// Changes Subscribers: all that are meant, or none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberUpdate {
    pub(crate) selection: Selection,
    #[serde(default)]
    pub(crate) belonging: Belonging,
    pub(crate) changes: SubscriberChanges,
    /// Change nothing.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// Gives a Subscriber another name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberRename {
    pub(crate) name: NodeName,
    /// Its name from now on.
    pub(crate) to: NodeName,
}

/// Those that meet all conditions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberList {
    #[serde(default)]
    pub(crate) labels: Vec<LabelCondition>,
    #[serde(default)]
    pub(crate) belonging: Belonging,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberShow {
    pub(crate) name: NodeName,
    #[serde(default)]
    pub(crate) belonging: Belonging,
}

/// Takes it out of every Channel, forgets its key and closes its connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberDelete {
    pub(crate) name: NodeName,
    #[serde(default)]
    pub(crate) belonging: Belonging,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SubscriberPending {}

/// Issues the certificates of an enrolment that waits, and registers its key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberApprove {
    pub(crate) name: NodeName,
    /// Where it is given and not that of the waiting key, nothing is approved.
    pub(crate) fingerprint: Option<String>,
    pub(crate) channels: Vec<Label>,
}

ted_cli::operations! {
    SubscriberCreate => "subscriber/create" -> SubscriberView,
    SubscriberUpdate => "subscriber/update" -> ChangeView,
    SubscriberRename => "subscriber/rename" -> SubscriberView,
    SubscriberList => "subscriber/list" -> Subscribers,
    SubscriberShow => "subscriber/show" -> SubscriberView,
    SubscriberDelete => "subscriber/delete" -> Done,
    SubscriberPending => "subscriber/pending" -> Pending,
    SubscriberApprove => "subscriber/approve" -> SubscriberView,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubscriberView {
    pub(crate) name: NodeName,
    /// Empty for one that dials by itself.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Its route: empty for one that is reached directly.
    #[serde(default)]
    pub(crate) parents: Vec<NodeName>,
    /// Outside the own fleet.
    #[serde(default)]
    pub(crate) external: bool,
    /// False for one that is paused.
    pub(crate) active: bool,
    #[serde(default)]
    pub(crate) labels: BTreeMap<Label, Label>,
    /// How fast it is sent to; `None` for as fast as it goes.
    #[serde(default)]
    pub(crate) rate: Option<RatePlan>,
    #[serde(default)]
    pub(crate) groups: Vec<Label>,
    /// Its Channels, also those of its groups.
    pub(crate) channels: Vec<Label>,
    /// `None` until it has enrolled.
    pub(crate) enrolled: Option<EnrolledView>,
    /// The address at the other end of its connection; `None` where it is not connected.
    pub(crate) connected: Option<String>,
    /// The peer through which it is reached now, where it is not connected itself.
    pub(crate) through: Option<NodeName>,
    /// How this Distributor's certificate stands with it.
    pub(crate) certificate: PairView,
    /// The latest known state of each Distribution it receives.
    pub(crate) deliveries: Vec<DeliveryView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EnrolledView {
    /// The short form of its identity key's hash.
    pub(crate) fingerprint: String,
    pub(crate) since: Time,
}

impl SubscriberView {
    /// Where it is connected, or through whom.
    fn reached(&self) -> String {
        match &self.through {
            Some(hop) => format!("through {hop}"),
            None => or_dash(self.connected.as_ref()),
        }
    }
}

impl Render for SubscriberView {
    fn render(&self, out: &mut Text) {
        let enrolled = self.enrolled.as_ref();
        out.fields([
            ("subscriber", Some(format!("{}{}", self.name, if self.external { " (External)" } else { "" }))),
            ("labels", (!self.labels.is_empty()).then(|| labels(&self.labels))),
            ("groups", (!self.groups.is_empty()).then(|| list(&self.groups))),
            ("channels", Some(list(&self.channels))),
            ("paused", (!self.active).then(|| "it is offered nothing until `subscriber resume`".to_owned())),
            ("rate", self.rate.as_ref().map(ToString::to_string)),
            ("parents", (!self.parents.is_empty()).then(|| list(&self.parents))),
            ("endpoints", Some(endpoints(&self.endpoints))),
            ("enrolled", Some(or_dash(enrolled.map(|enrolled| enrolled.since)))),
            ("fingerprint", enrolled.map(|enrolled| enrolled.fingerprint.clone())),
            ("connected", Some(self.reached())),
            ("certificate", Some(self.certificate.state.to_string())),
            ("brought by", Some(self.certificate.way.clone().unwrap_or_else(|| "hand".to_owned()))),
            ("last brought", self.certificate.detail.clone()),
        ]);
        if !self.deliveries.is_empty() {
            out.gap();
            super::firing::table(&self.deliveries, out);
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subscribers {
    pub(crate) subscribers: Vec<SubscriberView>,
}

impl Render for Subscribers {
    fn render(&self, out: &mut Text) {
        table(&self.subscribers, out);
    }
}

pub(super) fn table(subscribers: &[SubscriberView], out: &mut Text) {
    let columns = [
        Column::Left("SUBSCRIBER"),
        Column::Left("LABELS"),
        Column::Left("CHANNELS"),
        Column::Left("PARENTS"),
        Column::Left("ENDPOINTS"),
        Column::Left("ENROLLED"),
        Column::Left("CONNECTED"),
        Column::Left("CERTIFICATE"),
    ];
    let rows = subscribers.iter().map(|subscriber| {
        vec![
            format!("{}{}", subscriber.name, marks(subscriber)),
            labels(&subscriber.labels),
            list(&subscriber.channels),
            list(&subscriber.parents),
            endpoints(&subscriber.endpoints),
            or_dash(subscriber.enrolled.as_ref().map(|enrolled| enrolled.since)),
            subscriber.reached(),
            subscriber.certificate.state.to_string(),
        ]
    });
    out.table(&columns, rows, "no Subscribers yet: `invite NAME --output FILE` makes what one needs to join");
}

fn labels(labels: &BTreeMap<Label, Label>) -> String {
    list(labels.iter().map(|(key, value)| format!("{key}={value}")))
}

fn marks(subscriber: &SubscriberView) -> &'static str {
    match (subscriber.external, subscriber.active) {
        (false, true) => "",
        (true, true) => " (External)",
        (false, false) => " (paused)",
        (true, false) => " (External, paused)",
    }
}

fn endpoints(endpoints: &[Endpoint]) -> String {
    if endpoints.is_empty() { "dials itself".to_owned() } else { list(endpoints) }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) pending: Vec<PendingView>,
}

/// An enrolment that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingView {
    pub(crate) name: NodeName,
    /// The short form of the key's hash; the node prints the same.
    pub(crate) fingerprint: String,
    /// When it last asked.
    pub(crate) asked: Time,
}

impl Render for Pending {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("NAME"), Column::Left("FINGERPRINT"), Column::Left("ASKED")];
        let rows = self
            .pending
            .iter()
            .map(|waiting| vec![waiting.name.to_string(), waiting.fingerprint.clone(), waiting.asked.to_string()]);
        out.table(&columns, rows, "nobody waits to be approved");
    }
}
