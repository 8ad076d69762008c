//! What the receiver asks for, in which order, and when it stops. Time is in whole seconds.

use super::*;
use crate::id::PackageId;
use crate::protocol::code;

const FRAME: u64 = 10;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn options() -> ReceiverOptions {
    let limits = Limits { sync_interval_bytes: 30, receive_buffer_bytes: 50, fetches_max: 2, ..Limits::DEFAULT };
    ReceiverOptions { limits, silence: Silence::default() }
}

/// A receiver of `frames` frames of ten bytes each, which lie at byte 100, and have these already.
fn receiver(frames: usize, present: &[u64]) -> Receiver {
    let layout = FrameLayout::new(100, vec![FRAME as u32; frames], &Limits::DEFAULT).expect("few");
    let mut map = FrameMap::empty(PackageId::from_bytes([1; 32]), 999, frames as u64, &Limits::DEFAULT).expect("few");
    for frame in present {
        map.insert(*frame);
    }
    Receiver::new(layout, map, &options(), seconds(0)).expect("fits")
}

fn fetch(number: u64, from: u64, to: u64) -> Option<Action> {
    Some(Action::Fetch { fetch: FetchNumber(number), from, to })
}

fn bring(receiver: &mut Receiver, number: u64, bytes: usize) -> Vec<u64> {
    let cuts = receiver.received(FetchNumber(number), bytes, seconds(1));
    cuts.iter().filter(|cut| cut.completes).map(|cut| cut.frame).collect()
}

/// Takes frames that arrived through checking and writing.
fn store(receiver: &mut Receiver, frames: &[u64]) {
    for frame in frames {
        receiver.frame_good(*frame);
        let write = Action::Write { frame: *frame, offset: 100 + frame * FRAME };
        assert_eq!(receiver.poll(seconds(1)), Some(write));
        receiver.written(*frame, seconds(1));
    }
}

#[test]
fn a_package_without_frames_and_one_that_is_complete_finish_at_once() {
    for mut receiver in [receiver(0, &[]), receiver(2, &[0, 1])] {
        assert_eq!(receiver.poll(seconds(0)), Some(Action::Finish));
        assert_eq!(receiver.poll(seconds(0)), None);
        assert_eq!(receiver.next_wakeup(seconds(0)), None);
    }
}

#[test]
fn only_missing_frames_are_asked_for_each_run_on_its_own_stream() {
    let mut receiver = receiver(7, &[1, 4]);
    assert_eq!(receiver.poll(seconds(0)), fetch(0, 100, 110));
    assert_eq!(receiver.poll(seconds(0)), fetch(1, 120, 140));
    assert_eq!(receiver.poll(seconds(0)), None, "two streams are allowed");
    assert_eq!(bring(&mut receiver, 0, 10), [0]);
    assert_eq!(receiver.poll(seconds(0)), fetch(2, 150, 170));
    assert_eq!(receiver.progress(), Progress { frames_written: 2, frames: 7, bytes_written: 20, bytes: 70 });
}

#[test]
fn bytes_are_cut_into_frames_wherever_pieces_end() {
    let mut receiver = receiver(3, &[]);
    assert_eq!(receiver.poll(seconds(0)), fetch(0, 100, 130));
    let mut buffers = FrameBuffers::default();
    let layout = receiver.layout.clone();
    let file: Vec<u8> = (0..130).collect();
    let mut complete = Vec::new();
    for (from, to) in [(100, 103), (103, 110), (110, 125), (125, 130)] {
        let cuts = receiver.received(FetchNumber(0), to - from, seconds(1));
        complete.extend(buffers.append(&layout, &cuts, &file[from..to]));
    }
    let expected: Vec<_> = [100, 110, 120].into_iter().map(|at| file[at..at + 10].to_vec()).collect();
    assert_eq!(complete, (0..).zip(expected).collect::<Vec<_>>());
    assert!(buffers.begun.is_empty());
}

#[test]
fn the_map_follows_the_sync_and_names_only_what_was_written_before_it() {
    let mut receiver = receiver(5, &[]);
    assert_eq!(receiver.poll(seconds(0)), fetch(0, 100, 150));
    let frames = bring(&mut receiver, 0, 40);
    store(&mut receiver, &frames[..3]);
    assert_eq!(receiver.poll(seconds(1)), Some(Action::SyncData), "30 bytes are written");
    store(&mut receiver, &frames[3..]);
    assert_eq!(receiver.poll(seconds(1)), None, "one sync at a time, and no map before it is done");
    receiver.map_written();
    assert_eq!(receiver.poll(seconds(1)), None, "no map was being written");
    receiver.synced();
    let Some(Action::WriteMap(map)) = receiver.poll(seconds(1)) else { panic!("the map follows") };
    assert_eq!((0..5).filter(|frame| map.has(*frame)).collect::<Vec<_>>(), [0, 1, 2], "3 was written meanwhile");
    assert_eq!(bring(&mut receiver, 0, 10), [4], "receiving went on meanwhile");
    store(&mut receiver, &[4]);
    assert_eq!(receiver.poll(seconds(1)), None, "the map is being written");
    receiver.map_written();
    assert_eq!(receiver.poll(seconds(1)), Some(Action::SyncData), "everything is written");
    receiver.synced();
    let Some(Action::WriteMap(map)) = receiver.poll(seconds(1)) else { panic!("the map follows") };
    assert!(map.is_complete());
    assert_eq!(receiver.poll(seconds(1)), None, "not before the map is durable");
    receiver.map_written();
    assert_eq!(receiver.poll(seconds(1)), Some(Action::Finish));
}

