//! Tar files made byte by byte, for tests: right ones, and every kind of wrong one.

use super::header::{BLOCK_BYTES, Block};

/// A header with every field as it is told to be.
#[derive(Debug, Clone)]
pub(in crate::distributor::source) struct Raw {
    pub(in crate::distributor::source) name: Vec<u8>,
    pub(in crate::distributor::source) kind: u8,
    pub(in crate::distributor::source) mode: u32,
    pub(in crate::distributor::source) owner: (u32, u32),
    pub(in crate::distributor::source) size: u64,
    /// Stands in the place of `size`.
    pub(in crate::distributor::source) size_field: Option<[u8; 12]>,
    pub(in crate::distributor::source) mtime: i64,
    pub(in crate::distributor::source) link: Vec<u8>,
    pub(in crate::distributor::source) magic: [u8; 8],
    pub(in crate::distributor::source) prefix: Vec<u8>,
}

pub(in crate::distributor::source) fn raw(name: impl AsRef<[u8]>, kind: u8) -> Raw {
    let (name, link, prefix) = (name.as_ref().to_vec(), Vec::new(), Vec::new());
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    let magic = *b"ustar\x0000";
    Raw { name, kind, mode, owner: (0, 0), size: 0, size_field: None, mtime: 1_600_000_000, link, magic, prefix }
}

impl Raw {
    pub(in crate::distributor::source) fn link(mut self, link: impl AsRef<[u8]>) -> Self {
        self.link = link.as_ref().to_vec();
        self
    }

    pub(in crate::distributor::source) fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    fn block(&self) -> Block {
        let mut block = [0; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.owner.0).as_bytes());
        put(116, format!("{:07o}", self.owner.1).as_bytes());
        put(
            124,
            &self.size_field.unwrap_or_else(|| {
                let mut field = [0; 12];
                field[..11].copy_from_slice(format!("{:011o}", self.size).as_bytes());
                field
            }),
        );
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link);
        put(257, &self.magic);
        put(345, &self.prefix);
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }
}

/// A tar file that grows.
#[derive(Debug, Clone, Default)]
pub(in crate::distributor::source) struct Tar(Vec<u8>);

impl Tar {
    /// A header, and whatever content, filled up to a block.
    pub(in crate::distributor::source) fn raw(mut self, header: &Raw, content: &[u8]) -> Self {
        self.0.extend_from_slice(&header.block());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK_BYTES), 0);
        self
    }

    pub(in crate::distributor::source) fn dir(self, name: &str) -> Self {
        self.raw(&raw(name, b'5'), b"")
    }

    pub(in crate::distributor::source) fn file(self, name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        self.raw(&raw(name, b'0').size(content.len() as u64), content)
    }

    pub(in crate::distributor::source) fn link(self, name: &str, kind: u8, target: &str) -> Self {
        self.raw(&raw(name, kind).link(target), b"")
    }

    /// An extended header with these records, of the entry that follows or of all.
    pub(in crate::distributor::source) fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.raw(&raw("PaxHeaders/x", kind).size(data.len() as u64), &data)
    }

    /// GNU's long name (`L`) or long link (`K`) of the entry that follows.
    pub(in crate::distributor::source) fn long(self, kind: u8, text: &str) -> Self {
        let data = [text.as_bytes(), b"\0"].concat();
        let header = Raw { magic: *b"ustar  \0", ..raw("././@LongLink", kind).size(data.len() as u64) };
        self.raw(&header, &data)
    }

    /// Its bytes with the end marker.
    pub(in crate::distributor::source) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
        self.0
    }

    /// Its bytes so far.
    pub(in crate::distributor::source) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
