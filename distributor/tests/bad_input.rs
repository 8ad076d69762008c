//! What cannot work gets an error with a code and a remedy, an exit status other than 0, and leaves nothing behind.

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Node, free_address};
use tempfile::TempDir;

/// A Distributor that was made, without a daemon, and a source with one file.
struct Place {
    folder: TempDir,
    node: Node,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let node = Node::distributor(folder.path().join("data"));
        node.succeeds(&["init", "--name", "dist.example.com", "--listen", &free_address()]);
        let place = Self { folder, node };
        fs::create_dir(place.source()).expect("made");
        fs::write(place.source().join("file"), b"content").expect("written");
        place
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn create_site(&self) {
        self.node.succeeds(&["distribution", "create", "site", "--source", text(&self.source())]);
    }

    /// Nothing was built, and nothing of an attempt lies about.
    fn assert_nothing_built(&self) {
        assert_eq!(self.node.json(&["distribution", "show", "site"])["newest"], serde_json::Value::Null);
        let left = files_below(&self.node.data.join("dist"));
        assert!(left.is_empty(), "left over: {left:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn what_cannot_be_read_fails_the_build_unless_it_may_be_left_out() {
    let place = Place::new();
    place.create_site();
    let _socket = std::os::unix::net::UnixListener::bind(place.source().join("socket")).expect("bound");
    let locked = place.source().join("locked");
    fs::write(&locked, b"secret").expect("written");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("set");
    let root_reads_all = fs::read(&locked).is_ok();
    let names: &[&str] = if root_reads_all { &["`socket`"] } else { &["`locked`", "2 entries"] };
    place.node.run(&["distribution", "build", "site"]).failed("TED-1702", 1, names);
    place.assert_nothing_built();

    place.node.succeeds(&["distribution", "update", "site", "--skip-unreadable"]);
    let printed = place.node.succeeds(&["distribution", "build", "site"]);
    assert!(printed.contains("left out: socket: ") && printed.contains("built revision"), "{printed}");
    assert!(root_reads_all || printed.contains("left out: locked: "), "{printed}");
    let listed = place.node.succeeds(&["distribution", "ls", "site"]);
    assert!(listed.contains("file") && !listed.contains("socket"), "{listed}");
}

#[test]
fn what_is_not_there_or_there_twice_is_named() {
    let place = Place::new();
    place.create_site();
    let node = &place.node;
    node.succeeds(&["channel", "create", "nightly", "--distribution", "site"]);
    node.succeeds(&["subscriber", "create", "s1"]);
    let before = fs::read(node.data.join("fleet.toml")).expect("there");
    let source = place.source();
    let invite = place.folder.path().join("invite");
    let rows: [(&[&str], &str, i32, &str); 15] = [
        (&["distribution", "create", "site", "--source", text(&source)], "TED-1602", 1, "site"),
        (&["distribution", "build", "other"], "TED-1605", 1, "other"),
        (&["distribution", "show", "other"], "TED-1605", 1, "other"),
        (&["distribution", "update", "other", "--target", "/srv"], "TED-1605", 1, "other"),
        (&["distribution", "ls", "site"], "TED-1833", 1, "site"),
        (&["distribution", "delete", "site"], "TED-1604", 1, "nightly"),
        (&["channel", "create", "nightly", "--distribution", "site"], "TED-1602", 1, "nightly"),
        (&["channel", "create", "weekly", "--distribution", "other"], "TED-1603", 1, "other"),
        (&["channel", "update", "nightly", "--subscriber", "s2"], "TED-1603", 1, "s2"),
        (&["subscriber", "create", "s1"], "TED-1602", 1, "s1"),
        (&["subscriber", "delete", "s2"], "TED-1605", 1, "s2"),
        (&["subscriber", "approve", "s2"], "TED-1836", 1, "s2"),
        (&["invite", "s3", "--channel", "weekly", "--output", text(&invite)], "TED-1605", 1, "weekly"),
        (&["send", "nightly"], "TED-1804", 5, "no daemon"),
        (&["cancel", "00112233445566778899aabbccddeeff"], "TED-1835", 1, "00112233"),
    ];
    for (line, code, exit, word) in rows {
        node.run(line).failed(code, exit, &[word]);
    }
    assert!(!invite.exists());
    assert_eq!(fs::read(node.data.join("fleet.toml")).expect("there"), before, "the fleet is as it was");
}

#[test]
fn a_daemon_refuses_the_same_as_the_command_alone() {
    let place = Place::new();
    place.create_site();
    place.node.succeeds(&["channel", "create", "nightly", "--distribution", "site"]);
    let daemon = place.node.start("the Distributor runs");
    place.node.run(&["distribution", "build", "other"]).failed("TED-1605", 1, &["other"]);
    place.node.run(&["send", "weekly"]).failed("TED-1605", 1, &["weekly"]);
    place.node.run(&["send", "nightly"]).failed("TED-1834", 1, &["nightly"]);
    place.node.run(&["init", "--name", "dist.example.com"]).failed("TED-1809", 1, &["holds a Distributor already"]);
    place.node.succeeds(&["subscriber", "create", "s1", "--channel", "nightly"]);
    place.node.run(&["send", "nightly", "--wait"]).failed("TED-1840", 1, &["nightly"]);
    assert!(daemon.stop().success());
}

#[test]
fn a_source_that_is_missing_or_no_folder_is_named() {
    let place = Place::new();
    place.create_site();
    fs::remove_file(place.source().join("file")).expect("removed");
    fs::remove_dir(place.source()).expect("removed");
    place.node.run(&["distribution", "build", "site"]).failed("TED-1701", 1, &[text(&place.source())]);
    fs::write(place.source(), b"a file").expect("written");
    place.node.run(&["distribution", "build", "site"]).failed("TED-1701", 1, &[text(&place.source())]);
    let diagnosis = place.node.run(&["doctor"]);
    assert_eq!(diagnosis.output.status.code(), Some(1));
    assert!(diagnosis.printed().contains("bad      source of site"), "{}", diagnosis.printed());
    place.assert_nothing_built();
}

#[test]
fn a_source_that_keeps_changing_is_an_error_after_one_more_try() {
    /// Reading this takes far longer than the pauses between two writes of the appender.
    const FILE_BYTES: usize = 32 << 20;
    let place = Place::new();
    place.create_site();
    let path = place.source().join("file");
    fs::write(&path, vec![7; FILE_BYTES]).expect("written");
    let stop = Arc::new(AtomicBool::new(false));
    let appender = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut file = fs::OpenOptions::new().append(true).open(path).expect("opened");
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"x").expect("appended");
            }
        }
    });
    let ended = place.node.run(&["distribution", "build", "site"]);
    stop.store(true, Ordering::Relaxed);
    appender.join().expect("it appends to the end");
    ended.failed("TED-1703", 1, &["`file`"]);
    assert_eq!(ended.told().matches("once more").count(), 1, "{}", ended.told());
    place.assert_nothing_built();
    let printed = place.node.succeeds(&["distribution", "build", "site"]);
    assert!(printed.contains("built revision"), "it builds once nobody writes: {printed}");
}

