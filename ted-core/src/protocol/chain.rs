//! Which packages bring a Subscriber to a stated revision: the cheapest chain from what it can start from.

use std::collections::BTreeMap;

use crate::id::Revision;
use crate::security::{Carried, PackageRef, ReleaseStatement};

/// The packages that bring a Subscriber to the stated revision, in the order in which they are applied: the deltas that
/// together have the fewest bytes and begin at one of the revisions `starts`, or the baseline where that has fewer.
/// `None` where nothing that is named leads there.
///
/// Of two chains of the same bytes the one with fewer packages is taken. A revision that is stated is no start: what
/// is to be received is what carries it.
#[must_use]
pub fn cheapest_chain(release: &ReleaseStatement, starts: &[Revision]) -> Option<Vec<PackageRef>> {
    let baseline = release.baseline();
    let Some((bytes, deltas)) = cheapest_deltas(release, starts) else { return baseline.map(|found| vec![*found]) };
    match baseline {
        Some(baseline) if baseline.bytes < bytes => Some(vec![*baseline]),
        _ => Some(deltas),
    }
}

/// The baseline alone, for a Subscriber to which no delta is of use.
#[must_use]
pub fn baseline_chain(release: &ReleaseStatement) -> Option<Vec<PackageRef>> {
    release.baseline().map(|baseline| vec![*baseline])
}

/// How a revision is reached at the least cost: bytes, packages, and the last of them.
#[derive(Clone, Copy)]
struct Reached<'a> {
    bytes: u64,
    packages: usize,
    by: Option<&'a PackageRef>,
}

fn cheapest_deltas(release: &ReleaseStatement, starts: &[Revision]) -> Option<(u64, Vec<PackageRef>)> {
    let start = Reached { bytes: 0, packages: 0, by: None };
    let usable = starts.iter().filter(|start| **start < release.revision);
    let mut reached: BTreeMap<Revision, Reached<'_>> = usable.map(|revision| (*revision, start)).collect();
    let mut deltas: Vec<_> = release.packages.iter().filter_map(delta).collect();
    // A delta leads forward, so that whatever leads to its base comes before it.
    deltas.sort_by_key(|(base, revision, _)| (*base, *revision));
    for (base, revision, package) in deltas {
        let Some(before) = reached.get(&base) else { continue };
        let bytes = before.bytes.saturating_add(package.bytes);
        let next = Reached { bytes, packages: before.packages + 1, by: Some(package) };
        let known = reached.get(&revision);
        if known.is_none_or(|known| (next.bytes, next.packages) < (known.bytes, known.packages)) {
            reached.insert(revision, next);
        }
    }
    let end = reached.get(&release.revision)?;
    let mut chain = Vec::with_capacity(end.packages);
    let mut last = end.by;
    while let Some((base, _, package)) = last.and_then(delta) {
        chain.push(*package);
        last = reached.get(&base).and_then(|before| before.by);
    }
    chain.reverse();
    Some((end.bytes, chain))
}

