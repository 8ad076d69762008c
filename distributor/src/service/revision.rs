//! A Distribution's revisions.

use serde_json::Value;
use ted_cli::api::{self, Operation as _, handle};
use ted_cli::error::ApiError;

use super::Service;
use crate::api::{
    DistributionHistory, DistributionRevision, DistributionRollback, DistributionView, HistoryView, RevisionFiles,
};

impl Service {
    pub(super) async fn revision_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            DistributionRollback::NAME => handle(body, |it| self.rollback(it)).await,
            DistributionHistory::NAME => handle(body, |it| self.history(it)).await,
            DistributionRevision::NAME => handle(body, |it| self.revision_files(it)).await,
            _ => Err(api::unknown_operation(operation)),
        }
    }

    async fn rollback(&self, request: DistributionRollback) -> Result<DistributionView, ApiError> {
        let DistributionRollback { name, to } = request;
        let to = match to {
            Some(choice) => Some(self.distributor().revision_packages(&name, &choice).await?.revision),
            None => None,
        };
        self.distributor().rollback(&name, to).await?;
        self.show_distribution(name).await
    }

    async fn history(&self, request: DistributionHistory) -> Result<HistoryView, ApiError> {
        let reports = self.distributor().history(&request.name).await?;
        Ok(HistoryView { distribution: request.name, revisions: reports.into_iter().map(Into::into).collect() })
    }

    async fn revision_files(&self, request: DistributionRevision) -> Result<RevisionFiles, ApiError> {
        let packages = self.distributor().revision_packages(&request.name, &request.revision).await?;
        Ok(RevisionFiles { revision: packages.revision.number(), files: packages.files })
    }
}
