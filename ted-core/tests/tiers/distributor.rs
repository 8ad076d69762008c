//! The Distributor: builds revisions, fires, offers to its children on behalf of all, serves, counts receipts; and,
//! while faults are on, lies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ted_core::codec;
use ted_core::id::{DistributionId, FiringId, KeyHash, PackageId, Revision, UnixMillis};
use ted_core::model::Priority;
use ted_core::protocol::{
    Cause, Firing, FiringStart, FiringTarget, OfferAnswer, Outcome, PartRole, PartState, Reach, Refused, Statement,
    Until, code,
};
use ted_core::security::{Carried, PackageRef, Receipt, ReleaseStatement};

use crate::bundle::Bundle;
use crate::env::{Env, Event};
use crate::message::{Ask, Content, Message, Offered, Reply};
use crate::records::Records;
use crate::sealed::{seal, unseal};
use crate::server::{Found, Holder, Server, Wanted};
use crate::topology::{DISTRIBUTIONS, DISTRIBUTOR, NodeId, key, node_of};

const STATEMENT_LIFE_SECONDS: u64 = 200;

/// What was told to whom: the Subscriber, the hop's connection, the firing.
type Told = (NodeId, u64, FiringId);

#[derive(Default)]
pub(crate) struct Distributor {
    pub(crate) up: bool,
    // On disk.
    packages: Packages,
    statements: BTreeMap<DistributionId, Vec<Vec<u8>>>,
    newest: BTreeMap<DistributionId, (Revision, PackageRef)>,
    persisted: BTreeMap<DistributionId, Records>,
    // In memory.
    firings: BTreeMap<DistributionId, Firing>,
    children: BTreeMap<NodeId, u64>,
    reach: Reach,
    told: BTreeSet<Told>,
    asked: BTreeMap<u64, (u64, Offered)>,
    server: Server,
}

impl Distributor {
    pub(crate) fn is_content(&self) -> bool {
        self.firings.len() == DISTRIBUTIONS.len() && self.firings.values().all(|f| f.outcome() == Outcome::Complete)
    }

    pub(crate) fn outcomes(&self) -> String {
        let counts = |firing: &Firing| format!("{:?} {:?}", firing.outcome(), firing.counts());
        self.firings.values().map(counts).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn start(&mut self) {
        self.up = true;
        let restored = |(distribution, records): (&DistributionId, &Records)| (*distribution, records.restored());
        self.firings = self.persisted.iter().map(restored).collect();
    }

    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.firings.clear();
        self.children.clear();
        self.reach = Reach::default();
        self.told.clear();
        self.asked.clear();
        self.server = Server::default();
    }

    pub(crate) fn release(&mut self, distribution: DistributionId, env: &mut Env) {
        let before = self.newest.get(&distribution).map(|(revision, _)| *revision);
        let revision = Revision::after(before, env.unix());
        let bundle = Bundle::make(revision, &mut env.rng);
        let bytes = bundle.bytes.len() as u64;
        env.note(|| format!("D releases revision {revision}, {bytes} bytes"));
        env.truth.built(distribution, bundle.id, revision, &bundle.bytes);
        let package = PackageRef { id: bundle.id, carried: Carried::Baseline { revision }, bytes };
        self.packages.0.insert(bundle.id, bundle.bytes);
        self.newest.insert(distribution, (revision, package));
        self.fire(distribution, env);
    }

    pub(crate) fn is_complete(&self, distribution: &DistributionId) -> bool {
        self.firings.get(distribution).is_some_and(|firing| firing.outcome() == Outcome::Complete)
    }

    /// The Channel fires: the last firing ends, the newest revision is stated anew and offered.
    pub(crate) fn fire(&mut self, distribution: DistributionId, env: &mut Env) {
        let Some((revision, package)) = self.newest.get(&distribution).copied() else { return };
        let release = ReleaseStatement { distribution, revision, packages: vec![package], extensions: Vec::new() };
        let expires = env.unix().plus(Duration::from_secs(STATEMENT_LIFE_SECONDS));
        let statement = (release, env.unix(), expires);
        let envelope = seal(codec::encode("a statement", &statement, 4096).expect("short"));
        self.statements.entry(distribution).or_default().push(envelope);
        if let Some(firing) = self.firings.get_mut(&distribution) {
            firing.supersede(env.unix());
        }
        let target = |node: &NodeId| FiringTarget { subscriber: key(*node), distribution, revision };
        let targets: Vec<_> = env.topology.recipients(&distribution).iter().map(target).collect();
        let mut number = [0; 16];
        number[..8].copy_from_slice(&env.number().to_le_bytes());
        let channel = "simulated".parse().expect("a label");
        let (id, until, cause) = (FiringId::from_bytes(number), Until::Extracted, Cause::NewRevision);
        let start = FiringStart { id, channel, priority: Priority::Medium, until, cause, closes: None };
        let firing = Firing::start(start, targets, env.unix());
        self.persisted.remove(&distribution);
        env.note(|| format!("D fires for revision {revision}"));
        self.firings.insert(distribution, firing);
        self.make_offers(env);
    }

