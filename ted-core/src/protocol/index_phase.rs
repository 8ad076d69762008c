//! Fetching a package's tail, root, table and catalog: how often, and when to give up. What the bytes mean is the
//! package reader's business.

use std::time::Duration;

use crate::protocol::patience::Patience;
use crate::protocol::{FetchFailure, GiveUp, ReceiverOptions, Refused};

/// What to do next about a package's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexAction {
    /// Start a new attempt: fetch what the package reader asks for, from its first step on.
    Attempt,
    /// Stop. No action follows.
    GiveUp(GiveUp),
}

/// The attempts at one package's index. `now` is a monotonic time since any fixed moment.
#[derive(Debug, Clone)]
pub struct IndexPhase {
    patience: Patience,
    failures_max: u32,
    bad: u32,
    attempting: bool,
    refused: Option<Refused>,
    ended: bool,
}

impl IndexPhase {
    /// Attempts that begin now, over a connection that is up.
    #[must_use]
    pub fn new(options: &ReceiverOptions, now: Duration) -> Self {
        Self {
            patience: Patience::new(options.silence, now),
            failures_max: options.limits.index_failures_max,
            bad: 0,
            attempting: false,
            refused: None,
            ended: false,
        }
    }

    /// The connection is there again.
    pub fn link_up(&mut self, now: Duration) {
        self.patience.link_up(now);
    }

    /// The connection is lost, and the attempt with it.
    pub fn link_down(&mut self) {
        self.patience.link_down();
        self.attempting = false;
    }

    /// Bytes came, or the peer said that it waits itself.
    pub fn heard(&mut self, now: Duration) {
        self.patience.heard(now);
    }

    /// The attempt failed on the way.
    pub fn failed(&mut self, failure: FetchFailure, now: Duration) {
        self.attempting = false;
        match failure {
            FetchFailure::Broken => self.patience.failed(now),
            FetchFailure::Refused(refused) if refused.is_retryable() && !refused.waits_for_offer() => {
                self.patience.failed(now)
            }
            FetchFailure::Refused(refused) => self.refused = Some(refused),
        }
    }

    /// The bytes came, and are not what the package's id, hashes or structure demand.
    pub fn bad(&mut self, now: Duration) {
        self.attempting = false;
        self.bad = self.bad.saturating_add(1);
        self.patience.failed(now);
    }

    /// The next thing to do; `None` until something happens or [`IndexPhase::next_wakeup`] comes.
    pub fn poll(&mut self, now: Duration) -> Option<IndexAction> {
        if self.ended {
            return None;
        }
        let over = if let Some(refused) = self.refused.take() {
            Some(GiveUp::Refused(refused))
        } else if self.bad >= self.failures_max {
            Some(GiveUp::Corrupt { frame: None })
        } else if self.patience.is_exhausted(now) {
            Some(GiveUp::Silence)
        } else {
            None
        };
        if let Some(cause) = over {
            self.ended = true;
            return Some(IndexAction::GiveUp(cause));
        }
        if self.attempting || !self.patience.may_ask(now) {
            return None;
        }
        self.attempting = true;
        Some(IndexAction::Attempt)
    }

    /// When [`IndexPhase::poll`] has something to say even if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self, now: Duration) -> Option<Duration> {
        if self.ended { None } else { self.patience.deadline(!self.attempting, now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::code;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn phase() -> IndexPhase {
        let mut phase = IndexPhase::new(&ReceiverOptions::default(), seconds(0));
        assert_eq!(phase.poll(seconds(0)), Some(IndexAction::Attempt));
        assert_eq!(phase.poll(seconds(0)), None, "one attempt at a time");
        phase
    }

    #[test]
    fn a_broken_attempt_is_repeated_after_a_pause_and_on_reconnection_at_once() {
        let mut phase = phase();
        phase.failed(FetchFailure::Broken, seconds(1));
        assert_eq!(phase.poll(seconds(1)), None);
        let wakeup = phase.next_wakeup(seconds(1)).expect("linked");
        assert_eq!(phase.poll(wakeup), Some(IndexAction::Attempt));
        phase.link_down();
        assert_eq!(phase.poll(seconds(2)), None);
        phase.link_up(seconds(3));
        assert_eq!(phase.poll(seconds(3)), Some(IndexAction::Attempt));
    }

    #[test]
    fn three_bad_indexes_are_corrupt() {
        let mut phase = phase();
        for round in 1..3 {
            phase.bad(seconds(round * 60));
            assert_eq!(phase.poll(seconds(round * 60 + 30)), Some(IndexAction::Attempt));
        }
        phase.bad(seconds(200));
        assert_eq!(phase.poll(seconds(200)), Some(IndexAction::GiveUp(GiveUp::Corrupt { frame: None })));
        assert_eq!(phase.poll(seconds(200)), None);
    }

    #[test]
    fn a_refusal_ends_it_and_a_busy_peer_does_not() {
        let mut busy = phase();
        busy.failed(FetchFailure::Refused(Refused::new(code::BUSY, "")), seconds(1));
        assert_eq!(busy.poll(seconds(2)), Some(IndexAction::Attempt));
        let mut refused = phase();
        let reason = Refused::new(code::NOT_ENTITLED, "not in your Channels");
        refused.failed(FetchFailure::Refused(reason.clone()), seconds(1));
        assert_eq!(refused.poll(seconds(1)), Some(IndexAction::GiveUp(GiveUp::Refused(reason))));
    }

    #[test]
    fn silence_ends_it_however_often_it_is_tried() {
        let mut phase = phase();
        for second in 1..300 {
            phase.failed(FetchFailure::Broken, seconds(second));
            assert!(!matches!(phase.poll(seconds(second)), Some(IndexAction::GiveUp(_))));
        }
        assert_eq!(phase.poll(seconds(300)), Some(IndexAction::GiveUp(GiveUp::Silence)));
    }
}
