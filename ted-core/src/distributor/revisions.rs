//! Which packages carry a Distribution's revisions: the window of deltas that a statement names beside the newest
//! baseline, the way to any revision that is kept, and what has to be kept for both.

use std::collections::{BTreeMap, BTreeSet};

use crate::distributor::error::DistributorError;
use crate::distributor::report::{BuiltRevision, DeltaPackage};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{KeyHash, PackageId, Revision};
use crate::model::Distribution;
use crate::node::keep_packages;
use crate::package::PackageKind;
use crate::security::{Carried, PackageRef};
use crate::store::PackageInfo;

/// The packages of one Distribution, by the revision that they hold or lead to.
#[derive(Debug, Default)]
pub(super) struct KeptPackages {
    baselines: BTreeMap<Revision, PackageInfo>,
    deltas: BTreeMap<Revision, Delta>,
}

#[derive(Debug)]
struct Delta {
    base: Revision,
    info: PackageInfo,
}

/// How a revision is put together: a baseline, and the deltas that lead on from it.
#[derive(Debug, Clone)]
pub(super) struct Way<'a> {
    pub(super) baseline: &'a PackageInfo,
    /// In the order in which they are applied.
    pub(super) deltas: Vec<&'a PackageInfo>,
}

impl KeptPackages {
    /// Of `packages` those that the certificate with this key signed: nobody else's can be offered or opened.
    pub(super) fn of(packages: Vec<PackageInfo>, distributor: &KeyHash) -> Self {
        let mut kept = Self::default();
        for info in packages.into_iter().filter(|info| info.root.distributor == *distributor) {
            match info.root.kind {
                PackageKind::Baseline => drop(kept.baselines.insert(info.root.revision, info)),
                PackageKind::Delta { base } => drop(kept.deltas.insert(info.root.revision, Delta { base, info })),
            }
        }
        kept
    }

    pub(super) fn baseline(&self, revision: Revision) -> Option<&PackageInfo> {
        self.baselines.get(&revision)
    }

    pub(super) fn delta(&self, revision: Revision) -> Option<&PackageInfo> {
        self.deltas.get(&revision).map(|delta| &delta.info)
    }

    /// The deltas that a statement about `newest` names, oldest first: the newest backwards, unbroken, as long as there
    /// are fewer than `revisions_max` of them and together they have at most half of the baseline's bytes. A delta that
    /// is sealed beside a baseline that is not, or the other way round, ends it: a statement is about either.
    pub(super) fn window(&self, newest: Revision, revisions_max: u32) -> Vec<&PackageInfo> {
        let mut window = vec![];
        let Some(baseline) = self.baseline(newest) else { return window };
        let (mut at, mut bytes) = (newest, 0);
        while let Some(delta) = self.deltas.get(&at) {
            bytes += delta.info.bytes;
            let fits = window.len() + 1 < revisions_max as usize && bytes <= baseline.bytes / 2;
            if !fits || delta.info.root.is_sealed() != baseline.root.is_sealed() {
                break;
            }
            window.push(&delta.info);
            at = delta.base;
        }
        window.reverse();
        window
    }

    /// The oldest revision from which deltas of the window lead to `newest`.
    fn window_start(&self, newest: Revision, revisions_max: u32) -> Revision {
        let first = self.window(newest, revisions_max).first().map(|info| info.root.revision);
        first.and_then(|first| self.deltas.get(&first)).map_or(newest, |delta| delta.base)
    }

