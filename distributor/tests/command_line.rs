//! The built binary, as a shell sees it: exit codes, errors, one daemon for each data directory.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::Node;

/// What a daemon's log says once it runs.
const RUNS: &str = "the Distributor runs";

fn ted(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ted-distributor"));
    command.args(arguments).env_clear().env("TED_DATA_DIR", data);
    command
}

fn output(data: &Path, arguments: &[&str]) -> Output {
    ted(data, arguments).output().expect("it runs")
}

fn error_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    let data = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["unheard-of"][..],
        &["init", "--name", "a..b"],
        &["cancel", "xyz"],
        &["package", "extract", "f", "--to", "d"],
        &[],
    ] {
        assert_eq!(output(data.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(output(data.path(), &["--version"]).status.code(), Some(0));
}

#[test]
fn errors_carry_a_code_and_a_remedy_in_both_formats() {
    let data = tempfile::tempdir().expect("a folder");
    let failed = output(data.path(), &["events", "-f"]);
    assert_eq!(failed.status.code(), Some(5), "no daemon runs");
    let text = error_text(&failed);
    assert!(text.starts_with("error[TED-1804]: ") && text.contains("\nremedy: "), "{text}");
    assert!(failed.stdout.is_empty());

    let failed = output(data.path(), &["events", "-f", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&failed.stderr).expect("JSON on standard error");
    assert_eq!(error["error"]["code"], "TED-1804");
    assert_eq!(error["error"]["exit"], 5);
}

/// RFC 6761 section 6.4: no name below `invalid` ever resolves.
#[test]
fn a_name_that_is_given_is_taken_as_it_is_and_never_looked_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let made = output(&data, &["init", "--name", "nowhere.invalid"]);
    assert!(made.status.success(), "{}", error_text(&made));
    assert!(data.join("nowhere.invalid.cer").is_file());
    let traced = folder.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=network", "-o"]).arg(&traced).arg(env!("CARGO_BIN_EXE_ted-distributor"));
    command.args(["init", "--name", "elsewhere.invalid"]).env("TED_DATA_DIR", folder.path().join("other"));
    let Ok(traced_run) = command.output() else { return skipped("strace") };
    assert!(traced_run.status.success(), "{}", error_text(&traced_run));
    let calls = std::fs::read_to_string(&traced).expect("a trace");
    assert!(!calls.contains("AF_INET"), "nobody is asked for the name: {calls}");
}

fn skipped(tool: &str) {
    eprintln!("skipped a part: {tool} is not installed");
}

#[test]
fn a_broken_configuration_stops_every_command_and_is_named() {
    let data = tempfile::tempdir().expect("a folder");
    std::fs::write(data.path().join("distributor.toml"), "listen = \"0.0.0.0:1229\"\nadvertize = []\n")
        .expect("written");
    let failed = output(data.path(), &["run"]);
    assert_eq!(failed.status.code(), Some(1));
    let text = error_text(&failed);
    assert!(text.contains("TED-1691") && text.contains("distributor.toml, line 2, key `advertize`"), "{text}");
}

#[test]
fn a_data_directory_has_one_daemon_which_ends_well_on_sigterm() {
    let data = tempfile::tempdir().expect("a folder");
    let node = Node::distributor(data.path());
    node.run(&["run"]).failed("TED-1830", 1, &["holds no Distributor"]);
    assert_eq!(data.path().read_dir().expect("readable").count(), 0, "nothing was made");

    node.succeeds(&["init", "--name", "dist.example.com", "--listen", "127.0.0.1:0"]);
    let daemon = node.start(RUNS);
    node.run(&["run"]).failed("TED-1501", 1, &["in use by process"]);
    assert!(data.path().join("control.sock").exists(), "the first daemon keeps its socket");
    assert!(daemon.stop().success(), "SIGTERM is a good end");
    assert!(!data.path().join("control.sock").exists());
    assert!(node.start(RUNS).stop().success(), "it starts again");
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let data = tempfile::tempdir().expect("a folder");
    let completions = output(data.path(), &["completions", "bash"]);
    assert!(completions.status.success());
    assert!(String::from_utf8_lossy(&completions.stdout).contains("distribution"));
    let pages = data.path().join("man");
    assert!(output(data.path(), &["man", pages.to_str().expect("UTF-8")]).status.success());
    for page in ["ted-distributor.1", "ted-distributor-send.1", "ted-distributor-distribution-create.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}
