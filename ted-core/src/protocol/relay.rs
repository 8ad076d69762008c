//! What a relay passes on: which children are offered what, which packages are fetched for them, and what is kept.
//!
//! A relay is told by its parent what is offered to nodes behind it. It offers that on to the children through which they
//! are reached, also while the parent is away, and fetches a package when the first child asks for it, once, for all.
//! The machine sees no bytes and dials nobody. Its driver reports what happened and asks [`Relay::poll`] what to do.

mod passed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{DistributionId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::protocol::{OfferAnswer, Refused, code};
use crate::security::PackageRef;

pub use passed::{Passed, PassedOffer};

/// When an offer is made again that could not be delivered, or that a child was too busy for.
const OFFER_AGAIN: Duration = Duration::from_secs(5);

/// When an offer is made again for those behind a child that refused it: it may have refused it for them as well, and
/// what it lacks may be on its way.
const REFUSED_BY_CHILD: Duration = Duration::from_secs(30);

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayAction {
    /// Make [`Relay::passed`] of this Distribution durable, or forget it where there is none any more, before anything
    /// else happens, the answer to the parent's offer included.
    Keep {
        /// Which Distribution.
        distribution: DistributionId,
    },
    /// Make this offer to a child; report [`Relay::answered`] or [`Relay::offer_failed`].
    Offer {
        /// Which child.
        child: KeyHash,
        /// What it is offered, for which of those whom it reaches.
        offer: PassedOffer,
    },
    /// Receive this package from the parent; report [`Relay::package_ended`].
    Fetch {
        /// Of which Distribution.
        distribution: DistributionId,
        /// Which package.
        package: PackageRef,
    },
    /// No child can ask for this package any more.
    Release {
        /// Which one.
        package: PackageId,
    },
}

/// What a child gets that asks for a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is here, whole.
    Serve,
    /// It is arriving, or about to.
    Wait,
    /// It cannot be had here.
    Refused(Refused),
}

/// How the reception of a package for children ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEnd {
    /// It is here, verified.
    Whole,
    /// It stayed damaged; nothing more is tried before another firing.
    Corrupt,
    /// It stopped for another reason; whoever asks next has it fetched again.
    Stopped,
}

#[derive(Debug, Clone, Default)]
struct Child {
    linked: bool,
    /// Whom the entitlements place behind it.
    behind: BTreeSet<KeyHash>,
    /// Who is reached through it now.
    present: BTreeSet<KeyHash>,
    /// Whom it said it reaches, and the entitlements do not place behind it, or not yet.
    unproven: BTreeSet<KeyHash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OfferState {
    Due(UnixMillis),
    Made,
    Settled,
}

/// What a child is to know.
#[derive(Debug, Clone)]
struct Offered {
    recipients: BTreeSet<KeyHash>,
    statement: crate::id::EnvelopeId,
    state: OfferState,
    /// The child refused its own part for good, and said so upwards: only the others are offered it again.
    refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackageState {
    Fetching,
    Here,
    /// It stayed damaged while this was the newest firing.
    Corrupt(Option<FiringId>),
}

/// Everything that one node passes on in one fleet.
#[derive(Debug, Clone)]
pub struct Relay {
    own: KeyHash,
    limits: Limits,
    children: BTreeMap<KeyHash, Child>,
    passed: BTreeMap<DistributionId, Passed>,
    offers: BTreeMap<(KeyHash, DistributionId, FiringId), Offered>,
    packages: BTreeMap<PackageId, PackageState>,
    actions: VecDeque<RelayAction>,
}

impl Relay {
    /// The relay with this key, with what it has kept of an earlier process. Nobody is connected yet.
    #[must_use]
    pub fn new(own: KeyHash, kept: impl IntoIterator<Item = Passed>, limits: Limits) -> Self {
        let passed = kept.into_iter().map(|passed| (passed.distribution(), passed)).collect();
        Self {
            own,
            limits,
            children: BTreeMap::new(),
            passed,
            offers: BTreeMap::new(),
            packages: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do; `None` until something happens or [`Relay::next_wakeup`] comes.
    pub fn poll(&mut self, now: UnixMillis) -> Option<RelayAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let due = self.offers.iter().find(|(key, offered)| {
            matches!(offered.state, OfferState::Due(at) if at <= now) && self.may_offer(key, now)
        });
        let (child, distribution, firing) = due.map(|(key, _)| *key)?;
        let offered = self.offers.get_mut(&(child, distribution, firing))?;
        offered.state = OfferState::Made;
        let mut recipients = offered.recipients.clone();
        if offered.refused {
            recipients.remove(&child);
        }
        let offer = self.passed.get(&distribution)?.offer(&firing, recipients)?;
        Some(RelayAction::Offer { child, offer })
    }

    /// When [`Relay::poll`] has something to say even if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self, now: UnixMillis) -> Option<UnixMillis> {
        let due = self.offers.iter().filter_map(|(key, offered)| match offered.state {
            OfferState::Due(at) if self.may_offer(key, at.max(now)) => Some(at),
            _ => None,
        });
        due.min()
    }

