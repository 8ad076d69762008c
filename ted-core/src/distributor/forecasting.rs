//! What a send would do, and whether it fits into its window.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::distributor::events::DistributorEvent;
use crate::distributor::firings::load_parts;
use crate::distributor::report::{BuiltRevision, PlannedDelivery, PlannedLink, SendPlan};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::{Channel, Distribution, Fleet, Priority, Subscriber};
use crate::name::{Label, NodeName};
use crate::protocol::{FiringHead, ForecastLink, ForecastNode, Part, PartState, cheapest_chain, forecast};
use crate::security::{PackageRef, ReleaseStatement};

/// The alarm about a window that closes before everybody is done.
const TOO_SHORT: &str = "TED-1753";

/// What each Subscriber verified last.
type Verified = HashMap<(KeyHash, DistributionId), Revision>;

/// The nodes of a plan, in an order in which parents come first.
struct Tree {
    names: Vec<NodeName>,
    nodes: Vec<ForecastNode>,
    places: BTreeMap<NodeName, usize>,
}

impl State {
    /// What a send would do now: what goes to whom, over which links, and how long that takes.
    pub(super) fn plan(&self, channel: &Label) -> Result<SendPlan, Error> {
        let fleet = lock(&self.fleet).clone();
        let channel = fleet.channel(channel)?;
        let now = self.now();
        // A send takes place within the window that is open, or the next one.
        let window = channel.schedule.open_time(now).or_else(|| channel.schedule.next_open_time(now));
        let start = window.map_or(now, |window| window.opens.max(now));
        self.planned(&fleet, channel, start, window.map(|window| window.closes))
    }

    /// Says who will not be done when the window of a firing closes that has just begun.
    pub(super) fn warn_of_window(&self, firing: FiringId, closes: UnixMillis, channel: &Label) -> Result<(), Error> {
        let fleet = lock(&self.fleet).clone();
        let plan = self.planned(&fleet, fleet.channel(channel)?, self.now(), Some(closes))?;
        let late: BTreeSet<NodeName> =
            plan.rows.iter().filter(|row| row.fits == Some(false)).map(|row| row.subscriber.clone()).collect();
        if late.is_empty() {
            return Ok(());
        }
        let count = late.len() as u64;
        tracing::warn!(code = TOO_SHORT, %firing, %channel, subscribers = count, "they will not be done when the window closes");
        let subscribers = late.into_iter().take(Limits::DEFAULT.reported_paths_max).collect();
        let (code, channel) = (TOO_SHORT.to_owned(), channel.clone());
        self.events.emit(DistributorEvent::WindowTooShort { code, firing, channel, closes, subscribers, count });
        Ok(())
    }

    fn planned(
        &self,
        fleet: &Fleet,
        channel: &Channel,
        start: UnixMillis,
        closes: Option<UnixMillis>,
    ) -> Result<SendPlan, Error> {
        let verified = self.verified_of(channel)?;
        let subscribers = fleet.subscribers_of(&channel.name)?;
        let mut tree = self.tree_of(fleet, &subscribers);
        let (mut rows, mut priority) = (vec![], Priority::Low);
        for distribution in fleet.distributions_of(&channel.name)? {
            let newest = self.newest(distribution)?;
            let release = newest.as_ref().map(|newest| self.release_of(distribution, newest));
            priority = priority.max(distribution.priority);
            for subscriber in subscribers.iter().filter(|subscriber| subscriber.active) {
                let key = self.key_of_name(&subscriber.name);
                let from = key.and_then(|key| verified.get(&(key, distribution.id))).copied();
                let packages = release.as_ref().map(|release| needed(release, from));
                if let (Some(packages), Some(place)) = (&packages, tree.places.get(&subscriber.name)) {
                    tree.nodes[*place].needs.extend(packages.iter().map(|package| (package.id, package.bytes)));
                }
                rows.push(PlannedDelivery {
                    subscriber: subscriber.name.clone(),
                    connected: key.is_some_and(|key| self.is_reached(&key)),
                    distribution: distribution.name.clone(),
                    revision: newest.as_ref().map(|newest| newest.revision),
                    from,
                    bytes: packages.map(|packages| packages.iter().map(|package| package.bytes).sum()),
                    takes_seconds: None,
                    fits: None,
                });
            }
        }
        let links = forecast(&tree.nodes, self.settings.sends.of(priority), start);
        let fits = |takes: Option<Duration>| Some(start.plus(takes?) <= closes?);
        for row in &mut rows {
            let takes = tree.places.get(&row.subscriber).and_then(|place| links[*place].takes);
            (row.takes_seconds, row.fits) = (takes.map(|takes| takes.as_secs_f64().ceil() as u64), fits(takes));
        }
        Ok(SendPlan { rows, links: tree.links(&links, fits), starts: start, closes })
    }

