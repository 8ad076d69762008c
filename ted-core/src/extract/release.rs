//! Release mode: each revision has a folder of its own, `releases/<revision>`, and one rename changes where the link
//! `current` leads.

use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::apply::Apply;
use crate::extract::disk::{self, Disk, Found};
use crate::extract::error::ExtractError;
use crate::extract::job::{CURRENT, RELEASES};
use crate::extract::journal::{Journal, Release, Standing};
use crate::extract::run::{recover_on, sync_root};
use crate::extract::staging::{JournalGoes, Staging};
use crate::extract::step::{NoHook, Step};
use crate::extract::target::Target;
use crate::id::{DistributionId, Revision};
use crate::limits::Limits;
use crate::package::{EntryPath, Mtime};

/// Where a release is put together in the staging folder.
const TREE: &[u8] = b"tree";

/// The releases of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Releases {
    /// The one that `current` leads to.
    pub current: Option<Revision>,
    /// Those that are there, oldest first.
    pub kept: Vec<Revision>,
}

impl Releases {
    /// The releases of a target in release mode; none where it does not exist yet.
    ///
    /// # Errors
    /// [`ExtractError::Obstacle`] when something else has the name of the folder or of the link, and
    /// [`ExtractError::Io`] when they cannot be read.
    pub fn of(target: &Target) -> Result<Self, ExtractError> {
        Self::look(target.existing()?.as_deref())
    }

    pub(super) fn look(root: Option<&Dir>) -> Result<Self, ExtractError> {
        let Some(root) = root else { return Ok(Self::default()) };
        let current = Self::look_at_current(root)?;
        let (path, failed) = named(RELEASES);
        let mut kept = match disk::facts_at(root, RELEASES.as_bytes()).map_err(&failed)? {
            None => vec![],
            Some(facts) if facts.mount_point => return Err(ExtractError::MountPoint { path }),
            Some(facts) if facts.found == Found::Folder => {
                let folder = disk::open_folder(root, RELEASES.as_bytes()).map_err(&failed)?;
                disk::names_in(&folder).map_err(&failed)?.iter().filter_map(|name| revision(name)).collect()
            }
            Some(facts) => {
                return Err(ExtractError::Obstacle { path, wanted: Found::Folder.name(), found: facts.found.name() });
            }
        };
        kept.sort_unstable();
        Ok(Self { current, kept })
    }

    fn look_at_current(root: &Dir) -> Result<Option<Revision>, ExtractError> {
        let (path, failed) = named(CURRENT);
        let Some(facts) = disk::facts_at(root, CURRENT.as_bytes()).map_err(&failed)? else { return Ok(None) };
        if facts.found == Found::Symlink {
            let text = disk::link_text(root, CURRENT.as_bytes()).map_err(&failed)?;
            let below = text.strip_prefix(RELEASES.as_bytes()).and_then(|text| text.strip_prefix(b"/"));
            if let Some(revision) = below.and_then(revision) {
                return Ok(Some(revision));
            }
        }
        Err(ExtractError::Obstacle { path, wanted: "link to a release", found: facts.found.name() })
    }

    /// Those that go once `revision` is the current one: all but the newest, never it nor the one before.
    pub(super) fn gone_after(&self, revision: Revision, limits: &Limits) -> Vec<Revision> {
        let stays = |other: &&Revision| **other == revision || Some(**other) == self.current;
        let staying = self.kept.iter().filter(stays).count() + usize::from(!self.kept.contains(&revision));
        let others: Vec<Revision> = self.kept.iter().filter(|other| !stays(other)).copied().collect();
        let room = limits.releases_kept.saturating_sub(staying);
        others[..others.len().saturating_sub(room)].to_vec()
    }

    /// The folder of a release that is there.
    pub(super) fn open(root: &Dir, revision: Revision) -> io::Result<Arc<Dir>> {
        let releases = disk::open_folder(root, RELEASES.as_bytes())?;
        Ok(Arc::new(disk::open_folder(&releases, revision.to_string().as_bytes())?))
    }
}

/// Has `current` lead to a release that is there, in one rename, and says to which it led before.
///
/// # Errors
/// [`ExtractError::NoRelease`] when the target has no such release; else as [`extract`](super::extract), and nothing
/// has changed then.
pub fn switch_release(
    target: &Target,
    distribution: &DistributionId,
    to: Revision,
) -> Result<Option<Revision>, ExtractError> {
    let disk = Disk::new(&NoHook);
    recover_on(disk, target, distribution, &Limits::DEFAULT)?;
    let missing = || ExtractError::NoRelease { target: target.path().to_owned(), revision: to };
    let root = target.existing()?.ok_or_else(missing)?;
    let releases = Releases::look(Some(&root))?;
    if !releases.kept.contains(&to) {
        return Err(missing());
    }
    if releases.current != Some(to) {
        let staging = Staging::create(disk, &root, target.path(), distribution)?;
        let switched = switch(disk, &root, &staging.folder, to);
        let removed = staging.remove(disk, JournalGoes::First);
        switched.and(removed)?;
        sync_root(disk, &root)?;
    }
    Ok(releases.current)
}

