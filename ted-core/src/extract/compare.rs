//! Whether a target still is what a revision says. Nothing is written.

use std::io::{self, Read};
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Facts, Found};
use crate::extract::error::ExtractError;
use crate::extract::folders::{Access, Folders, split};
use crate::extract::job::ExtractOptions;
use crate::extract::judge::hard_link_target;
use crate::extract::keep::Keep;
use crate::extract::target::Target;
use crate::id::Hash;
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath};

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// An entry of a target that is not what its revision says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which one.
    pub path: EntryPath,
    /// What differs, for people.
    pub what: &'static str,
}

/// Compares the target with the revision's entries, contents included; what else lies in the target does not matter,
/// as extraction never deletes it. A folder's time is not looked at: whoever puts a file of their own into it changes it.
///
/// # Errors
/// [`ExtractError`] when something cannot be read.
pub fn compare(
    target: &Target,
    rows: &[CatalogRow],
    options: &ExtractOptions,
) -> Result<Vec<Difference>, ExtractError> {
    let Some(root) = target.existing()? else {
        return Ok(vec![Difference { path: EntryPath::root(), what: "missing" }]);
    };
    let mut comparison = Comparison {
        folders: Folders::new(root, Access::Look, options.limits.open_folders_max),
        keep: Keep::of(rows, options),
    };
    let mut differences = vec![];
    for row in rows {
        let entry = &row.entry;
        let found = comparison.entry(entry).map_err(|error| ExtractError::io("reading", &entry.path, error))?;
        differences.extend(found.map(|what| Difference { path: entry.path.clone(), what }));
    }
    Ok(differences)
}

struct Comparison<'a> {
    folders: Folders<'a>,
    keep: Keep,
}

impl Comparison<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<Option<&'static str>> {
        let attributes = self.keep.attributes(entry);
        let Some((folder, facts)) = self.standing(&entry.path)? else { return Ok(Some("missing")) };
        let name = entry.path.file_name().unwrap_or_default();
        Ok(match (entry.kind, facts.found) {
            (EntryKind::Directory, Found::Folder) if facts.mode != attributes.mode => Some("another mode"),
            (EntryKind::Directory, Found::Folder) if entry.path.is_root() => self.keep.compare(entry, &*folder, &facts),
            (EntryKind::Directory, Found::Folder) => {
                self.keep.compare(entry, &disk::open_folder(&*folder, name)?, &facts)
            }
            (EntryKind::Symlink, Found::Symlink) => {
                (disk::link_text(&folder, name)? != entry.link).then_some("another link target")
            }
            (EntryKind::File, Found::File) if facts.size != entry.size => Some("another size"),
            (EntryKind::File, Found::File) if content(&folder, name)? != entry.content => Some("another content"),
            (EntryKind::File, Found::File) if facts.mode != attributes.mode => Some("another mode"),
            (EntryKind::File, Found::File) if facts.mtime != attributes.mtime => Some("another time"),
            (EntryKind::File, Found::File) => self.keep.compare(entry, &disk::open_file(&folder, name)?, &facts),
            (EntryKind::HardLink, Found::File | Found::Symlink) => {
                let first = hard_link_target(entry).map(|path| self.standing(&path)).transpose()?.flatten();
                let linked = first.is_some_and(|(_, first)| first.identity == facts.identity);
                (!linked).then_some("not the same file as the one it is linked to")
            }
            _ => Some("something of another kind"),
        })
    }

    /// What stands at `path`, and the folder it is in; for the root itself twice the root.
    fn standing(&mut self, path: &EntryPath) -> io::Result<Option<(Arc<Dir>, Facts)>> {
        if path.is_root() {
            let root = self.folders.get(b"")?;
            let facts = disk::facts_of(&*root)?;
            return Ok(Some((root, facts)));
        }
        let (parent, name) = split(path.as_bytes());
        let folder = match self.folders.get(parent) {
            Ok(folder) => folder,
            // A folder that is gone, or is something else by now, stands in the list itself.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(disk::facts_at(&*folder, name)?.map(|facts| (folder, facts)))
    }
}

fn content(folder: &Dir, name: &[u8]) -> io::Result<Hash> {
    let mut file = disk::open_file(folder, name)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            length => {
                hasher.update(&buffer[..length]);
            }
        }
    }
}