    /// What is kept of a Distribution.
    #[must_use]
    pub fn passed(&self, distribution: &DistributionId) -> Option<&Passed> {
        self.passed.get(distribution)
    }

    /// The Distributions that something is passed on of.
    pub fn distributions(&self) -> impl Iterator<Item = &Passed> {
        self.passed.values()
    }

    /// The package of that id, and of which Distribution, if the newest statement of one names it or the one before.
    #[must_use]
    pub fn named(&self, package: &PackageId) -> Option<(DistributionId, PackageRef)> {
        self.passed.iter().find_map(|(distribution, passed)| Some((*distribution, *passed.named(package)?)))
    }

    /// The children as the entitlements name them, each with those behind it. Others are nobody's way any more.
    pub fn entitled(&mut self, children: BTreeMap<KeyHash, BTreeSet<KeyHash>>, now: UnixMillis) {
        self.children.retain(|key, child| {
            child.behind.clear();
            children.contains_key(key)
        });
        for (key, behind) in children {
            let child = self.children.entry(key).or_default();
            child.present.retain(|present| behind.contains(present));
            let proven: Vec<_> = child.unproven.intersection(&behind).copied().collect();
            child.unproven.retain(|said| !behind.contains(said));
            child.present.extend(proven);
            child.behind = behind;
        }
        self.plan_all(now);
    }

    /// Only Distributions that `may_pass` says are passed on any further.
    pub fn retain(&mut self, may_pass: impl Fn(&DistributionId) -> bool) {
        let gone: Vec<_> = self.passed.keys().filter(|distribution| !may_pass(distribution)).copied().collect();
        for distribution in gone {
            if let Some(passed) = self.passed.remove(&distribution) {
                self.offers.retain(|(_, of, _), _| *of != distribution);
                self.keep(distribution);
                self.release(passed.packages().map(|package| package.id).collect());
            }
        }
    }

    /// A child is connected.
    pub fn child_up(&mut self, key: KeyHash, now: UnixMillis) {
        let child = self.children.entry(key).or_default();
        child.linked = true;
        child.present.clear();
        child.unproven.clear();
        // What it was offered on another connection it may not have taken.
        self.offers.retain(|(child, _, _), _| *child != key);
        self.plan_all(now);
    }

    /// A child is not connected any more, nor is anybody reached through it.
    pub fn child_down(&mut self, key: &KeyHash, now: UnixMillis) {
        if let Some(child) = self.children.get_mut(key) {
            child.linked = false;
            child.present.clear();
            child.unproven.clear();
        }
        self.offers.retain(|(child, _, _), _| child != key);
        self.plan_all(now);
    }

    /// A child says whom it reaches. Whom the entitlements do not place behind it is not believed.
    pub fn presence(&mut self, key: &KeyHash, reset: bool, up: &[KeyHash], down: &[KeyHash], now: UnixMillis) {
        let Some(child) = self.children.get_mut(key).filter(|child| child.linked) else { return };
        if reset {
            child.present.clear();
            child.unproven.clear();
        }
        for gone in down {
            child.present.remove(gone);
            child.unproven.remove(gone);
        }
        let room = self.limits.named_keys_max.saturating_sub(child.unproven.len());
        child.unproven.extend(up.iter().filter(|up| !child.behind.contains(*up)).take(room));
        let believed: BTreeSet<_> = up.iter().filter(|up| child.behind.contains(*up)).copied().collect();
        child.present.extend(believed.iter());
        // Who comes anew has to hear of everything, though its parent has heard of it.
        for ((child, _, _), offered) in &mut self.offers {
            if child == key && !offered.recipients.is_disjoint(&believed) {
                offered.state = OfferState::Due(now);
            }
        }
        self.plan_all(now);
    }

