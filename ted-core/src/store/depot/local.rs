//! A depot of files below the data directory. Its index is read from the packages themselves when it is opened.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use bytes::Bytes;

use crate::id::{DistributionId, PackageId};
use crate::store::depot::identify::{identify, is_damage};
use crate::store::depot::{Depot, DepotError, FinishedFile, PackageInfo, PackagePlace, check_range, in_order};
use crate::store::file::{FileError, create_folders, remove_if_there, sync_folder};
use crate::store::part_file::{CORRUPT_FILE, GRANT_FILE, PACKAGE_FILE, PART_FILE, PartFile};
use crate::store::staged_file::StagedFile;

/// Folders below the data directory that hold packages, and how many levels each has above the package files.
const TIERS: [(&str, usize); 2] = [("dist", 3), ("sub", 4)];

/// A depot of files. Cheap to clone; all clones are the same depot.
#[derive(Debug, Clone)]
pub struct LocalDepot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data: PathBuf,
    packages: RwLock<HashMap<PackageId, Slot>>,
    unreadable: Vec<Unreadable>,
    leftovers: Vec<Leftover>,
}

#[derive(Debug)]
struct Slot {
    info: PackageInfo,
    /// The file while somebody reads it, so that many readers share one.
    open: Weak<File>,
}

/// A file in a package's place that is no package. It is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What a transfer or a build that is not over left in a package's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it lies.
    pub place: PackagePlace,
    /// Whether it is a `distfile.corrupt`; else it is a `distfile.part`.
    pub is_corrupt: bool,
    /// Its length.
    pub bytes: u64,
}

impl LocalDepot {
    /// Opens the depot below the data directory `data`: reads the root of every package there is. Blocks while it does.
    ///
    /// # Errors
    /// [`DepotError::File`] when a folder or file cannot be read. A file that is no package is not an error, but stands
    /// in [`LocalDepot::unreadable`].
    pub fn open(data: &Path) -> Result<Self, DepotError> {
        let mut inner =
            Inner { data: data.to_owned(), packages: RwLock::default(), unreadable: Vec::new(), leftovers: Vec::new() };
        let mut packages = HashMap::new();
        for (tier, levels) in TIERS {
            for folder in folders_below(&data.join(tier), levels)? {
                let place = folder.strip_prefix(data).ok().and_then(PackagePlace::from_found);
                if let Some(place) = place {
                    inner.take_stock(&folder, place, &mut packages)?;
                }
            }
        }
        inner.packages = RwLock::new(packages);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Files found at opening that should be packages and are not.
    #[must_use]
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.inner.unreadable
    }

    /// Part files and corrupt packages found at opening.
    #[must_use]
    pub fn leftovers(&self) -> &[Leftover] {
        &self.inner.leftovers
    }

    /// The folder of a place.
    #[must_use]
    pub fn folder(&self, place: &PackagePlace) -> PathBuf {
        self.inner.data.join(place.folder())
    }

    /// The part file of a package of `bytes` bytes that is arriving, and its map: see [`PartFile::open`]. When it is
    /// finished, [`Depot::put`] adopts it. Blocks.
    ///
    /// # Errors
    /// As [`PartFile::open`].
    pub fn receive(&self, place: &PackagePlace, bytes: u64) -> Result<(PartFile, Option<Vec<u8>>), FileError> {
        PartFile::open(&self.folder(place), bytes)
    }

    /// A file to build a package in. When it is finished, [`Depot::put`] adopts it. Blocks.
    ///
    /// # Errors
    /// As [`StagedFile::create`].
    pub fn stage(&self, place: &PackagePlace) -> Result<StagedFile, FileError> {
        StagedFile::create(&self.folder(place))
    }