#[test]
fn little_that_was_written_is_synced_after_a_while_and_when_the_link_breaks() {
    let begun = || {
        let mut receiver = receiver(5, &[]);
        receiver.poll(seconds(0));
        let frames = bring(&mut receiver, 0, 10);
        store(&mut receiver, &frames);
        assert_eq!(receiver.poll(seconds(1)), None);
        receiver
    };
    let mut slow = begun();
    assert_eq!(slow.next_wakeup(seconds(1)), Some(seconds(21)));
    assert_eq!(slow.poll(seconds(21)), Some(Action::SyncData));
    let mut broken = begun();
    broken.link_down();
    assert_eq!(broken.poll(seconds(1)), Some(Action::SyncData));
}

#[test]
fn after_a_break_the_rest_of_a_frame_is_asked_for() {
    let mut receiver = receiver(4, &[]);
    assert_eq!(receiver.poll(seconds(0)), fetch(0, 100, 140));
    assert_eq!(bring(&mut receiver, 0, 14), [0]);
    receiver.link_down();
    assert_eq!(receiver.poll(seconds(2)), None);
    assert!(bring(&mut receiver, 0, 9).is_empty(), "the stream is dead");
    receiver.link_up(seconds(3));
    assert_eq!(receiver.poll(seconds(3)), fetch(1, 114, 140));
    assert_eq!(bring(&mut receiver, 1, 26), [1, 2, 3]);
}

#[test]
fn a_bad_frame_is_asked_for_alone_and_does_not_disturb_a_kept_beginning() {
    let mut receiver = receiver(4, &[]);
    assert_eq!(receiver.poll(seconds(0)), fetch(0, 100, 140));
    assert_eq!(bring(&mut receiver, 0, 14), [0]);
    receiver.frame_bad(0, seconds(1));
    assert_eq!(receiver.poll(seconds(1)), fetch(1, 100, 110));
    receiver.fetch_failed(FetchNumber(0), FetchFailure::Broken, seconds(1));
    receiver.fetch_failed(FetchNumber(1), FetchFailure::Broken, seconds(1));
    let retry = receiver.next_wakeup(seconds(1)).expect("a pause");
    assert_eq!(receiver.poll(seconds(1)), None);
    assert_eq!(receiver.poll(retry), fetch(2, 114, 140), "what is kept comes first");
    assert_eq!(receiver.poll(retry), fetch(3, 100, 110), "a run ends where a beginning is kept");
}

#[test]
fn three_failures_of_a_frame_are_corrupt() {
    let mut receiver = receiver(1, &[]);
    for number in 0..3 {
        assert_eq!(receiver.poll(seconds(1)), fetch(number, 100, 110));
        assert_eq!(bring(&mut receiver, number, 10), [0]);
        receiver.frame_bad(0, seconds(1));
    }
    assert_eq!(receiver.poll(seconds(1)), Some(Action::GiveUp(GiveUp::Corrupt { frame: Some(0) })));
    assert_eq!(receiver.poll(seconds(1)), None);
}

#[test]
fn sixteen_failures_in_a_package_are_corrupt() {
    let mut receiver = receiver(20, &[]);
    receiver.poll(seconds(0));
    let mut arrived = Vec::new();
    for _ in 0..20 {
        arrived.extend(bring(&mut receiver, 0, 10));
    }
    for frame in &arrived[..15] {
        receiver.frame_bad(*frame, seconds(1));
    }
    assert!(!matches!(receiver.poll(seconds(1)), Some(Action::GiveUp(_))));
    receiver.frame_bad(arrived[15], seconds(1));
    assert_eq!(receiver.poll(seconds(1)), Some(Action::GiveUp(GiveUp::Corrupt { frame: Some(15) })));
}

