//! A fleet that becomes what a file declares.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::DistributionId;
use crate::model::{Channel, Fleet, FleetError, FleetParts, FleetRecord, Item, Membership};
use crate::name::NodeName;

/// What happens to what a file does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeclared {
    /// It stays as it is.
    Keep,
    /// It goes.
    Remove,
}

impl Fleet {
    /// Becomes what `parts` declare. What they do not declare is answered, whether it stays or goes; of the settings for
    /// all Subscribers, each is one of its own.
    ///
    /// # Errors
    /// [`FleetError`] names the first mistake in what it would become; then it is as it was.
    pub fn apply(&mut self, parts: FleetParts, undeclared: Undeclared) -> Result<Vec<Item>, FleetError> {
        for declared in &parts.distributions {
            let had = self.distribution(&declared.name).map(|had| had.id).ok();
            if let Some(kept) = had.filter(|had| *had != declared.id && !self.distributions.contains_key(&declared.id))
            {
                return Err(FleetError::OtherId { item: declared.item(), given: declared.id, kept });
            }
        }
        let left = self.not_in(&parts);
        let parts = match undeclared {
            Undeclared::Remove => parts,
            Undeclared::Keep => self.kept_with(parts),
        };
        let declared = Self::from_parts(FleetParts { distributor: self.distributor.clone(), ..parts })?;
        let records = self.records_to(&declared);
        records.into_iter().for_each(|record| self.put(record));
        Ok(left)
    }

    /// The records that make this fleet `newer`.
    #[must_use]
    pub fn records_to(&self, newer: &Self) -> Vec<FleetRecord> {
        let mut records = Vec::new();
        if self.settings != newer.settings {
            records.push(FleetRecord::Settings(newer.settings.clone()));
        }
        for id in keys(&self.distributions, &newer.distributions) {
            if self.distributions.get(id) != newer.distributions.get(id) {
                records.push(FleetRecord::Distribution(*id, newer.distributions.get(id).cloned()));
            }
        }
        for name in keys(&self.subscribers, &newer.subscribers) {
            let new = newer.subscribers.get(name);
            if self.subscribers.get(name) != new {
                records.push(FleetRecord::Subscriber(name.clone(), new.cloned().map(Box::new)));
            }
        }
        let none = BTreeSet::new();
        for name in keys(&self.groups, &newer.groups) {
            let (old, new) = (self.groups.get(name), newer.groups.get(name));
            if old.is_some() != new.is_some() {
                records.push(FleetRecord::Group(name.clone(), new.is_some()));
            }
            let (old, new) = (old.map_or(&none, |old| &old.subscribers), new.map_or(&none, |new| &new.subscribers));
            push_members(&mut records, &Membership::Group(name.clone()), old, new);
        }
        for name in keys(&self.channels, &newer.channels) {
            let (old, new) = (self.channels.get(name), newer.channels.get(name));
            let head = new.map(Channel::without_subscribers);
            if old.map(Channel::without_subscribers) != head {
                records.push(FleetRecord::Channel(name.clone(), head));
            }
            let (old, new) = (old.map_or(&none, |old| &old.subscribers), new.map_or(&none, |new| &new.subscribers));
            push_members(&mut records, &Membership::Channel(name.clone()), old, new);
        }
        records.sort_by_key(FleetRecord::is_gone);
        records
    }

    /// What this fleet has and `parts` do not declare.
    fn not_in(&self, parts: &FleetParts) -> Vec<Item> {
        let distributions: BTreeSet<DistributionId> = parts.distributions.iter().map(|declared| declared.id).collect();
        let channels: BTreeSet<_> = parts.channels.iter().map(|declared| &declared.name).collect();
        let groups: BTreeSet<_> = parts.groups.iter().map(|declared| &declared.name).collect();
        let subscribers: BTreeSet<&NodeName> = parts.subscribers.iter().map(|declared| &declared.name).collect();
        let left = self.distributions().filter(|had| !distributions.contains(&had.id)).map(|had| had.item());
        let left = left.chain(self.channels().filter(|had| !channels.contains(&had.name)).map(|had| had.item()));
        let left = left.chain(self.groups().filter(|had| !groups.contains(&had.name)).map(|had| had.item()));
        left.chain(self.subscribers().filter(|had| !subscribers.contains(&had.name)).map(|had| had.item())).collect()
    }

