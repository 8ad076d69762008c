//! `fleet.toml`: the fleet as text that people write, review and keep in version control.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::DistributionId;
use crate::model::channel::yes;
use crate::model::{
    CertificateWay, Channel, CompressionLevel, Digest, Distribution, Endpoint, ExtractMode, Fleet, FleetError,
    FleetParts, Group, Kept, Priority, Settings, Sources, Subscriber,
};
use crate::name::{Label, NodeName};
use crate::schedule::{RatePlan, Schedule};

const HEADER: &str = "# TED writes this file after every change and does not read it: commands change the fleet.\n";
const EXPORTED: &str = "# A fleet of TED: `ted-distributor apply FILE` has a Distributor take it over.\n";

impl Fleet {
    /// The fleet as the text of `fleet.toml`: the same fleet gives the same text.
    ///
    /// # Errors
    /// [`FleetError::Unwritable`] when TOML cannot say it.
    pub fn to_toml(&self) -> Result<String, FleetError> {
        self.parts().to_toml()
    }

    /// The same for a file that people keep and have applied.
    ///
    /// # Errors
    /// As [`Fleet::to_toml`].
    pub fn export(&self) -> Result<String, FleetError> {
        self.parts().to_text(EXPORTED)
    }

    /// A copy of what is declared, which can be written as text while the fleet goes on.
    #[must_use]
    pub fn parts(&self) -> FleetParts {
        FleetParts {
            distributor: self.distributor().cloned(),
            settings: self.settings().clone(),
            distributions: self.distributions().cloned().collect(),
            channels: self.channels().cloned().collect(),
            groups: self.groups().cloned().collect(),
            subscribers: self.subscribers().cloned().collect(),
        }
    }

    /// The fleet that the text of a `fleet.toml` declares. A Distribution written without an id gets one from
    /// `id_for`, which knows the ids already given to names.
    ///
    /// # Errors
    /// [`FleetError::Malformed`] with line and column, also for a key that is not known; else the first mistake.
    pub fn from_toml(
        text: &str,
        distributor: Option<&NodeName>,
        id_for: &mut dyn FnMut(&Label) -> DistributionId,
    ) -> Result<Self, FleetError> {
        let parts = FleetParts::from_toml(text, id_for)?;
        Self::from_parts(FleetParts { distributor: distributor.cloned(), ..parts })
    }
}

impl FleetParts {
    /// As [`Fleet::to_toml`].
    ///
    /// # Errors
    /// [`FleetError::Unwritable`] when TOML cannot say it.
    pub fn to_toml(&self) -> Result<String, FleetError> {
        self.to_text(HEADER)
    }

    fn to_text(&self, header: &str) -> Result<String, FleetError> {
        let file = FleetFile {
            settings: self.settings.clone(),
            distribution: self.distributions.iter().map(DistributionFile::from).collect(),
            channel: self.channels.iter().map(ChannelFile::from).collect(),
            group: self.groups.iter().map(GroupFile::from).collect(),
            subscriber: self.subscribers.iter().map(SubscriberFile::from).collect(),
        };
        let body = toml::to_string(&file).map_err(|error| FleetError::Unwritable { reason: error.to_string() })?;
        Ok(format!("{header}\n{body}"))
    }

