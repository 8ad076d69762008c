//! What a fleet's questions are answered from without looking through all of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::DistributionId;
use crate::model::Channel;
use crate::model::fleet::records::Membership;
use crate::name::{Label, NodeName};

/// Derived from the fleet, and never anything else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    /// The Distributions by name.
    pub(super) distributions: BTreeMap<Label, DistributionId>,
    /// The Channels that send a Distribution.
    pub(super) sending: Many<Label, Label>,
    /// The Channels that send to a group.
    pub(super) reaching: Many<Label, Label>,
    /// The Channels that a Subscriber itself is in.
    pub(super) channels: Many<NodeName, Label>,
    /// The groups that a Subscriber is in.
    pub(super) groups: Many<NodeName, Label>,
    /// The Subscribers that name one as their parent.
    pub(super) children: Many<NodeName, NodeName>,
}

/// Several values for a key; keys without values are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Many<K, V>(BTreeMap<K, BTreeSet<V>>);

impl<K, V> Default for Many<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Many<K, V> {
    pub(super) fn of(&self, key: &K) -> impl Iterator<Item = &V> {
        self.0.get(key).into_iter().flatten()
    }

    fn set(&mut self, key: &K, value: &V, there: bool) {
        if there {
            self.0.entry(key.clone()).or_default().insert(value.clone());
        } else if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

impl Index {
    pub(super) fn distribution(&mut self, id: DistributionId, old: Option<&Label>, new: Option<Label>) {
        // Where names are exchanged, another Distribution may have the old one by now.
        if let Some(old) = old
            && self.distributions.get(old) == Some(&id)
        {
            self.distributions.remove(old);
        }
        if let Some(new) = new {
            self.distributions.insert(new, id);
        }
    }

    pub(super) fn channel(&mut self, name: &Label, old: Option<&Channel>, new: Option<&Channel>) {
        for (channel, there) in [(old, false), (new, true)] {
            let Some(channel) = channel else { continue };
            channel.distributions.iter().for_each(|distribution| self.sending.set(distribution, name, there));
            channel.groups.iter().for_each(|group| self.reaching.set(group, name, there));
        }
    }

    pub(super) fn member(&mut self, of: &Membership, name: &NodeName, there: bool) {
        match of {
            Membership::Channel(channel) => self.channels.set(name, channel, there),
            Membership::Group(group) => self.groups.set(name, group, there),
        }
    }

    pub(super) fn parents(&mut self, child: &NodeName, old: &[NodeName], new: &[NodeName]) {
        old.iter().for_each(|parent| self.children.set(parent, child, false));
        new.iter().for_each(|parent| self.children.set(parent, child, true));
    }
}
