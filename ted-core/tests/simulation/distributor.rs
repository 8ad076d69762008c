//! The Distributor's node: builds revisions, fires, offers, serves, counts receipts; and, while faults are on, lies.

use std::collections::BTreeMap;

use ted_core::codec;
use ted_core::id::{EnvelopeId, FiringId, PackageId, Revision, UnixMillis};
use ted_core::limits::Limits;
use ted_core::model::Priority;
use ted_core::protocol::{
    Answer, Cause, Fetch, FetchAnswer, FetchTarget, Firing, FiringStart, FiringTarget, Hello, MessageReader, Offer,
    OfferAnswer, Outcome, PROTOCOL_VERSION, ReceiptsAnswer, Refused, Request, SendStep, Sending, Statement, Until,
    code, data_header, decode_answer, decode_request, encode_answer, encode_request, end_block, error_block,
    waiting_block,
};
use ted_core::security::{Carried, PackageRef, Receipt, ReleaseStatement};

use crate::bundle::Bundle;
use crate::env::{Env, Event, SITE, SUBSCRIBER, Side, envelope_id};
use crate::records::Records;
use crate::sealed::{seal, unseal};

const LIMITS: Limits = Limits::DEFAULT;
const STATEMENT_LIFE_SECONDS: u64 = 100;

#[derive(Default)]
pub(crate) struct Distributor {
    pub(crate) up: bool,
    // On disk.
    packages: BTreeMap<PackageId, Vec<u8>>,
    envelopes: BTreeMap<EnvelopeId, Vec<u8>>,
    /// Every statement ever made, the newest last.
    statements: Vec<EnvelopeId>,
    newest: Option<(Revision, PackageRef)>,
    persisted: Option<Records>,
    // In memory.
    firing: Option<Firing>,
    connection: Option<u64>,
    served: BTreeMap<u64, MessageReader>,
    asked: BTreeMap<u64, MessageReader>,
}

