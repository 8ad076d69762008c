//! Tiers: who is behind which parent, the entitlements that say so to them, and who is reached through whom now.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::distributor::announce::Address;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, KeyHash};
use crate::model::{Fleet, Subscriber};
use crate::name::NodeName;
use crate::protocol::{Presence, Reached};
use crate::security::{Descendant, EntitlementsPage, EnvelopeKind};
use crate::store::StandingSlot;
use crate::transport::QuicConnection;

/// How long entitlements hold; they are signed anew at two thirds of that. What they said counts on.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Changes of the fleet within this time are told together.
const TOGETHER: Duration = Duration::from_millis(100);

/// How long a parent that was revoked may pass that on before its connection closes.
const LAST_WORD: Duration = Duration::from_millis(500);

/// How long nodes that move may take to hear of their other route through the parent that they leave.
const MOVING: Duration = Duration::from_secs(2);

/// How many of those behind one hop are told at once what stands.
const TOLD_AT_ONCE: usize = 8;

/// Who is behind each parent, as the fleet and the registered keys have it.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    parents: HashMap<KeyHash, ParentSide>,
}

/// What is behind one parent.
#[derive(Debug, Default)]
struct ParentSide {
    descendants: Vec<Descendant>,
    keys: HashSet<KeyHash>,
    /// What all of them together may fetch.
    fetchable: HashSet<DistributionId>,
}

/// The tiers as they were found last, and for which state of the fleet.
#[derive(Default)]
pub(super) struct KnownTiers {
    changes: u64,
    found: Option<(u64, Arc<Tiers>)>,
}

impl Tiers {
    /// Whether the node with this key may be reached through that parent.
    pub(super) fn is_behind(&self, parent: &KeyHash, key: &KeyHash) -> bool {
        self.parents.get(parent).is_some_and(|side| side.keys.contains(key))
    }

    /// Whether somebody behind a parent may fetch a Distribution.
    pub(super) fn may_fetch(&self, parent: &KeyHash, distribution: &DistributionId) -> bool {
        self.parents.get(parent).is_some_and(|side| side.fetchable.contains(distribution))
    }

    /// The nodes that may be reached through a parent.
    pub(super) fn behind(&self, parent: &KeyHash) -> impl Iterator<Item = KeyHash> {
        self.parents.get(parent).into_iter().flat_map(|side| side.keys.iter().copied())
    }

    /// Whether a node is somebody's parent.
    pub(super) fn is_parent(&self, key: &KeyHash) -> bool {
        self.parents.contains_key(key)
    }

    fn of(fleet: &Fleet, keys: &BTreeMap<NodeName, KeyHash>) -> Self {
        let mut children: BTreeMap<&NodeName, Vec<&Subscriber>> = BTreeMap::new();
        for subscriber in fleet.subscribers() {
            for parent in &subscriber.parents {
                if let Ok(parent) = fleet.subscriber(parent) {
                    children.entry(&parent.name).or_default().push(subscriber);
                }
            }
        }
        let mut behind = HashMap::new();
        for parent in children.keys() {
            collect(parent, &children, &mut behind, &mut vec![]);
        }
        let mut entitled: HashMap<&NodeName, BTreeSet<DistributionId>> = HashMap::new();
        let mut parents = HashMap::new();
        for (parent, of_parent) in &children {
            let Some(parent_key) = keys.get(*parent) else { continue };
            let mut through: BTreeMap<&NodeName, BTreeSet<KeyHash>> = BTreeMap::new();
            for child in of_parent {
                let Some(child_key) = keys.get(&child.name) else { continue };
                let further = behind.get(&child.name).into_iter().flatten().copied();
                for node in further.chain([&child.name]).filter(|node| node != parent) {
                    through.entry(node).or_default().insert(*child_key);
                }
            }
            let mut side = ParentSide::default();
            for (name, through) in through {
                let Some(key) = keys.get(name) else { continue };
                let distributions = entitled.entry(name).or_insert_with(|| fleet.entitled(name)).clone();
                side.keys.insert(*key);
                side.fetchable.extend(&distributions);
                let known = fleet.subscriber(name).ok().filter(|_| through.contains(key));
                let endpoints = known.map_or_else(Vec::new, |child| child.endpoints.clone());
                side.descendants.push(Descendant { key: *key, name: name.clone(), distributions, through, endpoints });
            }
            parents.insert(*parent_key, side);
        }
        Self { parents }
    }
}