    fn persist(&mut self) {
        for (distribution, firing) in &mut self.firings {
            self.persisted.entry(*distribution).or_default().keep(firing);
        }
    }

    /// Offers to each hop what the recipients that are reached through it are to get.
    fn make_offers(&mut self, env: &mut Env) {
        let now = env.unix();
        let mut offers: BTreeMap<(NodeId, DistributionId), Vec<NodeId>> = BTreeMap::new();
        for (distribution, firing) in &self.firings {
            let parts = firing.parts().iter().filter(|part| part.role == PartRole::Recipient);
            let due = parts.filter(|part| !part.state.is_done(Until::Extracted));
            for recipient in due.map(|part| node_of(&part.subscriber)) {
                let Some(child) = self.hop(recipient, env) else { continue };
                let told = (recipient, self.children[&child], firing.id());
                if !self.told.contains(&told) && !firing.offers(&key(recipient), now).is_empty() {
                    self.told.insert(told);
                    offers.entry((child, *distribution)).or_default().push(recipient);
                }
            }
        }
        for ((child, distribution), recipients) in offers {
            self.offer(child, distribution, recipients, env);
        }
        self.persist();
    }

    /// The child through which a node is reached; where it is not connected, the one on its preferred way.
    fn hop(&self, recipient: NodeId, env: &Env) -> Option<NodeId> {
        let live = self.reach.hop_of(&key(recipient)).map(|hop| node_of(&hop));
        let preferred = || env.topology.preferred_hop(DISTRIBUTOR, recipient);
        live.or_else(preferred).filter(|child| self.children.contains_key(child))
    }

    fn offer(&mut self, child: NodeId, distribution: DistributionId, recipients: Vec<NodeId>, env: &mut Env) {
        let now = env.unix();
        let Some(firing) = self.firings.get_mut(&distribution) else { return };
        for recipient in &recipients {
            let hop = (*recipient != child).then(|| key(child));
            firing.offered_over(&key(*recipient), &distribution, hop, now);
        }
        if !env.topology.is_recipient(child, &distribution) {
            let (revision, _) = self.newest[&distribution];
            firing.relays(&FiringTarget { subscriber: key(child), distribution, revision }, now);
        }
        let statements = &self.statements[&distribution];
        let newest = statements.len() - 1;
        let rogue = env.faults && env.rng.chance(100);
        let chosen = if rogue { env.rng.below(newest as u64 + 1) as usize } else { newest };
        let (firing, statement) = (firing.id(), statements[chosen].clone());
        let offered = Offered { firing, distribution, statement, recipients };
        let (stream, connection) = (env.number(), self.children[&child]);
        self.asked.insert(stream, (connection, offered.clone()));
        env.send(connection, DISTRIBUTOR, Message::ask(stream, Ask::Offer(offered)));
    }

    pub(crate) fn connected(&mut self, connection: u64, child: NodeId, env: &mut Env) {
        self.children.insert(child, connection);
        self.reach.connected(&key(child));
        self.make_offers(env);
    }

    pub(crate) fn lost(&mut self, connection: u64, env: &mut Env) {
        self.server.lost(connection);
        self.asked.retain(|_, (open, _)| *open != connection);
        self.told.retain(|(_, told, _)| *told != connection);
        let child = self.children.iter().find(|(_, number)| **number == connection).map(|(child, _)| *child);
        let Some(child) = child else { return };
        self.children.remove(&child);
        let gone = self.reach.disconnected(&key(child)).down;
        for firing in self.firings.values_mut() {
            for node in &gone {
                firing.disconnected(node, env.unix());
            }
        }
        self.make_offers(env);
    }

    pub(crate) fn wake(&mut self, env: &mut Env) {
        env.soon(1000, 2000, Event::Wake(DISTRIBUTOR));
        let (now, silence) = (env.unix(), env.options.silence);
        for firing in self.firings.values_mut() {
            env.seen.firings_timed_out += u64::from(firing.tick(silence, now));
            let waits = firing
                .parts()
                .iter()
                .filter(|part| part.state == PartState::Pending && part.role == PartRole::Recipient);
            for node in waits.map(|part| node_of(&part.subscriber)) {
                if !firing.offers(&key(node), now).is_empty() {
                    self.told.retain(|(told, _, id)| *told != node || *id != firing.id());
                }
            }
        }
        self.make_offers(env);
    }

