//! Sync mode: the target becomes what the revision is, and nothing outside of it is touched.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;

use super::{Built, DISTRIBUTION, Seen, Tree, look, noise, open, path, scratch};
use crate::error::Coded;
use crate::extract::run::{extract_with, recover_with};
use crate::extract::step::{Hook, Step};
use crate::extract::{ExtractError, ExtractOptions, ExtractSummary, OnLocalChange, recover};
use crate::id::UnixMillis;
use crate::model::ExtractMode;
use crate::package::Entry;

/// 2026-11-22T11:22:33Z.
const NOW: UnixMillis = UnixMillis::from_millis(1_795_346_553_000);
const KEPT: &str = ".local-20261122T112233Z";

pub(super) fn options(mode: ExtractMode) -> ExtractOptions {
    ExtractOptions { mode, threads: 2, ..ExtractOptions::default() }
}

fn keeping(mode: ExtractMode) -> ExtractOptions {
    ExtractOptions { on_local_change: OnLocalChange::Keep { at: NOW }, ..options(mode) }
}

fn sync(built: &Built, at: &Path, previous: Option<&[Entry]>) -> Result<ExtractSummary, ExtractError> {
    built.extract_with(at, previous, &options(ExtractMode::Sync))
}

fn names(list: &crate::extract::PathList) -> Vec<String> {
    assert_eq!(list.count, list.first.len() as u64);
    list.first.iter().map(ToString::to_string).collect()
}

#[test]
fn a_target_becomes_what_the_revision_is() {
    let old = Tree::new()
        .file("a/stays", b"same")
        .file("a/goes", b"x")
        .file("gone/deep/file", b"1")
        .hard("gone/deep/hard", "gone/deep/file")
        .symlink("gone/link", "/etc")
        .dir("gone/empty")
        .file("folder to file/x", b"1")
        .file("file to folder", b"2");
    let new = Tree::new()
        .file("a/stays", b"same")
        .file("file to folder/x", b"3")
        .file("folder to file", b"4")
        .file("new", &noise("new", 5000));
    let (_folder, at) = scratch();
    let before = old.build();
    sync(&before, &at, None).expect("fresh");
    // What others put there goes as well, whatever it is.
    fs::create_dir_all(at.join("a/foreign/deep")).expect("free");
    fs::write(at.join("a/foreign/deep/file"), "x").expect("free");
    fs::write(at.join("folder to file/foreign"), "x").expect("free");
    fs::write(at.join("foreign"), "x").expect("free");
    drop(std::os::unix::net::UnixListener::bind(at.join("socket")).expect("free"));
    let summary = sync(&new.build(), &at, Some(&before.entries())).expect("update");
    assert_eq!(look(&at), new.seen());
    assert_eq!(
        names(&summary.deleted),
        [
            "a/foreign",
            "a/foreign/deep",
            "a/foreign/deep/file",
            "a/goes",
            "folder to file/foreign",
            "folder to file/x",
            "foreign",
            "gone",
            "gone/deep",
            "gone/deep/file",
            "gone/deep/hard",
            "gone/empty",
            "gone/link",
            "socket"
        ]
        .map(String::from)
    );
    assert!(summary.local_changes.is_empty() && summary.kept.is_empty() && summary.left.is_empty());
    let again = sync(&new.build(), &at, Some(&new.build().entries())).expect("nothing to do");
    assert_eq!((again.files_written, again.deleted.count), (0, 0));
}

#[test]
fn what_was_there_before_the_first_extraction_goes_too() {
    let tree = Tree::new().file("a", b"a").dir("d");
    let (_folder, at) = scratch();
    fs::create_dir_all(at.join("d/old")).expect("free");
    fs::write(at.join("a"), "theirs").expect("free");
    fs::write(at.join("d/old/x"), "theirs").expect("free");
    let summary = sync(&tree.build(), &at, None).expect("fresh");
    assert_eq!(look(&at), tree.seen());
    assert_eq!(names(&summary.deleted), ["d/old", "d/old/x"]);
    assert_eq!(names(&summary.local_changes), ["a"], "overwritten, although nobody of us made it");
}

