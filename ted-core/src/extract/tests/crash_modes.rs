//! Crashes and disk faults before each step that changes the disk, in the modes that do more than merge.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::crash::{Fault, FaultAt, has_staging, revisions};
use super::{Built, DISTRIBUTION, Seen, Thing, Tree, look, open, scratch_in_memory as scratch};
use crate::error::Coded;
use crate::extract::run::{extract_with, recover_with};
use crate::extract::step::{Hook, NoHook, Step};
use crate::extract::{ExtractError, ExtractJob, ExtractOptions, OnLocalChange, Recovery, Releases, recover};
use crate::id::{Revision, UnixMillis};
use crate::model::ExtractMode;
use crate::package::Entry;

const KEPT: &str = "a/changed.local-20261122T112233Z";
const THEIRS: &[u8] = b"what somebody wrote into it";

/// One revision after another, in a mode, with what somebody did in between.
trait Scene {
    /// Brings the target to where it is before the extraction that is disturbed.
    fn before(&self, at: &Path);
    /// The extraction.
    fn run(&self, at: &Path, hook: &dyn Hook) -> Result<(), ExtractError>;
    /// At any time, without recovery.
    fn assert_nothing_torn(&self, at: &Path, number: usize);
    /// Whether nothing has happened yet, and nothing is left behind.
    fn assert_as_before(&self, at: &Path, number: usize);
    /// Whether it is done, and nothing is left behind.
    fn assert_done(&self, at: &Path, number: usize);
}

/// What every scene has.
struct Parts {
    old: Built,
    new: Built,
    previous: Vec<Entry>,
    options: ExtractOptions,
}

impl Parts {
    fn new(mode: ExtractMode, old: &Tree, new: &Tree) -> Self {
        let at = UnixMillis::from_millis(1_795_346_553_000);
        let on_local_change = OnLocalChange::Keep { at };
        let options = ExtractOptions { mode, on_local_change, threads: 1, ..ExtractOptions::default() };
        Self { old: old.build(), new: new.build(), previous: old.build().entries(), options }
    }

    fn extract(
        &self,
        at: &Path,
        built: &Built,
        revision: u64,
        previous: Option<&[Entry]>,
        hook: &dyn Hook,
    ) -> Result<(), ExtractError> {
        let revision = Revision::from_number(revision);
        let job = ExtractJob { revision, ..built.job(previous, &self.options) };
        extract_with(&open(at), &job, hook).map(drop)
    }
}

/// A sync that deletes, and keeps what somebody changed.
struct Sync {
    parts: Parts,
    old: Seen,
    new: Seen,
}

impl Sync {
    fn new() -> Self {
        let (old, new) = revisions();
        let old = old.file("gone/deep/file", b"gone").symlink("gone/link", "/etc").file("also gone", b"x");
        let mut seen = old.seen();
        let file = |content: &[u8]| Thing::File(content.to_vec());
        seen.0.get_mut(b"a/changed".as_slice()).expect("there").thing = file(THEIRS);
        let like = seen.0[b"a/changed".as_slice()].clone();
        for name in ["foreign", "foreign/x"] {
            let thing = if name == "foreign" { Thing::Folder } else { file(b"foreign") };
            seen.0.insert(name.into(), super::Sight { thing, ..like.clone() });
        }
        let mut expected = new.seen();
        expected.0.insert(KEPT.into(), like);
        Self { parts: Parts::new(ExtractMode::Sync, &old, &new), old: seen, new: expected }
    }
}

/// What is there, without the times and modes of what somebody made.
fn things(seen: &Seen) -> Vec<(&[u8], &Thing)> {
    seen.0.iter().map(|(name, sight)| (name.as_slice(), &sight.thing)).collect()
}

impl Scene for Sync {
    fn before(&self, at: &Path) {
        self.parts.extract(at, &self.parts.old, 1, None, &NoHook).expect("the old revision");
        fs::write(at.join("a/changed"), THEIRS).expect("writable");
        fs::create_dir(at.join("foreign")).expect("free");
        fs::write(at.join("foreign/x"), "foreign").expect("free");
    }

    fn run(&self, at: &Path, hook: &dyn Hook) -> Result<(), ExtractError> {
        self.parts.extract(at, &self.parts.new, 2, Some(&self.parts.previous), hook)
    }

    fn assert_nothing_torn(&self, at: &Path, number: usize) {
        let seen = look(at);
        for (name, sight) in seen.0.iter().filter(|(name, _)| !name.starts_with(b".ted-staging-")) {
            let known = [&self.old, &self.new].map(|seen| seen.0.get(name).map(|sight| &sight.thing));
            assert!(known.contains(&Some(&sight.thing)), "step {number}: {}", String::from_utf8_lossy(name));
        }
        for (name, sight) in &self.old.0 {
            let same_kind = |thing: &Thing| std::mem::discriminant(thing) == std::mem::discriminant(&sight.thing);
            let stays = self.new.0.get(name).is_some_and(|new| same_kind(&new.thing));
            assert!(!stays || seen.0.contains_key(name), "step {number}: {}", String::from_utf8_lossy(name));
        }
        let theirs = [KEPT, "a/changed"].map(|name| fs::read(at.join(name)).ok());
        assert!(theirs.contains(&Some(THEIRS.to_vec())), "step {number}: what somebody wrote is lost");
    }

