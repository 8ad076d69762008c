//! A Subscriber's disk. What was not synced may be lost, kept or torn by a crash, each write for itself: the order of
//! unsynced writes, to one file or to several, means nothing. Small files are replaced atomically and durably, as the
//! store does it (write aside, sync, rename, sync the folder).

use std::collections::BTreeMap;

use ted_core::id::{PackageId, Revision};
use ted_core::protocol::Floor;

use crate::rng::Rng;
use crate::work::Work;

struct Write {
    number: u64,
    offset: usize,
    bytes: Vec<u8>,
    /// Whether the writer was told that it is done. Only such writes are covered by a sync that begins later.
    done: bool,
}

/// A `distfile.part`.
#[derive(Default)]
pub(crate) struct PartFile {
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

impl PartFile {
    /// What is on the disk for certain.
    pub(crate) fn durable(&self, range: std::ops::Range<u64>) -> &[u8] {
        self.durable.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// What a reader sees: what is durable, and over it every write that is done.
    pub(crate) fn read(&self, range: std::ops::Range<u64>) -> Vec<u8> {
        let (from, to) = (range.start as usize, range.end as usize);
        let mut seen = self.durable.get(from..to.min(self.durable.len())).unwrap_or_default().to_vec();
        seen.resize(to - from, 0);
        for write in self.unsynced.iter().filter(|write| write.done) {
            let (begin, end) = (write.offset.max(from), (write.offset + write.bytes.len()).min(to));
            if begin < end {
                let part = &write.bytes[begin - write.offset..end - write.offset];
                seen[begin - from..end - from].copy_from_slice(part);
            }
        }
        seen
    }

    /// A file that was there before, as a whole.
    pub(crate) fn of(durable: Vec<u8>) -> Self {
        Self { durable, unsynced: Vec::new() }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    fn apply(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[offset..end].copy_from_slice(bytes);
    }
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) floor: Option<Floor>,
    pub(crate) extracted: Option<Revision>,
    pub(crate) parts: BTreeMap<PackageId, PartFile>,
    pub(crate) maps: BTreeMap<PackageId, Vec<u8>>,
    /// Complete, verified packages and the revisions they carry.
    pub(crate) packages: BTreeMap<PackageId, (Revision, Vec<u8>)>,
    /// Maps that are being written.
    maps_under_way: BTreeMap<PackageId, Vec<u8>>,
    writes: u64,
}

impl Disk {
    pub(crate) fn begin_write(&mut self, package: PackageId, offset: u64, bytes: Vec<u8>) -> u64 {
        self.writes += 1;
        let write = Write { number: self.writes, offset: offset as usize, bytes, done: false };
        self.parts.entry(package).or_default().unsynced.push(write);
        self.writes
    }

    /// Work that was given to the disk is done, whoever gave it.
    pub(crate) fn done(&mut self, work: &Work) {
        match work {
            Work::Written { package, write: number, .. } => {
                for write in self.parts.entry(*package).or_default().unsynced.iter_mut() {
                    write.done |= write.number == *number;
                }
            }
            Work::Synced { package, covered, .. } => self.end_sync(*package, covered),
            Work::MapWritten { package, .. } => self.end_map(package),
            Work::Checked { .. } | Work::Extracted { .. } => {}
        }
    }

    /// The writes that a sync beginning now covers.
    pub(crate) fn begin_sync(&mut self, package: PackageId) -> Vec<u64> {
        let part = self.parts.entry(package).or_default();
        part.unsynced.iter().filter(|write| write.done).map(|write| write.number).collect()
    }

    fn end_sync(&mut self, package: PackageId, covered: &[u64]) {
        let part = self.parts.entry(package).or_default();
        let (synced, rest) =
            std::mem::take(&mut part.unsynced).into_iter().partition(|write| covered.contains(&write.number));
        part.unsynced = rest;
        let synced: Vec<Write> = synced;
        for write in synced {
            part.apply(write.offset, &write.bytes);
        }
    }

    pub(crate) fn begin_map(&mut self, package: PackageId, bytes: Vec<u8>) {
        self.maps_under_way.insert(package, bytes);
    }

    pub(crate) fn sync_everything(&mut self, package: PackageId) {
        self.drain(package);
        let covered = self.begin_sync(package);
        self.end_sync(package, &covered);
    }

    /// Everything that was begun on a package's files comes to its end.
    pub(crate) fn drain(&mut self, package: PackageId) {
        self.end_map(&package);
        for write in self.parts.entry(package).or_default().unsynced.iter_mut() {
            write.done = true;
        }
    }

    fn end_map(&mut self, package: &PackageId) {
        self.maps.extend(self.maps_under_way.remove_entry(package));
    }

    pub(crate) fn has_unsynced_writes(&self) -> bool {
        self.parts.values().any(|part| !part.is_synced())
    }

    /// The power goes.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        for (package, map) in std::mem::take(&mut self.maps_under_way) {
            if rng.chance(500) {
                self.maps.insert(package, map);
            }
        }
        for part in self.parts.values_mut() {
            for mut write in std::mem::take(&mut part.unsynced) {
                match rng.below(4) {
                    0 => {}
                    1 => part.apply(write.offset, &write.bytes),
                    2 => {
                        write.bytes.truncate(rng.below(write.bytes.len() as u64) as usize);
                        part.apply(write.offset, &write.bytes);
                    }
                    // The file grew, and what should be in it did not arrive.
                    _ => part.apply(write.offset, &vec![0; write.bytes.len()]),
                }
            }
        }
    }
}
