//! The events of the library keep their shape on the way to whoever listens.

use ted_core::id::{FiringId, UnixMillis};

use ted_cli::events::flat;
use ted_cli::units::Time;
use ted_core::DistributorEvent;
use ted_core::distributor::BuildPhase;

#[test]
fn events_are_flat_with_time_hex_identifiers_and_progress() {
    let at = Time(UnixMillis::from_millis(1_800_000_000_000));
    let building = DistributorEvent::Building {
        distribution: "site".parse().expect("valid"),
        phase: BuildPhase::Delta,
        bytes: 1,
        bytes_total: 2,
    };
    assert_eq!(
        flat(&building, at),
        Some(serde_json::json!({
            "event": "building", "at": "2027-01-15T08:00:00Z", "distribution": "site", "phase": "delta",
            "done_bytes": 1, "total_bytes": 2
        }))
    );
    let ended = DistributorEvent::FiringEnded { firing: FiringId::from_bytes([0xab; 16]) };
    assert_eq!(
        flat(&ended, at),
        Some(serde_json::json!({
            "event": "firing-ended", "at": "2027-01-15T08:00:00Z", "firing": "ab".repeat(16)
        }))
    );
}
