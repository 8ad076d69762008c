//! A firing as the Distributor keeps it: a record for its head, and one for each part.

use std::collections::BTreeMap;

use ted_core::limits::Limits;
use ted_core::protocol::{Firing, FiringHead, FiringRecord, Part};

#[derive(Default)]
pub(crate) struct Records(BTreeMap<FiringRecord, Vec<u8>>);

impl Records {
    /// Writes what changed.
    pub(crate) fn keep(&mut self, firing: &mut Firing) {
        for (record, bytes) in firing.take_changes(&Limits::DEFAULT).expect("small") {
            match bytes {
                Some(bytes) => self.0.insert(record, bytes),
                None => self.0.remove(&record),
            };
        }
    }

    pub(crate) fn restored(&self) -> Firing {
        let limits = &Limits::DEFAULT;
        let head = FiringHead::decode(&self.0[&FiringRecord::Head], limits).expect("as it was written");
        let parts = self.0.iter().filter(|(record, _)| **record != FiringRecord::Head);
        let parts = parts.map(|(_, bytes)| Part::decode(bytes, limits).expect("as it was written")).collect();
        Firing::restore(head, parts)
    }
}
