//! Where a node is dialled: apart from its name, which is what it is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::name::NodeName;

/// TED's UDP port: the one IANA lists as `zented`.
pub const DEFAULT_PORT: u16 = 1229;

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an endpoint: {reason}")]
pub struct EndpointError {
    text: String,
    reason: String,
}

impl Coded for EndpointError {
    fn code(&self) -> &'static str {
        "TED-1607"
    }
}

/// A way to reach a node. A node has an ordered list of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Endpoint {
    /// A UDP address.
    Direct(DirectAddress),
}

/// A host, by DNS name or address, and a UDP port other than 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectAddress {
    host: NodeName,
    port: u16,
}

impl DirectAddress {
    /// The host to look up, or its address.
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

impl Endpoint {
    /// Reads `HOST` or `HOST:PORT`, with [`DEFAULT_PORT`] where no port is given.
    /// An IPv6 address stands in brackets when a port follows; alone it needs none.
    ///
    /// # Errors
    /// [`EndpointError`] names what is wrong with the text.
    pub fn parse_with_default_port(text: &str) -> Result<Self, EndpointError> {
        let bare_ipv6 = text.parse::<Ipv6Addr>().is_ok();
        let in_brackets = text.starts_with('[') && text.ends_with(']');
        if bare_ipv6 || in_brackets || !text.contains(':') {
            return direct(text, text, DEFAULT_PORT);
        }
        text.parse()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return refuse(text, "the port is missing: write HOST:PORT");
        };
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return refuse(text, "an IPv6 address stands in brackets: [ADDRESS]:PORT");
        }
        // `u16::from_str` takes a sign, which no port has.
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return refuse(text, "the port is not a number");
        }
        match port.parse() {
            Ok(0) => refuse(text, "port 0 cannot be dialled"),
            Ok(port) => direct(text, host, port),
            Err(_) => refuse(text, "the port is above 65535"),
        }
    }
}

fn direct(text: &str, host: &str, port: u16) -> Result<Endpoint, EndpointError> {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bracketed.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_err()) {
        return refuse(text, "only an IPv6 address stands in brackets");
    }
    match host.parse::<NodeName>() {
        Ok(host) => Ok(Endpoint::Direct(DirectAddress { host, port })),
        Err(error) => refuse(text, error),
    }
}

fn refuse(text: &str, reason: impl fmt::Display) -> Result<Endpoint, EndpointError> {
    Err(EndpointError { text: text.to_owned(), reason: reason.to_string() })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for DirectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.ip() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_a_host_and_a_port() {
        for (given, read) in [
            ("Dist.Example.com:1229", "dist.example.com:1229"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[2001:DB8::1]:1", "[2001:db8::1]:1"),
        ] {
            assert_eq!(given.parse::<Endpoint>().expect(given).to_string(), read);
        }
        for bad in [
            "",
            "host",
            "host:",
            ":1229",
            "host:0",
            "host:65536",
            "host:+1",
            "host:12a",
            "2001:db8::1:1229",
            "[host]:1",
            "[10.0.0.1]:1",
            "ho st:1",
            "http://host:1",
        ] {
            assert_eq!(bad.parse::<Endpoint>().expect_err(bad).code(), "TED-1607");
        }
    }

    #[test]
    fn a_missing_port_is_teds_own() {
        for (given, read) in [
            ("dist.example.com", "dist.example.com:1229"),
            ("2001:db8::1", "[2001:db8::1]:1229"),
            ("[2001:db8::1]", "[2001:db8::1]:1229"),
            ("10.0.0.1", "10.0.0.1:1229"),
            ("[::1]:7", "[::1]:7"),
            ("host:7", "host:7"),
        ] {
            assert_eq!(Endpoint::parse_with_default_port(given).expect(given).to_string(), read);
        }
        assert!(Endpoint::parse_with_default_port("[host]").is_err());
        assert!(Endpoint::parse_with_default_port("host:").is_err());
    }
}
