//! Another root for a package that is there: under another Distributor key, or as another revision of the same content.
//! Frames, catalog and table stay byte for byte what they are, so that a receiver that has them fetches none of them.

use std::io::Write;

use crate::codec;
use crate::id::{Hash, KeyHash, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::security::Signature;

use super::body::ReadAt;
use super::build::{BuildError, RootSigner};
use super::container::{
    Part, SKIPPABLE_HEADER_BYTES, TAIL_BYTES, Tail, root_block, skippable_payload, split_root_block,
};
use super::error::PackageError;
use super::index::package_id;
use super::root::Root;
use super::table::ROW_BYTES;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// What the new root says otherwise than the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoot {
    /// Whose package it is.
    pub distributor: KeyHash,
    /// Which revision.
    pub revision: Revision,
    /// When it was signed anew.
    pub created: UnixMillis,
}

/// A package under its new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resigned {
    /// Its id.
    pub id: PackageId,
    /// Its root.
    pub root: Root,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes the package that `source` holds to `out` under a new root. `judge` decides about the old root, its bytes and
/// signature; what it accepts is signed again. The table is checked against the old root, the frames are copied as they
/// are: whoever reads them checks them against the table.
///
/// # Errors
/// What `judge` says, or [`BuildError`].
pub fn sign_again<E: From<BuildError>>(
    source: &dyn ReadAt,
    new: NewRoot,
    judge: impl FnOnce(&Root, &[u8], &Signature) -> Result<(), E>,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
) -> Result<Resigned, E> {
    let limits = Limits::DEFAULT;
    let (tail, old_bytes, signature) = read_end(source, &limits)?;
    let old: Root = codec::decode("root", &old_bytes, limits.root_bytes_max).map_err(BuildError::from)?;
    judge(&old, &old_bytes, &signature)?;
    check_table(source, &old, &tail)?;
    let root = Root { distributor: new.distributor, revision: new.revision, created: new.created, ..old };
    let root_bytes = codec::encode("root", &root, limits.root_bytes_max).map_err(BuildError::from)?;
    let signature = signer.sign_root(&root_bytes).map_err(BuildError::Sign)?;
    let block = root_block(&root_bytes, &signature).map_err(BuildError::Refused)?;
    copy(source, tail.root_offset, out)?;
    let tail = Tail::of(tail.catalog_offset, tail.catalog_bytes, tail.table_bytes, block.len() as u64);
    for part in [block.as_slice(), &tail.encode()] {
        out.write_all(part).map_err(BuildError::Write)?;
    }
    out.flush().map_err(BuildError::Write)?;
    Ok(Resigned { id: package_id(&root_bytes), root, bytes: tail.package_bytes })
}

/// Tail, root bytes and signature.
fn read_end(source: &dyn ReadAt, limits: &Limits) -> Result<(Tail, Vec<u8>, Signature), BuildError> {
    let bytes = source.size().map_err(|error| unreadable("end", error))?;
    let at = bytes.checked_sub(TAIL_BYTES).ok_or(BuildError::Refused(PackageError::NotAPackage))?;
    let tail = Tail::decode(&read(source, "end", at, TAIL_BYTES)?, bytes, limits).map_err(BuildError::Refused)?;
    let block = read(source, "root", tail.root_offset, tail.root_bytes)?;
    let (root, signature) = split_root_block(&block, limits).map_err(BuildError::Refused)?;
    Ok((tail, root, signature))
}

fn check_table(source: &dyn ReadAt, root: &Root, tail: &Tail) -> Result<(), BuildError> {
    let table_max = Limits::DEFAULT.table_rows_max.saturating_mul(ROW_BYTES as u64) + SKIPPABLE_HEADER_BYTES;
    if tail.table_bytes > table_max {
        return Err(BuildError::Refused(PackageError::TableHash));
    }
    let block = read(source, "table", tail.table_offset, tail.table_bytes)?;
    let table = skippable_payload(Part::Table, &block).map_err(BuildError::Refused)?;
    if Hash::of(table) == root.table { Ok(()) } else { Err(BuildError::Refused(PackageError::TableHash)) }
}

fn copy(source: &dyn ReadAt, to: u64, out: &mut dyn Write) -> Result<(), BuildError> {
    let mut at = 0;
    while at < to {
        let bytes = COPY_BYTES.min(to - at);
        out.write_all(&read(source, "frames", at, bytes)?).map_err(BuildError::Write)?;
        at += bytes;
    }
    Ok(())
}

fn read(source: &dyn ReadAt, place: &'static str, at: u64, bytes: u64) -> Result<Vec<u8>, BuildError> {
    let mut content = vec![0; bytes as usize];
    source.read_exact_at(&mut content, at).map_err(|error| unreadable(place, error))?;
    Ok(content)
}

fn unreadable(place: &'static str, source: std::io::Error) -> BuildError {
    BuildError::Refused(PackageError::Io { place, source })
}
