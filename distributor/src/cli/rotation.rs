//! What changes this Distributor's own certificates.

use std::time::Duration;

use clap::Subcommand;
use ted_cli::units::parse_duration;
use ted_core::name::NodeName;

#[derive(Debug, Subcommand)]
pub(crate) enum RotationCommand {
    /// Issue the signing and the TLS certificate anew, now; nobody has to resolve anything for that.
    Renew,
    /// Prepare a new certificate that the present one signs, and show who has it; then put it in force.
    Replace {
        /// Put the prepared certificate in force.
        #[arg(long, conflicts_with = "cancel")]
        finalize: bool,
        /// How long nodes that were away find their way by the old one's word.
        #[arg(long, requires = "finalize", value_name = "DURATION", value_parser = parse_duration, default_value = "90d")]
        grace: Duration,
        /// Take the prepared certificate back.
        #[arg(long)]
        cancel: bool,
    },
    /// Retire all keys and make new ones, under this name or a new one. The new certificate has to be resolved.
    Rekey {
        /// The Distributor's name from now on. Taken as it is, never looked up.
        #[arg(long, value_name = "NEW")]
        name: Option<NodeName>,
    },
    /// Tell every Subscriber, with the CA key, that this clock is right although later times were signed before.
    CorrectClock,
}
