//! Node names and the labels of Distributions and Channels: what they may hold, and the file names they become.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Coded;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Neither a DNS name nor an IP address.
    #[error("`{text}` is neither a DNS name nor an IP address: {reason}")]
    Node {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not usable as a Distribution's or Channel's name.
    #[error("`{text}` cannot name a Distribution, Channel or group: {reason}")]
    Label {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Coded for NameError {
    fn code(&self) -> &'static str {
        match self {
            Self::Node { .. } => "TED-1004",
            Self::Label { .. } => "TED-1005",
        }
    }
}

/// A node's identity: a DNS name, or an IP address where no DNS name resolves. Lower case, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Kind);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Dns(String),
    Ip(IpAddr),
}

impl NodeName {
    /// The address, where the name is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.0 {
            Kind::Ip(ip) => Some(ip),
            Kind::Dns(_) => None,
        }
    }

    /// The name as a file name without its ending: as it is, but with `-` for the `:` of IPv6.
    #[must_use]
    pub fn file_stem(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| Err(NameError::Node { text: text.to_owned(), reason });
        let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(Kind::Ip(ip)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return refuse("it is empty");
        }
        // RFC 1035 section 2.3.4.
        if name.len() > 253 {
            return refuse("it has more than 253 characters");
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return refuse("each part between dots has 1 to 63 characters");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("no part begins or ends with a hyphen");
            }
            // RFC 1123 section 2.1, and the underscore that real networks use.
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                return refuse("only letters, digits, hyphens and underscores may stand between dots");
            }
        }
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return refuse("its last part is a number, so it reads like a broken IP address");
        }
        Ok(Self(Kind::Dns(name)))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Dns(name) => f.pad(name),
            Kind::Ip(ip) => f.pad(&ip.to_string()),
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.to_string()
    }
}

/// The name of a Distribution, Channel or group: 1 to 64 of `a–z A–Z 0–9 . _ -`, not beginning with a dot or hyphen.
/// It serves as a folder name as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| Err(NameError::Label { text: text.to_owned(), reason });
        if text.is_empty() || text.len() > 64 {
            return refuse("it has 1 to 64 characters");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return refuse("only letters, digits, dots, hyphens and underscores are allowed");
        }
        if text.starts_with(['.', '-']) {
            return refuse("it begins with a dot or a hyphen");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Label {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_dns_names_or_addresses() {
        for (given, read) in [
            ("Dist.Example.COM.", "dist.example.com"),
            ("host", "host"),
            ("a_b.c-d", "a_b.c-d"),
            ("155.55.155.55", "155.55.155.55"),
            ("[2001:DB8::1]", "2001:db8::1"),
        ] {
            assert_eq!(given.parse::<NodeName>().expect(given).to_string(), read);
        }
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(60).as_str(); 5].join(".");
        for bad in
            ["", ".", "a..b", "-a", "a-", "a b", "a/b", "../x", "1.2.3", "1.2.3.4.5", "ä", &long_label, &long_name]
        {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn file_stems_have_no_colon() {
        assert_eq!("2001:db8::1".parse::<NodeName>().expect("valid").file_stem(), "2001-db8--1");
        assert_eq!("dist.example.com".parse::<NodeName>().expect("valid").file_stem(), "dist.example.com");
    }

    #[test]
    fn labels_are_safe_folder_names() {
        for good in ["site", "web-1.2_x", "A"] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "-flag", "a/b", "a b", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }
}