/// Replaces the link, by one that was made beside.
fn switch(disk: Disk<'_>, root: &Dir, staging: &Dir, to: Revision) -> Result<(), ExtractError> {
    let (_, failed) = named(CURRENT);
    let text = format!("{RELEASES}/{to}");
    if disk::facts_at(root, CURRENT.as_bytes()).map_err(&failed)?.is_some_and(|facts| facts.found == Found::Symlink)
        && disk::link_text(root, CURRENT.as_bytes()).map_err(&failed)? == text.as_bytes()
    {
        return Ok(());
    }
    let made = CURRENT.as_bytes();
    if disk::facts_at(staging, made).map_err(&failed)?.is_none() {
        let seconds = i64::try_from(to.number() / 1000).unwrap_or_default();
        disk.symlink(text.as_bytes(), staging, made, Mtime { seconds, nanoseconds: 0 }).map_err(&failed)?;
    }
    disk.rename(Step::Switch, (staging, made), (root, made)).map_err(failed)
}

impl Apply<'_> {
    /// Puts the release together, gives it its name, has `current` lead to it, and lets old ones go.
    pub(super) fn release(&self, staging: &Staging, journal: &Journal, release: &Release) -> Result<(), ExtractError> {
        let (_, failed) = named(RELEASES);
        let releases = self.folder(self.root, RELEASES.as_bytes(), 0o755).map_err(&failed)?;
        let name = journal.revision.to_string();
        let tree = match disk::facts_at(&releases, name.as_bytes()).map_err(&failed)? {
            None if release.new => {
                let tree = Arc::new(self.folder(&staging.folder, TREE, 0o700).map_err(&failed)?);
                self.tree(staging, journal, &tree)?;
                self.disk.sync_file_system(self.root).map_err(&failed)?;
                self.disk
                    .rename(Step::NameRelease, (&staging.folder, TREE), (&releases, name.as_bytes()))
                    .map_err(&failed)?;
                tree
            }
            _ => {
                let tree = Arc::new(disk::open_folder(&releases, name.as_bytes()).map_err(&failed)?);
                if !release.new {
                    self.tree(staging, journal, &tree)?;
                }
                tree
            }
        };
        // Only now: a folder that may not be written to cannot be moved.
        self.disk.set_attributes(Step::SetFolder, &*tree, journal.root).map_err(&failed)?;
        self.disk.sync_file_system(self.root).map_err(&failed)?;
        switch(self.disk, self.root, &staging.folder, journal.revision)?;
        for revision in &release.gone {
            self.let_release_go(&releases, &staging.folder, *revision).map_err(&failed)?;
        }
        Ok(())
    }

    fn let_release_go(&self, releases: &Dir, staging: &Dir, revision: Revision) -> io::Result<()> {
        let name = revision.to_string();
        let Some(facts) = disk::facts_at(releases, name.as_bytes())? else { return Ok(()) };
        self.let_go(releases, name.as_bytes(), Standing::of(facts.found))?;
        let gone = format!("release-{revision}");
        self.disk.rename(Step::RemoveRelease, (releases, name.as_bytes()), (staging, gone.as_bytes()))
    }

    fn folder(&self, above: &Dir, name: &[u8], mode: u32) -> io::Result<Dir> {
        if disk::facts_at(above, name)?.is_none() {
            self.disk.create_folder(Step::CreateFolder, above, name, mode)?;
        }
        let folder = disk::open_folder(above, name)?;
        self.disk.make_writable(Step::SetFolder, &folder)?;
        Ok(folder)
    }
}

/// A name of a release, which is its revision's number.
fn revision(name: &[u8]) -> Option<Revision> {
    let text = std::str::from_utf8(name).ok()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then(|| Revision::from_number(number))
}

fn named(name: &'static str) -> (EntryPath, impl Fn(io::Error) -> ExtractError) {
    let path = EntryPath::from_bytes(name.as_bytes()).unwrap_or_else(|_| EntryPath::root());
    (path, move |error| ExtractError::io("working on", name, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_releases_are_kept_and_so_are_the_current_one_and_the_one_before() {
        let release = Revision::from_number;
        for (current, kept, next, gone) in [
            (None, &[][..], 1, &[][..]),
            (Some(1), &[1], 2, &[]),
            (Some(2), &[1, 2], 3, &[]),
            (Some(3), &[1, 2, 3], 4, &[1]),
            (Some(1), &[1, 2, 3], 4, &[2]),
            (Some(3), &[1, 2, 3], 2, &[]),
            (Some(5), &[1, 2, 3, 4, 5], 6, &[1, 2, 3]),
            (Some(5), &[1, 2, 3, 4, 5], 5, &[1, 2]),
        ] {
            let releases =
                Releases { current: current.map(release), kept: kept.iter().copied().map(release).collect() };
            let expected: Vec<_> = gone.iter().copied().map(release).collect();
            assert_eq!(releases.gone_after(release(next), &Limits::DEFAULT), expected, "{kept:?} then {next}");
        }
    }

    #[test]
    fn only_a_revisions_number_is_a_releases_name() {
        assert_eq!(revision(b"17"), Some(Revision::from_number(17)));
        for name in [&b""[..], b"017", b"+17", b"17.old", b"latest", b"-1", b"\xff"] {
            assert_eq!(revision(name), None);
        }
    }
}
