//! Everything about a package but its body: root, table, catalog, and where each frame lies.

use std::ops::Range;
use std::sync::Arc;

use crate::id::{Hash, PackageId};
use crate::limits::Limits;
use crate::security::Signature;

use super::container::{SKIPPABLE_HEADER_BYTES, Tail};
use super::cuts::{FRAME_BYTES, FRAME_BYTES_MIN};
use super::entry::CatalogRow;
use super::error::PackageError;
use super::root::{Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
use super::table::{ROW_BYTES, TableRow};

/// A package without its body: its structure has been judged, and its root by whoever read it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PackageIndex(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    root: Root,
    root_bytes: Vec<u8>,
    signature: Signature,
    layout: Layout,
    rows: Vec<TableRow>,
    catalog: Vec<CatalogRow>,
    bytes: u64,
}

impl PackageIndex {
    pub(super) fn new(signed: SignedRoot, rows: Vec<TableRow>, catalog: Vec<CatalogRow>, tail: Tail) -> Self {
        let layout = Layout::of(&signed.root, &rows);
        Self(Arc::new(Parts {
            root: signed.root,
            root_bytes: signed.root_bytes,
            signature: signed.signature,
            layout,
            rows,
            catalog,
            bytes: tail.package_bytes,
        }))
    }

    /// The package's id: BLAKE3 of its root bytes.
    #[must_use]
    pub fn id(&self) -> PackageId {
        package_id(&self.0.root_bytes)
    }

    /// What the package is.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.0.root
    }

    /// The root as it was signed.
    #[must_use]
    pub fn root_bytes(&self) -> &[u8] {
        &self.0.root_bytes
    }

    /// The signature over the root.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.0.signature
    }

    /// The table: a row for every frame, body first, then catalog.
    #[must_use]
    pub fn rows(&self) -> &[TableRow] {
        &self.0.rows
    }

    /// The entries in path order, with the places of their content.
    #[must_use]
    pub fn catalog(&self) -> &[CatalogRow] {
        &self.0.catalog
    }

    /// Length of the whole package file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Frames of the body; the rows after these are the catalog's.
    #[must_use]
    pub fn body_frames(&self) -> u64 {
        self.0.root.body_frames
    }

    /// Where the stored bytes of frame number `frame` (a row of the table) lie in the file; an empty range beyond the
    /// last.
    #[must_use]
    pub fn frame_range(&self, frame: u64) -> Range<u64> {
        let frame = usize::try_from(frame).unwrap_or(usize::MAX);
        match (self.0.layout.stored_offsets.get(frame), self.0.rows.get(frame)) {
            (Some(&start), Some(row)) => start..start + u64::from(row.stored_bytes),
            _ => self.0.bytes..self.0.bytes,
        }
    }

    /// Which raw bytes of the body frame number `frame` becomes; an empty range beyond the body's last.
    #[must_use]
    pub fn raw_range(&self, frame: u64) -> Range<u64> {
        let offsets = &self.0.layout.raw_offsets;
        match usize::try_from(frame).ok().and_then(|frame| offsets.get(frame..)) {
            Some(&[start, end, ..]) => start..end,
            _ => self.0.root.body_raw_bytes..self.0.root.body_raw_bytes,
        }
    }

    /// The frame of the body that holds raw byte number `offset`; `None` beyond the body's end.
    #[must_use]
    pub fn frame_at(&self, offset: u64) -> Option<u64> {
        let frame = self.0.layout.raw_offsets.partition_point(|&start| start <= offset).checked_sub(1)?;
        (frame + 1 < self.0.layout.raw_offsets.len()).then_some(frame as u64)
    }
}

/// A package's id: BLAKE3 of its root bytes.
#[must_use]
pub fn package_id(root_bytes: &[u8]) -> PackageId {
    PackageId::from_bytes(*Hash::of(root_bytes).as_bytes())
}

/// A root as it was read, with its signature.
#[derive(Debug)]
pub(super) struct SignedRoot {
    pub(super) root: Root,
    pub(super) root_bytes: Vec<u8>,
    pub(super) signature: Signature,
}

/// Where frames begin.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Of every row: the file offset of its stored bytes.
    stored_offsets: Vec<u64>,
    /// Of every body frame: raw bytes before it; and at the end the whole body's.
    pub(super) raw_offsets: Vec<u64>,
}

impl Layout {
    pub(super) fn of(root: &Root, rows: &[TableRow]) -> Self {
        let (body, catalog) = rows.split_at((root.body_frames as usize).min(rows.len()));
        let mut layout = Self { stored_offsets: Vec::with_capacity(rows.len()), raw_offsets: vec![0] };
        let (mut stored, mut raw) = (0, 0);
        for row in body {
            layout.stored_offsets.push(stored);
            stored += u64::from(row.stored_bytes);
            raw += u64::from(row.raw_bytes);
            layout.raw_offsets.push(raw);
        }
        for row in catalog {
            stored += SKIPPABLE_HEADER_BYTES;
            layout.stored_offsets.push(stored);
            stored += u64::from(row.stored_bytes);
        }
        layout
    }
}

/// Whether this version reads such packages, and the root agrees with the tail. The signature is not looked at.
pub(super) fn judge_root(root: &Root, tail: &Tail, limits: &Limits) -> Result<Disclosure, PackageError> {
    let refuse = |what| Err(PackageError::Structure { what });
    if root.context != ROOT_CONTEXT {
        return refuse("the root has another context");
    }
    if root.kind != PackageKind::Baseline {
        return Err(PackageError::Unsupported { what: "deltas" });
    }
    if root.suite != Suite::None {
        return Err(PackageError::Unsupported { what: "sealed packages" });
    }
    if !root.frame_bytes.is_power_of_two() || !(FRAME_BYTES_MIN..=FRAME_BYTES).contains(&root.frame_bytes) {
        return refuse("the frame length is not one that the format allows");
    }
    let frames = root.body_frames.checked_add(root.catalog_frames);
    let Some(frames) = frames.filter(|&frames| frames <= limits.table_rows_max) else {
        return refuse("there are more frames than allowed");
    };
    if root.body_frames == 0 || root.catalog_frames == 0 {
        return refuse("body or catalog is missing");
    }
    let table_bytes = SKIPPABLE_HEADER_BYTES + frames * ROW_BYTES as u64;
    let fits = tail.catalog_offset == root.body_bytes
        && tail.catalog_bytes == root.catalog_bytes
        && tail.table_bytes == table_bytes;
    if !fits {
        return refuse("root and tail disagree");
    }
    root.disclosure.clone().ok_or(PackageError::Structure { what: "an unsealed package hides what it is" })
}

/// Whether the table's lengths add up to those of the root.
pub(super) fn judge_table(root: &Root, rows: &[TableRow]) -> Result<(), PackageError> {
    // At most 2²⁰ rows of at most 2²⁴ bytes: no sum overflows.
    let (body, catalog) = rows.split_at((root.body_frames as usize).min(rows.len()));
    let stored = |rows: &[TableRow]| rows.iter().map(|row| u64::from(row.stored_bytes)).sum::<u64>();
    let raw = body.iter().map(|row| u64::from(row.raw_bytes)).sum::<u64>();
    let headers = catalog.len() as u64 * SKIPPABLE_HEADER_BYTES;
    let fits = rows.len() as u64 == root.body_frames + root.catalog_frames
        && stored(body) == root.body_bytes
        && raw == root.body_raw_bytes
        && stored(catalog) + headers == root.catalog_bytes;
    if fits { Ok(()) } else { Err(PackageError::Structure { what: "table and root disagree" }) }
}
