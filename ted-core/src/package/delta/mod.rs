//! Deltas: building one from two revisions, reading and judging it, and applying it.
//!
//! A delta holds what changed from one revision to a later one. New content is compressed against old content that
//! resembles it, so a receiver needs the old revision's files to make anything of it. Byte layout in `docs/format.md`.

mod anchors;
mod apply;
mod build;
mod columns;
mod diff;
mod error;
mod files;
#[cfg(test)]
mod hostile;
mod index;
mod parallel;
mod plan;
mod prefix;
mod resolve;
mod room;
mod rows;
mod segments;

pub use apply::Applier;
pub use build::{BuiltDelta, RevisionContent, build_delta};
pub use diff::{Diff, DiffContent, DiffRow};
pub use error::DeltaError;
pub use files::{Files, PackageFiles, SourceFiles};
pub use index::DeltaIndex;
pub use resolve::{NewContent, OldRange, Operation, Resolved};

pub(super) use columns::judge_bytes;
pub(super) use index::{DeltaCatalog, OpenedDelta};
