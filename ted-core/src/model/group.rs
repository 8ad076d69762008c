//! Groups: Subscribers that go together.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::Item;
use crate::name::{Label, NodeName};

/// A named set of Subscribers. Membership gives the Channels of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: Label,
    /// Who belongs to it, by node name; nobody is allowed.
    #[serde(default)]
    pub subscribers: BTreeSet<NodeName>,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(name: Label) -> Self {
        Self { name, subscribers: BTreeSet::new() }
    }

    pub(crate) fn item(&self) -> Item {
        Item::Group(self.name.to_string())
    }
}
