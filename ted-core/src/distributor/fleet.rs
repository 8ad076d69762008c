//! Changes of the fleet, and how everything stands.

use crate::distributor::DistributorError;
use crate::distributor::report::{DistributionSpec, DistributionStatus, DistributorStatus, SubscriberStatus};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, KeyHash};
use crate::model::{CertificateWay, Channel, Distribution, Endpoint, Fleet, Subscriber};
use crate::name::{Label, NodeName};
use crate::node::name_of_key;
use crate::package::Entry;

impl State {
    pub(super) fn create_distribution(&self, spec: DistributionSpec) -> Result<(), Error> {
        let id = DistributionId::from_bytes(self.random()?);
        self.change_fleet(|fleet| Ok(fleet.create_distribution(spec.into_distribution(id))?))
    }

    pub(super) fn update_distribution(&self, name: &Label, spec: DistributionSpec) -> Result<(), Error> {
        self.change_fleet(|fleet| {
            let id = fleet.distribution(name)?.id;
            Ok(fleet.update_distribution(name, spec.into_distribution(id))?)
        })
    }

    pub(super) fn delete_distribution(&self, name: &Label) -> Result<(), Error> {
        let distribution = self.change_fleet(|fleet| Ok(fleet.delete_distribution(name)?))?;
        // A build under way would leave behind what it makes.
        let _no_build_meanwhile = self.building.blocking_lock();
        self.forget_built(&distribution)
    }

    pub(super) fn distributions(&self) -> Result<Vec<DistributionStatus>, Error> {
        let distributions: Vec<Distribution> = lock(&self.fleet).distributions().cloned().collect();
        distributions.into_iter().map(|distribution| self.status_of(distribution)).collect()
    }

    pub(super) fn distribution(&self, name: &Label) -> Result<DistributionStatus, Error> {
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        self.status_of(distribution)
    }

    fn status_of(&self, distribution: Distribution) -> Result<DistributionStatus, Error> {
        let newest = self.newest(&distribution)?;
        let file = newest.as_ref().and_then(|newest| self.depot.path_of(newest.package));
        Ok(DistributionStatus { id: distribution.id, spec: DistributionSpec::of(distribution), newest, file })
    }

    pub(super) fn entries(&self, name: &Label) -> Result<Vec<Entry>, Error> {
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        let newest = self.newest(&distribution)?.ok_or_else(|| DistributorError::NotBuilt(name.clone()))?;
        let (index, _) = self.open_own(newest.package)?;
        Ok(index.catalog().iter().map(|row| row.entry.clone()).collect())
    }

    pub(super) fn create_channel(
        &self,
        name: Label,
        distributions: Vec<Label>,
        subscribers: Vec<NodeName>,
    ) -> Result<(), Error> {
        let mut channel = Channel::new(name, distributions);
        channel.subscribers.extend(subscribers);
        self.change_fleet(|fleet| Ok(fleet.create_channel(channel)?))
    }

    pub(super) fn update_channel(
        &self,
        name: Label,
        distributions: Vec<Label>,
        subscribers: Vec<NodeName>,
    ) -> Result<(), Error> {
        self.change_fleet(|fleet| {
            let now = fleet.channel(&name)?.clone();
            let (distributions, subscribers) = (distributions.into_iter().collect(), subscribers.into_iter().collect());
            Ok(fleet.update_channel(&name, Channel { distributions, subscribers, ..now })?)
        })
    }

    pub(super) fn delete_channel(&self, name: &Label) -> Result<(), Error> {
        self.change_fleet(|fleet| Ok(fleet.delete_channel(name).map(drop)?))
    }

    pub(super) fn create_subscriber(
        &self,
        name: NodeName,
        endpoints: Vec<Endpoint>,
        channels: Vec<Label>,
    ) -> Result<(), Error> {
        self.change_fleet(|fleet| {
            fleet.create_subscriber(Subscriber { endpoints, ..Subscriber::new(name.clone()) })?;
            for channel in channels {
                fleet.add_to_channel(&channel, &name)?;
            }
            Ok(())
        })
    }

    /// Says how this Distributor's certificate is brought to a Subscriber; none means by hand.
    pub(super) fn set_certificate_way(&self, name: &NodeName, way: Option<CertificateWay>) -> Result<(), Error> {
        self.change_fleet(|fleet| {
            let now = fleet.subscriber(name)?.clone();
            Ok(fleet.update_subscriber(Subscriber { certificate: way, ..now })?)
        })
    }

    pub(super) fn update_subscriber(&self, name: NodeName, endpoints: Vec<Endpoint>) -> Result<(), Error> {
        self.change_fleet(|fleet| {
            let subscriber = fleet.subscriber(&name)?.clone();
            Ok(fleet.update_subscriber(Subscriber { endpoints, ..subscriber })?)
        })?;
        // It may be somebody's parent.
        self.announce_configuration()
    }

