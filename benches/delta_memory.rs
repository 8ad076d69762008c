//! What a delta of one large file costs: its bytes, the memory that building and applying it take above that of an idle
//! process, and processor time. `cargo bench --bench delta_memory`, with an optional size in MiB (2,048 unless told).
//!
//! The file is noise. 1 % of it is changed in 4 KiB pieces all over it, or noise is inserted at its front. Old and new
//! content are read from baselines, as a Distributor does; the receiver reads the old content from its baseline too.
//! Every step is a process of its own, whose peak is `VmHWM`, and idle is what it has after its start.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use ted_core::id::{DistributionId, KeyHash};
use ted_core::limits::Limits;
use ted_core::package::delta::{Applier, PackageFiles, RevisionContent, build_delta};
use ted_core::package::{
    BuildOptions, Entry, EntryKind, EntryPath, Mtime, Opening, PackageError, PackageIndex, Root, RootSigner, Seal,
    Skipped, Source, SourceError, SourceFile, Suite, build_baseline, read_delta_index, read_index,
};
use ted_core::security::{EpochSecret, Signature};

type Failure = Box<dyn Error + Send + Sync>;

const MIB: u64 = 1 << 20;
/// One percent of the file is changed: so many bytes in each stretch of a hundred times as many.
const CHANGED_BYTES: u64 = 4096;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [step, work, change, sealed, size] = arguments.as_slice() {
        let case = Case { change: change.parse()?, sealed: sealed == "sealed", size: size.parse()? };
        return case.run(step, Path::new(work));
    }
    let size = arguments.first().map_or(Ok(2048), |argument| argument.parse::<u64>())? * MIB;
    let work = tempfile::Builder::new().prefix("ted-bench-").tempdir()?;
    println!("a file of {} MiB; peaks in MiB above idle, processor seconds", size / MIB);
    println!(
        "{:<28} {:>12} {:>12} {:>10} {:>12} {:>10}",
        "change", "delta bytes", "build peak", "build", "apply peak", "apply"
    );
    for sealed in ["plain", "sealed"] {
        step("pack-old", work.path(), (0, sealed, size))?;
        for (name, change) in [("1 % changed", 0), ("8 MiB inserted", 8 * MIB), ("64 MiB inserted", 64 * MIB)] {
            let case = (change, sealed, size);
            step("pack-new", work.path(), case)?;
            let built = step("build", work.path(), case)?;
            let applied = step("apply", work.path(), case)?;
            let bytes = std::fs::metadata(work.path().join("delta"))?.len();
            let name = format!("{name}, {sealed}");
            println!(
                "{name:<28} {bytes:>12} {:>12.1} {:>10.2} {:>12.1} {:>10.2}",
                built.peak_mib, built.seconds, applied.peak_mib, applied.seconds
            );
        }
    }
    Ok(())
}

/// What a step took.
struct Took {
    peak_mib: f64,
    seconds: f64,
}

/// Runs one step in a process of its own.
fn step(step: &str, work: &Path, (change, sealed, size): (u64, &str, u64)) -> Result<Took, Failure> {
    let own = std::env::current_exe()?;
    let arguments = [step, &work.to_string_lossy(), &change.to_string(), sealed, &size.to_string()];
    let output = Command::new(own).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{step}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut figures = text.split_whitespace().map(str::parse::<f64>);
    let mut next =
        || figures.next().ok_or("a step said too little").map_err(Failure::from).and_then(|figure| Ok(figure?));
    Ok(Took { peak_mib: next()?, seconds: next()? })
}

/// A file, and what happens to it: so many bytes are inserted at its front, or 1 % of it changes if that is none.
struct Case {
    change: u64,
    sealed: bool,
    size: u64,
}

impl Case {
    fn run(&self, step: &str, work: &Path) -> Result<(), Failure> {
        let idle = memory("VmRSS:")?;
        let place = |name: &str| work.join(name);
        match step {
            "pack-old" => self.pack(&place("old"), None)?,
            "pack-new" => self.pack(&place("new"), Some(self.change))?,
            "build" => self.build([place("old"), place("new"), place("delta")])?,
            _ => self.apply([place("old"), place("delta")])?,
        }
        println!("{} {}", memory("VmHWM:")? - idle, processor_seconds()?);
        Ok(())
    }

    fn options(&self, salt: u8) -> Result<BuildOptions, Failure> {
        let id = DistributionId::from_bytes([0; 16]);
        let mut options = BuildOptions::new(id, "bench".parse()?, KeyHash::from_bytes([0; 32]), 2);
        options.seal = self.sealed.then(|| Seal::of(&secret(), [salt; 32]));
        Ok(options)
    }

