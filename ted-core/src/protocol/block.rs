//! Blocks: how the bytes of an answered `Fetch` travel, and what the side that serves them does. Bytes:
//! `docs/protocol.md`, "Blocks".

use crate::codec;
use crate::error::Coded;
use crate::limits::Limits;
use crate::protocol::{Fetch, Refused};

/// Why a sequence of blocks cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// A kind of block that version 1 does not have.
    #[error("a block of unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u16,
    },
    /// A block is longer than its kind allows.
    #[error("a block of {bytes} bytes, where {limit} are allowed")]
    TooLong {
        /// The length that was announced.
        bytes: u32,
        /// The limit of its kind.
        limit: u32,
    },
    /// The reserved bytes are not zero, or an error block cannot be read.
    #[error("a malformed block")]
    Malformed,
}

impl Coded for BlockError {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownKind { .. } => "TED-1336",
            Self::TooLong { .. } => "TED-1337",
            Self::Malformed => "TED-1338",
        }
    }
}

/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 8;

/// What the codec of a [`Refused`] may take: both texts, their lengths, and some room.
const ERROR_BYTES_MAX: u32 = 2048;

/// The header of a data block of `length` bytes, at most [`Limits::block_bytes_max`].
#[must_use]
pub fn data_header(length: u32) -> [u8; BLOCK_HEADER_BYTES] {
    header(Kind::Data, length)
}

/// A block that says: still here, nothing new yet.
#[must_use]
pub fn waiting_block() -> [u8; BLOCK_HEADER_BYTES] {
    header(Kind::Waiting, 0)
}

/// The block that ends a complete answer.
#[must_use]
pub fn end_block() -> [u8; BLOCK_HEADER_BYTES] {
    header(Kind::End, 0)
}

/// The block that ends an answer that cannot be completed.
#[must_use]
pub fn error_block(refused: &Refused) -> Vec<u8> {
    // A refusal's texts are bounded by construction, so that it always fits.
    let payload = codec::encode("a refusal", refused, u64::from(ERROR_BYTES_MAX)).unwrap_or_default();
    let mut bytes = header(Kind::Error, payload.len() as u32).to_vec();
    bytes.extend_from_slice(&payload);
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data = 1,
    Waiting = 2,
    End = 3,
    Error = 4,
}

fn header(kind: Kind, length: u32) -> [u8; BLOCK_HEADER_BYTES] {
    let mut bytes = [0; BLOCK_HEADER_BYTES];
    bytes[..2].copy_from_slice(&(kind as u16).to_le_bytes());
    bytes[4..].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// What comes out of a sequence of blocks.
#[derive(Debug, PartialEq, Eq)]
pub enum BlockEvent<'a> {
    /// The next bytes of what was asked for; a block may come in several such pieces.
    Data(&'a [u8]),
    /// The sender is alive and waits for bytes itself.
    Waiting,
    /// The answer is complete.
    End,
    /// The answer ends here.
    Error(Refused),
}

/// Follows a sequence of blocks, whatever pieces its bytes come in.
#[derive(Debug)]
pub struct BlockReader {
    block_bytes_max: u32,
    header: Vec<u8>,
    /// Bytes of the current block still to come.
    left: u32,
    error: Option<Vec<u8>>,
}

impl BlockReader {
    /// A reader that refuses blocks over [`Limits::block_bytes_max`].
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            block_bytes_max: limits.block_bytes_max,
            header: Vec::with_capacity(BLOCK_HEADER_BYTES),
            left: 0,
            error: None,
        }
    }

    /// The next event in `input`, whose front is consumed; `None` when it is used up.
    ///
    /// # Errors
    /// When the bytes are no sequence of blocks. Nothing more can be read from the stream then.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<BlockEvent<'a>>, BlockError> {
        loop {
            if self.left > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let count = input.len().min(self.left as usize);
                let (bytes, rest) = input.split_at(count);
                *input = rest;
                self.left -= count as u32;
                let Some(error) = &mut self.error else {
                    return Ok(Some(BlockEvent::Data(bytes)));
                };
                error.extend_from_slice(bytes);
                if self.left == 0 {
                    let bytes = self.error.take().unwrap_or_default();
                    return match codec::decode("a refusal", &bytes, u64::from(ERROR_BYTES_MAX)) {
                        Ok(refused) => Ok(Some(BlockEvent::Error(refused))),
                        Err(_) => Err(BlockError::Malformed),
                    };
                }
                continue;
            }
            let count = (BLOCK_HEADER_BYTES - self.header.len()).min(input.len());
            let (bytes, rest) = input.split_at(count);
            self.header.extend_from_slice(bytes);
            *input = rest;
            let Ok(header) = <[u8; BLOCK_HEADER_BYTES]>::try_from(self.header.as_slice()) else {
                return Ok(None);
            };
            self.header.clear();
            if let Some(event) = self.begin(header)? {
                return Ok(Some(event));
            }
        }
    }

    fn begin(&mut self, header: [u8; BLOCK_HEADER_BYTES]) -> Result<Option<BlockEvent<'static>>, BlockError> {
        let [kind_low, kind_high, 0, 0, length @ ..] = header else {
            return Err(BlockError::Malformed);
        };
        let length = u32::from_le_bytes(length);
        let (event, limit) = match u16::from_le_bytes([kind_low, kind_high]) {
            1 => (None, self.block_bytes_max),
            2 => (Some(BlockEvent::Waiting), 0),
            3 => (Some(BlockEvent::End), 0),
            4 => {
                self.error = Some(Vec::new());
                (None, ERROR_BYTES_MAX)
            }
            kind => return Err(BlockError::UnknownKind { kind }),
        };
        if length > limit {
            return Err(BlockError::TooLong { bytes: length, limit });
        }
        if self.error.is_some() && length == 0 {
            return Err(BlockError::Malformed);
        }
        self.left = length;
        Ok(event)
    }
}