#[test]
fn links_that_go_or_stand_in_the_way_are_not_followed() {
    let (_folder, at) = scratch();
    let elsewhere = at.with_file_name("elsewhere");
    fs::create_dir_all(elsewhere.join("sub")).expect("free");
    fs::write(elsewhere.join("sub/victim"), "untouched").expect("free");
    fs::create_dir_all(at.join("d")).expect("free");
    for name in ["d/extra", "folder", "file"] {
        symlink(&elsewhere, at.join(name)).expect("free");
    }
    symlink("../../elsewhere/sub", at.join("d/sub")).expect("free");
    let tree = Tree::new().dir("d").file("folder/sub/victim", b"in the target").file("file", b"in the target");
    sync(&tree.build(), &at, None).expect("they make way");
    assert_eq!(look(&at), tree.seen());
    assert_eq!(fs::read(elsewhere.join("sub/victim")).expect("there"), b"untouched");
    assert_eq!(fs::read_dir(elsewhere.join("sub")).expect("there").count(), 1);
}

#[test]
fn staging_folders_of_other_distributions_stay() {
    let (_folder, at) = scratch();
    let other = at.join(".ted-staging-0102");
    fs::create_dir_all(&other).expect("free");
    fs::write(other.join("journal"), "theirs").expect("free");
    fs::create_dir_all(at.join("d")).expect("free");
    fs::write(at.join("d/.ted-staging-0102"), "only names in the root are kept for that").expect("free");
    sync(&Tree::new().dir("d").build(), &at, None).expect("fresh");
    assert_eq!(fs::read(other.join("journal")).expect("kept"), b"theirs");
    assert!(!at.join("d/.ted-staging-0102").exists());
}

#[test]
fn a_merge_deletes_nothing_and_a_sync_after_it_does() {
    let old = Tree::new().file("gone", b"x");
    let new = Tree::new().file("a", b"a");
    let (_folder, at) = scratch();
    let before = old.build();
    before.extract_to(&at, None).expect("fresh");
    new.build().extract_to(&at, Some(&before.entries())).expect("a merge");
    assert!(at.join("gone").exists());
    let summary = sync(&new.build(), &at, Some(&new.build().entries())).expect("a sync");
    assert_eq!(names(&summary.deleted), ["gone"]);
    assert_eq!(look(&at), new.seen());
}

#[test]
fn local_changes_are_kept_beside_where_the_operator_wants_that() {
    let old =
        Tree::new().file("conf", b"ours").file("same", b"same").file("to folder", b"ours").symlink("link", "ours");
    let new = Tree::new().file("conf", b"new").file("same", b"same").file("to folder/x", b"x").symlink("link", "new");
    for mode in [ExtractMode::Merge, ExtractMode::Sync] {
        let (_folder, at) = scratch();
        let before = old.build();
        before.extract_with(&at, None, &options(mode)).expect("fresh");
        for name in ["conf", "to folder"] {
            fs::write(at.join(name), "theirs, longer").expect("writable");
        }
        fs::remove_file(at.join("link")).expect("there");
        symlink("theirs", at.join("link")).expect("free");
        let summary = new.build().extract_with(&at, Some(&before.entries()), &keeping(mode)).expect("update");
        assert_eq!(names(&summary.local_changes), ["conf", "link", "to folder"], "{mode}");
        assert_eq!(summary.kept.count, 3);
        let mut seen = look(&at);
        for (name, content) in [("conf", "theirs, longer"), ("to folder", "theirs, longer"), ("link", "")] {
            let kept = at.join(format!("{name}{KEPT}"));
            if content.is_empty() {
                assert_eq!(fs::read_link(kept).expect("kept"), Path::new("theirs"));
            } else {
                assert_eq!(fs::read_to_string(kept).expect("kept"), content, "{mode} {name}");
            }
            seen.0.remove(format!("{name}{KEPT}").as_bytes()).expect("kept");
        }
        assert_eq!(seen, new.seen(), "{mode}");
        // What is kept stays, and is not kept again.
        let again = new.build().extract_with(&at, Some(&new.build().entries()), &keeping(mode)).expect("nothing to do");
        assert_eq!((again.files_written, again.deleted.count, again.local_changes.count), (0, 0, 0));
        assert_eq!(again.left.count, if mode == ExtractMode::Sync { 3 } else { 0 });
    }
}

