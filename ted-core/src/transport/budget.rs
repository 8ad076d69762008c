//! The send budget: what all connections of an endpoint together may have written and not acknowledged.
//!
//! It counts what connections hold, not everything that sending costs:
//!
//! - A Fetch that is served holds up to two blocks besides, the one that is handed to the connection and the one that
//!   is read ahead; and the last unacknowledged bytes of the block before keep the whole of it. With blocks of 1 MiB
//!   that is up to 3 MiB for each Fetch under way, however small the share. A receiver has up to
//!   [`fetches_max`](crate::limits::Limits::fetches_max) of them.
//! - What was written before a share shrank stays until it is acknowledged. Where many connections begin one after the
//!   other and nobody acknowledges, the sum reaches the budget once more with each doubling of their number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::transport::config::send_window_bytes;

/// The least that a sending connection gets: a dozen packets, so that it never stalls between acknowledgements of a
/// short round trip. Beyond some three thousand connections that send at the same time the sum exceeds the budget.
const SHARE_BYTES_MIN: u64 = 16 * 1024;

/// What a budget needs of a connection.
pub(super) trait Windowed {
    /// How many bytes its path can use, whatever the budget.
    fn path_window_bytes(&self) -> u64;

    /// Sets how many bytes may be written and not yet acknowledged.
    fn set_window_bytes(&self, bytes: u64);
}

impl Windowed for quinn::Connection {
    fn path_window_bytes(&self) -> u64 {
        send_window_bytes(self.min_rtt())
    }

    fn set_window_bytes(&self, bytes: u64) {
        self.set_send_window(bytes);
    }
}

/// Divides a budget among the connections that have a stream with unacknowledged bytes; idle ones take nothing.
#[derive(Debug)]
pub(super) struct SendBudget<C> {
    budget_bytes: u64,
    active: Mutex<Active<C>>,
}

#[derive(Debug)]
struct Active<C> {
    /// Each with the number of its sending streams.
    connections: HashMap<usize, (C, usize)>,
    share_bytes: u64,
}

impl<C: Windowed + Clone> SendBudget<C> {
    pub(super) fn new(budget_bytes: u64) -> Arc<Self> {
        let active = Mutex::new(Active { connections: HashMap::new(), share_bytes: share(budget_bytes, 1) });
        Arc::new(Self { budget_bytes, active })
    }

    /// A stream of `connection` begins to send, and counts until what is returned is dropped. `id` is the connection's
    /// own for as long as it sends. A new stream is also the occasion to fit the window to the path.
    pub(super) fn enter(self: &Arc<Self>, id: usize, connection: &C) -> SendingStream<C> {
        let mut active = self.active();
        active.connections.entry(id).or_insert_with(|| (connection.clone(), 0)).1 += 1;
        self.share_out(&mut active);
        fit(connection, active.share_bytes);
        SendingStream { budget: self.clone(), id }
    }
}

impl<C: Windowed> SendBudget<C> {
    fn leave(&self, id: usize) {
        let mut active = self.active();
        let Some((_, streams)) = active.connections.get_mut(&id) else { return };
        *streams -= 1;
        if *streams == 0 {
            active.connections.remove(&id);
            self.share_out(&mut active);
        }
    }

    fn share_out(&self, active: &mut Active<C>) {
        let share_bytes = share(self.budget_bytes, active.connections.len());
        if share_bytes == active.share_bytes {
            return;
        }
        active.share_bytes = share_bytes;
        for (connection, _) in active.connections.values() {
            fit(connection, share_bytes);
        }
    }

    fn active(&self) -> MutexGuard<'_, Active<C>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shares change only when the number of sending connections crosses a power of two, so that thousands of short streams
/// do not rewrite thousands of windows each time.
fn share(budget_bytes: u64, connections: usize) -> u64 {
    let sharers = connections.max(1).next_power_of_two() as u64;
    (budget_bytes / sharers).max(SHARE_BYTES_MIN)
}

fn fit(connection: &impl Windowed, share_bytes: u64) {
    connection.set_window_bytes(connection.path_window_bytes().min(share_bytes));
}

/// A stream that sends. Dropped, its connection's share goes back, unless another of its streams sends.
#[derive(Debug)]
pub(super) struct SendingStream<C: Windowed> {
    budget: Arc<SendBudget<C>>,
    id: usize,
}

impl<C: Windowed> Drop for SendingStream<C> {
    fn drop(&mut self) {
        self.budget.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Waker};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::limits::Limits;
    use crate::security::fixtures::{FleetFixture, NOW};
    use crate::security::{Alpn, Identity, Usage};
    use crate::transport::fixtures::{Answers, LOOPBACK, QUICK, Relay, dialling, options, policy_with};
    use crate::transport::{
        Connection, Endpoint, QuicConnection, QuicRecv, QuicSend, RecvHalf, STREAM_ABANDONED, SendHalf, Timing,
    };

    const MIB: u64 = 1024 * 1024;

    #[derive(Clone)]
    struct Window {
        path_bytes: u64,
        bytes: Arc<AtomicU64>,
    }

    impl Window {
        fn over(path_bytes: u64) -> Self {
            Self { path_bytes, bytes: Arc::default() }
        }

        fn bytes(&self) -> u64 {
            self.bytes.load(Ordering::Relaxed)
        }
    }

    impl Windowed for Window {
        fn path_window_bytes(&self) -> u64 {
            self.path_bytes
        }