    /// What the text of a `fleet.toml` declares, not joined and checked yet.
    ///
    /// # Errors
    /// [`FleetError::Malformed`] with line and column, also for a key that is not known; [`FleetError::BadField`].
    pub fn from_toml(text: &str, id_for: &mut dyn FnMut(&Label) -> DistributionId) -> Result<Self, FleetError> {
        let file: FleetFile =
            toml::from_str(text).map_err(|error| FleetError::Malformed { reason: mistake(text, &error) })?;
        let distributions = file.distribution.into_iter().map(|distribution| distribution.into_distribution(id_for));
        Ok(Self {
            distributor: None,
            settings: file.settings,
            distributions: distributions.collect::<Result<_, _>>()?,
            channels: file.channel.into_iter().map(Channel::from).collect(),
            groups: file.group.into_iter().map(Group::from).collect(),
            subscribers: file.subscriber.into_iter().map(Subscriber::try_from).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetFile {
    /// What is set at all Subscribers.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    settings: Settings,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    distribution: Vec<DistributionFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    channel: Vec<ChannelFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    group: Vec<GroupFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subscriber: Vec<SubscriberFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistributionFile {
    name: Label,
    id: Option<String>,
    source: Sources,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(default)]
    gitignore: bool,
    #[serde(default)]
    digest: Digest,
    target: Option<String>,
    #[serde(default)]
    skip_unreadable: bool,
    #[serde(default)]
    priority: Priority,
    #[serde(default)]
    encrypt: bool,
    #[serde(default, skip_serializing_if = "Kept::is_nothing")]
    keep: Kept,
    #[serde(default = "max_revisions")]
    max_revisions: u32,
    #[serde(default)]
    level: CompressionLevel,
    #[serde(default)]
    delta_level: CompressionLevel,
    #[serde(default)]
    mode: ExtractMode,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    active: bool,
    #[serde(default = "Schedule::with_send")]
    build: Schedule,
}

/// What is not said in a file that most would not look for.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it may skip by reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it may skip by reference")]
fn is_no(value: &bool) -> bool {
    !*value
}

fn max_revisions() -> u32 {
    Distribution::MAX_REVISIONS
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelFile {
    name: Label,
    distributions: Vec<Label>,
    #[serde(default)]
    subscribers: Vec<NodeName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Label>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    active: bool,
    #[serde(default = "Schedule::never")]
    schedule: Schedule,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    name: Label,
    #[serde(default)]
    subscribers: Vec<NodeName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriberFile {
    name: NodeName,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parents: Vec<NodeName>,
    #[serde(default, skip_serializing_if = "is_no")]
    external: bool,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    active: bool,
    certificate_directory: Option<String>,
    certificate_command: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<Label, Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<RatePlan>,
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    settings: Settings,
}

impl DistributionFile {
    fn into_distribution(self, id_for: &mut dyn FnMut(&Label) -> DistributionId) -> Result<Distribution, FleetError> {
        let id = match &self.id {
            Some(text) => text.parse().map_err(|error| FleetError::Malformed {
                reason: format!("the id of Distribution `{}`: {error}", self.name),
            })?,
            None => id_for(&self.name),
        };
        Ok(Distribution {
            id,
            name: self.name,
            source: self.source,
            exclude: self.exclude,
            include: self.include,
            gitignore: self.gitignore,
            digest: self.digest,
            target: self.target,
            skip_unreadable: self.skip_unreadable,
            priority: self.priority,
            encrypt: self.encrypt,
            keep: self.keep,
            mode: self.mode,
            max_revisions: self.max_revisions,
            level: self.level,
            delta_level: self.delta_level,
            active: self.active,
            build: self.build,
        })
    }
}

impl From<&Distribution> for DistributionFile {
    fn from(distribution: &Distribution) -> Self {
        let Distribution { id, name, source, exclude, include, gitignore, .. } = distribution;
        let Distribution { digest, target, skip_unreadable, priority, encrypt, keep, mode, .. } = distribution;
        let Distribution { max_revisions, level, delta_level, active, build, .. } = distribution;
        Self {
            name: name.clone(),
            id: Some(id.to_string()),
            source: source.clone(),
            exclude: exclude.clone(),
            include: include.clone(),
            gitignore: *gitignore,
            digest: *digest,
            target: target.clone(),
            skip_unreadable: *skip_unreadable,
            priority: *priority,
            encrypt: *encrypt,
            keep: *keep,
            mode: *mode,
            max_revisions: *max_revisions,
            level: *level,
            delta_level: *delta_level,
            active: *active,
            build: build.clone(),
        }
    }
}

impl From<&Channel> for ChannelFile {
    fn from(channel: &Channel) -> Self {
        let Channel { name, distributions, subscribers, groups, active, schedule } = channel;
        Self {
            name: name.clone(),
            distributions: distributions.iter().cloned().collect(),
            subscribers: subscribers.iter().cloned().collect(),
            groups: groups.iter().cloned().collect(),
            active: *active,
            schedule: schedule.clone(),
        }
    }
}

impl From<ChannelFile> for Channel {
    fn from(file: ChannelFile) -> Self {
        Self {
            name: file.name,
            distributions: file.distributions.into_iter().collect(),
            subscribers: file.subscribers.into_iter().collect(),
            groups: file.groups.into_iter().collect(),
            active: file.active,
            schedule: file.schedule,
        }
    }
}

impl From<&Group> for GroupFile {
    fn from(Group { name, subscribers }: &Group) -> Self {
        Self { name: name.clone(), subscribers: subscribers.iter().cloned().collect() }
    }
}

impl From<GroupFile> for Group {
    fn from(GroupFile { name, subscribers }: GroupFile) -> Self {
        Self { name, subscribers: subscribers.into_iter().collect() }
    }
}

impl From<&Subscriber> for SubscriberFile {
    fn from(subscriber: &Subscriber) -> Self {
        let Subscriber { name, endpoints, certificate, settings, active, parents, external, labels, rate } = subscriber;
        let (certificate_directory, certificate_command) = match certificate {
            None => (None, None),
            Some(CertificateWay::Directory(path)) => (Some(path.clone()), None),
            Some(CertificateWay::Command(template)) => (None, Some(template.text().to_owned())),
        };
        Self {
            name: name.clone(),
            endpoints: endpoints.clone(),
            parents: parents.clone(),
            external: *external,
            active: *active,
            certificate_directory,
            certificate_command,
            labels: labels.clone(),
            rate: rate.clone(),
            settings: settings.clone(),
        }
    }
}

impl TryFrom<SubscriberFile> for Subscriber {
    type Error = FleetError;

    fn try_from(file: SubscriberFile) -> Result<Self, FleetError> {
        let SubscriberFile { name, endpoints, parents, external, active, labels, rate, settings, .. } = file;
        let certificate = None;
        let mut subscriber = Self { name, endpoints, certificate, settings, active, parents, external, labels, rate };
        let (field, way) = match (file.certificate_directory, file.certificate_command) {
            (None, None) => return Ok(subscriber),
            (Some(path), None) => ("certificate_directory", CertificateWay::directory(&path)),
            (None, Some(text)) => ("certificate_command", CertificateWay::command(&text)),
            (Some(_), Some(_)) => ("certificate_command", Err("stands beside certificate_directory".to_owned())),
        };
        match way {
            Ok(way) => {
                subscriber.certificate = Some(way);
                Ok(subscriber)
            }
            Err(reason) => Err(FleetError::BadField { item: subscriber.item(), field, reason }),
        }
    }
}

/// What is wrong, and on which line and column, on one line.
fn mistake(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().replace('\n', " ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return reason };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;
    use crate::model::fleet::tests::{fleet, label, node};
    use crate::model::{Sha256, SourceSpec};

    fn no_id(name: &Label) -> DistributionId {
        panic!("{name} has an id")
    }

    #[test]
    fn a_mistake_is_named_with_its_place_on_one_line() {
        let text = "[[group]]\nname = \"a\"\n\n[[group]]\nnames = \"b\"\n";
        let error = Fleet::from_toml(text, None, &mut no_id).expect_err("there is no such key").to_string();
        assert!(error.contains("line 5, column 1: unknown field `names`"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_fleet_comes_back_from_its_text() {
        let mut fleet = fleet();
        let mut site = fleet.distribution(&label("site")).expect("there").clone();
        site.exclude = vec!["*.log".to_owned(), "tmp/**".to_owned()];
        site.include = vec!["*.html".to_owned()];
        site.gitignore = true;
        site.source = Sources::new(vec![
            SourceSpec::parse("/srv/site"),
            SourceSpec {
                sha256: Some(Sha256::from_bytes([7; 32])),
                size: Some(5),
                ca: Some("/etc/ca.pem".to_owned()),
                ..SourceSpec::parse("bin=https://a.example/tool")
            },
        ]);
        site.keep.ownership = true;
        site.target = Some("/srv/%NODE_NAME%".to_owned());
        site.digest = Digest::Md5;
        site.priority = Priority::High;
        site.skip_unreadable = true;
        site.encrypt = true;
        site.mode = ExtractMode::Release;
        site.max_revisions = 4;
        site.level = CompressionLevel::try_from(9).expect("a level");
        site.active = false;
        site.build = "every 30m in UTC".parse().expect("a schedule");
        site.delta_level = CompressionLevel::try_from(19).expect("a level");
        fleet.update_distribution(&label("site"), site).expect("valid");
        let mut leaf = fleet.subscriber(&node("leaf1")).expect("there").clone();
        leaf.endpoints = vec!["[::1]:1229".parse().expect("valid"), "leaf1:7".parse().expect("valid")];
        leaf.certificate = Some(CertificateWay::directory("/mnt/leaf1/security").expect("absolute"));
        fleet.update_subscriber(leaf).expect("valid");
        let mut other = fleet.subscriber(&node("leaf2")).expect("there").clone();
        other.certificate = Some(CertificateWay::command("scp {cer} root@{address}:/x").expect("it can work"));
        fleet.update_subscriber(other).expect("valid");

        fleet.set_distributor(node("dist.example.com"));
        let mut behind = Subscriber::new(node("leaf3"));
        (behind.active, behind.external) = (false, true);
        behind.parents = vec![node("leaf2"), node("leaf1"), node("dist.example.com")];
        behind.labels.insert(label("site"), label("berlin"));
        fleet.create_subscriber(behind).expect("new");
        let subscribers = [node("leaf3"), node("leaf1")].into();
        fleet.create_group(Group { name: label("north"), subscribers }).expect("new");
        let mut hourly = fleet.channel(&label("hourly")).expect("there").clone();
        (hourly.active, hourly.schedule) = (false, "cron \"0 2 * * *\" in Europe/Berlin".parse().expect("a schedule"));
        hourly.groups.insert(label("north"));
        fleet.update_channel(&label("hourly"), hourly).expect("valid");
        let text = fleet.to_toml().expect("writable");
        assert_eq!(Fleet::from_toml(&text, Some(&node("dist.example.com")), &mut no_id).expect(&text), fleet);
        assert_eq!(
            Fleet::from_toml(&Fleet::default().to_toml().expect("empty"), None, &mut no_id),
            Ok(Fleet::default())
        );
    }

    #[test]
    fn a_written_fleet_needs_no_ids_and_no_defaults() {
        let text = r#"
            [[distribution]]
            name = "site"
            source = "/srv/site"

            [[channel]]
            name = "nightly"
            distributions = ["site"]
            subscribers = ["leaf1"]

            [[subscriber]]
            name = "leaf1"
        "#;
        let fleet = Fleet::from_toml(text, None, &mut |_| DistributionId::from_bytes([7; 16])).expect("valid");
        let expected = Distribution::new(DistributionId::from_bytes([7; 16]), label("site"), "/srv/site");
        assert_eq!(fleet.distribution(&label("site")), Ok(&expected));
        assert_eq!(fleet.entitled(&node("leaf1")).len(), 1);
    }

    #[test]
    fn mistakes_in_the_text_are_named() {
        for (code, named, text) in [
            ("TED-1601", "sorce", "[[distribution]]\nname='site'\nsorce='/srv'"),
            ("TED-1601", "line 2", "[[distribution]]\nname='a/b'\nsource='/srv'"),
            ("TED-1601", "id of Distribution `a`", "[[distribution]]\nname='a'\nid='xyz'\nsource='/srv'"),
            ("TED-1601", "endpoint", "[[subscriber]]\nname='a'\nendpoints=['nowhere']"),
            ("TED-1602", "Subscriber `a`", "[[subscriber]]\nname='a'\n[[subscriber]]\nname='A.'"),
            ("TED-1603", "Distribution `x`", "[[channel]]\nname='c'\ndistributions=['x']"),
            ("TED-1606", "certificate_directory", "[[subscriber]]\nname='a'\ncertificate_directory='x'"),
            ("TED-1606", "certificate_command", "[[subscriber]]\nname='a'\ncertificate_command='scp'"),
            (
                "TED-1606",
                "beside",
                "[[subscriber]]\nname='a'\ncertificate_command='cp {cer} /x'\ncertificate_directory='/x'",
            ),
            ("TED-1606", "source", "[[distribution]]\nname='a'\nsource='srv'"),
            ("TED-1606", "stands alone", "[[distribution]]\nname='a'\nsource=['-', 'a=/srv']"),
            ("TED-1601", "SHA-256", "[[distribution]]\nname='a'\nsource={from='https://a/b', sha256='xyz'}"),
            ("TED-1601", "siez", "[[distribution]]\nname='a'\nsource=['/a', {from='https://a/b', siez=5}]"),
        ] {
            let error = Fleet::from_toml(text, None, &mut |_| DistributionId::from_bytes([1; 16])).expect_err(text);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(named), "{error} does not name {named}");
        }
    }
}
