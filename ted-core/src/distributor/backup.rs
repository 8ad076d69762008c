//! Backup of a Distributor's security state, and its restoring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::distributor::fleet_records::{load_fleet, put_fleet};
use crate::distributor::state::lock;
use crate::distributor::{Distributor, DistributorError};
use crate::error::Error;
use crate::id::DistributionId;
use crate::model::Fleet;
use crate::name::NodeName;
use crate::node::{RecordBatch, Records, Restored};
use crate::store::{Backup, BackupError, NodeRole, Overwrite, Restoring, SledCatalog};

/// What a backup holds beside the security state: the fleet as text.
const FLEET: u16 = 1;

impl Distributor {
    /// Its whole security state, and what the fleet declares, as one encrypted file in age's format; it may go on
    /// serving meanwhile.
    ///
    /// # Errors
    /// When the passphrase is too short, or the state cannot be read.
    pub async fn backup(&self, passphrase: Zeroizing<String>) -> Result<Vec<u8>, Error> {
        self.blocking(move |state| {
            let backup = Backup::collect(state.security.path(), NodeRole::Distributor, &state.name(), state.now())?;
            let fleet = lock(&state.fleet).to_toml()?;
            Ok(backup.with_extra(FLEET, fleet.into_bytes()).seal(&passphrase)?)
        })
        .await
    }

    /// Puts the security state of a backup into the data directory `data`, which nobody may have open, and the fleet
    /// where none is declared there. Everything is verified before anything is replaced.
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
        tokio::task::spawn_blocking(restoring).await.map_err(|_| DistributorError::Worker)?
    }
}

fn restore(data: &Path, sealed: &[u8], passphrase: &str, overwrite: Overwrite) -> Result<Restored, Error> {
    let backup = Backup::open(sealed, passphrase)?;
    let fleet = backup.extra(FLEET).map(|text| read_fleet(text, backup.node())).transpose()?;
    let restoring = Restoring::prepare(&backup, data, NodeRole::Distributor, overwrite)?;
    // Before the keys: what is declared and has no keys yet does nothing.
    if let Some(fleet) = fleet {
        let records = Records::new(Arc::new(SledCatalog::open(&restoring.data().catalog())?));
        if load_fleet(&records, Some(backup.node().clone()))? == Fleet::default() {
            records.apply(put_fleet(RecordBatch::default(), &fleet)?)?;
        }
    }
    Ok(Restored { node: backup.node().clone(), made: backup.made(), aside: restoring.finish()? })
}

fn read_fleet(text: &[u8], distributor: &NodeName) -> Result<Fleet, Error> {
    let text =
        str::from_utf8(text).map_err(|error| BackupError::Malformed(format!("its fleet is no text: {error}")))?;
    // Every Distribution in it has its id.
    Ok(Fleet::from_toml(text, Some(distributor), &mut |_| DistributionId::from_bytes([0; 16]))?)
}
