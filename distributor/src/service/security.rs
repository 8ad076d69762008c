//! Invites, tokens and certificates.

use std::time::Duration;

use ted_cli::error::{ApiError, code};
use ted_core::security::{Certificate, Usage};

use super::Service;
use crate::api::{
    CertificateShow, CertificateView, Certificates, InviteCreate, InviteFile, RevokedView, RootFile, TokenCreate,
    TokenView,
};

impl Service {
    pub(super) async fn invite(&self, request: InviteCreate) -> Result<InviteFile, ApiError> {
        let InviteCreate { name, channels, mut changes, endpoints, expires_ms } = request;
        changes.into_channels.extend(channels.iter().cloned());
        self.distributor().ensure_subscriber(&name, changes).await?;
        let life = Duration::from_millis(expires_ms);
        let issued = self.distributor().invite_for(life, &name, &channels, &endpoints).await?;
        Ok(InviteFile { name, expires: issued.expires.into(), text: issued.text })
    }

    pub(super) async fn create_token(&self, request: TokenCreate) -> Result<TokenView, ApiError> {
        let life = Duration::from_millis(request.expires_ms);
        let issued = self.distributor().create_token(request.uses, life).await?;
        Ok(TokenView { token: issued.token, uses: issued.uses, expires: issued.expires.into() })
    }

    pub(super) async fn export_certificate(&self) -> Result<RootFile, ApiError> {
        let distributor = self.distributor();
        Ok(RootFile {
            file_name: distributor.root().file_name(),
            pem: distributor.certificate_pem(),
            fingerprint: distributor.fingerprint(),
        })
    }

    pub(super) async fn list_certificates(&self) -> Result<Certificates, ApiError> {
        let certificates = self.distributor().certificates().iter().map(CertificateView::of).collect();
        let revoked = self.distributor().revoked().into_iter().map(RevokedView::from).collect();
        Ok(Certificates { certificates, revoked, subscribers: self.certificate_pairs().await? })
    }

    pub(super) async fn show_certificate(&self, request: CertificateShow) -> Result<CertificateView, ApiError> {
        let wanted = request.serial.to_ascii_lowercase();
        let mut found = self.list_certificates().await?.certificates;
        found.retain(|certificate| certificate.serial.starts_with(&wanted));
        match (found.pop(), found.len()) {
            (Some(certificate), 0) => Ok(certificate),
            (Some(_), others) => Err(refuse(format!("the serial numbers of {} begin with `{wanted}`", others + 1))),
            (None, _) => Err(refuse(format!("no certificate's serial number begins with `{wanted}`"))),
        }
    }
}

fn refuse(message: String) -> ApiError {
    ApiError::new(code::STATE, message).with_remedy("`certificate list` shows the serial numbers.")
}

impl CertificateView {
    pub(super) fn of(certificate: &Certificate) -> Self {
        let renewed = (certificate.usage() != Usage::Authority).then(|| certificate.renew_at().into());
        Self {
            name: certificate.name().clone(),
            usage: certificate.usage().to_string(),
            serial: certificate.serial_hex(),
            fingerprint: certificate.key_hash().fingerprint(),
            not_before: certificate.not_before().into(),
            not_after: certificate.not_after().into(),
            renewed,
            thumbprint: certificate.thumbprint(),
        }
    }
}