    fn assert_as_before(&self, at: &Path, number: usize) {
        assert_eq!(things(&look(at)), things(&self.old), "step {number}");
    }

    fn assert_done(&self, at: &Path, number: usize) {
        let mut seen = look(at);
        assert_eq!(things(&seen), things(&self.new), "step {number}");
        let mut expected = self.new.clone();
        for seen in [&mut seen, &mut expected] {
            seen.0.remove(KEPT.as_bytes());
        }
        assert_eq!(seen.but_root_time(), expected.but_root_time(), "step {number}");
    }
}

/// A fourth release, which the first has to make room for.
struct Release {
    parts: Parts,
    old: Seen,
    new: Seen,
}

impl Release {
    fn new() -> Self {
        let (old, new) = revisions();
        let (old, new) = (old.mode("a", 0o555), new.mode("", 0o555));
        Self { old: old.seen(), new: new.seen(), parts: Parts::new(ExtractMode::Release, &old, &new) }
    }
}

fn current(at: &Path) -> Seen {
    look(&at.join(fs::read_link(at.join("current")).expect("a link at any time")))
}

fn releases(at: &Path) -> (Option<u64>, Vec<u64>) {
    let Releases { current, kept } = Releases::of(&open(at)).expect("readable");
    (current.map(Revision::number), kept.into_iter().map(Revision::number).collect())
}

impl Scene for Release {
    fn before(&self, at: &Path) {
        for number in 1..=3 {
            let previous = (number > 1).then_some(self.parts.previous.as_slice());
            self.parts.extract(at, &self.parts.old, number, previous, &NoHook).expect("an old revision");
        }
    }

    fn run(&self, at: &Path, hook: &dyn Hook) -> Result<(), ExtractError> {
        self.parts.extract(at, &self.parts.new, 4, Some(&self.parts.previous), hook)
    }

    fn assert_nothing_torn(&self, at: &Path, number: usize) {
        let seen = current(at).but_root_time();
        let whole = [&self.old, &self.new].map(|seen| seen.clone().but_root_time());
        // Between its naming and its last touch, the new release's own mode is not set; it is not in use then.
        assert!(whole.contains(&seen), "step {number}: {seen:?}");
    }

    fn assert_as_before(&self, at: &Path, number: usize) {
        assert_eq!(releases(at), (Some(3), vec![1, 2, 3]), "step {number}");
        assert_eq!(current(at), self.old, "step {number}");
    }

    fn assert_done(&self, at: &Path, number: usize) {
        assert_eq!(releases(at), (Some(4), vec![2, 3, 4]), "step {number}");
        assert_eq!(current(at), self.new, "step {number}");
    }
}

/// A release in use that somebody changed, and that is put right.
struct Mended(Release);

impl Scene for Mended {
    fn before(&self, at: &Path) {
        self.0.before(at);
        self.0.run(at, &NoHook).expect("the new one");
        fs::set_permissions(at.join("current"), Permissions::from_mode(0o755)).expect("ours");
        fs::remove_file(at.join("current/a/changed")).expect("there");
        fs::create_dir(at.join("current/foreign")).expect("free");
    }

    fn run(&self, at: &Path, hook: &dyn Hook) -> Result<(), ExtractError> {
        self.0.parts.extract(at, &self.0.parts.new, 4, Some(&self.0.parts.new.entries()), hook)
    }

    fn assert_nothing_torn(&self, at: &Path, number: usize) {
        for (name, sight) in current(at).0.iter().filter(|(name, _)| *name != b"foreign") {
            assert_eq!(sight.thing, self.0.new.0[name].thing, "step {number}");
        }
    }

    fn assert_as_before(&self, at: &Path, number: usize) {
        assert_eq!(releases(at), (Some(4), vec![2, 3, 4]), "step {number}");
        assert!(at.join("current/foreign").exists() && !at.join("current/a/changed").exists(), "step {number}");
    }

    fn assert_done(&self, at: &Path, number: usize) {
        self.0.assert_done(at, number);
    }
}

/// Gives read-only folders back to their owner, so that whoever is not root can remove them in the end.
struct Unlock(PathBuf);

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut waiting = vec![self.0.clone()];
        while let Some(folder) = waiting.pop() {
            let _ = fs::set_permissions(&folder, Permissions::from_mode(0o755));
            let inside = fs::read_dir(&folder).into_iter().flatten().flatten();
            let folders = inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            waiting.extend(folders.map(|entry| entry.path()));
        }
    }
}

fn scenes() -> [Box<dyn Scene>; 3] {
    [Box::new(Sync::new()), Box::new(Release::new()), Box::new(Mended(Release::new()))]
}

