//! Packages that were whole and are damaged or gone: set aside as `distfile.corrupt`, told to the Distributor, and
//! left alone until the Channel's next firing brings what lacks.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::node::{Opened, RecordBatch, is_damaged, wait};
use crate::package::{BlindIndex, Opening, Root, damaged_frames, read_delta_index, read_index};
use crate::protocol::{Delivery, DeliveryEnd, code as wire_code};
use crate::security::{Carried, PackageRef, Receipt, Signature, Stage};
use crate::store::{Depot, DepotError, FileError};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::{Held, HeldPackage, OpenPackage};
use crate::subscriber::state::{Key, State, lock};

/// What the catalog keeps of a package that is damaged and waits for the Channel's next firing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SetAside {
    /// The last firing that was heard of; nothing is taken of it any more. As hex.
    pub(super) firing: Option<String>,
    pub(super) revision: Revision,
    #[serde(with = "crate::node::as_text")]
    pub(super) package: PackageId,
    /// The stable code of how it was found.
    pub(super) code: String,
    /// What was found.
    pub(super) detail: String,
    pub(super) at: UnixMillis,
}

/// A package that is damaged, and how that was found.
pub(super) struct Damage {
    pub(super) revision: Revision,
    pub(super) package: PackageId,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The code of damage that was found where a package had been whole.
pub(super) const AT_REST: &str = "TED-1871";

/// The code of a package whose file is gone.
const GONE: &str = "TED-1872";

impl State {
    /// Sets a held package aside in which damage was found: renames it, and only then says so, durably. One that
    /// somebody set aside or removed meanwhile is left as it is.
    pub(super) fn set_aside(
        self: &Arc<Self>,
        key: Key,
        held: &Held,
        package: &HeldPackage,
        detail: String,
    ) -> Result<(), Error> {
        let told = {
            // No offer is judged between the renaming and the note: it would be taken as if nothing were known.
            let mut deliveries = lock(&self.deliveries);
            match wait(self.depot.set_corrupt(package.id)) {
                Ok(_) => {}
                Err(DepotError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let damage = Damage { revision: held.revision, package: package.id, code: AT_REST, detail };
            self.note_damage(&mut deliveries, key, &damage)?;
            damage
        };
        self.tell_damage(key, &told);
        Ok(())
    }

    /// Gives a package up that arrived damaged: says so, durably, and only then puts what came of it out of the way.
    pub(super) fn give_up(
        self: &Arc<Self>,
        key: Key,
        damage: &Damage,
        put_away: impl FnOnce() -> Result<(), FileError>,
    ) -> Result<(), Error> {
        let (noted, actions) = {
            // The delivery ends in the same moment: an offer in between would count as one of what is in flight.
            let mut deliveries = lock(&self.deliveries);
            let noted = self.note_damage(&mut deliveries, key, damage);
            let now = self.now(&key.0);
            let delivery = deliveries.get_mut(&key);
            (noted, delivery.map(|delivery| delivery.ended(&damage.package, DeliveryEnd::Corrupt, now)))
        };
        let put_away = put_away();
        self.tell_damage(key, damage);
        self.carry_out(key.0, key.1, actions.unwrap_or_default())?;
        noted?;
        Ok(put_away?)
    }

    /// Notes that a package is damaged, and the signed receipt that says so, in one durable step.
    fn note_damage(&self, deliveries: &mut HashMap<Key, Delivery>, key: Key, damage: &Damage) -> Result<(), Error> {
        let (fleet, distribution) = key;
        let Damage { revision, package, code, ref detail } = *damage;
        let (firing, at) = (self.last_firing(&key)?, self.clock.now());
        let told = firing.map(|firing| firing.to_string());
        let aside = SetAside { firing: told, revision, package, code: code.to_owned(), detail: detail.clone(), at };
        let receipt = Receipt {
            firing,
            distribution,
            revision,
            package: Some(package),
            stage: Stage::Corrupt,
            code: Some(code.to_owned()),
            detail: detail.clone(),
            at,
        };
        let mut batch = RecordBatch::default();
        // A newer revision that arrived damaged is the one that counts.
        if self.aside(&key)?.is_none_or(|known| known.revision <= revision) {
            batch = batch.put(&aside_key(&key), &aside)?;
        }
        match self.receipt_in(&fleet, receipt, batch)? {
            Ok(batch) => self.records.apply(batch)?,
            Err((batch, error)) => {
                tracing::error!(code = error.code(), %error, "a receipt about damage cannot be made");
                self.records.apply(batch)?;
            }
        }
        if let Some(delivery) = deliveries.get_mut(&key) {
            delivery.set_aside(revision, firing);
        }
        Ok(())
    }

    /// Tells everybody: the Distributor, by the receipt that waits, and people.
    fn tell_damage(&self, key: Key, damage: &Damage) {
        let (Damage { revision, code, detail, .. }, (fleet, distribution)) = (damage, key);
        self.receipts.notify_one();
        self.note(key, |standing| {
            standing.stage = Some(Stage::Corrupt);
            standing.trouble = Some(trouble(code, detail));
        });
        let name = self.known_label(&fleet, &distribution);
        tracing::error!(code, distribution = %name, %revision, detail, "a package is damaged and was set aside");
        let (revision, detail) = (*revision, detail.clone());
        self.events.emit(SubscriberEvent::Corrupt { distribution: name, revision, detail });
    }

    /// Sets aside what should be here and is not: packages whose file is gone, or is no package any more. A crash
    /// between a renaming and its note comes to the same. Blocks.
    pub(super) fn set_lost_aside(self: &Arc<Self>) -> Result<(), Error> {
        for (key, _) in self.all_held()? {
            if let Some(damage) = self.note_lost(key)? {
                self.tell_damage(key, &damage);
            }
        }
        Ok(())
    }

    fn note_lost(&self, key: Key) -> Result<Option<Damage>, Error> {
        // Nothing comes or goes meanwhile: see `set_aside`.
        let mut deliveries = lock(&self.deliveries);
        let Some(held) = self.noted_held(&key)? else { return Ok(None) };
        let Some(package) = self.lacks(&held)? else { return Ok(None) };
        let (Some(place), None) = (package.place(), self.aside(&key)?) else { return Ok(None) };
        let unreadable = wait(self.depot.set_place_corrupt(&place))?;
        let (code, detail) = match (unreadable, self.depot.leftover_file(&place)) {
            (true, _) => (AT_REST, "its end or its root is damaged"),
            (false, Some(_)) => (AT_REST, "it was found set aside"),
            (false, None) => (GONE, "its file is gone"),
        };
        let damage = Damage { revision: held.revision, package: package.id, code, detail: detail.to_owned() };
        self.note_damage(&mut deliveries, key, &damage)?;
        Ok(Some(damage))
    }

    /// What is set aside of a Distribution and waits for the Channel's next firing.
    pub(super) fn aside(&self, key: &Key) -> Result<Option<SetAside>, Error> {
        Ok(self.records.get(&aside_key(key))?)
    }

    /// A delivery that goes on from what is kept of it.
    pub(super) fn new_delivery(&self, fleet: KeyHash, distribution: DistributionId) -> Result<Delivery, Error> {
        let floor = self.floors.get(&fleet, &distribution);
        // What was signed under a certificate that this one took over from gets a new root first.
        let held = self.held(&fleet, &distribution)?;
        let verified = match held.as_ref().map(|held| (held.revision, held.newest())) {
            Some((revision, Some(newest))) => {
                wait(self.depot.info(newest.id))?.filter(|info| info.root.distributor == fleet).map(|_| revision)
            }
            Some((revision, None)) => Some(revision),
            None => None,
        };
        let mut delivery = Delivery::new(floor, verified, Limits::DEFAULT);
        if let Some(aside) = self.aside(&(fleet, distribution))? {
            delivery.set_aside(aside.revision, aside.firing.and_then(|firing| firing.parse().ok()));
        }
        Ok(delivery)
    }

    /// Notes whose offer was taken last, durably, so that a restart does not make a second attempt of it.
    pub(super) fn remember_firing(&self, key: &Key, firing: FiringId) -> Result<(), Error> {
        if self.last_firing(key)? == Some(firing) {
            return Ok(());
        }
        Ok(self.records.put(&firing_key(key), &firing.to_string())?)
    }

    pub(super) fn last_firing(&self, key: &Key) -> Result<Option<FiringId>, Error> {
        let firing: Option<String> = self.records.get(&firing_key(key))?;
        Ok(firing.and_then(|firing| firing.parse().ok()))
    }

    /// The index of a package that lies set aside, if that part of it is whole: then it is not fetched again. `judge`
    /// decides about its root as about one that is fetched.
    pub(super) fn index_set_aside(
        &self,
        key: &Key,
        package: &PackageRef,
        judge: impl Fn(&Root, &[u8], &Signature) -> Result<Opening, Error>,
    ) -> Option<OpenPackage> {
        let aside = self.aside(key).ok()??;
        let held = self.noted_held(key).ok()??;
        let place = held.package(&aside.package).filter(|aside| aside.id == package.id)?.place()?;
        let file = self.depot.leftover_file(&place)?;
        let mut judge = |found: &Root, bytes: &[u8], signature: &Signature| judge(found, bytes, signature);
        let limits = Limits::DEFAULT;
        let index = match package.carried {
            Carried::Baseline { .. } => OpenPackage::Baseline(read_index(&file, &limits, &mut judge).ok()?),
            Carried::Delta { .. } => OpenPackage::Delta(read_delta_index(&file, &limits, &mut judge).ok()?),
        };
        (index.blind().id() == package.id && index.blind().bytes() == package.bytes).then_some(index)
    }

    /// What a person is told of the damage that `error` speaks of, which the package `id` has; `None` where it speaks
    /// of something else. Without an index, the error is that of opening the package.
    pub(super) fn damage_of(&self, index: Option<&BlindIndex>, error: &Error, id: PackageId) -> Option<String> {
        let opened = if index.is_some() { Opened::Yes } else { Opened::No };
        if !is_damaged(error, opened) {
            return None;
        }
        let threads = self.threads();
        let frames = index.zip(self.depot.open_file(id).ok());
        let frames = frames.and_then(|(index, file)| damaged_frames(index, &*file, threads).ok()).unwrap_or_default();
        Some(if frames.is_empty() { error.to_string() } else { name_frames(&frames) })
    }

    pub(super) fn threads(&self) -> usize {
        self.settings.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from)
    }
}

impl SetAside {
    /// What people are told.
    pub(super) fn trouble(&self) -> String {
        trouble(&self.code, &self.detail)
    }

    pub(super) fn error(&self) -> SubscriberError {
        SubscriberError::SetAside { revision: self.revision, detail: self.detail.clone() }
    }
}

fn trouble(code: &str, detail: &str) -> String {
    if code == wire_code::CORRUPT {
        return format!("{code}: {detail} stayed damaged; the Channel's next firing is awaited");
    }
    format!("{code}: {detail}; the Channel's next firing is awaited")
}

/// `frame 7`, `frames 7, 9`, or how many.
pub(super) fn name_frames(frames: &[u64]) -> String {
    let named = frames.iter().map(ToString::to_string).collect::<Vec<_>>();
    match named.len() {
        1 => format!("frame {} is damaged", named[0]),
        count if count <= Limits::DEFAULT.damaged_frames_named_max => {
            format!("frames {} are damaged", named.join(", "))
        }
        count => format!("{count} frames are damaged, the first is {}", named[0]),
    }
}

pub(super) fn aside_key((fleet, distribution): &Key) -> String {
    format!("aside/{fleet}/{distribution}")
}

pub(super) fn firing_key((fleet, distribution): &Key) -> String {
    format!("fired/{fleet}/{distribution}")
}
