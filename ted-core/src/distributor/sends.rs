//! What may be sent to whom now, and how fast: the gate in front of every package, and the rates of its sends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::distributor::Distributor;
use crate::distributor::offering::Due;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::{Fleet, Item, Subscriber};
use crate::name::{Label, NodeName};
use crate::node::{FrameEnd, Gate, LinkSpeed, Pace, PaceOptions, RecordBatch, Records};
use crate::package::{BlindIndex, Opening, PackageError, read_any_index};
use crate::protocol::{FiringTarget, Refused, SendKey, WaitingFor, code};
use crate::schedule::RatePlan;
use crate::store::PackageInfo;

/// Where the speeds of links are kept.
const SPEEDS: &str = "speed/";

/// Why nothing goes to a node although a firing is open for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) waiting: WaitingFor,
    pub(super) refused: Refused,
}

impl Distributor {
    /// Limits all that goes to a Subscriber, at once; `None` lifts the limit.
    ///
    /// # Errors
    /// When there is no such Subscriber, or the catalog cannot be written.
    pub async fn set_rate(&self, subscriber: &NodeName, rate: Option<RatePlan>) -> Result<(), Error> {
        let name = subscriber.clone();
        self.blocking(move |state| {
            state.change_fleet(|fleet| {
                let now = fleet.subscriber(&name)?.clone();
                Ok(fleet.update_subscriber(Subscriber { rate, ..now })?)
            })
        })
        .await
    }
}

impl State {
    /// Whether a package of a Distribution may go to a node: while an open firing that is not held covers it, or one
    /// behind it; and once a firing has brought it, so that what was lost or damaged since can be mended.
    pub(super) fn gate(&self, key: &KeyHash, distribution: &DistributionId) -> Gate {
        let own = self.gate_of(std::slice::from_ref(key), distribution);
        // Most nodes are nobody's parent, and who is behind one takes a look at the fleet.
        let own = match own {
            Ok(until) => return Gate::Open { until },
            Err(refused) => refused,
        };
        let behind_it = self.keys_behind(key);
        match self.gate_of(&behind_it, distribution) {
            Ok(until) => Gate::Open { until },
            Err(behind) => {
                if let Some(refused) = own.or(behind) {
                    return Gate::Closed(refused);
                }
                let nothing = || Refused::new(code::NOT_UNDER_WAY, "no firing that is open sends this to you now");
                let recipients = std::iter::once(key).chain(&behind_it);
                let brought = self.brought(recipients, distribution);
                brought.map_or_else(|| Gate::Closed(nothing()), |until| Gate::Open { until })
            }
        }
    }

