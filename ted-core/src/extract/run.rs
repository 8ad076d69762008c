//! The two operations: extract, and recover.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cap_std::fs::Dir;

use crate::extract::apply::Apply;
use crate::extract::disk::Disk;
use crate::extract::error::ExtractError;
use crate::extract::job::{ExtractJob, ExtractOptions, ExtractProgress, ExtractSummary, PathList, Recovery};
use crate::extract::journal::{Journal, Release};
use crate::extract::judge::judge_entries;
use crate::extract::names::judge_names;
use crate::extract::plan::Plan;
use crate::extract::space::judge_space;
use crate::extract::stage::{Stage, judge_body};
use crate::extract::staging::{JournalGoes, Staging};
#[cfg(test)]
use crate::extract::step::Hook;
use crate::extract::step::NoHook;
use crate::extract::survey::{Survey, survey};
use crate::extract::target::Target;
use crate::id::DistributionId;
use crate::limits::Limits;
use crate::package::EntryPath;

/// Extracts one revision into the target, as [`ExtractOptions::mode`] says.
///
/// What an earlier extraction left is finished or undone first. Files that the previous revision left, that this
/// one has unchanged, and whose size, time and mode say that nobody touched them, are not written again.
/// `progress` is called from several threads, one at a time. `cancel` is looked at before each frame; once the
/// journal is committed it is too late.
///
/// # Errors
/// Until the journal is committed, [`ExtractError`] means that the target is as it was. Later the journal stays, and
/// [`recover`] or the next extraction finishes it.
pub fn extract(
    target: &Target,
    job: &ExtractJob<'_>,
    progress: &(dyn Fn(ExtractProgress) + Sync),
    cancel: &AtomicBool,
) -> Result<ExtractSummary, ExtractError> {
    Run { target, job, progress, cancel, disk: Disk::new(&NoHook) }.run()
}

/// Finishes or undoes what an interrupted extraction of this Distribution left in the target. To be called at start.
///
/// # Errors
/// [`ExtractError`] when the staging folder is not ours or in use, its journal is damaged, or the disk fails; nothing
/// is lost, and it may be called again.
pub fn recover(target: &Target, distribution: &DistributionId) -> Result<Recovery, ExtractError> {
    recover_on(Disk::new(&NoHook), target, distribution, &ExtractOptions::default().limits)
}

/// [`extract`], with the hook.
#[cfg(test)]
pub(super) fn extract_with(
    target: &Target,
    job: &ExtractJob<'_>,
    hook: &dyn Hook,
) -> Result<ExtractSummary, ExtractError> {
    Run { target, job, progress: &|_| {}, cancel: &AtomicBool::new(false), disk: Disk::new(hook) }.run()
}

/// [`recover`], with the hook.
#[cfg(test)]
pub(super) fn recover_with(
    target: &Target,
    distribution: &DistributionId,
    hook: &dyn Hook,
) -> Result<Recovery, ExtractError> {
    recover_on(Disk::new(hook), target, distribution, &Limits::DEFAULT)
}

pub(super) fn recover_on(
    disk: Disk<'_>,
    target: &Target,
    distribution: &DistributionId,
    limits: &Limits,
) -> Result<Recovery, ExtractError> {
    let Some(root) = target.existing()? else { return Ok(Recovery::Nothing) };
    let Some(staging) = Staging::find(&root, target.path(), distribution)? else { return Ok(Recovery::Nothing) };
    if let Some(journal) = Journal::read(&staging, target.path(), limits)? {
        Apply { disk, root: &root, limits, report: &|_| {} }.run(staging, &journal)?;
        return Ok(Recovery::RolledForward(journal.revision));
    }
    staging.remove(disk, JournalGoes::First)?;
    Ok(Recovery::RolledBack)
}

/// The target's list of names reaches the disk.
pub(super) fn sync_root(disk: Disk<'_>, root: &Dir) -> Result<(), ExtractError> {
    disk.sync(root).map_err(|error| ExtractError::io("syncing", "the target", error))
}