    /// `parts`, with what this fleet has besides.
    fn kept_with(&self, mut parts: FleetParts) -> FleetParts {
        let left: BTreeSet<Item> = self.not_in(&parts).into_iter().collect();
        parts.distributions.extend(self.distributions().filter(|had| left.contains(&had.item())).cloned());
        parts.channels.extend(self.channels().filter(|had| left.contains(&had.item())).cloned());
        parts.groups.extend(self.groups().filter(|had| left.contains(&had.item())).cloned());
        parts.subscribers.extend(self.subscribers().filter(|had| left.contains(&had.item())).cloned());
        for (setting, value) in self.settings.iter() {
            if parts.settings.get(setting).is_none() {
                // It was checked when it was set.
                let _ = parts.settings.set(setting.clone(), value);
            }
        }
        parts
    }
}

fn keys<'a, K: Ord, V>(one: &'a BTreeMap<K, V>, other: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    one.keys().chain(other.keys()).collect()
}

fn push_members(records: &mut Vec<FleetRecord>, of: &Membership, old: &BTreeSet<NodeName>, new: &BTreeSet<NodeName>) {
    let gone = old.difference(new).map(|name| (name, false));
    let come = new.difference(old).map(|name| (name, true));
    // Members come after what they are in and go before it: a record of something gone is sorted to the end.
    records.extend(gone.chain(come).map(|(name, there)| FleetRecord::Member(of.clone(), name.clone(), there)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;
    use crate::model::fleet::tests::{fleet, label, node};
    use crate::model::{Setting, Subscriber};

    fn parts(text: &str) -> FleetParts {
        FleetParts::from_toml(text, &mut |name| fleet().distribution(name).expect("known").id).expect(text)
    }

    const TEXT: &str = r#"
        [[distribution]]
        name = "site"
        source = "/srv/new"

        [[channel]]
        name = "hourly"
        distributions = ["site"]
        subscribers = ["leaf2", "leaf3"]

        [[subscriber]]
        name = "leaf2"

        [[subscriber]]
        name = "leaf3"
        parents = ["leaf2"]
    "#;

    #[test]
    fn what_is_not_declared_stays_unless_it_shall_go() {
        let mut settled = fleet();
        let mut settings = settled.settings().clone();
        settings.set(Setting::InputRate, "2M").expect("fits");
        settled.set_settings(None, settings).expect("of all");

        let mut kept = settled.clone();
        let left = kept.apply(parts(TEXT), Undeclared::Keep).expect("valid");
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert_eq!(left, ["Distribution `tools`", "Channel `nightly`", "Subscriber `leaf1`"]);
        assert_eq!(kept.subscribers().count(), 3);
        assert_eq!(kept.channel(&label("hourly")).expect("there").subscribers, [node("leaf2"), node("leaf3")].into());
        assert_eq!(kept.settings(), settled.settings());

        let mut pruned = settled.clone();
        pruned.apply(parts(TEXT), Undeclared::Remove).expect("valid");
        assert_eq!((pruned.subscribers().count(), pruned.channels().count()), (2, 1));
        assert!(pruned.settings().is_empty());
        let diff = settled.diff(&pruned).to_string();
        assert!(diff.contains("- Channel `nightly`") && diff.contains("source: /srv/site -> /srv/new"), "{diff}");
        let again = pruned.clone().apply(parts(TEXT), Undeclared::Remove).expect("valid");
        assert!(again.is_empty());
    }

    #[test]
    fn a_distribution_keeps_its_id_and_takes_its_new_name_from_it() {
        let mut tried = fleet();
        let mut other = parts(TEXT);
        other.distributions[0].id = DistributionId::from_bytes([9; 16]);
        assert_eq!(tried.apply(other, Undeclared::Remove).expect_err("another id").code(), "TED-1379");
        let renamed = parts(
            &TEXT
                .replace("name = \"site\"", "name = \"web\"\nid = \"01010101010101010101010101010101\"")
                .replace("[\"site\"]", "[\"web\"]"),
        );
        tried.apply(renamed, Undeclared::Remove).expect("valid");
        assert_eq!(tried.distribution(&label("web")).expect("there").id, DistributionId::from_bytes([1; 16]));
        assert!(tried.distribution(&label("site")).is_err());
    }

    #[test]
    fn a_file_with_a_mistake_changes_nothing() {
        let mut tried = fleet();
        let mut wrong = parts(TEXT);
        wrong.subscribers.push(Subscriber { parents: vec![node("leaf4")], ..Subscriber::new(node("leaf4")) });
        assert_eq!(tried.apply(wrong, Undeclared::Keep).expect_err("a circle").code(), "TED-1374");
        assert_eq!(tried, fleet());
    }
}
