//! Building a delta.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use crate::id::{ContentId, Hash, Revision};
use crate::limits::Limits;
use crate::security::FrameSealer;

use super::super::build::{
    BuildError, BuildOptions, BuildProgress, RootSigner, Seal, judge_options, write_catalog, write_end,
};
use super::super::catalog::content_id;
use super::super::container::head;
use super::super::digest::BodyHasher;
use super::super::entry::{AsEntry, EntryPath};
use super::super::error::PackageError;
use super::super::frame::FrameEncoder;
use super::super::index::BlindIndex;
use super::super::root::{Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
use super::super::source::SourceError;
use super::super::table::{TableRow, encode_rows};
use super::columns::BaseList;
use super::diff::Diff;
use super::files::Files;
use super::index::{DeltaCatalog, DeltaIndex, OpenedDelta};
use super::parallel;
use super::plan::{DeltaPlan, Piece, PlannedFrame, Planner};
use super::prefix;
use super::room::Room;
use super::rows::encode_rows_of;

/// Threads that build at most: each has a segment, its prefix and what zstd needs for them, together about 30 MiB.
const THREADS_MAX: usize = 2;

/// A revision that a delta goes from or leads to: its entries in path order, with content hashes, and their contents.
pub struct RevisionContent<'a, E> {
    /// Its number.
    pub number: Revision,
    /// Its entries.
    pub entries: &'a [E],
    /// What its files hold.
    pub files: &'a dyn Files,
}

/// A delta that was written.
#[derive(Debug, Clone)]
pub struct BuiltDelta {
    /// Everything about it but the body, as a reader would find it.
    pub index: DeltaIndex,
}

/// Writes the delta that leads from `old` to `new` to `out`. `options.revision` counts for nothing: the revisions say
/// which they are.
///
/// The same revisions, options (with the same seal) and zstd version give the same body, catalog and table, whatever
/// the threads. Memory does not depend on the files' lengths, but for 16 bytes in every 64 KiB of one large file at a
/// time, and 16 MiB at most.
///
/// # Errors
/// [`BuildError`]; what was written to `out` is then to be thrown away.
pub fn build_delta<O: AsEntry, N: AsEntry>(
    old: &RevisionContent<'_, O>,
    new: &RevisionContent<'_, N>,
    options: &BuildOptions,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<BuiltDelta, BuildError> {
    judge_options(options)?;
    if old.number >= new.number {
        return Err(BuildError::Options { what: "a delta leads to a later revision" });
    }
    let diff = Diff::of(old.entries, new.entries);
    let planner = Planner { old, new, segment_bytes: u64::from(options.frame_bytes), cancel: &options.cancel };
    let mut rooms: Vec<Room> =
        (0..options.threads.clamp(1, THREADS_MAX)).map(|_| Room::new(options.frame_bytes)).collect();
    let plan = planner.plan(&diff, &mut rooms)?;
    let sealer = options.seal.as_ref().map(|seal| seal.key.sealer(&seal.salt));
    out.write_all(&head()).map_err(BuildError::Write)?;
    let maker = FrameMaker { old, new, level: options.level, sealer: sealer.as_ref(), reading: Mutex::default() };
    let body = write_body(&maker, &plan, (&mut rooms, options), out, progress)?;
    drop(rooms);
    let columns = encode_rows_of(&diff, &plan, old.entries, new.entries)?;
    let base = BaseList { content: list_id(old.entries)?, entries: old.entries.len() as u64 };
    let catalog = DeltaCatalog { base, columns };
    let disclosure = Disclosure {
        distribution_name: options.distribution_name.clone(),
        content: list_id(new.entries)?,
        entries: new.entries.len() as u64,
    };
    let opened = OpenedDelta { disclosure, catalog, sealer };
    finish(Written { body, opened, kind: PackageKind::Delta { base: old.number } }, new.number, options, signer, out)
}

fn list_id(entries: &[impl AsEntry]) -> Result<ContentId, BuildError> {
    content_id(entries.iter().map(AsEntry::entry)).map_err(BuildError::Refused)
}

/// The error for content that cannot be read, which may have come through [`Files`] from a source.
pub(super) fn unreadable(path: &EntryPath, error: io::Error) -> BuildError {
    match error.downcast::<SourceError>() {
        Ok(error) => error.into(),
        Err(source) => SourceError::Read { path: path.clone(), source }.into(),
    }
}

/// Makes the frames of the body.
struct FrameMaker<'a, O, N> {
    old: &'a RevisionContent<'a, O>,
    new: &'a RevisionContent<'a, N>,
    level: i32,
    sealer: Option<&'a FrameSealer>,
    /// One thread reads at a time, in the order of the frames: what it needs lies beside what was read before, so that
    /// the frames of a baseline are decoded once, and few of them are held. Compressing takes longer.
    reading: Mutex<()>,
}

