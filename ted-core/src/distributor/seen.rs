//! The quick check: what each file of a source was when the newest revision was built, kept beside the packages. A file
//! that still is just that is not read again.
//!
//! The record is there to save time. Where it is missing, damaged or about something else, everything is read.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::distributor::source::SourceTree;
use crate::distributor::state::State;
use crate::error::Error;
use crate::id::{ContentId, UnixMillis};
use crate::limits::Limits;
use crate::model::Distribution;
use crate::package::{CatalogRow, Entry, EntryKind, PackageIndex};
use crate::store::{DurableFile, create_folders};

const WHAT: &str = "record of a source";

/// A file that changed less than this before the walk is read again the next time: a second change within one tick of the
/// file system's clock would leave no trace. Some file systems tick every two seconds.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// What tells one state of a file from another, beside size and modification time. Device numbers may change with a
/// restart, so they are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) inode: u64,
    /// Seconds and nanoseconds of its `ctime`, which nobody can set.
    pub(super) changed: (i64, i64),
}

impl Mark {
    pub(super) fn is_settled(&self, walked: UnixMillis) -> bool {
        let changed_ms = i128::from(self.changed.0) * 1000 + i128::from(self.changed.1) / 1_000_000;
        changed_ms + (SETTLED_AFTER.as_millis() as i128) < i128::from(walked.millis())
    }
}

/// What is kept of a source.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The content that was found there.
    content: ContentId,
    /// The source.
    place: String,
    /// For each row of that content's catalog.
    marks: Vec<Option<Mark>>,
}

/// What the quick check says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It is what it was.
    Same,
    /// Nobody knows: there is no record of it, or it was just being changed.
    Unknown,
    /// Something is different.
    Different,
}

impl Seen {
    /// What became of the files of `rows`: for each of `entries`, which `source` has just listed.
    fn look(&self, rows: &[CatalogRow], entries: &[Entry], source: &SourceTree) -> Vec<Look> {
        let now = source.marks(entries);
        let mut old = rows.iter().zip(&self.marks).peekable();
        let look = |(entry, now): (&Entry, Option<Mark>)| {
            if entry.kind == EntryKind::File && entry.size == 0 {
                return Look::Same;
            }
            while old.next_if(|(row, _)| row.entry.path < entry.path).is_some() {}
            let Some((row, mark)) = old.peek().filter(|(row, _)| row.entry.path == entry.path) else {
                return Look::Different;
            };
            let before = (row.entry.kind, row.entry.size, row.entry.mtime);
            match (mark, now) {
                _ if before != (entry.kind, entry.size, entry.mtime) => Look::Different,
                // What is no file has no content.
                _ if entry.kind != EntryKind::File => Look::Same,
                (Some(before), Some(now)) if *before == now => Look::Same,
                (None, _) => Look::Unknown,
                _ => Look::Different,
            }
        };
        entries.iter().zip(now).map(look).collect()
    }
}

impl State {
    /// What the quick check says of each of `entries`, compared with the package that was built last.
    pub(super) fn look(
        &self,
        distribution: &Distribution,
        index: &PackageIndex,
        (entries, source): (&[Entry], &SourceTree),
    ) -> Vec<Look> {
        let seen = self.recall(distribution).unwrap_or_else(|error| {
            tracing::warn!(distribution = %distribution.name, %error, "what was seen of the source cannot be read");
            None
        });
        let rows = index.catalog();
        let fits = |seen: &Seen| {
            (seen.content, &seen.place) == (index.disclosure().content, &distribution.source.to_string())
                && seen.marks.len() == rows.len()
        };
        match seen.filter(fits) {
            Some(seen) => seen.look(rows, entries, source),
            None => vec![Look::Unknown; entries.len()],
        }
    }

    /// Keeps what `source`, walked at the time `walked`, showed of the files of this content.
    pub(super) fn remember_source(
        &self,
        distribution: &Distribution,
        index: &PackageIndex,
        (source, walked): (&SourceTree, UnixMillis),
    ) {
        let entries = index.catalog().iter().map(|row| &row.entry);
        let marks = source.marks(entries).into_iter().map(|mark| mark.filter(|mark| mark.is_settled(walked))).collect();
        let seen = Seen { content: index.disclosure().content, place: distribution.source.to_string(), marks };
        if let Err(error) = self.keep(distribution, &seen) {
            tracing::warn!(distribution = %distribution.name, %error, "what was seen of the source cannot be kept: the next build reads everything");
        }
    }

    /// Forgets it.
    pub(super) fn forget_seen(&self, distribution: &Distribution) {
        // What is left over is overwritten, or about a content that is never built.
        let _ = std::fs::remove_file(self.seen_path(distribution));
    }

    fn recall(&self, distribution: &Distribution) -> Result<Option<Seen>, Error> {
        let limit = Limits::DEFAULT.source_record_bytes_max;
        let Some(bytes) = DurableFile::new(self.seen_path(distribution)).read(limit)? else { return Ok(None) };
        let Some((content, checksum)) = bytes.split_last_chunk() else { return Ok(None) };
        if blake3::hash(content) != blake3::Hash::from_bytes(*checksum) {
            return Ok(None);
        }
        Ok(Some(codec::decode(WHAT, content, limit)?))
    }

    fn keep(&self, distribution: &Distribution, seen: &Seen) -> Result<(), Error> {
        let mut bytes = codec::encode(WHAT, seen, Limits::DEFAULT.source_record_bytes_max)?;
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let path = self.seen_path(distribution);
        create_folders(&self.seen_folder())?;
        Ok(DurableFile::new(path).replace(&bytes)?)
    }

    fn seen_folder(&self) -> PathBuf {
        self.data.path().join("seen")
    }

    fn seen_path(&self, distribution: &Distribution) -> PathBuf {
        self.seen_folder().join(distribution.id.to_string())
    }
}
