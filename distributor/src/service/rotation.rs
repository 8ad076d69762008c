//! Changing what the Distributor is known by, and going back to an earlier revision.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use ted_cli::api::{Operation as _, handle};
use ted_cli::error::ApiError;
use ted_cli::files;
use ted_core::distributor::{RekeyReport, Renew};
use ted_core::name::NodeName;

use super::{Service, Settings, builder};
use crate::api::{
    CertificateCancel, CertificateCorrectClock, CertificateFinalize, CertificateRekey, CertificateRenew,
    CertificateReplace, CertificateView, ClockView, RekeyView, Renewed, ReplacementView,
};

impl Service {
    pub(super) async fn rotation_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            CertificateRenew::NAME => handle(body, |_: CertificateRenew| self.renew()).await,
            CertificateReplace::NAME => handle(body, |_: CertificateReplace| self.replace()).await,
            CertificateFinalize::NAME => handle(body, |it| self.finalize(it)).await,
            CertificateCancel::NAME => handle(body, |_: CertificateCancel| self.cancel_replacement()).await,
            CertificateRekey::NAME => handle(body, |it: CertificateRekey| self.rekey(it.name)).await,
            CertificateCorrectClock::NAME => handle(body, |_: CertificateCorrectClock| self.correct_clock()).await,
            _ => self.revision_operation(operation, body).await,
        }
    }

    /// New keys for a Distributor whose keystore is lost.
    ///
    /// # Errors
    /// What the library says of the data directory.
    pub(crate) async fn rekey_lost(settings: &Settings, name: Option<NodeName>) -> Result<RekeyView, ApiError> {
        let mut builder = builder(settings)?;
        if let Some(name) = name {
            builder = builder.name(name);
        }
        let (distributor, report) = builder.open_with_new_keys().await?;
        Self::of(distributor, settings.clone()).rekeyed(report)
    }

    async fn renew(&self) -> Result<Renewed, ApiError> {
        let renewed = self.distributor().renew(Renew::All).await?;
        Ok(Renewed { certificates: renewed.iter().map(CertificateView::of).collect() })
    }

    async fn replace(&self) -> Result<ReplacementView, ApiError> {
        Ok(ReplacementView { report: self.distributor().replace().await? })
    }

    async fn finalize(&self, request: CertificateFinalize) -> Result<ReplacementView, ApiError> {
        let grace = Duration::from_millis(request.grace_ms);
        let report = self.distributor().finalize_replacement(grace).await?;
        self.rewrite_certificate()?;
        Ok(ReplacementView { report })
    }

    async fn cancel_replacement(&self) -> Result<ReplacementView, ApiError> {
        Ok(ReplacementView { report: self.distributor().cancel_replacement().await? })
    }

    async fn rekey(&self, name: Option<NodeName>) -> Result<RekeyView, ApiError> {
        let before = self.data_dir().join(self.distributor().root().file_name());
        let report = self.distributor().rekey(name.as_ref()).await?;
        let view = self.rekeyed(report)?;
        if before != view.certificate {
            // A certificate that speaks for nobody any more would only be carried by mistake.
            let _ = std::fs::remove_file(before);
        }
        Ok(view)
    }

    fn rekeyed(&self, report: RekeyReport) -> Result<RekeyView, ApiError> {
        Ok(RekeyView { report, certificate: self.rewrite_certificate()? })
    }

    async fn correct_clock(&self) -> Result<ClockView, ApiError> {
        Ok(ClockView { time: self.distributor().correct_clock().await?.into() })
    }

    /// Puts the present certificate beside the data, in the place of the one before it.
    fn rewrite_certificate(&self) -> Result<PathBuf, ApiError> {
        let path = self.data_dir().join(self.distributor().root().file_name());
        files::replace(&path, self.distributor().certificate_pem().as_bytes())?;
        Ok(path)
    }
}
