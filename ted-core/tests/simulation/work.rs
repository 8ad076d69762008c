//! Work that a node gives to its disk or its threads, and hears of when it is done.

use ted_core::id::{PackageId, Revision};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Checked { reception: u64, frame: u64, bytes: Vec<u8> },
    Written { reception: u64, package: PackageId, frame: u64, write: u64 },
    Synced { reception: u64, package: PackageId, covered: Vec<u64> },
    MapWritten { reception: u64, package: PackageId },
    Extracted { revision: Revision },
}
