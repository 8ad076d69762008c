//! Hooks as operators see them: what is run, when, with what, and what becomes of an extraction when one fails.

mod support;

use std::path::PathBuf;

use support::{Node, Origin, Work, text, until};

/// A Distributor with the Distribution `site`, and a Subscriber that extracts it to `www` with these hooks. Each script
/// finds the folder of the test in `$W`.
struct Site {
    work: Work,
    origin: Origin,
    node: Node,
}

impl Site {
    fn new(before: &str, after: &str, more: &str) -> Self {
        Self::with(before, after, more, &[])
    }

    /// `create` is what `distribution create` is told besides.
    fn with(before: &str, after: &str, more: &str, create: &[&str]) -> Self {
        let work = Work::new();
        let origin = Origin::start(&work, "d", "dist.example.com", create);
        let node = Node::subscriber(work.path("s"));
        let target = format!("site={}", text(&work.path("www")));
        node.ok(&["join", text(&origin.invite(&work, "s1.example.com")), "--target", &target]);
        let site = Self { work, origin, node };
        site.configure("*", before, after, more);
        site
    }

    fn configure(&self, scope: &str, before: &str, after: &str, more: &str) {
        let command = |name: &str, script: &str| {
            let script = format!("W='{}'\n{script}\n", text(&self.work.path("")));
            let path = self.work.write(&format!("hooks/{name}"), &script);
            format!("{name} = [\"/bin/sh\", {:?}]\n", text(&path))
        };
        let (before, after) = (command("before", before), command("after", after));
        self.work.write("s/subscriber.toml", &format!("[hooks.\"{scope}\"]\n{before}{after}{more}\n"));
    }

    fn said(&self, below: &str) -> String {
        std::fs::read_to_string(self.work.path(below)).unwrap_or_default()
    }

    fn change(&self, content: &str) {
        self.work.write("d-source/index.html", content);
    }

    fn www(&self) -> PathBuf {
        self.work.path("www/index.html")
    }
}

const TELL: &str = r#"echo "$TED_STAGE ${TED_OUTCOME:-} $(cat "$TED_TARGET/index.html" 2>/dev/null)" >> "$W/told""#;

