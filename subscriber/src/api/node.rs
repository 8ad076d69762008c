//! The node itself: `join`, `status`, `doctor`, and what `init` answers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::doctor::Diagnosis;
use ted_cli::output::{Render, Text, clean};
use ted_cli::units::Time;
use ted_core::name::NodeName;
use ted_core::node::Alarm;
use ted_core::subscriber::{KeepPackage, LocalChanges, PassedRow, TrafficRow};

use super::{DistributionView, DistributorView, EnrolmentView, distribution, distributor, passing, word};
use ted_core::DistributionRef;

/// Does what an invite says: makes the node where there is none yet, trusts the Distributor, enrols with the token.
/// A node that exists has to have the name that the invite is for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeJoin {
    /// The invite's text. It holds a token.
    pub(crate) invite: String,
    /// Absolute.
    pub(crate) targets: Vec<(DistributionRef, PathBuf)>,
}

impl fmt::Debug for NodeJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeJoin").field("targets", &self.targets).finish_non_exhaustive()
    }
}

/// Gives the node another name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRename {
    pub(crate) name: NodeName,
}

/// Everything at a glance.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeStatus {}

/// Receives nothing new from now on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePause {}

/// Receives again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeResume {}

/// Looks for what is wrong: permissions, certificates near their end, clock, disk, targets, Distributors' answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeDoctor {}

ted_cli::operations! {
    NodeJoin => "node/join" -> EnrolmentView,
    NodeRename => "node/rename" -> NodeView,
    NodeStatus => "node/status" -> StatusView,
    NodePause => "node/pause" -> Done,
    NodeResume => "node/resume" -> Done,
    NodeDoctor => "node/doctor" -> Diagnosis,
}

/// What the node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeView {
    pub(crate) name: NodeName,
    pub(crate) data_dir: PathBuf,
    /// `None` where it only dials.
    pub(crate) listen: Option<SocketAddr>,
}

impl NodeView {
    fn fields(&self) -> [(&'static str, Option<String>); 3] {
        let listen = self.listen.map_or("nothing: it only dials".to_owned(), |listen| listen.to_string());
        [
            ("subscriber", Some(self.name.to_string())),
            ("data", Some(self.data_dir.display().to_string())),
            ("listens on", Some(listen)),
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
    /// Which packages are kept once they are extracted.
    #[serde(default)]
    pub(crate) keep_package: KeepPackage,
    /// What becomes of files that somebody changed in a target.
    #[serde(default)]
    pub(crate) on_local_change: LocalChanges,
    pub(crate) distributors: Vec<DistributorView>,
    pub(crate) distributions: Vec<DistributionView>,
    /// What it passes on to others.
    #[serde(default)]
    pub(crate) passes_on: Vec<PassedRow>,
    /// Bytes of packages that came from upstream or went to one child, since the daemon was started.
    #[serde(default)]
    pub(crate) traffic: Vec<TrafficRow>,
    /// Whether an operator paused it.
    #[serde(default)]
    pub(crate) paused: bool,
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
        let more = [
            ("daemon", Some(daemon)),
            ("paused", self.paused.then(|| "yes: it receives nothing new until `resume`".to_owned())),
            ("keep_package", Some(word(self.keep_package))),
            ("on_local_change", Some(word(self.on_local_change))),
        ];
        out.fields(self.node.fields().into_iter().chain(more));
        alarms(&self.alarms, out);
        out.gap();
        distributor::table(&self.distributors, out);
        for of in &self.distributors {
            out.fields([("parents", of.parents_text()), ("children", of.children_text())]);
        }
        if !self.passes_on.is_empty() || !self.traffic.is_empty() {
            out.gap();
            passing::table(&self.passes_on, &self.traffic, out);
        }
        if !self.distributions.is_empty() || self.passes_on.is_empty() {
            out.gap();
            distribution::table(&self.distributions, out);
        }
    }
}
