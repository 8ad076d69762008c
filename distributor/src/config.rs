//! `distributor.toml`.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use ted_cli::config::{ConnectionTimeout, Kind};
use ted_core::model::{DEFAULT_PORT, Endpoint};

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            advertise: Vec::new(),
            connection_timeout_s: ConnectionTimeout::default(),
        }
    }
}

impl ted_cli::config::Config for Config {
    const KEYS: &[(&'static str, Kind)] =
        &[("listen", Kind::Text), ("advertise", Kind::List), ("connection_timeout_s", Kind::Number)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_given_in_the_environment() {
        assert_eq!(ted_cli::config::keys_out_of_step(&Config::default()), Vec::<String>::new());
    }
}