    /// Declares a Subscriber unless it is there, and puts it into Channels.
    pub(super) fn ensure_subscriber(&self, name: &NodeName, channels: &[Label]) -> Result<(), Error> {
        if channels.is_empty() && lock(&self.fleet).subscriber(name).is_ok() {
            return Ok(());
        }
        self.change_fleet(|fleet| {
            if fleet.subscriber(name).is_err() {
                fleet.create_subscriber(Subscriber::new(name.clone()))?;
            }
            for channel in channels {
                fleet.add_to_channel(channel, name)?;
            }
            Ok(())
        })
    }

    pub(super) fn delete_subscriber(&self, name: &NodeName) -> Result<(), Error> {
        // One that could not be forgotten the last time is now.
        if !self.is_leaving(name)? {
            self.change_fleet_leaving(|fleet| Ok(fleet.delete_subscriber(name).map(drop)?))?;
        }
        self.forget_subscriber(name)
    }

    /// Forgets the keys and all that belongs to a Subscriber that is not of the fleet any more.
    pub(super) fn forget_subscriber(&self, name: &NodeName) -> Result<(), Error> {
        let key = self.key_of_name(name);
        self.forget_invitations(name)?;
        self.forget_certificates(name, key.as_ref())?;
        if let Some(key) = key {
            let ticket = self.change_firings_of(&[key], |firing, now| firing.remove(&key, now));
            self.durable_now(ticket)?;
            self.withdraw(|slot| slot.recipient == Some(key))?;
            // Last, because whoever does this again finds by it what is left to do.
            self.registrations.remove(&key)?;
            self.tiers_changed();
            self.links.close(&key, "the Subscriber was removed from the fleet");
        }
        self.has_left(name)
    }

    pub(super) fn name_of_key(&self, key: &KeyHash) -> NodeName {
        self.registrations.name_of(key).unwrap_or_else(|| name_of_key(key))
    }

    /// The registered key of a node.
    pub(super) fn key_of_name(&self, name: &NodeName) -> Option<KeyHash> {
        self.registrations.key_of(name)
    }

    pub(super) fn status(&self) -> Result<DistributorStatus, Error> {
        let fleet = lock(&self.fleet).clone();
        let mut distributions = vec![];
        for distribution in fleet.distributions() {
            distributions.push((distribution.name.clone(), self.newest(distribution)?));
        }
        let channels = fleet.channels().map(|channel| {
            let members = fleet.subscribers_of(&channel.name).unwrap_or_default();
            let members = members.into_iter().map(|subscriber| subscriber.name.clone()).collect();
            (channel.name.clone(), channel.distributions.iter().cloned().collect(), members)
        });
        Ok(DistributorStatus {
            name: self.name().clone(),
            fingerprint: self.own().authority.root().key_hash().fingerprint(),
            listening: self.listening().map(|address| address.to_string()),
            distributions,
            channels: channels.collect(),
            subscribers: fleet
                .subscribers()
                .map(|subscriber| self.status_of_subscriber(subscriber, Joined::of(&fleet, &subscriber.name)))
                .collect::<Result<_, Error>>()?,
            firings: self.reports(false)?,
            next_firings: self.next_firings()?,
            alarms: self.alarms()?,
        })
    }

    /// How one Subscriber stands, without a look at the rest of the fleet.
    pub(super) fn subscriber_status(&self, name: &NodeName) -> Result<SubscriberStatus, Error> {
        let (subscriber, joined) = {
            let fleet = lock(&self.fleet);
            (fleet.subscriber(name)?.clone(), Joined::of(&fleet, name))
        };
        self.status_of_subscriber(&subscriber, joined)
    }

    fn status_of_subscriber(&self, subscriber: &Subscriber, joined: Joined) -> Result<SubscriberStatus, Error> {
        let key = self.key_of_name(&subscriber.name);
        let connection = key.and_then(|key| self.links.get(&key));
        Ok(SubscriberStatus {
            name: subscriber.name.clone(),
            endpoints: subscriber.endpoints.clone(),
            parents: subscriber.parents.clone(),
            external: subscriber.external,
            active: subscriber.active,
            labels: subscriber.labels.clone(),
            rate: subscriber.rate.clone(),
            groups: joined.groups,
            channels: joined.channels,
            fingerprint: key.map(|key| key.fingerprint()),
            enrolled: key.and_then(|key| self.registrations.get(&key)).map(|known| known.registered),
            connected: connection.is_some(),
            address: connection.as_ref().map(|connection| connection.remote_address().to_string()),
            through: key.filter(|_| connection.is_none()).and_then(|key| self.hop_name(&key)),
            certificate: self.certificate_pair(subscriber)?,
        })
    }
}

/// What a Subscriber is in.
struct Joined {
    channels: Vec<Label>,
    groups: Vec<Label>,
}

impl Joined {
    fn of(fleet: &Fleet, subscriber: &NodeName) -> Self {
        Self {
            channels: fleet.channels_of(subscriber).map(|channel| channel.name.clone()).collect(),
            groups: fleet.groups_of(subscriber).map(|group| group.name.clone()).collect(),
        }
    }
}
