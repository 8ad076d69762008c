//! Which of the peers above it a node dials, and when: the preferred parent first, a fallback only after it was missed
//! for a while, and the preferred one again while a fallback serves.

use std::time::Duration;

use crate::id::KeyHash;

/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause: a peer that comes back is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How patient a node is with its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// For how long every better parent was not reached before the next one of the route is dialled.
    pub after: Duration,
    /// How often better ones are tried while another one serves.
    pub return_every: Duration,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { after: Duration::from_secs(30), return_every: Duration::from_secs(60) }
    }
}

/// The ways up of one node in one fleet. Time is counted from any fixed moment.
#[derive(Debug, Clone)]
pub struct Ascent {
    fallback: Fallback,
    ways: Vec<Way>,
    /// The way that serves now, by its place; a connection to a peer that no way names is as good as the last one.
    current: Option<usize>,
    /// Since when nothing serves.
    missed_since: Duration,
}

#[derive(Debug, Clone)]
struct Way {
    key: KeyHash,
    not_before: Duration,
    failures: u32,
}

impl Ascent {
    /// A node without ways and without a connection.
    #[must_use]
    pub fn new(fallback: Fallback, now: Duration) -> Self {
        Self { fallback, ways: vec![], current: None, missed_since: now }
    }

    /// The peers that the route names now, in order of preference. Answers whether that is news.
    pub fn set_ways(&mut self, ways: &[KeyHash], now: Duration) -> bool {
        if ways.iter().eq(self.ways.iter().map(|way| &way.key)) {
            return false;
        }
        let known = std::mem::take(&mut self.ways);
        let kept = |key: &KeyHash| known.iter().find(|way| way.key == *key).cloned();
        let new = |key: &KeyHash| Way { key: *key, not_before: now, failures: 0 };
        self.ways = ways.iter().map(|key| kept(key).unwrap_or_else(|| new(key))).collect();
        self.current = None;
        self.missed_since = now;
        true
    }

    /// How much a peer is preferred: the smaller, the more.
    #[must_use]
    pub fn rank(&self, key: &KeyHash) -> usize {
        self.ways.iter().position(|way| way.key == *key).unwrap_or(self.ways.len())
    }

    /// Tells it which peer serves now, if any.
    pub fn serves(&mut self, peer: Option<&KeyHash>, now: Duration) {
        let current = peer.map(|peer| self.rank(peer));
        if current == self.current {
            return;
        }
        match current {
            None => self.missed_since = now,
            Some(current) => {
                for way in self.ways.iter_mut().take(current) {
                    way.not_before = way.not_before.max(now.saturating_add(self.fallback.return_every));
                }
            }
        }
        self.current = current;
    }

    /// An attempt has failed.
    pub fn failed(&mut self, key: &KeyHash, now: Duration) {
        let (current, every) = (self.current, self.fallback.return_every);
        if let Some(way) = self.ways.iter_mut().find(|way| way.key == *key) {
            let pause = if current.is_some() { every } else { pause(way.failures) };
            way.failures = way.failures.saturating_add(1);
            way.not_before = now.saturating_add(pause);
        }
    }

    /// An attempt has led to a connection, however long that lasts; or the peer asks for a pause before the next one.
    pub fn pause(&mut self, key: &KeyHash, pause: Option<Duration>, now: Duration) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.key == *key) {
            way.failures = 0;
            way.not_before = now.saturating_add(pause.unwrap_or(PAUSE_MIN));
        }
    }

    /// Something has changed: no pause counts any more.
    pub fn hasten(&mut self, now: Duration) {
        for way in &mut self.ways {
            (way.failures, way.not_before) = (0, way.not_before.min(now));
        }
    }

    /// The peers to be dialled now, the most preferred first.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<KeyHash> {
        let better = self.ways.iter().take(self.current.unwrap_or(self.ways.len())).enumerate();
        better.filter(|(place, way)| self.due_at(*place, way) <= now).map(|(_, way)| way.key).collect()
    }

    /// When the next peer is to be dialled, if nothing changes.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let better = self.ways.iter().take(self.current.unwrap_or(self.ways.len())).enumerate();
        better.map(|(place, way)| self.due_at(place, way)).min()
    }

    fn due_at(&self, place: usize, way: &Way) -> Duration {
        if self.current.is_some() {
            return way.not_before;
        }
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        way.not_before.max(self.missed_since.saturating_add(self.fallback.after.saturating_mul(place)))
    }
}

fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: KeyHash = KeyHash::from_bytes([1; 32]);
    const SECOND: KeyHash = KeyHash::from_bytes([2; 32]);
    const THIRD: KeyHash = KeyHash::from_bytes([3; 32]);
    const STRANGER: KeyHash = KeyHash::from_bytes([9; 32]);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ascent(ways: &[KeyHash]) -> Ascent {
        let mut ascent = Ascent::new(Fallback::default(), at(0));
        ascent.set_ways(ways, at(0));
        ascent
    }

    #[test]
    fn the_next_parent_of_the_route_is_dialled_only_after_all_better_ones_were_missed_for_long_enough() {
        let mut ascent = ascent(&[FIRST, SECOND, THIRD]);
        assert_eq!(ascent.due(at(0)), [FIRST]);
        ascent.failed(&FIRST, at(0));
        assert_eq!((ascent.due(at(0)), ascent.next_due()), (vec![], Some(Duration::from_millis(500))));
        for _ in 0..10 {
            ascent.failed(&FIRST, at(1));
        }
        assert_eq!((ascent.due(at(29)), ascent.next_due()), (vec![], Some(at(30))));
        assert_eq!(ascent.due(at(30)), [SECOND]);
        assert_eq!(ascent.due(at(31)), [FIRST, SECOND]);
        assert_eq!(ascent.due(at(60)), [FIRST, SECOND, THIRD]);
    }

    #[test]
    fn without_a_fallback_a_node_waits_for_its_parent_however_long_that_takes() {
        let mut ascent = ascent(&[FIRST]);
        for second in 0..10_000 {
            for key in ascent.due(at(second)) {
                assert_eq!(key, FIRST);
                ascent.failed(&key, at(second));
            }
            assert!(ascent.next_due().is_some_and(|due| due <= at(second + 30)));
        }
    }

    #[test]
    fn while_a_fallback_serves_better_ones_are_tried_again_and_moved_back_to() {
        let mut ascent = ascent(&[FIRST, SECOND, THIRD]);
        ascent.serves(Some(&SECOND), at(40));
        assert_eq!((ascent.due(at(99)), ascent.next_due()), (vec![], Some(at(100))));
        assert_eq!(ascent.due(at(100)), [FIRST]);
        ascent.failed(&FIRST, at(100));
        assert_eq!(ascent.next_due(), Some(at(160)));
        ascent.serves(Some(&FIRST), at(160));
        assert_eq!((ascent.due(at(9999)), ascent.next_due()), (vec![], None), "nothing is better than this");
        ascent.serves(None, at(200));
        assert_eq!(ascent.due(at(200)), [FIRST]);
        assert_eq!(ascent.due(at(230)), [FIRST, SECOND], "and the fallback only after the time that it takes");
    }

    #[test]
    fn a_peer_that_the_route_does_not_name_serves_until_one_of_the_route_does() {
        let mut ascent = ascent(&[FIRST, SECOND]);
        ascent.serves(Some(&STRANGER), at(0));
        assert_eq!((ascent.rank(&FIRST), ascent.rank(&STRANGER)), (0, 2));
        assert_eq!(ascent.due(at(60)), [FIRST, SECOND]);
    }

    #[test]
    fn a_new_route_is_followed_at_once_and_pauses_end_when_something_changes() {
        let mut ascent = ascent(&[FIRST, SECOND]);
        ascent.serves(Some(&SECOND), at(5));
        ascent.set_ways(&[THIRD, SECOND], at(6));
        ascent.serves(Some(&SECOND), at(6));
        ascent.hasten(at(6));
        assert_eq!(ascent.due(at(6)), [THIRD]);
        ascent.pause(&THIRD, Some(at(5)), at(6));
        assert_eq!(ascent.next_due(), Some(at(11)));
    }
}
