//! Answers that are paced.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::id::{KeyHash, PackageId};
use crate::name::NodeName;
use crate::node::{ExchangeError, fetch};
use crate::protocol::FetchTarget;
use crate::security::{Alpn, Peer, PeerRole};
use crate::transport::{MemoryConnection, MemoryLink};

/// A package of which nobody knows more than its bytes.
struct Stored(Vec<u8>);

impl ReadAt for Stored {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.0.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// Gives so many bytes each time, after so long, up to a place where it refuses.
#[derive(Clone, Copy)]
struct Slow {
    bytes: u64,
    pause: Duration,
    over_from: u64,
}

impl Pace for Slow {
    fn permit(&mut self, at: u64, _wanted: u64) -> Permitting<'_> {
        Box::pin(async move {
            sleep(self.pause).await;
            if at >= self.over_from {
                return Permit::Over(Refused::new(code::BUSY, "not now"));
            }
            Permit::Bytes(self.bytes)
        })
    }
}

struct Package(Slow, Arc<Mutex<Vec<u64>>>);

impl Answering for Package {
    async fn answer(&self, _request: Request) -> Reply {
        let file = Arc::new(Stored((0..100).collect()));
        let heard = self.1.clone();
        let sent = Box::new(move |bytes| heard.lock().unwrap().push(bytes));
        Reply::Content(Content::File { file, bytes: 100, pace: Box::new(self.0), sent })
    }
}

fn connected() -> (MemoryConnection, MemoryConnection) {
    let peer = |role| {
        let name: NodeName = "n.example.com".parse().unwrap();
        let key = KeyHash::from_bytes([1; 32]);
        Peer { name: Some(name), key: Some(key), role, alpn: Alpn::Ted1, fleet: key }
    };
    let (_, here, there) = MemoryLink::pair(1024, peer(PeerRole::Distributor), peer(PeerRole::Subscriber));
    (here, there)
}

async fn fetched(slow: Slow, patience: Duration) -> (Result<Vec<u8>, ExchangeError>, Vec<u64>) {
    let (here, there) = connected();
    let heard = Arc::default();
    let serving = tokio::spawn(serve(there, Arc::new(Package(slow, Arc::clone(&heard))), Limits::DEFAULT));
    let target = FetchTarget::Package(PackageId::from_bytes([7; 32]));
    let answer = fetch(&here, Fetch { target, from: 10, to: 40 }, &Limits::DEFAULT, patience).await.unwrap();
    let result = answer.collect(1000).await;
    here.close(0, "");
    serving.await.unwrap();
    let heard = heard.lock().unwrap().clone();
    (result, heard)
}

#[tokio::test(start_paused = true)]
async fn blocks_are_as_long_as_the_pace_permits_and_each_is_heard_of() {
    let slow = Slow { bytes: 7, pause: Duration::ZERO, over_from: u64::MAX };
    let (bytes, heard) = fetched(slow, Duration::from_secs(1)).await;
    assert_eq!(bytes.unwrap(), (10..40).collect::<Vec<u8>>());
    assert_eq!(heard, [7, 7, 7, 7, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_waits_for_a_permit_hears_that_it_is_not_forgotten() {
    let slow = Slow { bytes: 15, pause: Duration::from_secs(600), over_from: u64::MAX };
    let (bytes, _) = fetched(slow, KEEP_ALIVE + Duration::from_secs(1)).await;
    assert_eq!(bytes.unwrap().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_may_not_go_on_ends_with_the_reason_after_what_was_permitted() {
    let slow = Slow { bytes: 10, pause: Duration::ZERO, over_from: 20 };
    let (bytes, heard) = fetched(slow, Duration::from_secs(1)).await;
    assert!(matches!(bytes, Err(ExchangeError::Refused(refused)) if refused.code() == code::BUSY));
    assert_eq!(heard, [10]);
}