#[test]
fn a_wrong_configuration_stops_before_anything_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::distributor(folder.path().join("data"));
    let config = folder.path().join("wrong.toml");
    for (content, words) in [
        ("advertize = []\n", ["line 1", "advertize"]),
        ("\nlisten = \"somewhere\"\n", ["line 2", "listen"]),
        ("connection_timeout_s = 0\n", ["line 1", "1 to 60000"]),
    ] {
        fs::write(&config, content).expect("written");
        node.run(&["--config", text(&config), "init", "--name", "d"]).failed("TED-1691", 1, &words);
    }
    let ended = node.command(&["init", "--name", "d"]).env("TED_LISTEN", "nowhere").output().expect("it runs");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("TED_LISTEN"));
    assert!(!node.data.exists(), "no data directory was made");
}

#[test]
fn a_damaged_package_is_refused_wherever_the_damage_is() {
    let place = Place::new();
    let noise: Vec<u8> = (0_u32..200_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(place.source().join("file"), noise).expect("written");
    place.create_site();
    place.node.succeeds(&["distribution", "build", "site"]);
    let built = place.node.json(&["distribution", "show", "site"]);
    let package = PathBuf::from(built["newest"]["file"].as_str().expect("a path"));
    let certificate = place.node.data.join("dist.example.com.cer");
    let verify = |file: &Path| place.node.run(&["package", "verify", text(file), "--certificate", text(&certificate)]);
    assert!(verify(&package).output.status.success(), "{}", verify(&package).told());

    let whole = fs::read(&package).expect("readable");
    let copy = place.folder.path().join("copy.ted");
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&copy, &whole[..length]).expect("written");
        let ended = verify(&copy);
        assert_eq!(ended.output.status.code(), Some(6), "cut to {length}: {}", ended.told());
        assert!(ended.told().contains("error[TED-10") && ended.output.stdout.is_empty(), "{}", ended.told());
    }
    for place in [0, whole.len() / 3, whole.len() - 200, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[place] ^= 0x10;
        fs::write(&copy, &altered).expect("written");
        let ended = verify(&copy);
        assert!(ended.output.status.code().is_some_and(|status| status != 0), "altered at {place}: {}", ended.told());
        assert!(ended.told().contains("error[TED-") && ended.output.stdout.is_empty(), "{}", ended.told());
    }
}

#[test]
fn a_data_directory_of_the_other_role_is_left_alone() {
    let place = Place::new();
    Node::subscriber(&place.node.data).run(&["status"]).failed("TED-1502", 1, &["belongs to a distributor"]);
    place.node.succeeds(&["status"]);
}

#[test]
fn keys_that_others_could_read_stop_every_command() {
    let place = Place::new();
    let security = place.node.data.join("security");
    let keystore = files_below(&security).into_iter().find(|path| path.ends_with(".keystore")).expect("there");
    for (path, right, wrong) in [(&security, 0o700, 0o755), (&keystore, 0o600, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(wrong)).expect("set");
        for line in [&["run"][..], &["status"], &["doctor"], &["token", "create"]] {
            let ended = place.node.run(line);
            assert_eq!(ended.output.status.code(), Some(1), "{line:?}");
            assert!(ended.told().contains("chmod"), "{line:?}: {}", ended.told());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(right)).expect("set");
        place.node.succeeds(&["status"]);
    }
}
