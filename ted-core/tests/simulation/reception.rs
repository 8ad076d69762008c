//! One package on its way to the Subscriber's disk: the driver of `IndexPhase` and `Receiver`.

use std::collections::BTreeMap;
use std::time::Duration;

use ted_core::id::{FiringId, PackageId, Revision};
use ted_core::package::{TableRow, check_frame};
use ted_core::protocol::{
    Action, FetchFailure, FetchNumber, FrameBuffers, FrameLayout, FrameMap, GiveUp, IndexAction, IndexPhase, Receiver,
    Refused,
};
use ted_core::security::PackageRef;

use crate::bundle::{INDEX_BYTES_MAX, Index};
use crate::disk::Disk;
use crate::env::{Env, Event, Side};
use crate::work::Work;

enum Phase {
    Index { phase: IndexPhase, collected: Vec<u8>, complete: bool },
    Body(Box<Body>),
}

struct Body {
    receiver: Receiver,
    index: Index,
    buffers: FrameBuffers,
    /// Verified frames until they are written.
    verified: BTreeMap<u64, Vec<u8>>,
    fetches: BTreeMap<u64, FetchNumber>,
    /// Bytes between network and disk, counted apart from the receiver.
    held: u64,
    rows: Vec<TableRow>,
}

pub(crate) struct Reception {
    pub(crate) number: u64,
    pub(crate) firing: FiringId,
    pub(crate) package: PackageRef,
    phase: Phase,
}

/// What the node does for its reception.
pub(crate) enum Step {
    Nothing,
    Again,
    Fetch { fetch: Option<FetchNumber>, from: u64, to: u64 },
    Cancel { stream: u64 },
    Ended(Result<Revision, GiveUp>),
}

impl Reception {
    pub(crate) fn new(number: u64, firing: FiringId, package: PackageRef, env: &Env) -> Self {
        let phase = IndexPhase::new(&env.options, env.now);
        Self { number, firing, package, phase: Phase::Index { phase, collected: Vec::new(), complete: false } }
    }

    pub(crate) fn may_read(&self) -> bool {
        match &self.phase {
            Phase::Index { .. } => true,
            Phase::Body(body) => body.receiver.may_read(),
        }
    }

