//! How a firing's parts go from state to state, and when it is over. Time is in seconds.

use super::*;
use crate::error::Coded;
use crate::id::Revision;
use crate::protocol::{OfferAnswer, Refused};
use crate::security::{Receipt, Stage};

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
    let start = FiringStart {
        id: ID,
        channel: "nightly".parse().expect("valid"),
        priority: Priority::Medium,
        until,
        cause: Cause::Send,
        closes: None,
    };
    Firing::start(start, targets, at(0))
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
    assert!(emptied.remove(&subscriber(1), at(1)) && !emptied.remove(&subscriber(1), at(1)));
    assert!(emptied.is_over());
}

/// A firing's records, as a catalog keeps them.
#[derive(Default)]
struct Kept(std::collections::BTreeMap<FiringRecord, Vec<u8>>);

impl Kept {
    /// Persists what changed, and says how many records and bytes that were.
    fn keep(&mut self, firing: &mut Firing) -> (usize, usize) {
        let changes = firing.take_changes(&Limits::DEFAULT).expect("small");
        let written = (changes.len(), changes.iter().filter_map(|(_, bytes)| bytes.as_ref()).map(Vec::len).sum());
        for (record, bytes) in changes {
            match bytes {
                Some(bytes) => self.0.insert(record, bytes),
                None => self.0.remove(&record),
            };
        }
        written
    }

    fn restore(&self) -> Firing {
        let limits = Limits::DEFAULT;
        let head = FiringHead::decode(&self.0[&FiringRecord::Head], &limits).expect("as written");
        let parts = self.0.iter().filter(|(record, _)| **record != FiringRecord::Head);
        let parts = parts.map(|(_, bytes)| Part::decode(bytes, &limits).expect("as written")).collect();
        Firing::restore(head, parts)
    }
}

#[test]
fn a_persisted_firing_comes_back_with_nobody_connected() {
    let (mut firing, mut kept) = (firing(3, Until::Received), Kept::default());
    kept.keep(&mut firing);
    firing.offered(&subscriber(1), &SITE, at(1));
    firing.answered(&subscriber(1), &SITE, &want(), at(1));
    firing.receipt(&subscriber(2), &receipt(Stage::Verified, 2), at(2));
    firing.relays(&FiringTarget { subscriber: subscriber(7), ..firing.parts()[0].target() }, at(2));
    firing.remove(&subscriber(3), at(2));
    kept.keep(&mut firing);
    let read = kept.restore();
    assert_eq!(read.counts(), Counts { pending: 1, verified: 1, ..Counts::default() });
    assert_eq!((read.id(), read.channel(), read.until()), (firing.id(), firing.channel(), firing.until()));
    firing.disconnected(&subscriber(1), at(1));
    assert_eq!((read.parts(), read.outcome()), (firing.parts(), firing.outcome()));
}

#[test]
fn a_receipt_costs_one_small_record_whatever_the_number_of_subscribers() {
    let (mut firing, mut kept) = (firing(200, Until::Extracted), Kept::default());
    assert_eq!(kept.keep(&mut firing).0, 201);
    firing.receipt(&subscriber(7), &receipt(Stage::Verified, 1), at(1));
    let (records, bytes) = kept.keep(&mut firing);
    assert!(records == 1 && bytes < 256, "{records} records, {bytes} bytes");
    firing.receiving(&subscriber(8), &SITE, (1, 10), at(1));
    assert_eq!(kept.keep(&mut firing).0, 1, "it receives now");
    firing.receiving(&subscriber(8), &SITE, (2, 10), at(1));
    firing.heard(&subscriber(8), &SITE, at(2));
    assert_eq!(kept.keep(&mut firing).0, 0, "how much of it is there is a hint");
    for number in 1..=200 {
        firing.receipt(&subscriber(number), &receipt(Stage::Extracted, 2), at(3));
    }
    assert_eq!(kept.keep(&mut firing).0, 201, "the head says that it is over");
    assert_eq!(kept.restore().head().ended, Some(at(3)));
}

