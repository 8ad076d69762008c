//! Reads everything about a package but its body: a state machine that says which bytes it wants next.

use crate::codec;
use crate::id::Hash;
use crate::limits::Limits;
use crate::security::Signature;

use super::body::ReadAt;
use super::catalog::{content_id, decode_catalog_frame};
use super::container::{Part, SKIPPABLE_HEADER_BYTES, TAIL_BYTES, Tail, skippable_payload, split_root_block};
use super::error::PackageError;
use super::frame::{FrameDecoder, check_frame};
use super::index::{Layout, PackageIndex, SignedRoot, judge_root, judge_table};
use super::judge::{BodyShape, CatalogJudge};
use super::root::{Disclosure, Root};
use super::table::{TableRow, decode_rows};

/// Bytes that are read from the end at first: with small packages everything that is wanted.
const FIRST_READ_BYTES: u64 = 64 * 1024;

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

/// Reads tail, root, table and catalog of a package, in this order, and judges all that can be judged without the
/// body and without certificates. Nothing after the root is looked at before the root was accepted.
#[derive(Debug)]
pub struct IndexReader {
    limits: Limits,
    package_bytes: u64,
    state: State,
    /// What came of the part that is being read.
    part: Vec<u8>,
    /// The end of the package from this offset on, from the first read.
    held_from: u64,
    held: Vec<u8>,
    tail: Option<Tail>,
    signed: Option<SignedRoot>,
    disclosure: Option<Disclosure>,
    rows: Vec<TableRow>,
    layout: Layout,
    catalog: CatalogJudge,
    /// Catalog frames that were judged, and their bytes.
    catalog_frames: usize,
    catalog_read: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    End,
    Root,
    Judge,
    Table,
    Catalog,
    Done,
}

impl IndexReader {
    /// A reader for a package of this length.
    ///
    /// # Errors
    /// [`PackageError::NotAPackage`] when that is too short for any package.
    pub fn new(package_bytes: u64, limits: Limits) -> Result<Self, PackageError> {
        if package_bytes < TAIL_BYTES {
            return Err(PackageError::NotAPackage);
        }
        Ok(Self {
            limits,
            package_bytes,
            state: State::End,
            part: Vec::new(),
            held_from: package_bytes.saturating_sub(FIRST_READ_BYTES),
            held: Vec::new(),
            tail: None,
            signed: None,
            disclosure: None,
            rows: Vec::new(),
            layout: Layout::default(),
            catalog: CatalogJudge::default(),
            catalog_frames: 0,
            catalog_read: 0,
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

    /// Goes on behind the root, whose signature the caller has found good.
    ///
    /// # Errors
    /// [`PackageError`] when the root is not one to accept, or with what was read already of table and catalog.
    pub fn accept_root(&mut self) -> Result<(), PackageError> {
        let (Some(signed), Some(tail), State::Judge) = (&self.signed, &self.tail, self.state) else {
            return Err(PackageError::Structure { what: "there is no root to accept yet" });
        };
        self.disclosure = Some(judge_root(&signed.root, tail, &self.limits)?);
        self.state = State::Table;
        self.advance()
    }

    /// The index, when [`next`](Self::next) says [`Step::Done`].
    ///
    /// # Errors
    /// [`PackageError::Structure`] when it does not yet.
    pub fn finish(self) -> Result<PackageIndex, PackageError> {
        match (self.state, self.signed, self.tail) {
            (State::Done, Some(signed), Some(tail)) => {
                Ok(PackageIndex::new(signed, self.rows, self.catalog.finish(), tail))
            }
            _ => Err(PackageError::Structure { what: "the package was not read to its end" }),
        }
    }

    /// The part that is being read: its first byte, and the byte after its last.
    fn part_range(&self) -> (u64, u64) {
        match (self.state, &self.tail) {
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
                State::Root => self.take_root(&part)?,
                State::Table => self.take_table(&part)?,
                _ => return Err(PackageError::Structure { what: "the catalog ends with half a frame" }),
            }
        }
    }

    fn take_end(&mut self, end: Vec<u8>) -> Result<(), PackageError> {
        let tail = end.len() - TAIL_BYTES as usize;
        self.tail = Some(Tail::decode(&end[tail..], self.package_bytes, &self.limits)?);
        self.held = end;
        self.state = State::Root;
        Ok(())
    }

    fn take_root(&mut self, block: &[u8]) -> Result<(), PackageError> {
        let (root_bytes, signature) = split_root_block(block, &self.limits)?;
        let root = codec::decode("root", &root_bytes, self.limits.root_bytes_max)?;
        self.signed = Some(SignedRoot { root, root_bytes, signature });
        self.state = State::Judge;
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
        self.layout = Layout::of(&signed.root, &self.rows);
        self.state = State::Catalog;
        Ok(())
    }

    fn take_catalog_frames(&mut self) -> Result<(), PackageError> {
        let Some(signed) = &self.signed else { return Ok(()) };
        let Some(disclosure) = &self.disclosure else { return Ok(()) };
        let shape = BodyShape { frame_bytes: signed.root.frame_bytes, raw_offsets: &self.layout.raw_offsets };
        let first = signed.root.body_frames as usize;
        let mut taken = 0;
        let mut raw = Vec::new();
        let mut decoder = FrameDecoder::default();
        while let Some(row) = self.rows.get(first + self.catalog_frames) {
            let length = (SKIPPABLE_HEADER_BYTES + u64::from(row.stored_bytes)) as usize;
            let Some(block) = self.part.get(taken..taken + length) else { break };
            let stored = skippable_payload(Part::Catalog, block)?;
            let frame = (first + self.catalog_frames) as u64;
            check_frame(row, stored)
                .and_then(|()| decoder.decode(row, stored, &mut raw))
                .map_err(|source| PackageError::Frame { frame, source })?;
            self.catalog.add(decode_catalog_frame(&raw)?, shape, disclosure.entries, &self.limits)?;
            taken += length;
            self.catalog_frames += 1;
        }
        self.part.drain(..taken);
        self.catalog_read += taken as u64;
        if first + self.catalog_frames == self.rows.len() {
            self.take_catalog_end()?;
        }
        Ok(())
    }

    fn take_catalog_end(&mut self) -> Result<(), PackageError> {
        let rows = self.catalog.rows();
        let Some(disclosure) = &self.disclosure else { return Ok(()) };
        if rows.is_empty() || rows.len() as u64 != disclosure.entries {
            return Err(PackageError::Structure { what: "the catalog has another number of entries than the root" });
        }
        if content_id(rows.iter().map(|row| &row.entry))? != disclosure.content {
            return Err(PackageError::Structure { what: "the catalog does not have the content id of the root" });
        }
        self.state = State::Done;
        self.catalog_read = 0;
        self.held = Vec::new();
        Ok(())
    }
}

/// Reads the index of the package that `source` holds. `judge` decides about the root, its bytes and signature.
///
/// # Errors
/// What `judge` says, or [`PackageError`].
pub fn read_index<E: From<PackageError>>(
    source: &dyn ReadAt,
    limits: &Limits,
    mut judge: impl FnMut(&Root, &[u8], &Signature) -> Result<(), E>,
) -> Result<PackageIndex, E> {
    let failed = |source| PackageError::Io { place: "package", source };
    let mut reader = IndexReader::new(source.size().map_err(failed)?, limits.clone())?;
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
                    judge(&signed.root, &signed.root_bytes, &signed.signature)?;
                }
                reader.accept_root()?;
            }
            Step::Done => return Ok(reader.finish()?),
        }
    }
}
