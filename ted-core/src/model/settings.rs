//! Settings: what a Distributor may set at a Subscriber, and the Subscriber itself may set otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::limits::Limits;
use crate::model::Priority;
use crate::schedule::{Purpose, RatePlan, Schedule};

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Setting {
    /// When verified revisions are extracted: `extract.schedule`.
    ExtractSchedule,
    /// Bytes that may come in within a second: `rate.input`.
    InputRate,
    /// Bytes that may go to each child of a parent within a second: `rate.child`.
    ChildRate,
    /// Bytes that sends of this priority may take within a second: `rate.high`, `rate.medium`, `rate.low`.
    OutputRate(Priority),
    /// What `%NAME%` in a target stands for: `variable.NAME`.
    Variable(VariableName),
    /// How often kept packages are read again: `scrub.interval`.
    ScrubInterval,
    /// Bytes that a scrub may read within a second: `scrub.rate`.
    ScrubRate,
}

/// The name of a variable: 1 to 64 capitals, digits and underscores, the first of them a capital.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableName(String);

/// How often something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Not by itself.
    Never,
    /// Whenever this time has passed.
    Every(Duration),
}

/// Why something cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no such setting.
    #[error(
        "there is no setting `{0}`: there are extract.schedule, rate.input, rate.high, rate.medium, rate.low, rate.child, scrub.interval, \
         scrub.rate, and variable.NAME with a name of capitals, digits and underscores"
    )]
    Unknown(String),
    /// The setting cannot have that value.
    #[error("`{value}` cannot be the value of {setting}: {reason}")]
    Value {
        /// Which setting.
        setting: Setting,
        /// The value.
        value: String,
        /// What it would have to be.
        reason: String,
    },
}

impl Coded for SettingError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "TED-1372",
            Self::Value { .. } => "TED-1373",
        }
    }
}

const VARIABLE: &str = "variable.";

/// The settings that have no name of their own.
const PLAIN: [(&str, Setting); 8] = [
    ("extract.schedule", Setting::ExtractSchedule),
    ("rate.input", Setting::InputRate),
    ("rate.high", Setting::OutputRate(Priority::High)),
    ("rate.medium", Setting::OutputRate(Priority::Medium)),
    ("rate.low", Setting::OutputRate(Priority::Low)),
    ("rate.child", Setting::ChildRate),
    ("scrub.interval", Setting::ScrubInterval),
    ("scrub.rate", Setting::ScrubRate),
];

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Variable(name) = self {
            return write!(f, "{VARIABLE}{name}");
        }
        let named = PLAIN.iter().find(|(_, setting)| setting == self);
        f.pad(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let text = text.trim();
        let unknown = || SettingError::Unknown(text.to_owned());
        if let Some(name) = text.strip_prefix(VARIABLE) {
            return VariableName::try_from(name.to_owned()).map(Self::Variable).map_err(|_| unknown());
        }
        PLAIN.into_iter().find(|(name, _)| *name == text).map(|(_, setting)| setting).ok_or_else(unknown)
    }
}

impl TryFrom<String> for Setting {
    type Error = SettingError;

    fn try_from(text: String) -> Result<Self, SettingError> {
        text.parse()
    }
}

impl From<Setting> for String {
    fn from(setting: Setting) -> Self {
        setting.to_string()
    }
}

impl VariableName {
    /// As it stands between the percent signs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VariableName {
    type Error = SettingError;

    fn try_from(text: String) -> Result<Self, SettingError> {
        let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
        if begins && text.len() <= Limits::DEFAULT.variable_name_bytes_max && text.bytes().all(fits) {
            return Ok(Self(text));
        }
        Err(SettingError::Unknown(format!("{VARIABLE}{text}")))
    }
}

impl From<VariableName> for String {
    fn from(name: VariableName) -> Self {
        name.0
    }
}

