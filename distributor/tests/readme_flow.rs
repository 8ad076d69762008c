//! The README's few commands with the built binaries: one Distributor, two Subscribers, three data directories.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use common::{Daemon, Node, free_address, tree, until};

const DISTRIBUTOR_RUNS: &str = "the Distributor runs";
const SUBSCRIBER_RUNS: &str = "the Subscriber runs";

/// A Subscriber that has joined and runs.
struct Member {
    node: Node,
    daemon: Daemon,
    target: PathBuf,
}

impl Member {
    fn join(distributor: &Node, folder: &Path, name: &str) -> Self {
        let (invite, target) = (folder.join(format!("{name}.invite")), folder.join(name).join("target"));
        distributor.succeeds(&["invite", name, "--channel", "nightly", "--output", text(&invite)]);
        let node = Node::subscriber(folder.join(name).join("data"));
        node.succeeds(&["join", text(&invite), "--target", &format!("site={}", target.display())]);
        let daemon = node.start(SUBSCRIBER_RUNS);
        Self { node, daemon, target }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn newest(distributor: &Node) -> u64 {
    let shown = distributor.json(&["distribution", "show", "site"]);
    shown["newest"]["revision"].as_u64().expect("a revision")
}

#[test]
fn the_readmes_commands_deliver_every_byte_and_every_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    tree::make(&source);

    let distributor = Node::distributor(folder.path().join("distributor"));
    distributor.succeeds(&["init", "--name", "dist.example.com", "--listen", &free_address()]);
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    distributor.succeeds(&["distribution", "create", "site", "--source", text(&source)]);
    distributor.succeeds(&["channel", "create", "nightly", "--distribution", "site"]);
    let members = ["s1.example.com", "s2.example.com"].map(|name| Member::join(&distributor, folder.path(), name));

    let printed = distributor.succeeds(&["send", "nightly", "--wait", "--timeout", "5m"]);
    assert_eq!(printed.matches("extracted").count(), 2, "{printed}");
    members.iter().for_each(|member| tree::assert_same(&source, &member.target));
    let first = newest(&distributor);

    let changed = source.join("folder 07/file-003.txt");
    let mut file = OpenOptions::new().append(true).open(&changed).expect("opened");
    file.write_all(b"one line more\n").expect("appended");
    drop(file);
    let firing = distributor.json(&["send", "nightly", "--wait", "--timeout", "5m"]);
    assert_eq!(firing["state"], "done", "{firing}");
    members.iter().for_each(|member| tree::assert_same(&source, &member.target));
    let second = newest(&distributor);
    assert!(second > first, "{second} after {first}");

    distributor.succeeds(&["send", "nightly", "--wait", "--timeout", "5m"]);
    assert_eq!(newest(&distributor), second, "nothing changed, so nothing was built");

    let status = distributor.json(&["status"]);
    let connected = |subscriber: &serde_json::Value| subscriber["connected"].is_string();
    assert!(
        status["subscribers"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(connected)),
        "{status}"
    );
    distributor.run(&["run"]).failed("TED-1501", 1, &["in use by process"]);
    for Member { node, daemon, .. } in members {
        node.run(&["run"]).failed("TED-1501", 1, &["in use by process"]);
        assert!(daemon.stop().success(), "SIGTERM is a good end");
    }
    assert!(daemon.stop().success(), "SIGTERM is a good end");
}

#[test]
fn what_was_sent_while_a_subscriber_was_away_comes_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), b"first").expect("written");
    let distributor = Node::distributor(folder.path().join("distributor"));
    distributor.succeeds(&["init", "--name", "dist.example.com", "--listen", &free_address()]);
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    distributor.succeeds(&["distribution", "create", "site", "--source", text(&source)]);
    distributor.succeeds(&["channel", "create", "nightly", "--distribution", "site"]);
    let Member { node, daemon: away, target } = Member::join(&distributor, folder.path(), "s1.example.com");
    assert!(away.stop().success());
    distributor.succeeds(&["subscriber", "create", "s2.example.com", "--channel", "nightly"]);

    let late = distributor.run(&["send", "nightly", "--wait", "--timeout", "1s"]);
    assert_eq!(late.output.status.code(), Some(4), "{}", late.told());
    assert!(late.told().contains("error[TED-1807]"), "{}", late.told());
    let printed = late.printed();
    assert!(printed.contains("sending to 1 Subscriber,") && printed.contains("not connected"), "{printed}");
    assert!(printed.contains("left out, since not enrolled or revoked: s2.example.com"), "{printed}");
    // Firings outlive the daemon.
    assert!(daemon.stop().success());
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    let back = node.start(SUBSCRIBER_RUNS);
    until("the extracted file", || fs::read(target.join("file")).is_ok_and(|content| content == b"first"));
    until("the receipt", || {
        let status = distributor.json(&["status"]);
        status["firings"].as_array().is_some_and(Vec::is_empty)
            && status["subscribers"][0]["deliveries"][0]["stage"] == "extracted"
    });
    assert!(back.stop().success() && daemon.stop().success());
}
