//! Configuration: a TOML file, and the environment over it. Errors name the file, the line and the key.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::NonZeroU16;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ted_core::limits::Limits;
use toml::{Table, Value};

use crate::error::{ApiError, code};

/// What a key holds, so that the environment can say it without TOML's quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text: taken as it is.
    Text,
    /// A number.
    Number,
    /// Several texts, separated by commas.
    List,
    /// Pairs `KEY=VALUE`, separated by commas.
    Map,
    /// Tables within a table: one TOML inline table, `{ … }`.
    Table,
}

/// A configuration file's shape: unknown keys are refused (`deny_unknown_fields`), missing ones have defaults.
pub trait Config: Serialize + DeserializeOwned + Default {
    /// Every key; each can be given in the environment as [`variable`] names it.
    const KEYS: &[(&'static str, Kind)];
}

/// Seconds of silence after which a connection has ended: 1 to 60,000, 300 by default. Slow links make progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ConnectionTimeout(std::time::Duration);

impl ConnectionTimeout {
    /// The time.
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        self.0
    }
}

impl Default for ConnectionTimeout {
    fn default() -> Self {
        Self(std::time::Duration::from_secs(300))
    }
}

impl TryFrom<u64> for ConnectionTimeout {
    type Error = &'static str;

    fn try_from(seconds: u64) -> Result<Self, &'static str> {
        match seconds {
            1..=60_000 => Ok(Self(std::time::Duration::from_secs(seconds))),
            _ => Err("a connection timeout is 1 to 60000 seconds"),
        }
    }
}

impl From<ConnectionTimeout> for u64 {
    fn from(timeout: ConnectionTimeout) -> Self {
        timeout.0.as_secs()
    }
}

/// Packages that are sent at once: 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MaxSends(NonZeroU16);

impl Default for MaxSends {
    fn default() -> Self {
        u64::try_from(Limits::DEFAULT.sends)
            .ok()
            .and_then(|sends| sends.try_into().ok())
            .unwrap_or(Self(NonZeroU16::MIN))
    }
}

impl TryFrom<u64> for MaxSends {
    type Error = String;

    fn try_from(sends: u64) -> Result<Self, String> {
        let most = Limits::DEFAULT.sends_max;
        let fits = |sends: &NonZeroU16| usize::from(sends.get()) <= most;
        let sends = u16::try_from(sends).ok().and_then(NonZeroU16::new).filter(fits);
        sends.map(Self).ok_or_else(|| format!("1 to {most} packages can be sent at once"))
    }
}

impl From<MaxSends> for u64 {
    fn from(sends: MaxSends) -> Self {
        sends.0.get().into()
    }
}

impl From<MaxSends> for std::num::NonZeroUsize {
    fn from(sends: MaxSends) -> Self {
        sends.0.into()
    }
}

/// The environment variable of a key: `TED_` and the key in capitals.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("TED_{}", key.to_ascii_uppercase())
}

/// Reads the configuration: `given` (which has to exist) or `usual` (which need not), then the environment over it.
///
/// # Errors
/// [`code::CONFIG_FILE`], [`code::CONFIG_CONTENT`] with file, line and key, [`code::CONFIG_VARIABLE`].
pub fn load<C: Config>(given: Option<&Path>, usual: &Path) -> Result<C, ApiError> {
    let path = given.unwrap_or(usual);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if given.is_none() && error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(ApiError::new(code::CONFIG_FILE, format!("{}: {error}", path.display()))),
    };
    parse(&text, &path.display().to_string(), |name| std::env::var(name).ok())
}

