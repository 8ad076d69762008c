//! The live connections of a node: one for each peer.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::id::KeyHash;
use crate::security::{Side, stays_of_two};
use crate::transport::{Connection, ConnectionError, QuicConnection};

/// The close code of a connection that another one to the same peer replaces.
const REPLACED: u32 = 1;

/// The close code of a connection that an operator's act ends.
const ENDED: u32 = 2;

/// The close code of the connection that goes when both nodes dialled at once.
const DUPLICATE: u32 = 3;

/// The close code of a connection to a parent that another one is preferred to.
pub(crate) const MOVED: u32 = 4;

const BOTH_DIALLED: &str = "both nodes dialled at once, and the other connection stays";

/// Two connections that were dialled from both ends within this time were dialled at once: a handshake and a greeting
/// over a slow and lossy path fit. A peer that is started again within it may have to dial until it has passed.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Whether a connection ended because there is another one to the same peer, so that nothing is wrong.
pub(crate) fn is_spare(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ClosedByPeer { code: DUPLICATE | REPLACED | MOVED, .. })
}

/// Connections by the key of the peer or, at a Subscriber, of the fleet (upstream) or of both (its children).
pub(crate) struct Links<C = QuicConnection, K = KeyHash> {
    links: Mutex<HashMap<K, Slot<C>>>,
    tasks: TaskTracker,
}

struct Slot<C> {
    present: watch::Sender<Option<C>>,
    /// This node's end of the present connection, and since when it is here.
    side: Side,
    since: Instant,
    /// Counts the connections that were here, so that one that ends late does not take its successor away.
    generation: u64,
}

/// Which connection of its slot one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// Which of two connections to the same peer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// The one that was there: the peer, which started again, has no use for it any more.
    Replaced,
    /// The one that was there: both nodes dialled at once.
    Old,
    /// The new one: both nodes dialled at once.
    New,
}

/// Decides by this node's end of both connections, by how long the old one is there, and by whether the one with the
/// end of the new one [`stays_of_two`]. Both nodes come to the same end, in whichever order they see the two.
fn judge_two(old: Side, old_age: Duration, new: Side, new_stays: bool) -> Goes {
    if old == new || old_age >= AT_ONCE {
        return Goes::Replaced;
    }
    if new_stays { Goes::Old } else { Goes::New }
}

