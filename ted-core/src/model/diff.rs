//! What would change from one fleet to another, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{Channel, Distribution, Fleet, Item, Subscriber};
use crate::schedule::RatePlan;

/// All that differs between two fleets: settings, Distributions, Channels, groups, Subscribers, in that order. Prints as lines of
/// `+`, `-` and `~`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// The changes, in the order they are printed.
    pub changes: Vec<Change>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the newer fleet has it.
    Added(Item),
    /// Only the older fleet has it.
    Removed(Item),
    /// Both have it, and some fields differ.
    Changed {
        /// What it is.
        item: Item,
        /// Each field that differs, in words: `source: /a -> /b`.
        fields: Vec<String>,
    },
}

impl Fleet {
    /// What has to change for this fleet to become `newer`. A Distribution is the same one under another name if its
    /// id is.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> Difference {
        let mut changes = Vec::new();
        let mut fields = Vec::new();
        push_value(&mut fields, "settings", self.settings(), newer.settings());
        push_changed(&mut changes, Item::AllSubscribers, fields);
        for old in self.distributions() {
            match newer.distribution_by_id(&old.id) {
                None => changes.push(Change::Removed(old.item())),
                Some(new) => push_changed(&mut changes, old.item(), distribution_fields(old, new)),
            }
        }
        let added = newer.distributions().filter(|new| self.distribution_by_id(&new.id).is_none());
        changes.extend(added.map(|new| Change::Added(new.item())));

        for old in self.channels() {
            match newer.channel(&old.name) {
                Err(_) => changes.push(Change::Removed(old.item())),
                Ok(new) => push_changed(&mut changes, old.item(), channel_fields(old, new)),
            }
        }
        let added = newer.channels().filter(|new| self.channel(&new.name).is_err());
        changes.extend(added.map(|new| Change::Added(new.item())));

        for old in self.groups() {
            match newer.group(&old.name) {
                Err(_) => changes.push(Change::Removed(old.item())),
                Ok(new) => {
                    let mut fields = Vec::new();
                    push_set(&mut fields, "subscribers", &old.subscribers, &new.subscribers);
                    push_changed(&mut changes, old.item(), fields);
                }
            }
        }
        let added = newer.groups().filter(|new| self.group(&new.name).is_err());
        changes.extend(added.map(|new| Change::Added(new.item())));

        for old in self.subscribers() {
            match newer.subscriber(&old.name) {
                Err(_) => changes.push(Change::Removed(old.item())),
                Ok(new) => push_changed(&mut changes, old.item(), subscriber_fields(old, new)),
            }
        }
        let added = newer.subscribers().filter(|new| self.subscriber(&new.name).is_err());
        changes.extend(added.map(|new| Change::Added(new.item())));
        Difference { changes }
    }
}

impl Difference {
    /// Whether the fleets are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(item) => write!(f, "+ {item}"),
            Self::Removed(item) => write!(f, "- {item}"),
            Self::Changed { item, fields } => write!(f, "~ {item}: {}", fields.join("; ")),
        }
    }
}

fn push_changed(changes: &mut Vec<Change>, item: Item, fields: Vec<String>) {
    if !fields.is_empty() {
        changes.push(Change::Changed { item, fields });
    }
}

fn distribution_fields(old: &Distribution, new: &Distribution) -> Vec<String> {
    // Whoever adds a field has to say here how it is compared.
    let Distribution {
        id: _,
        name,
        source,
        exclude,
        include,
        gitignore,
        digest,
        target,
        skip_unreadable,
        priority,
        encrypt,
        keep,
        max_revisions,
        level,
        delta_level,
        mode,
        active,
        build,
    } = new;
    let mut fields = Vec::new();
    push_value(&mut fields, "name", &old.name, name);
    push_value(&mut fields, "source", &old.source, source);
    push_value(&mut fields, "exclude", &list(&old.exclude), &list(exclude));
    push_value(&mut fields, "include", &list(&old.include), &list(include));
    push_value(&mut fields, "gitignore", &old.gitignore, gitignore);
    push_value(&mut fields, "digest", &old.digest, digest);
    let shown = |target: &Option<String>| target.clone().unwrap_or_else(|| "none".to_owned());
    push_value(&mut fields, "target", &shown(&old.target), &shown(target));
    push_value(&mut fields, "skip_unreadable", &old.skip_unreadable, skip_unreadable);
    push_value(&mut fields, "priority", &old.priority, priority);
    push_value(&mut fields, "encrypt", &old.encrypt, encrypt);
    push_value(&mut fields, "keep", &old.keep, keep);
    push_value(&mut fields, "max_revisions", &old.max_revisions, max_revisions);
    push_value(&mut fields, "mode", &old.mode, mode);
    push_value(&mut fields, "level", &old.level, level);
    push_value(&mut fields, "delta_level", &old.delta_level, delta_level);
    push_value(&mut fields, "active", &old.active, active);
    push_value(&mut fields, "build", &old.build, build);
    fields
}