    /// The file of a package, for reading at any place from any thread. Blocks no longer than opening a file takes.
    ///
    /// # Errors
    /// [`DepotError::NotFound`], [`DepotError::File`].
    pub fn open_file(&self, id: PackageId) -> Result<Arc<File>, DepotError> {
        let mut packages = self.inner.write();
        let slot = packages.get_mut(&id).ok_or(DepotError::NotFound { id })?;
        if let Some(file) = slot.open.upgrade() {
            return Ok(file);
        }
        let path = self.inner.data.join(slot.info.place.folder()).join(PACKAGE_FILE);
        let file = Arc::new(File::open(&path).map_err(FileError::at("open", &path))?);
        slot.open = Arc::downgrade(&file);
        Ok(file)
    }

    /// The packages of a Distribution, ordered by revision, the baseline of one before its delta. Does not block.
    #[must_use]
    pub fn of_distribution(&self, distribution: &DistributionId) -> Vec<PackageInfo> {
        let packages = self.inner.read();
        let found = packages.values().filter(|slot| slot.info.root.distribution == *distribution);
        let found = found.map(|slot| slot.info.clone()).collect();
        drop(packages);
        in_order(found)
    }

    /// Whether somebody has a package's file open.
    #[must_use]
    pub fn is_open(&self, id: PackageId) -> bool {
        self.inner.read().get(&id).is_some_and(|slot| slot.open.strong_count() > 0)
    }

    /// Where a package's file lies; `None` where it is not here.
    #[must_use]
    pub fn path_of(&self, id: PackageId) -> Option<PathBuf> {
        let packages = self.inner.read();
        packages.get(&id).map(|slot| self.inner.data.join(slot.info.place.folder()).join(PACKAGE_FILE))
    }

    /// All packages, in no order.
    #[must_use]
    pub fn packages(&self) -> Vec<PackageInfo> {
        self.inner.read().values().map(|slot| slot.info.clone()).collect()
    }

    /// Renames a package that turned out to be damaged to `distfile.corrupt`; the depot has it no more.
    ///
    /// # Errors
    /// [`DepotError::NotFound`], [`DepotError::File`].
    pub async fn set_corrupt(&self, id: PackageId) -> Result<PathBuf, DepotError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let folder = inner.take(id)?.ok_or(DepotError::NotFound { id })?;
            let corrupt = folder.join(CORRUPT_FILE);
            set_aside(&folder)?;
            Ok(corrupt)
        })
        .await
    }

    /// The same for whatever lies in a place, be it a package that the depot knows or a file that is none any more.
    /// Says whether there was one.
    ///
    /// # Errors
    /// [`DepotError::File`].
    pub async fn set_place_corrupt(&self, place: &PackagePlace) -> Result<bool, DepotError> {
        let (inner, folder, place) = (Arc::clone(&self.inner), self.folder(place), place.clone());
        blocking(move || {
            inner.write().retain(|_, slot| slot.info.place != place);
            Ok(set_aside(&folder)?)
        })
        .await
    }

    /// The file in a place that holds what is left of a damaged package: a `distfile.corrupt`, or the part file that was
    /// made of one. `None` where there is neither.
    #[must_use]
    pub fn leftover_file(&self, place: &PackagePlace) -> Option<File> {
        let folder = self.folder(place);
        [CORRUPT_FILE, PART_FILE].iter().find_map(|name| open_regular(&folder.join(name)))
    }

    /// Removes the part file and the corrupt package of a place, where there are any, and the grant where there is no
    /// package.
    ///
    /// # Errors
    /// [`DepotError::File`]; [`FileError::Busy`] while the part file is being written.
    pub async fn clear(&self, place: &PackagePlace) -> Result<(), DepotError> {
        let folder = self.folder(place);
        blocking(move || {
            if !folder.is_dir() {
                return Ok(());
            }
            if folder.join(PART_FILE).symlink_metadata().is_ok() {
                // Opening it takes the lock that a transfer under way holds.
                let bytes = folder.join(PART_FILE).metadata().map_or(0, |found| found.len());
                PartFile::open(&folder, bytes)?.0.discard()?;
            }
            remove_if_there(&folder.join(CORRUPT_FILE))?;
            if folder.join(PACKAGE_FILE).symlink_metadata().is_err() {
                remove_if_there(&folder.join(GRANT_FILE))?;
            }
            remove_empty(&folder);
            Ok(())
        })
        .await
    }
}

