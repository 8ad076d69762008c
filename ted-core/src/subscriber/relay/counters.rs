//! How many bytes of packages came and went, by neighbour: what every link carried.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, KeyHash, PackageId, Revision};
use crate::name::NodeName;
use crate::subscriber::state::{State, lock};

/// Rows that are kept; beyond that the oldest packages' are dropped.
const ROWS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Traffic {
    revision: Revision,
    fleet: KeyHash,
    distribution: DistributionId,
    package: PackageId,
    /// The child that it went to; none for what came from upstream.
    child: Option<KeyHash>,
}

/// What was counted since this node was opened.
#[derive(Debug, Default)]
pub(in crate::subscriber) struct Counters(Mutex<BTreeMap<Traffic, u64>>);

/// Bytes of one package that came from upstream, or went to one child, since the node was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRow {
    /// The Distributor.
    pub distributor: NodeName,
    /// The Distribution's id.
    pub distribution: String,
    /// Which revision the package leads to.
    pub revision: Revision,
    /// The package's id.
    pub package: String,
    /// The child that it went to; none for what came from upstream.
    pub child: Option<String>,
    /// How many bytes.
    pub bytes: u64,
}

/// A Distribution that this node passes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedRow {
    /// The Distributor.
    pub distributor: NodeName,
    /// The Distribution's id.
    pub distribution: String,
    /// The packages that children may ask for, newest statement first, and whether each is here.
    pub packages: Vec<(String, bool)>,
    /// How many nodes are still to get it.
    pub waiting: usize,
}

impl Counters {
    pub(in crate::subscriber) fn count(
        &self,
        (fleet, distribution): (KeyHash, DistributionId),
        (package, revision): (PackageId, Revision),
        child: Option<KeyHash>,
        bytes: u64,
    ) {
        let mut rows = lock(&self.0);
        *rows.entry(Traffic { revision, fleet, distribution, package, child }).or_default() += bytes;
        while rows.len() > ROWS_MAX {
            rows.pop_first();
        }
    }
}

impl State {
    /// What every link carried of every package.
    pub(in crate::subscriber) fn traffic(&self) -> Vec<TrafficRow> {
        let rows = lock(&self.relays.counters.0).clone();
        let row = |(of, bytes): (Traffic, u64)| TrafficRow {
            distributor: self.distributor_name(&of.fleet),
            distribution: of.distribution.to_string(),
            revision: of.revision,
            package: of.package.to_string(),
            child: of.child.map(|child| self.child_name(&of.fleet, &child)),
            bytes,
        };
        rows.into_iter().map(row).collect()
    }

    /// What is passed on.
    pub(in crate::subscriber) fn passed_rows(&self) -> Vec<PassedRow> {
        let machines = lock(&self.relays.machines);
        let mut rows = vec![];
        for (fleet, machine) in &*machines {
            for passed in machine.distributions() {
                let waiting: std::collections::BTreeSet<_> =
                    passed.firings().flat_map(|(_, recipients)| recipients).collect();
                let here = |id: &PackageId| self.depot.path_of(*id).is_some();
                rows.push(PassedRow {
                    distributor: self.distributor_name(fleet),
                    distribution: passed.distribution().to_string(),
                    packages: passed.packages().map(|package| (package.id.to_string(), here(&package.id))).collect(),
                    waiting: waiting.len(),
                });
            }
        }
        rows
    }
}
