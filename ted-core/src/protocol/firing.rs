//! One firing at the Distributor: what each Subscriber is to get, how far it is, and whether it is over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{DistributionId, FiringId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::Priority;
use crate::name::Label;
use crate::protocol::{OfferAnswer, Silence, code};
use crate::security::{Receipt, Stage};

/// Why a persisted firing cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FiringError {
    /// It was written by a later version.
    #[error("a firing written in form {form} by a later version")]
    LaterForm {
        /// The form's number.
        form: u16,
    },
    /// Its bytes are damaged, or there are too many.
    #[error("a firing cannot be read or written")]
    Codec(#[from] CodecError),
}

impl Coded for FiringError {
    fn code(&self) -> &'static str {
        match self {
            Self::LaterForm { .. } => "TED-1370",
            Self::Codec(_) => "TED-1371",
        }
    }
}

/// When a Subscriber's part of a firing is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// Its packages are on the Subscriber's disk.
    Received,
    /// Its target holds the revision.
    #[default]
    Extracted,
}

/// How far one Distribution is at one Subscriber, in the course of one firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// Not offered on a live connection yet.
    Pending,
    /// Offered, not answered.
    Offered,
    /// The Subscriber fetches.
    Receiving,
    /// See [`Stage::Received`].
    Received,
    /// See [`Stage::Verified`].
    Verified,
    /// See [`Stage::Extracted`].
    Extracted,
    /// See [`Stage::Corrupt`]. Not offered again before the Channel's next firing.
    Corrupt,
    /// Refused, or failed at the Subscriber. Offered again when it reconnects.
    Failed,
    /// The Subscriber was connected and silent for the connection timeout. Not offered again before the Channel's
    /// next firing.
    TimedOut,
}

impl PartState {
    /// How far the state is on the good path; `None` off it.
    fn progress(self) -> Option<u8> {
        match self {
            Self::Pending => Some(0),
            Self::Offered => Some(1),
            Self::Receiving => Some(2),
            Self::Received => Some(3),
            Self::Verified => Some(4),
            Self::Extracted => Some(5),
            Self::Corrupt | Self::Failed | Self::TimedOut => None,
        }
    }

    /// Whether it is as far as `until` says.
    #[must_use]
    pub fn is_done(self, until: Until) -> bool {
        match until {
            Until::Received => matches!(self, Self::Received | Self::Verified | Self::Extracted),
            Until::Extracted => self == Self::Extracted,
        }
    }
}

/// What one Subscriber is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiringTarget {
    /// The Subscriber's registered key.
    pub subscriber: KeyHash,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision of it, or any later one.
    pub revision: Revision,
}

/// One Distribution at one Subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The Subscriber's registered key.
    pub subscriber: KeyHash,
    /// Which Distribution.
    pub distribution: DistributionId,
    /// Which revision of it, or any later one.
    pub revision: Revision,
    /// How far it is.
    pub state: PartState,
    /// When it came into that state.
    pub since: UnixMillis,
    /// When the Subscriber was last heard about it.
    pub heard: UnixMillis,
    /// Not to be offered before then.
    pub not_before: Option<UnixMillis>,
    /// When the last receipt that counted was made, by the Subscriber's clock.
    pub receipt_at: Option<UnixMillis>,
    /// The stable code of what went wrong last.
    pub code: Option<String>,
    /// What went wrong last, for people.
    pub detail: String,
}

/// Why a firing ended before all were done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Cancelled,
    Superseded,
}

/// What became of a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every Subscriber is done.
    Complete,
    /// Nothing more comes by itself, and not every Subscriber is done.
    Partial,
    /// It goes on.
    Open,
    /// An operator ended it.
    Cancelled,
}

/// How many parts are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// See [`PartState::Pending`].
    pub pending: u64,
    /// See [`PartState::Offered`].
    pub offered: u64,
    /// See [`PartState::Receiving`].
    pub receiving: u64,
    /// See [`PartState::Received`].
    pub received: u64,
    /// See [`PartState::Verified`].
    pub verified: u64,
    /// See [`PartState::Extracted`].
    pub extracted: u64,
    /// See [`PartState::Corrupt`].
    pub corrupt: u64,
    /// See [`PartState::Failed`].
    pub failed: u64,
    /// See [`PartState::TimedOut`].
    pub timed_out: u64,
}