/// Settings with their values, each checked and in its one way of being written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Setting, String>", into = "BTreeMap<Setting, String>")]
pub struct Settings(BTreeMap<Setting, String>);

impl TryFrom<BTreeMap<Setting, String>> for Settings {
    type Error = SettingError;

    fn try_from(values: BTreeMap<Setting, String>) -> Result<Self, SettingError> {
        let mut settings = Self::default();
        for (setting, value) in values {
            settings.set(setting, &value)?;
        }
        Ok(settings)
    }
}

impl From<Settings> for BTreeMap<Setting, String> {
    fn from(settings: Settings) -> Self {
        settings.0
    }
}

impl Settings {
    /// Sets a value.
    ///
    /// # Errors
    /// [`SettingError::Value`]; then nothing has changed.
    pub fn set(&mut self, setting: Setting, value: &str) -> Result<(), SettingError> {
        let value = value.trim();
        let written = canonical(&setting, value).map_err(|reason| SettingError::Value {
            setting: setting.clone(),
            value: value.to_owned(),
            reason,
        })?;
        self.0.insert(setting, written);
        Ok(())
    }

    /// Lets others decide again. Answers whether it was set.
    pub fn unset(&mut self, setting: &Setting) -> bool {
        self.0.remove(setting).is_some()
    }

