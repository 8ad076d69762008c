//! Building a baseline in one pass.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::codec::{self, CodecError};
use crate::error::Coded;
use crate::id::{DistributionId, Hash, KeyHash, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::name::Label;
use crate::security::{ContentKey, EpochSecret, FrameSealer, SALT_BYTES, Signature};

use super::catalog::{disclose, encode_catalog, judge_catalog_bytes};
use super::container::{Part, SKIPPABLE_HEADER_BYTES, Tail, head, root_block, skippable_header};
use super::content::ContentHasher;
use super::cuts::{FRAME_BYTES, Plan};
use super::digest::{BodyHasher, DigestKind};
use super::entry::{CatalogRow, Entry, EntryPath};
use super::error::{CatalogFault, PackageError};
use super::frame::FrameEncoder;
use super::index::{BlindIndex, Opened, PackageIndex, SignedRoot, head_bytes};
use super::judge::judge_entries;
use super::pipeline::{self, HashedContent, Job, MadeFrame};
use super::reuse::{Previous, Reuse, Reused};
use super::root::{Disclosure, PackageKind, ROOT_CONTEXT, Root, Suite};
use super::source::{Source, SourceError};
use super::table::{TableRow, encode_rows};

/// zstd's level unless the operator asks for another.
pub const LEVEL: i32 = 3;

/// What a package is to be.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Whose revision it is.
    pub distribution: DistributionId,
    /// The Distribution's name.
    pub distribution_name: Label,
    /// The Distributor's CA key.
    pub distributor: KeyHash,
    /// Which revision.
    pub revision: Revision,
    /// Now; the signer's certificate is judged at this time.
    pub created: UnixMillis,
    /// zstd's level.
    pub level: i32,
    /// A digest over the body, if the operator wants one.
    pub digest: DigestKind,
    /// Threads that compress, six at most. The package does not depend on it.
    pub threads: usize,
    /// Raw bytes of a large file's frames: a power of two from 64 KiB to 4 MiB.
    pub frame_bytes: u32,
    /// The key that seals the package, unless it stays readable for everyone.
    pub seal: Option<Seal>,
    /// Set to true by anyone, it ends the build with [`BuildError::Cancelled`].
    pub cancel: Arc<AtomicBool>,
}

impl BuildOptions {
    /// Options with level 3, no digest, no seal, 4 MiB frames, and one thread for each of the given processors.
    #[must_use]
    pub fn new(distribution: DistributionId, distribution_name: Label, distributor: KeyHash, threads: usize) -> Self {
        Self {
            distribution,
            distribution_name,
            distributor,
            revision: Revision::from_number(1),
            created: UnixMillis::from_millis(0),
            level: LEVEL,
            digest: DigestKind::None,
            threads,
            frame_bytes: FRAME_BYTES,
            seal: None,
            cancel: Arc::default(),
        }
    }
}

/// What seals one package.
///
/// No two builds may have the same: a frame's nonce is its number, so a second package under the same key and salt
/// would give away what differs between the two.
#[derive(Debug, Clone)]
pub struct Seal {
    /// The package's content key.
    pub key: ContentKey,
    /// Random bytes of this package alone, from which its key was derived.
    pub salt: [u8; SALT_BYTES],
}

impl Seal {
    /// With the content key that `secret` and `salt` give; the salt must be random, and new.
    #[must_use]
    pub fn of(secret: &EpochSecret, salt: [u8; SALT_BYTES]) -> Self {
        Self { key: secret.content_key(&salt), salt }
    }

    pub(super) fn suite(&self) -> Suite {
        Suite::Aes256Gcm { salt: self.salt, commitment: self.key.commitment() }
    }
}

/// Signs roots.
pub trait RootSigner: Sync {
    /// The signature over `root_bytes` in the context [`ROOT_CONTEXT`].
    ///
    /// # Errors
    /// Whatever keeps it from signing.
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>>;
}

/// How far a build has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildProgress {
    /// Raw bytes of the frames that were written.
    pub raw_bytes: u64,
    /// Raw bytes of the whole body.
    pub raw_bytes_total: u64,
    /// Stored bytes that were written.
    pub stored_bytes: u64,
}

/// A package that was written.
#[derive(Debug, Clone)]
pub struct BuiltPackage {
    /// Its id.
    pub id: PackageId,
    /// What it is.
    pub root: Root,
    /// Length of the whole file.
    pub bytes: u64,
    /// Everything about it but the body, as a reader would find it.
    pub index: PackageIndex,
    /// What was taken from the package before it.
    pub reused: Reused,
}