#[test]
fn after_a_crash_at_any_step_of_any_mode_recovery_finishes_or_undoes_and_the_next_extraction_ends_it() {
    for scene in scenes() {
        let mut outcomes = vec![];
        for number in 0.. {
            let (_folder, at) = scratch();
            let _unlock = Unlock(at.clone());
            scene.before(&at);
            let hook = FaultAt::new(number, Fault::Crash);
            let result = scene.run(&at, &hook);
            if !hook.happened() {
                result.expect("no fault");
                scene.assert_done(&at, number);
                break;
            }
            assert!(result.is_err(), "step {number}");
            scene.assert_nothing_torn(&at, number);
            let recovery = recover(&open(&at), &DISTRIBUTION).expect("recovers");
            assert!(!has_staging(&look(&at)), "step {number}");
            let steps = hook.taken.lock().expect("mine").clone();
            match recovery {
                Recovery::RolledForward(_) => scene.assert_done(&at, number),
                _ if steps.contains(&Step::SetFolder) && steps.contains(&Step::CommitJournal) => {
                    scene.assert_done(&at, number);
                }
                _ => scene.assert_as_before(&at, number),
            }
            outcomes.push(recovery);
            assert_eq!(recover(&open(&at), &DISTRIBUTION).expect("nothing left"), Recovery::Nothing);
            scene.run(&at, &NoHook).expect("the next one");
            scene.assert_done(&at, number);
        }
        assert!(outcomes.contains(&Recovery::RolledBack));
        assert!(outcomes.iter().any(|recovery| matches!(recovery, Recovery::RolledForward(_))));
    }
}

#[test]
fn the_next_extraction_in_any_mode_recovers_by_itself_and_takes_nothing_for_somebody_elses() {
    for scene in scenes() {
        for number in 0.. {
            let (_folder, at) = scratch();
            let _unlock = Unlock(at.clone());
            scene.before(&at);
            let hook = FaultAt::new(number, Fault::Crash);
            let result = scene.run(&at, &hook);
            if !hook.happened() {
                break;
            }
            assert!(result.is_err());
            // Had it taken its own files for somebody else's, it would have kept them beside.
            scene.run(&at, &NoHook).expect("the next one");
            scene.assert_done(&at, number);
        }
    }
}

#[test]
fn a_recovery_in_any_mode_that_crashes_at_any_step_is_followed_by_one_that_finishes() {
    for scene in scenes() {
        let recording = FaultAt::new(usize::MAX, Fault::Crash);
        let (_folder, at) = scratch();
        let _unlock = Unlock(at.clone());
        scene.before(&at);
        scene.run(&at, &recording).expect("no fault");
        let steps = recording.taken.into_inner().expect("mine");
        let committed = steps.iter().position(|step| *step == Step::CommitJournal).expect("there is one") + 2;
        for number in 0.. {
            let (_folder, at) = scratch();
            let _unlock = Unlock(at.clone());
            scene.before(&at);
            scene.run(&at, &FaultAt::new(committed, Fault::Crash)).expect_err("crash");
            let hook = FaultAt::new(number, Fault::Crash);
            let result = recover_with(&open(&at), &DISTRIBUTION, &hook);
            if !hook.happened() {
                assert!(matches!(result.expect("no fault"), Recovery::RolledForward(_)));
                break;
            }
            scene.assert_nothing_torn(&at, number);
            recover_with(&open(&at), &DISTRIBUTION, &NoHook).expect("the second one");
            scene.assert_done(&at, number);
        }
    }
}

#[test]
fn a_full_disk_or_a_bad_one_in_any_mode_leaves_nothing_behind_before_the_commit_and_later_loses_nothing() {
    let (full, bad) = (rustix::io::Errno::NOSPC.raw_os_error(), rustix::io::Errno::IO.raw_os_error());
    for scene in scenes() {
        for (errno, code) in [(full, "TED-1410"), (bad, "TED-1412")] {
            for number in 0.. {
                let (_folder, at) = scratch();
                let _unlock = Unlock(at.clone());
                scene.before(&at);
                let hook = FaultAt::new(number, Fault::Once(errno));
                let result = scene.run(&at, &hook);
                if !hook.happened() {
                    break;
                }
                let error = result.expect_err("a fault");
                assert_eq!(error.code(), code, "step {number}: {error}");
                scene.assert_nothing_torn(&at, number);
                let steps = hook.taken.lock().expect("mine").clone();
                let committed = steps.iter().position(|step| *step == Step::CommitJournal);
                if committed.is_none_or(|at| at >= number) {
                    scene.assert_as_before(&at, number);
                    assert!(!has_staging(&look(&at)), "step {number}");
                }
                recover(&open(&at), &DISTRIBUTION).expect("there is room again");
                scene.run(&at, &NoHook).expect("the next one");
                scene.assert_done(&at, number);
            }
        }
    }
}
