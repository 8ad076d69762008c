//! A Subscriber or parent: its links, what it says and hears, what it keeps. What it receives is in `own`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use ted_core::id::{DistributionId, EnvelopeId, FiringId, KeyHash, PackageId, Revision};
use ted_core::limits::Limits;
use ted_core::protocol::{Ascent, Delivery, Fallback, Floor, OfferAnswer, Presence, Reach, Refused, Relay, code};
use ted_core::security::{Entitlements, Stage};

use crate::disk::Disk;
use crate::distributor::{open_receipt, open_statement};
use crate::env::Env;
use crate::message::{Ask, Content, Message, Offered, Reply};
use crate::reception::Reception;
use crate::server::{Server, Wanted};
use crate::topology::{DISTRIBUTIONS, NodeId, Topology, key, node_of};
use crate::truth;

pub(crate) const LIMITS: Limits = Limits::DEFAULT;

/// Whose answer a stream awaits.
pub(crate) enum Purpose {
    Reception {
        package: PackageId,
        number: u64,
    },
    Offer {
        child: NodeId,
        distribution: DistributionId,
        firing: FiringId,
    },
    Receipts {
        count: usize,
    },
    Presence,
    /// What is none of this node's business.
    Rogue,
    /// Something untrue about who is present; what is true follows.
    Lie,
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
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    /// Counts the starts: work begun in an earlier life is nobody's any more.
    pub(crate) life: u64,
    // On disk.
    pub(crate) disks: BTreeMap<DistributionId, Disk>,
    pub(crate) passed: BTreeMap<DistributionId, Vec<u8>>,
    pub(crate) envelopes: BTreeMap<EnvelopeId, Vec<u8>>,
    pub(crate) outbox: Vec<Vec<u8>>,
    // In memory.
    pub(crate) upstream: Option<Upstream>,
    last_parent: Option<NodeId>,
    ascent: Ascent,
    pub(crate) children: BTreeMap<NodeId, u64>,
    pub(crate) entitlements: Entitlements,
    reach: Reach,
    /// Whom the parent knows to be reached through this node; nobody was told yet on a new connection.
    pub(crate) presence_told: Option<HashSet<KeyHash>>,
    pub(crate) deliveries: BTreeMap<DistributionId, Delivery>,
    pub(crate) receptions: BTreeMap<PackageId, Reception>,
    pub(crate) asked: BTreeMap<u64, Asked>,
    pub(crate) server: Server,
    pub(crate) relay: Relay,
    pub(crate) firings: BTreeMap<DistributionId, FiringId>,
    pub(crate) wake_at: Option<Duration>,
}

