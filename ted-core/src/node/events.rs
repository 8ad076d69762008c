//! Events: what a node tells whoever wants to know, and keeps for whoever asks later. Nobody has to listen, and a slow
//! listener holds up nobody.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::error::Coded as _;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::name::{Label, NodeName};
use crate::node::Clock;
use crate::store::{EventLog, EventLogError, LoggedEvent};

/// Events that a listener may fall behind by before it misses some.
const BACKLOG: usize = 4096;

/// What every progress event has, and no other: these are told and not kept.
const PROGRESS: &str = "bytes_total";

/// The node's side: where events go in.
#[derive(Clone)]
pub(crate) struct EventBus<T> {
    sender: broadcast::Sender<StampedEvent<T>>,
    log: Arc<EventLog>,
    /// Held from the number to the telling, so that events are told in the order of their numbers.
    turn: Arc<Mutex<()>>,
    clock: Arc<dyn Clock>,
}

/// An event with its time and, where it is kept, its number.
#[derive(Debug, Clone)]
pub struct StampedEvent<T> {
    /// When it happened.
    pub at: UnixMillis,
    /// Its place among the node's events, as [`LoggedEvent::number`]; `None` for progress, which is not kept.
    pub number: Option<u64>,
    /// What happened.
    pub event: T,
}

impl<T: Clone + Serialize> EventBus<T> {
    pub(crate) fn new(log: EventLog, clock: Arc<dyn Clock>) -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), log: Arc::new(log), turn: Arc::default(), clock }
    }

    pub(crate) fn emit(&self, event: T) {
        let at = self.clock.now();
        let kept = serde_json::to_value(&event).ok().filter(|value| value.get(PROGRESS).is_none());
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.and_then(|value| match self.log.append(at, &value) {
            Ok(number) => Some(number),
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "an event is not kept");
                None
            }
        });
        // An error only says that nobody listens.
        let _ = self.sender.send(StampedEvent { at, number, event });
    }

    pub(crate) fn subscribe(&self) -> Events<T> {
        Events(self.sender.subscribe())
    }
}

impl<T> EventBus<T> {
    /// Makes durable what was told. Blocks on the disk.
    pub(crate) fn sync(&self) {
        if let Err(error) = self.log.sync() {
            tracing::warn!(code = error.code(), %error, "events are not durable");
        }
    }

    /// The events on record that a filter chooses. `is_of_channel` knows which firings a Channel had.
    pub(crate) fn history(
        &self,
        filter: &EventFilter,
        is_of_channel: impl Fn(&Label, &str) -> bool,
    ) -> Result<EventHistory, EventLogError> {
        let count =
            filter.limit.unwrap_or(Limits::DEFAULT.events_answered_max).min(Limits::DEFAULT.events_answered_max);
        let last = self.log.last();
        let events =
            self.log.newest(filter.after.unwrap_or(0), count, |logged| filter.chooses(logged, &is_of_channel))?;
        let last = events.last().map_or(last, |event| event.number.max(last));
        Ok(EventHistory { events, last })
    }
}

/// Events that are on record.
#[derive(Debug, Clone)]
pub struct EventHistory {
    /// Those that were asked for, the oldest first.
    pub events: Vec<LoggedEvent>,
    /// The number up to which nothing that was asked for is left out.
    pub last: u64,
}

/// Which events are wanted: those for which everything holds that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// Those with a greater number.
    pub after: Option<u64>,
    /// Those that happened then or later.
    pub since: Option<UnixMillis>,
    /// Those of this kind, such as `receipt`.
    pub event: Option<String>,
    /// Those with this code, such as `TED-1355`.
    pub code: Option<String>,
    /// Those about this Channel or one of its firings.
    pub channel: Option<Label>,
    /// Those about this Distribution.
    pub distribution: Option<Label>,
    /// Those about this Subscriber.
    pub subscriber: Option<NodeName>,
    /// Those about this Distributor.
    pub distributor: Option<NodeName>,
    /// The newest of these, so many.
    pub limit: Option<usize>,
}

