//! A catalog that lives and ends with the process: for embedding, tests and simulation.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::catalog::{Batch, Catalog, CatalogError, Committed, Record};

/// A catalog in memory.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    records: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryCatalog {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes below are made without a call that could panic in between, so a poisoned lock still guards a whole map.
    fn records(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog for MemoryCatalog {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        Ok(self.records().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Record>, CatalogError> {
        let records = self.records();
        let from_prefix = records.range(prefix.to_vec()..);
        Ok(from_prefix
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, CatalogError> {
        let mut records = self.records();
        for (key, expected) in &batch.expected {
            if records.get(key) != expected.as_ref() {
                return Ok(Committed::Conflict { key: key.clone() });
            }
        }
        for (key, value) in &batch.changes {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        Ok(Committed::Done)
    }
}
