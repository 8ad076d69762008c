//! Going back, as an operator's explicit act: a new revision with the content of an older one that is kept.

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::build::REVISIONS_KEPT;
use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::BuiltRevision;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::Revision;
use crate::model::Distribution;
use crate::name::Label;
use crate::node::{keep_newest, wait};
use crate::package::{Entry, PackageKind, same_but_content};
use crate::store::{Depot as _, PackageInfo, PackagePlace};

/// What the catalog keeps of a rollback, until the source has changed: its content is not built again by itself.
#[derive(Serialize, Deserialize)]
struct RolledBack {
    /// The revision that was made.
    made: Revision,
    /// The revision that was gone back from.
    from: Revision,
}

impl State {
    /// Makes a new revision with the content of the kept revision `to`, or of the one before the newest.
    pub(super) fn rollback(&self, name: &Label, to: Option<Revision>) -> Result<BuiltRevision, Error> {
        let _no_build_meanwhile = self.building.blocking_lock();
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        let newest = self.newest(&distribution)?.ok_or_else(|| DistributorError::NotBuilt(name.clone()))?;
        let info = self.to_go_back_to(&distribution, &newest, to)?;
        let now = self.now();
        let revision = self.sequences.next_revision(&distribution.id, now)?;
        let place = PackagePlace::at_distributor(&distribution.name, revision, PackageKind::Baseline);
        let resigned = self.sign_package_again(&info, revision, &place)?;
        let (index, _) = self.open_own(resigned.id)?;
        let sizes: Vec<u64> = index.catalog().iter().map(|row| row.entry.size).collect();
        let built = BuiltRevision {
            revision,
            created: now,
            package: resigned.id,
            bytes: resigned.bytes,
            content_bytes: sizes.iter().sum(),
            entries: sizes.len() as u64,
            skipped: vec![],
            frames: index.body_frames(),
            frames_copied: index.body_frames(),
        };
        self.records.put(&rolled_back_key(&distribution), &RolledBack { made: revision, from: newest.revision })?;
        self.set_newest(&distribution, &built)?;
        keep_newest(&self.depot, &distribution.id, REVISIONS_KEPT)?;
        self.forget_grants()?;
        let (from, to) = (newest.revision, info.root.revision);
        tracing::warn!(distribution = %name, %from, %to, %revision, "rolled back");
        self.events.emit(DistributorEvent::RolledBack { distribution: name.clone(), from, to, revision });
        Ok(built)
    }

    fn to_go_back_to(
        &self,
        distribution: &Distribution,
        newest: &BuiltRevision,
        to: Option<Revision>,
    ) -> Result<PackageInfo, Error> {
        let listed = wait(self.depot.list())?.into_iter();
        let mut kept: Vec<_> = listed
            .filter(|info| info.root.distribution == distribution.id && info.root.revision < newest.revision)
            .collect();
        kept.sort_by_key(|info| info.root.revision);
        let there: Vec<_> = kept.iter().map(|info| info.root.revision.to_string()).collect();
        let found = match to {
            Some(to) => kept.into_iter().find(|info| info.root.revision == to),
            None => kept.pop(),
        };
        Ok(found
            .ok_or_else(|| DistributorError::NotKept { name: distribution.name.clone(), kept: there.join(", ") })?)
    }

    /// Whether the source still is what was rolled back from: then nothing new is built, or the rollback would undo
    /// itself with the next send.
    pub(super) fn is_rolled_back(
        &self,
        distribution: &Distribution,
        newest: &BuiltRevision,
        entries: &[Entry],
    ) -> Result<bool, Error> {
        let rolled_back: Option<RolledBack> = self.records.get(&rolled_back_key(distribution))?;
        let Some(rolled_back) = rolled_back.filter(|rolled_back| rolled_back.made == newest.revision) else {
            return Ok(false);
        };
        let of_revision =
            |info: &PackageInfo| (info.root.distribution, info.root.revision) == (distribution.id, rolled_back.from);
        let Some(from) = wait(self.depot.list())?.into_iter().find(of_revision) else { return Ok(false) };
        Ok(self.open_own(from.id).is_ok_and(|(index, _)| same_but_content(index.catalog(), entries)))
    }
}

fn rolled_back_key(distribution: &Distribution) -> String {
    format!("rolled-back/{}", distribution.id)
}

impl Distributor {
    /// Makes a new revision of a Distribution with the content of an older one that is kept: `to`, or the one before the
    /// newest. What the source holds now is not built again before it changes.
    ///
    /// # Errors
    /// When there is no such Distribution, or no such revision is kept.
    pub async fn rollback(&self, name: &Label, to: Option<Revision>) -> Result<BuiltRevision, Error> {
        let name = name.clone();
        self.blocking(move |state| state.rollback(&name, to)).await
    }
}
