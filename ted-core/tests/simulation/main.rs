//! Two nodes, a Distributor and a Subscriber, built of the pure machines alone, in a world that one seed decides:
//! clock, network (broken and stalled connections, streams that overtake each other, garbled bytes), a disk that
//! forgets and tears what was not synced, crashes of both nodes, and a Distributor that offers what is long past.
//!
//! Safety is judged at every step: nothing unverified counts as received or extracted, no map vouches for what is not
//! there, no floor is crossed. Liveness is judged apart: once faults stop, the Subscriber comes to have the newest
//! revision, and the Distributor knows it.
//!
//! `TED_SIM_SEEDS=5000` runs more seeds than the default; `TED_SIM_SEED=77` replays one and prints what happens.

#![expect(clippy::print_stdout, reason = "a failing seed says how to replay it")]

mod bundle;
#[expect(dead_code, reason = "parents read what they are still receiving, and there are none here")]
mod disk;
mod distributor;
mod env;
mod reception;
mod records;
mod rng;
mod sealed;
mod subscriber;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ted_core::protocol::Outcome;

use crate::distributor::Distributor;
use crate::env::{Env, Event, Seen, Side};
use crate::subscriber::Subscriber;

const FAULTS_SECONDS: u64 = 400;
/// After the faults: two silences, a firing every minute, and three of them in case.
const REST_SECONDS: u64 = 400;
const DEFAULT_SEEDS: u64 = 300;

struct World {
    env: Env,
    distributor: Distributor,
    subscriber: Subscriber,
}

impl World {
    fn new(seed: u64, trace: bool) -> Self {
        let mut env = Env::new(seed, trace);
        for _ in 0..env.rng.between(2, 20) {
            let at = Duration::from_secs(env.rng.below(FAULTS_SECONDS));
            env.at(at, Event::Release);
        }
        env.at(Duration::ZERO, Event::Restart(Side::Distributor));
        env.at(Duration::ZERO, Event::Restart(Side::Subscriber));
        env.at(Duration::ZERO, Event::Release);
        env.at(Duration::from_secs(1), Event::Dial);
        env.at(Duration::from_secs(1), Event::Wake(Side::Distributor));
        env.at(Duration::from_secs(60), Event::Fire);
        env.at(Duration::from_secs(FAULTS_SECONDS), Event::FaultsEnd);
        let mut world = Self { env, distributor: Distributor::default(), subscriber: Subscriber::new() };
        world.plan_faults();
        world
    }

    /// Each seed has its own mix: some worlds crash all the time, others never.
    fn plan_faults(&mut self) {
        let env = &mut self.env;
        for kind in 0..4 {
            let often = [0, 3, 15, 60][env.rng.below(4) as usize];
            for _ in 0..often {
                let event = match kind {
                    0 => Event::Crash(Side::Subscriber),
                    1 => Event::Crash(Side::Distributor),
                    2 => Event::BreakLink,
                    _ => Event::Stall,
                };
                let at = Duration::from_millis(env.rng.below(FAULTS_SECONDS * 1000));
                env.at(at, event);
            }
        }
    }

    /// Runs to the end, or to the first violation.
    fn run(mut self) -> Result<Seen, String> {
        let end = Duration::from_secs(FAULTS_SECONDS + REST_SECONDS);
        while let Some(event) = self.env.next() {
            self.handle(event);
            if let Some(violation) = self.env.truth.violation.take() {
                return Err(format!("SAFETY at {:?}: {violation}", self.env.now));
            }
            if !self.env.faults && self.is_content() {
                return Ok(self.env.seen);
            }
            if self.env.now > end {
                let (has, newest) = (self.subscriber.disk.extracted, self.env.truth.newest);
                let outcome = self.distributor.outcome();
                return Err(format!("LIVENESS: the Subscriber has {has:?} of {newest:?}, the firing is {outcome:?}"));
            }
        }
        Err("LIVENESS: nothing happens any more".to_owned())
    }

    fn is_content(&self) -> bool {
        self.subscriber.disk.extracted == self.env.truth.newest && self.distributor.outcome() == Some(Outcome::Complete)
    }

