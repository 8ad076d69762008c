//! Writes packages from `docs/format.md` alone, with whatever lies are wanted in them, and signs them as their
//! Distributor does: only what readers judge stands in their way.

use std::io;

use ted_core::codec;
use ted_core::id::{ContentId, DistributionId, Hash, Revision, UnixMillis};
use ted_core::package::{BodyDigest, Disclosure, PackageKind, ROOT_CONTEXT, Root, RootSigner, Suite};
use ted_core::security::{Authority, AwsLc, Identity, Signature, Usage, sign};

pub(crate) const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
pub(crate) const DISTRIBUTION: DistributionId = DistributionId::from_bytes([9; 16]);

pub(crate) const FOLDER: u32 = 0;
pub(crate) const FILE: u32 = 1;
pub(crate) const SYMLINK: u32 = 2;
pub(crate) const HARD_LINK: u32 = 3;

/// A Distributor whose certificate is trusted, and who means harm.
pub(crate) struct Distributor {
    pub(crate) authority: Authority,
    signer: Identity,
}

impl Distributor {
    pub(crate) fn new() -> Self {
        let name = "dist.example.com".parse().expect("valid");
        let authority = Authority::create(&AwsLc, &name, NOW).expect("made");
        let signer = authority.issue_identity(&AwsLc, Usage::Sign, &name, NOW).expect("issued");
        Self { authority, signer }
    }
}

impl RootSigner for Distributor {
    fn sign_root(&self, root: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(sign(&AwsLc, &self.signer, ROOT_CONTEXT, root)?)
    }
}

/// A row of a catalog, with fields that can say anything.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: u32,
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) content: [u8; 32],
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
    pub(crate) offset: u64,
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        text(&mut out, &self.path);
        for number in [self.kind, self.mode, 0, 0] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.mtime.0.to_le_bytes());
        out.extend(self.mtime.1.to_le_bytes());
        out.extend(self.size.to_le_bytes());
        text(&mut out, &self.link);
        out.extend(self.content);
        out.extend((self.extensions.len() as u64).to_le_bytes());
        for (kind, bytes) in &self.extensions {
            out.extend(kind.to_le_bytes());
            text(&mut out, bytes);
        }
        out
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// One frame of a body.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) stored: Vec<u8>,
    pub(crate) raw_bytes: u32,
}

impl Frame {
    pub(crate) fn of(raw: &[u8]) -> Self {
        Self { stored: compress(raw), raw_bytes: raw.len() as u32 }
    }
}

pub(crate) fn compress(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 3).expect("compresses")
}

/// A package in parts. What is not changed is as the format demands.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) revision: u64,
    pub(crate) kind: PackageKind,
    pub(crate) rows: Vec<Row>,
    pub(crate) frames: Vec<Frame>,
    /// Raw catalog frames instead of the rows'.
    pub(crate) catalog: Option<Vec<Vec<u8>>>,
    /// Content id and number of entries instead of the rows'.
    pub(crate) disclosed: Option<(ContentId, u64)>,
    pub(crate) lie_in_root: fn(&mut Root),
    /// Rows of the table are (stored length, raw length, hash).
    pub(crate) lie_in_table: fn(&mut Vec<(u32, u32, Hash)>),
}

impl Forge {
    /// A baseline of the entries `(path, kind, content or link target)` in the order given, the root before them.
    pub(crate) fn of(entries: &[(&[u8], u32, &[u8])]) -> Self {
        let mut rows = vec![row(b"", FOLDER, b"")];
        rows.extend(entries.iter().map(|&(path, kind, data)| row(path, kind, data)));
        let contents: Vec<&[u8]> = std::iter::once(&b""[..]).chain(entries.iter().map(|entry| entry.2)).collect();
        let mut stream = Vec::new();
        for (row, content) in rows.iter_mut().zip(contents) {
            stream.extend(header(row));
            if row.kind == FILE && !content.is_empty() {
                row.offset = stream.len() as u64;
                stream.extend(content);
                stream.resize(stream.len().next_multiple_of(512), 0);
            }
        }
        Self {
            revision: 7,
            kind: PackageKind::Baseline,
            rows,
            frames: vec![Frame::of(&stream), Frame::of(&[0; 1024])],
            catalog: None,
            disclosed: None,
            lie_in_root: |_| {},
            lie_in_table: |_| {},
        }
    }

