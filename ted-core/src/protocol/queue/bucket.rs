//! Token buckets: how many bytes may go within a second, whatever the time of day.

use std::time::Duration;

use crate::id::UnixMillis;
use crate::schedule::RatePlan;

/// A moment, as one node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time since the node began, which never jumps: rates are counted with it.
    pub elapsed: Duration,
    /// What its clock shows, which says which rate holds.
    pub wall: UnixMillis,
}

/// What may go at once after a pause: as much as comes within this time.
const BURST: Duration = Duration::from_millis(100);

/// How much is permitted at once: as much as comes within this time. It is also how late a change of the rate acts.
const GRAIN: Duration = Duration::from_millis(20);

/// The least that is permitted at once, so that slow rates do not come in crumbs.
const GRAIN_BYTES_MIN: u64 = 1024;

/// How long the rate of a plan is believed before the clock is asked again: clocks can be set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Parts of a byte in which buckets count: a rate of one byte a second fills one of them in each nanosecond.
const PARTS: i128 = 1_000_000_000;

/// A token bucket that may go into debt: it permits something whenever it owes nothing, whatever the size, and then
/// nothing until that is paid. So the rate is exact, whatever sizes there are, and never is more ahead of it than the
/// burst and one grain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    /// Bytes within a second.
    rate: u64,
    /// What may go, in parts of a byte; what is owed, below zero.
    level: i128,
    at: Duration,
}

impl Bucket {
    fn new(rate: u64, now: Duration) -> Self {
        Self { rate: rate.max(1), level: 0, at: now }
    }

    fn fill(&mut self, now: Duration) {
        let passed = i128::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(i128::MAX / PARTS);
        let burst = i128::try_from(BURST.as_nanos()).unwrap_or(0).saturating_mul(i128::from(self.rate));
        self.level = self.level.saturating_add(passed.saturating_mul(i128::from(self.rate))).min(burst);
        self.at = self.at.max(now);
    }

    /// From now on another rate. What is owed stays owed, in bytes.
    fn change(&mut self, rate: u64, now: Duration) {
        self.fill(now);
        self.rate = rate.max(1);
        self.fill(now);
    }

    fn take(&mut self, bytes: u64, now: Duration) {
        self.fill(now);
        self.level = self.level.saturating_sub(i128::from(bytes).saturating_mul(PARTS));
    }