/// Writes `config` as a new file; an existing one is not touched.
///
/// # Errors
/// [`code::CONFIG_FILE`] where one exists or it cannot be written.
pub fn write_new<C: Config>(path: &Path, config: &C) -> Result<(), ApiError> {
    use std::io::Write as _;
    let fail = |error: &dyn std::error::Error| ApiError::new(code::CONFIG_FILE, format!("{}: {error}", path.display()));
    let text = toml::to_string(config).map_err(|error| fail(&error))?;
    let mut file = std::fs::File::create_new(path).map_err(|error| fail(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| fail(&error))
}

fn parse<C: Config>(text: &str, file: &str, environment: impl Fn(&str) -> Option<String>) -> Result<C, ApiError> {
    let from_file: C = toml::from_str(text).map_err(|error| content_error(text, file, &error))?;
    let mut table: Table = toml::from_str(text).map_err(|error| content_error(text, file, &error))?;
    let mut overridden = false;
    for (key, kind) in C::KEYS {
        let name = variable(key);
        let Some(said) = environment(&name).filter(|said| !said.is_empty()) else { continue };
        let refuse = |reason: &dyn std::fmt::Display| {
            ApiError::new(code::CONFIG_VARIABLE, format!("the variable {name} (`{said}`) is not understood: {reason}"))
        };
        let value = read_variable(*kind, &said).map_err(|reason| refuse(&reason))?;
        let alone = Table::from_iter([((*key).to_owned(), value.clone())]);
        alone.try_into::<C>().map_err(|error| refuse(&error.message()))?;
        table.insert((*key).to_owned(), value);
        overridden = true;
    }
    if !overridden {
        return Ok(from_file);
    }
    table.try_into().map_err(|error: toml::de::Error| content_error(text, file, &error))
}

fn read_variable(kind: Kind, said: &str) -> Result<Value, String> {
    let parts = || said.split(',').map(str::trim).filter(|part| !part.is_empty());
    match kind {
        Kind::Text => Ok(Value::String(said.to_owned())),
        Kind::Number => said.trim().parse().map(Value::Integer).map_err(|_| "a whole number is expected".to_owned()),
        Kind::List => Ok(Value::Array(parts().map(|part| Value::String(part.to_owned())).collect())),
        Kind::Map => {
            let pair = |part: &str| {
                let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
                Ok((key.trim().to_owned(), Value::String(value.trim().to_owned())))
            };
            let pairs: Result<BTreeMap<_, _>, String> = parts().map(pair).collect();
            Ok(Value::Table(pairs?.into_iter().collect()))
        }
        Kind::Table => {
            let text = format!("it = {}", said.trim());
            let mut table: Table = toml::from_str(&text).map_err(|error| error.message().replace('\n', "; "))?;
            match (table.remove("it"), table.is_empty()) {
                (Some(value @ Value::Table(_)), true) => Ok(value),
                _ => Err("a table, `{ … }`, is expected".to_owned()),
            }
        }
    }
}

fn content_error(text: &str, file: &str, error: &toml::de::Error) -> ApiError {
    let reason = error.message().replace('\n', "; ");
    let Some(span) = error.span() else {
        return ApiError::new(code::CONFIG_CONTENT, format!("{file}: {reason}"));
    };
    let start = span.start.min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let key = text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    let place = key.map_or_else(|| format!("{file}, line {line}"), |key| format!("{file}, line {line}, key `{key}`"));
    ApiError::new(code::CONFIG_CONTENT, format!("{place}: {reason}"))
}

/// For the tests of the binaries: the keys that `C::KEYS` and the shape of `C` do not share. Empty is right.
/// `full` has a value for every key.
#[must_use]
pub fn keys_out_of_step<C: Config>(full: &C) -> Vec<String> {
    let listed: std::collections::BTreeSet<_> = C::KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
    let table = Table::try_from(full).unwrap_or_default();
    let shaped: std::collections::BTreeSet<_> = table.keys().cloned().collect();
    listed.symmetric_difference(&shaped).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        name: Option<String>,
        port: Option<u16>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        advertise: Vec<String>,
        targets: BTreeMap<String, String>,
    }

    impl Config for Example {
        const KEYS: &[(&'static str, Kind)] =
            &[("name", Kind::Text), ("port", Kind::Number), ("advertise", Kind::List), ("targets", Kind::Map)];
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Example, ApiError> {
        parse(text, "/data/example.toml", |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, place, reason) in [
            ("name = \"a\"\nport = \"x\"\n", "/data/example.toml, line 2, key `port`", "expected u16"),
            ("name = \"a\"\n\npotr = 1\n", "/data/example.toml, line 3, key `potr`", "unknown field `potr`"),
            ("port = 70000\n", "/data/example.toml, line 1, key `port`", "expected u16"),
            ("name = \n", "/data/example.toml, line 1, key `name`", ""),
            ("name = \"a\"\n[oops]\n", "/data/example.toml, line 2", "unknown field `oops`"),
        ] {
            let error = read(text, &[]).expect_err(text);
            assert_eq!(error.code, code::CONFIG_CONTENT);
            assert!(error.message.starts_with(place), "{}", error.message);
            assert!(error.message.contains(reason), "{}", error.message);
        }
    }

    #[test]
    fn the_environment_wins_and_is_checked_alike() {
        let text = "name = \"a\"\nport = 1\nadvertise = [\"x\"]\n[targets]\nsite = \"/srv\"\n";
        let environment = [
            ("TED_PORT", "2"),
            ("TED_ADVERTISE", "one:1, two:2,"),
            ("TED_TARGETS", "site=/srv/www, docs = /srv/docs"),
            ("TED_NAME", ""),
        ];
        let config = read(text, &environment).expect("valid");
        assert_eq!(config.name.as_deref(), Some("a"), "an empty variable says nothing");
        assert_eq!(config.port, Some(2));
        assert_eq!(config.advertise, ["one:1", "two:2"]);
        assert_eq!(config.targets.len(), 2);
        assert_eq!(config.targets["site"], "/srv/www");
        for (name, value) in [("TED_PORT", "many"), ("TED_PORT", "70000"), ("TED_TARGETS", "site")] {
            let error = read("", &[(name, value)]).expect_err(value);
            assert_eq!(error.code, code::CONFIG_VARIABLE);
            assert!(error.message.contains(name), "{}", error.message);
        }
    }

    #[test]
    fn only_a_file_that_was_named_has_to_exist() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing.toml");
        assert_eq!(load::<Example>(None, &missing), Ok(Example::default()));
        assert_eq!(load::<Example>(Some(&missing), &missing).expect_err("named").code, code::CONFIG_FILE);
    }

    #[test]
    fn a_written_file_reads_back_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("example.toml");
        let config = Example { name: Some("a".to_owned()), port: Some(7), ..Example::default() };
        write_new(&path, &config).expect("written");
        assert_eq!(load::<Example>(None, &path).as_ref(), Ok(&config));
        assert_eq!(write_new(&path, &config).expect_err("it exists").code, code::CONFIG_FILE);
    }

    #[test]
    fn keys_and_shape_are_compared() {
        let mut full = Example { name: Some(String::new()), port: Some(1), ..Example::default() };
        assert_eq!(keys_out_of_step(&full), ["advertise"], "it is not in the file when empty");
        full.advertise.push("x".to_owned());
        assert_eq!(keys_out_of_step(&full), Vec::<String>::new());
    }
}
