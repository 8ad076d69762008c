//! Events: what a node tells whoever wants to know. Nobody has to listen, and a slow listener holds up nobody.

use tokio::sync::broadcast;

/// Events that a listener may fall behind by before it misses some.
const BACKLOG: usize = 4096;

/// The node's side: where events go in.
#[derive(Debug, Clone)]
pub(crate) struct EventBus<T>(broadcast::Sender<T>);

impl<T: Clone> EventBus<T> {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    pub(crate) fn emit(&self, event: T) {
        // An error only says that nobody listens.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> Events<T> {
        Events(self.0.subscribe())
    }
}

/// The listener's side: events from the moment it was made.
#[derive(Debug)]
pub struct Events<T>(broadcast::Receiver<T>);

impl<T: Clone> Events<T> {
    /// The next event; `None` once the node is gone. A listener that fell more than 4,096 events behind misses the oldest.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
