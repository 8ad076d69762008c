//! Backup of a Subscriber's security state, and its restoring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::name::NodeName;
use crate::node::{Records, Restored};
use crate::store::{Backup, BackupError, NodeRole, Overwrite, Restoring, SledCatalog};
use crate::subscriber::Subscriber;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::state::KnownDistributor;

/// What a backup holds beside the security state: where Distributors are reached, as JSON.
const DISTRIBUTORS: u16 = 2;

#[derive(Serialize, Deserialize)]
struct StoredDistributor {
    /// The record's key in the catalog.
    key: String,
    known: KnownDistributor,
}

impl Subscriber {
    /// Its whole security state, and where its Distributors are reached, as one encrypted file in age's format; it may
    /// go on running meanwhile.
    ///
    /// # Errors
    /// When the passphrase is too short, or the state cannot be read.
    pub async fn backup(&self, passphrase: Zeroizing<String>) -> Result<Vec<u8>, Error> {
        self.blocking(move |state| {
            let now = state.clock.now();
            let backup = Backup::collect(state.security.path(), NodeRole::Subscriber, &state.name(), now)?;
            let rows = state.records.list::<KnownDistributor>("distributor/")?.into_iter();
            let known: Vec<_> = rows.map(|(key, known)| StoredDistributor { key, known }).collect();
            let known = serde_json::to_vec(&known).map_err(|error| BackupError::Sealing(error.to_string()))?;
            Ok(backup.with_extra(DISTRIBUTORS, known).seal(&passphrase)?)
        })
        .await
    }

    /// Puts the security state of a backup into the data directory `data`, which nobody may have open, and where its
    /// Distributors are reached, where that is not known there. Everything is verified before anything is replaced.
    ///
    /// # Errors
    /// When the backup or its passphrase is not right, or keys are there and shall stay.
    pub async fn restore(
        data: impl Into<PathBuf>,
        sealed: Vec<u8>,
        passphrase: Zeroizing<String>,
        overwrite: Overwrite,
    ) -> Result<Restored, Error> {
        let data = data.into();
        let restoring = move || restore(&data, &sealed, &passphrase, overwrite);
        tokio::task::spawn_blocking(restoring).await.map_err(|_| SubscriberError::Worker)?
    }
}

fn restore(data: &Path, sealed: &[u8], passphrase: &str, overwrite: Overwrite) -> Result<Restored, Error> {
    let backup = Backup::open(sealed, passphrase)?;
    let known: Vec<StoredDistributor> = match backup.extra(DISTRIBUTORS) {
        Some(bytes) => serde_json::from_slice(bytes)
            .map_err(|error| BackupError::Malformed(format!("its Distributors: {error}")))?,
        None => vec![],
    };
    let restoring = Restoring::prepare(&backup, data, NodeRole::Subscriber, overwrite)?;
    let records = Records::new(Arc::new(SledCatalog::open(&restoring.data().catalog())?));
    let there: Option<NodeName> = records.get("node")?;
    if let Some(there) = there.filter(|there| there != backup.node()) {
        let asked = backup.node().clone();
        return Err(SubscriberError::OtherName { data: data.to_owned(), there, asked }.into());
    }
    // Before the keys: a name without keys does nothing.
    records.put("node", backup.node())?;
    for StoredDistributor { key, known } in known.into_iter().filter(|known| known.key.starts_with("distributor/")) {
        if records.get::<KnownDistributor>(&key)?.is_none() {
            records.put(&key, &known)?;
        }
    }
    Ok(Restored { node: backup.node().clone(), made: backup.made(), aside: restoring.finish()? })
}
