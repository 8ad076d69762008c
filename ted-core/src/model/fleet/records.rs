//! How a fleet changes: in records, of which each says what one declared thing is from now on, or that it is gone.
//!
//! All changes go through [`Fleet::put`], which keeps the index and, while a change is tried, remembers what was before.
//! So a change costs what it changes, whatever the size of the fleet.

use std::collections::BTreeSet;
use std::mem;

use crate::id::DistributionId;
use crate::model::{Channel, Distribution, Fleet, Group, Settings, Subscriber};
use crate::name::{Label, NodeName};

/// One declared thing as it is, or nothing where it is gone. A fleet is the sum of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetRecord {
    /// What is set at all Subscribers.
    Settings(Settings),
    /// A Distribution.
    Distribution(DistributionId, Option<Distribution>),
    /// A Channel without its Subscribers.
    Channel(Label, Option<Channel>),
    /// A group without its members, of which nothing else is left than that it is there.
    Group(Label, bool),
    /// A Subscriber.
    Subscriber(NodeName, Option<Box<Subscriber>>),
    /// Whether a Subscriber is in a Channel or in a group.
    Member(Membership, NodeName, bool),
}

/// What a Subscriber can be in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Membership {
    /// A Channel.
    Channel(Label),
    /// A group.
    Group(Label),
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Settings,
    Distribution(DistributionId),
    Channel(Label),
    Group(Label),
    Subscriber(NodeName),
    Member(Membership, NodeName),
}

impl Fleet {
    /// Tries a change and leaves the fleet as it is: what comes back with the change's result are the records that make
    /// it happen with [`Fleet::take`]. Between the two, whoever keeps the fleet writes them down.
    ///
    /// # Errors
    /// The change's own.
    pub fn attempt<T, E>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<(T, Vec<FleetRecord>), E> {
        self.before = Some(Vec::new());
        let result = change(self);
        let before = self.before.take().unwrap_or_default();
        let after = if result.is_ok() { self.after(&before) } else { Vec::new() };
        for record in before.into_iter().rev() {
            self.put(record);
        }
        result.map(|result| (result, after))
    }

    /// Makes what [`Fleet::attempt`] answered happen.
    pub fn take(&mut self, records: Vec<FleetRecord>) {
        self.version += 1;
        for record in records {
            self.put(record);
        }
    }

    /// A number that is another after every change that was taken.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All records of this fleet.
    #[must_use]
    pub fn records(&self) -> Vec<FleetRecord> {
        let mut records = vec![FleetRecord::Settings(self.settings.clone())];
        let about = self.distributions.keys().copied().map(About::Distribution);
        let about = about.chain(self.channels.keys().cloned().map(About::Channel));
        let about = about.chain(self.groups.keys().cloned().map(About::Group));
        let about = about.chain(self.subscribers.keys().cloned().map(About::Subscriber));
        records.extend(about.map(|about| self.record(about)));
        for channel in self.channels.values() {
            let member = |name: &NodeName| (Membership::Channel(channel.name.clone()), name.clone());
            records
                .extend(channel.subscribers.iter().map(member).map(|(of, name)| FleetRecord::Member(of, name, true)));
        }
        for group in self.groups.values() {
            let member = |name: &NodeName| (Membership::Group(group.name.clone()), name.clone());
            records.extend(group.subscribers.iter().map(member).map(|(of, name)| FleetRecord::Member(of, name, true)));
        }
        records
    }

    /// What the things that `before` is about are now; what is gone at the end, after its members.
    fn after(&self, before: &[FleetRecord]) -> Vec<FleetRecord> {
        let about: BTreeSet<About> = before.iter().map(FleetRecord::about).collect();
        let mut records: Vec<FleetRecord> = about.into_iter().map(|about| self.record(about)).collect();
        records.sort_by_key(FleetRecord::is_gone);
        records
    }

    fn record(&self, about: About) -> FleetRecord {
        match about {
            About::Settings => FleetRecord::Settings(self.settings.clone()),
            About::Distribution(id) => FleetRecord::Distribution(id, self.distributions.get(&id).cloned()),
            About::Channel(name) => {
                let head = self.channels.get(&name).map(Channel::without_subscribers);
                FleetRecord::Channel(name, head)
            }
            About::Group(name) => {
                let there = self.groups.contains_key(&name);
                FleetRecord::Group(name, there)
            }
            About::Subscriber(name) => {
                let subscriber = self.subscribers.get(&name).cloned().map(Box::new);
                FleetRecord::Subscriber(name, subscriber)
            }
            About::Member(of, name) => {
                let there = self.members(&of).is_some_and(|members| members.contains(&name));
                FleetRecord::Member(of, name, there)
            }
        }
    }

