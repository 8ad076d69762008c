//! `firing`: what was sent when and why.

use clap::Subcommand;
use ted_core::id::FiringId;
use ted_core::name::Label;

#[derive(Debug, Subcommand)]
pub(crate) enum FiringCommand {
    /// List firings, the newest first: why each began, and what became of it.
    List {
        /// Only those of this Channel.
        #[arg(long, value_name = "NAME")]
        channel: Option<Label>,
    },
    /// Show how far each Subscriber is, or was when it ended.
    Show {
        /// The firing's id, as `send`, `status` and `firing list` print it.
        firing: FiringId,
    },
}
