//! Reads everything about a package but its body: a state machine that says which bytes it wants next.

use crate::codec;
use crate::id::Hash;
use crate::limits::Limits;
use crate::security::{ContentKey, FrameSealer, Signature};

use super::body::ReadAt;
use super::catalog::{content_id, decode_catalog_frame, decode_first_sealed_catalog_frame, judge_catalog_bytes};
use super::container::{
    HEAD_BYTES, Part, SKIPPABLE_HEADER_BYTES, TAIL_BYTES, Tail, judge_head, skippable_payload, split_root_block,
};
use super::delta::{DeltaCatalog, DeltaIndex, OpenedDelta, judge_bytes};
use super::error::PackageError;
use super::frame::{FrameDecoder, check_frame, open_frame};
use super::index::{
    AnyIndex, BlindIndex, Expected, Layout, Opened, PackageIndex, SignedRoot, head_bytes, judge_root, judge_table,
    unseal,
};
use super::judge::{BodyShape, CatalogJudge};
use super::root::{Disclosure, PackageKind, Root};
use super::table::{TableRow, decode_rows};

/// Bytes that are read from the end at first, at most: with most packages everything that is wanted.
const FIRST_READ_BYTES: u64 = 64 * 1024;

/// The same, at least: with small packages the body as well.
const FIRST_READ_BYTES_MIN: u64 = 8 * 1024;

/// This share of a package is read at first, within those bounds: more would be content, which comes with the body.
const FIRST_READ_SHARE: u64 = 32;

/// What an [`IndexReader`] needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// These bytes of the package, in one or many calls of [`IndexReader::feed`].
    Read {
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// A judgement of [`IndexReader::root`] and [`IndexReader::signature`], then [`IndexReader::accept_root`].
    JudgeRoot,
    /// Nothing: [`IndexReader::finish`] gives the index.
    Done,
}

/// How to go on behind a root that was found good, should the package be sealed.
#[derive(Debug, Clone)]
pub enum Opening {
    /// Not at all: a sealed package is an error.
    Unsealed,
    /// With its content key.
    With(ContentKey),
    /// Without its content key: its catalog stays sealed.
    Blind,
    /// Of any package, sealed or not, only what everyone may see of it: that its catalog is the one that was signed is
    /// verified, and what stands there is not looked at.
    Unread,
}

impl Opening {
    /// With the key if there is one, else blind.
    #[must_use]
    pub fn with_or_blind(key: Option<ContentKey>) -> Self {
        key.map_or(Self::Blind, Self::With)
    }
}

/// What a judge says who knows of unsealed packages only.
impl From<()> for Opening {
    fn from((): ()) -> Self {
        Self::Unsealed
    }
}

impl From<ContentKey> for Opening {
    fn from(key: ContentKey) -> Self {
        Self::With(key)
    }
}

/// Reads tail, root, head (where there is one), table and catalog of a package, in this order, and judges all that can be judged without the
/// body and without certificates. Nothing after the root is looked at before the root was accepted.
#[derive(Debug)]
pub struct IndexReader {
    limits: Limits,
    expected: Expected,
    package_bytes: u64,
    state: State,
    /// What came of the part that is being read.
    part: Vec<u8>,
    /// The end of the package from this offset on, from the first read.
    held_from: u64,
    held: Vec<u8>,
    tail: Option<Tail>,
    signed: Option<SignedRoot>,
    access: Access,
    disclosure: Option<Disclosure>,
    rows: Vec<TableRow>,
    layout: Layout,
    catalog: CatalogJudge,
    /// What came of a delta's catalog.
    delta: Option<DeltaCatalog>,
    /// Catalog frames that were judged, and their bytes.
    catalog_frames: usize,
    catalog_read: u64,
    /// What lies behind the body comes in one read after the tail, if it is not much.
    behind_body: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    End,
    BehindBody,
    Root,
    Judge,
    Head,
    Table,
    Catalog,
    Done,
}

/// What the reader may see behind the root.
#[derive(Debug)]
enum Access {
    /// Hashes and lengths.
    Blind,
    /// The catalog too, opened by this if it is sealed.
    Open(Option<FrameSealer>),
}

impl IndexReader {
    /// A reader for a baseline of this length.
    ///
    /// # Errors
    /// [`PackageError::NotAPackage`] when that is too short for any package.
    pub fn new(package_bytes: u64, limits: Limits) -> Result<Self, PackageError> {
        Self::expecting(Expected::Baseline, package_bytes, limits)
    }

