//! The Subscriber's node: dials, judges offers, receives, extracts, sends receipts. It does with the pure machines
//! what the real driver does, over a disk that forgets.

use std::collections::BTreeMap;
use std::time::Duration;

use ted_core::codec;
use ted_core::id::{FiringId, InstanceId, PackageId, Revision};
use ted_core::limits::Limits;
use ted_core::protocol::{
    Answer, BlockEvent, BlockReader, Delivery, DeliveryAction, DeliveryEnd, Fetch, FetchTarget, Floor, GiveUp, Hello,
    MessageReader, Offer, OfferAnswer, PROTOCOL_VERSION, Refused, Request, code, decode_answer, decode_request,
    encode_answer, encode_request,
};
use ted_core::security::{Receipt, Stage};

use crate::disk::Disk;
use crate::distributor::open_statement;
use crate::env::{Env, Event, SITE, Side, envelope_id};
use crate::reception::{Reception, Step};
use crate::sealed::seal;
use crate::work::Work;

const LIMITS: Limits = Limits::DEFAULT;

/// Whose answer a stream awaits.
enum Purpose {
    Hello,
    Statement { offer_stream: u64, offer: Offer },
    Reception { number: u64 },
    Receipt,
}

/// A stream that this node opened.
struct Asked {
    purpose: Purpose,
    message: Option<MessageReader>,
    blocks: BlockReader,
    collected: Vec<u8>,
    /// What arrived while the disk was behind.
    inbox: Vec<u8>,
    fin: bool,
}

pub(crate) struct Subscriber {
    pub(crate) up: bool,
    pub(crate) disk: Disk,
    /// Counts the starts: work begun in an earlier life is nobody's any more.
    life: u64,
    connection: Option<u64>,
    delivery: Delivery,
    reception: Option<Reception>,
    asked: BTreeMap<u64, Asked>,
    served: BTreeMap<u64, MessageReader>,
    /// On whose behalf the revision that is here was received.
    firing: Option<FiringId>,
    wake_at: Option<Duration>,
}

impl Subscriber {
    pub(crate) fn new() -> Self {
        Self {
            up: false,
            disk: Disk::default(),
            life: 0,
            connection: None,
            delivery: Delivery::new(Floor::NONE, None, LIMITS),
            reception: None,
            asked: BTreeMap::new(),
            served: BTreeMap::new(),
            firing: None,
            wake_at: None,
        }
    }

    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    pub(crate) fn start(&mut self, env: &mut Env) {
        self.up = true;
        self.life += 1;
        let verified = self.disk.packages.values().map(|(revision, _)| *revision).max();
        let mut floor = self.disk.floor.unwrap_or(Floor::NONE);
        if let Some(revision) = verified {
            // The crash may have come between the rename of the package and the raising of the floor.
            floor = floor.raised_to(Floor { revision, ..Floor::NONE });
            self.disk.floor = Some(floor);
        }
        self.delivery = Delivery::new(floor, verified, LIMITS);
        if let Some(revision) = verified.filter(|_| verified > self.disk.extracted) {
            self.extract(revision, env);
        }
    }

    pub(crate) fn crash(&mut self, env: &mut Env) {
        self.up = false;
        self.connection = None;
        self.reception = None;
        self.asked.clear();
        self.served.clear();
        self.wake_at = None;
        env.seen.crashes_with_unsynced_writes += u64::from(self.disk.has_unsynced_writes());
        self.disk.crash(&mut env.rng);
        self.judge_maps(env);
    }

    /// Safety: what the maps vouch for after a crash is really there.
    fn judge_maps(&self, env: &mut Env) {
        for (package, map) in &self.disk.maps {
            let Some(truth) = env.truth.packages.get(package).cloned() else { continue };
            let wrong = crate::reception::wrong_frame(package, &truth, map, &self.disk);
            env.truth
                .demand(wrong.is_none(), || format!("after a crash a map vouches for frame {wrong:?}, which is wrong"));
        }
    }

    pub(crate) fn wants_to_dial(&self, env: &Env) -> bool {
        self.up && self.connection.is_none() && env.connection.is_none() && env.now >= env.no_dialling_before
    }

    pub(crate) fn connected(&mut self, connection: u64, env: &mut Env) {
        self.connection = Some(connection);
        let hello = Hello {
            version: PROTOCOL_VERSION,
            node: "edge.example.com".parse().expect("a name"),
            instance: InstanceId::from_bytes([self.life as u8; 16]),
            clock: env.unix(),
            capabilities: Vec::new(),
            extensions: Vec::new(),
        };
        self.ask(&Request::Hello(hello), Purpose::Hello, env);
        if let Some(reception) = &mut self.reception {
            reception.link_up(env.now);
        }
        self.run(env);
    }

