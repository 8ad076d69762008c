//! Leases with fencing tokens, made of nothing but compare-and-swap: the same on every engine.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::id::{InstanceId, UnixMillis};
use crate::store::catalog::{Batch, Catalog, CatalogError, Committed};

const RECORD_BYTES_MAX: u64 = 64;

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub key: String,
    /// To whom.
    pub holder: InstanceId,
    /// Until when.
    pub until: UnixMillis,
    /// Greater than that of every holder before.
    pub token: u64,
}

impl Lease {
    pub(super) fn token_key(&self) -> Vec<u8> {
        token_key(&self.key)
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    holder: InstanceId,
    until: UnixMillis,
}

fn holder_key(key: &str) -> Vec<u8> {
    format!("lease/holder/{key}").into_bytes()
}

fn token_key(key: &str) -> Vec<u8> {
    format!("lease/token/{key}").into_bytes()
}

pub(super) fn take<C: Catalog + ?Sized>(
    catalog: &C,
    key: &str,
    holder: InstanceId,
    now: UnixMillis,
    until: UnixMillis,
) -> Result<Lease, CatalogError> {
    loop {
        let held = catalog.get(&holder_key(key))?;
        let token_bytes = catalog.get(&token_key(key))?;
        let last_token = read_token(key, token_bytes.as_deref())?;
        let record = held.as_deref().map(|bytes| read_record(key, bytes)).transpose()?;
        let token = match record {
            Some(record) if record.holder == holder => last_token,
            Some(record) if record.until > now => {
                return Err(CatalogError::Held { key: key.to_owned(), holder: record.holder, until: record.until });
            }
            _ => last_token + 1,
        };
        let written = codec::encode("lease", &Record { holder, until }, RECORD_BYTES_MAX)
            .map_err(|error| CatalogError::Engine { action: "writing a lease", reason: error.to_string() })?;
        let batch = Batch::new()
            .expect(holder_key(key), held)
            .expect(token_key(key), token_bytes)
            .put(holder_key(key), written)
            .put(token_key(key), token.to_le_bytes());
        if catalog.commit(&batch)? == Committed::Done {
            return Ok(Lease { key: key.to_owned(), holder, until, token });
        }
        // Somebody else was quicker. Each turn of this loop means that one of them got through.
    }
}

pub(super) fn release<C: Catalog + ?Sized>(catalog: &C, lease: &Lease) -> Result<(), CatalogError> {
    // A conflict says that somebody took the lease over, and then there is nothing to give back.
    let _: Committed = catalog.commit(&Batch::new().fenced(lease).delete(holder_key(&lease.key)))?;
    Ok(())
}

fn read_record(key: &str, bytes: &[u8]) -> Result<Record, CatalogError> {
    codec::decode("lease", bytes, RECORD_BYTES_MAX).map_err(|_| CatalogError::Damaged { key: key.to_owned() })
}

fn read_token(key: &str, bytes: Option<&[u8]>) -> Result<u64, CatalogError> {
    match bytes.map(<[u8; 8]>::try_from) {
        None => Ok(0),
        Some(Ok(bytes)) => Ok(u64::from_le_bytes(bytes)),
        Some(Err(_)) => Err(CatalogError::Damaged { key: key.to_owned() }),
    }
}
