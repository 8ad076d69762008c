//! Maps that must survive anything and grow large: what changes is appended to a file, and the file is written anew
//! once it is mostly history. So a change costs what it changes, not what there is.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use rustix::fs::OFlags;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::codec;
use crate::limits::Limits;
use crate::store::durable::{DurableFile, StateError};
use crate::store::file::FileError;
use crate::store::steps::Step;

const MAGIC: &[u8; 4] = b"TEDL";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8;

/// Before each record's body: its length, and a check of that alone, so that a length that rotted is not taken for a
/// record that was cut short.
const LENGTH_BYTES: usize = 4;
const LENGTH_CHECK_BYTES: usize = 4;
const PREFIX_BYTES: usize = LENGTH_BYTES + LENGTH_CHECK_BYTES;

/// After it: BLAKE3 of the check before, the length and the body. So no record can be left out or moved.
const CHECK_BYTES: usize = blake3::OUT_LEN;

/// History that is kept in any case, so that a small map is not written anew all the time.
const HISTORY_BYTES: u64 = 64 * 1024;

/// What one change does to one key: the value that it has from now on, or none.
pub(super) type Change<K, V> = (K, Option<V>);

/// A map that lives in memory and, durable before any change counts, in a file: magic, kind and version, then records
/// of changes, of which the first holds everything that there was when the file was written anew.
///
/// A crash leaves all of a change or nothing of it: what stands at the end of the file and is not whole was never
/// acknowledged. Anything else that is wrong with the file is an error.
pub(super) struct LoggedMap<K, V> {
    what: &'static str,
    /// Never held while something is written: readers do not wait for the disk.
    map: RwLock<BTreeMap<K, V>>,
    log: Mutex<Log>,
}

/// A record's body, and what follows the record.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The file, and where it ends.
struct Log {
    file: DurableFile,
    kind: u16,
    /// The file as it is appended to; none before the first change.
    appended: Option<File>,
    /// The last record's check.
    chain: [u8; CHECK_BYTES],
    bytes: u64,
    /// Of that, what was written when it was written anew.
    rewritten_bytes: u64,
    /// Whether nothing may be appended: there is no file yet, its end is torn, or a write failed.
    is_unfit: bool,
}

impl<K, V> LoggedMap<K, V>
where
    K: Ord + Clone + Serialize + DeserializeOwned,
    V: Clone + Serialize + DeserializeOwned,
{
    /// Reads the file, or begins empty where there is none yet.
    pub(super) fn open(file: DurableFile, what: &'static str, kind: u16) -> Result<Self, StateError> {
        let mut log = Log::new(file, kind);
        let mut map = BTreeMap::new();
        if let Some(bytes) = log.file.read(Limits::DEFAULT.state_file_bytes_max)? {
            for body in log.replay(&bytes)? {
                let changes: Vec<Change<K, V>> = codec::decode(what, body, Limits::DEFAULT.state_file_bytes_max)
                    .map_err(|source| StateError::Codec { path: log.file.path().to_owned(), source })?;
                apply(&mut map, changes);
            }
        }
        Ok(Self { what, map: RwLock::new(map), log: Mutex::new(log) })
    }

    /// The map as it is.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<K, V>> {
        // Changes are put in whole, so a panic elsewhere cannot have left it half-made.
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what `decide` says, which sees the map as no other change can alter it meanwhile. The change is durable
    /// when this returns, and did not happen when this fails. No changes cost nothing.
    pub(super) fn change<R>(
        &self,
        decide: impl FnOnce(&BTreeMap<K, V>) -> (Vec<Change<K, V>>, R),
    ) -> Result<R, StateError> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, answer) = decide(&self.read());
        if changes.is_empty() {
            return Ok(answer);
        }
        let body = self.encode(&log, &changes)?;
        if log.has_room_for(body.len()) {
            log.append(&body)?;
        } else {
            let mut next = self.read().clone();
            apply(&mut next, changes.clone());
            let all: Vec<(&K, Option<&V>)> = next.iter().map(|(key, value)| (key, Some(value))).collect();
            let body = self.encode(&log, &all)?;
            log.rewrite(&body)?;
        }
        apply(&mut self.map.write().unwrap_or_else(PoisonError::into_inner), changes);
        Ok(answer)
    }

    fn encode(&self, log: &Log, changes: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let encoded = codec::encode(self.what, changes, Limits::DEFAULT.state_file_bytes_max);
        encoded.map(Zeroizing::new).map_err(|source| StateError::Codec { path: log.file.path().to_owned(), source })
    }
}

