//! The events of the library keep their shape on the way to whoever listens.

use ted_core::id::{ContentId, Revision, UnixMillis};

use ted_cli::events::flat;
use ted_cli::units::Time;
use ted_core::SubscriberEvent;

#[test]
fn events_are_flat_with_time_hex_identifiers_and_progress() {
    let at = Time(UnixMillis::from_millis(1_800_000_000_000));
    let distribution: ted_core::Label = "site".parse().expect("valid");
    let revision = Revision::from_number(7);
    let receiving =
        SubscriberEvent::Receiving { distribution: distribution.clone(), revision, bytes: 1, bytes_total: 2 };
    assert_eq!(
        flat(&receiving, at),
        Some(serde_json::json!({
            "event": "receiving", "at": "2027-01-15T08:00:00Z", "distribution": "site", "revision": 7,
            "done_bytes": 1, "total_bytes": 2
        }))
    );
    let content = ContentId::from_bytes([0xab; 32]);
    let target = "/srv/www".into();
    let extracted = SubscriberEvent::Extracted { distribution, revision, content, target, files_written: 3 };
    assert_eq!(
        flat(&extracted, at),
        Some(serde_json::json!({
            "event": "extracted", "at": "2027-01-15T08:00:00Z", "distribution": "site", "revision": 7,
            "content": "ab".repeat(32), "target": "/srv/www", "files_written": 3
        }))
    );
}
