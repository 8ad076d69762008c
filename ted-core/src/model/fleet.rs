//! The fleet: all that an operator declared, joined and checked.

mod groups;
mod routes;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::DistributionId;
use crate::model::{Channel, Distribution, FleetError, Group, Item, Settings, Subscriber};
use crate::name::{Label, NodeName};
use crate::schedule::Purpose;

/// Everything that is declared. Each name stands once, every reference leads somewhere: no operation breaks that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    distributions: BTreeMap<Label, Distribution>,
    channels: BTreeMap<Label, Channel>,
    groups: BTreeMap<Label, Group>,
    subscribers: BTreeMap<NodeName, Subscriber>,
    /// What is set at all Subscribers.
    settings: Settings,
}

/// What a fleet is made of.
#[derive(Debug, Clone, Default)]
pub struct FleetParts {
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
        let mut fleet = Self { settings: parts.settings, ..Self::default() };
        for distribution in parts.distributions {
            fleet.create_distribution(distribution)?;
        }
        for subscriber in parts.subscribers {
            fleet.create_subscriber(subscriber)?;
        }
        for group in parts.groups {
            fleet.create_group(group)?;
        }
        for channel in parts.channels {
            fleet.create_channel(channel)?;
        }
        Ok(fleet)
    }

    /// All Distributions, by name.
    pub fn distributions(&self) -> impl ExactSizeIterator<Item = &Distribution> {
        self.distributions.values()
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
    /// [`FleetError::NotFound`].
    pub fn set_settings(&mut self, subscriber: Option<&NodeName>, settings: Settings) -> Result<(), FleetError> {
        match subscriber {
            None => self.settings = settings,
            Some(name) => {
                let found = self.subscribers.get_mut(name);
                found.ok_or_else(|| not_found(Item::Subscriber(name.to_string())))?.settings = settings;
            }
        }
        Ok(())
    }

    /// The Distribution of this name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn distribution(&self, name: &Label) -> Result<&Distribution, FleetError> {
        self.distributions.get(name).ok_or_else(|| not_found(Item::Distribution(name.to_string())))
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
        self.distributions.values().find(|distribution| distribution.id == *id)
    }

    /// The Channels that send to a Subscriber, itself or through a group, by name.
    pub fn channels_of<'a>(&'a self, subscriber: &'a NodeName) -> impl Iterator<Item = &'a Channel> {
        let groups: BTreeSet<&Label> = self.groups_of(subscriber).map(|group| &group.name).collect();
        self.channels.values().filter(move |channel| {
            channel.subscribers.contains(subscriber) || channel.groups.iter().any(|group| groups.contains(group))
        })
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

    /// The Distributions that a Channel sends, by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the Channel.
    pub fn distributions_of(&self, channel: &Label) -> Result<Vec<&Distribution>, FleetError> {
        Ok(self.channel(channel)?.distributions.iter().filter_map(|name| self.distributions.get(name)).collect())
    }

    /// What a Subscriber may fetch: the Distributions of its Channels. A name that is not of the fleet may nothing.
    #[must_use]
    pub fn entitled(&self, subscriber: &NodeName) -> BTreeSet<DistributionId> {
        self.channels_of(subscriber)
            .flat_map(|channel| &channel.distributions)
            .filter_map(|name| self.distributions.get(name))
            .map(|distribution| distribution.id)
            .collect()
    }

    /// Adds a Distribution.
    ///
    /// # Errors
    /// [`FleetError::Duplicate`] for its name or id, [`FleetError::BadField`].
    pub fn create_distribution(&mut self, distribution: Distribution) -> Result<(), FleetError> {
        distribution.check()?;
        if self.distributions.contains_key(&distribution.name) {
            return Err(duplicate(distribution.item(), ""));
        }
        if let Some(other) = self.distribution_by_id(&distribution.id) {
            return Err(duplicate(distribution.item(), &format!(": its id is that of {}", other.item())));
        }
        self.distributions.insert(distribution.name.clone(), distribution);
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
        if distribution.name != *name {
            if self.distributions.contains_key(&distribution.name) {
                return Err(duplicate(distribution.item(), ""));
            }
            self.distributions.remove(name);
            for channel in self.channels.values_mut() {
                if channel.distributions.remove(name) {
                    channel.distributions.insert(distribution.name.clone());
                }
            }
        }
        self.distributions.insert(distribution.name.clone(), distribution);
        Ok(())
    }

    /// Removes a Distribution that no Channel sends.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::InUse`].
    pub fn delete_distribution(&mut self, name: &Label) -> Result<Distribution, FleetError> {
        let item = self.distribution(name)?.item();
        let using: Vec<String> = self
            .channels
            .values()
            .filter(|channel| channel.distributions.contains(name))
            .map(|channel| channel.item().to_string())
            .collect();
        if !using.is_empty() {
            return Err(FleetError::InUse { item, by: using.join(", ") });
        }
        self.distributions.remove(name).ok_or(FleetError::NotFound { item })
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
        self.channels.insert(channel.name.clone(), channel);
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
        self.channels.remove(name);
        self.channels.insert(channel.name.clone(), channel);
        Ok(())
    }

    /// Removes a Channel; its Distributions and Subscribers stay.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn delete_channel(&mut self, name: &Label) -> Result<Channel, FleetError> {
        self.channels.remove(name).ok_or_else(|| not_found(Item::Channel(name.to_string())))
    }

    /// Adds a Subscriber.
    ///
    /// # Errors
    /// [`FleetError::Duplicate`] for its name, or an endpoint it lists twice.
    pub fn create_subscriber(&mut self, subscriber: Subscriber) -> Result<(), FleetError> {
        if self.subscribers.contains_key(&subscriber.name) {
            return Err(duplicate(subscriber.item(), ""));
        }
        check_subscriber(&subscriber)?;
        self.subscribers.insert(subscriber.name.clone(), subscriber);
        Ok(())
    }

    /// Puts `subscriber` in the place of the one with its name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::BadField`] for an endpoint listed twice.
    pub fn update_subscriber(&mut self, subscriber: Subscriber) -> Result<(), FleetError> {
        self.subscriber(&subscriber.name)?;
        check_subscriber(&subscriber)?;
        self.subscribers.insert(subscriber.name.clone(), subscriber);
        Ok(())
    }

    /// Gives a Subscriber another name; its Channels, groups and children follow it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::Duplicate`] for the new name.
    pub fn rename_subscriber(&mut self, name: &NodeName, to: &NodeName) -> Result<(), FleetError> {
        let mut subscriber = self.subscriber(name)?.clone();
        subscriber.name = to.clone();
        self.create_subscriber(subscriber)?;
        self.subscribers.remove(name);
        for channel in self.channels.values_mut() {
            if channel.subscribers.remove(name) {
                channel.subscribers.insert(to.clone());
            }
        }
        for group in self.groups.values_mut() {
            if group.subscribers.remove(name) {
                group.subscribers.insert(to.clone());
            }
        }
        let parents = self.subscribers.values_mut().flat_map(|subscriber| &mut subscriber.parents);
        parents.filter(|parent| *parent == name).for_each(|parent| *parent = to.clone());
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
        self.subscribers.remove(name);
        for group in self.groups.values_mut() {
            group.subscribers.remove(name);
        }
        let mut left = Vec::new();
        for channel in self.channels.values_mut() {
            if channel.subscribers.remove(name) {
                left.push(channel.name.clone());
            }
        }
        Ok(left)
    }

    /// Makes a Subscriber a member of a Channel; a member stays one.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either.
    pub fn add_to_channel(&mut self, channel: &Label, subscriber: &NodeName) -> Result<(), FleetError> {
        self.subscriber(subscriber)?;
        match self.channels.get_mut(channel) {
            Some(channel) => {
                channel.subscribers.insert(subscriber.clone());
                Ok(())
            }
            None => Err(not_found(Item::Channel(channel.to_string()))),
        }
    }

    /// Ends a Subscriber's membership of a Channel; one that is no member stays none.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the Channel.
    pub fn remove_from_channel(&mut self, channel: &Label, subscriber: &NodeName) -> Result<(), FleetError> {
        match self.channels.get_mut(channel) {
            Some(channel) => {
                channel.subscribers.remove(subscriber);
                Ok(())
            }
            None => Err(not_found(Item::Channel(channel.to_string()))),
        }
    }

    fn check_channel(&self, channel: &Channel) -> Result<(), FleetError> {
        let by = || channel.item();
        if channel.distributions.is_empty() {
            let reason = "names none, so there is nothing to send".to_owned();
            return Err(FleetError::BadField { item: by(), field: "distributions", reason });
        }
        if let Some(name) = channel.distributions.iter().find(|name| !self.distributions.contains_key(*name)) {
            let missing = Item::Distribution(name.to_string());
            return Err(FleetError::UnknownReference { by: by(), missing });
        }
        if let Some(name) = channel.subscribers.iter().find(|name| !self.subscribers.contains_key(*name)) {
            let missing = Item::Subscriber(name.to_string());
            return Err(FleetError::UnknownReference { by: by(), missing });
        }
        if let Some(name) = channel.groups.iter().find(|name| !self.groups.contains_key(*name)) {
            let missing = Item::Group(name.to_string());
            return Err(FleetError::UnknownReference { by: by(), missing });
        }
        if !channel.schedule.fits(Purpose::Send) {
            let reason = format!("cannot be `{}`, which is for builds", channel.schedule);
            return Err(FleetError::BadField { item: by(), field: "schedule", reason });
        }
        Ok(())
    }
}

fn check_subscriber(subscriber: &Subscriber) -> Result<(), FleetError> {
    let mut seen = BTreeSet::new();
    for endpoint in &subscriber.endpoints {
        if !seen.insert(endpoint) {
            let reason = format!("lists {endpoint} twice");
            return Err(FleetError::BadField { item: subscriber.item(), field: "endpoints", reason });
        }
    }
    Ok(())
}

fn not_found(item: Item) -> FleetError {
    FleetError::NotFound { item }
}

fn duplicate(item: Item, detail: &str) -> FleetError {
    FleetError::Duplicate { item, detail: detail.to_owned() }
}