/// One start of a Channel's schedule or of `send`. It is persisted whenever a call says that it changed, and stays
/// open until every Subscriber is done, it is cancelled, or the Channel fires again.
///
/// `now` should come from a clock that does not jump, such as the wall clock at the process's start plus a monotonic
/// time: connection timeouts are counted with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    id: FiringId,
    channel: Label,
    priority: Priority,
    until: Until,
    started: UnixMillis,
    end: Option<(End, UnixMillis)>,
    /// Ordered by Subscriber, then Distribution; no pair comes twice.
    parts: Vec<Part>,
}

impl Firing {
    const FORM: u16 = 1;

    /// A firing that starts now.
    #[must_use]
    pub fn start(
        id: FiringId,
        channel: Label,
        priority: Priority,
        until: Until,
        targets: impl IntoIterator<Item = FiringTarget>,
        now: UnixMillis,
    ) -> Self {
        let mut parts: Vec<Part> = targets.into_iter().map(|target| Part::new(&target, now)).collect();
        parts.sort_by_key(Part::key);
        parts.dedup_by_key(|part| part.key());
        Self { id, channel, priority, until, started: now, end: None, parts }
    }

    /// The bytes that are persisted: a `u16` with the form's number, then the firing.
    ///
    /// # Errors
    /// [`FiringError::Codec`] if they are more than [`Limits::state_file_bytes_max`].
    pub fn encode(&self, limits: &Limits) -> Result<Vec<u8>, FiringError> {
        let mut bytes = Self::FORM.to_le_bytes().to_vec();
        bytes.extend(codec::encode("a firing", self, limits.state_file_bytes_max)?);
        Ok(bytes)
    }

    /// The firing that `bytes` hold, as a process finds it at its start: nobody is connected.
    ///
    /// # Errors
    /// [`FiringError`].
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, FiringError> {
        let (form, rest) = bytes.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        let form = u16::from_le_bytes(*form);
        if form > Self::FORM {
            return Err(FiringError::LaterForm { form });
        }
        let mut firing: Self = codec::decode("a firing", rest, limits.state_file_bytes_max)?;
        for part in &mut firing.parts {
            part.unlink();
        }
        firing.parts.sort_by_key(Part::key);
        Ok(firing)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> FiringId {
        self.id
    }

    /// The Channel that fired.
    #[must_use]
    pub fn channel(&self) -> &Label {
        &self.channel
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// When a Subscriber counts as done.
    #[must_use]
    pub fn until(&self) -> Until {
        self.until
    }

    /// When it started.
    #[must_use]
    pub fn started(&self) -> UnixMillis {
        self.started
    }

    /// Every Subscriber's part, ordered by Subscriber, then Distribution.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many parts are in which state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for part in &self.parts {
            let count = match part.state {
                PartState::Pending => &mut counts.pending,
                PartState::Offered => &mut counts.offered,
                PartState::Receiving => &mut counts.receiving,
                PartState::Received => &mut counts.received,
                PartState::Verified => &mut counts.verified,
                PartState::Extracted => &mut counts.extracted,
                PartState::Corrupt => &mut counts.corrupt,
                PartState::Failed => &mut counts.failed,
                PartState::TimedOut => &mut counts.timed_out,
            };
            *count += 1;
        }
        counts
    }

