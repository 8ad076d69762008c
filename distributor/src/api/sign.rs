//! Requests that were carried here as files.

use serde::{Deserialize, Serialize};
use ted_cli::output::{Render, Text};
use ted_core::name::{Label, NodeName};

/// Signs requests. Without a fingerprint it only says whose they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateSign {
    /// PEM texts: the two of a node, or one of a registered node.
    pub(crate) requests: Vec<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) channels: Vec<Label>,
}

ted_cli::operations! {
    CertificateSign => "certificate/sign" -> SigningView,
}

/// Whose requests they are, and what was issued.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SigningView {
    pub(crate) name: NodeName,
    /// The node prints the same.
    pub(crate) fingerprint: String,
    /// Whether the key is registered under this name already.
    pub(crate) registered: bool,
    /// The fingerprint of another key that would be registered under this name no more.
    pub(crate) replaces: Option<String>,
    /// Empty where nothing was signed.
    pub(crate) issued: Vec<IssuedView>,
}

/// A certificate that is carried back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IssuedView {
    pub(crate) file_name: String,
    pub(crate) pem: String,
}

impl Render for SigningView {
    fn render(&self, out: &mut Text) {
        out.fields([
            ("node", Some(self.name.to_string())),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("registered", Some(if self.registered { "yes" } else { "no" }.to_owned())),
            ("takes the place of", self.replaces.clone()),
        ]);
    }
}
