//! Will it fit: how long a firing takes on each link, and who will not be done before its window closes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{PackageId, UnixMillis};
use crate::schedule::RatePlan;

/// What takes longer than this is as good as never.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How many changes of a rate are followed before the last one is taken to hold.
const CHANGES_MAX: usize = 4096;

/// One node, and the link by which it is reached.
#[derive(Debug, Clone, Default)]
pub struct ForecastNode {
    /// The node that passes on to it, by its place in the list; none for the Distributor itself. It stands before it.
    pub parent: Option<usize>,
    /// The packages that it needs itself, with their bytes.
    pub needs: BTreeMap<PackageId, u64>,
    /// What its link has been seen to take, in bytes a second.
    pub measured: Option<u64>,
    /// What its link is limited to.
    pub limit: Option<RatePlan>,
}

/// What is expected of one node and its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForecastLink {
    /// Bytes that cross the link: each package once, for the node and all behind it.
    pub bytes: u64,
    /// Bytes a second that it is expected to take at first; none where nothing is known.
    pub bytes_per_second: Option<u64>,
    /// When the node has all that it needs: the slowest link on the way decides, since what arrives is passed on at
    /// once. None where a link on the way is not known.
    pub takes: Option<Duration>,
}

/// What a firing that starts at `now` comes to, for each node in their order. `shared` is what all sends together are
/// limited to.
#[must_use]
pub fn forecast(nodes: &[ForecastNode], shared: Option<&RatePlan>, now: UnixMillis) -> Vec<ForecastLink> {
    let crossing = crossing(nodes);
    let bytes: Vec<u64> = crossing.iter().map(|packages| packages.values().sum()).collect();
    let direct = nodes.iter().zip(&bytes).filter(|(node, _)| node.parent.is_none());
    let together: u64 = direct.map(|(_, bytes)| bytes).sum();
    let all = shared.map_or(Some(Duration::ZERO), |shared| time_for(together, None, Some(shared), now));
    let mut links: Vec<ForecastLink> = Vec::with_capacity(nodes.len());
    for (node, bytes) in nodes.iter().zip(bytes) {
        let own =
            if bytes == 0 { Some(Duration::ZERO) } else { time_for(bytes, node.measured, node.limit.as_ref(), now) };
        let before = node.parent.map_or(all, |parent| links.get(parent).and_then(|parent| parent.takes));
        let takes = if bytes == 0 { own } else { own.zip(before).map(|(own, before)| own.max(before)) };
        let limit = node.limit.as_ref().and_then(|limit| limit.at(now));
        let bytes_per_second = node.measured.into_iter().chain(limit).min();
        links.push(ForecastLink { bytes, bytes_per_second, takes });
    }
    links
}

/// What crosses each link, each package once.
fn crossing(nodes: &[ForecastNode]) -> Vec<BTreeMap<PackageId, u64>> {
    let mut crossing: Vec<BTreeMap<PackageId, u64>> = nodes.iter().map(|node| node.needs.clone()).collect();
    let mut seen = BTreeSet::new();
    for (place, node) in nodes.iter().enumerate().rev() {
        // Who stands behind its parent adds to it before the parent adds to its own.
        if let Some(parent) = node.parent.filter(|parent| *parent < place && seen.insert(place)) {
            let behind = crossing[place].clone();
            crossing[parent].extend(behind);
        }
    }
    crossing
}

/// How long so many bytes take at a rate that may change by the time of day; none where no rate is known, or it would
/// take longer than a year.
#[must_use]
pub fn time_for(bytes: u64, measured: Option<u64>, limit: Option<&RatePlan>, now: UnixMillis) -> Option<Duration> {
    let (mut at, mut left) = (now, u128::from(bytes));
    for _ in 0..CHANGES_MAX {
        let rate = measured.into_iter().chain(limit.and_then(|limit| limit.at(at))).min();
        let change = limit.and_then(|limit| limit.next_change(at)).filter(|change| *change > at);
        // Without a limit for a while and nothing measured, it goes at once then.
        let Some(rate) = rate.map(u128::from).filter(|rate| *rate > 0) else {
            return limit.map(|_| at.since(now)).filter(|took| *took <= LONGEST);
        };
        let needs_millis = u64::try_from((left * 1000).div_ceil(rate)).unwrap_or(u64::MAX);
        let end = UnixMillis::from_millis(at.millis().saturating_add(needs_millis));
        match change.filter(|change| *change < end) {
            None => return Some(end.since(now)).filter(|took| *took <= LONGEST),
            Some(change) => {
                left = left.saturating_sub(rate * change.since(at).as_millis() / 1000);
                at = change;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-30T07:00:00Z
    const NOW: UnixMillis = UnixMillis::from_millis(1_801_292_400_000);
    const MB: u64 = 1_000_000;

    fn plan(text: &str) -> RatePlan {
        text.parse().unwrap()
    }

    fn node(parent: Option<usize>, needs: &[(u8, u64)], measured: Option<u64>) -> ForecastNode {
        let needs = needs.iter().map(|(id, bytes)| (PackageId::from_bytes([*id; 32]), *bytes)).collect();
        ForecastNode { parent, needs, measured, limit: None }
    }

    #[test]
    fn a_rate_that_changes_is_followed_to_the_end() {
        let day = plan("20MB/s; 2MB/s between 08:00 and 18:00");
        let hour = Duration::from_secs(3600);
        assert_eq!(time_for(20 * MB * 3600, None, Some(&day), NOW), Some(hour));
        assert_eq!(time_for(20 * MB * 3600 + 2 * MB * 1800, None, Some(&day), NOW), Some(hour + hour / 2));
        assert_eq!(time_for(20 * MB * 7200 + 2 * MB * 36_000, None, Some(&day), NOW), Some(12 * hour));
        assert_eq!(time_for(10 * MB, Some(MB), Some(&day), NOW), Some(Duration::from_secs(10)), "the link is slower");
        assert_eq!(time_for(10 * MB, None, None, NOW), None);
        assert_eq!(time_for(u64::MAX, Some(1), None, NOW), None);
    }

    #[test]
    fn each_link_is_crossed_once_and_the_slowest_on_the_way_decides() {
        let nodes = [
            node(None, &[(1, 100 * MB)], Some(10 * MB)),
            node(Some(0), &[(1, 100 * MB)], Some(50 * MB)),
            node(Some(0), &[(1, 100 * MB), (2, 40 * MB)], Some(MB)),
            node(None, &[], Some(MB)),
            node(None, &[(1, 100 * MB)], None),
        ];
        let links = forecast(&nodes, None, NOW);
        let shown: Vec<_> =
            links.iter().map(|link| (link.bytes / MB, link.takes.map(|takes| takes.as_secs()))).collect();
        assert_eq!(shown, [(140, Some(14)), (100, Some(14)), (140, Some(140)), (0, Some(0)), (100, None)]);
    }

    #[test]
    fn what_all_share_holds_for_all() {
        let nodes: Vec<_> = (0..10).map(|_| node(None, &[(1, 100 * MB)], Some(100 * MB))).collect();
        let links = forecast(&nodes, Some(&plan("10MB/s")), NOW);
        assert!(links.iter().all(|link| link.takes == Some(Duration::from_secs(100))));
    }
}