impl BuiltPackage {
    /// Its entries with their content hashes, and the places of their content.
    #[must_use]
    pub fn catalog(&self) -> &[CatalogRow] {
        self.index.catalog()
    }
}

/// Why a package was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The source cannot be read, or changed meanwhile.
    #[error("the source cannot be built from")]
    Source(#[from] SourceError),
    /// A Subscriber would refuse the package.
    #[error("every Subscriber would refuse the package")]
    Refused(#[source] PackageError),
    /// The options ask for something that the format does not have.
    #[error("the build's options are out of range: {what}")]
    Options {
        /// Which.
        what: &'static str,
    },
    /// zstd gave up.
    #[error("a frame cannot be compressed")]
    Compress(#[source] io::Error),
    /// The package cannot be written.
    #[error("the package cannot be written")]
    Write(#[source] io::Error),
    /// The root cannot be signed.
    #[error("the package cannot be signed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody ended the build.
    #[error("the build was cancelled")]
    Cancelled,
}

impl Coded for BuildError {
    fn code(&self) -> &'static str {
        match self {
            Self::Source(inner) => inner.code(),
            Self::Refused(_) => "TED-1710",
            Self::Options { .. } => "TED-1711",
            Self::Compress(_) => "TED-1712",
            Self::Write(_) => "TED-1713",
            Self::Sign(_) => "TED-1714",
            Self::Cancelled => "TED-1715",
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Source(inner) if inner.is_retryable())
    }
}

impl From<CodecError> for BuildError {
    fn from(error: CodecError) -> Self {
        Self::Refused(error.into())
    }
}

/// Writes a baseline of `entries` (from [`Source::entries`]) to `out`, in one pass.
///
/// The same entries, contents, options (with the same seal) and zstd version give the same body, catalog and table,
/// whatever the threads.
/// `progress` is called after each frame, from the calling thread.
///
/// # Errors
/// [`BuildError`]; what was written to `out` is then to be thrown away.
pub fn build_baseline(
    source: &dyn Source,
    entries: Vec<Entry>,
    options: &BuildOptions,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<BuiltPackage, BuildError> {
    build(Input { source, entries, previous: None }, options, signer, out, progress)
}

/// The same, byte for byte, and takes from `previous` what did not change: frames that hold exactly the same are copied,
/// and only files that are not [unchanged](Previous::unchanged) are read. Every frame of the previous package that is
/// used is checked against its table.
///
/// That holds for a previous package that the same version of zstd has compressed at the same level; one of another level
/// or frame length is not used.
///
/// # Errors
/// As [`build_baseline`]. [`SourceError::Changed`] also when a frame of an unchanged large file is damaged in the previous
/// package, and the source does not give it again: then the whole is to be built without the previous package.
pub fn build_next_baseline(
    (source, previous): (&dyn Source, &Previous<'_>),
    entries: Vec<Entry>,
    options: &BuildOptions,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<BuiltPackage, BuildError> {
    build(Input { source, entries, previous: Some(previous) }, options, signer, out, progress)
}

/// What a package is built from.
struct Input<'a> {
    source: &'a dyn Source,
    entries: Vec<Entry>,
    previous: Option<&'a Previous<'a>>,
}

fn build(
    input: Input<'_>,
    options: &BuildOptions,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
    progress: &(dyn Fn(BuildProgress) + Sync),
) -> Result<BuiltPackage, BuildError> {
    let Input { source, entries, previous } = input;
    judge_options(options)?;
    judge_entries(&entries, &Limits::DEFAULT).map_err(BuildError::Refused)?;
    let plan = make_plan(&entries, options.frame_bytes)?;
    let reuse = previous.and_then(|previous| Reuse::new(previous, &entries, &plan, options));
    let sealer = options.seal.as_ref().map(|seal| seal.key.sealer(&seal.salt));
    if sealer.is_some() {
        out.write_all(&head()).map_err(BuildError::Write)?;
    }
    let mut writer = Writer::new(&entries, &plan, options, out);
    let job = Job {
        source,
        entries: &entries,
        plan: &plan,
        level: options.level,
        sealer: sealer.as_ref(),
        reuse: reuse.as_ref(),
        threads: options.threads,
        cancel: &options.cancel,
    };
    pipeline::run(&job, &mut |planned, frame| {
        let raw_bytes = planned.offset + u64::from(planned.raw_bytes);
        writer.write_frame(frame)?;
        let stored_bytes = writer.body_bytes;
        progress(BuildProgress { raw_bytes, raw_bytes_total: plan.raw_bytes, stored_bytes });
        Ok(())
    })?;
    let body = writer.finish_body();
    let reused = reuse.map(Reuse::finish).unwrap_or_default();
    finish_package(Planned { body, entries, plan, sealer, reused }, options, signer, out)
}

/// Whether the format has what the options ask for.
pub(super) fn judge_options(options: &BuildOptions) -> Result<(), BuildError> {
    let frame_bytes = options.frame_bytes;
    if !frame_bytes.is_power_of_two() || !(super::cuts::FRAME_BYTES_MIN..=FRAME_BYTES).contains(&frame_bytes) {
        return Err(BuildError::Options { what: "the frame length is a power of two from 64 KiB to 4 MiB" });
    }
    if !(1..=19).contains(&options.level) {
        return Err(BuildError::Options { what: "the compression level is 1 to 19" });
    }
    Ok(())
}

/// The plan, unless it has more frames than a table may have rows; half of these are plenty for the catalog.
fn make_plan(entries: &[Entry], frame_bytes: u32) -> Result<Plan, BuildError> {
    let too_many = |path: &EntryPath| {
        BuildError::Refused(PackageError::Catalog { path: path.clone(), reason: CatalogFault::TooMany })
    };
    let frames_max = Limits::DEFAULT.table_rows_max / 2;
    let mut frames = 0_u64;
    for entry in entries {
        frames = frames.saturating_add(entry.size / u64::from(frame_bytes));
        if frames > frames_max {
            return Err(too_many(&entry.path));
        }
    }
    let plan = Plan::of(entries, frame_bytes);
    if plan.frames.len() as u64 > frames_max { Err(too_many(&EntryPath::root())) } else { Ok(plan) }
}

/// Takes frames in order: writes them, keeps their rows, and puts the hashes of files together.
struct Writer<'a> {
    entries: &'a [Entry],
    frame_bytes: u32,
    out: &'a mut dyn Write,
    digest: BodyHasher,
    rows: Vec<TableRow>,
    contents: Vec<Hash>,
    large: HashMap<usize, ContentHasher>,
    body_bytes: u64,
}

/// What is known once the body is written.
struct WrittenBody {
    digest: BodyHasher,
    rows: Vec<TableRow>,
    contents: Vec<Hash>,
    bytes: u64,
}

impl<'a> Writer<'a> {
    fn new(entries: &'a [Entry], plan: &Plan, options: &BuildOptions, out: &'a mut dyn Write) -> Self {
        Self {
            entries,
            frame_bytes: options.frame_bytes,
            out,
            digest: BodyHasher::new(options.digest),
            rows: Vec::with_capacity(plan.frames.len() + 1),
            contents: vec![Entry::NO_CONTENT; entries.len()],
            large: HashMap::new(),
            body_bytes: 0,
        }
    }

    fn write_frame(&mut self, frame: MadeFrame) -> Result<(), BuildError> {
        self.out.write_all(&frame.stored).map_err(BuildError::Write)?;
        self.digest.update(&frame.stored);
        self.body_bytes += u64::from(frame.row.stored_bytes);
        self.rows.push(frame.row);
        for (entry, hashed) in frame.hashes {
            match hashed {
                HashedContent::Whole(hash) => self.contents[entry] = hash,
                HashedContent::Piece { number, hash } => {
                    let new = || ContentHasher::new(self.entries[entry].size, u64::from(self.frame_bytes));
                    let hasher = self.large.entry(entry).or_insert_with(new);
                    hasher.add(number, hash);
                    if let Some(hash) = hasher.finish() {
                        self.contents[entry] = hash;
                        self.large.remove(&entry);
                    }
                }
            }
        }
        Ok(())
    }

    fn finish_body(self) -> WrittenBody {
        WrittenBody { digest: self.digest, rows: self.rows, contents: self.contents, bytes: self.body_bytes }
    }
}

/// What the parts behind the body are made of.
struct Planned {
    body: WrittenBody,
    entries: Vec<Entry>,
    plan: Plan,
    sealer: Option<FrameSealer>,
    reused: Reused,
}

/// Catalog, table, root and tail behind the body.
fn finish_package(
    planned: Planned,
    options: &BuildOptions,
    signer: &dyn RootSigner,
    out: &mut dyn Write,
) -> Result<BuiltPackage, BuildError> {
    let Planned { body, entries, plan, sealer, reused } = planned;
    let WrittenBody { digest, mut rows, contents, bytes: body_bytes } = body;
    let count = entries.len() as u64;
    let catalog: Vec<CatalogRow> = entries
        .into_iter()
        .zip(contents)
        .zip(plan.offsets)
        .map(|((entry, content), offset)| CatalogRow { entry: Entry { content, ..entry }, offset })
        .collect();
    let body_frames = rows.len() as u64;
    let (mut catalog_frames, content) = encode_catalog(&catalog).map_err(BuildError::Refused)?;
    let catalog_raw_bytes = catalog_frames.iter().map(|raw| raw.len() as u64).sum();
    judge_catalog_bytes(catalog_raw_bytes, &Limits::DEFAULT).map_err(BuildError::Refused)?;
    let disclosure = Disclosure { distribution_name: options.distribution_name.clone(), content, entries: count };
    if sealer.is_some() {
        disclose(&mut catalog_frames, &disclosure).map_err(BuildError::Refused)?;
    }
    let encoder = FrameEncoder::new(options.level, sealer.as_ref()).map_err(BuildError::Compress)?;
    let catalog_bytes = write_catalog(&catalog_frames, encoder, &mut rows, out)?;
    let table = encode_rows(&rows);
    let root = Root {
        context: ROOT_CONTEXT.to_owned(),
        distribution: options.distribution,
        distributor: options.distributor,
        revision: options.revision,
        created: options.created,
        kind: PackageKind::Baseline,
        suite: options.seal.as_ref().map_or(Suite::None, Seal::suite),
        frame_bytes: options.frame_bytes,
        level: options.level,
        body_frames,
        catalog_frames: catalog_frames.len() as u64,
        body_bytes,
        body_raw_bytes: plan.raw_bytes,
        catalog_bytes,
        table: Hash::of(&table),
        digest: digest.finish(),
        disclosure: options.seal.is_none().then(|| disclosure.clone()),
    };
    let (signed, tail) = write_end(root.clone(), &table, signer, out)?;
    let index = PackageIndex::new(BlindIndex::new(signed, rows, tail), Opened { disclosure, catalog, sealer });
    Ok(BuiltPackage { id: index.id(), root, bytes: index.bytes(), index, reused })
}

/// Table, signed root and tail: what follows the catalog of every package.
pub(super) fn write_end(
    root: Root,
    table: &[u8],
    signer: &dyn RootSigner,
    out: &mut dyn Write,
) -> Result<(SignedRoot, Tail), BuildError> {
    let root_bytes = codec::encode("root", &root, Limits::DEFAULT.root_bytes_max)?;
    let signature = signer.sign_root(&root_bytes).map_err(BuildError::Sign)?;
    let block = root_block(&root_bytes, &signature).map_err(BuildError::Refused)?;
    let table_bytes = SKIPPABLE_HEADER_BYTES + table.len() as u64;
    let body_end = head_bytes(&root) + root.body_bytes;
    let tail = Tail::of(body_end, root.catalog_bytes, table_bytes, block.len() as u64);
    let table_header = skippable_header(Part::Table, table.len() as u32);
    for part in [table_header.as_slice(), table, &block, &tail.encode()] {
        out.write_all(part).map_err(BuildError::Write)?;
    }
    out.flush().map_err(BuildError::Write)?;
    Ok((SignedRoot { root, root_bytes, signature }, tail))
}

/// The catalog's frames, each in a skippable one; their rows go behind the body's. Answers the bytes that they take.
pub(super) fn write_catalog(
    frames: &[Vec<u8>],
    mut encoder: FrameEncoder<'_>,
    rows: &mut Vec<TableRow>,
    out: &mut dyn Write,
) -> Result<u64, BuildError> {
    let mut stored = Vec::new();
    let mut bytes = 0;
    for raw in frames {
        let row = encoder.encode(rows.len() as u64, raw, &mut stored).map_err(BuildError::Compress)?;
        out.write_all(&skippable_header(Part::Catalog, row.stored_bytes)).map_err(BuildError::Write)?;
        out.write_all(&stored).map_err(BuildError::Write)?;
        bytes += SKIPPABLE_HEADER_BYTES + u64::from(row.stored_bytes);
        rows.push(row);
    }
    Ok(bytes)
}
