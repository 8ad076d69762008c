//! `subscriber.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ted_cli::config::{ConnectionTimeout, Kind, MaxSends};
use ted_cli::units::parse_duration;
use ted_core::limits::Limits;
use ted_core::model::{ExtractMode, Settings};
use ted_core::name::NodeName;
use ted_core::protocol::Fallback;
use ted_core::subscriber::{HookScope, Hooks, KeepPackage, LocalChanges, ScrubInterval};

use ted_core::DistributionRef;

/// The Subscriber's configuration file; every key can be given in the environment as `TED_<KEY>` too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The node name; `None` means the one that `init` or `join` gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<NodeName>,
    /// The UDP address to listen on; `None` means that this node only dials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where each Distribution goes. It wins over `target set` and over what a Distribution proposes.
    pub(crate) targets: BTreeMap<DistributionRef, AbsolutePath>,
    /// Folders below which Distributions may propose their own targets; nowhere by default.
    pub(crate) targets_allow: Vec<AbsolutePath>,
    /// Which symbolic links are written.
    pub(crate) links: LinkRule,
    /// Who owns what is extracted, where a Distribution asks for its own owners (`--ownership`). Only root can keep them.
    pub(crate) ownership: OwnershipRule,
    /// Distributions whose setuid, setgid and file capabilities are kept where they ask for that (`--privileged`):
    /// whoever builds one of these can become root here. None by default.
    pub(crate) privileged: Vec<DistributionRef>,
    /// In which mode each Distribution is extracted: `merge`, `sync` or `release`. It wins over what a Distribution says.
    pub(crate) modes: BTreeMap<DistributionRef, ExtractMode>,
    /// What becomes of files that somebody changed in a target: `overwrite`, or `keep` beside as `NAME.local-<time>`.
    pub(crate) on_local_change: LocalChanges,
    /// A connection that is silent for this long has ended; 1 to 60,000 seconds.
    pub(crate) connection_timeout_s: ConnectionTimeout,
    /// Threads that verify and extract; `None` means one for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallelism: Option<NonZeroU16>,
    /// Packages that are passed on at once, 1 to 1000; `None` means 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_sends: Option<MaxSends>,
    /// What a Distributor may set too, and this node sets itself.
    pub(crate) settings: Settings,
    /// How often kept packages are read again to find what rots: `never`, or at least `1m`; `None` means `7d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scrub_interval: Option<ScrubEvery>,
    /// MiB a second that this reading takes at most; `None` means 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scrub_rate_mib_s: Option<NonZeroU16>,
    /// What is run before and after the extraction of a Distribution, or of every one that has no hooks of its own: `*`.
    pub(crate) hooks: BTreeMap<HookScope, Hooks>,
    /// Which packages are kept once they are extracted: `chain`, `latest` or `none`.
    pub(crate) keep_package: KeepPackage,
    /// Seconds for which a parent is missed before the next one of the route is turned to; `None` means 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback_after_s: Option<NonZeroU16>,
    /// Seconds after which a better parent is tried again while another one serves; `None` means 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback_return_s: Option<NonZeroU16>,
}

impl Config {
    /// How patient this node is with its parents.
    pub(crate) fn fallback(&self) -> Fallback {
        let seconds = |set: Option<NonZeroU16>, or| set.map_or(or, |set| Duration::from_secs(set.get().into()));
        let default = Fallback::default();
        Fallback {
            after: seconds(self.fallback_after_s, default.after),
            return_every: seconds(self.fallback_return_s, default.return_every),
        }
    }
}

impl ted_cli::config::Config for Config {
    const KEYS: &[(&'static str, Kind)] = &[
        ("name", Kind::Text),
        ("listen", Kind::Text),
        ("targets", Kind::Map),
        ("targets_allow", Kind::List),
        ("links", Kind::Text),
        ("ownership", Kind::Text),
        ("privileged", Kind::List),
        ("modes", Kind::Map),
        ("on_local_change", Kind::Text),
        ("connection_timeout_s", Kind::Number),
        ("parallelism", Kind::Number),
        ("max_sends", Kind::Number),
        ("settings", Kind::Map),
        ("scrub_interval", Kind::Text),
        ("scrub_rate_mib_s", Kind::Number),
        ("hooks", Kind::Table),
        ("keep_package", Kind::Text),
        ("fallback_after_s", Kind::Number),
        ("fallback_return_s", Kind::Number),
    ];
}

/// Which symbolic links are written. None is ever followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinkRule {
    /// With any target text.
    #[default]
    Any,
    /// Only those that stay below the target; a revision with others is refused.
    Inside,
}

