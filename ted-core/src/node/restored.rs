//! What came of restoring a backup.

use std::path::PathBuf;

use crate::id::UnixMillis;
use crate::name::NodeName;

/// A node whose security state was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Whose it is.
    pub node: NodeName,
    /// When the backup was made.
    pub made: UnixMillis,
    /// Where the security state went that was there; none where there was none.
    pub aside: Option<PathBuf>,
}
