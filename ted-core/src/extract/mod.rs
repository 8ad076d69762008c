//! Extraction: a verified revision becomes files, and no list of entries, however hostile, writes outside the target.
//!
//! [`extract`] works in `merge` mode: it adds and updates, and deletes nothing. In this order:
//!
//! 1. The list is judged ([`judge_entries`]) and compared with what stands in the target; whatever is refused is
//!    refused now, with its entry named and nothing written.
//! 2. Everything new is written into a staging folder inside the target, checked against its BLAKE3, and synced.
//! 3. A journal that says what goes where is written and synced. This is the commit point.
//! 4. The journal is applied, renames mostly; then the staging folder goes away.
//!
//! After a crash [`recover`] deletes the staging folder if there is no journal in it, and applies the journal if
//! there is one. So each file is the old or the new one, whole, at any time.
//!
//! Every path component is opened without following symbolic links, relative to the folder above it, and a link
//! that somebody planted in the target is something in the way, never a way.

pub(crate) mod accounts;
mod apply;
mod compare;
mod disk;
mod error;
mod fold;
mod folders;
mod job;
mod journal;
mod judge;
mod keep;
mod made;
mod names;
mod plan;
mod run;
mod space;
mod sparse;
mod stage;
mod staging;
mod step;
mod target;
#[cfg(test)]
mod tests;

pub use compare::{Difference, compare};
pub use error::{ExtractError, Refusal};
pub use job::{
    ExtractJob, ExtractOptions, ExtractPhase, ExtractProgress, ExtractSummary, Links, Ownership, Privilege, Recovery,
};
pub use judge::judge_entries;
pub use keep::NotKept;
pub use run::{extract, recover};
pub use target::{Create, Target};
