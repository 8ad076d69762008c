//! The fleet: all that an operator declared, joined and checked.

mod applying;
mod check;
mod groups;
mod index;
#[cfg(test)]
mod random;
mod records;
mod routes;
mod selection;
#[cfg(test)]
pub(super) mod tests;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::DistributionId;
use crate::model::{Channel, Distribution, FleetError, Group, Item, Settings, Subscriber};
use crate::name::{Label, NodeName};

pub use applying::Undeclared;
pub use records::{FleetRecord, Membership};
pub use selection::{Belonging, LabelCondition, LabelError, Selection, parse_label};
pub use warnings::FleetWarning;

use index::Index;

/// Everything that is declared. Each name stands once, every reference leads somewhere, no route goes in a circle: no
/// operation breaks that.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The Distributor's own node name, which may stand in routes.
    distributor: Option<NodeName>,
    distributions: BTreeMap<DistributionId, Distribution>,
    channels: BTreeMap<Label, Channel>,
    groups: BTreeMap<Label, Group>,
    subscribers: BTreeMap<NodeName, Subscriber>,
    /// What is set at all Subscribers.
    settings: Settings,
    index: Index,
    /// While a change is tried: what was before each of its steps.
    before: Option<Vec<FleetRecord>>,
    /// Counts what was done to it.
    version: u64,
}

/// Two fleets are the same if the same is declared.
impl PartialEq for Fleet {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            distributor: _,
            distributions,
            channels,
            groups,
            subscribers,
            settings,
            index: _,
            before: _,
            version: _,
        } = self;
        *distributions == other.distributions
            && *channels == other.channels
            && *groups == other.groups
            && *subscribers == other.subscribers
            && *settings == other.settings
    }
}

impl Eq for Fleet {}

/// What a fleet is made of.
#[derive(Debug, Clone, Default)]
pub struct FleetParts {
    /// The Distributor's own node name, which may stand in routes.
    pub distributor: Option<NodeName>,
    /// What is set at all Subscribers.
    pub settings: Settings,
    /// The Distributions.
    pub distributions: Vec<Distribution>,
    /// The Channels.
    pub channels: Vec<Channel>,
    /// The groups.
    pub groups: Vec<Group>,
    /// The Subscribers.
    pub subscribers: Vec<Subscriber>,
}

impl Fleet {
    /// A fleet of these parts.
    ///
    /// # Errors
    /// [`FleetError`] names the first mistake.
    pub fn from_parts(parts: FleetParts) -> Result<Self, FleetError> {
        let FleetParts { distributor, settings, distributions, channels, groups, subscribers } = parts;
        let mut fleet = Self { distributor, settings, ..Self::default() };
        for distribution in distributions {
            fleet.create_distribution(distribution)?;
        }
        let names: Vec<NodeName> = subscribers.iter().map(|subscriber| subscriber.name.clone()).collect();
        for subscriber in subscribers {
            fleet.refuse_taken(&subscriber)?;
            fleet.put_subscriber_as_is(subscriber);
        }
        // Parents may be declared after their children.
        for name in &names {
            fleet.check_subscriber(fleet.subscriber(name)?)?;
        }
        for group in groups {
            fleet.create_group(group)?;
        }
        for channel in channels {
            fleet.create_channel(channel)?;
        }
        Ok(fleet)
    }

    /// The Distributor's own node name, where the fleet was told.
    #[must_use]
    pub fn distributor(&self) -> Option<&NodeName> {
        self.distributor.as_ref()
    }

    /// Says what the Distributor itself is called.
    pub fn set_distributor(&mut self, name: NodeName) {
        self.distributor = Some(name);
    }

    /// All Distributions, by name.
    pub fn distributions(&self) -> impl Iterator<Item = &Distribution> {
        self.index.distributions.values().filter_map(|id| self.distributions.get(id))
    }

