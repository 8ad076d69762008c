//! What nodes say to each other and what they make of it: messages, blocks, the receiver of a package, the judging
//! of offers, and a firing's bookkeeping.
//!
//! Everything here is pure: bytes, events and the time come in, answers and actions go out. Drivers in
//! `distributor` and `subscriber` do the work. The wire is described byte by byte in `docs/protocol.md`.

mod announce;
mod ascent;
mod block;
mod chain;
mod delivery;
mod firing;
mod forecast;
mod greeting;
mod index_phase;
mod map;
mod message;
mod offer;
mod offer_message;
mod patience;
mod queue;
mod reach;
mod receipts;
mod receiver;
mod refused;
mod relay;
mod tiers;

pub use announce::{Announce, AnnounceAnswer, Announced};
pub use ascent::{Ascent, Fallback};
pub use block::{
    BLOCK_HEADER_BYTES, BlockError, BlockEvent, BlockReader, SendStep, Sending, data_header, end_block, error_block,
    waiting_block,
};
pub use chain::{baseline_chain, cheapest_chain};
pub use delivery::{Delivery, DeliveryAction, DeliveryEnd};
pub use firing::{
    Cause, Counts, Firing, FiringChanges, FiringEnd, FiringError, FiringHead, FiringRecord, FiringStart, FiringTarget,
    Outcome, Part, PartRole, PartState, StageTimes, Until, Waiting, WaitingFor,
};
pub use forecast::{ForecastLink, ForecastNode, forecast, time_for};
pub use index_phase::{IndexAction, IndexPhase};
pub use map::{FrameLayout, FrameMap, MapError};
pub use message::{
    Answer, Fetch, FetchAnswer, FetchTarget, Hello, Message, MessageError, MessageReader, PROTOCOL_VERSION, Request,
    decode_answer, decode_request, encode_answer, encode_request,
};
pub use offer::{Floor, Have, Statement, Verdict, judge_offer, judge_root};
pub use offer_message::{Offer, OfferAnswer};
pub use patience::{Silence, SilenceError};
pub use queue::{Grant, Limit, Moment, Queue, QueueCounts, SendKey, SendRates, StreamId};
pub use reach::{Reach, Reached};
pub use receipts::{ReceiptsAnswer, receipts_that_fit};
pub use receiver::{Action, Cut, FetchFailure, FetchNumber, FrameBuffers, GiveUp, Progress, Receiver, ReceiverOptions};
pub use refused::{Refused, code};
pub use relay::{Asked, Passed, PassedOffer, Relay, RelayAction, RelayEnd};
pub use tiers::{Presence, ProgressEntry, ProgressState, WaitsFor};