    /// A reader for a delta of this length, to be ended with [`finish_delta`](Self::finish_delta).
    ///
    /// # Errors
    /// [`PackageError::NotAPackage`] when that is too short for any package.
    pub fn for_delta(package_bytes: u64, limits: Limits) -> Result<Self, PackageError> {
        Self::expecting(Expected::Delta, package_bytes, limits)
    }

    /// Reads the tail by itself first, and not the bytes before it on the chance that they are wanted: for a package of
    /// which only what was verified can be had, and the end of the body comes last. One that is small is read as ever.
    #[must_use]
    pub fn tail_first(mut self) -> Self {
        if self.state == State::End && self.package_bytes > FIRST_READ_BYTES_MIN {
            self.held_from = self.package_bytes - TAIL_BYTES;
            self.behind_body = true;
        }
        self
    }

    fn expecting(expected: Expected, package_bytes: u64, limits: Limits) -> Result<Self, PackageError> {
        if package_bytes < TAIL_BYTES {
            return Err(PackageError::NotAPackage);
        }
        let first_read = (package_bytes / FIRST_READ_SHARE).clamp(FIRST_READ_BYTES_MIN, FIRST_READ_BYTES);
        Ok(Self {
            limits,
            expected,
            package_bytes,
            state: State::End,
            part: Vec::new(),
            held_from: package_bytes.saturating_sub(first_read),
            held: Vec::new(),
            tail: None,
            signed: None,
            access: Access::Blind,
            disclosure: None,
            rows: Vec::new(),
            layout: Layout::default(),
            catalog: CatalogJudge::default(),
            delta: None,
            catalog_frames: 0,
            catalog_read: 0,
            behind_body: false,
        })
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Step {
        match self.state {
            State::Judge => Step::JudgeRoot,
            State::Done => Step::Done,
            _ => {
                let (from, to) = self.part_range();
                let come = self.catalog_read + self.part.len() as u64;
                Step::Read { from: from + come, to: if self.held.is_empty() { to } else { to.min(self.held_from) } }
            }
        }
    }

    /// Takes the next bytes of the range that [`next`](Self::next) asked for, as many as there are.
    ///
    /// # Errors
    /// [`PackageError`] says what is wrong with them; the package is to be given up then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PackageError> {
        let Step::Read { from, to } = self.next() else {
            return Err(PackageError::Structure { what: "bytes came that nobody asked for" });
        };
        if bytes.len() as u64 > to - from {
            return Err(PackageError::Structure { what: "bytes came that nobody asked for" });
        }
        self.part.extend_from_slice(bytes);
        self.advance()
    }

    /// The root, once it was read. Unverified until somebody judges it.
    #[must_use]
    pub fn root(&self) -> Option<&Root> {
        self.signed.as_ref().map(|signed| &signed.root)
    }

    /// The root as it is signed, once it was read.
    #[must_use]
    pub fn root_bytes(&self) -> Option<&[u8]> {
        self.signed.as_ref().map(|signed| signed.root_bytes.as_slice())
    }

    /// The root's signature, once it was read.
    #[must_use]
    pub fn signature(&self) -> Option<&Signature> {
        self.signed.as_ref().map(|signed| &signed.signature)
    }

    /// Goes on behind the root, whose signature the caller has found good, if the package is not sealed.
    ///
    /// # Errors
    /// As [`open_root`](Self::open_root); [`PackageError::Sealed`] for every sealed package.
    pub fn accept_root(&mut self) -> Result<(), PackageError> {
        self.open_root(&Opening::Unsealed)
    }

    /// Goes on behind the root, whose signature the caller has found good. An unsealed package needs no opening.
    ///
    /// # Errors
    /// [`PackageError::WrongKey`] before anything is opened; [`PackageError`] when the root is not one to accept, or
    /// with what was read already of table and catalog.
    pub fn open_root(&mut self, opening: &Opening) -> Result<(), PackageError> {
        let (Some(signed), Some(tail), State::Judge) = (&self.signed, &self.tail, self.state) else {
            return Err(PackageError::Structure { what: "there is no root to accept yet" });
        };
        let root = &signed.root;
        judge_root(root, tail, self.expected, &self.limits)?;
        self.access = match opening {
            Opening::Unread => Access::Blind,
            _ if !root.is_sealed() => Access::Open(None),
            Opening::Unsealed => return Err(PackageError::Sealed),
            Opening::With(key) => Access::Open(unseal(root, key)?),
            Opening::Blind => Access::Blind,
        };
        self.disclosure = root.disclosure.clone();
        self.state = if head_bytes(root) > 0 { State::Head } else { State::Table };
        self.advance()
    }

