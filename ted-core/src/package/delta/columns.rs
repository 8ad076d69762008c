//! The rows of a delta's catalog as stored: a column for each field, so that they compress to what differs.

use serde::{Deserialize, Serialize};

use crate::id::{ContentId, Hash};
use crate::limits::Limits;

use super::super::error::PackageError;

/// Elements of one column in a catalog frame at most.
const COLUMN_ELEMENTS_MAX: usize = 16 * 1024;

/// What a row says, as a sum of these.
pub(super) mod says {
    /// The entry is new; everything about it follows.
    pub(in super::super) const ADDED: u8 = 1;
    pub(in super::super) const MODE: u8 = 2;
    pub(in super::super) const OWNER: u8 = 4;
    pub(in super::super) const MTIME: u8 = 8;
    pub(in super::super) const LINK: u8 = 16;
    pub(in super::super) const EXTENSIONS: u8 = 32;
    pub(in super::super) const CONTENT: u8 = 64;
    /// All that a row may say.
    pub(in super::super) const ALL: u8 = 127;
}

/// Where a row's content comes from.
pub(super) mod content_from {
    /// It is empty.
    pub(in super::super) const NOTHING: u8 = 0;
    /// It is an old file's.
    pub(in super::super) const OLD_FILE: u8 = 1;
    /// Operations make it.
    pub(in super::super) const OPERATIONS: u8 = 2;
}

/// What an operation does.
pub(super) mod operation {
    /// Takes the body's next bytes.
    pub(in super::super) const BODY: u8 = 0;
    /// Copies from an old file.
    pub(in super::super) const COPY: u8 = 1;
}

/// Which revision a delta goes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BaseList {
    /// Its content id.
    pub(super) content: ContentId,
    /// Its entries.
    pub(super) entries: u64,
}

macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident: $element:ty,)* ; $($(#[$bytes_doc:meta])* $bytes:ident,)*) => {
        /// A stretch of every column, or the whole of them. `docs/format.md`, "The catalog of a delta".
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub(super) struct Columns {
            $($(#[$doc])* pub(super) $name: Vec<$element>,)*
            $($(#[$bytes_doc])* pub(super) $bytes: Vec<u8>,)*
        }

        impl Columns {
            /// Puts the next stretches behind these.
            pub(super) fn append(&mut self, mut next: Self) {
                $(self.$name.append(&mut next.$name);)*
                $(self.$bytes.append(&mut next.$bytes);)*
            }

            /// The columns in stretches, of which each fits into a frame.
            pub(super) fn stretches(&self) -> Vec<Self> {
                let longest = 0_usize$(.max(self.$name.len()))*$(.max(self.$bytes.len()))*;
                let count = longest.div_ceil(COLUMN_ELEMENTS_MAX).max(1);
                (0..count).map(|number| {
                    let from = number * COLUMN_ELEMENTS_MAX;
                    let to = from + COLUMN_ELEMENTS_MAX;
                    Self {
                        $($name: stretch(&self.$name, from, to),)*
                        $($bytes: stretch(&self.$bytes, from, to),)*
                    }
                }).collect()
            }
        }

        /// Takes the columns apart from the front.
        pub(super) struct Cursor<'a> {
            columns: &'a Columns,
            taken: Taken,
        }

        #[derive(Default)]
        struct Taken {
            $($name: usize,)*
            $($bytes: usize,)*
        }

        impl<'a> Cursor<'a> {
            pub(super) fn new(columns: &'a Columns) -> Self {
                Self { columns, taken: Taken::default() }
            }

            $(pub(super) fn $name(&mut self) -> Result<$element, PackageError> {
                let next = self.columns.$name.get(self.taken.$name).cloned().ok_or(SHORT)?;
                self.taken.$name += 1;
                Ok(next)
            })*

            /// Whether nothing is left of any column.
            pub(super) fn is_done(&self) -> bool {
                true $(&& self.taken.$name == self.columns.$name.len())*
                    $(&& self.taken.$bytes == self.columns.$bytes.len())*
            }

            $(pub(super) fn $bytes(&mut self, count: u32) -> Result<&'a [u8], PackageError> {
                let rest = self.columns.$bytes.get(self.taken.$bytes..);
                let next = rest.and_then(|rest| rest.get(..count as usize)).ok_or(SHORT)?;
                self.taken.$bytes += next.len();
                Ok(next)
            })*
        }
    };
}

const SHORT: PackageError = PackageError::Structure { what: "a column of the delta's catalog ends early" };

columns! {
    /// Of each removed entry: old entries between it and the one removed before.
    removed: u32,
    /// Of each row: what it says.
    rows: u8,
    /// Of each row that is not added: old entries between it and the last such one.
    changed: u32,
    /// Of each added row: bytes that its path begins with as the last added one does, and how many follow.
    path_shared: u32,
    path_lengths: u32,
    kinds: u8,
    modes: u32,
    uids: u32,
    gids: u32,
    mtime_seconds: i64,
    mtime_nanoseconds: u32,
    link_lengths: u32,
    extension_lengths: u32,
    content_from: u8,
    /// Old files whose content is a row's.
    same_as: u32,
    /// Of each content that operations make.
    sizes: u64,
    contents: Hash,
    operation_counts: u32,
    /// Of each operation.
    operations: u8,
    operation_bytes: u64,
    /// Of each copy.
    copy_files: u32,
    copy_offsets: u64,
    /// Of each frame of the body: how many ranges its prefix has.
    prefix_counts: u32,
    /// Of each range.
    prefix_files: u32,
    prefix_offsets: u64,
    prefix_bytes: u32,
    ;
    path_bytes,
    link_bytes,
    extension_bytes,
}

fn stretch<T: Clone>(column: &[T], from: usize, to: usize) -> Vec<T> {
    column.get(from.min(column.len())..to.min(column.len())).unwrap_or_default().to_vec()
}

/// Whether catalog frames of these raw lengths may be decoded.
pub(in super::super) fn judge_bytes(raw_bytes: u64, limits: &Limits) -> Result<(), PackageError> {
    if raw_bytes > limits.delta_catalog_bytes_max {
        return Err(PackageError::Structure { what: "the delta's catalog is longer than allowed" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_put_together_again_are_the_columns() {
        let count = 2 * COLUMN_ELEMENTS_MAX + 5;
        let columns = Columns {
            rows: (0..count).map(|index| index as u8).collect(),
            sizes: vec![7; COLUMN_ELEMENTS_MAX],
            contents: vec![Hash::of(b"x")],
            ..Columns::default()
        };
        let stretches = columns.stretches();
        assert_eq!(stretches.len(), 3);
        let mut together = Columns::default();
        stretches.into_iter().for_each(|stretch| together.append(stretch));
        assert_eq!(together, columns);
        assert_eq!(Columns::default().stretches().len(), 1);
    }

    #[test]
    fn a_full_stretch_fits_into_a_frame() {
        // 29 columns: 8 of one byte, one of 32, 5 of 8, the others of 4 bytes; and the length of each.
        let bytes = 29 * 8 + COLUMN_ELEMENTS_MAX * (8 + 32 + 5 * 8 + 15 * 4);
        assert!(bytes <= 4 << 20);
    }
}
