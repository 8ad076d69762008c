//! The package, `distfile.ted`: root, table, catalog, frames; building and reading. Byte layout in `docs/format.md`.

mod entry;
mod frame;
mod root;
mod table;

pub use entry::{CatalogRow, Entry, EntryKind, EntryPath, Extension, Mtime, PathError};
pub use frame::{FrameError, check_frame};
pub use root::{BodyDigest, Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
pub use table::TableRow;
