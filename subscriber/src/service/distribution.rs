//! Distributions: extracting and verifying them by hand, and where they go.

use ted_cli::api::Done;
use ted_cli::error::ApiError;
use ted_cli::units::Time;
use ted_core::subscriber::{DistributionRow, ExtractionRow, TargetRow, TargetRule, VerifyRow};

use super::Service;
use crate::api::{
    DistributionExtract, DistributionResume, DistributionRollback, DistributionVerify, DistributionView, Extracted,
    ExtractedView, PlaceView, TargetSet, TargetUnset, Targets, Verified, VerifiedView,
};

impl Service {
    pub(super) async fn extract(&self, request: DistributionExtract) -> Result<Extracted, ApiError> {
        let rows = self.subscriber().extract(request.distribution.as_ref()).await?;
        Ok(Extracted { extracted: rows.into_iter().map(Into::into).collect() })
    }

    pub(super) async fn rollback(&self, request: DistributionRollback) -> Result<Extracted, ApiError> {
        let row = self.subscriber().rollback(&request.distribution).await?;
        Ok(Extracted { extracted: vec![row.into()] })
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
            trouble: row.trouble,
            at: row.at.map(Time),
            checked: row.checked.map(Time),
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
            files_written: summary.files_written,
            bytes_written: summary.bytes_written,
            links_made: summary.links_made,
            folders_made: summary.folders_made,
            unchanged: summary.unchanged,
            local_changes: summary.local_changes.iter().map(ToString::to_string).collect(),
            not_kept: summary.not_kept.count,
            not_kept_first: summary.not_kept.first.iter().map(|(path, what)| format!("{path}: {what}")).collect(),
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
        Self { distribution: row.distribution, target, because: because.to_owned(), trouble }
    }
}
