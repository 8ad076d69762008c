//! Nodes that dial each other at the same time: one connection remains, the same at both, and works.

mod support;

use std::net::SocketAddr;

use support::proxy::Proxy;
use support::{ANY_PORT, World, connected, event, extracted, fake, node, within};
use ted_core::security::Usage;
use ted_core::store::{NodeRole, SecurityDir};
use ted_core::{DistributorEvent, Subscriber, SubscriberEvent};

/// An address at which nothing listens yet.
fn free_address() -> SocketAddr {
    let socket = std::net::UdpSocket::bind(ANY_PORT).expect("a socket");
    socket.local_addr().expect("an address")
}

/// A Subscriber that listens at `address` and whose key is smaller than the Distributor's, or is not. It has not
/// started.
async fn subscriber_with(world: &World, address: SocketAddr, smaller: bool) -> Subscriber {
    let (authority, _, tls) = fake::keys(&world.data_of("distributor"));
    let fleet = authority.root().key_hash();
    for number in 0..64 {
        let name = format!("node-{number}.example");
        let invite = world.invite(&name).await;
        let joining = world.builder(&name).listen(address).join(&invite);
        let subscriber = within("the enrolment", joining).await.expect("it joins");
        let security = SecurityDir::open(&world.data_of(&name).join("security"), NodeRole::Subscriber).expect("there");
        let keystore = security.load_keystore().expect("a keystore");
        let own = keystore.identity(&fleet, Usage::SubscriberIdentity).expect("it was issued");
        if (own.certificate.key_hash() < tls.certificate.key_hash()) == smaller {
            return subscriber;
        }
        world.distributor.delete_subscriber(&node(&name)).await.expect("removed");
    }
    panic!("64 keys in a row were on the same side");
}

/// The Distributor dials over a link that is mended only once the Subscriber has dialled it, too.
async fn both_dial(subscriber_stays: bool) {
    let world = World::new().await;
    let address = free_address();
    let proxy = Proxy::to(address).await;
    proxy.break_link();
    let subscriber = subscriber_with(&world, address, subscriber_stays).await;
    let name = subscriber.name().to_string();
    let endpoint = proxy.address.to_string().parse().expect("an endpoint");
    world.distributor.update_subscriber(&node(&name), &[endpoint]).await.expect("changed");
    within("the Distributor to dial", proxy.dialled()).await;

    let (mut at_distributor, mut at_subscriber) = (world.distributor.events(), subscriber.events());
    subscriber.start().await.expect("it starts");
    connected(&mut at_distributor, &name).await;
    event("the Subscriber's connection", &mut at_subscriber, |event| {
        matches!(event, SubscriberEvent::Connected { .. }).then_some(())
    })
    .await;
    proxy.mend_link();
    within("the Distributor to be answered", proxy.answered()).await;
    if !subscriber_stays {
        connected(&mut at_distributor, &name).await;
    }
    let (mut sending, mut receiving) = (world.distributor.events(), subscriber.events());
    world.deliver().await;
    world.assert_equal(&name);
    event("a receipt", &mut sending, |event| matches!(event, DistributorEvent::Receipt { .. }).then_some(())).await;
    extracted(&mut receiving).await;

    let status = world.distributor.status().await.expect("readable");
    let row = status.subscribers.iter().find(|row| row.name == node(&name)).expect("in the fleet");
    let dialled = if subscriber_stays { address } else { proxy.address };
    assert_eq!(row.address, Some(dialled.to_string()), "at the Distributor");
    let status = subscriber.status().await.expect("readable");
    let there = status.distributors[0].connected.as_ref().expect("connected");
    assert_eq!(*there == world.address.to_string(), subscriber_stays, "at the Subscriber: {there}");
    assert_eq!(status.distributors[0].trouble, None);
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);
    while let Some(event) = within("the last event", at_subscriber.next()).await {
        assert!(!matches!(event, SubscriberEvent::Refused { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_stays_that_the_subscriber_dialled_if_its_key_is_smaller() {
    both_dial(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_stays_that_the_distributor_dialled_if_its_key_is_smaller() {
    both_dial(false).await;
}
