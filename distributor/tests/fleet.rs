//! The fleet from the command line: routes, groups, labels, and files that declare all of it.

mod common;

use std::fs;

use common::Node;

struct Place {
    folder: tempfile::TempDir,
    node: Node,
}

/// A Distributor with two tiers: `p1`, behind it `p2`, behind that `leaf`; all of them in Berlin.
fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("site");
    fs::create_dir(&source).expect("made");
    let node = Node::distributor(folder.path().join("data"));
    node.succeeds(&["init", "--name", "dist.example.com", "--listen", "127.0.0.1:0"]);
    node.succeeds(&["distribution", "create", "site", "--source", source.to_str().expect("UTF-8")]);
    let berlin = ["--label", "site=berlin"];
    let endpoint = ["--endpoint", "p1.example.com:1229"];
    node.succeeds(&[&["subscriber", "create", "p1"][..], &berlin, &endpoint].concat());
    node.succeeds(&[&["subscriber", "create", "p2", "--parent", "p1", "--endpoint", "p2:1229"][..], &berlin].concat());
    node.succeeds(&[&["subscriber", "create", "leaf", "--parent", "p2", "--parent", "p1"][..], &berlin].concat());
    node.succeeds(&["external-subscriber", "create", "guest", "--parent", "p1"]);
    node.succeeds(&["channel", "create", "nightly", "--distribution", "site", "--schedule", "every 1h"]);
    Place { folder, node }
}

#[test]
fn routes_are_shown_and_ones_that_cannot_work_are_refused() {
    let place = place();
    let node = &place.node;
    let tree = node.succeeds(&["route", "show"]);
    assert!(tree.contains("dist.example.com\n\u{2514}\u{2500}\u{2500} p1"), "{tree}");
    assert!(tree.contains("leaf   else through p1") && tree.contains("guest (External)"), "{tree}");
    let leaf = node.json(&["route", "show", "leaf"]);
    assert_eq!(leaf["routes"][0]["way"], serde_json::json!(["p1", "p2"]));
    assert_eq!(node.json(&["route", "show", "p1"])["of"]["descendants"], serde_json::json!(["guest", "leaf", "p2"]));
    let rows: [(&[&str], &str, &str); 6] = [
        (&["subscriber", "update", "p1", "--parent", "leaf"], "TED-1374", "p1 -> leaf -> p1"),
        (&["subscriber", "update", "leaf", "--parent", "guest"], "TED-1375", "guest"),
        (&["subscriber", "configure", "guest", "--set", "rate.input=2M"], "TED-1376", "guest"),
        (&["subscriber", "update", "leaf", "--parent", "p3"], "TED-1377", "dist.example.com"),
        (&["subscriber", "delete", "p2"], "TED-1604", "leaf"),
        (&["external-subscriber", "show", "p1"], "TED-1605", "External Subscriber `p1`"),
    ];
    for (line, code, word) in rows {
        node.run(line).failed(code, 1, &[word]);
    }
}

#[test]
fn subscribers_are_changed_by_their_labels_all_or_none() {
    let place = place();
    let node = &place.node;
    let update = ["subscriber", "update", "--label", "site=berlin", "--channel", "nightly", "--group", "north"];
    node.run(&update).failed("TED-1605", 1, &["north"]);
    assert_eq!(node.json(&["channel", "show", "nightly"])["receivers"], 0, "none was changed");
    node.succeeds(&["group", "create", "north"]);
    let tried = node.succeeds(&[&update[..], &["--dry-run"]].concat());
    assert!(tried.contains("would change 3 Subscribers: leaf, p1, p2"), "{tried}");
    assert_eq!(node.json(&["channel", "show", "nightly"])["receivers"], 0, "it was only tried");
    node.succeeds(&update);
    assert_eq!(node.json(&["channel", "show", "nightly"])["receivers"], 3);
    assert_eq!(node.json(&["group", "show", "north"])["subscribers"], serde_json::json!(["leaf", "p1", "p2"]));
    node.succeeds(&["subscriber", "pause", "--label", "site=berlin"]);
    assert_eq!(node.json(&["subscriber", "show", "leaf"])["active"], false);
    node.run(&["group", "delete", "none"]).failed("TED-1605", 1, &["none"]);
}

#[test]
fn a_file_declares_the_fleet_all_of_it_or_nothing() {
    let place = place();
    let node = &place.node;
    let exported = node.succeeds(&["export"]);
    let file = place.folder.path().join("fleet.toml");
    let apply = |text: &str, more: &[&str]| {
        fs::write(&file, text).expect("written");
        node.run(&[&["apply", file.to_str().expect("UTF-8")][..], more].concat())
    };
    assert!(apply(&exported, &["--prune"]).printed().contains("nothing changes"));
    let id = node.json(&["distribution", "show", "site"])["id"].clone();

    let wrong = format!("{exported}\n[[subscriber]]\nname = \"new\"\nparents = [\"guest\"]\n");
    apply(&wrong, &[]).failed("TED-1375", 1, &["guest"]);
    assert_eq!(node.succeeds(&["export"]), exported);

    let without_ids: String =
        exported.lines().filter(|line| !line.starts_with("id = ")).fold(String::new(), |text, line| text + line + "\n");
    let smaller = without_ids.split("[[subscriber]]\nname = \"guest\"").next().expect("the first part").to_owned();
    let smaller = smaller.replace("every 1h", "every 2h");
    let ended = apply(&smaller, &[]);
    assert!(ended.printed().contains("schedule: every 1h -> every 2h"), "{}", ended.printed());
    assert!(ended.printed().contains("and kept (`--prune` deletes it): Subscriber `guest`"), "{}", ended.printed());
    let tried = apply(&smaller, &["--prune", "--dry-run"]);
    assert!(
        tried.printed().contains("- Subscriber `guest`") && tried.printed().contains("would change"),
        "{}",
        tried.printed()
    );
    node.succeeds(&["external-subscriber", "show", "guest"]);
    apply(&smaller, &["--prune"]);
    node.run(&["external-subscriber", "show", "guest"]).failed("TED-1605", 1, &["guest"]);
    assert_eq!(node.json(&["distribution", "show", "site"])["id"], id, "the id is kept without being written");
}

#[test]
fn a_daemon_has_written_the_fleet_file_when_it_ends() {
    let place = place();
    let daemon = place.node.start("the Distributor runs");
    for number in 0..5 {
        place.node.succeeds(&["subscriber", "create", &format!("late{number}")]);
    }
    assert!(daemon.stop().success());
    let text = fs::read_to_string(place.node.data.join("fleet.toml")).expect("there");
    assert!((0..5).all(|number| text.contains(&format!("late{number}"))), "{text}");
}
