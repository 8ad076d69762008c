//! Tiered Electronic Distribution: trees of files from one place to thousands, provably intact.

pub mod codec;
pub mod distributor;
pub mod error;
pub mod extract;
pub mod id;
pub mod limits;
pub mod model;
pub mod name;
pub mod node;
pub mod package;
pub mod protocol;
pub mod security;
pub mod store;
pub mod subscriber;
pub mod transport;

pub use distributor::{
    BuildOutcome, BuiltRevision, DistributionSpec, Distributor, DistributorEvent, FiringReport, SendOptions,
};
pub use error::Error;
pub use node::Events;
pub use protocol::Until;
pub use subscriber::{Subscriber, SubscriberEvent};
