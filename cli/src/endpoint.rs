//! Where a node can be dialled, as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ted_core::name::NodeName;

/// UDP port 1229, IANA's `zented`.
pub const DEFAULT_PORT: u16 = 1229;

/// `HOST`, `HOST:PORT`, `ADDRESS`, `[IPV6]:PORT`: a host and a UDP port, 1229 where none is given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: NodeName,
    port: u16,
}

impl HostPort {
    /// The host, a name or an address.
    #[must_use]
    pub fn host(&self) -> &NodeName {
        &self.host
    }

    /// The UDP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not HOST or HOST:PORT: {reason}")]
pub struct HostPortError {
    text: String,
    reason: String,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let refuse = |reason: String| HostPortError { text: text.to_owned(), reason };
        let bare_ipv6 = !text.starts_with('[') && text.matches(':').count() > 1;
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bare_ipv6 && !port.ends_with(']') => {
                let port = port.parse().map_err(|_| refuse("the port is a number from 1 to 65535".to_owned()))?;
                (host, port)
            }
            _ => (text, DEFAULT_PORT),
        };
        if port == 0 {
            return Err(refuse("the port is a number from 1 to 65535".to_owned()));
        }
        let host = host.parse::<NodeName>().map_err(|error| refuse(error.to_string()))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.ip() {
            Some(ip) => write!(f, "{}", std::net::SocketAddr::new(ip, self.port)),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(endpoint: HostPort) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_as_people_write_them() {
        for (given, read) in [
            ("dist.example.com", "dist.example.com:1229"),
            ("Dist.example.com:99", "dist.example.com:99"),
            ("10.0.0.1", "10.0.0.1:1229"),
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("2001:db8::1", "[2001:db8::1]:1229"),
            ("[2001:db8::1]", "[2001:db8::1]:1229"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99"),
        ] {
            assert_eq!(given.parse::<HostPort>().expect(given).to_string(), read);
        }
        for bad in ["", ":1229", "host:", "host:0", "host:65536", "host:x", "a b:1"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }
}
