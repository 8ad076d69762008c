//! One package on its way to a node's disk, for itself or for the children that wait for it: the driver of
//! `IndexPhase` and `Receiver`, and what can be passed on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ted_core::id::{DistributionId, PackageId, Revision};
use ted_core::package::check_frame;
use ted_core::protocol::{
    Action, FetchFailure, FetchNumber, FrameBuffers, FrameMap, GiveUp, IndexAction, IndexPhase, Receiver, Refused,
};
use ted_core::security::PackageRef;

use crate::bundle::{FOOTER_BYTES, Index};
use crate::disk::Disk;
use crate::env::{Env, Event};
use crate::topology::NodeId;
use crate::work::Work;

enum Phase {
    Index { attempts: IndexPhase, stage: Stage, collected: Vec<u8> },
    Body(Box<Body>),
}

/// What of the index is fetched: its end says where it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Footer,
    WantRows,
    Rows,
    Complete,
}

struct Body {
    receiver: Receiver,
    index: Index,
    buffers: FrameBuffers,
    /// Verified frames until they are written.
    verified: BTreeMap<u64, Vec<u8>>,
    /// Frames that can be read from the disk.
    written: BTreeSet<u64>,
    fetches: BTreeMap<u64, FetchNumber>,
}

pub(crate) struct Reception {
    pub(crate) number: u64,
    node: NodeId,
    pub(crate) distribution: DistributionId,
    pub(crate) package: PackageRef,
    /// For the node itself.
    pub(crate) own: bool,
    /// Because a child asked for it.
    pub(crate) for_children: bool,
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
    pub(crate) fn new(
        node: NodeId,
        distribution: DistributionId,
        package: PackageRef,
        own: bool,
        env: &mut Env,
    ) -> Self {
        let attempts = IndexPhase::new(&env.options, env.now);
        let phase = Phase::Index { attempts, stage: Stage::Idle, collected: Vec::new() };
        Self { number: env.number(), node, distribution, package, own, for_children: !own, phase }
    }

