//! The sources of a Distribution: folders, tar files, and what is fetched or fed, joined to one tree.

mod archive;
#[cfg(test)]
mod conformance;
mod folder;
mod gitignore;
mod http;
mod selection;
mod spool;
mod tree;
mod walk;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::package::{EntryPath, Source};

use super::seen::Mark;

pub use folder::FolderSource;
pub use selection::Selection;
pub use spool::{SpooledInput, spool_input};

pub(super) use archive::{KnownArchives, TarOptions, TarSource};
pub(super) use http::{Fetching, TarUrlSource, UrlOptions, UrlSource};
pub(super) use spool::{clean_spool, spool_folder};
pub(super) use tree::{Part, SourceTree};

/// What to do with what cannot be read or distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreadable {
    /// It is an error that names everything of the kind.
    #[default]
    Refuse,
    /// It is left out and named.
    Skip,
}

/// A source whose files show whether they changed without being read.
pub(super) trait Watched: Source + Send {
    /// What the file at `path` was when the entries were listed; `None` for what is no file.
    fn mark(&self, path: &EntryPath) -> Option<Mark>;
}

/// Hears how far the reading of a source is: how it is spoken of, bytes done, and bytes there are.
pub(super) type Progress = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// The path in terms of the file system.
fn path_of(path: &EntryPath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}
