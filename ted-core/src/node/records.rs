//! Typed records in the catalog: JSON values under readable keys, durable before a call returns.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::Coded;
use crate::store::{Batch, Catalog, CatalogError, Committed};

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the catalog failed")]
    Catalog(#[from] CatalogError),
    #[error("the catalog's record `{key}` cannot be read")]
    Unreadable { key: String, source: serde_json::Error },
    #[error("the catalog's record `{key}` was changed by somebody else")]
    Conflict { key: String },
    #[error("a worker thread failed")]
    Worker,
    #[error("the catalog's records were not written: the node is stopping")]
    Abandoned,
}

impl Coded for RecordError {
    fn code(&self) -> &'static str {
        match self {
            Self::Catalog(error) => error.code(),
            Self::Unreadable { .. } => "TED-1824",
            Self::Conflict { .. } => "TED-1825",
            Self::Worker => "TED-1627",
            Self::Abandoned => "TED-1345",
        }
    }
}

/// Records of one node. Calls block for as long as the disk takes.
#[derive(Clone)]
pub(crate) struct Records(Arc<dyn Catalog>);

impl Records {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self(catalog)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, RecordError> {
        let Some(bytes) = self.0.get(key.as_bytes())? else { return Ok(None) };
        read(key, &bytes).map(Some)
    }

    /// All records whose key begins with `prefix`, in the order of their keys.
    pub(crate) fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, RecordError> {
        let rows = self.0.scan(prefix.as_bytes())?.into_iter().map(|(key, value)| {
            let key = String::from_utf8_lossy(&key).into_owned();
            let record = read(&key, &value)?;
            Ok((key, record))
        });
        rows.collect()
    }

    pub(crate) fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), RecordError> {
        self.apply(RecordBatch::default().put(key, value)?)
    }

    /// The keys of all records that begin with `prefix`.
    pub(crate) fn keys(&self, prefix: &str) -> Result<Vec<String>, RecordError> {
        let rows = self.0.scan(prefix.as_bytes())?.into_iter();
        Ok(rows.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect())
    }

    /// The bytes of all records whose key begins with `prefix`, in the order of their keys.
    pub(crate) fn list_bytes(&self, prefix: &str) -> Result<Vec<Vec<u8>>, RecordError> {
        Ok(self.0.scan(prefix.as_bytes())?.into_iter().map(|(_, value)| value).collect())
    }

    pub(crate) fn delete(&self, key: &str) -> Result<(), RecordError> {
        self.apply(RecordBatch::default().delete(key))
    }

    /// Does everything in `batch`, or nothing.
    pub(crate) fn apply(&self, batch: RecordBatch) -> Result<(), RecordError> {
        match self.0.commit(&batch.batch)? {
            Committed::Done => Ok(()),
            Committed::Conflict { key } => {
                Err(RecordError::Conflict { key: String::from_utf8_lossy(&key).into_owned() })
            }
        }
    }
}

/// Changes that are done together.
#[derive(Default)]
pub(crate) struct RecordBatch {
    batch: Batch,
}

impl RecordBatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub(crate) fn put<T: Serialize>(mut self, key: &str, value: &T) -> Result<Self, RecordError> {
        let bytes =
            serde_json::to_vec(value).map_err(|source| RecordError::Unreadable { key: key.to_owned(), source })?;
        self.batch = self.batch.put(key.as_bytes(), bytes);
        Ok(self)
    }

    pub(crate) fn put_bytes(mut self, key: &str, bytes: Vec<u8>) -> Self {
        self.batch = self.batch.put(key.as_bytes(), bytes);
        self
    }

    pub(crate) fn delete(mut self, key: &str) -> Self {
        self.batch = self.batch.delete(key.as_bytes());
        self
    }
}

fn read<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|source| RecordError::Unreadable { key: key.to_owned(), source })
}
