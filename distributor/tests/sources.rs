//! Every kind of source by the built binary: several folders, patterns, tar files, standard input and URLs.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::Node;

struct Place {
    folder: tempfile::TempDir,
    node: Node,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let node = Node::distributor(folder.path().join("data"));
        node.succeeds(&["init", "--name", "dist.example.com", "--listen", &common::free_address()]);
        Self { folder, node }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.at(name).parent().expect("has one")).expect("made");
        fs::write(self.at(name), content).expect("written");
    }

    /// The paths in the newest revision.
    fn paths(&self, name: &str) -> Vec<String> {
        let listed = self.node.json(&["distribution", "ls", name]);
        let entries = listed["entries"].as_array().expect("a list");
        entries.iter().map(|entry| entry["path"].as_str().expect("text").to_owned()).collect()
    }

    fn builds(&self, name: &str) -> bool {
        self.node.json(&["distribution", "build", name])["built"].as_bool().expect("it says so")
    }

    /// A tar file of the folder `tree`.
    fn tar(&self, name: &str, more: &[&str]) -> PathBuf {
        let (file, tree) = (self.at(name), self.at("tree"));
        let mut tar = Command::new("tar");
        tar.arg("--create").args(more).arg("--file").arg(&file).arg("--directory").arg(tree).arg(".");
        assert!(tar.status().expect("tar runs").success());
        file
    }

    fn feeds(&self, name: &str, file: &Path) -> std::process::Output {
        let input = fs::File::open(file).expect("there");
        let mut command = self.node.command(&["distribution", "build", name, "--stdin", "--json"]);
        command.stdin(Stdio::from(input)).output().expect("it runs")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn several_folders_become_one_tree_and_a_change_in_any_is_seen() {
    let place = Place::new();
    for (name, content) in [
        ("site/index.html", "site"),
        ("site/notes.log", "left out"),
        ("site/.gitignore", "*.log\n"),
        ("docs/guide/a.html", "guide"),
        ("docs/guide/a.tmp", "left out"),
    ] {
        place.write(name, content);
    }
    let docs = format!("share/docs={}", place.at("docs").display());
    let folder = place.at("site");
    let line = ["distribution", "create", "site", "--source", text(&folder), "--source", &docs];
    place.node.succeeds(&[&line[..], &["--gitignore", "--exclude", "*.tmp"]].concat());
    assert!(place.builds("site"));
    let all = [".", ".gitignore", "index.html", "share", "share/docs", "share/docs/guide", "share/docs/guide/a.html"];
    assert_eq!(place.paths("site"), all);
    assert!(!place.builds("site"), "nothing has changed");
    place.write("docs/guide/b.html", "new");
    assert!(place.builds("site"));
    assert!(place.paths("site").contains(&"share/docs/guide/b.html".to_owned()));

    place.node.succeeds(&["distribution", "update", "site", "--include", "b.html"]);
    assert!(place.builds("site"));
    assert_eq!(place.paths("site"), [".", "share", "share/docs", "share/docs/guide", "share/docs/guide/b.html"]);
    let shown = place.node.json(&["distribution", "show", "site"]);
    assert_eq!(shown["source"][1], serde_json::json!(docs));
    assert_eq!((&shown["include"][0], &shown["gitignore"]), (&serde_json::json!("b.html"), &serde_json::json!(true)));
    let fleet = fs::read_to_string(place.node.data.join("fleet.toml")).expect("there");
    assert!(fleet.contains("gitignore = true") && fleet.contains(&docs), "{fleet}");

    place.write("site/share/docs/guide/b.html", "in the way");
    let line = ["distribution", "build", "site"];
    place.node.run(&line).failed("TED-1706", 1, &["share/docs/guide/b.html", text(&place.at("docs"))]);
}

#[test]
fn a_tar_file_is_built_like_the_folder_it_was_made_of() {
    let place = Place::new();
    place.write("tree/d/file", "content");
    fs::hard_link(place.at("tree/d/file"), place.at("tree/z")).expect("linked");
    std::os::unix::fs::symlink("/nowhere", place.at("tree/link")).expect("linked");
    let file = place.tar("site.tar.gz", &["--gzip", "--format", "posix"]);
    place.node.succeeds(&["distribution", "create", "folder", "--source", text(&place.at("tree"))]);
    place.node.succeeds(&["distribution", "create", "tarred", "--source", &format!("tar:{}", file.display())]);
    assert!(place.builds("folder") && place.builds("tarred"));
    let listed = |name: &str| place.node.json(&["distribution", "ls", name])["entries"].clone();
    assert_eq!(listed("tarred"), listed("folder"));
    assert!(!place.builds("tarred"), "nothing has changed");

    fs::write(&file, "no tar file").expect("written");
    place.node.run(&["distribution", "build", "tarred"]).failed("TED-1731", 1, &[text(&file)]);
    assert_eq!(place.paths("tarred"), place.paths("folder"), "what was built is still there");
}

#[test]
fn a_build_is_fed_with_a_tar_file_with_and_without_a_daemon() {
    let place = Place::new();
    place.write("tree/file", "content");
    place.node.succeeds(&["distribution", "create", "fed", "--source", "-"]);
    place.node.run(&["distribution", "build", "fed"]).failed("TED-1707", 1, &["fed"]);
    let file = place.tar("one.tar", &[]);
    let fed = place.feeds("fed", &file);
    assert!(fed.status.success(), "{}", String::from_utf8_lossy(&fed.stderr));
    assert_eq!(place.paths("fed"), [".", "file"]);
    assert!(!place.builds("fed"), "what was fed is still the newest");

    let daemon = place.node.start("the Distributor runs");
    place.write("tree/second", "more");
    assert!(place.feeds("fed", &place.tar("two.tar", &[])).status.success());
    assert_eq!(place.paths("fed"), [".", "file", "second"]);
    let wrong = place.feeds("fed", &place.at("tree/file"));
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned() + &String::from_utf8_lossy(&wrong.stdout);
    assert!(!wrong.status.success() && told.contains("TED-1731") && told.contains("standard input"), "{told}");
    let left = fs::read_dir(place.node.data.join("spool")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing stays in the spool");
    assert!(daemon.stop().success());
}

#[test]
fn a_file_is_fetched_from_a_server_and_judged_by_its_hash() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // It ends with the process: nothing waits for it.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let known = head.iter().any(|line| line.to_ascii_lowercase() == "if-none-match: \"one\"");
            let (status, body) = if known { ("304 Not Modified", "") } else { ("200 OK", "content") };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\nETag: \"one\"\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            // A client that went away is its own affair.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    let place = Place::new();
    let source = format!("bin=http://{address}/tool");
    let right = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    let line = ["distribution", "create", "tool", "--source", &source, "--source-sha256", right, "--source-size", "7"];
    place.node.succeeds(&line);
    assert!(place.builds("tool"));
    assert_eq!(place.paths("tool"), [".", "bin", "bin/tool"]);
    assert!(!place.builds("tool"), "the server says that nothing has changed");
    let shown = place.node.succeeds(&["distribution", "show", "tool"]);
    assert!(shown.contains(right) && shown.contains("7 bytes"), "{shown}");
    let wrong = format!("bin={}", right.replace('e', "0"));
    place.node.succeeds(&["distribution", "update", "tool", "--source-sha256", &wrong]);
    place.node.run(&["distribution", "build", "tool"]).failed("TED-1746", 1, &[right]);
    place.node.succeeds(&["distribution", "delete", "tool"]);
    assert_eq!(fs::read_dir(place.node.data.join("spool")).map_or(0, Iterator::count), 0);
}