        fn set_window_bytes(&self, bytes: u64) {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn sending_connections_share_the_budget_and_get_it_back() {
        let budget = SendBudget::new(48 * MIB);
        let windows: Vec<Window> = (0..5).map(|_| Window::over(24 * MIB)).collect();
        let of = |at: usize| windows[at].bytes() / MIB;
        let mut streams = vec![];
        for (at, expected) in [24, 24, 12, 12, 6].into_iter().enumerate() {
            streams.push(budget.enter(at, &windows[at]));
            assert_eq!(of(at), expected, "connection {at}");
            let sum: u64 = (0..=at).map(of).sum();
            assert!(sum <= 48, "{sum} MiB of 48");
        }
        let second = budget.enter(0, &windows[0]);
        streams.truncate(1);
        assert_eq!(of(0), 24, "alone again");
        streams.clear();
        assert_eq!(budget.active().connections.len(), 1, "its second stream still sends");
        drop(second);
        assert!(budget.active().connections.is_empty());
    }

    #[test]
    fn a_short_path_gets_what_it_can_use_and_a_longer_one_the_share() {
        let budget = SendBudget::new(48 * MIB);
        let (short, long) = (Window::over(4 * MIB), Window::over(16 * MIB));
        let mut streams = vec![budget.enter(0, &short), budget.enter(1, &long)];
        assert_eq!((short.bytes(), long.bytes()), (4 * MIB, 16 * MIB));
        streams.extend((2..6).map(|id| budget.enter(id, &Window::over(4 * MIB))));
        assert_eq!((short.bytes(), long.bytes()), (4 * MIB, 6 * MIB));
        streams.truncate(2);
        assert_eq!((short.bytes(), long.bytes()), (4 * MIB, 16 * MIB));
    }

    #[test]
    fn no_sender_is_starved() {
        let budget = SendBudget::new(48);
        let window = Window::over(4 * MIB);
        let _stream = budget.enter(1, &window);
        assert_eq!(window.bytes(), SHARE_BYTES_MIN);
    }

    const PIECE: &[u8] = &[7; 16 * 1024];

    /// A Subscriber over a relay, and a stream to it on which one byte has arrived.
    struct Receiver {
        relay: Relay,
        connection: QuicConnection,
        send: QuicSend,
        _there: (Endpoint, QuicConnection, QuicSend, QuicRecv),
    }

    impl Receiver {
        async fn of(sender: &Endpoint, fleet: &FleetFixture, identity: &Identity) -> Self {
            let relay = Relay::to(sender.local_addr().unwrap(), Answers::Pass).await;
            let policy = Arc::new(fleet.subscriber_policy());
            let endpoint = dialling(policy, fleet.root(), Some(identity));
            let key = fleet.key();
            let (there, connection) = tokio::join!(endpoint.dial(relay.address, &key, Alpn::Ted1), async {
                sender.accept().await.unwrap().judge().await.unwrap()
            });
            let there = there.unwrap();
            let (mut send, _) = connection.open().await.unwrap();
            send.write(Bytes::from_static(b"x")).await.unwrap();
            let (back, mut recv) = there.accept().await.unwrap();
            assert!(recv.read_chunks().await.unwrap().is_some());
            Self { relay, connection, send, _there: (endpoint, there, back, recv) }
        }

        /// Writes up to `pieces` while it need not wait; nobody acknowledges. Answers the KiB that were taken.
        fn fill(&mut self, pieces: u64) -> u64 {
            let mut context = Context::from_waker(Waker::noop());
            let taken = |_: &u64| {
                let write = pin!(self.send.write(Bytes::from_static(PIECE)));
                write.poll(&mut context).is_ready()
            };
            (0..pieces).take_while(taken).count() as u64 * 16
        }
    }

    #[tokio::test]
    async fn over_quic_windows_shrink_while_others_have_bytes_unacknowledged_and_grow_back() {
        let fleet = FleetFixture::new("a.example.com");
        let (second, third) = (
            fleet.issue(Usage::SubscriberIdentity, "two.example.com"),
            fleet.issue(Usage::SubscriberIdentity, "three.example.com"),
        );
        let policy = Arc::new(policy_with(&fleet, &[&second, &third]));
        let limits = Limits { send_budget_bytes: 2 * MIB, ..Limits::DEFAULT };
        // Nothing times out while the links are cut.
        let timing = Timing { idle: Duration::from_secs(60), ..QUICK };
        let options = options(policy, fleet.root(), Some(&fleet.tls), NOW).limits(limits).timing(timing);
        let sender = Endpoint::bind_with(LOOPBACK, options).unwrap();

        let mut one = Receiver::of(&sender, &fleet, &fleet.subscriber).await;
        one.relay.cut();
        assert_eq!(one.fill(64), 1024, "half of what it may have alone");
        let two = Receiver::of(&sender, &fleet, &second).await;
        assert_eq!(one.fill(1), 0, "its share is half now, and taken");

        // Finished and not acknowledged is still in memory; a connection that closes takes it along.
        two.relay.cut();
        let Receiver { connection, mut send, _there, .. } = two;
        send.finish().unwrap();
        drop(send);
        tokio::task::yield_now().await;
        assert_eq!(one.fill(1), 0, "the other one's byte may have to be sent again");
        connection.close(0, "");
        connection.closed().await;
        while one.fill(1) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(one.fill(1000) > 1024 - 64, "all of the budget");

        // And a stream that is given up takes its bytes along at once.
        let mut three = Receiver::of(&sender, &fleet, &third).await;
        three.relay.cut();
        assert!((1024 - 16..=1024).contains(&three.fill(1000)), "half, of which its first byte may have a part");
        one.send.reset(STREAM_ABANDONED);
        assert!(three.fill(1000) >= 1024, "all of it");
    }
}
