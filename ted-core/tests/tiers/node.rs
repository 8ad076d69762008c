//! A Subscriber or parent: its links, what it says and hears, what it keeps. What it receives is in `own`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ted_core::id::{DistributionId, PackageId, Revision};
use ted_core::limits::Limits;
use ted_core::protocol::{Delivery, Floor, OfferAnswer, Refused, code};

use crate::disk::Disk;
use crate::distributor::open_statement;
use crate::env::Env;
use crate::message::{Ask, Content, Message, Offered, Reply};
use crate::reception::Reception;
use crate::relay::{Present, Relay, RelayAction, StandIn};
use crate::server::{Server, Wanted};
use crate::topology::{DISTRIBUTIONS, NodeId, SEALED};
use crate::truth;

pub(crate) const LIMITS: Limits = Limits::DEFAULT;
/// After so long without the preferred parent, the next one of the route is asked.
const FALLBACK_SECONDS: u64 = 30;
/// While another one serves, the preferred one is tried this often.
const BACK_SECONDS: u64 = 60;

/// Whose answer a stream awaits.
pub(crate) enum Purpose {
    Reception {
        package: PackageId,
        number: u64,
    },
    Offer {
        child: NodeId,
        offered: Offered,
    },
    Receipts {
        count: usize,
    },
    Presence,
    /// What is none of this node's business.
    Rogue,
}

/// A stream that this node opened.
pub(crate) struct Asked {
    pub(crate) connection: u64,
    pub(crate) purpose: Purpose,
    /// What arrived while the disk was behind.
    pub(crate) inbox: Vec<Content>,
}

