//! Serving packages: the same at the Distributor and at parents, of what is complete and of what still comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use ted_core::id::PackageId;
use ted_core::protocol::{Fetch, FetchTarget, Refused, SendStep, Sending};

use crate::env::{Env, Event};
use crate::message::{Block, Message, Reply};
use crate::topology::NodeId;

struct Stream {
    connection: u64,
    child: NodeId,
    package: PackageId,
    sending: Sending,
    at: u64,
    stalled: bool,
    /// Which wake-up is the one that counts.
    turn: u64,
}

/// A sender that waits says so this often.
const WAITING_SECONDS: u64 = 5;

/// What is asked for, as a server finds it.
pub(crate) enum Found {
    /// The bytes before this offset can be read.
    Available { to: u64, complete: bool },
    /// It will come, or it would: nobody knows its bytes yet.
    Coming,
    /// Nothing more comes.
    Gone(Refused),
}

/// The holder of packages on whose behalf is served.
pub(crate) trait Holder {
    fn find(&self, package: &PackageId, at: u64) -> Found;

    /// Bytes that are available; an error sets the package aside.
    fn read(&mut self, package: &PackageId, from: u64, to: u64, env: &mut Env) -> Result<Vec<u8>, Refused>;
}

#[derive(Default)]
pub(crate) struct Server {
    streams: BTreeMap<u64, Stream>,
}

/// One `Fetch` of a child.
pub(crate) struct Wanted {
    pub(crate) connection: u64,
    pub(crate) stream: u64,
    pub(crate) child: NodeId,
    pub(crate) package: PackageId,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Server {
    /// Begins to serve; whether the child may have it was judged.
    pub(crate) fn open(&mut self, node: NodeId, wanted: &Wanted, total_bytes: u64, env: &mut Env) {
        let Wanted { connection, stream, child, package, from, to } = *wanted;
        let fetch = Fetch { target: FetchTarget::Package(package), from, to };
        let sending = Sending::new(&fetch, total_bytes, &env.options.limits);
        let at = from.min(total_bytes);
        let turn = env.serve_soon(node, stream);
        self.streams.insert(stream, Stream { connection, child, package, sending, at, stalled: false, turn });
        env.send(connection, node, Message::reply(stream, Reply::Fetch { total_bytes }));
    }

    pub(crate) fn lost(&mut self, connection: u64) {
        self.streams.retain(|_, stream| stream.connection != connection);
    }

    pub(crate) fn reads(&self, package: &PackageId) -> bool {
        self.streams.values().any(|stream| stream.package == *package)
    }

    /// There is more of a package, or no more of it: those who wait hear of it.
    pub(crate) fn stir(&mut self, node: NodeId, package: &PackageId, env: &mut Env) {
        for (number, stream) in &mut self.streams {
            if stream.package == *package && std::mem::take(&mut stream.stalled) {
                stream.turn = env.serve_soon(node, *number);
            }
        }
    }

    /// No more of a package comes, and why.
    pub(crate) fn fail(&mut self, node: NodeId, package: &PackageId, refused: &Refused, env: &mut Env) {
        let of_package = |(_, stream): &(&u64, &Stream)| stream.package == *package;
        let numbers: Vec<u64> = self.streams.iter().filter(of_package).map(|(number, _)| *number).collect();
        for number in numbers {
            self.end(node, number, Block::Error(refused.clone()), env);
        }
    }

    /// Sends one block.
    pub(crate) fn serve(&mut self, node: NodeId, (number, turn): (u64, u64), holder: &mut impl Holder, env: &mut Env) {
        let Some(stream) = self.streams.get_mut(&number).filter(|stream| stream.turn == turn) else { return };
        let (available, complete) = match holder.find(&stream.package, stream.at) {
            Found::Available { to, complete } => (to, complete),
            Found::Coming => (stream.at, false),
            Found::Gone(refused) => return self.end(node, number, Block::Error(refused), env),
        };
        let block = match stream.sending.next(available) {
            SendStep::Waiting => {
                stream.stalled = true;
                env.seen.waiting_blocks += 1;
                Block::Waiting
            }
            SendStep::End => return self.end(node, number, Block::End, env),
            SendStep::Data { from, to } => {
                stream.at = to;
                match holder.read(&stream.package, from, to, env) {
                    Ok(bytes) => Block::Data(pass(node, stream, (from, complete), bytes, env)),
                    Err(refused) => return self.end(node, number, Block::Error(refused), env),
                }
            }
        };
        let connection = stream.connection;
        stream.turn = if stream.stalled {
            let turn = env.number();
            let when = env.now + Duration::from_secs(WAITING_SECONDS);
            env.at(when, Event::Serve { node, stream: number, turn });
            turn
        } else {
            env.serve_soon(node, number)
        };
        env.send(connection, node, Message::block(number, block));
    }

    fn end(&mut self, node: NodeId, number: u64, block: Block, env: &mut Env) {
        if let Some(stream) = self.streams.remove(&number) {
            env.send(stream.connection, node, Message::block(number, block));
        }
    }
}

/// What leaves a node is judged here, before the way spoils it.
fn pass(node: NodeId, stream: &Stream, (from, complete): (u64, bool), mut bytes: Vec<u8>, env: &mut Env) -> Vec<u8> {
    let (child, package) = (stream.child, stream.package);
    let right = env.is_true(&package, from, &bytes);
    env.demand(right, || format!("{node} passes on bytes from {from} that are wrong, to {child}"));
    let distribution = env.truth.packages[&package].distribution;
    let may = env.topology.may_have(child, &distribution);
    env.demand(may, || format!("{node} passes on to {child} what that is not entitled to"));
    env.truth.was_sent(child, package, bytes.len() as u64);
    env.seen.frames_passed_on_before_the_end += u64::from(!complete);
    // A hostile wire, or a node that lies: the transport delivers it faithfully.
    let damage = env.damage;
    if env.faults && env.rng.chance(damage) {
        let at = env.rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << env.rng.below(8);
    }
    bytes
}
