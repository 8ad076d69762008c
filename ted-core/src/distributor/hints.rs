//! What is said about deliveries and proves nothing: how far one is, and what it waits for. It goes into the open
//! firings that concern the node. What counts are receipts. And what was told before.

use crate::distributor::state::State;
use crate::error::Error;
use crate::id::{DistributionId, KeyHash, UnixMillis};
use crate::name::Label;
use crate::node::{EventFilter, EventHistory};
use crate::protocol::{ProgressEntry, ProgressState, WaitingFor};

impl State {
    /// The events on record that a filter chooses, the oldest first.
    pub(super) fn event_history(&self, filter: &EventFilter) -> Result<EventHistory, Error> {
        let is_of_channel = |channel: &Label, id: &str| {
            let head = id.parse().ok().and_then(|id| self.firing_head(&id).ok());
            head.is_some_and(|head| head.channel == *channel)
        };
        Ok(self.events.history(filter, is_of_channel)?)
    }

    /// A delivery waits for something, until a time that may be known; with `None`, for nothing that is known any more.
    pub(super) fn note_waiting(
        &self,
        key: &KeyHash,
        distribution: &DistributionId,
        waiting: Option<(WaitingFor, Option<UnixMillis>)>,
    ) {
        self.change_firings_of(&[*key], |firing, now| firing.waits(key, distribution, waiting, now));
    }

    /// How far deliveries are at the node `hop` and behind it. Whether it may speak of them was judged before.
    pub(super) fn note_progress(&self, hop: &KeyHash, entries: &[ProgressEntry]) {
        for entry in entries {
            let (key, distribution) = (&entry.subscriber, &entry.distribution);
            self.change_firing(entry.firing, |firing, now| {
                if hop != key {
                    firing.heard(hop, distribution, now);
                }
                match entry.state {
                    ProgressState::Offered => firing.waits(key, distribution, None, now),
                    ProgressState::Receiving { bytes, bytes_total } => {
                        firing.receiving(key, distribution, (bytes, bytes_total), now)
                    }
                    ProgressState::Waiting { waits_for, until } => {
                        firing.waits(key, distribution, Some((waits_for.into(), until)), now)
                    }
                }
            });
        }
    }

    /// So many bytes of so many are at a node, which is not silent then.
    pub(super) fn note_receiving(&self, key: &KeyHash, distribution: &DistributionId, bytes: (u64, u64)) {
        self.change_firings_of(&[*key], |firing, now| firing.receiving(key, distribution, bytes, now));
    }

    /// These nodes are not reached any more: what was offered to them waits until they are.
    pub(super) fn note_unreached(&self, keys: &[KeyHash]) {
        self.change_firings_of(keys, |firing, now| keys.iter().filter(|key| firing.disconnected(key, now)).count() > 0);
    }
}