    /// The index, when [`next`](Self::next) says [`Step::Done`].
    ///
    /// # Errors
    /// [`PackageError::Structure`] when it does not yet; [`PackageError::Sealed`] when the root was accepted blind.
    pub fn finish(self) -> Result<PackageIndex, PackageError> {
        self.finish_any()?.opened().cloned()
    }

    /// The index as far as it could be opened, when [`next`](Self::next) says [`Step::Done`].
    ///
    /// # Errors
    /// [`PackageError::Structure`] when it does not yet.
    pub fn finish_any(self) -> Result<AnyIndex, PackageError> {
        let early = PackageError::Structure { what: "the package was not read to its end" };
        let (State::Done, Some(signed), Some(tail)) = (self.state, self.signed, self.tail) else { return Err(early) };
        let blind = BlindIndex::new(signed, self.rows, tail);
        match (self.access, self.disclosure) {
            (Access::Blind, _) => Ok(AnyIndex::Blind(blind)),
            (Access::Open(sealer), Some(disclosure)) if self.expected == Expected::Baseline => {
                let opened = Opened { disclosure, catalog: self.catalog.finish(), sealer };
                Ok(AnyIndex::Opened(PackageIndex::new(blind, opened)))
            }
            (Access::Open(sealer), Some(disclosure)) => {
                let opened = OpenedDelta { disclosure, catalog: self.delta.ok_or(early)?, sealer };
                Ok(AnyIndex::Delta(DeltaIndex::new(blind, opened)))
            }
            (Access::Open(_), None) => Err(early),
        }
    }

    /// The index of a delta, when [`next`](Self::next) says [`Step::Done`].
    ///
    /// # Errors
    /// [`PackageError::Structure`] when it does not yet; [`PackageError::Sealed`] when the root was accepted blind.
    pub fn finish_delta(self) -> Result<DeltaIndex, PackageError> {
        match self.finish_any()? {
            AnyIndex::Delta(index) => Ok(index),
            AnyIndex::Blind(_) => Err(PackageError::Sealed),
            AnyIndex::Opened(_) => Err(PackageError::Unsupported { what: "a baseline where a delta is needed" }),
        }
    }

    /// The part that is being read: its first byte, and the byte after its last.
    fn part_range(&self) -> (u64, u64) {
        match (self.state, &self.tail) {
            (State::Head, _) => (0, HEAD_BYTES),
            (State::BehindBody, Some(tail)) => (tail.behind_body(FIRST_READ_BYTES), self.package_bytes - TAIL_BYTES),
            (State::Root, Some(tail)) => (tail.root_offset, tail.root_offset + tail.root_bytes),
            (State::Table, Some(tail)) => (tail.table_offset, tail.root_offset),
            (State::Catalog, Some(tail)) => (tail.catalog_offset, tail.table_offset),
            _ => (self.held_from, self.package_bytes),
        }
    }

    /// Goes on as far as the bytes reach that are there.
    fn advance(&mut self) -> Result<(), PackageError> {
        loop {
            match self.state {
                State::Judge | State::Done => return Ok(()),
                State::Catalog => self.take_catalog_frames()?,
                _ => {}
            }
            if self.state == State::Done {
                return Ok(());
            }
            let (from, to) = self.part_range();
            let come = from + self.catalog_read + self.part.len() as u64;
            if come < to {
                // The rest may have come with the first read.
                if self.held.is_empty() || come < self.held_from {
                    return Ok(());
                }
                let [start, end] = [come, to].map(|at| (at - self.held_from) as usize);
                self.part.extend_from_slice(self.held.get(start..end).unwrap_or_default());
                continue;
            }
            let part = std::mem::take(&mut self.part);
            match self.state {
                State::End => self.take_end(part)?,
                State::BehindBody => self.take_behind_body(part),
                State::Root => self.take_root(&part)?,
                State::Head => self.take_head(&part)?,
                State::Table => self.take_table(&part)?,
                _ => return Err(PackageError::Structure { what: "the catalog ends with half a frame" }),
            }
        }
    }

    fn take_end(&mut self, end: Vec<u8>) -> Result<(), PackageError> {
        let tail = end.len() - TAIL_BYTES as usize;
        self.tail = Some(Tail::decode(&end[tail..], self.package_bytes, &self.limits)?);
        self.held = end;
        self.state = if self.behind_body { State::BehindBody } else { State::Root };
        Ok(())
    }

    /// Keeps it in front of the tail, as if all of it had come with the first read.
    fn take_behind_body(&mut self, mut bytes: Vec<u8>) {
        self.held_from -= bytes.len() as u64;
        bytes.extend_from_slice(&self.held);
        self.held = bytes;
        self.state = State::Root;
    }

