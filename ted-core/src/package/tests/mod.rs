//! Packages made in memory, and what must hold for all of them.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::security::{EpochSecret, SALT_BYTES, Signature};

use super::*;

mod build;
mod cut_rule;
mod damage;
mod deltas;
mod every_byte;
mod hostile;
mod relayed;
mod remake;
mod reuse;
mod round_trip;
mod sealed;

/// Frames of 64 KiB, so that a few hundred KiB have many.
pub(crate) const SMALL_FRAMES: u32 = FRAME_BYTES_MIN;

/// A tree in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<EntryPath, Entry>,
    pub(crate) contents: BTreeMap<EntryPath, Vec<u8>>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let mut tree = Self::default();
        tree.add(entry("", EntryKind::Directory));
        tree
    }

    fn add(&mut self, entry: Entry) -> &mut Self {
        self.entries.insert(entry.path.clone(), entry);
        self
    }

    fn dir(&mut self, path: &str) -> &mut Self {
        self.add(entry(path, EntryKind::Directory))
    }

    pub(crate) fn file(&mut self, path: &str, content: Vec<u8>) -> &mut Self {
        let file = Entry { size: content.len() as u64, ..entry(path, EntryKind::File) };
        self.contents.insert(file.path.clone(), content);
        self.add(file)
    }

    fn link(&mut self, path: &str, kind: EntryKind, target: &str) -> &mut Self {
        self.add(Entry { link: target.into(), ..entry(path, kind) })
    }

    pub(crate) fn build(&self, options: &BuildOptions) -> (Vec<u8>, BuiltPackage) {
        let mut bytes = Vec::new();
        let entries = self.entries(&mut |_| {}).expect("memory");
        let built = build_baseline(self, entries, options, &FixtureSigner, &mut bytes, &|_| {}).expect("builds");
        assert_eq!(built.bytes, bytes.len() as u64);
        (bytes, built)
    }
}

impl Source for Tree {
    fn entries(&self, _skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        Ok(self.entries.values().cloned().collect())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile>, SourceError> {
        let changed = SourceError::Changed { path: entry.path.clone() };
        let content = self.contents.get(&entry.path).ok_or(changed)?;
        // As with a real file, nothing lies beyond the end of one that shrank.
        let rest = content.get(offset as usize..).unwrap_or_default();
        Ok(Box::new(MemoryFile(io::Cursor::new(rest.to_vec()))))
    }
}

struct MemoryFile(io::Cursor<Vec<u8>>);

impl Read for MemoryFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl SourceFile for MemoryFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Puts BLAKE3 of the root where a signature would be, so that a test sees any change to either.
pub(crate) struct FixtureSigner;

impl RootSigner for FixtureSigner {
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(fixture_signature(root_bytes))
    }
}

fn fixture_signature(root_bytes: &[u8]) -> Signature {
    let signature = blake3::hash(root_bytes).as_bytes().to_vec();
    Signature { algorithm: Signature::ECDSA_P256_SHA256, certificate: b"fixture".to_vec(), signature }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: EntryPath::from_bytes(path.as_bytes()).expect("valid"),
        kind,
        mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
        size: 0,
        link: Vec::new(),
        content: Entry::NO_CONTENT,
        extensions: Vec::new(),
    }
}

pub(crate) fn options(frame_bytes: u32) -> BuildOptions {
    let name = "site".parse().expect("valid");
    let mut options = BuildOptions::new(DistributionId::from_bytes([1; 16]), name, KeyHash::from_bytes([2; 32]), 2);
    options.revision = Revision::from_number(7);
    options.created = UnixMillis::from_millis(1_700_000_000_000);
    options.frame_bytes = frame_bytes;
    options
}

/// The same, sealed.
pub(crate) fn sealed(frame_bytes: u32) -> BuildOptions {
    BuildOptions { seal: Some(seal()), ..options(frame_bytes) }
}

fn seal() -> Seal {
    Seal::of(&secret(), [6; SALT_BYTES])
}

fn secret() -> EpochSecret {
    EpochSecret::from_bytes([5; 32])
}

/// Bytes that look like noise and are the same in every run.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new_derive_key("noise").update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Everything a receiver would get out of `bytes`, if it accepts them: the entries and the contents of files.
fn open(bytes: &[u8]) -> Result<(PackageIndex, BTreeMap<EntryPath, Vec<u8>>), PackageError> {
    let bytes = bytes.to_vec();
    let index = read(&bytes)?;
    verify_body(&index, &bytes, 2, &|_| {})?;
    let body = BodyReader::new(index.clone(), &bytes);
    let mut contents = BTreeMap::new();
    for row in index.catalog().iter().filter(|row| row.entry.kind == EntryKind::File) {
        contents.insert(row.entry.path.clone(), content(&body, &index, row)?);
    }
    Ok((index, contents))
}

fn content(body: &BodyReader<'_>, index: &PackageIndex, row: &CatalogRow) -> Result<Vec<u8>, PackageError> {
    let (mut content, mut raw) = (Vec::new(), Vec::new());
    let mut at = row.offset;
    let end = row.offset + row.entry.size;
    while at < end {
        let frame = index.frame_at(at).expect("judged");
        let range = index.raw_range(frame);
        body.read_raw(frame, &mut raw)?;
        let to = end.min(range.end);
        content.extend_from_slice(&raw[(at - range.start) as usize..(to - range.start) as usize]);
        at = to;
    }
    Ok(content)
}

