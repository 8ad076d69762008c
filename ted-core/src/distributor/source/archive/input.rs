//! The bytes of a tar file: as they lie there, or unpacked while they are read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::super::spool::SpoolFile;
use super::error::ArchiveError;
use super::header::{BLOCK_BYTES, Block};

/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 1 << 18;

/// How the bytes of a file are to be understood, by their first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
    /// Something that is not read.
    Other(&'static str),
}

impl Packing {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let mut start = [0; 6];
        let mut filled = 0;
        while filled < start.len() {
            match file.read_at(&mut start[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come before the first one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [b'P', b'K', 3, 4, ..] => Self::Other("zip"),
            _ => Self::None,
        })
    }
}

/// What a tar file is read from, block by block.
pub(super) trait Input {
    /// The next block; `None` at the end.
    fn block(&mut self) -> Result<Option<Block>, ArchiveError>;

    /// Passes so many bytes of content and what fills their last block, and keeps them where they can be read again:
    /// at the place that is returned, in the tar file itself or in the spool.
    fn content(&mut self, bytes: u64) -> Result<u64, ArchiveError>;

    /// The error for an archive that is none at this place.
    fn damaged(&self, reason: &'static str) -> ArchiveError;

    /// How the archive is spoken of.
    fn place(&self) -> &str;
}

/// What fills the last block of so many bytes.
fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64) - bytes
}

/// A tar file that is not compressed: content is read where it lies, and passed without being read.
pub(super) struct Plain<'a> {
    pub(super) file: &'a File,
    pub(super) bytes: u64,
    pub(super) at: u64,
    pub(super) place: &'a str,
}

impl Input for Plain<'_> {
    fn block(&mut self) -> Result<Option<Block>, ArchiveError> {
        if self.at >= self.bytes {
            return Ok(None);
        }
        let mut block = [0; BLOCK_BYTES];
        match self.file.read_exact_at(&mut block, self.at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged("a block ends early"));
            }
            Err(source) => return Err(ArchiveError::Read { place: self.place.to_owned(), source }),
        }
        self.at += BLOCK_BYTES as u64;
        Ok(Some(block))
    }

    fn content(&mut self, bytes: u64) -> Result<u64, ArchiveError> {
        let begin = self.at;
        let end = begin.checked_add(bytes).filter(|&end| end <= self.bytes);
        self.at = end.ok_or_else(|| self.damaged("the content of an entry ends early"))? + padding(bytes);
        Ok(begin)
    }

    fn damaged(&self, reason: &'static str) -> ArchiveError {
        ArchiveError::Damaged { place: self.place.to_owned(), at: self.at, reason }
    }

    fn place(&self) -> &str {
        self.place
    }
}

/// A compressed tar file: content goes to the spool while it is unpacked.
pub(super) struct Packed<'a> {
    unpacked: Box<dyn Read + 'a>,
    spool: SpoolFile,
    at: u64,
    limit: u64,
    place: &'a str,
}

impl<'a> Packed<'a> {
    /// Unpacks `file`; `progress` hears how many of its bytes were read. No more than `limit` bytes are taken.
    pub(super) fn new(
        file: &'a File,
        packing: Packing,
        (spool, limit): (SpoolFile, u64),
        place: &'a str,
        progress: &'a dyn Fn(u64),
    ) -> Result<Self, ArchiveError> {
        let counted = BufReader::with_capacity(BUFFER_BYTES, Counted { file, at: 0, progress });
        let unpacked: Box<dyn Read + 'a> = match packing {
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
            Packing::Zstd => {
                let unpack = |source| ArchiveError::Unpack { place: place.to_owned(), source };
                let mut decoder = zstd::stream::read::Decoder::with_buffer(counted).map_err(unpack)?;
                // What any zstd writes unless it is told otherwise needs at most this window.
                decoder.window_log_max(27).map_err(unpack)?;
                Box::new(decoder)
            }
            Packing::None => Box::new(counted),
            Packing::Other(what) => {
                let source = io::Error::other(format!("it is {what}, and only gzip and zstd are read"));
                return Err(ArchiveError::Unpack { place: place.to_owned(), source });
            }
        };
        let unpacked = Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked));
        Ok(Self { unpacked, spool, at: 0, limit, place })
    }

    /// What was kept.
    pub(super) fn into_spool(self) -> File {
        self.spool.into_file()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.unpacked.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ArchiveError::Unpack { place: self.place.to_owned(), source }),
            }
        }
        self.at += filled as u64;
        if self.at > self.limit {
            return Err(ArchiveError::TooMuch { place: self.place.to_owned(), limit: self.limit, what: "bytes" });
        }
        Ok(filled)
    }

    fn pass(&mut self, mut bytes: u64, keep: bool) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while bytes > 0 {
            let part = bytes.min(BUFFER_BYTES as u64) as usize;
            if self.read(&mut buffer[..part])? < part {
                return Err(self.damaged("the content of an entry ends early"));
            }
            if keep {
                let spooled = self.spool.write(&buffer[..part]);
                spooled.map_err(|source| ArchiveError::Spool { place: self.place.to_owned(), source })?;
            }
            bytes -= part as u64;
        }
        Ok(())
    }
}

impl Input for Packed<'_> {
    fn block(&mut self) -> Result<Option<Block>, ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        match self.read(&mut block)? {
            0 => Ok(None),
            BLOCK_BYTES => Ok(Some(block)),
            _ => Err(self.damaged("a block ends early")),
        }
    }

    fn content(&mut self, bytes: u64) -> Result<u64, ArchiveError> {
        // What an entry claims is judged before any of it is unpacked.
        if bytes > self.limit.saturating_sub(self.at) {
            return Err(ArchiveError::TooMuch { place: self.place.to_owned(), limit: self.limit, what: "bytes" });
        }
        let begin = self.spool.bytes();
        if bytes > BUFFER_BYTES as u64 {
            let room = self.spool.expect(bytes);
            room.map_err(|source| ArchiveError::Spool { place: self.place.to_owned(), source })?;
        }
        self.pass(bytes, true)?;
        self.pass(padding(bytes), false)?;
        Ok(begin)
    }

    fn damaged(&self, reason: &'static str) -> ArchiveError {
        ArchiveError::Damaged { place: self.place.to_owned(), at: self.at, reason }
    }

    fn place(&self) -> &str {
        self.place
    }
}

/// Tells how far a file was read.
struct Counted<'a> {
    file: &'a File,
    at: u64,
    progress: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        (self.progress)(self.at);
        Ok(count)
    }
}
