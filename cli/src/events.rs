//! Events as the control socket carries them: one JSON object each, with `at` (RFC 3339), `event` (what happened, in
//! kebab case) and, flat beside them, what it happened to. `done_bytes` and `total_bytes` make it a progress event.

use serde::Serialize;
use serde_json::Value;
use ted_core::node::{Clock as _, Events, SystemClock};
use tokio::sync::broadcast;

use crate::output::clean;
use crate::progress::Progress;
use crate::units::Time;

/// Events that a slow listener may lag behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;

/// Carries a node's events over, in the shape that this module describes, until the node is gone.
#[must_use]
pub fn forward<T: Serialize + Clone + Send + 'static>(mut events: Events<T>) -> broadcast::Sender<Value> {
    let out = broadcast::Sender::new(EVENTS_KEPT);
    let sender = out.clone();
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
#[must_use]
pub fn flat<T: Serialize>(event: &T, at: Time) -> Option<Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return None };
    if let Some(total) = fields.remove("bytes_total") {
        let done = fields.remove("bytes").unwrap_or_default();
        fields.insert("done_bytes".to_owned(), done);
        fields.insert("total_bytes".to_owned(), total);
    }
    fields.insert("at".to_owned(), Value::String(at.to_string()));
    Some(Value::Object(fields))
}

/// One line for people: time, event, then `key=value` in the order of the keys.
#[must_use]
pub fn to_line(event: &Value) -> String {
    let Value::Object(fields) = event else { return clean(&event.to_string()) };
    let mut line = format!("{}  {}", plain(fields.get("at")), plain(fields.get("event")));
    for (key, value) in fields {
        if key != "at" && key != "event" && !value.is_null() {
            line.push_str(&format!("  {key}={}", plain(Some(value))));
        }
    }
    clean(&line)
}

/// Shows the event as progress if it is one; `false` if not. The label is made of what it happened to.
pub fn show_progress(event: &Value, progress: &Progress) -> bool {
    let number = |key: &str| event.get(key).and_then(Value::as_u64);
    let (Some(done), Some(total)) = (number("done_bytes"), number("total_bytes")) else { return false };
    let parts: Vec<_> = ["subscriber", "distribution", "phase", "source"]
        .iter()
        .filter_map(|key| event.get(key).and_then(Value::as_str))
        .collect();
    progress.set(&parts.join(" "), done, total);
    true
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_line_each() {
        let event = serde_json::json!({
            "event": "extracted", "at": "2027-01-15T08:00:00Z", "distribution": "site\n", "revision": 5, "code": null
        });
        assert_eq!(to_line(&event), "2027-01-15T08:00:00Z  extracted  distribution=site\\n  revision=5");
    }
}
