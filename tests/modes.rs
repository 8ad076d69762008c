//! Modes of extraction from the Distribution's word to the Subscriber's target.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{DISTRIBUTION, World, extracted, label, within};
use ted_core::model::ExtractMode;
use ted_core::subscriber::LocalChanges;
use ted_core::{DistributionRef, Subscriber};

async fn set_mode(world: &World, mode: ExtractMode) {
    let name = label(DISTRIBUTION);
    let spec = world.distributor.distribution(&name).await.expect("there").spec;
    world.distributor.update_distribution(&name, spec.mode(mode)).await.expect("updated");
}

fn reference() -> DistributionRef {
    DISTRIBUTION.parse().expect("valid")
}

fn current(target: &Path) -> PathBuf {
    fs::canonicalize(target.join("current")).expect("a release is in use")
}

async fn stop(subscriber: Subscriber) {
    within("the shutdown", subscriber.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distribution_in_sync_mode_makes_targets_what_its_source_is() {
    let world = World::new().await;
    set_mode(&world, ExtractMode::Sync).await;
    let subscriber = world.subscriber("one.example").await;
    let target = world.target_of("one.example");
    fs::create_dir_all(target.join("theirs")).expect("free");
    fs::write(target.join("theirs/file"), "before the first revision").expect("free");
    world.deliver().await;
    world.assert_equal("one.example");
    fs::write(target.join("theirs"), "after it").expect("free");
    fs::remove_file(world.source.join("file-05")).expect("there");
    let told = subscriber.preview(None).await.expect("told").remove(0);
    assert_eq!((told.mode, told.preview.deleted.count), (ExtractMode::Sync, 1), "{told:?}");
    assert!(target.join("theirs").exists(), "it only says so");
    world.deliver().await;
    world.assert_equal("one.example");
    assert!(!target.join("file-05").exists() && !target.join("theirs").exists());
    let row = subscriber.status().await.expect("told").distributions.remove(0);
    assert_eq!(row.mode, Some(ExtractMode::Sync));
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_follow_one_another_by_deltas_and_a_rollback_goes_back_to_the_one_before() {
    let world = World::new().await;
    set_mode(&world, ExtractMode::Release).await;
    let subscriber = world.subscriber("one.example").await;
    let target = world.target_of("one.example");
    fs::write(world.source.join("large"), support::noise(3, 600_000)).expect("written");
    for number in 0..5 {
        fs::write(world.source.join("number"), number.to_string()).expect("written");
        world.deliver().await;
        support::compare::trees(&world.source, &current(&target), &[]).expect("the newest release");
    }
    let releases = || fs::read_dir(target.join("releases")).expect("there").count();
    assert_eq!(releases(), 3);
    let before = current(&target);
    let back = subscriber.rollback(&reference()).await.expect("the one before is kept");
    assert_eq!((back.mode, back.summary.files_written), (ExtractMode::Release, 0));
    assert_eq!(fs::read(target.join("current/number")).expect("there"), b"3");
    assert_eq!((releases(), before.exists()), (3, true), "what was gone back from stays");
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_is_changed_counts_from_the_next_firing_on_and_the_subscribers_own_wins() {
    let world = World::new().await;
    let follows = world.subscriber("one.example").await;
    let builder = world.builder("two.example").mode(reference(), ExtractMode::Merge);
    let own = within("the enrolment", builder.join(&world.invite("two.example").await)).await.expect("it joins");
    world.start(&own).await;
    world.deliver().await;
    for name in ["one.example", "two.example"] {
        fs::write(world.target_of(name).join("theirs"), "x").expect("free");
    }
    set_mode(&world, ExtractMode::Sync).await;
    world.deliver().await;
    assert!(!world.target_of("one.example").join("theirs").exists(), "nothing but the mode has changed");
    assert!(world.target_of("two.example").join("theirs").exists());
    stop(follows).await;
    stop(own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_changes_are_kept_and_told_in_the_receipt() {
    let world = World::new().await;
    let builder = world.builder("one.example").on_local_change(LocalChanges::Keep);
    let subscriber = within("the enrolment", builder.join(&world.invite("one.example").await)).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    let target = world.target_of("one.example");
    fs::write(target.join("file-04"), "mine").expect("writable");
    fs::write(world.source.join("file-04"), "of the second revision").expect("written");
    let report = world.deliver().await;
    assert!(report.rows[0].detail.contains("kept beside: `file-04`"), "{report:?}");
    assert_eq!(fs::read(target.join("file-04")).expect("there"), b"of the second revision");
    let names = fs::read_dir(&target).expect("there").map(|entry| entry.expect("readable").file_name());
    let kept = names.filter(|name| name.to_string_lossy().starts_with("file-04.local-")).last().expect("kept");
    assert_eq!(fs::read(target.join(kept)).expect("there"), b"mine");
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_whose_target_holds_this_nodes_data_is_refused() {
    let world = World::new().await;
    set_mode(&world, ExtractMode::Sync).await;
    let builder = Subscriber::builder(world.data_of("one.example")).target(reference(), world.folder.path());
    let subscriber = within("the enrolment", builder.join(&world.invite("one.example").await)).await.expect("it joins");
    world.start(&subscriber).await;
    let report = world.wait(world.send().await).await;
    assert_eq!(report.rows[0].code.as_deref(), Some("TED-1422"), "{report}");
    assert!(world.source.exists());
    let error = subscriber.extract(None).await.expect_err("still");
    assert_eq!(error.code(), "TED-1422");
    let told = subscriber.preview(None).await.expect("told").remove(0);
    assert_eq!(told.preview.refused[0].0, "TED-1422");
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_in_a_target_that_is_current_is_undone_at_the_next_start() {
    let world = World::new().await;
    let subscriber = world.subscriber("one.example").await;
    world.deliver().await;
    stop(subscriber).await;
    let target = world.target_of("one.example");
    let id = world.distributor.distribution(&label(DISTRIBUTION)).await.expect("there").id;
    let staging = target.join(format!(".ted-staging-{id}"));
    fs::create_dir(&staging).expect("free");
    fs::set_permissions(&staging, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    fs::write(staging.join("3"), "half a file").expect("free");
    let subscriber = world.builder("one.example").open().await.expect("its data directory is free");
    let mut events = subscriber.events();
    world.start(&subscriber).await;
    within("the extraction", extracted(&mut events)).await;
    assert!(!staging.exists());
    world.assert_equal("one.example");
    stop(subscriber).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposed_target_with_variables_holds_releases() {
    let world = World::new().await;
    let name = label(DISTRIBUTION);
    let allowed = world.folder.path().canonicalize().expect("there").join("allowed");
    let mut spec = world.distributor.distribution(&name).await.expect("there").spec;
    spec.target = Some(format!("{}/%NODE_NAME%/%DISTRIBUTION%", allowed.display()));
    world.distributor.update_distribution(&name, spec.mode(ExtractMode::Release)).await.expect("updated");
    let builder = Subscriber::builder(world.data_of("one.example")).allow_targets_below(&allowed);
    let subscriber = within("the enrolment", builder.join(&world.invite("one.example").await)).await.expect("it joins");
    world.start(&subscriber).await;
    world.deliver().await;
    let target = allowed.join("one.example").join(DISTRIBUTION);
    support::compare::trees(&world.source, &current(&target), &[]).expect("the release");
    let row = subscriber.targets().await.expect("told").remove(0);
    assert_eq!((row.target, row.mode), (Ok(target), Some(ExtractMode::Release)));
    stop(subscriber).await;
}