fn apply<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: Vec<Change<K, V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

impl Log {
    fn new(file: DurableFile, kind: u16) -> Self {
        let chain = *blake3::hash(&header(kind)).as_bytes();
        Self { file, kind, appended: None, chain, bytes: 0, rewritten_bytes: 0, is_unfit: true }
    }

    /// The bodies of the records that `bytes` hold; what was torn at their end is left out.
    fn replay<'a>(&mut self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, StateError> {
        let (found, mut rest) = bytes.split_first_chunk().ok_or_else(|| self.damaged("it is cut short"))?;
        self.judge_header(found)?;
        let mut bodies = vec![];
        while let Some((body, next)) = self.record(rest)? {
            bodies.push(body);
            rest = next;
            if bodies.len() == 1 {
                self.rewritten_bytes = (bytes.len() - rest.len()) as u64;
            }
        }
        if bodies.is_empty() {
            // The first record was put in place whole.
            return Err(self.damaged("it is cut short"));
        }
        self.bytes = (bytes.len() - rest.len()) as u64;
        self.is_unfit = !rest.is_empty();
        Ok(bodies)
    }

    fn judge_header(&self, found: &[u8; HEADER_BYTES]) -> Result<(), StateError> {
        let [magic @ .., k0, k1, v0, v1] = found;
        if magic != MAGIC {
            return Err(self.damaged("it does not begin like a log of changes"));
        }
        let version = u16::from_le_bytes([*v0, *v1]);
        if version != VERSION {
            return Err(StateError::Version { path: self.file.path().to_owned(), found: version });
        }
        if u16::from_le_bytes([*k0, *k1]) != self.kind {
            return Err(self.damaged("it is a log of another kind"));
        }
        Ok(())
    }

    /// The body of the record at the front of `rest`, and what follows it; `None` where there is none that is whole,
    /// because a crash came while it was written.
    fn record<'a>(&mut self, rest: &'a [u8]) -> Result<Option<Record<'a>>, StateError> {
        let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [length @ .., _, _, _, _] = prefix;
        if prefix[LENGTH_BYTES..] != self.length_check(*length) {
            // A file system may have made the file longer before it wrote anything there.
            return if is_unwritten(rest) { Ok(None) } else { Err(self.damaged("a record's length does not match")) };
        }
        let length = u32::from_le_bytes(*length) as usize;
        let Some((body, after)) = after.split_at_checked(length) else { return Ok(None) };
        let Some((check, next)) = after.split_first_chunk::<CHECK_BYTES>() else { return Ok(None) };
        let expected = check_of(&self.chain, body);
        if *check != expected {
            let [.., a, b, c, d] = *check;
            let is_torn = next.is_empty() && is_unwritten(&[a, b, c, d]);
            return if is_torn { Ok(None) } else { Err(self.damaged("a record's checksum does not match")) };
        }
        self.chain = expected;
        Ok(Some((body, next)))
    }

    fn length_check(&self, length: [u8; LENGTH_BYTES]) -> [u8; LENGTH_CHECK_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.chain);
        let hash = hasher.update(&length).finalize();
        let [a, b, c, d, ..] = *hash.as_bytes();
        [a, b, c, d]
    }

    /// Whether a record with a body of so many bytes may be appended: the file is whole, and less of it is history
    /// than there was when it was written anew.
    fn has_room_for(&self, body_bytes: usize) -> bool {
        let bytes = self.bytes + (PREFIX_BYTES + body_bytes + CHECK_BYTES) as u64;
        let bytes_max = (2 * self.rewritten_bytes + HISTORY_BYTES).min(Limits::DEFAULT.state_file_bytes_max);
        !self.is_unfit && bytes <= bytes_max
    }

    fn append(&mut self, body: &[u8]) -> Result<(), FileError> {
        let (record, chain) = self.frame(body);
        // Until it is known to be durable, nobody knows what stands at the end.
        self.is_unfit = true;
        if let Err(error) = self.write(&record) {
            // What cannot be taken back now is when the file is written anew, which comes next.
            if let Some(file) = self.appended.take() {
                let _ = file.set_len(self.bytes);
            }
            return Err(error);
        }
        self.is_unfit = false;
        self.chain = chain;
        self.bytes += record.len() as u64;
        Ok(())
    }

    fn write(&mut self, record: &[u8]) -> Result<(), FileError> {
        let path = self.file.path().to_owned();
        self.file.before(Step::WriteState)?;
        let file = match self.appended.take() {
            Some(file) => file,
            None => {
                let options = OpenOptions::new().append(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path);
                options.map_err(FileError::at("open", &path))?
            }
        };
        let file = self.appended.insert(file);
        file.write_all(record).map_err(FileError::at("write", &path))?;
        self.file.before(Step::SyncState)?;
        file.sync_data().map_err(FileError::at("make durable", &path))
    }

    /// Writes the file anew, beside and then in its place, with this as its first record.
    fn rewrite(&mut self, body: &[u8]) -> Result<(), FileError> {
        (self.is_unfit, self.appended) = (true, None);
        self.chain = *blake3::hash(&header(self.kind)).as_bytes();
        let (record, chain) = self.frame(body);
        let mut content = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + record.len()));
        content.extend_from_slice(&header(self.kind));
        content.extend_from_slice(&record);
        self.file.replace(&content)?;
        self.chain = chain;
        self.bytes = content.len() as u64;
        (self.rewritten_bytes, self.is_unfit) = (self.bytes, false);
        Ok(())
    }

    /// A record, and its check.
    fn frame(&self, body: &[u8]) -> (Zeroizing<Vec<u8>>, [u8; CHECK_BYTES]) {
        // Bodies are within `Limits::state_file_bytes_max`, which is far below 4 GiB.
        let length = (body.len() as u32).to_le_bytes();
        let check = check_of(&self.chain, body);
        let mut record = Zeroizing::new(Vec::with_capacity(PREFIX_BYTES + body.len() + CHECK_BYTES));
        record.extend_from_slice(&length);
        record.extend_from_slice(&self.length_check(length));
        record.extend_from_slice(body);
        record.extend_from_slice(&check);
        (record, check)
    }

    fn damaged(&self, reason: &'static str) -> StateError {
        StateError::Damaged { path: self.file.path().to_owned(), reason }
    }
}

