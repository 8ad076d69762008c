//! Links and files that somebody planted in the target, or that the target is.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::{Thing, Tree, look, open, scratch};
use crate::error::Coded;
use crate::extract::run::extract_with;
use crate::extract::step::{Hook, Step};
use crate::extract::{Create, ExtractOptions, Recovery, Target, extract, recover};

fn make_elsewhere(beside: &Path) -> std::path::PathBuf {
    let elsewhere = beside.with_file_name("elsewhere");
    std::fs::create_dir(&elsewhere).expect("free");
    std::fs::write(elsewhere.join("victim"), "untouched").expect("writable");
    elsewhere
}

fn assert_untouched(elsewhere: &Path) {
    assert_eq!(std::fs::read_dir(elsewhere).expect("there").count(), 1);
    assert_eq!(std::fs::read(elsewhere.join("victim")).expect("there"), b"untouched");
}

#[test]
fn a_link_planted_at_any_level_is_not_written_through() {
    let tree = Tree::new().file("sub/deep/deeper/victim", b"hostile").file("victim", b"hostile");
    for level in ["sub", "sub/deep", "sub/deep/deeper"] {
        for absolute in [true, false] {
            let (_folder, at) = scratch();
            let elsewhere = make_elsewhere(&at);
            std::fs::create_dir_all(at.join(level).parent().expect("inside")).expect("free");
            let dots = "../".repeat(level.split('/').count());
            let text = if absolute { elsewhere.clone() } else { Path::new(&dots).join("elsewhere") };
            symlink(&text, at.join(level)).expect("free");
            let error = tree.build().extract_to(&at, None).expect_err("a link in the way");
            assert_eq!(error.code(), "TED-1405");
            assert!(error.to_string().contains(level), "{error}");
            assert_untouched(&elsewhere);
            assert!(!at.join("victim").exists(), "nothing at all is written");
        }
    }
}

#[test]
fn a_link_in_place_of_a_file_is_replaced_or_refused_but_never_followed() {
    let tree = Tree::new().file("a", b"new");
    let (_folder, at) = scratch();
    let elsewhere = make_elsewhere(&at);
    std::fs::create_dir(&at).expect("free");
    symlink(elsewhere.join("victim"), at.join("a")).expect("free");
    assert_eq!(tree.build().extract_to(&at, None).expect_err("in the way").code(), "TED-1405");
    assert_untouched(&elsewhere);
    let text = elsewhere.join("victim");
    let made = Tree::new().symlink("a", std::os::unix::ffi::OsStrExt::as_bytes(text.as_os_str())).build().entries();
    tree.build().extract_to(&at, Some(&made)).expect("the previous revision made the link");
    assert_eq!(look(&at), tree.seen());
    assert_untouched(&elsewhere);
}

#[test]
fn a_link_of_the_previous_revision_becomes_a_folder_and_is_not_followed() {
    let (_folder, at) = scratch();
    let elsewhere = make_elsewhere(&at);
    let text = elsewhere.clone();
    let old = Tree::new().symlink("sub", std::os::unix::ffi::OsStrExt::as_bytes(text.as_os_str())).build();
    old.extract_to(&at, None).expect("fresh");
    let new = Tree::new().file("sub/victim", b"in the target");
    new.build().extract_to(&at, Some(&old.entries())).expect("replaced");
    assert_eq!(look(&at), new.seen());
    assert_untouched(&elsewhere);
}

/// Plants a link at the first step of a kind.
struct Planter<'a> {
    at: Step,
    plant: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl Hook for Planter<'_> {
    fn before(&self, step: Step) -> std::io::Result<()> {
        if step == self.at
            && let Some(plant) = self.plant.lock().expect("mine").take()
        {
            plant();
        }
        Ok(())
    }
}

#[test]
fn a_link_planted_while_the_extraction_runs_is_not_written_through() {
    let old = Tree::new().file("sub/a", b"old").build();
    let new = Tree::new().file("sub/a", b"new").file("sub/victim", b"hostile").file("sub/deep/victim", b"hostile");
    for step in [Step::CreateStaging, Step::CommitJournal, Step::CreateFolder, Step::Move] {
        let (_folder, at) = scratch();
        let elsewhere = make_elsewhere(&at);
        old.extract_to(&at, None).expect("fresh");
        let plant = || {
            std::fs::rename(at.join("sub"), at.join("moved")).expect("there");
            symlink(&elsewhere, at.join("sub")).expect("free");
        };
        let hook = Planter { at: step, plant: Mutex::new(Some(Box::new(plant))) };
        let built = new.build();
        // Handles that are open already stay on the folder they were opened on, so this may even succeed.
        let _ = extract_with(&open(&at), &built.job(Some(&old.entries()), &ExtractOptions::default()), &hook);
        assert_untouched(&elsewhere);
        let _ = recover(&open(&at), &super::DISTRIBUTION);
        assert_untouched(&elsewhere);
    }
}

