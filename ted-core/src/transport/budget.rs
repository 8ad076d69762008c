//! The send budget: what a process keeps in memory for all its connections until it is acknowledged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The least that a sending connection gets: a dozen packets, so that it never stalls between acknowledgements of a
/// short round trip. Beyond some three thousand connections that send at the same time the sum exceeds the budget.
const SHARE_BYTES_MIN: u64 = 16 * 1024;

/// What a budget needs of a connection.
pub(super) trait Windowed {
    /// Sets how many bytes may be sent and not yet acknowledged.
    fn set_send_window(&self, bytes: u64);
}

impl Windowed for quinn::Connection {
    fn set_send_window(&self, bytes: u64) {
        Self::set_send_window(self, bytes);
    }
}

/// Divides a budget among the connections that have a sending stream; idle ones take nothing.
pub(super) struct SendBudget<C> {
    budget_bytes: u64,
    window_bytes_max: u64,
    active: Mutex<Active<C>>,
}

struct Active<C> {
    connections: HashMap<u64, (C, usize)>,
    share_bytes: u64,
}

impl<C: Windowed + Clone> SendBudget<C> {
    /// `window_bytes_max` is the most that one connection ever gets.
    pub(super) fn new(budget_bytes: u64, window_bytes_max: u64) -> Self {
        let active = Mutex::new(Active { connections: HashMap::new(), share_bytes: window_bytes_max });
        Self { budget_bytes, window_bytes_max, active }
    }

    /// A stream of connection `id` begins to send.
    pub(super) fn enter(&self, id: u64, connection: &C) {
        let mut active = self.active();
        match active.connections.get_mut(&id) {
            Some((_, streams)) => *streams += 1,
            None => {
                active.connections.insert(id, (connection.clone(), 1));
                self.share_out(&mut active);
                connection.set_send_window(active.share_bytes);
            }
        }
    }

    /// A stream of connection `id` has ended.
    pub(super) fn leave(&self, id: u64) {
        let mut active = self.active();
        let Some((_, streams)) = active.connections.get_mut(&id) else { return };
        *streams -= 1;
        if *streams == 0 {
            active.connections.remove(&id);
            self.share_out(&mut active);
        }
    }

    /// Shares change only when the number of sending connections crosses a power of two, so that thousands of short
    /// streams don't rewrite thousands of windows each time.
    fn share_out(&self, active: &mut Active<C>) {
        let sharers = active.connections.len().max(1).next_power_of_two() as u64;
        let share = (self.budget_bytes / sharers).min(self.window_bytes_max).max(SHARE_BYTES_MIN);
        if share == active.share_bytes {
            return;
        }
        active.share_bytes = share;
        for (connection, _) in active.connections.values() {
            connection.set_send_window(share);
        }
    }

    fn active(&self) -> MutexGuard<'_, Active<C>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Window(Arc<AtomicU64>);

    impl Windowed for Window {
        fn set_send_window(&self, bytes: u64) {
            self.0.store(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn sending_connections_share_the_budget_and_get_it_back() {
        const MIB: u64 = 1024 * 1024;
        let budget = SendBudget::new(48 * MIB, 24 * MIB);
        let windows: Vec<Window> = (0..5).map(|_| Window::default()).collect();
        let of = |at: usize| windows[at].0.load(Ordering::Relaxed) / MIB;
        for (at, expected) in [24, 24, 12, 12, 6].into_iter().enumerate() {
            budget.enter(at as u64, &windows[at]);
            assert_eq!(of(at), expected, "connection {at}");
            let sum: u64 = (0..=at).map(of).sum();
            assert!(sum <= 48, "{sum} MiB of 48");
        }
        budget.enter(0, &windows[0]);
        for at in 1..5 {
            budget.leave(at);
        }
        assert_eq!(of(0), 24, "alone again");
        budget.leave(0);
        budget.leave(0);
        budget.leave(0);
        assert!(budget.active().connections.is_empty());
    }

    #[test]
    fn no_sender_is_starved() {
        let budget = SendBudget::new(48, 24);
        let window = Window::default();
        budget.enter(1, &window);
        assert_eq!(window.0.load(Ordering::Relaxed), SHARE_BYTES_MIN);
    }
}
