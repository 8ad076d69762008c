//! Everything about a package but its body: root, table, catalog, and where each frame lies.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use crate::id::{Hash, PackageId};
use crate::limits::Limits;
use crate::security::{ContentKey, FrameSealer, SEAL_BYTES, Signature};

use super::container::{HEAD_BYTES, SKIPPABLE_HEADER_BYTES, Tail};
use super::cuts::{FRAME_BYTES, FRAME_BYTES_MIN};
use super::delta::DeltaIndex;
use super::entry::CatalogRow;
use super::error::PackageError;
use super::frame::{FrameDecoder, open_frame, unseal_frame};
use super::root::{Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
use super::table::{ROW_BYTES, TableRow};
use super::tar_layout::TarLayout;

/// What everyone who holds a package sees of it, sealed or not: root, table, and where each frame lies. Enough to
/// verify stored frames and to serve them, never to extract. Its structure has been judged, and its root by whoever
/// read it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlindIndex(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    root: Root,
    root_bytes: Vec<u8>,
    signature: Signature,
    layout: Layout,
    rows: Vec<TableRow>,
    bytes: u64,
}

/// A stretch of a package file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackagePart {
    /// The stored bytes of a frame, for which row number `frame` of the table vouches.
    Frame {
        /// Which one.
        frame: u64,
        /// Where it lies.
        range: Range<u64>,
    },
    /// What frames of their own are not: head, headers, table, root and tail.
    Between {
        /// Where it lies; empty beyond the package's end.
        range: Range<u64>,
    },
}

/// A package without its body, opened: what a [`BlindIndex`] has, the catalog, and of a sealed package the means to
/// open its frames. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PackageIndex {
    blind: BlindIndex,
    opened: Arc<Opened>,
    /// Made when the first frame is opened: most indexes never open one.
    tar: Arc<OnceLock<TarLayout>>,
}

#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disclosure: Disclosure,
    pub(super) catalog: Vec<CatalogRow>,
    pub(super) sealer: Option<FrameSealer>,
}

impl PackageIndex {
    pub(super) fn new(blind: BlindIndex, opened: Opened) -> Self {
        Self { blind, opened: Arc::new(opened), tar: Arc::default() }
    }

    /// The part of it that needs no key.
    #[must_use]
    pub fn blind(&self) -> &BlindIndex {
        &self.blind
    }

    /// The Distribution's name, the content id and the number of entries: from the root, or from the sealed catalog.
    #[must_use]
    pub fn disclosure(&self) -> &Disclosure {
        &self.opened.disclosure
    }

    /// The entries in path order, with the places of their content.
    #[must_use]
    pub fn catalog(&self) -> &[CatalogRow] {
        &self.opened.catalog
    }

    /// Opens and decompresses frame number `frame`, which was found to be what the table says, into `out`, and checks
    /// that what it has of the tar stream is what the catalog makes it. `stored` is of no use afterwards.
    pub(super) fn open_frame(
        &self,
        decoder: &mut FrameDecoder,
        frame: u64,
        stored: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), PackageError> {
        let row = self.row(frame)?;
        open_frame(decoder, self.sealer(), (frame, row), stored, out)
            .map_err(|source| PackageError::Frame { frame, source })?;
        let tar = self.tar.get_or_init(|| TarLayout::of(self.catalog(), &self.blind.0.layout.raw_offsets));
        tar.check(self.catalog(), (frame, self.raw_range(frame)), out)
    }

    /// [`open_frame`](Self::open_frame) into room for exactly its raw bytes.
    pub(super) fn open_frame_to(
        &self,
        decoder: &mut FrameDecoder,
        frame: u64,
        stored: &mut Vec<u8>,
        room: &mut [u8],
    ) -> Result<(), PackageError> {
        let row = self.row(frame)?;
        unseal_frame(self.sealer(), frame, stored)
            .and_then(|()| decoder.decode_to(row, stored, room))
            .map_err(|source| PackageError::Frame { frame, source })
    }

