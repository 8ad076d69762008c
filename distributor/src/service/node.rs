//! The node itself, and everything at a glance.

use ted_cli::error::ApiError;
use ted_cli::files::{self, Secrecy};
use ted_cli::units::Time;

use super::Service;
use crate::api::{DaemonView, FiringState, FiringView, NodeView, StatusView};

impl Service {
    pub(super) async fn status(&self) -> Result<StatusView, ApiError> {
        let distributor = self.distributor();
        let daemon = distributor.listening().map(|_| DaemonView {
            process: std::process::id(),
            started: Time(self.held.opened),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let status = distributor.status().await?;
        Ok(StatusView {
            node: self.node()?,
            daemon,
            distributions: self.list_distributions().await?.distributions,
            subscribers: self.list_subscribers().await?.subscribers,
            pending: distributor.pending().await?.len() as u64,
            firings: status
                .firings
                .into_iter()
                .map(FiringView::from)
                .filter(|firing| firing.state == FiringState::Open)
                .collect(),
            next_firings: status.next_firings.into_iter().map(Into::into).collect(),
            alarms: status.alarms,
        })
    }

    pub(super) fn node(&self) -> Result<NodeView, ApiError> {
        let (distributor, settings) = (self.distributor(), self.settings());
        let listen = distributor.listening().unwrap_or(settings.config.listen);
        Ok(NodeView {
            name: distributor.name().clone(),
            fingerprint: distributor.fingerprint(),
            data_dir: settings.data_dir.clone(),
            certificate: self.data_dir().join(distributor.root().file_name()),
            listen,
            advertise: distributor.endpoints()?,
        })
    }

    /// Puts the certificate beside the data, for whoever carries it to Subscribers by hand.
    pub(super) fn keep_certificate(&self) -> Result<NodeView, ApiError> {
        let node = self.node()?;
        if !node.certificate.exists() {
            let pem = self.distributor().certificate_pem();
            files::write_new(&node.certificate, pem.as_bytes(), Secrecy::Public)?;
        }
        Ok(node)
    }
}