impl EventFilter {
    fn chooses(&self, logged: &LoggedEvent, is_of_channel: &impl Fn(&Label, &str) -> bool) -> bool {
        let text = |field: &str| logged.event.get(field).and_then(Value::as_str);
        let is = |field: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| text(field) == Some(wanted));
        let subscriber = self.subscriber.as_ref().map(NodeName::to_string);
        let distributor = self.distributor.as_ref().map(NodeName::to_string);
        let of_channel = |channel: &Label| {
            text("channel") == Some(channel.as_str()) || text("firing").is_some_and(|id| is_of_channel(channel, id))
        };
        self.since.is_none_or(|since| logged.at >= since)
            && is("event", self.event.as_deref())
            && is("code", self.code.as_deref())
            && is("distribution", self.distribution.as_ref().map(Label::as_str))
            && is("distributor", distributor.as_deref())
            && (is("subscriber", subscriber.as_deref()) || is("name", subscriber.as_deref()))
            && self.channel.as_ref().is_none_or(of_channel)
    }
}

impl<T> std::fmt::Debug for EventBus<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBus").finish_non_exhaustive()
    }
}

/// The listener's side: events from the moment it was made.
#[derive(Debug)]
pub struct Events<T>(broadcast::Receiver<StampedEvent<T>>);

impl<T: Clone> Events<T> {
    /// The next event; `None` once the node is gone. A listener that fell more than 4,096 events behind misses the oldest.
    pub async fn next(&mut self) -> Option<T> {
        self.next_stamped().await.map(|stamped| stamped.event)
    }

    /// The same with its time and number: what was missed can be asked for by the number.
    pub async fn next_stamped(&mut self) -> Option<StampedEvent<T>> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::SystemClock;

    #[derive(Debug, Clone, Serialize)]
    #[serde(tag = "event", rename_all = "kebab-case")]
    enum Told {
        Receipt { firing: &'static str, subscriber: &'static str },
        Enrolled { name: &'static str },
        Sending { bytes: u64, bytes_total: u64 },
    }

    fn bus(folder: &tempfile::TempDir) -> EventBus<Told> {
        let log = EventLog::open(folder.path(), &Limits::DEFAULT).expect("a log");
        EventBus::new(log, Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn progress_is_told_and_not_kept_and_everything_else_has_a_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let bus = bus(&folder);
        let mut told = bus.subscribe();
        bus.emit(Told::Sending { bytes: 1, bytes_total: 2 });
        bus.emit(Told::Enrolled { name: "s1" });
        bus.emit(Told::Enrolled { name: "s2" });
        let mut numbers = vec![];
        for _ in 0..3 {
            numbers.push(told.next_stamped().await.expect("told").number);
        }
        assert_eq!(numbers, [None, Some(1), Some(2)]);
        let history = bus.history(&EventFilter::default(), |_, _| false).expect("readable");
        assert_eq!((history.events.len(), history.last), (2, 2));
    }

    #[test]
    fn events_are_chosen_by_whom_they_are_about_and_by_the_channel_of_their_firing() {
        let folder = tempfile::tempdir().expect("a folder");
        let bus = bus(&folder);
        bus.emit(Told::Enrolled { name: "s1" });
        bus.emit(Told::Receipt { firing: "f1", subscriber: "s1" });
        bus.emit(Told::Receipt { firing: "f2", subscriber: "s2" });
        let chosen = |filter: EventFilter| {
            let history = bus.history(&filter, |channel, firing| channel.as_str() == "nightly" && firing == "f2");
            let events = history.expect("readable").events;
            events.iter().map(|event| event.number).collect::<Vec<_>>()
        };
        let subscriber = Some("s1".parse().expect("a name"));
        assert_eq!(chosen(EventFilter { subscriber, ..EventFilter::default() }), [1, 2]);
        let channel = Some("nightly".parse().expect("a label"));
        assert_eq!(chosen(EventFilter { channel, ..EventFilter::default() }), [3]);
        let event = Some("receipt".to_owned());
        assert_eq!(chosen(EventFilter { event, limit: Some(1), ..EventFilter::default() }), [3]);
        assert_eq!(chosen(EventFilter { after: Some(1), ..EventFilter::default() }), [2, 3]);
        assert_eq!(chosen(EventFilter { code: Some("TED-1355".to_owned()), ..EventFilter::default() }), [0; 0]);
    }
}
