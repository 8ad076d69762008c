//! One revision after another.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Thing, Tree, look, noise, open, scratch};
use crate::error::Coded;
use crate::extract::{ExtractError, Recovery};

fn inode(at: &Path) -> u64 {
    at.symlink_metadata().expect("there").ino()
}

#[test]
fn only_what_changed_is_written() {
    let old = Tree::new()
        .file("a/one", b"one")
        .file("a/two", &noise("two", 50_000))
        .hard("a/two-hard", "a/two")
        .symlink("s", "/etc/x")
        .dir("empty");
    let (_folder, at) = scratch();
    let before = old.build();
    before.extract_to(&at, None).expect("fresh");
    let inodes = |names: &[&str]| names.iter().map(|name| inode(&at.join(name))).collect::<Vec<_>>();
    let kept = ["a/two", "a/two-hard", "s", "empty"];
    let (kept_before, changed_before) = (inodes(&kept), inode(&at.join("a/one")));

    let new = old.clone().file("a/one", b"one\nand a line").file("a/three", b"3");
    let summary = new.build().extract_to(&at, Some(&before.entries())).expect("update");
    assert_eq!(look(&at), new.seen());
    assert_eq!((summary.files_written, summary.links_made), (2, 0));
    assert_eq!(inodes(&kept), kept_before);
    assert_ne!(inode(&at.join("a/one")), changed_before);

    let again = new.build().extract_to(&at, Some(&new.build().entries())).expect("nothing to do");
    assert_eq!((again.files_written, again.links_made, again.folders_made), (0, 0, 0));
    assert_eq!(again.unchanged, new.build().rows.len() as u64);
    assert_eq!(look(&at), new.seen());
}

#[test]
fn nothing_is_deleted_and_modes_and_times_are_updated() {
    let old = Tree::new().file("d/gone later", b"x").file("d/stays", b"y");
    let (_folder, at) = scratch();
    let before = old.build();
    before.extract_to(&at, None).expect("fresh");
    std::fs::write(at.join("d/mine"), "local").expect("writable");
    let new = Tree::new().file("d/stays", b"y").mode("d/stays", 0o600).mode("d", 0o700).later("d").later("");
    new.build().extract_to(&at, Some(&before.entries())).expect("update");
    let mut seen = look(&at);
    assert_eq!(seen.0.remove(b"d/mine".as_slice()).expect("kept").thing, Thing::File(b"local".to_vec()));
    assert_eq!(seen.0.remove(b"d/gone later".as_slice()).expect("kept").thing, Thing::File(b"x".to_vec()));
    assert_eq!(seen, new.seen());
}

#[test]
fn a_file_that_somebody_changed_is_put_right_and_reported() {
    let tree = Tree::new().file("a", b"ours").file("b", b"b");
    let (_folder, at) = scratch();
    let built = tree.build();
    built.extract_to(&at, None).expect("fresh");
    std::fs::write(at.join("a"), "theirs, longer").expect("writable");
    let summary = built.extract_to(&at, Some(&built.entries())).expect("again");
    assert_eq!(summary.local_changes.first, [super::path("a")]);
    assert_eq!((summary.files_written, summary.unchanged), (1, 2), "root and b");
    assert_eq!(look(&at), tree.seen());
}

#[test]
fn hard_links_that_were_torn_apart_are_joined_again() {
    let tree = Tree::new().file("a", b"ours").hard("b", "a").symlink("s", "x").hard("t", "s");
    let (_folder, at) = scratch();
    let built = tree.build();
    built.extract_to(&at, None).expect("fresh");
    std::fs::remove_file(at.join("b")).expect("there");
    std::fs::write(at.join("b"), "ours").expect("writable");
    std::fs::remove_file(at.join("t")).expect("there");
    let summary = built.extract_to(&at, Some(&built.entries())).expect("again");
    assert_eq!((summary.files_written, summary.links_made), (0, 2));
    assert_eq!(look(&at), tree.seen());
    // The first name is written anew: the others follow.
    let new = Tree::new().file("a", b"changed").hard("b", "a").symlink("s", "y").hard("t", "s");
    new.build().extract_to(&at, Some(&built.entries())).expect("update");
    assert_eq!(look(&at), new.seen());
}

