//! A revision's entries out of package files: a baseline, or a delta and what it goes from.

use std::path::{Path, PathBuf};

use ted_core::id::Revision;
use ted_core::limits::Limits;
use ted_core::package::delta::DeltaIndex;
use ted_core::package::{AnyIndex, Entry, PackageKind, changes};

use super::open::{KeyFinder, PackageFile, Trust};
use super::view::{ChangeView, Changes};
use crate::error::{ApiError, code, from_library};

/// Deltas that are followed back to a baseline: more than any Distribution keeps.
const DELTAS_MAX: usize = 64;

/// One revision's entries, in path order.
pub(super) struct Revised {
    pub(super) revision: Revision,
    pub(super) entries: Vec<Entry>,
}

/// The revision that `files` are put together to: a baseline, and the deltas that lead on from it.
pub(super) fn put_together(files: &[PathBuf], trust: &Trust, keys: &KeyFinder<'_>) -> Result<Revised, ApiError> {
    let (first, deltas) = files.split_first().ok_or_else(|| ApiError::new(code::FILE, "there is no package"))?;
    let baseline = PackageFile::open(first, trust, keys)?;
    let index = baseline.opened()?;
    let mut at = Revised {
        revision: index.root().revision,
        entries: index.catalog().iter().map(|row| row.entry.clone()).collect(),
    };
    for file in deltas {
        at = step(&at, delta_of(&PackageFile::open(file, trust, keys)?)?, file)?;
    }
    Ok(at)
}

/// What the delta in the file `file` changes. The packages that it goes from are `base`, or lie beside it, where a node
/// keeps them.
pub(super) fn changes_of(
    (file, index): (&Path, &DeltaIndex),
    base: Option<&Path>,
    trust: &Trust,
    keys: &KeyFinder<'_>,
) -> Result<Changes, ApiError> {
    let files = match base {
        Some(base) => vec![base.to_owned()],
        None => vec![beside(file, index.base_revision()).ok_or_else(|| no_base(index))?],
    };
    let files = back_to_baseline(files, trust, keys)?;
    let from = put_together(&files, trust, keys)?;
    let to = step(&from, index, file)?;
    Ok(compared(&from, &to))
}

/// What became of each path from one revision to the other.
pub(super) fn compared(from: &Revised, to: &Revised) -> Changes {
    let changes = changes(&from.entries, &to.entries).iter().map(ChangeView::of).collect();
    Changes { from: from.revision.number(), to: to.revision.number(), changes }
}

fn step(from: &Revised, index: &DeltaIndex, file: &Path) -> Result<Revised, ApiError> {
    let resolved = index.resolve(&from.entries, &Limits::DEFAULT).map_err(|error| {
        let mut error = from_library(error);
        error.message = format!("{}: {}", file.display(), error.message);
        error
    })?;
    Ok(Revised { revision: index.root().revision, entries: resolved.entries })
}

fn delta_of(package: &PackageFile) -> Result<&DeltaIndex, ApiError> {
    match &package.index {
        AnyIndex::Delta(index) => Ok(index),
        // A baseline says what it lacks, and a sealed package that there is no key.
        other => Err(match other.opened() {
            Ok(_) => ApiError::new(code::FILE, "a baseline stands where a delta is needed"),
            Err(error) => error.into(),
        }),
    }
}

/// `files`, of which the last may be a delta, with those before it that it needs.
fn back_to_baseline(mut files: Vec<PathBuf>, trust: &Trust, keys: &KeyFinder<'_>) -> Result<Vec<PathBuf>, ApiError> {
    for _ in 0..DELTAS_MAX {
        let Some(last) = files.last() else { break };
        let package = PackageFile::open(last, trust, keys)?;
        if package.index.blind().root().kind == PackageKind::Baseline {
            files.reverse();
            return Ok(files);
        }
        let index = delta_of(&package)?;
        let before = beside(last, index.base_revision()).ok_or_else(|| no_base(index))?;
        files.push(before);
    }
    Err(ApiError::new(code::FILE, "the deltas lead back to no baseline"))
}

/// Where a node keeps the package of `revision` beside the package in `file`: `<revision>/<kind>/distfile.ted`.
fn beside(file: &Path, revision: Revision) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    let revisions = file.parent()?.parent()?.parent()?;
    let of_kind = |kind: &str| Some(revisions.join(revision.to_string()).join(kind).join(file.file_name()?));
    [of_kind("baseline"), of_kind("delta")].into_iter().flatten().find(|path| path.is_file())
}

fn no_base(index: &DeltaIndex) -> ApiError {
    let base = index.base_revision();
    ApiError::new(code::NO_BASE, format!("the delta goes from revision {base}, whose package is not beside it"))
}
