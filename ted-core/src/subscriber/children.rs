//! Children: met, dialled where they have endpoints, and told about upwards.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::{Backoff, ask, dial, serve};
use crate::protocol::{Presence, Reach, Reached, Request};
use crate::security::{Alpn, Descendant, Side};
use crate::subscriber::child_serving::{ChildServing, PassingEnrolments};
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::peers::GREETING_PATIENCE;
use crate::subscriber::state::{State, lock};
use crate::transport::{CLOSE_DONE, Connection, Endpoint, QuicConnection};

/// How often is looked for children that are to be dialled.
const ROUND: Duration = Duration::from_secs(1);

/// How long a stranger may stay connected to be enrolled: its request goes up to the Distributor, and the answer back.
const ENROLMENT_PATIENCE: Duration = Duration::from_secs(90);

/// How long a parent may take to note who is there.
const PRESENCE_PATIENCE: Duration = Duration::from_secs(30);

/// What comes and goes within this time is told together.
const PRESENCE_TOGETHER: Duration = Duration::from_millis(50);

/// After which pause is told again what was not noted.
const PRESENCE_AGAIN: Duration = Duration::from_secs(5);

/// How it stands with dialling one child.
#[derive(Default)]
struct Dialling {
    backoff: Backoff,
    /// Not before this.
    due: Option<Instant>,
    /// The last attempt, and what came of it.
    attempt: Option<JoinHandle<()>>,
}

