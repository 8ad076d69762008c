//! What QUIC is told, each value with its reason.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use crate::transport::TransportError;

const MIB: u32 = 1024 * 1024;

/// How long an endpoint waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the first packet to a judged connection. Three lost packets in a row still fit.
    pub handshake: Duration,
    /// A connection on which nothing was heard for this long is over. The shorter of both sides' values counts.
    pub idle: Duration,
    /// A packet is sent when nothing else was for this long. Keeps NAT mappings, which live 30 s at least in practice.
    pub keep_alive: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), idle: Duration::from_secs(30), keep_alive: Duration::from_secs(10) }
    }
}

/// The settings of every connection, dialled or accepted.
///
/// The send windows of all connections that send share one budget: see `SendBudget`.
pub(super) fn transport(timing: &Timing) -> Result<Arc<TransportConfig>, TransportError> {
    let idle = IdleTimeout::try_from(timing.idle)
        .map_err(|_| TransportError::Tls { reason: "the idle timeout is longer than QUIC can say".to_owned() })?;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(UDP_PAYLOAD_MAX);
    let mut config = TransportConfig::default();
    config
        // A stranger may open nothing: streams are granted once the peer was judged.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // The protocol has neither.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // One stream carries 1 Gbit/s over 130 ms.
        .stream_receive_window(VarInt::from_u32(16 * MIB))
        // Half as much again, so that one stream that nobody reads does not starve the others.
        .receive_window(VarInt::from_u32(24 * MIB))
        // Writers wait beyond it. From the first write on it follows the path and the budget: see `SendBudget`.
        .send_window(SEND_WINDOW_BYTES_MIN)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(timing.keep_alive))
        .mtu_discovery_config(Some(discovery))
        // A round trip measured from outside is nobody's business.
        .allow_spin(false);
    Ok(Arc::new(config))
}

/// The largest UDP payload that is tried and taken. quinn sends up to ten packets in one system call, which takes at
/// most 65,507 bytes; with larger packets every burst would be lost in silence. Paths of 1500 bytes are found in some
/// round trips more; on loopback and with jumbo frames bulk is two to three times as fast as in packets of 1452 bytes.
const UDP_PAYLOAD_MAX: u16 = 6500;

/// What one connection may have written and not acknowledged on short paths. More than the 8 MiB asked of the UDP
/// socket, overhead included, would let a burst on loopback overflow it, and the losses would halve the rate.
const SEND_WINDOW_BYTES_MIN: u64 = 4 * MIB as u64;

/// The most, on any path: the other side's stream window.
const SEND_WINDOW_BYTES_MAX: u64 = 16 * MIB as u64;

/// Twice 800 Mbit/s.
const SEND_WINDOW_BYTES_PER_MS: u64 = 200 * 1000;

/// How much a connection over this round trip time may have written and not acknowledged: the path's product of
/// bandwidth and delay, twice, within bounds. Its share of the send budget may be less.
pub(super) fn send_window_bytes(rtt: Duration) -> u64 {
    let path = u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX).saturating_mul(SEND_WINDOW_BYTES_PER_MS);
    path.clamp(SEND_WINDOW_BYTES_MIN, SEND_WINDOW_BYTES_MAX)
}

/// The settings of the endpoint itself. With a `secret` that outlives the process, a node that was killed and started
/// again knows the packets of connections that it does not have any more, and tells their senders so at once (RFC 9000
/// section 10.3, stateless reset); without one they wait for their idle timeout.
pub(super) fn endpoint(secret: Option<&[u8; 32]>) -> Result<EndpointConfig, TransportError> {
    let mut config = EndpointConfig::default();
    if let Some(secret) = secret {
        let reset_key = blake3::derive_key("ted/stateless-reset/1", secret);
        config.reset_key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key)));
        let [a, b, c, d, e, f, g, h, ..] = blake3::derive_key("ted/connection-id/1", secret);
        let id_key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    }
    config.max_udp_payload_size(UDP_PAYLOAD_MAX).map_err(|error| TransportError::Tls { reason: error.to_string() })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_the_largest_packets_fit_into_one_system_call() {
        assert!(10 * u32::from(UDP_PAYLOAD_MAX) <= 65_507);
    }

    #[test]
    fn the_send_window_follows_the_path_within_bounds() {
        for (rtt_ms, mib) in [(0, 4), (1, 4), (20, 4), (100, 16), (600, 16)] {
            let window = send_window_bytes(Duration::from_millis(rtt_ms));
            assert_eq!(window / u64::from(MIB), mib, "{rtt_ms} ms");
        }
        assert!(send_window_bytes(Duration::from_millis(50)) > SEND_WINDOW_BYTES_MIN);
    }
}