    pub(crate) fn lost(&mut self, connection: u64, env: &mut Env) {
        if self.connection != Some(connection) {
            return;
        }
        self.connection = None;
        self.asked.clear();
        self.served.clear();
        if let Some(reception) = &mut self.reception {
            reception.link_down();
        }
        self.run(env);
    }

    fn ask(&mut self, request: &Request, purpose: Purpose, env: &mut Env) -> Option<u64> {
        let connection = self.connection?;
        let stream = env.number();
        let asked = Asked {
            purpose,
            message: Some(MessageReader::new(&LIMITS)),
            blocks: BlockReader::new(&env.options.limits),
            collected: Vec::new(),
            inbox: Vec::new(),
            fin: false,
        };
        self.asked.insert(stream, asked);
        let bytes = encode_request(request, &LIMITS).expect("short");
        env.send(connection, stream, Side::Subscriber, &bytes, true);
        Some(stream)
    }

    pub(crate) fn deliver(&mut self, connection: u64, stream: u64, mut bytes: &[u8], fin: bool, env: &mut Env) {
        if self.connection != Some(connection) {
            return;
        }
        if let Some(asked) = self.asked.get_mut(&stream) {
            asked.inbox.extend_from_slice(bytes);
            asked.fin |= fin;
            self.read(stream, env);
            return self.run(env);
        }
        let reader = self.served.entry(stream).or_insert_with(|| MessageReader::new(&LIMITS));
        match reader.push(&mut bytes) {
            Ok(None) if !fin => {}
            Ok(Some(message)) => {
                self.served.remove(&stream);
                match decode_request(&message, &LIMITS) {
                    Ok(Request::Offer(offer)) => {
                        let target = FetchTarget::Envelope(offer.statement);
                        let fetch = Fetch { target, from: 0, to: LIMITS.envelope_bytes_max };
                        self.ask(&Request::Fetch(fetch), Purpose::Statement { offer_stream: stream, offer }, env);
                    }
                    Ok(Request::Unknown { kind }) => self.answer(stream, &Answer::Unsupported { kind }, env),
                    _ => self.answer(stream, &Answer::Refused(Refused::new(code::BAD_REQUEST, "no offer")), env),
                }
            }
            _ => {
                self.served.remove(&stream);
            }
        }
    }

    fn answer(&mut self, stream: u64, answer: &Answer, env: &mut Env) {
        if let Some(connection) = self.connection {
            let bytes = encode_answer(answer, &LIMITS).expect("short");
            env.send(connection, stream, Side::Subscriber, &bytes, true);
        }
    }

    /// Reads what has arrived on a stream, as far as the reception allows.
    fn read(&mut self, stream: u64, env: &mut Env) {
        let Some(mut asked) = self.asked.remove(&stream) else { return };
        if let Purpose::Reception { number } = asked.purpose {
            let Some(reception) = self.reception.as_mut().filter(|reception| reception.number == number) else {
                return;
            };
            if !reception.may_read() {
                self.asked.insert(stream, asked);
                return;
            }
        }
        let inbox = std::mem::take(&mut asked.inbox);
        match self.read_answer(stream, &mut asked, &inbox, env) {
            Progress::Goes if asked.fin && asked.inbox.is_empty() => self.broken(stream, &asked, None, env),
            Progress::Goes => {
                self.asked.insert(stream, asked);
            }
            Progress::Failed(refused) => self.broken(stream, &asked, refused, env),
            Progress::Done => {}
        }
    }

    fn read_answer(&mut self, stream: u64, asked: &mut Asked, bytes: &[u8], env: &mut Env) -> Progress {
        let mut rest = bytes;
        if let Some(mut reader) = asked.message.take() {
            match reader.push(&mut rest) {
                Ok(None) => {
                    asked.message = Some(reader);
                    return Progress::Goes;
                }
                Ok(Some(message)) => match (decode_answer(&message, &LIMITS), &asked.purpose) {
                    (Ok(Answer::Fetch(answer)), Purpose::Reception { .. }) => {
                        let fits = self.reception.as_mut().is_some_and(|reception| {
                            reception.heard(env.now);
                            reception.package.bytes == answer.total_bytes
                        });
                        if !fits {
                            return Progress::Failed(None);
                        }
                    }
                    (Ok(Answer::Fetch(_)), Purpose::Statement { .. }) => {}
                    (Ok(Answer::Hello(_)), Purpose::Hello) | (Ok(Answer::Receipts(_)), Purpose::Receipt) => {
                        return Progress::Done;
                    }
                    (Ok(Answer::Refused(refused)), _) => return Progress::Failed(Some(refused)),
                    _ => return Progress::Failed(None),
                },
                Err(_) => return Progress::Failed(None),
            }
        }
        self.read_blocks(stream, asked, rest, env)
    }

