use super::*;
use crate::id::{EnvelopeId, Revision};
use crate::model::Priority;
use crate::security::Carried;

const SITE: DistributionId = DistributionId::from_bytes([3; 16]);

fn key(number: u8) -> KeyHash {
    KeyHash::from_bytes([number; 32])
}

fn at(seconds: u64) -> UnixMillis {
    UnixMillis::from_millis(seconds * 1000)
}

fn firing(number: u8) -> FiringId {
    FiringId::from_bytes([number; 16])
}

fn package(number: u8) -> PackageRef {
    let revision = Revision::from_number(u64::from(number));
    PackageRef { id: PackageId::from_bytes([number; 32]), carried: Carried::Baseline { revision }, bytes: 1000 }
}

/// Statement `number`, which names package `number`, for these recipients.
fn offer(of: u8, number: u8, recipients: &[u8]) -> PassedOffer {
    PassedOffer {
        firing: firing(of),
        distribution: SITE,
        priority: Priority::Medium,
        closes: None,
        recipients: recipients.iter().map(|number| key(*number)).collect(),
        statement: EnvelopeId::from_bytes([number; 32]),
        issued: at(u64::from(number)),
        expires: at(10_000),
        packages: vec![package(number)],
        grants: vec![],
    }
}

/// A relay 9 with the children 1, with 11 and 12 behind it, and 2, with 12 behind it.
fn relay() -> Relay {
    let mut relay = Relay::new(key(9), [], Limits::DEFAULT);
    let behind = |numbers: &[u8]| numbers.iter().map(|number| key(*number)).collect::<BTreeSet<_>>();
    relay.entitled(BTreeMap::from([(key(1), behind(&[11, 12])), (key(2), behind(&[12]))]), at(0));
    relay
}

fn actions(relay: &mut Relay, now: u64) -> Vec<RelayAction> {
    std::iter::from_fn(|| relay.poll(at(now))).collect()
}

/// Which child is offered what for whom: `(child, firing, recipients)`.
fn offers(relay: &mut Relay, now: u64) -> Vec<(u8, u8, Vec<u8>)> {
    let offers = actions(relay, now).into_iter().filter_map(|action| match action {
        RelayAction::Offer { child, offer } => {
            let recipients = offer.recipients.iter().map(|key| key.as_bytes()[0]).collect();
            Some((child.as_bytes()[0], offer.firing.as_bytes()[0], recipients))
        }
        _ => None,
    });
    offers.collect()
}

#[test]
fn what_is_offered_is_kept_before_any_child_hears_of_it_and_each_hears_of_its_own() {
    let mut relay = relay();
    relay.child_up(key(1), at(1));
    relay.child_up(key(2), at(1));
    relay.offered(&offer(1, 5, &[1, 2, 11, 9]), at(5)).expect("taken");
    let actions = actions(&mut relay, 5);
    assert_eq!(actions[0], RelayAction::Keep { distribution: SITE });
    let kept = relay.passed(&SITE).expect("kept");
    let read = Passed::decode(&kept.encode(&Limits::DEFAULT).unwrap(), &Limits::DEFAULT).unwrap().expect("this form");
    assert_eq!(read, *kept);
    let mut again = Relay::new(key(9), [read], Limits::DEFAULT);
    let behind = BTreeSet::from([key(11), key(12)]);
    again.entitled(BTreeMap::from([(key(1), behind), (key(2), BTreeSet::new())]), at(6));
    assert_eq!(offers(&mut again, 6), [], "nobody is connected to the process that was started again");
    again.child_up(key(2), at(7));
    assert_eq!(offers(&mut again, 7), [(2, 1, vec![2])], "the parent may be away meanwhile");
    again.child_up(key(1), at(8));
    assert_eq!(offers(&mut again, 8), [(1, 1, vec![1, 11])]);
}

#[test]
fn a_child_is_offered_again_when_it_returns_and_when_it_wanted_that_later() {
    let mut relay = relay();
    relay.offered(&offer(1, 5, &[1]), at(5)).expect("taken");
    relay.child_up(key(1), at(6));
    assert_eq!(offers(&mut relay, 6), [(1, 1, vec![1])]);
    relay.answered(&key(1), &SITE, &firing(1), &OfferAnswer::Later { until: at(60) }, at(6));
    assert_eq!((offers(&mut relay, 59), relay.next_wakeup(at(59))), (vec![], Some(at(60))));
    assert_eq!(offers(&mut relay, 60), [(1, 1, vec![1])]);
    relay.answered(&key(1), &SITE, &firing(1), &OfferAnswer::Current, at(60));
    assert_eq!((offers(&mut relay, 900), relay.next_wakeup(at(900))), (vec![], None));
    relay.child_down(&key(1), at(901));
    relay.child_up(key(1), at(902));
    assert_eq!(offers(&mut relay, 902), [(1, 1, vec![1])]);
    relay.offer_failed(&key(1), &SITE, &firing(1), at(902));
    assert_eq!((offers(&mut relay, 906), offers(&mut relay, 907)), (vec![], vec![(1, 1, vec![1])]));
    relay.done(&key(1), &SITE, &firing(1));
    relay.child_up(key(1), at(950));
    assert_eq!(offers(&mut relay, 950), [], "who is done is left alone");
}

