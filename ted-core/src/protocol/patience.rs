//! How long a receiver bears with a peer: backing off after failures, giving up after silence.

use std::time::Duration;

use crate::error::Coded;
use crate::limits::Limits;

/// Why a connection timeout is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a connection timeout of {seconds} s, where 1 to {limit} are allowed")]
pub struct SilenceError {
    seconds: u64,
    limit: u64,
}

impl Coded for SilenceError {
    fn code(&self) -> &'static str {
        "TED-1365"
    }
}

/// The connection timeout: how long a connected peer may be silent. It counts silence, not duration, so that slow
/// links make progress; while there is no connection it does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence(Duration);

impl Silence {
    /// A timeout of this many seconds, 1 to [`Limits::silence_seconds_max`].
    ///
    /// # Errors
    /// [`SilenceError`] for any other number.
    pub fn from_seconds(seconds: u64, limits: &Limits) -> Result<Self, SilenceError> {
        if seconds == 0 || seconds > limits.silence_seconds_max {
            return Err(SilenceError { seconds, limit: limits.silence_seconds_max });
        }
        Ok(Self(Duration::from_secs(seconds)))
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl Default for Silence {
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

/// Watches one peer: whether it is connected, when it was last heard, and when it may be asked again.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    silence: Duration,
    linked: bool,
    heard: Duration,
    retry_at: Option<Duration>,
    failures_in_a_row: u32,
}

impl Patience {
    const BACKOFF_MIN: Duration = Duration::from_millis(250);
    const BACKOFF_MAX: Duration = Duration::from_secs(30);

    pub(super) fn new(silence: Silence, now: Duration) -> Self {
        Self { silence: silence.0, linked: true, heard: now, retry_at: None, failures_in_a_row: 0 }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.linked
    }

    pub(super) fn link_up(&mut self, now: Duration) {
        self.linked = true;
        self.pardon(now);
        self.retry_at = None;
        self.failures_in_a_row = 0;
    }

    pub(super) fn link_down(&mut self) {
        self.linked = false;
    }

    /// The peer did what was asked of it: the next failure is a first one again.
    pub(super) fn heard(&mut self, now: Duration) {
        self.pardon(now);
        self.failures_in_a_row = 0;
    }

    /// The silence up to now is not the peer's fault.
    pub(super) fn pardon(&mut self, now: Duration) {
        self.heard = now;
    }

    pub(super) fn failed(&mut self, now: Duration) {
        let pause = Self::BACKOFF_MIN.saturating_mul(1 << self.failures_in_a_row.min(16)).min(Self::BACKOFF_MAX);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.retry_at = Some(now.saturating_add(pause));
    }

    pub(super) fn may_ask(&self, now: Duration) -> bool {
        self.linked && self.retry_at.is_none_or(|at| now >= at)
    }

    pub(super) fn is_exhausted(&self, now: Duration) -> bool {
        self.linked && now.saturating_sub(self.heard) >= self.silence
    }

    /// When waiting must end: for the next try where one is `wanted`, or because the silence is over.
    pub(super) fn deadline(&self, wanted: bool, now: Duration) -> Option<Duration> {
        let silence = self.heard.saturating_add(self.silence);
        let retry = self.retry_at.filter(|at| wanted && *at > now).unwrap_or(silence);
        self.linked.then(|| silence.min(retry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn timeouts_lie_between_a_second_and_the_limit() {
        for (given, ok) in [(0, false), (1, true), (60_000, true), (60_001, false)] {
            assert_eq!(Silence::from_seconds(given, &Limits::DEFAULT).is_ok(), ok, "{given}");
        }
        assert_eq!(Silence::default().duration(), seconds(300));
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_start_anew_once_it_works() {
        let mut patience = Patience::new(Silence::default(), seconds(0));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            patience.failed(seconds(0));
            pauses.push(patience.deadline(true, seconds(0)).expect("linked").as_millis());
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        patience.heard(seconds(40));
        patience.failed(seconds(40));
        assert_eq!(patience.deadline(true, seconds(40)), Some(Duration::from_millis(40_250)));
    }

    #[test]
    fn silence_counts_only_while_there_is_a_connection() {
        let mut patience = Patience::new(Silence::default(), seconds(0));
        patience.link_down();
        assert!(!patience.is_exhausted(seconds(900)));
        assert_eq!(patience.deadline(true, seconds(900)), None);
        patience.link_up(seconds(1000));
        assert!(!patience.is_exhausted(seconds(1299)));
        assert!(patience.is_exhausted(seconds(1300)));
    }
}
