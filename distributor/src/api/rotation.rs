//! Renewing what the Distributor uses itself.

use serde::{Deserialize, Serialize};

use super::Certificates;

/// Issues the Distributor's signing and TLS certificates anew, due or not.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateRenew {}

ted_cli::operations! {
    CertificateRenew => "certificate/renew" -> Certificates,
}
