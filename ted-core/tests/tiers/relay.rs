//! What a node does as a parent: the driver of the machine that decides whom to offer what, and what to fetch for them.

use std::collections::BTreeSet;

use ted_core::id::{EnvelopeId, KeyHash, PackageId};
use ted_core::model::Priority;
use ted_core::protocol::{
    Asked as Verdict, OfferAnswer, Passed, PassedOffer, Refused, Relay, RelayAction, RelayEnd, Statement, code,
};

use crate::env::Env;
use crate::message::{Ask, Offered, Reply};
use crate::node::{LIMITS, Node, Purpose};
use crate::server::Wanted;
use crate::topology::{NodeId, SEALED, key, node_of};

fn envelope_id(bytes: &[u8]) -> EnvelopeId {
    EnvelopeId::from_bytes(*blake3::hash(bytes).as_bytes())
}

impl Node {
    /// What it passed on before it was started, to the children that its entitlements name.
    pub(crate) fn start_relay(&mut self, env: &Env) {
        let decode =
            |bytes: &Vec<u8>| Passed::decode(bytes, &LIMITS).expect("as it was written").expect("of this form");
        self.relay = Relay::new(key(self.id), self.passed.values().map(decode), LIMITS);
        let children = self.entitlements.children().map(|child| {
            let behind = self.entitlements.descendants().filter(|it| it.through.contains(&child.key));
            (child.key, behind.map(|it| it.key).filter(|key| *key != child.key).collect())
        });
        self.relay.entitled(children.collect(), env.unix());
        for package in self.disks.values().flat_map(|disk| disk.packages.keys()) {
            self.relay.package_here(*package);
        }
    }

    /// An offer to others than this node. Says why it is refused.
    pub(crate) fn pass_on(&mut self, offered: &Offered, statement: &Statement, env: &mut Env) -> Result<(), Refused> {
        let release = &statement.release;
        let keys = offered.recipients.iter().map(|node| key(*node));
        let recipients: BTreeSet<KeyHash> = keys.filter(|key| self.entitlements.get(key).is_some()).collect();
        if recipients.is_empty() {
            return Ok(());
        }
        let offer = PassedOffer {
            firing: offered.firing,
            distribution: release.distribution,
            priority: Priority::Medium,
            closes: None,
            recipients,
            statement: envelope_id(&offered.statement),
            issued: statement.issued,
            expires: statement.expires,
            packages: release.packages.clone(),
            grants: Vec::new(),
        };
        self.envelopes.insert(offer.statement, offered.statement.clone());
        let judged = self.relay.offered(&offer, env.unix());
        if let Err(refused) = &judged {
            env.seen.offers_below_the_floor += u64::from(refused.code() == code::BELOW_FLOOR);
        }
        judged
    }

    /// Does what the machine asks for.
    pub(crate) fn run_relay(&mut self, env: &mut Env) {
        while let Some(action) = self.relay.poll(env.unix()) {
            match action {
                RelayAction::Keep { distribution } => {
                    match self.relay.passed(&distribution).map(|passed| passed.encode(&LIMITS).expect("small")) {
                        Some(bytes) => self.passed.insert(distribution, bytes),
                        None => self.passed.remove(&distribution),
                    };
                }
                RelayAction::Offer { child, offer } => self.offer_on(node_of(&child), &offer, env),
                RelayAction::Fetch { distribution, package } => self.receive(distribution, package, false, env),
                RelayAction::Release { package } => self.release(&package),
            }
        }
    }

    fn offer_on(&mut self, child: NodeId, offer: &PassedOffer, env: &mut Env) {
        let may = env.topology.may_have(child, &offer.distribution);
        env.demand(may, || format!("{} offers {child} what that is not entitled to", self.id));
        let (firing, distribution) = (offer.firing, offer.distribution);
        let (Some(connection), Some(statement)) = (self.children.get(&child), self.envelopes.get(&offer.statement))
        else {
            return self.relay.offer_failed(&key(child), &distribution, &firing, env.unix());
        };
        let recipients: Vec<NodeId> = offer.recipients.iter().map(node_of).collect();
        for recipient in &recipients {
            let there = *recipient == child || env.topology.is_behind(child, *recipient);
            env.truth.demand(there, || format!("{} offers {child} for {recipient}, who is not behind it", self.id));
        }
        env.note(|| format!("{} offers {child} for {recipients:?}", self.id));
        env.seen.offers_while_upstream_was_away += u64::from(self.upstream.is_none());
        let offered = Offered { firing, distribution, statement: statement.clone(), recipients };
        self.ask(*connection, Ask::Offer(offered), Purpose::Offer { child, distribution, firing }, env);
    }

    /// A child answered an offer, or the connection took the answer along.
    pub(crate) fn offer_answered(&mut self, purpose: &Purpose, answer: Option<&OfferAnswer>, env: &Env) {
        let Purpose::Offer { child, distribution, firing } = purpose else { return };
        let (child, now) = (key(*child), env.unix());
        match answer {
            Some(answer) => self.relay.answered(&child, distribution, firing, answer, now),
            None => self.relay.offer_failed(&child, distribution, firing, now),
        }
    }

    pub(crate) fn serve_fetch(&mut self, wanted: &Wanted, env: &mut Env) {
        let package = wanted.package;
        let named = self.relay.named(&package);
        let verdict = match named {
            Some((distribution, _)) if !self.entitlements.may_fetch(&key(wanted.child), &distribution) => {
                env.seen.refused_to_the_unentitled += 1;
                Verdict::Refused(Refused::new(code::NOT_ENTITLED, "not in your Channels"))
            }
            _ => self.relay.asked(&package),
        };
        self.run_relay(env);
        let (Some((distribution, named)), Verdict::Serve | Verdict::Wait) = (named, &verdict) else {
            let refused = match verdict {
                Verdict::Refused(refused) => refused,
                _ => Refused::new(code::NOT_FOUND, "nothing by that id is here"),
            };
            return self.reply(wanted.connection, wanted.stream, Reply::Refused(refused), env);
        };
        let blind = distribution == SEALED && !env.topology.is_recipient(self.id, &distribution);
        env.seen.packages_passed_on_blind += u64::from(blind);
        env.seen.fetches_that_waited += u64::from(verdict == Verdict::Wait);
        self.server.open(self.id, wanted, named.bytes, env);
    }

    /// No child can ask for it any more: it goes, unless it is this node's own.
    fn release(&mut self, package: &PackageId) {
        if self.server.reads(package) || self.receptions.contains_key(package) {
            return;
        }
        for (distribution, disk) in &mut self.disks {
            let own = self.deliveries.get(distribution).and_then(|delivery| delivery.have().verified);
            if disk.packages.get(package).is_some_and(|(revision, _)| Some(*revision) != own) {
                disk.packages.remove(package);
                self.relay.package_gone(package);
            }
            disk.parts.remove(package);
            disk.maps.remove(package);
        }
    }

    /// A reception ended; what the machine asked for is told it, and that a package is here in any case.
    pub(crate) fn tell_relay(&mut self, package: &PackageId, for_children: bool, end: RelayEnd) {
        if for_children {
            self.relay.package_ended(package, end);
        } else if end == RelayEnd::Whole {
            self.relay.package_here(*package);
        }
    }
}

/// Only in answers to offers something is read by the machine.
pub(crate) fn answer_of(reply: &Reply) -> Option<&OfferAnswer> {
    if let Reply::Offer(answer) = reply { Some(answer) } else { None }
}
