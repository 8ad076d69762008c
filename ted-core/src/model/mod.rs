//! What an operator declares: Distributions, Channels, groups and Subscribers, and the [`Fleet`] that joins them.
//!
//! Plain data with its validation, its text form `fleet.toml` and a readable difference. Nothing here reads a disk.

mod certificate_way;
mod channel;
mod diff;
mod distribution;
mod endpoint;
mod error;
mod file;
mod fleet;
mod group;
mod kept;
mod settings;
mod source;
mod subscriber;

pub use certificate_way::{CertificateWay, CommandTemplate, CommandValues};
pub use channel::Channel;
pub use diff::{Change, ChangeKind, Difference, FieldChange};
pub use distribution::{ChoiceError, CompressionLevel, Digest, Distribution, ExtractMode, Priority};
pub use endpoint::{DEFAULT_PORT, DirectAddress, Endpoint, EndpointError};
pub use error::{FleetError, Item};
pub use fleet::{
    Belonging, Fleet, FleetParts, FleetRecord, FleetWarning, LabelCondition, LabelError, Membership, Selection,
    Undeclared, parse_label,
};
pub use group::Group;
pub use kept::Kept;
pub use settings::{Interval, Setting, SettingError, Settings, VariableName};
pub use source::{Sha256, SourcePlace, SourceSpec, Sources};
pub use subscriber::Subscriber;