    /// In how long something is permitted again; zero if it is now.
    fn wait(&self, now: Duration) -> Duration {
        let since = i128::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(i128::MAX / PARTS);
        let owed = (-self.level).saturating_sub(since.saturating_mul(i128::from(self.rate)));
        if owed <= 0 {
            return Duration::ZERO;
        }
        let nanos = (owed + i128::from(self.rate) - 1) / i128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A rate that may change by the time of day, and what has gone of it. Without a plan there is no limit.
#[derive(Debug, Clone)]
pub struct Limit {
    plan: Option<RatePlan>,
    bucket: Option<Bucket>,
    looked: Moment,
    /// When the plan has to be looked at again, by the clock.
    changes: Option<UnixMillis>,
}

impl Limit {
    /// A limit of which nothing has gone yet.
    #[must_use]
    pub fn new(plan: Option<RatePlan>, now: Moment) -> Self {
        let mut limit = Self { plan, bucket: None, looked: now, changes: None };
        limit.look(now);
        limit
    }

    /// Puts another plan in force, at once. What was taken stays taken.
    pub fn set(&mut self, plan: Option<RatePlan>, now: Moment) {
        if self.plan != plan {
            self.plan = plan;
            self.look(now);
        }
    }

    /// What it goes by.
    #[must_use]
    pub fn plan(&self) -> Option<&RatePlan> {
        self.plan.as_ref()
    }

    /// The bytes within a second that it lets through now; none where there is no limit.
    pub fn rate(&mut self, now: Moment) -> Option<u64> {
        self.follow(now);
        self.bucket.as_ref().map(|bucket| bucket.rate)
    }

    /// In how long something may go; zero if it may now.
    pub fn wait(&mut self, now: Moment) -> Duration {
        self.follow(now);
        self.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(now.elapsed))
    }

    /// How many bytes of `wanted` are to go at once, where some may.
    pub fn grain(&mut self, wanted: u64, now: Moment) -> u64 {
        let within = |rate: u64| u128::from(rate) * GRAIN.as_millis() / 1000;
        let grain = self.rate(now).map(|rate| u64::try_from(within(rate)).unwrap_or(u64::MAX).max(GRAIN_BYTES_MIN));
        grain.map_or(wanted, |grain| grain.min(wanted))
    }

    /// So many bytes go.
    pub fn take(&mut self, bytes: u64, now: Moment) {
        self.follow(now);
        if let Some(bucket) = &mut self.bucket {
            bucket.take(bytes, now.elapsed);
        }
    }

    /// In how long the rate may be another one.
    #[must_use]
    pub fn next_change(&self, now: Moment) -> Option<Duration> {
        self.changes.map(|at| at.since(now.wall).min(LOOK_AGAIN))
    }

    fn follow(&mut self, now: Moment) {
        let is_due = self.changes.is_some_and(|at| {
            let set_back = now.wall < self.looked.wall;
            now.wall >= at || set_back || now.elapsed.saturating_sub(self.looked.elapsed) >= LOOK_AGAIN
        });
        if is_due {
            self.look(now);
        }
    }

    fn look(&mut self, now: Moment) {
        self.looked = now;
        self.changes = self.plan.as_ref().and_then(|plan| plan.next_change(now.wall));
        match (self.plan.as_ref().and_then(|plan| plan.at(now.wall)), &mut self.bucket) {
            (Some(rate), Some(bucket)) if bucket.rate != rate => bucket.change(rate, now.elapsed),
            (Some(_), Some(_)) => {}
            (Some(rate), bucket @ None) => *bucket = Some(Bucket::new(rate, now.elapsed)),
            (None, bucket) => *bucket = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(millis: u64) -> Moment {
        // 2027-01-30T07:59:50Z, ten seconds before the plans below change.
        const BEGIN: u64 = 1_801_295_990_000;
        Moment { elapsed: Duration::from_millis(millis), wall: UnixMillis::from_millis(BEGIN + millis) }
    }

    /// Takes whatever is permitted from `from` to `to`, looking every millisecond.
    fn taken(limit: &mut Limit, from: u64, to: u64) -> u64 {
        let mut taken = 0;
        for millis in from..to {
            let now = moment(millis);
            while limit.wait(now).is_zero() {
                let bytes = limit.grain(1 << 20, now);
                limit.take(bytes, now);
                taken += bytes;
            }
        }
        taken
    }

    #[test]
    fn a_rate_is_exact_over_seconds_whatever_it_is() {
        for rate in [1000, 2500, 33_333, 1_000_000, 20_000_000, 1_234_567_890] {
            let mut limit = Limit::new(Some(RatePlan::steady(rate).unwrap()), moment(0));
            let taken = taken(&mut limit, 0, 10_000);
            let grain = limit.grain(1 << 20, moment(10_000));
            assert!(taken.abs_diff(rate * 10) <= grain, "{rate}: {taken} in ten seconds");
        }
    }

    #[test]
    fn after_a_pause_a_tenth_of_a_second_comes_at_once_and_no_more() {
        let mut limit = Limit::new(Some(RatePlan::steady(1_000_000).unwrap()), moment(0));
        let mut burst = 0;
        while limit.wait(moment(60_000)).is_zero() {
            burst += 10_000;
            limit.take(10_000, moment(60_000));
        }
        assert!((100_000..=110_000).contains(&burst), "{burst}");
    }

    #[test]
    fn what_looks_late_gets_what_it_is_owed() {
        let mut limit = Limit::new(Some(RatePlan::steady(10_000_000).unwrap()), moment(0));
        let mut taken = 0;
        for millis in (0..10_000).step_by(70) {
            while limit.wait(moment(millis)).is_zero() {
                let bytes = limit.grain(1 << 20, moment(millis));
                limit.take(bytes, moment(millis));
                taken += bytes;
            }
        }
        assert!(taken.abs_diff(100_000_000) < 1_500_000, "{taken}");
    }

    #[test]
    fn the_time_of_day_changes_the_rate_at_once_and_no_debt_is_forgotten() {
        let plan = "20MB/s; 2MB/s between 08:00 and 18:00".parse().unwrap();
        let mut limit = Limit::new(Some(plan), moment(0));
        let before = taken(&mut limit, 0, 10_000);
        let after = taken(&mut limit, 10_000, 20_000);
        assert!(before.abs_diff(200_000_000) <= 400_000, "{before}");
        assert!(after.abs_diff(20_000_000) <= 500_000, "{after}");
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let plan: RatePlan = "unlimited; 1MB/s between 08:00 and 18:00".parse().unwrap();
        let mut limit = Limit::new(Some(plan), moment(11_000));
        assert_eq!(limit.rate(moment(11_000)), Some(1_000_000));
        let set_back = Moment { elapsed: Duration::from_secs(12), wall: moment(0).wall };
        assert_eq!(limit.rate(set_back), None);
    }

    #[test]
    fn another_rate_acts_at_once() {
        let mut limit = Limit::new(None, moment(0));
        assert_eq!((limit.wait(moment(1)), limit.grain(77, moment(1))), (Duration::ZERO, 77));
        limit.set(Some(RatePlan::steady(1000).unwrap()), moment(1));
        limit.take(2000, moment(1));
        assert_eq!(limit.wait(moment(1)), Duration::from_secs(2));
        limit.set(Some(RatePlan::steady(4000).unwrap()), moment(1001));
        assert_eq!(limit.wait(moment(1001)), Duration::from_millis(250), "what is owed is paid faster");
        limit.set(None, moment(1001));
        assert_eq!(limit.wait(moment(1001)), Duration::ZERO);
    }
}
