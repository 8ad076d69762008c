//! How fast this node takes bytes in and passes them on, and whether an operator paused it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::KeyHash;
use crate::model::{Priority, Setting, Settings};
use crate::protocol::{Refused, SendRates, code};
use crate::schedule::RatePlan;
use crate::subscriber::Subscriber;
use crate::subscriber::state::{State, lock};

/// Where it stands that an operator paused this node.
const PAUSED: &str = "paused";

/// Why connections are made anew.
const TOLD: &str = "this node was paused or resumed";

impl Subscriber {
    /// Receives nothing new until it is resumed, also after a restart. What was received stays, what is complete is
    /// extracted as always, and the Distributors hear of it.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub async fn pause_receiving(&self) -> Result<(), Error> {
        self.blocking(|state| state.set_paused(true)).await
    }

    /// Receives again; what was held is offered at once.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub async fn resume_receiving(&self) -> Result<(), Error> {
        self.blocking(|state| state.set_paused(false)).await
    }

    /// Whether an operator paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.is_paused()
    }
}

impl State {
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether it was paused when it was open last.
    pub(super) fn was_paused(records: &crate::node::Records) -> Result<bool, Error> {
        Ok(records.get(PAUSED)?.unwrap_or(false))
    }

    /// The answer of a node that is paused.
    pub(super) fn says_paused() -> Refused {
        Refused::new(code::PAUSED, "the Subscriber is paused by its operator")
    }

    /// Says when a reception has to end: the node stops, or is paused.
    pub(super) fn receiving_ends(&self) -> CancellationToken {
        let mut pausing = lock(&self.pausing);
        if pausing.is_cancelled() && !self.is_paused() {
            *pausing = self.run().stop.child_token();
        }
        pausing.clone()
    }

    /// From now on receptions end with this run of the node.
    pub(super) fn receives_until(&self, stop: &CancellationToken) {
        let mut pausing = lock(&self.pausing);
        *pausing = stop.child_token();
        if self.is_paused() {
            pausing.cancel();
        }
    }

    fn set_paused(self: &Arc<Self>, paused: bool) -> Result<(), Error> {
        if paused {
            self.records.put(PAUSED, &true)?;
        } else {
            self.records.delete(PAUSED)?;
        }
        if self.paused.swap(paused, Ordering::Relaxed) == paused {
            return Ok(());
        }
        tracing::info!(paused, "the operator paused or resumed this node");
        if paused {
            lock(&self.pausing).cancel();
        }
        // A new connection brings every open offer again: now they are answered otherwise.
        for (fleet, _) in self.links.all() {
            self.links.close(&fleet, TOLD);
        }
        Ok(())
    }

    /// What this node sends by, where others are behind it.
    fn send_rates(&self) -> SendRates {
        let plan = |priority| self.rate_in_force(&Setting::OutputRate(priority));
        let (high, medium, low) = (plan(Priority::High), plan(Priority::Medium), plan(Priority::Low));
        SendRates { sends_max: self.settings.sends_max, high, medium, low }
    }

    /// The rate for all that goes to one child.
    pub(super) fn child_rate(&self) -> Option<RatePlan> {
        self.rate_in_force(&Setting::ChildRate)
    }

    /// The node's own rate, or else the lowest that a Distributor sets.
    fn rate_in_force(&self, setting: &Setting) -> Option<RatePlan> {
        if let Some(own) = self.settings.own.rate_plan(setting) {
            return Some(own);
        }
        let mut fleets: Vec<KeyHash> =
            self.envelopes.choose(|_| true).into_iter().map(|(slot, _)| slot.fleet).collect();
        fleets.sort_unstable();
        fleets.dedup();
        let given = fleets.into_iter().filter_map(|fleet| self.settings_from(&fleet).rate_plan(setting));
        given.min_by_key(|plan| plan.at(self.clock.now()).unwrap_or(u64::MAX))
    }

    /// Puts the rates that are in force now into effect.
    pub(super) fn follow_rates(&self) {
        self.input.set(self.rate_in_force(&Setting::InputRate));
        self.sends.set_rates(&self.send_rates());
        let child = self.child_rate();
        self.sends.set_links(|_| child.clone());
    }
}

/// What a node takes in by at its start, before it knows what its Distributors set.
pub(super) fn own_input(own: &Settings) -> Option<RatePlan> {
    own.rate_plan(&Setting::InputRate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::subscriber::state::Run;

    #[tokio::test(flavor = "multi_thread")]
    async fn receptions_end_with_a_pause_and_with_the_run_and_leave_nothing_running() {
        let folder = tempfile::tempdir().unwrap();
        let name = "leaf.example".parse().unwrap();
        let subscriber = Subscriber::builder(folder.path().join("data")).name(name).open().await.unwrap();
        let state = &subscriber.state;
        let run = Run::default();
        state.receives_until(&run.stop);
        *lock(&state.run) = run.clone();
        for _ in 0..100 {
            assert!(!state.receiving_ends().is_cancelled());
        }
        let idle = tokio::time::timeout(Duration::from_secs(10), state.links.wait());
        idle.await.expect("a reception that is over leaves no task behind");

        let before = state.receiving_ends();
        subscriber.pause_receiving().await.unwrap();
        assert!(before.is_cancelled() && state.receiving_ends().is_cancelled());
        state.receives_until(&run.stop);
        assert!(state.receiving_ends().is_cancelled(), "it was paused when it was started");
        subscriber.resume_receiving().await.unwrap();
        let after = state.receiving_ends();
        assert!(before.is_cancelled() && !after.is_cancelled());
        run.end();
        assert!(after.is_cancelled());
    }
}
