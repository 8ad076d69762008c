//! Subscribers: the nodes that receive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::channel::yes;
use crate::model::{CertificateWay, Endpoint, Item, Settings};
use crate::name::{Label, NodeName};
use crate::schedule::RatePlan;

/// A node that receives. Its keys are registered apart from the fleet; here it is a name and its places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriber {
    /// Its node name.
    pub name: NodeName,
    /// Where it is dialled, in order of preference. Empty for one that dials by itself, from behind NAT.
    pub endpoints: Vec<Endpoint>,
    /// How the Distributor's certificate is brought to it; none where somebody carries it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateWay>,
    /// What the Distributor sets at it alone.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// Whether it is offered anything; one that is not is paused.
    #[serde(default = "yes")]
    pub active: bool,
    /// Its route: the parents through which it is reached, in order of preference. Empty for the Distributor itself,
    /// whose own node name may also stand in it, as a way back that is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<NodeName>,
    /// Whether it is outside the Distributor's own fleet: it is sent no configuration and is nobody's parent.
    #[serde(default)]
    pub external: bool,
    /// What it is selected by in bulk: `site=berlin`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Label, Label>,
    /// The rate for all that goes to it; none where its link is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RatePlan>,
}

impl Subscriber {
    /// A Subscriber that dials by itself.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            endpoints: Vec::new(),
            certificate: None,
            settings: Settings::default(),
            active: true,
            parents: Vec::new(),
            external: false,
            labels: BTreeMap::new(),
            rate: None,
        }
    }

    pub(crate) fn item(&self) -> Item {
        Item::Subscriber(self.name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_routes_labels_and_pauses_is_read_with_their_defaults() {
        let read: Subscriber = serde_json::from_str(r#"{"name":"leaf1","endpoints":[]}"#).expect("valid");
        assert_eq!(read, Subscriber::new("leaf1".parse().expect("valid")));
    }
}
