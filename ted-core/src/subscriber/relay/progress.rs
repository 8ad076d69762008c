//! How far deliveries are, told upwards: hints, of this node and of those behind it, together and at most once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::id::{DistributionId, KeyHash, Revision};
use crate::limits::Limits;
use crate::node::ask;
use crate::protocol::{Delivery, Offer, ProgressEntry, ProgressState, Request, WaitsFor};
use crate::security::{PackageRef, PeerRole};
use crate::subscriber::deliveries::revision_of;
use crate::subscriber::state::{Key, State, lock};
use crate::transport::Connection as _;

/// What changes within this time is told together.
const TOGETHER: Duration = Duration::from_secs(1);

/// How long the peer above may take to note it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes how far a reception is.
pub(in crate::subscriber) type Hinting = Arc<dyn Fn(ProgressState) + Send + Sync>;

/// What is not told yet, the newest for each delivery; bounded by the deliveries of those behind this node.
#[derive(Default)]
pub(in crate::subscriber) struct Hints(Mutex<BTreeMap<(KeyHash, KeyHash, DistributionId), ProgressEntry>>);

impl Hints {
    fn add(&self, fleet: &KeyHash, entry: ProgressEntry) {
        lock(&self.0).insert((*fleet, entry.subscriber, entry.distribution), entry);
    }

    /// What is to be told in a fleet, as much as a message may hold.
    fn take(&self, fleet: &KeyHash) -> Vec<ProgressEntry> {
        let mut hints = lock(&self.0);
        let of_fleet = hints.keys().filter(|(of, ..)| of == fleet);
        let some: Vec<_> = of_fleet.take(Limits::DEFAULT.progress_entries_max).copied().collect();
        some.iter().filter_map(|key| hints.remove(key)).collect()
    }

    fn fleets(&self) -> Vec<KeyHash> {
        let mut fleets: Vec<KeyHash> = lock(&self.0).keys().map(|(fleet, ..)| *fleet).collect();
        fleets.dedup();
        fleets
    }
}

impl State {
    /// What tells upwards how far the reception of a package is, for this node itself or for those behind it. The
    /// Distributor sees by itself what it sends.
    pub(in crate::subscriber) fn hinting(self: &Arc<Self>, key: Key, package: &PackageRef) -> Hinting {
        let (fleet, distribution) = key;
        let identity = self.identity(&fleet).map(|identity| identity.certificate.key_hash());
        let own = lock(&self.deliveries).get(&key).and_then(Delivery::firing);
        let newest = || {
            let machines = lock(&self.relays.machines);
            machines.get(&fleet)?.passed(&distribution)?.newest_firing()
        };
        let (Ok(subscriber), Some(firing)) = (identity, own.or_else(newest)) else { return Arc::new(|_| {}) };
        let (state, revision) = (self.clone(), revision_of(package));
        Arc::new(move |progress| {
            let behind = state.links.get(&fleet).is_none_or(|connection| connection.peer().role == PeerRole::Parent);
            if behind {
                let at = state.clock.now();
                let entry = ProgressEntry { subscriber, distribution, revision, firing, state: progress, at };
                state.relays.hints.add(&fleet, entry);
            }
        })
    }

    /// Says upwards that this node is paused, where the answer to an offer ends at its parent.
    pub(in crate::subscriber) fn tell_paused(&self, fleet: &KeyHash, offer: &Offer) {
        let Ok(identity) = self.identity(fleet) else { return };
        let subscriber = identity.certificate.key_hash();
        let behind = self.links.get(fleet).is_some_and(|connection| connection.peer().role == PeerRole::Parent);
        if behind && offer.is_for(&subscriber) {
            let state = ProgressState::Waiting { waits_for: WaitsFor::Pause, until: None };
            let (distribution, firing, revision) = (offer.distribution, offer.firing, Revision::from_number(0));
            let entry = ProgressEntry { subscriber, distribution, revision, firing, state, at: self.clock.now() };
            self.relays.hints.add(fleet, entry);
        }
    }

    /// Takes a child's word about itself and about those behind it.
    pub(in crate::subscriber) fn pass_progress(&self, fleet: &KeyHash, child: &KeyHash, entries: Vec<ProgressEntry>) {
        let entitlements = self.entitlements(fleet);
        for entry in entries {
            if entitlements.is_behind(child, &entry.subscriber) {
                self.relays.hints.add(fleet, entry);
            }
        }
    }

    /// Tells upwards what has changed, until `stop`. What cannot be told is told with what comes next.
    pub(in crate::subscriber) async fn tell_progress(self: Arc<Self>, stop: CancellationToken) {
        let mut round = tokio::time::interval(TOGETHER);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = round.tick() => {}
            }
            for fleet in self.relays.hints.fleets() {
                let Some(connection) = self.links.get(&fleet) else { continue };
                let entries = self.relays.hints.take(&fleet);
                let asked = ask(&connection, &Request::Progress(entries), &Limits::DEFAULT, PATIENCE).await;
                if let Err(error) = asked {
                    tracing::debug!(%error, "progress was not noted");
                }
            }
        }
    }
}