impl<C: Connection, K: Copy + Eq + Hash> Links<C, K> {
    pub(crate) fn new() -> Self {
        Self { links: Mutex::default(), tasks: TaskTracker::new() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slot<C>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection in, of which this node is the end `side` and for which it showed the key `own`. If there
    /// is another one for the same `key`, one of the two closes; `None` if it is the new one. One to another peer under
    /// the same `key` always closes: whoever takes the new one in prefers it.
    pub(crate) fn insert(&self, key: K, connection: C, side: Side, own: &KeyHash) -> Option<Generation> {
        let mut links = self.lock();
        let slot = links.entry(key).or_insert_with(Slot::new);
        let old = slot.present.borrow().clone().filter(|old| !has_ended(old));
        let moves = old.as_ref().is_some_and(|old| old.peer().key != connection.peer().key);
        if let Some(old) = old.as_ref().filter(|_| moves) {
            old.close(MOVED, "another parent took this one's place");
        }
        if let Some(old) = old.filter(|_| !moves) {
            // A peer without a key is none of a fleet, and has no second connection.
            let new_stays = connection.peer().key.is_none_or(|peer| stays_of_two(own, &peer, side));
            match judge_two(slot.side, slot.since.elapsed(), side, new_stays) {
                Goes::Replaced => old.close(REPLACED, "another connection took this one's place"),
                Goes::Old => old.close(DUPLICATE, BOTH_DIALLED),
                Goes::New => {
                    connection.close(DUPLICATE, BOTH_DIALLED);
                    return None;
                }
            }
        }
        slot.generation += 1;
        (slot.side, slot.since) = (side, Instant::now());
        slot.present.send_replace(Some(connection));
        Some(Generation(slot.generation))
    }

    /// Lets a connection go that has ended, unless another took its place. Says whether it was the present one.
    pub(crate) fn remove(&self, key: &K, ended: Generation) -> bool {
        let links = self.lock();
        let slot = links.get(key).filter(|slot| slot.generation == ended.0);
        slot.is_some_and(|slot| slot.present.send_replace(None).is_some())
    }

    /// The connection to a peer now and later on.
    pub(crate) fn watch(&self, key: &K) -> watch::Receiver<Option<C>> {
        self.lock().entry(*key).or_insert_with(Slot::new).present.subscribe()
    }

    /// Waits until there is no connection to a peer.
    #[cfg(test)]
    pub(crate) async fn gone(&self, key: &K) {
        let mut link = self.watch(key);
        // Slots stay as long as this does.
        let _ = link.wait_for(Option::is_none).await;
    }

    pub(crate) fn get(&self, key: &K) -> Option<C> {
        self.lock().get(key).and_then(|slot| slot.present.borrow().clone())
    }

    /// The connection to a peer, if it has not ended.
    pub(crate) fn living(&self, key: &K) -> Option<C> {
        self.get(key).filter(|link| !has_ended(link))
    }

    pub(crate) fn is_connected(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// For how long the present connection to a peer has been here.
    pub(crate) fn age(&self, key: &K) -> Option<Duration> {
        self.lock().get(key).filter(|slot| slot.present.borrow().is_some()).map(|slot| slot.since.elapsed())
    }

    pub(crate) fn all(&self) -> Vec<(K, C)> {
        let links = self.lock();
        links.iter().filter_map(|(key, slot)| Some((*key, slot.present.borrow().clone()?))).collect()
    }

    pub(crate) fn close(&self, key: &K, reason: &str) {
        if let Some(connection) = self.get(key) {
            connection.close(ENDED, reason);
        }
    }

    /// Runs something that belongs to the connections, and is waited for when the node stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(crate) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

impl<C> Slot<C> {
    fn new() -> Self {
        let (side, since) = (Side::Listener, Instant::now());
        Self { present: watch::Sender::new(None), side, since, generation: 0 }
    }
}

/// Whether a connection is over, though nobody may have noticed yet.
fn has_ended(connection: &impl Connection) -> bool {
    pin!(connection.closed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{Alpn, Peer, PeerRole};
    use crate::transport::{MemoryConnection, MemoryLink};

    const FLEET: KeyHash = KeyHash::from_bytes([9; 32]);
    const SMALL: KeyHash = KeyHash::from_bytes([1; 32]);
    const LARGE: KeyHash = KeyHash::from_bytes([2; 32]);

    const BEFORE: Duration = Duration::from_millis(4999);

    /// This node's end of a connection to `peer`, and the peer's.
    fn pair(own: KeyHash, peer: KeyHash) -> (MemoryConnection, MemoryConnection) {
        let peer_of =
            |role, key| Peer { fleet: FLEET, role, name: Some("a.example".parse().unwrap()), key, alpn: Alpn::Ted1 };
        let sees = (peer_of(PeerRole::Subscriber, Some(peer)), peer_of(PeerRole::Distributor, Some(own)));
        let (_, here, there) = MemoryLink::pair(1024, sees.0, sees.1);
        (here, there)
    }

    async fn close_code(there: &MemoryConnection) -> Option<u32> {
        if !has_ended(there) {
            return None;
        }
        match there.closed().await {
            ConnectionError::ClosedByPeer { code, reason } => {
                assert!(!reason.is_empty());
                Some(code)
            }
            error => panic!("{error}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_connections_to_one_peer_one_closes() {
        use Side::{Dialler, Listener};
        for (what, old, new, age, own, peer, old_code, new_code) in [
            ("dialled again", Dialler, Dialler, Duration::ZERO, SMALL, LARGE, Some(REPLACED), None),
            ("the peer dialled again", Listener, Listener, BEFORE, SMALL, LARGE, Some(REPLACED), None),
            ("much later", Listener, Listener, AT_ONCE, LARGE, SMALL, Some(REPLACED), None),
            ("at once, our first one stays", Dialler, Listener, BEFORE, SMALL, LARGE, None, Some(DUPLICATE)),
            ("at once, our second one stays", Listener, Dialler, BEFORE, SMALL, LARGE, Some(DUPLICATE), None),
            ("at once, their second one stays", Dialler, Listener, BEFORE, LARGE, SMALL, Some(DUPLICATE), None),
            ("at once, their first one stays", Listener, Dialler, BEFORE, LARGE, SMALL, None, Some(DUPLICATE)),
            ("they dial later", Dialler, Listener, AT_ONCE, SMALL, LARGE, Some(REPLACED), None),
            ("we dial later", Listener, Dialler, AT_ONCE, LARGE, SMALL, Some(REPLACED), None),
        ] {
            let links = Links::new();
            let ((first, first_there), (second, second_there)) = (pair(own, peer), pair(own, peer));
            let before = links.insert(peer, first, old, &own).expect(what);
            tokio::time::advance(age).await;
            let after = links.insert(peer, second, new, &own);
            assert_eq!(
                (close_code(&first_there).await, close_code(&second_there).await),
                (old_code, new_code),
                "{what}"
            );
            assert_eq!(after.is_some(), new_code.is_none(), "{what}");
            assert_eq!(links.all().len(), 1, "{what}");
            assert_eq!(links.remove(&peer, before), after.is_none(), "{what}: the one that stayed is the present one");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn both_nodes_keep_the_same_one_in_whichever_order_they_see_two() {
        for ours_first in [true, false] {
            for theirs_first in [true, false] {
                let (here, there) = (Links::new(), Links::new());
                let ((ours, ours_there), (theirs, theirs_there)) = (pair(LARGE, SMALL), pair(LARGE, SMALL));
                let mut at_us = [(ours.clone(), Side::Dialler), (theirs.clone(), Side::Listener)];
                let mut at_them = [(ours_there, Side::Listener), (theirs_there, Side::Dialler)];
                if !ours_first {
                    at_us.reverse();
                }
                if !theirs_first {
                    at_them.reverse();
                }
                for (connection, side) in at_us {
                    here.insert(SMALL, connection, side, &LARGE);
                }
                for (connection, side) in at_them {
                    there.insert(LARGE, connection, side, &SMALL);
                }
                assert!(has_ended(&ours) && !has_ended(&theirs), "the smaller key is theirs");
                assert!(here.get(&SMALL).is_some_and(|link| !has_ended(&link)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_ended_stands_in_nobodys_way() {
        let links = Links::new();
        let ((first, first_there), (second, second_there)) = (pair(SMALL, LARGE), pair(SMALL, LARGE));
        links.insert(LARGE, first, Side::Dialler, &SMALL).expect("the only one");
        first_there.close(0, "stopping");
        let second = links.insert(LARGE, second, Side::Listener, &SMALL).expect("the only one that lives");
        assert_eq!(close_code(&second_there).await, None);
        let mut gone = pin!(links.gone(&LARGE));
        assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(links.remove(&LARGE, second));
        gone.await;
    }
}
