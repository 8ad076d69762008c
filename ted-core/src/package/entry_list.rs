//! A revision's entry list as a file of its own: what a receiver needs to know of what it has, without a package.
//! Bytes: `docs/format.md`, "Kept entry lists".

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::id::{ContentId, DistributionId, Hash, Revision};
use crate::limits::Limits;

use super::catalog::content_id;
use super::entry::{AsEntry, Entry};
use super::error::PackageError;

const CONTEXT: &str = "ted/entries/1";
const WHAT: &str = "a kept entry list";
const HASH_BYTES: usize = 32;
/// Entries that are compressed together.
const ENTRIES_TOGETHER: usize = 4096;
/// Such a file is written once for each extraction and hardly ever read: little work, and small enough.
const LEVEL: i32 = 3;

/// Whose entry list it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryListHead {
    context: String,
    /// The Distribution.
    pub distribution: DistributionId,
    /// The revision.
    pub revision: Revision,
    /// Its content id.
    pub content: ContentId,
    /// How many entries it has.
    pub entries: u64,
}

/// The bytes of a kept entry list.
///
/// # Errors
/// [`PackageError::Codec`] when an entry is beyond the limits; [`PackageError::Io`] when zstd gives up.
pub fn encode_entry_list<E: AsEntry>(
    distribution: DistributionId,
    revision: Revision,
    entries: &[E],
) -> Result<Vec<u8>, PackageError> {
    let limits = Limits::DEFAULT;
    let head = EntryListHead {
        context: CONTEXT.to_owned(),
        distribution,
        revision,
        content: content_id(entries.iter().map(AsEntry::entry))?,
        entries: entries.len() as u64,
    };
    let mut bytes = codec::encode(WHAT, &head, limits.root_bytes_max)?;
    for together in entries.chunks(ENTRIES_TOGETHER) {
        let together: Vec<&Entry> = together.iter().map(AsEntry::entry).collect();
        let raw = codec::encode(WHAT, &together, limits.kept_entries_bytes_max)?;
        let stored = zstd::bulk::compress(&raw, LEVEL).map_err(|source| PackageError::Io { place: WHAT, source })?;
        bytes.extend_from_slice(&(raw.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(stored.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&stored);
    }
    let hash = Hash::of(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    Ok(bytes)
}

/// The entry list that `bytes` hold, all of it as it was written.
///
/// # Errors
/// [`PackageError`] says what is wrong with it.
pub fn decode_entry_list(bytes: &[u8], limits: &Limits) -> Result<(EntryListHead, Vec<Entry>), PackageError> {
    let (written, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or(PackageError::NotAPackage)?;
    if Hash::of(written).as_bytes() != hash {
        return Err(refuse("the entry list is damaged"));
    }
    let head_bytes = codec::encode(WHAT, &EntryListHead::empty(), limits.root_bytes_max)?.len();
    let (head, mut rest) = written.split_at_checked(head_bytes).ok_or(PackageError::NotAPackage)?;
    let head: EntryListHead = codec::decode(WHAT, head, limits.root_bytes_max)?;
    if head.context != CONTEXT || head.entries > limits.entries_max {
        return Err(refuse("this is no entry list of this version"));
    }
    let (mut entries, mut raw_bytes_left) = (Vec::new(), limits.kept_entries_bytes_max);
    while !rest.is_empty() {
        let raw_bytes = take_length(&mut rest)?;
        let stored_bytes = take_length(&mut rest)?;
        raw_bytes_left =
            raw_bytes_left.checked_sub(raw_bytes).ok_or(refuse("the entry list is longer than allowed"))?;
        let split = usize::try_from(stored_bytes).ok().and_then(|length| rest.split_at_checked(length));
        let (stored, behind) = split.ok_or(refuse("the entry list ends early"))?;
        rest = behind;
        let raw = zstd::bulk::decompress(stored, raw_bytes as usize)
            .map_err(|source| PackageError::Io { place: WHAT, source })?;
        let together: Vec<Entry> = codec::decode(WHAT, &raw, raw_bytes)?;
        entries.extend(together);
    }
    if entries.len() as u64 != head.entries || content_id(&entries)? != head.content {
        return Err(refuse("the entry list is not the one that it says"));
    }
    Ok((head, entries))
}

fn take_length(rest: &mut &[u8]) -> Result<u64, PackageError> {
    let (length, behind) = rest.split_first_chunk().ok_or(refuse("the entry list ends early"))?;
    *rest = behind;
    Ok(u64::from_le_bytes(*length))
}

fn refuse(reason: &str) -> PackageError {
    CodecError::Malformed { what: WHAT, reason: reason.to_owned() }.into()
}

impl EntryListHead {
    /// Every head has as many bytes as this one.
    fn empty() -> Self {
        Self {
            context: CONTEXT.to_owned(),
            distribution: DistributionId::from_bytes([0; 16]),
            revision: Revision::from_number(0),
            content: ContentId::from_bytes([0; 32]),
            entries: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{EntryKind, EntryPath, Mtime};

    fn entries(count: usize) -> Vec<Entry> {
        let entry = |number: usize| {
            let name = if number == 0 { String::new() } else { format!("f{number:06}") };
            let kind = if number == 0 { EntryKind::Directory } else { EntryKind::File };
            Entry {
                path: EntryPath::from_bytes(name.as_bytes()).expect("valid"),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Mtime { seconds: number as i64, nanoseconds: 1 },
                size: number as u64,
                link: vec![],
                content: if number == 0 { Entry::NO_CONTENT } else { Hash::of(&number.to_le_bytes()) },
                extensions: vec![],
            }
        };
        (0..count).map(entry).collect()
    }

    fn encoded(entries: &[Entry]) -> Vec<u8> {
        encode_entry_list(DistributionId::from_bytes([7; 16]), Revision::from_number(9), entries).expect("encoded")
    }

    #[test]
    fn an_entry_list_survives_its_bytes_and_takes_few() {
        for count in [0, 1, ENTRIES_TOGETHER, ENTRIES_TOGETHER + 1, 3 * ENTRIES_TOGETHER] {
            let given = entries(count);
            let bytes = encoded(&given);
            let (head, read) = decode_entry_list(&bytes, &Limits::DEFAULT).expect("decoded");
            assert_eq!((head.revision, head.entries), (Revision::from_number(9), count as u64));
            assert_eq!(head.content, content_id(&given).expect("within the limits"));
            assert_eq!(read, given);
            assert!(bytes.len() < 300 + 60 * count, "{count} entries took {} bytes", bytes.len());
        }
    }

    #[test]
    fn an_entry_list_with_any_byte_changed_or_cut_off_is_refused() {
        let bytes = encoded(&entries(20));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            decode_entry_list(&changed, &Limits::DEFAULT).expect_err("changed");
            decode_entry_list(&bytes[..at], &Limits::DEFAULT).expect_err("cut off");
        }
    }

    #[test]
    fn an_entry_list_beyond_the_limits_is_refused() {
        let bytes = encoded(&entries(20));
        let few = Limits { entries_max: 19, ..Limits::DEFAULT };
        let short = Limits { kept_entries_bytes_max: 100, ..Limits::DEFAULT };
        for limits in [few, short] {
            decode_entry_list(&bytes, &limits).expect_err("beyond the limits");
        }
    }
}
