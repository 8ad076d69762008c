//! What can be wrong with a fleet.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::id::DistributionId;
use crate::name::NodeName;

/// A thing of the fleet, for messages: `Distribution site`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "what", content = "name", rename_all = "kebab-case")]
pub enum Item {
    /// A Distribution, by name.
    Distribution(String),
    /// A Channel, by name.
    Channel(String),
    /// A Subscriber, by node name.
    Subscriber(String),
    /// An External Subscriber, by node name, where one of the own fleet will not do.
    External(String),
    /// A group, by name.
    Group(String),
    /// All Subscribers together, at which something is set.
    AllSubscribers,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distribution(name) => write!(f, "Distribution `{name}`"),
            Self::Channel(name) => write!(f, "Channel `{name}`"),
            Self::Subscriber(name) => write!(f, "Subscriber `{name}`"),
            Self::External(name) => write!(f, "External Subscriber `{name}`"),
            Self::Group(name) => write!(f, "group `{name}`"),
            Self::AllSubscribers => f.write_str("all Subscribers"),
        }
    }
}

/// Why a fleet, or a change to it, was refused. A refused change leaves the fleet as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The text is not a fleet.
    #[error("the fleet cannot be read: {reason}")]
    Malformed {
        /// What the reader says, with line and column.
        reason: String,
    },
    /// The fleet cannot be said in TOML.
    #[error("the fleet cannot be written as text: {reason}")]
    Unwritable {
        /// What the writer says.
        reason: String,
    },
    /// A name or an id is given twice.
    #[error("{item} is there already{detail}")]
    Duplicate {
        /// The second one.
        item: Item,
        /// What they share where it is not the name; else empty.
        detail: String,
    },
    /// Something names what the fleet does not have.
    #[error("{by} names {missing}, which the fleet does not have")]
    UnknownReference {
        /// Who names it.
        by: Item,
        /// What is missing.
        missing: Item,
    },
    /// The thing to change is not there.
    #[error("there is no {item}")]
    NotFound {
        /// What was looked for.
        item: Item,
    },
    /// The thing to delete is in use.
    #[error("{item} is still part of {by}")]
    InUse {
        /// What should go.
        item: Item,
        /// Who uses it, in words.
        by: String,
    },
    /// A fleet file gives a Distribution another id than it has.
    #[error("{item} has the id {kept}, and the file says {given}: an id stays what it is")]
    OtherId {
        /// Which one.
        item: Item,
        /// The id in the file.
        given: DistributionId,
        /// The id that it has.
        kept: DistributionId,
    },
    /// A route comes back to where it begins.
    #[error("a route goes in a circle: {}", way(circle))]
    RouteCircle {
        /// The nodes on it, each behind the next one; the first is the last.
        circle: Vec<NodeName>,
    },
    /// A route goes through a node that takes nobody in.
    #[error("{by} names as a parent `{parent}`, which is External: it is nobody's parent")]
    ExternalParent {
        /// Whose route it is.
        by: Item,
        /// The External Subscriber.
        parent: NodeName,
    },
    /// An External Subscriber is sent no configuration.
    #[error("{item} is External, so that nothing can be set at it: {settings}")]
    ExternalSettings {
        /// The Subscriber.
        item: Item,
        /// What is set.
        settings: String,
    },
    /// A route goes through a node that is not known.
    #[error("{by} names as a parent `{parent}`, which is neither a Subscriber of the fleet nor its Distributor{}",
        distributor.as_ref().map_or_else(String::new, |name| format!(", `{name}`")))]
    UnknownParent {
        /// Whose route it is.
        by: Item,
        /// The name that is not known.
        parent: NodeName,
        /// The Distributor.
        distributor: Option<NodeName>,
    },
    /// A field has a value that cannot work.
    #[error("{item}: {field} {reason}")]
    BadField {
        /// Whose field.
        item: Item,
        /// Which field, as in `fleet.toml`.
        field: &'static str,
        /// What is wrong, in words that follow the field's name.
        reason: String,
    },
}

impl Coded for FleetError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "TED-1601",
            Self::Duplicate { .. } => "TED-1602",
            Self::UnknownReference { .. } => "TED-1603",
            Self::InUse { .. } => "TED-1604",
            Self::NotFound { .. } => "TED-1605",
            Self::BadField { .. } => "TED-1606",
            Self::Unwritable { .. } => "TED-1608",
            Self::RouteCircle { .. } => "TED-1374",
            Self::ExternalParent { .. } => "TED-1375",
            Self::ExternalSettings { .. } => "TED-1376",
            Self::UnknownParent { .. } => "TED-1377",
            Self::OtherId { .. } => "TED-1379",
        }
    }
}

fn way(names: &[NodeName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}