    fn read_blocks(&mut self, stream: u64, asked: &mut Asked, mut rest: &[u8], env: &mut Env) -> Progress {
        loop {
            if let Purpose::Reception { .. } = asked.purpose
                && self.reception.as_ref().is_some_and(|reception| !reception.may_read())
            {
                env.seen.pauses_for_the_disk += 1;
                asked.inbox = rest.to_vec();
                return Progress::Goes;
            }
            let event = match asked.blocks.next(&mut rest) {
                Ok(Some(event)) => event,
                Ok(None) => return Progress::Goes,
                Err(_) => return Progress::Failed(None),
            };
            match (event, &asked.purpose) {
                (BlockEvent::Error(refused), _) => return Progress::Failed(Some(refused)),
                (BlockEvent::Data(bytes), Purpose::Reception { .. }) => {
                    let Some(reception) = &mut self.reception else { return Progress::Done };
                    for (frame, bytes) in reception.data(stream, bytes, env) {
                        let work = Work::Checked { reception: reception.number, frame, bytes };
                        env.soon(1, 10, Event::Done { life: self.life, work });
                    }
                }
                (BlockEvent::Data(bytes), _) => {
                    asked.collected.extend_from_slice(bytes);
                    if asked.collected.len() as u64 > LIMITS.envelope_bytes_max {
                        return Progress::Failed(None);
                    }
                }
                (BlockEvent::Waiting, _) => {
                    if let Some(reception) = &mut self.reception {
                        reception.heard(env.now);
                    }
                }
                (BlockEvent::End, Purpose::Reception { .. }) => {
                    if let Some(reception) = &mut self.reception {
                        reception.ended(stream, env.now);
                    }
                    return Progress::Done;
                }
                (BlockEvent::End, Purpose::Statement { offer_stream, offer }) => {
                    let (offer_stream, offer) = (*offer_stream, offer.clone());
                    let envelope = std::mem::take(&mut asked.collected);
                    self.judge_offer(offer_stream, &offer, &envelope, env);
                    return Progress::Done;
                }
                (BlockEvent::End, _) => return Progress::Failed(None),
            }
        }
    }

    /// A request failed; `refused` says why, if the peer did.
    fn broken(&mut self, stream: u64, asked: &Asked, refused: Option<Refused>, env: &mut Env) {
        match &asked.purpose {
            // Without a greeting the connection is of no use: it is closed and dialled anew.
            Purpose::Hello => env.break_link(),
            Purpose::Statement { offer_stream, .. } => self.answer_later(*offer_stream, env),
            Purpose::Reception { .. } => {
                if let Some(reception) = &mut self.reception {
                    reception.failed(stream, refused, env.now);
                }
            }
            Purpose::Receipt => {}
        }
    }

    fn answer_later(&mut self, offer_stream: u64, env: &mut Env) {
        let until = env.unix().plus(Duration::from_secs(5));
        self.answer(offer_stream, &Answer::Offer(OfferAnswer::Later { until }), env);
    }

    fn judge_offer(&mut self, offer_stream: u64, offer: &Offer, envelope: &[u8], env: &mut Env) {
        let statement = open_statement(envelope).filter(|_| envelope_id(envelope) == offer.statement);
        let Some(statement) = statement else {
            return self.answer_later(offer_stream, env);
        };
        let (answer, actions) = self.delivery.offer(offer.firing, &statement, env.unix());
        env.note(|| format!("S is offered revision {} and says {answer:?}", statement.release.revision));
        if let OfferAnswer::Refused(refused) = &answer {
            env.seen.offers_below_the_floor += u64::from(refused.code() == code::BELOW_FLOOR);
            env.seen.expired_offers += u64::from(refused.code() == code::STATEMENT_EXPIRED);
        }
        if matches!(answer, OfferAnswer::Want { .. } | OfferAnswer::Current) {
            env.truth.accepted(&statement, env.unix());
        }
        self.obey(actions, env);
        if answer == OfferAnswer::Current {
            self.firing = Some(offer.firing);
            self.repeat_receipt(statement.release.revision, env);
        }
        self.answer(offer_stream, &Answer::Offer(answer), env);
    }

    fn obey(&mut self, actions: Vec<DeliveryAction>, env: &mut Env) {
        for action in actions {
            match action {
                DeliveryAction::RaiseFloor(floor) => {
                    self.disk.floor = Some(floor);
                    if env.faults && env.rng.chance(20) {
                        env.at(env.now, Event::Crash(Side::Subscriber));
                    }
                }
                DeliveryAction::Receive { firing, package } => {
                    let number = env.number();
                    self.firing = Some(firing);
                    let mut reception = Reception::new(number, firing, package, env);
                    if self.connection.is_none() {
                        reception.link_down();
                    }
                    self.reception = Some(reception);
                }
                DeliveryAction::Complete { firing, revision } => {
                    self.firing = Some(firing);
                    self.extract(revision, env);
                }
                DeliveryAction::Alarm(_) => {}
            }
        }
    }

