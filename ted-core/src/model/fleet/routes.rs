//! Routes: through which parents Subscribers are reached.

use std::collections::BTreeSet;

use crate::id::DistributionId;
use crate::model::{Fleet, Subscriber};
use crate::name::NodeName;

impl Fleet {
    /// The preferred way to a Subscriber: its parents from the top down, of which the Distributor reaches the first one
    /// itself. Empty for a Subscriber that it reaches itself.
    #[must_use]
    pub fn way_to(&self, subscriber: &NodeName) -> Vec<NodeName> {
        let mut way: Vec<NodeName> = Vec::new();
        let mut at = subscriber;
        while let Some(parent) = self.subscribers.get(at).and_then(|node| node.parents.first())
            && !self.is_distributor(parent)
        {
            way.push(parent.clone());
            at = parent;
        }
        way.reverse();
        way
    }

    /// The Subscribers that name this one as a parent, preferred or not, by name.
    pub fn children_of(&self, parent: &NodeName) -> impl Iterator<Item = &Subscriber> {
        self.index.children.of(parent).filter_map(|name| self.subscribers.get(name))
    }

    /// Whether a name in a route means the Distributor itself, also where a Subscriber beside it has the same name.
    #[must_use]
    pub fn is_distributor(&self, name: &NodeName) -> bool {
        self.distributor.as_ref() == Some(name)
    }

    /// All that may be reached through a parent: its children, theirs, and so on, each once and by name.
    #[must_use]
    pub fn descendants_of(&self, parent: &NodeName) -> BTreeSet<NodeName> {
        let mut found = BTreeSet::new();
        let mut open = vec![parent];
        while let Some(at) = open.pop() {
            for child in self.children_of(at) {
                if found.insert(child.name.clone()) {
                    open.push(&child.name);
                }
            }
        }
        found
    }

    /// What a parent may be given for itself and for all that may be reached through it.
    #[must_use]
    pub fn entitled_behind(&self, parent: &NodeName) -> BTreeSet<DistributionId> {
        let mut entitled = self.entitled(parent);
        for descendant in self.descendants_of(parent) {
            entitled.extend(self.entitled(&descendant));
        }
        entitled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fleet::tests::{channel, distribution, node};
    use crate::model::{Fleet, FleetParts};

    fn behind(name: &str, parents: &[&str]) -> Subscriber {
        let parents = parents.iter().map(|name| node(name)).collect();
        Subscriber { parents, ..Subscriber::new(node(name)) }
    }

    /// `leaf` prefers `p2`, which is behind `p1`, and may come back through `p3` or to the Distributor.
    fn tiers() -> Fleet {
        Fleet::from_parts(FleetParts {
            distributor: Some(node("dist")),
            distributions: vec![distribution(1, "site"), distribution(2, "tools")],
            channels: vec![channel("c1", &["site"], &["leaf"]), channel("c2", &["tools"], &["p2"])],
            subscribers: vec![
                behind("leaf", &["p2", "p3", "dist"]),
                behind("p1", &["dist"]),
                behind("p2", &["p1"]),
                behind("p3", &[]),
            ],
            ..FleetParts::default()
        })
        .expect("a valid fleet")
    }

    #[test]
    fn the_preferred_way_goes_from_the_top_down() {
        let fleet = tiers();
        assert_eq!(fleet.way_to(&node("leaf")), [node("p1"), node("p2")]);
        assert_eq!(fleet.way_to(&node("p2")), [node("p1")]);
        assert!(fleet.way_to(&node("p1")).is_empty() && fleet.way_to(&node("p3")).is_empty());
        assert!(fleet.way_to(&node("stranger")).is_empty());
    }

    #[test]
    fn whoever_may_come_through_a_parent_is_behind_it() {
        let fleet = tiers();
        let names = |parent: &str| -> Vec<String> {
            fleet.descendants_of(&node(parent)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("p1"), ["leaf", "p2"]);
        assert_eq!(names("p3"), ["leaf"]);
        assert!(names("leaf").is_empty());
        assert_eq!(fleet.children_of(&node("p1")).count(), 1);
        assert_eq!(fleet.entitled_behind(&node("p1")).len(), 2);
        assert_eq!(fleet.entitled_behind(&node("p3")).len(), 1);
        assert!(fleet.entitled(&node("p1")).is_empty());
    }
}
