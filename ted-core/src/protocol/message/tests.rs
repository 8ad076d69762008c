use proptest::prelude::*;

use super::*;
use crate::id::{DistributionId, FiringId, Revision};
use crate::model::Priority;
use crate::protocol::{Announced, ProgressEntry, ProgressState, WaitsFor, code};
use crate::security::EnvelopeKind;

const LIMITS: Limits = Limits::DEFAULT;

fn read(bytes: &[u8]) -> Message {
    let mut rest = bytes;
    let message = MessageReader::new(&LIMITS).push(&mut rest).expect("readable").expect("complete");
    assert!(rest.is_empty());
    message
}

fn greeting() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        node: "edge-1.example.com".parse().expect("valid"),
        instance: InstanceId::from_bytes([7; 16]),
        clock: UnixMillis::from_millis(1_800_000_000_000),
        capabilities: vec![1, 900],
        extensions: vec![(9, b"later".to_vec())],
    }
}

fn announcement(envelopes: usize) -> Announce {
    let (kind, id) = (EnvelopeKind::REVOCATION_LIST, EnvelopeId::from_bytes([6; 32]));
    Announce { recipient: None, envelopes: vec![Announced { kind, id, sequence: 9, bytes: 700 }; envelopes] }
}

fn numbered_keys(count: usize) -> Vec<KeyHash> {
    let key = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        KeyHash::from_bytes(bytes)
    };
    (0..count).map(key).collect()
}

fn presence(up: usize, down: usize) -> Presence {
    let mut named = numbered_keys(up + down);
    let down = named.split_off(up);
    Presence { reset: true, up: named, down }
}

fn progress(entries: usize) -> Vec<ProgressEntry> {
    let waiting = ProgressState::Waiting { waits_for: WaitsFor::Grant, until: Some(UnixMillis::from_millis(9)) };
    let states = [ProgressState::Offered, ProgressState::Receiving { bytes: 1, bytes_total: 2 }, waiting];
    let entry = |state| ProgressEntry {
        subscriber: KeyHash::from_bytes([8; 32]),
        distribution: DistributionId::from_bytes([2; 16]),
        revision: Revision::from_number(5),
        firing: FiringId::from_bytes([1; 16]),
        state,
        at: UnixMillis::from_millis(7),
    };
    states.into_iter().cycle().map(entry).take(entries).collect()
}

#[test]
fn every_request_comes_back_as_it_went() {
    for request in [
        Request::Hello(greeting()),
        Request::Offer(Offer {
            firing: FiringId::from_bytes([1; 16]),
            distribution: DistributionId::from_bytes([2; 16]),
            priority: Priority::High,
            statement: EnvelopeId::from_bytes([3; 32]),
            grants: vec![(PackageId::from_bytes([5; 32]), EnvelopeId::from_bytes([4; 32]))],
            recipients: vec![KeyHash::from_bytes([8; 32]), KeyHash::from_bytes([7; 32])],
            closes: Some(UnixMillis::from_millis(1_800_000_000_001)),
        }),
        Request::Fetch(Fetch { target: FetchTarget::Package(PackageId::from_bytes([5; 32])), from: 7, to: u64::MAX }),
        Request::Receipts(vec![vec![1, 2, 3], vec![4]]),
        Request::Enrol(vec![4]),
        Request::Announce(announcement(3)),
        Request::Announce(Announce { recipient: Some(KeyHash::from_bytes([8; 32])), ..announcement(1) }),
        Request::Presence(presence(2, 1)),
        Request::Progress(progress(3)),
    ] {
        let bytes = encode_request(&request, &LIMITS).expect("short");
        assert_eq!(decode_request(&read(&bytes), &LIMITS).expect("valid"), request);
    }
}

