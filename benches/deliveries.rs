//! What the catalog costs for each delivery: one firing to a fleet goes through all stages (offered, receiving, received,
//! verified, extracted), and each lot of receipts is durable before it would be acknowledged. `cargo bench --bench
//! deliveries`, with an optional number of Subscribers and a folder on the disk to measure.
//!
//! The records are those of the Distributor, written in batches as it writes them: what is offered and begun rides along
//! with the next lot of receipts.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ted_core::id::{DistributionId, FiringId, KeyHash, Revision, UnixMillis};
use ted_core::limits::Limits;
use ted_core::model::Priority;
use ted_core::protocol::{
    Cause, Firing, FiringHead, FiringRecord, FiringStart, FiringTarget, OfferAnswer, Part, Until,
};
use ted_core::security::{Receipt, Stage};
use ted_core::store::{Batch, Catalog, Committed, SledCatalog};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LIMITS: Limits = Limits::DEFAULT;
const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
const SITE: DistributionId = DistributionId::from_bytes([5; 16]);
const ID: FiringId = FiringId::from_bytes([9; 16]);

/// How many receipts arrive together: one alone, a message full, and what comes while a disk flushes.
const LOTS: [usize; 3] = [1, 48, 500];

/// With one flush for each receipt, a firing to all would only measure the disk, for minutes.
const ALONE_AT_MOST: usize = 300;

fn main() -> Result<(), Failure> {
    // Cargo passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let count = arguments.next().and_then(|count| count.parse::<usize>().ok()).unwrap_or(10_000);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!("one firing to {count} Subscribers, three receipts each, catalog in {}", folder.display());
    println!(
        "{:>9}  {:>11}  {:>11}  {:>13}  {:>13}",
        "together", "us/delivery", "us/receipt", "written B/del", "kept B/del"
    );
    for lot in LOTS {
        let count = if lot == 1 { count.min(ALONE_AT_MOST) } else { count };
        let place = tempfile::tempdir_in(&folder)?;
        let cost = deliver(place.path(), count, lot)?;
        let of_each = |value: f64, count: usize| value / count as f64;
        println!(
            "{lot:>9}  {:>11.1}  {:>11.1}  {:>13.0}  {:>13.0}",
            of_each(micros(cost.took), count),
            of_each(micros(cost.took), 3 * count),
            of_each(cost.written_bytes as f64, count),
            of_each(folder_bytes(place.path())? as f64, count),
        );
        check(place.path(), count)?;
    }
    memory(count)?;
    Ok(())
}

struct Cost {
    took: Duration,
    written_bytes: u64,
}

/// A firing from its start to its end.
fn deliver(place: &Path, count: usize, lot: usize) -> Result<Cost, Failure> {
    let catalog = SledCatalog::open(place)?;
    let written = written_bytes()?;
    let began = Instant::now();
    let mut firing = start(count);
    commit(&catalog, &mut firing)?;
    let keys: Vec<_> = (0..count).map(key).collect();
    for key in &keys {
        firing.offered(key, &SITE, NOW);
        firing.answered(key, &SITE, &OfferAnswer::Want { packages: vec![] }, NOW);
    }
    for stage in [Stage::Received, Stage::Verified, Stage::Extracted] {
        for keys in keys.chunks(lot) {
            for key in keys {
                firing.receipt(key, &receipt(stage), NOW);
            }
            commit(&catalog, &mut firing)?;
        }
    }
    Ok(Cost { took: began.elapsed(), written_bytes: written_bytes()?.saturating_sub(written) })
}

fn start(count: usize) -> Firing {
    let start = FiringStart {
        id: ID,
        channel: "nightly".parse().expect("a label"),
        priority: Priority::Medium,
        until: Until::Extracted,
        cause: Cause::Schedule,
        closes: None,
    };
    let target =
        |number| FiringTarget { subscriber: key(number), distribution: SITE, revision: Revision::from_number(7) };
    Firing::start(start, (0..count).map(target), NOW)
}

/// A key as random as real ones are.
fn key(number: usize) -> KeyHash {
    KeyHash::of_spki(&number.to_le_bytes())
}

fn receipt(stage: Stage) -> Receipt {
    let revision = Revision::from_number(7);
    let (code, detail) = (None, String::new());
    Receipt { firing: Some(ID), distribution: SITE, revision, package: None, stage, code, detail, at: NOW }
}

fn commit(catalog: &SledCatalog, firing: &mut Firing) -> Result<(), Failure> {
    let changes = firing.take_changes(&LIMITS)?;
    let batch = changes.into_iter().fold(Batch::new(), |batch, (record, bytes)| match bytes {
        Some(bytes) => batch.put(record_key(record), bytes),
        None => batch.delete(record_key(record)),
    });
    match catalog.commit(&batch)? {
        Committed::Done => Ok(()),
        Committed::Conflict { .. } => Err("nobody else writes here".into()),
    }
}

fn record_key(record: FiringRecord) -> String {
    match record {
        FiringRecord::Head => format!("fired/{ID}"),
        FiringRecord::Part(number) => format!("part/{ID}/{number:08x}"),
    }
}

/// What is on disk says that everything arrived.
fn check(place: &Path, count: usize) -> Result<(), Failure> {
    let catalog = SledCatalog::open(place)?;
    let head = catalog.get(b"fired/09090909090909090909090909090909")?.ok_or("the head is gone")?;
    let head = FiringHead::decode(&head, &LIMITS)?;
    let parts = catalog.scan(b"part/")?;
    let parts: Result<Vec<_>, _> = parts.iter().map(|(_, bytes)| Part::decode(bytes, &LIMITS)).collect();
    let firing = Firing::restore(head, parts?);
    if firing.counts().extracted != count as u64 || !firing.is_over() {
        return Err(format!("the catalog says {:?}", firing.counts()).into());
    }
    Ok(())
}

/// What one receipt costs without the disk, and what an open firing takes of the memory.
fn memory(count: usize) -> Result<(), Failure> {
    let mut firing = start(count);
    firing.take_changes(&LIMITS)?;
    let began = Instant::now();
    for number in 0..count {
        firing.receipt(&key(number), &receipt(Stage::Verified), NOW);
    }
    let took = began.elapsed();
    println!("an open firing in memory: {} B for each part, and its texts", std::mem::size_of::<Part>());
    println!("a receipt entered, without the disk: {:.2} us", micros(took) / count as f64);
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Bytes that this process handed to the system so far, whatever the disk below.
fn written_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no `wchar` in /proc/self/io")?;
    Ok(line.trim().parse()?)
}

fn folder_bytes(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { folder_bytes(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}
