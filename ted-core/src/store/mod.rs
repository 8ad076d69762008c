//! What a node keeps on its disk: the data directory, the catalog, package files and the files they grow from.
//!
//! [`Catalog`] and [`Depot`] are the two places where another engine fits: an ordered key-value store with
//! compare-and-swap batches, and package files by id. Each has a conformance suite that every implementation passes.

mod backup;
mod catalog;
mod data_dir;
mod depot;
mod durable;
mod event_log;
mod file;
mod keystore_entries;
mod lineage;
mod logged_map;
mod part_file;
mod pins;
mod read_at;
mod scratch_file;
mod security_dir;
mod security_state;
mod staged_file;
mod standing;
mod steps;
mod tokens;
#[cfg(test)]
pub(crate) use steps::tests::StopAfter;

pub use backup::{Backup, BackupError, Overwrite, Restoring};
pub use catalog::{Batch, Catalog, CatalogError, Committed, Lease, MemoryCatalog, Record, SledCatalog};
pub use data_dir::{DataDir, DataDirError, NodeRole};
pub use depot::{
    Depot, DepotError, FinishedFile, Leftover, LocalDepot, MemoryDepot, PackageInfo, PackagePlace, Unreadable, prune,
};
pub use durable::{DurableFile, StateError};
pub use event_log::{EventLog, EventLogError, LoggedEvent};
pub use file::{FileError, create_folders, forget_cached, free_bytes, sync_folder};
pub use keystore_entries::{EntryUse, KeystoreEntry};
pub use lineage::{Former, Lineage};
pub use part_file::{GRANT_FILE, PartFile};
pub use pins::{Pin, Pins};
pub use scratch_file::ScratchFile;
pub use security_dir::{IgnoredFile, IssuedFile, SecurityDir, SecurityDirError, Trust, TrustedIn, TrustedRoot};
pub use security_state::{Floors, Registration, Registrations, Sequences};
pub use staged_file::StagedFile;
pub use standing::{Revocation, Revocations, StandingEnvelope, StandingEnvelopes, StandingSlot};
pub use steps::{AllSteps, Step, Steps};
pub use tokens::{TokenGrant, Tokens};