#[test]
fn a_peer_that_sends_too_much_or_ends_early_is_asked_again_later() {
    let mut flood = receiver(2, &[]);
    flood.poll(seconds(0));
    assert!(bring(&mut flood, 0, 21).is_empty());
    assert_eq!(flood.poll(seconds(1)), Some(Action::Cancel { fetch: FetchNumber(0) }));
    assert_eq!(flood.poll(seconds(1)), None);
    assert_eq!(flood.poll(seconds(2)), fetch(1, 100, 120));
    flood.fetch_ended(FetchNumber(1), seconds(2));
    assert_eq!(flood.poll(seconds(2)), None);
    assert_eq!(flood.poll(seconds(3)), fetch(2, 100, 120));
}

#[test]
fn a_fetch_that_brought_everything_cannot_fail_any_more() {
    let mut receiver = receiver(1, &[]);
    receiver.poll(seconds(0));
    assert_eq!(bring(&mut receiver, 0, 10), [0]);
    let refused = Refused::new(code::NOT_FOUND, "");
    receiver.fetch_failed(FetchNumber(0), FetchFailure::Refused(refused), seconds(1));
    assert_eq!(receiver.poll(seconds(1)), None);
}

#[test]
fn a_final_refusal_ends_it_and_a_busy_peer_does_not() {
    let mut busy = receiver(1, &[]);
    busy.poll(seconds(0));
    busy.fetch_failed(FetchNumber(0), FetchFailure::Refused(Refused::new(code::BUSY, "")), seconds(1));
    assert_eq!(busy.poll(seconds(2)), fetch(1, 100, 110));
    let refused = Refused::new(code::NOT_FOUND, "");
    busy.fetch_failed(FetchNumber(1), FetchFailure::Refused(refused.clone()), seconds(2));
    assert_eq!(busy.poll(seconds(2)), Some(Action::GiveUp(GiveUp::Refused(refused))));
}

#[test]
fn silence_ends_it_but_waiting_slowness_and_a_missing_link_do_not() {
    let mut receiver = receiver(1, &[]);
    receiver.poll(seconds(0));
    receiver.heard(seconds(299));
    assert_eq!(receiver.poll(seconds(300)), None, "a waiting block came");
    receiver.received(FetchNumber(0), 1, seconds(598));
    assert_eq!(receiver.poll(seconds(600)), None, "a byte came");
    receiver.link_down();
    assert_eq!(receiver.poll(seconds(9000)), None, "there is no connection");
    receiver.link_up(seconds(9001));
    assert_eq!(receiver.poll(seconds(9001)), fetch(1, 101, 110));
    assert_eq!(receiver.next_wakeup(seconds(9001)), Some(seconds(9301)));
    assert_eq!(receiver.poll(seconds(9301)), Some(Action::GiveUp(GiveUp::Silence)));
}

#[test]
fn a_slow_disk_stops_the_reading_and_is_not_the_peers_silence() {
    let mut receiver = receiver(8, &[]);
    receiver.poll(seconds(0));
    let frames = bring(&mut receiver, 0, 55);
    assert!(!receiver.may_read(), "50 bytes are allowed between network and disk");
    assert_eq!(receiver.poll(seconds(400)), None);
    receiver.frame_good(frames[0]);
    assert!(matches!(receiver.poll(seconds(400)), Some(Action::Write { .. })));
    receiver.written(frames[0], seconds(401));
    assert!(receiver.may_read());
    assert_eq!(receiver.poll(seconds(401)), None);
    assert_eq!(receiver.next_wakeup(seconds(401)).map(|at| at.as_secs()), Some(421), "to sync, not to give up");
}

#[test]
fn a_disk_that_is_slow_at_the_end_is_not_the_peers_silence_either() {
    let mut receiver = receiver(1, &[]);
    receiver.poll(seconds(0));
    assert_eq!(bring(&mut receiver, 0, 10), [0]);
    assert_eq!(receiver.poll(seconds(1000)), None, "nothing is owed any more");
    receiver.frame_bad(0, seconds(1000));
    assert_eq!(receiver.poll(seconds(1000)), fetch(1, 100, 110));
}

#[test]
fn events_out_of_place_change_nothing() {
    let mut receiver = receiver(2, &[]);
    receiver.frame_good(0);
    receiver.written(0, seconds(0));
    receiver.frame_bad(7, seconds(0));
    receiver.synced();
    receiver.fetch_ended(FetchNumber(9), seconds(0));
    assert_eq!(receiver.poll(seconds(0)), fetch(0, 100, 120));
    assert_eq!(receiver.poll(seconds(0)), None);
}

#[test]
fn a_map_about_another_number_of_frames_is_refused() {
    let layout = FrameLayout::new(0, [1, 2], &Limits::DEFAULT).expect("valid");
    let map = FrameMap::empty(PackageId::from_bytes([1; 32]), 9, 3, &Limits::DEFAULT).expect("few");
    assert!(Receiver::new(layout, map, &options(), seconds(0)).is_err());
}
