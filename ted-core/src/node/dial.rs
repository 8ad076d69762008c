//! Dialling a peer that has endpoints: each of them in turn, with growing pauses, until one answers.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::KeyHash;
use crate::model::Endpoint as PeerEndpoint;
use crate::security::{Alpn, SecretKey};
use crate::transport::{Endpoint, QuicConnection};

/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause: a peer that comes back is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long to wait before the next attempt. No two nodes wait equally long, so that a fleet whose Distributor was
/// started again does not come back all at once, again and again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        let half = pause / 2;
        half + half.mul_f64(anything())
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number from 0 to 1, another one each time. It decides nothing that an attacker would care for.
fn anything() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

/// Why no endpoint answered.
#[derive(Debug)]
pub(crate) struct DialError {
    /// The endpoint that was tried last, and what it said.
    pub(crate) reason: String,
    /// The code of that.
    pub(crate) code: &'static str,
}

/// What a node's endpoint derives its secrets from, the same in every process that holds `key`.
pub(crate) fn endpoint_secret(key: &SecretKey) -> [u8; 32] {
    blake3::derive_key("ted/endpoint/1", key.pkcs8())
}

/// Dials the endpoints in their order, each address that its host resolves to, until one answers.
pub(crate) async fn dial(
    local: &Endpoint,
    endpoints: &[PeerEndpoint],
    fleet: &KeyHash,
    alpn: Alpn,
) -> Result<QuicConnection, DialError> {
    let mut last = DialError { reason: "no endpoint is known".to_owned(), code: "TED-1826" };
    for endpoint in endpoints {
        let addresses = match resolve(endpoint).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = DialError { reason: format!("{endpoint}: {error}"), code: "TED-1827" };
                continue;
            }
        };
        for address in addresses {
            match local.dial(address, fleet, alpn).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    let code = crate::error::Coded::code(&error);
                    let reason = named(endpoint, crate::error::Error::from(error).to_string());
                    last = DialError { reason, code };
                }
            }
        }
    }
    Err(last)
}

/// The reason with the endpoint before it, unless it names it already, as where that is an address.
fn named(endpoint: &PeerEndpoint, reason: String) -> String {
    let endpoint = endpoint.to_string();
    if reason.contains(&endpoint) { reason } else { format!("{endpoint}: {reason}") }
}

async fn resolve(endpoint: &PeerEndpoint) -> std::io::Result<Vec<SocketAddr>> {
    let PeerEndpoint::Direct(address) = endpoint;
    if let Some(ip) = address.host().ip() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    Ok(tokio::net::lookup_host((address.host().to_string(), address.port())).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_start_anew_and_differ_between_nodes() {
        let (mut backoff, mut other) = (Backoff::default(), Backoff::default());
        let mut differ = false;
        for failures in 0..8 {
            let (pause, longest) = (backoff.next(), PAUSE_MAX.min(PAUSE_MIN * (1 << failures)));
            assert!((longest / 2..=longest).contains(&pause), "{pause:?}");
            differ |= other.next() != pause;
        }
        assert!(differ);
        backoff.reset();
        assert!(backoff.next() <= PAUSE_MIN);
    }
}
