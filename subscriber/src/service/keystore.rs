//! The keystore.

use ted_cli::api::Done;
use ted_cli::backup::{BackupFile, NodeBackup};
use ted_cli::error::{ApiError, code};
use ted_cli::keystore::{EntryView, ImportParts, KeystoreDetail, KeystoreImport, KeystoreView};
use zeroize::Zeroizing;

use super::Service;

impl Service {
    pub(super) async fn back_up(&self, request: NodeBackup) -> Result<BackupFile, ApiError> {
        Ok(BackupFile { bytes: self.subscriber().backup(Zeroizing::new(request.passphrase)).await? })
    }

    pub(super) async fn list_keystore(&self) -> Result<KeystoreView, ApiError> {
        Ok(KeystoreView::of(self.subscriber().keystore().await?))
    }

    pub(super) async fn show_keystore(&self, what: &str) -> Result<KeystoreDetail, ApiError> {
        KeystoreDetail::meant(self.subscriber().keystore().await?, what)
    }

    pub(super) async fn import(&self, request: KeystoreImport) -> Result<KeystoreDetail, ApiError> {
        let ImportParts { files, password, name } = request.into_parts();
        let entry = self.subscriber().import_https(files, password, name).await?;
        Ok(KeystoreDetail { entries: vec![EntryView::from(entry)] })
    }

    pub(super) async fn remove_import(&self) -> Result<Done, ApiError> {
        if self.subscriber().remove_https().await? {
            return Ok(Done {});
        }
        Err(ApiError::new(code::STATE, "nothing was imported for HTTPS").with_remedy("Nothing is to be done."))
    }
}