/// Who owns what is extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OwnershipRule {
    /// Whoever extracts.
    #[default]
    Extractor,
    /// Who owned it at the source.
    Keep,
}

/// How often kept packages are read again: `never`, or a duration such as `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ScrubEvery(pub(crate) ScrubInterval);

impl TryFrom<String> for ScrubEvery {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(ScrubInterval::Never));
        }
        let least = Duration::from_secs(Limits::DEFAULT.scrub_interval_seconds_min);
        match parse_duration(&text)? {
            every if every < least => Err(format!("`{text}` is shorter than {} s", least.as_secs())),
            every => Ok(Self(ScrubInterval::Every(every))),
        }
    }
}

impl From<ScrubEvery> for String {
    fn from(every: ScrubEvery) -> Self {
        match every.0 {
            ScrubInterval::Never => "never".to_owned(),
            ScrubInterval::Every(every) => format!("{}s", every.as_secs()),
        }
    }
}

/// A path from the root: a daemon's current folder means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub(crate) struct AbsolutePath(PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() { Ok(Self(path)) } else { Err(format!("`{}` is not an absolute path", path.display())) }
    }
}

impl From<AbsolutePath> for PathBuf {
    fn from(path: AbsolutePath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_given_in_the_environment() {
        let full = Config {
            name: Some("s1".parse().expect("valid")),
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 1229))),
            parallelism: NonZeroU16::new(2),
            max_sends: MaxSends::try_from(8).ok(),
            scrub_interval: Some(ScrubEvery(ScrubInterval::Never)),
            scrub_rate_mib_s: NonZeroU16::new(4),
            fallback_after_s: NonZeroU16::new(30),
            fallback_return_s: NonZeroU16::new(60),
            ..Config::default()
        };
        assert_eq!(ted_cli::config::keys_out_of_step(&full), Vec::<String>::new());
    }

    #[test]
    fn relative_targets_and_unknown_rules_are_refused_with_their_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("subscriber.toml");
        for (text, place) in [
            ("links = \"some\"\n", "line 1, key `links`"),
            ("ownership = \"any\"\n", "line 1, key `ownership`"),
            ("privileged = [\"a b\"]\n", "line 1, key `privileged`"),
            ("[modes]\nsite = \"purge\"\n", "line 2, key `site`"),
            ("on_local_change = \"ask\"\n", "line 1, key `on_local_change`"),
            ("[targets]\nsite = \"srv/www\"\n", "line 2, key `site`"),
            ("connection_timeout_s = 0\n", "line 1, key `connection_timeout_s`"),
            ("parallelism = 0\n", "line 1, key `parallelism`"),
            ("targets_allow = [\"srv\"]\n", "line 1, key `targets_allow`"),
            ("[settings]\n\"scrub.interval\" = \"weekly\"\n", "line 1"),
            ("scrub_interval = \"5s\"\n", "line 1, key `scrub_interval`"),
            ("scrub_interval = \"weekly\"\n", "line 1, key `scrub_interval`"),
            ("scrub_rate_mib_s = 0\n", "line 1, key `scrub_rate_mib_s`"),
            ("[hooks.site]\nbefore = [\"stop\"]\n", "line 2, key `before`"),
            ("[hooks.site]\nbefore = \"/bin/stop\"\n", "line 2, key `before`"),
            ("[hooks.site]\ntimeout_s = 0\n", "line 2, key `timeout_s`"),
            ("[hooks.site]\non_failure_after = \"panic\"\n", "line 2, key `on_failure_after`"),
            ("[hooks.site]\nuser = \"root\"\n", "line 2, key `user`"),
            ("[hooks.\"a/b/c\"]\n", "line 1"),
            ("keep_package = \"all\"\n", "line 1, key `keep_package`"),
            ("fallback_after_s = 0\n", "line 1, key `fallback_after_s`"),
            ("fallback_return_s = 70000\n", "line 1, key `fallback_return_s`"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = ted_cli::config::load::<Config>(Some(&path), &path).expect_err(text);
            assert!(error.message.contains(place), "{}", error.message);
        }
        std::fs::write(&path, "[targets]\n\"dist.example.com/site\" = \"/srv/www\"\n").expect("written");
        let config = ted_cli::config::load::<Config>(Some(&path), &path).expect("valid");
        assert_eq!(config.targets.into_values().map(PathBuf::from).collect::<Vec<_>>(), [PathBuf::from("/srv/www")]);
    }
}
