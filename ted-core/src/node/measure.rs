//! How fast links are, as real transfers show.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::KeyHash;

/// What a transfer has at least to say something: less stays in buffers and shows their speed.
const SAMPLE_BYTES_MIN: u64 = 4 << 20;

/// How long one sample lasts at most: links change while long transfers go on.
const SAMPLE: Duration = Duration::from_secs(30);

/// The weight of a new sample, in percent.
const WEIGHT: u64 = 30;

/// How fast a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkSpeed {
    /// Bytes within a second, weighed over transfers.
    pub(crate) bytes_per_second: u64,
    /// How many samples it comes from.
    pub(crate) samples: u64,
}

/// What is known of all links; those that changed are kept by the driver.
#[derive(Default)]
pub(crate) struct Measured(Mutex<Links>);

#[derive(Default)]
struct Links {
    speeds: HashMap<KeyHash, LinkSpeed>,
    under_way: HashMap<KeyHash, Transfer>,
    changed: Vec<KeyHash>,
}

/// All that goes over one link at the same time.
struct Transfer {
    streams: usize,
    began: Duration,
    bytes: u64,
    /// Streams whose bytes the connection is taking.
    writing: usize,
    writing_since: Duration,
    wrote: Duration,
}

impl Transfer {
    fn new(now: Duration) -> Self {
        Self { streams: 0, began: now, bytes: 0, writing: 0, writing_since: now, wrote: Duration::ZERO }
    }

    /// Starts a new sample.
    fn restart(&mut self, now: Duration) {
        (self.began, self.bytes, self.writing_since, self.wrote) = (now, 0, now, Duration::ZERO);
    }

    fn account(&mut self, now: Duration) {
        if self.writing > 0 {
            self.wrote += now.saturating_sub(self.writing_since);
        }
        self.writing_since = now;
    }

    /// The rate, and whether the link was what held it up.
    fn sample(&self, now: Duration) -> Option<(u64, bool)> {
        let took = now.saturating_sub(self.began);
        if self.bytes < SAMPLE_BYTES_MIN || took.is_zero() {
            return None;
        }
        let rate = u128::from(self.bytes) * 1_000_000_000 / took.as_nanos();
        // Where it waited for permits most of the time, the link is faster than that.
        Some((u64::try_from(rate).unwrap_or(u64::MAX), self.wrote * 2 >= took))
    }
}

impl Measured {
    /// What was kept from earlier.
    pub(crate) fn remember(&self, speeds: impl IntoIterator<Item = (KeyHash, LinkSpeed)>) {
        self.lock().speeds.extend(speeds);
    }

    /// How fast a link is, as far as that is known.
    pub(crate) fn speed(&self, link: &KeyHash) -> Option<LinkSpeed> {
        self.lock().speeds.get(link).copied()
    }

    /// The links of which something new is known since this was asked last.
    pub(crate) fn take_changed(&self) -> Vec<(KeyHash, LinkSpeed)> {
        let mut links = self.lock();
        let mut changed = std::mem::take(&mut links.changed);
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().filter_map(|link| Some((link, *links.speeds.get(&link)?))).collect()
    }