/// Reads an index whose signature must be the fixture's, as must be the secret that a sealed one's key comes from.
fn read(source: &dyn ReadAt) -> Result<PackageIndex, PackageError> {
    read_index(source, &Limits::DEFAULT, |root: &Root, root_bytes: &[u8], signature: &Signature| {
        judge_fixture(root_bytes, signature)?;
        Ok::<_, PackageError>(match root.suite {
            Suite::None => Opening::Unsealed,
            Suite::Aes256Gcm { salt, .. } => Opening::With(secret().content_key(&salt)),
        })
    })
}

/// Reads what can be read without a key.
fn read_blind(source: &dyn ReadAt) -> Result<BlindIndex, PackageError> {
    let index = read_any_index(source, &Limits::DEFAULT, |_: &Root, root_bytes: &[u8], signature: &Signature| {
        judge_fixture(root_bytes, signature)?;
        Ok::<_, PackageError>(Opening::Blind)
    });
    index.map(|index| index.blind().clone())
}

fn judge_fixture(root_bytes: &[u8], signature: &Signature) -> Result<(), PackageError> {
    let good = *signature == fixture_signature(root_bytes);
    if good { Ok(()) } else { Err(PackageError::Structure { what: "the signature is not the fixture's" }) }
}

/// Puts a package together from parts that no build would make: `change` may alter anything before the root is
/// signed, so that only the judging of what is signed stands in the way.
struct Forge {
    body: Vec<(Vec<u8>, u32)>,
    catalog: Vec<Vec<u8>>,
    disclosure: Disclosure,
    root: Root,
    /// Of a sealed package.
    seal: Option<Seal>,
}

impl Forge {
    /// An unsealed and a sealed package of `tree`.
    fn both(tree: &Tree) -> [Self; 2] {
        [options(SMALL_FRAMES), sealed(SMALL_FRAMES)].map(|options| Self::of(tree, &options))
    }

    fn of(tree: &Tree, options: &BuildOptions) -> Self {
        let (bytes, built) = tree.build(options);
        let index = &built.index;
        let stored = |frame: u64| {
            let range = index.frame_range(frame);
            bytes[range.start as usize..range.end as usize].to_vec()
        };
        let body = (0..index.body_frames()).map(|frame| (stored(frame), index.rows()[frame as usize].raw_bytes));
        let (body, disclosure) = (body.collect(), index.disclosure().clone());
        let mut forge = Self { body, catalog: vec![], disclosure, root: built.root, seal: options.seal.clone() };
        forge.rows(index.catalog());
        forge
    }

    fn rows(&mut self, rows: &[CatalogRow]) {
        self.catalog = vec![crate::codec::encode("rows", &rows.to_vec(), 1 << 24).expect("small")];
        self.disclosure.entries = rows.len() as u64;
        self.disclosure.content = content_id(rows.iter().map(|row| &row.entry)).expect("small");
    }

    /// The package, with lengths and hashes that are right for what it holds; `lie` may then change table and root.
    fn seal(self, lie: impl FnOnce(&mut Vec<TableRow>, &mut Root)) -> Vec<u8> {
        let Self { body, mut catalog, disclosure, mut root, seal } = self;
        let sealer = seal.as_ref().map(|seal| seal.key.sealer(&seal.salt));
        let mut encoder = super::frame::FrameEncoder::new(3, sealer.as_ref()).expect("zstd");
        let (mut bytes, mut rows) = (Vec::new(), Vec::new());
        if seal.is_some() {
            bytes = super::container::head();
            super::catalog::disclose(&mut catalog, &disclosure).expect("small");
        } else {
            root.disclosure = Some(disclosure);
        }
        let head_bytes = bytes.len() as u64;
        for (stored, raw_bytes) in body {
            let stored_bytes = stored.len() as u32;
            rows.push(TableRow { stored_bytes, raw_bytes, hash: crate::id::Hash::of(&stored) });
            bytes.extend(stored);
        }
        root.body_frames = rows.len() as u64;
        root.body_bytes = bytes.len() as u64 - head_bytes;
        root.body_raw_bytes = rows.iter().map(|row| u64::from(row.raw_bytes)).sum();
        root.catalog_frames = catalog.len() as u64;
        for raw in catalog {
            let mut stored = Vec::new();
            let row = encoder.encode(rows.len() as u64, &raw, &mut stored).expect("zstd");
            bytes.extend(super::container::skippable_header(super::container::Part::Catalog, row.stored_bytes));
            bytes.extend(stored);
            rows.push(row);
        }
        root.catalog_bytes = bytes.len() as u64 - head_bytes - root.body_bytes;
        root.table = crate::id::Hash::of(&super::table::encode_rows(&rows));
        let body_end = head_bytes + root.body_bytes;
        lie(&mut rows, &mut root);
        finish(bytes, body_end, &rows, &root)
    }
}

fn finish(mut bytes: Vec<u8>, body_end: u64, rows: &[TableRow], root: &Root) -> Vec<u8> {
    use super::container::{Part, Tail, root_block, skippable_header};
    let table = super::table::encode_rows(rows);
    let root_bytes = crate::codec::encode("root", root, 1 << 16).expect("small");
    let block = root_block(&root_bytes, &fixture_signature(&root_bytes)).expect("small");
    let table_bytes = 8 + table.len() as u64;
    let tail = Tail::of(body_end, bytes.len() as u64 - body_end, table_bytes, block.len() as u64);
    bytes.extend(skippable_header(Part::Table, table.len() as u32));
    bytes.extend(table);
    bytes.extend(block);
    bytes.extend(tail.encode());
    bytes
}
