//! A depot that lives and ends with the process: for tests and simulation.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::id::PackageId;
use crate::store::depot::identify::identify;
use crate::store::depot::{Depot, DepotError, FinishedFile, PackageInfo, check_range, in_order};
use crate::store::file::{FileError, remove_if_there};

/// A depot in memory.
#[derive(Debug, Default)]
pub struct MemoryDepot {
    packages: Mutex<HashMap<PackageId, (PackageInfo, Bytes)>>,
}

impl MemoryDepot {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing panics while the lock is held, so a poisoned one still guards a whole map.
    fn packages(&self) -> MutexGuard<'_, HashMap<PackageId, (PackageInfo, Bytes)>> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Depot for MemoryDepot {
    async fn info(&self, id: PackageId) -> Result<Option<PackageInfo>, DepotError> {
        Ok(self.packages().get(&id).map(|(info, _)| info.clone()))
    }

    async fn get_range(&self, id: PackageId, range: Range<u64>) -> Result<Bytes, DepotError> {
        let packages = self.packages();
        let (info, content) = packages.get(&id).ok_or(DepotError::NotFound { id })?;
        check_range(info, &range)?;
        // Both ends lie within the content, whose length is a `usize`.
        Ok(content.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, finished: FinishedFile) -> Result<PackageInfo, DepotError> {
        let FinishedFile { path, place } = finished;
        let content = Bytes::from(std::fs::read(&path).map_err(FileError::at("read", &path))?);
        let (id, root, bytes) = identify(&content, &path)?;
        remove_if_there(&path)?;
        let info = PackageInfo { id, root, bytes, place };
        let mut packages = self.packages();
        packages.retain(|_, (other, _)| other.place != info.place);
        packages.insert(id, (info.clone(), content));
        Ok(info)
    }

    async fn list(&self) -> Result<Vec<PackageInfo>, DepotError> {
        Ok(in_order(self.packages().values().map(|(info, _)| info.clone()).collect()))
    }

    async fn delete(&self, id: PackageId) -> Result<(), DepotError> {
        self.packages().remove(&id);
        Ok(())
    }
}