    pub(crate) fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        match &self.phase {
            Phase::Index { phase, .. } => phase.next_wakeup(now),
            Phase::Body(body) => body.receiver.next_wakeup(now),
        }
    }

    pub(crate) fn link_up(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Index { phase, .. } => phase.link_up(now),
            Phase::Body(body) => body.receiver.link_up(now),
        }
    }

    pub(crate) fn link_down(&mut self) {
        match &mut self.phase {
            Phase::Index { phase, .. } => phase.link_down(),
            Phase::Body(body) => {
                body.fetches.clear();
                body.receiver.link_down();
            }
        }
    }

    pub(crate) fn heard(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Index { phase, .. } => phase.heard(now),
            Phase::Body(body) => body.receiver.heard(now),
        }
    }

    pub(crate) fn opened(&mut self, stream: u64, fetch: Option<FetchNumber>) {
        if let (Phase::Body(body), Some(fetch)) = (&mut self.phase, fetch) {
            body.fetches.insert(stream, fetch);
        }
    }

    /// Bytes of a data block came; gives the frames that are complete with them.
    pub(crate) fn data(&mut self, stream: u64, bytes: &[u8], env: &mut Env) -> Vec<(u64, Vec<u8>)> {
        match &mut self.phase {
            Phase::Index { phase, collected, .. } => {
                phase.heard(env.now);
                collected.extend_from_slice(bytes);
                Vec::new()
            }
            Phase::Body(body) => {
                let Some(fetch) = body.fetches.get(&stream) else { return Vec::new() };
                let cuts = body.receiver.received(*fetch, bytes.len(), env.now);
                body.held += cuts.iter().map(|cut| (cut.to - cut.from) as u64).sum::<u64>();
                // The bound, and a piece that came when it was not reached yet.
                let longest = 250 * (env.options.limits.fetches_max as u64 + 1);
                let bound = env.options.limits.receive_buffer_bytes.max(longest) + bytes.len() as u64;
                env.truth.demand(body.held <= bound, || format!("{} bytes are held in memory", body.held));
                body.buffers.append(&body.index.layout, &cuts, bytes)
            }
        }
    }

    pub(crate) fn ended(&mut self, stream: u64, now: Duration) {
        match &mut self.phase {
            Phase::Index { complete, .. } => *complete = true,
            Phase::Body(body) => {
                if let Some(fetch) = body.fetches.remove(&stream) {
                    body.receiver.fetch_ended(fetch, now);
                }
            }
        }
    }

    pub(crate) fn failed(&mut self, stream: u64, refused: Option<Refused>, now: Duration) {
        let failure = refused.map_or(FetchFailure::Broken, FetchFailure::Refused);
        match &mut self.phase {
            Phase::Index { phase, .. } => phase.failed(failure, now),
            Phase::Body(body) => {
                if let Some(fetch) = body.fetches.remove(&stream) {
                    body.receiver.fetch_failed(fetch, failure, now);
                }
            }
        }
    }

    /// Work is done; what an earlier reception gave away is not heeded.
    pub(crate) fn done(&mut self, work: Work, env: &mut Env) {
        let (ours, now) = (self.number, env.now);
        let Phase::Body(body) = &mut self.phase else { return };
        match work {
            Work::Checked { reception, frame, bytes } if reception == ours => {
                if check_frame(&body.rows[frame as usize], &bytes).is_ok() {
                    body.verified.insert(frame, bytes);
                    body.receiver.frame_good(frame);
                } else {
                    env.note(|| format!("S finds frame {frame} bad"));
                    env.seen.bad_frames += 1;
                    body.held -= bytes.len() as u64;
                    body.receiver.frame_bad(frame, now);
                }
            }
            Work::Written { reception, frame, .. } if reception == ours => {
                body.held -= body.index.layout.bytes_of(frame);
                body.receiver.written(frame, now);
            }
            Work::Synced { reception, .. } if reception == ours => body.receiver.synced(),
            Work::MapWritten { reception, .. } if reception == ours => body.receiver.map_written(),
            _ => {}
        }
    }

    /// One thing that is to be done now.
    pub(crate) fn step(&mut self, disk: &mut Disk, life: u64, env: &mut Env) -> Step {
        match &mut self.phase {
            Phase::Index { complete: true, .. } => self.judge_index(disk, env),
            Phase::Index { phase, collected, .. } => match phase.poll(env.now) {
                None => Step::Nothing,
                Some(IndexAction::GiveUp(cause)) => Step::Ended(Err(cause)),
                Some(IndexAction::Attempt) => {
                    collected.clear();
                    let from = self.package.bytes.saturating_sub(INDEX_BYTES_MAX);
                    Step::Fetch { fetch: None, from, to: self.package.bytes }
                }
            },
            Phase::Body(_) => self.step_body(disk, life, env),
        }
    }

    fn judge_index(&mut self, disk: &mut Disk, env: &mut Env) -> Step {
        let Phase::Index { phase, collected, complete } = &mut self.phase else { return Step::Nothing };
        *complete = false;
        let Some(index) = Index::read(&self.package.id, self.package.bytes, collected) else {
            env.note(|| "S finds a bad index".to_owned());
            phase.bad(env.now);
            return Step::Again;
        };
        let limits = &env.options.limits;
        let frames = index.layout.frames();
        let stored = disk.maps.get(&self.package.id).and_then(|bytes| FrameMap::decode(bytes, limits).ok());
        let map = stored
            .filter(|map| map.is_of(&self.package.id, self.package.bytes, frames))
            .unwrap_or_else(|| FrameMap::empty(self.package.id, self.package.bytes, frames, limits).expect("few"));
        env.note(|| format!("S receives {} frames, {} are here", frames, map.present()));
        env.seen.resumed_receptions += u64::from(map.present() > 0);
        if env.faults && env.rng.chance(300) {
            // Whatever else happens: the power goes while this is received.
            env.soon(0, 4000, Event::Crash(Side::Subscriber));
        }
        let receiver = Receiver::new(index.layout.clone(), map, &env.options, env.now).expect("the map fits");
        self.phase = Phase::Body(Box::new(Body {
            receiver,
            rows: index.rows.clone(),
            index,
            buffers: FrameBuffers::default(),
            verified: BTreeMap::new(),
            fetches: BTreeMap::new(),
            held: 0,
        }));
        Step::Again
    }

    fn step_body(&mut self, disk: &mut Disk, life: u64, env: &mut Env) -> Step {
        let (number, package) = (self.number, self.package.id);
        let Phase::Body(body) = &mut self.phase else { return Step::Nothing };
        let work = match body.receiver.poll(env.now) {
            None => return Step::Nothing,
            Some(Action::GiveUp(cause)) => return Step::Ended(Err(cause)),
            Some(Action::Finish) => return Step::Ended(Ok(finish(&package, body, disk, env))),
            Some(Action::Fetch { fetch, from, to }) => {
                let begins = (0..body.index.layout.frames()).any(|frame| body.index.layout.range(frame).start == from);
                env.seen.resumed_frames_in_memory += u64::from(!begins);
                judge_economy(&package, &body.index.layout, from, to, disk, env);
                return Step::Fetch { fetch: Some(fetch), from, to };
            }
            Some(Action::Cancel { fetch }) => {
                let stream = body.fetches.iter().find(|(_, open)| **open == fetch).map(|(stream, _)| *stream);
                return stream.map_or(Step::Again, |stream| Step::Cancel { stream });
            }
            Some(Action::Write { frame, offset }) => {
                let bytes = body.verified.remove(&frame).expect("verified and not written yet");
                let right = truth_of(&package, offset, bytes.len(), env) == bytes;
                env.truth.demand(right, || format!("frame {frame} is written, and its bytes are wrong"));
                let write = disk.begin_write(package, offset, bytes);
                Work::Written { reception: number, package, frame, write }
            }
            Some(Action::SyncData) => Work::Synced { reception: number, package, covered: disk.begin_sync(package) },
            Some(Action::WriteMap(map)) => {
                disk.begin_map(package, map.encode());
                Work::MapWritten { reception: number, package }
            }
        };
        let slowest = if env.rng.chance(50) { 2000 } else { 40 };
        env.soon(1, slowest, Event::Done { life, work });
        Step::Again
    }
}