/// Finds all that is behind `node`, once. Routes have no cycles; one that had would end here.
fn collect<'a>(
    node: &'a NodeName,
    children: &BTreeMap<&'a NodeName, Vec<&'a Subscriber>>,
    behind: &mut HashMap<&'a NodeName, BTreeSet<&'a NodeName>>,
    way: &mut Vec<&'a NodeName>,
) {
    if behind.contains_key(node) || way.contains(&node) {
        return;
    }
    way.push(node);
    let mut found = BTreeSet::new();
    for child in children.get(node).into_iter().flatten() {
        collect(&child.name, children, behind, way);
        found.insert(&child.name);
        found.extend(behind.get(&child.name).into_iter().flatten().copied());
    }
    way.pop();
    behind.insert(node, found);
}

impl State {
    /// Says that the fleet, its registered keys or what was revoked has changed.
    pub(super) fn tiers_changed(&self) {
        let mut known = lock(&self.tiers);
        known.changes = known.changes.wrapping_add(1);
        drop(known);
        self.entitling.notify_one();
    }

    /// Who is behind whom now.
    pub(super) fn tiers(&self) -> Arc<Tiers> {
        let changes = {
            let known = lock(&self.tiers);
            match &known.found {
                Some((of, found)) if *of == known.changes => return found.clone(),
                _ => known.changes,
            }
        };
        let found = Arc::new(self.find_tiers());
        lock(&self.tiers).found = Some((changes, found.clone()));
        found
    }

    fn find_tiers(&self) -> Tiers {
        let has_parents = |subscriber: &Subscriber| !subscriber.parents.is_empty();
        if !lock(&self.fleet).subscribers().any(has_parents) {
            return Tiers::default();
        }
        let registered = self.registrations.all().into_iter();
        let counts = registered.filter(|(key, _)| !self.is_key_revoked(key));
        let keys: BTreeMap<NodeName, KeyHash> = counts.map(|(key, known)| (known.name, key)).collect();
        let fleet = lock(&self.fleet).clone();
        Tiers::of(&fleet, &keys)
    }

    /// Whether `key` is that peer or a node behind it, of which it may speak and for which it may fetch.
    pub(super) fn is_at(&self, peer: &KeyHash, key: &KeyHash) -> bool {
        peer == key || self.tiers().is_behind(peer, key)
    }

