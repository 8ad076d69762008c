//! What changes this Distributor's own certificates.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum RotationCommand {
    /// Issue the signing and the TLS certificate anew, now; nobody has to resolve anything for that.
    Renew,
}
