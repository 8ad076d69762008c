use std::sync::Arc;

use super::*;
use crate::id::{DistributionId, Hash, UnixMillis};
use crate::package::{BodyDigest, ROOT_CONTEXT, Root, Suite};
use crate::store::PackagePlace;

const OWN: KeyHash = KeyHash::from_bytes([1; 32]);

fn revision(number: u64) -> Revision {
    Revision::from_number(number)
}

/// A package of this length; number 0 as the base says that it is a baseline.
fn package(base: u64, to: u64, bytes: u64) -> PackageInfo {
    let kind = if base == 0 { PackageKind::Baseline } else { PackageKind::Delta { base: revision(base) } };
    let root = Root {
        context: ROOT_CONTEXT.to_owned(),
        distribution: DistributionId::from_bytes([2; 16]),
        distributor: OWN,
        revision: revision(to),
        created: UnixMillis::from_millis(to),
        kind,
        suite: Suite::None,
        frame_bytes: 4,
        level: 3,
        body_frames: 1,
        catalog_frames: 1,
        body_bytes: 1,
        body_raw_bytes: 1,
        catalog_bytes: 1,
        table: Hash::of(b""),
        digest: BodyDigest::None,
        disclosure: None,
    };
    let mut id = [base as u8; 32];
    id[0] = to as u8;
    let place = PackagePlace::at_distributor(&"site".parse().unwrap(), revision(to), kind);
    PackageInfo { id: PackageId::from_bytes(id), root: Arc::new(root), bytes, place }
}

fn kept(packages: &[(u64, u64, u64)]) -> KeptPackages {
    KeptPackages::of(packages.iter().map(|(base, to, bytes)| package(*base, *to, *bytes)).collect(), &OWN)
}

/// Which revisions the deltas of a window lead to.
fn window(packages: &[(u64, u64, u64)], newest: u64, revisions_max: u32) -> Vec<u64> {
    let kept = kept(packages);
    kept.window(revision(newest), revisions_max).iter().map(|info| info.root.revision.number()).collect()
}

#[test]
fn a_window_goes_back_unbroken_as_far_as_number_and_bytes_allow() {
    let chain = [(0, 5, 100), (1, 2, 10), (2, 3, 10), (3, 4, 10), (4, 5, 10)];
    for (revisions_max, expected) in
        [(1, vec![]), (2, vec![5]), (4, vec![3, 4, 5]), (5, vec![2, 3, 4, 5]), (32, vec![2, 3, 4, 5])]
    {
        assert_eq!(window(&chain, 5, revisions_max), expected, "{revisions_max}");
    }
    // Exactly half fits; a byte more does not.
    assert_eq!(window(&[(0, 3, 100), (1, 2, 20), (2, 3, 30)], 3, 9), [2, 3]);
    assert_eq!(window(&[(0, 3, 100), (1, 2, 21), (2, 3, 30)], 3, 9), [3]);
    assert_eq!(
        window(&[(0, 3, 100), (1, 2, 1), (2, 3, 51)], 3, 9),
        [] as [u64; 0],
        "nothing behind one that is too large"
    );
    assert_eq!(window(&[(0, 4, 100), (1, 2, 1), (3, 4, 1)], 4, 9), [4], "a delta lacks");
    assert_eq!(window(&[(2, 3, 1)], 3, 9), [] as [u64; 0], "no baseline");
}

#[test]
fn a_window_is_sealed_as_its_baseline_is_and_of_this_distributor() {
    let mut packages: Vec<_> = [(0, 3, 100), (1, 2, 10), (2, 3, 10)].map(|(b, t, n)| package(b, t, n)).into();
    let sealed =
        Root { suite: Suite::Aes256Gcm { salt: [0; 32], commitment: Hash::of(b"") }, ..(*packages[1].root).clone() };
    packages[1].root = Arc::new(sealed);
    let kept = KeptPackages::of(packages.clone(), &OWN);
    assert_eq!(kept.window(revision(3), 9).len(), 1);
    packages[1].root = Arc::new(Root { distributor: KeyHash::from_bytes([9; 32]), ..(*packages[0].root).clone() });
    let kept = KeptPackages::of(packages, &OWN);
    assert_eq!(kept.window(revision(3), 9).len(), 1);
}

#[test]
fn the_way_to_a_revision_has_the_fewest_deltas_and_nothing_lacking() {
    let kept = kept(&[(0, 1, 100), (1, 2, 1), (2, 3, 1), (0, 3, 100), (3, 4, 1), (7, 8, 1)]);
    let way = |to: u64| {
        let way = kept.way_to(revision(to))?;
        let deltas: Vec<_> = way.deltas.iter().map(|info| info.root.revision.number()).collect();
        Some((way.baseline.root.revision.number(), deltas))
    };
    assert_eq!(way(1), Some((1, vec![])));
    assert_eq!(way(2), Some((1, vec![2])));
    assert_eq!(way(4), Some((3, vec![4])));
    assert_eq!((way(8), way(5)), (None, None));
    assert_eq!(kept.revisions(), [1, 2, 3, 4].map(revision));
}

/// Builds revision after revision with a delta each, pruned after each.
#[test]
fn while_the_window_moves_every_revision_of_it_can_be_put_together_from_few_baselines() {
    for revisions_max in [1, 2, 3, 10] {
        let mut there: Vec<PackageInfo> = vec![];
        for newest in 1..=60 {
            there.push(package(0, newest, 10_000));
            if newest > 1 && revisions_max > 1 {
                there.push(package(newest - 1, newest, 10));
            }
            let needed = KeptPackages::of(there.clone(), &OWN).needed(revision(newest), revisions_max);
            there.retain(|info| needed.contains(&info.id));
            let kept = KeptPackages::of(there.clone(), &OWN);
            let expected = (newest - 1).min(u64::from(revisions_max) - 1);
            assert_eq!(kept.window(revision(newest), revisions_max).len() as u64, expected, "{newest}");
            for within in newest - expected..=newest {
                assert!(kept.way_to(revision(within)).is_some(), "{within} of {newest}, {revisions_max}");
            }
            assert!(newest == 1 || kept.baseline(revision(newest - 1)).is_some(), "the one before is there as it was");
            assert!(kept.baselines.len() <= 4, "{newest}, {revisions_max}: {:?}", kept.baselines.keys());
            assert!(kept.deltas.len() < 2 * revisions_max as usize, "{newest}, {revisions_max}");
        }
    }
}

#[test]
fn where_the_chain_breaks_only_what_leads_nowhere_is_given_up() {
    let there = [(0, 1, 100), (1, 2, 1), (0, 2, 100), (2, 3, 1), (0, 3, 100), (0, 4, 100)];
    let kept = kept(&there);
    let needed = kept.needed(revision(4), 10);
    let is_needed: Vec<_> = there.iter().map(|(b, t, n)| needed.contains(&package(*b, *t, *n).id)).collect();
    assert_eq!(is_needed, [false, false, false, false, true, true]);
}
