//! Certificates and keys as operators handle them: brought by directory, enrolled by carried files, listed, backed up.

mod support;

use std::path::Path;

use support::{Node, Origin, Work, text, until};

const NAME: &str = "s1.example.com";

/// The state of the pair, as the Distributor tells it.
fn state(origin: &Origin) -> String {
    let listed = origin.node.json(&["certificate", "list"]);
    let of_status = origin.node.json(&["status"])["subscribers"][0]["certificate"]["state"].clone();
    assert_eq!(listed["subscribers"][0]["state"], of_status);
    of_status.as_str().expect("a state").to_owned()
}

#[test]
fn a_node_is_resolved_by_directory_enrolled_by_files_and_receives() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", NAME]);
    let security = node.data.join("security");

    // The relation is made: a note says what is needed, and the way does it at once.
    let ran = origin.node.run(&["subscriber", "create", NAME, "--channel", "nightly"]);
    assert_eq!(ran.code(), 0);
    assert!(ran.errors().contains("certificates need resolving: s1.example.com"), "{}", ran.errors());
    assert_eq!(state(&origin), "needed");
    let ran = origin.node.run(&["certificate", "resolve", "--copy"]);
    assert_eq!(ran.code(), 1);
    assert!(ran.printed().contains("TED-1204A: no way is configured"), "{}", ran.printed());
    origin.node.ok(&["subscriber", "create", "s2.example.com"]);
    let way = ["subscriber", "update", NAME, "--certificate-directory", text(&security)];
    origin.node.ok(&way);
    let ran = origin.node.run(&["certificate", "resolve", "--copy"]);
    assert_eq!(ran.code(), 3, "partly: {}", ran.errors());
    assert!(ran.errors().contains("TED-1214"), "{}", ran.errors());
    assert_eq!(state(&origin), "copied");
    assert!(origin.node.ok(&["export"]).contains("certificate_directory"));
    origin.node.ok(&["subscriber", "delete", "s2.example.com"]);

    // The requests go out, and both sides show the same fingerprint.
    let daemon = node.daemon();
    let requested = node.json(&["request", "dist.example.com"]);
    let fingerprint = requested["fingerprint"].as_str().expect("a fingerprint").to_owned();
    let files: Vec<&str> =
        requested["files"].as_array().expect("two").iter().filter_map(|file| file.as_str()).collect();
    assert_eq!(Path::new(files[0]), security.join("csr/dist.example.com/s1.example.com.identity.csr"));
    let out = work.path("out");
    let sign = ["certificate", "sign", files[0], files[1], "--output", text(&out)];
    let ran = origin.node.run(&sign);
    assert_eq!(ran.code(), 1);
    assert!(ran.errors().contains("TED-1848") && ran.errors().contains(&fingerprint), "{}", ran.errors());
    let ran = origin.node.run(&[&sign[..], &["--fingerprint", "0011-2233-4455-6677"]].concat());
    assert!(ran.errors().contains("TED-1217"), "{}", ran.errors());
    let signed = origin.node.json(&[&sign[..], &["--fingerprint", &fingerprint]].concat());
    assert_eq!(signed["fingerprint"], fingerprint.as_str());

    // They come back, and are taken in by the daemon by itself.
    let issued = security.join("issued/dist.example.com");
    std::fs::create_dir_all(&issued).expect("made");
    for file in signed["files"].as_array().expect("two") {
        let file = Path::new(file.as_str().expect("a path"));
        std::fs::copy(file, issued.join(file.file_name().expect("a name"))).expect("carried");
    }
    daemon.log.wait_for("took in certificates that were carried here");
    assert!(node.json(&["status"])["distributors"][0]["enrolled_until"].is_string());
    // From now on it may dial, too.
    node.ok(&["request", "dist.example.com", "--endpoint", &origin.endpoint]);
    daemon.log.wait_for("connected");
    until("it says how it holds the certificate", || state(&origin) == "awaiting-first-package");
    assert_eq!(origin.send().code(), 0);
    assert_eq!(state(&origin), "in-keystore");
    assert_eq!(node.json(&["status"])["distributors"][0]["trust"], "keystore");
    assert!(origin.node.json(&["certificate", "resolve"])["rows"].as_array().expect("rows").is_empty());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pending_and_approve_compare_the_fingerprint_that_the_node_prints() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = Node::subscriber(work.path("s"));
    node.ok(&["init", "--name", NAME]);
    node.ok(&["trust", text(&origin.certificate())]);
    let printed = node.ok(&["enrol", &origin.endpoint]);
    let pending = origin.node.json(&["subscriber", "pending"]);
    let fingerprint = pending["pending"][0]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    assert!(printed.contains(&fingerprint), "{printed}");
    let ran = origin.node.run(&["subscriber", "approve", NAME, "--fingerprint", "0011-2233-4455-6677"]);
    assert!(ran.errors().contains("TED-1217") && ran.errors().contains(&fingerprint), "{}", ran.errors());
    assert_eq!(ran.code(), 6, "a fingerprint that does not hold is a refusal");
    let spoken = fingerprint.to_uppercase().replace('-', " ");
    origin.node.ok(&["subscriber", "approve", NAME, "--fingerprint", &spoken]);
    assert!(node.ok(&["enrol", &origin.endpoint]).contains("is enrolled with dist.example.com"));
    let own = node.json(&["keystore", "show", "subscriber-identity"]);
    assert_eq!(own["entries"][0]["fingerprint"], fingerprint.as_str());

    // Under another name it waits for approval again, and says so.
    let ran = node.run(&["rename", "new.example.com"]);
    assert!(ran.code() == 0 && ran.errors().contains("subscriber approve new.example.com"), "{}", ran.errors());
    let trouble = node.json(&["status"])["distributors"][0]["trouble"].clone();
    assert!(trouble.as_str().is_some_and(|trouble| trouble.contains("knows this node as s1.example.com")), "{trouble}");
    assert!(
        node.run(&["doctor"]).printed().contains("warning  enrolment with dist.example.com: it knows this node as")
    );
}