/// Where a delta begins and leads to; `None` for a baseline, and for what does not lead forward.
fn delta(package: &PackageRef) -> Option<(Revision, Revision, &PackageRef)> {
    match package.carried {
        Carried::Delta { base, revision } if base < revision => Some((base, revision, package)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DistributionId, PackageId};

    /// `(base, revision, bytes)`; a base of 0 makes a baseline.
    fn package(&(base, revision, bytes): &(u64, u64, u64)) -> PackageRef {
        let to = Revision::from_number(revision);
        let carried = match base {
            0 => Carried::Baseline { revision: to },
            base => Carried::Delta { base: Revision::from_number(base), revision: to },
        };
        PackageRef { id: PackageId::from_bytes([(base * 16 + revision) as u8; 32]), carried, bytes }
    }

    fn chosen(revision: u64, packages: &[(u64, u64, u64)], starts: &[u64]) -> Option<Vec<(u64, u64)>> {
        let release = ReleaseStatement {
            distribution: DistributionId::from_bytes([2; 16]),
            revision: Revision::from_number(revision),
            packages: packages.iter().map(package).collect(),
            extensions: Vec::new(),
        };
        let starts: Vec<_> = starts.iter().map(|start| Revision::from_number(*start)).collect();
        let names = |package: PackageRef| match package.carried {
            Carried::Baseline { revision } => (0, revision.number()),
            Carried::Delta { base, revision } => (base.number(), revision.number()),
        };
        cheapest_chain(&release, &starts).map(|chain| chain.into_iter().map(names).collect())
    }

    #[test]
    fn the_chain_of_the_fewest_bytes_is_taken_and_none_that_costs_more_than_the_baseline() {
        const WINDOW: &[(u64, u64, u64)] = &[(0, 5, 100), (4, 5, 10), (3, 4, 20), (2, 3, 30), (1, 2, 30)];
        const SHORT_CUT: &[(u64, u64, u64)] = &[(0, 5, 100), (4, 5, 10), (3, 4, 20), (3, 5, 25), (2, 3, 5)];
        let none: &[u64] = &[];
        for (packages, starts, expected) in [
            // Nothing is here, or nothing that a delta goes from.
            (WINDOW, none, Some(vec![(0, 5)])),
            (WINDOW, &[9], Some(vec![(0, 5)])),
            // From each revision of the window.
            (WINDOW, &[4], Some(vec![(4, 5)])),
            (WINDOW, &[3], Some(vec![(3, 4), (4, 5)])),
            (WINDOW, &[1], Some(vec![(1, 2), (2, 3), (3, 4), (4, 5)])),
            // From the one of several that costs least.
            (WINDOW, &[1, 4], Some(vec![(4, 5)])),
            (WINDOW, &[4, 2, 1], Some(vec![(4, 5)])),
            // What is stated is no start.
            (WINDOW, &[5, 4], Some(vec![(4, 5)])),
            (WINDOW, &[5], Some(vec![(0, 5)])),
            // As many bytes as the baseline are no more than the baseline.
            (&[(0, 5, 100), (4, 5, 100)], &[4], Some(vec![(4, 5)])),
            (&[(0, 5, 100), (4, 5, 101)], &[4], Some(vec![(0, 5)])),
            (&[(0, 5, 100), (4, 5, 51), (3, 4, 50)], &[3], Some(vec![(0, 5)])),
            // A short cut, where it is one.
            (SHORT_CUT, &[3], Some(vec![(3, 5)])),
            (SHORT_CUT, &[2], Some(vec![(2, 3), (3, 5)])),
            (&[(0, 5, 100), (3, 4, 10), (4, 5, 10), (3, 5, 20)], &[3], Some(vec![(3, 5)])),
            // A chain with a gap leads nowhere.
            (&[(0, 5, 100), (4, 5, 10), (2, 3, 10)], &[2], Some(vec![(0, 5)])),
            (&[(4, 5, 10), (2, 3, 10)], &[2], None),
            // Without a baseline a chain does.
            (&[(4, 5, 10)], &[4], Some(vec![(4, 5)])),
            // A baseline of another revision carries another one.
            (&[(0, 4, 1), (4, 5, 10)], none, None),
            // What does not lead forward is passed over.
            (&[(0, 5, 100), (5, 5, 1), (6, 5, 1)], &[6], Some(vec![(0, 5)])),
        ] {
            assert_eq!(chosen(5, packages, starts), expected, "{packages:?} from {starts:?}");
        }
    }

    #[test]
    fn bytes_that_overflow_are_more_than_any_baseline() {
        let packages = [(0, 5, u64::MAX - 1), (4, 5, u64::MAX), (3, 4, u64::MAX)];
        assert_eq!(chosen(5, &packages, &[3]), Some(vec![(0, 5)]));
    }
}