#[test]
fn two_changes_in_one_second_are_both_kept() {
    let tree = Tree::new().file("a", b"ours");
    let (_folder, at) = scratch();
    let built = tree.build();
    built.extract_to(&at, None).expect("fresh");
    for (content, name) in [("first one", "a"), ("second one", "a")] {
        fs::write(at.join(name), content).expect("writable");
        built.extract_with(&at, Some(&built.entries()), &keeping(ExtractMode::Merge)).expect("again");
    }
    assert_eq!(fs::read(at.join(format!("a{KEPT}"))).expect("kept"), b"first one");
    assert_eq!(fs::read(at.join(format!("a{KEPT}-1"))).expect("kept"), b"second one");
}

#[test]
fn a_changed_file_that_a_sync_deletes_is_kept_with_its_folder() {
    let old = Tree::new().file("d/changed", b"ours").file("d/other", b"ours").file("top", b"ours");
    let (_folder, at) = scratch();
    let before = old.build();
    sync(&before, &at, None).expect("fresh");
    for name in ["d/changed", "top"] {
        fs::write(at.join(name), "theirs, longer").expect("writable");
    }
    let new = Tree::new().file("a", b"a");
    let summary = new.build().extract_with(&at, Some(&before.entries()), &keeping(ExtractMode::Sync)).expect("update");
    assert_eq!(names(&summary.local_changes), ["d/changed", "top"]);
    let entries: Vec<String> = look(&at).0.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(entries, ["", "a", "d", &format!("d/changed{KEPT}"), &format!("top{KEPT}")]);
    // Whoever does not want them any longer says so.
    sync(&new.build(), &at, Some(&new.build().entries())).expect("without keeping");
    assert_eq!(look(&at), new.seen());
}

#[test]
fn everything_that_is_in_the_way_is_named_at_once_and_nothing_is_written() {
    let tree = Tree::new().file("a", b"a").file("b/inside", b"b").file("c", b"c").file("fine", b"new");
    let (_folder, at) = scratch();
    fs::create_dir_all(at.join("a/theirs")).expect("free");
    fs::write(at.join("b"), "theirs").expect("free");
    fs::create_dir_all(at.join("c")).expect("free");
    let before = look(&at);
    let error = tree.build().extract_to(&at, None).expect_err("in the way");
    assert_eq!(error.code(), "TED-1405");
    for name in ["`a`", "`b`", "`c`"] {
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(look(&at), before);
}

/// Sets or clears the attribute that keeps everybody from changing a file; `false` where that is not possible.
fn set_immutable(at: &Path, immutable: bool) -> bool {
    let sign = if immutable { "+i" } else { "-i" };
    std::process::Command::new("chattr").arg(sign).arg(at).output().is_ok_and(|done| done.status.success())
}

#[test]
fn files_that_may_not_be_replaced_or_deleted_are_all_named_and_the_old_state_stays() {
    let old = Tree::new().file("a", b"old").file("b", b"old").file("d/gone", b"x");
    let new = Tree::new().file("a", b"new").file("b", b"new").dir("d");
    let (_folder, at) = scratch();
    let before = old.build();
    sync(&before, &at, None).expect("fresh");
    let locked = ["a", "d/gone"];
    if !locked.iter().all(|name| set_immutable(&at.join(name), true)) {
        eprintln!("skipped: files cannot be made immutable here");
        return;
    }
    let seen = look(&at);
    let merge = new.build().extract_to(&at, Some(&before.entries()));
    let error = sync(&new.build(), &at, Some(&before.entries()));
    for name in locked {
        assert!(set_immutable(&at.join(name), false));
    }
    assert_eq!(merge.expect_err("one is locked").path(), Some(&path("a")));
    let error = error.expect_err("two are locked");
    assert_eq!(error.code(), "TED-1419");
    assert!(locked.iter().all(|name| error.to_string().contains(&format!("`{name}`"))), "{error}");
    assert_eq!(look(&at), seen);
    sync(&new.build(), &at, Some(&before.entries())).expect("unlocked");
    assert_eq!(look(&at), new.seen());
}

#[test]
fn what_is_mounted_in_the_target_is_left_alone_with_the_folders_above_it() {
    let (_folder, at) = scratch();
    let inside = at.join("foreign/mounted");
    fs::create_dir_all(&inside).expect("free");
    fs::write(at.join("foreign/file"), "x").expect("free");
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&inside).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    }
    fs::write(inside.join("victim"), "untouched").expect("free");
    let tree = Tree::new().file("a", b"a");
    let done = sync(&tree.build(), &at, None);
    let victim = fs::read(inside.join("victim"));
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&inside).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    let summary = done.expect("it goes on");
    assert_eq!(victim.expect("there"), b"untouched");
    assert_eq!(names(&summary.left), ["foreign/mounted"]);
    assert_eq!(names(&summary.deleted), ["foreign/file"]);
    assert!(inside.exists() && !at.join("foreign/file").exists());
}

