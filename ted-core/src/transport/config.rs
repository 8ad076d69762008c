//! What QUIC is told, each value with its reason.

use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

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
/// The send windows of many connections add up: nothing shares one budget between them yet.
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
        // One stream carries 1 Gbit/s over 130 ms, and 160 MB/s over 100 ms.
        .stream_receive_window(VarInt::from_u32(16 * MIB))
        // Half as much again, so that one stream that nobody reads does not starve the others.
        .receive_window(VarInt::from_u32(24 * MIB))
        // What one stream's window can take; beyond it, writers wait.
        .send_window(u64::from(16 * MIB))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(timing.keep_alive))
        .mtu_discovery_config(Some(discovery))
        // A round trip measured from outside is nobody's business.
        .allow_spin(false);
    Ok(Arc::new(config))
}

/// The largest UDP payload that is tried and taken: an Ethernet frame of 1500 bytes less IPv6 and UDP headers.
const UDP_PAYLOAD_MAX: u16 = 1452;

/// The settings of the endpoint itself.
pub(super) fn endpoint() -> Result<EndpointConfig, TransportError> {
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(UDP_PAYLOAD_MAX.max(1472))
        .map_err(|error| TransportError::Tls { reason: error.to_string() })?;
    Ok(config)
}
