//! Changes of the fleet that are asked for by what is to be another, for one Subscriber or for many; and what a declared
//! fleet file makes of it. Each can be tried: it is judged and told, and nothing happens.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::fleet_records::Gone;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::DistributionId;
use crate::model::{
    Belonging, CertificateWay, ChangeKind, Channel, Difference, Distribution, Endpoint, Fleet, FleetError, FleetParts,
    FleetWarning, Group, Item, Selection, Subscriber, Undeclared,
};
use crate::name::{Label, NodeName};
use crate::schedule::{RatePlan, Schedule};

/// How a rate is written that is none.
const UNLIMITED: &str = "unlimited";

/// Whether a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It is.
    Make,
    /// It is only judged and told.
    Only,
}

/// What of Subscribers is to be another; what is `None` or empty stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubscriberChanges {
    /// Where they are dialled; an empty list for Subscribers that dial by themselves.
    pub endpoints: Option<Vec<Endpoint>>,
    /// Their route; an empty list for the Distributor itself.
    pub parents: Option<Vec<NodeName>>,
    /// Whether they are External.
    pub external: Option<bool>,
    /// Whether they are offered anything.
    pub active: Option<bool>,
    /// How fast they are sent to; `unlimited` for as fast as it goes.
    pub rate: Option<RatePlan>,
    /// How the Distributor's certificate is brought to them.
    pub certificate: Option<CertificateBringing>,
    /// Labels that they get.
    pub labels: Vec<(Label, Label)>,
    /// Labels that they lose, whatever their value.
    pub without_labels: Vec<Label>,
    /// Channels that they get into.
    pub into_channels: Vec<Label>,
    /// Channels that they leave.
    pub from_channels: Vec<Label>,
    /// Groups that they get into.
    pub into_groups: Vec<Label>,
    /// Groups that they leave.
    pub from_groups: Vec<Label>,
}

/// How a certificate is brought from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateBringing {
    /// Somebody carries it.
    Hand,
    /// On this way.
    Way(CertificateWay),
}

/// What of a Channel is to be another; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelChanges {
    /// The Distributions that it sends.
    pub distributions: Option<BTreeSet<Label>>,
    /// The Subscribers that it sends to.
    pub subscribers: Option<BTreeSet<NodeName>>,
    /// The groups that it sends to.
    pub groups: Option<BTreeSet<Label>>,
    /// When it sends by itself.
    pub schedule: Option<Schedule>,
    /// Whether it sends at all.
    pub active: Option<bool>,
}

/// What of a group is to be another; what is `None` or empty stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupChanges {
    /// Its name.
    pub name: Option<Label>,
    /// Who gets into it.
    pub add: Vec<NodeName>,
    /// Who leaves it.
    pub remove: Vec<NodeName>,
}

/// What a change of the fleet did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetChange {
    /// The Subscribers that were meant, for a change of Subscribers.
    pub subscribers: Vec<NodeName>,
    /// What is another.
    pub difference: Difference,
    /// What the fleet has and a file does not declare.
    pub undeclared: Vec<Item>,
    /// What is hardly meant: of the whole fleet for a file, else of what changed.
    pub warnings: Vec<FleetWarning>,
}

impl SubscriberChanges {
    fn apply(&self, fleet: &mut Fleet, name: &NodeName) -> Result<(), FleetError> {
        let mut subscriber = fleet.subscriber(name)?.clone();
        if let Some(endpoints) = &self.endpoints {
            subscriber.endpoints.clone_from(endpoints);
        }
        if let Some(parents) = &self.parents {
            subscriber.parents.clone_from(parents);
        }
        subscriber.external = self.external.unwrap_or(subscriber.external);
        subscriber.active = self.active.unwrap_or(subscriber.active);
        if let Some(rate) = &self.rate {
            subscriber.rate = (rate.to_string() != UNLIMITED).then(|| rate.clone());
        }
        match &self.certificate {
            None => {}
            Some(CertificateBringing::Hand) => subscriber.certificate = None,
            Some(CertificateBringing::Way(way)) => subscriber.certificate = Some(way.clone()),
        }
        self.without_labels.iter().for_each(|key| drop(subscriber.labels.remove(key)));
        subscriber.labels.extend(self.labels.iter().cloned());
        fleet.update_subscriber(subscriber)?;
        self.from_channels.iter().try_for_each(|channel| fleet.remove_from_channel(channel, name))?;
        self.into_channels.iter().try_for_each(|channel| fleet.add_to_channel(channel, name))?;
        self.from_groups.iter().try_for_each(|group| fleet.remove_from_group(group, name))?;
        self.into_groups.iter().try_for_each(|group| fleet.add_to_group(group, name))
    }
}

