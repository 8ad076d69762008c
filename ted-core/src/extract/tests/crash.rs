//! Crashes and disk faults before each step that changes the disk.

use std::io;
use std::sync::Mutex;

use super::{Built, DISTRIBUTION, Seen, Thing, Tree, look, noise, open, scratch_in_memory as scratch};
use crate::error::Coded;
use crate::extract::run::{extract_with, recover_with};
use crate::extract::step::{Hook, NoHook, Step};
use crate::extract::{Contents, ExtractOptions, Recovery, recover};
use crate::id::Revision;
use crate::package::Entry;

/// What happens at the step with a certain number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No further step is taken, as if the process had been killed.
    Crash,
    /// That one step fails.
    Once(i32),
}

pub(super) struct FaultAt {
    number: usize,
    fault: Fault,
    pub(super) taken: Mutex<Vec<Step>>,
}

impl FaultAt {
    pub(super) fn new(number: usize, fault: Fault) -> Self {
        Self { number, fault, taken: Mutex::default() }
    }

    pub(super) fn happened(&self) -> bool {
        self.taken.lock().expect("mine").len() > self.number
    }
}

impl Hook for FaultAt {
    fn before(&self, step: Step) -> io::Result<()> {
        let mut taken = self.taken.lock().expect("mine");
        taken.push(step);
        match (taken.len() - 1).cmp(&self.number) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal => Err(match self.fault {
                Fault::Crash => io::Error::other("crash"),
                Fault::Once(errno) => io::Error::from_raw_os_error(errno),
            }),
            std::cmp::Ordering::Greater if self.fault == Fault::Crash => Err(io::Error::other("crash")),
            std::cmp::Ordering::Greater => Ok(()),
        }
    }
}

/// A small tree in which everything changes that can, and its next revision.
pub(super) fn revisions() -> (Tree, Tree) {
    let old = Tree::new()
        .file("a/changed", b"old")
        .file("a/same", b"same")
        .hard("a/same-hard", "a/same")
        .file("dir to file/inside", b"old")
        .file("file to dir", b"old")
        .file("file to link", b"old")
        .symlink("link to dir", "/etc")
        .symlink("link", "old");
    let new = Tree::new()
        .file("a/changed", &noise("new", 3000))
        .file("a/same", b"same")
        .hard("a/same-hard", "a/same")
        .file("dir to file", b"new")
        .file("file to dir/inside", b"new")
        .symlink("file to link", "a/same")
        .file("link to dir/inside", b"new")
        .symlink("link", "new")
        .hard("link-hard", "link")
        .hard("z/hard to kept", "a/same")
        .hard("z/hard to new", "dir to file")
        .file("z/zero", b"")
        .later("a")
        .later("");
    // `same` must be the same entry in both.
    let mut new = new;
    let same = super::path("a/same");
    new.nodes.insert(same.clone(), old.nodes[&same].clone());
    (old, new)
}

struct Scene {
    old: Tree,
    new: Tree,
    new_built: Built,
    previous: Vec<Entry>,
    options: ExtractOptions,
    /// Whether contents are made, and not read from frames.
    made: bool,
}

impl Scene {
    fn both() -> [Self; 2] {
        [Self::new(), Self { made: true, ..Self::new() }]
    }

    fn new() -> Self {
        let (old, new) = revisions();
        let previous = old.build().entries();
        let new_built = new.build();
        let options = ExtractOptions { threads: 1, ..ExtractOptions::default() };
        Self { old, new, new_built, previous, options, made: false }
    }

    /// Extracts the old revision, then the new one with a fault at a step.
    fn run(&self, at: &std::path::Path, hook: &dyn Hook) -> Result<(), crate::extract::ExtractError> {
        self.old.build().extract_to(at, None).expect("the old revision");
        let mut job = self.new_built.job(Some(&self.previous), &self.options);
        if self.made {
            job.contents = Contents::Made(&self.new_built);
        }
        extract_with(&open(at), &job, hook).map(drop)
    }

    /// Each file is the old or the new one, whole; what changes its kind may be missing for a moment.
    fn assert_nothing_torn(&self, seen: &Seen, number: usize) {
        let (old, new) = (self.old.seen(), self.new.seen());
        for (name, sight) in seen.0.iter().filter(|(name, _)| !name.starts_with(b".ted-staging-")) {
            let thing = |seen: &Seen| seen.0.get(name).map(|sight| sight.thing.clone());
            let known = [thing(&old), thing(&new)];
            assert!(known.contains(&Some(sight.thing.clone())), "step {number}: {}", String::from_utf8_lossy(name));
        }
        for (name, sight) in &old.0 {
            let same_kind = |thing: &Thing| std::mem::discriminant(thing) == std::mem::discriminant(&sight.thing);
            if new.0.get(name).is_some_and(|new| same_kind(&new.thing)) {
                assert!(seen.0.contains_key(name), "step {number}: {} is gone", String::from_utf8_lossy(name));
            }
        }
    }
}

pub(super) fn has_staging(seen: &Seen) -> bool {
    seen.0.keys().any(|name| name.starts_with(b".ted-staging-"))
}

#[test]
fn after_a_crash_at_any_step_recovery_finishes_or_undoes() {
    Scene::both().iter().for_each(crash_at_any_step);
}

