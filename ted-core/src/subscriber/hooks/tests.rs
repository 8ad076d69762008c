use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::process::{End, Program, Ran};
use super::*;

fn run(script: &str, timeout: Duration, stop: bool) -> Ran {
    let words = ["/bin/sh", "-c", script].map(str::to_owned);
    let variables = vec![("TED_STAGE", "before".into()), ("TED_TARGET", "/a b;$HOME `id`".into())];
    let program = Program { words: &words, variables, folder: "/nowhere/at/all".into(), timeout };
    let limits = Limits { hook_grace_seconds: 1, ..Limits::DEFAULT };
    program.run(&AtomicBool::new(stop), &limits)
}

fn quick(script: &str) -> Ran {
    run(script, Duration::from_secs(60), false)
}

#[test]
fn a_program_sees_its_arguments_as_they_are_and_nothing_else_of_this_process() {
    let words = ["/usr/bin/printf", "%s|%s", "$HOME; id", "*"].map(str::to_owned);
    let program = Program { words: &words, variables: vec![], folder: "/".into(), timeout: Duration::from_secs(60) };
    assert_eq!(program.run(&AtomicBool::new(false), &Limits::DEFAULT).output, "$HOME; id|*");
    let ran = quick("env; pwd; readlink /proc/self/fd/0");
    let lines: Vec<&str> = ran.output.lines().collect();
    assert!(lines.contains(&"TED_TARGET=/a b;$HOME `id`"), "{lines:?}");
    assert_eq!(lines[lines.len() - 2..], ["/", "/dev/null"]);
    let allowed = ["PATH", "HOME", "LANG", "TED_STAGE", "TED_TARGET", "PWD", "OLDPWD", "SHLVL", "_"];
    let named = lines.iter().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    assert_eq!(named.filter(|name| !allowed.contains(name)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn how_it_ended_and_the_end_of_what_it_said_are_told() {
    let ran = quick("echo out; echo err >&2; exit 3");
    assert!(matches!(ran.end, End::Exited(status) if status.code() == Some(3)));
    assert_eq!(ran.output, "out\nerr");
    let most = Limits::DEFAULT.hook_output_bytes_max;
    let long = quick("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf '\\033[1mbold\\0'");
    assert!(long.output.len() <= most && long.output.ends_with("line 2999\n[1mbold"), "{}", long.output.len());
    let missing = ["/nowhere/at/all".to_owned()];
    let program = Program { words: &missing, variables: vec![], folder: "/".into(), timeout: Duration::from_secs(60) };
    assert!(matches!(program.run(&AtomicBool::new(false), &Limits::DEFAULT).end, End::Failed(_)));
}

#[test]
fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
    let ran = run("sleep 1000 & echo $!; wait", Duration::from_millis(300), false);
    assert!(matches!(ran.end, End::TimedOut));
    wait_until_gone(&ran.output);
    let ran =
        run("sh -c 'trap : TERM; while :; do sleep 1000; done' & echo $!; wait", Duration::from_millis(300), false);
    assert!(matches!(ran.end, End::TimedOut));
    wait_until_gone(&ran.output);
    let ran = run("trap 'echo asked' TERM; sleep 1000 & echo $!; wait; sleep 1000", Duration::from_millis(300), false);
    assert!(matches!(ran.end, End::TimedOut), "it does not end when it is asked to");
    assert!(ran.output.ends_with("asked"), "{}", ran.output);
    let endless = run("while :; do echo y; done", Duration::from_millis(300), false);
    assert!(matches!(endless.end, End::TimedOut), "what prints without end is ended too");
}

#[test]
fn it_is_ended_when_the_node_stops_and_what_it_leaves_running_is_not_waited_for() {
    assert!(matches!(run("sleep 1000", Duration::from_secs(60), true).end, End::Stopped));
    let ran = quick("sleep 1000 & echo $!");
    assert!(matches!(ran.end, End::Exited(status) if status.success()));
    let left = ran.output.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("it is still there");
}

/// Waits for the end of a process that was signalled; a dead one that nobody has waited for yet has ended.
fn wait_until_gone(process: &str) {
    let process = process.trim();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{process} is still running");
        std::thread::yield_now();
    }
}

#[test]
fn what_a_receipt_says_of_a_hook_is_cut_at_a_characters_end() {
    let report =
        |output: String| HookReport { hook: HookKind::After, code: None, end: "exit status: 0".into(), output };
    assert_eq!(report(String::new()).to_string(), "exit status: 0");
    assert_eq!(report("ready".into()).to_string(), "exit status: 0; it said: ready");
    let most = Limits::DEFAULT.hook_receipt_bytes_max;
    for letters in most / 2 - 1..most {
        let text = report(format!("x{}", "é".repeat(letters))).to_string();
        let said = text.split(": ").last().expect("something");
        assert!(said.len() <= most && said.ends_with('é'), "{letters}");
    }
}
