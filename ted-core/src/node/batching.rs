//! Records that many write at once: what comes together is made durable together, by one flush.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::records::{RecordBatch, RecordError, Records};

/// Writes of records that are collected until somebody needs one of them durable.
///
/// [`BatchedRecords::put`] only notes them; later notes of a record replace earlier ones. Whoever acknowledges something
/// waits for its ticket with [`BatchedRecords::durable`] or [`BatchedRecords::commit`]: the first to come writes all that
/// is noted, and those who come meanwhile find theirs written, or write the next lot.
pub(crate) struct BatchedRecords {
    records: Records,
    noted: Mutex<Noted>,
    /// The last ticket whose records are durable. Held while records are written, so that one lot follows another.
    written: Mutex<Ticket>,
    /// The same for those who must not block.
    durable: AtomicU64,
    /// Lets one async task at a time write for all, so that those who wait block no threads.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Noted {
    changes: BTreeMap<String, Option<Vec<u8>>>,
    last: Ticket,
}

/// What was noted up to a moment. Dropping one means: it is written some time later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl BatchedRecords {
    pub(crate) fn new(records: Records) -> Self {
        Self {
            records,
            noted: Mutex::default(),
            written: Mutex::default(),
            durable: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Notes records to write or, without bytes, to remove. Whatever is noted at once is written at once or not at all.
    pub(crate) fn put(&self, changes: impl IntoIterator<Item = (String, Option<Vec<u8>>)>) -> Ticket {
        let mut noted = self.noted();
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_some() {
            noted.last.0 += 1;
        }
        noted.changes.extend(changes);
        noted.last
    }

    /// Returns when what `ticket` is for is durable. Blocks on the disk.
    pub(crate) fn commit(&self, ticket: Ticket) -> Result<(), RecordError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= ticket {
            return Ok(());
        }
        let (changes, last) = {
            let mut noted = self.noted();
            (std::mem::take(&mut noted.changes), noted.last)
        };
        if let Err(error) = self.records.apply(batch_of(&changes)) {
            let mut noted = self.noted();
            for (key, value) in changes {
                noted.changes.entry(key).or_insert(value);
            }
            return Err(error);
        }
        *written = last;
        self.durable.store(last.0, Ordering::Release);
        Ok(())
    }

    /// As [`BatchedRecords::commit`], off the async threads.
    pub(crate) async fn durable(self: &Arc<Self>, ticket: Ticket) -> Result<(), RecordError> {
        let is_durable = || self.durable.load(Ordering::Acquire) >= ticket.0;
        if is_durable() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if is_durable() {
            return Ok(());
        }
        let records = self.clone();
        let writing = move || records.commit(ticket);
        tokio::task::spawn_blocking(writing).await.unwrap_or(Err(RecordError::Abandoned))
    }

    /// Makes everything durable that was noted before. Blocks on the disk.
    pub(crate) fn commit_all(&self) -> Result<(), RecordError> {
        self.commit(self.last())
    }

    /// What was noted up to now.
    pub(crate) fn last(&self) -> Ticket {
        self.noted().last
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn batch_of(changes: &BTreeMap<String, Option<Vec<u8>>>) -> RecordBatch {
    changes.iter().fold(RecordBatch::default(), |batch, (key, value)| match value {
        Some(bytes) => batch.put_bytes(key, bytes.clone()),
        None => batch.delete(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Catalog, CatalogError, Committed, MemoryCatalog, Record};

    /// Counts commits, and fails them while told to.
    #[derive(Default)]
    struct Counting {
        within: MemoryCatalog,
        commits: AtomicU64,
        failing: AtomicU64,
    }

    impl Catalog for Arc<Counting> {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
            self.within.get(key)
        }

        fn scan(&self, prefix: &[u8]) -> Result<Vec<Record>, CatalogError> {
            self.within.scan(prefix)
        }

        fn commit(&self, batch: &Batch) -> Result<Committed, CatalogError> {
            if self.failing.load(Ordering::SeqCst) > 0 {
                return Err(CatalogError::Engine { action: "writing", reason: "no space".to_owned() });
            }
            self.commits.fetch_add(1, Ordering::SeqCst);
            self.within.commit(batch)
        }
    }

    fn batched() -> (Arc<Counting>, Arc<BatchedRecords>) {
        let catalog = Arc::new(Counting::default());
        (catalog.clone(), Arc::new(BatchedRecords::new(Records::new(Arc::new(catalog)))))
    }

    fn record(key: &str, value: u8) -> (String, Option<Vec<u8>>) {
        (key.to_owned(), Some(vec![value]))
    }

    #[tokio::test]
    async fn many_who_wait_at_once_are_served_by_few_writes() {
        let (catalog, batched) = batched();
        let tickets: Vec<_> = (0..100).map(|n| batched.put([record(&format!("a/{n}"), n)])).collect();
        for ticket in tickets {
            batched.durable(ticket).await.expect("written");
        }
        assert_eq!(catalog.commits.load(Ordering::SeqCst), 1);
        assert_eq!(catalog.scan(b"a/").expect("readable").len(), 100);
    }

    #[test]
    fn the_last_note_of_a_record_is_what_is_written() {
        let (catalog, batched) = batched();
        batched.put([record("a", 1), record("b", 1)]);
        let ticket = batched.put([record("a", 2), ("b".to_owned(), None)]);
        batched.commit(ticket).expect("written");
        assert_eq!((catalog.get(b"a"), catalog.get(b"b")), (Ok(Some(vec![2])), Ok(None)));
    }

    #[test]
    fn what_could_not_be_written_is_written_with_what_follows_and_newer_notes_win() {
        let (catalog, batched) = batched();
        catalog.failing.store(1, Ordering::SeqCst);
        let ticket = batched.put([record("a", 1), record("b", 1)]);
        batched.commit(ticket).expect_err("no space");
        catalog.failing.store(0, Ordering::SeqCst);
        batched.put([record("a", 2)]);
        batched.commit(ticket).expect("there is space again");
        assert_eq!((catalog.get(b"a"), catalog.get(b"b")), (Ok(Some(vec![2])), Ok(Some(vec![1]))));
    }
}
