//! How a firing's parts go from state to state, and when it is over. Time is in seconds.

use super::*;
use crate::protocol::Refused;

const SITE: DistributionId = DistributionId::from_bytes([5; 16]);
const ID: FiringId = FiringId::from_bytes([9; 16]);

fn subscriber(number: u8) -> KeyHash {
    KeyHash::from_bytes([number; 32])
}

fn at(seconds: u64) -> UnixMillis {
    UnixMillis::from_millis(seconds * 1000)
}

fn firing(subscribers: u8, until: Until) -> Firing {
    let targets = (1..=subscribers).rev().map(|number| FiringTarget {
        subscriber: subscriber(number),
        distribution: SITE,
        revision: Revision::from_number(7),
    });
    Firing::start(ID, "nightly".parse().expect("valid"), Priority::Medium, until, targets, at(0))
}

fn receipt(stage: Stage, made: u64) -> Receipt {
    Receipt {
        firing: Some(ID),
        distribution: SITE,
        revision: Revision::from_number(7),
        package: None,
        stage,
        code: matches!(stage, Stage::Failed | Stage::Corrupt).then(|| "TED-1355".to_owned()),
        detail: String::new(),
        at: at(made),
    }
}

fn want() -> OfferAnswer {
    OfferAnswer::Want { packages: Vec::new() }
}

/// The first Subscriber's part after these receipts, each with the time at which it was made.
fn after(until: Until, receipts: &[(Stage, u64)]) -> (PartState, Outcome) {
    let mut firing = firing(1, until);
    firing.offered(&subscriber(1), &SITE, at(1));
    firing.answered(&subscriber(1), &SITE, &want(), at(2));
    for (stage, made) in receipts {
        firing.receipt(&subscriber(1), &receipt(*stage, *made), at(3));
    }
    (firing.parts()[0].state, firing.outcome())
}

#[test]
fn receipts_move_a_part_whatever_order_they_come_in() {
    use Outcome::{Complete, Open, Partial};
    use Stage::{Corrupt, Extracted, Failed, Received, Verified};
    for (receipts, state, until_extracted, until_received) in [
        (vec![], PartState::Receiving, Open, Open),
        (vec![(Received, 1)], PartState::Received, Open, Complete),
        (vec![(Verified, 2), (Received, 1)], PartState::Verified, Open, Complete),
        (vec![(Extracted, 3), (Verified, 2)], PartState::Extracted, Complete, Complete),
        (vec![(Extracted, 3), (Failed, 4)], PartState::Extracted, Complete, Complete),
        (vec![(Verified, 2), (Failed, 3)], PartState::Failed, Partial, Partial),
        (vec![(Failed, 3), (Verified, 2)], PartState::Failed, Partial, Partial),
        (vec![(Failed, 3), (Extracted, 2)], PartState::Extracted, Complete, Complete),
        (vec![(Failed, 3), (Verified, 4)], PartState::Verified, Open, Complete),
        (vec![(Corrupt, 1)], PartState::Corrupt, Partial, Partial),
        (vec![(Verified, 2), (Corrupt, 1)], PartState::Verified, Open, Complete),
    ] {
        assert_eq!(after(Until::Extracted, &receipts), (state, until_extracted), "{receipts:?}");
        assert_eq!(after(Until::Received, &receipts), (state, until_received), "{receipts:?}");
    }
}

#[test]
fn receipts_about_older_revisions_and_failures_of_other_firings_do_not_count() {
    let mut firing = firing(1, Until::Extracted);
    let older = Receipt { revision: Revision::from_number(6), ..receipt(Stage::Extracted, 1) };
    assert!(!firing.receipt(&subscriber(1), &older, at(1)));
    let other = Receipt { firing: Some(FiringId::from_bytes([1; 16])), ..receipt(Stage::Corrupt, 1) };
    assert!(!firing.receipt(&subscriber(1), &other, at(1)));
    assert!(!firing.receipt(&subscriber(2), &receipt(Stage::Extracted, 1), at(1)), "not a target");
    let newer = Receipt { firing: None, revision: Revision::from_number(8), ..receipt(Stage::Extracted, 1) };
    assert!(firing.receipt(&subscriber(1), &newer, at(1)));
    assert_eq!(firing.outcome(), Outcome::Complete);
}

