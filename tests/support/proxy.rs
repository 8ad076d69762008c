//! A UDP relay between two nodes that can be held up: what arrives meanwhile is lost, as on a broken link.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ANY_PORT;

/// Larger than any datagram that nodes send.
const DATAGRAM_BYTES: usize = 65_536;

pub struct Proxy {
    pub address: SocketAddr,
    broken: Arc<AtomicBool>,
    bytes_up: watch::Sender<u64>,
    bytes_down: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Relays to `upstream` whatever comes to the proxy's address, and the answers back.
    pub async fn to(upstream: SocketAddr) -> Self {
        let listening = Arc::new(UdpSocket::bind(ANY_PORT).await.expect("a socket"));
        let address = listening.local_addr().expect("an address");
        let broken = Arc::new(AtomicBool::new(false));
        let (bytes_up, bytes_down) = (watch::Sender::new(0), watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(up(listening, upstream, broken.clone(), bytes_up.clone(), bytes_down.clone()));
        Self { address, broken, bytes_up, bytes_down, _tasks: tasks }
    }

    pub fn break_link(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    pub fn mend_link(&self) {
        self.broken.store(false, Ordering::SeqCst);
    }

    /// Bytes of UDP payload that were relayed to the dialling side.
    pub fn bytes_down(&self) -> u64 {
        *self.bytes_down.borrow()
    }

    /// Waits until somebody dials, whether or not the link is broken.
    pub async fn dialled(&self) {
        self.bytes_up.subscribe().wait_for(|bytes| *bytes > 0).await.expect("the sender is here");
    }

    /// Waits until somebody was answered.
    pub async fn answered(&self) {
        self.bytes_down.subscribe().wait_for(|bytes| *bytes > 0).await.expect("the sender is here");
    }
}

async fn up(
    listening: Arc<UdpSocket>,
    upstream: SocketAddr,
    broken: Arc<AtomicBool>,
    bytes_up: watch::Sender<u64>,
    bytes_down: watch::Sender<u64>,
) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut downs = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((bytes, client)) = listening.recv_from(&mut buffer).await else { continue };
        bytes_up.send_modify(|total| *total += bytes as u64);
        if broken.load(Ordering::SeqCst) {
            continue;
        }
        if let std::collections::hash_map::Entry::Vacant(new) = clients.entry(client) {
            let socket = Arc::new(UdpSocket::bind(ANY_PORT).await.expect("a socket"));
            socket.connect(upstream).await.expect("an address");
            downs.spawn(down(socket.clone(), listening.clone(), client, broken.clone(), bytes_down.clone()));
            new.insert(socket);
        }
        // A datagram that cannot be sent is lost, as datagrams are.
        let _ = clients[&client].send(&buffer[..bytes]).await;
    }
}

async fn down(
    socket: Arc<UdpSocket>,
    listening: Arc<UdpSocket>,
    client: SocketAddr,
    broken: Arc<AtomicBool>,
    bytes_down: watch::Sender<u64>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error is the operating system's word that nobody listens upstream just now.
        let Ok(bytes) = socket.recv(&mut buffer).await else { continue };
        if !broken.load(Ordering::SeqCst) {
            bytes_down.send_modify(|total| *total += bytes as u64);
            let _ = listening.send_to(&buffer[..bytes], client).await;
        }
    }
}
