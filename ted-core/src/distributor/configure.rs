//! Settings of Subscribers: declared in the fleet, and announced as signed configuration to whom they concern.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::announce::Address;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::KeyHash;
use crate::model::{Fleet, Setting, Settings};
use crate::name::NodeName;
use crate::schedule::{Purpose, Schedule};
use crate::security::{Configuration, Configured, Envelope, EnvelopeKind, ParentHint};
use crate::store::{StandingEnvelope, StandingSlot};

/// How long a configuration holds; it is signed anew at two thirds of that. What it set stays set.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is set at a Subscriber, and whether it said that it has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberSettings {
    /// Its name; `None` for what is set at all of them.
    pub name: Option<NodeName>,
    /// What is set at it alone, or at all.
    pub settings: Settings,
    /// The sequence number of the configuration that says so; none before there is one, or before it is enrolled.
    pub sequence: Option<u64>,
    /// The Subscribers in which it is in force.
    pub in_force: Vec<NodeName>,
}

/// Changes of settings.
#[derive(Debug, Clone, Default)]
pub struct SettingChanges {
    /// What is set, each with its value.
    pub set: Vec<(Setting, String)>,
    /// What is not set any more.
    pub unset: Vec<Setting>,
}

impl SettingChanges {
    fn apply(&self, settings: &mut Settings) -> Result<(), Error> {
        for setting in &self.unset {
            settings.unset(setting);
        }
        for (setting, value) in &self.set {
            // The model carries schedules as text; here, where they are accepted, they have to be some.
            match setting {
                Setting::ExtractSchedule => {
                    let schedule = Schedule::parse_for(Purpose::Extract, value)?;
                    settings.set(setting.clone(), &schedule.to_string())?;
                }
                _ => settings.set(setting.clone(), value)?,
            }
        }
        Ok(())
    }
}

impl Distributor {
    /// Changes what is set at a Subscriber, or without a name at all of them, and announces it. What a Subscriber's own
    /// configuration file says wins there, then what is set at it alone. No changes only ask.
    ///
    /// # Errors
    /// When there is no such Subscriber, or a value does not fit its setting; [`ScheduleError`](crate::schedule::ScheduleError)
    /// for an extract schedule.
    pub async fn configure(
        &self,
        subscriber: Option<&NodeName>,
        changes: SettingChanges,
    ) -> Result<SubscriberSettings, Error> {
        let subscriber = subscriber.cloned();
        self.blocking(move |state| state.configure(subscriber, &changes)).await
    }
}

impl State {
    fn configure(&self, subscriber: Option<NodeName>, changes: &SettingChanges) -> Result<SubscriberSettings, Error> {
        let change = |fleet: &mut Fleet| {
            let mut settings = fleet.settings_of(subscriber.as_ref())?.clone();
            changes.apply(&mut settings)?;
            fleet.set_settings(subscriber.as_ref(), settings.clone())?;
            Ok(settings)
        };
        let settings = if changes.set.is_empty() && changes.unset.is_empty() {
            lock(&self.fleet).settings_of(subscriber.as_ref())?.clone()
        } else {
            let settings = self.change_fleet(change)?;
            self.announce_configuration()?;
            settings
        };
        let key = subscriber.as_ref().map(|name| self.key_of_name(name));
        let standing = match key {
            Some(None) => None,
            recipient => self.standing.get(&self.configuration_slot(recipient.flatten())),
        };
        let holders = match &standing {
            Some(envelope) => self.acknowledged(EnvelopeKind::CONFIGURATION, &envelope.id)?,
            None => vec![],
        };
        let sequence = standing.map(|envelope| envelope.sequence);
        let in_force = holders.iter().map(|key| self.name_of_key(key)).collect();
        Ok(SubscriberSettings { name: subscriber, settings, sequence, in_force })
    }

    fn configuration_slot(&self, recipient: Option<KeyHash>) -> StandingSlot {
        let fleet = self.own().authority.root().key_hash();
        StandingSlot { fleet, kind: EnvelopeKind::CONFIGURATION, recipient, page: 0 }
    }

    /// Signs and announces what the fleet sets, wherever that is not what stands already.
    pub(super) fn announce_configuration(&self) -> Result<(), Error> {
        let registered = self.registrations.all().into_iter();
        let recipients = registered.map(|(key, registration)| (key, registration.name));
        self.announce_configurations(true, recipients.collect())
    }