    /// The Subscribers and all through whom they are reached.
    fn tree_of(&self, fleet: &Fleet, subscribers: &[&Subscriber]) -> Tree {
        let mut tree = Tree { names: vec![], nodes: vec![], places: BTreeMap::new() };
        for subscriber in subscribers {
            let mut parent = None;
            for name in fleet.way_to(&subscriber.name).into_iter().chain([subscriber.name.clone()]) {
                let place = tree.places.get(&name).copied().unwrap_or_else(|| {
                    let speed = self.key_of_name(&name).and_then(|key| self.sends.measured.speed(&key));
                    let limit = fleet.subscriber(&name).ok().and_then(|node| node.rate.clone());
                    let measured = speed.map(|speed| speed.bytes_per_second);
                    tree.nodes.push(ForecastNode { parent, needs: BTreeMap::new(), measured, limit });
                    tree.names.push(name.clone());
                    tree.places.insert(name, tree.nodes.len() - 1);
                    tree.nodes.len() - 1
                });
                parent = Some(place);
            }
        }
        tree
    }

    fn release_of(&self, distribution: &Distribution, newest: &BuiltRevision) -> ReleaseStatement {
        let packages = self.packages_to_state(distribution, newest);
        let (distribution, revision) = (distribution.id, newest.revision);
        ReleaseStatement { distribution, revision, packages, extensions: vec![] }
    }

    /// The last revision of each Distribution of a Channel that each Subscriber said it verified.
    fn verified_of(&self, channel: &Channel) -> Result<Verified, Error> {
        let mut verified = Verified::new();
        let mut note = |parts: &[Part]| {
            for part in parts.iter().filter(|part| matches!(part.state, PartState::Verified | PartState::Extracted)) {
                let known = verified.entry((part.subscriber, part.distribution)).or_insert(part.revision);
                *known = part.revision.max(*known);
            }
        };
        let over: Vec<FiringId> = {
            let firings = lock(&self.firings);
            firings.open().for_each(|firing| note(firing.parts()));
            let of_channel = |head: &&FiringHead| head.channel == channel.name && firings.get(&head.id).is_none();
            firings.heads().filter(of_channel).map(|head| head.id).collect()
        };
        for id in over {
            note(&load_parts(&self.records, &id)?);
        }
        Ok(verified)
    }
}

impl Tree {
    fn links(&self, links: &[ForecastLink], fits: impl Fn(Option<Duration>) -> Option<bool>) -> Vec<PlannedLink> {
        let link = |(place, link): (usize, &ForecastLink)| PlannedLink {
            subscriber: self.names[place].clone(),
            through: self.nodes[place].parent.map(|parent| self.names[parent].clone()),
            bytes: link.bytes,
            bytes_per_second: link.bytes_per_second,
            takes_seconds: link.takes.map(|takes| takes.as_secs_f64().ceil() as u64),
            fits: fits(link.takes),
        };
        links.iter().enumerate().map(link).collect()
    }
}

/// The packages that bring a Subscriber that verified `from` last to what is stated.
fn needed(release: &ReleaseStatement, from: Option<Revision>) -> Vec<PackageRef> {
    if from.is_some_and(|from| from >= release.revision) {
        return vec![];
    }
    let starts: Vec<Revision> = from.into_iter().collect();
    cheapest_chain(release, &starts).unwrap_or_default()
}