    /// Until when one may have what the newest firing of a Channel brought to one of these; nothing where no firing did. One
    /// that was cancelled or whose window has closed brings nothing more.
    fn brought<'a>(
        &self,
        mut recipients: impl Iterator<Item = &'a KeyHash>,
        distribution: &DistributionId,
    ) -> Option<Option<UnixMillis>> {
        recipients.find_map(|recipient| {
            let name = self.registrations.get(recipient)?.name;
            let channels: Vec<Label> = {
                let fleet = lock(&self.fleet);
                let wanted = &fleet.distribution_by_id(distribution)?.name;
                let channels = fleet.channels_of(&name).filter(|channel| channel.distributions.contains(wanted));
                channels.map(|channel| channel.name.clone()).collect()
            };
            channels.iter().find_map(|channel| {
                let newest = lock(&self.firings).newest_of(channel).map(|head| (head.end, head.closes));
                let (_, closes) = newest.filter(|(end, _)| end.is_none())?;
                self.held(channel, closes, recipient, distribution).is_none().then_some(closes)
            })
        })
    }

    /// Whether an open firing sends a Distribution to one of these, and until when; else what holds it, if anything does.
    fn gate_of(
        &self,
        recipients: &[KeyHash],
        distribution: &DistributionId,
    ) -> Result<Option<UnixMillis>, Option<Refused>> {
        // Nobody holds the fleet while waiting for the firings.
        let covering: Vec<_> = {
            let firings = lock(&self.firings);
            let of = |recipient: &KeyHash| {
                let open = firings.of(recipient).filter(|firing| firing.part(recipient, distribution).is_some());
                open.map(|firing| (*recipient, firing.channel().clone(), firing.closes())).collect::<Vec<_>>()
            };
            recipients.iter().flat_map(of).collect()
        };
        let mut held = None;
        for (recipient, channel, closes) in covering {
            match self.held(&channel, closes, &recipient, distribution) {
                None => return Ok(closes),
                Some(why) => held = held.or(Some(why.refused)),
            }
        }
        Err(held)
    }

    /// What holds one part of an open firing.
    pub(super) fn held(
        &self,
        channel: &Label,
        closes: Option<UnixMillis>,
        recipient: &KeyHash,
        distribution: &DistributionId,
    ) -> Option<Held> {
        if closes.is_some_and(|closes| closes <= self.now()) {
            let refused = Refused::new(code::WINDOW_CLOSED, "the send window is closed");
            return Some(Held { waiting: WaitingFor::Window, refused });
        }
        let name = self.registrations.get(recipient).map(|known| known.name);
        let fleet = lock(&self.fleet);
        let channel = fleet.channel(channel).is_ok_and(|channel| !channel.active);
        let distribution = fleet.distribution_by_id(distribution).is_some_and(|distribution| !distribution.active);
        let subscriber = name.is_some_and(|name| fleet.subscriber(&name).is_ok_and(|known| !known.active));
        let what = match (channel, distribution, subscriber) {
            (true, ..) => "the Channel",
            (_, true, _) => "the Distribution",
            (.., true) => "the Subscriber",
            _ => return None,
        };
        let refused = Refused::new(code::PAUSED, format!("{what} is paused at the Distributor"));
        Some(Held { waiting: WaitingFor::Pause, refused })
    }

    /// The keys of those that may be reached through a node.
    fn keys_behind(&self, key: &KeyHash) -> Vec<KeyHash> {
        let Some(name) = self.registrations.get(key).map(|known| known.name) else { return vec![] };
        let names = lock(&self.fleet).descendants_of(&name);
        names.iter().filter_map(|name| self.key_of_name(name)).collect()
    }

    /// What a package is sent under to a node, if it may be.
    pub(super) fn pace_of(self: &Arc<Self>, key: &KeyHash, info: &PackageInfo) -> Result<Box<dyn Pace>, Refused> {
        let distribution = info.root.distribution;
        let changes = self.sends.gate_changes();
        let until = match self.gate_and_note(key, &distribution) {
            Gate::Open { until } => until,
            Gate::Closed(refused) => return Err(refused),
        };
        let (state, key) = (self.clone(), *key);
        let priority = lock(&self.fleet).distribution_by_id(&distribution).map(|known| known.priority);
        Ok(self.sends.pace(PaceOptions {
            send: SendKey { link: key, package: info.id },
            priority: priority.unwrap_or_default(),
            link_rate: self.link_rate(&key),
            changes,
            open_until: until,
            gate: Box::new(move || state.gate_and_note(&key, &distribution)),
            frame_end: self.frame_end(info.id),
        }))
    }

    /// As [`State::gate`]; where it is closed, that is what the delivery waits for.
    fn gate_and_note(&self, key: &KeyHash, distribution: &DistributionId) -> Gate {
        let gate = self.gate(key, distribution);
        if let Gate::Closed(refused) = &gate {
            let waiting = if refused.code() == code::WINDOW_CLOSED { WaitingFor::Window } else { WaitingFor::Pause };
            if refused.code() != code::NOT_UNDER_WAY {
                self.note_waiting(key, distribution, Some((waiting, None)));
            }
        }
        gate
    }

    /// The rate for all that goes to a node, as the fleet says.
    fn link_rate(&self, key: &KeyHash) -> Option<RatePlan> {
        let name = self.registrations.get(key)?.name;
        lock(&self.fleet).subscriber(&name).ok()?.rate.clone()
    }

    /// Where frames of a package end; its index is read only once somebody asks.
    fn frame_end(self: &Arc<Self>, package: PackageId) -> FrameEnd {
        let state = self.clone();
        Arc::new(move |at| {
            let Some(index) = state.blind_index(package) else { return at };
            let frame = index.frame_at(at).map(|frame| index.frame_range(frame));
            frame.filter(|range| range.start < at).map_or(at, |range| range.end)
        })
    }

    fn blind_index(&self, package: PackageId) -> Option<BlindIndex> {
        let file = self.depot.open_file(package).ok()?;
        let blind = |_: &_, _: &[u8], _: &_| Ok::<_, PackageError>(Opening::Blind);
        read_any_index(&*file, &Limits::DEFAULT, blind).ok().map(|index| index.blind().clone())
    }

    /// The fleet is another one now: gates and rates are looked at again, and what was paused and is no more is offered.
    pub(super) fn follow_fleet(&self) {
        self.sends.set_links(|key| self.link_rate(key));
        self.sends.look_again();
        // One look at a time: the older of two must not take the place of the newer one.
        let mut known = lock(&self.paused);
        let paused = paused_in(&lock(&self.fleet));
        let before = std::mem::replace(&mut *known, paused);
        if !before.is_subset(&known) {
            self.resumed.store(true, Ordering::Relaxed);
        }
    }

    /// Offers again what a pause held, once after it ended.
    pub(super) fn offer_resumed(self: &Arc<Self>) {
        if self.resumed.swap(false, Ordering::Relaxed) {
            for (key, connection) in self.links.all() {
                self.offer_to(key, connection, Due::AllOpen);
            }
        }
    }

    /// Whether what is due to a node is held; then that is what it waits for.
    pub(super) fn is_held(&self, firing: &FiringId, target: &FiringTarget) -> bool {
        let about = lock(&self.firings).get(firing).map(|firing| (firing.channel().clone(), firing.closes()));
        let Some((channel, closes)) = about else { return false };
        let (recipient, distribution) = (&target.subscriber, &target.distribution);
        let held = self.held(&channel, closes, recipient, distribution);
        if let Some(Held { waiting, .. }) = &held {
            self.note_waiting(recipient, distribution, Some((*waiting, None)));
        }
        held.is_some()
    }

    /// Keeps how fast links turned out to be.
    pub(super) fn keep_speeds(&self) -> Result<(), Error> {
        let changed = self.sends.measured.take_changed();
        if changed.is_empty() {
            return Ok(());
        }
        let mut batch = RecordBatch::default();
        for (link, speed) in changed {
            batch = batch.put(&format!("{SPEEDS}{link}"), &speed)?;
        }
        Ok(self.records.apply(batch)?)
    }
}