#[test]
fn hooks_run_around_a_change_and_not_where_nothing_changes() {
    let whole = r#"
        echo "$TED_STAGE ${TED_OUTCOME:-none} $TED_DISTRIBUTOR $TED_DISTRIBUTION $TED_MODE $TED_DATA_DIR $TED_TARGET" >> "$W/told"
        echo "$TED_REVISION ${TED_PREVIOUS_REVISION:-none}" >> "$W/revisions"
        pwd >> "$W/folders"
        echo "hello from $TED_STAGE""#;
    let site = Site::new(whole, whole, "timeout_s = 30");
    let (node, daemon) = (&site.node, site.node.daemon());
    let sent = site.origin.send();
    assert_eq!(sent.code(), 0, "{}", sent.errors());
    let paths = format!("{} {}", text(&node.data), text(&site.work.path("www")));
    let lines = format!(
        "before none dist.example.com site merge {paths}\nafter extracted dist.example.com site merge {paths}\n"
    );
    assert_eq!(site.said("told"), lines);
    assert_eq!(site.said("folders").lines().last(), Some(text(&site.work.path("www"))));
    let first = site.said("revisions");
    assert!(first.lines().all(|line| line.ends_with(" none")), "{first}");
    assert_eq!(site.origin.send().code(), 0);
    node.ok(&["extract", "site"]);
    assert_eq!(site.said("told"), lines, "nothing was to be written");
    site.change("again");
    assert_eq!(site.origin.send().code(), 0);
    let before = first.split(' ').next().expect("a revision");
    assert!(site.said("revisions").lines().skip(2).all(|line| line.ends_with(before)), "{}", site.said("revisions"));
    let status = node.json(&["status"]);
    assert_eq!(status["distributions"][0]["hooks"], "*", "{status}");
    site.work.write("www/index.html", "scribbled");
    let extracted = node.json(&["extract", "site"]);
    let hooks = &extracted["extracted"][0]["hooks"];
    assert_eq!(
        (&hooks[0]["hook"], &hooks[0]["output"]),
        (&"before".into(), &"hello from before".into()),
        "{extracted}"
    );
    assert_eq!(hooks[1]["end"], "exit status: 0");
    let told = site.said("told");
    site.work.write("www/index.html", "scribbled");
    assert!(!node.ok(&["extract", "--no-hooks", "site"]).contains("hook"));
    assert_eq!((site.said("told"), site.said("www/index.html")), (told, "again".to_owned()));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn before_runs_when_all_is_staged_and_if_it_fails_nothing_changes_until_the_next_firing() {
    let fails = format!("{TELL}\nls -A \"$TED_TARGET\" >> \"$W/staged\"\necho not today >&2\n[ -e \"$W/may\" ]");
    let site = Site::new(&fails, TELL, "");
    let daemon = site.node.daemon();
    let sent = site.origin.send();
    assert_ne!(sent.code(), 0);
    let said = sent.printed() + &sent.errors();
    assert!(said.contains("TED-1900") && said.contains("not today"), "the Distributor is told: {said}");
    assert!(site.said("staged").starts_with(".ted-staging-"), "{}", site.said("staged"));
    assert!(!site.work.path("www").exists(), "nothing was changed, nothing is left");
    let trouble = site.node.json(&["status"])["distributions"][0]["trouble"].to_string();
    assert!(trouble.contains("TED-1900") && trouble.contains("exit status: 1"), "{trouble}");
    let again = site.node.run(&["extract", "site"]);
    assert_ne!(again.code(), 0);
    assert!(again.errors().contains("TED-1900"), "{}", again.errors());
    assert_eq!(site.said("told"), "before  \nbefore  \n", "no `after` follows a `before` that failed");
    site.work.write("may", "");
    assert_eq!(site.origin.send().code(), 0);
    assert_eq!(site.said("www/index.html"), "<h1>Hello</h1>");
    assert_eq!(site.said("told"), "before  \nbefore  \nbefore  \nafter extracted <h1>Hello</h1>\n");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_is_mended_by_hand_is_well_in_the_status_and_at_the_distributor() {
    let site = Site::new("echo not today; [ -e \"$W/may\" ]", "true", "");
    let daemon = site.node.daemon();
    assert_ne!(site.origin.send().code(), 0);
    let ends = |node: &Node| -> Vec<String> {
        let shown = node.json(&["subscriber", "show", "s1.example.com"]);
        let deliveries = shown["deliveries"].as_array().expect("an array").iter();
        deliveries.map(|row| format!("{} {}", row["stage"], row["code"])).collect()
    };
    assert_eq!(ends(&site.origin.node), ["\"failed\" \"TED-1900\""]);
    site.work.write("may", "");
    site.node.ok(&["extract", "site"]);
    let status = site.node.json(&["status"]);
    let row = &status["distributions"][0];
    assert_eq!((&row["stage"], &row["trouble"]), (&"extracted".into(), &serde_json::Value::Null), "{row}");
    assert!(!site.node.ok(&["doctor"]).contains("TED-1900"));
    until("the Distributor knows", || ends(&site.origin.node) == ["\"extracted\" null"]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_cannot_be_extracted_keeps_nothing_else_from_it() {
    let site = Site::new("true", "true", "");
    let (node, origin) = (&site.node, &site.origin.node);
    for name in ["a-one", "z-one"] {
        origin.ok(&["distribution", "create", name, "--source", text(&site.origin.source)]);
        node.ok(&["target", "set", &format!("{name}={}", text(&site.work.path(name)))]);
    }
    let list = ["--distribution", "a-one", "--distribution", "site", "--distribution", "z-one"];
    origin.ok(&[&["channel", "update", "nightly"][..], &list].concat());
    let daemon = node.daemon();
    assert_eq!(site.origin.send().code(), 0);
    assert_eq!(daemon.stop(), 0);
    site.configure("site", "false", "true", "");
    for name in ["a-one", "www", "z-one"] {
        site.work.write(&format!("{name}/index.html"), "scribbled");
    }
    let ran = node.run(&["--json", "extract"]);
    assert_eq!(ran.code(), 1);
    assert!(ran.errors().contains("TED-1900") && ran.errors().contains("1 of 3"), "{}", ran.errors());
    let told: serde_json::Value = serde_json::from_str(&ran.printed()).expect("JSON");
    assert_eq!(told["failed"][0]["distribution"], "dist.example.com/site", "{told}");
    assert_eq!(told["failed"][0]["code"], "TED-1900");
    assert_eq!(told["extracted"].as_array().map(Vec::len), Some(2), "{told}");
    for (name, content) in [("a-one", "<h1>Hello</h1>"), ("www", "scribbled"), ("z-one", "<h1>Hello</h1>")] {
        assert_eq!(site.said(&format!("{name}/index.html")), content, "{name}");
    }
    assert!(node.run(&["extract"]).printed().contains("dist.example.com/site: not extracted: TED-1900"));
}

#[test]
fn how_a_node_extracts_and_what_it_keeps_is_seen_where_operators_look() {
    let site = Site::with("echo \"$TED_MODE\" >> \"$W/modes\"", "true", "", &["--mode", "sync"]);
    let node = &site.node;
    let daemon = node.daemon();
    assert_eq!(site.origin.send().code(), 0);
    let status = node.json(&["status"]);
    assert_eq!((&status["keep_package"], &status["on_local_change"]), (&"chain".into(), &"overwrite".into()));
    assert_eq!(status["distributions"][0]["mode"], "sync");
    let rows = node.ok(&["configuration", "show"]);
    assert!(rows.lines().any(|row| row.contains("mode of dist.example.com/site") && row.contains("the Distribution")));
    assert_eq!(daemon.stop(), 0);
    site.work.write(
        "s/subscriber.toml",
        "keep_package = \"none\"\non_local_change = \"keep\"\n[modes]\nsite = \"merge\"\nsiet = \"release\"\n",
    );
    let status = node.json(&["status"]);
    assert_eq!((&status["keep_package"], &status["on_local_change"]), (&"none".into(), &"keep".into()));
    assert!(node.ok(&["status"]).contains("on_local_change  keep"));
    let set = node.json(&["configuration", "show"]);
    let set = set["extraction"].as_array().expect("an array");
    for (setting, distribution, value, source) in [
        ("keep_package", None, "none", "own"),
        ("on_local_change", None, "keep", "own"),
        ("links", None, "any", "default"),
        ("mode", Some("dist.example.com/site"), "merge", "own"),
        ("mode", Some("siet"), "release", "own"),
    ] {
        let row = serde_json::json!({
            "setting": setting, "distribution": distribution, "value": value, "source": source
        });
        assert!(set.contains(&row), "{row} is not in {set:?}");
    }
    let (own, scope) = (site.said("s/subscriber.toml"), "[hooks.site]\n");
    let hook = text(&site.work.path("hooks/before")).to_owned();
    site.work.write("s/subscriber.toml", &format!("{own}{scope}before = [\"/bin/sh\", {hook:?}]\n"));
    let daemon = node.daemon();
    site.change("once more");
    assert_eq!(site.origin.send().code(), 0);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.said("modes"), "sync\nmerge\n", "hooks are told the mode in effect");
    // Of what is not there to mend it from, another process knows too that it is awaited.
    site.work.write("www/sub/page.html", "scribbled");
    assert!(node.run(&["extract", "site"]).errors().contains("TED-1895"));
    let trouble = node.json(&["status"])["distributions"][0]["trouble"].to_string();
    assert!(trouble.contains("TED-1895") && trouble.contains("its baseline is fetched"), "{trouble}");
    let found = node.run(&["doctor"]).printed();
    for said in ["its baseline is fetched", "keep_package: none", "on_local_change: keep", "modes: `siet` is named"] {
        assert!(found.contains(said), "{said}: {found}");
    }
}

#[test]
fn a_failing_after_is_told_on_both_sides_and_the_revision_stays() {
    let site = Site::new("true", "echo cannot start; exit 7", "");
    let daemon = site.node.daemon();
    let sent = site.origin.send();
    assert_eq!(sent.code(), 0, "it is extracted: {}", sent.errors());
    assert!(sent.printed().contains("TED-1901") && sent.printed().contains("cannot start"), "{}", sent.printed());
    assert_eq!(site.said("www/index.html"), "<h1>Hello</h1>");
    let row = &site.node.json(&["status"])["distributions"][0];
    assert_eq!(row["stage"], "extracted");
    assert!(row["trouble"].to_string().contains("exit status: 7; it said: cannot start"), "{row}");
    site.node.ok(&["extract", "site"]);
    let row = &site.node.json(&["status"])["distributions"][0];
    assert!(row["trouble"].is_null(), "who mended it by hand ends the message so: {row}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_extraction_that_fails_after_its_before_is_followed_by_after_all_the_same() {
    // The folder that the commit renames into goes away while `before` runs: so does what it stopped come back.
    let site =
        Site::new("rm -rf \"$TED_TARGET\"/.ted-staging-*", "echo \"$TED_STAGE $TED_OUTCOME\" >> \"$W/told\"", "");
    let daemon = site.node.daemon();
    assert_ne!(site.origin.send().code(), 0);
    assert_eq!(site.said("told"), "after failed\n");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_extraction_that_failed_after_its_commit_is_followed_by_after_once_it_is_finished() {
    // A folder stands in a file's way only when everything is staged: the commit is made, and not all of it is done.
    let before = "[ -e \"$W/once\" ] || { touch \"$W/once\"; mkdir \"$TED_TARGET/index.html\"; }";
    let site = Site::new(before, TELL, "");
    let daemon = site.node.daemon();
    assert_ne!(site.origin.send().code(), 0);
    assert_eq!(site.said("told"), "after failed \n");
    std::fs::remove_dir(site.www()).expect("removed");
    site.node.ok(&["extract", "site"]);
    let told = "after failed \nafter extracted <h1>Hello</h1>\n";
    assert_eq!(site.said("told"), told);
    site.node.ok(&["extract", "site"]);
    assert_eq!(site.said("told"), told, "it is over");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_release_mode_a_failing_after_has_the_release_before_become_current_again() {
    let looks = "echo \"$TED_MODE $TED_OUTCOME $(cat \"$TED_TARGET/current/index.html\")\" >> \"$W/told\"\n\
                 echo \"$TED_REVISION ${TED_PREVIOUS_REVISION:-none}\" >> \"$W/revisions\"\n\
                 grep -q Hello \"$TED_TARGET/current/index.html\"";
    let site = Site::with("true", looks, "on_failure_after = \"rollback\"", &["--mode", "release"]);
    let daemon = site.node.daemon();
    let sent = site.origin.send();
    assert_eq!(sent.code(), 0, "{}{}", sent.printed(), sent.errors());
    site.change("bad");
    let sent = site.origin.send();
    assert_ne!(sent.code(), 0);
    assert!((sent.printed() + &sent.errors()).contains("TED-1902"), "{}", sent.printed());
    assert_eq!(site.said("www/current/index.html"), "<h1>Hello</h1>");
    let first = "release extracted <h1>Hello</h1>\n";
    let tried = "release extracted bad\nrelease rolled-back <h1>Hello</h1>\n";
    assert_eq!(site.said("told"), format!("{first}{tried}"));
    let revisions = site.said("revisions");
    let lines: Vec<(&str, &str)> = revisions.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(lines[1], (lines[2].1, lines[2].0), "each is told of the other: {revisions}");
    let row = &site.node.json(&["status"])["distributions"][0];
    assert_eq!(row["extracted"].to_string(), lines[0].0, "{row}");
    assert_ne!(site.origin.send().code(), 0, "the next firing tries again");
    assert_eq!(site.said("told"), format!("{first}{tried}{tried}"));
    // A delta goes from the release that stands, and an update that is good stays.
    site.change("<h1>Hello again</h1>");
    let sent = site.origin.send();
    assert_eq!(sent.code(), 0, "{}{}", sent.printed(), sent.errors());
    assert_eq!(site.said("www/current/index.html"), "<h1>Hello again</h1>");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn one_that_takes_too_long_is_ended() {
    let site = Site::new("exec sleep 1000", TELL, "timeout_s = 1");
    let daemon = site.node.daemon();
    let sent = site.origin.send();
    assert_ne!(sent.code(), 0);
    assert!((sent.printed() + &sent.errors()).contains("it was ended after 1 s"), "{}", sent.printed());
    assert!(!site.www().exists());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_hook_that_a_stop_or_a_kill_cut_short_runs_at_the_next_start() {
    let waits = format!("{TELL}\ntouch \"$W/runs\"\nwhile [ -d \"$W\" ] && [ ! -e \"$W/may\" ]; do sleep 0.1; done");
    let site = Site::new("true", &waits, "timeout_s = 600");
    let runs = site.work.path("runs");
    let begin = || {
        // The first one may be gone already, or was never there.
        let _ = std::fs::remove_file(&runs);
    };
    let daemon = site.node.daemon();
    let firing = site.origin.node.run(&["send", "nightly"]);
    assert_eq!(firing.code(), 0, "{}", firing.errors());
    until("after runs", || runs.exists());
    begin();
    assert_eq!(daemon.stop(), 0, "a stop ends what is running");
    assert_eq!(site.said("www/index.html"), "<h1>Hello</h1>", "the revision is there");
    let daemon = site.node.daemon();
    until("after runs again", || runs.exists());
    begin();
    // Killed, not asked.
    drop(daemon);
    site.work.write("may", "");
    let daemon = site.node.daemon();
    until("after runs for the third time", || runs.exists());
    until("it is known", || site.node.json(&["status"])["distributions"][0]["stage"] == "extracted");
    begin();
    site.node.ok(&["extract", "site"]);
    assert!(!runs.exists(), "it has run to its end once, and that is enough");
    assert_eq!(site.said("told"), "after extracted <h1>Hello</h1>\n".repeat(3));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn nothing_that_a_distributor_sends_starts_a_process() {
    let work = Work::new();
    let program = "#!/bin/sh\ntouch \"$(dirname \"$0\")/was-run\"\n";
    let origin = Origin::start(&work, "d", "dist.example.com", &["--target", text(&work.path("allowed/$(touch x)"))]);
    let node = Node::subscriber(work.path("s"));
    for name in ["before", "after", "hooks/before", "subscriber.toml", ".ted/hooks/after"] {
        let path = work.write(&format!("d-source/{name}"), program);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("set");
    }
    // Everything that a Distributor can set for a node: variables of any name and value, here as if they were hooks.
    node.ok(&["join", text(&origin.invite(&work, "s1.example.com"))]);
    let evil = text(&work.path("d-source/before")).to_owned();
    for (setting, known) in
        [("hooks", false), ("hooks.before", false), ("variable.HOOKS", true), ("variable.PATH", true)]
    {
        let set =
            origin.node.run(&["subscriber", "configure", "s1.example.com", "--set", &format!("{setting}={evil}")]);
        assert_eq!(set.code() == 0, known, "{setting}: {}", set.errors());
    }
    let folder = work.path("allowed");
    std::fs::create_dir_all(&folder).expect("made");
    work.write("s/subscriber.toml", &format!("targets_allow = [{:?}]\n", text(&folder)));
    let daemon = node.daemon();
    let sent = origin.send();
    assert_eq!(sent.code(), 0, "{}{}", sent.printed(), sent.errors());
    assert!(folder.join("$(touch x)/hooks/before").exists(), "it is extracted, as files");
    assert_eq!(node.json(&["status"])["distributions"][0]["hooks"], serde_json::Value::Null);
    let ran = |folder: &std::path::Path| support::trees(&[folder]).into_keys().any(|path| path.ends_with("was-run"));
    assert!(!ran(&folder) && !ran(&work.path("d-source")) && !ran(&node.data));
    assert_eq!(daemon.stop(), 0);
}
