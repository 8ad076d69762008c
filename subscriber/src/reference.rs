//! How people name a Distribution at a Subscriber, where two Distributors may have given the same name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ted_core::name::{Label, NameError, NodeName};

/// `NAME`, or `DISTRIBUTOR/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct DistributionRef {
    distributor: Option<NodeName>,
    name: Label,
}

impl FromStr for DistributionRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((distributor, name)) => Ok(Self { distributor: Some(distributor.parse()?), name: name.parse()? }),
            None => Ok(Self { distributor: None, name: text.parse()? }),
        }
    }
}

impl fmt::Display for DistributionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.distributor {
            Some(distributor) => write!(f, "{distributor}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl TryFrom<String> for DistributionRef {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DistributionRef> for String {
    fn from(reference: DistributionRef) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_a_name_with_or_without_its_distributor() {
        for good in ["site", "dist.example.com/site", "2001:db8::1/site"] {
            assert_eq!(good.parse::<DistributionRef>().expect(good).to_string(), good);
        }
        for bad in ["", "/site", "dist/", "a/b/c", "../site", "a b/site"] {
            assert!(bad.parse::<DistributionRef>().is_err(), "{bad}");
        }
    }
}