/// What is known of links from earlier.
pub(super) fn load_speeds(records: &Records) -> Result<Vec<(KeyHash, LinkSpeed)>, Error> {
    let kept: Vec<(String, LinkSpeed)> = records.list(SPEEDS)?;
    let read =
        |(key, speed): (String, LinkSpeed)| Some((key.strip_prefix(SPEEDS).unwrap_or(&key).parse().ok()?, speed));
    Ok(kept.into_iter().filter_map(read).take(Limits::DEFAULT.measured_links_max).collect())
}

/// What is paused in a fleet.
pub(super) fn paused_in(fleet: &Fleet) -> BTreeSet<Item> {
    let subscribers = fleet.subscribers().filter(|node| !node.active).map(|node| node.item());
    let channels = fleet.channels().filter(|channel| !channel.active).map(|channel| channel.item());
    let distributions = fleet.distributions().filter(|known| !known.active).map(|known| known.item());
    subscribers.chain(channels).chain(distributions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_paused_is_held_and_offered_again_when_it_is_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let name = "dist.example".parse().unwrap();
        let distributor = Distributor::builder(folder.path().join("data")).name(name).open().await.unwrap();
        let (site, daily): (Label, Label) = ("site".parse().unwrap(), "daily".parse().unwrap());
        let leaf: NodeName = "leaf1".parse().unwrap();
        let spec = crate::distributor::DistributionSpec::new(site.clone(), folder.path());
        distributor.create_distribution(spec).await.unwrap();
        distributor.create_subscriber(leaf.clone(), &[], &[]).await.unwrap();
        distributor
            .create_channel(daily.clone(), std::slice::from_ref(&site), std::slice::from_ref(&leaf))
            .await
            .unwrap();
        let state = &distributor.state;
        let (stranger, id) = (KeyHash::from_bytes([7; 32]), distributor.fleet().distribution(&site).unwrap().id);
        let held = |closes| state.held(&daily, closes, &stranger, &id).map(|held| held.refused.code().to_owned());
        assert_eq!(held(None), None);
        assert_eq!(held(Some(state.now())).as_deref(), Some(code::WINDOW_CLOSED));

        let set = |active| {
            let (daily, state) = (daily.clone(), state.clone());
            tokio::task::spawn_blocking(move || {
                state.change_fleet(|fleet| {
                    let now = fleet.channel(&daily)?.clone();
                    Ok(fleet.update_channel(&daily, crate::model::Channel { active, ..now })?)
                })
            })
        };
        set(false).await.unwrap().unwrap();
        assert_eq!(held(None).as_deref(), Some(code::PAUSED));
        assert!(!state.resumed.load(Ordering::Relaxed));
        set(true).await.unwrap().unwrap();
        assert_eq!(held(None), None);
        assert!(state.resumed.load(Ordering::Relaxed), "what was held is to be offered");

        let nothing = state.gate(&stranger, &id);
        assert!(matches!(nothing, Gate::Closed(refused) if refused.code() == code::NOT_UNDER_WAY));
        distributor.set_rate(&leaf, "2MB/s".parse().ok()).await.unwrap();
        assert_eq!(distributor.fleet().subscriber(&leaf).unwrap().rate, "2MB/s".parse().ok());
    }

    #[tokio::test]
    async fn the_speeds_of_links_outlast_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (key, speed) = (KeyHash::from_bytes([9; 32]), LinkSpeed { bytes_per_second: 123_456, samples: 3 });
        let name = "dist.example".parse().unwrap();
        let distributor = Distributor::builder(folder.path()).name(name).open().await.unwrap();
        distributor.state.records.put(&format!("{SPEEDS}{key}"), &speed).unwrap();
        distributor.shutdown().await;
        drop(distributor);
        let distributor = Distributor::builder(folder.path()).open().await.unwrap();
        assert_eq!(distributor.state.sends.measured.speed(&key), Some(speed));
    }
}
