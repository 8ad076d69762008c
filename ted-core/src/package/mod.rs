//! The package, `distfile.ted`: root, table, catalog, frames; building and reading. Byte layout in `docs/format.md`.

mod entry;
mod frames;
mod root;
mod table;

pub use entry::{CatalogRow, Entry, EntryKind, EntryPath, Extension, Mtime, PathError};
pub use frames::{PackageError, RawFrames};
pub use root::{BodyDigest, Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
pub use table::TableRow;
