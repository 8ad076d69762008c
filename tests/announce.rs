//! Standing envelopes: what a Distributor has said once reaches every Subscriber, connected or not, and stays in force
//! whatever is lost.

mod support;

use support::{World, event, fake, node, within};
use ted_core::security::RevocationReason;
use ted_core::{DistributorEvent, Events, SubscriberEvent};

const LIST: &str = "revocation list";

async fn acknowledged(events: &mut Events<DistributorEvent>, name: &str) -> u64 {
    let name = node(name);
    event("an acknowledgement", events, move |event| match event {
        DistributorEvent::Acknowledged { subscriber, kind, sequence } if subscriber == name && kind == LIST => {
            Some(sequence)
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_who_is_connected_at_once_and_who_was_away_when_it_comes_back() {
    let world = World::new().await;
    let (near, away) = (world.subscriber("near.example").await, world.subscriber("away.example").await);
    let lost = world.subscriber("lost.example").await;
    within("the shutdown", away.shutdown()).await;
    drop(away);

    let (mut at_distributor, mut at_near, mut at_lost) = (world.distributor.events(), near.events(), lost.events());
    let rows = world.distributor.revoke("lost.example", RevocationReason::LOST).await.expect("revoked");
    assert!(rows.iter().all(|row| row.name == Some(node("lost.example"))) && rows.len() == 2, "{rows:?}");
    let sequence = acknowledged(&mut at_distributor, "near.example").await;
    event("the list to be in force", &mut at_near, |event| match event {
        SubscriberEvent::EnvelopeAccepted { kind, sequence: accepted, .. } => {
            assert_eq!((kind.as_str(), accepted), (LIST, sequence));
            Some(())
        }
        _ => None,
    })
    .await;
    event("the revoked node to be sent away", &mut at_lost, |event| match event {
        SubscriberEvent::Disconnected { reason, .. } | SubscriberEvent::Refused { reason, .. } => {
            reason.contains("TED-1305").then_some(())
        }
        _ => None,
    })
    .await;

    let _away = world.reopen("away.example").await;
    assert_eq!(acknowledged(&mut at_distributor, "away.example").await, sequence);
    let nobody = world.distributor.revoke("nobody.example", RevocationReason::LOST).await;
    assert_eq!(nobody.expect_err("unknown").code(), "TED-1196");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_survives_the_loss_of_the_catalog_on_both_sides() {
    let world = World::new().await;
    let near = world.subscriber("near.example").await;
    let lost = world.subscriber("lost.example").await;
    let mut events = world.distributor.events();
    world.distributor.revoke("lost.example", RevocationReason::KEY_COMPROMISE).await.expect("revoked");
    let sequence = acknowledged(&mut events, "near.example").await;
    within("the shutdown", near.shutdown()).await;
    within("the shutdown", lost.shutdown()).await;
    drop((near, lost));

    // The Distributor's memory of who has it is gone with its catalog; what it announces is not.
    within("the shutdown", world.distributor.shutdown()).await;
    let World { folder, source, distributor, address } = world;
    drop(distributor);
    std::fs::remove_dir_all(folder.path().join("distributor/catalog")).expect("removed");
    let (distributor, address) = support::open_distributor(folder.path(), address).await;
    let world = World { folder, source, distributor, address };
    let mut events = world.distributor.events();
    let near = world.builder("near.example").open().await.expect("opened");
    near.start().await.expect("started");
    assert_eq!(acknowledged(&mut events, "near.example").await, sequence);

    // The revoked node is refused all the same.
    let lost = world.builder("lost.example").open().await.expect("opened");
    let mut at_lost = lost.events();
    lost.start().await.expect("started");
    event("the refusal", &mut at_lost, |event| match event {
        SubscriberEvent::Refused { code, reason, .. } => (code == "TED-1305").then(|| drop(reason)),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_distributors_own_certificates_are_replaced_when_they_are_revoked_and_the_old_ones_are_refused() {
    let world = World::new().await;
    let near = world.subscriber("near.example").await;
    world.deliver().await;
    let data = world.data_of("distributor");
    let own = world.distributor.certificates();
    let (authority, _, old_tls) = fake::keys(&data);
    let mut events = world.distributor.events();
    for certificate in &own[1..] {
        // As other tools print it, and as people paste it.
        let pairs: Vec<_> = certificate.serial_hex().to_uppercase().as_bytes().chunks(2).map(<[u8]>::to_vec).collect();
        let pasted = pairs.iter().map(|pair| String::from_utf8_lossy(pair)).collect::<Vec<_>>().join(":");
        let rows = world.distributor.revoke(&pasted, RevocationReason::KEY_COMPROMISE).await.expect("revoked");
        assert_eq!(rows[0].serials, [certificate.serial_hex()]);
        acknowledged(&mut events, "near.example").await;
    }
    let new = world.distributor.certificates();
    assert!(new[0] == own[0] && new[1] != own[1] && new[2] != own[2]);
    for what in [own[0].thumbprint(), own[0].serial_hex(), own[0].name().to_string(), own[0].key_hash().fingerprint()] {
        let refused = world.distributor.revoke(&what, RevocationReason::LOST).await;
        assert_eq!(refused.expect_err("the CA").code(), "TED-1193", "{what}");
    }
    assert_eq!(world.distributor.revoked().len(), 2);

    // What was signed before is delivered still, because what names it is signed anew.
    std::fs::write(world.source.join("file-05"), "after the revocation\n").expect("written");
    world.deliver().await;
    world.deliver().await;
    world.assert_equal("near.example");

    // The keys that were stolen are of no use: the Subscriber refuses whoever shows the old TLS certificate.
    let mut at_near = near.events();
    within("the shutdown", world.distributor.shutdown()).await;
    let endpoint = fake::listen_as(authority, old_tls, world.address).await;
    let meeting = async {
        loop {
            let Some(incoming) = endpoint.accept().await else { return };
            let _ = incoming.judge().await;
        }
    };
    let refusing = event("the refusal", &mut at_near, |event| match event {
        SubscriberEvent::Refused { code, .. } => (code == "TED-1305").then_some(()),
        _ => None,
    });
    tokio::select! {
        () = refusing => {}
        () = meeting => panic!("the endpoint closed"),
    }
}
