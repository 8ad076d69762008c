//! What lies around the frames: skippable frames, root block and tail.

use crate::codec;
use crate::limits::Limits;
use crate::security::Signature;

use super::error::PackageError;

/// The format's major version: a reader refuses others.
pub const FORMAT_MAJOR: u16 = 1;
/// The format's minor version: a reader ignores it.
pub const FORMAT_MINOR: u16 = 0;

/// Bytes of a skippable frame's header: magic number and length.
pub(super) const SKIPPABLE_HEADER_BYTES: u64 = 8;
/// Bytes of the head that deltas and sealed packages begin with.
pub(super) const HEAD_BYTES: u64 = SKIPPABLE_HEADER_BYTES + HEAD_PAYLOAD_BYTES as u64;
const HEAD_PAYLOAD_BYTES: usize = 4 + 2 + 2;
/// Bytes of the whole tail.
pub(super) const TAIL_BYTES: u64 = SKIPPABLE_HEADER_BYTES + TAIL_PAYLOAD_BYTES as u64;
const TAIL_PAYLOAD_BYTES: usize = HEAD_PAYLOAD_BYTES + 7 * 8;
/// What head and tail begin with.
const TAG: &[u8; 4] = b"TED\0";

/// Which part a skippable frame holds: its magic number tells (RFC 8878, section 3.1.2, has sixteen of them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Part {
    Head = 0x184D_2A50,
    Catalog = 0x184D_2A51,
    Table = 0x184D_2A52,
    Root = 0x184D_2A53,
    Tail = 0x184D_2A54,
}

/// The header of a skippable frame with `payload_bytes` of content.
pub(super) fn skippable_header(part: Part, payload_bytes: u32) -> [u8; 8] {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&(part as u32).to_le_bytes());
    header[4..].copy_from_slice(&payload_bytes.to_le_bytes());
    header
}

/// The content of the skippable frame that `bytes` are, all of them.
pub(super) fn skippable_payload(part: Part, bytes: &[u8]) -> Result<&[u8], PackageError> {
    let wrong = PackageError::Structure { what: "a part does not begin with its header" };
    let (header, payload) = bytes.split_at_checked(SKIPPABLE_HEADER_BYTES as usize).ok_or(wrong)?;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if header != skippable_header(part, length) || length as usize != payload.len() {
        return Err(PackageError::Structure { what: "a part does not begin with its header" });
    }
    Ok(payload)
}

/// The head: tag and format version, so that a file which is no tar archive says what it is at its first byte.
pub(super) fn head() -> Vec<u8> {
    let mut bytes = skippable_header(Part::Head, HEAD_PAYLOAD_BYTES as u32).to_vec();
    bytes.extend_from_slice(&tag_and_version(FORMAT_MINOR));
    bytes
}

/// Whether `bytes` are the head that belongs to `tail`: they name the same version of the format.
pub(super) fn judge_head(bytes: &[u8], tail: &Tail) -> Result<(), PackageError> {
    if skippable_payload(Part::Head, bytes)? != tag_and_version(tail.minor) {
        return Err(PackageError::Structure { what: "head and tail disagree" });
    }
    Ok(())
}

fn tag_and_version(minor: u16) -> [u8; HEAD_PAYLOAD_BYTES] {
    let mut bytes = [0; HEAD_PAYLOAD_BYTES];
    bytes[..4].copy_from_slice(TAG);
    bytes[4..6].copy_from_slice(&FORMAT_MAJOR.to_le_bytes());
    bytes[6..].copy_from_slice(&minor.to_le_bytes());
    bytes
}

/// The root's skippable frame: length of the root bytes, these, and the encoded signature.
pub(super) fn root_block(root: &[u8], signature: &Signature) -> Result<Vec<u8>, PackageError> {
    let signature = codec::encode("signature", signature, Limits::DEFAULT.signature_bytes_max)?;
    // Both are within `Limits`, far below 4 GiB.
    let payload = 4 + root.len() + signature.len();
    let mut block = Vec::with_capacity(8 + payload);
    block.extend_from_slice(&skippable_header(Part::Root, payload as u32));
    block.extend_from_slice(&(root.len() as u32).to_le_bytes());
    block.extend_from_slice(root);
    block.extend_from_slice(&signature);
    Ok(block)
}