#[test]
fn every_answer_comes_back_as_it_went() {
    for answer in [
        Answer::Hello(greeting()),
        Answer::Offer(OfferAnswer::Current),
        Answer::Offer(OfferAnswer::Relays),
        Answer::Offer(OfferAnswer::Want { packages: vec![PackageId::from_bytes([5; 32])] }),
        Answer::Offer(OfferAnswer::Later { until: UnixMillis::from_millis(5) }),
        Answer::Offer(OfferAnswer::Refused(Refused::new(code::BELOW_FLOOR, "older"))),
        Answer::Fetch(FetchAnswer { total_bytes: 99 }),
        Answer::Receipts(ReceiptsAnswer { refused: vec![(3, Refused::new(code::BUSY, "later"))] }),
        Answer::Enrol(vec![4]),
        Answer::Announce(AnnounceAnswer {
            holds: vec![EnvelopeId::from_bytes([6; 32])],
            refused: vec![(EnvelopeId::from_bytes([7; 32]), Refused::new(code::NOT_FOUND, "gone"))],
        }),
        Answer::Presence,
        Answer::Progress,
        Answer::Unsupported { kind: 77 },
        Answer::Refused(Refused::new(code::NOT_FOUND, "no such package")),
    ] {
        let bytes = encode_answer(&answer, &LIMITS).expect("short");
        assert_eq!(decode_answer(&read(&bytes), &LIMITS).expect("valid"), answer);
    }
}

/// The bytes of `docs/protocol.md`'s example. They must never change.
#[test]
fn the_documented_fetch_has_these_bytes() {
    let fetch = Fetch { target: FetchTarget::Package(PackageId::from_bytes([0xaa; 32])), from: 1, to: 0x0203 };
    let bytes = encode_request(&Request::Fetch(fetch), &LIMITS).expect("short");
    let mut expected = vec![54, 0, 0, 0, 3, 0, 0, 0, 0, 0];
    expected.extend([0xaa; 32]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes, expected);
}

#[test]
fn unknown_kinds_are_answered_not_fatal() {
    let message = Message { kind: 4711, payload: vec![1, 2, 3] };
    assert_eq!(decode_request(&message, &LIMITS).expect("not fatal"), Request::Unknown { kind: 4711 });
    let error = decode_answer(&message, &LIMITS).expect_err("not an answer");
    assert_eq!(error.code(), "TED-1333");
}

#[test]
fn lengths_are_judged_before_anything_is_allocated() {
    for announced in [0, 1, 64 * 1024 + 1, u32::MAX] {
        let bytes = announced.to_le_bytes();
        let error = MessageReader::new(&LIMITS).push(&mut bytes.as_slice()).expect_err("out of bounds");
        assert_eq!(error.code(), "TED-1330", "{announced}");
    }
    assert!(encode_request(&Request::Receipts(vec![vec![0; 64 * 1024]]), &LIMITS).is_err());
}

#[test]
fn a_fetch_that_ends_before_it_starts_is_refused() {
    let fetch = Fetch { target: FetchTarget::Envelope(EnvelopeId::from_bytes([0; 32])), from: 2, to: 1 };
    let bytes = encode_request(&Request::Fetch(fetch), &LIMITS).expect("short");
    assert_eq!(decode_request(&read(&bytes), &LIMITS).expect_err("impossible").code(), "TED-1332");
}

#[test]
fn an_offer_that_names_too_many_grants_or_one_twice_is_refused() {
    let package = |number: usize| PackageId::from_bytes([number as u8; 32]);
    let grants =
        |of: &mut dyn Iterator<Item = usize>| of.map(|n| (package(n), EnvelopeId::from_bytes([9; 32]))).collect();
    for (grants, code) in [
        (grants(&mut (0..0)), None),
        (grants(&mut (0..64)), None),
        (grants(&mut (0..65)), Some("TED-1332")),
        (grants(&mut [1, 2, 1].into_iter()), Some("TED-1332")),
    ] {
        let offer = Offer {
            firing: FiringId::from_bytes([1; 16]),
            distribution: DistributionId::from_bytes([2; 16]),
            priority: Priority::High,
            statement: EnvelopeId::from_bytes([3; 32]),
            grants,
            recipients: vec![KeyHash::from_bytes([8; 32])],
            closes: None,
        };
        let bytes = encode_request(&Request::Offer(offer), &LIMITS).expect("short");
        assert_eq!(decode_request(&read(&bytes), &LIMITS).err().map(|error| error.code()), code);
    }
}

