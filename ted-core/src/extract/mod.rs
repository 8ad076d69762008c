//! Extraction: a verified revision becomes files, and no list of entries, however hostile, writes outside the target.
//!
//! [`extract`] works in one of three modes. `merge` adds and updates, and deletes nothing. `sync` deletes besides what
//! the revision does not have. `release` gives each revision a folder of its own, and has a link lead to one of them.
//! In this order:
//!
//! 1. The list is judged ([`judge_entries`]) and compared with what stands in the target; whatever is refused is
//!    refused now, with its entry named and nothing written.
//! 2. Everything new is written into a staging folder inside the target, checked against its BLAKE3, and synced.
//! 3. A journal that says what goes where is written and synced. This is the commit point.
//! 4. The journal is applied, renames mostly, and what is deleted is moved into the staging folder; then that goes away.
//!
//! After a crash [`recover`] deletes the staging folder if there is no journal in it, and applies the journal if
//! there is one. So each file is the old or the new one, whole, at any time, and of a release all files at once.
//!
//! Every path component is opened without following symbolic links, relative to the folder above it, and a link
//! that somebody planted in the target is something in the way, never a way.

mod apply;
mod compare;
mod contents;
mod disk;
mod error;
mod fold;
mod folders;
mod job;
mod journal;
mod judge;
mod local;
mod made;
mod making;
mod names;
mod plan;
mod release;
mod run;
mod space;
mod sparse;
mod stage;
mod staging;
mod step;
mod survey;
mod sweep;
mod target;
mod target_files;
#[cfg(test)]
mod tests;

pub use compare::{Difference, compare};
pub use contents::{ContentMaker, Contents, MakeContent, MakeError};
pub use error::{ExtractError, Refusal};
pub use job::{
    ExtractJob, ExtractOptions, ExtractPhase, ExtractProgress, ExtractSummary, Gate, Links, OnLocalChange, PathList,
    Privilege, Recovery, installed,
};
pub use judge::judge_entries;
pub use release::{Releases, switch_release};
pub use run::{extract, recover};
pub use survey::{Preview, is_interrupted, preview};
pub use target::{Create, Target};
pub use target_files::TargetFiles;
