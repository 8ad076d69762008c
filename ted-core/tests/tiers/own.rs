//! What a node receives, for itself and for its children: answers, receptions, extraction, receipts.

use std::time::Duration;

use ted_core::codec;
use ted_core::id::{DistributionId, FiringId, PackageId, Revision};
use ted_core::package::check_frame;
use ted_core::protocol::{
    DeliveryAction, DeliveryEnd, GiveUp, OfferAnswer, Passed, Refused, RelayEnd, Statement, code,
};
use ted_core::security::{Carried, PackageRef, Receipt, Stage};

use crate::bundle::Index;
use crate::disk::PartFile;
use crate::env::{Env, Event};
use crate::message::{Ask, Block, Content, Reply};
use crate::node::{Asked, Node, Purpose};
use crate::reception::{Reception, Step};
use crate::relay::answer_of;
use crate::sealed::seal;
use crate::server::{Found, Holder};
use crate::work::Work;

impl Node {
    /// Reads what has arrived on a stream, as far as the reception allows.
    pub(crate) fn read(&mut self, stream: u64, env: &mut Env) {
        let Some(mut asked) = self.asked.remove(&stream) else { return };
        for content in std::mem::take(&mut asked.inbox) {
            let may_read = match &asked.purpose {
                Purpose::Reception { package, .. } => self.receptions.get(package).is_none_or(Reception::may_read),
                _ => true,
            };
            if !may_read || !asked.inbox.is_empty() {
                asked.inbox.push(content);
            } else if self.hear(stream, &asked, content, env) {
                return;
            }
        }
        self.asked.insert(stream, asked);
    }

    /// One thing that came on a stream; says whether that was its end.
    fn hear(&mut self, stream: u64, asked: &Asked, content: Content, env: &mut Env) -> bool {
        match (&asked.purpose, content) {
            (Purpose::Reception { package, number }, content) => {
                self.hear_package(stream, (*package, *number), content, env)
            }
            (purpose @ Purpose::Offer { .. }, Content::Reply(reply)) => {
                self.offer_answered(purpose, answer_of(&reply), env);
                true
            }
            (Purpose::Receipts { count }, Content::Reply(Reply::Stored)) => {
                self.outbox.drain(..*count);
                // What was heard counts before the stream is forgotten, so that the rest may follow.
                self.speak(env);
                true
            }
            (Purpose::Presence, Content::Reply(_)) => {
                self.speak(env);
                true
            }
            (Purpose::Lie, _) => {
                self.presence_told = None;
                self.speak(env);
                true
            }
            (Purpose::Rogue, Content::Block(Block::Data(_) | Block::Waiting)) => false,
            (Purpose::Rogue, Content::Reply(Reply::Fetch { .. })) => false,
            _ => true,
        }
    }

    fn hear_package(
        &mut self,
        stream: u64,
        (package, number): (PackageId, u64),
        content: Content,
        env: &mut Env,
    ) -> bool {
        let Some(reception) = self.receptions.get_mut(&package).filter(|reception| reception.number == number) else {
            return true;
        };
        match content {
            Content::Reply(Reply::Fetch { total_bytes }) if total_bytes == reception.package.bytes => {
                reception.heard(env.now);
                false
            }
            Content::Block(Block::Waiting) => {
                reception.heard(env.now);
                false
            }
            Content::Block(Block::Data(bytes)) => {
                for (frame, bytes) in reception.data(stream, &bytes, env.now) {
                    let work = Work::Checked { reception: reception.number, frame, bytes };
                    let (node, life, distribution) = (self.id, self.life, reception.distribution);
                    env.soon(1, 10, Event::Done { node, life, distribution, work });
                }
                false
            }
            Content::Block(Block::End) => {
                reception.ended(stream, env.now);
                true
            }
            Content::Block(Block::Error(refused)) | Content::Reply(Reply::Refused(refused)) => {
                reception.failed(stream, Some(refused), env.now);
                true
            }
            _ => {
                reception.failed(stream, None, env.now);
                true
            }
        }
    }

    pub(crate) fn judge_offer(&mut self, firing: FiringId, statement: &Statement, env: &mut Env) -> OfferAnswer {
        let distribution = statement.release.distribution;
        let Some(delivery) = self.deliveries.get_mut(&distribution) else {
            return OfferAnswer::Refused(Refused::new(code::NOT_ENTITLED, "no recipient"));
        };
        let (answer, actions) = delivery.offer(firing, statement, env.unix());
        if let OfferAnswer::Refused(refused) = &answer {
            env.seen.offers_below_the_floor += u64::from(refused.code() == code::BELOW_FLOOR);
        }
        if matches!(answer, OfferAnswer::Want { .. } | OfferAnswer::Current) {
            env.truth.accepted(self.id, statement, env.unix());
        }
        self.obey(distribution, actions, env);
        if answer == OfferAnswer::Current {
            self.firings.insert(distribution, firing);
            let revision = statement.release.revision;
            let extracted = self.disk(&distribution).extracted >= Some(revision);
            let stage = if extracted { Stage::Extracted } else { Stage::Verified };
            self.send_receipt(distribution, revision, stage, env);
        }
        answer
    }

