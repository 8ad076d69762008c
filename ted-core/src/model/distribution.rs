//! Distributions: named sets of files with a source, options and a target.

use std::fmt;
use std::str::FromStr;

use globset::Glob;
use serde::{Deserialize, Serialize};

use crate::error::Coded;
use crate::id::DistributionId;
use crate::limits::Limits;
use crate::model::channel::yes;
use crate::model::{FleetError, Item, Kept, Sources};
use crate::name::Label;
use crate::schedule::Schedule;

/// The operator's digest over a package's body. Frame hashes and the signature are always there besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// None.
    #[default]
    None,
    /// MD5, for tooling that checks it; it authorises nothing.
    Md5,
    /// BLAKE3.
    Blake3,
}

/// Which sends go first when a link or a disk is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After all others.
    Low,
    /// The usual.
    #[default]
    Medium,
    /// Before all others.
    High,
}

/// What an extraction does about what else lies in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractMode {
    /// Files are added and updated, and none is deleted.
    #[default]
    Merge,
    /// The target becomes what the revision is: whatever else lies in it is deleted.
    Sync,
    /// Each revision gets a folder of its own, `releases/<revision>`, and the link `current` leads to one of them.
    Release,
}

/// A word that is not one of those to choose from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: choose {}", choices.join(", "))]
pub struct ChoiceError {
    text: String,
    what: &'static str,
    choices: &'static [&'static str],
}

impl Coded for ChoiceError {
    fn code(&self) -> &'static str {
        "TED-1609"
    }
}

macro_rules! text_form {
    ($name:ident, $what:literal, $($variant:ident = $text:literal),+) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }

        impl FromStr for $name {
            type Err = ChoiceError;

            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(ChoiceError { text: text.to_owned(), what: $what, choices: &[$($text),+] }),
                }
            }
        }
    };
}

text_form!(Digest, "digest", None = "none", Md5 = "md5", Blake3 = "blake3");
text_form!(Priority, "priority", High = "high", Medium = "medium", Low = "low");
text_form!(ExtractMode, "mode", Merge = "merge", Sync = "sync", Release = "release");

/// How hard zstd tries: 1 is the fastest, 19 the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct CompressionLevel(u8);

impl CompressionLevel {
    /// The level as zstd takes it.
    #[must_use]
    pub fn zstd(self) -> i32 {
        self.0.into()
    }
}

/// Level 3: three times the speed of level 6, for a few per cent of the bytes.
impl Default for CompressionLevel {
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<u8> for CompressionLevel {
    type Error = String;

    fn try_from(level: u8) -> Result<Self, String> {
        if (1..=19).contains(&level) { Ok(Self(level)) } else { Err(format!("{level} is not between 1 and 19")) }
    }
}

impl From<CompressionLevel> for u8 {
    fn from(level: CompressionLevel) -> Self {
        level.0
    }
}

impl FromStr for CompressionLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u8>().map_err(|_| format!("`{text}` is not a number between 1 and 19"))?.try_into()
    }
}

impl fmt::Display for CompressionLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A named set of files, owned by one Distributor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// What it is known by everywhere; it never changes.
    #[serde(with = "id_as_text")]
    pub id: DistributionId,
    /// Its name at the Distributor.
    pub name: Label,
    /// What is packed.
    pub source: Sources,
    /// Globs of paths below each source that are left out. `*` stays within one component, `**` does not.
    pub exclude: Vec<String>,
    /// Globs of what is taken: anything else is left out. Without any, everything is taken.
    #[serde(default)]
    pub include: Vec<String>,
    /// Whether what the `.gitignore` files in a folder name is left out, as git would, and `.git` with it.
    #[serde(default)]
    pub gitignore: bool,
    /// The operator's digest.
    pub digest: Digest,
    /// Where Subscribers may put it: an absolute path, in which `%NAME%` stands for a variable of theirs.
    pub target: Option<String>,
    /// Whether files that cannot be read are left out and named, instead of failing the build.
    pub skip_unreadable: bool,
    /// Which sends go first.
    pub priority: Priority,
    /// Whether its packages are sealed, so that only Subscribers with a grant can read them.
    #[serde(default)]
    pub encrypt: bool,
    /// What it carries beyond modes and times.
    #[serde(default)]
    pub keep: Kept,
    /// How many revisions, the newest included, are offered by their differences: a Subscriber that has one of them
    /// fetches deltas. 1 means that every revision is fetched whole.
    #[serde(default = "max_revisions")]
    pub max_revisions: u32,
    /// How hard baselines are compressed. Another level renews every frame of the next one.
    #[serde(default)]
    pub level: CompressionLevel,
    /// How hard deltas are compressed.
    #[serde(default)]
    pub delta_level: CompressionLevel,
    /// What extraction does about what else lies in the target; each Subscriber has the last word.
    #[serde(default)]
    pub mode: ExtractMode,
    /// Whether it is built and sent at all.
    #[serde(default = "yes")]
    pub active: bool,
    /// When it is built by itself.
    #[serde(default = "Schedule::with_send")]
    pub build: Schedule,
}