/// What the side that answers a `Fetch` does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStep {
    /// Send a data block with these bytes of the file.
    Data {
        /// The first byte.
        from: u64,
        /// The byte after the last; at most [`Limits::block_bytes_max`] further.
        to: u64,
    },
    /// Nothing more is there yet: send a waiting block now and then, and ask again when there is more.
    Waiting,
    /// Send the end block and finish the stream.
    End,
}

/// The serving side of one `Fetch`: which bytes go into which block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    at: u64,
    to: u64,
    block_bytes_max: u64,
}

impl Sending {
    /// Serves `fetch` from something that will have `total_bytes` bytes; what lies beyond its end is cut off.
    #[must_use]
    pub fn new(fetch: &Fetch, total_bytes: u64, limits: &Limits) -> Self {
        let to = fetch.to.min(total_bytes);
        Self { at: fetch.from.min(to), to, block_bytes_max: u64::from(limits.block_bytes_max).max(1) }
    }

    /// The byte that goes out next.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next step, when the bytes before `available_to` can be read. A complete file passes its length;
    /// a node that is still receiving passes the end of what it has verified after the place that is served.
    pub fn next(&mut self, available_to: u64) -> SendStep {
        if self.at >= self.to {
            return SendStep::End;
        }
        let to = self.to.min(available_to).min(self.at.saturating_add(self.block_bytes_max));
        if to <= self.at {
            return SendStep::Waiting;
        }
        let from = std::mem::replace(&mut self.at, to);
        SendStep::Data { from, to }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::PackageId;
    use crate::protocol::{FetchTarget, code};

    fn events(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<String>), BlockError> {
        let mut reader = BlockReader::new(&Limits::DEFAULT);
        let (mut data, mut others) = (Vec::new(), Vec::new());
        for mut input in bytes.chunks(piece) {
            while let Some(event) = reader.next(&mut input)? {
                match event {
                    BlockEvent::Data(bytes) => data.extend_from_slice(bytes),
                    other => others.push(format!("{other:?}")),
                }
            }
        }
        Ok((data, others))
    }

    #[test]
    fn blocks_are_followed_in_any_pieces() {
        let refused = Refused::new(code::NOT_FOUND, "it was deleted meanwhile");
        let mut bytes = data_header(5).to_vec();
        bytes.extend_from_slice(b"hello");
        bytes.extend_from_slice(&waiting_block());
        bytes.extend_from_slice(&data_header(0));
        bytes.extend_from_slice(&data_header(1));
        bytes.extend_from_slice(b"!");
        bytes.extend_from_slice(&error_block(&refused));
        bytes.extend_from_slice(&end_block());
        for piece in 1..=bytes.len() {
            let (data, others) = events(&bytes, piece).expect("valid");
            assert_eq!(data, b"hello!");
            assert_eq!(others, ["Waiting".to_owned(), format!("Error({refused:?})"), "End".to_owned()]);
        }
    }

    #[test]
    fn headers_have_these_bytes() {
        assert_eq!(data_header(0x0102_0304), [1, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(waiting_block(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(end_block(), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error_block(&Refused::new(code::BUSY, "x"))[..4], [4, 0, 0, 0]);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for (bytes, code) in [
            ([9, 0, 0, 0, 0, 0, 0, 0], "TED-1336"),
            ([1, 0, 0, 0, 1, 0, 16, 0], "TED-1337"),
            ([2, 0, 0, 0, 1, 0, 0, 0], "TED-1337"),
            ([4, 0, 0, 0, 0, 9, 0, 0], "TED-1337"),
            ([1, 0, 1, 0, 0, 0, 0, 0], "TED-1338"),
            ([4, 0, 0, 0, 0, 0, 0, 0], "TED-1338"),
        ] {
            assert_eq!(events(&bytes, 8).expect_err("refused").code(), code, "{bytes:?}");
        }
    }

    #[test]
    fn a_fetch_is_served_in_blocks_up_to_its_end() {
        let limits = Limits { block_bytes_max: 10, ..Limits::DEFAULT };
        let fetch = Fetch { target: FetchTarget::Package(PackageId::from_bytes([0; 32])), from: 5, to: u64::MAX };
        let mut sending = Sending::new(&fetch, 30, &limits);
        assert_eq!(sending.next(30), SendStep::Data { from: 5, to: 15 });
        assert_eq!(sending.next(15), SendStep::Waiting, "a relay has no more yet");
        assert_eq!(sending.next(17), SendStep::Data { from: 15, to: 17 });
        assert_eq!(sending.next(30), SendStep::Data { from: 17, to: 27 });
        assert_eq!(sending.next(30), SendStep::Data { from: 27, to: 30 });
        assert_eq!(sending.next(30), SendStep::End);
        let mut beyond = Sending::new(&Fetch { from: 31, ..fetch }, 30, &limits);
        assert_eq!(beyond.next(30), SendStep::End, "nothing lies behind the end");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(0u8..6, 0..200), piece in 1usize..20) {
            let _ = events(&bytes, piece);
        }
    }
}