    fn obey(&mut self, distribution: DistributionId, actions: Vec<DeliveryAction>, env: &mut Env) {
        for action in actions {
            match action {
                DeliveryAction::RaiseFloor(floor) => {
                    self.disk(&distribution).floor = Some(floor);
                    if env.faults && env.rng.chance(5) {
                        env.at(env.now, Event::Crash(self.id));
                    }
                }
                DeliveryAction::Receive { firing, package } => {
                    self.firings.insert(distribution, firing);
                    self.receive(distribution, package, true, env);
                }
                DeliveryAction::Complete { firing, revision } => {
                    self.firings.insert(distribution, firing);
                    self.extract(distribution, revision, env);
                }
                DeliveryAction::Alarm(_) => {}
            }
        }
    }

    /// Receives a package, for the node itself or for its children. Whoever asks later shares the reception.
    pub(crate) fn receive(&mut self, distribution: DistributionId, package: PackageRef, own: bool, env: &mut Env) {
        if let Some(reception) = self.receptions.get_mut(&package.id) {
            reception.own |= own;
            reception.for_children |= !own;
            return;
        }
        let complete = self.disk(&distribution).packages.get(&package.id).map(|(revision, _)| *revision);
        if let Some(revision) = complete {
            // It came for the children before.
            self.tell_relay(&package.id, !own, RelayEnd::Whole);
            if own {
                self.own_package_verified(distribution, package.id, revision, env);
            }
            return;
        }
        let mut reception = Reception::new(self.id, distribution, package, own, env);
        if self.upstream.is_none() {
            reception.link_down();
        }
        self.receptions.insert(package.id, reception);
    }

    fn own_package_verified(&mut self, distribution: DistributionId, id: PackageId, revision: Revision, env: &mut Env) {
        env.truth.verified_for_itself(self.id, distribution, revision);
        self.send_receipt(distribution, revision, Stage::Verified, env);
        let now = env.unix();
        let actions =
            self.deliveries.get_mut(&distribution).map(|delivery| delivery.ended(&id, DeliveryEnd::Verified, now));
        self.obey(distribution, actions.unwrap_or_default(), env);
    }

    pub(crate) fn extract(&mut self, distribution: DistributionId, revision: Revision, env: &mut Env) {
        let (node, life, work) = (self.id, self.life, Work::Extracted { revision });
        env.soon(10, 3000, Event::Done { node, life, distribution, work });
    }

    fn send_receipt(&mut self, distribution: DistributionId, revision: Revision, stage: Stage, env: &mut Env) {
        let firing = self.firings.get(&distribution).copied();
        self.send_receipt_for(firing, distribution, revision, stage, env);
    }

    /// What a node passes on it reports too.
    fn relay_receipt(&mut self, distribution: DistributionId, revision: Revision, stage: Stage, env: &mut Env) {
        let firing = self.relay.passed(&distribution).and_then(Passed::newest_firing);
        self.send_receipt_for(firing, distribution, revision, stage, env);
    }

    fn send_receipt_for(
        &mut self,
        firing: Option<FiringId>,
        distribution: DistributionId,
        revision: Revision,
        stage: Stage,
        env: &mut Env,
    ) {
        let receipt = Receipt {
            firing,
            distribution,
            revision,
            package: None,
            stage,
            code: (stage == Stage::Corrupt).then(|| code::CORRUPT.to_owned()),
            detail: String::new(),
            at: env.unix(),
        };
        let mut bytes = codec::encode("a receipt", &receipt, 4096).expect("short");
        bytes.push(self.id as u8);
        self.outbox.push(seal(bytes));
        self.speak(env);
    }

    /// Work that was given away is done.
    pub(crate) fn done(&mut self, distribution: DistributionId, work: Work, env: &mut Env) {
        match work {
            Work::Extracted { revision } => {
                let node = self.id;
                let may = env.topology.is_recipient(node, &distribution);
                env.demand(may, || format!("{node} extracts what it only passes on"));
                if self.disk(&distribution).extracted < Some(revision) {
                    env.truth.was_extracted(node, distribution, revision);
                    self.disk(&distribution).extracted = Some(revision);
                    env.note(|| format!("{node} has extracted revision {revision}"));
                }
                self.send_receipt(distribution, revision, Stage::Extracted, env);
            }
            work => {
                self.disk(&distribution).done(&work);
                let number = match &work {
                    Work::Checked { reception, .. } | Work::Written { reception, .. } => *reception,
                    Work::Synced { reception, .. } | Work::MapWritten { reception, .. } => *reception,
                    Work::Extracted { .. } => 0,
                };
                let reception = self.receptions.values_mut().find(|reception| reception.number == number);
                if let Some(reception) = reception {
                    let written = matches!(work, Work::Written { .. });
                    reception.done(work, env);
                    if written {
                        self.server.stir(self.id, &reception.package.id, env);
                    }
                }
            }
        }
        self.run(env);
    }