    pub(crate) fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        match &self.phase {
            Phase::Index { attempts, .. } => attempts.next_wakeup(now),
            Phase::Body(body) => body.receiver.next_wakeup(now),
        }
    }

    pub(crate) fn may_read(&self) -> bool {
        match &self.phase {
            Phase::Index { .. } => true,
            Phase::Body(body) => body.receiver.may_read(),
        }
    }

    /// Whether frames of it are here, and another parent might send them again.
    pub(crate) fn has_frames(&self) -> bool {
        matches!(&self.phase, Phase::Body(body) if !body.written.is_empty())
    }

    pub(crate) fn link_up(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Index { attempts, .. } => attempts.link_up(now),
            Phase::Body(body) => body.receiver.link_up(now),
        }
    }

    pub(crate) fn link_down(&mut self) {
        match &mut self.phase {
            Phase::Index { attempts, stage, .. } => {
                attempts.link_down();
                if *stage != Stage::Complete {
                    *stage = Stage::Idle;
                }
            }
            Phase::Body(body) => {
                body.fetches.clear();
                body.receiver.link_down();
            }
        }
    }

    pub(crate) fn heard(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Index { attempts, .. } => attempts.heard(now),
            Phase::Body(body) => body.receiver.heard(now),
        }
    }

    pub(crate) fn opened(&mut self, stream: u64, fetch: Option<FetchNumber>) {
        if let (Phase::Body(body), Some(fetch)) = (&mut self.phase, fetch) {
            body.fetches.insert(stream, fetch);
        }
    }

    /// Bytes of a data block came; gives the frames that are complete with them.
    pub(crate) fn data(&mut self, stream: u64, bytes: &[u8], now: Duration) -> Vec<(u64, Vec<u8>)> {
        match &mut self.phase {
            Phase::Index { attempts, collected, .. } => {
                attempts.heard(now);
                collected.extend_from_slice(bytes);
                Vec::new()
            }
            Phase::Body(body) => {
                let Some(fetch) = body.fetches.get(&stream) else { return Vec::new() };
                let cuts = body.receiver.received(*fetch, bytes.len(), now);
                body.buffers.append(&body.index.layout, &cuts, bytes)
            }
        }
    }

    pub(crate) fn ended(&mut self, stream: u64, now: Duration) {
        match &mut self.phase {
            Phase::Index { stage, .. } => {
                *stage = match *stage {
                    Stage::Footer => Stage::WantRows,
                    Stage::Rows => Stage::Complete,
                    other => other,
                }
            }
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
            Phase::Index { attempts, stage, .. } => {
                *stage = Stage::Idle;
                attempts.failed(failure, now);
            }
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
                if check_frame(&body.index.rows[frame as usize], &bytes).is_ok() {
                    body.verified.insert(frame, bytes);
                    body.receiver.frame_good(frame);
                } else {
                    env.note(|| format!("{} finds frame {frame} bad", self.node));
                    env.seen.bad_frames += 1;
                    body.receiver.frame_bad(frame, now);
                }
            }
            Work::Written { reception, frame, .. } if reception == ours => {
                body.written.insert(frame);
                body.receiver.written(frame, now);
            }
            Work::Synced { reception, .. } if reception == ours => body.receiver.synced(),
            Work::MapWritten { reception, .. } if reception == ours => body.receiver.map_written(),
            _ => {}
        }
    }

    /// The end of what can be passed on from `at` on: nothing before the index is verified, then the index and every
    /// frame that was verified and written.
    pub(crate) fn available(&self, at: u64) -> u64 {
        let Phase::Body(body) = &self.phase else { return at };
        let (layout, total) = (&body.index.layout, self.package.bytes);
        if at >= layout.total_bytes() {
            return total;
        }
        let mut frame = (0..layout.frames()).find(|frame| layout.range(*frame).end > at).unwrap_or(0);
        if !body.written.contains(&frame) {
            return at;
        }
        while body.written.contains(&(frame + 1)) {
            frame += 1;
        }
        let end = layout.range(frame).end;
        if end == layout.total_bytes() { total } else { end }
    }

    /// What was received of these bytes, all of which are available.
    pub(crate) fn read(&self, from: u64, to: u64, disk: &Disk) -> Vec<u8> {
        let Phase::Body(body) = &self.phase else { return Vec::new() };
        let total = body.index.layout.total_bytes();
        let mut bytes = Vec::new();
        if from < total {
            bytes.extend(
                disk.parts.get(&self.package.id).map(|part| part.read(from..to.min(total))).unwrap_or_default(),
            );
        }
        if to > total {
            bytes.extend_from_slice(&body.index.bytes[(from.max(total) - total) as usize..(to - total) as usize]);
        }
        bytes
    }

    /// One thing that is to be done now.
    pub(crate) fn step(&mut self, disk: &mut Disk, life: u64, env: &mut Env) -> Step {
        let total = self.package.bytes;
        match &mut self.phase {
            Phase::Index { attempts, stage: Stage::WantRows, collected, .. } => {
                let Some(length) = Index::length(collected) else {
                    self.bad_index(env.now);
                    return Step::Again;
                };
                attempts.heard(env.now);
                collected.clear();
                self.set_stage(Stage::Rows);
                Step::Fetch { fetch: None, from: total.saturating_sub(length), to: total }
            }
            Phase::Index { stage: Stage::Complete, .. } => self.judge_index(disk, env),
            Phase::Index { attempts, collected, .. } => match attempts.poll(env.now) {
                None => Step::Nothing,
                Some(IndexAction::GiveUp(cause)) => Step::Ended(Err(cause)),
                Some(IndexAction::Attempt) => {
                    collected.clear();
                    self.set_stage(Stage::Footer);
                    Step::Fetch { fetch: None, from: total.saturating_sub(FOOTER_BYTES as u64), to: total }
                }
            },
            Phase::Body(_) => self.step_body(disk, life, env),
        }
    }

    fn set_stage(&mut self, to: Stage) {
        if let Phase::Index { stage, .. } = &mut self.phase {
            *stage = to;
        }
    }

    fn bad_index(&mut self, now: Duration) {
        if let Phase::Index { attempts, stage, .. } = &mut self.phase {
            *stage = Stage::Idle;
            attempts.bad(now);
        }
    }

    fn judge_index(&mut self, disk: &mut Disk, env: &mut Env) -> Step {
        let Phase::Index { collected, .. } = &mut self.phase else { return Step::Nothing };
        let Some(index) = Index::read(&self.package.id, self.package.bytes, collected) else {
            env.note(|| format!("{} finds a bad index", self.node));
            self.bad_index(env.now);
            return Step::Again;
        };
        let (limits, frames) = (&env.options.limits, index.layout.frames());
        let stored = disk.maps.get(&self.package.id).and_then(|bytes| FrameMap::decode(bytes, limits).ok());
        let map = stored
            .filter(|map| map.is_of(&self.package.id, self.package.bytes, frames))
            .unwrap_or_else(|| FrameMap::empty(self.package.id, self.package.bytes, frames, limits).expect("few"));
        env.note(|| format!("{} receives {frames} frames, {} are here", self.node, map.present()));
        env.seen.resumed_receptions += u64::from(map.present() > 0);
        if env.faults && env.rng.chance(20) {
            env.soon(0, 4000, Event::Crash(self.node));
        }
        let written = (0..frames).filter(|frame| map.has(*frame)).collect();
        let receiver = Receiver::new(index.layout.clone(), map, &env.options, env.now).expect("the map fits");
        let (buffers, verified, fetches) = (FrameBuffers::default(), BTreeMap::new(), BTreeMap::new());
        self.phase = Phase::Body(Box::new(Body { receiver, index, buffers, verified, written, fetches }));
        Step::Again
    }

    fn step_body(&mut self, disk: &mut Disk, life: u64, env: &mut Env) -> Step {
        let (number, package) = (self.number, self.package.id);
        let Phase::Body(body) = &mut self.phase else { return Step::Nothing };
        let work = match body.receiver.poll(env.now) {
            None => return Step::Nothing,
            Some(Action::GiveUp(cause)) => return Step::Ended(Err(cause)),
            Some(Action::Finish) => return Step::Ended(Ok(finish(self.node, &package, body, disk, env))),
            Some(Action::Fetch { fetch, from, to }) => {
                judge_economy(&package, body, (from, to), disk, env);
                return Step::Fetch { fetch: Some(fetch), from, to };
            }
            Some(Action::Cancel { fetch }) => {
                let stream = body.fetches.iter().find(|(_, open)| **open == fetch).map(|(stream, _)| *stream);
                return stream.map_or(Step::Again, |stream| Step::Cancel { stream });
            }
            Some(Action::Write { frame, offset }) => {
                let bytes = body.verified.remove(&frame).expect("verified and not written yet");
                let right = env.is_true(&package, offset, &bytes);
                env.demand(right, || format!("{} writes frame {frame}, and its bytes are wrong", self.node));
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
        let (node, distribution) = (self.node, self.distribution);
        env.soon(1, slowest, Event::Done { node, life, distribution, work });
        Step::Again
    }
}

/// All frames are on disk: adds the index, syncs and renames; from then on the package counts as verified.
fn finish(node: NodeId, package: &PackageId, body: &Body, disk: &mut Disk, env: &mut Env) -> Revision {
    disk.sync_everything(*package);
    let part = disk.parts.remove(package).unwrap_or_default();
    let mut bytes = part.durable(0..body.index.layout.total_bytes()).to_vec();
    bytes.extend_from_slice(&body.index.bytes);
    env.truth.verified(node, package, &bytes);
    disk.packages.insert(*package, (body.index.revision, bytes));
    disk.maps.remove(package);
    body.index.revision
}

/// What the durable map vouches for is never fetched again, whichever parent is asked.
fn judge_economy(package: &PackageId, body: &Body, (from, to): (u64, u64), disk: &Disk, env: &mut Env) {
    let map = disk.maps.get(package).and_then(|bytes| FrameMap::decode(bytes, &env.options.limits).ok());
    let overlaps = |frame: &u64| {
        let range = body.index.layout.range(*frame);
        range.start < to && from < range.end
    };
    let again = map.and_then(|map| (0..map.frames()).filter(overlaps).find(|frame| map.has(*frame)));
    env.demand(again.is_none(), || format!("frame {again:?} is fetched again, and the map vouches for it"));
}