impl Depot for LocalDepot {
    async fn info(&self, id: PackageId) -> Result<Option<PackageInfo>, DepotError> {
        Ok(self.inner.read().get(&id).map(|slot| slot.info.clone()))
    }

    async fn get_range(&self, id: PackageId, range: Range<u64>) -> Result<Bytes, DepotError> {
        let info = self.info(id).await?.ok_or(DepotError::NotFound { id })?;
        check_range(&info, &range)?;
        let depot = self.clone();
        blocking(move || {
            let file = depot.open_file(id)?;
            let path = depot.folder(&info.place).join(PACKAGE_FILE);
            let bytes = usize::try_from(range.end - range.start)
                .map_err(|_| FileError::new("read", &path, io::ErrorKind::FileTooLarge.into()))?;
            let mut content = vec![0; bytes];
            file.read_exact_at(&mut content, range.start).map_err(FileError::at("read", &path))?;
            Ok(content.into())
        })
        .await
    }

    async fn put(&self, finished: FinishedFile) -> Result<PackageInfo, DepotError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.adopt(finished)).await
    }

    async fn list(&self) -> Result<Vec<PackageInfo>, DepotError> {
        Ok(in_order(self.inner.read().values().map(|slot| slot.info.clone()).collect()))
    }

    async fn delete(&self, id: PackageId) -> Result<(), DepotError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            if let Some(folder) = inner.take(id)? {
                remove_if_there(&folder.join(PACKAGE_FILE))?;
                remove_if_there(&folder.join(GRANT_FILE))?;
                sync_folder(&folder)?;
                remove_empty(&folder);
            }
            Ok(())
        })
        .await
    }
}

impl Inner {
    /// Nothing panics while the lock is held, so a poisoned one still guards a whole map.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<PackageId, Slot>> {
        self.packages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<PackageId, Slot>> {
        self.packages.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what lies in one package's folder.
    fn take_stock(
        &mut self,
        folder: &Path,
        place: PackagePlace,
        packages: &mut HashMap<PackageId, Slot>,
    ) -> Result<(), DepotError> {
        for (name, is_corrupt) in [(PART_FILE, false), (CORRUPT_FILE, true)] {
            if let Ok(found) = folder.join(name).symlink_metadata() {
                self.leftovers.push(Leftover { place: place.clone(), is_corrupt, bytes: found.len() });
            }
        }
        let path = folder.join(PACKAGE_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::new("open", &path, error).into()),
        };
        match identify(&file, &path) {
            Ok((id, root, bytes)) => {
                let info = PackageInfo { id, root, bytes, place };
                packages.insert(id, Slot { info, open: Weak::new() });
                Ok(())
            }
            Err(error) if is_damage(&error) => {
                tracing::warn!(path = %path.display(), %error, "this file is no package and is left as it is");
                self.unreadable.push(Unreadable { path, reason: error.to_string() });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a finished file where it belongs, unless it lies there already, and takes it into the index.
    fn adopt(&self, finished: FinishedFile) -> Result<PackageInfo, DepotError> {
        let FinishedFile { path: from, place } = finished;
        let folder = self.data.join(place.folder());
        let path = folder.join(PACKAGE_FILE);
        let file = File::open(&from).map_err(FileError::at("open", &from))?;
        let (id, root, bytes) = identify(&file, &from)?;
        file.sync_all().map_err(FileError::at("make durable", &from))?;
        if from != path {
            create_folders(&folder)?;
            move_file(&from, &file, &path)?;
        }
        let info = PackageInfo { id, root, bytes, place };
        let mut packages = self.write();
        packages.retain(|_, slot| slot.info.place != info.place);
        packages.insert(id, Slot { info: info.clone(), open: Weak::new() });
        Ok(info)
    }

    /// Takes a package out of the index and says in which folder it lies.
    fn take(&self, id: PackageId) -> Result<Option<PathBuf>, DepotError> {
        Ok(self.write().remove(&id).map(|slot| self.data.join(slot.info.place.folder())))
    }
}

/// Gives the package file in `folder` the name of a corrupt one, durably. Says whether there was one.
fn set_aside(folder: &Path) -> Result<bool, FileError> {
    let (path, corrupt) = (folder.join(PACKAGE_FILE), folder.join(CORRUPT_FILE));
    match std::fs::rename(&path, &corrupt) {
        Ok(()) => sync_folder(folder).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::new("rename", &path, error)),
    }
}

/// A file that is no link, for reading.
fn open_regular(path: &Path) -> Option<File> {
    path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
    File::open(path).ok()
}

/// Renames `from` to `path`, durably; across file systems it is copied, and never seen in part.
fn move_file(from: &Path, file: &File, path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(path);
    match std::fs::rename(from, path) {
        Ok(()) => sync_folder(folder),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut staged = StagedFile::create(folder)?;
            let mut source = file;
            io::copy(&mut source, &mut staged).map_err(|error| staged.error(error))?;
            staged.finish()?;
            remove_if_there(from)
        }
        Err(error) => Err(FileError::new("rename", from, error)),
    }
}

/// Removes a package's folder and its revision's, as far as nothing is in them. What is not empty stays, so there is no
/// error to speak of.
fn remove_empty(folder: &Path) {
    if std::fs::remove_dir(folder).is_ok()
        && let Some(revision) = folder.parent()
    {
        let _ = std::fs::remove_dir(revision);
    }
}

/// The folders that lie `levels` below `top`. Links are not followed.
fn folders_below(top: &Path, levels: usize) -> Result<Vec<PathBuf>, FileError> {
    let mut folders = vec![top.to_owned()];
    for _ in 0..levels {
        let mut below = Vec::new();
        for folder in &folders {
            let entries = match std::fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(FileError::new("list the folder", folder, error)),
            };
            for entry in entries {
                let entry = entry.map_err(FileError::at("list the folder", folder))?;
                if entry.file_type().map_err(FileError::at("look at", &entry.path()))?.is_dir() {
                    below.push(entry.path());
                }
            }
        }
        folders = below;
    }
    folders.sort();
    Ok(folders)
}

