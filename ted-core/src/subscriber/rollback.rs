//! Going back to the revision before, as this node's operator's explicit act, and going on again.

use std::sync::Arc;

use crate::error::Error;
use crate::id::Revision;
use crate::node::{RecordBatch, wait};
use crate::package::Root;
use crate::protocol::{Floor, OfferAnswer, Refused, Statement};
use crate::store::{PackageInfo, Pin, prune};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::{Held, KeepPackage, fall_back_key, held_key};
use crate::subscriber::hooks::HookRule;
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::report::ExtractionRow;
use crate::subscriber::state::{Key, State, lock};
use crate::subscriber::verify::Mend;

/// The code of an offer of what was gone back from.
pub(super) const PINNED: &str = "TED-1883";

impl State {
    /// Extracts the revision before the newest again, lowers the floor to it, and takes nothing up to the newest.
    pub(super) fn rollback(self: &Arc<Self>, name: &DistributionRef) -> Result<ExtractionRow, Error> {
        let (key, held) = self.one_meant(name)?;
        let (fleet, distribution) = key;
        if lock(&self.deliveries).get(&key).is_some_and(|delivery| delivery.have().receiving.is_some()) {
            return Err(SubscriberError::Receiving(name.to_string()).into());
        }
        let before: Option<Held> = self.records.get(&before_key(&key))?;
        let before = before.filter(|before| before.revision < held.revision);
        let before = before.ok_or_else(|| SubscriberError::NothingBefore(name.to_string()))?;
        if !before.has_baseline() || self.lacks(&before)?.is_some() {
            return Err(SubscriberError::NothingBefore(name.to_string()).into());
        }
        let (from, to) = (held.revision, before.revision);
        // The decision is durable first: whatever a crash leaves of the rest, what was gone back from is not taken.
        self.pins.set(&fleet, &distribution, Pin { from, to, at: self.clock.now() })?;
        let issued = self.floors.get(&fleet, &distribution).issued;
        self.floors.set(&fleet, &distribution, Floor { revision: to, issued })?;
        // A baseline that was still to come is one of what was gone back from, and does not come.
        let batch = RecordBatch::default()
            .put(&held_key(&fleet, &distribution), &before)?
            .delete(&before_key(&key))
            .delete(&fall_back_key(&key));
        {
            let _nothing_goes = lock(&self.holding);
            self.records.apply(batch)?;
        }
        lock(&self.deliveries).remove(&key);
        self.note(key, |standing| {
            standing.offered = None;
            standing.stage = None;
            standing.trouble = None;
        });
        tracing::warn!(distribution = %held.name, %from, %to, "rolled back by this node's operator; the floor is lowered");
        self.events.emit(SubscriberEvent::RolledBack { distribution: held.name, from, to });
        self.extract_by_hand(key, HookRule::Run, Mend::Nothing)
    }

    /// Takes what is offered again.
    pub(super) fn resume(&self, name: &DistributionRef) -> Result<(), Error> {
        let ((fleet, distribution), held) = self.one_meant(name)?;
        if !self.pins.remove(&fleet, &distribution)? {
            return Err(SubscriberError::NotRolledBack(name.to_string()).into());
        }
        tracing::info!(distribution = %held.name, "goes on with what is offered");
        Ok(())
    }

    /// What a rollback says about an offer, where one stands: it ends with something newer than what was gone back from.
    pub(super) fn judge_pin(&self, key: &Key, statement: &Statement) -> Option<OfferAnswer> {
        let (fleet, distribution) = key;
        let pin = self.pins.get(fleet, distribution)?;
        if statement.release.revision > pin.from {
            return None;
        }
        let reason =
            format!("revision {} was rolled back from here, to {}, and stays so until `resume`", pin.from, pin.to);
        Some(OfferAnswer::Refused(Refused::new(PINNED, reason)))
    }

    /// Ends a rollback, durably, because something newer than what was gone back from is taken.
    pub(super) fn end_pin(&self, (fleet, distribution): &Key, taken: Revision) -> Result<(), Error> {
        if self.pins.get(fleet, distribution).is_some_and(|pin| taken > pin.from) {
            self.pins.remove(fleet, distribution)?;
        }
        Ok(())
    }

    /// Removes the packages of a Distribution that are not to be kept now that `extracted` stands in the target. Never
    /// removed: newer ones, what carries the newest revision or the one before as far as this node keeps that, and those
    /// of a revision that was gone back from, which an operator may resume.
    pub(super) fn keep_what_is_needed(&self, key: &Key, extracted: &Held) -> Result<(), Error> {
        let (fleet, distribution) = key;
        let _nothing_comes = lock(&self.holding);
        let Some(mut held) = self.noted_held(key)? else { return Ok(()) };
        let keep = self.settings.keep_package;
        // Deltas without their baseline are of no use once they are in the target.
        if held.revision == extracted.revision && (keep == KeepPackage::None || !held.has_baseline()) {
            held.packages.clear();
            self.records.put(&held_key(fleet, distribution), &held)?;
        }
        if keep != KeepPackage::Chain {
            self.records.delete(&before_key(key))?;
        }
        let before: Option<Held> = self.records.get(&before_key(key))?;
        let before = before.map(|before| before.packages).unwrap_or_default();
        let from = self.pins.get(fleet, distribution).map(|pin| pin.from);
        let kept = |info: &PackageInfo| {
            let revision = info.root.revision;
            revision > extracted.revision
                || from == Some(revision)
                || held.packages.iter().chain(&before).any(|package| package.id == info.id)
        };
        let kept = |info: &PackageInfo| kept(info) || self.is_passed_on(fleet, &info.id);
        wait(prune(&self.depot, |info| !self.is_own_package(key, &info.root) || kept(info)))?;
        self.forget_checked(key, &held.packages)
    }

    /// Whether a package is of this Distribution of this Distributor: another one may call one of its own by the same
    /// id, and its packages are not to be removed with this one's.
    pub(super) fn is_own_package(&self, (fleet, distribution): &Key, root: &Root) -> bool {
        root.distribution == *distribution
            && (root.distributor == *fleet || self.lineage.descends(fleet, &root.distributor))
    }

    /// The revision that a rollback holds a Distribution at.
    pub(super) fn pinned_at(&self, (fleet, distribution): &Key) -> Option<Revision> {
        self.pins.get(fleet, distribution).map(|pin| pin.to)
    }

    fn one_meant(&self, name: &DistributionRef) -> Result<(Key, Held), Error> {
        let mut meant = self.meant(Some(name))?;
        match (meant.pop(), meant.len()) {
            (Some(found), 0) => Ok(found),
            (_, others) => Err(SubscriberError::SeveralMeant { name: name.to_string(), count: others + 1 }.into()),
        }
    }
}

/// Where the catalog keeps the verified revision before the newest.
pub(super) fn before_key((fleet, distribution): &Key) -> String {
    format!("before/{fleet}/{distribution}")
}
