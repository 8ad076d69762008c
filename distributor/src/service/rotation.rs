//! Renewing what the Distributor uses itself.

use serde_json::Value;
use ted_cli::api::{self, Operation as _, handle};
use ted_cli::error::ApiError;
use ted_core::distributor::Renew;

use super::Service;
use crate::api::{CertificateRenew, CertificateView, Certificates};

impl Service {
    pub(super) async fn rotation_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            CertificateRenew::NAME => handle(body, |_: CertificateRenew| self.renew()).await,
            _ => Err(api::unknown_operation(operation)),
        }
    }

    async fn renew(&self) -> Result<Certificates, ApiError> {
        let renewed = self.distributor().renew(Renew::All).await?;
        let certificates = renewed.iter().map(CertificateView::of).collect();
        Ok(Certificates { certificates, revoked: vec![], subscribers: self.certificate_pairs().await? })
    }
}