fn channel_fields(old: &Channel, new: &Channel) -> Vec<String> {
    let Channel { name: _, distributions, subscribers, groups, active, schedule } = new;
    let mut fields = Vec::new();
    push_set(&mut fields, "distributions", &old.distributions, distributions);
    push_set(&mut fields, "groups", &old.groups, groups);
    push_set(&mut fields, "subscribers", &old.subscribers, subscribers);
    push_value(&mut fields, "active", &old.active, active);
    push_value(&mut fields, "schedule", &old.schedule, schedule);
    fields
}

fn subscriber_fields(old: &Subscriber, new: &Subscriber) -> Vec<String> {
    let Subscriber { name: _, endpoints, certificate: _, settings, active, parents, external, labels, rate } = new;
    let mut fields = Vec::new();
    push_value(&mut fields, "endpoints", &list(&old.endpoints), &list(endpoints));
    push_value(&mut fields, "parents", &list(&old.parents), &list(parents));
    push_value(&mut fields, "external", &old.external, external);
    push_value(&mut fields, "active", &old.active, active);
    push_value(&mut fields, "labels", &pairs(&old.labels), &pairs(labels));
    let written = |rate: &Option<RatePlan>| rate.as_ref().map_or_else(|| "unlimited".to_owned(), ToString::to_string);
    push_value(&mut fields, "rate", &written(&old.rate), &written(rate));
    push_value(&mut fields, "settings", &old.settings, settings);
    let way = |subscriber: &Subscriber| {
        subscriber.certificate.as_ref().map_or_else(|| "by hand".to_owned(), ToString::to_string)
    };
    push_value(&mut fields, "certificate", &way(old), &way(new));
    fields
}

fn push_value<T: PartialEq + fmt::Display>(fields: &mut Vec<String>, field: &str, old: &T, new: &T) {
    if old != new {
        fields.push(format!("{field}: {old} -> {new}"));
    }
}

fn push_set<T: Ord + fmt::Display>(fields: &mut Vec<String>, field: &str, old: &BTreeSet<T>, new: &BTreeSet<T>) {
    let gone = old.difference(new).map(|item| format!("-{item}"));
    let come = new.difference(old).map(|item| format!("+{item}"));
    let words: Vec<String> = gone.chain(come).collect();
    if !words.is_empty() {
        fields.push(format!("{field}: {}", words.join(" ")));
    }
}

fn pairs<K: fmt::Display, V: fmt::Display>(items: &BTreeMap<K, V>) -> String {
    let words: Vec<String> = items.iter().map(|(key, value)| format!("{key}={value}")).collect();
    list(&words)
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let words: Vec<String> = items.iter().map(T::to_string).collect();
    format!("[{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fleet::tests::{channel, distribution, fleet, label, node};

    #[test]
    fn a_difference_reads_as_lines() {
        let old = fleet();
        let mut new = fleet();
        let mut web = distribution(1, "web");
        web.target = Some("/srv/www".to_owned());
        new.update_distribution(&label("site"), web).expect("free name");
        new.delete_channel(&label("nightly")).expect("there");
        new.delete_distribution(&label("tools")).expect("unused now");
        new.delete_subscriber(&node("leaf2")).expect("there");
        new.create_subscriber(Subscriber::new(node("leaf3"))).expect("new");
        new.update_channel(&label("hourly"), channel("hourly", &["web"], &["leaf1", "leaf3"])).expect("valid");
        new.create_channel(channel("weekly", &["web"], &[])).expect("new");
        assert_eq!(
            old.diff(&new).to_string(),
            "~ Distribution `site`: name: site -> web; source: /srv/site -> /srv/web; target: none -> /srv/www\n\
             - Distribution `tools`\n\
             ~ Channel `hourly`: distributions: -site +web; subscribers: -leaf2 +leaf3\n\
             - Channel `nightly`\n\
             + Channel `weekly`\n\
             - Subscriber `leaf2`\n\
             + Subscriber `leaf3`\n"
        );
    }

    #[test]
    fn how_many_revisions_are_offered_is_a_difference() {
        let (old, mut new) = (fleet(), fleet());
        let mut site = new.distribution(&label("site")).expect("there").clone();
        site.max_revisions = 3;
        new.update_distribution(&label("site"), site).expect("valid");
        assert_eq!(old.diff(&new).to_string(), "~ Distribution `site`: max_revisions: 10 -> 3\n");
    }

    #[test]
    fn the_same_fleet_has_no_difference() {
        assert!(fleet().diff(&fleet()).is_empty());
    }
}
