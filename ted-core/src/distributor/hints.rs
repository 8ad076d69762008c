//! What is said about deliveries and proves nothing: how far one is, and what it waits for. It goes into the open
//! firings that concern the node, and to those who watch. What counts are receipts.

use crate::distributor::state::State;
use crate::id::{DistributionId, KeyHash, UnixMillis};
use crate::protocol::WaitingFor;

impl State {
    /// A delivery waits for something, until a time that may be known; with `None`, for nothing that is known any more.
    #[allow(dead_code, reason = "queue, schedules and relays call it")]
    pub(super) fn note_waiting(
        &self,
        key: &KeyHash,
        distribution: &DistributionId,
        waiting: Option<(WaitingFor, Option<UnixMillis>)>,
    ) {
        self.change_firings_of(&[*key], |firing, now| firing.waits(key, distribution, waiting, now));
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