    /// How a revision is put together with the fewest deltas; `None` where something lacks for that.
    pub(super) fn way_to(&self, revision: Revision) -> Option<Way<'_>> {
        let (mut at, mut deltas) = (revision, vec![]);
        loop {
            if let Some(baseline) = self.baselines.get(&at) {
                deltas.reverse();
                return Some(Way { baseline, deltas });
            }
            let delta = self.deltas.get(&at)?;
            deltas.push(&delta.info);
            at = delta.base;
        }
    }

    /// The revisions that can be put together, oldest first.
    pub(super) fn revisions(&self) -> Vec<Revision> {
        let known: BTreeSet<Revision> = self.baselines.keys().chain(self.deltas.keys()).copied().collect();
        known.into_iter().filter(|revision| self.way_to(*revision).is_some()).collect()
    }

    /// The delta that leads to a revision.
    pub(super) fn delta_package(&self, revision: Revision) -> Option<DeltaPackage> {
        let delta = self.deltas.get(&revision)?;
        Some(DeltaPackage { base: delta.base, package: delta.info.id, bytes: delta.info.bytes })
    }

    /// The error for a revision that is not kept, which names those that are.
    pub(super) fn not_kept(&self, distribution: &Distribution) -> DistributorError {
        let there: Vec<_> = self.revisions().iter().map(Revision::to_string).collect();
        DistributorError::NotKept { name: distribution.name.clone(), kept: there.join(", ") }
    }

    /// What has to stay while `newest` is the newest revision, so that every revision of the window can be offered,
    /// listed, compared and gone back to:
    ///
    /// - the newest baseline and the one before it;
    /// - the baseline from which the window's start is put together, and all deltas from there on;
    /// - the oldest baseline behind the window's start: once the window has moved past it, it takes over from that one.
    fn needed(&self, newest: Revision, revisions_max: u32) -> BTreeSet<PackageId> {
        let start = self.window_start(newest, revisions_max);
        let anchor = self.way_to(start).map_or(start, |way| way.baseline.root.revision);
        let before = self.baselines.range(..newest).next_back().map(|(_, info)| info);
        let next = self.baselines.range(start..).find(|(revision, _)| **revision > start).map(|(_, info)| info);
        let baselines = [self.baseline(newest), before, self.baseline(anchor), next].into_iter().flatten();
        let deltas = self.deltas.values().filter(|delta| delta.base >= anchor).map(|delta| &delta.info);
        baselines.chain(deltas).map(|info| info.id).collect()
    }
}

impl State {
    /// The packages of a Distribution that this Distributor can offer and open.
    pub(super) fn kept_packages(&self, distribution: &Distribution) -> KeptPackages {
        let own = self.own().authority.root().key_hash();
        KeptPackages::of(self.depot.of_distribution(&distribution.id), &own)
    }

    /// The packages that carry a revision: what its statement names, and whoever may have it is granted. First the
    /// baseline, then the deltas, oldest first.
    pub(super) fn packages_to_state(&self, distribution: &Distribution, built: &BuiltRevision) -> Vec<PackageRef> {
        let kept = self.kept_packages(distribution);
        let carried = Carried::Baseline { revision: built.revision };
        let mut packages = vec![PackageRef { id: built.package, carried, bytes: built.bytes }];
        packages.extend(kept.window(built.revision, distribution.max_revisions).into_iter().map(|info| {
            let base = kept.deltas.get(&info.root.revision).map_or(info.root.revision, |delta| delta.base);
            let carried = Carried::Delta { base, revision: info.root.revision };
            PackageRef { id: info.id, carried, bytes: info.bytes }
        }));
        packages
    }

    /// Removes the packages that nobody needs any more, now that `newest` is the newest revision. What is being fetched
    /// stays, and what the last two statements name: a Subscriber may be in the middle of it.
    pub(super) fn prune_packages(&self, distribution: &Distribution, newest: Revision) -> Result<(), Error> {
        let kept = self.kept_packages(distribution);
        let mut keep = kept.needed(newest, distribution.max_revisions);
        // What the source is compared with, so that a rollback does not undo itself.
        let from_source = self.built_from_source(distribution, newest)?;
        keep.extend(from_source.and_then(|revision| kept.baseline(revision)).map(|info| info.id));
        keep.extend(self.stated_packages(distribution)?);
        let connected: BTreeSet<KeyHash> = self.links.all().into_iter().map(|(key, _)| key).collect();
        let sent = lock(&self.sent);
        let under_way = sent.iter().filter(|((key, of), sent)| {
            *of == distribution.id && connected.contains(key) && sent.bytes < sent.bytes_total
        });
        keep.extend(under_way.map(|(_, sent)| sent.package));
        drop(sent);
        keep_packages(&self.depot, &distribution.id, |info| keep.contains(&info.id) || self.depot.is_open(info.id))
    }
}

#[cfg(test)]
mod tests;