fn max_revisions() -> u32 {
    Distribution::MAX_REVISIONS
}

impl Distribution {
    /// What [`Distribution::max_revisions`] is unless somebody says otherwise.
    pub const MAX_REVISIONS: u32 = 10;

    /// A Distribution with the default options.
    #[must_use]
    pub fn new(id: DistributionId, name: Label, source: impl Into<Sources>) -> Self {
        Self {
            id,
            name,
            source: source.into(),
            exclude: Vec::new(),
            include: Vec::new(),
            gitignore: false,
            digest: Digest::default(),
            target: None,
            skip_unreadable: false,
            priority: Priority::default(),
            encrypt: false,
            keep: Kept::default(),
            mode: ExtractMode::default(),
            max_revisions: Self::MAX_REVISIONS,
            level: CompressionLevel::default(),
            delta_level: CompressionLevel::default(),
            active: true,
            build: Schedule::with_send(),
        }
    }

    pub(crate) fn item(&self) -> Item {
        Item::Distribution(self.name.to_string())
    }

    pub(crate) fn check(&self) -> Result<(), FleetError> {
        let refuse = |field, reason: String| Err(FleetError::BadField { item: self.item(), field, reason });
        if let Err(reason) = self.source.check() {
            return refuse("source", reason);
        }
        if let Some(Err(reason)) = self.target.as_deref().map(target) {
            return refuse("target", reason);
        }
        let globs = |field, globs: &'_ [String]| {
            let wrong = globs.iter().find_map(|glob| Some((glob, Glob::new(glob).err()?)));
            let Some((glob, error)) = wrong else { return Ok(()) };
            refuse(field, format!("`{glob}` is not a glob: {}", error.kind()))
        };
        globs("exclude", &self.exclude)?;
        globs("include", &self.include)?;
        let most = Limits::DEFAULT.max_revisions_max;
        if !(1..=most).contains(&self.max_revisions) {
            return refuse("max_revisions", format!("{} is not between 1 and {most}", self.max_revisions));
        }
        Ok(())
    }
}

fn absolute(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("`{path}` is not an absolute path"));
    }
    if path.contains('\0') {
        return Err("holds a NUL byte".to_owned());
    }
    Ok(())
}

fn target(path: &str) -> Result<(), String> {
    if !path.starts_with('%') {
        absolute(path)?;
    }
    if path.split('/').any(|component| component == "..") {
        return Err(format!("`{path}` has a `..` in it"));
    }
    if !path.matches('%').count().is_multiple_of(2) {
        return Err(format!("`{path}` has a `%` without its partner: a variable is written %NAME%"));
    }
    Ok(())
}

/// `DistributionId` as 32 hex digits, in every serde format.
mod id_as_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::id::DistributionId;

    pub(super) fn serialize<S: Serializer>(id: &DistributionId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DistributionId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Distribution {
        Distribution::new(DistributionId::from_bytes([1; 16]), "site".parse().expect("valid"), "/srv/site")
    }

    #[test]
    fn fields_that_cannot_work_are_named() {
        assert_eq!(site().check(), Ok(()));
        let with = |change: fn(&mut Distribution)| {
            let mut distribution = site();
            change(&mut distribution);
            distribution.check()
        };
        for (field, change) in [
            ("source", (|d| d.source = "srv".into()) as fn(&mut Distribution)),
            ("source", |d| d.source = "".into()),
            ("source", |d| d.source = "/a\0b".into()),
            ("target", |d| d.target = Some("www".to_owned())),
            ("target", |d| d.target = Some("/srv/../etc".to_owned())),
            ("target", |d| d.target = Some("/srv/%NODE_NAME".to_owned())),
            ("max_revisions", |d| d.max_revisions = 0),
            ("max_revisions", |d| d.max_revisions = 33),
            ("exclude", |d| d.exclude = vec!["*.log".to_owned(), "[".to_owned()]),
            ("include", |d| d.include = vec!["[".to_owned()]),
        ] {
            match with(change) {
                Err(FleetError::BadField { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert_eq!(with(|d| d.target = Some("%ROOT%/www/%DISTRIBUTION%".to_owned())), Ok(()));
    }

    #[test]
    fn digests_and_priorities_print_as_they_are_written() {
        for digest in [Digest::None, Digest::Md5, Digest::Blake3] {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        for priority in [Priority::Low, Priority::Medium, Priority::High] {
            assert_eq!(priority.to_string().parse(), Ok(priority));
        }
        for mode in [ExtractMode::Merge, ExtractMode::Sync, ExtractMode::Release] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("sha1".parse::<Digest>().expect_err("unknown").to_string().contains("md5"));
        assert!(Priority::High > Priority::Medium && Priority::Medium > Priority::Low);
    }
}