    /// What became of it. A partial one that was not ended may still become complete: a Subscriber that failed is
    /// offered it again when it reconnects, and late receipts count.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.parts.iter().all(|part| part.state.is_done(self.until)) {
            return Outcome::Complete;
        }
        match self.end {
            Some((End::Cancelled, _)) => Outcome::Cancelled,
            Some((End::Superseded, _)) => Outcome::Partial,
            None if self.parts.iter().all(|part| part.is_settled(self.until)) => Outcome::Partial,
            None => Outcome::Open,
        }
    }

    /// What to offer to a Subscriber that is connected now: on every new connection, and again when
    /// [`Firing::next_wakeup`] says so.
    #[must_use]
    pub fn offers(&self, subscriber: &KeyHash, now: UnixMillis) -> Vec<FiringTarget> {
        if self.end.is_some() {
            return Vec::new();
        }
        let of_subscriber = self.parts.iter().filter(|part| part.subscriber == *subscriber);
        let due = of_subscriber.filter(|part| part.is_due(self.until) && part.not_before.is_none_or(|at| at <= now));
        due.map(Part::target).collect()
    }

    /// An offer went out. Says whether the firing changed.
    pub fn offered(&mut self, subscriber: &KeyHash, distribution: &DistributionId, now: UnixMillis) -> bool {
        self.change(subscriber, distribution, now, |part| {
            part.not_before = None;
            if part.state.progress().is_none_or(|progress| progress < 2) {
                part.enter(PartState::Offered, now);
            }
        })
    }

    /// An offer was answered. Says whether the firing changed.
    pub fn answered(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        answer: &OfferAnswer,
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| match answer {
            OfferAnswer::Current => part.advance(PartState::Verified, now),
            OfferAnswer::Want { .. } => part.advance(PartState::Receiving, now),
            OfferAnswer::Later { until } => {
                part.enter(PartState::Pending, now);
                part.not_before = Some(*until);
            }
            OfferAnswer::Refused(refused) if part.state != PartState::Extracted => {
                let corrupt = refused.code() == code::CORRUPT;
                part.enter(if corrupt { PartState::Corrupt } else { PartState::Failed }, now);
                part.code = Some(refused.code().to_owned());
                part.detail = refused.reason().to_owned();
            }
            // It passes the offer on; how far the others are, their receipts say.
            OfferAnswer::Refused(_) | OfferAnswer::Relays => {}
        })
    }

    /// It cannot be offered to this Subscriber, for a reason of its own. Says whether the firing changed.
    pub fn withheld(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        (code, detail): (&str, &str),
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| {
            if part.state != PartState::Extracted {
                part.enter(PartState::Failed, now);
                part.code = Some(code.to_owned());
                part.detail = detail.to_owned();
            }
        })
    }

    /// The Subscriber fetches something of this Distribution, or is sent bytes of it: it is not silent.
    pub fn heard(&mut self, subscriber: &KeyHash, distribution: &DistributionId, now: UnixMillis) {
        self.change(subscriber, distribution, now, |_| {});
    }

    /// A receipt whose signature was verified as the Subscriber's. Says whether the firing changed.
    ///
    /// Receipts may come late, twice, and in another order than they were made. What was reached stays reached;
    /// a failure counts only if it is this firing's and not older than what is known. What another firing reached with
    /// the same revision says nothing: it may have been damaged since. A Subscriber that has it says so again when it is
    /// offered.
    pub fn receipt(&mut self, subscriber: &KeyHash, receipt: &Receipt, now: UnixMillis) -> bool {
        let ours = receipt.firing == Some(self.id);
        self.change(subscriber, &receipt.distribution, now, |part| {
            let is_stale = part.receipt_at.is_some_and(|known| receipt.at < known);
            let of_another = !ours && receipt.firing.is_some() && receipt.revision == part.revision;
            if receipt.revision < part.revision || part.state == PartState::Extracted || of_another {
                return;
            }
            let reached = match receipt.stage {
                Stage::Extracted => Some(PartState::Extracted),
                Stage::Received | Stage::Verified if part.state == PartState::Failed && is_stale => return,
                Stage::Verified => Some(PartState::Verified),
                Stage::Received => Some(PartState::Received),
                Stage::Corrupt | Stage::Failed => None,
            };
            match reached {
                Some(state) => {
                    part.advance(state, now);
                    if state == PartState::Extracted {
                        // What it did there, what it found changed, and what failed beside it, such as a hook.
                        part.code.clone_from(&receipt.code);
                        part.detail.clone_from(&receipt.detail);
                    }
                }
                None if !ours || is_stale => return,
                None => {
                    let corrupt = receipt.stage == Stage::Corrupt;
                    part.enter(if corrupt { PartState::Corrupt } else { PartState::Failed }, now);
                    part.code.clone_from(&receipt.code);
                    part.detail.clone_from(&receipt.detail);
                }
            }
            part.receipt_at = part.receipt_at.max(Some(receipt.at));
        })
    }

    /// The Subscriber's last connection is gone: what was offered waits for the next one. Says whether the firing
    /// changed.
    pub fn disconnected(&mut self, subscriber: &KeyHash, now: UnixMillis) -> bool {
        let mut changed = false;
        for part in self.parts.iter_mut().filter(|part| part.subscriber == *subscriber) {
            changed |= part.unlink();
            part.heard = now;
        }
        changed
    }

    /// Ends the parts of Subscribers that were connected and silent for too long. Says whether the firing changed.
    pub fn tick(&mut self, silence: Silence, now: UnixMillis) -> bool {
        let mut changed = false;
        for part in &mut self.parts {
            let waits = matches!(part.state, PartState::Offered | PartState::Receiving);
            if waits && now.since(part.heard) >= silence.duration() {
                part.enter(PartState::TimedOut, now);
                part.code = Some(code::SILENCE.to_owned());
                part.detail = format!("silent for {} s", silence.duration().as_secs());
                changed = true;
            }
        }
        changed
    }

    /// In how long [`Firing::tick`] or [`Firing::offers`] may have something to say.
    #[must_use]
    pub fn next_wakeup(&self, silence: Silence, now: UnixMillis) -> Option<Duration> {
        if self.end.is_some() {
            return None;
        }
        let wait = |part: &Part| match part.state {
            PartState::Offered | PartState::Receiving => Some(part.heard.plus(silence.duration()).since(now)),
            PartState::Pending => part.not_before.map(|at| at.since(now)),
            _ => None,
        };
        self.parts.iter().filter_map(wait).min()
    }

    /// A Subscriber no longer belongs to the Channel: its parts are dropped. Says whether the firing changed.
    pub fn remove(&mut self, subscriber: &KeyHash) -> bool {
        let before = self.parts.len();
        self.parts.retain(|part| part.subscriber != *subscriber);
        self.parts.len() != before
    }

    /// A node was enrolled anew, with another key: what was open for the old key is open for the new one, from the
    /// beginning. Says whether the firing changed.
    pub fn replace(&mut self, before: &KeyHash, after: &KeyHash, now: UnixMillis) -> bool {
        let mut replaced = vec![];
        self.parts.retain(|part| {
            if part.subscriber == *before {
                replaced.push(FiringTarget { subscriber: *after, ..part.target() });
            }
            part.subscriber != *before
        });
        for target in &replaced {
            let part = Part::new(target, now);
            if let Err(at) = self.parts.binary_search_by_key(&part.key(), Part::key) {
                self.parts.insert(at, part);
            }
        }
        !replaced.is_empty()
    }

    /// An operator ends it: nothing more is offered. One that is over already stays as it is.
    pub fn cancel(&mut self, now: UnixMillis) {
        self.finish(End::Cancelled, now);
    }

    /// The Channel fires again, which ends this firing. One that is over already stays as it is.
    pub fn supersede(&mut self, now: UnixMillis) {
        self.finish(End::Superseded, now);
    }

    /// Whether nothing more is offered: every Subscriber is done, or it was cancelled or superseded.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some() || self.outcome() == Outcome::Complete
    }

    fn finish(&mut self, end: End, now: UnixMillis) {
        if !self.is_over() {
            self.end = Some((end, now));
        }
    }

    fn change(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        now: UnixMillis,
        change: impl FnOnce(&mut Part),
    ) -> bool {
        let Ok(at) = self.parts.binary_search_by_key(&(*subscriber, *distribution), Part::key) else {
            return false;
        };
        let part = &mut self.parts[at];
        part.heard = now;
        let before = part.clone();
        change(part);
        *part != before
    }
}

