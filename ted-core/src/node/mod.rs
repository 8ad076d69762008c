//! What both drivers share: clock, events, records, asking and answering over connections, and the connections.

mod alarm;
pub(crate) mod as_text;
mod batching;
mod clock;
mod dial;
mod events;
mod exchange;
mod links;
mod live;
mod measure;
mod names;
mod pacing;
mod packages;
mod records;
mod restored;
mod schedules;
mod serve;
#[cfg(test)]
mod who_may_say_what;

pub use alarm::Alarm;
pub(crate) use batching::{BatchedRecords, Ticket};
pub use clock::{Clock, SystemClock};
pub(crate) use dial::{Backoff, DialError, dial, endpoint_secret};
pub(crate) use events::EventBus;
pub use events::{EventFilter, EventHistory, Events, StampedEvent};
pub(crate) use exchange::{ExchangeError, Fetched, ask, fetch};
pub(crate) use links::{Generation, Links, MOVED, is_spare};
pub(crate) use live::Live;
pub(crate) use measure::LinkSpeed;
pub(crate) use names::{label_of_id, name_of_key};
pub(crate) use pacing::{FrameEnd, Gate, InputPace, PaceOptions, SendQueue};
pub(crate) use packages::{Opened, is_damaged, judge_signature, keep_packages, open_delta, open_package, wait};
pub(crate) use records::{RecordBatch, Records};
pub use restored::Restored;
pub(crate) use schedules::{Scheduled, Schedules, TurnId, kept};
#[allow(unused_imports, reason = "for the queue of sends and for relays")]
pub(crate) use serve::{Answering, Content, Pace, Permit, Permitting, Relayed, Reply, Unpaced, serve};
