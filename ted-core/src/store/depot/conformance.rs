//! What every depot does, run against each of them.

use std::path::Path;

use crate::error::Coded as _;
use crate::id::PackageId;
use crate::store::depot::fixtures::{package, place};
use crate::store::depot::{Depot, FinishedFile, LocalDepot, MemoryDepot, PackageInfo, prune};

/// Runs `$check`, an async function of a depot and a folder for files to put, on each kind.
macro_rules! on_each {
    ($($check:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $check() {
                let temp = tempfile::tempdir().expect("temp");
                super::$check(super::MemoryDepot::new(), temp.path()).await;
            })+
        }

        mod local {
            $(#[tokio::test]
            async fn $check() {
                let temp = tempfile::tempdir().expect("temp");
                let data = temp.path().join("data");
                super::$check(super::LocalDepot::open(&data).expect("opened"), temp.path()).await;
            })+
        }
    };
}

on_each!(
    a_package_is_found_by_its_id_and_read_by_ranges,
    what_is_not_there_or_out_of_range_is_an_error,
    a_package_takes_the_place_of_the_one_before,
    what_is_no_package_is_refused,
    packages_are_listed_in_order,
    pruning_removes_what_nobody_keeps,
);

async fn put(depot: &impl Depot, folder: &Path, name: &str, revision: u64) -> PackageInfo {
    let path = folder.join("finished");
    std::fs::write(&path, package(name, revision)).expect("written");
    let info = depot.put(FinishedFile { path: path.clone(), place: place(name, revision) }).await.expect("adopted");
    assert!(!path.exists(), "the file is the depot's now");
    info
}

async fn a_package_is_found_by_its_id_and_read_by_ranges(depot: impl Depot, folder: &Path) {
    let content = package("site", 1);
    let bytes = content.len() as u64;
    let info = put(&depot, folder, "site", 1).await;
    assert_eq!((info.bytes, &info.place), (bytes, &place("site", 1)));
    assert_eq!(info.root.revision.number(), 1);
    assert_eq!(depot.info(info.id).await.expect("asked"), Some(info.clone()));
    for range in [0..bytes, 0..0, bytes..bytes, 3..17, bytes - 1..bytes] {
        let expected = &content[range.start as usize..range.end as usize];
        assert_eq!(depot.get_range(info.id, range).await.expect("read"), expected);
    }
    assert_eq!(put(&depot, folder, "site", 1).await, info, "once more changes nothing");
    assert_eq!(depot.list().await.expect("listed").len(), 1);
}

async fn what_is_not_there_or_out_of_range_is_an_error(depot: impl Depot, folder: &Path) {
    let absent = PackageId::from_bytes([0; 32]);
    assert_eq!(depot.info(absent).await.expect("asked"), None);
    assert_eq!(depot.get_range(absent, 0..1).await.expect_err("absent").code(), "TED-1530");
    depot.delete(absent).await.expect("removed already");
    let info = put(&depot, folder, "site", 1).await;
    for (start, end) in [(0, info.bytes + 1), (info.bytes + 1, info.bytes + 1), (0, u64::MAX), (2, 1)] {
        let error = depot.get_range(info.id, start..end).await.expect_err("out of range");
        assert_eq!(error.code(), "TED-1531", "{start}..{end}");
    }
    depot.delete(info.id).await.expect("deleted");
    assert_eq!(depot.get_range(info.id, 0..1).await.expect_err("deleted").code(), "TED-1530");
}

async fn a_package_takes_the_place_of_the_one_before(depot: impl Depot, folder: &Path) {
    let old = put(&depot, folder, "site", 1).await;
    let path = folder.join("finished");
    std::fs::write(&path, package("site", 2)).expect("written");
    let new = depot.put(FinishedFile { path, place: place("site", 1) }).await.expect("adopted");
    assert_ne!(old.id, new.id);
    assert_eq!(depot.info(old.id).await.expect("asked"), None);
    assert_eq!(depot.list().await.expect("listed"), std::slice::from_ref(&new));
    assert_eq!(depot.get_range(new.id, 0..new.bytes).await.expect("read"), package("site", 2));
}

async fn what_is_no_package_is_refused(depot: impl Depot, folder: &Path) {
    let whole = package("site", 1);
    for content in [&b""[..], b"some text", &whole[..whole.len() - 1], &whole[1..]] {
        let path = folder.join("finished");
        std::fs::write(&path, content).expect("written");
        let refused = depot.put(FinishedFile { path: path.clone(), place: place("site", 1) }).await;
        refused.expect_err("no package");
        assert!(path.exists(), "it is still the caller's");
        assert!(depot.list().await.expect("listed").is_empty());
    }
}

async fn packages_are_listed_in_order(depot: impl Depot, folder: &Path) {
    for (name, revision) in [("tools", 1), ("site", 10), ("site", 9)] {
        put(&depot, folder, name, revision).await;
    }
    let listed = depot.list().await.expect("listed");
    let order: Vec<_> = listed.iter().map(|info| info.place.to_string()).collect();
    assert_eq!(order, ["dist/site/9/baseline", "dist/site/10/baseline", "dist/tools/1/baseline"]);
}

async fn pruning_removes_what_nobody_keeps(depot: impl Depot, folder: &Path) {
    for revision in 1..=4 {
        put(&depot, folder, "site", revision).await;
    }
    let removed = prune(&depot, |package| package.root.revision.number() >= 3).await.expect("pruned");
    assert_eq!(removed.iter().map(|package| package.root.revision.number()).collect::<Vec<_>>(), [1, 2]);
    let kept = depot.list().await.expect("listed");
    assert_eq!(kept.iter().map(|package| package.root.revision.number()).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(depot.info(removed[0].id).await.expect("asked"), None);
}