    fn pack(&self, place: &Path, change: Option<u64>) -> Result<(), Failure> {
        let source = Noise { size: self.size + change.unwrap_or(0), change };
        let entries = source.entries(&mut |_| {})?;
        let mut out = BufWriter::with_capacity(MIB as usize, File::create(place)?);
        let options = self.options(u8::from(change.is_some()))?;
        build_baseline(&source, entries, &options, &Unsigned, &mut out, &|_| {})?;
        out.flush()?;
        Ok(())
    }

    fn build(&self, [old, new, delta]: [PathBuf; 3]) -> Result<(), Failure> {
        let (old_index, old_file) = open(&old)?;
        let (new_index, new_file) = open(&new)?;
        let old_files = PackageFiles::new(old_index.clone(), &old_file);
        let new_files = PackageFiles::new(new_index.clone(), &new_file);
        let revision = |number, index, files| RevisionContent {
            number: ted_core::Revision::from_number(number),
            entries: PackageIndex::catalog(index),
            files,
        };
        let mut out = BufWriter::with_capacity(MIB as usize, File::create(delta)?);
        let (from, to) = (revision(1, &old_index, &old_files), revision(2, &new_index, &new_files));
        build_delta(&from, &to, &self.options(2)?, &Unsigned, &mut out, &|_| {})?;
        out.flush()?;
        Ok(())
    }

    fn apply(&self, [old, delta]: [PathBuf; 2]) -> Result<(), Failure> {
        let (old_index, old_file) = open(&old)?;
        let old_files = PackageFiles::new(old_index.clone(), &old_file);
        let delta = File::open(delta)?;
        let index = read_delta_index(&delta, &Limits::DEFAULT, judge)?;
        let resolved = index.resolve(old_index.catalog(), &Limits::DEFAULT)?;
        let mut applier = Applier::new(&index, &resolved, &delta, (old_index.catalog(), &old_files));
        for content in &resolved.contents {
            applier.write(content, &mut std::io::sink())?;
        }
        Ok(())
    }
}

fn secret() -> EpochSecret {
    EpochSecret::from_bytes([7; 32])
}

fn open(place: &Path) -> Result<(PackageIndex, File), Failure> {
    let file = File::open(place)?;
    Ok((read_index(&file, &Limits::DEFAULT, judge)?, file))
}

fn judge(root: &Root, _root_bytes: &[u8], _signature: &Signature) -> Result<Opening, PackageError> {
    Ok(match root.suite {
        Suite::None => Opening::Unsealed,
        Suite::Aes256Gcm { salt, .. } => Opening::With(secret().content_key(&salt)),
    })
}

struct Unsigned;

impl RootSigner for Unsigned {
    fn sign_root(&self, _root_bytes: &[u8]) -> Result<Signature, Failure> {
        Ok(Signature { algorithm: Signature::ECDSA_P256_SHA256, certificate: vec![0; 700], signature: vec![0; 71] })
    }
}

/// A tree with one file of noise, which is made as it is read.
struct Noise {
    size: u64,
    change: Option<u64>,
}

impl Source for Noise {
    fn entries(&self, _skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let root = Entry {
            path: EntryPath::root(),
            kind: EntryKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds: 1, nanoseconds: 0 },
            size: 0,
            link: Vec::new(),
            content: Entry::NO_CONTENT,
            extensions: Vec::new(),
        };
        let path = EntryPath::from_bytes(b"large").unwrap_or_else(|_| EntryPath::root());
        Ok(vec![root.clone(), Entry { path, kind: EntryKind::File, size: self.size, ..root }])
    }

    fn open(&self, _entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile>, SourceError> {
        Ok(Box::new(NoiseFile { at: offset, change: self.change }))
    }
}

struct NoiseFile {
    at: u64,
    change: Option<u64>,
}

impl NoiseFile {
    fn fill(seed: u8, from: u64, room: &mut [u8]) {
        let mut reader = blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof();
        reader.set_position(from);
        reader.fill(room);
    }
}

impl Read for NoiseFile {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let inserted = self.change.unwrap_or(0);
        let (seed, from, end) = match self.change {
            _ if self.at < inserted => (1, self.at, inserted),
            Some(0) => {
                let (stretch, within) = (self.at / (100 * CHANGED_BYTES), self.at % (100 * CHANGED_BYTES));
                let start = stretch * 100 * CHANGED_BYTES;
                match within {
                    0..CHANGED_BYTES => (2, self.at, start + CHANGED_BYTES),
                    _ => (0, self.at, start + 100 * CHANGED_BYTES),
                }
            }
            _ => (0, self.at - inserted, u64::MAX),
        };
        let bytes = (room.len() as u64).min(end - self.at);
        Self::fill(seed, from, &mut room[..bytes as usize]);
        self.at += bytes;
        Ok(bytes as usize)
    }
}

impl SourceFile for NoiseFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A figure of `/proc/self/status`, in MiB.
fn memory(name: &str) -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// User and system time of this process so far.
fn processor_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("no such figure")?.split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
    Ok(ticks / 100.0)
}
