//! The live connections of a node: one for each peer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::id::KeyHash;
use crate::transport::{Connection, QuicConnection};

/// The close code of a connection that another one to the same peer replaces.
const REPLACED: u32 = 1;

/// The close code of a connection that an operator's act ends.
const ENDED: u32 = 2;

/// Connections by the key of the peer or, at a Subscriber, of the fleet.
pub(crate) struct Links {
    links: Mutex<HashMap<KeyHash, Slot>>,
    tasks: TaskTracker,
}

struct Slot {
    present: watch::Sender<Option<QuicConnection>>,
    /// Counts the connections that were here, so that one that ends late does not take its successor away.
    generation: u64,
}

/// Which connection of its slot one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Links {
    pub(crate) fn new() -> Self {
        Self { links: Mutex::default(), tasks: TaskTracker::new() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyHash, Slot>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection in. The one that was there for the same key closes: its peer made the new one because
    /// the old one is of no use to it any more.
    pub(crate) fn insert(&self, key: KeyHash, connection: QuicConnection) -> Generation {
        let mut links = self.lock();
        let slot = links.entry(key).or_insert_with(Slot::new);
        slot.generation += 1;
        if let Some(old) = slot.present.send_replace(Some(connection)) {
            old.close(REPLACED, "another connection took this one's place");
        }
        Generation(slot.generation)
    }

    /// Lets a connection go that has ended, unless another took its place. Says whether it was the present one.
    pub(crate) fn remove(&self, key: &KeyHash, ended: Generation) -> bool {
        let links = self.lock();
        let slot = links.get(key).filter(|slot| slot.generation == ended.0);
        slot.is_some_and(|slot| slot.present.send_replace(None).is_some())
    }

    /// The connection to a peer now and later on.
    pub(crate) fn watch(&self, key: &KeyHash) -> watch::Receiver<Option<QuicConnection>> {
        self.lock().entry(*key).or_insert_with(Slot::new).present.subscribe()
    }

    pub(crate) fn get(&self, key: &KeyHash) -> Option<QuicConnection> {
        self.lock().get(key).and_then(|slot| slot.present.borrow().clone())
    }

    pub(crate) fn is_connected(&self, key: &KeyHash) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn all(&self) -> Vec<(KeyHash, QuicConnection)> {
        let links = self.lock();
        links.iter().filter_map(|(key, slot)| Some((*key, slot.present.borrow().clone()?))).collect()
    }

    pub(crate) fn close(&self, key: &KeyHash, reason: &str) {
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

impl Slot {
    fn new() -> Self {
        Self { present: watch::Sender::new(None), generation: 0 }
    }
}
