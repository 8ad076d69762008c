//! Every rule in `docs/rules.md` says which tests hold it, and those tests exist.

use std::path::Path;

#[test]
fn every_test_that_a_rule_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/rules.md")).expect("docs/rules.md");
    let (mut missing, mut rules) = (vec![], 0);
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| **")).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [rule, held_by] = cells[..] else { panic!("a row has a rule and its tests: {line}") };
        rules += 1;
        if held_by == "-" {
            continue;
        }
        for test in held_by.split(", ") {
            if !test.strip_prefix('`').and_then(|test| test.strip_suffix('`')).is_some_and(|test| exists(root, test)) {
                missing.push(format!("{test} ({rule})"));
            }
        }
    }
    assert!(rules > 50, "the table was not found: {rules} rows");
    assert!(missing.is_empty(), "docs/rules.md names tests that do not exist:\n{}", missing.join("\n"));
}

/// Whether `file::function` is a function of that file.
fn exists(root: &Path, test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&format!("fn {function}(")))
}
