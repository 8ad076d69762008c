//! What a comparison of a target with its revision finds.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{Tree, look, open, scratch};
use crate::extract::{ExtractOptions, compare};

fn tree() -> Tree {
    Tree::new()
        .file("a/one", b"one")
        .file("a/two", b"two")
        .hard("a/two-hard", "a/two")
        .symlink("s", "/etc/x")
        .dir("empty")
        .file("setuid", b"x")
        .mode("setuid", 0o4755)
}

#[test]
fn each_change_of_a_target_is_named() {
    type Change = fn(&Path);
    for (change, expected) in [
        ((|_| {}) as Change, &[][..]),
        (|at| std::fs::write(at.join("mine"), "mine").expect("written"), &[]),
        (|at| std::fs::write(at.join("a/one"), "One").expect("written"), &["a/one: another content"]),
        (|at| std::fs::write(at.join("a/one"), "more").expect("written"), &["a/one: another size"]),
        (|at| std::fs::remove_file(at.join("a/one")).expect("removed"), &["a/one: missing"]),
        (
            |at| std::fs::set_permissions(at.join("a/one"), Permissions::from_mode(0o600)).expect("set"),
            &["a/one: another mode"],
        ),
        (|at| std::fs::remove_dir(at.join("empty")).expect("removed"), &["empty: missing"]),
        (
            |at| {
                std::fs::remove_file(at.join("s")).expect("removed");
                symlink("/etc/y", at.join("s")).expect("made");
            },
            &["s: another link target"],
        ),
        (
            |at| {
                std::fs::remove_file(at.join("a/two-hard")).expect("removed");
                std::fs::copy(at.join("a/two"), at.join("a/two-hard")).expect("copied");
            },
            &["a/two-hard: not the same file as the one it is linked to"],
        ),
        (
            |at| {
                std::fs::rename(at.join("a"), at.join("b")).expect("moved");
                symlink("b", at.join("a")).expect("made");
            },
            &["a: something of another kind", "a/one: missing", "a/two: missing", "a/two-hard: missing"],
        ),
    ] {
        let (_folder, at) = scratch();
        let built = tree().build();
        built.extract_to(&at, None).expect("fresh");
        change(&at);
        let before = look(&at);
        let found = compare(&open(&at), &built.rows, &ExtractOptions::default()).expect("readable");
        let found: Vec<_> = found.iter().map(|found| format!("{}: {}", found.path, found.what)).collect();
        assert_eq!(found, expected);
        assert_eq!(look(&at), before, "nothing is changed");
    }
    let (_folder, at) = scratch();
    let found = compare(&open(&at.join("none")), &tree().build().rows, &ExtractOptions::default()).expect("readable");
    assert_eq!(found.len(), 1, "a target that is missing is one difference");
}
