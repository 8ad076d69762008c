//! BLAKE3 of a file whose pieces come in any order, from any thread.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::id::Hash;

/// What one piece adds to the hash of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceHash {
    /// The piece is the whole file.
    Whole(Hash),
    /// The piece is a subtree of the file's hash tree.
    Subtree(ChainingValue),
}

/// The hash of a file, from pieces of equal length (the last one may be shorter) in any order.
#[derive(Debug)]
pub struct ContentHasher {
    content_bytes: u64,
    piece_bytes: u64,
    pieces: Vec<Option<PieceHash>>,
    missing: usize,
}

impl ContentHasher {
    /// A hasher for a file of `content_bytes` in pieces of `piece_bytes`, a power of two of at least 1024.
    #[must_use]
    pub fn new(content_bytes: u64, piece_bytes: u64) -> Self {
        debug_assert!(piece_bytes.is_power_of_two() && piece_bytes >= 1024);
        let count = content_bytes.div_ceil(piece_bytes).max(1) as usize;
        Self { content_bytes, piece_bytes, pieces: vec![None; count], missing: count }
    }

    /// The hash of one piece, to be given to [`add`](Self::add): `content` is the file's bytes from `offset`, a
    /// multiple of the piece length, and `content_bytes` the whole file's length.
    #[must_use]
    pub fn piece(content: &[u8], offset: u64, content_bytes: u64) -> PieceHash {
        if content.len() as u64 == content_bytes {
            return PieceHash::Whole(Hash::of(content));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        hasher.update(content);
        PieceHash::Subtree(hasher.finalize_non_root())
    }

    /// Takes the hash of piece number `index`. A piece beyond the end, or one that came before, changes nothing.
    pub fn add(&mut self, index: u64, piece: PieceHash) {
        let slot = usize::try_from(index).ok().and_then(|index| self.pieces.get_mut(index));
        if let Some(slot @ None) = slot {
            *slot = Some(piece);
            self.missing -= 1;
        }
    }

    /// The file's hash; `None` until every piece has come.
    #[must_use]
    pub fn finish(&self) -> Option<Hash> {
        if self.missing > 0 {
            return None;
        }
        match self.pieces.as_slice() {
            [Some(PieceHash::Whole(hash))] => Some(*hash),
            pieces => {
                let (left, right) = self.halves(pieces, self.content_bytes)?;
                Some(merge_subtrees_root(&left, &right, Mode::Hash).into())
            }
        }
    }

    fn halves(&self, pieces: &[Option<PieceHash>], bytes: u64) -> Option<(ChainingValue, ChainingValue)> {
        // BLAKE3 specification, section 2.1: the left subtree is the largest power of two of chunks below the whole.
        // A piece is a power of two of chunks, so the cut falls between two pieces.
        let left_bytes = left_subtree_len(bytes);
        let (left, right) = pieces.split_at_checked((left_bytes / self.piece_bytes) as usize)?;
        Some((self.subtree(left, left_bytes)?, self.subtree(right, bytes - left_bytes)?))
    }

    fn subtree(&self, pieces: &[Option<PieceHash>], bytes: u64) -> Option<ChainingValue> {
        if let [piece] = pieces {
            return match piece {
                Some(PieceHash::Subtree(value)) => Some(*value),
                _ => None,
            };
        }
        let (left, right) = self.halves(pieces, bytes)?;
        Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_give_blake3_of_the_whole() {
        const PIECE: usize = 4096;
        let content: Vec<u8> = (0..40 * PIECE).map(|i| (i * 31 / 7) as u8).collect();
        for bytes in [0, 1, 1024, 4095, 4096, 4097, 8192, 8193, 3 * PIECE, 5 * PIECE + 17, 16 * PIECE, 39 * PIECE + 1] {
            let content = &content[..bytes];
            let mut hasher = ContentHasher::new(bytes as u64, PIECE as u64);
            let mut pieces: Vec<(usize, &[u8])> = content.chunks(PIECE).enumerate().collect();
            if pieces.is_empty() {
                pieces.push((0, &[]));
            }
            pieces.reverse();
            for (index, piece) in pieces {
                assert_eq!(hasher.finish(), None, "not complete yet");
                hasher.add(index as u64, ContentHasher::piece(piece, (index * PIECE) as u64, bytes as u64));
            }
            assert_eq!(hasher.finish(), Some(Hash::of(content)), "{bytes} bytes");
        }
    }

    #[test]
    fn a_piece_that_does_not_belong_changes_nothing() {
        let mut hasher = ContentHasher::new(8192, 4096);
        hasher.add(2, ContentHasher::piece(&[1; 4096], 8192, 12288));
        hasher.add(0, ContentHasher::piece(&[1; 4096], 0, 8192));
        hasher.add(0, ContentHasher::piece(&[2; 4096], 0, 8192));
        assert_eq!(hasher.finish(), None);
        hasher.add(1, ContentHasher::piece(&[1; 4096], 4096, 8192));
        assert_eq!(hasher.finish(), Some(Hash::of(&[1; 8192])));
    }
}
