//! Every error code that the sources name is explained in `docs/errors.md`, belongs to one operation, and every code
//! explained there is in use or said to be retired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const SOURCES: [&str; 4] = ["ted-core/src", "cli/src", "distributor/src", "subscriber/src"];

#[test]
fn every_code_in_the_sources_is_explained() {
    let explained = explained();
    let missing: Vec<String> = codes_in_sources()
        .into_iter()
        .filter(|(code, _)| !explained.contains_key(code))
        .map(|(code, files)| format!("{code} ({})", files.into_iter().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(missing.is_empty(), "docs/errors.md does not explain:\n{}", missing.join("\n"));
}

#[test]
fn every_explained_code_is_in_use_or_retired() {
    let used = codes_in_sources();
    let gone: Vec<String> = explained()
        .into_iter()
        .filter(|(code, row)| !used.contains_key(code) && !row.contains("retired"))
        .map(|(code, _)| code)
        .collect();
    assert!(
        gone.is_empty(),
        "no source names these codes of docs/errors.md any more; say that they are retired: {gone:?}"
    );
}

#[test]
fn each_code_belongs_to_one_operation() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources() {
        for line in text.lines().filter(|line| line.contains("=> \"TED-")) {
            for code in codes(line) {
                owners.entry(code).or_default().insert(file.clone());
            }
        }
    }
    owners.retain(|_, files| files.len() > 1);
    assert!(owners.is_empty(), "codes given in more than one place: {owners:#?}");
}

/// The rows of the table in `docs/errors.md`, by code.
fn explained() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("docs/errors.md")).expect("docs/errors.md");
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| TED-")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "a row has a code, a meaning and a remedy: {line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "an empty cell: {line}");
        let earlier = rows.insert(cells[0].to_owned(), line.to_owned());
        assert_eq!(earlier, None, "{} is explained twice", cells[0]);
    }
    rows
}

fn codes_in_sources() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources() {
        for code in codes(&text) {
            found.entry(code).or_default().insert(file.clone());
        }
    }
    found
}

/// The codes that stand in `text` as literals: `"TED-`, four digits, perhaps a letter, `"`.
fn codes(text: &str) -> Vec<String> {
    let starts = text.match_indices("\"TED-").map(|(at, _)| &text[at + 1..]);
    starts
        .filter_map(|rest| rest.split_once('"').map(|(code, _)| code))
        .filter(|code| {
            let number = code["TED-".len()..].trim_end_matches(|c: char| c.is_ascii_uppercase());
            number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(str::to_owned)
        .collect()
}

fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in SOURCES {
        collect(&root().join(folder), &mut files);
    }
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("readable");
            (path.strip_prefix(root()).expect("below the root").display().to_string(), text)
        })
        .collect()
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
