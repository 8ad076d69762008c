//! Requests that were carried here, and the keystore.

use ted_cli::api::Done;
use ted_cli::backup::{BackupFile, NodeBackup};
use ted_cli::error::{ApiError, code};
use ted_cli::keystore::{EntryView, ImportParts, KeystoreDetail, KeystoreImport, KeystoreView};
use zeroize::Zeroizing;

use super::Service;
use crate::api::{CertificateSign, IssuedView, SigningView};

impl Service {
    pub(super) async fn sign(&self, request: CertificateSign) -> Result<SigningView, ApiError> {
        let CertificateSign { requests, fingerprint, channels } = request;
        let seen = self.distributor().look_at_requests(&requests).await?;
        let mut issued = vec![];
        if let Some(fingerprint) = fingerprint {
            let signed = self.distributor().sign_requests(&requests, &fingerprint, &channels).await?;
            issued = signed.certificates;
        }
        let view = |certificate: ted_core::security::Certificate| IssuedView {
            file_name: format!("{}.{}.cer", certificate.name().file_stem(), certificate.usage()),
            pem: certificate.pem(),
        };
        Ok(SigningView {
            name: seen.name,
            fingerprint: seen.fingerprint,
            registered: seen.is_registered,
            replaces: seen.replaces,
            issued: issued.into_iter().map(view).collect(),
        })
    }

    pub(super) async fn back_up(&self, request: NodeBackup) -> Result<BackupFile, ApiError> {
        Ok(BackupFile { bytes: self.distributor().backup(Zeroizing::new(request.passphrase)).await? })
    }

    pub(super) async fn list_keystore(&self) -> Result<KeystoreView, ApiError> {
        Ok(KeystoreView::of(self.distributor().keystore().await?))
    }

    pub(super) async fn show_keystore(&self, what: &str) -> Result<KeystoreDetail, ApiError> {
        KeystoreDetail::meant(self.distributor().keystore().await?, what)
    }

    pub(super) async fn import(&self, request: KeystoreImport) -> Result<KeystoreDetail, ApiError> {
        let ImportParts { files, password, name } = request.into_parts();
        let entry = self.distributor().import_https(files, password, name).await?;
        Ok(KeystoreDetail { entries: vec![EntryView::from(entry)] })
    }

    pub(super) async fn remove_import(&self) -> Result<Done, ApiError> {
        if self.distributor().remove_https().await? {
            return Ok(Done {});
        }
        Err(ApiError::new(code::STATE, "nothing was imported for HTTPS").with_remedy("Nothing is to be done."))
    }
}