    /// The parent offers something to others than this node. A refusal changes nothing.
    ///
    /// # Errors
    /// [`code::STATEMENT_EXPIRED`], [`code::BELOW_FLOOR`] for a statement that an older one took the place of,
    /// [`code::BUSY`] for one Distribution too many.
    pub fn offered(&mut self, offer: &PassedOffer, now: UnixMillis) -> Result<(), Refused> {
        if offer.expires <= now {
            return Err(Refused::new(code::STATEMENT_EXPIRED, "the statement has expired"));
        }
        let distribution = offer.distribution;
        let is_full = self.passed.len() >= self.limits.offered_distributions_max;
        match self.passed.get_mut(&distribution) {
            Some(passed) => {
                if offer.issued < passed.issued() {
                    return Err(Refused::new(code::BELOW_FLOOR, "a newer statement is passed on already"));
                }
                let before = passed.clone();
                let dropped = passed.take(offer, self.own, &self.limits);
                let is_new = *passed != before;
                self.repeat(offer, now);
                if !is_new {
                    return Ok(());
                }
                self.release(dropped);
            }
            None if is_full => {
                return Err(Refused::new(code::BUSY, "more Distributions than one node passes on"));
            }
            None => {
                self.passed.insert(distribution, Passed::new(offer, self.own));
            }
        }
        self.keep(distribution);
        self.plan(distribution, now);
        Ok(())
    }

    /// A child answered an offer.
    pub fn answered(
        &mut self,
        child: &KeyHash,
        distribution: &DistributionId,
        firing: &FiringId,
        answer: &OfferAnswer,
        now: UnixMillis,
    ) {
        let state = match answer {
            OfferAnswer::Later { until } => OfferState::Due((*until).max(now.plus(Duration::from_secs(1)))),
            OfferAnswer::Refused(refused) if refused.is_retryable() => OfferState::Due(now.plus(OFFER_AGAIN)),
            OfferAnswer::Refused(_) => {
                let Some(offered) = self.offers.get_mut(&(*child, *distribution, *firing)) else { return };
                offered.refused = true;
                let alone = offered.recipients.iter().all(|recipient| recipient == child);
                if alone { OfferState::Settled } else { OfferState::Due(now.plus(REFUSED_BY_CHILD)) }
            }
            _ => OfferState::Settled,
        };
        self.enter(child, distribution, firing, state);
    }

    /// An offer did not reach a child.
    pub fn offer_failed(&mut self, child: &KeyHash, distribution: &DistributionId, firing: &FiringId, now: UnixMillis) {
        self.enter(child, distribution, firing, OfferState::Due(now.plus(OFFER_AGAIN)));
    }

    /// Somebody behind this node is done with what a firing offered: it is not offered to it again.
    pub fn done(&mut self, recipient: &KeyHash, distribution: &DistributionId, firing: &FiringId) {
        let Some(passed) = self.passed.get_mut(distribution) else { return };
        if !passed.done(recipient, firing) {
            return;
        }
        self.keep(*distribution);
        for ((_, of, by), offered) in &mut self.offers {
            if *of == *distribution && *by == *firing {
                offered.recipients.remove(recipient);
            }
        }
        self.offers.retain(|_, offered| !offered.recipients.is_empty());
    }

    /// A child that is entitled to it asks for a package.
    pub fn asked(&mut self, package: &PackageId) -> Asked {
        let Some((distribution, named)) = self.named(package) else {
            return Asked::Refused(Refused::new(
                code::NOT_FOUND,
                "no statement that is passed on here names this package",
            ));
        };
        let newest = self.passed.get(&distribution).and_then(Passed::newest_firing);
        match self.packages.get(package) {
            Some(PackageState::Here) => return Asked::Serve,
            Some(PackageState::Fetching) => return Asked::Wait,
            Some(PackageState::Corrupt(firing)) if *firing == newest => {
                let reason = "it arrived damaged here; the Channel's next firing is awaited";
                return Asked::Refused(Refused::new(code::BUSY, reason));
            }
            Some(PackageState::Corrupt(_)) | None => {}
        }
        self.packages.insert(*package, PackageState::Fetching);
        self.actions.push_back(RelayAction::Fetch { distribution, package: named });
        Asked::Wait
    }

    /// A package is here, verified, wherever it came from.
    pub fn package_here(&mut self, package: PackageId) {
        self.packages.insert(package, PackageState::Here);
    }

    /// A package that was here is not any more.
    pub fn package_gone(&mut self, package: &PackageId) {
        if self.packages.get(package) == Some(&PackageState::Here) {
            self.packages.remove(package);
        }
    }