#[test]
fn the_way_goes_through_the_child_that_reaches_a_node_now_and_nobody_is_believed_more_than_the_entitlements_say() {
    let mut relay = relay();
    relay.child_up(key(1), at(1));
    relay.child_up(key(2), at(1));
    relay.offered(&offer(1, 5, &[12]), at(5)).expect("taken");
    assert_eq!(offers(&mut relay, 5), [(1, 1, vec![12])], "present nowhere: by the entitlements");
    relay.presence(&key(2), true, &[key(12)], &[], at(6));
    assert_eq!(offers(&mut relay, 6), [(2, 1, vec![12])]);
    relay.presence(&key(2), false, &[key(11)], &[], at(7));
    assert_eq!(relay.hop_to(&key(11)), Some(key(1)), "11 is not behind 2");
    relay.presence(&key(1), true, &[key(12)], &[], at(8));
    relay.presence(&key(2), false, &[], &[key(12)], at(8));
    assert_eq!(offers(&mut relay, 8), [(1, 1, vec![12])], "it moved");
    relay.child_down(&key(1), at(9));
    assert_eq!(offers(&mut relay, 9), [(2, 1, vec![12])], "the other way");
    relay.entitled(BTreeMap::from([(key(2), BTreeSet::new())]), at(10));
    assert_eq!(relay.hop_to(&key(12)), None);
}

#[test]
fn a_package_is_fetched_once_for_all_who_ask() {
    let mut relay = relay();
    assert!(matches!(relay.asked(&package(5).id), Asked::Refused(refused) if refused.code() == code::NOT_FOUND));
    relay.offered(&offer(1, 5, &[1, 2]), at(5)).expect("taken");
    assert_eq!((relay.asked(&package(5).id), relay.asked(&package(5).id)), (Asked::Wait, Asked::Wait));
    let fetches: Vec<_> =
        actions(&mut relay, 5).into_iter().filter(|action| matches!(action, RelayAction::Fetch { .. })).collect();
    assert_eq!(fetches, [RelayAction::Fetch { distribution: SITE, package: package(5) }]);
    relay.package_ended(&package(5).id, RelayEnd::Stopped);
    assert_eq!((relay.asked(&package(5).id), actions(&mut relay, 6).len()), (Asked::Wait, 1), "asked for again");
    relay.package_ended(&package(5).id, RelayEnd::Whole);
    assert_eq!((relay.asked(&package(5).id), actions(&mut relay, 6).len()), (Asked::Serve, 0));
    relay.package_gone(&package(5).id);
    assert_eq!(relay.asked(&package(5).id), Asked::Wait);
}

#[test]
fn what_stayed_damaged_is_tried_again_when_another_firing_comes() {
    let mut relay = relay();
    relay.offered(&offer(1, 5, &[1]), at(5)).expect("taken");
    relay.asked(&package(5).id);
    relay.package_ended(&package(5).id, RelayEnd::Corrupt);
    assert!(matches!(relay.asked(&package(5).id), Asked::Refused(refused) if refused.is_retryable()));
    relay.offered(&offer(2, 5, &[1]), at(6)).expect("taken");
    assert_eq!(relay.asked(&package(5).id), Asked::Wait);
}

#[test]
fn a_newer_statement_is_offered_to_all_and_what_only_the_one_before_the_last_named_is_released() {
    let mut relay = relay();
    relay.child_up(key(1), at(1));
    relay.child_up(key(2), at(1));
    relay.offered(&offer(1, 5, &[1]), at(5)).expect("taken");
    relay.package_here(package(5).id);
    assert_eq!(offers(&mut relay, 5), [(1, 1, vec![1])]);
    relay.offered(&offer(2, 6, &[2]), at(6)).expect("taken");
    assert_eq!(offers(&mut relay, 6), [(1, 1, vec![1]), (2, 2, vec![2])]);
    assert_eq!(relay.asked(&package(5).id), Asked::Serve, "somebody may be in the middle of it");
    let refused = relay.offered(&offer(1, 5, &[1]), at(6)).expect_err("older");
    assert_eq!(refused.code(), code::BELOW_FLOOR);
    relay.offered(&offer(2, 7, &[2]), at(7)).expect("taken");
    assert!(actions(&mut relay, 7).contains(&RelayAction::Release { package: package(5).id }));
    assert!(matches!(relay.asked(&package(5).id), Asked::Refused(_)));
    relay.retain(|_| false);
    let released = actions(&mut relay, 8);
    assert_eq!(released[0], RelayAction::Keep { distribution: SITE });
    assert_eq!(relay.passed(&SITE), None);
}

