//! What `events` and `report` can be asked for.

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use ted_cli::events::{EventArgs, parse_since};
use ted_core::id::{FiringId, UnixMillis};
use ted_core::name::{Label, NodeName};
use ted_core::protocol::{PartState, WaitingFor};

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) events: EventArgs,
    /// Those about this Channel or one of its firings.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<Label>,
    /// Those about this Subscriber.
    #[arg(long, value_name = "NAME")]
    pub(crate) subscriber: Option<NodeName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Every delivery with its state, since when, and what is in the way. Ends with 0 if all that are shown are
    /// extracted, with 3 if some are, with 1 if none is.
    Deliveries(DeliveryArgs),
    /// How many deliveries are in which state: of each Channel, and over each node that passes them on.
    Summary(DeliveryArgs),
}

/// Which deliveries; without --since or --firing, those of each Channel's last firing and of all that are open.
#[derive(Debug, Args)]
pub(crate) struct DeliveryArgs {
    /// Those of this Distribution.
    #[arg(long, value_name = "NAME")]
    pub(crate) distribution: Option<Label>,
    /// Those of this Channel.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<Label>,
    /// Those to this Subscriber.
    #[arg(long, value_name = "NAME")]
    pub(crate) subscriber: Option<NodeName>,
    /// Those of this firing.
    #[arg(long, value_name = "ID")]
    pub(crate) firing: Option<FiringId>,
    /// Those in this state. May be repeated.
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Vec<StateArg>,
    /// Those that wait for this.
    #[arg(long, value_name = "WHAT")]
    pub(crate) waiting_for: Option<WaitingArg>,
    /// Those of all firings on record that came into their state since: a time such as 2027-01-31T02:00:00Z, or a while
    /// ago, such as 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<UnixMillis>,
}

/// See [`PartState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StateArg {
    Pending,
    Offered,
    Receiving,
    Received,
    Verified,
    Extracted,
    Corrupt,
    Failed,
    TimedOut,
}

impl From<StateArg> for PartState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Pending => Self::Pending,
            StateArg::Offered => Self::Offered,
            StateArg::Receiving => Self::Receiving,
            StateArg::Received => Self::Received,
            StateArg::Verified => Self::Verified,
            StateArg::Extracted => Self::Extracted,
            StateArg::Corrupt => Self::Corrupt,
            StateArg::Failed => Self::Failed,
            StateArg::TimedOut => Self::TimedOut,
        }
    }
}

impl From<PartState> for StateArg {
    fn from(state: PartState) -> Self {
        match state {
            PartState::Pending => Self::Pending,
            PartState::Offered => Self::Offered,
            PartState::Receiving => Self::Receiving,
            PartState::Received => Self::Received,
            PartState::Verified => Self::Verified,
            PartState::Extracted => Self::Extracted,
            PartState::Corrupt => Self::Corrupt,
            PartState::Failed => Self::Failed,
            PartState::TimedOut => Self::TimedOut,
        }
    }
}

/// See [`WaitingFor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WaitingArg {
    Connection,
    Window,
    Parent,
    Grant,
    Certificate,
    Rate,
    Pause,
}

impl From<WaitingArg> for WaitingFor {
    fn from(waiting: WaitingArg) -> Self {
        match waiting {
            WaitingArg::Connection => Self::Connection,
            WaitingArg::Window => Self::Window,
            WaitingArg::Parent => Self::Parent,
            WaitingArg::Grant => Self::Grant,
            WaitingArg::Certificate => Self::Certificate,
            WaitingArg::Rate => Self::Rate,
            WaitingArg::Pause => Self::Pause,
        }
    }
}
