//! What an extraction comes to, in its mode, found out without writing: for the extraction itself, and for whoever asks.

use std::sync::Arc;

use cap_std::fs::Dir;

use crate::error::Coded as _;
use crate::extract::error::ExtractError;
use crate::extract::job::{ExtractJob, PathList, Recovery};
use crate::extract::journal::{Journal, Release};
use crate::extract::judge::judge_entries;
use crate::extract::made::PreviousList;
use crate::extract::plan::{Knowledge, Plan, plan};
use crate::extract::release::Releases;
use crate::extract::space::judge_space;
use crate::extract::staging::Staging;
use crate::extract::target::Target;
use crate::id::Revision;
use crate::limits::Limits;
use crate::model::ExtractMode;
use crate::package::EntryPath;

/// What has to be done, and where.
pub(super) struct Survey {
    /// The folder that the entries go to; `None` if it does not exist yet.
    pub(super) tree: Option<Arc<Dir>>,
    pub(super) plan: Plan,
    /// What becomes of releases, in release mode.
    pub(super) release: Option<Release>,
    /// Whether releases change, even if no entry does.
    pub(super) switches: bool,
    /// What somebody else made or changed in what the revision takes the place of.
    pub(super) local_changes: Vec<EntryPath>,
}

/// Compares the list, which has been judged, with what stands in the target.
pub(super) fn survey(target: &Target, job: &ExtractJob<'_>, recovered: Recovery) -> Result<Survey, ExtractError> {
    let root = target.existing()?;
    let previous = job.previous.map(PreviousList::Entries);
    let knowledge = match recovered {
        Recovery::RolledForward(revision) if revision == job.revision => {
            Knowledge::Left(Some(PreviousList::Rows(job.rows)))
        }
        Recovery::RolledForward(_) => Knowledge::Overtaken(previous),
        Recovery::Nothing | Recovery::RolledBack => Knowledge::Left(previous),
    };
    if job.options.mode != ExtractMode::Release {
        let plan = plan(root.clone(), job, knowledge)?;
        let local_changes = plan.local_changes.clone();
        return Ok(Survey { tree: root, plan, release: None, switches: false, local_changes });
    }
    let releases = Releases::look(root.as_deref())?;
    let new = !releases.kept.contains(&job.revision);
    let open = |revision| root.as_deref().map(|root| Releases::open(root, revision)).transpose();
    let failed = |error| ExtractError::io("opening a release in", target.path().display(), error);
    let tree = if new { None } else { open(job.revision).map_err(failed)? };
    // A release gets its name when it is whole, so what stands under it is this list's.
    let plan = plan(tree.clone(), job, Knowledge::Left(Some(PreviousList::Rows(job.rows))))?;
    let local_changes = match releases.current.filter(|current| releases.kept.contains(current)) {
        Some(current) if current != job.revision && job.previous.is_some() => {
            crate::extract::plan::plan(open(current).map_err(failed)?, job, knowledge)?.local_changes
        }
        _ => plan.local_changes.clone(),
    };
    let gone = releases.gone_after(job.revision, &job.options.limits);
    let switches = releases.current != Some(job.revision) || !gone.is_empty();
    Ok(Survey { tree, plan, release: Some(Release { new, gone }), switches, local_changes })
}

/// What an extraction would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// An earlier extraction was interrupted, and will be finished or undone first; the rest is told as things stand.
    pub interrupted: bool,
    /// Entries that are not there yet.
    pub added: PathList,
    /// Entries that are there and not as the revision has them.
    pub updated: PathList,
    /// What goes because the revision does not have it.
    pub deleted: PathList,
    /// Files and links that somebody else made or changed, and that the revision takes the place of.
    pub local_changes: PathList,
    /// What such files are kept as.
    pub kept: PathList,
    /// What the revision does not have either and stays all the same.
    pub left: PathList,
    /// Why it would be refused, each with its stable code; the extraction writes nothing then.
    pub refused: Vec<(&'static str, String)>,
    /// Entries that are as the revision has them.
    pub unchanged: u64,
    /// Bytes of content that would be written.
    pub bytes: u64,
    /// In release mode: the release that is current now.
    pub current: Option<Revision>,
    /// In release mode: releases that would not be kept any longer.
    pub releases_gone: Vec<Revision>,
}

