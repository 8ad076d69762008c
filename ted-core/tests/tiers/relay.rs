//! What a parent decides on behalf of its children: whom to offer what, and which packages to fetch for them.

use std::collections::{BTreeMap, BTreeSet};

use ted_core::id::{DistributionId, FiringId, PackageId, UnixMillis};
use ted_core::protocol::{OfferAnswer, Refused, Statement, code};
use ted_core::security::PackageRef;

use crate::message::Offered;
use crate::topology::{NodeId, Topology};

/// Who is reached through which child: the child itself, and whom it reported.
pub(crate) type Present = BTreeMap<NodeId, BTreeSet<NodeId>>;

/// The child through which `recipient` is reached; where it is not connected, the one on its preferred way.
pub(crate) fn hop(at: NodeId, recipient: NodeId, present: &Present, topology: &Topology) -> Option<NodeId> {
    if present.contains_key(&recipient) {
        return Some(recipient);
    }
    let live = present.iter().find(|(_, behind)| behind.contains(&recipient)).map(|(child, _)| *child);
    live.or_else(|| topology.preferred_hop(at, recipient).filter(|child| present.contains_key(child)))
}

/// What a parent is to do.
pub(crate) enum RelayAction {
    Offer { child: NodeId, offered: Offered },
}

/// What is decided by the machine under test.
pub(crate) trait Relay {
    /// A parent offers; the statement's envelope was verified. `Err` refuses.
    fn offered(&mut self, offered: &Offered, statement: &Statement, now: UnixMillis) -> Result<(), Refused>;

    /// Whom to offer what now, after anything changed.
    fn offers(&mut self, at: NodeId, present: &Present, topology: &Topology, now: UnixMillis) -> Vec<RelayAction>;

    fn answered(&mut self, child: NodeId, offered: &Offered, answer: Option<&OfferAnswer>, now: UnixMillis);

    /// A child connected: what it was offered before it is offered again.
    fn connected(&mut self, child: NodeId);

    /// What is known of a package that a child asks for: it is fetched from the own parent where it is not here.
    fn named(&self, package: &PackageId) -> Option<(DistributionId, PackageRef)>;

    /// A package was damaged: it is not tried again before the next firing.
    fn corrupt(&mut self, package: PackageId);

    fn may_fetch(&self, package: &PackageId) -> bool;

    /// What must outlive a crash.
    fn save(&self) -> Vec<(Offered, Statement)>;

    fn restore(saved: &[(Offered, Statement)]) -> Self
    where
        Self: Sized;
}

#[derive(Clone)]
struct Held {
    firing: FiringId,
    recipients: BTreeSet<NodeId>,
    offered: Offered,
    statement: Statement,
}

/// Stands in where no machine is there yet.
#[derive(Default)]
pub(crate) struct StandIn {
    held: BTreeMap<DistributionId, Held>,
    /// Whom each child was offered what for, on its present connection.
    told: BTreeMap<NodeId, BTreeSet<(NodeId, FiringId, DistributionId)>>,
    later: Vec<(UnixMillis, NodeId, Offered)>,
    corrupt: BTreeMap<PackageId, FiringId>,
}

impl Relay for StandIn {
    fn offered(&mut self, offered: &Offered, statement: &Statement, now: UnixMillis) -> Result<(), Refused> {
        let distribution = statement.release.distribution;
        if statement.expires <= now {
            return Err(Refused::new(code::STATEMENT_EXPIRED, "its time is over"));
        }
        let before = self.held.get(&distribution);
        let older = |held: &&Held| {
            (statement.issued, statement.release.revision) < (held.statement.issued, held.statement.release.revision)
        };
        if before.filter(older).is_some() {
            return Err(Refused::new(code::BELOW_FLOOR, "a newer one is here"));
        }
        let known = before.filter(|held| held.firing == offered.firing);
        let mut recipients = known.map(|held| held.recipients.clone()).unwrap_or_default();
        recipients.extend(&offered.recipients);
        let (offered, statement) = (offered.clone(), statement.clone());
        self.held.insert(distribution, Held { firing: offered.firing, recipients, offered, statement });
        Ok(())
    }

    fn offers(&mut self, at: NodeId, present: &Present, topology: &Topology, now: UnixMillis) -> Vec<RelayAction> {
        let (due, rest) = std::mem::take(&mut self.later).into_iter().partition(|(at, ..)| *at <= now);
        self.later = rest;
        let due: Vec<(UnixMillis, NodeId, Offered)> = due;
        for (_, child, offered) in due {
            if let Some(told) = self.told.get_mut(&child) {
                offered.recipients.iter().for_each(|node| {
                    told.remove(&(*node, offered.firing, offered.distribution));
                });
            }
        }
        self.told.retain(|child, _| present.contains_key(child));
        let mut actions = Vec::new();
        for (distribution, held) in &self.held {
            let mut by_child: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
            for recipient in &held.recipients {
                let Some(child) = hop(at, *recipient, present, topology) else { continue };
                let told = self.told.entry(child).or_default();
                if told.insert((*recipient, held.firing, *distribution)) {
                    by_child.entry(child).or_default().push(*recipient);
                }
            }
            for (child, recipients) in by_child {
                actions.push(RelayAction::Offer { child, offered: Offered { recipients, ..held.offered.clone() } });
            }
        }
        actions
    }

    fn answered(&mut self, child: NodeId, offered: &Offered, answer: Option<&OfferAnswer>, now: UnixMillis) {
        match answer {
            Some(OfferAnswer::Later { until }) => self.later.push((*until, child, offered.clone())),
            None => self.later.push((now.plus(std::time::Duration::from_secs(5)), child, offered.clone())),
            Some(_) => {}
        }
    }

    fn connected(&mut self, child: NodeId) {
        self.told.remove(&child);
    }

    fn named(&self, package: &PackageId) -> Option<(DistributionId, PackageRef)> {
        self.held.iter().find_map(|(distribution, held)| {
            let found = held.statement.release.packages.iter().find(|named| named.id == *package)?;
            Some((*distribution, *found))
        })
    }

    fn corrupt(&mut self, package: PackageId) {
        if let Some((distribution, _)) = self.named(&package) {
            self.corrupt.insert(package, self.held[&distribution].firing);
        }
    }

    fn may_fetch(&self, package: &PackageId) -> bool {
        let firing = self.named(package).map(|(distribution, _)| self.held[&distribution].firing);
        self.corrupt.get(package).is_none_or(|corrupt| Some(*corrupt) != firing)
    }

    fn save(&self) -> Vec<(Offered, Statement)> {
        let whole =
            |held: &Held| Offered { recipients: held.recipients.iter().copied().collect(), ..held.offered.clone() };
        self.held.values().map(|held| (whole(held), held.statement.clone())).collect()
    }

    fn restore(saved: &[(Offered, Statement)]) -> Self {
        let mut relay = Self::default();
        for (offered, statement) in saved {
            let recipients = offered.recipients.iter().copied().collect();
            let (firing, distribution) = (offered.firing, statement.release.distribution);
            let (offered, statement) = (offered.clone(), statement.clone());
            relay.held.insert(distribution, Held { firing, recipients, offered, statement });
        }
        relay
    }
}
