//! Names are labels: keys are what nodes are known by, and addresses are nobody's name.

use std::fs;
use std::net::SocketAddr;

use ted_core::{Distributor, DistributorEvent, SubscriberEvent};

use crate::support::{CHANNEL, World, event, find, label, listen, node, within};

fn address_names_in(data: &std::path::Path) -> usize {
    find(data, "distfile.ted").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_subscriber_goes_on_receiving_and_is_certified_anew_once_it_is_approved() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    let (mut ours, mut theirs) = (world.distributor.events(), subscriber.events());

    subscriber.rename(&node("uno.example")).await.expect("renamed");
    assert_eq!(subscriber.name(), node("uno.example"));
    event("the request under the new name", &mut ours, |event| match event {
        DistributorEvent::EnrolmentPending { name, .. } if name == node("uno.example") => Some(()),
        _ => None,
    })
    .await;
    fs::write(world.source.join("file-05"), "while it waits for approval\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");

    world.distributor.approve(&node("uno.example"), None, &[]).await.expect("approved");
    event("the new certificates", &mut theirs, |event| matches!(event, SubscriberEvent::Renewed { .. }).then_some(()))
        .await;
    let status = world.distributor.status().await.expect("readable");
    let names: Vec<_> = status.subscribers.iter().map(|subscriber| subscriber.name.to_string()).collect();
    assert_eq!(names, ["uno.example"], "one node, known by its key, under its new name");
    assert_eq!(status.subscribers[0].channels, [label(CHANNEL)]);
    fs::write(world.source.join("file-05"), "after approval\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_its_distributor_renamed_first_needs_no_approval() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.distributor.rename_subscriber(&node("one.example"), &node("uno.example")).await.expect("renamed");
    let taken = world.distributor.create_subscriber(node("due.example"), &[], &[]).await;
    taken.expect("declared");
    let refused = world.distributor.rename_subscriber(&node("uno.example"), &node("due.example")).await;
    assert_eq!(refused.expect_err("taken").code(), "TED-1602");
    world.deliver().await;
    let mut theirs = subscriber.events();
    subscriber.rename(&node("uno.example")).await.expect("renamed");
    event("the new certificates", &mut theirs, |event| matches!(event, SubscriberEvent::Renewed { .. }).then_some(()))
        .await;
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_dns_naming_another_address_is_harmless_on_either_side() {
    let world = World::with(|builder| builder.listen("127.0.0.1:0".parse().expect("an address"))).await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;

    // The Distributor moves to another address; the Subscriber is only told where to dial.
    let moved: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    let World { folder, source, distributor, .. } = world;
    within("the shutdown", distributor.shutdown()).await;
    drop(distributor);
    let data = folder.path().join("distributor");
    let distributor = Distributor::builder(data).listen(moved).open().await.expect("opened");
    let address = listen(&distributor).await;
    assert_eq!(address.ip().to_string(), "127.0.0.2");
    let world = World { folder, source, distributor, address };
    let mut events = world.distributor.events();
    let invite = world.distributor.invite(&node("one.example"), &[label(CHANNEL)], &[]).await.expect("an invite");
    within("the new endpoint", subscriber.join(&invite)).await.expect("it is enrolled already");
    crate::support::connected(&mut events, "one.example").await;
    fs::write(world.source.join("file-05"), "from another address\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
    drop(subscriber);

    // The Subscriber moves: it listens at another address, and is dialled there.
    let listening = world.builder("one.example").listen(SocketAddr::new(moved.ip(), 0));
    let subscriber = listening.open().await.expect("opened");
    let mut events = world.distributor.events();
    let at = subscriber.start().await.expect("it starts").expect("it listens");
    let endpoint = at.to_string().parse().expect("an endpoint");
    world.distributor.update_subscriber(&node("one.example"), &[endpoint]).await.expect("changed");
    crate::support::connected(&mut events, "one.example").await;
    fs::write(world.source.join("file-05"), "to another address\n").expect("written");
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_named_by_address_keep_their_names_when_they_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, at) = (folder.path().join("source"), folder.path().join("distributor"));
    fs::create_dir(&source).expect("a folder");
    fs::write(source.join("a"), "a\n").expect("a file");
    let open = |ip: &str| Distributor::builder(&at).listen(format!("{ip}:0").parse().expect("an address"));
    // Named by an address that it listens at, and later by one that it does not listen at any more.
    let distributor = open("127.0.0.2").name(node("127.0.0.2")).open().await.expect("opened");
    let address = listen(&distributor).await;
    let spec = ted_core::DistributionSpec::new(label("site"), &source);
    distributor.create_distribution(spec).await.expect("a Distribution");
    distributor.create_channel(label(CHANNEL), &[label("site")], &[]).await.expect("a Channel");
    let world = World { folder, source, distributor, address };
    let invite = world.invite("2001:db8::7").await;
    let subscriber = within("the enrolment", world.builder("six").join(&invite)).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    assert!(world.data_of("six").join("sub/127.0.0.2").is_dir());
    let requests = world.data_of("six").join("security/csr/127.0.0.2");
    assert!(requests.join("2001-db8--7.identity.csr").is_file(), "file names have `-` for `:`");

    within("the shutdown", world.distributor.shutdown()).await;
    let World { folder, source, distributor, .. } = world;
    drop(distributor);
    let distributor = open_at(&folder, "127.0.0.3").await;
    let address = listen(&distributor).await;
    let world = World { folder, source, distributor, address };
    let mut events = world.distributor.events();
    let invite = world.invite("2001:db8::7").await;
    within("the new endpoint", subscriber.join(&invite)).await.expect("it is enrolled already");
    crate::support::connected(&mut events, "2001:db8::7").await;
    fs::write(world.source.join("a"), "b\n").expect("a file");
    world.deliver().await;
    assert!(address_names_in(&world.data_of("six")) >= 1);
    within("the shutdown", subscriber.shutdown()).await;
}

async fn open_at(folder: &tempfile::TempDir, ip: &str) -> Distributor {
    let listen = format!("{ip}:0").parse().expect("an address");
    Distributor::builder(folder.path().join("distributor")).listen(listen).open().await.expect("opened")
}
