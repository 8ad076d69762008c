//! A Distributor's own deltas: one that is doubted or gone is checked before a firing, and made again from the two baselines
//! where both are kept. Else it is not offered any more, and who needs it fetches the baseline.

use serde::{Deserialize, Serialize};

use crate::distributor::deltas::{NewBaseline, OldBaseline};
use crate::distributor::events::DistributorEvent;
use crate::distributor::revisions::KeptPackages;
use crate::distributor::state::State;
use crate::error::Error;
use crate::id::{PackageId, Revision, UnixMillis};
use crate::model::Distribution;
use crate::name::NodeName;
use crate::node::{Opened, is_damaged, wait};
use crate::package::{PackageKind, is_damage, verify_frames};
use crate::store::{Depot as _, PackageInfo};

/// The code of an own delta that was damaged and was made again.
const REMADE: &str = "TED-1890";

/// The code of an own delta that was damaged and is not offered any more.
const DROPPED: &str = "TED-1891";

/// Why a delta is not to be trusted before it was checked, as the catalog keeps it.
#[derive(Serialize, Deserialize)]
struct DeltaDoubt {
    /// Whose receipt raised it.
    reported_by: Option<NodeName>,
    at: UnixMillis,
}

impl State {
    /// A Subscriber says that a delta of this Distribution arrived damaged: it is checked before the next firing. Durable
    /// when this returns. Says whether the package is such a delta.
    pub(super) fn doubt_delta(
        &self,
        distribution: &Distribution,
        package: PackageId,
        reported_by: Option<&NodeName>,
    ) -> Result<bool, Error> {
        let info = wait(self.depot.info(package))?;
        let is_own =
            |info: &PackageInfo| info.root.distribution == distribution.id && info.root.kind != PackageKind::Baseline;
        if !info.as_ref().is_some_and(is_own) {
            return Ok(false);
        }
        let doubt = DeltaDoubt { reported_by: reported_by.cloned(), at: self.now() };
        self.records.put(&doubt_key(distribution, &package), &doubt)?;
        Ok(true)
    }

    /// Checks the deltas of the window that are doubted or whose file is gone, and puts things right. Says in sentences what
    /// was done.
    pub(super) fn make_deltas_sure(&self, distribution: &Distribution, newest: Revision) -> Result<Vec<String>, Error> {
        let mut told = vec![];
        let kept = self.kept_packages(distribution);
        for info in kept.window(newest, distribution.max_revisions) {
            let key = doubt_key(distribution, &info.id);
            let doubted = self.records.get::<DeltaDoubt>(&key)?.is_some();
            let gone = self.depot.path_of(info.id).is_none_or(|path| !path.is_file());
            if !doubted && !gone {
                continue;
            }
            if let Some(damage) = self.damage_of_delta(info)? {
                told.push(self.mend_delta(distribution, &kept, info, &damage)?);
            } else {
                tracing::info!(distribution = %distribution.name, revision = %info.root.revision, "the own delta was checked, and is whole");
            }
            self.records.delete(&key)?;
        }
        self.forget_delta_doubts(distribution)?;
        Ok(told)
    }

    /// Forgets the doubts about deltas that are not here any more.
    fn forget_delta_doubts(&self, distribution: &Distribution) -> Result<(), Error> {
        for key in self.records.keys(&doubts_prefix(distribution))? {
            let package = key.rsplit_once('/').and_then(|(_, package)| package.parse().ok());
            let is_here = match package {
                Some(package) => wait(self.depot.info(package))?.is_some(),
                None => false,
            };
            if !is_here {
                self.records.delete(&key)?;
            }
        }
        Ok(())
    }

    fn damage_of_delta(&self, info: &PackageInfo) -> Result<Option<String>, Error> {
        let (index, file) = match self.open_own_delta(info.id) {
            Ok(opened) => opened,
            Err(error) if is_damaged(&error, Opened::No) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        match verify_frames(index.blind(), &*file, 1, &|_| {}) {
            Ok(()) => Ok(None),
            Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn mend_delta(
        &self,
        distribution: &Distribution,
        kept: &KeptPackages,
        info: &PackageInfo,
        damage: &str,
    ) -> Result<String, Error> {
        let (name, revision) = (&distribution.name, info.root.revision);
        tracing::error!(distribution = %name, %revision, damage, "an own delta is damaged");
        let detail = format!("its delta: {damage}");
        self.events.emit(DistributorEvent::OwnCopyDamaged { distribution: name.clone(), revision, detail });
        // Nobody is offered it any more; who reads it now may finish.
        wait(self.depot.delete(info.id))?;
        let told = match self.make_delta_again(distribution, kept, info) {
            Ok(true) => format!("{REMADE}: the delta to revision {revision} was damaged ({damage}); it was made again"),
            Ok(false) => format!(
                "{DROPPED}: the delta to revision {revision} was damaged ({damage}); it is not offered any more, because a \
                 baseline that it was made from is not kept"
            ),
            Err(reason) => format!(
                "{DROPPED}: the delta to revision {revision} was damaged ({damage}); it is not offered any more: {reason}"
            ),
        };
        tracing::warn!(distribution = %name, %revision, "{told}");
        self.find_newest_again(distribution)?;
        self.forget_grants()?;
        Ok(told)
    }

    /// Makes a delta again, if both baselines are kept.
    fn make_delta_again(
        &self,
        distribution: &Distribution,
        kept: &KeptPackages,
        info: &PackageInfo,
    ) -> Result<bool, String> {
        let told = |error: Error| error.to_string();
        let revision = info.root.revision;
        let Some(base) = kept.delta_package(revision).map(|delta| delta.base) else { return Ok(false) };
        let Some((from, to)) = kept.baseline(base).zip(kept.baseline(revision)) else { return Ok(false) };
        let (old_index, old_file) = self.open_own(from.id).map_err(told)?;
        let (index, file) = self.open_own(to.id).map_err(told)?;
        let options = self.build_options(distribution, revision, self.now()).map_err(told)?;
        let old = OldBaseline { revision: base, index: &old_index, file: &*old_file };
        self.add_delta(distribution, &old, &NewBaseline { index: &index, file: &*file, options: &options })?;
        Ok(true)
    }
}

fn doubt_key(distribution: &Distribution, package: &PackageId) -> String {
    format!("{}{package}", doubts_prefix(distribution))
}

fn doubts_prefix(distribution: &Distribution) -> String {
    format!("doubt-delta/{}/", distribution.id)
}
