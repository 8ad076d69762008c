//! Where this library starts processes: hooks, which only a Subscriber's own configuration names, and the Distributor's
//! own operator's command that copies a certificate. Nothing that comes over a connection may start one.

use std::path::{Path, PathBuf};

/// The only modules that may.
const MAY: [&str; 2] = ["distributor/resolve.rs", "subscriber/hooks/process.rs"];

#[test]
fn only_hooks_and_the_copying_of_certificates_start_processes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    collect(&root, &mut files);
    let mut starting: Vec<String> = vec![];
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.strip_prefix(&root).expect("below").display().to_string();
        let is_test = ["tests.rs", "/conformance.rs"].iter().any(|end| name.ends_with(end)) || name.contains("/tests/");
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        if !is_test
            && ["Command::new", "process::Command", "posix_spawn", "execve"].iter().any(|it| product.contains(it))
        {
            starting.push(name);
        }
    }
    starting.sort();
    assert_eq!(starting, MAY);
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}
