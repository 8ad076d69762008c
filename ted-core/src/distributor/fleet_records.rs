//! How the fleet is kept: each declared thing is a record of its own in the catalog, which a change of it writes alone;
//! `fleet.toml` follows.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::distributor::DistributorError;
use crate::distributor::changes::Trial;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::model::{Channel, Fleet, FleetParts, FleetRecord, Group, Membership, Settings};
use crate::name::{Label, NodeName};
use crate::node::{RecordBatch, Records};
use crate::store::DurableFile;

const SETTINGS: &str = "fleet/settings";
const DISTRIBUTION: &str = "fleet/distribution/";
const CHANNEL: &str = "fleet/channel/";
const GROUP: &str = "fleet/group/";
const SUBSCRIBER: &str = "fleet/subscriber/";
const IN_CHANNEL: &str = "fleet/member/channel/";
const IN_GROUP: &str = "fleet/member/group/";

/// There while `fleet.toml` is not what the records say.
const STALE: &str = "fleet-file/stale";

/// Subscribers that were taken out of the fleet and are not forgotten yet.
const LEAVING: &str = "leaving/";

/// What became of a Subscriber whose name is not in the fleet any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is to be forgotten.
    Leaves,
    /// It has another name.
    Renamed,
}

/// The time between two writings of `fleet.toml` while changes go on, at least; and this many times as long as one takes.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: u32 = 10;

impl State {
    /// Changes the fleet: the change is checked, written to the catalog, and only then in force. Nobody who only looks
    /// waits for the disk. `fleet.toml` follows: at once, or from a task of its own while this node serves.
    pub(super) fn change_fleet<T>(&self, change: impl FnOnce(&mut Fleet) -> Result<T, Error>) -> Result<T, Error> {
        self.try_change(Trial::Make, Gone::Renamed, change, |_, _| ()).map(|(result, ())| result)
    }

    /// As [`State::change_fleet`]. Subscribers that are not of the fleet any more are to be forgotten: where that does
    /// not come to its end, the next start goes on with it.
    pub(super) fn change_fleet_leaving<T>(
        &self,
        change: impl FnOnce(&mut Fleet) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.try_change(Trial::Make, Gone::Leaves, change, |_, _| ()).map(|(result, ())| result)
    }

    /// The Subscribers that were taken out of the fleet and are not forgotten yet.
    pub(super) fn is_leaving(&self, name: &NodeName) -> Result<bool, Error> {
        Ok(self.records.get::<bool>(&leaving_key(name))?.is_some() && lock(&self.fleet).subscriber(name).is_err())
    }

    /// A Subscriber that was taken out of the fleet is forgotten.
    pub(super) fn has_left(&self, name: &NodeName) -> Result<(), Error> {
        Ok(self.records.delete(&leaving_key(name))?)
    }

    /// Forgets Subscribers that were taken out of the fleet, where a crash came before that was done.
    pub(super) fn finish_leaving(&self) -> Result<(), Error> {
        for key in self.records.keys(LEAVING)? {
            let Ok(name) = key.trim_start_matches(LEAVING).parse::<NodeName>() else { continue };
            if self.is_leaving(&name)? { self.forget_subscriber(&name)? } else { self.has_left(&name)? }
        }
        Ok(())
    }

    /// Tries a change, tells what it is of the fleet as it was, and makes it, if it is meant.
    pub(super) fn try_change<T, D>(
        &self,
        trial: Trial,
        gone: Gone,
        change: impl FnOnce(&mut Fleet) -> Result<T, Error>,
        tell: impl FnOnce(&Fleet, &[FleetRecord]) -> D,
    ) -> Result<(T, D), Error> {
        let mut lost_channels = false;
        let told = {
            let _one_at_a_time = lock(&self.changing);
            let (result, told, records) = {
                let mut fleet = lock(&self.fleet);
                let (result, records) = fleet.attempt(change)?;
                let told = tell(&fleet, &records);
                (result, told, records)
            };
            if records.is_empty() || trial == Trial::Only {
                return Ok((result, told));
            }
            let mut batch = RecordBatch::default().put(STALE, &true)?;
            for record in records.iter().filter(|_| gone == Gone::Leaves) {
                if let FleetRecord::Subscriber(name, None) = record {
                    batch = batch.put(&leaving_key(name), &true)?;
                }
            }
            self.records.apply(put_records(batch, &records)?)?;
            lost_channels |= records.iter().any(|record| matches!(record, FleetRecord::Channel(_, None)));
            let version = {
                let mut fleet = lock(&self.fleet);
                fleet.take(records);
                fleet.version()
            };
            self.fleet_versions.send_replace(version);
            (result, told)
        };
        self.schedules.declared();
        self.follow_fleet();
        self.tiers_changed();
        if lost_channels {
            self.end_orphaned_firings()?;
        }
        if lock(&self.network).is_none() {
            self.write_fleet_file()?;
        }
        Ok(told)
    }

