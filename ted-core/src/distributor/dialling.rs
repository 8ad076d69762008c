//! Dialling the Subscribers that have endpoints.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::distributor::state::{State, lock};
use crate::model::Subscriber;
use crate::name::NodeName;
use crate::node::{Backoff, dial};
use crate::security::{Alpn, Side};
use crate::transport::Endpoint;

/// The code of a node that was dialled in a fleet that it takes no part in.
const ELSEWHERE: &str = "TED-1314";

/// How it stands with dialling one Subscriber.
#[derive(Default)]
pub(super) struct Dialling {
    backoff: Backoff,
    /// Not before this.
    due: Option<Instant>,
    /// The last attempt, and what came of it.
    attempt: Option<JoinHandle<()>>,
}

impl Dialling {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now) && self.attempt.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl State {
    pub(super) fn dial_due(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        dialling: &mut HashMap<NodeName, Dialling>,
        tasks: &TaskTracker,
    ) {
        for subscriber in self.to_dial(dialling) {
            let dialled = dialling.entry(subscriber.name.clone()).or_default();
            dialled.due = Some(Instant::now() + dialled.backoff.next());
            let (state, endpoint) = (self.clone(), endpoint.clone());
            let attempt = tasks.spawn(async move {
                let own = state.own();
                let former = own.former.iter().map(|former| former.authority.root().key_hash());
                for fleet in std::iter::once(own.authority.root().key_hash()).chain(former) {
                    match dial(&endpoint, &subscriber.endpoints, &fleet, Alpn::Ted1).await {
                        Ok(connection) => return state.meet(connection, Side::Dialler).await,
                        Err(error) => {
                            tracing::debug!(subscriber = %subscriber.name, reason = error.reason, "not reached");
                            // It may not have heard yet that this certificate took over.
                            if error.code != ELSEWHERE {
                                return;
                            }
                        }
                    }
                }
            });
            dialled.attempt = Some(attempt);
        }
    }
    /// Those who are to be dialled now.
    fn to_dial(&self, dialling: &mut HashMap<NodeName, Dialling>) -> Vec<Subscriber> {
        let fleet = lock(&self.fleet);
        // One that is reached through a parent is dialled by that parent.
        let is_own = |known: &Subscriber| {
            let first = known.parents.first();
            !known.endpoints.is_empty() && first.is_none_or(|first| fleet.subscriber(first).is_err())
        };
        dialling.retain(|name, _| fleet.subscriber(name).is_ok_and(is_own));
        let mut due = vec![];
        for subscriber in fleet.subscribers().filter(|subscriber| is_own(subscriber)) {
            let dialled = dialling.entry(subscriber.name.clone()).or_default();
            if self.is_connected(&subscriber.name) {
                // Whoever dialled: when it is gone, it is dialled as if for the first time.
                dialled.due = None;
                dialled.backoff.reset();
            } else if dialled.is_due(Instant::now()) {
                due.push(subscriber.clone());
            }
        }
        due
    }
}
