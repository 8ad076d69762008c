//! A second reader, written from `docs/format.md` alone, understands what is built, and refuses what it should.
//!
//! It needs `python3` with the modules of `tests/reader/requirements.txt`. Without them these tests pass unrun, unless
//! `TED_REQUIRE_PYTHON=1` is set.

use std::path::Path;
use std::process::{Command, Output};

use super::support::{DeltaFixture, Fixture, NOW, delta_fixture, fixture, sealed_fixture};
use serde_json::Value;
use ted_core::package::{CatalogRow, DigestKind, EntryKind};
use ted_core::security::{Authority, AwsLc};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader/ted_reader.py");

fn python_is_there() -> bool {
    let found = Command::new("python3").args(["-c", "import blake3, cryptography, zstandard"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let required = std::env::var("TED_REQUIRE_PYTHON").is_ok_and(|value| value == "1");
    assert!(!required, "python3 with the modules of tests/reader/requirements.txt is required");
    eprintln!("not run: python3 lacks the modules of tests/reader/requirements.txt");
    false
}

fn read(package: &Path, certificate: Option<&Path>) -> Output {
    Command::new("python3").arg(READER).arg(package).args(certificate).output().expect("python3 is there")
}

fn read_sealed(package: &Path, key: Option<&Path>) -> Output {
    let key = key.map(|key| [Path::new("--key"), key]).into_iter().flatten();
    Command::new("python3").arg(READER).args(key).arg(package).output().expect("python3 is there")
}

fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("refused: "), "{text}");
    text
}

