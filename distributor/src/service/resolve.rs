//! This Distributor's certificate at its Subscribers.

use ted_cli::error::ApiError;

use super::Service;
use crate::api::{CertificateNeeded, CertificateResolve, NeededView, PairView, ResolvingView};

impl Service {
    pub(super) async fn resolve(&self, request: CertificateResolve) -> Result<ResolvingView, ApiError> {
        Ok(ResolvingView(self.distributor().resolve(request.way, &request.subscribers).await?))
    }

    pub(super) async fn unresolved(&self, request: CertificateNeeded) -> Result<NeededView, ApiError> {
        let subscribers = self.distributor().unresolved(&request.channels, &request.subscribers).await?;
        Ok(NeededView { subscribers })
    }

    pub(super) async fn certificate_pairs(&self) -> Result<Vec<PairView>, ApiError> {
        Ok(self.distributor().certificate_pairs().await?.into_iter().map(PairView::from).collect())
    }
}
