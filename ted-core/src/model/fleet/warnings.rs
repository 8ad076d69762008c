//! What is allowed in a fleet, and hardly meant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Fleet, Item};
use crate::name::NodeName;

/// Something in a fleet that does nothing, or cannot work as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FleetWarning {
    /// A Channel sends to nobody.
    NoSubscribers {
        /// The Channel.
        item: Item,
    },
    /// A Channel is active, and a Distribution that it sends is not.
    InactiveDistribution {
        /// The Channel.
        item: Item,
        /// The Distribution.
        distribution: Item,
    },
    /// The parent that a Subscriber is reached through is paused.
    PausedParent {
        /// The Subscriber.
        item: Item,
        /// Its preferred parent.
        parent: NodeName,
    },
    /// Neither a Subscriber nor its parent can be dialled.
    NobodyDials {
        /// The Subscriber.
        item: Item,
        /// Its parent.
        parent: NodeName,
    },
}

impl FleetWarning {
    /// What it is about.
    #[must_use]
    pub fn item(&self) -> &Item {
        match self {
            Self::NoSubscribers { item }
            | Self::InactiveDistribution { item, .. }
            | Self::PausedParent { item, .. }
            | Self::NobodyDials { item, .. } => item,
        }
    }
}

impl FleetWarning {
    /// Its stable code, which `docs/errors.md` explains.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSubscribers { .. } => "TED-1382",
            Self::InactiveDistribution { .. } => "TED-1383",
            Self::PausedParent { .. } => "TED-1384",
            Self::NobodyDials { .. } => "TED-1385",
        }
    }
}

impl fmt::Display for FleetWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSubscribers { item } => write!(f, "{item} has no Subscribers: it sends to nobody"),
            Self::InactiveDistribution { item, distribution } => {
                write!(f, "{item} sends {distribution}, which is not active: it is left out")
            }
            Self::PausedParent { item, parent } => {
                write!(f, "{item} is reached through `{parent}`, which is paused")
            }
            Self::NobodyDials { item, parent } => {
                write!(
                    f,
                    "neither {item} nor its parent `{parent}` has an endpoint, so that neither can dial the other"
                )
            }
        }
    }
}

impl Fleet {
    /// All that is allowed and hardly meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<FleetWarning> {
        let mut warnings = Vec::new();
        for channel in self.channels().filter(|channel| channel.active) {
            if channel.subscribers.is_empty() && self.subscribers_of(&channel.name).is_ok_and(|all| all.is_empty()) {
                warnings.push(FleetWarning::NoSubscribers { item: channel.item() });
            }
            let named = channel.distributions.iter().filter_map(|name| self.distribution(name).ok());
            let inactive = named.filter(|distribution| !distribution.active);
            warnings.extend(inactive.map(|distribution| FleetWarning::InactiveDistribution {
                item: channel.item(),
                distribution: distribution.item(),
            }));
        }
        for subscriber in self.subscribers() {
            let item = || subscriber.item();
            let parents = subscriber.parents.iter().filter(|parent| !self.is_distributor(parent));
            for (place, parent) in parents.filter_map(|name| self.subscriber(name).ok()).enumerate() {
                if place == 0 && !parent.active {
                    warnings.push(FleetWarning::PausedParent { item: item(), parent: parent.name.clone() });
                }
                if subscriber.endpoints.is_empty() && parent.endpoints.is_empty() {
                    warnings.push(FleetWarning::NobodyDials { item: item(), parent: parent.name.clone() });
                }
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use crate::model::fleet::tests::{channel, fleet, label, node};
    use crate::model::{Group, Subscriber};

    #[test]
    fn what_does_nothing_is_named_with_its_code() {
        let mut doubtful = fleet();
        assert_eq!(doubtful.warnings(), []);
        doubtful.create_channel(channel("empty", &["site"], &[])).expect("allowed");
        let mut paused = Subscriber::new(node("p1"));
        paused.active = false;
        doubtful.create_subscriber(paused).expect("new");
        let mut behind = Subscriber::new(node("leaf3"));
        behind.parents = vec![node("p1")];
        doubtful.create_subscriber(behind).expect("new");
        let mut tools = doubtful.distribution(&label("tools")).expect("there").clone();
        tools.active = false;
        doubtful.update_distribution(&label("tools"), tools).expect("there");
        let found: Vec<(&str, String)> =
            doubtful.warnings().iter().map(|warning| (warning.code(), warning.to_string())).collect();
        let codes: Vec<&str> = found.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, ["TED-1382", "TED-1383", "TED-1384", "TED-1385"], "{found:?}");
        assert!(found[0].1.starts_with("Channel `empty`") && found[3].1.contains("`leaf3` nor its parent `p1`"));
    }

    #[test]
    fn a_group_without_members_is_nobody_and_one_with_them_is_somebody() {
        let mut fleet = fleet();
        fleet.create_group(Group::new(label("north"))).expect("new");
        let mut weekly = channel("weekly", &["site"], &[]);
        weekly.groups.insert(label("north"));
        fleet.create_channel(weekly).expect("new");
        assert_eq!(fleet.warnings().len(), 1);
        fleet.add_to_group(&label("north"), &node("leaf1")).expect("there");
        assert_eq!(fleet.warnings(), []);
    }
}