#[test]
fn entries_change_their_kind_if_the_previous_revision_made_what_stands_there() {
    let file = Tree::new().file("x", b"file").file("z", b"z");
    let folder = Tree::new().file("x/in/side", b"1").file("x/other", b"2").dir("x/ro").mode("x/ro", 0o555);
    let symlink = Tree::new().symlink("x", "elsewhere");
    let hard = Tree::new().file("a", b"a").hard("x", "a");
    for (number, old) in [&file, &folder, &symlink, &hard].into_iter().enumerate() {
        for (other, new) in [&file, &folder, &symlink, &hard].into_iter().enumerate() {
            let (_folder, at) = scratch();
            let before = old.build();
            before.extract_to(&at, None).expect("fresh");
            new.build().extract_to(&at, Some(&before.entries())).unwrap_or_else(|error| {
                panic!("from {number} to {other}: {error}");
            });
            let mut seen = look(&at);
            let expected = new.seen();
            // What only the old revision had stays.
            seen.0.retain(|name, _| expected.0.contains_key(name));
            for (name, sight) in &mut seen.0 {
                sight.same_as.clone_from(&expected.0[name].same_as);
            }
            assert_eq!(seen, expected, "from {number} to {other}");
        }
    }
}

#[test]
fn what_stands_in_the_way_is_kept_and_named_if_no_revision_made_it() {
    let file = Tree::new().file("x", b"file");
    let folder = Tree::new().file("x/inside", b"1").dir("x/deep");
    let symlink = Tree::new().symlink("x", "elsewhere");
    for (old, new, wanted) in [
        (&file, &folder, "folder"),
        (&folder, &file, "file"),
        (&folder, &symlink, "symbolic link"),
        (&symlink, &file, "file"),
    ] {
        let (_folder, at) = scratch();
        old.build().extract_to(&at, None).expect("fresh");
        for previous in [None, Some(Tree::new().build().entries())] {
            let error = new.build().extract_to(&at, previous.as_deref()).expect_err("in the way");
            assert_eq!(error.code(), "TED-1405");
            assert!(error.to_string().contains("`x`") && error.to_string().contains(wanted), "{error}");
            assert_eq!(look(&at), old.seen());
        }
    }
    // A folder with something of somebody else's in it stays, and that is named.
    let (_folder, at) = scratch();
    let before = folder.build();
    before.extract_to(&at, None).expect("fresh");
    std::fs::write(at.join("x/deep/mine"), "local").expect("writable");
    match file.build().extract_to(&at, Some(&before.entries())).expect_err("in the way") {
        ExtractError::Obstacle { path, found, .. } => {
            assert_eq!((path, found), (super::path("x/deep/mine"), "file"));
        }
        other => panic!("{other}"),
    }
    assert!(at.join("x/deep/mine").exists());
}

#[test]
fn a_link_with_another_text_than_the_revision_gave_it_is_somebody_elses() {
    let old = Tree::new().symlink("x", "ours");
    let (_folder, at) = scratch();
    let before = old.build();
    before.extract_to(&at, None).expect("fresh");
    std::fs::remove_file(at.join("x")).expect("there");
    std::os::unix::fs::symlink("theirs", at.join("x")).expect("free");
    let error = Tree::new().file("x/y", b"").build().extract_to(&at, Some(&before.entries())).expect_err("in the way");
    assert_eq!(error.code(), "TED-1405");
    assert_eq!(look(&at).0[b"x".as_slice()].thing, Thing::Symlink(b"theirs".to_vec()));
}

#[test]
fn two_distributions_share_a_target() {
    let (_folder, at) = scratch();
    let one = Tree::new().file("shared/one", b"1");
    let two = Tree::new().file("shared/two", b"2");
    one.build().extract_to(&at, None).expect("fresh");
    two.build().extract_to(&at, None).expect("beside it");
    assert_eq!(std::fs::read(at.join("shared/one")).expect("kept"), b"1");
    assert_eq!(std::fs::read(at.join("shared/two")).expect("new"), b"2");
    let none = crate::extract::recover(&open(&at), &super::DISTRIBUTION).expect("nothing to do");
    assert_eq!(none, Recovery::Nothing);
}
