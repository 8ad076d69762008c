//! How people name a Distribution at a Subscriber, where two Distributors may have given the same name.

use std::fmt;
use std::str::FromStr;

use crate::name::{Label, NameError, NodeName};
use serde::{Deserialize, Serialize};

/// A Distribution as an operator names it: `NAME`, or `DISTRIBUTOR/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DistributionRef {
    distributor: Option<NodeName>,
    name: Label,
}

impl DistributionRef {
    /// The Distribution `name` of any Distributor, or of the one that is named.
    #[must_use]
    pub fn new(distributor: Option<NodeName>, name: Label) -> Self {
        Self { distributor, name }
    }

    /// Whose it is; `None` means whoever has one of that name.
    #[must_use]
    pub fn distributor(&self) -> Option<&NodeName> {
        self.distributor.as_ref()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// Whether the Distribution `name` of `distributor` is meant.
    #[must_use]
    pub fn means(&self, distributor: &NodeName, name: &Label) -> bool {
        self.name == *name && self.distributor.as_ref().is_none_or(|named| named == distributor)
    }
}

impl From<Label> for DistributionRef {
    fn from(name: Label) -> Self {
        Self { distributor: None, name }
    }
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
    fn a_reference_without_a_distributor_means_the_name_at_all_of_them() {
        let (a, b) = ("a.example".parse().expect("valid"), "b.example".parse().expect("valid"));
        let (site, docs): (Label, Label) = ("site".parse().expect("valid"), "docs".parse().expect("valid"));
        let plain = DistributionRef::from(site.clone());
        let full: DistributionRef = "a.example/site".parse().expect("valid");
        assert!(plain.means(&a, &site) && plain.means(&b, &site) && !plain.means(&a, &docs));
        assert!(full.means(&a, &site) && !full.means(&b, &site) && !full.means(&a, &docs));
    }

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
