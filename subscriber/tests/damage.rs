//! Damage at rest as an operator meets it: the built binaries, stopped, a bit flipped, started again.

mod support;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Daemon, Node, Origin, Work, text, until};

/// The one file of this name below a folder.
fn only(below: &Path, name: &str) -> PathBuf {
    let all = support::trees(&[below]);
    let found: Vec<_> = all.keys().filter(|path| path.file_name().is_some_and(|found| found == name)).collect();
    assert_eq!(found.len(), 1, "{name} below {}", below.display());
    found[0].clone()
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(next).collect()
}

fn row(node: &Node) -> Value {
    node.json(&["status"])["distributions"][0].clone()
}

#[test]
fn a_flipped_bit_is_found_by_verify_and_one_frame_mends_it_on_both_sides() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    std::fs::write(origin.source.join("noise"), noise(12 << 20)).expect("written");
    let node = Node::subscriber(work.path("s"));
    let target = format!("site={}", text(&work.path("www")));
    node.ok(&["join", text(&origin.invite(&work, "s1.example.com")), "--target", &target]);
    let daemon = node.daemon();
    assert_eq!(origin.send().code(), 0);
    assert_eq!(daemon.stop(), 0);
    let Origin { node: distributor, daemon, endpoint, .. } = origin;
    assert_eq!(daemon.stop(), 0);
    let (own, theirs) = (distributor.data.clone(), node.data.clone());
    let whole = std::fs::read(only(&theirs, "distfile.ted")).expect("there");
    flip(&only(&theirs, "distfile.ted"), whole.len() as u64 / 2);
    flip(&only(&own, "distfile.ted"), whole.len() as u64 / 2 + 9);

    // Without a daemon, and before anybody is connected.
    let found = node.run(&["verify", "site"]);
    assert_eq!(found.code(), 1, "{}", found.errors());
    assert!(found.printed().contains("is damaged") && found.printed().contains("set aside"), "{}", found.printed());
    assert!(found.errors().contains("TED-1817"), "{}", found.errors());
    assert!(only(&theirs, "distfile.corrupt").exists());
    let refused = node.run(&["extract", "site"]);
    assert!(refused.errors().contains("TED-1874") && refused.errors().contains("remedy"), "{}", refused.errors());

    let again = Daemon::spawn(distributor.command(&["run"]).env("TED_LISTEN", &endpoint));
    again.log.wait_for("r runs ");
    let daemon = node.daemon();
    again.log.wait_for("Corrupt");
    let told = row(&node);
    assert_eq!(told["stage"], "corrupt", "{told}");
    assert!(told["trouble"].to_string().contains("TED-1871"), "{told}");
    assert!(node.run(&["doctor"]).printed().contains("TED-1871"));

    let sent = distributor.json(&["send", "nightly", "--wait", "--timeout", "60s"]);
    let delivery = &sent["deliveries"][0];
    assert!(delivery["note"].to_string().contains("TED-1846"), "{sent}");
    let bytes = delivery["done_bytes"].as_u64().expect("a number");
    assert!((1 << 20..=(4 << 20) + 65_536).contains(&bytes), "one frame: {delivery}");
    for data in [&own, &theirs] {
        assert_eq!(std::fs::read(only(data, "distfile.ted")).expect("there"), whole);
    }
    until("the row is in order", || row(&node)["stage"] == "extracted" && row(&node)["trouble"].is_null());

    work.write("www/index.html", "scribbled");
    let mended = node.ok(&["verify", "--repair"]);
    assert!(mended.contains("extracted again"), "{mended}");
    node.ok(&["verify"]);
    assert_eq!(daemon.stop(), 0);
}