impl ChannelChanges {
    fn apply(self, channel: Channel) -> Channel {
        Channel {
            distributions: self.distributions.unwrap_or(channel.distributions),
            subscribers: self.subscribers.unwrap_or(channel.subscribers),
            groups: self.groups.unwrap_or(channel.groups),
            schedule: self.schedule.unwrap_or(channel.schedule),
            active: self.active.unwrap_or(channel.active),
            name: channel.name,
        }
    }
}

impl Distributor {
    /// Makes a Channel.
    ///
    /// # Errors
    /// When the name is taken, or something it names does not exist.
    pub async fn declare_channel(&self, channel: Channel) -> Result<(), Error> {
        self.blocking(move |state| state.change_fleet(|fleet| Ok(fleet.create_channel(channel)?))).await
    }

    /// Changes a Channel.
    ///
    /// # Errors
    /// When there is none of that name, or something it names does not exist.
    pub async fn change_channel(&self, name: &Label, changes: ChannelChanges) -> Result<(), Error> {
        let name = name.clone();
        let change = move |fleet: &mut Fleet| {
            let channel = changes.apply(fleet.channel(&name)?.clone());
            Ok(fleet.update_channel(&name, channel)?)
        };
        self.blocking(move |state| state.change_fleet(change)).await
    }

    /// Declares a Subscriber, with what `changes` say of it.
    ///
    /// # Errors
    /// When the name is taken, its route cannot work, or a Channel or group does not exist.
    pub async fn declare_subscriber(&self, name: &NodeName, changes: SubscriberChanges) -> Result<(), Error> {
        let name = name.clone();
        let change = move |fleet: &mut Fleet| {
            fleet.create_subscriber(Subscriber::new(name.clone()))?;
            Ok(changes.apply(fleet, &name)?)
        };
        self.blocking(move |state| state.change_and_tell(Trial::Make, change).map(drop)).await
    }

    /// Declares a Subscriber unless it is there, and changes it as `changes` say.
    ///
    /// # Errors
    /// As [`Distributor::declare_subscriber`].
    pub async fn ensure_subscriber(&self, name: &NodeName, changes: SubscriberChanges) -> Result<(), Error> {
        let name = name.clone();
        let change = move |fleet: &mut Fleet| {
            if fleet.subscriber(&name).is_err() {
                fleet.create_subscriber(Subscriber::new(name.clone()))?;
            }
            Ok(changes.apply(fleet, &name)?)
        };
        self.blocking(move |state| state.change_and_tell(Trial::Make, change).map(drop)).await
    }

    /// Changes Subscribers, all of them or none.
    ///
    /// # Errors
    /// When one is not there, a route cannot work, or a Channel or group does not exist.
    pub async fn change_subscribers(
        &self,
        selection: Selection,
        belonging: Belonging,
        changes: SubscriberChanges,
        trial: Trial,
    ) -> Result<FleetChange, Error> {
        let change = move |fleet: &mut Fleet| {
            let meant = fleet.select(&selection, belonging)?;
            let meant: Vec<NodeName> = meant.into_iter().map(|subscriber| subscriber.name.clone()).collect();
            meant.iter().try_for_each(|name| changes.apply(fleet, name))?;
            Ok(meant)
        };
        self.blocking(move |state| {
            let (subscribers, told) = state.change_and_tell(trial, change)?;
            Ok(FleetChange { subscribers, ..told })
        })
        .await
    }

    /// Makes a group.
    ///
    /// # Errors
    /// When the name is taken, or a member does not exist.
    pub async fn create_group(&self, group: Group) -> Result<(), Error> {
        self.blocking(move |state| state.change_fleet(|fleet| Ok(fleet.create_group(group)?))).await
    }

    /// Changes a group.
    ///
    /// # Errors
    /// When there is none of that name, the new name is taken, or a member does not exist.
    pub async fn change_group(&self, name: &Label, changes: GroupChanges) -> Result<(), Error> {
        let name = name.clone();
        let change = move |fleet: &mut Fleet| {
            changes.remove.iter().try_for_each(|member| fleet.remove_from_group(&name, member))?;
            changes.add.iter().try_for_each(|member| fleet.add_to_group(&name, member))?;
            let Some(to) = changes.name else { return Ok(()) };
            let group = fleet.group(&name)?.clone();
            Ok(fleet.update_group(&name, Group { name: to, ..group })?)
        };
        self.blocking(move |state| state.change_fleet(change)).await
    }

