//! What would change from one fleet to another, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Channel, Distribution, Fleet, FleetRecord, Item, Membership, Subscriber};
use crate::name::{Label, NodeName};
use crate::schedule::RatePlan;

/// Names of one field that are printed before the rest is only counted.
const NAMES_SHOWN: usize = 20;

/// All that differs between two fleets: settings, Distributions, Channels, groups, Subscribers, in that order. Prints as
/// lines of `+`, `-` and `~`, with a line for each field below.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Difference {
    /// The changes, in the order they are printed.
    pub changes: Vec<Change>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is, under the name that it had before.
    pub item: Item,
    /// What becomes of it.
    pub kind: ChangeKind,
    /// Each field that differs; of something new, from what it is by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Only the newer fleet has it.
    Added,
    /// Only the older fleet has it.
    Removed,
    /// Both have it, and some fields differ.
    Changed,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldChange {
    /// A value.
    Value {
        /// Which field, as in `fleet.toml`.
        field: String,
        /// What it was; `None` for something new.
        from: Option<String>,
        /// What it becomes.
        to: String,
    },
    /// A set of names.
    Names {
        /// Which field, as in `fleet.toml`.
        field: String,
        /// The names that are in it from now on.
        added: Vec<String>,
        /// The names that are in it no more.
        removed: Vec<String>,
    },
}

impl Fleet {
    /// What has to change for this fleet to become `newer`. A Distribution is the same one under another name if its
    /// id is.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> Difference {
        self.difference(&self.records_to(newer))
    }

    /// What these records would change in this fleet.
    #[must_use]
    pub fn difference(&self, records: &[FleetRecord]) -> Difference {
        let mut sorted = Sorted::default();
        for record in records {
            sorted.take(self, record);
        }
        let parts = [sorted.settings, sorted.distributions, sorted.channels, sorted.groups, sorted.subscribers];
        let named = parts.into_iter().flat_map(BTreeMap::into_values);
        let mut changes: Vec<Change> = named.filter(Change::is_one).collect();
        // What goes takes all of itself along.
        changes.iter_mut().filter(|change| change.kind == ChangeKind::Removed).for_each(|change| change.fields.clear());
        Difference { changes }
    }
}

/// Changes by kind and name. Channels and groups are put together from their own record and those of their members.
#[derive(Default)]
struct Sorted {
    settings: BTreeMap<String, Change>,
    distributions: BTreeMap<String, Change>,
    channels: BTreeMap<String, Change>,
    groups: BTreeMap<String, Change>,
    subscribers: BTreeMap<String, Change>,
}

impl Sorted {
    fn take(&mut self, fleet: &Fleet, record: &FleetRecord) {
        match record {
            FleetRecord::Settings(settings) => {
                let mut fields = Fields::between(true);
                fields.value("settings", fleet.settings(), settings);
                let change = Change { item: Item::AllSubscribers, kind: ChangeKind::Changed, fields: fields.list };
                self.settings.insert(String::new(), change);
            }
            FleetRecord::Distribution(id, new) => {
                let change = change_of(
                    fleet.distribution_by_id(id),
                    new.as_ref(),
                    Distribution::item,
                    |name| Distribution::new(*id, name.name.clone(), ""),
                    distribution_fields,
                );
                put(&mut self.distributions, change);
            }
            FleetRecord::Channel(name, new) => {
                let old = fleet.channel(name).ok();
                let change = change_of(
                    old,
                    new.as_ref(),
                    Channel::item,
                    |new| Channel::new(new.name.clone(), []),
                    channel_fields,
                );
                put_with_members(&mut self.channels, name, change);
            }
            FleetRecord::Group(name, there) => {
                let was = fleet.group(name).is_ok();
                let kind = match (was, there) {
                    (false, true) => ChangeKind::Added,
                    (true, false) => ChangeKind::Removed,
                    _ => return,
                };
                let change = Change { item: Item::Group(name.to_string()), kind, fields: vec![] };
                put_with_members(&mut self.groups, name, Some(change));
            }
            FleetRecord::Subscriber(name, new) => {
                let old = fleet.subscriber(name).ok();
                let change = change_of(
                    old,
                    new.as_deref(),
                    Subscriber::item,
                    |new| Subscriber::new(new.name.clone()),
                    subscriber_fields,
                );
                put(&mut self.subscribers, change);
            }
            FleetRecord::Member(of, name, there) => self.take_member(fleet, of, name, *there),
        }
    }

