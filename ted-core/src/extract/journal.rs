//! The journal: what goes where, once everything is staged. It needs neither the package nor the lists any more.
//!
//! Bytes: `TEDJ`, version (u16), the journal in the codec, BLAKE3 of all that.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::extract::disk::{self, Attributes, Disk, Found};
use crate::extract::error::ExtractError;
use crate::extract::job::ExtractJob;
use crate::extract::judge::{find_row, hard_link_target};
use crate::extract::plan::{Deletion, Displacing, Keeping, Plan, attributes};
use crate::extract::staging::{JOURNAL, JOURNAL_NEW, Staging};
use crate::extract::step::Step;
use crate::id::Revision;
use crate::limits::Limits;
use crate::package::{EntryKind, EntryPath};

const MAGIC: &[u8; 4] = b"TEDJ";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = 6;
const HASH_BYTES: usize = 32;

/// What is left to do after everything is staged, in this order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) revision: Revision,
    /// What becomes of releases, in release mode; all paths are those of the release's own folder then.
    pub(super) release: Option<Release>,
    /// Files that somebody changed, and what they are kept as.
    pub(super) kept: Vec<Kept>,
    /// What makes way for an entry of another kind.
    pub(super) displaced: Vec<Displaced>,
    /// Folders to make, outer ones first.
    pub(super) new_folders: Vec<EntryPath>,
    /// Staged entries to move: files, hard links, symbolic links, hard links to those.
    pub(super) moves: Vec<Move>,
    /// What is deleted because the revision does not have it.
    pub(super) deleted: Vec<Deleted>,
    /// Folders whose mode and time are set in the end, outer ones first; the root is not among them.
    pub(super) folders: Vec<(EntryPath, Attributes)>,
    /// Mode and time of the root.
    pub(super) root: Attributes,
}

/// Something that makes way.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Displaced {
    pub(super) path: EntryPath,
    pub(super) standing: Standing,
    /// What it is kept as.
    pub(super) copy: Option<EntryPath>,
}

/// What becomes of releases.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Release {
    /// Whether the release is new: then it is put together in the staging folder, and gets its name when it is whole.
    pub(super) new: bool,
    /// Releases that are not kept any longer.
    pub(super) gone: Vec<Revision>,
}

/// A file, and the name under which it is kept. Only what was seen there is kept, nothing that took its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) path: EntryPath,
    pub(super) inode: u64,
    pub(super) copy: EntryPath,
}

/// Something that is deleted. Only what was seen there is, nothing that took its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deleted {
    pub(super) path: EntryPath,
    pub(super) inode: u64,
}

/// What stands where an entry of another kind goes. The entry itself is never of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    Folder,
    NoFolder,
}

/// A staged entry and its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move {
    pub(super) staged: u64,
    pub(super) path: EntryPath,
}

/// The name of a staged entry.
pub(super) fn staged_name(number: u64) -> String {
    number.to_string()
}

impl Journal {
    pub(super) fn new(job: &ExtractJob<'_>, plan: &Plan, release: Option<Release>) -> Self {
        let path = |index: usize| job.rows[index].entry.path.clone();
        let kind_of_target = |index: &usize| {
            let target = hard_link_target(&job.rows[*index].entry);
            let at = target.and_then(|target| find_row(job.rows, &target));
            at.map(|at| job.rows[at].entry.kind)
        };
        let (links_to_links, links_to_files): (Vec<usize>, Vec<usize>) =
            plan.hard_links.iter().partition(|index| kind_of_target(index) == Some(EntryKind::Symlink));
        let order = [&plan.contents, &links_to_files, &plan.symlinks, &links_to_links];
        let folder = |index: usize| attributes(&job.rows[index].entry, job.options.privilege);
        Self {
            revision: job.revision,
            release,
            kept: plan.keepings.iter().map(Kept::from).collect(),
            displaced: plan
                .displaced
                .iter()
                .map(|Displacing { index, found, copy }| Displaced {
                    path: path(*index),
                    standing: Standing::of(*found),
                    copy: copy.clone(),
                })
                .collect(),
            new_folders: plan.new_folders.iter().map(|&index| path(index)).collect(),
            moves: order.into_iter().flatten().map(|&index| Move { staged: index as u64, path: path(index) }).collect(),
            deleted: plan.deletions.iter().map(Deleted::from).collect(),
            folders: plan
                .folders
                .iter()
                .filter(|&&index| !job.rows[index].entry.path.is_root())
                .map(|&index| (path(index), folder(index)))
                .collect(),
            root: folder(0),
        }
    }

