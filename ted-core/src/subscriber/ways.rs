//! The ways up from this node: the parents of its route, as the Distributor's configuration or the invite names them, or
//! the Distributor itself.

use crate::error::Error;
use crate::id::KeyHash;
use crate::name::NodeName;
use crate::security::{Descendant, ParentHint, Peer, PeerRole, Relation};
use crate::subscriber::report::{ChildRow, ParentRow};
use crate::subscriber::state::{KnownDistributor, State, known_key, lock};
use crate::transport::Connection as _;

impl State {
    /// The parents that this node has in a fleet, in order of preference; none where it is the Distributor's own child.
    /// What is configured for this node alone counts, then the invite.
    pub(super) fn parents(&self, fleet: &KeyHash) -> Vec<ParentHint> {
        if let Some(configured) = self.configured_parents(fleet) {
            return configured;
        }
        if let Some(invited) = lock(&self.invited).get(fleet) {
            return invited.clone();
        }
        self.records.get::<KnownDistributor>(&known_key(fleet)).ok().flatten().map_or_else(Vec::new, |it| it.parents)
    }

    /// The peers that this node may reach the fleet through, in order of preference. The Distributor is one with the
    /// fleet's own key.
    pub(super) fn ways(&self, fleet: &KeyHash) -> Result<Vec<ParentHint>, Error> {
        let known: Option<KnownDistributor> = self.records.get(&known_key(fleet))?;
        Ok(known.map_or_else(Vec::new, |known| self.ways_with(fleet, &known)))
    }

    pub(super) fn ways_with(&self, fleet: &KeyHash, known: &KnownDistributor) -> Vec<ParentHint> {
        let itself = ParentHint { name: known.name.clone(), key: *fleet, endpoints: known.endpoints.clone() };
        let mut ways = self.parents(fleet);
        for way in &mut ways {
            // One that took over from another has another key by now.
            if way.name == known.name {
                way.key = *fleet;
                if way.endpoints.is_empty() {
                    way.endpoints.clone_from(&known.endpoints);
                }
            }
        }
        if ways.is_empty() { vec![itself] } else { ways }
    }

    /// What another Subscriber of a fleet is to this node.
    pub(super) fn relation(&self, fleet: &KeyHash, key: &KeyHash) -> Option<Relation> {
        if self.parents(fleet).iter().any(|parent| parent.key == *key) {
            return Some(Relation::Parent);
        }
        self.entitlements(fleet).is_child(key).then_some(Relation::Child)
    }
}

impl State {
    /// The peers above this node, for people; none where that is the Distributor alone.
    pub(super) fn parent_rows(&self, fleet: &KeyHash) -> Vec<ParentRow> {
        let serves = self.links.get(fleet).map(|connection| way_key(connection.peer()));
        let ways = self.ways(fleet).unwrap_or_default().into_iter();
        let row = |way: ParentHint| ParentRow {
            name: way.name,
            fingerprint: way.key.fingerprint(),
            endpoints: way.endpoints,
            serves: serves == Some(way.key),
        };
        if self.parents(fleet).is_empty() { vec![] } else { ways.map(row).collect() }
    }

    /// This node's children, for people.
    pub(super) fn child_rows(&self, fleet: &KeyHash) -> Vec<ChildRow> {
        let entitlements = self.entitlements(fleet);
        let row = |child: &Descendant| {
            let connection = self.children.get(&(*fleet, child.key));
            ChildRow {
                name: child.name.clone(),
                fingerprint: child.key.fingerprint(),
                connected: connection.map(|connection| connection.remote_address().to_string()),
                behind: lock(&self.reach).get(fleet).map_or(0, |reach| reach.behind(&child.key).len()),
            }
        };
        let mut rows: Vec<_> = entitlements.children().map(row).collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        rows
    }
}

/// The parent that a peer above this node is; none for the Distributor.
pub(super) fn parent_of(peer: &Peer) -> Option<NodeName> {
    peer.name.clone().filter(|_| peer.role == PeerRole::Parent)
}

/// The key that a peer above this node has among its ways.
pub(super) fn way_key(peer: &Peer) -> KeyHash {
    match (peer.role, peer.key) {
        (PeerRole::Parent, Some(key)) => key,
        _ => peer.fleet,
    }
}
