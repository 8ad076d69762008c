//! `distributor.toml`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::config::{ConnectionTimeout, Kind, MaxSends};
use ted_core::distributor::Refresh;
use ted_core::model::{DEFAULT_PORT, Endpoint};
use ted_core::schedule::{RatePlan, Schedule};

/// The Distributor's configuration file; every key can be given in the environment as `TED_<KEY>` too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The UDP address to listen on.
    pub(crate) listen: SocketAddr,
    /// Where Subscribers dial; empty means the node name and the port listened on.
    pub(crate) advertise: Vec<Endpoint>,
    /// A connection that is silent for this long has ended; 1 to 60,000 seconds.
    pub(crate) connection_timeout_s: ConnectionTimeout,
    /// Packages that are sent at once; 1 to 1000, 64 by default.
    pub(crate) max_sends: MaxSends,
    /// The rate of all sends of high priority together, such as `20MB/s; 2MB/s between 08:00 and 18:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_high: Option<RatePlan>,
    /// The same for medium priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_medium: Option<RatePlan>,
    /// The same for low priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_low: Option<RatePlan>,
    /// The file in which the fleet is declared; `None` means that it is declared by commands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_source: Option<PathBuf>,
    /// When that file is read again.
    pub(crate) refresh_schedule: Schedule,
    /// What becomes of what the file does not declare: `keep` or `remove`.
    pub(crate) refresh_undeclared: UndeclaredRule,
}

/// What becomes of what a declared fleet does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UndeclaredRule {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted.
    Remove,
}

impl Config {
    /// Where the fleet is declared.
    pub(crate) fn refresh(&self) -> Option<Refresh> {
        let source = self.refresh_source.clone()?;
        let prune = self.refresh_undeclared == UndeclaredRule::Remove;
        Some(Refresh { source, schedule: self.refresh_schedule.clone(), prune })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            advertise: Vec::new(),
            connection_timeout_s: ConnectionTimeout::default(),
            max_sends: MaxSends::default(),
            rate_high: None,
            rate_medium: None,
            rate_low: None,
            refresh_source: None,
            refresh_schedule: Schedule::never(),
            refresh_undeclared: UndeclaredRule::default(),
        }
    }
}

impl ted_cli::config::Config for Config {
    const KEYS: &[(&'static str, Kind)] = &[
        ("listen", Kind::Text),
        ("advertise", Kind::List),
        ("connection_timeout_s", Kind::Number),
        ("max_sends", Kind::Number),
        ("rate_high", Kind::Text),
        ("rate_medium", Kind::Text),
        ("rate_low", Kind::Text),
        ("refresh_source", Kind::Text),
        ("refresh_schedule", Kind::Text),
        ("refresh_undeclared", Kind::Text),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_given_in_the_environment() {
        let rate = || "2MB/s".parse().ok();
        let full = Config { rate_high: rate(), rate_medium: rate(), rate_low: rate(), ..Config::default() };
        let full = Config { refresh_source: Some(PathBuf::from("/etc/ted/fleet.toml")), ..full };
        assert_eq!(ted_cli::config::keys_out_of_step(&full), Vec::<String>::new());
    }
}