#[test]
fn nothing_is_started_after_the_window_or_the_statements_time() {
    let mut relay = relay();
    relay.offered(&PassedOffer { closes: Some(at(100)), ..offer(1, 5, &[1]) }, at(5)).expect("taken");
    relay.child_up(key(1), at(100));
    assert_eq!((offers(&mut relay, 100), relay.next_wakeup(at(100))), (vec![], None));
    let refused = relay.offered(&PassedOffer { expires: at(50), ..offer(2, 6, &[1]) }, at(101)).expect_err("expired");
    assert_eq!(refused.code(), code::STATEMENT_EXPIRED);
}

#[test]
fn who_is_offered_the_same_by_a_later_firing_hears_of_that_one_alone() {
    let mut relay = relay();
    relay.offered(&offer(1, 5, &[1, 2]), at(5)).expect("taken");
    relay.offered(&offer(2, 6, &[1]), at(6)).expect("taken");
    relay.child_up(key(1), at(7));
    relay.child_up(key(2), at(7));
    assert_eq!(offers(&mut relay, 7), [(1, 2, vec![1]), (2, 1, vec![2])]);
}

#[test]
fn firings_of_one_distribution_have_an_end() {
    let mut relay = Relay::new(key(9), [], Limits { relayed_firings_max: 2, ..Limits::DEFAULT });
    for of in 1..=3 {
        relay.offered(&offer(of, 5, &[of]), at(5)).expect("taken");
    }
    let known: Vec<_> = relay.passed(&SITE).expect("kept").firings().map(|(id, _)| *id).collect();
    assert_eq!(known, [firing(2), firing(3)]);
}

#[test]
fn what_a_child_refuses_for_itself_is_still_offered_to_those_behind_it_and_again_when_the_parent_repeats_it() {
    let mut relay = relay();
    relay.child_up(key(1), at(1));
    relay.offered(&offer(1, 5, &[1, 11]), at(1)).unwrap();
    assert_eq!(offers(&mut relay, 1), [(1, 1, vec![1, 11])]);
    let refused = OfferAnswer::Refused(Refused::new(code::BELOW_FLOOR, "newer is here"));
    relay.answered(&key(1), &SITE, &firing(1), &refused, at(1));
    assert_eq!(offers(&mut relay, 30), []);
    assert_eq!(offers(&mut relay, 31), [(1, 1, vec![11])]);
    relay.answered(&key(1), &SITE, &firing(1), &OfferAnswer::Relays, at(31));
    assert_eq!(relay.next_wakeup(at(31)), None);
    // The parent would not offer it again if it took it for done.
    relay.offered(&offer(1, 5, &[1]), at(40)).unwrap();
    assert_eq!(offers(&mut relay, 40), [(1, 1, vec![1, 11])]);
    relay.answered(&key(1), &SITE, &firing(1), &OfferAnswer::Relays, at(40));
    relay.done(&key(11), &SITE, &firing(1));
    relay.offered(&offer(1, 5, &[1]), at(50)).unwrap();
    assert_eq!(offers(&mut relay, 50), [(1, 1, vec![1])]);
    relay.answered(&key(1), &SITE, &firing(1), &refused, at(50));
    assert_eq!(relay.next_wakeup(at(50)), None, "who refused alone is left alone");
}

#[test]
fn whom_a_child_reached_before_its_entitlements_came_is_reached_through_it_afterwards() {
    let mut relay = Relay::new(key(9), [], Limits::DEFAULT);
    let behind = |numbers: &[u8]| numbers.iter().map(|number| key(*number)).collect::<BTreeSet<_>>();
    relay.entitled(BTreeMap::from([(key(1), behind(&[])), (key(2), behind(&[]))]), at(0));
    relay.child_up(key(1), at(1));
    relay.child_up(key(2), at(1));
    relay.presence(&key(2), true, &[key(12)], &[], at(1));
    assert_eq!(relay.hop_to(&key(12)), None);
    relay.entitled(BTreeMap::from([(key(1), behind(&[12])), (key(2), behind(&[12]))]), at(2));
    assert_eq!(relay.hop_to(&key(12)), Some(key(2)));
}