    /// The value of a setting, where it has one.
    #[must_use]
    pub fn get(&self, setting: &Setting) -> Option<&str> {
        self.0.get(setting).map(String::as_str)
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is set.
    pub fn iter(&self) -> impl Iterator<Item = (&Setting, &str)> {
        self.0.iter().map(|(setting, value)| (setting, value.as_str()))
    }

    /// The value of a setting that is a rate, which may change by the time of day.
    #[must_use]
    pub fn rate_plan(&self, setting: &Setting) -> Option<RatePlan> {
        self.get(setting)?.parse().ok()
    }

    /// The value of a setting that is a number of bytes within a second.
    #[must_use]
    pub fn rate(&self, setting: &Setting) -> Option<u64> {
        parse_rate(self.get(setting)?).ok()
    }

    /// When verified revisions are extracted.
    #[must_use]
    pub fn extract_schedule(&self) -> Option<Schedule> {
        self.get(&Setting::ExtractSchedule)?.parse().ok()
    }

    /// How often kept packages are read again.
    #[must_use]
    pub fn scrub_interval(&self) -> Option<Interval> {
        parse_interval(self.get(&Setting::ScrubInterval)?).ok()
    }

    /// All variables.
    pub fn variables(&self) -> impl Iterator<Item = (&VariableName, &str)> {
        self.0.iter().filter_map(|(setting, value)| match setting {
            Setting::Variable(name) => Some((name, value.as_str())),
            _ => None,
        })
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (number, (setting, value)) in self.iter().enumerate() {
            write!(f, "{}{setting}={value}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The one way of writing a value; what it would have to be, if it cannot be one.
fn canonical(setting: &Setting, value: &str) -> Result<String, String> {
    match setting {
        Setting::ExtractSchedule => {
            let schedule = Schedule::parse_for(Purpose::Extract, value).map_err(|error| error.to_string())?;
            Ok(schedule.to_string())
        }
        Setting::Variable(_) => {
            let bytes = 1..=Limits::DEFAULT.setting_bytes_max;
            if !bytes.contains(&value.len()) || value.chars().any(char::is_control) {
                return Err(format!("1 to {} bytes without control characters", bytes.end()));
            }
            Ok(value.to_owned())
        }
        Setting::InputRate | Setting::OutputRate(_) | Setting::ChildRate => {
            value.parse::<RatePlan>().map(|plan| plan.to_string()).map_err(|error| error.to_string())
        }
        Setting::ScrubRate => parse_rate(value).map(|rate| rate.to_string()),
        Setting::ScrubInterval => parse_interval(value).map(|interval| interval.to_string()),
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let expected = || "bytes within a second, such as 500000, 500k or 2M".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(expected()),
    };
    let rate = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    rate.filter(|rate| *rate > 0).ok_or_else(expected)
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    let (least, most) = (Limits::DEFAULT.setting_interval_seconds_min, Limits::DEFAULT.setting_interval_seconds_max);
    let expected = || format!("never, or a time such as 90m, 24h or 7d, from {least} s to {} d", most / 86_400);
    if text == "never" {
        return Ok(Interval::Never);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds).ok_or_else(expected)?;
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let seconds = seconds.filter(|seconds| (least..=most).contains(seconds)).ok_or_else(expected)?;
    Ok(Interval::Every(Duration::from_secs(seconds)))
}

/// Units of time, the largest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Every(time) = self else { return f.pad("never") };
        let seconds = time.as_secs();
        let (unit, length) = UNITS.into_iter().find(|(_, length)| seconds.is_multiple_of(*length)).unwrap_or(("s", 1));
        f.pad(&format!("{}{unit}", seconds / length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<String, &'static str> {
        let setting: Setting = name.parse().map_err(|error: SettingError| error.code())?;
        let mut settings = Settings::default();
        settings.set(setting.clone(), value).map_err(|error| error.code())?;
        Ok(settings.get(&setting).unwrap().to_owned())
    }

    #[test]
    fn values_are_checked_and_written_in_one_way() {
        for (name, given, written) in [
            ("extract.schedule", " cron \"0 2 * * *\" ", "cron \"0 2 * * *\""),
            ("rate.input", "2M", "2MB/s"),
            ("rate.high", "500k; 1M on sun", "500kB/s; 1MB/s on sun"),
            ("rate.low", "7000", "7kB/s"),
            ("variable.SITE_2", "north", "north"),
            ("scrub.interval", "168h", "7d"),
            ("scrub.interval", "90m", "90m"),
            ("scrub.interval", "never", "never"),
            ("scrub.rate", "1G", "1000000000"),
        ] {
            assert_eq!(set(name, given), Ok(written.to_owned()), "{name}={given}");
            assert_eq!(set(name, written), Ok(written.to_owned()), "{name}={written}");
        }
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        for name in ["", "scrub", "rate.urgent", "variable.", "variable.site", "variable.1X", "variable.A-B"] {
            assert_eq!(set(name, "1"), Err("TED-1372"), "{name}");
        }
        assert_eq!(set(&format!("variable.{}", "X".repeat(65)), "1"), Err("TED-1372"));
        for (name, value) in [
            ("rate.input", "0"),
            ("rate.input", "fast"),
            ("rate.input", "1T"),
            ("rate.input", "99999999999999999999"),
            ("scrub.interval", "1s"),
            ("scrub.interval", "4000d"),
            ("scrub.interval", "7"),
            ("scrub.interval", "weekly"),
            ("variable.SITE", ""),
            ("variable.SITE", "a\nb"),
            ("extract.schedule", " "),
        ] {
            assert_eq!(set(name, value), Err("TED-1373"), "{name}={value}");
        }
    }

    #[test]
    fn settings_read_what_they_wrote_and_check_it_again() {
        let mut settings = Settings::default();
        for (name, value) in [("scrub.interval", "7d"), ("variable.SITE", "north"), ("rate.low", "7k")] {
            settings.set(name.parse().unwrap(), value).unwrap();
        }
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
        assert!(serde_json::from_str::<Settings>(r#"{"scrub.interval":"weekly"}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"scrub":"7d"}"#).is_err());
        assert_eq!(settings.scrub_interval(), Some(Interval::Every(Duration::from_secs(7 * 86_400))));
        assert_eq!(
            settings.variables().map(|(name, value)| (name.as_str(), value)).collect::<Vec<_>>(),
            [("SITE", "north")]
        );
        let rate = Setting::OutputRate(Priority::Low);
        assert!(settings.unset(&rate) && !settings.unset(&rate));
    }
}