#[test]
fn keystores_are_listed_without_keys_and_https_is_imported_replaced_and_removed() {
    let work = Work::new();
    let node = Node::distributor(work.path("d"));
    node.ok(&["init", "--name", "dist.example.com"]);
    let listed = node.json(&["keystore", "list"]);
    let uses: Vec<&str> =
        listed["entries"].as_array().expect("rows").iter().filter_map(|it| it["use"].as_str()).collect();
    assert_eq!(uses, ["authority", "sign", "distributor-tls"]);
    for entry in listed["entries"].as_array().expect("rows") {
        for field in ["subject", "issuer", "names", "not_before", "not_after", "thumbprint", "serial"] {
            assert!(!entry["certificate"][field].is_null(), "{field}");
        }
    }
    let openssl = |arguments: &[&str]| {
        let ran = std::process::Command::new("openssl").args(arguments).current_dir(work.path("")).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"];
    let purpose = ["-addext", "basicConstraints=CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"];
    let name = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:dist.example.com,DNS:www.example.com"];
    let files = ["-keyout", "https.key", "-out", "https.pem"];
    if !openssl(&[&make[..], &purpose, &name, &files].concat()) {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    let (certificate, key) = (work.path("https.pem"), work.path("https.key"));
    let import = ["keystore", "import", "--certificate", text(&certificate)];
    let ran = node.run(&import);
    assert!(ran.errors().contains("TED-1173"), "{}", ran.errors());
    node.ok(&[&import[..], &["--key", text(&key)]].concat());
    let ran = node.run(&[&import[..], &["--key", text(&key), "--name", "other.example.com"]].concat());
    assert!(ran.errors().contains("TED-1179") && ran.code() != 0, "{}", ran.errors());
    assert_eq!(node.json(&["keystore", "show", "https"])["entries"][0]["name"], "dist.example.com");

    assert!(openssl(&[
        "pkcs12",
        "-export",
        "-inkey",
        "https.key",
        "-in",
        "https.pem",
        "-out",
        "x.pfx",
        "-passout",
        "pass:abc"
    ]));
    let (pfx, password) = (work.path("x.pfx"), work.write("password", "abc\n"));
    let import = ["keystore", "import", "--certificate", text(&pfx), "--name", "www.example.com"];
    assert!(node.run(&import).errors().contains("TED-1172"));
    node.ok(&[&import[..], &["--password-file", text(&password)]].concat());
    let shown = node.json(&["keystore", "show", "https"]);
    assert_eq!(shown["entries"].as_array().map(Vec::len), Some(1), "it took the other's place");
    assert_eq!(shown["entries"][0]["name"], "www.example.com");
    node.ok(&["keystore", "remove", "https"]);
    assert_ne!(node.run(&["keystore", "show", "https"]).code(), 0);
    assert_ne!(node.run(&["keystore", "remove", "https"]).code(), 0);
}

#[test]
fn a_lost_node_comes_back_from_its_backup_and_goes_on() {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[]);
    let node = Node::subscriber(work.path("s"));
    node.ok(&["join", text(&origin.invite(&work, NAME))]);
    let daemon = node.daemon();
    assert_eq!(origin.send().code(), 0);
    let phrase = work.write("phrase", "correct horse battery staple\n");
    let (ours, theirs) = (work.path("s.age"), work.path("d.age"));
    // Hot, both of them.
    node.ok(&["backup", text(&ours), "--passphrase-file", text(&phrase)]);
    origin.node.ok(&["backup", text(&theirs), "--passphrase-file", text(&phrase)]);
    assert!(node.run(&["backup", text(&ours), "--passphrase-file", text(&phrase)]).errors().contains("TED-1808"));
    assert!(node.run(&["backup", text(&work.path("x.age"))]).errors().contains("TED-1849"));
    let ran = node.run(&["restore", text(&ours), "--passphrase-file", text(&phrase), "--force"]);
    assert!(ran.errors().contains("TED-1501"), "the daemon has it: {}", ran.errors());
    assert_eq!(daemon.stop(), 0);

    // The Subscriber's machine is lost.
    std::fs::remove_dir_all(&node.data).expect("gone");
    let wrong = work.write("wrong", "wrong horse battery staple\n");
    let restore = ["restore", text(&ours), "--passphrase-file"];
    assert!(node.run(&[&restore[..], &[text(&wrong)]].concat()).errors().contains("TED-1183"));
    node.ok(&[&restore[..], &[text(&phrase)]].concat());
    assert!(node.run(&[&restore[..], &[text(&phrase)]].concat()).errors().contains("TED-1186"));
    let daemon = node.daemon();
    daemon.log.wait_for("connected");
    work.write("d-source/index.html", "<h1>Again</h1>");
    assert_eq!(origin.send().code(), 0);

    // The Distributor's machine is lost: its numbers go on above those that it gave after the backup.
    let Origin { node: distributor, daemon: running, endpoint, .. } = origin;
    assert_eq!(running.stop(), 0);
    std::fs::rename(&distributor.data, work.path("lost")).expect("gone");
    distributor.ok(&["restore", text(&theirs), "--passphrase-file", text(&phrase)]);
    std::fs::write(distributor.data.join("distributor.toml"), format!("listen = \"{endpoint}\"\n")).expect("written");
    let running = distributor.daemon();
    assert_eq!(distributor.json(&["channel", "list"])["channels"][0]["name"], "nightly", "the fleet is there too");
    daemon.log.wait_for("connected");
    work.write("d-source/index.html", "<h1>Once more</h1>");
    let ran = distributor.run(&["send", "nightly", "--wait", "--timeout", "60s"]);
    assert_eq!(ran.code(), 0, "{}", ran.errors());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(running.stop(), 0);
}
