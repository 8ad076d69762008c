//! An unencrypted baseline is a valid `.tar.zst`: what is installed everywhere reads it.

use std::process::{Command, Output};

use super::support::{Fixture, fixture};
use ted_core::package::DigestKind;

fn tar(fixture: &Fixture, arguments: &[&str]) -> Output {
    let mut command = Command::new("tar");
    command.arg("--zstd").args(arguments).arg("-f").arg(&fixture.package).current_dir(&fixture.source);
    command.output().expect("tar is installed")
}

/// GNU tar does not know `hdrcharset`, says so, and reads the long names that are not UTF-8 as they are.
fn quiet(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr)
        .replace("tar: Ignoring unknown extended header keyword 'hdrcharset'\n", "");
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", output.status);
}

#[test]
fn tar_lists_every_entry() {
    let fixture = fixture(DigestKind::None);
    let output = tar(&fixture, &["--quoting-style=literal", "-t"]);
    quiet(&output);
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(lines, fixture.built.catalog().len());
}

#[test]
fn tar_detects_the_compression_by_itself() {
    let fixture = fixture(DigestKind::None);
    let output = Command::new("tar").arg("-tf").arg(&fixture.package).output().expect("tar is installed");
    quiet(&output);
}

#[test]
fn tar_finds_no_difference() {
    let fixture = fixture(DigestKind::Blake3);
    let output = tar(&fixture, &["-d"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    quiet(&output);
}