    fn handle(&mut self, event: Event) {
        let Self { env, distributor, subscriber } = self;
        match event {
            Event::Deliver { connection, stream, to, bytes, fin } => {
                if env.connection != Some(connection) {
                    return;
                }
                match to {
                    Side::Distributor if distributor.up => distributor.deliver(connection, stream, &bytes, fin, env),
                    Side::Subscriber if subscriber.up => subscriber.deliver(connection, stream, &bytes, fin, env),
                    _ => {}
                }
            }
            Event::Lost { connection, side: Side::Distributor } => distributor.lost(Some(connection), env),
            Event::Lost { connection, side: Side::Subscriber } => subscriber.lost(connection, env),
            Event::Dial => self.dial(),
            Event::Wake(Side::Distributor) => distributor.wake(env),
            Event::Wake(Side::Subscriber) if subscriber.up => subscriber.wake(env),
            Event::Done { life, work } if subscriber.up && life == subscriber.life() => subscriber.done(work, env),
            Event::Wake(_) | Event::Done { .. } => {}
            Event::Crash(side) => self.crash(side),
            Event::Restart(Side::Distributor) => distributor.start(env),
            Event::Restart(Side::Subscriber) => subscriber.start(env),
            Event::Release | Event::Fire if !distributor.up => env.soon(1000, 2000, event),
            Event::Release => distributor.release(env),
            Event::Fire => {
                if distributor.outcome() != Some(Outcome::Complete) {
                    distributor.fire(env);
                }
                env.soon(40_000, 60_000, Event::Fire);
            }
            Event::BreakLink => env.break_link(),
            Event::Stall => env.stall(),
            Event::FaultsEnd => {
                env.faults = false;
                env.note(|| "the faults end".to_owned());
            }
        }
    }

    fn dial(&mut self) {
        let Self { env, distributor, subscriber } = self;
        env.soon(300, 2000, Event::Dial);
        if !subscriber.wants_to_dial(env) || !distributor.up {
            return;
        }
        let connection = env.number();
        env.note(|| format!("S dials, connection {connection}"));
        env.connection = Some(connection);
        distributor.connected(connection, env);
        subscriber.connected(connection, env);
    }

    fn crash(&mut self, side: Side) {
        let Self { env, distributor, subscriber } = self;
        match side {
            Side::Distributor if distributor.up => distributor.crash(),
            Side::Subscriber if subscriber.up => subscriber.crash(env),
            _ => return,
        }
        env.note(|| format!("{side:?} crashes"));
        env.break_link();
        env.soon(10, 15_000, Event::Restart(side));
    }
}

fn run_seed(seed: u64, trace: bool) -> Result<Seen, String> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, trace).run()))
        .unwrap_or_else(|_| Err("PANIC, see above".to_owned()))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn demand_success(outcomes: &[(u64, Result<Seen, String>)]) {
    let mut failed = 0;
    for (seed, outcome) in outcomes {
        if let Err(what) = outcome {
            println!("seed {seed}: {what}");
            println!("  replay: TED_SIM_SEED={seed} cargo test -p ted-core --test simulation -- --nocapture");
            failed += 1;
        }
    }
    assert!(failed == 0, "{failed} of {} seeds failed", outcomes.len());
}

#[test]
fn what_is_delivered_is_right_and_arrives_in_every_world() {
    if let Some(seed) = number("TED_SIM_SEED") {
        return demand_success(&[(seed, run_seed(seed, true))]);
    }
    let seeds = number("TED_SIM_SEEDS").unwrap_or(DEFAULT_SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let outcomes = std::thread::scope(|scope| {
        let work = |worker: u64| {
            let mine = (worker..seeds).step_by(threads as usize);
            move || mine.map(|seed| (seed, run_seed(seed, false))).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..threads).map(|worker| scope.spawn(work(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught")).collect::<Vec<_>>()
    });
    demand_success(&outcomes);
    let mut seen = Seen::default();
    outcomes.iter().flat_map(|(_, outcome)| outcome).for_each(|one| seen.add(one));
    println!("{seen:#?}");
    assert!(seeds < DEFAULT_SEEDS || seen.everything(), "something never happened: {seen:#?}");
}
