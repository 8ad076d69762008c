//! The fleet: all that an operator declared, joined and checked.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::DistributionId;
use crate::model::{Channel, Distribution, FleetError, Item, Settings, Subscriber};
use crate::name::{Label, NodeName};

/// Everything that is declared. Each name stands once, every reference leads somewhere: no operation breaks that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    distributions: BTreeMap<Label, Distribution>,
    channels: BTreeMap<Label, Channel>,
    subscribers: BTreeMap<NodeName, Subscriber>,
    /// What is set at all Subscribers.
    settings: Settings,
}

impl Fleet {
    /// A fleet of these parts.
    ///
    /// # Errors
    /// [`FleetError`] names the first mistake.
    pub fn from_parts(
        distributions: Vec<Distribution>,
        channels: Vec<Channel>,
        subscribers: Vec<Subscriber>,
    ) -> Result<Self, FleetError> {
        let mut fleet = Self::default();
        for distribution in distributions {
            fleet.create_distribution(distribution)?;
        }
        for subscriber in subscribers {
            fleet.create_subscriber(subscriber)?;
        }
        for channel in channels {
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

    /// The Channels that send to a Subscriber, by name.
    pub fn channels_of<'a>(&'a self, subscriber: &'a NodeName) -> impl Iterator<Item = &'a Channel> {
        self.channels.values().filter(move |channel| channel.subscribers.contains(subscriber))
    }

    /// The Subscribers that a Channel sends to, by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the Channel.
    pub fn subscribers_of(&self, channel: &Label) -> Result<Vec<&Subscriber>, FleetError> {
        Ok(self.channel(channel)?.subscribers.iter().filter_map(|name| self.subscribers.get(name)).collect())
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

    /// Gives a Subscriber another name; its Channels follow it.
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
        Ok(())
    }

    /// Removes a Subscriber, also from its Channels, whose names come back.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn delete_subscriber(&mut self, name: &NodeName) -> Result<Vec<Label>, FleetError> {
        self.subscriber(name)?;
        self.subscribers.remove(name);
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Coded;

    pub(in crate::model) fn label(text: &str) -> Label {
        text.parse().expect(text)
    }

    pub(in crate::model) fn node(text: &str) -> NodeName {
        text.parse().expect(text)
    }

    pub(in crate::model) fn distribution(number: u8, name: &str) -> Distribution {
        Distribution::new(DistributionId::from_bytes([number; 16]), label(name), format!("/srv/{name}"))
    }

    pub(in crate::model) fn channel(name: &str, distributions: &[&str], subscribers: &[&str]) -> Channel {
        let mut channel = Channel::new(label(name), distributions.iter().map(|name| label(name)));
        channel.subscribers = subscribers.iter().map(|name| node(name)).collect();
        channel
    }

    /// Two Distributions, two Subscribers; `nightly` sends both to `leaf1`, `hourly` sends `site` to both.
    pub(in crate::model) fn fleet() -> Fleet {
        Fleet::from_parts(
            vec![distribution(1, "site"), distribution(2, "tools")],
            vec![channel("nightly", &["site", "tools"], &["leaf1"]), channel("hourly", &["site"], &["leaf1", "leaf2"])],
            vec![Subscriber::new(node("leaf1")), Subscriber::new(node("leaf2"))],
        )
        .expect("a valid fleet")
    }

    #[test]
    fn a_subscriber_is_entitled_to_what_its_channels_send() {
        let fleet = fleet();
        let ids = |numbers: &[u8]| numbers.iter().map(|number| DistributionId::from_bytes([*number; 16])).collect();
        assert_eq!(fleet.entitled(&node("leaf1")), ids(&[1, 2]));
        assert_eq!(fleet.entitled(&node("leaf2")), ids(&[1]));
        assert_eq!(fleet.entitled(&node("stranger")), ids(&[]));
        let names = |channel| -> Vec<String> {
            let members = fleet.subscribers_of(&label(channel)).expect("known");
            members.iter().map(|subscriber| subscriber.name.to_string()).collect()
        };
        assert_eq!(names("hourly"), ["leaf1", "leaf2"]);
        assert_eq!(names("nightly"), ["leaf1"]);
        assert_eq!(fleet.channels_of(&node("leaf1")).count(), 2);
        assert_eq!(fleet.distributions_of(&label("nightly")).expect("known").len(), 2);
    }

    #[test]
    fn each_mistake_is_refused_by_its_name_and_changes_nothing() {
        type Change = fn(&mut Fleet) -> Result<(), FleetError>;
        let cases: [(&str, &str, Change); 13] = [
            ("TED-1602", "Distribution `site`", |f| f.create_distribution(distribution(9, "site"))),
            ("TED-1602", "that of Distribution `site`", |f| f.create_distribution(distribution(1, "new"))),
            ("TED-1606", "id", |f| f.update_distribution(&label("site"), distribution(9, "site"))),
            ("TED-1602", "`tools`", |f| f.update_distribution(&label("site"), distribution(1, "tools"))),
            ("TED-1604", "Channel `hourly`, Channel `nightly`", |f| f.delete_distribution(&label("site")).map(drop)),
            ("TED-1605", "Distribution `none`", |f| f.delete_distribution(&label("none")).map(drop)),
            ("TED-1602", "Channel `hourly`", |f| f.create_channel(channel("hourly", &["site"], &[]))),
            ("TED-1603", "Distribution `none`", |f| f.create_channel(channel("new", &["none"], &[]))),
            ("TED-1603", "Subscriber `none`", |f| f.create_channel(channel("new", &["site"], &["none"]))),
            ("TED-1606", "distributions", |f| f.update_channel(&label("hourly"), channel("hourly", &[], &[]))),
            ("TED-1602", "`nightly`", |f| f.update_channel(&label("hourly"), channel("nightly", &["site"], &[]))),
            ("TED-1602", "Subscriber `leaf1`", |f| f.create_subscriber(Subscriber::new(node("leaf1")))),
            ("TED-1605", "Subscriber `none`", |f| f.add_to_channel(&label("hourly"), &node("none"))),
        ];
        for (code, named, change) in cases {
            let mut changed = fleet();
            let error = change(&mut changed).expect_err(named);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(named), "{error} does not name {named}");
            assert_eq!(changed, fleet(), "{error}: something changed");
        }
    }

    #[test]
    fn a_renamed_distribution_stays_in_its_channels() {
        let mut fleet = fleet();
        fleet.update_distribution(&label("site"), distribution(1, "web")).expect("free name");
        assert!(fleet.distribution(&label("site")).is_err());
        assert_eq!(fleet.entitled(&node("leaf2")).len(), 1);
        assert!(fleet.channel(&label("hourly")).expect("there").distributions.contains(&label("web")));
    }

    #[test]
    fn a_deleted_subscriber_leaves_its_channels() {
        let mut fleet = fleet();
        assert_eq!(fleet.delete_subscriber(&node("leaf1")).expect("there"), [label("hourly"), label("nightly")]);
        assert_eq!(fleet.channels_of(&node("leaf1")).count(), 0);
        assert!(fleet.entitled(&node("leaf1")).is_empty());
    }

    #[test]
    fn membership_begins_and_ends() {
        let mut fleet = fleet();
        fleet.add_to_channel(&label("nightly"), &node("leaf2")).expect("both known");
        assert_eq!(fleet.entitled(&node("leaf2")).len(), 2);
        fleet.remove_from_channel(&label("nightly"), &node("leaf2")).expect("known");
        fleet.remove_from_channel(&label("nightly"), &node("leaf2")).expect("no member any more");
        assert_eq!(fleet.entitled(&node("leaf2")).len(), 1);
    }

    #[test]
    fn an_endpoint_listed_twice_is_refused() {
        let mut subscriber = Subscriber::new(node("leaf1"));
        subscriber.endpoints = vec!["leaf1:1229".parse().expect("valid"), "LEAF1:1229".parse().expect("valid")];
        assert_eq!(fleet().update_subscriber(subscriber).expect_err("twice").code(), "TED-1606");
    }
}