#[test]
fn what_nfs_keeps_for_those_who_have_it_open_is_left_alone() {
    let (_folder, at) = scratch();
    fs::create_dir_all(&at).expect("free");
    let held = at.join(".nfs000000000a1b2c3d00000001");
    fs::write(&held, "open somewhere").expect("free");
    let summary = sync(&Tree::new().build(), &at, None).expect("fresh");
    assert_eq!((summary.left.count, summary.deleted.count), (1, 0));
    assert!(held.exists());
}

/// Leaves in the staging folder what NFS leaves there for those who have a removed file open.
struct HeldOpen(std::path::PathBuf);

impl Hook for HeldOpen {
    fn before(&self, step: Step) -> std::io::Result<()> {
        if step == Step::RemoveStaging {
            fs::write(self.0.join(".nfs000000000a1b2c3d00000001"), "open somewhere")?;
        }
        Ok(())
    }
}

#[test]
fn an_extraction_is_done_although_nfs_keeps_something_in_the_staging_folder() {
    let (_folder, at) = scratch();
    let tree = Tree::new().file("a", b"a");
    let staging = at.join(format!(".ted-staging-{DISTRIBUTION}"));
    let (built, options) = (tree.build(), options(ExtractMode::Sync));
    extract_with(&open(&at), &built.job(None, &options), &HeldOpen(staging.clone())).expect("it is done");
    assert!(staging.exists() && at.join("a").exists());
    let error = recover_with(&open(&at), &DISTRIBUTION, &HeldOpen(staging.clone())).expect_err("still open");
    assert_eq!((error.code(), error.is_retryable()), ("TED-1420", true));
    recover(&open(&at), &DISTRIBUTION).expect("closed now");
    sync(&built, &at, Some(&built.entries())).expect("nothing to do");
    assert_eq!(look(&at), tree.seen());
}

#[test]
fn a_device_in_the_way_of_a_sync_makes_way() {
    let (_folder, at) = scratch();
    fs::create_dir_all(&at).expect("free");
    drop(std::os::unix::net::UnixListener::bind(at.join("a")).expect("free"));
    assert!(at.join("a").symlink_metadata().expect("there").file_type().is_socket());
    let tree = Tree::new().file("a", b"a");
    assert_eq!(tree.build().extract_to(&at, None).expect_err("a merge leaves it").code(), "TED-1405");
    sync(&tree.build(), &at, None).expect("it makes way");
    let seen: Seen = look(&at);
    assert_eq!(seen, tree.seen());
}