impl Distributor {
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.firing.as_ref().map(Firing::outcome)
    }

    pub(crate) fn start(&mut self, env: &Env) {
        self.up = true;
        self.firing = self.persisted.as_ref().map(Records::restored);
        env.note(|| format!("D starts, {:?}", self.outcome()));
    }

    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.firing = None;
        self.forget_connection();
    }

    fn forget_connection(&mut self) {
        self.connection = None;
        self.served.clear();
        self.asked.clear();
    }

    pub(crate) fn release(&mut self, env: &mut Env) {
        let revision = Revision::after(self.newest.map(|(revision, _)| revision), env.unix());
        let bundle = Bundle::make(revision, &mut env.rng);
        let bytes = bundle.bytes.len() as u64;
        env.note(|| format!("D releases revision {revision}, {bytes} bytes"));
        env.truth.packages.insert(bundle.id, bundle.bytes.clone());
        env.truth.newest = Some(revision);
        self.packages.insert(bundle.id, bundle.bytes);
        let package = PackageRef { id: bundle.id, carried: Carried::Baseline { revision }, bytes };
        self.newest = Some((revision, package));
        self.fire(env);
    }

    /// The Channel fires: the last firing ends, the newest revision is stated anew and offered.
    pub(crate) fn fire(&mut self, env: &mut Env) {
        let Some((revision, package)) = self.newest else { return };
        let release =
            ReleaseStatement { distribution: SITE, revision, packages: vec![package], extensions: Vec::new() };
        let expires = env.unix().plus(std::time::Duration::from_secs(STATEMENT_LIFE_SECONDS));
        let envelope = seal(codec::encode("a statement", &(release, env.unix(), expires), 4096).expect("short"));
        let id = envelope_id(&envelope);
        self.envelopes.insert(id, envelope);
        self.statements.push(id);
        if let Some(firing) = &mut self.firing {
            firing.supersede(env.unix());
        }
        let target = FiringTarget { subscriber: SUBSCRIBER, distribution: SITE, revision };
        let mut number = [0; 16];
        number[..8].copy_from_slice(&env.number().to_le_bytes());
        let channel = "simulated".parse().expect("a label");
        let id = FiringId::from_bytes(number);
        let start = FiringStart {
            id,
            channel,
            priority: Priority::Medium,
            until: Until::Extracted,
            cause: Cause::NewRevision,
            closes: None,
        };
        let firing = Firing::start(start, [target], env.unix());
        self.persisted = None;
        env.note(|| format!("D fires for revision {revision}"));
        self.firing = Some(firing);
        self.persist();
        self.make_offers(env);
    }

    fn persist(&mut self) {
        if let Some(firing) = &mut self.firing {
            self.persisted.get_or_insert_default().keep(firing);
        }
    }

    fn make_offers(&mut self, env: &mut Env) {
        let (Some(connection), Some(firing)) = (self.connection, &mut self.firing) else { return };
        let now = env.unix();
        for target in firing.offers(&SUBSCRIBER, now) {
            let newest = self.statements.len() - 1;
            let rogue = env.faults && env.rng.chance(250);
            let chosen = if rogue { env.rng.below(newest as u64 + 1) as usize } else { newest };
            let offer = Offer {
                firing: firing.id(),
                distribution: target.distribution,
                priority: firing.priority(),
                statement: self.statements[chosen],
                grants: vec![],
                recipients: vec![SUBSCRIBER],
                closes: None,
            };
            firing.offered(&SUBSCRIBER, &SITE, now);
            let stream = env.number();
            self.asked.insert(stream, MessageReader::new(&LIMITS));
            let bytes = encode_request(&Request::Offer(offer), &LIMITS).expect("short");
            env.send(connection, stream, Side::Distributor, &bytes, true);
        }
        self.persist();
    }

    pub(crate) fn connected(&mut self, connection: u64, env: &mut Env) {
        self.lost(self.connection, env);
        self.connection = Some(connection);
    }

    pub(crate) fn lost(&mut self, connection: Option<u64>, env: &mut Env) {
        if connection.is_none() || self.connection != connection {
            return;
        }
        self.forget_connection();
        if let Some(firing) = &mut self.firing {
            firing.disconnected(&SUBSCRIBER, env.unix());
        }
        self.persist();
    }

    pub(crate) fn wake(&mut self, env: &mut Env) {
        env.soon(1000, 2000, Event::Wake(Side::Distributor));
        let now = env.unix();
        if let Some(firing) = &mut self.firing
            && firing.tick(env.options.silence, now)
        {
            env.note(|| "D times the Subscriber out".to_owned());
            env.seen.firings_timed_out += 1;
            self.persist();
        }
        let waits = self.firing.as_ref().is_some_and(|firing| !firing.offers(&SUBSCRIBER, now).is_empty());
        if waits && self.firing.as_ref().is_some_and(|firing| firing.counts().pending > 0) {
            self.make_offers(env);
        }
    }

    pub(crate) fn deliver(&mut self, connection: u64, stream: u64, mut bytes: &[u8], fin: bool, env: &mut Env) {
        if self.connection != Some(connection) {
            return;
        }
        if let Some(reader) = self.asked.get_mut(&stream) {
            match reader.push(&mut bytes) {
                Ok(None) if !fin => return,
                Ok(Some(message)) => {
                    if let Ok(Answer::Offer(answer)) = decode_answer(&message, &LIMITS) {
                        self.offer_answered(&answer, env);
                    }
                }
                _ => {}
            }
            self.asked.remove(&stream);
            return;
        }
        let reader = self.served.entry(stream).or_insert_with(|| MessageReader::new(&LIMITS));
        match reader.push(&mut bytes) {
            Ok(None) if !fin => {}
            Ok(Some(message)) => {
                self.served.remove(&stream);
                match decode_request(&message, &LIMITS) {
                    Ok(request) => self.serve(connection, stream, request, env),
                    Err(error) => self.refuse(connection, stream, code::BAD_REQUEST, &error.to_string(), env),
                }
            }
            _ => {
                self.served.remove(&stream);
                self.refuse(connection, stream, code::BAD_REQUEST, "no message", env);
            }
        }
    }

    fn offer_answered(&mut self, answer: &OfferAnswer, env: &mut Env) {
        env.note(|| format!("D hears {answer:?}"));
        if let Some(firing) = &mut self.firing {
            firing.answered(&SUBSCRIBER, &SITE, answer, env.unix());
        }
        self.persist();
    }

    fn refuse(&mut self, connection: u64, stream: u64, code: &str, reason: &str, env: &mut Env) {
        self.answer(connection, stream, &Answer::Refused(Refused::new(code, reason)), env);
    }

    fn answer(&mut self, connection: u64, stream: u64, answer: &Answer, env: &mut Env) {
        let bytes = encode_answer(answer, &LIMITS).expect("short");
        env.send(connection, stream, Side::Distributor, &bytes, true);
    }

    fn serve(&mut self, connection: u64, stream: u64, request: Request, env: &mut Env) {
        match request {
            Request::Hello(hello) => {
                self.answer(connection, stream, &Answer::Hello(Hello { version: PROTOCOL_VERSION, ..hello }), env);
                self.make_offers(env);
            }
            Request::Fetch(fetch) => self.serve_fetch(connection, stream, &fetch, env),
            Request::Receipts(envelopes) => self.serve_receipt(connection, stream, &envelopes[0], env),
            Request::Unknown { kind } => self.answer(connection, stream, &Answer::Unsupported { kind }, env),
            _ => self.refuse(connection, stream, code::BAD_REQUEST, "not here", env),
        }
    }

    fn serve_receipt(&mut self, connection: u64, stream: u64, envelope: &[u8], env: &mut Env) {
        let receipt = unseal(envelope).and_then(|bytes| codec::decode::<Receipt>("a receipt", bytes, 4096).ok());
        let Some(receipt) = receipt else {
            return self.refuse(connection, stream, code::BAD_REQUEST, "no receipt", env);
        };
        env.note(|| format!("D gets a receipt: revision {} {:?}", receipt.revision, receipt.stage));
        if let Some(firing) = &mut self.firing {
            firing.receipt(&SUBSCRIBER, &receipt, env.unix());
            let claimed = firing.counts().extracted == 1;
            let revision = firing.parts()[0].revision;
            let so = env.truth.extracted >= Some(revision);
            env.truth.demand(!claimed || so, || format!("revision {revision} counts as extracted and is not"));
        }
        self.persist();
        self.answer(connection, stream, &Answer::Receipts(ReceiptsAnswer::default()), env);
    }

    fn serve_fetch(&mut self, connection: u64, stream: u64, fetch: &Fetch, env: &mut Env) {
        if env.faults && env.rng.chance(20) {
            return self.refuse(connection, stream, code::BUSY, "too much to do", env);
        }
        let found = match fetch.target {
            FetchTarget::Package(id) => self.packages.get(&id),
            FetchTarget::Envelope(id) => self.envelopes.get(&id),
            FetchTarget::Grant { .. } => None,
        };
        let Some(file) = found.filter(|_| !(env.faults && env.rng.chance(4))) else {
            return self.refuse(connection, stream, code::NOT_FOUND, "nothing by that id is here", env);
        };
        if let Some(firing) = &mut self.firing {
            firing.heard(&SUBSCRIBER, &SITE, env.unix());
        }
        let total_bytes = file.len() as u64;
        let answer = encode_answer(&Answer::Fetch(FetchAnswer { total_bytes }), &LIMITS).expect("short");
        env.send(connection, stream, Side::Distributor, &answer, false);
        let mut sending = Sending::new(fetch, total_bytes, &env.options.limits);
        // A relay has less at first and more later.
        let mut available = if env.rng.chance(300) { env.rng.below(total_bytes + 1) } else { total_bytes };
        loop {
            let (block, last) = match sending.next(available) {
                SendStep::Data { from, to } if env.faults && env.rng.chance(3) => {
                    env.note(|| format!("D cannot read {from}..{to}"));
                    (error_block(&Refused::new(code::INTERNAL, "a disk failed")), true)
                }
                SendStep::Data { from, to } => {
                    let mut block = data_header((to - from) as u32).to_vec();
                    block.extend_from_slice(&file[from as usize..to as usize]);
                    // A bad disk or a hostile relay: the transport delivers it faithfully.
                    if env.faults && env.rng.chance(15) {
                        let at = 8 + env.rng.below(to - from) as usize;
                        block[at] ^= 1 << env.rng.below(8);
                    }
                    (block, false)
                }
                SendStep::Waiting => {
                    available = total_bytes;
                    (waiting_block().to_vec(), false)
                }
                SendStep::End => (end_block().to_vec(), true),
            };
            env.send(connection, stream, Side::Distributor, &block, last);
            if last {
                return;
            }
        }
    }
}

/// The statement in an envelope, if the Distributor made it.
pub(crate) fn open_statement(envelope: &[u8]) -> Option<Statement> {
    let (release, issued, expires): (ReleaseStatement, UnixMillis, UnixMillis) =
        codec::decode("a statement", unseal(envelope)?, 4096).ok()?;
    Some(Statement { release, issued, expires })
}
