//! What is so, whatever the nodes believe, and what may never happen.

use std::collections::BTreeMap;

use ted_core::id::{DistributionId, PackageId, Revision, UnixMillis};
use ted_core::limits::Limits;
use ted_core::protocol::{Floor, FrameMap, Statement};

use crate::bundle::Index;
use crate::disk::Disk;
use crate::env::Env;
use crate::topology::NodeId;

pub(crate) struct Known {
    pub(crate) distribution: DistributionId,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Truth {
    /// Every package that the Distributor ever built.
    pub(crate) packages: BTreeMap<PackageId, Known>,
    pub(crate) newest: BTreeMap<DistributionId, Revision>,
    /// The highest floor that a node ever had a right to.
    floors: BTreeMap<(NodeId, DistributionId), Floor>,
    extracted: BTreeMap<(NodeId, DistributionId), Revision>,
    /// Bytes of each package that were sent to a node.
    sent: BTreeMap<(NodeId, PackageId), u64>,
    pub(crate) violation: Option<String>,
}

impl Truth {
    pub(crate) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    fn floor(&self, node: NodeId, distribution: DistributionId) -> Floor {
        self.floors.get(&(node, distribution)).copied().unwrap_or(Floor::NONE)
    }

    fn raise(&mut self, node: NodeId, distribution: DistributionId, to: Floor) {
        let raised = self.floor(node, distribution).raised_to(to);
        self.floors.insert((node, distribution), raised);
    }

    pub(crate) fn built(&mut self, distribution: DistributionId, id: PackageId, revision: Revision, bytes: &[u8]) {
        self.packages.insert(id, Known { distribution, bytes: bytes.to_vec() });
        self.newest.insert(distribution, revision);
    }

    /// A statement was accepted by a recipient.
    pub(crate) fn accepted(&mut self, node: NodeId, statement: &Statement, now: UnixMillis) {
        let distribution = statement.release.distribution;
        let floor = self.floor(node, distribution);
        let revision = statement.release.revision;
        self.demand(revision >= floor.revision && statement.issued >= floor.issued, || {
            format!("{node} accepted revision {revision}, which lies below the floor {floor:?}")
        });
        self.demand(now < statement.expires, || format!("{node} accepted an expired statement about {revision}"));
        self.raise(node, distribution, Floor { issued: statement.issued, ..Floor::NONE });
    }

    /// A package counts as complete and verified at a node, which has it for itself or for others.
    pub(crate) fn verified(&mut self, node: NodeId, package: &PackageId, bytes: &[u8]) {
        let right = self.packages.get(package).is_some_and(|known| known.bytes == bytes);
        self.demand(right, || format!("at {node} a package counts as verified, and its bytes are wrong"));
    }

    /// A recipient's floor rose to what it verified.
    pub(crate) fn verified_for_itself(&mut self, node: NodeId, distribution: DistributionId, revision: Revision) {
        let floor = self.floor(node, distribution);
        self.demand(revision >= floor.revision, || format!("{node} verified revision {revision} below {floor:?}"));
        self.raise(node, distribution, Floor { revision, ..Floor::NONE });
    }

    pub(crate) fn was_extracted(&mut self, node: NodeId, distribution: DistributionId, revision: Revision) {
        let verified = self.floor(node, distribution).revision;
        self.demand(revision <= verified, || format!("{node} extracted revision {revision} and never verified it"));
        let before = self.extracted(node, distribution);
        self.demand(Some(revision) >= before, || format!("{node} extracted revision {revision} over a newer one"));
        self.extracted.insert((node, distribution), before.unwrap_or(revision).max(revision));
    }

    pub(crate) fn extracted(&self, node: NodeId, distribution: DistributionId) -> Option<Revision> {
        self.extracted.get(&(node, distribution)).copied()
    }

    pub(crate) fn was_sent(&mut self, to: NodeId, package: PackageId, bytes: u64) {
        *self.sent.entry((to, package)).or_default() += bytes;
    }

    /// The first node to which more of a package was sent than it has.
    pub(crate) fn sent_twice(&self) -> Option<(NodeId, u64, u64)> {
        let lengths = self.sent.iter().map(|((to, package), sent)| (*to, *sent, &self.packages[package]));
        // The end of the index is fetched twice: once to learn where it begins.
        lengths
            .map(|(to, sent, known)| (to, sent, known.bytes.len() as u64 + crate::bundle::FOOTER_BYTES as u64))
            .find(|(_, sent, length)| sent > length)
    }
}

/// After a crash: what the maps vouch for is really there.
pub(crate) fn judge_maps(node: NodeId, disk: &Disk, env: &mut Env) {
    for (package, map) in &disk.maps {
        let wrong = env.truth.packages.get(package).and_then(|known| wrong_frame(package, &known.bytes, map, disk));
        env.demand(wrong.is_none(), || format!("at {node} a map vouches for frame {wrong:?}, which is wrong"));
    }
}

fn wrong_frame(package: &PackageId, truth: &[u8], map: &[u8], disk: &Disk) -> Option<u64> {
    let index = Index::read(package, truth.len() as u64, truth)?;
    let map = FrameMap::decode(map, &Limits::DEFAULT).expect("maps are replaced atomically");
    (0..map.frames()).filter(|frame| map.has(*frame)).find(|frame| {
        let range = index.layout.range(*frame);
        let part = disk.parts.get(package);
        part.is_none_or(|part| part.durable(range.clone()) != &truth[range.start as usize..range.end as usize])
    })
}