    fn take_root(&mut self, block: &[u8]) -> Result<(), PackageError> {
        let (root_bytes, signature) = split_root_block(block, &self.limits)?;
        let root = codec::decode("root", &root_bytes, self.limits.root_bytes_max)?;
        self.signed = Some(SignedRoot { root, root_bytes, signature });
        self.state = State::Judge;
        Ok(())
    }

    fn take_head(&mut self, head: &[u8]) -> Result<(), PackageError> {
        if let Some(tail) = &self.tail {
            judge_head(head, tail)?;
        }
        self.state = State::Table;
        Ok(())
    }

    fn take_table(&mut self, block: &[u8]) -> Result<(), PackageError> {
        let bytes = skippable_payload(Part::Table, block)?;
        let Some(signed) = &self.signed else { return Err(PackageError::TableHash) };
        if Hash::of(bytes) != signed.root.table {
            return Err(PackageError::TableHash);
        }
        self.rows = decode_rows(bytes, &self.limits)?;
        judge_table(&signed.root, &self.rows)?;
        // It is held whole, so it must not be more than may be held: a few stored bytes become a thousand times as many.
        let catalog = self.rows.iter().skip(signed.root.body_frames as usize);
        let raw_bytes = catalog.map(|row| u64::from(row.raw_bytes)).sum();
        match self.expected {
            Expected::Baseline => judge_catalog_bytes(raw_bytes, &self.limits)?,
            Expected::Delta => judge_bytes(raw_bytes, &self.limits)?,
        }
        self.layout = Layout::of(&signed.root, &self.rows);
        self.state = State::Catalog;
        Ok(())
    }

    fn take_catalog_frames(&mut self) -> Result<(), PackageError> {
        let Some(signed) = &self.signed else { return Ok(()) };
        let first = signed.root.body_frames as usize;
        let part = std::mem::take(&mut self.part);
        let mut taken = 0;
        let mut decoder = FrameDecoder::default();
        while let Some(row) = self.rows.get(first + self.catalog_frames).copied() {
            let length = (SKIPPABLE_HEADER_BYTES + u64::from(row.stored_bytes)) as usize;
            let Some(block) = part.get(taken..taken + length) else { break };
            let stored = skippable_payload(Part::Catalog, block)?;
            let frame = (first + self.catalog_frames) as u64;
            check_frame(&row, stored).map_err(|source| PackageError::Frame { frame, source })?;
            self.take_catalog_frame(&mut decoder, (frame, &row), stored)?;
            taken += length;
            self.catalog_frames += 1;
        }
        self.part = part;
        self.part.drain(..taken);
        self.catalog_read += taken as u64;
        if first + self.catalog_frames == self.rows.len() {
            self.take_catalog_end()?;
        }
        Ok(())
    }

    /// Judges the rows of one catalog frame, whose hash is right; blind, there is no more to be said about it.
    fn take_catalog_frame(
        &mut self,
        decoder: &mut FrameDecoder,
        (frame, row): (u64, &TableRow),
        stored: &[u8],
    ) -> Result<(), PackageError> {
        let (Some(signed), Access::Open(sealer)) = (&self.signed, &self.access) else { return Ok(()) };
        let mut raw = Vec::new();
        match sealer {
            None => decoder.decode(row, stored, &mut raw),
            Some(sealer) => open_frame(decoder, Some(sealer), (frame, row), &mut stored.to_vec(), &mut raw),
        }
        .map_err(|source| PackageError::Frame { frame, source })?;
        if self.expected == Expected::Delta {
            return self.take_delta_frame(&raw, sealer.is_some());
        }
        let rows = if sealer.is_some() && self.catalog_frames == 0 {
            let (disclosure, rows) = decode_first_sealed_catalog_frame(&raw)?;
            self.disclosure = Some(disclosure);
            rows
        } else {
            decode_catalog_frame(&raw)?
        };
        let Some(disclosure) = &self.disclosure else { return Ok(()) };
        let shape = BodyShape { frame_bytes: signed.root.frame_bytes, raw_offsets: &self.layout.raw_offsets };
        self.catalog.add(rows, shape, disclosure.entries, &self.limits)
    }

    /// Keeps what one catalog frame of a delta says: it can be judged only beside the old revision.
    fn take_delta_frame(&mut self, raw: &[u8], sealed: bool) -> Result<(), PackageError> {
        match &mut self.delta {
            Some(delta) => delta.add(raw)?,
            None if sealed => {
                let (disclosure, delta) = DeltaCatalog::first_sealed(raw)?;
                (self.disclosure, self.delta) = (Some(disclosure), Some(delta));
            }
            None => self.delta = Some(DeltaCatalog::first(raw)?),
        }
        Ok(())
    }