    pub(super) fn begin(&self, link: KeyHash, now: Duration) -> Measuring {
        self.lock().under_way.entry(link).or_insert_with(|| Transfer::new(now)).streams += 1;
        Measuring { link, is_writing: false, pending: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn learn(&mut self, link: KeyHash, now: Duration) {
        let Some((rate, is_links_own)) = self.under_way.get(&link).and_then(|transfer| transfer.sample(now)) else {
            return;
        };
        let known = self.speeds.get(&link).copied();
        let bytes_per_second = match known {
            None => rate,
            Some(known) if !is_links_own => known.bytes_per_second.max(rate),
            Some(known) => {
                let weighed = u128::from(known.bytes_per_second) * u128::from(100 - WEIGHT)
                    + u128::from(rate) * u128::from(WEIGHT);
                u64::try_from(weighed / 100).unwrap_or(u64::MAX)
            }
        };
        let samples = known.map_or(0, |known| known.samples).saturating_add(1);
        self.speeds.insert(link, LinkSpeed { bytes_per_second, samples });
        self.changed.push(link);
    }
}

/// One stream's part in a measurement.
pub(super) struct Measuring {
    link: KeyHash,
    is_writing: bool,
    pending: u64,
}

impl Measuring {
    /// The stream wants more: what it had was taken.
    pub(super) fn wants(&mut self, now: Duration, measured: &Measured) {
        if !std::mem::take(&mut self.is_writing) {
            return;
        }
        let mut links = measured.lock();
        let Some(transfer) = links.under_way.get_mut(&self.link) else { return };
        transfer.account(now);
        transfer.writing -= 1;
        transfer.bytes = transfer.bytes.saturating_add(std::mem::take(&mut self.pending));
        if now.saturating_sub(transfer.began) >= SAMPLE {
            links.learn(self.link, now);
            if let Some(transfer) = links.under_way.get_mut(&self.link) {
                transfer.restart(now);
            }
        }
    }

    /// The connection takes so many bytes.
    pub(super) fn granted(&mut self, bytes: u64, now: Duration, measured: &Measured) {
        let mut links = measured.lock();
        let Some(transfer) = links.under_way.get_mut(&self.link) else { return };
        transfer.account(now);
        if transfer.bytes == 0 && transfer.writing == 0 {
            transfer.restart(now);
        }
        transfer.writing += 1;
        (self.is_writing, self.pending) = (true, bytes);
    }

    pub(super) fn ends(&mut self, now: Duration, measured: &Measured) {
        self.wants(now, measured);
        let mut links = measured.lock();
        let Some(transfer) = links.under_way.get_mut(&self.link) else { return };
        transfer.streams -= 1;
        if transfer.streams == 0 {
            links.learn(self.link, now);
            links.under_way.remove(&self.link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: KeyHash = KeyHash::from_bytes([3; 32]);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A transfer of blocks, each written in `write` seconds after waiting `wait` seconds for its permit.
    fn transfer(measured: &Measured, blocks: u32, bytes: u64, wait: f64, write: f64) {
        let mut now = 0.0;
        let mut stream = measured.begin(LINK, seconds(now));
        for _ in 0..blocks {
            stream.wants(seconds(now), measured);
            now += wait;
            stream.granted(bytes, seconds(now), measured);
            now += write;
        }
        stream.ends(seconds(now), measured);
    }

    #[test]
    fn a_links_speed_is_what_its_transfers_reach_and_later_ones_weigh_more() {
        let measured = Measured::default();
        transfer(&measured, 16, 1 << 20, 0.0, 0.5);
        assert_eq!(measured.speed(&LINK).unwrap(), LinkSpeed { bytes_per_second: 2 << 20, samples: 1 });
        transfer(&measured, 16, 1 << 20, 0.0, 0.25);
        let speed = measured.speed(&LINK).unwrap();
        assert_eq!((speed.bytes_per_second, speed.samples), ((2 << 20) * 13 / 10, 2));
        assert_eq!(measured.take_changed().len(), 1);
        assert!(measured.take_changed().is_empty());
    }

    #[test]
    fn a_transfer_that_was_held_back_says_only_that_the_link_is_not_slower() {
        let measured = Measured::default();
        transfer(&measured, 16, 1 << 20, 0.0, 0.1);
        let fast = measured.speed(&LINK).unwrap().bytes_per_second;
        transfer(&measured, 16, 1 << 20, 0.9, 0.1);
        assert_eq!(measured.speed(&LINK).unwrap().bytes_per_second, fast);
    }

    #[test]
    fn little_says_nothing() {
        let measured = Measured::default();
        transfer(&measured, 2, 1000, 0.0, 0.001);
        assert_eq!(measured.speed(&LINK), None);
    }
}
