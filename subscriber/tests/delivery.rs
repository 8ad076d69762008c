//! A delivery as operators see it, and what becomes of targets that cannot be.

mod support;

use std::os::unix::fs::symlink;

use support::{Node, Origin, Work, text, until};

fn joined(work: &Work, origin: &Origin) -> Node {
    let node = Node::subscriber(work.path("s"));
    let target = format!("site={}", text(&work.path("www")));
    node.ok(&["join", text(&origin.invite(work, "s1.example.com")), "--target", &target]);
    node
}

fn content(work: &Work, below: &str) -> String {
    std::fs::read_to_string(work.path(below)).unwrap_or_default()
}

#[test]
fn a_folder_arrives_and_another_distributor_is_joined_while_the_daemon_runs() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = joined(&work, &origin);
    let daemon = node.daemon();
    let sent = origin.send();
    assert_eq!(sent.code(), 0, "{}{}", sent.printed(), sent.errors());
    assert_eq!(content(&work, "www/sub/page.html"), "a page");
    assert!(!node.data.join("security/dist.example.com.cer").exists(), "it is in the keystore now");
    assert_eq!(node.json(&["status"])["distributors"][0]["trust"], "keystore");

    work.write("d-source/index.html", "<h1>Hello again</h1>");
    assert_eq!(origin.send().code(), 0);
    assert_eq!(content(&work, "www/index.html"), "<h1>Hello again</h1>");
    node.ok(&["verify", "site"]);
    work.write("www/index.html", "scribbled");
    assert_eq!(node.run(&["verify"]).code(), 1);
    assert!(node.ok(&["extract", "dist.example.com/site"]).contains("changed here and overwritten: index.html"));
    node.ok(&["verify"]);

    let other = Origin::start(&work, "e", "other.example.com", &[]);
    let target = format!("other.example.com/site={}", text(&work.path("theirs")));
    node.ok(&["join", text(&other.invite(&work, "s1.example.com")), "--target", &target]);
    assert_eq!(other.send().code(), 0);
    assert_eq!(content(&work, "theirs/sub/page.html"), "a page");
    assert_eq!(content(&work, "www/index.html"), "<h1>Hello again</h1>", "the other site is where it was");

    node.ok(&["leave", "dist.example.com"]);
    let left = node.json(&["status"]);
    assert_eq!(left["distributors"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left["distributions"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(content(&work, "www/index.html"), "<h1>Hello again</h1>");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_node_that_is_approved_while_it_runs_receives() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", "s1.example.com"]);
    let daemon = node.daemon();
    node.ok(&["trust", text(&origin.certificate())]);
    let asked = node.json(&["enrol", &origin.endpoint]);
    assert!(asked["until"].is_null(), "{asked}");
    let pending = origin.node.json(&["subscriber", "pending"]);
    assert!(pending.to_string().contains(asked["fingerprint"].as_str().expect("one")), "{pending}");
    origin.node.ok(&["subscriber", "approve", "s1.example.com", "--channel", "nightly"]);
    // Asking again asks for the answer; the daemon would by itself some seconds later.
    node.ok(&["enrol", &origin.endpoint]);
    until("it is connected", || !node.json(&["status"])["distributors"][0]["connected"].is_null());
    assert_eq!(origin.send().code(), 0);
    let default = node.data.join("files/site/index.html");
    assert_eq!(std::fs::read_to_string(default).expect("extracted"), "<h1>Hello</h1>");
    assert_eq!(daemon.stop(), 0);
}

/// Sends to a target that cannot be, and expects this code on both sides.
fn fails_with(origin: &Origin, node: &Node, code: &str) {
    let sent = origin.send();
    assert_ne!(sent.code(), 0, "{}", sent.printed());
    let said = sent.printed() + &sent.errors();
    assert!(said.contains(code), "{said}");
    let status = node.json(&["status"]);
    assert!(status["distributions"][0]["trouble"].to_string().contains(code), "{status}");
}

#[test]
fn a_link_planted_in_the_target_is_not_written_through() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = joined(&work, &origin);
    std::fs::create_dir_all(work.path("www")).expect("made");
    std::fs::create_dir(work.path("elsewhere")).expect("made");
    symlink(work.path("elsewhere"), work.path("www/sub")).expect("made");
    let daemon = node.daemon();
    fails_with(&origin, &node, "TED-14");
    assert_eq!(std::fs::read_dir(work.path("elsewhere")).expect("there").count(), 0);
    assert!(!work.path("www/index.html").exists(), "nothing is half-written");
    assert_eq!(std::fs::read_link(work.path("www/sub")).expect("it is still there"), work.path("elsewhere"));
    drop(daemon);
}

#[test]
fn a_target_that_is_a_file_is_told_on_both_sides() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = joined(&work, &origin);
    work.write("www", "I am a file");
    let daemon = node.daemon();
    fails_with(&origin, &node, "TED-14");
    assert_eq!(content(&work, "www"), "I am a file");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_proposed_target_that_is_not_allowed_waits_for_the_operators_word() {
    let work = Work::new();
    let proposed = work.path("proposed");
    let origin = Origin::start(&work, "d", "dist.example.com", &["--target", text(&proposed)]);
    let node = Node::subscriber(work.path("s"));
    node.ok(&["join", text(&origin.invite(&work, "s1.example.com"))]);
    let daemon = node.daemon();
    fails_with(&origin, &node, "TED-1858");
    assert!(!proposed.exists());
    node.ok(&["target", "set", &format!("site={}", text(&work.path("www")))]);
    node.ok(&["extract", "site"]);
    assert_eq!(content(&work, "www/index.html"), "<h1>Hello</h1>");
    assert_eq!(origin.send().code(), 0, "the next firing finds it extracted");
    assert_eq!(daemon.stop(), 0);
}