impl<O: AsEntry, N: AsEntry> FrameMaker<'_, O, N> {
    /// Frame number `number`, as stored, and its row.
    fn make(&self, room: &mut Room, number: u64, frame: &PlannedFrame) -> Result<(Vec<u8>, TableRow), BuildError> {
        self.read(room, frame)?;
        let Room { raw, before, stored } = room;
        prefix::compress(self.level, before, raw, stored).map_err(BuildError::Compress)?;
        if let Some(sealer) = self.sealer {
            sealer.seal(number, stored);
        }
        let too_long = |_| BuildError::Compress(io::ErrorKind::InvalidInput.into());
        let row = TableRow {
            stored_bytes: u32::try_from(stored.len()).map_err(too_long)?,
            raw_bytes: u32::try_from(raw.len()).map_err(too_long)?,
            hash: Hash::of(stored),
        };
        Ok((std::mem::take(stored), row))
    }

    /// What the frame holds, and its prefix.
    fn read(&self, room: &mut Room, frame: &PlannedFrame) -> Result<(), BuildError> {
        // Nobody panics with it in a way that would matter to others.
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        room.raw.resize(frame.raw_bytes as usize, 0);
        let mut rest = room.raw.as_mut_slice();
        for piece in &frame.pieces {
            let (room, next) = rest.split_at_mut(piece.bytes as usize);
            self.read_new(piece, room)?;
            rest = next;
        }
        room.before.resize(frame.prefix_bytes as usize, 0);
        let mut rest = room.before.as_mut_slice();
        for range in &frame.prefix {
            let (room, next) = rest.split_at_mut(range.bytes as usize);
            let read = self.old.files.read_at(range.file, range.offset, room);
            read.map_err(|error| unreadable(&self.old.entries[range.file].entry().path, error))?;
            rest = next;
        }
        Ok(())
    }

    fn read_new(&self, piece: &Piece, room: &mut [u8]) -> Result<(), BuildError> {
        let entry = self.new.entries[piece.file].entry();
        self.new.files.read_at(piece.file, piece.offset, room).map_err(|error| unreadable(&entry.path, error))?;
        // Pieces of larger files were checked when these were planned.
        if piece.bytes == entry.size && Hash::of(room) != entry.content {
            return Err(SourceError::Changed { path: entry.path.clone() }.into());
        }
        Ok(())
    }
}

/// What is known once the body is written.
struct WrittenBody {
    digest: BodyHasher,
    rows: Vec<TableRow>,
    stored_bytes: u64,
    raw_bytes: u64,
}

fn write_body<O: AsEntry, N: AsEntry>(
    maker: &FrameMaker<'_, O, N>,
    plan: &DeltaPlan,
    (rooms, options): (&mut [Room], &BuildOptions),
    out: &mut dyn Write,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<WrittenBody, BuildError> {
    let raw_bytes_total = plan.frames.iter().map(|frame| frame.raw_bytes).sum();
    let digest = BodyHasher::new(options.digest);
    let mut body = WrittenBody { digest, rows: Vec::new(), stored_bytes: 0, raw_bytes: 0 };
    if plan.frames.len() as u64 > Limits::DEFAULT.table_rows_max / 2 {
        return Err(BuildError::Refused(PackageError::Structure { what: "the delta has more frames than allowed" }));
    }
    for frames in plan.frames.chunks(rooms.len()) {
        let first = body.rows.len();
        let made = parallel::map(rooms, frames.len(), &options.cancel, |room, index| {
            maker.make(room, (first + index) as u64, &frames[index])
        })?;
        for ((stored, row), room) in made.into_iter().zip(rooms.iter_mut()) {
            out.write_all(&stored).map_err(BuildError::Write)?;
            body.digest.update(&stored);
            body.stored_bytes += u64::from(row.stored_bytes);
            body.raw_bytes += u64::from(row.raw_bytes);
            body.rows.push(row);
            room.stored = stored;
            progress(BuildProgress { raw_bytes: body.raw_bytes, raw_bytes_total, stored_bytes: body.stored_bytes });
        }
    }
    Ok(body)
}

/// What the parts behind the body are made of.
struct Written {
    body: WrittenBody,
    opened: OpenedDelta,
    kind: PackageKind,
}

/// Catalog, table, root and tail behind the body.
fn finish(
    written: Written,
    revision: Revision,
    options: &BuildOptions,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
) -> Result<BuiltDelta, BuildError> {
    let Written { body: WrittenBody { digest, mut rows, stored_bytes, raw_bytes }, opened, kind } = written;
    let body_frames = rows.len() as u64;
    let frames = opened.catalog.frames(opened.sealer.is_some().then_some(&opened.disclosure))?;
    let catalog_raw_bytes = frames.iter().map(|raw| raw.len() as u64).sum();
    super::columns::judge_bytes(catalog_raw_bytes, &Limits::DEFAULT).map_err(BuildError::Refused)?;
    let encoder = FrameEncoder::new(options.level, opened.sealer.as_ref()).map_err(BuildError::Compress)?;
    let catalog_bytes = write_catalog(&frames, encoder, &mut rows, out)?;
    let table = encode_rows(&rows);
    let root = Root {
        context: ROOT_CONTEXT.to_owned(),
        distribution: options.distribution,
        distributor: options.distributor,
        revision,
        created: options.created,
        kind,
        suite: options.seal.as_ref().map_or(Suite::None, Seal::suite),
        frame_bytes: options.frame_bytes,
        level: options.level,
        body_frames,
        catalog_frames: rows.len() as u64 - body_frames,
        body_bytes: stored_bytes,
        body_raw_bytes: raw_bytes,
        catalog_bytes,
        table: Hash::of(&table),
        digest: digest.finish(),
        disclosure: options.seal.is_none().then(|| opened.disclosure.clone()),
    };
    let (signed, tail) = write_end(root, &table, signer, out)?;
    Ok(BuiltDelta { index: DeltaIndex::new(BlindIndex::new(signed, rows, tail), opened) })
}