    fn take_catalog_end(&mut self) -> Result<(), PackageError> {
        let judged_later = self.expected == Expected::Delta;
        if let (Access::Open(_), Some(disclosure), false) = (&self.access, &self.disclosure, judged_later) {
            let rows = self.catalog.rows();
            if rows.is_empty() || rows.len() as u64 != disclosure.entries {
                return Err(PackageError::Structure { what: "the catalog has another number of entries than stated" });
            }
            if content_id(rows.iter().map(|row| &row.entry))? != disclosure.content {
                return Err(PackageError::Structure {
                    what: "the catalog does not have the content id that is stated",
                });
            }
            if !self.signed.as_ref().is_some_and(|signed| self.catalog.fills(signed.root.body_raw_bytes)) {
                return Err(PackageError::Structure { what: "the body holds more than the catalog has" });
            }
        }
        self.state = State::Done;
        self.catalog_read = 0;
        self.held = Vec::new();
        Ok(())
    }
}

/// Reads the index of the package that `source` holds. `judge` decides about the root, its bytes and signature, and
/// brings the content key if the package is sealed; `()` will do for unsealed ones.
///
/// # Errors
/// What `judge` says, or [`PackageError`]: [`PackageError::Sealed`] for a sealed package without its key.
pub fn read_index<E: From<PackageError>, O: Into<Opening>>(
    source: &dyn ReadAt,
    limits: &Limits,
    judge: impl FnMut(&Root, &[u8], &Signature) -> Result<O, E>,
) -> Result<PackageIndex, E> {
    Ok(read(source, Expected::Baseline, limits, judge)?.finish()?)
}

/// [`read_index`] for either kind of package, that goes on without the key where `judge` says [`Opening::Blind`].
///
/// # Errors
/// As [`read_index`].
pub fn read_any_index<E: From<PackageError>, O: Into<Opening>>(
    source: &dyn ReadAt,
    limits: &Limits,
    judge: impl FnMut(&Root, &[u8], &Signature) -> Result<O, E>,
) -> Result<AnyIndex, E> {
    Ok(read(source, kind_of(source, limits)?, limits, judge)?.finish_any()?)
}

/// [`read_index`] for a delta. What its catalog says is judged by [`DeltaIndex::resolve`].
///
/// # Errors
/// As [`read_index`].
pub fn read_delta_index<E: From<PackageError>, O: Into<Opening>>(
    source: &dyn ReadAt,
    limits: &Limits,
    judge: impl FnMut(&Root, &[u8], &Signature) -> Result<O, E>,
) -> Result<DeltaIndex, E> {
    Ok(read(source, Expected::Delta, limits, judge)?.finish_delta()?)
}

/// Which kind of package `source` says that it is; nothing about it was verified.
fn kind_of(source: &dyn ReadAt, limits: &Limits) -> Result<Expected, PackageError> {
    let failed = |source| PackageError::Io { place: "package", source };
    let mut reader = IndexReader::new(source.size().map_err(failed)?, limits.clone())?;
    while let Step::Read { from, to } = reader.next() {
        let mut piece = vec![0; (to - from).min(FIRST_READ_BYTES) as usize];
        source.read_exact_at(&mut piece, from).map_err(failed)?;
        reader.feed(&piece)?;
    }
    match reader.root().map(|root| root.kind) {
        Some(PackageKind::Delta { .. }) => Ok(Expected::Delta),
        _ => Ok(Expected::Baseline),
    }
}

fn read<E: From<PackageError>, O: Into<Opening>>(
    source: &dyn ReadAt,
    expected: Expected,
    limits: &Limits,
    mut judge: impl FnMut(&Root, &[u8], &Signature) -> Result<O, E>,
) -> Result<IndexReader, E> {
    let failed = |source| PackageError::Io { place: "package", source };
    let mut reader = IndexReader::expecting(expected, source.size().map_err(failed)?, limits.clone())?;
    let mut buffer = Vec::new();
    loop {
        match reader.next() {
            Step::Read { from, to } => {
                buffer.resize((to - from).min(u64::from(limits.frame_stored_bytes_max)) as usize, 0);
                source.read_exact_at(&mut buffer, from).map_err(failed)?;
                reader.feed(&buffer)?;
            }
            Step::JudgeRoot => {
                if let Some(signed) = &reader.signed {
                    let opening = judge(&signed.root, &signed.root_bytes, &signed.signature)?.into();
                    reader.open_root(&opening)?;
                }
            }
            Step::Done => return Ok(reader),
        }
    }
}
