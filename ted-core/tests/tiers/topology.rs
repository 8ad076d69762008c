//! Who is whose child, by which ways, and who is to get what. It never changes in one world.

use std::collections::{BTreeMap, BTreeSet};

use ted_core::id::{DistributionId, KeyHash};
use ted_core::security::{Descendant, Entitlements, EntitlementsPage};

use crate::rng::Rng;

/// The Distributor is 0.
pub(crate) type NodeId = usize;

pub(crate) const DISTRIBUTOR: NodeId = 0;
pub(crate) const NODES: usize = 50;
/// An open one, and one whose packages are sealed.
pub(crate) const DISTRIBUTIONS: [DistributionId; 2] =
    [DistributionId::from_bytes([0xd0; 16]), DistributionId::from_bytes([0xd1; 16])];
pub(crate) const SEALED: DistributionId = DISTRIBUTIONS[1];

pub(crate) struct Topology {
    /// The parents of each node, in order of preference.
    routes: Vec<Vec<NodeId>>,
    recipients: BTreeMap<DistributionId, BTreeSet<NodeId>>,
    behind: Vec<BTreeSet<NodeId>>,
}

impl Topology {
    /// Three or four tiers below the Distributor. Fallback parents stand in the same tier as the preferred one or
    /// above it, so that no route leads in a circle.
    pub(crate) fn plant(rng: &mut Rng) -> Self {
        let depth = rng.between(3, 4) as usize;
        let widths: &[usize] = if depth == 3 { &[3, 12] } else { &[2, 5, 12] };
        let mut tiers = vec![0];
        for (tier, width) in widths.iter().enumerate() {
            tiers.extend(std::iter::repeat_n(tier + 1, *width));
        }
        tiers.resize(NODES + 1, depth);
        let mut routes = vec![Vec::new()];
        for node in 1..=NODES {
            let above: Vec<NodeId> = (0..node).filter(|other| tiers[*other] + 1 == tiers[node]).collect();
            let preferred = above[rng.below(above.len() as u64) as usize];
            let mut route = vec![preferred];
            if rng.chance(600) {
                let others: Vec<NodeId> = (0..node).filter(|other| tiers[*other] < tiers[node]).collect();
                let other = others[rng.below(others.len() as u64) as usize];
                if other != preferred {
                    route.push(other);
                }
            }
            routes.push(route);
        }
        let mut topology = Self { routes, recipients: BTreeMap::new(), behind: Vec::new() };
        topology.behind = (0..=NODES).map(|node| topology.find_behind(node)).collect();
        topology.name_recipients(rng);
        topology
    }

    /// Leaves get most things, parents some: the rest of these only pass on.
    fn name_recipients(&mut self, rng: &mut Rng) {
        for distribution in DISTRIBUTIONS {
            let share = rng.between(300, 1000);
            let parents = if distribution == SEALED { 150 } else { 500 };
            let mut recipients = BTreeSet::new();
            for node in 1..=NODES {
                let leaf = self.behind[node].is_empty();
                if rng.chance(if leaf { share } else { parents }) {
                    recipients.insert(node);
                }
            }
            recipients.insert(NODES);
            self.recipients.insert(distribution, recipients);
        }
    }

    fn find_behind(&self, node: NodeId) -> BTreeSet<NodeId> {
        let mut behind = BTreeSet::new();
        // A parent has a smaller number than its children, so that one walk finds all.
        for other in node + 1..self.routes.len() {
            if self.routes[other].iter().any(|parent| *parent == node || behind.contains(parent)) {
                behind.insert(other);
            }
        }
        behind
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        1..self.routes.len()
    }

    pub(crate) fn route(&self, node: NodeId) -> &[NodeId] {
        &self.routes[node]
    }

    pub(crate) fn children(&self, parent: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes().filter(move |node| self.routes[*node].contains(&parent))
    }

    pub(crate) fn is_behind(&self, node: NodeId, other: NodeId) -> bool {
        self.behind[node].contains(&other)
    }

    pub(crate) fn has_children(&self, node: NodeId) -> bool {
        !self.behind[node].is_empty()
    }

    pub(crate) fn recipients(&self, distribution: &DistributionId) -> &BTreeSet<NodeId> {
        &self.recipients[distribution]
    }

    pub(crate) fn is_recipient(&self, node: NodeId, distribution: &DistributionId) -> bool {
        self.recipients[distribution].contains(&node)
    }

    /// What the Distributor signs for a parent: who is behind it, through which child, and what for.
    pub(crate) fn entitlements(&self, node: NodeId) -> Entitlements {
        let descendant = |behind: &NodeId| Descendant {
            key: key(*behind),
            name: format!("node{behind}.example").parse().expect("a name"),
            distributions: DISTRIBUTIONS.into_iter().filter(|it| self.is_recipient(*behind, it)).collect(),
            through: self
                .children(node)
                .filter(|child| child == behind || self.is_behind(*child, *behind))
                .map(key)
                .collect(),
            endpoints: Vec::new(),
        };
        let descendants: Vec<Descendant> = self.behind[node].iter().map(descendant).collect();
        let pages = EntitlementsPage::all(&key(node), &descendants).expect("few");
        Entitlements::of(pages.into_iter().map(|page| (1, page)).collect())
    }

    /// Whether a node may have packages of a Distribution: for itself, or for somebody behind it.
    pub(crate) fn may_have(&self, node: NodeId, distribution: &DistributionId) -> bool {
        let recipients = &self.recipients[distribution];
        recipients.contains(&node) || !recipients.is_disjoint(&self.behind[node])
    }

    /// The child of `hop` through which the preferred way to `node` goes.
    pub(crate) fn preferred_hop(&self, hop: NodeId, node: NodeId) -> Option<NodeId> {
        let mut at = node;
        loop {
            let parent = *self.routes[at].first()?;
            if parent == hop {
                return Some(at);
            }
            at = parent;
        }
    }
}

pub(crate) fn key(node: NodeId) -> KeyHash {
    KeyHash::from_bytes([node as u8; 32])
}

pub(crate) fn node_of(key: &KeyHash) -> NodeId {
    NodeId::from(key.as_bytes()[0])
}