    /// Writes it and makes it the commit point: when this returns, the extraction is finished after any crash.
    pub(super) fn commit(&self, disk: Disk<'_>, staging: &Staging, limits: &Limits) -> Result<(), ExtractError> {
        let bytes = self.encode(limits).map_err(|error| {
            ExtractError::io("writing", "the journal", std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        })?;
        let folder = &staging.folder;
        let write = || {
            let file = disk.create_file(Step::WriteJournal, folder, JOURNAL_NEW)?;
            disk.write_at(Step::WriteJournal, &file, &bytes, 0)?;
            disk.sync(&file)?;
            disk.rename(Step::CommitJournal, (folder, JOURNAL_NEW), (folder, JOURNAL))?;
            disk.sync(&**folder)
        };
        write().map_err(|error| ExtractError::io("writing", "the journal", error))
    }

    /// The journal in a staging folder; `None` if it has none.
    pub(super) fn read(staging: &Staging, target: &Path, limits: &Limits) -> Result<Option<Self>, ExtractError> {
        let failed = |error| ExtractError::io("reading the journal in", target.display(), error);
        let damaged = |source| ExtractError::Journal { staging: staging.path(target), source };
        let Some(facts) = disk::facts_at(&*staging.folder, JOURNAL).map_err(failed)? else { return Ok(None) };
        if facts.found != Found::File || facts.size > limits.journal_bytes_max {
            return Err(damaged(None));
        }
        let mut bytes = Vec::new();
        let file = disk::open_file(&staging.folder, JOURNAL).map_err(failed)?;
        file.take(limits.journal_bytes_max).read_to_end(&mut bytes).map_err(failed)?;
        Self::decode(&bytes, limits).map_err(damaged).map(Some)
    }

    fn encode(&self, limits: &Limits) -> Result<Vec<u8>, CodecError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend(codec::encode("an extraction's journal", self, limits.journal_bytes_max)?);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, Option<CodecError>> {
        let (content, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or(None)?;
        let (header, body) = content.split_at_checked(HEADER_BYTES).ok_or(None)?;
        if blake3::hash(content) != *hash || !header.starts_with(MAGIC) || header[4..] != VERSION.to_le_bytes() {
            return Err(None);
        }
        codec::decode("an extraction's journal", body, limits.journal_bytes_max).map_err(Some)
    }
}

impl From<&Keeping> for Kept {
    fn from(Keeping { path, inode, copy }: &Keeping) -> Self {
        Self { path: path.clone(), inode: *inode, copy: copy.clone() }
    }
}

impl From<&Deletion> for Deleted {
    fn from(Deletion { path, inode }: &Deletion) -> Self {
        Self { path: path.clone(), inode: *inode }
    }
}

impl Standing {
    pub(super) fn of(found: Found) -> Self {
        if found == Found::Folder { Self::Folder } else { Self::NoFolder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Mtime;

    #[test]
    fn a_journal_with_any_byte_changed_or_missing_is_refused() {
        let journal = Journal {
            revision: Revision::from_number(7),
            release: Some(Release { new: true, gone: vec![Revision::from_number(3)] }),
            kept: vec![Kept { path: EntryPath::root(), inode: 9, copy: EntryPath::root() }],
            displaced: vec![Displaced { path: EntryPath::root(), standing: Standing::Folder, copy: None }],
            deleted: vec![Deleted { path: EntryPath::root(), inode: 7 }],
            new_folders: Vec::new(),
            moves: vec![Move { staged: 3, path: EntryPath::from_bytes(b"a/b").expect("valid") }],
            folders: Vec::new(),
            root: Attributes { mode: 0o755, mtime: Mtime { seconds: -1, nanoseconds: 5 } },
        };
        let bytes = journal.encode(&Limits::DEFAULT).expect("small");
        assert_eq!(Journal::decode(&bytes, &Limits::DEFAULT).expect("whole"), journal);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Journal::decode(&bad, &Limits::DEFAULT).is_err(), "byte {at}");
            assert!(Journal::decode(&bytes[..at], &Limits::DEFAULT).is_err(), "cut at {at}");
        }
    }
}