fn crash_at_any_step(scene: &Scene) {
    let mut outcomes = Vec::new();
    for number in 0.. {
        let (_folder, at) = scratch();
        let hook = FaultAt::new(number, Fault::Crash);
        let result = scene.run(&at, &hook);
        if !hook.happened() {
            result.expect("no fault");
            assert_eq!(look(&at), scene.new.seen());
            break;
        }
        assert!(result.is_err(), "step {number}");
        scene.assert_nothing_torn(&look(&at), number);
        let recovery = recover(&open(&at), &DISTRIBUTION).expect("recovers");
        outcomes.push(recovery);
        let seen = look(&at).but_root_time();
        let (old, new) = (scene.old.seen().but_root_time(), scene.new.seen().but_root_time());
        match recovery {
            Recovery::RolledForward(revision) => {
                assert_eq!(revision, Revision::from_number(2));
                assert_eq!(look(&at), scene.new.seen(), "step {number}");
            }
            Recovery::RolledBack => assert!(seen == old || seen == new, "step {number}: {seen:?}"),
            Recovery::Nothing => assert!(seen == old || seen == new, "step {number}: {seen:?}"),
        }
        assert_eq!(recover(&open(&at), &DISTRIBUTION).expect("nothing left"), Recovery::Nothing);
        // Whatever happened, the next extraction ends where it should.
        scene.new_built.extract_to(&at, Some(&scene.previous)).expect("the next one");
        assert_eq!(look(&at), scene.new.seen(), "step {number}");
    }
    for wanted in [Recovery::Nothing, Recovery::RolledBack, Recovery::RolledForward(Revision::from_number(2))] {
        assert!(outcomes.contains(&wanted), "{wanted:?} never happened");
    }
}

#[test]
fn the_next_extraction_recovers_by_itself() {
    let scene = Scene::new();
    for number in 0.. {
        let (_folder, at) = scratch();
        let hook = FaultAt::new(number, Fault::Crash);
        let result = scene.run(&at, &hook);
        if !hook.happened() {
            break;
        }
        assert!(result.is_err());
        scene.new_built.extract_to(&at, Some(&scene.previous)).expect("the next one");
        assert_eq!(look(&at), scene.new.seen(), "step {number}");
    }
}

#[test]
fn a_recovery_that_crashes_at_any_step_is_followed_by_one_that_finishes() {
    let scene = Scene::new();
    let recording = FaultAt::new(usize::MAX, Fault::Crash);
    let (_folder, at) = scratch();
    scene.run(&at, &recording).expect("no fault");
    let steps = recording.taken.into_inner().expect("mine");
    let committed = steps.iter().position(|step| *step == Step::CommitJournal).expect("there is one") + 2;
    for number in 0.. {
        let (_folder, at) = scratch();
        scene.run(&at, &FaultAt::new(committed, Fault::Crash)).expect_err("crash");
        let hook = FaultAt::new(number, Fault::Crash);
        let result = recover_with(&open(&at), &DISTRIBUTION, &hook);
        if !hook.happened() {
            assert_eq!(result.expect("no fault"), Recovery::RolledForward(Revision::from_number(2)));
            break;
        }
        scene.assert_nothing_torn(&look(&at), number);
        recover_with(&open(&at), &DISTRIBUTION, &NoHook).expect("the second one");
        assert!(!has_staging(&look(&at)));
        assert_eq!(look(&at).but_root_time(), scene.new.seen().but_root_time(), "step {number}");
    }
}

#[test]
fn a_full_disk_or_a_bad_one_before_the_commit_leaves_nothing_behind_and_later_loses_nothing() {
    Scene::both().iter().for_each(fail_at_any_step);
}

fn fail_at_any_step(scene: &Scene) {
    let (full, bad) = (rustix::io::Errno::NOSPC.raw_os_error(), rustix::io::Errno::IO.raw_os_error());
    for (errno, code) in [(full, "TED-1410"), (bad, "TED-1412")] {
        for number in 0.. {
            let (_folder, at) = scratch();
            let hook = FaultAt::new(number, Fault::Once(errno));
            let result = scene.run(&at, &hook);
            if !hook.happened() {
                break;
            }
            let error = result.expect_err("a fault");
            assert_eq!(error.code(), code, "step {number}: {error}");
            let steps = hook.taken.lock().expect("mine").clone();
            let applying = |step: &Step| matches!(step, Step::Displace | Step::CreateFolder | Step::Move);
            if steps.iter().any(applying) {
                scene.assert_nothing_torn(&look(&at), number);
                recover(&open(&at), &DISTRIBUTION).expect("there is room again");
                assert_eq!(look(&at).but_root_time(), scene.new.seen().but_root_time(), "step {number}");
            } else {
                assert_eq!(look(&at), scene.old.seen(), "step {number}: as if nothing had happened");
            }
        }
    }
}

#[test]
fn a_new_target_is_taken_away_again_when_the_disk_is_full() {
    let built = Tree::new().file("a", b"a").build();
    let options = ExtractOptions { threads: 1, ..ExtractOptions::default() };
    for number in 0.. {
        let (_folder, at) = scratch();
        let at = at.join("deep");
        let hook = FaultAt::new(number, Fault::Once(rustix::io::Errno::NOSPC.raw_os_error()));
        let result = extract_with(&open(&at), &built.job(None, &options), &hook);
        if !hook.happened() {
            result.expect("no fault");
            break;
        }
        let steps = hook.taken.lock().expect("mine").clone();
        if !steps.contains(&Step::Move) {
            assert!(!at.parent().expect("inside").exists(), "step {number}: {steps:?}");
        }
    }
}

#[test]
fn a_revision_that_does_not_fit_is_refused_before_anything_is_written() {
    let mut built = Tree::new().file("a", b"a").build();
    let (_folder, at) = scratch();
    built.rows[1].entry.size = 1 << 60;
    built.frames = super::MemoryFrames { body: Vec::new(), starts: vec![0, 1 << 61], unreadable: None };
    let error = built.extract_to(&at, None).expect_err("an exbibyte");
    assert_eq!(error.code(), "TED-1407");
    assert!(!at.exists());
}