    /// Signs entitlements whenever they change, while this node runs.
    pub(super) async fn entitle_parents(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let state = self.clone();
            match tokio::task::spawn_blocking(move || state.issue_entitlements()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(code = error.code(), %error, "entitlements cannot be signed"),
                Err(_) => return,
            }
            let believed = std::mem::take(&mut *lock(&self.believed));
            for key in believed {
                if let Some((hop, connection)) = self.reached_through(&key) {
                    self.announce_behind(vec![key], connection.clone());
                    self.offer_behind(hop, connection, vec![key]);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.entitling.notified() => {}
            }
            let parents = std::mem::take(&mut *lock(&self.last_words));
            if !parents.is_empty() {
                self.close_after_telling(parents);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TOGETHER) => {}
            }
            self.tell_moving().await;
        }
    }

    /// Signs and announces to each parent what is behind it, wherever that is not what stands already.
    pub(super) fn issue_entitlements(&self) -> Result<(), Error> {
        let (tiers, fleet) = (self.tiers(), self.own().authority.root().key_hash());
        let moved = lock(&self.reach).judge_again(|hop, key| tiers.is_behind(hop, key));
        if !moved.down.is_empty() {
            self.note_unreached(&moved.down);
        }
        lock(&self.believed).extend(moved.up);
        let of_kind = |slot: &StandingSlot| slot.fleet == fleet && slot.kind == EnvelopeKind::ENTITLEMENTS;
        let former = self.standing.choose(of_kind).into_iter().filter_map(|(slot, _)| slot.recipient);
        // Who was a parent is told that nobody is behind it any more.
        let former = former.filter(|key| !tiers.is_parent(key) && self.registrations.is_registered(key));
        let mut wanted: BTreeMap<KeyHash, &[Descendant]> = former.map(|key| (key, &[][..])).collect();
        wanted.extend(tiers.parents.iter().map(|(key, side)| (*key, side.descendants.as_slice())));
        let mut envelopes = vec![];
        let mut stands = HashSet::new();
        for (recipient, descendants) in wanted {
            for page in EntitlementsPage::all(&recipient, descendants)? {
                let slot = StandingSlot {
                    fleet,
                    kind: EnvelopeKind::ENTITLEMENTS,
                    recipient: Some(recipient),
                    page: page.page,
                };
                stands.insert(slot);
                let payload = page.to_payload()?;
                if self.standing.get(&slot).is_none_or(|standing| !self.still_says(&standing, &payload)) {
                    envelopes.push(self.seal_standing(
                        EnvelopeKind::ENTITLEMENTS,
                        Address::To(recipient),
                        page.page,
                        LIFE,
                        payload,
                    )?);
                }
            }
        }
        self.withdraw(|slot| of_kind(slot) && !stands.contains(slot))?;
        if envelopes.is_empty() { Ok(()) } else { self.announce_all(envelopes) }
    }

    /// The peer through which a node is reached now, and the connection with it: the node itself where it is connected.
    pub(super) fn reached_through(&self, key: &KeyHash) -> Option<(KeyHash, QuicConnection)> {
        let hop = lock(&self.reach).hop_of(key)?;
        Some((hop, self.links.get(&hop)?))
    }

    /// Whether a node is connected, or is reached through a parent that is.
    pub(super) fn is_reached(&self, key: &KeyHash) -> bool {
        lock(&self.reach).hop_of(key).is_some()
    }

    /// The name of the peer through which a node is reached now.
    pub(super) fn hop_name(&self, key: &KeyHash) -> Option<NodeName> {
        self.reached_through(key).map(|(hop, _)| self.name_of_key(&hop))
    }

    /// The hop on the way to a node: the peer through which it is reached now, else the first on its preferred way, if
    /// that one is connected.
    #[allow(dead_code, reason = "offers will go there")]
    pub(super) fn hop_towards(&self, key: &KeyHash) -> Option<(KeyHash, QuicConnection)> {
        if let Some(reached) = self.reached_through(key) {
            return Some(reached);
        }
        let name = self.registrations.get(key)?.name;
        let first = lock(&self.fleet).way_to(&name).into_iter().next()?;
        let hop = self.key_of_name(&first)?;
        Some((hop, self.links.get(&hop)?))
    }

    /// Takes a peer's word about who is reached through it.
    pub(super) fn take_presence(self: &Arc<Self>, hop: KeyHash, presence: &Presence) {
        let tiers = self.tiers();
        let reached = lock(&self.reach).told(&hop, presence, |key| tiers.is_behind(&hop, key));
        self.reach_changed(&hop, reached);
    }

    /// A peer has connected, or is gone.
    pub(super) fn peer_is(self: &Arc<Self>, hop: &KeyHash, connected: bool) {
        let reached = {
            let mut reach = lock(&self.reach);
            match connected {
                true => reach.connected(hop),
                // It may have come back already, and have been counted.
                false if self.links.is_connected(hop) => return,
                false => reach.disconnected(hop),
            }
        };
        self.reach_changed(hop, reached);
    }

    fn reach_changed(self: &Arc<Self>, hop: &KeyHash, Reached { up, down }: Reached) {
        let behind: Vec<KeyHash> = up.into_iter().filter(|key| key != hop).collect();
        if let Some(connection) = self.links.get(hop).filter(|_| !behind.is_empty()) {
            tracing::info!(hop = %self.name_of_key(hop), nodes = behind.len(), "reached through a parent");
            self.announce_behind(behind.clone(), connection.clone());
            self.offer_behind(*hop, connection, behind);
        }
        let gone: Vec<KeyHash> = down.into_iter().filter(|key| key != hop).collect();
        if !gone.is_empty() {
            self.note_unreached(&gone);
        }
    }

    /// Tells nodes behind a hop what stands for them.
    pub(super) fn announce_behind(self: &Arc<Self>, keys: Vec<KeyHash>, connection: QuicConnection) {
        let state = self.clone();
        self.links.spawn(async move { state.tell_all(keys, connection).await });
    }

    /// The same, a few at a time, and waits until all were told.
    async fn tell_all(self: Arc<Self>, keys: Vec<KeyHash>, connection: QuicConnection) {
        let mut telling = JoinSet::new();
        for key in keys {
            if telling.len() >= TOLD_AT_ONCE {
                telling.join_next().await;
            }
            let (state, connection) = (self.clone(), connection.clone());
            telling.spawn(async move { state.tell_standing(key, &connection).await });
        }
        while telling.join_next().await.is_some() {}
    }

    /// Whether a node was reached through this peer a moment ago, wherever its route leads now.
    pub(super) fn is_through(&self, peer: &KeyHash, key: &KeyHash) -> bool {
        lock(&self.reach).is_through(peer, key)
    }

    /// Nodes whose route leads elsewhere hear so through the parent that they are still behind, before it is told to let
    /// them go: they may know of no other.
    async fn tell_moving(self: &Arc<Self>) {
        let state = self.clone();
        let finding = move || {
            let tiers = state.tiers();
            lock(&state.reach).doubted(|hop, key| tiers.is_behind(hop, key))
        };
        let mut telling = JoinSet::new();
        for (hop, key) in tokio::task::spawn_blocking(finding).await.unwrap_or_default() {
            if let Some(connection) = self.links.get(&hop) {
                telling.spawn(self.clone().tell_all(vec![key], connection));
            }
        }
        let told = async { while telling.join_next().await.is_some() {} };
        if tokio::time::timeout(MOVING, told).await.is_err() {
            tracing::info!("not all whose route has changed heard of it through their parent");
        }
    }

    /// Those of these peers that are connected, with the nodes that are reached through them now.
    pub(super) fn with_behind(&self, keys: &[KeyHash]) -> Vec<(QuicConnection, Vec<KeyHash>)> {
        let reach = lock(&self.reach);
        let behind = keys.iter().filter_map(|key| Some((self.links.get(key)?, reach.behind(key))));
        behind.filter(|(_, behind)| !behind.is_empty()).collect()
    }

    /// Lets parents that lost their standing tell those behind them so, for a moment; then their connections close.
    fn close_after_telling(self: &Arc<Self>, parents: Vec<(QuicConnection, Vec<KeyHash>)>) {
        let state = self.clone();
        self.links.spawn(async move {
            let mut telling = JoinSet::new();
            for (connection, behind) in parents {
                telling.spawn(state.clone().tell_all(behind, connection));
            }
            let told = async { while telling.join_next().await.is_some() {} };
            if tokio::time::timeout(LAST_WORD, told).await.is_err() {
                tracing::info!("not all behind a revoked parent heard of it through that; they will by another way");
            }
            state.judge_all_again();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Channel, Distribution, FleetParts};

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn key(name: &str) -> KeyHash {
        KeyHash::of_spki(name.as_bytes())
    }

    fn behind(name: &str, parents: &[&str]) -> Subscriber {
        let parents = parents.iter().map(|name| node(name)).collect();
        let endpoints = vec![format!("{name}.example:1229").parse().unwrap()];
        Subscriber { parents, endpoints, ..Subscriber::new(node(name)) }
    }

    fn tiers() -> Tiers {
        let id = DistributionId::from_bytes([1; 16]);
        let distribution = Distribution::new(id, "site".parse().unwrap(), "/srv/site");
        let mut channel = Channel::new("c".parse().unwrap(), vec!["site".parse().unwrap()]);
        channel.subscribers.extend([node("leaf"), node("new")]);
        let fleet = Fleet::from_parts(FleetParts {
            distributions: vec![distribution],
            channels: vec![channel],
            subscribers: vec![
                behind("p1", &[]),
                behind("p2", &["p1"]),
                behind("p3", &[]),
                behind("leaf", &["p2", "p3"]),
                behind("new", &["p3"]),
            ],
            ..FleetParts::default()
        });
        // `new` has not enrolled yet.
        let keys = ["p1", "p2", "p3", "leaf"].map(|name| (node(name), key(name)));
        Tiers::of(&fleet.unwrap(), &keys.into())
    }

    #[test]
    fn a_parent_is_told_who_is_behind_it_through_which_child_and_where_its_children_are() {
        let tiers = tiers();
        let of = |parent: &str| -> Vec<(String, Vec<KeyHash>, bool, usize)> {
            let side = &tiers.parents[&key(parent)];
            let row = |of: &Descendant| {
                let through = of.through.iter().copied().collect();
                (of.name.to_string(), through, !of.endpoints.is_empty(), of.distributions.len())
            };
            side.descendants.iter().map(row).collect()
        };
        let p2 = key("p2");
        assert_eq!(of("p1"), [("leaf".into(), vec![p2], false, 1), ("p2".into(), vec![p2], true, 0)]);
        assert_eq!(of("p2"), [("leaf".into(), vec![key("leaf")], true, 1)]);
        assert_eq!(of("p3"), [("leaf".into(), vec![key("leaf")], true, 1)]);
        assert!(!tiers.is_parent(&key("leaf")));
    }

    #[test]
    fn a_parent_may_fetch_and_speak_for_those_behind_it_however_deep_and_for_nobody_else() {
        let tiers = tiers();
        let site = DistributionId::from_bytes([1; 16]);
        for (parent, may) in [("p1", true), ("p2", true), ("p3", true), ("leaf", false)] {
            assert_eq!(tiers.may_fetch(&key(parent), &site), may, "{parent}");
            assert_eq!(tiers.is_behind(&key(parent), &key("leaf")), may, "{parent}");
        }
        assert!(!tiers.is_behind(&key("p3"), &key("p2")) && !tiers.is_behind(&key("p2"), &key("p1")));
        assert!(!tiers.may_fetch(&key("p1"), &DistributionId::from_bytes([2; 16])));
    }
}
