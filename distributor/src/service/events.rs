//! The library's events in the shape that `ted_cli::events` describes.

use serde_json::Value;
use ted_cli::units::Time;
use ted_core::node::{Clock as _, SystemClock};
use ted_core::{Distributor, DistributorEvent};
use tokio::sync::broadcast;

/// Events that a slow listener may lag behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;

/// Carries the Distributor's events over until it is gone.
pub(super) fn forward(distributor: &Distributor) -> broadcast::Sender<Value> {
    let out = broadcast::Sender::new(EVENTS_KEPT);
    let (sender, mut events) = (out.clone(), distributor.events());
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Some(event) = flat(&event, Time(SystemClock.now())) {
                // An error only says that nobody listens.
                let _ = sender.send(event);
            }
        }
    });
    out
}

/// The event with its time, and with the names that make it a progress event where it is one.
fn flat(event: &DistributorEvent, at: Time) -> Option<Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return None };
    if let Some(total) = fields.remove("bytes_total") {
        let done = fields.remove("bytes").unwrap_or_default();
        fields.insert("done_bytes".to_owned(), done);
        fields.insert("total_bytes".to_owned(), total);
    }
    fields.insert("at".to_owned(), Value::String(at.to_string()));
    Some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use ted_core::id::{FiringId, UnixMillis};

    use super::*;

    #[test]
    fn events_are_flat_with_time_hex_identifiers_and_progress() {
        let at = Time(UnixMillis::from_millis(1_800_000_000_000));
        let building =
            DistributorEvent::Building { distribution: "site".parse().expect("valid"), bytes: 1, bytes_total: 2 };
        assert_eq!(
            flat(&building, at),
            Some(serde_json::json!({
                "event": "building", "at": "2027-01-15T08:00:00Z", "distribution": "site", "done_bytes": 1,
                "total_bytes": 2
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
}