impl State {
    /// Lives with the connection to a child until it ends.
    pub(super) async fn meet_child(self: &Arc<Self>, connection: QuicConnection, side: Side) {
        let (fleet, Some(child)) = (connection.peer().fleet, connection.peer().key) else { return };
        let state = self.clone();
        let finding = move || (state.distributor_name(&fleet), state.identity(&fleet));
        let Ok((distributor, Ok(identity))) = tokio::task::spawn_blocking(finding).await else { return };
        let name = self.name_in(&fleet, &child);
        if side == Side::Dialler {
            let hello = Request::Hello(self.hello(&fleet));
            match ask(&connection, &hello, &Limits::DEFAULT, GREETING_PATIENCE).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(child = %name, %error, "a child was dialled and does not greet");
                    return;
                }
            }
        }
        let own = identity.certificate.key_hash();
        let Some(generation) = self.children.insert((fleet, child), connection.clone(), side, &own) else {
            tracing::debug!(child = %name, "both nodes dialled at once, and the other connection stays");
            return;
        };
        self.judge_again(&connection).await;
        tracing::info!(%distributor, child = %name, address = %connection.remote_address(), "a child is connected");
        self.events.emit(SubscriberEvent::ChildConnected { distributor: distributor.clone(), child: name.clone() });
        self.change_reach(&fleet, |reach| reach.connected(&child));
        self.relay_child_up(fleet, child).await;
        let serving = Arc::new(ChildServing { state: self.clone(), fleet, child });
        let reason = serve(connection.clone(), serving, Limits::DEFAULT).await;
        if self.children.remove(&(fleet, child), generation) {
            tracing::info!(%distributor, child = %name, reason, "a child is gone");
            self.events.emit(SubscriberEvent::ChildDisconnected { distributor, child: name, reason });
            let still_gone = || !self.children.is_connected(&(fleet, child));
            self.change_reach(&fleet, |reach| {
                // The child may have come back already, and have been counted.
                if still_gone() { reach.disconnected(&child) } else { Reached::default() }
            });
            self.relay_child_down(fleet, child).await;
        }
    }

    /// Passes on the enrolment of a node without certificates, and nothing else of it.
    pub(super) async fn meet_unenrolled(self: &Arc<Self>, connection: QuicConnection) {
        let fleet = connection.peer().fleet;
        let passing = Arc::new(PassingEnrolments { state: self.clone(), fleet });
        let serving = serve(connection.clone(), passing, Limits::DEFAULT);
        if tokio::time::timeout(ENROLMENT_PATIENCE, serving).await.is_err() {
            connection.close(CLOSE_DONE, "an enrolment takes less time than this");
        }
    }

    /// The name of a node behind this one; while it is not known, the fingerprint of its key.
    pub(super) fn name_in(&self, fleet: &KeyHash, key: &KeyHash) -> crate::name::NodeName {
        let named = self.entitlements(fleet).get(key).map(|descendant| descendant.name.clone());
        named.unwrap_or_else(|| crate::node::name_of_key(key))
    }

    /// The connection to the child through which a node behind this one is reached now, and that child's key.
    pub(super) fn child_towards(&self, fleet: &KeyHash, key: &KeyHash) -> Option<(KeyHash, QuicConnection)> {
        let hop = lock(&self.reach).get(fleet)?.hop_of(key)?;
        Some((hop, self.children.get(&(*fleet, hop))?))
    }

    /// Changes who is reached through this node, and has it told upwards.
    pub(super) fn change_reach(&self, fleet: &KeyHash, change: impl FnOnce(&mut Reach) -> Reached) {
        let reached = change(lock(&self.reach).entry(*fleet).or_default());
        if reached != Reached::default() {
            self.presence.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    /// Tells the peer above this node who is reached through it, and what changes of that, until the connection ends.
    pub(super) async fn tell_presence(self: Arc<Self>, fleet: KeyHash, connection: QuicConnection) {
        let mut changes = self.presence.subscribe();
        let mut told: Option<HashSet<KeyHash>> = None;
        loop {
            changes.borrow_and_update();
            let now = lock(&self.reach).get(&fleet).map(Reach::all).unwrap_or_default();
            let mut again = false;
            for presence in difference(told.as_ref(), &now) {
                let request = Request::Presence(presence);
                if let Err(error) = ask(&connection, &request, &Limits::DEFAULT, PRESENCE_PATIENCE).await {
                    tracing::debug!(%error, "who is here was not noted");
                    again = true;
                    break;
                }
            }
            told = if again { None } else { Some(now) };
            tokio::select! {
                _ = connection.closed() => return,
                Ok(()) = changes.changed(), if !again => tokio::time::sleep(PRESENCE_TOGETHER).await,
                () = tokio::time::sleep(PRESENCE_AGAIN), if again => {}
            }
        }
    }

    /// Dials the children that have endpoints, again and again, while this node runs.
    pub(super) async fn dial_children(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        let mut dialling: HashMap<(KeyHash, KeyHash), Dialling> = HashMap::new();
        loop {
            let state = self.clone();
            let finding = move || state.children_with_endpoints();
            let to_dial = tokio::task::spawn_blocking(finding).await.unwrap_or_default();
            dialling.retain(|key, _| to_dial.iter().any(|(fleet, child)| (*fleet, child.key) == *key));
            let nobody = to_dial.is_empty();
            for (fleet, child) in to_dial {
                let dialled = dialling.entry((fleet, child.key)).or_default();
                self.dial_child(dialled, fleet, child, &endpoint, &tasks);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.dialling_children.notified() => {}
                () = tokio::time::sleep(ROUND), if !nobody => {}
            }
        }
    }

    fn children_with_endpoints(&self) -> Vec<(KeyHash, Descendant)> {
        let fleets = self.known_distributors().unwrap_or_default().into_iter().map(|(fleet, _)| fleet);
        let of = |fleet: KeyHash| {
            let entitlements = self.entitlements(&fleet);
            let children = entitlements.children().filter(|child| !child.endpoints.is_empty());
            children.map(|child| (fleet, child.clone())).collect::<Vec<_>>()
        };
        fleets.flat_map(of).collect()
    }

    fn dial_child(
        self: &Arc<Self>,
        dialled: &mut Dialling,
        fleet: KeyHash,
        child: Descendant,
        endpoint: &Arc<Endpoint>,
        tasks: &TaskTracker,
    ) {
        if self.children.is_connected(&(fleet, child.key)) {
            dialled.due = None;
            dialled.backoff.reset();
            return;
        }
        let now = Instant::now();
        let busy = dialled.attempt.as_ref().is_some_and(|attempt| !attempt.is_finished());
        if busy || dialled.due.is_some_and(|due| now < due) {
            return;
        }
        dialled.due = Some(now + dialled.backoff.next());
        let (state, endpoint) = (self.clone(), endpoint.clone());
        dialled.attempt = Some(tasks.spawn(async move {
            match dial(&endpoint, &child.endpoints, &fleet, Alpn::Ted1).await {
                Ok(connection) if connection.peer().key == Some(child.key) => {
                    state.meet(connection, Side::Dialler).await;
                }
                Ok(connection) => connection.close(CLOSE_DONE, "another node was meant"),
                Err(error) => tracing::debug!(child = %child.name, reason = error.reason, "not reached"),
            }
        }));
    }
}

/// The messages that tell what has changed since `told`; all of it where nothing was told yet.
fn difference(told: Option<&HashSet<KeyHash>>, now: &HashSet<KeyHash>) -> Vec<Presence> {
    let none = HashSet::new();
    let before = told.unwrap_or(&none);
    let up = now.difference(before).map(|key| (*key, true));
    let changes: Vec<(KeyHash, bool)> = up.chain(before.difference(now).map(|key| (*key, false))).collect();
    let message = |(place, changes): (usize, &[(KeyHash, bool)])| Presence {
        reset: told.is_none() && place == 0,
        up: changes.iter().filter(|(_, up)| *up).map(|(key, _)| *key).collect(),
        down: changes.iter().filter(|(_, up)| !*up).map(|(key, _)| *key).collect(),
    };
    // What a former connection of this node said is taken back even where nobody is here.
    if changes.is_empty() && told.is_none() {
        return vec![Presence { reset: true, ..Presence::default() }];
    }
    changes.chunks(Limits::DEFAULT.named_keys_max).enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: impl IntoIterator<Item = u16>) -> HashSet<KeyHash> {
        let key = |number: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            KeyHash::from_bytes(bytes)
        };
        of.into_iter().map(key).collect()
    }

    #[test]
    fn what_is_told_first_takes_back_all_before_and_then_only_changes_are_told() {
        assert_eq!(difference(None, &keys([])), [Presence { reset: true, ..Presence::default() }]);
        assert_eq!(difference(Some(&keys([1])), &keys([1])), []);
        let said = difference(Some(&keys([1, 2])), &keys([2, 3]));
        assert_eq!(said.len(), 1);
        assert!(!said[0].reset);
        assert_eq!((said[0].up.len(), said[0].down.len()), (1, 1));
        let many = difference(None, &keys(0..2500));
        let resets: Vec<bool> = many.iter().map(|presence| presence.reset).collect();
        assert_eq!(resets, [true, false, false]);
        assert_eq!(many.iter().map(|presence| presence.up.len()).sum::<usize>(), 2500);
    }
}