fn truth_of(package: &PackageId, offset: u64, bytes: usize, env: &Env) -> Vec<u8> {
    let truth = env.truth.packages.get(package).map(Vec::as_slice).unwrap_or_default();
    truth.get(offset as usize..offset as usize + bytes).unwrap_or_default().to_vec()
}

/// All frames are on disk: adds the index, syncs, renames, and from then on counts the revision as verified.
fn finish(package: &PackageId, body: &Body, disk: &mut Disk, env: &mut Env) -> Revision {
    disk.sync_everything(*package);
    let part = disk.parts.remove(package).unwrap_or_default();
    let mut bytes = part.durable(0..body.index.layout.total_bytes()).to_vec();
    bytes.extend_from_slice(&body.index.bytes);
    env.truth.verified(package, body.index.revision, &bytes);
    disk.packages.insert(*package, (body.index.revision, bytes));
    disk.maps.remove(package);
    body.index.revision
}

/// What the durable map vouches for is never fetched again.
fn judge_economy(package: &PackageId, layout: &FrameLayout, from: u64, to: u64, disk: &Disk, env: &mut Env) {
    let map = disk.maps.get(package).and_then(|bytes| FrameMap::decode(bytes, &env.options.limits).ok());
    let overlaps = |frame: &u64| {
        let range = layout.range(*frame);
        range.start < to && from < range.end
    };
    let again = map.and_then(|map| (0..map.frames()).filter(overlaps).find(|frame| map.has(*frame)));
    env.truth.demand(again.is_none(), || format!("frame {again:?} is fetched again, and the map vouches for it"));
}

/// The first frame for which a stored map vouches and whose bytes on disk are not the true ones.
pub(crate) fn wrong_frame(package: &PackageId, truth: &[u8], map: &[u8], disk: &Disk) -> Option<u64> {
    let index = Index::read(package, truth.len() as u64, truth)?;
    let map = FrameMap::decode(map, &ted_core::limits::Limits::DEFAULT).expect("maps are replaced atomically");
    (0..map.frames()).filter(|frame| map.has(*frame)).find(|frame| {
        let range = index.layout.range(*frame);
        let part = disk.parts.get(package);
        part.is_none_or(|part| part.durable(range.clone()) != &truth[range.start as usize..range.end as usize])
    })
}
