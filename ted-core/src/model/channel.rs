//! Channels: what goes to whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::Item;
use crate::name::{Label, NodeName};

/// A named set of Distributions and the Subscribers that receive them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: Label,
    /// What it sends, by name; at least one.
    pub distributions: BTreeSet<Label>,
    /// To whom, by node name; nobody is allowed.
    pub subscribers: BTreeSet<NodeName>,
}

impl Channel {
    /// A Channel that sends `distributions` to nobody yet.
    #[must_use]
    pub fn new(name: Label, distributions: impl IntoIterator<Item = Label>) -> Self {
        Self { name, distributions: distributions.into_iter().collect(), subscribers: BTreeSet::new() }
    }

    pub(crate) fn item(&self) -> Item {
        Item::Channel(self.name.to_string())
    }
}