/// Says what [`extract`](super::extract) would do. Nothing is written, so names that only the target's file system
/// refuses are not found out. In release mode the revision is compared with the release that is current.
///
/// # Errors
/// [`ExtractError`] when the target cannot be read, or an extraction is under way.
pub fn preview(target: &Target, job: &ExtractJob<'_>) -> Result<Preview, ExtractError> {
    let limits = &job.options.limits;
    let mut preview = Preview::default();
    if let Err(error) = judge_entries(job.rows, job.options, false) {
        preview.refused.push(refusal(&error));
        return Ok(preview);
    }
    let recovered = interrupted(target, job, limits)?;
    preview.interrupted = recovered != Recovery::Nothing;
    let Survey { mut plan, release, local_changes, .. } = survey(target, job, recovered)?;
    preview.refused = plan.blocked.iter().map(refusal).collect();
    if let Err(error) = judge_space(&target.nearest(), job.rows, &plan) {
        preview.refused.push(refusal(&error));
    }
    preview.bytes = plan.contents.iter().map(|&index| job.rows[index].entry.size).sum();
    preview.kept = PathList::of(plan.copies(), limits);
    preview.local_changes = PathList::of(&local_changes, limits);
    if let Some(release) = release {
        let releases = Releases::of(target)?;
        let current = releases.current.filter(|current| releases.kept.contains(current));
        (preview.current, preview.releases_gone) = (current, release.gone);
        // To people the changes are those from one release to the next.
        if let (Some(current), Some(root), true) = (current, target.existing()?, release.new) {
            let open = Releases::open(&root, current);
            let open =
                open.map_err(|error| ExtractError::io("opening a release in", target.path().display(), error))?;
            plan =
                crate::extract::plan::plan(Some(open), job, Knowledge::Left(job.previous.map(PreviousList::Entries)))?;
        }
    }
    let written = [&plan.contents, &plan.symlinks, &plan.hard_links, &plan.new_folders].into_iter().flatten().copied();
    let mut written: Vec<usize> = written.chain(plan.replacing.iter().copied()).collect();
    written.sort_unstable();
    written.dedup();
    let (updated, added): (Vec<usize>, Vec<usize>) =
        written.into_iter().partition(|index| plan.replacing.binary_search(index).is_ok());
    let named = |indexes: &[usize]| PathList::of(indexes.iter().map(|&index| &job.rows[index].entry.path), limits);
    preview.added = named(&added);
    preview.updated = named(&updated);
    preview.deleted = PathList::of(&plan.deleted, limits);
    preview.left = PathList::of(plan.left.iter().map(|(path, _)| path), limits);
    preview.unchanged = plan.unchanged;
    Ok(preview)
}

fn refusal(error: &ExtractError) -> (&'static str, String) {
    (error.code(), error.to_string())
}

/// What the next extraction will make of what an interrupted one left.
fn interrupted(target: &Target, job: &ExtractJob<'_>, limits: &Limits) -> Result<Recovery, ExtractError> {
    let Some(root) = target.existing()? else { return Ok(Recovery::Nothing) };
    let Some(staging) = Staging::find(&root, target.path(), &job.distribution)? else { return Ok(Recovery::Nothing) };
    let journal = Journal::read(&staging, target.path(), limits)?;
    Ok(journal.map_or(Recovery::RolledBack, |journal| Recovery::RolledForward(journal.revision)))
}

/// Whether an interrupted extraction of this Distribution left something in the target, for [`recover`](super::recover)
/// or the next extraction to finish or undo.
///
/// # Errors
/// [`ExtractError`] when the target cannot be read.
pub fn is_interrupted(target: &Target, distribution: &crate::id::DistributionId) -> Result<bool, ExtractError> {
    let Some(root) = target.existing()? else { return Ok(false) };
    Ok(Staging::find(&root, target.path(), distribution)?.is_some())
}
