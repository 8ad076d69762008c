//! Settings: what this node's own configuration says, then what its Distributors set at it, then what they set at all.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::KeyHash;
use crate::model::{Interval, Setting, Settings};
use crate::name::NodeName;
use crate::security::{Configuration, Configured, Envelope, EnvelopeKind, ParentHint};
use crate::store::StandingSlot;
use crate::subscriber::Subscriber;
use crate::subscriber::announced::AnnouncedError;
use crate::subscriber::scrub::{ScrubInterval, ScrubSettings};
use crate::subscriber::state::State;

/// Where a setting's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingSource {
    /// This node's own configuration.
    Own,
    /// The Distributor, for this node alone.
    Distributor,
    /// The Distributor, for all its Subscribers.
    DistributorForAll,
}

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRow {
    /// In whose fleet it counts; `None` for the node's own, which count everywhere.
    pub distributor: Option<NodeName>,
    /// Which setting.
    pub setting: Setting,
    /// Its value.
    pub value: String,
    /// Who says so.
    pub source: SettingSource,
}

/// A configuration that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationRow {
    /// Whose it is.
    pub distributor: NodeName,
    /// Whether it is for this node alone.
    pub addressed: bool,
    /// Its sequence number.
    pub sequence: u64,
    /// Sections that this version does not know, each with its id and version. They are kept.
    pub unknown: Vec<(u16, u16)>,
}

/// What a Subscriber was told about how to go about its work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// The settings that are in force.
    pub settings: Vec<SettingRow>,
    /// The configurations that some of them come from.
    pub configurations: Vec<ConfigurationRow>,
}

/// How kept packages are to be read again, as far as anybody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ConfiguredScrub {
    pub(super) interval: Option<Interval>,
    pub(super) bytes_per_second: Option<u64>,
}

impl Subscriber {
    /// The settings in force, and who says so.
    ///
    /// # Errors
    /// When `security/` cannot be read.
    pub async fn configuration(&self) -> Result<NodeSettings, Error> {
        self.blocking(|state| state.configuration()).await
    }
}

impl State {
    /// Where a configuration stands: it has to be for this node, or for all.
    pub(super) fn configuration_slot(&self, fleet: &KeyHash, envelope: &Envelope) -> Result<StandingSlot, Error> {
        let configuration = Configuration::from_payload(&envelope.body().payload)?;
        if let Some(recipient) = configuration.recipient
            && recipient != self.identity(fleet)?.certificate.key_hash()
        {
            return Err(AnnouncedError::Foreign(recipient.fingerprint()).into());
        }
        let (kind, recipient) = (EnvelopeKind::CONFIGURATION, configuration.recipient);
        Ok(StandingSlot { fleet: *fleet, kind, recipient, page: 0 })
    }

    /// Refuses a configuration of which a section that is known here cannot be read. What stands is in force.
    pub(super) fn check_configuration(envelope: &Envelope) -> Result<(), Error> {
        Configuration::from_payload(&envelope.body().payload)?.read()?;
        Ok(())
    }

    /// The parents that a configuration for this node alone names, where there is one.
    pub(super) fn configured_parents(&self, fleet: &KeyHash) -> Option<Vec<ParentHint>> {
        let mut configured = self.configured(Some(fleet)).into_iter();
        configured.find(|(slot, ..)| slot.recipient.is_some()).map(|(.., configured)| configured.parents)
    }

    /// What stands, of one Distributor or of all: what is for this node alone before what is for all.
    fn configured(&self, fleet: Option<&KeyHash>) -> Vec<(StandingSlot, u64, Configured)> {
        let standing = self
            .envelopes
            .choose(|slot| slot.kind == EnvelopeKind::CONFIGURATION && fleet.is_none_or(|fleet| slot.fleet == *fleet));
        let read = |(slot, standing): (StandingSlot, crate::store::StandingEnvelope)| {
            let envelope = Envelope::from_bytes(&standing.bytes).ok()?;
            let configured = Configuration::from_payload(&envelope.body().payload).ok()?.read().ok()?;
            Some((slot, standing.sequence, configured))
        };
        let mut read: Vec<_> = standing.into_iter().filter_map(read).collect();
        read.sort_by_key(|(slot, ..)| (slot.fleet, slot.recipient.is_none()));
        read
    }

