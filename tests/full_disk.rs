//! Full disks at a Subscriber: an error with a code, nothing torn, and once there is room it goes on.
//!
//! A full disk is a small tmpfs, which only root may mount; where that is not permitted the tests say so and pass.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{DISTRIBUTION, World, find, noise, within};
use ted_core::model::ExtractMode;
use ted_core::protocol::{Outcome, PartState};
use ted_core::{DistributionRef, Subscriber};

/// A file system of its own that goes with the value.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(path).expect("a folder");
        let size = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        None
    }

    fn grow(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        let grown = Command::new("mount").args(["-o", &size]).arg(&self.0).status().expect("mount runs");
        assert!(grown.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily, because a failed test may leave files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const CONTENT_BYTES: usize = 12 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_data_directory_fails_with_a_code_and_the_next_firing_finishes() {
    let world = World::new().await;
    let Some(small) = Small::mount(&world.data_of("one.example"), 8) else { return };
    fs::write(world.source.join("large"), noise(70, CONTENT_BYTES)).expect("written");
    let subscriber = world.subscriber("one.example").await;
    let report = world.wait(world.send().await).await;
    assert_eq!((report.outcome, report.rows[0].state), (Outcome::Partial, PartState::Failed), "{report}");
    assert!(report.rows[0].code.as_ref().is_some_and(|code| code.starts_with("TED-15")), "{report}");
    assert!(find(&small.0, "distfile.ted").is_empty() && find(&small.0, "distfile.part").is_empty());
    assert!(!world.target_of("one.example").exists());

    small.grow(64);
    world.deliver().await;
    world.assert_equal("one.example");
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_keeps_the_old_revision_whole_and_extract_finishes_without_fetching() {
    for mode in [ExtractMode::Merge, ExtractMode::Sync, ExtractMode::Release] {
        let world = World::new().await;
        let place = world.folder.path().join("small");
        let Some(small) = Small::mount(&place, 8) else { return };
        let target = place.join("target");
        let distribution: DistributionRef = DISTRIBUTION.parse().expect("valid");
        let builder = Subscriber::builder(world.data_of("one.example")).target(distribution.clone(), &target);
        let builder = builder.mode(distribution.clone(), mode);
        let subscriber =
            within("the enrolment", builder.join(&world.invite("one.example").await)).await.expect("joined");
        world.start(&subscriber).await;
        world.deliver().await;
        let files = if mode == ExtractMode::Release { target.join("current") } else { target.clone() };
        let files = || fs::canonicalize(&files).expect("there");
        let before = world.folder.path().join("before");
        let copied = Command::new("cp").arg("-a").arg(&world.source).arg(&before).status().expect("cp runs");
        assert!(copied.success());

        fs::write(world.source.join("large"), noise(71, CONTENT_BYTES)).expect("written");
        fs::write(world.source.join("file-05"), "of the second revision\n").expect("written");
        let report = world.wait(world.send().await).await;
        assert_eq!((report.outcome, report.rows[0].state), (Outcome::Partial, PartState::Failed), "{mode} {report}");
        assert!(report.rows[0].code.as_ref().is_some_and(|code| code.starts_with("TED-14")), "{mode} {report}");
        support::compare::trees(&before, &files(), &[]).expect("the first revision, whole");
        let left = fs::read_dir(&target).expect("there").map(|entry| entry.expect("readable").file_name());
        assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with(".ted")), "{mode}: something is left");

        // Nobody is there to fetch from.
        within("the shutdown", world.distributor.shutdown()).await;
        small.grow(64);
        let done = within("the extraction", subscriber.extract(Some(&distribution))).await.expect("there is room");
        assert!(done[0].summary.files_written > 0, "{mode}");
        support::compare::trees(&world.source, &files(), &[]).expect("the second revision, whole");
        within("the shutdown", subscriber.shutdown()).await;
    }
}