    /// Does what the receptions ask for, until they have nothing more to say.
    pub(crate) fn run(&mut self, env: &mut Env) {
        let waiting: Vec<u64> =
            self.asked.iter().filter(|(_, asked)| !asked.inbox.is_empty()).map(|(stream, _)| *stream).collect();
        for stream in waiting {
            self.read(stream, env);
        }
        let packages: Vec<PackageId> = self.receptions.keys().copied().collect();
        for package in packages {
            while self.step(&package, env) {}
        }
        self.run_relay(env);
        self.schedule_wake(env);
    }

    fn step(&mut self, package: &PackageId, env: &mut Env) -> bool {
        let Some(reception) = self.receptions.get_mut(package) else { return false };
        let disk = self.disks.entry(reception.distribution).or_default();
        match reception.step(disk, self.life, env) {
            Step::Nothing => return false,
            Step::Again => {}
            Step::Fetch { fetch, from, to } => {
                let purpose = Purpose::Reception { package: *package, number: reception.number };
                let ask = Ask::Fetch { package: *package, from, to };
                if let Some(stream) = self.ask_up(ask, purpose, env)
                    && let Some(reception) = self.receptions.get_mut(package)
                {
                    reception.opened(stream, fetch);
                }
            }
            Step::Cancel { stream } => {
                self.asked.remove(&stream);
            }
            Step::Ended(end) => self.reception_ended(package, end, env),
        }
        true
    }

    fn reception_ended(&mut self, package: &PackageId, end: Result<Revision, GiveUp>, env: &mut Env) {
        let Some(reception) = self.receptions.remove(package) else { return };
        let (distribution, id) = (reception.distribution, reception.package.id);
        self.asked.retain(
            |_, asked| !matches!(asked.purpose, Purpose::Reception { number, .. } if number == reception.number),
        );
        self.disk(&distribution).drain(id);
        env.note(|| format!("{} ends a reception: {end:?}", self.id));
        let relay_end = match &end {
            Ok(_) => RelayEnd::Whole,
            Err(GiveUp::Corrupt { .. }) => RelayEnd::Corrupt,
            Err(_) => RelayEnd::Stopped,
        };
        self.tell_relay(&id, reception.for_children, relay_end);
        if let Err(GiveUp::Refused(refused)) = &end {
            // Children learn that it is not to be had, so that they turn to something newer.
            self.server.fail(self.id, &id, refused, env);
        }
        let how = match end {
            Ok(revision) if reception.own => {
                self.own_package_verified(distribution, id, revision, env);
                None
            }
            Ok(revision) => {
                self.relay_receipt(distribution, revision, Stage::Verified, env);
                None
            }
            Err(GiveUp::Corrupt { .. }) => {
                env.seen.corrupt_packages += 1;
                let disk = self.disk(&distribution);
                disk.parts.remove(&id);
                disk.maps.remove(&id);
                Some(DeliveryEnd::Corrupt)
            }
            Err(_) => Some(DeliveryEnd::Stopped),
        };
        self.server.stir(self.id, &id, env);
        if how == Some(DeliveryEnd::Corrupt) && !reception.own {
            let revision = carried(&reception.package);
            self.relay_receipt(distribution, revision, Stage::Corrupt, env);
        }
        let Some(how) = how.filter(|_| reception.own) else { return };
        let Some(delivery) = self.deliveries.get_mut(&distribution) else { return };
        let revision = delivery.have().receiving.unwrap_or(Revision::from_number(0));
        let actions = delivery.ended(&id, how, env.unix());
        if how == DeliveryEnd::Corrupt {
            self.send_receipt(distribution, revision, Stage::Corrupt, env);
        }
        self.obey(distribution, actions, env);
    }

    fn schedule_wake(&mut self, env: &mut Env) {
        let receptions = self.receptions.values().filter_map(|reception| reception.next_wakeup(env.now));
        let relay = self.relay.next_wakeup(env.unix()).map(|at| env.now + at.since(env.unix()));
        let Some(at) = receptions.chain(relay).min() else { return };
        let at = at.max(env.now + Duration::from_millis(1));
        if self.wake_at.is_none_or(|planned| at < planned) {
            self.wake_at = Some(at);
            env.at(at, Event::Wake(self.id));
        }
    }

