//! `distfile.part`: a package that is arriving, and the map beside it that vouches for what has arrived.
//!
//! The order is the point. Data is written, made durable, and only then vouched for by a new map, which takes the old
//! one's place in one rename. So after a crash every frame that the map names is whole, whatever the rest holds.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::limits::Limits;
use crate::store::file::{FileError, allocate, create_folders, remove_if_there, sync_folder};
use crate::store::steps::{AllSteps, Step, Steps};

/// A complete package.
pub(super) const PACKAGE_FILE: &str = "distfile.ted";
/// One that is arriving, or being built.
pub(super) const PART_FILE: &str = "distfile.part";
/// One that turned out to be damaged.
pub(super) const CORRUPT_FILE: &str = "distfile.corrupt";
/// What lets this node open a sealed package. It lies beside the package, and may come before it.
pub const GRANT_FILE: &str = "distfile.grant";
const MAP_FILE: &str = "distfile.part.map";
const NEW_MAP_FILE: &str = "distfile.part.map.new";

/// A package that is arriving in its folder. Locked while it is open; its calls block, so keep them off async threads.
pub struct PartFile {
    folder: PathBuf,
    file: Arc<File>,
    bytes: u64,
    steps: Arc<dyn Steps>,
}

impl PartFile {
    /// Goes on with the part file in `folder`, or begins one, for a package of `bytes` bytes, all of which are
    /// reserved. With it comes the map as it was last written; `None` when nothing is vouched for. A part file of
    /// another length belongs to another package and is begun anew.
    ///
    /// # Errors
    /// [`FileError::DiskFull`], which leaves no new part file behind; [`FileError::Busy`] while another one is open.
    pub fn open(folder: &Path, bytes: u64) -> Result<(Self, Option<Vec<u8>>), FileError> {
        Self::open_with(folder, bytes, Arc::new(AllSteps))
    }

    /// [`PartFile::open`], with `steps` asked before each step.
    ///
    /// # Errors
    /// As [`PartFile::open`].
    pub fn open_with(folder: &Path, bytes: u64, steps: Arc<dyn Steps>) -> Result<(Self, Option<Vec<u8>>), FileError> {
        create_folders(folder)?;
        let path = folder.join(PART_FILE);
        let file = open_locked(&path)?;
        let held = file.metadata().map_err(FileError::at("look at", &path))?.len();
        remove_if_there(&folder.join(NEW_MAP_FILE))?;
        let map = if held == bytes { read_map(&folder.join(MAP_FILE))? } else { None };
        let part = Self { folder: folder.to_owned(), file: Arc::new(file), bytes, steps };
        if map.is_none() {
            part.forget_map()?;
        }
        if held > bytes {
            part.file.set_len(bytes).map_err(FileError::at("shorten", &path))?;
        }
        if let Err(error) = part.reserve(&path) {
            // A part file whose map vouches for something is worth keeping until there is room again.
            if map.is_none() {
                remove_if_there(&path)?;
            }
            return Err(error);
        }
        if held != bytes {
            sync_folder(folder)?;
        }
        Ok((part, map))
    }

    /// Takes up a `distfile.corrupt` again, as a part file of a package of `bytes` bytes and without a map, so that each
    /// of its frames counts only once it is verified. `None` when there is none.
    ///
    /// # Errors
    /// As [`PartFile::open`].
    pub fn salvage(folder: &Path, bytes: u64) -> Result<Option<Self>, FileError> {
        let corrupt = folder.join(CORRUPT_FILE);
        if !corrupt.symlink_metadata().is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        remove_if_there(&folder.join(MAP_FILE))?;
        let path = folder.join(PART_FILE);
        std::fs::rename(&corrupt, &path).map_err(FileError::at("rename", &corrupt))?;
        sync_folder(folder)?;
        Self::open(folder, bytes).map(|(part, _)| Some(part))
    }