struct Run<'a> {
    target: &'a Target,
    job: &'a ExtractJob<'a>,
    progress: &'a (dyn Fn(ExtractProgress) + Sync),
    cancel: &'a AtomicBool,
    disk: Disk<'a>,
}

impl Run<'_> {
    fn run(&self) -> Result<ExtractSummary, ExtractError> {
        let (job, limits) = (self.job, &self.job.options.limits);
        judge_entries(job.rows, job.options, false)?;
        judge_body(job.rows, job.contents)?;
        let recovered = match recover_on(self.disk, self.target, &job.distribution, limits)? {
            Recovery::Nothing => job.recovered,
            recovered => recovered,
        };
        let mut survey = survey(self.target, job, recovered)?;
        if let Some(error) = ExtractError::all_of(std::mem::take(&mut survey.plan.blocked)) {
            return Err(error);
        }
        let Survey { tree, plan, release, switches, local_changes } = survey;
        if !plan.is_empty() || switches {
            judge_space(&self.target.nearest(), job.rows, &plan)?;
            self.write(&plan, tree, release)?;
        }
        let list = |paths: &[EntryPath]| PathList::of(paths, limits);
        Ok(ExtractSummary {
            recovered,
            files_written: plan.contents.len() as u64,
            bytes_written: plan.contents.iter().map(|&index| job.rows[index].entry.size).sum(),
            links_made: (plan.symlinks.len() + plan.hard_links.len()) as u64,
            folders_made: plan.new_folders.len() as u64,
            unchanged: plan.unchanged,
            local_changes: list(&local_changes),
            kept: PathList::of(plan.copies(), limits),
            deleted: list(&plan.deleted),
            left: PathList::of(plan.left.iter().map(|(path, _)| path), limits),
        })
    }

    /// Stages, commits and applies. A failure before the commit leaves nothing behind.
    fn write(&self, plan: &Plan, tree: Option<Arc<Dir>>, release: Option<Release>) -> Result<(), ExtractError> {
        let (root, made) = self.target.create(self.disk)?;
        let journal = Journal::new(self.job, plan, release);
        let staged = Staging::create(self.disk, &root, self.target.path(), &self.job.distribution)
            .and_then(|staging| self.commit((&root, tree.as_ref().unwrap_or(&root)), staging, plan, &journal));
        match staged {
            Ok(staging) => {
                let limits = &self.job.options.limits;
                Apply { disk: self.disk, root: &root, limits, report: self.progress }.run(staging, &journal)
            }
            Err(error) => {
                self.target.uncreate(self.disk, made);
                Err(error)
            }
        }
    }

    fn commit(
        &self,
        roots: (&Arc<Dir>, &Arc<Dir>),
        staging: Staging,
        plan: &Plan,
        journal: &Journal,
    ) -> Result<Staging, ExtractError> {
        match self.stage(roots, &staging, plan, journal) {
            Ok(()) => Ok(staging),
            Err(error) => {
                // If this fails as well, `recover` does it later; the first error is the one that says what is wrong.
                let _ = staging.remove(self.disk, JournalGoes::First);
                Err(error)
            }
        }
    }

    /// Links are made to what stands in `tree` already.
    fn stage(
        &self,
        (root, tree): (&Arc<Dir>, &Arc<Dir>),
        staging: &Staging,
        plan: &Plan,
        journal: &Journal,
    ) -> Result<(), ExtractError> {
        let (disk, job) = (self.disk, self.job);
        judge_names(disk, &staging.folder, job.rows, job.options)?;
        let (report, cancel) = (self.progress, self.cancel);
        Stage { disk, job, plan, staging: &staging.folder, report, cancel }.run(tree)?;
        disk.sync_file_system(root)
            .map_err(|error| ExtractError::io("syncing", self.target.path().display(), error))?;
        if !job.options.gate.is_open() {
            return Err(ExtractError::Cancelled);
        }
        journal.commit(disk, staging, &job.options.limits)
    }
}