impl Node {
    pub(crate) fn new(id: NodeId, topology: &Topology) -> Self {
        Self {
            id,
            up: false,
            life: 0,
            disks: DISTRIBUTIONS.iter().map(|distribution| (*distribution, Disk::default())).collect(),
            passed: BTreeMap::new(),
            envelopes: BTreeMap::new(),
            outbox: Vec::new(),
            upstream: None,
            last_parent: None,
            ascent: Ascent::new(Fallback::default(), Duration::ZERO),
            children: BTreeMap::new(),
            entitlements: topology.entitlements(id),
            reach: Reach::default(),
            presence_told: None,
            deliveries: BTreeMap::new(),
            receptions: BTreeMap::new(),
            asked: BTreeMap::new(),
            server: Server::default(),
            relay: Relay::new(key(id), [], LIMITS),
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
        let ways: Vec<KeyHash> = env.topology.route(self.id).iter().map(|parent| key(*parent)).collect();
        self.ascent = Ascent::new(Fallback::default(), env.now);
        self.ascent.set_ways(&ways, env.now);
        self.start_relay(env);
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
        self.reach = Reach::default();
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

    /// Whom to dial now, the most preferred first.
    pub(crate) fn whom_to_dial(&self, env: &Env) -> Vec<NodeId> {
        self.ascent.due(env.now).iter().map(node_of).collect()
    }

    pub(crate) fn not_reached(&mut self, parent: NodeId, env: &Env) {
        self.ascent.failed(&key(parent), env.now);
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
        self.ascent.pause(&key(parent), None, env.now);
        self.ascent.serves(Some(&key(parent)), env.now);
        self.upstream = Some(Upstream { connection });
        self.receptions.values_mut().for_each(|reception| reception.link_up(env.now));
        self.presence_told = None;
        self.speak(env);
        self.run(env);
    }

    pub(crate) fn connected_down(&mut self, connection: u64, child: NodeId, env: &mut Env) {
        self.children.insert(child, connection);
        self.reach.connected(&key(child));
        self.relay.child_up(key(child), env.unix());
        self.presence_changed(env);
    }

    pub(crate) fn lost(&mut self, connection: u64, env: &mut Env) {
        self.forget_streams(connection);
        if self.upstream.as_ref().is_some_and(|upstream| upstream.connection == connection) {
            self.upstream = None;
            self.ascent.serves(None, env.now);
            self.receptions.values_mut().for_each(Reception::link_down);
        }
        let child = self.children.iter().find(|(_, number)| **number == connection).map(|(child, _)| *child);
        if let Some(child) = child {
            self.children.remove(&child);
            self.reach.disconnected(&key(child));
            self.server.lost(connection);
            self.relay.child_down(&key(child), env.unix());
            self.presence_changed(env);
        }
        self.run(env);
    }

    fn forget_streams(&mut self, connection: u64) {
        self.asked.retain(|_, asked| asked.connection != connection);
    }

    fn presence_changed(&mut self, env: &mut Env) {
        self.speak(env);
        self.run_relay(env);
    }

    /// Sends what waits for a word upwards: who is present, and receipts. One of each at a time.
    pub(crate) fn speak(&mut self, env: &mut Env) {
        if self.upstream.is_none() {
            return;
        }
        let open =
            |wanted: fn(&Purpose) -> bool, asked: &BTreeMap<u64, Asked>| asked.values().any(|a| wanted(&a.purpose));
        let present = self.reach.all();
        let is_news = self.presence_told.as_ref() != Some(&present);
        if is_news && !open(|purpose| matches!(purpose, Purpose::Presence), &self.asked) {
            let reset = self.presence_told.is_none();
            let known = self.presence_told.replace(present.clone()).unwrap_or_default();
            let up = present.difference(&known).copied().collect();
            let down = known.difference(&present).copied().collect();
            self.ask_up(Ask::Presence(Presence { reset, up, down }), Purpose::Presence, env);
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

    pub(crate) fn ask(&mut self, connection: u64, ask: Ask, purpose: Purpose, env: &mut Env) -> u64 {
        let stream = env.number();
        self.asked.insert(stream, Asked { connection, purpose, inbox: Vec::new() });
        env.send(connection, self.id, Message::ask(stream, ask));
        stream
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
            Ask::Presence(presence) => {
                let Presence { reset, up, down } = &presence;
                self.relay.presence(&key(child), *reset, up, down, env.unix());
                let believed = |node: &KeyHash| self.entitlements.is_behind(&key(child), node);
                self.reach.told(&key(child), &presence, believed);
                self.reply(connection, stream, Reply::Stored, env);
                self.presence_changed(env);
            }
            Ask::Receipts(receipts) => {
                receipts.iter().for_each(|receipt| self.pass_receipt(receipt));
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
        let mut answer = self.pass_on(offered, &statement, env).err().map(OfferAnswer::Refused);
        if offered.recipients.contains(&self.id) && self.deliveries.contains_key(&distribution) {
            answer = Some(self.judge_offer(offered.firing, &statement, env));
        }
        let answer = answer.unwrap_or(OfferAnswer::Relays);
        env.note(|| format!("{} is offered {} and says {answer:?}", self.id, statement.release.revision));
        self.reply(connection, stream, Reply::Offer(answer), env);
        self.run_relay(env);
    }

    /// A receipt goes up as it is; who is done is not offered the same again.
    fn pass_receipt(&mut self, envelope: &[u8]) {
        if let Some((issuer, receipt)) = open_receipt(envelope)
            && receipt.stage == Stage::Extracted
            && let Some(firing) = receipt.firing
        {
            self.relay.done(&key(issuer), &receipt.distribution, &firing);
        }
    }

    /// Asks the parent for something that is not this node's to have, or says that it reaches whom it does not.
    pub(crate) fn go_rogue(&mut self, env: &mut Env) {
        let id = self.id;
        if env.rng.chance(500) {
            let nodes = env.topology.nodes().count() as u64;
            let up = (0..5).map(|_| key(env.rng.between(1, nodes) as NodeId)).collect();
            env.seen.lies_about_presence += 1;
            self.ask_up(Ask::Presence(Presence { reset: false, up, down: Vec::new() }), Purpose::Lie, env);
            return;
        }
        let foreign = |package: &(&PackageId, &truth::Known)| !env.topology.may_have(id, &package.1.distribution);
        let Some((package, bytes)) =
            env.truth.packages.iter().rfind(foreign).map(|(id, known)| (*id, known.bytes.len()))
        else {
            return;
        };
        self.ask_up(Ask::Fetch { package, from: 0, to: bytes as u64 }, Purpose::Rogue, env);
    }
}