fn found(fixture: &Fixture, certificate: Option<&Path>) -> Value {
    json(&read(&fixture.package, certificate))
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn it_finds_what_was_built() {
    if !python_is_there() {
        return;
    }
    for digest in [DigestKind::None, DigestKind::Md5, DigestKind::Blake3] {
        let fixture = fixture(digest);
        let found = found(&fixture, Some(&fixture.certificate));
        assert_eq!((&found["chain_verified"], &found["sealed"]), (&true.into(), &false.into()));
        agree(&found, &fixture);
    }
}

#[test]
fn it_opens_a_sealed_package_with_its_key_and_verifies_it_blind_without() {
    if !python_is_there() {
        return;
    }
    for digest in [DigestKind::None, DigestKind::Md5, DigestKind::Blake3] {
        let fixture = sealed_fixture(digest);
        let opened = json(&read_sealed(&fixture.package, Some(&fixture.key)));
        assert_eq!((&opened["sealed"], &opened["opened"]), (&true.into(), &true.into()));
        agree(&opened, &fixture);
        let blind = found(&fixture, Some(&fixture.certificate));
        assert_eq!((&blind["opened"], &blind["chain_verified"]), (&false.into(), &true.into()));
        assert_eq!(blind["package_id"], fixture.built.id.to_string());
        assert!(blind.get("entries").is_none() && blind.get("distribution_name").is_none());
    }
}

#[test]
fn it_refuses_another_key_and_damage_in_every_part_of_a_sealed_package() {
    if !python_is_there() {
        return;
    }
    let fixture = sealed_fixture(DigestKind::None);
    let other = fixture.key.with_file_name("other.key");
    std::fs::write(&other, "ab".repeat(32)).expect("written");
    assert!(refusal(&read_sealed(&fixture.package, Some(&other))).contains("another package's"));
    let index = &fixture.built.index;
    let good = std::fs::read(&fixture.package).expect("there");
    let catalog = index.frame_range(index.body_frames());
    for (part, at) in [
        ("head", 14),
        ("first frame", 20),
        ("the last tag of the body", index.body_range().end as usize - 1),
        ("catalog", catalog.start as usize + 30),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let damaged = fixture.package.with_file_name("damaged.ted");
        std::fs::write(&damaged, bytes).expect("written");
        for key in [None, Some(fixture.key.as_path())] {
            assert!(!refusal(&read_sealed(&damaged, key)).is_empty(), "{part}");
        }
    }
}

#[test]
fn without_the_module_for_cryptography_it_verifies_what_it_can_and_says_so() {
    if !python_is_there() {
        return;
    }
    const WITHOUT: &str = "import os, runpy, sys; sys.modules['cryptography'] = None; sys.argv = sys.argv[1:]; \
                           sys.path.insert(0, os.path.dirname(sys.argv[0])); \
                           runpy.run_path(sys.argv[0], run_name='__main__')";
    let read = |fixture: &Fixture, key: &[&Path]| {
        let mut command = Command::new("python3");
        command.args(["-c", WITHOUT, READER]).args(key).arg(&fixture.package);
        json(&command.output().expect("python3 is there"))
    };
    let plain = fixture(DigestKind::Md5);
    let found = read(&plain, &[]);
    assert_eq!((&found["signature_verified"], &found["opened"]), (&false.into(), &true.into()));
    agree(&found, &plain);
    let sealed = sealed_fixture(DigestKind::Md5);
    let found = read(&sealed, &[Path::new("--key"), &sealed.key]);
    assert_eq!((&found["signature_verified"], &found["opened"]), (&false.into(), &false.into()));
}

/// What the reader found is what was built.
fn agree(found: &Value, fixture: &Fixture) {
    assert_eq!(found["package_id"], fixture.built.id.to_string());
    assert_eq!(found["distribution_name"], "site");
    assert_eq!(found["revision"], NOW.millis());
    same_entries(found, fixture.built.catalog());
}

fn same_entries(found: &Value, rows: &[CatalogRow]) {
    let entries = found["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), rows.len());
    for (found, row) in entries.iter().zip(rows) {
        let kind = match row.entry.kind {
            EntryKind::Directory => "folder",
            EntryKind::File => "file",
            EntryKind::Symlink => "symlink",
            EntryKind::HardLink => "hard link",
        };
        assert_eq!(found["path"], hex(row.entry.path.as_bytes()));
        assert_eq!(found["kind"], kind);
        assert_eq!(found["size"], row.entry.size);
        assert_eq!(found["content"], row.entry.content.to_string());
    }
}

fn read_delta(fixture: &DeltaFixture, delta: &Path, with_base: bool) -> Output {
    let mut command = Command::new("python3");
    command.arg(READER);
    if fixture.delta.1.exists() {
        command.arg("--key").arg(&fixture.delta.1).arg("--base-key").arg(&fixture.base.1);
    }
    if with_base {
        command.arg("--base").arg(&fixture.base.0);
    }
    command.arg(delta).arg(&fixture.certificate).output().expect("python3 is there")
}

#[test]
fn it_applies_a_delta_plain_and_sealed_and_makes_every_file_of_the_new_revision() {
    if !python_is_there() {
        return;
    }
    for sealed in [false, true] {
        let fixture = delta_fixture(sealed);
        let found = json(&read_delta(&fixture, &fixture.delta.0, true));
        assert_eq!((&found["applied"], &found["chain_verified"]), (&true.into(), &true.into()));
        assert_eq!((&found["sealed"], &found["base"]), (&sealed.into(), &NOW.millis().into()));
        assert_eq!(found["content_id"], fixture.new.index.disclosure().content.to_string());
        same_entries(&found, fixture.new.catalog());
        let alone = json(&read_delta(&fixture, &fixture.delta.0, false));
        assert_eq!(alone["applied"], false);
    }
}

#[test]
fn it_refuses_a_delta_from_another_base_and_damage_in_every_part_of_one() {
    if !python_is_there() {
        return;
    }
    let fixture = delta_fixture(false);
    let other = fixture.base.0.with_file_name("new.ted");
    let mut command = Command::new("python3");
    let output = command.arg(READER).arg("--base").arg(other).arg(&fixture.delta.0).output().expect("python3 is there");
    assert!(refusal(&output).contains("goes from another revision"));
    let good = std::fs::read(&fixture.delta.0).expect("there");
    for (part, at) in [("head", 14), ("body", 20), ("end of the index", good.len() - 200), ("tail", good.len() - 1)] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let damaged = fixture.delta.0.with_file_name("damaged.ted");
        std::fs::write(&damaged, bytes).expect("written");
        assert!(!read_delta(&fixture, &damaged, true).status.success(), "{part}");
    }
}

#[test]
fn it_refuses_another_distributors_certificate_and_says_when_it_had_none() {
    if !python_is_there() {
        return;
    }
    let fixture = fixture(DigestKind::None);
    assert_eq!(found(&fixture, None)["chain_verified"], false);
    let other = Authority::create(&AwsLc, &"dist.example.com".parse().expect("a name"), NOW).expect("made");
    let certificate = fixture.source.with_file_name("other.cer");
    std::fs::write(&certificate, other.root().certificate().pem()).expect("written");
    assert!(refusal(&read(&fixture.package, Some(&certificate))).contains("another Distributor"));
}

#[test]
fn it_refuses_damage_in_every_part() {
    if !python_is_there() {
        return;
    }
    let fixture = fixture(DigestKind::Md5);
    let index = &fixture.built.index;
    let good = std::fs::read(&fixture.package).expect("there");
    let catalog = index.frame_range(index.body_frames());
    let root = find(&good, index.root_bytes());
    for (part, at) in [
        ("first frame", 20),
        ("last frame of the body", index.frame_range(index.body_frames() - 1).end as usize - 1),
        ("header of the catalog", catalog.start as usize - 8),
        ("catalog", catalog.start as usize + 30),
        ("table", catalog.end as usize + 60),
        ("root", root + 40),
        ("signature", root + index.root_bytes().len() + 30),
        ("tail", good.len() - 1),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let damaged = fixture.package.with_file_name("damaged.ted");
        std::fs::write(&damaged, bytes).expect("written");
        let output = read(&damaged, Some(&fixture.certificate));
        assert!(!output.status.success(), "{part}");
        if part != "signature" {
            refusal(&output);
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).rposition(|window| window == part).expect("it is there")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