    pub(crate) fn deliver(&mut self, connection: u64, message: Message, env: &mut Env) {
        let stream = message.stream();
        let Some(child) = env.links.get(&connection).map(|link| link.peer_of(DISTRIBUTOR)) else { return };
        match message.content {
            Content::Ask(Ask::Fetch { package, from, to }) => {
                self.serve_fetch(&Wanted { connection, stream, child, package, from, to }, env);
            }
            Content::Ask(Ask::Receipts(receipts)) => {
                receipts.iter().for_each(|receipt| self.receipt(child, receipt, env));
                self.persist();
                self.reply(connection, stream, Reply::Stored, env);
            }
            Content::Ask(Ask::Presence(presence)) => {
                let believed = |node: &KeyHash| env.topology.is_behind(child, node_of(node));
                self.reach.told(&key(child), &presence, believed);
                self.reply(connection, stream, Reply::Stored, env);
                self.make_offers(env);
            }
            Content::Ask(Ask::Offer(_)) => {
                let refused = Refused::new(code::BAD_REQUEST, "not here");
                self.reply(connection, stream, Reply::Refused(refused), env);
            }
            Content::Reply(Reply::Offer(answer)) => self.offer_answered(child, stream, &answer, env),
            Content::Reply(_) | Content::Block(_) => {
                self.asked.remove(&stream);
            }
        }
    }

    /// An answer concerns the part of the child itself.
    fn offer_answered(&mut self, child: NodeId, stream: u64, answer: &OfferAnswer, env: &mut Env) {
        let Some((_, offered)) = self.asked.remove(&stream) else { return };
        let firing = self.firings.get_mut(&offered.distribution).filter(|firing| firing.id() == offered.firing);
        if let Some(firing) = firing
            && offered.recipients.contains(&child)
        {
            firing.answered(&key(child), &offered.distribution, answer, env.unix());
        }
        self.persist();
    }

    fn reply(&mut self, connection: u64, stream: u64, reply: Reply, env: &mut Env) {
        env.send(connection, DISTRIBUTOR, Message::reply(stream, reply));
    }

    fn receipt(&mut self, child: NodeId, envelope: &[u8], env: &mut Env) {
        let Some((issuer, receipt)) = open_receipt(envelope) else { return };
        if issuer != child && !env.topology.is_behind(child, issuer) {
            return;
        }
        let Some(firing) = self.firings.get_mut(&receipt.distribution) else { return };
        firing.receipt(&key(issuer), &receipt, env.unix());
        let part = firing.parts().iter().find(|part| part.subscriber == key(issuer));
        let claimed = part.filter(|part| part.state == PartState::Extracted).map(|part| part.revision);
        let extracted = env.truth.extracted(issuer, receipt.distribution);
        env.demand(claimed <= extracted, || format!("{claimed:?} counts as extracted at {issuer} and is not"));
    }

    fn serve_fetch(&mut self, wanted: &Wanted, env: &mut Env) {
        let known = env.truth.packages.get(&wanted.package).map(|known| (known.distribution, known.bytes.len() as u64));
        let refused = match known {
            _ if env.faults && env.rng.chance(10) => Refused::new(code::BUSY, "too much to do"),
            None => Refused::new(code::NOT_FOUND, "nothing by that id is here"),
            Some((distribution, _)) if !env.topology.may_have(wanted.child, &distribution) => {
                env.seen.refused_to_the_unentitled += 1;
                Refused::new(code::NOT_ENTITLED, "not in your Channels")
            }
            Some((_, total_bytes)) => return self.server.open(DISTRIBUTOR, wanted, total_bytes, env),
        };
        self.reply(wanted.connection, wanted.stream, Reply::Refused(refused), env);
    }

    pub(crate) fn serve(&mut self, stream: (u64, u64), env: &mut Env) {
        self.server.serve(DISTRIBUTOR, stream, &mut self.packages, env);
    }
}

/// What the Distributor built: all of it is complete, and its own repair is another test's business.
#[derive(Default)]
struct Packages(BTreeMap<PackageId, Vec<u8>>);

impl Holder for Packages {
    fn find(&self, package: &PackageId, _: u64) -> Found {
        match self.0.get(package) {
            Some(bytes) => Found::Available { to: bytes.len() as u64, complete: true },
            None => Found::Gone(Refused::new(code::NOT_FOUND, "nothing by that id is here")),
        }
    }

    fn read(&mut self, package: &PackageId, from: u64, to: u64, _: &mut Env) -> Result<Vec<u8>, Refused> {
        Ok(self.0[package][from as usize..to as usize].to_vec())
    }
}

/// The statement in an envelope, if the Distributor made it.
pub(crate) fn open_statement(envelope: &[u8]) -> Option<Statement> {
    let (release, issued, expires): (ReleaseStatement, UnixMillis, UnixMillis) =
        codec::decode("a statement", unseal(envelope)?, 4096).ok()?;
    Some(Statement { release, issued, expires })
}

/// Whose receipt it is, and what it says.
pub(crate) fn open_receipt(envelope: &[u8]) -> Option<(NodeId, Receipt)> {
    let (issuer, bytes) = unseal(envelope)?.split_last()?;
    Some((NodeId::from(*issuer), codec::decode("a receipt", bytes, 4096).ok()?))
}
