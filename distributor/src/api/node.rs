//! The node itself: `status` and `doctor`, and what `init` answers.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::doctor::Diagnosis;
use ted_cli::output::{Render, Text, clean, count, list};
use ted_cli::units::Time;
use ted_core::model::Endpoint;
use ted_core::name::NodeName;
use ted_core::node::Alarm;

use super::{DistributionView, FiringView, NextView, SubscriberView, distribution, firings, subscriber};

/// Everything at a glance. Without a daemon nobody is connected and nothing is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeStatus {}

/// Looks for what is wrong: permissions, certificates near their end, the port, sources that cannot be read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeDoctor {}

ted_cli::operations! {
    NodeStatus => "node/status" -> StatusView,
    NodeDoctor => "node/doctor" -> Diagnosis,
}

/// What the node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeView {
    pub(crate) name: NodeName,
    /// The short form of the CA key's hash.
    pub(crate) fingerprint: String,
    pub(crate) data_dir: PathBuf,
    /// Where its own certificate lies, `<name>.cer`.
    pub(crate) certificate: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Vec<Endpoint>,
}

impl NodeView {
    fn fields(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("distributor", Some(self.name.to_string())),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("certificate", Some(self.certificate.display().to_string())),
            ("data", Some(self.data_dir.display().to_string())),
            ("listens on", Some(self.listen.to_string())),
            ("dialled at", Some(list(&self.advertise))),
        ]
    }
}

impl Render for NodeView {
    fn render(&self, out: &mut Text) {
        out.fields(self.fields());
    }
}

/// The process that answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DaemonView {
    pub(crate) process: u32,
    pub(crate) started: Time,
    pub(crate) version: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusView {
    pub(crate) node: NodeView,
    /// `None` where no daemon runs and the command looked at the state by itself.
    pub(crate) daemon: Option<DaemonView>,
    pub(crate) distributions: Vec<DistributionView>,
    pub(crate) subscribers: Vec<SubscriberView>,
    /// Enrolments that wait to be approved.
    pub(crate) pending: u64,
    /// Firings that are not done.
    pub(crate) firings: Vec<FiringView>,
    /// When each Channel fires next.
    #[serde(default)]
    pub(crate) next_firings: Vec<NextView>,
    /// What its operator has to know.
    #[serde(default)]
    pub(crate) alarms: Vec<Alarm>,
}

/// What an operator has to know.
pub(crate) fn alarms(alarms: &[Alarm], out: &mut Text) {
    let paint = out.paint();
    for alarm in alarms {
        out.painted(&format!("{} {}", paint.bad("alarm"), clean(&alarm.to_string())));
    }
}

impl Render for StatusView {
    fn render(&self, out: &mut Text) {
        let daemon = match &self.daemon {
            Some(daemon) => format!("process {}, version {}, since {}", daemon.process, daemon.version, daemon.started),
            None => "not running".to_owned(),
        };
        out.fields(self.node.fields().into_iter().chain([("daemon", Some(daemon))]));
        alarms(&self.alarms, out);
        out.gap();
        distribution::table(&self.distributions, out);
        out.gap();
        subscriber::table(&self.subscribers, out);
        if self.pending > 0 {
            out.line(format_args!(
                "{} to be approved: see `subscriber pending`",
                count(self.pending, "node waits", "nodes wait")
            ));
        }
        firings::next_table(&self.next_firings, out);
        for firing in &self.firings {
            out.gap();
            firing.render(out);
        }
    }
}
