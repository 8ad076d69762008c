//! Names that a file system which folds case or Unicode forms takes for one.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::id::Hash;
use crate::package::{CatalogRow, EntryPath};

/// What a name becomes when case, Unicode forms and what cannot be seen are ignored.
///
/// It folds at least as much as ext4, APFS, HFS+ and NTFS do, so that names with different keys are different
/// everywhere. Bytes that are not UTF-8 stand for themselves, as they do on Linux.
pub(super) fn fold_key(name: &[u8]) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let mut key = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        // Upper case first: that is where `ß` meets `SS`, and `ſ` meets `S`.
        let upper: String = chunk.valid().nfkd().flat_map(char::to_uppercase).collect();
        let lower = upper.nfkd().flat_map(char::to_lowercase).filter(|&character| !is_ignorable(character));
        key.extend_from_slice(lower.nfkd().collect::<String>().as_bytes());
        key.extend_from_slice(chunk.invalid());
    }
    key
}

/// Unicode's default ignorable code points, which ext4 leaves out when it folds.
fn is_ignorable(character: char) -> bool {
    matches!(u32::from(character),
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
        | 0x202a..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfff8
        | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

/// The first entry whose path folds to the same key as an earlier one's, and that earlier one.
pub(super) fn collision(rows: &[CatalogRow]) -> Option<(&EntryPath, &EntryPath)> {
    // Hashes instead of keys: millions of paths would need gigabytes.
    let mut seen: HashMap<Hash, &EntryPath> = HashMap::with_capacity(rows.len());
    rows.iter().find_map(|row| {
        let path = &row.entry.path;
        seen.insert(Hash::of(&fold_key(path.as_bytes())), path).map(|earlier| (path, earlier))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_file_system_takes_for_one_have_one_key() {
        for (one, other) in [
            ("README", "readme"),
            ("Straße", "STRASSE"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("CAFE\u{301}", "caf\u{c9}"),
            ("\u{212a}elvin", "kelvin"),
            (".ted-\u{17f}taging-", ".ted-staging-"),
            ("a\u{200d}b", "ab"),
        ] {
            assert_eq!(fold_key(one.as_bytes()), fold_key(other.as_bytes()), "{one:?} and {other:?}");
        }
        assert_ne!(fold_key(b"a"), fold_key(b"b"));
        assert_ne!(fold_key(b"\xff"), fold_key(b"\xfe"));
    }
}
