//! Answering what a peer asks, and judging who may be one.

use std::sync::{Arc, Weak};

use crate::id::KeyHash;
use crate::node::{Answering, Reply};
use crate::protocol::{Answer, Request, code};
use crate::security::{FleetRole, FleetTrust, Relation, TrustPolicy};
use crate::subscriber::state::State;
use crate::transport::{Connection, QuicConnection};

/// Answers what the peer above this node asks: a Distributor, or a parent.
pub(super) struct Serving {
    pub(super) state: Arc<State>,
    pub(super) connection: QuicConnection,
}

impl Answering for Serving {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Hello(_) => Reply::Answer(Answer::Hello(self.state.hello(&self.connection.peer().fleet))),
            Request::Offer(offer) => Reply::Answer(Answer::Offer(self.state.take_offer(&self.connection, offer).await)),
            Request::Announce(announce) => {
                let fleet = self.connection.peer().fleet;
                if let Some(recipient) = announce.recipient {
                    return self.state.pass_announcement(&fleet, recipient, announce).await;
                }
                Reply::Answer(Answer::Announce(self.state.take_announcement(&self.connection, announce).await))
            }
            _ => Reply::refuse(code::NOT_ENTITLED, "this node serves nothing to this peer"),
        }
    }
}

/// Judges peers for as long as the state is there. Holding it weakly, an endpoint does not keep alive (and locked) the
/// data directory of a Subscriber that everybody else has let go.
pub(super) struct Policy(pub(super) Weak<State>);

impl TrustPolicy for Policy {
    fn fleets(&self) -> Vec<FleetTrust> {
        let Some(state) = self.0.upgrade() else { return vec![] };
        let roots = state.trusted_roots().unwrap_or_else(|error| {
            tracing::error!(code = error.code(), %error, "the trusted certificates cannot be read");
            vec![]
        });
        // One that is announced to take over is accepted, too: see `State::try_successor`.
        let successors: Vec<_> = roots.iter().filter_map(|root| state.announced_successor(&root.key_hash())).collect();
        roots.into_iter().chain(successors).map(|root| FleetTrust { root, role: FleetRole::Subscriber }).collect()
    }

    fn is_registered(&self, _fleet: &KeyHash, _key: &KeyHash) -> bool {
        false
    }

    fn is_revoked(&self, fleet: &KeyHash, key: &KeyHash) -> bool {
        self.0.upgrade().is_some_and(|state| state.revocations.is_revoked(fleet, key))
    }

    fn relation(&self, fleet: &KeyHash, key: &KeyHash) -> Option<Relation> {
        self.0.upgrade()?.relation(fleet, key)
    }

    fn passes_enrolments_on(&self, fleet: &KeyHash) -> bool {
        self.0.upgrade().is_some_and(|state| state.is_parent(fleet))
    }
}
