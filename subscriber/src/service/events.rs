//! The library's events in the shape that `ted_cli::events` describes.

use serde_json::Value;
use ted_cli::units::Time;
use ted_core::node::{Clock as _, SystemClock};
use ted_core::{Subscriber, SubscriberEvent};
use tokio::sync::broadcast;

/// Events that a slow listener may lag behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;

/// Carries the Subscriber's events over until it is gone.
pub(super) fn forward(subscriber: &Subscriber) -> broadcast::Sender<Value> {
    let out = broadcast::Sender::new(EVENTS_KEPT);
    let (sender, mut events) = (out.clone(), subscriber.events());
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
fn flat(event: &SubscriberEvent, at: Time) -> Option<Value> {
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
    use ted_core::id::{ContentId, Revision, UnixMillis};

    use super::*;

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
}