#[test]
fn what_another_firing_reached_with_the_same_revision_does_not_count() {
    let before = Some(FiringId::from_bytes([1; 16]));
    for stage in [Stage::Received, Stage::Verified, Stage::Extracted] {
        let mut firing = firing(1, Until::Extracted);
        let late = Receipt { firing: before, ..receipt(stage, 1) };
        firing.receipt(&subscriber(1), &late, at(3));
        assert_eq!(firing.parts()[0].state, PartState::Pending, "{stage:?}: it may have been damaged since");
        let newer = Receipt { revision: Revision::from_number(8), ..late };
        firing.receipt(&subscriber(1), &newer, at(3));
        assert_ne!(firing.parts()[0].state, PartState::Pending, "{stage:?} of a newer revision");
    }
}

#[test]
fn what_failed_beside_an_extraction_is_told_and_the_delivery_counts() {
    let mut firing = firing(1, Until::Extracted);
    let failed = Receipt { stage: Stage::Failed, code: Some("TED-1900".into()), ..receipt(Stage::Failed, 1) };
    firing.receipt(&subscriber(1), &Receipt { detail: "not today".into(), ..failed }, at(1));
    let done = Receipt { code: Some("TED-1901".into()), detail: "no start".into(), ..receipt(Stage::Extracted, 2) };
    assert!(firing.receipt(&subscriber(1), &done, at(2)));
    let part = &firing.parts()[0];
    assert_eq!((part.state, part.code.as_deref(), &*part.detail), (PartState::Extracted, Some("TED-1901"), "no start"));
    assert_eq!(firing.outcome(), Outcome::Complete);
}

#[test]
fn a_part_is_offered_on_every_connection_until_it_is_done() {
    let mut firing = firing(2, Until::Extracted);
    let one = subscriber(1);
    assert_eq!(firing.offers(&one, at(0)).len(), 1);
    firing.offered(&one, &SITE, at(1));
    firing.answered(&one, &SITE, &want(), at(1));
    assert_eq!(firing.counts(), Counts { receiving: 1, pending: 1, ..Counts::default() });
    assert!(firing.disconnected(&one, at(2)));
    assert_eq!(firing.counts(), Counts { pending: 2, ..Counts::default() });
    assert_eq!(firing.offers(&one, at(3)).len(), 1, "again at once");
    firing.receipt(&one, &receipt(Stage::Verified, 4), at(4));
    assert_eq!(firing.offers(&one, at(5)).len(), 1, "its last receipt may be lost");
    firing.offered(&one, &SITE, at(5));
    firing.answered(&one, &SITE, &OfferAnswer::Current, at(5));
    assert_eq!(firing.parts()[0].state, PartState::Verified, "being offered again takes nothing back");
    firing.receipt(&one, &receipt(Stage::Extracted, 6), at(6));
    assert_eq!(firing.offers(&one, at(7)), []);
    assert_eq!(firing.outcome(), Outcome::Open, "the other one has nothing yet");
}

#[test]
fn corrupt_and_timed_out_parts_wait_for_the_next_firing_and_failed_ones_for_the_next_connection() {
    let mut firing = firing(3, Until::Extracted);
    for number in 1..=3 {
        firing.offered(&subscriber(number), &SITE, at(1));
        firing.answered(&subscriber(number), &SITE, &want(), at(1));
    }
    firing.receipt(&subscriber(1), &receipt(Stage::Corrupt, 2), at(2));
    firing.receipt(&subscriber(2), &receipt(Stage::Failed, 2), at(2));
    assert!(!firing.tick(Silence::default(), at(300)));
    assert!(firing.tick(Silence::default(), at(301)));
    assert_eq!(firing.counts(), Counts { corrupt: 1, failed: 1, timed_out: 1, ..Counts::default() });
    assert_eq!(firing.outcome(), Outcome::Partial);
    assert!(!firing.is_over(), "it may still become complete");
    for number in 1..=3 {
        firing.disconnected(&subscriber(number), at(400));
        assert_eq!(firing.offers(&subscriber(number), at(400)).len(), usize::from(number == 2));
    }
    firing.offered(&subscriber(2), &SITE, at(401));
    assert_eq!(firing.outcome(), Outcome::Open);
}

#[test]
fn a_late_receipt_overrides_a_timeout() {
    let mut firing = firing(1, Until::Extracted);
    firing.offered(&subscriber(1), &SITE, at(1));
    firing.tick(Silence::default(), at(500));
    assert_eq!(firing.parts()[0].code.as_deref(), Some(code::SILENCE));
    firing.receipt(&subscriber(1), &receipt(Stage::Extracted, 2), at(600));
    assert_eq!(firing.outcome(), Outcome::Complete);
    assert_eq!(firing.parts()[0].code, None);
}