pub(crate) struct Upstream {
    pub(crate) connection: u64,
    pub(crate) parent: NodeId,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    /// Counts the starts: work begun in an earlier life is nobody's any more.
    pub(crate) life: u64,
    // On disk.
    pub(crate) disks: BTreeMap<DistributionId, Disk>,
    saved: Vec<(Offered, ted_core::protocol::Statement)>,
    pub(crate) outbox: Vec<Vec<u8>>,
    // In memory.
    pub(crate) upstream: Option<Upstream>,
    last_parent: Option<NodeId>,
    alone_since: Duration,
    try_preferred_at: Duration,
    pub(crate) children: BTreeMap<NodeId, u64>,
    present: Present,
    presence_told: bool,
    pub(crate) deliveries: BTreeMap<DistributionId, Delivery>,
    pub(crate) receptions: BTreeMap<PackageId, Reception>,
    pub(crate) asked: BTreeMap<u64, Asked>,
    pub(crate) server: Server,
    pub(crate) relay: StandIn,
    pub(crate) firings: BTreeMap<DistributionId, ted_core::id::FiringId>,
    pub(crate) wake_at: Option<Duration>,
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            up: false,
            life: 0,
            disks: DISTRIBUTIONS.iter().map(|distribution| (*distribution, Disk::default())).collect(),
            saved: Vec::new(),
            outbox: Vec::new(),
            upstream: None,
            last_parent: None,
            alone_since: Duration::ZERO,
            try_preferred_at: Duration::ZERO,
            children: BTreeMap::new(),
            present: BTreeMap::new(),
            presence_told: false,
            deliveries: BTreeMap::new(),
            receptions: BTreeMap::new(),
            asked: BTreeMap::new(),
            server: Server::default(),
            relay: StandIn::default(),
            firings: BTreeMap::new(),
            wake_at: None,
        }
    }

    pub(crate) fn disk(&mut self, distribution: &DistributionId) -> &mut Disk {
        self.disks.entry(*distribution).or_default()
    }

    pub(crate) fn start(&mut self, env: &mut Env) {
        self.up = true;
        self.life += 1;
        self.alone_since = env.now;
        self.relay = StandIn::restore(&self.saved);
        for distribution in DISTRIBUTIONS {
            if env.topology.is_recipient(self.id, &distribution) {
                self.start_delivery(distribution, env);
            }
        }
    }

    fn start_delivery(&mut self, distribution: DistributionId, env: &mut Env) {
        let disk = self.disk(&distribution);
        let here: Option<Revision> = disk.packages.values().map(|(revision, _)| *revision).max();
        let mut floor = disk.floor.unwrap_or(Floor::NONE);
        // A package that is here for others alone, and lies below the floor, is no revision of this node's own.
        let verified = here.filter(|revision| *revision >= floor.revision);
        if let Some(revision) = verified {
            floor = floor.raised_to(Floor { revision, ..Floor::NONE });
            disk.floor = Some(floor);
            env.truth.verified_for_itself(self.id, distribution, revision);
        }
        let extracted = self.disk(&distribution).extracted;
        self.deliveries.insert(distribution, Delivery::new(floor, verified, LIMITS));
        if let Some(revision) = verified.filter(|_| verified > extracted) {
            self.extract(distribution, revision, env);
        }
    }

    pub(crate) fn crash(&mut self, env: &mut Env) {
        self.up = false;
        self.upstream = None;
        self.last_parent = None;
        self.children.clear();
        self.present.clear();
        self.deliveries.clear();
        self.receptions.clear();
        self.asked.clear();
        self.server = Server::default();
        self.wake_at = None;
        let unsynced = self.disks.values().any(Disk::has_unsynced_writes);
        env.seen.crashes_with_unsynced_writes += u64::from(unsynced);
        env.seen.crashes_of_parents += u64::from(env.topology.has_children(self.id));
        for disk in self.disks.values_mut() {
            disk.crash(&mut env.rng);
            truth::judge_maps(self.id, disk, env);
        }
    }

    /// Whom to dial now: the preferred parent, and others only where it was not reached for long.
    pub(crate) fn whom_to_dial(&mut self, env: &Env) -> Vec<NodeId> {
        let route = env.topology.route(self.id);
        match &self.upstream {
            None => {
                let alone = env.now.saturating_sub(self.alone_since).as_secs();
                let asked = |(place, _): &(usize, &NodeId)| alone >= *place as u64 * FALLBACK_SECONDS;
                route.iter().enumerate().filter(asked).map(|(_, parent)| *parent).collect()
            }
            Some(upstream) if upstream.parent != route[0] && env.now >= self.try_preferred_at => {
                self.try_preferred_at = env.now + Duration::from_secs(BACK_SECONDS);
                vec![route[0]]
            }
            Some(_) => Vec::new(),
        }
    }

    pub(crate) fn connected_up(&mut self, connection: u64, parent: NodeId, env: &mut Env) {
        if let Some(before) = self.upstream.take() {
            env.break_link(before.connection);
            self.forget_streams(before.connection);
            self.receptions.values_mut().for_each(Reception::link_down);
        }
        let preferred = env.topology.route(self.id)[0];
        if let Some(last) = self.last_parent.replace(parent).filter(|last| *last != parent) {
            env.note(|| format!("{} moves from {last} to {parent}", self.id));
            env.seen.moves_to_a_fallback_parent += u64::from(parent != preferred);
            env.seen.moves_back += u64::from(parent == preferred);
            let resumed = self.receptions.values().filter(|reception| reception.has_frames()).count();
            env.seen.resumed_after_a_move += resumed as u64;
        }
        self.try_preferred_at = env.now + Duration::from_secs(BACK_SECONDS);
        self.upstream = Some(Upstream { connection, parent });
        self.receptions.values_mut().for_each(|reception| reception.link_up(env.now));
        self.presence_told = false;
        self.speak(env);
        self.run(env);
    }

    pub(crate) fn connected_down(&mut self, connection: u64, child: NodeId, env: &mut Env) {
        self.children.insert(child, connection);
        self.present.insert(child, BTreeSet::new());
        self.relay.connected(child);
        env.seen.offers_while_upstream_was_away += u64::from(self.upstream.is_none() && !self.saved.is_empty());
        self.presence_changed(env);
    }

    pub(crate) fn lost(&mut self, connection: u64, env: &mut Env) {
        self.forget_streams(connection);
        if self.upstream.as_ref().is_some_and(|upstream| upstream.connection == connection) {
            self.upstream = None;
            self.alone_since = env.now;
            self.receptions.values_mut().for_each(Reception::link_down);
        }
        let child = self.children.iter().find(|(_, number)| **number == connection).map(|(child, _)| *child);
        if let Some(child) = child {
            self.children.remove(&child);
            self.present.remove(&child);
            self.server.lost(connection);
            self.presence_changed(env);
        }
        self.run(env);
    }

    fn forget_streams(&mut self, connection: u64) {
        self.asked.retain(|_, asked| asked.connection != connection);
    }

    fn presence_changed(&mut self, env: &mut Env) {
        self.presence_told = false;
        self.speak(env);
        self.offer_on(env);
    }

    /// Sends what waits for a word upwards: who is present, and receipts. One of each at a time.
    pub(crate) fn speak(&mut self, env: &mut Env) {
        if self.upstream.is_none() {
            return;
        }
        let open =
            |wanted: fn(&Purpose) -> bool, asked: &BTreeMap<u64, Asked>| asked.values().any(|a| wanted(&a.purpose));
        if !self.presence_told && !open(|purpose| matches!(purpose, Purpose::Presence), &self.asked) {
            self.presence_told = true;
            let nodes = self.present.iter().flat_map(|(child, behind)| behind.iter().chain([child])).copied().collect();
            self.ask_up(Ask::Presence(nodes), Purpose::Presence, env);
        }
        if !self.outbox.is_empty() && !open(|purpose| matches!(purpose, Purpose::Receipts { .. }), &self.asked) {
            let receipts: Vec<_> = self.outbox.iter().take(20).cloned().collect();
            let purpose = Purpose::Receipts { count: receipts.len() };
            self.ask_up(Ask::Receipts(receipts), purpose, env);
        }
    }

    pub(crate) fn ask_up(&mut self, ask: Ask, purpose: Purpose, env: &mut Env) -> Option<u64> {
        let connection = self.upstream.as_ref()?.connection;
        Some(self.ask(connection, ask, purpose, env))
    }

    fn ask(&mut self, connection: u64, ask: Ask, purpose: Purpose, env: &mut Env) -> u64 {
        let stream = env.number();
        self.asked.insert(stream, Asked { connection, purpose, inbox: Vec::new() });
        env.send(connection, self.id, Message::ask(stream, ask));
        stream
    }

    /// Passes offers on, as the machine says.
    pub(crate) fn offer_on(&mut self, env: &mut Env) {
        for action in self.relay.offers(self.id, &self.present, &env.topology, env.unix()) {
            let RelayAction::Offer { child, offered } = action;
            let may = env.topology.may_have(child, &offered.distribution);
            env.demand(may, || format!("{} offers {child} what that is not entitled to", self.id));
            let Some(connection) = self.children.get(&child).copied() else { continue };
            env.note(|| format!("{} offers {child} for {:?}", self.id, offered.recipients));
            self.ask(connection, Ask::Offer(offered.clone()), Purpose::Offer { child, offered }, env);
        }
    }

    pub(crate) fn deliver(&mut self, connection: u64, message: Message, env: &mut Env) {
        let stream = message.stream();
        match message.content {
            Content::Ask(ask) => self.asked_for(connection, stream, ask, env),
            content => {
                if let Some(asked) = self.asked.get_mut(&stream) {
                    asked.inbox.push(content);
                    self.read(stream, env);
                }
            }
        }
        self.run(env);
    }

    fn asked_for(&mut self, connection: u64, stream: u64, ask: Ask, env: &mut Env) {
        let child = env.links.get(&connection).map(|link| link.peer_of(self.id));
        let Some(child) = child else { return };
        match ask {
            Ask::Offer(offered) => self.was_offered(connection, stream, &offered, env),
            Ask::Presence(nodes) => {
                let behind = nodes.into_iter().filter(|node| env.topology.is_behind(child, *node)).collect();
                self.present.insert(child, behind);
                self.reply(connection, stream, Reply::Stored, env);
                self.presence_changed(env);
            }
            Ask::Receipts(receipts) => {
                self.outbox.extend(receipts);
                self.reply(connection, stream, Reply::Stored, env);
                self.speak(env);
            }
            Ask::Fetch { package, from, to } => {
                self.serve_fetch(&Wanted { connection, stream, child, package, from, to }, env);
            }
        }
    }

    pub(crate) fn reply(&mut self, connection: u64, stream: u64, reply: Reply, env: &mut Env) {
        env.send(connection, self.id, Message::reply(stream, reply));
    }

    /// What concerns this node itself goes to its delivery, what concerns others to the relay machine.
    fn was_offered(&mut self, connection: u64, stream: u64, offered: &Offered, env: &mut Env) {
        let Some(statement) = open_statement(&offered.statement) else {
            let refused = Refused::new(code::BAD_STATEMENT, "no statement");
            return self.reply(connection, stream, Reply::Refused(refused), env);
        };
        let distribution = statement.release.distribution;
        let mut others = offered.clone();
        others.recipients.retain(|node| env.topology.is_behind(self.id, *node));
        let mut answer = None;
        if !others.recipients.is_empty() {
            match self.relay.offered(&others, &statement, env.unix()) {
                Ok(()) => self.saved = self.relay.save(),
                Err(refused) => {
                    env.seen.offers_below_the_floor += u64::from(refused.code() == code::BELOW_FLOOR);
                    answer = Some(OfferAnswer::Refused(refused));
                }
            }
        }
        if offered.recipients.contains(&self.id) && self.deliveries.contains_key(&distribution) {
            answer = Some(self.judge_offer(offered.firing, &statement, env));
        }
        let answer = answer.unwrap_or(OfferAnswer::Current);
        env.note(|| format!("{} is offered {} and says {answer:?}", self.id, statement.release.revision));
        self.reply(connection, stream, Reply::Offer(answer), env);
        self.offer_on(env);
        self.prune(&distribution, &statement);
    }

    /// A relay keeps what the newest statement names; older packages go when nobody reads them.
    fn prune(&mut self, distribution: &DistributionId, statement: &ted_core::protocol::Statement) {
        let named: BTreeSet<PackageId> = statement.release.packages.iter().map(|package| package.id).collect();
        let Self { disks, server, receptions, .. } = self;
        let Some(disk) = disks.get_mut(distribution) else { return };
        if disk.packages.keys().any(|package| named.contains(package)) {
            disk.packages.retain(|package, _| named.contains(package) || server.reads(package));
            disk.parts.retain(|package, _| receptions.contains_key(package));
            disk.maps.retain(|package, _| receptions.contains_key(package));
        }
    }

    fn serve_fetch(&mut self, wanted: &Wanted, env: &mut Env) {
        let package = wanted.package;
        let here = self.disks.iter().find_map(|(distribution, disk)| {
            disk.packages.get(&package).map(|(_, bytes)| (*distribution, bytes.len() as u64))
        });
        let coming = self.receptions.get(&package).map(|coming| (coming.distribution, coming.package.bytes));
        let named = self.relay.named(&package).map(|(distribution, named)| (distribution, named.bytes));
        let refused = match here.or(coming).or(named) {
            None => Refused::new(code::NOT_FOUND, "nothing by that id is here"),
            Some((distribution, _)) if !env.topology.may_have(wanted.child, &distribution) => {
                env.seen.refused_to_the_unentitled += 1;
                Refused::new(code::NOT_ENTITLED, "not in your Channels")
            }
            Some(_) if here.or(coming).is_none() && !self.relay.may_fetch(&package) => {
                Refused::new(code::INTERNAL, "it arrived damaged; the next firing is awaited")
            }
            Some((distribution, total_bytes)) => {
                let blind = distribution == SEALED && !env.topology.is_recipient(self.id, &distribution);
                env.seen.packages_passed_on_blind += u64::from(blind);
                env.seen.children_that_shared_one_reception += u64::from(coming.is_some());
                if here.or(coming).is_none()
                    && let Some((_, package)) = self.relay.named(&package)
                {
                    self.receive(distribution, package, false, env);
                }
                return self.server.open(self.id, wanted, total_bytes, env);
            }
        };
        self.reply(wanted.connection, wanted.stream, Reply::Refused(refused), env);
    }

    /// Asks the parent for something that is not this node's to have.
    pub(crate) fn go_rogue(&mut self, env: &mut Env) {
        let id = self.id;
        let foreign = |package: &(&PackageId, &truth::Known)| !env.topology.may_have(id, &package.1.distribution);
        let Some((package, bytes)) =
            env.truth.packages.iter().rfind(foreign).map(|(id, known)| (*id, known.bytes.len()))
        else {
            return;
        };
        self.ask_up(Ask::Fetch { package, from: 0, to: bytes as u64 }, Purpose::Rogue, env);
    }
}
