//! Subscribers that are meant together.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::model::{Fleet, FleetError, Item, Subscriber};
use crate::name::{Label, NodeName};

/// One condition on a Subscriber's labels: `site=berlin`, `site!=berlin`, or `site` for any value of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelCondition {
    key: Label,
    value: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Any,
    Equal(Label),
    Other(Label),
}

/// Why a text is no condition on labels, or no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is {wanted}: {reason}")]
pub struct LabelError {
    text: String,
    wanted: &'static str,
    reason: String,
}

impl Coded for LabelError {
    fn code(&self) -> &'static str {
        "TED-1378"
    }
}

/// Which Subscribers are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// These.
    Names(Vec<NodeName>),
    /// Those whose labels meet every condition; all of them without one.
    Labels(Vec<LabelCondition>),
}

/// Whether Subscribers of the own fleet or External ones are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Belonging {
    /// Either.
    #[default]
    Either,
    /// External ones.
    External,
}

impl LabelCondition {
    /// Whether a Subscriber meets it.
    #[must_use]
    pub fn is_met_by(&self, subscriber: &Subscriber) -> bool {
        let value = subscriber.labels.get(&self.key);
        match &self.value {
            Wanted::Any => value.is_some(),
            Wanted::Equal(wanted) => value == Some(wanted),
            Wanted::Other(other) => value != Some(other),
        }
    }
}

impl FromStr for LabelCondition {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let wanted = "no condition on labels, such as site=berlin, site!=berlin or site";
        let label = |part: &str| {
            let refused = |error: crate::name::NameError| error.to_string();
            part.parse::<Label>().map_err(|error| LabelError { text: text.to_owned(), wanted, reason: refused(error) })
        };
        if let Some((key, value)) = text.split_once("!=") {
            return Ok(Self { key: label(key)?, value: Wanted::Other(label(value)?) });
        }
        match text.split_once('=') {
            Some((key, value)) => Ok(Self { key: label(key)?, value: Wanted::Equal(label(value)?) }),
            None => Ok(Self { key: label(text)?, value: Wanted::Any }),
        }
    }
}

impl fmt::Display for LabelCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Wanted::Any => write!(f, "{}", self.key),
            Wanted::Equal(value) => write!(f, "{}={value}", self.key),
            Wanted::Other(value) => write!(f, "{}!={value}", self.key),
        }
    }
}

impl TryFrom<String> for LabelCondition {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<LabelCondition> for String {
    fn from(condition: LabelCondition) -> Self {
        condition.to_string()
    }
}

/// Reads a label with its value: `site=berlin`.
///
/// # Errors
/// [`LabelError`].
pub fn parse_label(text: &str) -> Result<(Label, Label), LabelError> {
    let refuse = |reason: String| {
        let wanted = "no label with a value, such as site=berlin";
        LabelError { text: text.to_owned(), wanted, reason }
    };
    let (key, value) = text.split_once('=').ok_or_else(|| refuse("there is no `=` in it".to_owned()))?;
    let label = |part: &str| part.parse::<Label>().map_err(|error| refuse(error.to_string()));
    Ok((label(key)?, label(value)?))
}

impl Fleet {
    /// The Subscribers that are meant, by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for a name that is not there, or is none of an External Subscriber where one is meant.
    pub fn select(&self, selection: &Selection, belonging: Belonging) -> Result<Vec<&Subscriber>, FleetError> {
        let belongs = |subscriber: &&Subscriber| belonging == Belonging::Either || subscriber.external;
        match selection {
            Selection::Names(names) => {
                let names: BTreeSet<&NodeName> = names.iter().collect();
                let find = |name: &NodeName| match belonging {
                    Belonging::Either => self.subscriber(name),
                    Belonging::External => self
                        .subscriber(name)
                        .ok()
                        .filter(belongs)
                        .ok_or_else(|| FleetError::NotFound { item: Item::External(name.to_string()) }),
                };
                names.into_iter().map(find).collect()
            }
            Selection::Labels(conditions) => {
                let meets = |subscriber: &&Subscriber| conditions.iter().all(|wanted| wanted.is_met_by(subscriber));
                Ok(self.subscribers().filter(belongs).filter(meets).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FleetParts;
    use crate::model::fleet::tests::{label, node};

    #[test]
    fn labels_select_what_has_them() {
        let subscriber = |name: &str, labels: &[(&str, &str)], external| {
            let labels = labels.iter().map(|(key, value)| (label(key), label(value))).collect();
            Subscriber { labels, external, ..Subscriber::new(node(name)) }
        };
        let subscribers = vec![
            subscriber("a", &[("site", "berlin"), ("role", "till")], false),
            subscriber("b", &[("site", "berlin")], true),
            subscriber("c", &[("site", "paris"), ("role", "till")], false),
            subscriber("d", &[], false),
        ];
        let fleet = Fleet::from_parts(FleetParts { subscribers, ..FleetParts::default() }).expect("valid");
        let names = |conditions: &[&str], belonging| -> String {
            let conditions = conditions.iter().map(|text| text.parse().expect(text)).collect();
            let found = fleet.select(&Selection::Labels(conditions), belonging).expect("always some");
            found.iter().map(|subscriber| subscriber.name.to_string()).collect()
        };
        for (conditions, found) in [
            (&["site=berlin"][..], "ab"),
            (&["site=berlin", "role=till"], "a"),
            (&["site!=berlin"], "cd"),
            (&["role"], "ac"),
            (&["site=rome"], ""),
            (&[], "abcd"),
        ] {
            assert_eq!(names(conditions, Belonging::Either), found, "{conditions:?}");
        }
        assert_eq!(names(&["site=berlin"], Belonging::External), "b");
        let named = |name, belonging| fleet.select(&Selection::Names(vec![node(name)]), belonging).map(|all| all.len());
        assert_eq!(named("a", Belonging::Either), Ok(1));
        assert!(named("a", Belonging::External).is_err() && named("z", Belonging::Either).is_err());
    }

    #[test]
    fn conditions_and_labels_print_as_they_are_written_and_mistakes_are_named() {
        for text in ["site=berlin", "site!=berlin", "site"] {
            assert_eq!(text.parse::<LabelCondition>().expect(text).to_string(), text);
        }
        for text in ["", "=berlin", "site=", "si te=x", "site!=", "a=b=c"] {
            assert_eq!(text.parse::<LabelCondition>().expect_err(text).code(), "TED-1378");
            assert!(parse_label(text).is_err(), "{text}");
        }
        assert_eq!(parse_label("site=berlin"), Ok((label("site"), label("berlin"))));
        assert!(parse_label("site").is_err());
    }
}