    /// Removes a group; its members stay.
    ///
    /// # Errors
    /// When there is none of that name, or a Channel sends to it.
    pub async fn delete_group(&self, name: &Label) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.change_fleet(|fleet| Ok(fleet.delete_group(&name).map(drop)?))).await
    }

    /// Makes the fleet what the text of a fleet file declares: all of it or nothing. A Distribution keeps its id under
    /// its name, and its name under its id.
    ///
    /// # Errors
    /// The first mistake in the text, or in what the fleet would become.
    pub async fn apply(&self, text: String, undeclared: Undeclared, trial: Trial) -> Result<FleetChange, Error> {
        self.blocking(move |state| state.apply_text(&text, undeclared, trial)).await
    }

    /// The fleet as the text of a fleet file, which [`Distributor::apply`] takes.
    ///
    /// # Errors
    /// When TOML cannot say it.
    pub fn export(&self) -> Result<String, Error> {
        Ok(lock(&self.state.fleet).export()?)
    }

    /// Looks at the fleet without copying it. `look` holds up whoever wants to change it: let it be short.
    pub fn with_fleet<T>(&self, look: impl FnOnce(&Fleet) -> T) -> T {
        look(&lock(&self.state.fleet))
    }
}

impl State {
    /// Changes the fleet and tells what is another; then tells Subscribers what concerns them.
    pub(super) fn change_and_tell<T>(
        &self,
        trial: Trial,
        change: impl FnOnce(&mut Fleet) -> Result<T, Error>,
    ) -> Result<(T, FleetChange), Error> {
        let change = |fleet: &mut Fleet| Ok((change(fleet)?, fleet.warnings()));
        let ((result, mut warnings), difference) = self.try_change(trial, Gone::Leaves, change, Fleet::difference)?;
        let items: BTreeSet<&Item> = difference.changes.iter().map(|change| &change.item).collect();
        warnings.retain(|warning| items.contains(warning.item()));
        if trial == Trial::Make {
            self.tell_whom_it_concerns(&difference)?;
        }
        Ok((result, FleetChange { difference, warnings, ..FleetChange::default() }))
    }

    /// Announces settings and routes anew to Subscribers that are in a difference, and to their children, who dial them.
    fn tell_whom_it_concerns(&self, difference: &Difference) -> Result<(), Error> {
        let named = difference.changes.iter().filter_map(|change| match &change.item {
            Item::Subscriber(name) => name.parse::<NodeName>().ok(),
            _ => None,
        });
        let mut concerned: BTreeSet<NodeName> = named.collect();
        if difference.changes.iter().any(|change| change.item == Item::AllSubscribers) {
            return self.announce_configuration();
        }
        if concerned.is_empty() {
            return Ok(());
        }
        {
            let fleet = lock(&self.fleet);
            let children = concerned.iter().flat_map(|name| fleet.children_of(name));
            let children: Vec<NodeName> = children.map(|child| child.name.clone()).collect();
            concerned.extend(children);
        }
        self.announce_configuration_to(&concerned)
    }

    pub(super) fn apply_text(&self, text: &str, undeclared: Undeclared, trial: Trial) -> Result<FleetChange, Error> {
        let parts = self.parts_of(text)?;
        let change = |fleet: &mut Fleet| {
            let before: Vec<Distribution> = fleet.distributions().cloned().collect();
            let left = fleet.apply(parts, undeclared)?;
            let gone = before.into_iter().filter(|had| fleet.distribution_by_id(&had.id).is_none());
            Ok((left, gone.collect::<Vec<_>>(), fleet.warnings()))
        };
        let ((undeclared, distributions, warnings), told) = self.change_and_tell(trial, change)?;
        if trial == Trial::Make {
            for change in told.difference.changes.iter().filter(|change| change.kind == ChangeKind::Removed) {
                if let Item::Subscriber(name) = &change.item {
                    self.forget_subscriber(&name.parse()?)?;
                }
            }
            let _no_build_meanwhile = (!distributions.is_empty()).then(|| self.building.blocking_lock());
            distributions.iter().try_for_each(|distribution| self.forget_built(distribution))?;
        }
        Ok(FleetChange { undeclared, warnings, ..told })
    }

    /// What a fleet file declares. Ids are those that the fleet has given to names; new ones are drawn.
    fn parts_of(&self, text: &str) -> Result<FleetParts, Error> {
        let mut failed = None;
        let mut id_for = |name: &Label| {
            let known = lock(&self.fleet).distribution(name).ok().map(|known| known.id);
            let mut drawn = || {
                self.random().unwrap_or_else(|error| {
                    failed = Some(error);
                    [0; 16]
                })
            };
            known.unwrap_or_else(|| DistributionId::from_bytes(drawn()))
        };
        let parts = FleetParts::from_toml(text, &mut id_for)?;
        failed.map_or(Ok(parts), Err)
    }
}
