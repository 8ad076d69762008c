//! Without the right certificates nothing is accepted: nothing below `sub/`, `security/` or the target changes, and the
//! reason stands in both logs.

mod support;

use ted_core::security::Usage;
use ted_core::store::{NodeRole, SecurityDir};

use support::{Node, Origin, Work, text, trees};

const NAME: &str = "s1.example.com";

/// A Subscriber that has joined `origin` and never received anything.
fn joined(work: &Work, origin: &Origin) -> Node {
    let node = Node::subscriber(work.path("s"));
    let target = format!("site={}", text(&work.path("www")));
    node.ok(&["join", text(&origin.invite(work, NAME)), "--target", &target]);
    node
}

/// Runs the Subscriber's daemon while the Distributor sends, and expects that nothing changes and that both logs say
/// why with these words.
fn refused(work: &Work, node: &Node, origin: &Origin, (here, there): (&str, &str)) {
    let watched = [node.data.join("sub"), node.data.join("security"), work.path("www"), node.data.join("files")];
    let watched: Vec<_> = watched.iter().map(std::path::PathBuf::as_path).collect();
    let before = trees(&watched);
    let daemon = node.daemon();
    origin.node.run(&["send", "nightly"]);
    daemon.log.wait_for(here);
    origin.daemon.log.wait_for(there);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(trees(&watched), before);
}

#[test]
fn without_the_certificate_nothing_is_accepted() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = joined(&work, &origin);
    std::fs::remove_file(node.data.join("security/dist.example.com.cer")).expect("it lies there");
    refused(&work, &node, &origin, ("TED-1302", "TED-1302"));
    let before = trees(&[&node.data.join("security")]);
    let ran = node.run(&["enrol", &origin.endpoint]);
    assert_eq!((ran.code(), ran.errors().contains("TED-1867")), (6, true), "{}", ran.errors());
    assert_eq!(trees(&[&node.data.join("security")]), before);
}

#[test]
fn another_distributors_certificate_of_the_same_name_is_worth_nothing() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let impostor = Origin::start(&work, "e", "dist.example.com", &[]);
    let node = joined(&work, &origin);
    std::fs::copy(impostor.certificate(), node.data.join("security/dist.example.com.cer")).expect("copied");
    refused(&work, &node, &origin, ("TED-1302", "TED-1302"));

    let fresh = Node::subscriber(work.path("t"));
    fresh.ok(&["init", "--name", "s2.example.com"]);
    fresh.ok(&["trust", text(&impostor.certificate())]);
    let before = trees(&[&fresh.data.join("security")]);
    let ran = fresh.run(&["enrol", &origin.endpoint]);
    assert_eq!((ran.code(), ran.errors().contains("TED-1314")), (6, true), "{}", ran.errors());
    origin.daemon.log.wait_for("a peer asks for a fleet that this node takes no part in");
    assert_eq!(trees(&[&fresh.data.join("security")]), before);
}

#[test]
fn a_subscriber_that_is_not_registered_is_refused() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = joined(&work, &origin);
    origin.node.ok(&["subscriber", "delete", NAME]);
    refused(&work, &node, &origin, ("TED-1304", "TED-1304"));
}

#[test]
fn a_token_that_is_not_the_distributors_enrols_nobody() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let other = Origin::start(&work, "e", "other.example.com", &[]);
    let token = other.node.json(&["token", "create"])["token"].as_str().expect("a token").to_owned();
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", NAME]);
    node.ok(&["trust", text(&origin.certificate())]);
    let ran = node.run(&["enrol", &origin.endpoint, "--token", &token]);
    assert_eq!((ran.code(), ran.errors().contains("TED-1856")), (6, true), "{}", ran.errors());
    origin.daemon.log.wait_for("an enrolment was refused");
    let status = node.json(&["status"]);
    assert!(status["distributors"][0]["enrolled_until"].is_null(), "{status}");
    assert_eq!(status["distributors"][0]["endpoints"], serde_json::json!([]), "it is not dialled either");
}

#[test]
fn a_certificate_of_another_fleet_opens_no_door() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let other = Origin::start(&work, "e", "other.example.com", &[]);
    let node = joined(&work, &origin);
    node.ok(&["join", text(&other.invite(&work, NAME))]);

    let security = SecurityDir::open(&node.data.join("security"), NodeRole::Subscriber).expect("it opens");
    let trust = security.trust().expect("readable");
    let key_of = |name: &str| {
        let found = trust.roots.iter().find(|trusted| trusted.root.name().to_string() == name);
        found.expect("it is trusted").root.key_hash()
    };
    let (right, wrong) = (key_of("dist.example.com"), key_of("other.example.com"));
    let foreign = trust.keystore.identity(&wrong, Usage::SubscriberIdentity).expect("it has enrolled");
    security
        .change_keystore(|keystore| {
            let own = keystore.identity(&right, Usage::SubscriberIdentity).expect("it has enrolled");
            keystore.forget(&own.certificate.key_hash());
            keystore.hold_identity(right, foreign);
            Ok::<_, ted_core::store::SecurityDirError>(())
        })
        .expect("changed");
    drop(other);
    refused(&work, &node, &origin, ("TED-110", "TED-110"));
}