#[test]
fn who_is_heard_or_not_connected_does_not_time_out() {
    let mut firing = firing(2, Until::Extracted);
    firing.offered(&subscriber(1), &SITE, at(1));
    firing.heard(&subscriber(1), &SITE, at(200));
    assert_eq!(firing.next_wakeup(Silence::default(), at(200)), Some(Duration::from_secs(300)));
    assert!(!firing.tick(Silence::default(), at(499)));
    firing.disconnected(&subscriber(1), at(499));
    assert!(!firing.tick(Silence::default(), at(9000)));
}

#[test]
fn later_is_offered_later_and_refusals_are_kept() {
    let mut firing = firing(1, Until::Extracted);
    let one = subscriber(1);
    firing.offered(&one, &SITE, at(1));
    firing.answered(&one, &SITE, &OfferAnswer::Later { until: at(60) }, at(1));
    assert_eq!(firing.offers(&one, at(59)), []);
    assert_eq!(firing.next_wakeup(Silence::default(), at(59)), Some(Duration::from_secs(1)));
    assert_eq!(firing.offers(&one, at(60)).len(), 1);
    firing.offered(&one, &SITE, at(60));
    let refused = Refused::new(code::BELOW_FLOOR, "older");
    firing.answered(&one, &SITE, &OfferAnswer::Refused(refused), at(60));
    assert_eq!(firing.parts()[0].code.as_deref(), Some(code::BELOW_FLOOR));
    firing.offered(&one, &SITE, at(61));
    firing.answered(&one, &SITE, &OfferAnswer::Refused(Refused::new(code::CORRUPT, "")), at(61));
    assert_eq!(firing.counts(), Counts { corrupt: 1, ..Counts::default() });
}

#[test]
fn a_firing_ends_by_cancelling_by_the_next_one_or_by_being_complete() {
    let mut cancelled = firing(1, Until::Received);
    cancelled.cancel(at(1));
    assert_eq!((cancelled.outcome(), cancelled.is_over()), (Outcome::Cancelled, true));
    assert_eq!(cancelled.offers(&subscriber(1), at(2)), []);
    cancelled.supersede(at(2));
    assert_eq!(cancelled.outcome(), Outcome::Cancelled, "it was over already");
    let mut superseded = firing(2, Until::Received);
    superseded.receipt(&subscriber(1), &receipt(Stage::Received, 1), at(1));
    superseded.supersede(at(2));
    assert_eq!((superseded.outcome(), superseded.is_over()), (Outcome::Partial, true));
    let mut complete = firing(1, Until::Received);
    complete.receipt(&subscriber(1), &receipt(Stage::Received, 1), at(1));
    complete.cancel(at(2));
    assert_eq!(complete.outcome(), Outcome::Complete);
    assert_eq!(firing(0, Until::Extracted).outcome(), Outcome::Complete, "nobody lacks anything");
    let mut emptied = firing(1, Until::Extracted);
    assert!(emptied.remove(&subscriber(1)) && !emptied.remove(&subscriber(1)));
    assert!(emptied.is_over());
}

#[test]
fn a_persisted_firing_comes_back_with_nobody_connected() {
    let limits = Limits::DEFAULT;
    let mut firing = firing(3, Until::Received);
    firing.offered(&subscriber(1), &SITE, at(1));
    firing.answered(&subscriber(1), &SITE, &want(), at(1));
    firing.receipt(&subscriber(2), &receipt(Stage::Verified, 2), at(2));
    let read = Firing::decode(&firing.encode(&limits).expect("small"), &limits).expect("as written");
    assert_eq!(read.counts(), Counts { pending: 2, verified: 1, ..Counts::default() });
    assert_eq!((read.id(), read.channel(), read.until()), (firing.id(), firing.channel(), firing.until()));
    firing.disconnected(&subscriber(1), at(1));
    assert_eq!(read, firing);
}

#[test]
fn damaged_and_later_forms_are_told_apart() {
    let limits = Limits::DEFAULT;
    let bytes = firing(1, Until::Received).encode(&limits).expect("small");
    let mut later = bytes.clone();
    later[0] = 2;
    assert_eq!(Firing::decode(&later, &limits).expect_err("later").code(), "TED-1370");
    for length in 0..bytes.len() {
        assert_eq!(Firing::decode(&bytes[..length], &limits).expect_err("cut").code(), "TED-1371", "{length}");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 2..200)) {
        bytes[..2].copy_from_slice(&[1, 0]);
        let _ = Firing::decode(&bytes, &Limits::DEFAULT);
    }
}