    /// The reception that [`RelayAction::Fetch`] demanded ended.
    pub fn package_ended(&mut self, package: &PackageId, end: RelayEnd) {
        let Some((distribution, _)) = self.named(package) else {
            // Overtaken meanwhile: nobody can ask for it.
            self.packages.remove(package);
            self.actions.push_back(RelayAction::Release { package: *package });
            return;
        };
        match end {
            RelayEnd::Whole => self.packages.insert(*package, PackageState::Here),
            RelayEnd::Corrupt => {
                let newest = self.passed.get(&distribution).and_then(Passed::newest_firing);
                self.packages.insert(*package, PackageState::Corrupt(newest))
            }
            RelayEnd::Stopped => self.packages.remove(package),
        };
    }

    /// Through which child a node is reached: itself, the child through which it is present, else one that the
    /// entitlements place before it.
    #[must_use]
    pub fn hop_to(&self, recipient: &KeyHash) -> Option<KeyHash> {
        let linked = || self.children.iter().filter(|(_, child)| child.linked);
        if linked().any(|(key, _)| key == recipient) {
            return Some(*recipient);
        }
        let present = linked().find(|(_, child)| child.present.contains(recipient));
        let way = present.or_else(|| linked().find(|(_, child)| child.behind.contains(recipient)));
        way.map(|(key, _)| *key)
    }

    /// Has it kept before anything is offered: what waits to be done already counts for all that comes until then.
    fn keep(&mut self, distribution: DistributionId) {
        let keep = RelayAction::Keep { distribution };
        if !self.actions.contains(&keep) {
            self.actions.push_back(keep);
        }
    }

    fn may_offer(&self, (child, distribution, firing): &(KeyHash, DistributionId, FiringId), now: UnixMillis) -> bool {
        let linked = self.children.get(child).is_some_and(|child| child.linked);
        linked && self.passed.get(distribution).is_some_and(|passed| passed.may_start(firing, now))
    }

    fn plan_all(&mut self, now: UnixMillis) {
        let all: Vec<_> = self.passed.keys().copied().collect();
        for distribution in all {
            self.plan(distribution, now);
        }
    }

    /// What the parent offers again it does not take for settled: the children are offered it again as well.
    fn repeat(&mut self, offer: &PassedOffer, now: UnixMillis) {
        for ((_, distribution, firing), offered) in &mut self.offers {
            let is_same = *distribution == offer.distribution && *firing == offer.firing;
            if is_same && offered.state == OfferState::Settled && !offered.recipients.is_disjoint(&offer.recipients) {
                (offered.state, offered.refused) = (OfferState::Due(now), false);
            }
        }
    }

    /// Finds out which children are to be offered what of a Distribution. Who knows it all already is left alone.
    fn plan(&mut self, distribution: DistributionId, now: UnixMillis) {
        let Some(passed) = self.passed.get(&distribution) else { return };
        let statement = passed.statement();
        let mut wanted: BTreeMap<(KeyHash, FiringId), BTreeSet<KeyHash>> = BTreeMap::new();
        for (firing, recipients) in passed.firings() {
            for recipient in recipients {
                if let Some(child) = self.hop_to(recipient) {
                    wanted.entry((child, *firing)).or_default().insert(*recipient);
                }
            }
        }
        self.offers.retain(|(child, of, firing), _| *of != distribution || wanted.contains_key(&(*child, *firing)));
        for ((child, firing), recipients) in wanted {
            let key = (child, distribution, firing);
            let known = self.offers.get(&key);
            if known.is_some_and(|known| known.statement == statement && known.recipients.is_superset(&recipients)) {
                continue;
            }
            self.offers.insert(key, Offered { recipients, statement, state: OfferState::Due(now), refused: false });
        }
    }

    fn enter(&mut self, child: &KeyHash, distribution: &DistributionId, firing: &FiringId, state: OfferState) {
        // What was planned anew meanwhile is still to be made.
        if let Some(offered) = self.offers.get_mut(&(*child, *distribution, *firing))
            && offered.state == OfferState::Made
        {
            offered.state = state;
        }
    }

    fn release(&mut self, packages: Vec<PackageId>) {
        for package in packages {
            // One that is arriving is released when it ends.
            if self.packages.get(&package) != Some(&PackageState::Fetching) && self.named(&package).is_none() {
                self.packages.remove(&package);
                self.actions.push_back(RelayAction::Release { package });
            }
        }
    }
}

#[cfg(test)]
mod tests;
