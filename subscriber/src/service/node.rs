//! The node itself: making it, joining, and everything at a glance.

use std::net::SocketAddr;

use ted_cli::api::Done;
use ted_cli::error::{ApiError, code};
use ted_cli::units::Time;
use ted_core::name::NodeName;
use ted_core::subscriber::DistributorRow;

use super::doctor::other_name;
use super::{Service, Settings};
use crate::api::{DaemonView, DistributorView, EnrolmentView, NodeJoin, NodeRename, NodeView, StatusView};

impl Service {
    /// Makes the Subscriber and its configuration file. One that is there already stays as it is; one whose making was
    /// interrupted is completed.
    ///
    /// # Errors
    /// [`code::STATE`] where there is one already; what the library says of the data directory.
    pub(crate) async fn init(
        settings: &Settings,
        name: NodeName,
        listen: Option<SocketAddr>,
    ) -> Result<NodeView, ApiError> {
        let mut settings = settings.clone();
        settings.config.listen = listen.or(settings.config.listen);
        let file = settings.data_dir.join("subscriber.toml");
        let there = settings.data_dir.join("security").exists();
        if there && file.exists() {
            let message = format!("{} holds a Subscriber already", settings.data_dir.display());
            let remedy = format!("change {} and restart the daemon, or name another --data-dir", file.display());
            return Err(ApiError::new(code::STATE, message).with_remedy(remedy));
        }
        let service = Self::open_or_make(&settings, name).await?;
        if !file.exists() {
            ted_cli::config::write_new(&file, &settings.config)?;
        }
        Ok(service.node(None))
    }

    pub(super) async fn join(&self, request: NodeJoin) -> Result<EnrolmentView, ApiError> {
        // Before the network part: what the invite's Channels hold may begin to arrive as soon as it is enrolled.
        for (distribution, target) in &request.targets {
            self.subscriber().set_target(distribution, Some(target)).await?;
        }
        let joined = self.subscriber().join(&request.invite).await;
        self.hang_up().await;
        let (distributor, enrolment) = joined?;
        self.enrolment(distributor, &enrolment).await
    }

    pub(super) async fn rename(&self, request: NodeRename) -> Result<NodeView, ApiError> {
        if self.settings().config.name.as_ref().is_some_and(|name| *name != request.name) {
            let message = "the configuration gives this node its name";
            let remedy = format!("Write `name = \"{}\"` there and run this again.", request.name);
            return Err(ApiError::new(code::STATE, message).with_remedy(remedy));
        }
        self.subscriber().rename(&request.name).await?;
        let status = self.subscriber().status().await?;
        Ok(self.node(status.listening.as_deref().and_then(|address| address.parse().ok())))
    }

    pub(super) async fn pause_node(&self, pause: bool) -> Result<Done, ApiError> {
        match pause {
            true => self.subscriber().pause_receiving().await?,
            false => self.subscriber().resume_receiving().await?,
        }
        Ok(Done {})
    }

    pub(super) async fn status(&self) -> Result<StatusView, ApiError> {
        let status = self.subscriber().status().await?;
        let daemon = self.held.daemon.then(|| DaemonView {
            process: std::process::id(),
            started: Time(self.held.opened),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        Ok(StatusView {
            node: self.node(status.listening.as_deref().and_then(|address| address.parse().ok())),
            daemon,
            keep_package: self.settings().config.keep_package,
            on_local_change: self.settings().config.on_local_change,
            distributors: status.distributors.into_iter().map(|row| self.distributor_view(row)).collect(),
            distributions: status.distributions.into_iter().map(Into::into).collect(),
            passes_on: status.passes_on,
            traffic: status.traffic,
            paused: status.paused,
            alarms: status.alarms,
        })
    }

    fn distributor_view(&self, row: DistributorRow) -> DistributorView {
        let renamed = other_name(&row, &self.subscriber().name());
        let view = DistributorView::from(row);
        DistributorView { trouble: view.trouble.or(renamed), ..view }
    }

    fn node(&self, listening: Option<SocketAddr>) -> NodeView {
        NodeView {
            name: self.subscriber().name(),
            data_dir: self.data_dir().to_owned(),
            listen: listening.or(self.settings().config.listen),
        }
    }
}