    /// Writes `fleet.toml` where the records have changed since.
    pub(super) fn write_fleet_file(&self) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.writing_fleet);
        if self.records.get::<bool>(STALE)?.is_none() {
            return Ok(());
        }
        let (parts, version) = {
            let fleet = lock(&self.fleet);
            (fleet.parts(), fleet.version())
        };
        DurableFile::new(self.data.path().join("fleet.toml")).replace(parts.to_toml()?.as_bytes())?;
        // No change is under way then, and none came while the file was written.
        let _no_change = lock(&self.changing);
        if lock(&self.fleet).version() == version {
            self.records.delete(STALE)?;
        }
        Ok(())
    }

    /// Keeps `fleet.toml` up to date while this node serves.
    pub(super) async fn write_fleet_changes(self: std::sync::Arc<Self>, stop: CancellationToken) {
        let mut versions = self.fleet_versions.subscribe();
        versions.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = versions.changed() => if changed.is_err() { return },
            }
            let begun = Instant::now();
            let state = self.clone();
            let written = tokio::task::spawn_blocking(move || state.write_fleet_file()).await;
            if let Err(error) = written.map_err(|_| Error::from(DistributorError::Worker)).flatten() {
                tracing::warn!(%error, "fleet.toml cannot be written; the fleet itself is safe in the catalog");
                // The next change, or the end, tries again.
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE.max(begun.elapsed() * PAUSES)) => {}
            }
        }
    }
}

fn leaving_key(name: &NodeName) -> String {
    format!("{LEAVING}{name}")
}

/// The records of a whole fleet, added to what else is done with them.
pub(super) fn put_fleet(batch: RecordBatch, fleet: &Fleet) -> Result<RecordBatch, Error> {
    put_records(batch, &fleet.records())
}

/// Reads the fleet. What an earlier version kept in one record for each Channel or group is taken apart.
pub(super) fn load_fleet(records: &Records, distributor: Option<NodeName>) -> Result<Fleet, Error> {
    let mut channels: Vec<Channel> = values(records, CHANNEL)?;
    let mut groups: Vec<Group> = values(records, GROUP)?;
    let together = channels.iter().any(|channel| !channel.subscribers.is_empty())
        || groups.iter().any(|group| !group.subscribers.is_empty());
    for (of, name) in members(records, IN_CHANNEL)? {
        if let Ok(place) = channels.binary_search_by(|channel| channel.name.cmp(&of)) {
            channels[place].subscribers.insert(name);
        }
    }
    for (of, name) in members(records, IN_GROUP)? {
        if let Ok(place) = groups.binary_search_by(|group| group.name.cmp(&of)) {
            groups[place].subscribers.insert(name);
        }
    }
    let settings = records.get::<Settings>(SETTINGS)?.unwrap_or_default();
    let (distributions, subscribers) = (values(records, DISTRIBUTION)?, values(records, SUBSCRIBER)?);
    let parts = FleetParts { distributor, settings, distributions, channels, groups, subscribers };
    let fleet = Fleet::from_parts(parts)?;
    if together {
        records.apply(put_fleet(RecordBatch::default(), &fleet)?)?;
    }
    Ok(fleet)
}

fn values<T: DeserializeOwned>(records: &Records, prefix: &str) -> Result<Vec<T>, Error> {
    Ok(records.list(prefix)?.into_iter().map(|(_, value)| value).collect())
}

#[derive(serde::Serialize, Deserialize)]
struct Member {
    of: Label,
    subscriber: NodeName,
}

fn members(records: &Records, prefix: &str) -> Result<impl Iterator<Item = (Label, NodeName)>, Error> {
    Ok(values::<Member>(records, prefix)?.into_iter().map(|Member { of, subscriber }| (of, subscriber)))
}

fn put_records(batch: RecordBatch, records: &[FleetRecord]) -> Result<RecordBatch, Error> {
    records.iter().try_fold(batch, |batch, record| match record {
        FleetRecord::Settings(settings) => Ok(batch.put(SETTINGS, settings)?),
        FleetRecord::Distribution(id, value) => put(batch, &format!("{DISTRIBUTION}{id}"), value.as_ref()),
        FleetRecord::Channel(name, value) => put(batch, &format!("{CHANNEL}{name}"), value.as_ref()),
        FleetRecord::Group(name, there) => {
            put(batch, &format!("{GROUP}{name}"), there.then(|| Group::new(name.clone())).as_ref())
        }
        FleetRecord::Subscriber(name, value) => put(batch, &format!("{SUBSCRIBER}{name}"), value.as_ref()),
        FleetRecord::Member(membership, name, there) => {
            let (prefix, of) = match membership {
                Membership::Channel(of) => (IN_CHANNEL, of),
                Membership::Group(of) => (IN_GROUP, of),
            };
            let member = there.then(|| Member { of: of.clone(), subscriber: name.clone() });
            put(batch, &format!("{prefix}{of}/{name}"), member.as_ref())
        }
    })
}

