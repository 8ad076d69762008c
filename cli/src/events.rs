//! Events as the control socket carries them: one JSON object each, with `at` (RFC 3339), `event` (what happened, in
//! kebab case) and, flat beside them, what it happened to. `done_bytes` and `total_bytes` make it a progress event, which
//! is told and not kept; every other has a `number` that only grows, also across restarts of the node.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ted_core::id::UnixMillis;
use ted_core::name::Label;
use ted_core::node::{Clock as _, EventFilter, EventHistory, Events, SystemClock};
use tokio::sync::broadcast;

use crate::output::clean;
use crate::progress::Progress;
use crate::units::{Time, parse_duration};

/// Events that a slow listener may lag behind before it loses the oldest.
const EVENTS_KEPT: usize = 1024;

/// The field that an event has which is on record.
pub const NUMBER: &str = "number";

/// What `events` can be asked for on both binaries.
#[derive(Debug, Clone, clap::Args)]
pub struct EventArgs {
    /// Go on with what happens from now on, also when the daemon is started again, until Ctrl-C.
    #[arg(short, long)]
    pub follow: bool,
    /// Those that happened since: a time such as 2027-01-31T02:00:00Z, or a while ago, such as 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<UnixMillis>,
    /// Those of this kind, such as `receipt`.
    #[arg(long, value_name = "KIND")]
    pub event: Option<String>,
    /// Those with this code, such as TED-1355.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Those about this Distribution.
    #[arg(long, value_name = "NAME")]
    pub distribution: Option<Label>,
    /// How many of the newest [default: 100; 10 with --follow; with --since, all].
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<usize>,
}

impl EventArgs {
    /// The filter that these options make.
    #[must_use]
    pub fn filter(&self) -> EventFilter {
        let usual = if self.follow { 10 } else { 100 };
        EventFilter {
            since: self.since,
            event: self.event.clone(),
            code: self.code.clone(),
            distribution: self.distribution.clone(),
            limit: self.count.or_else(|| self.since.is_none().then_some(usual)),
            ..EventFilter::default()
        }
    }
}

/// Reads a time, or how long ago it was; for clap's `value_parser`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_since(text: &str) -> Result<UnixMillis, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(UnixMillis::from_millis(SystemClock.now().millis().saturating_sub(ago)));
    }
    let refuse = |_| format!("`{text}` is neither a time such as 2027-01-31T02:00:00Z nor a duration such as 2h or 7d");
    text.parse::<Time>().map(|time| time.0).map_err(refuse)
}

/// Asks for events that are on record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventsList(pub EventFilter);

crate::operations! { EventsList => "events/list" -> EventsView }

/// Events that are on record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventsView {
    /// The oldest first, in the shape that this module describes.
    pub events: Vec<Value>,
    /// The number up to which nothing is left out.
    pub last: u64,
}

impl From<EventHistory> for EventsView {
    fn from(history: EventHistory) -> Self {
        let events = history.events.iter().filter_map(|logged| {
            let mut event = flat(&logged.event, Time(logged.at))?;
            event.as_object_mut()?.insert(NUMBER.to_owned(), logged.number.into());
            Some(event)
        });
        Self { events: events.collect(), last: history.last }
    }
}

/// How long to wait before a daemon that ended is looked for again.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);

/// Carries a node's events over, in the shape that this module describes, until the node is gone.
#[must_use]
pub fn forward<T: Serialize + Clone + Send + 'static>(mut events: Events<T>) -> broadcast::Sender<Value> {
    let out = broadcast::Sender::new(EVENTS_KEPT);
    let sender = out.clone();
    tokio::spawn(async move {
        while let Some(stamped) = events.next_stamped().await {
            if let Some(mut event) = flat(&stamped.event, Time(stamped.at)) {
                if let (Some(number), Value::Object(fields)) = (stamped.number, &mut event) {
                    fields.insert(NUMBER.to_owned(), number.into());
                }
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
        if ![NUMBER, "at", "event"].contains(&key.as_str()) && !value.is_null() {
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
