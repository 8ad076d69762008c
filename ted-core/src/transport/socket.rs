//! The UDP socket under an endpoint.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// What is asked of the operating system for each direction. At 1 GB/s this is 8 ms of packets: what a busy machine
/// may need before our task is run again. Linux gives at most `net.core.rmem_max` and `net.core.wmem_max`.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// A socket on `listen`. `[::]` takes IPv4 as well.
pub(super) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    enlarge(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// A socket on any free port, for nodes that only dial: both address families where the machine has IPv6.
pub(super) fn bind_any() -> io::Result<UdpSocket> {
    bind(any_address()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// The address that [`bind_any`] tries first.
pub(super) fn any_address() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, 0).into()
}

/// Smaller buffers cost speed, not correctness, so a refusal is only reported.
fn enlarge(socket: &Socket) {
    for (direction, asked) in
        [("receive", socket.set_recv_buffer_size(BUFFER_BYTES)), ("send", socket.set_send_buffer_size(BUFFER_BYTES))]
    {
        if let Err(error) = asked {
            tracing::debug!(direction, %error, "the UDP socket keeps its default buffer");
        }
    }
    let granted = |size: io::Result<usize>| size.unwrap_or_default();
    tracing::info!(
        asked_bytes = BUFFER_BYTES,
        receive_bytes = granted(socket.recv_buffer_size()),
        send_bytes = granted(socket.send_buffer_size()),
        "UDP socket buffers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_on_any_port_reaches_ipv4_listeners() {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = bind_any().unwrap();
        let mut to = listener.local_addr().unwrap();
        if socket.local_addr().unwrap().is_ipv6() {
            to = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to.port());
        }
        socket.send_to(b"words", to).unwrap();
        let mut buffer = [0; 16];
        let (length, _) = listener.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"words");
    }
}
