//! Answering what children ask, and nodes that want to be enrolled through this one.

use std::sync::Arc;

use crate::id::KeyHash;
use crate::node::{Answering, Reply};
use crate::protocol::{Answer, FetchTarget, Request, code};
use crate::subscriber::state::State;

/// Answers a child.
pub(super) struct ChildServing {
    pub(super) state: Arc<State>,
    pub(super) fleet: KeyHash,
    pub(super) child: KeyHash,
}

impl Answering for ChildServing {
    async fn answer(&self, request: Request) -> Reply {
        let (state, fleet, child) = (&self.state, self.fleet, self.child);
        match request {
            Request::Hello(_) => Reply::Answer(Answer::Hello(state.hello(&fleet))),
            Request::Presence(presence) => {
                let entitlements = state.entitlements(&fleet);
                state.change_reach(&fleet, |reach| {
                    reach.told(&child, &presence, |key| entitlements.is_behind(&child, key))
                });
                state.relay_presence(fleet, child, presence).await;
                Reply::Answer(Answer::Presence)
            }
            Request::Receipts(envelopes) => state.pass_receipts(fleet, child, envelopes).await,
            Request::Enrol(bytes) => state.pass_enrolment(&fleet, bytes).await,
            Request::Progress(entries) => {
                state.pass_progress(&fleet, &child, entries);
                Reply::Answer(Answer::Progress)
            }
            Request::Fetch(fetch) => match fetch.target {
                FetchTarget::Envelope(id) => match state.passed_envelope(fleet, child, id).await {
                    Some(reply) => reply,
                    None => state.pass_envelope(fleet, child, id).await,
                },
                FetchTarget::Package(id) => {
                    let state = state.clone();
                    let serving = move || state.passed_package(fleet, child, id);
                    let reply = tokio::task::spawn_blocking(serving).await;
                    reply.unwrap_or_else(|_| Reply::refuse(code::INTERNAL, "this node has a problem of its own"))
                }
                FetchTarget::Grant { grants, recipient } => state.passed_grant(fleet, child, (grants, recipient)).await,
            },
            _ => Reply::refuse(code::BAD_REQUEST, "a parent does not answer this"),
        }
    }
}

/// Passes enrolments on to the Distributor, and answers nothing else.
pub(super) struct PassingEnrolments {
    pub(super) state: Arc<State>,
    pub(super) fleet: KeyHash,
}

impl Answering for PassingEnrolments {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Enrol(bytes) => self.state.pass_enrolment(&self.fleet, bytes).await,
            _ => Reply::refuse(code::NOT_ENTITLED, "only an enrolment is answered on this connection"),
        }
    }
}
