//! Channels: what goes to whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::Item;
use crate::name::{Label, NodeName};
use crate::schedule::Schedule;

/// A named set of Distributions and the Subscribers that receive them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: Label,
    /// What it sends, by name; at least one.
    pub distributions: BTreeSet<Label>,
    /// To whom, by node name; nobody is allowed.
    #[serde(default)]
    pub subscribers: BTreeSet<NodeName>,
    /// To whose members as well, by the groups' names.
    #[serde(default)]
    pub groups: BTreeSet<Label>,
    /// Whether it sends at all; what is under way when it stops being so is kept where it is.
    #[serde(default = "yes")]
    pub active: bool,
    /// When it sends by itself.
    #[serde(default = "Schedule::never")]
    pub schedule: Schedule,
}

impl Channel {
    /// A Channel that sends `distributions` to nobody yet.
    #[must_use]
    pub fn new(name: Label, distributions: impl IntoIterator<Item = Label>) -> Self {
        Self {
            name,
            distributions: distributions.into_iter().collect(),
            subscribers: BTreeSet::new(),
            groups: BTreeSet::new(),
            active: true,
            schedule: Schedule::never(),
        }
    }

    /// The same without its Subscribers.
    pub(super) fn without_subscribers(&self) -> Self {
        let Self { name, distributions, subscribers: _, groups, active, schedule } = self;
        Self {
            name: name.clone(),
            distributions: distributions.clone(),
            subscribers: BTreeSet::new(),
            groups: groups.clone(),
            active: *active,
            schedule: schedule.clone(),
        }
    }

    pub(crate) fn item(&self) -> Item {
        Item::Channel(self.name.to_string())
    }
}

/// What holds unless somebody says otherwise, for fields that are on by default.
pub(super) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_groups_and_schedules_is_read_with_their_defaults() {
        let text = r#"{"name":"nightly","distributions":["site"],"subscribers":[]}"#;
        let read: Channel = serde_json::from_str(text).expect("valid");
        assert_eq!(read, Channel::new("nightly".parse().expect("valid"), ["site".parse().expect("valid")]));
    }
}