async fn blocking<T, F>(work: F) -> Result<T, DepotError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, DepotError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(DepotError::Stopped))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::error::Coded as _;
    use crate::store::depot::fixtures::{package, place, place_at_subscriber};

    fn open(data: &Path) -> LocalDepot {
        LocalDepot::open(data).expect("opened")
    }

    #[tokio::test]
    async fn what_was_built_or_received_is_there_after_reopening() {
        let temp = tempfile::tempdir().expect("temp");
        let depot = open(temp.path());
        let (built, received) = (package("site", 1), package("tools", 2));

        let mut staged = depot.stage(&place("site", 1)).expect("begun");
        staged.write_all(&built).expect("written");
        let path = staged.finish().expect("finished");
        assert_eq!(path, temp.path().join("dist/site/1/baseline/distfile.ted"));
        let first = depot.put(FinishedFile { path, place: place("site", 1) }).await.expect("adopted");

        let away = place_at_subscriber("tools", 2);
        let (part, map) = depot.receive(&away, received.len() as u64).expect("begun");
        assert_eq!(map, None);
        part.write_at(&received, 0).expect("written");
        let path = part.finish().expect("finished");
        let second = depot.put(FinishedFile { path, place: away.clone() }).await.expect("adopted");
        assert_eq!(PackagePlace::of_root(&"dist.example.com".parse().expect("valid"), &second.root), away);

        let reopened = open(temp.path());
        assert_eq!(reopened.list().await.expect("listed"), depot.list().await.expect("listed"));
        assert!(reopened.unreadable().is_empty() && reopened.leftovers().is_empty());
        for (info, content) in [(first, built), (second, received)] {
            let file = reopened.open_file(info.id).expect("opened");
            let mut held = vec![0; content.len()];
            file.read_exact_at(&mut held, 0).expect("read");
            assert_eq!(held, content);
            assert!(Arc::ptr_eq(&file, &reopened.open_file(info.id).expect("opened")), "readers share one file");
        }
    }

    #[tokio::test]
    async fn files_that_are_no_packages_are_named_and_left_alone() {
        let temp = tempfile::tempdir().expect("temp");
        let good = package("site", 1);
        let folder = |revision: u64| {
            let folder = temp.path().join(place("site", revision).folder());
            create_folders(&folder).expect("created");
            folder
        };
        std::fs::write(folder(1).join(PACKAGE_FILE), &good).expect("written");
        std::fs::write(folder(2).join(PACKAGE_FILE), &good[..good.len() - 1]).expect("written");
        std::fs::write(folder(3).join(PACKAGE_FILE), "").expect("written");
        std::fs::write(folder(4).join(PART_FILE), "half").expect("written");
        std::fs::write(folder(5).join(CORRUPT_FILE), "bad").expect("written");
        std::fs::write(temp.path().join("dist/README"), "not ours").expect("written");
        create_folders(&temp.path().join("dist/site/old/baseline")).expect("created");

        let depot = open(temp.path());
        assert_eq!(depot.list().await.expect("listed").len(), 1);
        let unreadable: Vec<_> = depot.unreadable().iter().map(|found| found.path.clone()).collect();
        assert_eq!(unreadable, [folder(2).join(PACKAGE_FILE), folder(3).join(PACKAGE_FILE)]);
        let leftovers: Vec<_> = depot.leftovers().iter().map(|left| (left.place.clone(), left.is_corrupt)).collect();
        assert_eq!(leftovers, [(place("site", 4), false), (place("site", 5), true)]);
        for place in [place("site", 4), place("site", 5), place("site", 6)] {
            depot.clear(&place).await.expect("cleared");
        }
        assert!(open(temp.path()).leftovers().is_empty());
        assert!(!temp.path().join("dist/site/4").exists());
    }

    #[tokio::test]
    async fn a_part_file_that_is_being_written_is_not_cleared() {
        let temp = tempfile::tempdir().expect("temp");
        let depot = open(temp.path());
        let (_part, _) = depot.receive(&place("site", 1), 100).expect("begun");
        assert_eq!(depot.clear(&place("site", 1)).await.expect_err("in use").code(), "TED-1511");
    }

    #[tokio::test]
    async fn a_damaged_package_is_kept_under_another_name() {
        let temp = tempfile::tempdir().expect("temp");
        let depot = open(temp.path());
        let folder = depot.folder(&place("site", 1));
        create_folders(&folder).expect("created");
        let content = package("site", 1);
        std::fs::write(folder.join(PACKAGE_FILE), &content).expect("written");
        let finished = FinishedFile { path: folder.join(PACKAGE_FILE), place: place("site", 1) };
        let info = depot.put(finished).await.expect("adopted");

        assert_eq!(depot.set_corrupt(info.id).await.expect("renamed"), folder.join(CORRUPT_FILE));
        assert_eq!(depot.open_file(info.id).expect_err("gone").code(), "TED-1530");
        assert_eq!(depot.set_corrupt(info.id).await.expect_err("gone").code(), "TED-1530");
        assert!(PartFile::salvage(&folder, content.len() as u64).expect("looked").is_some());
    }

    #[tokio::test]
    async fn a_deleted_package_leaves_no_empty_folders_and_its_readers_finish() {
        let temp = tempfile::tempdir().expect("temp");
        let depot = open(temp.path());
        let content = package("site", 1);
        let mut staged = depot.stage(&place("site", 1)).expect("begun");
        staged.write_all(&content).expect("written");
        let path = staged.finish().expect("finished");
        let info = depot.put(FinishedFile { path, place: place("site", 1) }).await.expect("adopted");
        let file = depot.open_file(info.id).expect("opened");
        depot.delete(info.id).await.expect("deleted");
        assert!(!temp.path().join("dist/site/1").exists());
        let mut held = vec![0; content.len()];
        file.read_exact_at(&mut held, 0).expect("still readable");
        assert_eq!(held, content);
    }
}
