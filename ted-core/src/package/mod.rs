//! The package, `distfile.ted`: root, table, catalog, frames; building and reading. Byte layout in `docs/format.md`.

mod attributes;
mod body;
mod build;
mod catalog;
mod changes;
mod container;
mod content;
mod cuts;
mod damage;
pub mod delta;
mod digest;
mod entry;
mod entry_list;
mod error;
mod frame;
mod index;
mod index_reader;
mod judge;
mod pipeline;
mod remake;
mod resign;
mod reuse;
mod root;
mod source;
mod table;
mod tar_layout;
mod tar_stream;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

pub use attributes::{Asked, Owners, Xattr, XattrKind};
pub use body::{BodyReader, RawFrames, ReadAt, read_stored};
pub use build::{
    BuildError, BuildOptions, BuildProgress, BuiltPackage, LEVEL, RootSigner, Seal, build_baseline, build_next_baseline,
};
pub use catalog::{content_id, same_but_content};
pub use changes::{Aspect, Change, ChangeCounts, changes};
pub use container::{FORMAT_MAJOR, FORMAT_MINOR};
pub use content::{ContentHasher, PieceHash};
pub use cuts::{FRAME_BYTES, FRAME_BYTES_MIN};
pub use damage::{damaged_frames, is_damage};
pub use digest::DigestKind;
pub use entry::{AsEntry, CatalogRow, Entry, EntryKind, EntryPath, Extension, Mtime, PathError};
pub use entry_list::{EntryListHead, decode_entry_list, encode_entry_list};
pub use error::{CatalogFault, FrameError, PackageError};
pub use frame::{FrameDecoder, check_frame, decode_frame};
pub use index::{AnyIndex, BlindIndex, PackageIndex, PackagePart, package_id};
pub use index_reader::{IndexReader, Opening, Step, read_any_index, read_delta_index, read_index};
pub use judge::{judge_entries, judge_rows};
pub use remake::{FrameRemaker, RemakeError, make_frame};
pub use resign::{NewRoot, Resigned, sign_again};
pub use reuse::{Previous, Reused};
pub use root::{BodyDigest, Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
pub use source::{KindError, SkipReason, Skipped, Source, SourceError, SourceFile};
pub use table::TableRow;
pub use verify::{VerifyProgress, verify_body, verify_digest, verify_frames};
