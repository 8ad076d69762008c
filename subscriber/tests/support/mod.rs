//! Two daemons as an operator runs them: the built binaries, each with a data directory, and their logs.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test counts as failed: far more than it takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Folders of one test, removed with it.
pub(crate) struct Work(tempfile::TempDir);

impl Work {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().canonicalize().expect("there").join(below)
    }

    /// A file with this content, and the folders above it.
    pub(crate) fn write(&self, below: &str, content: &str) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().expect("below the top")).expect("made");
        std::fs::write(&path, content).expect("written");
        path
    }
}

/// A node: one of the two binaries with a data directory.
#[derive(Clone)]
pub(crate) struct Node {
    binary: PathBuf,
    pub(crate) data: PathBuf,
}

impl Node {
    pub(crate) fn subscriber(data: PathBuf) -> Self {
        Self { binary: PathBuf::from(env!("CARGO_BIN_EXE_ted-subscriber")), data }
    }

    pub(crate) fn distributor(data: PathBuf) -> Self {
        Self { binary: distributor_binary(), data }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_clear().env("TED_DATA_DIR", &self.data);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().expect("it runs"))
    }

    /// Runs a command that has to succeed, and gives what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code(), 0, "{arguments:?}: {}", ran.errors());
        ran.printed()
    }

    /// What a command prints with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.ok(&[&["--json"], arguments].concat());
        serde_json::from_str(&printed).expect("JSON")
    }

    /// Starts the daemon and waits until it says that it runs.
    pub(crate) fn daemon(&self) -> Daemon {
        let daemon = Daemon::spawn(&mut self.command(&["run"]));
        daemon.log.wait_for("r runs ");
        daemon
    }
}

/// The other binary of the workspace, in the same target folder. `cargo test -p ted-subscriber` alone does not build it.
fn distributor_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ted-subscriber")).with_file_name("ted-distributor");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "--quiet", "--package", "ted-distributor"]).status();
        assert!(built.expect("cargo runs").success(), "ted-distributor cannot be built");
    }
    path
}

/// A command that has ended.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("it ended by itself")
    }

    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

/// The lines that a daemon wrote to standard error so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    /// Waits for a line with `text` in it, and gives that line.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let (lines, more) = &*self.0;
        let begun = Instant::now();
        let mut lines = lines.lock().expect("not poisoned");
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = DEADLINE.checked_sub(begun.elapsed());
            let left = left.unwrap_or_else(|| panic!("no line with `{text}`:\n{}", lines.join("\n")));
            lines = more.wait_timeout(lines, left).expect("not poisoned").0;
        }
    }
}

/// A running daemon. It is killed when this is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) log: Log,
}

impl Daemon {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let (log, errors) = (Log::default(), child.stderr.take().expect("piped"));
        let writing = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let (lines, more) = &*writing.0;
                lines.lock().expect("not poisoned").push(line);
                more.notify_all();
            }
        });
        Self { child, log }
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and gives its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        signal("TERM", self.child.id());
        self.child.wait().expect("it ends").code().expect("it ended by itself")
    }

    /// Waits until it has ended, and gives its exit code.
    pub(crate) fn ended(mut self) -> i32 {
        self.child.wait().expect("it ends").code().expect("it ended by itself")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().expect("kill runs");
    assert!(sent.success(), "process {process} is not there");
}

/// A Distributor that runs, with the Distribution `site` of the folder `<data>-source` and the Channel `nightly`.
pub(crate) struct Origin {
    pub(crate) node: Node,
    pub(crate) daemon: Daemon,
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) source: PathBuf,
}

impl Origin {
    /// `more` is what `distribution create` is told beyond name and source.
    pub(crate) fn start(work: &Work, folder: &str, name: &str, more: &[&str]) -> Self {
        let node = Node::distributor(work.path(folder));
        node.ok(&["init", "--name", name, "--listen", "127.0.0.1:0"]);
        let daemon = node.daemon();
        let line = daemon.log.wait_for("the Distributor runs");
        let endpoint = line.split("listen=").nth(1).and_then(|rest| rest.split(' ').next());
        let endpoint = endpoint.expect("it says where it listens").to_owned();
        let source = work.path(&format!("{folder}-source"));
        work.write(&format!("{folder}-source/index.html"), "<h1>Hello</h1>");
        work.write(&format!("{folder}-source/sub/page.html"), "a page");
        let create = ["distribution", "create", "site", "--source", text(&source)];
        node.ok(&[&create, more].concat());
        node.ok(&["channel", "create", "nightly", "--distribution", "site"]);
        Self { node, daemon, endpoint, name: name.to_owned(), source }
    }

    /// Makes an invite for `node` and gives the file.
    pub(crate) fn invite(&self, work: &Work, node: &str) -> PathBuf {
        let file = work.path(&format!("{node}.{}.invite", self.name));
        let arguments = ["invite", node, "--channel", "nightly", "--endpoint", &self.endpoint, "--output", text(&file)];
        self.node.ok(&arguments);
        file
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.node.data.join(format!("{}.cer", self.name))
    }

    /// Sends, and waits for the outcome.
    pub(crate) fn send(&self) -> Ran {
        self.node.run(&["send", "nightly", "--wait", "--timeout", "60s"])
    }
}

/// A path as text; the tests' own paths are.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Everything below these paths: kind, mode, and content.
pub(crate) fn trees(paths: &[&Path]) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for path in paths {
        collect(path, &mut found);
    }
    found
}

fn collect(path: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = path.symlink_metadata() else { return };
    let content = match metadata.file_type() {
        kind if kind.is_symlink() => std::fs::read_link(path).expect("a link").as_os_str().as_bytes().to_vec(),
        kind if kind.is_file() => std::fs::read(path).expect("readable"),
        _ => vec![],
    };
    found.insert(path.to_owned(), (metadata.permissions().mode(), content));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).expect("readable") {
            collect(&entry.expect("readable").path(), found);
        }
    }
}

/// Waits until `holds`, which has to take a moment itself, such as a command.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "it never came true: {what}");
        std::thread::yield_now();
    }
}