impl Part {
    fn new(target: &FiringTarget, now: UnixMillis) -> Self {
        Self {
            subscriber: target.subscriber,
            distribution: target.distribution,
            revision: target.revision,
            state: PartState::Pending,
            since: now,
            heard: now,
            not_before: None,
            receipt_at: None,
            code: None,
            detail: String::new(),
        }
    }

    fn key(&self) -> (KeyHash, DistributionId) {
        (self.subscriber, self.distribution)
    }

    fn target(&self) -> FiringTarget {
        FiringTarget { subscriber: self.subscriber, distribution: self.distribution, revision: self.revision }
    }

    /// Whether a connected Subscriber is to be offered it: also where packages arrived but the last word is missing,
    /// because its receipt may have been lost on the way.
    fn is_due(&self, until: Until) -> bool {
        !self.state.is_done(until) && !matches!(self.state, PartState::Corrupt | PartState::TimedOut)
    }

    fn is_settled(&self, until: Until) -> bool {
        self.state.is_done(until) || self.state.progress().is_none()
    }

    fn enter(&mut self, state: PartState, now: UnixMillis) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    /// Goes to `state` unless it is further already. What went wrong before is over.
    fn advance(&mut self, state: PartState, now: UnixMillis) {
        if self.state.progress() < state.progress() {
            self.enter(state, now);
            self.code = None;
            self.detail.clear();
        }
    }

    fn unlink(&mut self) -> bool {
        let waits = matches!(self.state, PartState::Offered | PartState::Receiving);
        if waits {
            self.state = PartState::Pending;
        }
        waits
    }
}

#[cfg(test)]
mod tests;