    /// The package's length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file, for reading what has been written.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// The file, for somebody who may go on reading when the package has got another name, or is received anew.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn reader(&self) -> Result<File, FileError> {
        let path = self.folder.join(PART_FILE);
        File::open(&path).map_err(FileError::at("open", &path))
    }

    /// Writes `bytes` at `offset`. They are durable after [`PartFile::sync_data`].
    ///
    /// # Errors
    /// [`FileError`], also for bytes beyond the package's length.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FileError> {
        let path = self.folder.join(PART_FILE);
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            let beyond = io::Error::new(io::ErrorKind::InvalidInput, "the bytes lie beyond the package's end");
            return Err(FileError::new("write", &path, beyond));
        }
        self.step(Step::WriteData, &path)?;
        self.file.write_all_at(bytes, offset).map_err(FileError::at("write", &path))
    }

    /// Writes the first `bytes` bytes of `source`, read from where it stands. They count once they are verified.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn copy_from(&self, source: &mut File, bytes: u64) -> Result<(), FileError> {
        let path = self.folder.join(PART_FILE);
        self.step(Step::WriteData, &path)?;
        let mut out = &*self.file;
        io::Seek::rewind(&mut out).map_err(FileError::at("write", &path))?;
        io::copy(&mut source.take(bytes.min(self.bytes)), &mut out).map_err(FileError::at("write", &path))?;
        Ok(())
    }

    /// Makes all bytes written so far durable.
    ///
    /// # Errors
    /// [`FileError`]. The bytes may then be lost in part: fetch again what no map vouches for.
    pub fn sync_data(&self) -> Result<(), FileError> {
        let path = self.folder.join(PART_FILE);
        self.step(Step::SyncData, &path)?;
        self.file.sync_data().map_err(FileError::at("make durable", &path))
    }

    /// Puts `map` durably in the place of the last one. Call it after [`PartFile::sync_data`], with a map that names
    /// nothing that was written later.
    ///
    /// # Errors
    /// [`FileError`]; then the old map or the new one stands, whole.
    pub fn write_map(&self, map: &[u8]) -> Result<(), FileError> {
        let (new, path) = (self.folder.join(NEW_MAP_FILE), self.folder.join(MAP_FILE));
        self.step(Step::WriteMap, &new)?;
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(FileError::at("create", &new))?;
        file.write_all(map).map_err(FileError::at("write", &new))?;
        self.step(Step::SyncMap, &new)?;
        file.sync_all().map_err(FileError::at("make durable", &new))?;
        self.step(Step::RenameMap, &new)?;
        std::fs::rename(&new, &path).map_err(FileError::at("rename", &new))?;
        self.sync_folder()
    }

    /// Gives the complete, verified package its final name, durably, and returns its path.
    ///
    /// # Errors
    /// [`FileError`]; then the package stands whole under one of the two names.
    pub fn finish(self) -> Result<PathBuf, FileError> {
        self.rename_to(PACKAGE_FILE)
    }

    /// Gives the damaged package the name of one, durably, and returns its path.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn set_corrupt(self) -> Result<PathBuf, FileError> {
        self.rename_to(CORRUPT_FILE)
    }

    /// Forgets everything that arrived: nothing is vouched for any more. The space stays reserved.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn restart(&self) -> Result<(), FileError> {
        self.forget_map()
    }

    /// Removes the part file and its map.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn discard(self) -> Result<(), FileError> {
        self.forget_map()?;
        remove_if_there(&self.folder.join(PART_FILE))?;
        sync_folder(&self.folder)
    }

    fn rename_to(self, name: &str) -> Result<PathBuf, FileError> {
        let (part, path) = (self.folder.join(PART_FILE), self.folder.join(name));
        self.step(Step::SyncData, &part)?;
        self.file.sync_all().map_err(FileError::at("make durable", &part))?;
        self.step(Step::RenamePackage, &part)?;
        std::fs::rename(&part, &path).map_err(FileError::at("rename", &part))?;
        self.sync_folder()?;
        self.step(Step::RemoveMap, &part)?;
        remove_if_there(&self.folder.join(MAP_FILE))?;
        Ok(path)
    }

    fn reserve(&self, path: &Path) -> Result<(), FileError> {
        self.step(Step::Allocate, path)?;
        allocate(&self.file, path, self.bytes)
    }

    /// The map goes durably before any byte it vouched for is overwritten.
    fn forget_map(&self) -> Result<(), FileError> {
        let map = self.folder.join(MAP_FILE);
        if map.symlink_metadata().is_err() {
            return Ok(());
        }
        self.step(Step::RemoveMap, &map)?;
        remove_if_there(&map)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), FileError> {
        self.step(Step::SyncFolder, &self.folder)?;
        sync_folder(&self.folder)
    }

    fn step(&self, step: Step, path: &Path) -> Result<(), FileError> {
        self.steps.before(step).map_err(FileError::at("work on", path))
    }
}

