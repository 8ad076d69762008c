//! Reports and events of the built binaries: what is on record survives restarts, and who follows misses nothing.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Node, free_address};

const DISTRIBUTOR_RUNS: &str = "the Distributor runs";
const SUBSCRIBER_RUNS: &str = "the Subscriber runs";

/// `events -f --json` of a Distributor, read line by line.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Following {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ted-distributor"))
            .args(["events", "-f", "--json"])
            .env_clear()
            .env("TED_DATA_DIR", data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The numbers of the events on record that come, up to the first that is `event`.
    fn until(&mut self, event: &str) -> Vec<u64> {
        let mut numbers = vec![];
        loop {
            let line = self.lines.next().expect("it goes on").expect("text");
            let told: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            numbers.extend(told["number"].as_u64());
            if told["event"] == event {
                return numbers;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.child.kill().expect("it runs until it is ended");
        self.child.wait().expect("ended");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn who_follows_events_gets_each_once_also_when_the_daemon_is_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, data) = (folder.path().join("source"), folder.path().join("distributor"));
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), b"first").expect("written");
    let distributor = Node::distributor(data.clone());
    distributor.succeeds(&["init", "--name", "dist.example.com", "--listen", &free_address()]);
    distributor.succeeds(&["distribution", "create", "site", "--source", text(&source)]);
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    let mut following = Following::start(&data);
    distributor.succeeds(&["distribution", "build", "site"]);
    let mut numbers = following.until("built");
    assert!(daemon.stop().success());
    // No daemon runs: the command itself keeps what happens.
    fs::write(source.join("file"), b"second").expect("written");
    distributor.succeeds(&["distribution", "build", "site"]);
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    numbers.extend(following.until("built"));
    fs::write(source.join("file"), b"the third").expect("written");
    distributor.succeeds(&["distribution", "build", "site"]);
    numbers.extend(following.until("built"));
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
    let built = distributor.succeeds(&["events", "--event", "built", "--distribution", "site", "--since", "1h"]);
    assert_eq!(built.lines().count(), 3, "{built}");
    assert_eq!(distributor.succeeds(&["events", "--distribution", "other"]), "");
    assert!(daemon.stop().success());
    assert_eq!(distributor.succeeds(&["events", "-n", "2", "--event", "built"]).lines().count(), 2, "without a daemon");
}

#[test]
fn a_report_says_of_each_delivery_how_far_it_is_and_its_exit_code_says_whether_all_are_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), b"first").expect("written");
    let distributor = Node::distributor(folder.path().join("distributor"));
    distributor.succeeds(&["init", "--name", "dist.example.com", "--listen", &free_address()]);
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    distributor.succeeds(&["distribution", "create", "site", "--source", text(&source)]);
    distributor.succeeds(&["channel", "create", "nightly", "--distribution", "site"]);
    let mut nodes = vec![];
    for name in ["s1.example.com", "s2.example.com"] {
        let invite = folder.path().join(format!("{name}.invite"));
        distributor.succeeds(&["invite", name, "--channel", "nightly", "--output", text(&invite)]);
        let node = Node::subscriber(folder.path().join(name));
        node.succeeds(&["join", text(&invite)]);
        nodes.push(node);
    }
    let running = nodes[0].start(SUBSCRIBER_RUNS);
    distributor.run(&["send", "nightly", "--wait", "--timeout", "5s"]);

    let partly = distributor.run(&["report", "deliveries", "--json"]);
    assert_eq!(partly.output.status.code(), Some(3), "{}", partly.told());
    let report: serde_json::Value = serde_json::from_str(&partly.printed()).expect("JSON");
    let rows = report["deliveries"].as_array().expect("rows");
    assert_eq!((rows[0]["state"].as_str(), rows[0]["cause"].as_str()), (Some("extracted"), Some("send")), "{report}");
    assert!(rows[0]["stages"]["verified"].is_string(), "{report}");
    assert_eq!((rows[1]["state"].as_str(), rows[1]["waiting_for"].as_str()), (Some("pending"), Some("connection")));
    distributor.succeeds(&["report", "deliveries", "--subscriber", "s1.example.com", "--channel", "nightly"]);
    distributor.succeeds(&["report", "deliveries", "--state", "failed"]);
    let away = distributor.run(&["report", "deliveries", "--waiting-for", "connection"]);
    assert_eq!(away.output.status.code(), Some(1), "{}", away.told());
    assert!(away.printed().contains("waiting for connection"), "{}", away.printed());
    let summary = distributor.json(&["report", "summary"]);
    assert_eq!((&summary["total"]["deliveries"], &summary["total"]["waiting"]), (&2.into(), &1.into()), "{summary}");

    // What is known survives the daemon, and what is open goes on.
    assert!(daemon.stop().success());
    let again = distributor.run(&["report", "deliveries", "--json"]);
    assert_eq!(again.output.status.code(), Some(3), "{}", again.told());
    let daemon = distributor.start(DISTRIBUTOR_RUNS);
    let other = nodes[1].start(SUBSCRIBER_RUNS);
    common::until("the second one has it", || {
        distributor.run(&["report", "deliveries", "--since", "1h"]).output.status.success()
    });
    let receipts = distributor.succeeds(&["events", "--event", "receipt", "--channel", "nightly"]);
    assert_eq!(receipts.matches("stage=extracted").count(), 2, "{receipts}");
    let extracted = nodes[1].succeeds(&["events", "--event", "extracted"]);
    assert_eq!(extracted.lines().count(), 1, "{extracted}");
    for daemon in [running, other, daemon] {
        assert!(daemon.stop().success());
    }
}