#[test]
fn the_folder_that_was_opened_stays_the_target_when_its_path_becomes_a_link() {
    let (_folder, at) = scratch();
    let elsewhere = make_elsewhere(&at);
    std::fs::create_dir(&at).expect("free");
    let target = open(&at);
    let moved = at.with_file_name("moved");
    std::fs::rename(&at, &moved).expect("there");
    symlink(&elsewhere, &at).expect("free");
    let tree = Tree::new().file("victim", b"hostile");
    let built = tree.build();
    let options = ExtractOptions::default();
    extract(&target, &built.job(None, &options), &|_| {}, &AtomicBool::new(false)).expect("into the opened folder");
    assert_untouched(&elsewhere);
    assert_eq!(look(&moved), tree.seen());
}

#[test]
fn a_target_that_is_a_link_or_a_file_is_refused() {
    let (_folder, at) = scratch();
    let elsewhere = make_elsewhere(&at);
    symlink(&elsewhere, &at).expect("free");
    for path in [at.clone(), at.join("below")] {
        let error = Target::open(&path, Create::Missing).expect_err("a link");
        assert_eq!(error.code(), "TED-1403", "{error}");
    }
    for path in [elsewhere.join("victim"), elsewhere.join("victim/below")] {
        let error = Target::open(&path, Create::Missing).expect_err("a file");
        assert_eq!(error.code(), "TED-1402", "{error}");
    }
    let late = open(&at.with_file_name("late"));
    symlink(&elsewhere, at.with_file_name("late")).expect("free");
    let built = Tree::new().file("a", b"").build();
    let options = ExtractOptions::default();
    let error = extract(&late, &built.job(None, &options), &|_| {}, &AtomicBool::new(false)).expect_err("now a link");
    assert_eq!(error.code(), "TED-1403");
    assert_untouched(&elsewhere);
}

#[test]
fn a_staging_folder_that_others_can_write_to_is_not_believed() {
    let (_folder, at) = scratch();
    let name = format!(".ted-staging-{}", super::DISTRIBUTION);
    let built = Tree::new().file("a", b"").build();
    std::fs::create_dir_all(at.join(&name)).expect("free");
    std::fs::set_permissions(at.join(&name), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    assert_eq!(built.extract_to(&at, None).expect_err("open to all").code(), "TED-1414");
    std::fs::remove_dir(at.join(&name)).expect("empty");
    let elsewhere = make_elsewhere(&at);
    symlink(&elsewhere, at.join(&name)).expect("free");
    assert_eq!(recover(&open(&at), &super::DISTRIBUTION).expect_err("a link").code(), "TED-1414");
    assert_eq!(built.extract_to(&at, None).expect_err("a link").code(), "TED-1414");
    assert_untouched(&elsewhere);
}

#[test]
fn a_staging_folder_in_use_is_left_alone() {
    let (_folder, at) = scratch();
    let name = format!(".ted-staging-{}", super::DISTRIBUTION);
    std::fs::create_dir_all(at.join(&name)).expect("free");
    std::fs::set_permissions(at.join(&name), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    let other = std::fs::File::open(at.join(&name)).expect("there");
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).expect("free");
    let error = Tree::new().file("a", b"").build().extract_to(&at, None).expect_err("in use");
    assert_eq!(error.code(), "TED-1413");
    assert!(error.is_retryable());
    assert!(at.join(&name).exists());
    drop(other);
    assert_eq!(recover(&open(&at), &super::DISTRIBUTION).expect("free now"), Recovery::RolledBack);
    assert!(!at.join(&name).exists());
}

#[test]
fn a_damaged_journal_is_an_error_and_nothing_is_moved() {
    let (_folder, at) = scratch();
    let staging = at.join(format!(".ted-staging-{}", super::DISTRIBUTION));
    std::fs::create_dir_all(&staging).expect("free");
    std::fs::set_permissions(&staging, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    std::fs::write(staging.join("journal"), "TEDJ nonsense").expect("writable");
    std::fs::write(staging.join("1"), "staged").expect("writable");
    assert_eq!(recover(&open(&at), &super::DISTRIBUTION).expect_err("damaged").code(), "TED-1415");
    assert!(staging.join("1").exists());
    assert!(!look(&at).0.values().any(|sight| matches!(sight.thing, Thing::Symlink(_))));
}