    /// What seals this package's frames; `None` for an unsealed one.
    pub(super) fn sealer(&self) -> Option<&FrameSealer> {
        self.opened.sealer.as_ref()
    }
}

/// An opened index is a blind one, and more.
impl Deref for PackageIndex {
    type Target = BlindIndex;

    fn deref(&self) -> &BlindIndex {
        &self.blind
    }
}

/// A package without its body, opened as far as its reader could.
#[derive(Debug, Clone)]
pub enum AnyIndex {
    /// A baseline that is not sealed, or there was its key.
    Opened(PackageIndex),
    /// A delta that is not sealed, or there was its key.
    Delta(DeltaIndex),
    /// Either, sealed, and there was no key.
    Blind(BlindIndex),
}

impl AnyIndex {
    /// The part of it that needs no key.
    #[must_use]
    pub fn blind(&self) -> &BlindIndex {
        match self {
            Self::Opened(index) => index.blind(),
            Self::Delta(index) => index.blind(),
            Self::Blind(index) => index,
        }
    }

    /// The opened index of a baseline.
    ///
    /// # Errors
    /// [`PackageError::Sealed`] without the key; [`PackageError::Unsupported`] for a delta.
    pub fn opened(&self) -> Result<&PackageIndex, PackageError> {
        match self {
            Self::Opened(index) => Ok(index),
            Self::Delta(_) => Err(PackageError::Unsupported { what: "a delta where a baseline is needed" }),
            Self::Blind(_) => Err(PackageError::Sealed),
        }
    }
}