    /// All Channels, by name.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = &Channel> {
        self.channels.values()
    }

    /// All Subscribers, by name.
    pub fn subscribers(&self) -> impl ExactSizeIterator<Item = &Subscriber> {
        self.subscribers.values()
    }

    /// What is set at all Subscribers.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is set at one Subscriber alone; without a name, at all.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn settings_of(&self, subscriber: Option<&NodeName>) -> Result<&Settings, FleetError> {
        subscriber.map_or(Ok(&self.settings), |name| Ok(&self.subscriber(name)?.settings))
    }

    /// Puts other settings in their place.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::ExternalSettings`].
    pub fn set_settings(&mut self, subscriber: Option<&NodeName>, settings: Settings) -> Result<(), FleetError> {
        let Some(name) = subscriber else {
            self.put(FleetRecord::Settings(settings));
            return Ok(());
        };
        let now = self.subscriber(name)?.clone();
        self.update_subscriber(Subscriber { settings, ..now })
    }

    /// The Distribution of this name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn distribution(&self, name: &Label) -> Result<&Distribution, FleetError> {
        let found = self.index.distributions.get(name).and_then(|id| self.distributions.get(id));
        found.ok_or_else(|| not_found(Item::Distribution(name.to_string())))
    }

    /// The Channel of this name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn channel(&self, name: &Label) -> Result<&Channel, FleetError> {
        self.channels.get(name).ok_or_else(|| not_found(Item::Channel(name.to_string())))
    }

    /// The Subscriber of this name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn subscriber(&self, name: &NodeName) -> Result<&Subscriber, FleetError> {
        self.subscribers.get(name).ok_or_else(|| not_found(Item::Subscriber(name.to_string())))
    }

    /// The Distribution with this id, where the fleet has it.
    #[must_use]
    pub fn distribution_by_id(&self, id: &DistributionId) -> Option<&Distribution> {
        self.distributions.get(id)
    }

    /// The Channels that send to a Subscriber, itself or through a group, by name.
    pub fn channels_of(&self, subscriber: &NodeName) -> impl Iterator<Item = &Channel> {
        let through_groups = self.index.groups.of(subscriber).flat_map(|group| self.index.reaching.of(group));
        let names: BTreeSet<&Label> = self.index.channels.of(subscriber).chain(through_groups).collect();
        names.into_iter().filter_map(|name| self.channels.get(name))
    }

    /// The Subscribers that a Channel sends to, those of its groups among them, each once and by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the Channel.
    pub fn subscribers_of(&self, channel: &Label) -> Result<Vec<&Subscriber>, FleetError> {
        let channel = self.channel(channel)?;
        let groups = channel.groups.iter().filter_map(|name| self.groups.get(name));
        let members = groups.flat_map(|group| &group.subscribers);
        let names: BTreeSet<&NodeName> = channel.subscribers.iter().chain(members).collect();
        Ok(names.into_iter().filter_map(|name| self.subscribers.get(name)).collect())
    }

    /// The Channels that send a Distribution, by name.
    pub fn channels_with(&self, distribution: &Label) -> impl Iterator<Item = &Channel> {
        self.index.sending.of(distribution).filter_map(|name| self.channels.get(name))
    }

    /// The Distributions that a Channel sends, by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the Channel.
    pub fn distributions_of(&self, channel: &Label) -> Result<Vec<&Distribution>, FleetError> {
        let names = self.channel(channel)?.distributions.iter();
        Ok(names.filter_map(|name| self.distribution(name).ok()).collect())
    }

    /// What a Subscriber may fetch: the Distributions of its Channels. A name that is not of the fleet may nothing.
    #[must_use]
    pub fn entitled(&self, subscriber: &NodeName) -> BTreeSet<DistributionId> {
        self.channels_of(subscriber)
            .flat_map(|channel| &channel.distributions)
            .filter_map(|name| self.index.distributions.get(name).copied())
            .collect()
    }

    /// Adds a Distribution.
    ///
    /// # Errors
    /// [`FleetError::Duplicate`] for its name or id, [`FleetError::BadField`].
    pub fn create_distribution(&mut self, distribution: Distribution) -> Result<(), FleetError> {
        distribution.check()?;
        if self.index.distributions.contains_key(&distribution.name) {
            return Err(duplicate(distribution.item(), ""));
        }
        if let Some(other) = self.distribution_by_id(&distribution.id) {
            return Err(duplicate(distribution.item(), &format!(": its id is that of {}", other.item())));
        }
        self.put(FleetRecord::Distribution(distribution.id, Some(distribution)));
        Ok(())
    }

    /// Puts `distribution` in the place of the one called `name`. Under a new name, its Channels follow it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Duplicate`] for the new name, [`FleetError::BadField`], also for
    /// another id.
    pub fn update_distribution(&mut self, name: &Label, distribution: Distribution) -> Result<(), FleetError> {
        let old = self.distribution(name)?;
        if old.id != distribution.id {
            let reason = format!("is {} and stays so", old.id);
            return Err(FleetError::BadField { item: old.item(), field: "id", reason });
        }
        distribution.check()?;
        let to = distribution.name.clone();
        if to != *name && self.index.distributions.contains_key(&to) {
            return Err(duplicate(distribution.item(), ""));
        }
        self.put(FleetRecord::Distribution(distribution.id, Some(distribution)));
        if to != *name {
            let channels: Vec<Channel> = self.channels_with(name).map(Channel::without_subscribers).collect();
            for mut channel in channels {
                channel.distributions.remove(name);
                channel.distributions.insert(to.clone());
                self.put(FleetRecord::Channel(channel.name.clone(), Some(channel)));
            }
        }
        Ok(())
    }

    /// Removes a Distribution that no Channel sends.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::InUse`].
    pub fn delete_distribution(&mut self, name: &Label) -> Result<Distribution, FleetError> {
        let distribution = self.distribution(name)?.clone();
        let using: Vec<String> = self.channels_with(name).map(|channel| channel.item().to_string()).collect();
        if !using.is_empty() {
            return Err(FleetError::InUse { item: distribution.item(), by: using.join(", ") });
        }
        self.put(FleetRecord::Distribution(distribution.id, None));
        Ok(distribution)
    }

    /// Adds a Channel.
    ///
    /// # Errors
    /// [`FleetError::Duplicate`], [`FleetError::UnknownReference`], [`FleetError::BadField`] without a Distribution.
    pub fn create_channel(&mut self, channel: Channel) -> Result<(), FleetError> {
        if self.channels.contains_key(&channel.name) {
            return Err(duplicate(channel.item(), ""));
        }
        self.check_channel(&channel)?;
        self.put_channel(channel);
        Ok(())
    }

    /// Puts `channel` in the place of the one called `name`.
    ///
    /// # Errors
    /// As [`Fleet::create_channel`], and [`FleetError::NotFound`].
    pub fn update_channel(&mut self, name: &Label, channel: Channel) -> Result<(), FleetError> {
        self.channel(name)?;
        if channel.name != *name && self.channels.contains_key(&channel.name) {
            return Err(duplicate(channel.item(), ""));
        }
        self.check_channel(&channel)?;
        if channel.name != *name {
            self.put_nothing(Membership::Channel(name.clone()));
        }
        self.put_channel(channel);
        Ok(())
    }

    /// Removes a Channel; its Distributions and Subscribers stay.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn delete_channel(&mut self, name: &Label) -> Result<Channel, FleetError> {
        let channel = self.channel(name)?.clone();
        self.put_nothing(Membership::Channel(name.clone()));
        Ok(channel)
    }

    /// Adds a Subscriber.
    ///
    /// # Errors
    /// [`FleetError::Duplicate`] for its name; [`FleetError::BadField`]; what is wrong with its route.
    pub fn create_subscriber(&mut self, subscriber: Subscriber) -> Result<(), FleetError> {
        self.refuse_taken(&subscriber)?;
        self.check_subscriber(&subscriber)?;
        self.put_subscriber_as_is(subscriber);
        Ok(())
    }

    /// Puts `subscriber` in the place of the one with its name.
    ///
    /// # Errors
    /// As [`Fleet::create_subscriber`], and [`FleetError::NotFound`].
    pub fn update_subscriber(&mut self, subscriber: Subscriber) -> Result<(), FleetError> {
        self.subscriber(&subscriber.name)?;
        self.check_subscriber(&subscriber)?;
        self.put_subscriber_as_is(subscriber);
        Ok(())
    }

    /// Gives a Subscriber another name; its Channels, groups and children follow it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::Duplicate`] for the new name.
    pub fn rename_subscriber(&mut self, name: &NodeName, to: &NodeName) -> Result<(), FleetError> {
        let mut subscriber = self.subscriber(name)?.clone();
        subscriber.name = to.clone();
        self.refuse_taken(&subscriber)?;
        self.put_subscriber_as_is(subscriber);
        for of in self.memberships_of(name) {
            self.put(FleetRecord::Member(of.clone(), name.clone(), false));
            self.put(FleetRecord::Member(of, to.clone(), true));
        }
        let children: Vec<Subscriber> = self.children_of(name).cloned().collect();
        for mut child in children {
            child.parents.iter_mut().filter(|parent| *parent == name).for_each(|parent| *parent = to.clone());
            self.put_subscriber_as_is(child);
        }
        self.put(FleetRecord::Subscriber(name.clone(), None));
        Ok(())
    }

    /// Removes a Subscriber that is nobody's parent, also from its groups and Channels; the Channels' names come back.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::InUse`] for a parent.
    pub fn delete_subscriber(&mut self, name: &NodeName) -> Result<Vec<Label>, FleetError> {
        let item = self.subscriber(name)?.item();
        let children: Vec<String> = self.children_of(name).map(|child| child.item().to_string()).collect();
        if !children.is_empty() {
            return Err(FleetError::InUse { item, by: format!("the route of {}", children.join(", ")) });
        }
        let left = self.index.channels.of(name).cloned().collect();
        for of in self.memberships_of(name) {
            self.put(FleetRecord::Member(of, name.clone(), false));
        }
        self.put(FleetRecord::Subscriber(name.clone(), None));
        Ok(left)
    }

    /// Makes a Subscriber a member of a Channel; a member stays one.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either.
    pub fn add_to_channel(&mut self, channel: &Label, subscriber: &NodeName) -> Result<(), FleetError> {
        self.subscriber(subscriber)?;
        if !self.channel(channel)?.subscribers.contains(subscriber) {
            self.put(FleetRecord::Member(Membership::Channel(channel.clone()), subscriber.clone(), true));
        }
        Ok(())
    }

    /// Ends a Subscriber's membership of a Channel; one that is no member stays none.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the Channel.
    pub fn remove_from_channel(&mut self, channel: &Label, subscriber: &NodeName) -> Result<(), FleetError> {
        if self.channel(channel)?.subscribers.contains(subscriber) {
            self.put(FleetRecord::Member(Membership::Channel(channel.clone()), subscriber.clone(), false));
        }
        Ok(())
    }

    fn put_subscriber_as_is(&mut self, subscriber: Subscriber) {
        self.put(FleetRecord::Subscriber(subscriber.name.clone(), Some(Box::new(subscriber))));
    }

    fn memberships_of(&self, subscriber: &NodeName) -> Vec<Membership> {
        let channels = self.index.channels.of(subscriber).cloned().map(Membership::Channel);
        channels.chain(self.index.groups.of(subscriber).cloned().map(Membership::Group)).collect()
    }
}

fn not_found(item: Item) -> FleetError {
    FleetError::NotFound { item }
}

fn duplicate(item: Item, detail: &str) -> FleetError {
    FleetError::Duplicate { item, detail: detail.to_owned() }
}
