//! The catalog on disk. The only module that knows sled.

use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::store::catalog::{Batch, Catalog, CatalogError, Committed, Record};

/// Pages that sled keeps in memory: a fleet of 10,000 nodes needs a few megabytes.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// How long the engine's lock may outlive its holder.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long to pause before the lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A catalog in a folder, which one process has open at a time.
pub struct SledCatalog {
    /// Commits hold this for writing until they are durable, so that nobody sees what a crash could still take back.
    /// It guards no data of its own, so a poisoned lock is as good as any.
    commits: RwLock<()>,
    engine: sled::Db,
}

impl SledCatalog {
    /// Opens the catalog in `folder`, or begins one there.
    ///
    /// # Errors
    /// [`CatalogError::Open`], also while another process has it open.
    pub fn open(folder: &Path) -> Result<Self, CatalogError> {
        let started = Instant::now();
        loop {
            match Self::try_open(folder) {
                // The engine lets go of its lock a moment after it is dropped, and so does a child process that was
                // being started just then. Who else may open it is decided by the data directory's lock.
                Err(sled::Error::Io(error)) if is_lock_held(&error) && started.elapsed() < LOCK_PATIENCE => {
                    std::thread::park_timeout(LOCK_PAUSE);
                }
                opened => {
                    return opened.map_err(|error| CatalogError::Open {
                        path: folder.display().to_string(),
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    fn try_open(folder: &Path) -> Result<Self, sled::Error> {
        let engine = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // Every commit flushes, so there is nothing for a clock to do.
            .flush_every_ms(None)
            .open()?;
        Ok(Self { commits: RwLock::new(()), engine })
    }

    fn apply(&self, batch: &Batch) -> Result<Committed, sled::Error> {
        for (key, expected) in &batch.expected {
            if self.engine.get(key)?.as_deref() != expected.as_deref() {
                return Ok(Committed::Conflict { key: key.clone() });
            }
        }
        let mut changes = sled::Batch::default();
        for (key, value) in &batch.changes {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        if !batch.changes.is_empty() {
            self.engine.apply_batch(changes)?;
            self.engine.flush()?;
        }
        Ok(Committed::Done)
    }
}

impl Catalog for SledCatalog {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        let _durable = self.commits.read().unwrap_or_else(PoisonError::into_inner);
        let value = self.engine.get(key).map_err(failed("reading"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Record>, CatalogError> {
        let _durable = self.commits.read().unwrap_or_else(PoisonError::into_inner);
        self.engine
            .scan_prefix(prefix)
            .map(|record| record.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failed("reading")))
            .collect()
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, CatalogError> {
        let _alone = self.commits.write().unwrap_or_else(PoisonError::into_inner);
        self.apply(batch).map_err(failed("writing"))
    }
}

impl std::fmt::Debug for SledCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledCatalog").finish_non_exhaustive()
    }
}

/// Whether the engine says that somebody holds its lock: it keeps the kind of the error, or only its words.
fn is_lock_held(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn failed(action: &'static str) -> impl Fn(sled::Error) -> CatalogError {
    move |error| CatalogError::Engine { action, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::error::Coded;

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let temp = tempfile::tempdir().expect("temp");
        let catalog = SledCatalog::open(temp.path()).expect("opened");
        assert_eq!(catalog.commit(&Batch::new().put("a", "1").put("b", "2")), Ok(Committed::Done));
        assert_eq!(catalog.commit(&Batch::new().delete("a")), Ok(Committed::Done));
        drop(catalog);
        let catalog = SledCatalog::open(temp.path()).expect("opened again");
        assert_eq!(catalog.scan(b""), Ok(vec![(b"b".to_vec(), b"2".to_vec())]));
    }

    #[test]
    fn two_cannot_have_it_open() {
        let temp = tempfile::tempdir().expect("temp");
        let _first = SledCatalog::open(temp.path()).expect("opened");
        assert_eq!(SledCatalog::open(temp.path()).expect_err("open twice").code(), "TED-1520");
    }

    const CHILD: &str = "TED_TEST_CATALOG_TO_KILL";

    /// Run again as a child process by the test below: commits numbers until it is killed, saying each that is done.
    #[test]
    fn commits_until_killed() {
        let Some(folder) = std::env::var_os(CHILD) else { return };
        let catalog = SledCatalog::open(Path::new(&folder)).expect("opened");
        for number in 0u64.. {
            let batch = Batch::new().put(number.to_be_bytes(), "whole").put("last", number.to_be_bytes());
            assert_eq!(catalog.commit(&batch), Ok(Committed::Done));
            // Past the test harness, which holds back what `println` writes.
            std::io::Write::write_all(&mut std::io::stderr(), format!("done {number}\n").as_bytes()).expect("heard");
        }
    }

    #[test]
    fn what_was_acknowledged_survives_a_kill() {
        use std::io::BufRead as _;

        let temp = tempfile::tempdir().expect("temp");
        let program = std::env::current_exe().expect("this test");
        let mut child = Command::new(program)
            .args(["--exact", "store::catalog::sled::tests::commits_until_killed", "--nocapture"])
            .env(CHILD, temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let said = std::io::BufReader::new(child.stderr.take().expect("piped"));
        let numbers = said.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("done ")?.parse().ok());
        let acknowledged: u64 = numbers.take(40).last().expect("forty commits");
        child.kill().expect("killed");
        child.wait().expect("gone");

        let catalog = SledCatalog::open(temp.path()).expect("opened after the kill");
        let last = catalog.get(b"last").expect("read").expect("there");
        let last = u64::from_be_bytes(last.try_into().expect("a number"));
        assert!(last >= acknowledged, "{last} < {acknowledged}");
        for number in 0..=last {
            assert_eq!(catalog.get(&number.to_be_bytes()), Ok(Some(b"whole".to_vec())), "{number} of {last}");
        }
    }
}
