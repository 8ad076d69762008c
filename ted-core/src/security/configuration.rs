//! Configuration: settings from a Distributor to a Subscriber, signed, addressed, and in sections of which each has a
//! version of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::model::{Endpoint, Interval, Priority, Setting, Settings, VariableName};
use crate::name::NodeName;
use crate::security::ParentHint;

const WHAT: &str = "a configuration";

const SCHEDULE: u16 = 1;
const RATES: u16 = 2;
const PARENTS: u16 = 3;
const VARIABLES: u16 = 4;
const SCRUB: u16 = 5;

/// The version of every section that this library knows.
const VERSION: u16 = 1;

/// One section of a configuration. Unknown ones, and known ones of an unknown version, are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// What it is about.
    pub id: u16,
    /// How its bytes are to be read.
    pub version: u16,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The payload of an envelope of kind 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The identity key of the Subscriber that it is for; `None` if it is for all.
    pub recipient: Option<KeyHash>,
    /// The sections, ordered by id. What is not in them is not set.
    pub sections: Vec<Section>,
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configured {
    /// The settings.
    pub settings: Settings,
    /// The parents of the node's route, in order of preference, with their keys and places.
    pub parents: Vec<ParentHint>,
    /// What this version does not know: kept, and without effect.
    pub unknown: Vec<Section>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Rates {
    input: Option<String>,
    high: Option<String>,
    medium: Option<String>,
    low: Option<String>,
    child: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Parent {
    name: NodeName,
    key: KeyHash,
    endpoints: Vec<Endpoint>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Scrub {
    /// 0 means never.
    interval_seconds: Option<u64>,
    bytes_per_second: Option<u64>,
}

impl Configuration {
    /// The configuration that says this.
    ///
    /// # Errors
    /// [`CodecError`] when it is beyond [`Limits`].
    pub fn of(recipient: Option<KeyHash>, configured: &Configured) -> Result<Self, CodecError> {
        let Configured { settings, parents, unknown } = configured;
        let mut sections = unknown.clone();
        if let Some(schedule) = settings.get(&Setting::ExtractSchedule) {
            sections.push(section(SCHEDULE, &schedule)?);
        }
        let text = |setting| settings.get(&setting).map(ToOwned::to_owned);
        let output = |priority| text(Setting::OutputRate(priority));
        let rates = Rates {
            input: text(Setting::InputRate),
            high: output(Priority::High),
            medium: output(Priority::Medium),
            low: output(Priority::Low),
            child: text(Setting::ChildRate),
        };
        if rates != Rates::default() {
            sections.push(section(RATES, &rates)?);
        }
        if !parents.is_empty() {
            let parent = |ParentHint { name, key, endpoints }| Parent { name, key, endpoints };
            let parents: Vec<_> = parents.iter().cloned().map(parent).collect();
            sections.push(section(PARENTS, &parents)?);
        }
        let variables: BTreeMap<&VariableName, &str> = settings.variables().collect();
        if !variables.is_empty() {
            sections.push(section(VARIABLES, &variables)?);
        }
        let interval_seconds = settings.scrub_interval().map(|interval| match interval {
            Interval::Never => 0,
            Interval::Every(time) => time.as_secs(),
        });
        let scrub = Scrub { interval_seconds, bytes_per_second: settings.rate(&Setting::ScrubRate) };
        if scrub != Scrub::default() {
            sections.push(section(SCRUB, &scrub)?);
        }
        sections.sort_by_key(|section| section.id);
        let configuration = Self { recipient, sections };
        configuration.within_limits()?;
        Ok(configuration)
    }

    /// What it says.
    ///
    /// # Errors
    /// [`CodecError`] when a section that is known here holds something else than it should.
    pub fn read(&self) -> Result<Configured, CodecError> {
        let mut read = Configured::default();
        for section in &self.sections {
            if section.version != VERSION || !(SCHEDULE..=SCRUB).contains(&section.id) {
                read.unknown.push(section.clone());
                continue;
            }
            read.take(section)?;
        }
        Ok(read)
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`] when it is beyond [`Limits`].
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        self.within_limits()?;
        codec::encode(WHAT, self, Limits::DEFAULT.configuration_bytes_max)
    }

    /// Reads the payload of an envelope of kind 4.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, or beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let configuration: Self = codec::decode(WHAT, payload, Limits::DEFAULT.configuration_bytes_max)?;
        configuration.within_limits()?;
        Ok(configuration)
    }

    fn within_limits(&self) -> Result<(), CodecError> {
        if self.sections.len() > Limits::DEFAULT.configuration_sections_max {
            return Err(malformed("it has too many sections"));
        }
        if !self.sections.is_sorted_by(|one, other| one.id < other.id) {
            return Err(malformed("its sections are not in order"));
        }
        Ok(())
    }
}

impl Configured {
    fn take(&mut self, section: &Section) -> Result<(), CodecError> {
        match section.id {
            SCHEDULE => self.set(Setting::ExtractSchedule, &content::<String>(section)?),
            RATES => {
                let Rates { input, high, medium, low, child } = content(section)?;
                for (setting, rate) in [
                    (Setting::InputRate, input),
                    (Setting::OutputRate(Priority::High), high),
                    (Setting::OutputRate(Priority::Medium), medium),
                    (Setting::OutputRate(Priority::Low), low),
                    (Setting::ChildRate, child),
                ] {
                    if let Some(rate) = rate {
                        self.set(setting, &rate)?;
                    }
                }
                Ok(())
            }
            PARENTS => {
                let parents: Vec<Parent> = content(section)?;
                if parents.len() > Limits::DEFAULT.parents_max {
                    return Err(malformed("it names too many parents"));
                }
                let hint = |Parent { name, key, endpoints }| ParentHint { name, key, endpoints };
                self.parents = parents.into_iter().map(hint).collect();
                Ok(())
            }
            VARIABLES => {
                let variables: BTreeMap<VariableName, String> = content(section)?;
                variables.into_iter().try_for_each(|(name, value)| self.set(Setting::Variable(name), &value))
            }
            _ => {
                let Scrub { interval_seconds, bytes_per_second } = content(section)?;
                if let Some(seconds) = interval_seconds {
                    let text = if seconds == 0 { "never".to_owned() } else { format!("{seconds}s") };
                    self.set(Setting::ScrubInterval, &text)?;
                }
                bytes_per_second.map_or(Ok(()), |rate| self.set(Setting::ScrubRate, &rate.to_string()))
            }
        }
    }

    fn set(&mut self, setting: Setting, value: &str) -> Result<(), CodecError> {
        self.settings.set(setting, value).map_err(|error| malformed(&error.to_string()))
    }
}

fn section<T: Serialize>(id: u16, content: &T) -> Result<Section, CodecError> {
    let bytes = codec::encode("a configuration's section", content, Limits::DEFAULT.configuration_bytes_max)?;
    Ok(Section { id, version: VERSION, bytes })
}

fn content<T: DeserializeOwned>(section: &Section) -> Result<T, CodecError> {
    codec::decode("a configuration's section", &section.bytes, Limits::DEFAULT.configuration_bytes_max)
}

fn malformed(reason: &str) -> CodecError {
    CodecError::Malformed { what: WHAT, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Configured {
        let mut settings = Settings::default();
        for (name, value) in [
            ("extract.schedule", "every 30m"),
            ("rate.input", "2M"),
            ("rate.low", "100k"),
            ("variable.SITE", "north"),
            ("scrub.interval", "never"),
            ("scrub.rate", "5M"),
        ] {
            settings.set(name.parse().unwrap(), value).unwrap();
        }
        let parent = |name: &str, key| ParentHint {
            name: name.parse().unwrap(),
            key: KeyHash::from_bytes([key; 32]),
            endpoints: vec![format!("{name}:1229").parse().unwrap()],
        };
        let unknown = vec![Section { id: 77, version: 3, bytes: b"later".to_vec() }];
        Configured { settings, parents: vec![parent("p1.example", 1), parent("p2.example", 2)], unknown }
    }

    #[test]
    fn a_configuration_survives_its_bytes_and_unknown_sections_are_kept() {
        let given = Configuration::of(Some(KeyHash::from_bytes([9; 32])), &full()).unwrap();
        let read = Configuration::from_payload(&given.to_payload().unwrap()).unwrap();
        assert_eq!(read, given);
        assert_eq!(read.read().unwrap(), full());
        let newer = Section { id: SCRUB, version: 2, bytes: vec![1] };
        let mixed = Configuration { recipient: None, sections: vec![newer.clone()] };
        let read = mixed.read().unwrap();
        assert_eq!((read.unknown, read.settings), (vec![newer], Settings::default()), "another version is not known");
        let nothing = Configuration::of(None, &Configured::default()).unwrap();
        assert_eq!(nothing.sections, []);
    }

    #[test]
    fn what_a_section_may_not_say_is_refused() {
        let of =
            |id, bytes: Vec<u8>| Configuration { recipient: None, sections: vec![Section { id, version: 1, bytes }] };
        let rates = Rates { input: Some("0".to_owned()), ..Rates::default() };
        for configuration in [
            of(RATES, section(RATES, &rates).unwrap().bytes),
            of(SCRUB, section(SCRUB, &Scrub { interval_seconds: Some(1), bytes_per_second: None }).unwrap().bytes),
            of(SCHEDULE, section(SCHEDULE, &"a\nb").unwrap().bytes),
            of(VARIABLES, section(VARIABLES, &BTreeMap::from([("lower", "x")])).unwrap().bytes),
            of(PARENTS, vec![1]),
        ] {
            assert!(configuration.read().is_err(), "{configuration:?}");
        }
    }

    #[test]
    fn sections_out_of_order_or_too_many_are_refused() {
        let section = |id| Section { id, version: 1, bytes: vec![] };
        for ids in [vec![2, 1], vec![1, 1], (0..65).collect()] {
            let configuration = Configuration { recipient: None, sections: ids.into_iter().map(section).collect() };
            assert!(configuration.to_payload().is_err());
            let bytes = codec::encode(WHAT, &configuration, 1 << 20).unwrap();
            assert!(Configuration::from_payload(&bytes).is_err());
        }
    }
}
