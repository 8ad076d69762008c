//! Channels: what goes to whom.

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, list};
use ted_core::distributor::ChannelChanges;
use ted_core::model::Channel;
use ted_core::name::{Label, NodeName};
use ted_core::schedule::Schedule;

use super::WarningView;
use super::fleet::warnings;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelCreate {
    pub(crate) name: Label,
    pub(crate) distributions: Vec<Label>,
    pub(crate) subscribers: Vec<NodeName>,
    #[serde(default)]
    pub(crate) groups: Vec<Label>,
    /// Never, where it is not said.
    #[serde(default)]
    pub(crate) schedule: Option<Schedule>,
    #[serde(default)]
    pub(crate) inactive: bool,
}

/// Replaces what is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelUpdate {
    pub(crate) name: Label,
    pub(crate) changes: ChannelChanges,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChannelList {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelShow {
    pub(crate) name: Label,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelDelete {
    pub(crate) name: Label,
}

ted_cli::operations! {
    ChannelCreate => "channel/create" -> ChannelView,
    ChannelUpdate => "channel/update" -> ChannelView,
    ChannelList => "channel/list" -> Channels,
    ChannelShow => "channel/show" -> ChannelView,
    ChannelDelete => "channel/delete" -> Done,
}

/// A Channel as the fleet has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChannelView {
    #[serde(flatten)]
    pub(crate) channel: Channel,
    /// How many Subscribers receive, those of groups among them.
    pub(crate) receivers: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<WarningView>,
}

impl Render for ChannelView {
    fn render(&self, out: &mut Text) {
        let Channel { name, distributions, subscribers, groups, active, schedule } = &self.channel;
        out.fields([
            ("channel", Some(name.to_string())),
            ("distributions", Some(list(distributions))),
            ("subscribers", Some(list(subscribers))),
            ("groups", (!groups.is_empty()).then(|| list(groups))),
            ("receivers", (!groups.is_empty()).then(|| self.receivers.to_string())),
            ("schedule", Some(schedule.to_string())),
            ("active", Some(if *active { "yes" } else { "no: it sends nothing until `channel resume`" }.to_owned())),
        ]);
        warnings(&self.warnings, out);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Channels {
    pub(crate) channels: Vec<Channel>,
}

impl Render for Channels {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("CHANNEL"),
            Column::Left("ACTIVE"),
            Column::Left("SCHEDULE"),
            Column::Left("DISTRIBUTIONS"),
            Column::Left("GROUPS"),
            Column::Left("SUBSCRIBERS"),
        ];
        let rows = self.channels.iter().map(|channel| {
            vec![
                channel.name.to_string(),
                if channel.active { "yes" } else { "no" }.to_owned(),
                channel.schedule.to_string(),
                list(&channel.distributions),
                list(&channel.groups),
                list(&channel.subscribers),
            ]
        });
        out.table(&columns, rows, "no Channels yet: `channel create NAME --distribution NAME` makes one");
    }
}