    fn take_member(&mut self, fleet: &Fleet, of: &Membership, name: &NodeName, there: bool) {
        let (changes, label, item, was) = match of {
            Membership::Channel(label) => {
                let was = fleet.channel(label).is_ok_and(|channel| channel.subscribers.contains(name));
                (&mut self.channels, label, Item::Channel(label.to_string()), was)
            }
            Membership::Group(label) => {
                let was = fleet.group(label).is_ok_and(|group| group.subscribers.contains(name));
                (&mut self.groups, label, Item::Group(label.to_string()), was)
            }
        };
        if was == there {
            return;
        }
        let empty = || Change { item, kind: ChangeKind::Changed, fields: vec![] };
        let change = changes.entry(label.to_string()).or_insert_with(empty);
        change.note_member(name, there);
    }
}

fn put(changes: &mut BTreeMap<String, Change>, change: Option<Change>) {
    if let Some(change) = change {
        changes.insert(change.item.to_string(), change);
    }
}

/// Joins the record of a Channel or group with what its members' records said before.
fn put_with_members(changes: &mut BTreeMap<String, Change>, name: &Label, change: Option<Change>) {
    let Some(mut change) = change else { return };
    if let Some(members) = changes.remove(name.as_str()) {
        change.fields.extend(members.fields);
    }
    changes.insert(name.to_string(), change);
}

fn change_of<T>(
    old: Option<&T>,
    new: Option<&T>,
    item: impl Fn(&T) -> Item,
    default: impl Fn(&T) -> T,
    fields: impl Fn(&T, &T, &mut Fields),
) -> Option<Change> {
    match (old, new) {
        (Some(old), Some(new)) => {
            let mut changed = Fields::between(true);
            fields(old, new, &mut changed);
            Some(Change { item: item(old), kind: ChangeKind::Changed, fields: changed.list })
        }
        (None, Some(new)) => {
            let mut changed = Fields::between(false);
            fields(&default(new), new, &mut changed);
            Some(Change { item: item(new), kind: ChangeKind::Added, fields: changed.list })
        }
        (Some(old), None) => Some(Change { item: item(old), kind: ChangeKind::Removed, fields: vec![] }),
        (None, None) => None,
    }
}

impl Difference {
    /// Whether the fleets are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl Change {
    /// A thing that was there and is no other now did not change.
    fn is_one(&self) -> bool {
        self.kind != ChangeKind::Changed || !self.fields.is_empty()
    }

    fn note_member(&mut self, name: &NodeName, there: bool) {
        let list = |field: &mut FieldChange| match field {
            FieldChange::Names { field, added, removed } if field == SUBSCRIBERS => {
                if there { &mut *added } else { &mut *removed }.push(name.to_string());
                true
            }
            _ => false,
        };
        if !self.fields.iter_mut().any(list) {
            let (added, removed) =
                if there { (vec![name.to_string()], vec![]) } else { (vec![], vec![name.to_string()]) };
            self.fields.push(FieldChange::Names { field: SUBSCRIBERS.to_owned(), added, removed });
        }
    }
}

const SUBSCRIBERS: &str = "subscribers";

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| write!(f, "{change}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.kind.sign(), self.item)?;
        self.fields.iter().try_for_each(|field| writeln!(f, "    {field}"))
    }
}