    fn extract(&mut self, revision: Revision, env: &mut Env) {
        env.soon(10, 3000, Event::Done { life: self.life, work: Work::Extracted { revision } });
    }

    fn repeat_receipt(&mut self, revision: Revision, env: &mut Env) {
        let stage = if self.disk.extracted >= Some(revision) { Stage::Extracted } else { Stage::Verified };
        self.send_receipt(revision, None, stage, env);
    }

    fn send_receipt(&mut self, revision: Revision, package: Option<PackageId>, stage: Stage, env: &mut Env) {
        let receipt = Receipt {
            firing: self.firing,
            distribution: SITE,
            revision,
            package,
            stage,
            code: (stage == Stage::Corrupt).then(|| code::CORRUPT.to_owned()),
            detail: String::new(),
            at: env.unix(),
        };
        let envelope = seal(codec::encode("a receipt", &receipt, 4096).expect("short"));
        self.ask(&Request::Receipts(vec![envelope]), Purpose::Receipt, env);
    }

    /// Work that was given away is done.
    pub(crate) fn done(&mut self, work: Work, env: &mut Env) {
        if let Work::Extracted { revision } = work {
            if self.disk.extracted < Some(revision) {
                env.truth.was_extracted(revision);
                self.disk.extracted = Some(revision);
                env.note(|| format!("S has extracted revision {revision}"));
            }
            self.send_receipt(revision, None, Stage::Extracted, env);
        } else {
            self.disk.done(&work);
            if let Some(reception) = &mut self.reception {
                reception.done(work, env);
            }
        }
        self.run(env);
    }

    pub(crate) fn wake(&mut self, env: &mut Env) {
        self.wake_at = None;
        self.run(env);
    }

    /// Does what the reception asks for, until it has nothing more to say.
    fn run(&mut self, env: &mut Env) {
        loop {
            let waiting: Vec<u64> =
                self.asked.iter().filter(|(_, asked)| !asked.inbox.is_empty()).map(|(stream, _)| *stream).collect();
            for stream in waiting {
                self.read(stream, env);
            }
            let Some(reception) = &mut self.reception else { break };
            match reception.step(&mut self.disk, self.life, env) {
                Step::Nothing => break,
                Step::Again => {}
                Step::Fetch { fetch, from, to } => {
                    let target = FetchTarget::Package(reception.package.id);
                    let purpose = Purpose::Reception { number: reception.number };
                    let request = Request::Fetch(Fetch { target, from, to });
                    if let Some(stream) = self.ask(&request, purpose, env)
                        && let Some(reception) = &mut self.reception
                    {
                        reception.opened(stream, fetch);
                    }
                }
                Step::Cancel { stream } => {
                    self.asked.remove(&stream);
                }
                Step::Ended(end) => self.reception_ended(end, env),
            }
        }
        self.schedule_wake(env);
    }

    fn reception_ended(&mut self, end: Result<Revision, GiveUp>, env: &mut Env) {
        let Some(reception) = self.reception.take() else { return };
        let number = reception.number;
        self.asked.retain(|_, asked| !matches!(asked.purpose, Purpose::Reception { number: other } if other == number));
        let package = reception.package;
        // What was given to the disk is waited for before anything else happens to the files.
        self.disk.drain(package.id);
        env.note(|| format!("S ends the reception: {end:?}"));
        self.firing = Some(reception.firing);
        env.seen.silences += u64::from(end == Err(GiveUp::Silence));
        env.seen.corrupt_packages += u64::from(matches!(end, Err(GiveUp::Corrupt { .. })));
        let end = match end {
            Ok(revision) => {
                self.send_receipt(revision, Some(package.id), Stage::Verified, env);
                DeliveryEnd::Verified
            }
            Err(GiveUp::Corrupt { .. }) => {
                self.disk.parts.remove(&package.id);
                self.disk.maps.remove(&package.id);
                let revision = self.delivery.have().receiving.unwrap_or(Revision::from_number(0));
                self.send_receipt(revision, Some(package.id), Stage::Corrupt, env);
                DeliveryEnd::Corrupt
            }
            Err(_) => DeliveryEnd::Stopped,
        };
        let actions = self.delivery.ended(&package.id, end, env.unix());
        self.obey(actions, env);
    }

    fn schedule_wake(&mut self, env: &mut Env) {
        let Some(at) = self.reception.as_ref().and_then(|reception| reception.next_wakeup(env.now)) else { return };
        let at = at.max(env.now + Duration::from_millis(1));
        if self.wake_at.is_none_or(|planned| at < planned) {
            self.wake_at = Some(at);
            env.at(at, Event::Wake(Side::Subscriber));
        }
    }
}

enum Progress {
    Goes,
    Done,
    Failed(Option<Refused>),
}