#[test]
fn a_relay_never_keeps_a_firing_open_and_what_goes_wrong_there_shows() {
    let mut firing = firing(1, Until::Extracted);
    let hop = FiringTarget { subscriber: subscriber(9), ..firing.parts()[0].target() };
    assert!(firing.relays(&hop, at(1)) && !firing.relays(&hop, at(1)));
    assert_eq!(firing.offers(&hop.subscriber, at(1)), [], "it is offered what is due to those behind it");
    firing.offered(&hop.subscriber, &SITE, at(1));
    firing.offered_over(&subscriber(1), &SITE, Some(hop.subscriber), at(1));
    firing.receipt(&hop.subscriber, &receipt(Stage::Corrupt, 2), at(2));
    let part = firing.part(&hop.subscriber, &SITE).expect("there");
    assert_eq!((part.role, part.state, part.code.as_deref()), (PartRole::Relay, PartState::Corrupt, Some("TED-1355")));
    assert_eq!(firing.counts().total(), 1, "relays are not counted");
    firing.receipt(&subscriber(1), &receipt(Stage::Extracted, 3), at(3));
    assert_eq!(firing.outcome(), Outcome::Complete);
}

#[test]
fn who_waits_for_something_known_or_is_behind_a_hop_that_is_heard_is_not_silent() {
    let mut firing = firing(3, Until::Extracted);
    let hop = FiringTarget { subscriber: subscriber(9), ..firing.parts()[0].target() };
    firing.relays(&hop, at(1));
    for number in 1..=3 {
        firing.offered(&subscriber(number), &SITE, at(1));
    }
    firing.offered_over(&subscriber(2), &SITE, Some(hop.subscriber), at(1));
    firing.waits(&subscriber(1), &SITE, Some((WaitingFor::Window, Some(at(900)))), at(2));
    assert!(!firing.tick(Silence::default(), at(3)));
    firing.heard(&hop.subscriber, &SITE, at(200));
    assert!(firing.tick(Silence::default(), at(400)), "the third one");
    assert_eq!(firing.counts(), Counts { offered: 2, timed_out: 1, ..Counts::default() });
    assert!(!firing.tick(Silence::default(), at(499)));
    assert!(firing.tick(Silence::default(), at(500)), "the hop is silent too");
    firing.waits(&subscriber(1), &SITE, None, at(600));
    assert!(!firing.tick(Silence::default(), at(899)));
    assert!(firing.tick(Silence::default(), at(900)));
}

#[test]
fn a_reason_keeps_its_time_and_goes_when_the_delivery_goes_on() {
    let mut firing = firing(1, Until::Extracted);
    let one = subscriber(1);
    assert!(firing.waits(&one, &SITE, Some((WaitingFor::Parent, None)), at(1)));
    assert!(!firing.waits(&one, &SITE, Some((WaitingFor::Parent, None)), at(2)), "it is the same still");
    let waiting = firing.parts()[0].waiting.expect("said");
    assert_eq!((waiting.waiting_for, waiting.since), (WaitingFor::Parent, at(1)));
    firing.offered(&one, &SITE, at(3));
    assert_eq!(firing.parts()[0].waiting, None);
    firing.receipt(&one, &receipt(Stage::Extracted, 4), at(4));
    assert!(!firing.waits(&one, &SITE, Some((WaitingFor::Pause, None)), at(5)), "it waits for nothing");
    let times = firing.parts()[0].times;
    assert_eq!((times.offered, times.received, times.extracted), (Some(at(3)), None, Some(at(4))));
}

#[test]
fn a_window_that_closes_ends_a_firing_which_stays_partial() {
    let mut firing = firing(1, Until::Extracted);
    firing.close(at(5));
    assert_eq!((firing.outcome(), firing.head().end), (Outcome::Partial, Some(FiringEnd::Closed)));
    assert_eq!((firing.is_over(), firing.head().ended), (true, Some(at(5))));
}

#[test]
fn damaged_and_later_forms_are_told_apart() {
    let limits = Limits::DEFAULT;
    let bytes = firing(1, Until::Received).parts()[0].encode(&limits).expect("small");
    let mut later = bytes.clone();
    later[0] = 2;
    assert_eq!(Part::decode(&later, &limits).expect_err("later").code(), "TED-1370");
    for length in 0..bytes.len() {
        assert_eq!(Part::decode(&bytes[..length], &limits).expect_err("cut").code(), "TED-1371", "{length}");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 2..300)) {
        bytes[..2].copy_from_slice(&[1, 0]);
        let limits = Limits::DEFAULT;
        let parts: Vec<_> = Part::decode(&bytes, &limits).into_iter().collect();
        if let Ok(head) = FiringHead::decode(&bytes, &limits) {
            let _ = Firing::restore(head, parts).next_wakeup(Silence::default(), at(1));
        }
    }
}
