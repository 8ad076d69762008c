//! Distributions: extracting and verifying them by hand, and where they go.

use ted_cli::api::Done;
use ted_cli::error::ApiError;
use ted_cli::units::Time;
use ted_core::id::Revision;
use ted_core::subscriber::{DistributionRow, ExtractionRow, HookRule, PreviewRow, TargetRow, TargetRule, VerifyRow};

use super::Service;
use crate::api::{
    DistributionExtract, DistributionPreview, DistributionResume, DistributionRollback, DistributionVerify,
    DistributionView, Extracted, ExtractedView, FailedView, PlaceView, PreviewView, Previews, RefusedView, TargetSet,
    TargetUnset, Targets, Verified, VerifiedView, WaitsView,
};

impl Service {
    pub(super) async fn extract(&self, request: DistributionExtract) -> Result<Extracted, ApiError> {
        let hooks = if request.no_hooks { HookRule::Skip } else { HookRule::Run };
        let mut rows = self.subscriber().extract_each(request.distribution.as_ref(), hooks).await?;
        if rows.len() == 1
            && let Some((_, done)) = rows.pop()
        {
            return Ok(Extracted { extracted: vec![done?.into()], failed: vec![] });
        }
        let mut answer = Extracted::default();
        for (distribution, done) in rows {
            match done {
                Ok(row) => answer.extracted.push(row.into()),
                Err(error) => {
                    let error = ApiError::from(error);
                    answer.failed.push(FailedView { distribution, code: error.code, reason: error.message });
                }
            }
        }
        Ok(answer)
    }

    pub(super) async fn preview(&self, request: DistributionPreview) -> Result<Previews, ApiError> {
        let rows = self.subscriber().preview(request.distribution.as_ref()).await?;
        Ok(Previews { previews: rows.into_iter().map(Into::into).collect() })
    }

    pub(super) async fn rollback(&self, request: DistributionRollback) -> Result<Extracted, ApiError> {
        let row = self.subscriber().rollback(&request.distribution).await?;
        Ok(Extracted { extracted: vec![row.into()], failed: vec![] })
    }

    pub(super) async fn resume(&self, request: DistributionResume) -> Result<Done, ApiError> {
        self.subscriber().resume(&request.distribution).await?;
        Ok(Done {})
    }

    pub(super) async fn verify(&self, request: DistributionVerify) -> Result<Verified, ApiError> {
        let distribution = request.distribution.as_ref();
        let rows = match request.repair {
            true => self.subscriber().repair(distribution).await?,
            false => self.subscriber().verify(distribution).await?,
        };
        Ok(Verified { verified: rows.into_iter().map(Into::into).collect() })
    }

    pub(super) async fn set_target(&self, request: TargetSet) -> Result<Done, ApiError> {
        self.subscriber().set_target(&request.distribution, Some(&request.target)).await?;
        Ok(Done {})
    }

    pub(super) async fn unset_target(&self, request: TargetUnset) -> Result<Done, ApiError> {
        self.subscriber().set_target(&request.distribution, None).await?;
        Ok(Done {})
    }

    pub(super) async fn list_targets(&self) -> Result<Targets, ApiError> {
        let rows = self.subscriber().targets().await?;
        Ok(Targets { targets: rows.into_iter().map(Into::into).collect() })
    }
}

impl From<DistributionRow> for DistributionView {
    fn from(row: DistributionRow) -> Self {
        Self {
            distributor: row.distributor,
            name: row.distribution,
            offered: row.offered.map(|revision| revision.number()),
            extracted: row.extracted.map(|revision| revision.number()),
            stage: row.stage,
            done_bytes: row.bytes,
            total_bytes: row.bytes_total,
            target: row.target,
            mode: row.mode,
            trouble: row.trouble,
            at: row.at.map(Time),
            checked: row.checked.map(Time),
            waits: row.waits.and_then(WaitsView::of),
            hooks: row.hooks,
        }
    }
}

impl From<ExtractionRow> for ExtractedView {
    fn from(row: ExtractionRow) -> Self {
        let summary = row.summary;
        Self {
            distributor: row.distributor,
            distribution: row.distribution,
            revision: row.revision.number(),
            target: row.target,
            mode: row.mode,
            files_written: summary.files_written,
            bytes_written: summary.bytes_written,
            links_made: summary.links_made,
            folders_made: summary.folders_made,
            unchanged: summary.unchanged,
            not_kept: summary.not_kept.count,
            not_kept_first: summary.not_kept.first.iter().map(|(path, what)| format!("{path}: {what}")).collect(),
            deltas: row.deltas,
            fell_back: row.fell_back,
            hooks: row.hooks,
            local_changes: summary.local_changes.into(),
            kept: summary.kept.into(),
            deleted: summary.deleted.into(),
            left: summary.left.into(),
        }
    }
}

impl From<PreviewRow> for PreviewView {
    fn from(row: PreviewRow) -> Self {
        let told = row.preview;
        Self {
            distributor: row.distributor,
            distribution: row.distribution,
            revision: row.revision.number(),
            target: row.target,
            mode: row.mode,
            interrupted: told.interrupted,
            added: told.added.into(),
            updated: told.updated.into(),
            deleted: told.deleted.into(),
            local_changes: told.local_changes.into(),
            kept: told.kept.into(),
            left: told.left.into(),
            refused: told
                .refused
                .into_iter()
                .map(|(code, reason)| RefusedView { code: code.to_owned(), reason })
                .collect(),
            unchanged: told.unchanged,
            bytes: told.bytes,
            current: told.current.map(Revision::number),
            releases_gone: told.releases_gone.into_iter().map(Revision::number).collect(),
        }
    }
}

impl From<VerifyRow> for VerifiedView {
    fn from(row: VerifyRow) -> Self {
        Self {
            distributor: row.distributor,
            distribution: row.distribution,
            revision: row.revision.number(),
            damaged: row.fault.into_iter().collect(),
            set_aside: row.set_aside,
            mended: row.mended,
            different: row.different.iter().map(|found| format!("{}: {}", found.path, found.what)).collect(),
        }
    }
}

impl From<TargetRow> for PlaceView {
    fn from(row: TargetRow) -> Self {
        let because = match row.rule {
            TargetRule::Configured => "configuration",
            TargetRule::Set => "target set",
            TargetRule::Proposed => "proposed",
            TargetRule::Default => "default",
        };
        let (target, trouble) = match row.target {
            Ok(target) => (Some(target), None),
            Err(reason) => (None, Some(reason)),
        };
        Self { distribution: row.distribution, target, because: because.to_owned(), mode: row.mode, trouble }
    }
}
