//! Subscribers: the nodes that receive.

use serde::{Deserialize, Serialize};

use crate::model::{CertificateWay, Endpoint, Item, Settings};
use crate::name::NodeName;

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
}

impl Subscriber {
    /// A Subscriber that dials by itself.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self { name, endpoints: Vec::new(), certificate: None, settings: Settings::default() }
    }

    pub(crate) fn item(&self) -> Item {
        Item::Subscriber(self.name.to_string())
    }
}
