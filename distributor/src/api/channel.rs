//! Channels: what goes to whom.

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, list};
use ted_core::model::Channel;
use ted_core::name::{Label, NodeName};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelCreate {
    pub(crate) name: Label,
    pub(crate) distributions: Vec<Label>,
    pub(crate) subscribers: Vec<NodeName>,
}

/// Replaces the lists that are `Some`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelUpdate {
    pub(crate) name: Label,
    pub(crate) distributions: Option<Vec<Label>>,
    pub(crate) subscribers: Option<Vec<NodeName>>,
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
#[serde(transparent)]
pub(crate) struct ChannelView(pub(crate) Channel);

impl Render for ChannelView {
    fn render(&self, out: &mut Text) {
        out.fields([
            ("channel", Some(self.0.name.to_string())),
            ("distributions", Some(list(&self.0.distributions))),
            ("subscribers", Some(list(&self.0.subscribers))),
        ]);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Channels {
    pub(crate) channels: Vec<Channel>,
}

impl Render for Channels {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("CHANNEL"), Column::Left("DISTRIBUTIONS"), Column::Left("SUBSCRIBERS")];
        let rows = self
            .channels
            .iter()
            .map(|channel| vec![channel.name.to_string(), list(&channel.distributions), list(&channel.subscribers)]);
        out.table(&columns, rows, "no Channels yet: `channel create NAME --distribution NAME` makes one");
    }
}
