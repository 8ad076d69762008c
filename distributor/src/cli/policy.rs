//! `certificate revoke` and `subscriber configure`.

use clap::{Args, Subcommand};
use ted_core::model::Setting;
use ted_core::name::NodeName;
use ted_core::security::RevocationReason;

#[derive(Debug, Subcommand)]
pub(crate) enum RevocationCommand {
    /// Revoke a Subscriber's certificates, or one certificate: its key counts for nothing any more, here and everywhere.
    Revoke {
        /// The Subscriber's name; or a thumbprint, serial number or key fingerprint, with spaces and colons or without.
        #[arg(value_name = "NAME|THUMBPRINT|SERIAL", required = true)]
        what: Vec<String>,
        /// Why: unspecified, key-compromise, lost or superseded.
        #[arg(long, default_value_t = RevocationReason::UNSPECIFIED)]
        reason: RevocationReason,
    },
}

/// Settings: extract.schedule, rate.input, rate.high, rate.medium, rate.low, rate.child, variable.NAME, scrub.interval and
/// scrub.rate.
#[derive(Debug, Args)]
pub(crate) struct ConfigureArgs {
    /// The Subscriber's node name.
    #[arg(required_unless_present = "all")]
    pub(crate) name: Option<NodeName>,
    /// Set it at all Subscribers; what is set at one alone wins there.
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
    /// Set a value, for instance scrub.interval=7d; without any, what is set is shown. The settings are
    /// extract.schedule, rate.input, rate.high, rate.medium, rate.low, rate.child, scrub.interval, scrub.rate and
    /// variable.NAME. May be repeated.
    #[arg(long, value_name = "SETTING=VALUE", value_parser = parse_setting)]
    pub(crate) set: Vec<(Setting, String)>,
    /// Set it no more. May be repeated.
    #[arg(long, value_name = "SETTING")]
    pub(crate) unset: Vec<Setting>,
}

fn parse_setting(text: &str) -> Result<(Setting, String), String> {
    let (setting, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not SETTING=VALUE"))?;
    Ok((setting.parse::<Setting>().map_err(|error| error.to_string())?, value.to_owned()))
}