impl std::fmt::Debug for PartFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartFile").field("folder", &self.folder).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The part file at `path`, made if it is missing, never through a link, and locked against a second writer.
pub(super) fn open_locked(path: &Path) -> Result<File, FileError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(FileError::at("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FileError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(FileError::new("lock", path, error)),
    }
}

/// The map as written, or `None` where there is none or it is longer than any map can be.
fn read_map(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new("open", path, error)),
    };
    let limit = Limits::DEFAULT.part_map_bytes_max;
    let mut map = Vec::new();
    file.take(limit + 1).read_to_end(&mut map).map_err(FileError::at("read", path))?;
    Ok(Some(map).filter(|map| map.len() as u64 <= limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded as _;
    use crate::store::steps::tests::StopAfter;

    const BYTES: u64 = 10_000;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("ours"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_the_map_vouches_for_is_there_after_reopening() {
        let temp = tempfile::tempdir().expect("temp");
        let folder = temp.path().join("sub/dist/1/baseline");
        let (part, map) = PartFile::open(&folder, BYTES).expect("begun");
        assert_eq!(map, None);
        part.write_at(b"frame", 5000).expect("written");
        part.sync_data().expect("durable");
        part.write_map(b"first").expect("vouched");
        part.write_map(b"second").expect("vouched");
        drop(part);

        let (part, map) = PartFile::open(&folder, BYTES).expect("resumed");
        assert_eq!(map.as_deref(), Some(b"second".as_slice()));
        let mut frame = [0; 5];
        part.file().read_exact_at(&mut frame, 5000).expect("read");
        assert_eq!(&frame, b"frame");
        let path = part.finish().expect("finished");
        assert_eq!(path.metadata().expect("there").len(), BYTES);
        assert_eq!(names(&folder), [PACKAGE_FILE]);
    }

    #[test]
    fn only_one_writer_has_a_part_file() {
        let temp = tempfile::tempdir().expect("temp");
        let (first, _) = PartFile::open(temp.path(), BYTES).expect("begun");
        assert_eq!(PartFile::open(temp.path(), BYTES).expect_err("open twice").code(), "TED-1511");
        drop(first);
        PartFile::open(temp.path(), BYTES).expect("free again");
    }

    #[test]
    fn a_part_file_of_another_length_is_begun_anew() {
        for (before, after) in [(BYTES, BYTES + 1), (BYTES, BYTES - 1)] {
            let temp = tempfile::tempdir().expect("temp");
            let (part, _) = PartFile::open(temp.path(), before).expect("begun");
            part.write_map(b"map").expect("vouched");
            drop(part);
            let (part, map) = PartFile::open(temp.path(), after).expect("another package");
            assert_eq!(map, None);
            assert_eq!(part.file().metadata().expect("there").len(), after);
            drop(part);
            assert_eq!(PartFile::open(temp.path(), before).expect("and back").1, None, "the old map is gone");
        }
    }

    #[test]
    fn a_corrupt_package_keeps_its_bytes_and_loses_its_map() {
        let temp = tempfile::tempdir().expect("temp");
        let (part, _) = PartFile::open(temp.path(), BYTES).expect("begun");
        part.write_at(b"good", 0).expect("written");
        part.write_map(b"map").expect("vouched");
        part.set_corrupt().expect("renamed");
        assert_eq!(names(temp.path()), [CORRUPT_FILE]);
        let part = PartFile::salvage(temp.path(), BYTES).expect("looked").expect("there");
        assert!(PartFile::salvage(temp.path(), BYTES).expect("looked").is_none(), "it has been taken up");
        let mut good = [0; 4];
        part.file().read_exact_at(&mut good, 0).expect("read");
        assert_eq!(&good, b"good");
        assert_eq!(names(temp.path()), [PART_FILE]);
        part.discard().expect("removed");
        assert!(names(temp.path()).is_empty());
    }

    #[test]
    fn a_corrupt_package_that_was_cut_off_is_taken_up_in_its_whole_length() {
        for held in [0, 4, BYTES + 7] {
            let temp = tempfile::tempdir().expect("temp");
            std::fs::write(temp.path().join(CORRUPT_FILE), vec![1; held as usize]).expect("written");
            let part = PartFile::salvage(temp.path(), BYTES).expect("looked").expect("there");
            let mut all = vec![9; BYTES as usize];
            part.file().read_exact_at(&mut all, 0).expect("all of it");
            assert_eq!(all.iter().filter(|byte| **byte == 1).count() as u64, held.min(BYTES));
            assert_eq!(part.file().metadata().expect("there").len(), BYTES);
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_packages_end() {
        let temp = tempfile::tempdir().expect("temp");
        let (part, _) = PartFile::open(temp.path(), BYTES).expect("begun");
        for offset in [BYTES, BYTES - 3, u64::MAX] {
            part.write_at(b"four", offset).expect_err("beyond the end");
        }
        part.write_at(b"four", BYTES - 4).expect("the last bytes");
    }

    #[test]
    fn a_link_in_the_part_files_place_is_not_followed() {
        let temp = tempfile::tempdir().expect("temp");
        std::fs::write(temp.path().join("victim"), "precious").expect("written");
        std::os::unix::fs::symlink("victim", temp.path().join(PART_FILE)).expect("linked");
        PartFile::open(temp.path(), BYTES).expect_err("a link");
        assert_eq!(std::fs::read(temp.path().join("victim")).expect("read"), b"precious");
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_map_or_the_new_one() {
        for allowed in 0.. {
            let temp = tempfile::tempdir().expect("temp");
            let (part, _) = PartFile::open(temp.path(), BYTES).expect("begun");
            part.write_map(b"old").expect("vouched");
            drop(part);
            let steps = Arc::new(StopAfter::new(allowed + 1, io::ErrorKind::Other));
            let (part, _) = PartFile::open_with(temp.path(), BYTES, steps.clone()).expect("one step: reserving");
            let outcome = part.sync_data().and_then(|()| part.write_map(b"new"));
            drop(part);
            let (_, map) = PartFile::open(temp.path(), BYTES).expect("after the crash");
            let map = map.expect("a map");
            // The last step is the folder's sync: the new map stands already, but nobody was told so.
            assert!(map == b"old" || (map == b"new" && allowed >= 4), "after {allowed} steps: {map:?}");
            if outcome.is_ok() {
                assert_eq!(map, b"new");
                let expected =
                    [Step::Allocate, Step::SyncData, Step::WriteMap, Step::SyncMap, Step::RenameMap, Step::SyncFolder];
                assert_eq!(steps.asked(), expected, "data is durable before a map vouches for it");
                return;
            }
        }
    }

    #[test]
    fn a_crash_at_any_step_of_finishing_leaves_one_whole_package() {
        for allowed in 0.. {
            let temp = tempfile::tempdir().expect("temp");
            let steps = Arc::new(StopAfter::new(allowed + 7, io::ErrorKind::Other));
            let (part, _) = PartFile::open_with(temp.path(), BYTES, steps.clone()).expect("begun");
            part.write_at(&[7; BYTES as usize], 0).expect("written");
            part.sync_data().expect("durable");
            part.write_map(b"all").expect("vouched");
            let outcome = part.finish();
            let (done, part) = (temp.path().join(PACKAGE_FILE).exists(), temp.path().join(PART_FILE).exists());
            assert!(done ^ part, "after {allowed} steps");
            if part {
                let (part, map) = PartFile::open(temp.path(), BYTES).expect("resumed");
                assert_eq!(map.as_deref(), Some(b"all".as_slice()), "after {allowed} steps");
                part.finish().expect("finished after the crash");
            }
            assert_eq!(std::fs::read(temp.path().join(PACKAGE_FILE)).expect("there"), [7; BYTES as usize]);
            if outcome.is_ok() {
                let expected = [Step::SyncData, Step::RenamePackage, Step::SyncFolder, Step::RemoveMap];
                assert_eq!(steps.asked()[7..], expected);
                return;
            }
        }
    }

    #[test]
    fn a_full_disk_is_said_at_the_start_and_leaves_nothing() {
        let temp = tempfile::tempdir().expect("temp");
        let full = |allowed| Arc::new(StopAfter::new(allowed, io::ErrorKind::StorageFull));
        let error = PartFile::open_with(temp.path(), BYTES, full(0)).expect_err("full");
        assert_eq!(error.code(), "TED-1510");
        assert!(error.is_retryable());
        assert!(names(temp.path()).is_empty());

        let (part, _) = PartFile::open(temp.path(), BYTES).expect("room");
        part.write_map(b"map").expect("vouched");
        drop(part);
        PartFile::open_with(temp.path(), BYTES, full(0)).expect_err("full");
        assert_eq!(PartFile::open(temp.path(), BYTES).expect("room").1.as_deref(), Some(b"map".as_slice()));
    }
}