fn header(kind: u16) -> [u8; HEADER_BYTES] {
    let [m0, m1, m2, m3] = *MAGIC;
    let ([k0, k1], [v0, v1]) = (kind.to_le_bytes(), VERSION.to_le_bytes());
    [m0, m1, m2, m3, k0, k1, v0, v1]
}

fn check_of(chain: &[u8; CHECK_BYTES], body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain).update(&(body.len() as u32).to_le_bytes()).update(body);
    *hasher.finalize().as_bytes()
}

fn is_unwritten(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::error::Coded as _;
    use crate::store::steps::tests::StopAfter;

    fn open(path: &Path) -> Result<LoggedMap<u32, String>, StateError> {
        LoggedMap::open(DurableFile::new(path.to_owned()), "numbers", 7)
    }

    fn put(map: &LoggedMap<u32, String>, key: u32, value: &str) -> Result<(), StateError> {
        map.change(|_| (vec![(key, Some(value.to_owned()))], ()))
    }

    fn keys(map: &LoggedMap<u32, String>) -> Vec<u32> {
        map.read().keys().copied().collect()
    }

    /// A file with the keys 1, 2, 3, and then without 2: the first was written anew, the others appended.
    fn written(path: &Path) -> Vec<u8> {
        let map = open(path).unwrap();
        for key in 1..=3 {
            put(&map, key, "value").unwrap();
        }
        map.change(|all| (vec![(2, None)], assert!(all.contains_key(&2)))).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn changes_survive_and_those_that_change_nothing_cost_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("map");
        assert!(open(&path).unwrap().read().is_empty());
        let bytes = written(&path);
        let again = open(&path).unwrap();
        assert_eq!(keys(&again), [1, 3]);
        assert_eq!(again.change(|_| (vec![], 9)).unwrap(), 9);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        put(&again, 4, "more").unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(&bytes), "what was there is not written again");
        assert_eq!(keys(&open(&path).unwrap()), [1, 3, 4]);
    }

    #[test]
    fn a_file_that_a_crash_cut_anywhere_holds_the_changes_before_and_takes_new_ones() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("map");
        let bytes = written(&path);
        let mut seen = std::collections::BTreeSet::new();
        for kept in HEADER_BYTES..bytes.len() {
            // Cut short, and with room that was reserved and never written.
            for unwritten in [0, 5, bytes.len() - kept] {
                let mut cut = bytes[..kept].to_vec();
                cut.resize(kept + unwritten, 0);
                std::fs::write(&path, &cut).unwrap();
                let opened = open(&path);
                // The first record was put in place whole; nobody can say what else ended it.
                if let Err(error) = &opened {
                    assert_eq!(error.code(), "TED-1131", "{kept} bytes, {unwritten} unwritten");
                    assert!(seen.is_empty() || unwritten > 0, "{kept} bytes");
                }
                if let Ok(map) = opened {
                    seen.insert(keys(&map));
                    put(&map, 9, "after").unwrap();
                    assert!(keys(&open(&path).unwrap()).contains(&9), "{kept} bytes");
                }
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec![1], vec![1, 2], vec![1, 2, 3]]);
    }

    #[test]
    fn a_file_in_which_any_byte_changed_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("map");
        let bytes = written(&path);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(open(&path).is_err(), "byte {at}");
        }
        std::fs::write(&path, b"").unwrap();
        assert!(open(&path).is_err(), "an empty file never passes for an empty map");
    }

    #[test]
    fn a_change_that_cannot_be_written_did_not_happen_and_the_next_one_mends_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("map");
        for allowed in 0..=1 {
            let _ = std::fs::remove_file(&path);
            written(&path);
            let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::StorageFull));
            let file = DurableFile::new_with(path.clone(), steps as _);
            let map = LoggedMap::<u32, String>::open(file, "numbers", 7).unwrap();
            assert_eq!(put(&map, 4, "lost").unwrap_err().code(), "TED-1510");
            assert_eq!(keys(&map), [1, 3]);
            let again = open(&path).unwrap();
            assert_eq!(keys(&again), [1, 3], "after {allowed} steps");
            put(&again, 5, "kept").unwrap();
            assert_eq!(keys(&open(&path).unwrap()), [1, 3, 5]);
        }
    }

    #[test]
    fn writing_anew_stops_anywhere_without_losing_anything() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("map");
        for allowed in 0..=4 {
            let bytes = written(&path);
            // Torn, so that nothing may be appended.
            std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::StorageFull));
            let file = DurableFile::new_with(path.clone(), steps as _);
            let map = LoggedMap::<u32, String>::open(file, "numbers", 7).unwrap();
            assert_eq!(put(&map, 4, "new").is_ok(), allowed == 4);
            let left = keys(&open(&path).unwrap());
            assert!(left == [1, 2, 3] || left == [1, 2, 3, 4], "{allowed} steps: {left:?}");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn history_never_takes_much_more_than_what_there_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("map");
        let map = open(&path).unwrap();
        let value = "x".repeat(1000);
        for round in 0..2000 {
            put(&map, round % 10, &value).unwrap();
            let bytes = path.metadata().unwrap().len();
            assert!(bytes <= 2 * 12_000 + HISTORY_BYTES, "{bytes} bytes after {round} changes");
        }
        assert_eq!(keys(&open(&path).unwrap()).len(), 10);
    }
}