    fn members(&self, of: &Membership) -> Option<&BTreeSet<NodeName>> {
        match of {
            Membership::Channel(name) => self.channels.get(name).map(|channel| &channel.subscribers),
            Membership::Group(name) => self.groups.get(name).map(|group| &group.subscribers),
        }
    }

    /// Puts one thing into its place and remembers what was there.
    pub(super) fn put(&mut self, record: FleetRecord) {
        let before = match record {
            FleetRecord::Settings(settings) => FleetRecord::Settings(mem::replace(&mut self.settings, settings)),
            FleetRecord::Distribution(id, distribution) => {
                FleetRecord::Distribution(id, self.put_distribution(id, distribution))
            }
            FleetRecord::Channel(name, head) => {
                let old = self.put_channel_head(&name, head);
                FleetRecord::Channel(name, old)
            }
            FleetRecord::Group(name, there) => {
                let was = if there {
                    self.groups.insert(name.clone(), Group::new(name.clone())).is_some()
                } else {
                    self.groups.remove(&name).is_some()
                };
                FleetRecord::Group(name, was)
            }
            FleetRecord::Subscriber(name, subscriber) => {
                let old = self.put_subscriber(&name, subscriber.map(|subscriber| *subscriber));
                FleetRecord::Subscriber(name, old.map(Box::new))
            }
            FleetRecord::Member(of, name, there) => {
                let was = self.put_member(&of, &name, there);
                FleetRecord::Member(of, name, was)
            }
        };
        if let Some(earlier) = &mut self.before {
            earlier.push(before);
        }
    }

    fn put_distribution(&mut self, id: DistributionId, distribution: Option<Distribution>) -> Option<Distribution> {
        let new = distribution.as_ref().map(|distribution| distribution.name.clone());
        let old = match distribution {
            Some(distribution) => self.distributions.insert(id, distribution),
            None => self.distributions.remove(&id),
        };
        self.index.distribution(id, old.as_ref().map(|old| &old.name), new);
        old
    }

    /// The Subscribers of a Channel that is there stay.
    fn put_channel_head(&mut self, name: &Label, head: Option<Channel>) -> Option<Channel> {
        let mut old = self.channels.remove(name);
        self.index.channel(name, old.as_ref(), head.as_ref());
        if let Some(head) = head {
            let subscribers = old.as_mut().map(|old| mem::take(&mut old.subscribers)).unwrap_or_default();
            self.channels.insert(name.clone(), Channel { subscribers, ..head });
        }
        old.map(|old| Channel { subscribers: BTreeSet::new(), ..old })
    }

    fn put_subscriber(&mut self, name: &NodeName, subscriber: Option<Subscriber>) -> Option<Subscriber> {
        let parents = subscriber.as_ref().map(|subscriber| subscriber.parents.clone()).unwrap_or_default();
        let old = match subscriber {
            Some(subscriber) => self.subscribers.insert(name.clone(), subscriber),
            None => self.subscribers.remove(name),
        };
        self.index.parents(name, old.as_ref().map_or(&[], |old| &old.parents), &parents);
        old
    }

    fn put_member(&mut self, of: &Membership, name: &NodeName, there: bool) -> bool {
        let members = match of {
            Membership::Channel(channel) => self.channels.get_mut(channel).map(|channel| &mut channel.subscribers),
            Membership::Group(group) => self.groups.get_mut(group).map(|group| &mut group.subscribers),
        };
        let Some(members) = members else { return false };
        let was = if there { !members.insert(name.clone()) } else { members.remove(name) };
        self.index.member(of, name, there);
        was
    }

    /// Puts a Channel with its Subscribers.
    pub(super) fn put_channel(&mut self, mut channel: Channel) {
        let (name, subscribers) = (channel.name.clone(), mem::take(&mut channel.subscribers));
        self.put(FleetRecord::Channel(name.clone(), Some(channel)));
        self.put_members(Membership::Channel(name), &subscribers);
    }

    /// Puts a group with its members.
    pub(super) fn put_group(&mut self, group: Group) {
        if !self.groups.contains_key(&group.name) {
            self.put(FleetRecord::Group(group.name.clone(), true));
        }
        self.put_members(Membership::Group(group.name), &group.subscribers);
    }

    /// Takes a Channel or a group away, with its members.
    pub(super) fn put_nothing(&mut self, of: Membership) {
        self.put_members(of.clone(), &BTreeSet::new());
        self.put(match of {
            Membership::Channel(name) => FleetRecord::Channel(name, None),
            Membership::Group(name) => FleetRecord::Group(name, false),
        });
    }