    /// The body's first frame, to be changed as it is before compression.
    pub(crate) fn change_stream(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut stream = zstd::bulk::decompress(&self.frames[0].stored, 1 << 24).expect("ours");
        change(&mut stream);
        self.frames[0] = Frame::of(&stream);
    }

    pub(crate) fn row(&mut self, path: &[u8]) -> &mut Row {
        self.rows.iter_mut().find(|row| row.path == path).expect("there")
    }

    /// The package, signed.
    pub(crate) fn sign(&self, distributor: &Distributor) -> Vec<u8> {
        let encoded: Vec<Vec<u8>> = self.rows.iter().map(Row::encode).collect();
        let content = ContentId::from_bytes(*blake3::hash(&encoded.concat()).as_bytes());
        let (content, entries) = self.disclosed.unwrap_or((content, self.rows.len() as u64));
        let catalog = self.catalog.clone().unwrap_or_else(|| vec![self.raw_catalog(&encoded)]);
        let mut bytes = Vec::new();
        if self.kind != PackageKind::Baseline {
            skippable(&mut bytes, 0, b"TED\0\x01\0\0\0");
        }
        let head_bytes = bytes.len() as u64;
        let mut table = Vec::new();
        for frame in &self.frames {
            table.push((frame.stored.len() as u32, frame.raw_bytes, Hash::of(&frame.stored)));
            bytes.extend(&frame.stored);
        }
        let body_bytes = bytes.len() as u64 - head_bytes;
        for raw in &catalog {
            let stored = compress(raw);
            table.push((stored.len() as u32, raw.len() as u32, Hash::of(&stored)));
            skippable(&mut bytes, 1, &stored);
        }
        let catalog_bytes = bytes.len() as u64 - body_bytes - head_bytes;
        (self.lie_in_table)(&mut table);
        let body_raw_bytes = table[..self.frames.len()].iter().map(|row| u64::from(row.1)).sum();
        let table: Vec<u8> = table.iter().flat_map(table_row).collect();
        let name = "site".parse().expect("valid");
        let mut root = Root {
            context: ROOT_CONTEXT.to_owned(),
            distribution: DISTRIBUTION,
            distributor: distributor.authority.root().key_hash(),
            revision: Revision::from_number(self.revision),
            created: NOW,
            kind: self.kind,
            suite: Suite::None,
            frame_bytes: 1 << 22,
            level: 3,
            body_frames: self.frames.len() as u64,
            catalog_frames: catalog.len() as u64,
            body_bytes,
            body_raw_bytes,
            catalog_bytes,
            table: Hash::of(&table),
            digest: BodyDigest::None,
            disclosure: Some(Disclosure { distribution_name: name, content, entries }),
        };
        (self.lie_in_root)(&mut root);
        finish(bytes, (head_bytes + body_bytes, catalog_bytes), &table, &root, distributor)
    }

    /// The raw catalog frame of the rows.
    pub(crate) fn raw_rows(&self) -> Vec<u8> {
        self.raw_catalog(&self.rows.iter().map(Row::encode).collect::<Vec<_>>())
    }

    fn raw_catalog(&self, encoded: &[Vec<u8>]) -> Vec<u8> {
        let mut raw = (encoded.len() as u64).to_le_bytes().to_vec();
        for (row, encoded) in self.rows.iter().zip(encoded) {
            raw.extend(encoded);
            raw.extend(row.offset.to_le_bytes());
        }
        raw
    }
}

fn table_row((stored, raw, hash): &(u32, u32, Hash)) -> Vec<u8> {
    [&stored.to_le_bytes()[..], &raw.to_le_bytes(), hash.as_bytes()].concat()
}

fn finish(
    mut bytes: Vec<u8>,
    (body_end, catalog_bytes): (u64, u64),
    table: &[u8],
    root: &Root,
    distributor: &Distributor,
) -> Vec<u8> {
    let root_bytes = codec::encode("root", root, 1 << 16).expect("small");
    let signature = distributor.sign_root(&root_bytes).expect("signed");
    let signature = codec::encode("signature", &signature, 1 << 14).expect("small");
    let table_offset = bytes.len() as u64;
    skippable(&mut bytes, 2, table);
    let root_offset = bytes.len() as u64;
    skippable(&mut bytes, 3, &[&(root_bytes.len() as u32).to_le_bytes()[..], &root_bytes, &signature].concat());
    let end = bytes.len() as u64;
    let numbers =
        [body_end, catalog_bytes, table_offset, root_offset - table_offset, root_offset, end - root_offset, end + 72];
    let mut tail = b"TED\0\x01\0\0\0".to_vec();
    tail.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    skippable(&mut bytes, 4, &tail);
    bytes
}

