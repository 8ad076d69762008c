//! Receipts that come after the window of their firing has closed: what arrived within it may be extracted much later.
//! They count until the Channel fires again, and everything else about such a firing is over.

use std::collections::BTreeSet;

use super::{Firings, load_parts, record_key};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{FiringId, KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::name::Label;
use crate::node::{BatchedRecords, Records};
use crate::protocol::{Firing, FiringHead, FiringRecord};
use crate::security::Receipt;

impl Firings {
    /// Puts those in that may still be said something of, of each Channel the last one at most.
    pub(super) fn load_closed(&mut self, records: &Records) -> Result<(), Error> {
        let mut seen: BTreeSet<Label> = self.open.values().map(|firing| firing.channel().clone()).collect();
        let newest = self.over.values().rev().filter(|head| seen.insert(head.channel.clone()));
        let newest: Vec<FiringHead> = newest.filter(|head| head.awaits_receipts()).cloned().collect();
        for head in newest {
            let parts = load_parts(records, &head.id)?;
            let firing = Firing::restore(head, parts);
            self.closed.insert(firing.id(), firing);
        }
        Ok(())
    }

    /// Takes a receipt for the firing that it names, if its window has closed; one that names none, as after an extraction
    /// by hand, for all such firings. Says whether that changed anything.
    pub(super) fn late_receipt(
        &mut self,
        key: &KeyHash,
        receipt: &Receipt,
        now: UnixMillis,
        kept: &BatchedRecords,
    ) -> Result<bool, Error> {
        let mut heads = vec![];
        let named = |id: &FiringId| receipt.firing.is_none_or(|named| named == *id);
        for (id, firing) in self.closed.iter_mut().filter(|(id, _)| named(id)) {
            if firing.receipt(key, receipt, now) {
                let head = firing.head().clone();
                let mut changes = firing.take_changes(&Limits::DEFAULT)?;
                changes.push((FiringRecord::Head, Some(head.encode(&Limits::DEFAULT)?)));
                kept.put(changes.into_iter().map(|(record, bytes)| (record_key(id, record), bytes)));
                heads.push(head);
            }
        }
        let is_changed = !heads.is_empty();
        for head in heads {
            if !head.awaits_receipts() {
                self.closed.remove(&head.id);
            }
            self.file(head);
        }
        Ok(is_changed)
    }

    /// A Channel fires again: what is said of the firing before counts no more.
    pub(super) fn forget_closed(&mut self, channel: &Label) {
        self.closed.retain(|_, firing| firing.channel() != channel);
    }
}

impl State {
    /// As [`Firings::late_receipt`], and tells those who wait.
    pub(in crate::distributor) fn take_late_receipt(&self, key: &KeyHash, receipt: &Receipt) {
        let now = self.now();
        match lock(&self.firings).late_receipt(key, receipt, now, &self.kept) {
            Ok(false) => {}
            Ok(true) => self.firing_changes.send_modify(|count| *count += 1),
            Err(error) => tracing::error!(code = error.code(), %error, "a firing cannot be kept"),
        }
    }
}
