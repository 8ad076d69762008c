//! What a package file says it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::id::PackageId;
use crate::limits::Limits;
use crate::package::{IndexReader, PackageError, ReadAt, Root, Step, package_id};
use crate::store::depot::DepotError;
use crate::store::file::FileError;

/// Reads tail and root of the package `source`, which lies at `path`: its id, what it is, and its length. The
/// signature is not judged.
pub(super) fn identify(source: &dyn ReadAt, path: &Path) -> Result<(PackageId, Arc<Root>, u64), DepotError> {
    let bytes = source.size().map_err(FileError::at("look at", path))?;
    let not_a_package = |source| DepotError::NotAPackage { path: path.to_owned(), source };
    let mut reader = IndexReader::new(bytes, Limits::DEFAULT).map_err(not_a_package)?;
    let mut piece = Vec::new();
    while let Step::Read { from, to } = reader.next() {
        piece.clear();
        piece.resize(usize::try_from(to - from).unwrap_or(usize::MAX).min(64 * 1024), 0);
        source.read_exact_at(&mut piece, from).map_err(FileError::at("read", path))?;
        reader.feed(&piece).map_err(not_a_package)?;
    }
    match (reader.root(), reader.root_bytes()) {
        (Some(root), Some(root_bytes)) => Ok((package_id(root_bytes), Arc::new(root.clone()), bytes)),
        _ => Err(not_a_package(PackageError::NotAPackage)),
    }
}

/// Whether an error says that the file is no package, rather than that it could not be looked at.
pub(super) fn is_damage(error: &DepotError) -> bool {
    match error {
        DepotError::NotAPackage { .. } => true,
        DepotError::File(FileError::Io { source, .. }) => source.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}
