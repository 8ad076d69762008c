//! The rows of a delta's catalog, from the difference and the plan.

use crate::codec;
use crate::limits::Limits;

use super::super::build::BuildError;
use super::super::entry::{AsEntry, Entry, EntryKind};
use super::super::error::PackageError;
use super::columns::{Columns, content_from, operation, says};
use super::diff::{Diff, DiffContent, DiffRow};
use super::plan::{DeltaPlan, PlannedOperation};

/// The columns that say `diff`, whose contents `plan` makes.
pub(super) fn encode_rows_of(
    diff: &Diff,
    plan: &DeltaPlan,
    old: &[impl AsEntry],
    new: &[impl AsEntry],
) -> Result<Columns, BuildError> {
    let mut rows = Rows::default();
    let mut after = 0;
    for &removed in &diff.removed {
        rows.columns.removed.push(gap(&mut after, removed)?);
    }
    for (row, operations) in diff.rows.iter().zip(&plan.operations) {
        rows.add(row, row.old.map(|old_at| old[old_at].entry()), new[row.new].entry())?;
        rows.add_content(row.content, operations, new[row.new].entry())?;
    }
    for frame in &plan.frames {
        rows.columns.prefix_counts.push(short(frame.prefix.len() as u64)?);
        for range in &frame.prefix {
            rows.columns.prefix_files.push(short(range.file as u64)?);
            rows.columns.prefix_offsets.push(range.offset);
            rows.columns.prefix_bytes.push(short(range.bytes)?);
        }
    }
    Ok(rows.columns)
}

#[derive(Default)]
struct Rows<'a> {
    columns: Columns,
    after_changed: usize,
    last_added: &'a [u8],
}

impl<'a> Rows<'a> {
    fn add(&mut self, row: &DiffRow, old: Option<&Entry>, new: &'a Entry) -> Result<(), BuildError> {
        let mut what = match (row.old, old) {
            (Some(number), Some(old)) => {
                self.columns.changed.push(gap(&mut self.after_changed, number)?);
                self.add_changes(old, new)?
            }
            _ => self.add_new(new)?,
        };
        if row.content != DiffContent::Kept {
            what |= says::CONTENT;
        }
        // An added file without content is empty as it is.
        if row.old.is_none() && row.content == DiffContent::Empty {
            what &= !says::CONTENT;
        }
        self.columns.rows.push(what);
        Ok(())
    }

    fn add_changes(&mut self, old: &Entry, new: &Entry) -> Result<u8, BuildError> {
        let mut what = 0;
        if old.mode != new.mode {
            what |= says::MODE;
            self.add_mode(new);
        }
        if (old.uid, old.gid) != (new.uid, new.gid) {
            what |= says::OWNER;
            self.add_owner(new);
        }
        if old.mtime != new.mtime {
            what |= says::MTIME;
            self.add_mtime(new);
        }
        if old.link != new.link {
            what |= says::LINK;
            self.add_link(new)?;
        }
        if old.extensions != new.extensions {
            what |= says::EXTENSIONS;
            self.add_extensions(new)?;
        }
        Ok(what)
    }

    fn add_new(&mut self, new: &'a Entry) -> Result<u8, BuildError> {
        let path = new.path.as_bytes();
        let shared = path.iter().zip(self.last_added).take_while(|(left, right)| left == right).count();
        self.columns.path_shared.push(short(shared as u64)?);
        self.columns.path_lengths.push(short((path.len() - shared) as u64)?);
        self.columns.path_bytes.extend_from_slice(&path[shared..]);
        self.last_added = path;
        self.columns.kinds.push(match new.kind {
            EntryKind::Directory => 0,
            EntryKind::File => 1,
            EntryKind::Symlink => 2,
            EntryKind::HardLink => 3,
        });
        self.add_mode(new);
        self.add_owner(new);
        self.add_mtime(new);
        let mut what = says::ADDED;
        if !new.link.is_empty() {
            what |= says::LINK;
            self.add_link(new)?;
        }
        if !new.extensions.is_empty() {
            what |= says::EXTENSIONS;
            self.add_extensions(new)?;
        }
        Ok(what)
    }

    fn add_mode(&mut self, new: &Entry) {
        self.columns.modes.push(new.mode);
    }

    fn add_owner(&mut self, new: &Entry) {
        self.columns.uids.push(new.uid);
        self.columns.gids.push(new.gid);
    }

    fn add_mtime(&mut self, new: &Entry) {
        self.columns.mtime_seconds.push(new.mtime.seconds);
        self.columns.mtime_nanoseconds.push(new.mtime.nanoseconds);
    }

    fn add_link(&mut self, new: &Entry) -> Result<(), BuildError> {
        self.columns.link_lengths.push(short(new.link.len() as u64)?);
        self.columns.link_bytes.extend_from_slice(&new.link);
        Ok(())
    }

    fn add_extensions(&mut self, new: &Entry) -> Result<(), BuildError> {
        let bytes = codec::encode("extensions", &new.extensions, u64::from(Limits::DEFAULT.frame_raw_bytes_max))?;
        self.columns.extension_lengths.push(short(bytes.len() as u64)?);
        self.columns.extension_bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn add_content(
        &mut self,
        content: DiffContent,
        operations: &[PlannedOperation],
        new: &Entry,
    ) -> Result<(), BuildError> {
        let columns = &mut self.columns;
        match content {
            DiffContent::Kept => {}
            DiffContent::Empty if columns.rows.last().is_some_and(|what| what & says::CONTENT == 0) => {}
            DiffContent::Empty => columns.content_from.push(content_from::NOTHING),
            DiffContent::Same(old) => {
                columns.content_from.push(content_from::OLD_FILE);
                columns.same_as.push(short(old as u64)?);
            }
            DiffContent::New(_) => {
                columns.content_from.push(content_from::OPERATIONS);
                columns.sizes.push(new.size);
                columns.contents.push(new.content);
                columns.operation_counts.push(short(operations.len() as u64)?);
                for operation in operations {
                    add_operation(columns, *operation)?;
                }
            }
        }
        Ok(())
    }
}

fn add_operation(columns: &mut Columns, planned: PlannedOperation) -> Result<(), BuildError> {
    match planned {
        PlannedOperation::Body { bytes } => {
            columns.operations.push(operation::BODY);
            columns.operation_bytes.push(bytes);
        }
        PlannedOperation::Copy(range) => {
            columns.operations.push(operation::COPY);
            columns.operation_bytes.push(range.bytes);
            columns.copy_files.push(short(range.file as u64)?);
            columns.copy_offsets.push(range.offset);
        }
    }
    Ok(())
}

fn gap(after: &mut usize, number: usize) -> Result<u32, BuildError> {
    let gap = short((number - *after) as u64);
    *after = number + 1;
    gap
}

/// Entries and frames are far fewer than 2³², so are the bytes of what is measured so.
fn short(number: u64) -> Result<u32, BuildError> {
    let too_long = |_| BuildError::Refused(PackageError::Structure { what: "the delta has more rows than allowed" });
    u32::try_from(number).map_err(too_long)
}
