//! Revoking certificates, and setting things at Subscribers.

use serde_json::Value;
use ted_cli::api::{Operation as _, handle};
use ted_cli::error::{ApiError, from_library};
use ted_core::distributor::{RevokedRow, SettingChanges};
use ted_core::security::RevocationReason;

use super::Service;
use crate::api::{CertificateRevoke, Revoked, RevokedView, SettingView, SettingsView, SubscriberConfigure};

impl Service {
    pub(super) async fn policy_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            CertificateRevoke::NAME => handle(body, |it| self.revoke(it)).await,
            SubscriberConfigure::NAME => handle(body, |it| self.configure(it)).await,
            _ => self.rotation_operation(operation, body).await,
        }
    }

    async fn revoke(&self, request: CertificateRevoke) -> Result<Revoked, ApiError> {
        let reason: RevocationReason = request.reason.parse().map_err(from_library)?;
        let rows = self.distributor().revoke(&request.what, reason).await?;
        Ok(Revoked { revoked: rows.into_iter().map(RevokedView::from).collect() })
    }

    async fn configure(&self, request: SubscriberConfigure) -> Result<SettingsView, ApiError> {
        let SubscriberConfigure { name, set, unset } = request;
        let shown = self.distributor().configure(name.as_ref(), SettingChanges { set, unset }).await?;
        let view =
            |(setting, value): (&_, &str)| SettingView { setting: Clone::clone(setting), value: value.to_owned() };
        Ok(SettingsView {
            name: shown.name,
            settings: shown.settings.iter().map(view).collect(),
            sequence: shown.sequence,
            in_force: shown.in_force,
        })
    }
}

impl From<RevokedRow> for RevokedView {
    fn from(row: RevokedRow) -> Self {
        let RevokedRow { name, fingerprint, serials, since, reason } = row;
        Self { name, fingerprint, serials, since: since.into(), reason }
    }
}
