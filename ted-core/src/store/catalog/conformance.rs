//! What every catalog does, run against each of them.

use std::sync::Arc;

use crate::error::Coded as _;
use crate::id::{InstanceId, UnixMillis};
use crate::store::catalog::{Batch, Catalog, Committed, MemoryCatalog, SledCatalog};

/// Runs `check` on a fresh catalog of each kind.
fn on_each(check: impl Fn(Arc<dyn Catalog>)) {
    check(Arc::new(MemoryCatalog::new()));
    let temp = tempfile::tempdir().expect("temp");
    check(Arc::new(SledCatalog::open(temp.path()).expect("opened")));
}

fn conflict(key: &str) -> Committed {
    Committed::Conflict { key: key.as_bytes().to_vec() }
}

fn put(catalog: &dyn Catalog, key: &str, value: &str) {
    assert_eq!(catalog.commit(&Batch::new().put(key, value)), Ok(Committed::Done));
}

fn at(millis: u64) -> UnixMillis {
    UnixMillis::from_millis(millis)
}

const ONE: InstanceId = InstanceId::from_bytes([1; 16]);
const TWO: InstanceId = InstanceId::from_bytes([2; 16]);

#[test]
fn values_are_written_replaced_and_removed() {
    on_each(|catalog| {
        assert_eq!(catalog.get(b"key"), Ok(None));
        put(&*catalog, "key", "one");
        put(&*catalog, "key", "");
        assert_eq!(catalog.get(b"key"), Ok(Some(Vec::new())), "an empty value is a value");
        assert_eq!(catalog.commit(&Batch::new().delete("key").delete("absent")), Ok(Committed::Done));
        assert_eq!(catalog.get(b"key"), Ok(None));
        assert_eq!(catalog.commit(&Batch::new()), Ok(Committed::Done));
    });
}

#[test]
fn a_scan_is_ordered_and_stays_within_its_prefix() {
    on_each(|catalog| {
        for key in ["b/2", "b", "a", "b/10", "b/1", "c", "b0"] {
            put(&*catalog, key, key);
        }
        assert_eq!(catalog.commit(&Batch::new().put(vec![0xff, 0xff], "high")), Ok(Committed::Done));
        let keys = |prefix: &[u8]| -> Vec<Vec<u8>> {
            catalog.scan(prefix).expect("scanned").into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(b"b/"), [b"b/1".to_vec(), b"b/10".to_vec(), b"b/2".to_vec()]);
        assert_eq!(keys(b"").len(), 8);
        assert_eq!(keys(&[0xff]), [vec![0xff, 0xff]]);
        assert!(keys(b"d").is_empty());
    });
}

#[test]
fn a_batch_happens_whole_or_not_at_all() {
    on_each(|catalog| {
        put(&*catalog, "a", "1");
        let refused = Batch::new().expect("a", Some("1")).expect("b", Some("x")).put("a", "2").put("c", "3");
        assert_eq!(catalog.commit(&refused), Ok(conflict("b")));
        let refused = Batch::new().expect("a", None::<Vec<u8>>).put("a", "2");
        assert_eq!(catalog.commit(&refused), Ok(conflict("a")));
        assert_eq!(catalog.scan(b"").expect("scanned").len(), 1);
        let accepted = Batch::new().expect("a", Some("1")).expect("b", None::<Vec<u8>>).put("b", "2").delete("a");
        assert_eq!(catalog.commit(&accepted), Ok(Committed::Done));
        assert_eq!(catalog.scan(b""), Ok(vec![(b"b".to_vec(), b"2".to_vec())]));
    });
}

#[test]
fn the_last_change_of_a_key_in_a_batch_wins() {
    on_each(|catalog| {
        assert_eq!(catalog.commit(&Batch::new().put("a", "1").delete("a").put("a", "2")), Ok(Committed::Done));
        assert_eq!(catalog.get(b"a"), Ok(Some(b"2".to_vec())));
        assert_eq!(catalog.commit(&Batch::new().put("a", "3").delete("a")), Ok(Committed::Done));
        assert_eq!(catalog.get(b"a"), Ok(None));
    });
}

#[test]
fn numbers_allocated_by_many_at_once_are_given_once() {
    const THREADS: usize = 4;
    const EACH: usize = 10;
    on_each(|catalog| {
        let allocate = || loop {
            let held = catalog.get(b"number").expect("read");
            let next = held.as_deref().map_or(1, |bytes| bytes[0] + 1);
            let batch = Batch::new().expect("number", held).put("number", [next]);
            if catalog.commit(&batch).expect("committed") == Committed::Done {
                return next;
            }
        };
        let mut given: Vec<u8> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS).map(|_| scope.spawn(|| (0..EACH).map(|_| allocate()).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("allocated")).collect()
        });
        given.sort_unstable();
        assert_eq!(given, (1..=40).collect::<Vec<u8>>());
    });
}

#[test]
fn a_lease_is_one_holders_until_it_ends() {
    on_each(|catalog| {
        let first = catalog.lease("build", ONE, at(0), at(100)).expect("free");
        let error = catalog.lease("build", TWO, at(99), at(200)).expect_err("held");
        assert_eq!(error.code(), "TED-1522");
        assert!(error.to_string().contains(&ONE.to_string()), "{error}");
        let renewed = catalog.lease("build", ONE, at(99), at(150)).expect("renewed");
        assert_eq!(renewed.token, first.token, "a renewal keeps its token");
        catalog.lease("build", TWO, at(149), at(200)).expect_err("renewed until 150");
        let second = catalog.lease("build", TWO, at(150), at(200)).expect("ended");
        assert!(second.token > first.token);
        catalog.lease("other", ONE, at(150), at(200)).expect("another key");
    });
}

#[test]
fn one_who_lost_the_lease_commits_nothing() {
    on_each(|catalog| {
        let lost = catalog.lease("build", ONE, at(0), at(100)).expect("free");
        assert_eq!(catalog.commit(&Batch::new().fenced(&lost).put("a", "1")), Ok(Committed::Done));
        let holds = catalog.lease("build", TWO, at(100), at(200)).expect("ended");
        assert!(matches!(catalog.commit(&Batch::new().fenced(&lost).put("a", "2")), Ok(Committed::Conflict { .. })));
        assert_eq!(catalog.get(b"a"), Ok(Some(b"1".to_vec())));
        assert_eq!(catalog.commit(&Batch::new().fenced(&holds).put("a", "3")), Ok(Committed::Done));
    });
}

#[test]
fn a_lease_given_back_is_free_and_its_token_stays_spent() {
    on_each(|catalog| {
        let first = catalog.lease("build", ONE, at(0), at(100)).expect("free");
        catalog.release(&first).expect("given back");
        let second = catalog.lease("build", TWO, at(1), at(100)).expect("free again");
        assert!(second.token > first.token);
        catalog.release(&first).expect("not its lease any more");
        catalog.lease("build", ONE, at(2), at(100)).expect_err("still the second's");
        // One who gave it back and comes again must not pass for the holder it was.
        catalog.release(&second).expect("given back");
        assert!(catalog.lease("build", TWO, at(3), at(100)).expect("free").token > second.token);
    });
}
