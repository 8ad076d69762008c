//! Release mode: each revision in a folder of its own, and one rename that changes which is in use.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use super::sync::options;
use super::{Built, DISTRIBUTION, Tree, look, open, scratch};
use crate::error::Coded;
use crate::extract::{
    Create, ExtractError, ExtractJob, ExtractSummary, Releases, Target, extract, installed, preview, switch_release,
};
use crate::id::Revision;
use crate::model::ExtractMode;
use crate::package::Entry;

fn revision(number: u64) -> Revision {
    Revision::from_number(number)
}

fn release(built: &Built, at: &Path, number: u64, previous: Option<&[Entry]>) -> Result<ExtractSummary, ExtractError> {
    let options = options(ExtractMode::Release);
    let job = ExtractJob { revision: revision(number), ..built.job(previous, &options) };
    extract(&open(at), &job, &|_| {}, &false.into())
}

fn releases(at: &Path) -> (Option<u64>, Vec<u64>) {
    let Releases { current, kept } = Releases::of(&open(at)).expect("readable");
    (current.map(Revision::number), kept.into_iter().map(Revision::number).collect())
}

fn names(at: &Path) -> Vec<String> {
    let entries = fs::read_dir(at).expect("there").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("plain")).collect();
    names.sort();
    names
}

fn tree(number: u64) -> Tree {
    Tree::new().file("same", b"same").file("d/number", number.to_string().as_bytes()).mode("d", 0o555)
}

#[test]
fn each_revision_gets_a_folder_and_current_leads_to_the_newest_of_three() {
    let (_folder, at) = scratch();
    let mut previous: Option<Vec<Entry>> = None;
    for number in 1..=5 {
        let built = tree(number).build();
        let summary = release(&built, &at, number, previous.as_deref()).expect("a release");
        assert_eq!(summary.files_written, 2);
        assert_eq!(fs::read_link(at.join("current")).expect("a link"), Path::new(&format!("releases/{number}")));
        assert_eq!(look(&installed(&at, ExtractMode::Release, revision(number))), tree(number).seen());
        previous = Some(built.entries());
    }
    assert_eq!(releases(&at), (Some(5), vec![3, 4, 5]));
    assert_eq!(names(&at), ["current", "releases"], "nothing is left behind");
    let inode = |number: u64| at.join(format!("releases/{number}/same")).metadata().expect("there").ino();
    assert_ne!(inode(4), inode(5), "an edit of one release must not reach another");
}

#[test]
fn going_back_to_a_release_that_is_kept_and_forth_writes_no_file() {
    let (_folder, at) = scratch();
    let (one, two) = (tree(1).build(), tree(2).build());
    release(&one, &at, 1, None).expect("fresh");
    release(&two, &at, 2, Some(&one.entries())).expect("the next one");
    let inode = fs::metadata(at.join("releases/1/same")).expect("there").ino();
    let back = release(&one, &at, 1, Some(&two.entries())).expect("back");
    assert_eq!((back.files_written, back.folders_made, back.unchanged), (0, 0, 4));
    assert_eq!(releases(&at), (Some(1), vec![1, 2]));
    assert_eq!(fs::metadata(at.join("current/same")).expect("there").ino(), inode);
    assert_eq!(switch_release(&open(&at), &DISTRIBUTION, revision(2)).expect("forth"), Some(revision(1)));
    assert_eq!(releases(&at), (Some(2), vec![1, 2]));
    assert_eq!(names(&at), ["current", "releases"]);
    let error = switch_release(&open(&at), &DISTRIBUTION, revision(3)).expect_err("never was there");
    assert_eq!(error.code(), "TED-1421");
    let nowhere = open(&at.join("nowhere"));
    assert_eq!(switch_release(&nowhere, &DISTRIBUTION, revision(3)).expect_err("no target").code(), "TED-1421");
}

#[test]
fn a_release_that_somebody_changed_is_put_right_and_that_is_reported() {
    let (_folder, at) = scratch();
    let (one, two) = (tree(1).build(), tree(2).build());
    release(&one, &at, 1, None).expect("fresh");
    fs::write(at.join("current/same"), "theirs, longer").expect("writable");
    // The next release has nothing of it, and the one that was changed stays as it is.
    let next = release(&two, &at, 2, Some(&one.entries())).expect("the next one");
    assert_eq!(next.local_changes.first, [super::path("same")]);
    assert_eq!(fs::read(at.join("releases/1/same")).expect("there"), b"theirs, longer");
    assert_eq!(look(&at.join("releases/2")), tree(2).seen());
    fs::write(at.join("releases/2/foreign"), "theirs").expect("writable");
    fs::remove_file(at.join("releases/2/same")).expect("there");
    let again = release(&two, &at, 2, Some(&two.entries())).expect("the same again");
    assert_eq!((again.files_written, again.deleted.count), (1, 1));
    assert_eq!(look(&at.join("releases/2")), tree(2).seen());
}

#[test]
fn what_others_made_under_the_names_of_releases_is_refused_and_stays() {
    for plant in [
        (|at| fs::write(at, "a file").expect("free")) as fn(&Path),
        |at| fs::create_dir(at).expect("free"),
        |at| symlink("/etc", at).expect("free"),
        |at| symlink("releases/../elsewhere", at).expect("free"),
    ] {
        let (_folder, at) = scratch();
        fs::create_dir_all(&at).expect("free");
        plant(&at.join("current"));
        let before = look(&at);
        assert_eq!(release(&tree(1).build(), &at, 1, None).expect_err("in the way").code(), "TED-1405");
        assert_eq!(look(&at), before);
    }
    let (_folder, at) = scratch();
    fs::create_dir_all(at.join("elsewhere")).expect("free");
    symlink("elsewhere", at.join("releases")).expect("free");
    assert_eq!(release(&tree(1).build(), &at, 1, None).expect_err("in the way").code(), "TED-1405");
    assert_eq!(fs::read_dir(at.join("elsewhere")).expect("there").count(), 0);
}

#[test]
fn what_else_lies_in_the_target_of_releases_stays() {
    let (_folder, at) = scratch();
    fs::create_dir_all(at.join("releases/notes")).expect("free");
    fs::write(at.join("shared.conf"), "theirs").expect("free");
    for number in 1..=5 {
        release(&tree(number).build(), &at, number, None).expect("a release");
    }
    assert_eq!(names(&at), ["current", "releases", "shared.conf"]);
    assert_eq!(names(&at.join("releases")), ["3", "4", "5", "notes"]);
}

#[test]
fn a_preview_says_what_changes_from_the_release_in_use_and_writes_nothing() {
    let (_folder, at) = scratch();
    let options = options(ExtractMode::Release);
    let mut previous: Option<Vec<Entry>> = None;
    for number in 1..=3 {
        let built = tree(number).build();
        release(&built, &at, number, previous.as_deref()).expect("a release");
        previous = Some(built.entries());
    }
    let four = tree(4).file("new", b"n").build();
    let before = look(&at);
    let job = ExtractJob { revision: revision(4), ..four.job(previous.as_deref(), &options) };
    let told = preview(&Target::open(&at, Create::Never).expect("there"), &job).expect("told");
    assert_eq!(look(&at), before);
    assert_eq!(told.added.first, [super::path("new")]);
    // The root's time is another one, as there is one file more.
    assert_eq!(told.updated.first.last(), Some(&super::path("d/number")));
    assert_eq!((told.current, told.releases_gone), (Some(revision(3)), vec![revision(1)]));
    assert!(told.refused.is_empty() && !told.interrupted && told.deleted.is_empty());
}