#[test]
fn an_announcement_that_names_too_much_is_refused() {
    for (envelopes, code) in [(64, None), (65, Some("TED-1332"))] {
        let bytes = encode_request(&Request::Announce(announcement(envelopes)), &LIMITS).expect("short");
        assert_eq!(decode_request(&read(&bytes), &LIMITS).err().map(|error| error.code()), code);
    }
}

#[test]
fn what_tiers_say_is_refused_when_it_names_too_much_or_nobody_or_somebody_twice() {
    let offer = |recipients: Vec<KeyHash>| {
        Request::Offer(Offer {
            firing: FiringId::from_bytes([1; 16]),
            distribution: DistributionId::from_bytes([2; 16]),
            priority: Priority::Low,
            statement: EnvelopeId::from_bytes([3; 32]),
            grants: (0..64).map(|n| (PackageId::from_bytes([n; 32]), EnvelopeId::from_bytes([9; 32]))).collect(),
            recipients,
            closes: None,
        })
    };
    let twice = Presence { reset: false, up: numbered_keys(2), down: numbered_keys(1) };
    for (request, code) in [
        (offer(numbered_keys(1)), None),
        (offer(numbered_keys(1000)), None),
        (offer(vec![]), Some("TED-1332")),
        (offer(numbered_keys(1001)), Some("TED-1332")),
        (offer([numbered_keys(2), numbered_keys(1)].concat()), Some("TED-1332")),
        (Request::Presence(Presence::default()), None),
        (Request::Presence(presence(999, 1)), None),
        (Request::Presence(presence(999, 2)), Some("TED-1332")),
        (Request::Presence(twice), Some("TED-1332")),
        (Request::Progress(progress(500)), None),
        (Request::Progress(progress(501)), Some("TED-1332")),
        (Request::Receipts(vec![vec![1]; 48]), None),
        (Request::Receipts(vec![vec![1]; 49]), Some("TED-1332")),
        (Request::Receipts(vec![]), Some("TED-1332")),
    ] {
        let bytes = encode_request(&request, &LIMITS).expect("short");
        assert_eq!(decode_request(&read(&bytes), &LIMITS).err().map(|error| error.code()), code);
    }
}

#[test]
fn every_receipt_of_a_message_can_be_refused_at_length_and_none_twice() {
    let refusal = |place| (place, Refused::new(code::INTERNAL, "x".repeat(2000)));
    for (places, code) in [((0..48).collect::<Vec<u16>>(), None), (vec![1, 1], Some("TED-1332"))] {
        let answer = ReceiptsAnswer { refused: places.into_iter().map(refusal).collect() };
        let bytes = encode_answer(&Answer::Receipts(answer), &LIMITS).expect("short");
        assert_eq!(decode_answer(&read(&bytes), &LIMITS).err().map(|error| error.code()), code);
    }
}

proptest! {
    #[test]
    fn arbitrary_payloads_never_panic(kind in prop_oneof![0u16..10, 0x8000u16..0x800a, 0xfffdu16.., any::<u16>()],
                                      payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let message = Message { kind, payload };
        let _ = decode_request(&message, &LIMITS);
        let _ = decode_answer(&message, &LIMITS);
    }

    #[test]
    fn a_message_is_cut_out_of_any_pieces(cuts in proptest::collection::vec(1usize..9, 1..40)) {
        let mut bytes = encode_request(&Request::Hello(greeting()), &LIMITS).expect("short");
        bytes.extend_from_slice(b"what follows");
        let mut reader = MessageReader::new(&LIMITS);
        let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
        let message = loop {
            let (mut piece, after) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
            let done = reader.push(&mut piece).expect("valid");
            let taken = rest.len() - after.len() - piece.len();
            rest = &rest[taken..];
            if let Some(message) = done { break message; }
        };
        prop_assert_eq!(decode_request(&message, &LIMITS).expect("valid"), Request::Hello(greeting()));
        prop_assert_eq!(rest, b"what follows");
    }
}
