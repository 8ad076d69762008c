//! The built binary, as a shell sees it: exit codes, errors, one daemon for each data directory.

mod support;

use support::{Daemon, Node, Work, text};

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    let work = Work::new();
    let node = Node::subscriber(work.path("s"));
    for arguments in [&["unheard-of"][..], &["init", "--name", "a..b"], &["join"], &["target", "set", "site"], &[]] {
        assert_eq!(node.run(arguments).code(), 2, "{arguments:?}");
    }
    assert_eq!(node.run(&["--version"]).code(), 0);
    assert!(!node.data.exists(), "nothing is made by a mistake");
}

#[test]
fn a_data_directory_without_a_subscriber_is_left_alone() {
    let work = Work::new();
    let node = Node::subscriber(work.path("s"));
    let invite = work.write("invite", "no invite");
    for arguments in [&["run"][..], &["status"], &["extract"], &["join", text(&invite)], &["leave", "dist.example.com"]]
    {
        let ran = node.run(arguments);
        assert!(ran.code() != 0 && ran.errors().contains("error[TED-"), "{arguments:?}: {}", ran.errors());
        assert!(!node.data.exists(), "{arguments:?}");
    }
}

#[test]
fn a_name_is_given_once() {
    let work = Work::new();
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", "s1.example.com"]);
    let again = node.run(&["init", "--name", "s2.example.com"]);
    assert!(again.code() == 1 && again.errors().contains("TED-1809"), "{}", again.errors());
    assert_eq!(node.json(&["status"])["node"]["name"], "s1.example.com");
}

#[test]
fn the_socket_to_listen_on_is_kept_by_init() {
    let work = Work::new();
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", "s1.example.com", "--listen", "127.0.0.1:0"]);
    let daemon = node.daemon();
    let listens = node.json(&["status"])["node"]["listen"].to_string();
    assert!(listens.starts_with("\"127.0.0.1:") && !listens.ends_with(":0\""), "{listens}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_second_daemon_on_a_data_directory_is_refused() {
    let work = Work::new();
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", "s1.example.com"]);
    let first = node.daemon();
    let second = Daemon::spawn(&mut node.command(&["run"]));
    second.log.wait_for("error[TED-1501]");
    assert_eq!(second.ended(), 1);
    let status = node.json(&["status"]);
    assert!(status["daemon"]["process"].is_u64(), "the first one answers: {status}");
    assert_eq!(first.stop(), 0);
}

#[test]
fn doctor_says_what_is_missing() {
    let work = Work::new();
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", "s1.example.com"]);
    work.write("s/security/notes.txt", "hello");
    let ran = node.run(&["doctor"]);
    assert_eq!(ran.code(), 1);
    assert!(ran.printed().contains("none is trusted") && ran.printed().contains("notes.txt"), "{}", ran.printed());
}
