//! Revoking certificates, and setting things at Subscribers.

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text, list, or_dash};
use ted_cli::units::Time;
use ted_core::model::Setting;
use ted_core::name::NodeName;

/// Revokes the certificates of a Subscriber, or one certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateRevoke {
    /// A name, a thumbprint, a serial number or a key's fingerprint.
    pub(crate) what: String,
    /// `unspecified`, `key-compromise`, `lost` or `superseded`.
    pub(crate) reason: String,
}

/// Changes what is set at a Subscriber or, without a name, at all. Without a change it only asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriberConfigure {
    pub(crate) name: Option<NodeName>,
    pub(crate) set: Vec<(Setting, String)>,
    pub(crate) unset: Vec<Setting>,
}

ted_cli::operations! {
    CertificateRevoke => "certificate/revoke" -> Revoked,
    SubscriberConfigure => "subscriber/configure" -> SettingsView,
}

/// A key that was revoked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RevokedView {
    /// `None` where it is not known whose it was.
    pub(crate) name: Option<NodeName>,
    pub(crate) fingerprint: String,
    /// Serial numbers of its latest certificates.
    pub(crate) serials: Vec<String>,
    pub(crate) since: Time,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) revoked: Vec<RevokedView>,
}

impl Render for Revoked {
    fn render(&self, out: &mut Text) {
        revoked_table(&self.revoked, out);
    }
}

pub(super) fn revoked_table(revoked: &[RevokedView], out: &mut Text) {
    let columns = [
        Column::Left("REVOKED"),
        Column::Left("FINGERPRINT"),
        Column::Left("SINCE"),
        Column::Left("REASON"),
        Column::Left("SERIALS"),
    ];
    let rows = revoked.iter().map(|key| {
        vec![
            or_dash(key.name.as_ref()),
            key.fingerprint.clone(),
            key.since.to_string(),
            key.reason.clone(),
            list(&key.serials),
        ]
    });
    out.table(&columns, rows, "no key was revoked");
}

/// What is set at a Subscriber, or at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SettingsView {
    /// `None` for what is set at all.
    pub(crate) name: Option<NodeName>,
    pub(crate) settings: Vec<SettingView>,
    /// `None` while nothing was announced: nothing is set, or the Subscriber is not enrolled.
    pub(crate) sequence: Option<u64>,
    /// The Subscribers that said that it is in force there.
    pub(crate) in_force: Vec<NodeName>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SettingView {
    pub(crate) setting: Setting,
    pub(crate) value: String,
}

impl Render for SettingsView {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("SETTING"), Column::Left("VALUE")];
        let rows = self.settings.iter().map(|row| vec![row.setting.to_string(), row.value.clone()]);
        out.table(&columns, rows, "nothing is set");
        match (&self.name, self.sequence) {
            (_, None) => {}
            (Some(name), Some(_)) if self.in_force.is_empty() => out.line(format_args!("not yet in force at {name}")),
            (Some(name), Some(_)) => out.line(format_args!("in force at {name}")),
            (None, Some(_)) if self.in_force.is_empty() => out.line("not yet in force anywhere"),
            (None, Some(_)) => out.line(format_args!("in force at {}", list(&self.in_force))),
        }
    }
}