impl ChangeKind {
    /// How it is marked.
    #[must_use]
    pub fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { field, from: Some(from), to } => write!(f, "{field}: {from} -> {to}"),
            Self::Value { field, from: None, to } => write!(f, "{field}: {to}"),
            Self::Names { field, added, removed } => {
                write!(f, "{field}:")?;
                for (sign, names) in [('-', removed), ('+', added)] {
                    names.iter().take(NAMES_SHOWN).try_for_each(|name| write!(f, " {sign}{name}"))?;
                    if let Some(more) = names.len().checked_sub(NAMES_SHOWN).filter(|more| *more > 0) {
                        write!(f, " and {sign}{more} more")?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Fields as they are compared one after the other.
struct Fields {
    list: Vec<FieldChange>,
    /// Whether there was something before.
    was: bool,
}

impl Fields {
    fn between(was: bool) -> Self {
        Self { list: Vec::new(), was }
    }

    fn value<T: PartialEq + fmt::Display>(&mut self, field: &str, old: &T, new: &T) {
        if old != new {
            let from = self.was.then(|| old.to_string());
            self.list.push(FieldChange::Value { field: field.to_owned(), from, to: new.to_string() });
        }
    }

    fn names<T: Ord + fmt::Display>(&mut self, field: &str, old: &BTreeSet<T>, new: &BTreeSet<T>) {
        let removed: Vec<String> = old.difference(new).map(ToString::to_string).collect();
        let added: Vec<String> = new.difference(old).map(ToString::to_string).collect();
        if !(removed.is_empty() && added.is_empty()) {
            self.list.push(FieldChange::Names { field: field.to_owned(), added, removed });
        }
    }
}

fn distribution_fields(old: &Distribution, new: &Distribution, fields: &mut Fields) {
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
    fields.value("name", &old.name, name);
    fields.value("source", &old.source, source);
    fields.value("exclude", &list(&old.exclude), &list(exclude));
    fields.value("include", &list(&old.include), &list(include));
    fields.value("gitignore", &old.gitignore, gitignore);
    fields.value("digest", &old.digest, digest);
    let shown = |target: &Option<String>| target.clone().unwrap_or_else(|| "none".to_owned());
    fields.value("target", &shown(&old.target), &shown(target));
    fields.value("skip_unreadable", &old.skip_unreadable, skip_unreadable);
    fields.value("priority", &old.priority, priority);
    fields.value("encrypt", &old.encrypt, encrypt);
    fields.value("keep", &old.keep, keep);
    fields.value("max_revisions", &old.max_revisions, max_revisions);
    fields.value("mode", &old.mode, mode);
    fields.value("level", &old.level, level);
    fields.value("delta_level", &old.delta_level, delta_level);
    fields.value("active", &old.active, active);
    fields.value("build", &old.build, build);
}

fn channel_fields(old: &Channel, new: &Channel, fields: &mut Fields) {
    // The records of its members tell of its Subscribers.
    let Channel { name: _, distributions, subscribers: _, groups, active, schedule } = new;
    fields.names("distributions", &old.distributions, distributions);
    fields.names("groups", &old.groups, groups);
    fields.value("active", &old.active, active);
    fields.value("schedule", &old.schedule, schedule);
}

fn subscriber_fields(old: &Subscriber, new: &Subscriber, fields: &mut Fields) {
    let Subscriber { name: _, endpoints, certificate, settings, active, parents, external, labels, rate } = new;
    fields.value("endpoints", &list(&old.endpoints), &list(endpoints));
    fields.value("parents", &list(&old.parents), &list(parents));
    fields.value("external", &old.external, external);
    fields.value("active", &old.active, active);
    fields.value("labels", &pairs(&old.labels), &pairs(labels));
    let rate_of = |rate: &Option<RatePlan>| rate.as_ref().map_or_else(|| "unlimited".to_owned(), ToString::to_string);
    fields.value("rate", &rate_of(&old.rate), &rate_of(rate));
    fields.value("settings", &old.settings, settings);
    let way = |way: &Option<_>| way.as_ref().map_or_else(|| "by hand".to_owned(), ToString::to_string);
    fields.value("certificate", &way(&old.certificate), &way(certificate));
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
        let labels = [(label("site"), label("berlin"))].into();
        let behind = Subscriber { parents: vec![node("leaf1")], labels, ..Subscriber::new(node("leaf3")) };
        new.create_subscriber(behind).expect("new");
        let mut hourly = channel("hourly", &["web"], &["leaf1", "leaf3"]);
        hourly.schedule = "every 1h".parse().expect("a schedule");
        new.update_channel(&label("hourly"), hourly).expect("valid");
        new.create_channel(channel("weekly", &["web"], &["leaf1"])).expect("new");
        let expected = "\
~ Distribution `site`
    name: site -> web
    source: /srv/site -> /srv/web
    target: none -> /srv/www
- Distribution `tools`
~ Channel `hourly`
    distributions: -site +web
    schedule: never -> every 1h
    subscribers: -leaf2 +leaf3
- Channel `nightly`
+ Channel `weekly`
    distributions: +web
    subscribers: +leaf1
- Subscriber `leaf2`
+ Subscriber `leaf3`
    parents: [leaf1]
    labels: [site=berlin]
";
        assert_eq!(old.diff(&new).to_string(), expected);
        let mut became = old.clone();
        became.take(old.records_to(&new));
        assert_eq!(became, new);
        let json = serde_json::to_string(&old.diff(&new)).expect("JSON");
        assert_eq!(serde_json::from_str::<Difference>(&json).expect("the same"), old.diff(&new));
    }

    #[test]
    fn how_many_revisions_are_offered_is_a_difference() {
        let (old, mut new) = (fleet(), fleet());
        let mut site = new.distribution(&label("site")).expect("there").clone();
        site.max_revisions = 3;
        new.update_distribution(&label("site"), site).expect("valid");
        assert_eq!(old.diff(&new).to_string(), "~ Distribution `site`\n    max_revisions: 10 -> 3\n");
    }

    #[test]
    fn the_same_fleet_has_no_difference() {
        assert!(fleet().diff(&fleet()).is_empty());
        assert_eq!(fleet().records_to(&fleet()), []);
    }

    #[test]
    fn of_many_names_some_are_printed_and_the_rest_is_counted() {
        let added = (0..22).map(|number| format!("n{number:02}")).collect();
        let field = FieldChange::Names { field: SUBSCRIBERS.to_owned(), added, removed: vec![] };
        assert!(field.to_string().ends_with("+n18 +n19 and +2 more"), "{field}");
    }
}
