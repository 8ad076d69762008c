//! The UDP socket, with buffers large enough for bursts.

use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::transport::BindError;

/// What is asked for: at 1 Gbit/s it holds what comes while the process is off the CPU for 60 ms.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Binds `address`, asks for large buffers, and logs what was granted. An IPv6 wildcard takes IPv4 as well.
pub(super) fn bind(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let refused = |source| BindError::Socket { address, source };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(refused)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false).map_err(refused)?;
    }
    // Best effort: the system grants less without an error, or refuses, and works on.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.bind(&address.into()).map_err(refused)?;
    let receive_bytes = socket.recv_buffer_size().unwrap_or(0);
    let send_bytes = socket.send_buffer_size().unwrap_or(0);
    tracing::info!(%address, asked_bytes = BUFFER_BYTES, receive_bytes, send_bytes, "UDP socket buffers");
    if receive_bytes < BUFFER_BYTES || send_bytes < BUFFER_BYTES {
        tracing::warn!(
            "the system grants small UDP buffers, which costs speed on fast links; \
             raise them with `sysctl -w net.core.rmem_max={BUFFER_BYTES} net.core.wmem_max={BUFFER_BYTES}`"
        );
    }
    Ok(socket.into())
}
