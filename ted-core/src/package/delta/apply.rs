//! Making the files of a new revision from those of the old one and a delta.

use std::io::Write;

use super::super::body::{ReadAt, read_stored};
use super::super::entry::{AsEntry, EntryPath};
use super::super::error::PackageError;
use super::error::DeltaError;
use super::files::Files;
use super::index::DeltaIndex;
use super::prefix;
use super::resolve::{NewContent, OldRange, Operation, Resolved};

/// Bytes that are copied from an old file at once.
const COPY_BYTES: u64 = 256 * 1024;

/// Makes files, one after the other, for one thread. It holds one frame, decoded and as stored, and that frame's
/// prefix: under 40 MiB in the worst case that the limits allow, whatever the files' sizes.
pub struct Applier<'a, E> {
    index: &'a DeltaIndex,
    resolved: &'a Resolved,
    package: &'a dyn ReadAt,
    old: &'a [E],
    old_files: &'a dyn Files,
    /// Which frame is decoded in `raw`: most files share theirs with the next one.
    decoded: Option<u64>,
    raw: Vec<u8>,
    stored: Vec<u8>,
    prefix: Vec<u8>,
    copied: Vec<u8>,
}

impl<'a, E: AsEntry> Applier<'a, E> {
    /// For the delta that `index` describes and `package` holds; `resolved` is what `index` made of the entries `old`,
    /// whose contents `old_files` has.
    #[must_use]
    pub fn new(
        index: &'a DeltaIndex,
        resolved: &'a Resolved,
        package: &'a dyn ReadAt,
        (old, old_files): (&'a [E], &'a dyn Files),
    ) -> Self {
        let (raw, stored, prefix, copied) = Default::default();
        Self { index, resolved, package, old, old_files, decoded: None, raw, stored, prefix, copied }
    }

    /// Writes the content of a file to `out`, in order. Only when this says that all is well does it have the BLAKE3
    /// that its entry states; what was written otherwise is to be thrown away.
    ///
    /// # Errors
    /// [`DeltaError`].
    pub fn write(&mut self, content: &NewContent, out: &mut dyn Write) -> Result<(), DeltaError> {
        let Some(entry) = self.resolved.entries.get(content.entry) else {
            return Err(PackageError::Structure { what: "there is no such entry" }.into());
        };
        let mut out = Checked { out, hasher: blake3::Hasher::new(), path: &entry.path };
        for operation in &content.operations {
            match *operation {
                Operation::Copy(range) => self.copy(range, &mut out)?,
                Operation::Body { offset, bytes } => self.take_body(offset, bytes, &mut out)?,
            }
        }
        let right = out.hasher.finalize() == blake3::Hash::from_bytes(*entry.content.as_bytes());
        if right { Ok(()) } else { Err(DeltaError::Content { path: entry.path.clone() }) }
    }

    fn copy(&mut self, range: OldRange, out: &mut Checked<'_>) -> Result<(), DeltaError> {
        let mut at = 0;
        while at < range.bytes {
            self.copied.resize((range.bytes - at).min(COPY_BYTES) as usize, 0);
            read_old(self.old, self.old_files, (range.file, range.offset + at), &mut self.copied)?;
            out.write(&self.copied)?;
            at += self.copied.len() as u64;
        }
        Ok(())
    }

    fn take_body(&mut self, offset: u64, bytes: u64, out: &mut Checked<'_>) -> Result<(), DeltaError> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let none = PackageError::Structure { what: "there is no such frame" };
            let frame = self.index.frame_at(at).ok_or(none)?;
            self.decode(frame, out.path)?;
            let range = self.index.raw_range(frame);
            let to = end.min(range.end);
            out.write(&self.raw[(at - range.start) as usize..(to - range.start) as usize])?;
            at = to;
        }
        Ok(())
    }

    /// Decodes frame number `frame` of the body against its prefix.
    fn decode(&mut self, frame: u64, path: &EntryPath) -> Result<(), DeltaError> {
        if self.decoded == Some(frame) {
            return Ok(());
        }
        self.decoded = None;
        read_stored(self.index, self.package, frame, &mut self.stored)?;
        let in_frame = |source| PackageError::Frame { frame, source };
        if let Some(sealer) = self.index.sealer() {
            sealer.open(frame, &mut self.stored).map_err(|error| in_frame(error.into()))?;
        }
        let ranges = self.resolved.prefixes.get(frame as usize).map_or(&[][..], Vec::as_slice);
        self.prefix.clear();
        for range in ranges {
            let from = self.prefix.len();
            self.prefix.resize(from + range.bytes as usize, 0);
            read_old(self.old, self.old_files, (range.file, range.offset), &mut self.prefix[from..])?;
        }
        let row = self.index.row(frame)?;
        let decoded = prefix::decompress(row, &self.prefix, &self.stored, &mut self.raw);
        // The stored bytes are the signed ones: with a prefix it is most likely that which is not what it was.
        decoded.map_err(|source| match ranges {
            [] => DeltaError::Package(in_frame(source)),
            _ => DeltaError::Content { path: path.clone() },
        })?;
        self.decoded = Some(frame);
        Ok(())
    }
}

fn read_old<E: AsEntry>(
    old: &[E],
    files: &dyn Files,
    (file, offset): (usize, u64),
    buffer: &mut [u8],
) -> Result<(), DeltaError> {
    files.read_at(file, offset, buffer).map_err(|source| {
        let path = old.get(file).map_or_else(EntryPath::root, |old| old.entry().path.clone());
        DeltaError::OldFile { path, source }
    })
}

/// Hashes what it passes on.
struct Checked<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    path: &'a EntryPath,
}

impl Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeltaError> {
        self.hasher.update(bytes);
        let failed = |source| DeltaError::Write { path: self.path.clone(), source };
        self.out.write_all(bytes).map_err(failed)
    }
}
