//! Groups of a fleet.

use crate::model::fleet::{FleetRecord, Membership, duplicate, not_found};
use crate::model::{Channel, Fleet, FleetError, Group, Item};
use crate::name::{Label, NodeName};

impl Fleet {
    /// All groups, by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.values()
    }

    /// The group of this name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn group(&self, name: &Label) -> Result<&Group, FleetError> {
        self.groups.get(name).ok_or_else(|| not_found(Item::Group(name.to_string())))
    }

    /// The groups that a Subscriber belongs to, by name.
    pub fn groups_of(&self, subscriber: &NodeName) -> impl Iterator<Item = &Group> {
        self.index.groups.of(subscriber).filter_map(|name| self.groups.get(name))
    }

    /// The Channels that send to a group, by name.
    pub fn channels_to(&self, group: &Label) -> impl Iterator<Item = &Channel> {
        self.index.reaching.of(group).filter_map(|name| self.channels.get(name))
    }

    /// Adds a group.
    ///
    /// # Errors
    /// [`FleetError::Duplicate`], [`FleetError::UnknownReference`] for a member.
    pub fn create_group(&mut self, group: Group) -> Result<(), FleetError> {
        if self.groups.contains_key(&group.name) {
            return Err(duplicate(group.item(), ""));
        }
        self.check_group(&group)?;
        self.put_group(group);
        Ok(())
    }

    /// Puts `group` in the place of the one called `name`. Under a new name, its Channels follow it.
    ///
    /// # Errors
    /// As [`Fleet::create_group`], and [`FleetError::NotFound`].
    pub fn update_group(&mut self, name: &Label, group: Group) -> Result<(), FleetError> {
        self.group(name)?;
        self.check_group(&group)?;
        let to = group.name.clone();
        if to != *name && self.groups.contains_key(&to) {
            return Err(duplicate(group.item(), ""));
        }
        self.put_group(group);
        if to != *name {
            let channels: Vec<Channel> = self.channels_to(name).map(Channel::without_subscribers).collect();
            for mut channel in channels {
                channel.groups.remove(name);
                channel.groups.insert(to.clone());
                self.put(FleetRecord::Channel(channel.name.clone(), Some(channel)));
            }
            self.put_nothing(Membership::Group(name.clone()));
        }
        Ok(())
    }

    /// Removes a group that no Channel sends to; its members stay.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::InUse`].
    pub fn delete_group(&mut self, name: &Label) -> Result<Group, FleetError> {
        let group = self.group(name)?.clone();
        let using: Vec<String> = self.channels_to(name).map(|channel| channel.item().to_string()).collect();
        if !using.is_empty() {
            return Err(FleetError::InUse { item: group.item(), by: using.join(", ") });
        }
        self.put_nothing(Membership::Group(name.clone()));
        Ok(group)
    }

    /// Makes a Subscriber a member of a group; a member stays one.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either.
    pub fn add_to_group(&mut self, group: &Label, subscriber: &NodeName) -> Result<(), FleetError> {
        self.subscriber(subscriber)?;
        if !self.group(group)?.subscribers.contains(subscriber) {
            self.put(FleetRecord::Member(Membership::Group(group.clone()), subscriber.clone(), true));
        }
        Ok(())
    }

    /// Ends a Subscriber's membership of a group; one that is no member stays none.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the group.
    pub fn remove_from_group(&mut self, group: &Label, subscriber: &NodeName) -> Result<(), FleetError> {
        if self.group(group)?.subscribers.contains(subscriber) {
            self.put(FleetRecord::Member(Membership::Group(group.clone()), subscriber.clone(), false));
        }
        Ok(())
    }

    fn check_group(&self, group: &Group) -> Result<(), FleetError> {
        match group.subscribers.iter().find(|name| !self.subscribers.contains_key(*name)) {
            None => Ok(()),
            Some(name) => {
                let missing = Item::Subscriber(name.to_string());
                Err(FleetError::UnknownReference { by: group.item(), missing })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;
    use crate::model::fleet::tests::{fleet, label, node};

    #[test]
    fn members_of_a_group_get_its_channels_once_and_as_long_as_they_belong_to_it() {
        let mut fleet = fleet();
        let members = [node("leaf1"), node("leaf2")].into();
        fleet.create_group(Group { name: label("north"), subscribers: members }).expect("new");
        let mut nightly = fleet.channel(&label("nightly")).expect("there").clone();
        nightly.groups.insert(label("north"));
        fleet.update_channel(&label("nightly"), nightly).expect("valid");
        assert_eq!(fleet.subscribers_of(&label("nightly")).expect("there").len(), 2);
        assert_eq!(fleet.entitled(&node("leaf2")).len(), 2);
        assert_eq!(fleet.delete_group(&label("north")).expect_err("in use").code(), "TED-1604");

        fleet.remove_from_group(&label("north"), &node("leaf2")).expect("there");
        assert_eq!(fleet.entitled(&node("leaf2")).len(), 1);
        fleet.add_to_group(&label("north"), &node("leaf2")).expect("both there");
        let group = fleet.group(&label("north")).expect("there").clone();
        fleet.update_group(&label("north"), Group { name: label("arctic"), ..group }).expect("a free name");
        assert!(fleet.channel(&label("nightly")).expect("there").groups.contains(&label("arctic")));
        fleet.delete_subscriber(&node("leaf2")).expect("there");
        assert_eq!(fleet.group(&label("arctic")).expect("there").subscribers.len(), 1);
        assert_eq!(fleet.add_to_group(&label("arctic"), &node("leaf2")).expect_err("gone").code(), "TED-1605");
    }

    #[test]
    fn groups_name_only_subscribers_that_are_there() {
        let mut changed = fleet();
        let group = Group { name: label("north"), subscribers: [node("none")].into() };
        assert_eq!(changed.create_group(group).expect_err("unknown").code(), "TED-1603");
        assert_eq!(changed, fleet());
    }
}
