//! Running the built binaries: commands to their end, daemons until they are dropped.

#![allow(dead_code, reason = "each test file uses its own part of it")]

pub(crate) mod tree;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What takes longer than this has gone wrong, also on a slow machine that does other things besides.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at that nothing announces.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `holds`; panics with `what` when [`PATIENCE`] is over.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A UDP address of this machine that nobody has now.
pub(crate) fn free_address() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("it is bound").to_string()
}

/// One of TED's binaries with a data directory of its own.
pub(crate) struct Node {
    binary: PathBuf,
    pub(crate) data: PathBuf,
}

impl Node {
    pub(crate) fn distributor(data: impl Into<PathBuf>) -> Self {
        Self { binary: PathBuf::from(env!("CARGO_BIN_EXE_ted-distributor")), data: data.into() }
    }

    /// The other binary lies beside this package's own. `cargo test` of the workspace builds both; `cargo test -p
    /// ted-distributor` alone does not, so that it is built here if it has to be.
    pub(crate) fn subscriber(data: impl Into<PathBuf>) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_ted-distributor")).with_file_name("ted-subscriber");
        if !binary.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--package", "ted-subscriber"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(build.status().expect("cargo runs").success());
        }
        assert!(binary.exists(), "{} has to be built first", binary.display());
        Self { binary, data: data.into() }
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_clear().env("TED_DATA_DIR", &self.data);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).stdin(Stdio::null()).output().expect("it runs");
        Ended { line: arguments.join(" "), output }
    }

    /// Runs a command that has to succeed; what it printed.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert!(ended.output.status.success(), "`{}`: {}{}", ended.line, ended.printed(), ended.told());
        ended.printed()
    }

    /// The same with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let printed = self.succeeds(&[arguments, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?} is no JSON: {error}: {printed}"))
    }

    /// Starts `run`, and waits until the log says `started`.
    pub(crate) fn start(&self, started: &str) -> Daemon {
        let mut child = self.command(&["run"]).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = log.clone();
        // It is read to its end, so that the daemon never waits for its log.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().expect("not poisoned");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut daemon = Daemon { child, log };
        until(&format!("a log that says `{started}`"), || {
            if daemon.log().contains(started) {
                return true;
            }
            let ended = daemon.child.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "it ended at once: {}", daemon.log());
            false
        });
        daemon
    }
}

/// How a command ended.
pub(crate) struct Ended {
    line: String,
    pub(crate) output: Output,
}

impl Ended {
    /// What it printed for programs and people.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it said besides.
    pub(crate) fn told(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// It failed with this code and exit status, printed no answer, and says all of `words`, a remedy besides.
    pub(crate) fn failed(&self, code: &str, exit: i32, words: &[&str]) {
        let (line, told) = (&self.line, self.told());
        assert_eq!(self.output.status.code(), Some(exit), "`{line}`: {told}");
        assert!(told.contains(&format!("error[{code}]: ")), "`{line}` without {code}: {told}");
        assert!(told.contains("\nremedy: "), "`{line}` without a remedy: {told}");
        assert!(self.output.stdout.is_empty(), "`{line}` printed: {}", self.printed());
        for word in words {
            assert!(told.contains(word), "`{line}` without `{word}`: {told}");
        }
    }
}

/// A daemon; one that is dropped is killed.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(asked.success());
        let mut ended = None;
        until("the daemon's end", || {
            ended = self.child.try_wait().expect("it can be asked");
            ended.is_some()
        });
        ended.expect("it has ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself. The process is ours until it was waited for, so no other can be hit.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a daemon's log:\n{}", self.log());
        }
    }
}