    pub(crate) fn wake(&mut self, env: &mut Env) {
        self.wake_at = None;
        self.run(env);
    }

    /// Sends the next block of a stream.
    pub(crate) fn serve(&mut self, stream: (u64, u64), env: &mut Env) {
        let mut server = std::mem::take(&mut self.server);
        server.serve(self.id, stream, self, env);
        self.server = server;
        self.run(env);
    }

    /// A bit of a complete package turns over.
    pub(crate) fn rot(&mut self, env: &mut Env) {
        let packages = self.disks.values_mut().flat_map(|disk| disk.packages.values_mut());
        for (_, bytes) in packages {
            let index = bytes.len() as u64 / 2;
            let at = env.rng.below(index.max(1)) as usize;
            bytes[at] ^= 1 << env.rng.below(8);
        }
    }
}

/// Serving from a node's disk: what is read from a complete package is checked before it leaves.
impl Holder for Node {
    fn find(&self, package: &PackageId, at: u64) -> Found {
        let complete = self.disks.values().find_map(|disk| disk.packages.get(package));
        if let Some((_, bytes)) = complete {
            return Found::Available { to: bytes.len() as u64, complete: true };
        }
        match self.receptions.get(package) {
            Some(reception) => match reception.available(at) {
                to if to > at => Found::Available { to, complete: false },
                _ => Found::Coming,
            },
            None => Found::Gone(Refused::new(code::INTERNAL, "it does not come")),
        }
    }

    fn read(&mut self, package: &PackageId, from: u64, to: u64, env: &mut Env) -> Result<Vec<u8>, Refused> {
        let holder = self.disks.iter().find(|(_, disk)| disk.packages.contains_key(package));
        let Some((distribution, disk)) = holder else {
            let reception = self.receptions.get(package);
            let read = reception.map(|reception| reception.read(from, to, &self.disks[&reception.distribution]));
            return Ok(read.unwrap_or_default());
        };
        let (distribution, bytes) = (*distribution, &disk.packages[package].1);
        if bad_frames(package, bytes, (from, to)).is_some_and(|bad| bad.is_empty()) {
            return Ok(bytes[from as usize..to as usize].to_vec());
        }
        self.set_aside(distribution, package, env);
        Err(Refused::new(code::INTERNAL, "a frame is damaged here"))
    }
}

fn carried(package: &PackageRef) -> Revision {
    match package.carried {
        Carried::Baseline { revision } | Carried::Delta { revision, .. } => revision,
    }
}

/// The frames that overlap a range and are not as the table states; `None` where the index itself is damaged.
fn bad_frames(package: &PackageId, bytes: &[u8], (from, to): (u64, u64)) -> Option<Vec<u64>> {
    let index = Index::read(package, bytes.len() as u64, bytes)?;
    let overlaps = |frame: &u64| {
        let range = index.layout.range(*frame);
        range.start < to && from < range.end
    };
    let is_bad = |frame: &u64| {
        let range = index.layout.range(*frame);
        check_frame(&index.rows[*frame as usize], &bytes[range.start as usize..range.end as usize]).is_err()
    };
    Some((0..index.layout.frames()).filter(overlaps).filter(is_bad).collect())
}

impl Node {
    /// A complete package turned out to be damaged: what is good of it stays, the rest is fetched again.
    fn set_aside(&mut self, distribution: DistributionId, package: &PackageId, env: &mut Env) {
        let (firing, disk) = (self.firings.get(&distribution).copied(), self.disk(&distribution));
        let Some((revision, bytes)) = disk.packages.remove(package) else { return };
        env.seen.rotten_packages_at_parents += 1;
        self.relay.package_gone(package);
        env.note(|| format!("{} finds its package of revision {revision} damaged", self.id));
        let total = bytes.len() as u64;
        if let Some(index) = Index::read(package, total, &bytes) {
            let bad = bad_frames(package, &bytes, (0, total)).unwrap_or_default();
            let frames = index.layout.frames();
            let mut map =
                ted_core::protocol::FrameMap::empty(*package, total, frames, &env.options.limits).expect("few");
            (0..frames).filter(|frame| !bad.contains(frame)).for_each(|frame| map.insert(frame));
            let disk = self.disk(&distribution);
            disk.parts.insert(*package, PartFile::of(bytes[..index.layout.total_bytes() as usize].to_vec()));
            disk.maps.insert(*package, map.encode());
            env.seen.mended_packages += 1;
        }
        if let Some(delivery) = self.deliveries.get_mut(&distribution) {
            delivery.set_aside(revision, firing);
            self.send_receipt(distribution, revision, Stage::Corrupt, env);
        }
    }
}
