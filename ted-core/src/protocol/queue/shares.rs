//! Sharing between priorities: by weights, so that the urgent goes first and nothing starves.

use crate::model::Priority;

/// The priorities, the most urgent first.
pub(super) const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

/// What high, medium and low get of 21 parts while all three want more than there is.
const WEIGHTS: [u128; 3] = [16, 4, 1];

/// The place of a priority in [`PRIORITIES`].
pub(super) fn place(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Medium => 1,
        Priority::Low => 2,
    }
}

/// Who had how much of something, in relation to its weight. Who had the least is next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shares([u128; 3]);

impl Shares {
    /// Which of those that `want` is next; the more urgent of two that had the same.
    pub(super) fn first(&self, want: [bool; 3]) -> Option<usize> {
        (0..3).filter(|place| want[*place]).min_by_key(|place| self.0[*place])
    }

    /// One of them had so much.
    pub(super) fn charge(&mut self, place: usize, amount: u128) {
        self.0[place] = self.0[place].saturating_add(amount.saturating_mul(WEIGHTS[0]) / WEIGHTS[place]);
    }

    /// One wants something after a time in which it did not: it starts level with those that are there, since what it
    /// did not want then is not owed to it.
    pub(super) fn enter(&mut self, place: usize, there: [bool; 3]) {
        let level = (0..3).filter(|other| there[*other] && *other != place).map(|other| self.0[other]).min();
        self.0[place] = self.0[place].max(level.unwrap_or(0));
    }

    /// What one had, in relation to its weight.
    pub(super) fn of(&self, place: usize) -> u128 {
        self.0[place]
    }
}