fn put<T: serde::Serialize>(batch: RecordBatch, key: &str, value: Option<&T>) -> Result<RecordBatch, Error> {
    match value {
        Some(value) => Ok(batch.put(key, value)?),
        None => Ok(batch.delete(key)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::distributor::Distributor;
    use crate::id::DistributionId;
    use crate::model::{Distribution, Subscriber};
    use crate::security::{AwsLc, Usage};
    use crate::store::{MemoryCatalog, Registration};

    fn label(text: &str) -> Label {
        text.parse().expect(text)
    }

    fn node(text: &str) -> NodeName {
        text.parse().expect(text)
    }

    fn fleet() -> Fleet {
        let site = Distribution::new(DistributionId::from_bytes([1; 16]), label("site"), "/srv/site");
        let channel = Channel {
            subscribers: [node("leaf1"), node("leaf2")].into(),
            ..Channel::new(label("nightly"), [label("site")])
        };
        Fleet::from_parts(FleetParts {
            distributions: vec![site],
            channels: vec![channel],
            groups: vec![Group { name: label("north"), subscribers: [node("leaf2")].into() }],
            subscribers: vec![Subscriber::new(node("leaf1")), Subscriber::new(node("leaf2"))],
            ..FleetParts::default()
        })
        .expect("valid")
    }

    fn records() -> Records {
        Records::new(Arc::new(MemoryCatalog::new()))
    }

    #[test]
    fn a_fleet_comes_back_from_its_records_and_a_member_is_one_record() {
        let (records, mut fleet) = (records(), fleet());
        records.apply(put_fleet(RecordBatch::default(), &fleet).expect("writable")).expect("written");
        assert_eq!(load_fleet(&records, None).expect("readable"), fleet);

        let before = records.keys("").expect("listed").len();
        let ((), changes) = fleet.attempt(|fleet| fleet.add_to_group(&label("north"), &node("leaf1"))).expect("valid");
        records.apply(put_records(RecordBatch::default(), &changes).expect("writable")).expect("written");
        fleet.take(changes);
        assert_eq!(records.keys("").expect("listed").len(), before + 1);
        assert_eq!(load_fleet(&records, None).expect("readable"), fleet);

        let ((), changes) = fleet.attempt(|fleet| fleet.delete_channel(&label("nightly")).map(drop)).expect("valid");
        records.apply(put_records(RecordBatch::default(), &changes).expect("writable")).expect("written");
        fleet.take(changes);
        assert_eq!(load_fleet(&records, None).expect("readable"), fleet);
        assert!(records.keys(IN_CHANNEL).expect("listed").is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_subscriber_whose_removal_a_crash_cut_short_is_forgotten_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let open = || async {
            let builder = Distributor::builder(folder.path()).name("dist.example".parse().unwrap());
            builder.open().await.unwrap()
        };
        let register = |state: &State, name: &NodeName| {
            let issuing = state.own().authority.issue_identity(&AwsLc, Usage::SubscriberIdentity, name, state.now());
            let spki = issuing.unwrap().certificate.spki().to_vec();
            let registration = Registration { name: name.clone(), spki, encryption: None, registered: state.now() };
            state.registrations.register(registration).unwrap()
        };
        let distributor = open().await;
        let state = distributor.state.clone();
        let (gone, stays) = (node("leaf1"), node("leaf2"));
        for name in [&gone, &stays] {
            distributor.create_subscriber(name.clone(), &[], &[]).await.unwrap();
        }
        let (key, other) = (register(&state, &gone), register(&state, &stays));
        distributor.invite(&gone, &[], &[]).await.unwrap();
        distributor.rename_subscriber(&stays, &node("leaf3")).await.unwrap();
        let taken_out = state.clone();
        tokio::task::spawn_blocking(move || {
            taken_out.change_fleet_leaving(|fleet| Ok(fleet.delete_subscriber(&node("leaf1"))?)).unwrap();
        })
        .await
        .unwrap();
        assert!(state.registrations.is_registered(&key));
        distributor.shutdown().await;
        drop((distributor, state));

        let distributor = open().await;
        let state = &distributor.state;
        assert!(!state.registrations.is_registered(&key), "it could still connect");
        assert!(state.registrations.is_registered(&other));
        assert!(state.records.keys(LEAVING).unwrap().is_empty());
        let no_more = state.delete_subscriber(&gone).unwrap_err().to_string();
        assert!(no_more.contains("leaf1"), "{no_more}");
    }

    #[test]
    fn a_channel_that_was_kept_with_its_subscribers_in_one_record_is_taken_apart_once() {
        let (records, fleet) = (records(), fleet());
        let whole = fleet.channel(&label("nightly")).expect("there");
        let batch = put_fleet(RecordBatch::default(), &fleet).expect("writable");
        let batch = batch.put(&format!("{CHANNEL}nightly"), whole).expect("writable");
        let gone = batch.delete(&format!("{IN_CHANNEL}nightly/leaf1")).delete(&format!("{IN_CHANNEL}nightly/leaf2"));
        records.apply(gone).expect("written");
        for _ in 0..2 {
            assert_eq!(load_fleet(&records, None).expect("readable"), fleet);
            assert_eq!(records.keys(IN_CHANNEL).expect("listed").len(), 2);
        }
        let head: Channel = records.get(&format!("{CHANNEL}nightly")).expect("readable").expect("there");
        assert!(head.subscribers.is_empty());
    }
}
