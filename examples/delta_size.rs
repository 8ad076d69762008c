//! Prints what a delta from one folder to another costs: `cargo run --example delta_size OLD NEW [LEVEL]`.
//!
//! It builds the delta in memory, applies it, and checks every file that it makes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ted_core::id::{DistributionId, Hash, KeyHash};
use ted_core::limits::Limits;
use ted_core::package::delta::{Applier, Files, RevisionContent, build_delta};
use ted_core::package::{BuildOptions, Entry, EntryKind, EntryPath, LEVEL, Mtime, RootSigner};
use ted_core::security::Signature;

struct Unsigned;

impl RootSigner for Unsigned {
    fn sign_root(&self, _root_bytes: &[u8]) -> Result<Signature, Box<dyn Error + Send + Sync>> {
        // As long as a real one with its certificate.
        let (certificate, signature) = (vec![0; 700], vec![0; 71]);
        Ok(Signature { algorithm: Signature::ECDSA_P256_SHA256, certificate, signature })
    }
}

/// A folder's files, by their numbers in the entry list.
struct Folder {
    entries: Vec<Entry>,
    files: Vec<PathBuf>,
}

impl Files for Folder {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        std::fs::File::open(&self.files[file])?.read_exact_at(buf, offset)
    }
}

fn folder(root: &Path) -> Result<Folder, Box<dyn Error>> {
    let mut found = Vec::new();
    walk(root, EntryPath::root(), &mut found)?;
    found.sort_by(|left: &(Entry, PathBuf), right| left.0.path.cmp(&right.0.path));
    let (entries, files) = found.into_iter().unzip();
    Ok(Folder { entries, files })
}

fn walk(place: &Path, path: EntryPath, found: &mut Vec<(Entry, PathBuf)>) -> Result<(), Box<dyn Error>> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let meta = place.symlink_metadata()?;
    let mut entry = Entry {
        path: path.clone(),
        kind: EntryKind::Directory,
        mode: meta.mode() & 0o7777,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: meta.mtime(), nanoseconds: meta.mtime_nsec().try_into()? },
        size: 0,
        link: Vec::new(),
        content: Entry::NO_CONTENT,
        extensions: Vec::new(),
    };
    if meta.is_symlink() {
        (entry.kind, entry.link) = (EntryKind::Symlink, std::fs::read_link(place)?.as_os_str().as_bytes().to_vec());
    } else if meta.is_file() {
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut std::fs::File::open(place)?, &mut hasher)?;
        (entry.kind, entry.size) = (EntryKind::File, meta.len());
        entry.content = Hash::from_bytes(*hasher.finalize().as_bytes());
    }
    let is_folder = meta.is_dir();
    found.push((entry, place.to_owned()));
    if is_folder {
        for child in std::fs::read_dir(place)? {
            let child = child?;
            walk(&child.path(), path.join(child.file_name().as_bytes())?, found)?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result is for whoever runs this")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [old, new, level @ ..] = arguments.as_slice() else { return Err("usage: delta_size OLD NEW [LEVEL]".into()) };
    let (old, new) = (folder(old.as_ref())?, folder(new.as_ref())?);
    let id = DistributionId::from_bytes([0; 16]);
    let mut options = BuildOptions::new(id, "site".parse()?, KeyHash::from_bytes([0; 32]), 2);
    options.level = level.first().map_or(Ok(LEVEL), |level| level.parse())?;
    let began = Instant::now();
    let mut bytes = Vec::new();
    let [from, to] = [(1, &old), (2, &new)].map(|(number, folder)| RevisionContent {
        number: ted_core::Revision::from_number(number),
        entries: folder.entries.as_slice(),
        files: folder,
    });
    let index = build_delta(&from, &to, &options, &Unsigned, &mut bytes, &|_| {})?.index;
    let built = began.elapsed();
    let began = Instant::now();
    let resolved = index.resolve(&old.entries, &Limits::DEFAULT)?;
    let mut applier = Applier::new(&index, &resolved, &bytes, (&old.entries, &old));
    for content in &resolved.contents {
        applier.write(content, &mut std::io::sink())?;
    }
    let root = index.root();
    println!(
        "{} bytes: body {} in {} frames ({} raw), catalog {}; {} of {} files with new content; built {:.2?}, applied {:.2?}",
        bytes.len(),
        root.body_bytes,
        root.body_frames,
        root.body_raw_bytes,
        root.catalog_bytes,
        resolved.contents.len(),
        new.entries.len(),
        built,
        began.elapsed(),
    );
    Ok(())
}