impl BlindIndex {
    pub(super) fn new(signed: SignedRoot, rows: Vec<TableRow>, tail: Tail) -> Self {
        let layout = Layout::of(&signed.root, &rows);
        Self(Arc::new(Parts {
            root: signed.root,
            root_bytes: signed.root_bytes,
            signature: signed.signature,
            layout,
            rows,
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

    /// The row of frame number `frame`.
    pub(super) fn row(&self, frame: u64) -> Result<&TableRow, PackageError> {
        let row = usize::try_from(frame).ok().and_then(|frame| self.0.rows.get(frame));
        row.ok_or(PackageError::Structure { what: "there is no such frame" })
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

    /// Where the body lies in the file: what the operator's digest is of.
    #[must_use]
    pub fn body_range(&self) -> Range<u64> {
        let head = head_bytes(&self.0.root);
        head..head + self.0.root.body_bytes
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

    /// What byte number `offset` of the package file belongs to: the frame (of body or catalog) that holds it, or bytes
    /// between and behind frames, which no row of the table is about.
    #[must_use]
    pub fn part_at(&self, offset: u64) -> PackagePart {
        let behind = self.0.layout.stored_offsets.partition_point(|&start| start <= offset);
        let before = behind.checked_sub(1).map(|frame| frame as u64);
        match before.map(|frame| (frame, self.frame_range(frame))) {
            Some((frame, range)) if offset < range.end => PackagePart::Frame { frame, range },
            before => {
                let start = before.map_or(0, |(_, range)| range.end);
                let end = self.0.layout.stored_offsets.get(behind).copied().unwrap_or(self.0.bytes);
                PackagePart::Between { range: if offset < end { start..end } else { end..end } }
            }
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

/// Bytes before the body: an unsealed baseline has no head, so that it is a tar archive from its first byte.
pub(super) fn head_bytes(root: &Root) -> u64 {
    if root.is_sealed() || root.kind != PackageKind::Baseline { HEAD_BYTES } else { 0 }
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
        let (mut stored, mut raw) = (head_bytes(root), 0);
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

/// Which kind of package a reader reads: what it finds in a delta is no revision by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Baseline,
    Delta,
}

/// Whether this is a package of the kind that is expected, and the root agrees with the tail. The signature is not
/// looked at.
pub(super) fn judge_root(root: &Root, tail: &Tail, expected: Expected, limits: &Limits) -> Result<(), PackageError> {
    let refuse = |what| Err(PackageError::Structure { what });
    if root.context != ROOT_CONTEXT {
        return refuse("the root has another context");
    }
    match (root.kind, expected) {
        (PackageKind::Baseline, Expected::Baseline) => {}
        (PackageKind::Delta { base }, Expected::Delta) if base < root.revision => {}
        (PackageKind::Delta { .. }, Expected::Delta) => return refuse("a delta does not lead to a later revision"),
        (PackageKind::Delta { .. }, Expected::Baseline) => {
            return Err(PackageError::Unsupported { what: "a delta where a baseline is needed" });
        }
        (PackageKind::Baseline, Expected::Delta) => {
            return Err(PackageError::Unsupported { what: "a baseline where a delta is needed" });
        }
    }
    if !root.frame_bytes.is_power_of_two() || !(FRAME_BYTES_MIN..=FRAME_BYTES).contains(&root.frame_bytes) {
        return refuse("the frame length is not one that the format allows");
    }
    let frames = root.body_frames.checked_add(root.catalog_frames);
    let Some(frames) = frames.filter(|&frames| frames <= limits.table_rows_max) else {
        return refuse("there are more frames than allowed");
    };
    // A delta that only removes and moves has no body.
    if root.body_frames == 0 && root.kind == PackageKind::Baseline || root.catalog_frames == 0 {
        return refuse("body or catalog is missing");
    }
    let table_bytes = SKIPPABLE_HEADER_BYTES + frames * ROW_BYTES as u64;
    let fits = root.body_bytes.checked_add(head_bytes(root)) == Some(tail.catalog_offset)
        && tail.catalog_bytes == root.catalog_bytes
        && tail.table_bytes == table_bytes;
    if !fits {
        return refuse("root and tail disagree");
    }
    if root.disclosure.as_ref().is_some_and(|disclosure| disclosure.entries > limits.entries_max) {
        return refuse("there are more entries than allowed");
    }
    match (root.is_sealed(), &root.disclosure) {
        (false, None) => refuse("an unsealed package hides what it is"),
        (true, Some(_)) => refuse("a sealed package discloses what it is"),
        _ => Ok(()),
    }
}

/// What opens the frames of the package with this root: nothing for an unsealed one. The commitment is checked here,
/// before any frame is opened.
pub(super) fn unseal(root: &Root, key: &ContentKey) -> Result<Option<FrameSealer>, PackageError> {
    match root.suite {
        Suite::None => Ok(None),
        Suite::Aes256Gcm { salt, commitment } if key.commitment() == commitment => Ok(Some(key.sealer(&salt))),
        Suite::Aes256Gcm { .. } => Err(PackageError::WrongKey),
    }
}

/// Whether the table's lengths add up to those of the root.
pub(super) fn judge_table(root: &Root, rows: &[TableRow]) -> Result<(), PackageError> {
    // At most 2²⁰ rows of at most 2²⁴ bytes: no sum overflows.
    let (body, catalog) = rows.split_at((root.body_frames as usize).min(rows.len()));
    let stored = |rows: &[TableRow]| rows.iter().map(|row| u64::from(row.stored_bytes)).sum::<u64>();
    let raw = body.iter().map(|row| u64::from(row.raw_bytes)).sum::<u64>();
    let headers = catalog.len() as u64 * SKIPPABLE_HEADER_BYTES;
    if root.is_sealed() && rows.iter().any(|row| row.stored_bytes <= SEAL_BYTES as u32) {
        return Err(PackageError::Structure { what: "a sealed frame has no content" });
    }
    let fits = rows.len() as u64 == root.body_frames + root.catalog_frames
        && stored(body) == root.body_bytes
        && raw == root.body_raw_bytes
        && stored(catalog) + headers == root.catalog_bytes;
    if fits { Ok(()) } else { Err(PackageError::Structure { what: "table and root disagree" }) }
}
