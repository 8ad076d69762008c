//! Tiers of real nodes over loopback: joining, presence, standing envelopes, receipts, moving, revocation.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ted_core::distributor::{SubscriberChanges, SubscriberStatus};
use ted_core::protocol::Fallback;
use ted_core::security::RevocationReason;
use ted_core::{Distributor, DistributorEvent, Events, NodeName, Subscriber};

/// Nothing that a test waits for takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Moving on and back at once, so that no test waits for it.
const AT_ONCE: Fallback = Fallback { after: Duration::from_millis(200), return_every: Duration::from_millis(300) };

struct World {
    folder: tempfile::TempDir,
    distributor: Distributor,
    events: Events<DistributorEvent>,
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a node name")
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let distributor = Distributor::builder(folder.path().join("distributor")).listen(ANY_PORT);
        let distributor = distributor.name(node("dist.example")).open().await.expect("it opens");
        distributor.start().await.expect("it works");
        let events = distributor.events();
        Self { folder, distributor, events }
    }

    fn data_of(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Declares a node with this route, reached at `address` where it is given, or changes it.
    async fn declare(&self, name: &str, parents: &[&str], address: Option<SocketAddr>) {
        let endpoints = address.map(|address| address.to_string().parse().expect("it works")).into_iter().collect();
        let changes = SubscriberChanges {
            endpoints: Some(endpoints),
            parents: Some(parents.iter().map(|parent| node(parent)).collect()),
            ..SubscriberChanges::default()
        };
        self.distributor.ensure_subscriber(&node(name), changes).await.expect("it works");
    }

    async fn event<T>(&mut self, what: &str, mut pick: impl FnMut(DistributorEvent) -> Option<T>) -> T {
        let picking = async {
            loop {
                if let Some(picked) = pick(self.events.next().await.expect("it works")) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, picking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn acknowledged(&mut self, name: &str, of: &str) {
        let what = format!("{name} to hold the {of}");
        self.event(&what, |event| match event {
            DistributorEvent::Acknowledged { subscriber, kind, .. } => {
                (subscriber == node(name) && kind == of).then_some(())
            }
            _ => None,
        })
        .await;
    }

    /// Joins with an invite and starts; a parent waits until it knows that it is one.
    async fn join(&mut self, name: &str, parents: &[&str], is_parent: bool) -> (Subscriber, SocketAddr) {
        self.declare(name, parents, None).await;
        let invite = self.distributor.invite(&node(name), &[], &[]).await.expect("an invite");
        let subscriber = Subscriber::builder(self.data_of(name)).listen(ANY_PORT).fallback(AT_ONCE);
        let invite = without_distributor(&invite, parents.is_empty());
        let joining = subscriber.join(&invite);
        let subscriber = tokio::time::timeout(PATIENCE, joining).await.expect("in time").expect("it works");
        let address = subscriber.start().await.expect("it works").expect("it works");
        self.declare(name, parents, Some(address)).await;
        if is_parent {
            // Somebody who has not joined yet is behind it.
            self.declare(&format!("behind.{name}"), &[name], None).await;
            self.acknowledged(name, "entitlements").await;
        }
        (subscriber, address)
    }

    /// Waits until a node is reached through that peer.
    async fn reached(&self, name: &str, hop: &str) {
        let what = format!("{name} to be reached through {hop}");
        until(&what, async || self.status(name).await.through == Some(node(hop))).await;
    }

    async fn status(&self, name: &str) -> SubscriberStatus {
        self.distributor.subscriber_status(&node(name)).await.expect("it works")
    }
}

/// The invite of a node that cannot reach the Distributor, whatever it is told about it.
fn without_distributor(invite: &str, reaches_it: bool) -> String {
    if reaches_it {
        return invite.to_owned();
    }
    let cut = invite.find("endpoints = [").expect("it works");
    let end = invite[cut..].find(']').expect("it works") + cut;
    format!("{}endpoints = [\"127.0.0.1:1\"{}", &invite[..cut], &invite[end..])
}

/// Waits until something holds that nobody tells of.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let looking = async {
        let mut round = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            round.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

async fn through(subscriber: &Subscriber) -> Option<String> {
    let status = subscriber.status().await.expect("a status");
    status.distributors[0].through.as_ref().map(ToString::to_string)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_reaches_its_parent_alone_joins_and_is_told_what_stands_however_deep_it_is() {
    let mut world = World::new().await;
    let (p1, _) = world.join("p1.example", &[], true).await;
    let (p2, _) = world.join("p2.example", &["p1.example"], true).await;
    let (leaf, _) = world.join("leaf.example", &["p2.example"], false).await;
    world.acknowledged("leaf.example", "configuration").await;
    world.reached("leaf.example", "p1.example").await;
    world.reached("p2.example", "p1.example").await;
    assert_eq!(through(&leaf).await.as_deref(), Some("p2.example"));
    assert_eq!(through(&p2).await.as_deref(), Some("p1.example"));
    assert_eq!(through(&p1).await, None);
    let children: Vec<_> = p2.status().await.expect("a status").distributors.remove(0).children;
    let connected: Vec<_> = children.iter().filter(|child| child.connected.is_some()).collect();
    assert_eq!(connected.len(), 1);
    assert_eq!(connected[0].name, node("leaf.example"));
    for node in [leaf, p2, p1] {
        node.shutdown().await;
    }
    world.distributor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_falls_back_where_its_route_says_so_moves_back_and_follows_another_route() {
    let mut world = World::new().await;
    let (p1, address) = world.join("p1.example", &[], true).await;
    let (p2, _) = world.join("p2.example", &[], true).await;
    let (leaf, _) = world.join("leaf.example", &["p1.example", "p2.example"], false).await;
    world.reached("leaf.example", "p1.example").await;
    p1.shutdown().await;
    drop(p1);
    world.reached("leaf.example", "p2.example").await;
    assert_eq!(through(&leaf).await.as_deref(), Some("p2.example"));

    // The socket goes a moment after the node.
    let p1 = Subscriber::builder(world.data_of("p1.example")).listen(address).open().await.expect("it opens");
    let mut round = tokio::time::interval(Duration::from_millis(20));
    while p1.start().await.is_err() {
        round.tick().await;
    }
    world.reached("leaf.example", "p1.example").await;
    assert_eq!(through(&leaf).await.as_deref(), Some("p1.example"));

    world.declare("leaf.example", &["p2.example"], None).await;
    world.reached("leaf.example", "p2.example").await;
    // One that may go nowhere else hears of its other route before its parent lets it go.
    world.declare("leaf.example", &["p1.example"], None).await;
    world.reached("leaf.example", "p1.example").await;
    assert_eq!(through(&leaf).await.as_deref(), Some("p1.example"));
    let parents = leaf.status().await.expect("a status").distributors.remove(0).parents;
    assert_eq!(
        parents.iter().map(|row| (row.name.clone(), row.serves)).collect::<Vec<_>>(),
        [(node("p1.example"), true)]
    );
    for node in [leaf, p2, p1] {
        node.shutdown().await;
    }
    world.distributor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_parent_is_left_by_its_children_which_turn_to_their_fallback() {
    let mut world = World::new().await;
    let (p1, _) = world.join("p1.example", &[], true).await;
    let (p2, _) = world.join("p2.example", &[], true).await;
    let (leaf, _) = world.join("leaf.example", &["p1.example", "p2.example"], false).await;
    world.reached("leaf.example", "p1.example").await;
    world.distributor.revoke("p1.example", RevocationReason::KEY_COMPROMISE).await.expect("it works");
    until("the revoked parent to be gone", async || !world.status("p1.example").await.connected).await;
    world.reached("leaf.example", "p2.example").await;
    assert_eq!(through(&leaf).await.as_deref(), Some("p2.example"));
    for node in [leaf, p2, p1] {
        node.shutdown().await;
    }
    world.distributor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_through_a_parent_that_is_not_known_or_not_found_is_refused() {
    let mut world = World::new().await;
    world.declare("p1.example", &[], None).await;
    world.declare("leaf.example", &["p1.example"], None).await;
    let leaf = node("leaf.example");
    let refused = world.distributor.invite(&leaf, &[], &[]).await.expect_err("refused");
    assert_eq!(refused.code(), "TED-1222", "{refused}");
    let (p1, _) = world.join("p1.example", &[], true).await;
    world.distributor.invite(&leaf, &[], &[]).await.expect("an invite");
    world.declare("p1.example", &[], None).await;
    let refused = world.distributor.invite(&leaf, &[], &[]).await.expect_err("refused");
    assert_eq!(refused.code(), "TED-1223", "{refused}");
    p1.shutdown().await;
    world.distributor.shutdown().await;
}
