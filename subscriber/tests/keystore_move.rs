//! The move of a Distributor's certificate into the keystore, as the system calls of a real daemon show it.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Daemon, Node, Origin, Work, signal, text};

const CALLS: &str = "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";

/// Whether processes can be traced here; where they cannot, `TED_REQUIRE_STRACE=1` makes that a failure.
fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    let can = tried.is_ok_and(|tried| tried.success());
    assert!(
        can || std::env::var_os("TED_REQUIRE_STRACE").is_none_or(|value| value != "1"),
        "strace does not work here"
    );
    can
}

/// Kills the traced daemon, which strace leaves behind when it is killed itself.
struct Traced(u32);

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-KILL").arg(self.0.to_string()).output();
    }
}

#[test]
fn the_certificate_moves_into_the_keystore_in_the_documented_order() {
    if !can_trace() {
        eprintln!("skipped: strace is missing or not allowed here; TED_REQUIRE_STRACE=1 makes this a failure");
        return;
    }
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = Node::subscriber(work.path("s"));
    node.ok(&["join", text(&origin.invite(&work, "s1.example.com"))]);
    let security = node.data.join("security");
    assert!(security.join("dist.example.com.cer").exists());

    let trace = work.path("trace");
    let traced = node.command(&["run"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "4096", "-e", CALLS, "-o", text(&trace)]).arg(traced.get_program());
    strace.args(traced.get_args()).env_clear().env("TED_DATA_DIR", &node.data);
    let daemon = Daemon::spawn(&mut strace);
    daemon.log.wait_for("the Subscriber runs");
    let process = node.json(&["status"])["daemon"]["process"].as_u64().expect("it runs");
    let process = Traced(u32::try_from(process).expect("a process id"));
    let sent = origin.send();
    assert_eq!(sent.code(), 0, "{}{}", sent.printed(), sent.errors());
    assert!(!security.join("dist.example.com.cer").exists());
    signal("TERM", process.0);
    assert_eq!(daemon.ended(), 0);
    drop(process);
    in_order(&std::fs::read_to_string(&trace).expect("strace wrote it"), &security);
}

/// The file is made durable, renamed, its folder made durable, and only then the `.cer` removed.
fn in_order(trace: &str, security: &Path) {
    let private = security.join("private");
    let keystore = private.join(".keystore");
    let steps = [
        ("fsync", format!("<{}.tmp>", text(&keystore))),
        ("rename", format!("\"{}\"", text(&keystore))),
        ("fsync", format!("<{}>", text(&private))),
        ("unlink", format!("\"{}\"", text(&security.join("dist.example.com.cer")))),
    ];
    // Calls are looked at where they begin; each thread waits for the end of one before it makes the next.
    let mut calls = trace.lines().filter_map(|line| line.split_once(' ').map(|(_, call)| call.trim_start()));
    for (name, path) in steps {
        let found = calls.any(|call| call.starts_with(name) && call.contains(&path));
        assert!(found, "no {name} of {path} after the step before it:\n{trace}");
    }
}