    /// The same for some Subscribers.
    pub(super) fn announce_configuration_to(&self, names: &BTreeSet<NodeName>) -> Result<(), Error> {
        let recipients = names.iter().filter_map(|name| Some((self.key_of_name(name)?, name.clone())));
        self.announce_configurations(false, recipients.collect())
    }

    /// The same where a node was registered: its own, and that of those who have it in their route.
    pub(super) fn announce_configuration_around(&self, name: &NodeName) -> Result<(), Error> {
        let mut names = BTreeSet::from([name.clone()]);
        names.extend(lock(&self.fleet).children_of(name).map(|child| child.name.clone()));
        self.announce_configuration_to(&names)
    }

    /// For these nodes, and for all of them at once where that is asked for.
    fn announce_configurations(&self, all: bool, recipients: Vec<(KeyHash, NodeName)>) -> Result<(), Error> {
        // Two at once might have the older one stand.
        let _one_at_a_time = lock(&self.configuring);
        let declared: Vec<_> = {
            let fleet = lock(&self.fleet);
            let declared = |recipient: Option<KeyHash>, name: Option<&NodeName>| {
                // One that is registered and not of the fleet is being removed; an External one is sent no configuration.
                let settings = fleet.settings_of(name).ok()?.clone();
                if name.is_some_and(|name| fleet.subscriber(name).is_ok_and(|subscriber| subscriber.external)) {
                    return None;
                }
                let parents = name.map_or_else(Vec::new, |name| self.parents_of(&fleet, name));
                Some((recipient, settings, parents))
            };
            let own = recipients.iter().map(|(key, name)| declared(Some(*key), Some(name)));
            all.then(|| declared(None, None)).into_iter().chain(own).flatten().collect()
        };
        let mut envelopes = vec![];
        for (recipient, settings, parents) in declared {
            let standing = self.standing.get(&self.configuration_slot(recipient));
            if settings.is_empty() && parents.is_empty() && standing.is_none() {
                continue;
            }
            let configured = Configured { settings, parents, unknown: vec![] };
            let payload = Configuration::of(recipient, &configured)?.to_payload()?;
            if standing.is_none_or(|standing| !self.still_says(&standing, &payload)) {
                envelopes.push(self.seal_standing(
                    EnvelopeKind::CONFIGURATION,
                    recipient.map_or(Address::All, Address::To),
                    0,
                    LIFE,
                    payload,
                )?);
            }
        }
        if envelopes.is_empty() { Ok(()) } else { self.announce_all(envelopes) }
    }

    /// Whether what stands says the same, with a signature that counts for a while yet.
    pub(super) fn still_says(&self, standing: &StandingEnvelope, payload: &[u8]) -> bool {
        let Ok(envelope) = Envelope::from_bytes(&standing.bytes) else { return false };
        let body = envelope.body();
        body.payload == payload && !standing.is_due(self.now()) && !self.is_key_revoked(&body.issuer)
    }

    /// The parents of a Subscriber's route. One that has not enrolled yet is in it once it has.
    pub(super) fn parents_of(&self, fleet: &Fleet, subscriber: &NodeName) -> Vec<ParentHint> {
        let hint = |name: NodeName| {
            if name == self.name() {
                let key = self.own().authority.root().key_hash();
                return Some(ParentHint { name, key, endpoints: self.reached_at().unwrap_or_default() });
            }
            let key = self.key_of_name(&name)?;
            let endpoints = fleet.subscriber(&name).ok()?.endpoints.clone();
            Some(ParentHint { name, key, endpoints })
        };
        let route = fleet.subscriber(subscriber).map(|subscriber| subscriber.parents.clone()).unwrap_or_default();
        route.into_iter().filter_map(hint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extract_schedules_are_taken_only_when_they_are_some_and_are_kept_in_their_one_form() {
        let apply = |value: &str| {
            let mut settings = Settings::default();
            let changes = SettingChanges { set: vec![(Setting::ExtractSchedule, value.to_owned())], unset: vec![] };
            changes.apply(&mut settings).map_err(|error| error.code())?;
            Ok(settings.get(&Setting::ExtractSchedule).map(str::to_owned))
        };
        assert_eq!(apply(" every 60m in utc "), Ok(Some("every 1h in UTC".to_owned())));
        for (value, code) in [("hourly", "TED-1610"), ("every 1h in Mars", "TED-1615"), ("with send", "TED-1617")] {
            assert_eq!(apply(value), Err(code), "{value}");
        }
    }
}