fn skippable(out: &mut Vec<u8>, part: u32, content: &[u8]) {
    out.extend((0x184D_2A50 + part).to_le_bytes());
    out.extend((content.len() as u32).to_le_bytes());
    out.extend(content);
}

/// A row as an honest builder makes it.
pub(crate) fn row(path: &[u8], kind: u32, data: &[u8]) -> Row {
    let file = kind == FILE;
    Row {
        path: path.to_vec(),
        kind,
        mode: if kind == FOLDER { 0o755 } else { 0o644 },
        mtime: (1_700_000_000, 0),
        size: if file { data.len() as u64 } else { 0 },
        link: if file { Vec::new() } else { data.to_vec() },
        content: if file { *blake3::hash(data).as_bytes() } else { [0; 32] },
        extensions: Vec::new(),
        offset: 0,
    }
}

/// The blocks before an entry's content: section 6 of the format, for what these tests have.
pub(crate) fn header(row: &Row) -> Vec<u8> {
    let name = match (row.path.as_slice(), row.kind) {
        (b"", _) => b"./".to_vec(),
        (path, FOLDER) => [path, b"/"].concat(),
        (path, _) => path.to_vec(),
    };
    let kinds = [tar::EntryType::Directory, tar::EntryType::Regular, tar::EntryType::Symlink, tar::EntryType::Link];
    let kind = kinds.get(row.kind as usize).copied().unwrap_or(tar::EntryType::Char);
    let (mut records, fields) = (Vec::new(), name_fields(&name));
    if fields.is_none() {
        records.extend(record("path", &name));
    }
    if row.mtime.1 != 0 {
        records.extend(record("mtime", format!("{}.{:09}", row.mtime.0, row.mtime.1).as_bytes()));
    }
    let mut out = if records.is_empty() { vec![] } else { pax(&records) };
    let seconds = if row.mtime.1 == 0 { row.mtime.0.unsigned_abs() } else { 0 };
    let size = row.size.min(0o777_7777_7777);
    out.extend(ustar((kind, row.mode), fields.unwrap_or_default(), &row.link, (size, seconds)));
    out
}

/// What goes into `prefix` and `name`; `None` where there is no room.
fn name_fields(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let cut = (name.len() - 101..name.len() - 1).find(|&at| name[at] == b'/').filter(|&at| at <= 155)?;
    Some((&name[..cut], &name[cut + 1..]))
}

/// A pax header with these records.
pub(crate) fn pax(records: &[u8]) -> Vec<u8> {
    let kind = (tar::EntryType::XHeader, 0o644);
    let mut out = ustar(kind, (b"", b"././@PaxHeader"), b"", (records.len() as u64, 0));
    out.extend(records);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// One record of a pax header.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let length = rest + digits(rest + digits(rest));
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub(crate) fn ustar(
    (kind, mode): (tar::EntryType, u32),
    (prefix, name): (&[u8], &[u8]),
    link: &[u8],
    (size, seconds): (u64, u64),
) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    if let Some(ustar) = header.as_ustar_mut() {
        for (field, bytes) in [(&mut ustar.name[..], name), (&mut ustar.prefix, prefix), (&mut ustar.linkname, link)] {
            let bytes = &bytes[..bytes.len().min(field.len())];
            field[..bytes.len()].copy_from_slice(bytes);
        }
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(seconds);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A zstd stream of `blocks` blocks that each become 128 KiB of zeros, without a content size in its header.
pub(crate) fn endless(blocks: usize) -> Vec<u8> {
    let mut out = io::Cursor::new(Vec::new());
    let mut encoder = zstd::stream::write::Encoder::new(&mut out, 19).expect("zstd");
    for _ in 0..blocks {
        io::Write::write_all(&mut encoder, &[0; 128 << 10]).expect("memory");
    }
    encoder.finish().expect("memory");
    out.into_inner()
}
