//! The catalog: an ordered key-value store with compare-and-swap batches and leases.
//!
//! It holds what can be rebuilt (fleet, firings, history). Keys, trusted certificates, registrations, sequences and
//! floors lie in files of their own beside the keystore.

mod lease;
mod memory;
mod sled;

use crate::error::Coded;
use crate::id::{InstanceId, UnixMillis};

pub use lease::Lease;
pub use memory::MemoryCatalog;
pub use sled::SledCatalog;

/// Why the catalog could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// It cannot be opened.
    #[error("the catalog in {path} cannot be opened: {reason}")]
    Open {
        /// Where it lies.
        path: String,
        /// What the engine says.
        reason: String,
    },
    /// Reading or writing failed. Whether a commit came through is not known.
    #[error("the catalog failed while {action}: {reason}")]
    Engine {
        /// What it was doing.
        action: &'static str,
        /// What the engine says.
        reason: String,
    },
    /// Someone else has the lease.
    #[error("`{key}` is held by instance {holder} until {}", until.millis())]
    Held {
        /// What is leased.
        key: String,
        /// Who has it.
        holder: InstanceId,
        /// For how long.
        until: UnixMillis,
    },
    /// A record is not what was written.
    #[error("the catalog's record `{key}` is damaged")]
    Damaged {
        /// Its key.
        key: String,
    },
}

impl Coded for CatalogError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "TED-1520",
            Self::Engine { .. } => "TED-1521",
            Self::Held { .. } => "TED-1522",
            Self::Damaged { .. } => "TED-1523",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Held { .. })
    }
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// All of it was written, durably.
    Done,
    /// Nothing was written: this key did not hold what the batch expected.
    Conflict {
        /// The first key that differed.
        key: Vec<u8>,
    },
}

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Changes that happen together or not at all, and only if what they expect holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// What must hold, in the order it was said.
    pub(super) expected: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What changes; a later change of the same key wins.
    pub(super) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Only if `key` holds `value`; with `None`: only if it is not there.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Vec<u8>>, value: Option<impl Into<Vec<u8>>>) -> Self {
        self.expected.push((key.into(), value.map(Into::into)));
        self
    }

    /// Only if nobody took the lease over since.
    #[must_use]
    pub fn fenced(mut self, lease: &Lease) -> Self {
        self.expected.push((lease.token_key(), Some(lease.token.to_le_bytes().to_vec())));
        self
    }

    /// Write `value` under `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.changes.push((key.into(), Some(value.into())));
        self
    }

    /// Remove `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.changes.push((key.into(), None));
        self
    }
}

/// An ordered key-value store. Its calls block for as long as a disk takes to make a batch durable: async code makes
/// them on threads that may block.
pub trait Catalog: Send + Sync {
    /// The value under `key`. What it shows is durable.
    ///
    /// # Errors
    /// [`CatalogError::Engine`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError>;

    /// All records whose keys begin with `prefix`, in the order of their keys, as of one moment between two commits.
    ///
    /// # Errors
    /// [`CatalogError::Engine`].
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Record>, CatalogError>;

    /// Does `batch` if everything it expects holds. When this returns [`Committed::Done`], it is durable.
    ///
    /// # Errors
    /// [`CatalogError::Engine`]; the batch is then in it whole or not at all.
    fn commit(&self, batch: &Batch) -> Result<Committed, CatalogError>;

    /// Takes or renews the lease on `key` for `holder`. A lease that ended may be taken by anybody. The token grows
    /// with each new holder, so that [`Batch::fenced`] stops one who does not know yet that it lost the lease.
    ///
    /// # Errors
    /// [`CatalogError::Held`] while somebody else has it; [`CatalogError::Engine`], [`CatalogError::Damaged`].
    fn lease(&self, key: &str, holder: InstanceId, now: UnixMillis, until: UnixMillis) -> Result<Lease, CatalogError> {
        lease::take(self, key, holder, now, until)
    }

    /// Gives a lease back before it ends; one that somebody took over meanwhile is left alone.
    ///
    /// # Errors
    /// [`CatalogError::Engine`], [`CatalogError::Damaged`].
    fn release(&self, lease: &Lease) -> Result<(), CatalogError> {
        lease::release(self, lease)
    }
}

#[cfg(test)]
mod conformance;