    /// What a Distributor set, for this node or for all; this node's own settings are not in it.
    pub(super) fn settings_from(&self, fleet: &KeyHash) -> Settings {
        let mut settings = Settings::default();
        for (_, _, configured) in self.configured(Some(fleet)).into_iter().rev() {
            for (setting, value) in configured.settings.iter() {
                // It was checked when it was read.
                let _ = settings.set(setting.clone(), value);
            }
        }
        settings
    }

    /// How kept packages are to be read again. Of several Distributors the shortest interval and the lowest rate count.
    pub(super) fn configured_scrub(&self) -> ConfiguredScrub {
        let own = &self.settings.own;
        let fleets = self.configured(None).into_iter().map(|(slot, ..)| slot.fleet);
        let given: Vec<Settings> = fleets.map(|fleet| self.settings_from(&fleet)).collect();
        let shorter = |interval: &Interval| match interval {
            Interval::Every(time) => *time,
            Interval::Never => std::time::Duration::MAX,
        };
        ConfiguredScrub {
            interval: own
                .scrub_interval()
                .or_else(|| given.iter().filter_map(Settings::scrub_interval).min_by_key(shorter)),
            bytes_per_second: own
                .rate(&Setting::ScrubRate)
                .or_else(|| given.iter().filter_map(|settings| settings.rate(&Setting::ScrubRate)).min()),
        }
    }

    /// What this node's operator says about scrubbing in so many words.
    fn own_scrub(&self) -> Vec<(Setting, String)> {
        let ScrubSettings { interval, bytes_per_second } = self.settings.scrub;
        let interval = interval.map(|interval| match interval {
            ScrubInterval::Never => Interval::Never.to_string(),
            ScrubInterval::Every(every) => Interval::Every(every).to_string(),
        });
        let rate = bytes_per_second.map(|rate| rate.to_string());
        let said = [(Setting::ScrubInterval, interval), (Setting::ScrubRate, rate)];
        said.into_iter().filter_map(|(setting, value)| Some((setting, value?))).collect()
    }

    fn configuration(self: &Arc<Self>) -> Result<NodeSettings, Error> {
        let mut all = NodeSettings::default();
        for (setting, value) in self.settings.own.iter() {
            let (setting, value) = (setting.clone(), value.to_owned());
            all.settings.push(SettingRow { distributor: None, setting, value, source: SettingSource::Own });
        }
        for (setting, value) in self.own_scrub() {
            all.settings.retain(|row| row.setting != setting);
            all.settings.push(SettingRow { distributor: None, setting, value, source: SettingSource::Own });
        }
        for (slot, sequence, configured) in self.configured(None) {
            let distributor = self.distributor_name(&slot.fleet);
            let addressed = slot.recipient.is_some();
            for (setting, value) in configured.settings.iter() {
                let known = |row: &SettingRow| {
                    row.setting == *setting && row.distributor.as_ref().is_none_or(|of| *of == distributor)
                };
                if all.settings.iter().any(known) {
                    continue;
                }
                let source = if addressed { SettingSource::Distributor } else { SettingSource::DistributorForAll };
                let (setting, value) = (setting.clone(), value.to_owned());
                all.settings.push(SettingRow { distributor: Some(distributor.clone()), setting, value, source });
            }
            let unknown = configured.unknown.iter().map(|section| (section.id, section.version)).collect();
            all.configurations.push(ConfigurationRow { distributor, addressed, sequence, unknown });
        }
        Ok(all)
    }
}
