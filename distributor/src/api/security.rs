//! Invites, tokens and certificates.

use std::fmt;

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text};
use ted_cli::units::Time;
use ted_core::distributor::SubscriberChanges;
use ted_core::model::Endpoint;
use ted_core::name::{Label, NodeName};

use super::PairView;
use super::RevokedView;

/// Makes what a node needs to join: declares it as a Subscriber of `channels` and makes a one-time token for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteCreate {
    pub(crate) name: NodeName,
    pub(crate) channels: Vec<Label>,
    /// What else is said of it.
    #[serde(default)]
    pub(crate) changes: SubscriberChanges,
    /// Empty means where the configuration says that this Distributor is dialled.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) expires_ms: u64,
}

/// Makes a token that approves up to `uses` enrolments of any name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenCreate {
    pub(crate) uses: u32,
    pub(crate) expires_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateExport {}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateList {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateShow {
    /// A serial number, or the beginning of just one.
    pub(crate) serial: String,
}

ted_cli::operations! {
    InviteCreate => "invite/create" -> InviteFile,
    TokenCreate => "token/create" -> TokenView,
    CertificateExport => "certificate/export" -> RootFile,
    CertificateList => "certificate/list" -> Certificates,
    CertificateShow => "certificate/show" -> CertificateView,
}

/// What goes into an invite's file. It holds a token, so it prints nothing of itself.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct InviteFile {
    pub(crate) name: NodeName,
    pub(crate) expires: Time,
    pub(crate) text: String,
}

impl fmt::Debug for InviteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A token, shown once.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenView {
    pub(crate) token: String,
    pub(crate) uses: u32,
    pub(crate) expires: Time,
}

impl fmt::Debug for TokenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenView").field("uses", &self.uses).finish_non_exhaustive()
    }
}

impl Render for TokenView {
    fn render(&self, out: &mut Text) {
        out.fields([
            ("token", Some(self.token.clone())),
            ("uses", Some(self.uses.to_string())),
            ("expires", Some(self.expires.to_string())),
        ]);
    }
}

/// The Distributor's own certificate as a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RootFile {
    /// `<name>.cer`.
    pub(crate) file_name: String,
    pub(crate) pem: String,
    /// The short form of its key's hash.
    pub(crate) fingerprint: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CertificateView {
    pub(crate) name: NodeName,
    pub(crate) usage: String,
    pub(crate) serial: String,
    pub(crate) fingerprint: String,
    pub(crate) not_before: Time,
    pub(crate) not_after: Time,
    /// When it is renewed by itself; `None` for the CA certificate.
    pub(crate) renewed: Option<Time>,
    /// SHA-256 of the certificate.
    pub(crate) thumbprint: String,
}

impl Render for CertificateView {
    fn render(&self, out: &mut Text) {
        out.fields([
            ("name", Some(self.name.to_string())),
            ("usage", Some(self.usage.clone())),
            ("serial", Some(self.serial.clone())),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("valid from", Some(self.not_before.to_string())),
            ("valid until", Some(self.not_after.to_string())),
            ("renewed", self.renewed.map(|at| at.to_string())),
            ("SHA-256", Some(self.thumbprint.clone())),
        ]);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Certificates {
    pub(crate) certificates: Vec<CertificateView>,
    /// Keys that were revoked, the latest first.
    pub(crate) revoked: Vec<RevokedView>,
    /// How this Distributor's own certificate stands with each Subscriber.
    pub(crate) subscribers: Vec<PairView>,
}

impl Render for Certificates {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("SERIAL"),
            Column::Left("NAME"),
            Column::Left("USAGE"),
            Column::Left("FINGERPRINT"),
            Column::Left("VALID UNTIL"),
        ];
        let rows = self.certificates.iter().map(|certificate| {
            vec![
                certificate.serial.clone(),
                certificate.name.to_string(),
                certificate.usage.clone(),
                certificate.fingerprint.clone(),
                certificate.not_after.to_string(),
            ]
        });
        out.table(&columns, rows, "no certificates");
        if !self.revoked.is_empty() {
            out.gap();
            super::policy::revoked_table(&self.revoked, out);
        }
        out.gap();
        super::resolve::table(&self.subscribers, out);
    }
}