/// Root bytes and signature out of a root block.
pub(super) fn split_root_block(block: &[u8], limits: &Limits) -> Result<(Vec<u8>, Signature), PackageError> {
    let short = || PackageError::Structure { what: "the root block ends early" };
    let payload = skippable_payload(Part::Root, block)?;
    let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length);
    if u64::from(length) > limits.root_bytes_max {
        return Err(PackageError::Structure { what: "the root is longer than allowed" });
    }
    let (root, signature) = rest.split_at_checked(length as usize).ok_or_else(short)?;
    let signature = codec::decode("signature", signature, limits.signature_bytes_max)?;
    Ok((root.to_vec(), signature))
}

/// Where the parts lie: hints, which the root confirms or refutes. All offsets count from the package's first byte,
/// and the lengths include the headers of the skippable frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) minor: u16,
    pub(super) catalog_offset: u64,
    pub(super) catalog_bytes: u64,
    pub(super) table_offset: u64,
    pub(super) table_bytes: u64,
    pub(super) root_offset: u64,
    pub(super) root_bytes: u64,
    pub(super) package_bytes: u64,
}

impl Tail {
    /// The tail of a package whose parts follow each other without a gap.
    pub(super) fn of(body_end: u64, catalog_bytes: u64, table_bytes: u64, root_bytes: u64) -> Self {
        let table_offset = body_end + catalog_bytes;
        let root_offset = table_offset + table_bytes;
        Self {
            minor: FORMAT_MINOR,
            catalog_offset: body_end,
            catalog_bytes,
            table_offset,
            table_bytes,
            root_offset,
            root_bytes,
            package_bytes: root_offset + root_bytes + TAIL_BYTES,
        }
    }

    /// Where a read of at most `bytes_max` bytes that ends before the tail begins, so that it holds as many whole parts as
    /// it can, and nothing of the body.
    pub(super) fn behind_body(&self, bytes_max: u64) -> u64 {
        let end = self.root_offset + self.root_bytes;
        let fits = [self.catalog_offset, self.table_offset].into_iter().find(|start| end - start <= bytes_max);
        fits.unwrap_or(self.root_offset)
    }

    fn numbers(&self) -> [u64; 7] {
        [
            self.catalog_offset,
            self.catalog_bytes,
            self.table_offset,
            self.table_bytes,
            self.root_offset,
            self.root_bytes,
            self.package_bytes,
        ]
    }

    /// The whole skippable frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TAIL_BYTES as usize);
        bytes.extend_from_slice(&skippable_header(Part::Tail, TAIL_PAYLOAD_BYTES as u32));
        bytes.extend_from_slice(&tag_and_version(self.minor));
        for number in self.numbers() {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The tail that ends a package of `package_bytes`, whose parts must lie end to end in it.
    pub(super) fn decode(bytes: &[u8], package_bytes: u64, limits: &Limits) -> Result<Self, PackageError> {
        let payload = skippable_payload(Part::Tail, bytes).map_err(|_| PackageError::NotAPackage)?;
        let rest = payload.strip_prefix(TAG).ok_or(PackageError::NotAPackage)?;
        let (versions, rest) = rest.split_first_chunk::<4>().ok_or(PackageError::NotAPackage)?;
        let major = u16::from_le_bytes([versions[0], versions[1]]);
        if major != FORMAT_MAJOR {
            return Err(PackageError::Version { major, known: FORMAT_MAJOR });
        }
        let minor = u16::from_le_bytes([versions[2], versions[3]]);
        let mut numbers = [0; 7];
        for (number, bytes) in numbers.iter_mut().zip(rest.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        let [catalog_offset, catalog_bytes, table_offset, table_bytes, root_offset, root_bytes, total] = numbers;
        let tail = Self {
            minor,
            catalog_offset,
            catalog_bytes,
            table_offset,
            table_bytes,
            root_offset,
            root_bytes,
            package_bytes: total,
        };
        tail.judge(package_bytes, limits)?;
        Ok(tail)
    }

    fn judge(&self, package_bytes: u64, limits: &Limits) -> Result<(), PackageError> {
        let fits = self.package_bytes == package_bytes
            && self.catalog_offset.checked_add(self.catalog_bytes) == Some(self.table_offset)
            && self.table_offset.checked_add(self.table_bytes) == Some(self.root_offset)
            && self.root_offset.checked_add(self.root_bytes).and_then(|end| end.checked_add(TAIL_BYTES))
                == Some(package_bytes);
        if !fits {
            return Err(PackageError::Structure { what: "the tail's offsets do not fit together" });
        }
        let root_block_max = SKIPPABLE_HEADER_BYTES + 4 + limits.root_bytes_max + limits.signature_bytes_max;
        if self.root_bytes > root_block_max {
            return Err(PackageError::Structure { what: "the root block is longer than allowed" });
        }
        Ok(())
    }
}
