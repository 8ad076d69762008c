//! QUIC's settings, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::limits::Limits;

/// Shorter than any NAT forgets a UDP mapping (RFC 4787 section 4.3 allows two minutes, some keep thirty seconds).
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Three keep-alives lost in a row.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// What both sides of every connection use. Fit for 1 Gbit/s over 100 ms, whose bandwidth-delay product is 12.5 MB.
pub(super) fn transport_config(limits: &Limits) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    // No stream can exist before the peer was judged: the number is raised right after.
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    // Every request has an answer.
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.stream_receive_window(VarInt::from_u32(limits.stream_window_bytes));
    config.receive_window(VarInt::from_u32(limits.connection_window_bytes));
    // The send budget sets a connection's share when it begins to send.
    config.send_window(u64::from(limits.unenrolled_window_bytes));
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    // Larger packets cost less; the search begins at 1200 bytes, which every path carries.
    config.mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
    // Datagrams are not used; without a buffer the peer is told so.
    config.datagram_receive_buffer_size(None);
    Arc::new(config)
}