    fn put_members(&mut self, of: Membership, wanted: &BTreeSet<NodeName>) {
        let Some(now) = self.members(&of) else { return };
        let gone: Vec<_> = now.difference(wanted).cloned().map(|name| (name, false)).collect();
        let come: Vec<_> = wanted.difference(now).cloned().map(|name| (name, true)).collect();
        for (name, there) in gone.into_iter().chain(come) {
            self.put(FleetRecord::Member(of.clone(), name, there));
        }
    }
}

impl FleetRecord {
    fn about(&self) -> About {
        match self {
            Self::Settings(_) => About::Settings,
            Self::Distribution(id, _) => About::Distribution(*id),
            Self::Channel(name, _) => About::Channel(name.clone()),
            Self::Group(name, _) => About::Group(name.clone()),
            Self::Subscriber(name, _) => About::Subscriber(name.clone()),
            Self::Member(of, name, _) => About::Member(of.clone(), name.clone()),
        }
    }

    /// Whether it says that something is gone that holds others.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Channel(_, None) | Self::Group(_, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FleetError;
    use crate::model::fleet::tests::{channel, distribution, fleet, label, node};

    type Change = fn(&mut Fleet) -> Result<(), FleetError>;

    const CHANGES: [(usize, Change); 9] = [
        (1, |f| f.create_subscriber(Subscriber::new(node("new")))),
        (1, |f| f.add_to_channel(&label("nightly"), &node("leaf2"))),
        (1, |f| f.set_settings(None, Settings::default())),
        (3, |f| f.create_channel(channel("new", &["site"], &["leaf1", "leaf2"]))),
        (2, |f| f.update_channel(&label("hourly"), channel("hourly", &["tools"], &["leaf1"]))),
        (2, |f| f.delete_channel(&label("nightly")).map(drop)),
        (3, |f| f.update_distribution(&label("site"), distribution(1, "web"))),
        (3, |f| f.delete_subscriber(&node("leaf1")).map(drop)),
        (4, |f| {
            f.create_group(Group { name: label("north"), subscribers: [node("leaf1"), node("leaf2")].into() })?;
            let mut nightly = f.channel(&label("nightly"))?.clone();
            nightly.groups.insert(label("north"));
            f.update_channel(&label("nightly"), nightly)
        }),
    ];

    #[test]
    fn a_change_is_the_records_that_it_touches_and_happens_when_they_are_taken() {
        for (number, (records, change)) in CHANGES.into_iter().enumerate() {
            let mut expected = fleet();
            change(&mut expected).expect("valid");
            let mut tried = fleet();
            let ((), changes) = tried.attempt(change).expect("valid");
            assert_eq!(tried, fleet(), "change {number} was only tried");
            assert_eq!(tried.index, fleet().index, "change {number} was only tried");
            assert_eq!(changes.len(), records, "change {number}: {changes:?}");
            tried.take(changes);
            assert_eq!(tried, expected, "change {number}");
            assert_eq!(tried.index, expected.index, "change {number}");
        }
    }

    #[test]
    fn a_change_that_fails_on_its_way_leaves_nothing_behind() {
        for (number, (_, change)) in CHANGES.into_iter().enumerate() {
            let mut tried = fleet();
            let failing = |fleet: &mut Fleet| {
                change(fleet)?;
                fleet.delete_channel(&label("none"))
            };
            assert!(tried.attempt(failing).is_err());
            assert_eq!((&tried, &tried.index), (&fleet(), &fleet().index), "change {number}");
        }
    }

    #[test]
    fn a_fleet_is_the_sum_of_its_records() {
        let mut copy = Fleet::default();
        copy.take(fleet().records());
        assert_eq!((&copy, &copy.index), (&fleet(), &fleet().index));
    }

    #[test]
    fn two_distributions_may_exchange_their_names() {
        let mut tried = fleet();
        let swap = |fleet: &mut Fleet| {
            fleet.update_distribution(&label("site"), distribution(1, "between"))?;
            fleet.update_distribution(&label("tools"), distribution(2, "site"))?;
            fleet.update_distribution(&label("between"), distribution(1, "tools"))
        };
        let ((), changes) = tried.attempt(swap).expect("valid");
        tried.take(changes);
        assert_eq!(tried.distribution(&label("tools")).expect("there").id, DistributionId::from_bytes([1; 16]));
        assert_eq!(tried.distribution(&label("site")).expect("there").id, DistributionId::from_bytes([2; 16]));
        assert_eq!(tried.distributions().count(), 2);
    }
}
